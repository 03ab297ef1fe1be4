/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The VMM's own routes, in the table beside the library's: the default pins of the irqchip, and what set_fixed says. */
#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "rig.h"

static struct kvm_irq_routing_entry pin(uint32_t gsi, uint32_t ioapic_pin)
{
    struct kvm_irq_routing_entry entry = { .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP };
    entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
    entry.u.irqchip.pin = ioapic_pin;
    return entry;
}

static struct kvm_irq_routing_entry message(uint32_t gsi, uint64_t address, uint32_t data)
{
    struct kvm_irq_routing_entry entry = { .gsi = gsi, .type = KVM_IRQ_ROUTING_MSI };
    entry.u.msi.address_lo = (uint32_t)address;
    entry.u.msi.address_hi = (uint32_t)(address >> 32);
    entry.u.msi.data = data;
    return entry;
}

/* Makes the library write the table: a vector of its own goes into the kernel and works. */
static void bind_one(struct rig *rig, uint32_t index)
{
    expect_ok(msi_vector_set(rig->dev, index, TO(0, 0x90 + index)));
    fires(rig, rig_bound(rig, index, 0));
    expect_arrival(rig, 0, 0x90 + index);
}

static void the_IOAPIC_still_interrupts_after_the_library_wrote_the_table(enum host host)
{
    RIG(rig, host);
    for (unsigned p = 1; p < 24; p++)
        expect(ioapic_connect(&rig.vm, p, 1, 0x60 + p));
    bind_one(&rig, 0);
    expect(rig_stats(&rig).table_writes > 0);
    for (unsigned gsi = 1; gsi < 24; gsi++) {   /* 0 is the timer's */
        line_pulse(&rig.vm, gsi);
        expect_arrival(&rig, 1, 0x60 + gsi);
    }
    expect_quiet(&rig);
}

static void set_fixed_moves_and_removes_pins(enum host host)
{
    RIG(rig, host);
    expect(ioapic_connect(&rig.vm, 5, 1, 0x65));
    expect(ioapic_connect(&rig.vm, 6, 1, 0x66));
    const struct kvm_irq_routing_entry moved[] = { pin(9, 5) };     /* pin 5 is GSI 9 now; pin 6 has none */
    expect_ok(msi_route_cache_set_fixed(rig.cache, moved, 1));
    bind_one(&rig, 0);
    line_pulse(&rig.vm, 5);
    line_pulse(&rig.vm, 6);
    expect_quiet(&rig);
    line_pulse(&rig.vm, 9);
    expect_arrival(&rig, 1, 0x65);

    expect_ok(msi_route_cache_set_fixed(rig.cache, NULL, 0));
    line_pulse(&rig.vm, 9);
    expect_quiet(&rig);
    bind_one(&rig, 1);
    fires(&rig, rig.eventfds[0]);
    expect_arrival(&rig, 0, 0x90);
}

static void fixed_routes_are_in_force_when_set_fixed_returns(enum host host)
{
    RIG(rig, host);
    const struct kvm_irq_routing_entry routes[] = { message(7, TO(1, 0x67)), message(8, TO(0, 0x68)) };
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_route_cache_set_fixed(rig.cache, routes, 2))), 1);
    line_pulse(&rig.vm, 7);
    expect_arrival(&rig, 1, 0x67);
    line_pulse(&rig.vm, 8);
    expect_arrival(&rig, 0, 0x68);
    bind_one(&rig, 0);
    line_pulse(&rig.vm, 7);
    expect_arrival(&rig, 1, 0x67);
    expect_quiet(&rig);
}

static void fixed_routes_are_kept_through_all_changes(enum host host)
{
    RIG(rig, host, .vectors = 32);
    const struct kvm_irq_routing_entry routes[] = { message(3, TO(1, 0x63)), pin(9, 5), message(100, TO(1, 0x64)) };
    uint64_t address;
    uint32_t data;
    expect_ok(msi_route_cache_set_fixed(rig.cache, routes, 3));
    for (unsigned i = 0; i < 200; i++) {
        expect_ok(msi_vector_set(rig.dev, i % 32, TO_NTH(i)));
        if (i < 32)
            rig_bound(&rig, i, 0);
        expect_eq(rig.fake.routes, rig_stats(&rig).routes + 3);
    }
    expect(fake_route(&rig.fake, 3, &address, &data) && data == 0x63);
    expect(fake_route(&rig.fake, 100, &address, &data) && data == 0x64);
    for (unsigned i = 0; i < 32; i++)
        expect(info_of(rig.dev, i).gsi >= 24 && info_of(rig.dev, i).gsi != 100);
}

static void the_library_takes_no_GSI_that_is_fixed(enum host host)
{
    RIG(rig, host, .vectors = 16);
    struct kvm_irq_routing_entry routes[8];
    for (unsigned i = 0; i < 8; i++)
        routes[i] = message(24 + 2 * i, TO(1, 0x70 + i));
    expect_ok(msi_route_cache_set_fixed(rig.cache, routes, 8));
    for (unsigned i = 0; i < 16; i++)
        bind_one(&rig, i);
    for (unsigned i = 0; i < 8; i++) {
        line_pulse(&rig.vm, 24 + 2 * i);
        expect_arrival(&rig, 1, 0x70 + i);
    }
}

static void a_fixed_route_on_a_GSI_in_use_harms_neither(enum host host)
{
    RIG(rig, host);
    bind_one(&rig, 0);
    uint32_t gsi = info_of(rig.dev, 0).gsi;
    const struct kvm_irq_routing_entry routes[] = { message(gsi, TO(1, 0x70)) };
    int result = msi_route_cache_set_fixed(rig.cache, routes, 1);
    fires(&rig, rig.eventfds[0]);
    expect_arrival(&rig, 0, 0x90);
    if (result < 0)     /* refused: nothing has changed */
        expect_eq(info_of(rig.dev, 0).gsi, gsi);
    else {
        line_pulse(&rig.vm, gsi);
        expect_arrival(&rig, 1, 0x70);
    }
    expect_quiet(&rig);
}

static void a_fixed_route_takes_the_GSI_of_an_idle_one(enum host host)
{
    RIG(rig, host);
    bind_one(&rig, 0);
    uint32_t gsi = info_of(rig.dev, 0).gsi;
    const struct kvm_irq_routing_entry routes[] = { message(gsi, TO(1, 0x70)) };
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, -1));
    expect_ok(msi_route_cache_set_fixed(rig.cache, routes, 1));
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, rig.eventfds[0], 0));    /* the same message, somewhere else */
    fires(&rig, rig.eventfds[0]);
    expect_arrival(&rig, 0, 0x90);
    line_pulse(&rig.vm, gsi);
    expect_arrival(&rig, 1, 0x70);
    expect_quiet(&rig);
}

static void the_library_takes_no_GSI_below_the_first_it_may(enum host host)
{
    RIG(rig, host, .first_gsi = 200);
    for (unsigned i = 0; i < 4; i++) {
        bind_one(&rig, i);
        expect_eq(info_of(rig.dev, i).gsi, 200 + i);    /* lowest first, and dense */
    }
}

static void garbage_is_refused_and_the_old_routes_stay(enum host host)
{
    RIG(rig, host);
    const struct kvm_irq_routing_entry good[] = { pin(9, 5), message(10, TO(1, 0x70)) };
    struct kvm_irq_routing_entry flagged = message(11, TO(1, 0x71));
    flagged.flags = 1u << 31;
    const struct {
        const char *what;
        struct kvm_irq_routing_entry entries[2];
    } garbage[] = {
        { "GSI beyond the table", { pin(1, 1), message(4096, TO(1, 0x71)) } },
        { "GSI far beyond", { pin(1, 1), pin(UINT32_MAX, 1) } },
        { "unknown type", { pin(1, 1), { .gsi = 2, .type = 4711 } } },
        { "unknown flag", { pin(1, 1), flagged } },
        { "two messages on one GSI", { message(11, TO(1, 0x71)), message(11, TO(1, 0x72)) } },
        { "message and pin on one GSI", { message(11, TO(1, 0x71)), pin(11, 3) } },
        { "no such irqchip", { pin(1, 1), { .gsi = 2, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { .irqchip = 9 } } } },
    };
    expect(ioapic_connect(&rig.vm, 5, 1, 0x65));
    expect(ioapic_connect(&rig.vm, 1, 1, 0x61));
    expect_ok(msi_route_cache_set_fixed(rig.cache, good, 2));
    for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
        tap_context("%s", garbage[i].what);
        expect_eq(msi_route_cache_set_fixed(rig.cache, garbage[i].entries, 2), -EINVAL);
        expect(msi_route_cache_last_error()[0]);
        line_pulse(&rig.vm, 1);
        expect_quiet(&rig);
        line_pulse(&rig.vm, 9);
        expect_arrival(&rig, 1, 0x65);
        line_pulse(&rig.vm, 10);
        expect_arrival(&rig, 1, 0x70);
    }
    bind_one(&rig, 0);      /* writes the table: the garbage is in nobody's memory */
    line_pulse(&rig.vm, 9);
    expect_arrival(&rig, 1, 0x65);
}

static void a_split_irqchip_takes_messages_on_its_pins_and_no_irqchip_entries(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP);
    const struct kvm_irq_routing_entry messages[] = { message(0, TO(0, 0x60)), message(23, TO(1, 0x77)) };
    const struct kvm_irq_routing_entry pins[] = { pin(5, 5) };
    bind_one(&rig, 0);      /* no default pins here */
    expect_ok(msi_route_cache_set_fixed(rig.cache, messages, 2));
    expect_eq(msi_route_cache_set_fixed(rig.cache, pins, 1), -EINVAL);
    line_pulse(&rig.vm, 0);
    expect_arrival(&rig, 0, 0x60);
    line_pulse(&rig.vm, 23);
    expect_arrival(&rig, 1, 0x77);
    bind_one(&rig, 1);
    line_pulse(&rig.vm, 23);
    expect_arrival(&rig, 1, 0x77);
    expect_quiet(&rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_KVM, the_IOAPIC_still_interrupts_after_the_library_wrote_the_table),
        TEST(ON_KVM, set_fixed_moves_and_removes_pins),
        TEST(ON_KVM, fixed_routes_are_in_force_when_set_fixed_returns),
        TEST(ON_FAKE, fixed_routes_are_kept_through_all_changes),
        TEST(ON_KVM, the_library_takes_no_GSI_that_is_fixed),
        TEST(ON_KVM, a_fixed_route_on_a_GSI_in_use_harms_neither),
        TEST(ON_KVM, a_fixed_route_takes_the_GSI_of_an_idle_one),
        TEST(EVERYWHERE, the_library_takes_no_GSI_below_the_first_it_may),
        TEST(ON_KVM, garbage_is_refused_and_the_old_routes_stay),
        TEST(ON_KVM, a_split_irqchip_takes_messages_on_its_pins_and_no_irqchip_entries),
    };
    return TAP_MAIN(tests);
}
