/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The instruments themselves, with plain system calls and without the library: what the other tests see is what KVM did. */
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kvm.h"
#include "message.h"
#include "proc.h"
#include "tap.h"

static int inject(const struct vm *vm, uint64_t address, uint32_t data)
{
    struct kvm_msi msi = { .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data };
    return ioctl(vm->fd, KVM_SIGNAL_MSI, &msi);
}

static unsigned arrivals(const struct vm *vm, unsigned cpu)
{
    uint8_t irr[256];
    unsigned n = 0;
    cpu_arrived(vm, cpu, irr);
    for (unsigned i = 0; i < 256; i++)
        n += irr[i];
    return n;
}

static bool arrived_at(const struct vm *vm, unsigned cpu, unsigned vector)
{
    uint8_t irr[256];
    cpu_arrived(vm, cpu, irr);
    return irr[vector];
}

#define VM(vm, irqchip) \
    __attribute__((cleanup(vm_close))) struct vm vm; \
    if (!vm_open(&vm, irqchip)) \
        return

static void a_message_shows_in_the_IRR_of_its_vcpu_alone(enum host host)
{
    (void)host;
    VM(vm, FULL_IRQCHIP);
    vm_add_cpu(&vm, 0);
    vm_add_cpu(&vm, 1);
    expect_eq(arrivals(&vm, 0) + arrivals(&vm, 1), 0);
    expect_eq(inject(&vm, TO(1, 0x41)), 1);
    expect_eq(arrivals(&vm, 0), 0);
    expect_eq(arrivals(&vm, 1), 1);
    expect(arrived_at(&vm, 1, 0x41));
}

static void a_vector_taken_out_of_the_IRR_leaves_the_others(enum host host)
{
    (void)host;
    VM(vm, SPLIT_IRQCHIP);
    vm_add_cpu(&vm, 0);
    inject(&vm, TO(0, 0x41));
    inject(&vm, TO(0, 0xEF));
    cpu_forget(&vm, 0, 0x41);
    expect(!arrived_at(&vm, 0, 0x41));
    expect(arrived_at(&vm, 0, 0xEF));
    expect_eq(inject(&vm, TO(0, 0x41)), 1);
    expect(arrived_at(&vm, 0, 0x41));
}

static void an_APIC_that_is_absent_or_off_takes_nothing(enum host host)
{
    (void)host;
    VM(vm, FULL_IRQCHIP);
    vm_add_cpu(&vm, 0);
    expect_eq(inject(&vm, TO(9, 0x41)), 0);
    cpu_switch_apic(&vm, 0, false);
    expect_eq(inject(&vm, TO(0, 0x41)), 0);
    cpu_switch_apic(&vm, 0, true);
    expect_eq(arrivals(&vm, 0), 0);
    expect_eq(inject(&vm, TO(0, 0x41)), 1);
}

static bool route(const struct vm *vm, uint32_t gsi, uint64_t address, uint32_t data)
{
    struct kvm_irq_routing *table = calloc(1, sizeof(*table) + sizeof(table->entries[0]));
    if (!expect(table != NULL))
        return false;
    table->nr = 1;
    table->entries[0].gsi = gsi;
    table->entries[0].type = KVM_IRQ_ROUTING_MSI;
    table->entries[0].u.msi.address_lo = (uint32_t)address;
    table->entries[0].u.msi.data = data;
    bool routed = expect_ok(ioctl(vm->fd, KVM_SET_GSI_ROUTING, table));
    free(table);
    return routed;
}

static void an_irqfd_written_by_another_process_raises_its_route(enum host host)
{
    (void)host;
    VM(vm, FULL_IRQCHIP);
    vm_add_cpu(&vm, 0);
    int fd = eventfd(0, EFD_CLOEXEC);
    struct kvm_irqfd irqfd = { .fd = (uint32_t)fd, .gsi = 30 };
    route(&vm, 30, TO(0, 0x52));
    expect_ok(ioctl(vm.fd, KVM_IRQFD, &irqfd));
    signal_from_another_process(fd, 1);
    expect(arrived_at(&vm, 0, 0x52));
    expect_eq(take_count(fd), 0);
    irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
    expect_ok(ioctl(vm.fd, KVM_IRQFD, &irqfd));
    signal_from_another_process(fd, 3);
    expect_eq(take_count(fd), 3);
    close(fd);
}

static void a_pin_of_the_IOAPIC_reaches_the_vcpu_while_its_route_is_in_the_table(enum host host)
{
    (void)host;
    VM(vm, FULL_IRQCHIP);
    vm_add_cpu(&vm, 0);
    vm_add_cpu(&vm, 1);
    ioapic_connect(&vm, 5, 1, 0x61);
    line_pulse(&vm, 5);
    expect(arrived_at(&vm, 1, 0x61));
    cpu_forget(&vm, 1, 0x61);
    route(&vm, 30, TO(0, 0x52));    /* the pins are not listed again */
    line_pulse(&vm, 5);
    expect(!arrived_at(&vm, 1, 0x61));
}

static void an_APIC_ID_above_255_is_reached_by_the_high_half_of_the_address(enum host host)
{
    (void)host;
    VM(vm, SPLIT_IRQCHIP);
    vm_use_x2apic_ids(&vm);
    vm_add_cpu(&vm, 0);
    vm_add_cpu(&vm, 300);
    cpu_enter_x2apic(&vm, 1);
    expect_eq(inject(&vm, to_x2apic(300), 0x71), 1);
    expect(arrived_at(&vm, 1, 0x71));
    expect_eq(arrivals(&vm, 0), 0);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_KVM, a_message_shows_in_the_IRR_of_its_vcpu_alone),
        TEST(ON_KVM, a_vector_taken_out_of_the_IRR_leaves_the_others),
        TEST(ON_KVM, an_APIC_that_is_absent_or_off_takes_nothing),
        TEST(ON_KVM, an_irqfd_written_by_another_process_raises_its_route),
        TEST(ON_KVM, a_pin_of_the_IOAPIC_reaches_the_vcpu_while_its_route_is_in_the_table),
        TEST(ON_KVM, an_APIC_ID_above_255_is_reached_by_the_high_half_of_the_address),
    };
    return TAP_MAIN(tests);
}
