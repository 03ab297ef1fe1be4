/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A virtual machine that never runs: its local APICs show which vector reached which vCPU. */
#ifndef TEST_KVM_H
#define TEST_KVM_H
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

enum irqchip { FULL_IRQCHIP, SPLIT_IRQCHIP, NO_IRQCHIP };

#define MAX_CPUS 32
struct vm {
    int kvm, fd;
    unsigned cpus;
    int cpu[MAX_CPUS];      /* descriptors */
};

bool have_kvm(void);
bool vm_open(struct vm *vm, enum irqchip irqchip);
bool vm_add_irqchip(struct vm *vm, enum irqchip irqchip);
bool vm_add_cpu(struct vm *vm, unsigned apic_id);   /* with its APIC switched on */
bool vm_use_x2apic_ids(struct vm *vm);              /* KVM_X2APIC_API_USE_32BIT_IDS */
void vm_close(struct vm *vm);

bool cpu_enter_x2apic(const struct vm *vm, unsigned cpu);
bool cpu_switch_apic(const struct vm *vm, unsigned cpu, bool on);   /* the software enable bit */
void cpu_arrived(const struct vm *vm, unsigned cpu, uint8_t arrived[256]); /* the IRR: 1 for each vector in it */
void cpu_forget(const struct vm *vm, unsigned cpu, unsigned vector);       /* takes one vector out of the IRR */

/* The in-kernel IOAPIC: pin, edge-triggered and unmasked, sends this vector to this APIC. */
bool ioapic_connect(const struct vm *vm, unsigned pin, unsigned apic_id, unsigned vector);
void line_pulse(const struct vm *vm, unsigned gsi);

#endif
