/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What keeps a vector from sending: its mask, no message, the function mask, bus mastering, the capability itself; and
 * what becomes of an interrupt raised meanwhile. */
#include "rig.h"

#define ENABLED MSIROUTE_ENABLED
#define MASKED  MSIROUTE_FUNCTION_MASKED

static void plain_vectors_start_open_and_msix_shut(enum host host)
{
    RIG(rig, host);
    struct msi_device *msix = rig_device(&rig, MSIROUTE_KIND_MSIX, 2);
    expect_eq(msi_device_state(rig.dev), MSIROUTE_ENABLED | MSIROUTE_BUS_MASTER);
    expect_eq(msi_device_state(msix), MSIROUTE_BUS_MASTER);
    expect_eq(info_of(rig.dev, 0).flags, 0);
    expect_eq(info_of(msix, 0).flags, MSIROUTE_VECTOR_MASKED);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    expect_eq(msi_deliver(msix, 0), MSIROUTE_DISABLED);
    expect_ok(msi_device_set_control(msix, ENABLED | MASKED));
    expect_eq(msi_device_state(msix), ENABLED | MASKED | MSIROUTE_BUS_MASTER);
    expect_ok(msi_device_set_bus_master(msix, 0));
    expect_eq(msi_device_state(msix), ENABLED | MASKED);
}

/* ---- one gate at a time ---- */

struct gate {
    const char *name;
    int (*shut)(struct msi_device *dev);
    int (*open)(struct msi_device *dev);
};

static int mask(struct msi_device *dev)           { return msi_vector_mask(dev, 0); }
static int unmask(struct msi_device *dev)         { return msi_vector_unmask(dev, 0); }
static int clear(struct msi_device *dev)          { return msi_vector_clear(dev, 0); }
static int set(struct msi_device *dev)            { return msi_vector_set(dev, 0, TO(1, 0x41)); }
static int mask_function(struct msi_device *dev)  { return msi_device_set_control(dev, ENABLED | MASKED); }
static int enable(struct msi_device *dev)         { return msi_device_set_control(dev, ENABLED); }
static int bus_master_off(struct msi_device *dev) { return msi_device_set_bus_master(dev, 0); }
static int bus_master_on(struct msi_device *dev)  { return msi_device_set_bus_master(dev, 1); }

static const struct gate gates[] = {
    { "mask", mask, unmask },
    { "message", clear, set },
    { "function mask", mask_function, enable },
    { "bus master", bus_master_off, bus_master_on },
};
#define FOR_EACH_GATE(gate) for (const struct gate *gate = gates; gate < gates + sizeof(gates) / sizeof(gates[0]); gate++)

static void open_all(struct msi_device *dev)
{
    expect_ok(enable(dev));
    expect_ok(set(dev));
    expect_ok(unmask(dev));
}

static void what_is_raised_five_times_behind_a_gate_is_sent_once_when_it_opens(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    open_all(rig.dev);
    FOR_EACH_GATE(gate) {
        tap_context("gate: %s", gate->name);
        expect_ok(gate->shut(rig.dev));
        expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
        for (unsigned i = 0; i < 5; i++)
            expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
        expect_eq(msi_vector_is_pending(rig.dev, 0), 1);
        expect_quiet(&rig);
        expect_ok(gate->open(rig.dev));
        expect_arrival(&rig, 1, 0x41);
        expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
        expect_quiet(&rig);
        expect_delivers(&rig, 0, 1, 0x41);
    }
}

static void the_same_through_a_bound_eventfd(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    open_all(rig.dev);
    int fd = rig_bound(&rig, 0, 0);
    FOR_EACH_GATE(gate) {
        tap_context("gate: %s", gate->name);
        expect_ok(gate->shut(rig.dev));
        expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
        for (unsigned i = 0; i < 5; i++)
            fires(&rig, fd);
        expect_eq(msi_vector_is_pending(rig.dev, 0), 1);
        expect_quiet(&rig);
        expect_ok(gate->open(rig.dev));
        expect_arrival(&rig, 1, 0x41);
        expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
        expect_quiet(&rig);
        fires(&rig, fd);
        expect_arrival(&rig, 1, 0x41);
    }
}

static void raised_both_ways_behind_a_gate_is_still_one_message(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    open_all(rig.dev);
    int first = rig_bound(&rig, 0, 0), second = rig_bound(&rig, 0, 0);
    FOR_EACH_GATE(gate) {
        tap_context("gate: %s", gate->name);
        expect_ok(gate->shut(rig.dev));
        fires(&rig, first);
        expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
        fires(&rig, second);
        expect_ok(gate->open(rig.dev));
        expect_arrival(&rig, 1, 0x41);
        expect_quiet(&rig);
    }
}

static void nothing_pending_nothing_sent(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    open_all(rig.dev);
    rig_bound(&rig, 0, 0);
    FOR_EACH_GATE(gate) {
        expect_ok(gate->shut(rig.dev));
        expect_ok(gate->open(rig.dev));
    }
    expect_quiet(&rig);
}

static void what_is_cleared_behind_a_gate_is_not_sent(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    open_all(rig.dev);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(msi_vector_clear_pending(rig.dev, 0));
    FOR_EACH_GATE(gate) {
        tap_context("gate: %s", gate->name);
        expect_ok(gate->shut(rig.dev));
        expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
        fires(&rig, fd);
        expect_eq(msi_vector_clear_pending(rig.dev, 0), 1);
        expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
        expect_eq(msi_vector_clear_pending(rig.dev, 0), 0);
        expect_ok(gate->open(rig.dev));
        expect_quiet(&rig);
        fires(&rig, fd);
        expect_arrival(&rig, 1, 0x41);
    }
}

static void all_gates_must_be_open(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    open_all(rig.dev);
    int fd = rig_bound(&rig, 0, 0);
    FOR_EACH_GATE(gate)
        expect_ok(gate->shut(rig.dev));
    fires(&rig, fd);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    FOR_EACH_GATE(gate) {
        expect_quiet(&rig);
        expect_eq(msi_vector_is_pending(rig.dev, 0), 1);
        expect(!(info_of(rig.dev, 0).flags & MSIROUTE_VECTOR_IN_KERNEL));
        expect_ok(gate->open(rig.dev));
    }
    expect_arrival(&rig, 1, 0x41);
    expect(info_of(rig.dev, 0).flags & MSIROUTE_VECTOR_IN_KERNEL);
}

/* ---- the capability ---- */

static void a_disabled_capability_keeps_nothing(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    open_all(rig.dev);
    expect_ok(msi_device_set_control(rig.dev, 0));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_DISABLED);
    expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
    expect_ok(enable(rig.dev));
    expect_quiet(&rig);
    expect_delivers(&rig, 0, 1, 0x41);
}

static void a_disabled_capability_leaves_its_eventfds_to_the_VMM(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    open_all(rig.dev);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(msi_device_set_control(rig.dev, 0));
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_eq(take_count(fd), 1);
    expect_ok(enable(rig.dev));
    expect_quiet(&rig);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
}

/* ---- every order of opening ---- */

#define STEPS 4
static int leave_function_mask(struct msi_device *dev) { return msi_device_set_control(dev, msi_device_state(dev) & ENABLED); }
static int enter_enabled(struct msi_device *dev) { return msi_device_set_control(dev, (msi_device_state(dev) & MASKED) | ENABLED); }
static int (*const steps[STEPS])(struct msi_device *) = { enter_enabled, leave_function_mask, unmask, set };

static void the_order_of_enable_function_mask_mask_and_message_does_not_matter(enum host host)
{
    RIG(rig, host);
    for (unsigned k = 0; k < 24; k++) {
        unsigned order[STEPS];
        order_of(k, STEPS, order);
        tap_context("order: %u %u %u %u", order[0], order[1], order[2], order[3]);
        struct msi_device *dev = rig_device(&rig, MSIROUTE_KIND_MSIX, 1);
        int fd = rig_eventfd(&rig, EFD_NONBLOCK);
        expect_ok(msi_device_set_control(dev, MASKED));
        expect_ok(msi_vector_bind_eventfd(dev, 0, fd, 0));
        for (unsigned i = 0; i < STEPS; i++) {
            expect(!(info_of(dev, 0).flags & (MSIROUTE_VECTOR_LIVE | MSIROUTE_VECTOR_IN_KERNEL)));
            expect_ok(steps[order[i]](dev));
        }
        expect_eq(info_of(dev, 0).flags, MSIROUTE_VECTOR_SET | MSIROUTE_VECTOR_LIVE | MSIROUTE_VECTOR_IN_KERNEL);
        expect_eq(msi_deliver(dev, 0), MSIROUTE_SENT);
        expect_arrival(&rig, 1, 0x41);
        fires(&rig, fd);
        expect_arrival(&rig, 1, 0x41);
        expect_ok(msi_device_close(dev));
    }
    expect_quiet(&rig);
}

/* ---- reset ---- */

static void reset_throws_away_what_is_pending(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    open_all(rig.dev);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(mask(rig.dev));
    fires(&rig, fd);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    expect_ok(msi_device_reset(rig.dev));
    expect_eq(msi_device_state(rig.dev) & (ENABLED | MASKED), 0);
    expect_eq(info_of(rig.dev, 0).flags, MSIROUTE_VECTOR_MASKED);
    expect_eq(info_of(rig.dev, 0).eventfds, 1);
    expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
    open_all(rig.dev);
    expect_quiet(&rig);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
}

static void after_reset_nothing_old_arrives(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    open_all(rig.dev);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(msi_device_reset(rig.dev));
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_DISABLED);
    expect_ok(enable(rig.dev));
    expect_ok(unmask(rig.dev));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);  /* unset */
    expect_quiet(&rig);
}

static void plain_devices_reset_to_open_and_unset(enum host host)
{
    RIG(rig, host);
    expect_ok(set(rig.dev));
    expect_ok(mask(rig.dev));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    expect_ok(msi_device_reset(rig.dev));
    expect_eq(info_of(rig.dev, 0).flags, 0);
    expect_ok(set(rig.dev));
    expect_quiet(&rig);
    expect_delivers(&rig, 0, 1, 0x41);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, plain_vectors_start_open_and_msix_shut),
        TEST(EVERYWHERE, what_is_raised_five_times_behind_a_gate_is_sent_once_when_it_opens),
        TEST(EVERYWHERE, the_same_through_a_bound_eventfd),
        TEST(EVERYWHERE, raised_both_ways_behind_a_gate_is_still_one_message),
        TEST(EVERYWHERE, nothing_pending_nothing_sent),
        TEST(EVERYWHERE, what_is_cleared_behind_a_gate_is_not_sent),
        TEST(EVERYWHERE, all_gates_must_be_open),
        TEST(EVERYWHERE, a_disabled_capability_keeps_nothing),
        TEST(EVERYWHERE, a_disabled_capability_leaves_its_eventfds_to_the_VMM),
        TEST(EVERYWHERE, the_order_of_enable_function_mask_mask_and_message_does_not_matter),
        TEST(EVERYWHERE, reset_throws_away_what_is_pending),
        TEST(EVERYWHERE, after_reset_nothing_old_arrives),
        TEST(EVERYWHERE, plain_devices_reset_to_open_and_unset),
    };
    return TAP_MAIN(tests);
}
