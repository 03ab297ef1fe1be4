/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The relay where there are fewer routes than vectors, turned on and off, and eventfds that not everybody may serve. */
#include <errno.h>

#include "relays.h"

/* ---- on and off, and too few routes ---- */

static void without_a_relay_the_last_route_is_the_end(enum host host)
{
    RIG(rig, host, ROUTES(2));
    open_lines(&rig, 2);
    expect_ok(msi_vector_set(rig.dev, 2, TO(0, FIRST + 2)));
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_eq(msi_vector_bind_eventfd(rig.dev, 2, fd, 0), -ENOSPC);
    expect_eq(info_of(rig.dev, 2).eventfds, 0);
    expect_ok(msi_vector_mask(rig.dev, 2));
    expect_ok(msi_vector_bind_eventfd(rig.dev, 2, fd, 0));
    expect_eq(msi_vector_unmask(rig.dev, 2), -ENOSPC);
    expect_served(&rig, 2, UNSERVED);
    turn_on(&rig);
    expect_served(&rig, 2, RELAYED);
    expect_eq(msi_route_cache_relay_stop(rig.cache), -ENOSPC);
    expect_served(&rig, 2, UNSERVED);
}

static void turned_on_late_it_takes_the_unserved_over(enum host host)
{
    enum { LINES = 5, FIT = 2 };
    RIG(rig, host, ROUTES(FIT), .vectors = LINES);
    for (uint32_t i = 0; i < LINES; i++) {
        expect_ok(msi_vector_mask(rig.dev, i));
        expect_ok(msi_vector_set(rig.dev, i, TO(i % 2, FIRST + i)));
        rig_bound(&rig, i, 0);
        expect_eq(msi_vector_unmask(rig.dev, i), i < FIT ? 0 : -ENOSPC);
    }
    expect_eq(rig_stats(&rig).unserved_vectors, LINES - FIT);
    raise_line(&rig, 3);
    expect_quiet(&rig);
    expect_eq(TABLE_WRITES(&rig, turn_on(&rig)), 0);
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
    for (uint32_t i = 0; i < LINES; i++) {
        expect_served(&rig, i, i < FIT ? IN_KERNEL : RELAYED);
        expect_eq(info_of(rig.dev, i).error, 0);
    }
    serve(&rig);
    expect_line(&rig, 3);                       /* what it had counted */
    expect_quiet(&rig);
    for (uint32_t i = 0; i < LINES; i++) {
        raise_line(&rig, i);
        serve(&rig);
        expect_line(&rig, i);
    }
}

/* Which are busy changes; the kernel gets to serve the busy ones, and all of them work all the time. */
static void of_more_vectors_than_routes_the_busy_ones_get_them(enum host host)
{
    enum { LINES = 9, FIT = 3, TURNS = 3 };
    RIG(rig, host, ROUTES(FIT), .vectors = LINES);
    turn_on(&rig);
    open_lines(&rig, LINES);
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
    for (unsigned turn = 0; turn < TURNS; turn++) {
        uint32_t busy = turn * FIT;
        uint64_t demoted = rig_stats(&rig).demotions;
        tap_context("turn %u", turn);
        if (!promote(&rig, busy, FIT))
            return;
        expect(turn == 0 || rig_stats(&rig).demotions > demoted);
        expect_eq(rig_stats(&rig).unserved_vectors, 0);
        expect_eq(rig_stats(&rig).routes_pinned, FIT);
        for (uint32_t i = 0; i < LINES; i++) {
            raise_line(&rig, i);
            serve(&rig);
            expect_line(&rig, i);
            expect(info_of(rig.dev, i).flags & (RELAYED | IN_KERNEL));
        }
        expect_quiet(&rig);
    }
    expect(rig_stats(&rig).promotions >= TURNS * FIT);
}

static void routes_taken_before_the_relay_came_make_way_for_the_busy(enum host host)
{
    enum { LINES = 4, FIT = 2 };
    RIG(rig, host, ROUTES(FIT), .vectors = LINES);
    open_lines(&rig, FIT);
    turn_on(&rig);
    for (uint32_t i = FIT; i < LINES; i++)
        open_line(&rig, i, 0);
    promote(&rig, FIT, LINES - FIT);
    for (uint32_t i = 0; i < LINES; i++) {
        raise_line(&rig, i);
        serve(&rig);
        expect_line(&rig, i);
    }
}

/* Runs the relay, with line 1 waiting for the only route, until line 0 is taken from the kernel to be watched. */
static bool sample_line_0(struct rig *rig)
{
    uint64_t unbinds = rig_stats(rig)  .irqfd_unbinds;
    for (uint64_t end = now_us() + PATIENCE_US; now_us() < end; nap_ms(1)) {
        raise_line(rig, 1);
        expect(msi_route_cache_relay_run(rig->cache) >= 0);
        if (rig_stats(rig).irqfd_unbinds > unbinds && is(rig, 0, RELAYED)) {
            forget(rig);
            return true;
        }
    }
    tap_fail(__FILE__, __LINE__, "line 0 is never watched");
    return false;
}

static void a_sampled_vector_is_served_and_goes_back_when_it_is_signalled(enum host host)
{
    RIG(rig, host, ROUTES(1));
    if (!begin(&rig, false, 2) || !promote(&rig, 0, 1) || !sample_line_0(&rig))
        return;
    uint64_t demotions = rig_stats(&rig).demotions;
    expect_eq(rig_stats(&rig).routes_pinned, 1);
    raise_line(&rig, 0);
    expect_eq(TABLE_WRITES(&rig, msi_route_cache_relay_run(rig.cache)), 0);
    expect_line(&rig, 0);
    expect_served(&rig, 0, IN_KERNEL);
    raise_line(&rig, 0);
    expect_line(&rig, 0);
    expect_quiet(&rig);
    expect_eq(rig_stats(&rig).demotions, demotions);
}

static void a_change_during_a_sample_gives_the_route_back(enum host host)
{
    static const struct { const char *name; int (*change)(struct rig *rig); } changes[] = {
        { "mask", mask_it }, { "set", set_it }, { "clear", clear_it }, { "reset", reset_it }, { "pause", hold },
        { "bus master", no_master }, { "unbind", unbind_it }, { "close", close_it },
    };
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        RIG(rig, host, ROUTES(1));
        if (!begin(&rig, false, 2) || !promote(&rig, 0, 1) || !sample_line_0(&rig))
            return;
        tap_context("%s", changes[i].name);
        expect_ok(changes[i].change(&rig));
        expect_eq(rig_stats(&rig).routes_pinned, 0);
        expect_quiet(&rig);
    }
}

static void stopping_gives_what_fits_to_the_kernel_with_one_table_write(enum host host)
{
    enum { LINES = 10 };
    RIG(rig, host, .vectors = LINES + 1);
    if (!begin(&rig, false, LINES) || !promote(&rig, 0, 2))
        return;
    expect_ok(msi_vector_set(rig.dev, LINES, TO(0, FIRST + LINES)));
    expect_ok(msi_vector_mask(rig.dev, LINES));
    int masked = rig_bound(&rig, LINES, 0);
    raise_line(&rig, 5);                        /* counted, not told of */
    fires(&rig, masked);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_route_cache_relay_stop(rig.cache))), 1);
    expect_line(&rig, 5);
    expect_quiet(&rig);
    expect_refused(-EINVAL, relay_run, rig.cache);
    expect_eq(rig_stats(&rig).relayed_vectors, 0);
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
    for (uint32_t i = 0; i < LINES; i++) {
        expect_served(&rig, i, IN_KERNEL);
        raise_line(&rig, i);
        expect_line(&rig, i);
    }
    expect_ok(msi_vector_unmask(rig.dev, LINES));
    expect_line(&rig, LINES);
    expect_served(&rig, LINES, IN_KERNEL);
    expect_quiet(&rig);
}

static void stopping_with_too_many_leaves_them_counting_until_it_is_on_again(enum host host)
{
    enum { LINES = 6, FIT = 2 };
    RIG(rig, host, ROUTES(FIT), .vectors = LINES);
    if (!begin(&rig, false, LINES))
        return;
    for (unsigned turn = 0; turn < 3; turn++) {
        unsigned unserved = 0;
        tap_context("turn %u", turn);
        raise_line(&rig, 4);
        expect_refused(-ENOSPC, relay_stop, rig.cache);
        serve(&rig) /* turns it on again */;
        expect_line(&rig, 4);
        expect_quiet(&rig);
        expect_eq(TABLE_WRITES(&rig, expect_eq(msi_route_cache_relay_stop(rig.cache), -ENOSPC)), 0);
        expect_eq(rig_stats(&rig).unserved_vectors, LINES - FIT);
        for (uint32_t i = 0; i < LINES; i++) {
            unserved += is(&rig, i, UNSERVED);
            expect(is(&rig, i, UNSERVED) != is(&rig, i, IN_KERNEL));
            expect_eq(info_of(rig.dev, i).error, is(&rig, i, UNSERVED) ? -ENOSPC : 0);
            raise_line(&rig, i);
            raise_line(&rig, i);
        }
        expect_eq(unserved, LINES - FIT);
        for (uint32_t i = 0; i < LINES; i++) {
            if (is(&rig, i, IN_KERNEL))
                rig_arrivals(&rig, i % 2, FIRST + i);
            else
                expect_eq(rig_arrivals(&rig, i % 2, FIRST + i), 0);
        }
        forget(&rig);
        turn_on(&rig);
        uint32_t came = 0;
        bool was_unserved[LINES];
        for (uint32_t i = 0; i < LINES; i++)
            was_unserved[i] = is(&rig, i, RELAYED);
        serve(&rig);
        for (uint32_t i = 0; i < LINES; i++)
            if (was_unserved[i])
                came += expect_line(&rig, i);
        expect_eq(came, LINES - FIT);
        expect_quiet(&rig);
    }
}

static void masked_ones_stay_counting_across_off_and_on(enum host host)
{
    RIG(rig, host);
    if (!begin(&rig, false, 1))
        return;
    expect_ok(msi_vector_mask(rig.dev, 0));
    raise_line(&rig, 0);
    serve(&rig);
    expect_ok(msi_route_cache_relay_stop(rig.cache));
    turn_on(&rig);
    serve(&rig);
    expect_quiet(&rig);
    expect_ok(msi_vector_unmask(rig.dev, 0));
    serve(&rig);
    expect_line(&rig, 0);
    expect_quiet(&rig);
}

/* ---- who may serve ---- */

static void kernel_only_is_bound_at_once_or_refused(enum host host)
{
    RIG(rig, host, ROUTES(1));
    turn_on(&rig);
    open_line(&rig, 0, MSIROUTE_EVENTFD_KERNEL_ONLY);
    expect_served(&rig, 0, IN_KERNEL);
    expect_eq(rig_stats(&rig).table_writes, 1);
    raise_line(&rig, 0);
    expect_line(&rig, 0);
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, FIRST + 1)));
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_eq(msi_vector_bind_eventfd(rig.dev, 1, fd, MSIROUTE_EVENTFD_KERNEL_ONLY), -ENOSPC);
    expect_eq(info_of(rig.dev, 1).eventfds, 0);
    /* Beside one that the relay serves: that goes on. */
    expect_ok(msi_vector_bind_eventfd(rig.dev, 1, fd, 0));
    int other = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_eq(msi_vector_bind_eventfd(rig.dev, 1, other, MSIROUTE_EVENTFD_KERNEL_ONLY), -ENOSPC);
    expect_served(&rig, 1, RELAYED);
    expect_eq(info_of(rig.dev, 1).error, 0);
    fires(&rig, fd);
    serve(&rig);
    expect_line(&rig, 1);
    /* It is retargeted by a write, as without a relay. */
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x77)))), 1);
    expect_served(&rig, 0, IN_KERNEL);
    raise_line(&rig, 0);
    expect_arrival(&rig, 1, 0x77);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, -1));
    expect_ok(msi_vector_bind_eventfd(rig.dev, 1, other, MSIROUTE_EVENTFD_KERNEL_ONLY));
    expect_served(&rig, 1, IN_KERNEL);          /* both now */
    fires(&rig, fd);
    expect_line(&rig, 1);
    fires(&rig, other);
    expect_line(&rig, 1);
    serve(&rig);
    expect_quiet(&rig);
}

static void a_vector_with_a_kernel_only_eventfd_is_not_the_relays(enum host host)
{
    RIG(rig, host, ROUTES(1));
    turn_on(&rig);
    open_line(&rig, 0, MSIROUTE_EVENTFD_KERNEL_ONLY);
    expect_ok(msi_vector_mask(rig.dev, 1));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, FIRST + 1)));
    int any = rig_bound(&rig, 1, 0), only = rig_bound(&rig, 1, MSIROUTE_EVENTFD_KERNEL_ONLY);
    expect_eq(msi_vector_unmask(rig.dev, 1), -ENOSPC);
    expect_served(&rig, 1, UNSERVED);
    fires(&rig, only);
    fires(&rig, any);
    serve(&rig);
    expect_quiet(&rig);                         /* events are counted */
    expect_eq(msi_vector_is_pending(rig.dev, 1), 1);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, -1));       /* a route: it is tried again */
    expect_served(&rig, 1, IN_KERNEL);
    serve(&rig);
    expect_line(&rig, 1);
    expect_quiet(&rig);
}

static void when_the_kernel_only_eventfd_goes_the_relay_takes_over(enum host host)
{
    RIG(rig, host, ROUTES(1));
    turn_on(&rig);
    open_line(&rig, 0, MSIROUTE_EVENTFD_KERNEL_ONLY);
    expect_ok(msi_vector_mask(rig.dev, 1));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, FIRST + 1)));
    int any = rig_bound(&rig, 1, 0), only = rig_bound(&rig, 1, MSIROUTE_EVENTFD_KERNEL_ONLY);
    fires(&rig, any);
    serve(&rig);
    expect_eq(msi_vector_unmask(rig.dev, 1), -ENOSPC);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 1, only));
    expect_served(&rig, 1, RELAYED);
    serve(&rig);
    expect_line(&rig, 1);
    fires(&rig, any);
    serve(&rig);
    expect_line(&rig, 1);
    expect_quiet(&rig);
}

static void relay_only_is_never_the_kernels(enum host host)
{
    RIG(rig, host);
    open_line(&rig, 0, MSIROUTE_EVENTFD_RELAY_ONLY);
    for (unsigned turn = 0; turn < 2; turn++) {
        expect_served(&rig, 0, UNSERVED);
        raise_line(&rig, 0);
        raise_line(&rig, 0);
        expect_quiet(&rig);
        expect_eq(msi_vector_is_pending(rig.dev, 0), 1);
        turn_on(&rig);
        expect_served(&rig, 0, RELAYED);
        serve(&rig);
        expect_line(&rig, 0);
        expect_quiet(&rig);
        for (unsigned round = 0; round < 20; round++) {
            nap_ms(1);
            raise_line(&rig, 0);
            serve(&rig);
            expect_line(&rig, 0);
        }
        expect_served(&rig, 0, RELAYED);
        expect_ok(msi_route_cache_relay_stop(rig.cache));
    }
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_eq(rig_stats(&rig).irqfd_binds, 0);
    expect_eq(rig_stats(&rig).promotions, 0);
}

static void beside_a_relay_only_eventfd_another_is_promoted_once(enum host host)
{
    RIG(rig, host);
    turn_on(&rig);
    open_line(&rig, 0, 0);
    int only = rig_bound(&rig, 0, MSIROUTE_EVENTFD_RELAY_ONLY);
    nap_ms(10);
    for (unsigned round = 0; round < 40; round++) {
        raise_line(&rig, 0);
        serve(&rig);
        expect_line(&rig, 0);
        fires(&rig, only);
        serve(&rig);
        expect_line(&rig, 0);
        nap_ms(1);
    }
    expect_eq(rig_stats(&rig).irqfd_binds, 1);
    expect_eq(rig_stats(&rig).promotions, 1);
    expect_served(&rig, 0, RELAYED);
    uint64_t relayed = rig_stats(&rig).relayed_messages;
    raise_line(&rig, 0);
    expect_line(&rig, 0);
    serve(&rig);
    expect_eq(rig_stats(&rig).relayed_messages, relayed);
    expect_quiet(&rig);
}

struct bind_case { struct msi_device *dev; int fd; uint32_t flags; };

static int bind_eventfd(void *opaque)
{
    const struct bind_case *c = opaque;
    return msi_vector_bind_eventfd(c->dev, 0, c->fd, c->flags);
}

static void an_eventfd_that_nobody_may_serve_is_refused(enum host host)
{
    RIG(rig, host);
    struct bind_case c = { rig.dev, rig_eventfd(&rig, 0), MSIROUTE_EVENTFD_KERNEL_ONLY | MSIROUTE_EVENTFD_RELAY_ONLY };
    for (unsigned on = 0; on < 2; on++) {
        expect_refused(-EINVAL, bind_eventfd, &c);
        expect_eq(info_of(rig.dev, 0).eventfds, 0);
        turn_on(&rig);
    }
}

static void told(void *opaque, struct msi_device *dev, uint32_t what, uint32_t first, uint32_t n)
{
    (void)opaque, (void)dev, (void)what, (void)first, (void)n;
}

static void masked_at_source_stays_where_it_is(enum host host)
{
    RIG(rig, host);
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.vectors = 1;
    config.changed = told;
    struct msi_device *dev = rig.dev = rig_device_of(&rig, &config);
    turn_on(&rig);
    open_line(&rig, 0, MSIROUTE_EVENTFD_MASKED_AT_SOURCE);
    for BOTH_WAYS(promoted) {
        tap_context(promoted ? "promoted" : "relayed");
        if (promoted && !promote(&rig, 0, 1))
            return;
        uint64_t unbinds = rig_stats(&rig).irqfd_unbinds, writes = rig_stats(&rig).table_writes;
        for (unsigned round = 0; round < 3; round++) {
            expect_ok(msi_vector_mask(dev, 0));
            expect_eq(msi_deliver(dev, 0), MSIROUTE_PENDING);   /* the source held something back */
            serve(&rig);
            expect_quiet(&rig);
            expect_ok(msi_vector_unmask(dev, 0));
            expect_line(&rig, 0);
            expect_served(&rig, 0, promoted ? IN_KERNEL : RELAYED);
            raise_line(&rig, 0);
            serve(&rig);
            expect_line(&rig, 0);
        }
        expect_quiet(&rig);
        expect_eq(rig_stats(&rig).irqfd_unbinds, unbinds);
        expect_eq(rig_stats(&rig).table_writes, writes);
    }
    expect_ok(no_master(&rig));                 /* no mask: the source does not know */
    raise_line(&rig, 0);
    serve(&rig);
    expect_quiet(&rig);
    expect_eq(msi_vector_is_pending(dev, 0), 1);
    expect_ok(msi_device_set_bus_master(dev, 1));
    serve(&rig);
    expect_line(&rig, 0);
    expect_ok(msi_vector_mask(dev, 0));
    expect_ok(msi_vector_set(dev, 0, TO(1, 0x99)));
    expect_ok(msi_vector_unmask(dev, 0));
    raise_line(&rig, 0);
    serve(&rig);
    expect_arrival(&rig, 1, 0x99);
    expect_quiet(&rig);
}

/* ---- messages that need routes themselves ---- */

static void messages_by_routes_and_more_vectors_than_those(enum host host)
{
    enum { LINES = 20, FIT = 10 };
    RIG(rig, host, ROUTES(FIT), .vectors = LINES, .cache_flags = MSIROUTE_CACHE_NO_DIRECT);
    turn_on(&rig);
    open_lines(&rig, LINES);
    for (unsigned round = 0; round < 30; round++) {
        tap_context("round %u", round);
        for (uint32_t i = 0; i < LINES; i++)
            raise_line(&rig, i);
        serve(&rig);
        for (uint32_t i = 0; i < LINES; i++)
            if (!expect_line(&rig, i))
                return;
        nap_ms(1);
    }
    expect_quiet(&rig);
    expect(rig_stats(&rig).promotions > 0);
    expect(rig_stats(&rig).routes_pinned < FIT);
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_KVM | ON_FAKE, without_a_relay_the_last_route_is_the_end),
        TEST(ON_KVM | ON_FAKE, turned_on_late_it_takes_the_unserved_over),
        TEST(ON_KVM | ON_FAKE, of_more_vectors_than_routes_the_busy_ones_get_them),
        TEST(ON_KVM | ON_FAKE, routes_taken_before_the_relay_came_make_way_for_the_busy),
        TEST(ON_KVM | ON_FAKE, a_sampled_vector_is_served_and_goes_back_when_it_is_signalled),
        TEST(ON_KVM | ON_FAKE, a_change_during_a_sample_gives_the_route_back),
        TEST(EVERYWHERE, stopping_gives_what_fits_to_the_kernel_with_one_table_write),
        TEST(ON_KVM | ON_FAKE, stopping_with_too_many_leaves_them_counting_until_it_is_on_again),
        TEST(EVERYWHERE, masked_ones_stay_counting_across_off_and_on),
        TEST(ON_KVM | ON_FAKE, kernel_only_is_bound_at_once_or_refused),
        TEST(ON_KVM | ON_FAKE, a_vector_with_a_kernel_only_eventfd_is_not_the_relays),
        TEST(ON_KVM | ON_FAKE, when_the_kernel_only_eventfd_goes_the_relay_takes_over),
        TEST(EVERYWHERE, relay_only_is_never_the_kernels),
        TEST(EVERYWHERE, beside_a_relay_only_eventfd_another_is_promoted_once),
        TEST(EVERYWHERE, an_eventfd_that_nobody_may_serve_is_refused),
        TEST(EVERYWHERE, masked_at_source_stays_where_it_is),
        TEST(ON_KVM | ON_FAKE, messages_by_routes_and_more_vectors_than_those),
    };
    return TAP_MAIN(tests);
}
