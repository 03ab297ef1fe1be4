/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A guest that runs: each vCPU counts its interrupts, vector by vector, and halts between them. */
#ifndef TEST_GUEST_H
#define TEST_GUEST_H
#include <pthread.h>
#include <stdatomic.h>

#include "kvm.h"

struct guest {
    struct vm *vm;
    uint8_t *memory;            /* stays, when the VM is replaced */
    pthread_t threads[MAX_CPUS];
    struct kvm_run *run[MAX_CPUS];
    atomic_bool stop;
    atomic_uint eois[256];      /* KVM_EXIT_IOAPIC_EOI, by vector */
};

/* Everything of a vCPU that this guest uses. */
struct cpu_state {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_lapic_state apic;
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp_state;
};

/* The VM's vCPUs, their APICs in x2APIC mode, ready to run. */
bool guest_open(struct guest *guest, struct vm *vm);
/* The guest's memory goes on in another VM, whose vCPUs are given their state by cpu_restore. */
bool guest_move(struct guest *guest, struct vm *vm);
void guest_start(struct guest *guest);
void guest_stop(struct guest *guest);
void guest_close(struct guest *guest);

bool cpu_save(const struct guest *guest, unsigned cpu, struct cpu_state *state);
bool cpu_restore(const struct guest *guest, unsigned cpu, struct cpu_state *state);

uint32_t guest_count(const struct guest *guest, unsigned cpu, unsigned vector);
/* Within some seconds. */
bool guest_reaches(const struct guest *guest, unsigned cpu, unsigned vector, uint32_t count);

#endif
