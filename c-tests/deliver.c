/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Messages from user space: where msi_deliver and msi_deliver_message send them, and what they say about it. */

#include "rig.h"

static void a_vector_reaches_the_vcpu_that_its_message_names(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x42)));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_SENT);
    expect_arrival(&rig, 0, 0x41);
    expect_quiet(&rig);
    expect_eq(msi_deliver(rig.dev, 1), MSIROUTE_SENT);
    expect_arrival(&rig, 1, 0x42);
    expect_quiet(&rig);
}

static void every_vector_of_both_vcpus_is_accepted_and_arrives(enum host host)
{
    RIG(rig, host, .vectors = 2 * VECTORS_PER_CPU);
    unsigned sent = 0, arrived = 0;
    for (unsigned i = 0; i < 2 * VECTORS_PER_CPU; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i)));
        sent += msi_deliver(rig.dev, i) == MSIROUTE_SENT;
    }
    for (unsigned i = 0; i < 2 * VECTORS_PER_CPU; i++)
        arrived += rig_arrivals(&rig, nth_cpu(i), nth_vector(i));
    expect_eq(sent, 2 * VECTORS_PER_CPU);
    expect_eq(arrived, 2 * VECTORS_PER_CPU);
    expect_quiet(&rig);
}

static void a_message_still_in_the_IRR_counts_as_sent(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_SENT);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_SENT);
    expect_eq(rig_arrivals(&rig, 1, 0x41), host == ON_KVM ? 1 : 2);
}

static void an_absent_APIC_refuses_and_nothing_is_kept(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(77, 0x41)));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_REFUSED);
    expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_quiet(&rig);
    expect_delivers(&rig, 0, 0, 0x41);
}

static void an_APIC_that_is_switched_off_refuses_and_nothing_is_kept(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    cpu_switch_apic(&rig.vm, 1, false);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_REFUSED);
    expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
    cpu_switch_apic(&rig.vm, 1, true);
    expect_quiet(&rig);
    expect_delivers(&rig, 0, 1, 0x41);
}

static void a_message_from_anywhere_reaches_its_vcpu(enum host host)
{
    RIG(rig, host);
    expect_eq(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, TO(1, 0x55), 0), MSIROUTE_SENT);
    expect_arrival(&rig, 1, 0x55);
    expect_eq(msi_deliver_message(rig.cache, 0x0100, TO(0, 0x56), 1), MSIROUTE_SENT);
    expect_arrival(&rig, 0, 0x56);
    expect_eq(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, TO(77, 0x55), 0), MSIROUTE_REFUSED);
    expect_quiet(&rig);
}

static void after_set_the_new_vector_arrives_and_the_old_never(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_delivers(&rig, 0, 0, 0x41);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x42)));     /* unmasked all the while */
    expect_delivers(&rig, 0, 1, 0x42);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x43)));
    expect_delivers(&rig, 0, 1, 0x43);
    expect_quiet(&rig);
}

static void vectors_and_devices_do_not_disturb_each_other(enum host host)
{
    RIG(rig, host);
    struct msi_device *other = rig_device(&rig, MSIROUTE_KIND_PLAIN, 2);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(0, 0x42)));
    expect_ok(msi_vector_set(other, 0, TO(0, 0x41)));      /* the same message as the first */
    expect_ok(msi_vector_mask(rig.dev, 0));
    expect_eq(msi_deliver(other, 0), MSIROUTE_SENT);
    expect_arrival(&rig, 0, 0x41);
    expect_delivers(&rig, 1, 0, 0x42);
    expect_ok(msi_device_close(other));
    expect_ok(msi_vector_unmask(rig.dev, 0));
    expect_quiet(&rig);
    expect_delivers(&rig, 0, 0, 0x41);
}

static void a_vector_says_what_it_is(enum host host)
{
    RIG(rig, host);
    struct msi_vector_info info = info_of(rig.dev, 2);
    expect_eq(info.flags, 0);
    expect_eq(info.eventfds, 0);
    expect_eq(info.gsi, MSIROUTE_ANY_GSI);

    expect_ok(msi_vector_set(rig.dev, 2, TO(1, 0x42)));
    info = info_of(rig.dev, 2);
    expect_eq(info.flags, MSIROUTE_VECTOR_SET | MSIROUTE_VECTOR_LIVE);
    expect_eq(info.address, to_apic(1));
    expect_eq(info.data, 0x42);
    expect_eq(info.error, 0);

    expect_ok(msi_vector_mask(rig.dev, 2));
    expect_eq(info_of(rig.dev, 2).flags, MSIROUTE_VECTOR_SET | MSIROUTE_VECTOR_MASKED);
    expect_ok(msi_vector_unmask(rig.dev, 2));
    expect_ok(msi_vector_clear(rig.dev, 2));
    expect_eq(info_of(rig.dev, 2).flags, 0);
}

static void messages_need_no_route(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_delivers(&rig, 0, 0, 0x41);
    expect_eq(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, TO(1, 0x55), 0), MSIROUTE_SENT);
    expect_arrival(&rig, 1, 0x55);
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_eq(rig_stats(&rig).routes, 0);
    expect_eq(info_of(rig.dev, 0).gsi, MSIROUTE_ANY_GSI);
}

static void the_requester_travels_along(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_delivers(&rig, 0, 1, 0x41);
    expect_eq(rig.fake.requester, MSIROUTE_NO_REQUESTER);
    expect_ok(msi_device_set_requester(rig.dev, 0x0308));
    expect_delivers(&rig, 0, 1, 0x41);
    expect_eq(rig.fake.requester, 0x0308);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x42)));
    expect_delivers(&rig, 0, 1, 0x42);
    expect_eq(rig.fake.requester, 0x0308);
    expect_eq(msi_deliver_message(rig.cache, 0x0100, TO(0, 0x43), 0), MSIROUTE_SENT);
    expect_arrival(&rig, 0, 0x43);
    expect_eq(rig.fake.requester, 0x0100);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, a_vector_reaches_the_vcpu_that_its_message_names),
        TEST(EVERYWHERE, every_vector_of_both_vcpus_is_accepted_and_arrives),
        TEST(EVERYWHERE, a_message_still_in_the_IRR_counts_as_sent),
        TEST(EVERYWHERE, an_absent_APIC_refuses_and_nothing_is_kept),
        TEST(ON_KVM, an_APIC_that_is_switched_off_refuses_and_nothing_is_kept),
        TEST(EVERYWHERE, a_message_from_anywhere_reaches_its_vcpu),
        TEST(EVERYWHERE, after_set_the_new_vector_arrives_and_the_old_never),
        TEST(EVERYWHERE, vectors_and_devices_do_not_disturb_each_other),
        TEST(EVERYWHERE, a_vector_says_what_it_is),
        TEST(EVERYWHERE, messages_need_no_route),
        TEST(ON_FAKE | ON_MODEL, the_requester_travels_along),
    };
    return TAP_MAIN(tests);
}
