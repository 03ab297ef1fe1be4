/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Routes by explicit GSI: for a VMM that already thinks in them, alone and beside devices. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "rig.h"

typedef struct kvm_irq_routing_entry entry_t;

static entry_t message(unsigned cpu, unsigned vector)
{
    return (entry_t){ .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = (uint32_t)to_apic(cpu), .data = vector } };
}

static entry_t pin(unsigned chip, unsigned number)
{
    return (entry_t){ .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { .irqchip = chip, .pin = number } };
}

static uint32_t added(struct rig *rig, entry_t entry, uint32_t gsi)
{
    expect_ok(msi_route_cache_add_route(rig->cache, &entry, 0, &gsi));
    return gsi;
}

static int add_at(struct rig *rig, entry_t entry, uint32_t gsi)
{
    return msi_route_cache_add_route(rig->cache, &entry, 0, &gsi);
}

static int bound_fd(struct rig *rig, uint32_t gsi)
{
    int fd = rig_eventfd(rig, EFD_NONBLOCK);
    expect_ok(msi_route_cache_bind_irqfd(rig->cache, gsi, fd, -1));
    return fd;
}

static void a_route_is_staged_until_the_commit_and_then_interrupts(enum host host)
{
    RIG(rig, host);
    uint32_t first = added(&rig, message(0, 0x41), MSIROUTE_ANY_GSI), second = added(&rig, message(1, 0x42), MSIROUTE_ANY_GSI);
    expect_eq(first, 24);
    expect_eq(second, 25);
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(rig_stats(&rig).table_writes, 1);
    int one = bound_fd(&rig, first), two = bound_fd(&rig, second);
    expect_eq(rig_stats(&rig).table_writes, 1);
    fires(&rig, one);
    expect_arrival(&rig, 0, 0x41);
    fires(&rig, two);
    expect_arrival(&rig, 1, 0x42);
    expect_ok(msi_route_cache_unbind_irqfd(rig.cache, first, one));
    fires(&rig, one);
    expect_quiet(&rig);
    expect_eq(take_count(one), 1);
    expect_eq(msi_route_cache_unbind_irqfd(rig.cache, first, one), -ENOENT);
}

static void an_irqfd_makes_its_route_live_and_no_other(enum host host)
{
    RIG(rig, host);
    uint32_t first = added(&rig, message(0, 0x41), MSIROUTE_ANY_GSI);
    added(&rig, message(1, 0x42), MSIROUTE_ANY_GSI);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    add_to_eventfd(fd, 1);      /* before its route exists */
    expect_ok(msi_route_cache_bind_irqfd(rig.cache, first, fd, -1));
    expect_arrival(&rig, 0, 0x41);
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x41);
    expect_eq(rig_stats(&rig).table_writes, 1);
    if (host == ON_FAKE)
        expect_eq(fake_msi_routes(&rig.fake), 1);
    expect_ok(msi_route_cache_commit(rig.cache));
    if (host == ON_FAKE)
        expect_eq(fake_msi_routes(&rig.fake), 2);
}

static void an_update_changes_the_message_under_its_irqfd(enum host host)
{
    RIG(rig, host);
    uint32_t gsi = added(&rig, message(0, 0x41), MSIROUTE_ANY_GSI);
    int fd = bound_fd(&rig, gsi);
    entry_t other = message(1, 0x52);
    expect_ok(msi_route_cache_update_route(rig.cache, gsi, &other));
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x41);      /* staged */
    expect_eq(TABLE_WRITES(&rig, msi_route_cache_commit(rig.cache)), 1);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x52);
    expect_ok(msi_route_cache_update_route(rig.cache, gsi, &other));
    expect_eq(TABLE_WRITES(&rig, msi_route_cache_commit(rig.cache)), 0);
    expect_eq(rig_stats(&rig).irqfd_binds, 1);
    expect_eq(msi_route_cache_update_route(rig.cache, gsi + 1, &other), -ENOENT);
}

static void a_removed_GSI_is_silent_at_once_and_free_after_the_commit(enum host host)
{
    RIG(rig, host);
    uint32_t gsi = added(&rig, message(0, 0x41), MSIROUTE_ANY_GSI);
    int fd = bound_fd(&rig, gsi);
    expect_ok(msi_route_cache_remove_route(rig.cache, gsi));
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_eq(take_count(fd), 1);
    expect_eq(msi_route_cache_remove_route(rig.cache, gsi), -ENOENT);
    expect_eq(added(&rig, message(0, 0x61), MSIROUTE_ANY_GSI), gsi + 1);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(added(&rig, message(1, 0x51), MSIROUTE_ANY_GSI), gsi);
    expect_ok(msi_route_cache_bind_irqfd(rig.cache, gsi, fd, -1));
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x51);
}

static void a_message_that_is_none_keeps_its_GSI_and_is_not_in_the_table(enum host host)
{
    RIG(rig, host);
    const entry_t none = { .type = KVM_IRQ_ROUTING_MSI }, real = message(1, 0x41);
    uint32_t gsi = added(&rig, none, MSIROUTE_ANY_GSI);
    int fd = bound_fd(&rig, gsi);
    expect_ok(msi_route_cache_commit(rig.cache));
    fires(&rig, fd);
    expect_quiet(&rig);
    if (host == ON_FAKE)
        expect_eq(fake_msi_routes(&rig.fake), 0);
    expect_ok(msi_route_cache_update_route(rig.cache, gsi, &real));
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_arrival(&rig, 1, 0x41);      /* what it had counted */
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_ok(msi_route_cache_update_route(rig.cache, gsi, &none));
    expect_ok(msi_route_cache_commit(rig.cache));
    fires(&rig, fd);
    expect_quiet(&rig);
}

static void a_route_for_irqfds_alone_is_in_the_table_while_it_has_one(enum host host)
{
    RIG(rig, host);
    entry_t entry = message(1, 0x41);
    uint32_t gsi = MSIROUTE_ANY_GSI;
    expect_ok(msi_route_cache_add_route(rig.cache, &entry, MSIROUTE_ROUTE_IRQFD_ONLY, &gsi));
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(rig_stats(&rig).table_writes, 0);
    int fd = bound_fd(&rig, gsi);
    expect_eq(rig_stats(&rig).table_writes, 1);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_eq(msi_route_cache_add_route(rig.cache, &entry, 2, &gsi), -EINVAL);
}

static void a_transaction_is_one_write_for_explicit_routes_and_vectors(enum host host)
{
    enum { N = 64 };
    RIG(rig, host, .kind = MSIROUTE_KIND_PLAIN, .vectors = N);
    uint32_t gsis[N];
    int fds[N];
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < N; i++) {
        gsis[i] = added(&rig, message(0, 0x40 + i), MSIROUTE_ANY_GSI);
        fds[i] = bound_fd(&rig, gsis[i]);
        expect_ok(msi_vector_set(rig.dev, i, TO(1, 0x40 + i)));
        rig_bound(&rig, i, 0);
    }
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_eq(rig_stats(&rig).irqfd_binds, 0);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(rig_stats(&rig).table_writes, 1);
    expect_eq(rig_stats(&rig).irqfd_binds, 2 * N);
    fires(&rig, fds[7]);
    expect_arrival(&rig, 0, 0x47);
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < N; i++)
        expect_ok(msi_route_cache_remove_route(rig.cache, gsis[i]));
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_route_cache_commit(rig.cache))), 1);
}

static void a_failed_commit_leaves_explicit_routes_as_before_begin(enum host host)
{
    RIG(rig, host);
    uint32_t kept = added(&rig, message(0, 0x41), MSIROUTE_ANY_GSI), gone = added(&rig, message(0, 0x42), MSIROUTE_ANY_GSI);
    int fd = bound_fd(&rig, kept);
    expect_ok(msi_route_cache_commit(rig.cache));
    entry_t other = message(1, 0x51);
    rig.fake.poison = 0x66;
    expect_ok(msi_route_cache_begin(rig.cache));
    expect_ok(msi_route_cache_update_route(rig.cache, kept, &other));
    uint32_t bad = added(&rig, message(0, 0x66), MSIROUTE_ANY_GSI), good = added(&rig, message(0, 0x67), MSIROUTE_ANY_GSI);
    int fd_of_good = bound_fd(&rig, good);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x71)));
    int of_vector = rig_bound(&rig, 0, 0);
    expect_eq(msi_route_cache_commit(rig.cache), -EINVAL);
    char name[16];
    snprintf(name, sizeof(name), "GSI %u", bad);
    expect(strstr(msi_route_cache_last_error(), name));
    rig.fake.poison = 0;

    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x41);
    fires(&rig, fd_of_good);
    expect_quiet(&rig);
    uint64_t address;
    uint32_t data;
    expect(fake_route(&rig.fake, kept, &address, &data) && data == 0x41);
    expect(fake_route(&rig.fake, gone, &address, &data) && data == 0x42);
    expect(!fake_route(&rig.fake, good, &address, &data) && !fake_route(&rig.fake, bad, &address, &data));
    expect_eq(msi_route_cache_remove_route(rig.cache, bad), -ENOENT);
    fires(&rig, of_vector);     /* a guest's vector stands, and is served */
    expect_arrival(&rig, 1, 0x71);
    expect_eq(added(&rig, message(0, 0x68), MSIROUTE_ANY_GSI), bad);
    expect_ok(msi_route_cache_bind_irqfd(rig.cache, kept, fd_of_good, -1));     /* it was let go */
}

static void a_refused_irqfd_fails_its_commit_too(enum host host)
{
    RIG(rig, host);
    fake_fault(&rig.fake, FAKE_BIND, 1, ENOMEM, false);
    expect_ok(msi_route_cache_begin(rig.cache));
    uint32_t gsi = added(&rig, message(0, 0x41), MSIROUTE_ANY_GSI);
    bound_fd(&rig, gsi);
    expect_eq(msi_route_cache_commit(rig.cache), -ENOMEM);
    expect(fake_faultless(&rig.fake));
    expect_eq(fake_msi_routes(&rig.fake), 0);
    expect_eq(msi_route_cache_remove_route(rig.cache, gsi), -ENOENT);
    expect_eq(added(&rig, message(0, 0x41), MSIROUTE_ANY_GSI), gsi);
    bound_fd(&rig, gsi);
}

static void others_failures_are_not_ones_own(enum host host)
{
    RIG(rig, host);
    rig.fake.poison = 0x66;
    expect_eq(msi_vector_set(rig.dev, 0, TO(1, 0x66)), 0);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_eq(msi_vector_bind_eventfd(rig.dev, 0, fd, 0), -EINVAL);
    uint32_t gsi = added(&rig, message(0, 0x41), MSIROUTE_ANY_GSI);
    expect_ok(msi_route_cache_commit(rig.cache));
    fires(&rig, bound_fd(&rig, gsi));
    expect_arrival(&rig, 0, 0x41);
}

static void GSIs_have_one_owner(enum host host)
{
    RIG(rig, host);
    entry_t entry = message(0, 0x41);
    expect_eq(added(&rig, entry, 30), 30);
    expect_eq(add_at(&rig, entry, 30), 0);      /* the same again */
    expect_eq(add_at(&rig, message(1, 0x42), 30), -EBUSY);
    expect_eq(add_at(&rig, entry, 4096), -EINVAL);
    for (uint32_t gsi = 24; gsi < 30; gsi++)
        expect_eq(added(&rig, message(0, 0x50 + gsi), MSIROUTE_ANY_GSI), gsi);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    rig_bound(&rig, 0, 0);
    expect_eq(info_of(rig.dev, 0).gsi, 31);
    expect_eq(add_at(&rig, entry, 31), -EBUSY);
    expect_eq(msi_route_cache_bind_irqfd(rig.cache, 4096, rig_eventfd(&rig, 0), -1), -EINVAL);
    expect_eq(msi_route_cache_bind_irqfd(rig.cache, 30, rig.eventfds[0], -1), -EBUSY);      /* the vector's */
}

/* QEMU's first 38 adds on a full irqchip. */
static void the_kernels_own_pins_can_be_added_once_they_are_cleared(enum host host)
{
    RIG(rig, host, .irqchip = FULL_IRQCHIP);
    expect_eq(add_at(&rig, pin(2, 5), 5), 0);       /* what the kernel has anyway */
    expect_eq(add_at(&rig, pin(2, 2), 0), -EBUSY);
    expect_ok(msi_route_cache_set_fixed(rig.cache, NULL, 0));
    for (uint32_t gsi = 0; gsi < 24; gsi++) {
        if (gsi < 16)
            expect_eq(added(&rig, pin(gsi / 8, gsi % 8), gsi), gsi);
        if (gsi != 2)
            expect_eq(added(&rig, pin(2, gsi ? gsi : 2), gsi), gsi);
    }
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_route_cache_commit(rig.cache))), 1);
    if (host != ON_KVM)
        return;
    ioapic_connect(&rig.vm, 2, 1, 0x61);
    line_pulse(&rig.vm, 0);
    expect_arrival(&rig, 1, 0x61);
}

static void an_irqfd_of_the_kernels_own_pin(enum host host)
{
    RIG(rig, host, .irqchip = FULL_IRQCHIP);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK), level = rig_eventfd(&rig, EFD_NONBLOCK), resample = rig_eventfd(&rig, EFD_NONBLOCK);
    ioapic_connect(&rig.vm, 10, 1, 0x61);
    expect_ok(msi_route_cache_bind_irqfd(rig.cache, 10, fd, -1));
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x61);
    expect_ok(msi_route_cache_bind_irqfd(rig.cache, 11, level, resample));
    expect_ok(msi_route_cache_unbind_irqfd(rig.cache, 11, level));
    expect_ok(msi_route_cache_unbind_irqfd(rig.cache, 10, fd));
    expect_eq(rig_stats(&rig).table_writes, 0);
}

static void pausing_silences_explicit_irqfds_too(enum host host)
{
    RIG(rig, host);
    uint32_t gsi = added(&rig, message(0, 0x41), MSIROUTE_ANY_GSI);
    int fd = bound_fd(&rig, gsi);
    expect_ok(msi_route_cache_pause(rig.cache));
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_ok(msi_route_cache_resume(rig.cache));
    expect_arrival(&rig, 0, 0x41);
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x41);
}

static void freeing_the_cache_unbinds_them(enum host host)
{
    RIG(rig, host);
    int fd = bound_fd(&rig, added(&rig, message(0, 0x41), MSIROUTE_ANY_GSI));
    msi_route_cache_free(rig_take_cache(&rig));
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_eq(take_count(fd), 1);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, a_route_is_staged_until_the_commit_and_then_interrupts),
        TEST(EVERYWHERE, an_irqfd_makes_its_route_live_and_no_other),
        TEST(EVERYWHERE, an_update_changes_the_message_under_its_irqfd),
        TEST(EVERYWHERE, a_removed_GSI_is_silent_at_once_and_free_after_the_commit),
        TEST(EVERYWHERE, a_message_that_is_none_keeps_its_GSI_and_is_not_in_the_table),
        TEST(EVERYWHERE, a_route_for_irqfds_alone_is_in_the_table_while_it_has_one),
        TEST(EVERYWHERE, a_transaction_is_one_write_for_explicit_routes_and_vectors),
        TEST(ON_FAKE, a_failed_commit_leaves_explicit_routes_as_before_begin),
        TEST(ON_FAKE, a_refused_irqfd_fails_its_commit_too),
        TEST(ON_FAKE, others_failures_are_not_ones_own),
        TEST(EVERYWHERE, GSIs_have_one_owner),
        TEST(ON_KVM | ON_MODEL, the_kernels_own_pins_can_be_added_once_they_are_cleared),
        TEST(ON_KVM, an_irqfd_of_the_kernels_own_pin),
        TEST(EVERYWHERE, pausing_silences_explicit_irqfds_too),
        TEST(EVERYWHERE, freeing_the_cache_unbinds_them),
    };
    return TAP_MAIN(tests);
}
