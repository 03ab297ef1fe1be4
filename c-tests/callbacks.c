/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Control calls from inside a callback would wait for themselves: they say -EDEADLK instead, and change nothing. */
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "lanes.h"
#include "rig.h"

static _Thread_local unsigned depth;
static struct msi_device *inner;        /* what the callbacks call */
static struct msi_route_cache *inner_cache;
static atomic_uint tried;

static void try_control_calls(void)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_device *dev;
    config.vectors = 1;
    atomic_fetch_add(&tried, 1);
    expect_eq(msi_vector_mask(inner, 0), -EDEADLK);
    expect(msi_route_cache_last_error()[0]);
    expect_eq(msi_vector_mask(inner, 1), -EDEADLK);
    expect_eq(msi_vector_unmask(inner, 1), -EDEADLK);
    expect_eq(msi_vector_set(inner, 1, TO(0, 0x42)), -EDEADLK);
    expect_eq(msi_vector_clear(inner, 1), -EDEADLK);
    expect_eq(msi_vector_bind_eventfd(inner, 1, 0, 0), -EDEADLK);
    expect_eq(msi_vector_unbind_eventfd(inner, 1, -1), -EDEADLK);
    expect_eq(msi_vector_is_pending(inner, 1), -EDEADLK);
    expect_eq(msi_vector_clear_pending(inner, 1), -EDEADLK);
    expect_eq(msi_device_set_bus_master(inner, 0), -EDEADLK);
    expect_eq(msi_device_set_control(inner, 0), -EDEADLK);
    expect_eq(msi_device_set_requester(inner, 3), -EDEADLK);
    expect_eq(msi_device_reset(inner), -EDEADLK);
    expect_eq(msi_device_close(inner), -EDEADLK);
    expect_eq(msi_device_new(inner_cache, &config, &dev), -EDEADLK);
    expect_eq(msi_route_cache_commit(inner_cache), -EDEADLK);
    expect_eq(msi_route_cache_set_fixed(inner_cache, NULL, 0), -EDEADLK);
    expect_eq(msi_route_cache_set_addressing(inner_cache, MSIROUTE_X2APIC_IDS), -EDEADLK);
}

static void try_from_inside(unsigned lane)
{
    if (depth++ == 0) {
        try_control_calls();
        expect_eq(lane_raise((lane + 1) % LANES), MSIROUTE_SENT);   /* and from a nested delivery */
    } else {
        try_control_calls();
    }
    depth--;
}

static void deliver_and_try_from_inside(uint32_t cache_flags)
{
    if (!lanes_open(MSIROUTE_KIND_MSIX, cache_flags, 0))
        return;
    inner = lanes_dev;
    inner_cache = lanes_cache;
    atomic_store(&tried, 0);
    for (unsigned i = 0; i < LANES; i++)    /* a message that has no route yet cannot get one inside a delivery */
        expect_eq(lane_raise(i), MSIROUTE_SENT);
    atomic_store(&lanes_inside, try_from_inside);
    expect_eq(lane_raise(0), MSIROUTE_SENT);
    expect_eq(atomic_load(&tried), 2);
    /* a control call that sends what is pending calls signal too */
    atomic_store(&lanes_inside, NULL);
    lane_mask(2);
    expect_eq(lane_raise(2), MSIROUTE_PENDING);
    atomic_store(&lanes_inside, try_from_inside);
    lane_unmask(2);
    expect_eq(atomic_load(&tried), 4);
    atomic_store(&lanes_inside, NULL);
    for (unsigned i = 0; i < LANES; i++) {
        expect_eq(lane_raise(i), MSIROUTE_SENT);
        lane_is_quiet(i);
    }
    lanes_close();
}

static void control_calls_from_inside_signal_are_refused(enum host host)
{
    (void)host;
    deliver_and_try_from_inside(0);
}

static void control_calls_from_inside_raise_gsi_are_refused(enum host host)
{
    (void)host;
    deliver_and_try_from_inside(MSIROUTE_CACHE_NO_DIRECT);
}

static int table_that_calls_back(void *opaque, const struct kvm_irq_routing_entry *entries, size_t n)
{
    (void)opaque, (void)entries, (void)n;
    try_control_calls();
    return 0;
}

static int irqfd_that_calls_back(void *opaque, int fd, uint32_t gsi)
{
    (void)opaque, (void)fd, (void)gsi;
    try_control_calls();
    return 0;
}

static int bind_that_calls_back(void *opaque, int fd, int resamplefd, uint32_t gsi)
{
    (void)resamplefd;
    return irqfd_that_calls_back(opaque, fd, gsi);
}

static int accept_message(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    (void)opaque, (void)requester, (void)address, (void)data;
    return 1;
}

static void control_calls_from_inside_the_other_callbacks_are_refused(enum host host)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = MSIROUTE_CACHE_OPS_INIT;
    struct msi_device_config device = MSIROUTE_DEVICE_CONFIG_INIT;
    int fd = eventfd(0, EFD_CLOEXEC);
    (void)host;
    ops.signal = accept_message;
    ops.set_routes = table_that_calls_back;
    ops.bind_irqfd = bind_that_calls_back;
    ops.unbind_irqfd = irqfd_that_calls_back;
    config.ops = &ops;
    config.flags = rig_flags;
    device.kind = MSIROUTE_KIND_MSIX;
    device.vectors = 2;
    if (!expect_ok(msi_route_cache_new(&config, &inner_cache)) || !expect_ok(msi_device_new(inner_cache, &device, &inner)))
        return;
    atomic_store(&tried, 0);
    expect_ok(msi_device_set_control(inner, MSIROUTE_ENABLED));
    expect_ok(msi_vector_set(inner, 0, TO(1, 0x41)));
    expect_ok(msi_vector_unmask(inner, 0));
    expect_ok(msi_vector_bind_eventfd(inner, 0, fd, 0));
    expect_eq(atomic_load(&tried), 2);      /* the table, the irqfd */
    expect_ok(msi_vector_mask(inner, 0));
    expect_eq(atomic_load(&tried), 3);
    msi_device_free(inner);
    msi_route_cache_free(inner_cache);
    close(fd);
}

static atomic_int delivered_inside;

static int table_that_delivers(void *opaque, const struct kvm_irq_routing_entry *entries, size_t n)
{
    (void)opaque, (void)entries, (void)n;
    atomic_store(&delivered_inside, msi_deliver_message(inner_cache, MSIROUTE_NO_REQUESTER, TO(0, 0x99), 0));
    return 0;
}

static int raise_nothing(void *opaque, uint32_t gsi)
{
    (void)opaque, (void)gsi;
    return 1;
}

static void a_message_that_needs_a_route_is_refused_while_the_table_is_written(enum host host)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = MSIROUTE_CACHE_OPS_INIT;
    (void)host;
    ops.set_routes = table_that_delivers;
    ops.raise_gsi = raise_nothing;
    config.ops = &ops;
    config.flags = rig_flags;
    if (!expect_ok(msi_route_cache_new(&config, &inner_cache)))
        return;
    expect_eq(msi_deliver_message(inner_cache, MSIROUTE_NO_REQUESTER, TO(0, 0x41), 0), MSIROUTE_SENT);
    expect_eq(atomic_load(&delivered_inside), -EDEADLK);
    msi_route_cache_free(inner_cache);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ANYWHERE, control_calls_from_inside_signal_are_refused),
        TEST(ANYWHERE, control_calls_from_inside_raise_gsi_are_refused),
        TEST(ANYWHERE, control_calls_from_inside_the_other_callbacks_are_refused),
        TEST(ANYWHERE, a_message_that_needs_a_route_is_refused_while_the_table_is_written),
    };
    return TAP_MAIN(tests);
}
