/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A host without KVM_SIGNAL_MSI: messages go by routes, found again, evicted and beside those of eventfds. */
#include <errno.h>

#include "rig.h"

#define FALLBACK(rig, host, ...) RIG(rig, host, .cache_flags = MSIROUTE_CACHE_NO_DIRECT, __VA_ARGS__)
#define SMALL 64    /* entries in the table: less than the tests have messages */

static int send_nth(struct rig *rig, unsigned n)
{
    return msi_deliver_message(rig->cache, MSIROUTE_NO_REQUESTER, TO_NTH(n), 0);
}

static void it_says_that_it_has_no_direct_way(enum host host)
{
    uint32_t max_routes = 0;
    FALLBACK(rig, host);
    expect_eq(msi_route_cache_features(rig.cache, &max_routes) & (MSIROUTE_HAS_DIRECT | MSIROUTE_HAS_IRQFD), MSIROUTE_HAS_IRQFD);
    expect_eq(max_routes, 4096);
}

static void vectors_reach_both_vcpus_through_routes(enum host host)
{
    FALLBACK(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x42)));
    expect_delivers(&rig, 0, 0, 0x41);
    expect_delivers(&rig, 1, 1, 0x42);
    expect_quiet(&rig);
    expect_eq(rig_stats(&rig).routes, 2);
    expect_eq(rig_stats(&rig).routes_pinned, 0);
}

static void a_message_from_anywhere_reaches_its_vcpu(enum host host)
{
    FALLBACK(rig, host);
    expect_eq(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, TO(1, 0x55), 0), MSIROUTE_SENT);
    expect_arrival(&rig, 1, 0x55);
    expect_eq(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, TO(77, 0x55), 0), MSIROUTE_REFUSED);
    expect_quiet(&rig);
    expect_eq(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, 0x1000, 0x55, 0), -EINVAL);
}

static void a_message_sent_before_writes_no_table(enum host host)
{
    FALLBACK(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_eq(TABLE_WRITES(&rig, expect_delivers(&rig, 0, 1, 0x41)), 1);
    for (unsigned i = 0; i < 10; i++)
        expect_eq(TABLE_WRITES(&rig, expect_delivers(&rig, 0, 1, 0x41)), 0);
    expect_eq(TABLE_WRITES(&rig, msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, TO(1, 0x41), 0)), 0);
    expect_arrival(&rig, 1, 0x41);
}

static void more_messages_than_routes_all_arrive(enum host host)
{
    enum { MESSAGES = 2 * VECTORS_PER_CPU };
    FALLBACK(rig, host, .max_routes = SMALL);
    for (unsigned turn = 0; turn < 2; turn++) {
        for (unsigned i = 0; i < MESSAGES; i++) {
            expect_eq(send_nth(&rig, i), MSIROUTE_SENT);
            if (rig_arrivals(&rig, nth_cpu(i), nth_vector(i)) != 1)
                tap_fail(__FILE__, __LINE__, "message %u did not arrive once", i);
            expect(rig_stats(&rig).routes <= SMALL);
        }
    }
    expect_quiet(&rig);
    expect(rig_stats(&rig).evictions >= 2 * (MESSAGES - SMALL));
    expect(rig_stats(&rig).table_writes >= 2 * (MESSAGES - SMALL));
}

static void a_message_in_constant_use_survives_the_eviction_of_others(enum host host)
{
    enum { MESSAGES = VECTORS_PER_CPU };
    FALLBACK(rig, host, .max_routes = SMALL);
    unsigned writes_for_the_hot_one = 0;
    for (unsigned i = 1; i < MESSAGES; i++) {
        writes_for_the_hot_one += TABLE_WRITES(&rig, send_nth(&rig, 0));
        expect_eq(send_nth(&rig, i), MSIROUTE_SENT);
    }
    expect(writes_for_the_hot_one <= 4);    /* a second chance at every turn of the clock */
}

static void eventfds_keep_their_routes_while_messages_come_and_go(enum host host)
{
    FALLBACK(rig, host, .max_routes = SMALL);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x21)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x22)));
    int first = rig_bound(&rig, 0, 0), second = rig_bound(&rig, 1, 0);
    uint32_t gsi = info_of(rig.dev, 0).gsi;
    for (unsigned i = 10; i < 10 + 3 * SMALL; i++) {
        expect_eq(send_nth(&rig, i), MSIROUTE_SENT);
        expect_arrival(&rig, nth_cpu(i), nth_vector(i));
        fires(&rig, first);
        expect_arrival(&rig, 0, 0x21);
    }
    fires(&rig, second);
    expect_arrival(&rig, 1, 0x22);
    expect_delivers(&rig, 0, 0, 0x21);      /* by the eventfd's own route */
    expect_eq(info_of(rig.dev, 0).gsi, gsi);
    expect(rig_stats(&rig).evictions > 0);
    expect_quiet(&rig);
}

static void send_beside_as_many_eventfds_as_there_may_be(enum host host, enum irqchip irqchip)
{
    FALLBACK(rig, host, .irqchip = irqchip, .max_routes = SMALL, .vectors = SMALL);
    unsigned bound = 0;
    for (int result = 0; bound < SMALL && result == 0; bound += result == 0) {
        expect_ok(msi_vector_set(rig.dev, bound, TO_NTH(bound)));
        result = msi_vector_bind_eventfd(rig.dev, bound, rig_eventfd(&rig, EFD_NONBLOCK), 0);
        if (result)
            expect_eq(result, -ENOSPC);
    }
    expect(bound > 0 && bound < SMALL);
    for (unsigned i = VECTORS_PER_CPU; i < 2 * VECTORS_PER_CPU; i++) {
        expect_eq(send_nth(&rig, i), MSIROUTE_SENT);
        expect_arrival(&rig, nth_cpu(i), nth_vector(i));
    }
    for (unsigned i = 0; i < bound; i++) {
        fires(&rig, rig.eventfds[i]);
        expect_arrival(&rig, 0, nth_vector(i));
    }
    expect_quiet(&rig);
}

static void when_eventfds_take_every_route_they_can_there_is_still_one_to_send_through(enum host host)
{
    send_beside_as_many_eventfds_as_there_may_be(host, FULL_IRQCHIP);
}

static void when_they_take_every_GSI_they_can_too(enum host host)
{
    send_beside_as_many_eventfds_as_there_may_be(host, SPLIT_IRQCHIP);
}

static void mask_and_set_hold_for_routes_too(enum host host)
{
    FALLBACK(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_delivers(&rig, 0, 0, 0x41);
    expect_ok(msi_vector_mask(rig.dev, 0));
    for (unsigned i = 0; i < 5; i++)
        expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    expect_quiet(&rig);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x42)));
    expect_ok(msi_vector_unmask(rig.dev, 0));
    expect_arrival(&rig, 1, 0x42);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x43)));
    expect_delivers(&rig, 0, 1, 0x43);
    expect_quiet(&rig);
}

static void the_pins_of_the_irqchip_stay(enum host host)
{
    FALLBACK(rig, host, .max_routes = SMALL);
    expect(ioapic_connect(&rig.vm, 5, 1, 0xF0));
    for (unsigned i = 0; i < 2 * SMALL; i++)
        expect_eq(send_nth(&rig, i), MSIROUTE_SENT);
    line_pulse(&rig.vm, 5);
    expect_arrival(&rig, 1, 0xF0);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, it_says_that_it_has_no_direct_way),
        TEST(EVERYWHERE, vectors_reach_both_vcpus_through_routes),
        TEST(EVERYWHERE, a_message_from_anywhere_reaches_its_vcpu),
        TEST(EVERYWHERE, a_message_sent_before_writes_no_table),
        TEST(EVERYWHERE, more_messages_than_routes_all_arrive),
        TEST(EVERYWHERE, a_message_in_constant_use_survives_the_eviction_of_others),
        TEST(EVERYWHERE, eventfds_keep_their_routes_while_messages_come_and_go),
        TEST(EVERYWHERE, when_eventfds_take_every_route_they_can_there_is_still_one_to_send_through),
        TEST(ON_KVM, when_they_take_every_GSI_they_can_too),
        TEST(EVERYWHERE, mask_and_set_hold_for_routes_too),
        TEST(ON_KVM, the_pins_of_the_irqchip_stay),
    };
    return TAP_MAIN(tests);
}
