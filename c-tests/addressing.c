/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Destinations beyond 8 bits, and what is no message at all. */
#include <errno.h>

#include "rig.h"

#define WIDE   MSIROUTE_X2APIC_IDS
#define WIDEST (MSIROUTE_X2APIC_IDS | MSIROUTE_EXT_DEST_ID)

/* APIC 300's low 8 bits are 44: who misses the high ones reaches APIC 44. */
enum { NEAR = 2, FAR = 3 };     /* vCPUs: 0 and 1 are the rig's */
static bool add_near_and_far(struct rig *rig)
{
    return vm_use_x2apic_ids(&rig->vm) && vm_add_cpu(&rig->vm, 44) && vm_add_cpu(&rig->vm, 300)
        && cpu_enter_x2apic(&rig->vm, FAR);
}

static void the_high_half_reaches_an_APIC_above_255(enum host host)
{
    RIG(rig, host);
    if (!add_near_and_far(&rig))
        return;
    expect_ok(msi_route_cache_set_addressing(rig.cache, WIDE));
    expect_ok(msi_vector_set(rig.dev, 0, to_x2apic(300), 0x71));
    expect_delivers(&rig, 0, FAR, 0x71);
    fires(&rig, rig_bound(&rig, 0, 0));
    expect_arrival(&rig, FAR, 0x71);
    expect_eq(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, to_x2apic(300), 0x72, 0), MSIROUTE_SENT);
    expect_arrival(&rig, FAR, 0x72);
    expect_ok(msi_vector_set(rig.dev, 1, TO(44, 0x73)));
    expect_delivers(&rig, 1, NEAR, 0x73);
    expect_quiet(&rig);
    expect_eq(info_of(rig.dev, 0).address, to_x2apic(300));
}

static void fifteen_bit_destinations_reach_it_too(enum host host)
{
    RIG(rig, host);
    if (!add_near_and_far(&rig))
        return;
    expect_ok(msi_route_cache_set_addressing(rig.cache, WIDEST));
    expect_ok(msi_vector_set(rig.dev, 0, to_apic_15_bits(300), 0x71));
    expect_delivers(&rig, 0, FAR, 0x71);
    fires(&rig, rig_bound(&rig, 0, 0));
    expect_arrival(&rig, FAR, 0x71);
    expect_eq(info_of(rig.dev, 0).address, to_apic_15_bits(300));      /* as the guest wrote it */
    expect_ok(msi_vector_set(rig.dev, 1, TO(44, 0x73)));
    expect_delivers(&rig, 1, NEAR, 0x73);
    expect_eq(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, to_apic_15_bits(300), 0x72, 0), MSIROUTE_SENT);
    expect_arrival(&rig, FAR, 0x72);
    expect_quiet(&rig);
}

static void live_vectors_follow_a_change_of_addressing(enum host host)
{
    RIG(rig, host);
    if (!add_near_and_far(&rig))
        return;
    expect_ok(msi_vector_set(rig.dev, 0, to_apic_15_bits(300), 0x71));
    int fd = rig_bound(&rig, 0, 0);
    fires(&rig, fd);
    expect_arrival(&rig, NEAR, 0x71);       /* bits 11:5 mean nothing yet */
    expect_ok(msi_route_cache_set_addressing(rig.cache, WIDEST));
    fires(&rig, fd);
    expect_arrival(&rig, FAR, 0x71);
    expect_delivers(&rig, 0, FAR, 0x71);
    expect_ok(msi_route_cache_set_addressing(rig.cache, WIDE));
    fires(&rig, fd);
    expect_arrival(&rig, NEAR, 0x71);
    expect_quiet(&rig);
}

static void fifteen_bits_need_the_wide_IDs(enum host host)
{
    RIG(rig, host);
    expect_eq(msi_route_cache_set_addressing(rig.cache, MSIROUTE_EXT_DEST_ID), -EINVAL);
    expect_eq(msi_route_cache_set_addressing(rig.cache, 1u << 31), -EINVAL);
    expect(msi_route_cache_last_error()[0]);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_delivers(&rig, 0, 1, 0x41);
}

/* Refused, and the message from before is still the one that arrives, by eventfd as by hand. */
static void expect_no_message(struct rig *rig, uint64_t address)
{
    tap_context("address %#llx", (unsigned long long)address);
    expect_eq(msi_vector_set(rig->dev, 0, address, 0x42), -EINVAL);
    expect(msi_route_cache_last_error()[0]);
    expect_eq(info_of(rig->dev, 0).address, to_apic(1));
    expect_eq(info_of(rig->dev, 0).data, 0x41);
    expect_delivers(rig, 0, 1, 0x41);
    fires(rig, rig->eventfds[0]);
    expect_arrival(rig, 1, 0x41);
    expect_eq(msi_vector_set(rig->dev, 1, address, 0x42), -EINVAL);    /* unset before */
    expect_eq(info_of(rig->dev, 1).flags, 0);
    expect_eq(msi_deliver_message(rig->cache, MSIROUTE_NO_REQUESTER, address, 0x42, 0), -EINVAL);
}

static void addresses_outside_the_window_are_no_messages(enum host host)
{
    static const uint64_t addresses[] = {
        0, 0x1000, 0xFED00000, 0xFEDFFFFC, 0xFEF00000, 0xFFFFFFFF, UINT64_MAX, 0x1000FEE00000,
        0x1FEE00000, 0x100FEE00000,         /* a high half without the flag */
    };
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    rig_bound(&rig, 0, 0);
    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
        expect_no_message(&rig, addresses[i]);
    expect_quiet(&rig);
}

static void low_bits_of_the_high_half_are_no_destination(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_route_cache_set_addressing(rig.cache, WIDE));
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    rig_bound(&rig, 0, 0);
    expect_no_message(&rig, 0x1FEE00000);
    expect_no_message(&rig, 0x8100FEE00000 | 0xFFull << 32);
    expect_no_message(&rig, 0x10000000000);
    expect_quiet(&rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_KVM, the_high_half_reaches_an_APIC_above_255),
        TEST(ON_KVM, fifteen_bit_destinations_reach_it_too),
        TEST(ON_KVM, live_vectors_follow_a_change_of_addressing),
        TEST(EVERYWHERE, fifteen_bits_need_the_wide_IDs),
        TEST(EVERYWHERE, addresses_outside_the_window_are_no_messages),
        TEST(EVERYWHERE, low_bits_of_the_high_half_are_no_destination),
    };
    return TAP_MAIN(tests);
}
