/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kvm.h"
#include "tap.h"

#define APIC_SPURIOUS 0x0F0
#define APIC_IRR      0x200     /* 32 vectors every 16 bytes */
#define APIC_BASE_X2APIC (1ull << 10)

static bool tried(int result, const char *what)
{
    if (result < 0)
        tap_fail(__FILE__, __LINE__, "%s: %s", what, strerror(errno));
    return result >= 0;
}

bool have_kvm(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool usable = ioctl(fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION;
    close(fd);
    return usable;
}

bool vm_open(struct vm *vm, enum irqchip irqchip)
{
    *vm = (struct vm){ .kvm = -1, .fd = -1 };
    vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (!tried(vm->kvm, "open /dev/kvm"))
        return false;
    do
        vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, 0);
    while (vm->fd < 0 && errno == EINTR);
    return tried(vm->fd, "KVM_CREATE_VM") && vm_add_irqchip(vm, irqchip);
}

bool vm_add_irqchip(struct vm *vm, enum irqchip irqchip)
{
    struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
    switch (irqchip) {
    case FULL_IRQCHIP:
        return tried(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
    case SPLIT_IRQCHIP:
        return tried(ioctl(vm->fd, KVM_ENABLE_CAP, &split), "KVM_CAP_SPLIT_IRQCHIP");
    default:
        return true;
    }
}

bool vm_add_cpu(struct vm *vm, unsigned apic_id)
{
    if (vm->cpus == MAX_CPUS)
        return false;
    int fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)apic_id);
    if (!tried(fd, "KVM_CREATE_VCPU"))
        return false;
    vm->cpu[vm->cpus++] = fd;
    return cpu_switch_apic(vm, vm->cpus - 1, true);
}

bool vm_use_x2apic_ids(struct vm *vm)
{
    struct kvm_enable_cap ids = { .cap = KVM_CAP_X2APIC_API, .args = { KVM_X2APIC_API_USE_32BIT_IDS } };
    return tried(ioctl(vm->fd, KVM_ENABLE_CAP, &ids), "KVM_CAP_X2APIC_API");
}

void vm_close(struct vm *vm)
{
    for (unsigned i = 0; i < vm->cpus; i++)
        close(vm->cpu[i]);
    if (vm->fd >= 0)
        close(vm->fd);
    if (vm->kvm >= 0)
        close(vm->kvm);
    *vm = (struct vm){ .kvm = -1, .fd = -1 };
}

/* ---- the local APIC ---- */

static uint32_t read_register(const struct kvm_lapic_state *apic, unsigned offset)
{
    uint32_t value;
    memcpy(&value, apic->regs + offset, sizeof(value));
    return value;
}

static void write_register(struct kvm_lapic_state *apic, unsigned offset, uint32_t value)
{
    memcpy(apic->regs + offset, &value, sizeof(value));
}

static bool get_apic(const struct vm *vm, unsigned cpu, struct kvm_lapic_state *apic)
{
    return tried(ioctl(vm->cpu[cpu], KVM_GET_LAPIC, apic), "KVM_GET_LAPIC");
}

static bool set_apic(const struct vm *vm, unsigned cpu, struct kvm_lapic_state *apic)
{
    return tried(ioctl(vm->cpu[cpu], KVM_SET_LAPIC, apic), "KVM_SET_LAPIC");
}

bool cpu_switch_apic(const struct vm *vm, unsigned cpu, bool on)
{
    struct kvm_lapic_state apic;
    if (!get_apic(vm, cpu, &apic))
        return false;
    write_register(&apic, APIC_SPURIOUS, on ? 0x1FF : 0xFF);
    return set_apic(vm, cpu, &apic);
}

bool cpu_enter_x2apic(const struct vm *vm, unsigned cpu)
{
    enum { ENTRIES = 256 };
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + ENTRIES * sizeof(cpuid->entries[0]));
    struct kvm_sregs sregs;
    if (!cpuid)
        return false;
    cpuid->nent = ENTRIES;
    bool entered = tried(ioctl(vm->kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID")
                && tried(ioctl(vm->cpu[cpu], KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2")
                && tried(ioctl(vm->cpu[cpu], KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    free(cpuid);
    if (!entered)
        return false;
    sregs.apic_base |= APIC_BASE_X2APIC;
    return tried(ioctl(vm->cpu[cpu], KVM_SET_SREGS, &sregs), "KVM_SET_SREGS") && cpu_switch_apic(vm, cpu, true);
}

void cpu_arrived(const struct vm *vm, unsigned cpu, uint8_t arrived[256])
{
    struct kvm_lapic_state apic;
    memset(arrived, 0, 256);
    if (!get_apic(vm, cpu, &apic))
        return;
    for (unsigned vector = 0; vector < 256; vector++)
        arrived[vector] = read_register(&apic, APIC_IRR + vector / 32 * 16) >> vector % 32 & 1;
}

void cpu_forget(const struct vm *vm, unsigned cpu, unsigned vector)
{
    struct kvm_lapic_state apic;
    unsigned offset = APIC_IRR + vector / 32 * 16;
    if (!get_apic(vm, cpu, &apic))
        return;
    write_register(&apic, offset, read_register(&apic, offset) & ~(1u << vector % 32));
    set_apic(vm, cpu, &apic);
}

/* ---- the in-kernel IOAPIC ---- */

bool ioapic_connect(const struct vm *vm, unsigned pin, unsigned apic_id, unsigned vector)
{
    struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
    if (!tried(ioctl(vm->fd, KVM_GET_IRQCHIP, &chip), "KVM_GET_IRQCHIP"))
        return false;
    chip.chip.ioapic.redirtbl[pin].bits = (uint64_t)apic_id << 56 | vector;
    return tried(ioctl(vm->fd, KVM_SET_IRQCHIP, &chip), "KVM_SET_IRQCHIP");
}

void line_pulse(const struct vm *vm, unsigned gsi)
{
    struct kvm_irq_level line = { .irq = gsi, .level = 1 };
    tried(ioctl(vm->fd, KVM_IRQ_LINE, &line), "KVM_IRQ_LINE up");
    line.level = 0;
    tried(ioctl(vm->fd, KVM_IRQ_LINE, &line), "KVM_IRQ_LINE down");
}
