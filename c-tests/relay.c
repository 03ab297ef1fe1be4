/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The relay: eventfds served from user space until they are busy and calm. */
#include <errno.h>
#include <fcntl.h>

#include "relays.h"

/* ---- who drives it ---- */

static void poll_and_run_in_the_main_loop_serve_eventfds(enum host host)
{
    RIG(rig, host);
    int fd = msi_route_cache_relay_fd(rig.cache);
    expect(fd >= 0);
    expect_eq(msi_route_cache_relay_fd(rig.cache), fd);
    expect(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    expect_eq(is_readable(fd), false);
    open_lines(&rig, 2);
    for (uint32_t i = 0; i < 2; i++) {
        expect_served(&rig, i, RELAYED);
        expect_eq(info_of(rig.dev, i).gsi, MSIROUTE_ANY_GSI);
    }
    expect_eq(rig_stats(&rig).relayed_vectors, 2);
    expect_eq(msi_route_cache_relay_run(rig.cache), 0);
    raise_line(&rig, 1);
    expect(is_readable(fd));
    expect_quiet(&rig);                         /* nobody else serves it */
    expect_eq(msi_route_cache_relay_run(rig.cache), 0);
    expect_line(&rig, 1);
    expect_eq(is_readable(fd), false);
    signal_from_another_process(rig.eventfds[0], 5);
    expect_eq(msi_route_cache_relay_run(rig.cache), 0);
    expect_line(&rig, 0);
    expect_eq(msi_route_cache_relay_run(rig.cache), 0);
    expect_quiet(&rig);
    expect_eq(rig_stats(&rig).relayed_messages, 2);
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_eq(rig_stats(&rig).irqfd_binds, 0);
}

static void one_run_serves_a_bounded_batch_and_says_whether_there_may_be_more(enum host host)
{
    enum { LINES = 200 };
    RIG(rig, host, .vectors = LINES);
    unsigned runs = 1;
    turn_on(&rig);
    for (uint32_t i = 0; i < LINES; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO(i % 2, FIRST + i % MAX_LINES)));
        add_to_eventfd(rig_bound(&rig, i, 0), 1);
    }
    while (msi_route_cache_relay_run(rig.cache) == 1 && runs < LINES)
        runs++;
    expect(runs > 1 && runs < LINES);
    expect_eq(rig_stats(&rig).relayed_messages, LINES);
}

static void a_lent_thread_serves_eventfds_until_the_relay_is_stopped(enum host host)
{
    RIG(rig, host);
    struct lent lent;
    open_lines(&rig, 2);
    lend(&rig, &lent);
    expect_ok(msi_vector_mask(rig.dev, 1));     /* those that are in the kernel already are left there */
    expect_ok(msi_vector_unmask(rig.dev, 1));
    expect_served(&rig, 1, RELAYED);
    for (uint32_t i = 0; i < 2; i++) {
        raise_line(&rig, i);
        expect_line(&rig, i);
    }
    signal_from_another_process(rig.eventfds[1], 1);
    expect_line(&rig, 1);
    nap_ms(20);                                 /* it sleeps in its wait now, most likely */
    expect_ok(msi_route_cache_relay_stop(rig.cache));
    take_back(&lent);
    expect_quiet(&rig);
}

static void freeing_the_cache_ends_the_loop(enum host host)
{
    for (unsigned early = 0; early < 2; early++) {
        RIG(rig, host);
        struct lent lent;
        lend(&rig, &lent);
        open_lines(&rig, 1);
        raise_line(&rig, 0);
        expect_line(&rig, 0);
        if (!early)
            nap_ms(20);
        msi_device_free(rig_take_device(&rig));
        msi_route_cache_free(rig_take_cache(&rig));
        take_back(&lent);
    }
}

/* A vCPU for each vector: what is taken out of one's IRR leaves the others alone. */
static void several_threads_in_the_loop_serve_together(enum host host)
{
    enum { LINES = 8, THREADS = 4, ROUNDS = 50 };
    RIG(rig, host, .cpus = LINES, .vectors = LINES);
    struct lent lent[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        lend(&rig, &lent[i]);
    for (uint32_t i = 0; i < LINES; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO(i, FIRST)));
        rig_bound(&rig, i, 0);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        tap_context("round %u", round);
        for (uint32_t i = 0; i < LINES; i++)
            add_to_eventfd(rig.eventfds[i], 1);
        for (uint32_t i = 0; i < LINES; i++)
            if (!expect_arrival(&rig, i, FIRST))
                round = ROUNDS;
    }
    expect_quiet(&rig);
    for (uint64_t end = now_us() + PATIENCE_US; rig_stats(&rig).promotions < LINES && now_us() < end; nap_ms(1))
        for (uint32_t i = 0; i < LINES; i++)
            add_to_eventfd(rig.eventfds[i], 1);
    expect_eq(rig_stats(&rig).promotions, LINES);
    expect_eq(msi_route_cache_relay_run(rig.cache), 0);     /* beside them */
    expect_ok(msi_route_cache_relay_stop(rig.cache));
    for (unsigned i = 0; i < THREADS; i++)
        take_back(&lent[i]);
}

static void while_it_is_off_run_and_loop_and_stop_are_refused(enum host host)
{
    RIG(rig, host);
    for (unsigned turn = 0; turn < 3; turn++) {
        tap_context("turn %u", turn);
        expect_refused(-EINVAL, relay_run, rig.cache);
        expect_refused(-EINVAL, relay_loop, rig.cache);
        expect_refused(-EINVAL, relay_stop, rig.cache);
        turn_on(&rig);
        expect_eq(msi_route_cache_relay_run(rig.cache), 0);
        expect_ok(msi_route_cache_relay_stop(rig.cache));
    }
    expect_refused(-EINVAL, relay_run, NULL);
    expect_refused(-EINVAL, relay_loop, NULL);
    expect_refused(-EINVAL, relay_stop, NULL);
    expect_eq(msi_route_cache_relay_fd(NULL), -EINVAL);
}

/* ---- promotion ---- */

static void unmasking_and_setting_write_no_table(enum host host)
{
    enum { LINES = 32 };
    RIG(rig, host, .vectors = LINES);
    turn_on(&rig);
    open_lines(&rig, LINES);
    for (uint32_t i = 0; i < LINES; i++) {
        expect_ok(msi_vector_mask(rig.dev, i));
        expect_ok(msi_vector_set(rig.dev, i, TO(1, 0x90 + i)));
        expect_ok(msi_vector_unmask(rig.dev, i));
        expect_ok(msi_vector_set(rig.dev, i, TO(i % 2, FIRST + i)));
        expect_served(&rig, i, RELAYED);
        raise_line(&rig, i);
    }
    serve(&rig);
    for (uint32_t i = 0; i < LINES; i++)
        expect_line(&rig, i);
    expect_quiet(&rig);
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_eq(rig_stats(&rig).irqfd_binds, 0);
    expect_eq(rig_stats(&rig).relayed_vectors, LINES);
}

static void busy_calm_vectors_are_promoted_with_one_table_write(enum host host)
{
    enum { LINES = 40 };
    RIG(rig, host, .vectors = LINES);
    turn_on(&rig);
    open_lines(&rig, LINES);
    nap_ms(10);                                 /* calm they are */
    for (unsigned round = 0; round < 4; round++) {
        expect_eq(rig_stats(&rig).promotions, 0);
        for (uint32_t i = 0; i < LINES; i++)
            raise_line(&rig, i);
        serve(&rig);
        for (uint32_t i = 0; i < LINES; i++)
            expect_line(&rig, i);
    }
    expect_eq(rig_stats(&rig).promotions, LINES);
    expect_eq(rig_stats(&rig).table_writes, 1);
    expect_eq(rig_stats(&rig).relayed_vectors, 0);
    expect_eq(rig_stats(&rig).routes_pinned, LINES);
    uint64_t relayed = rig_stats(&rig).relayed_messages;
    for (uint32_t i = 0; i < LINES; i++) {
        expect_served(&rig, i, IN_KERNEL);
        raise_line(&rig, i);                    /* and nobody runs the relay */
        expect_line(&rig, i);
    }
    serve(&rig);
    expect_quiet(&rig);
    expect_eq(rig_stats(&rig).relayed_messages, relayed);
}

static void a_vector_that_is_masked_again_and_again_is_not_promoted(enum host host)
{
    RIG(rig, host);
    if (!begin(&rig, false, 1))
        return;
    for (unsigned round = 0; round < 100; round++) {
        expect_ok(msi_vector_mask(rig.dev, 0));
        expect_ok(msi_vector_unmask(rig.dev, 0));
        raise_line(&rig, 0);
        serve(&rig);
        expect_line(&rig, 0);
    }
    expect_eq(rig_stats(&rig).promotions, 0);
    expect_eq(rig_stats(&rig).table_writes, 0);
}

/* ---- the guest's changes ---- */

static void what_is_counted_while_masked_is_sent_once_at_unmask(enum host host)
{
    for BOTH_WAYS(promoted) {
        RIG(rig, host);
        if (!begin(&rig, promoted, 2))
            return;
        uint64_t writes = rig_stats(&rig).table_writes;
        for (unsigned round = 0; round < 3; round++) {
            expect_ok(msi_vector_mask(rig.dev, 0));
            expect_served(&rig, 0, 0);
            expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
            for (unsigned i = 0; i < 3; i++)
                raise_line(&rig, 0);
            if (round)
                serve(&rig);                    /* else it is told of after the unmask */
            expect_quiet(&rig);
            expect_eq(msi_vector_is_pending(rig.dev, 0), 1);
            raise_line(&rig, 1);
            serve(&rig);
            expect_line(&rig, 1);
            expect_ok(msi_vector_unmask(rig.dev, 0));
            serve(&rig);
            expect_line(&rig, 0);
            serve(&rig);
            expect_quiet(&rig);
            expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
            expect_served(&rig, 0, RELAYED);
        }
        expect_eq(rig_stats(&rig).table_writes, writes);
        expect_ok(msi_vector_mask(rig.dev, 0));
        raise_line(&rig, 0);
        serve(&rig);
        expect_eq(msi_vector_clear_pending(rig.dev, 0), 1);
        expect_ok(msi_vector_unmask(rig.dev, 0));
        serve(&rig);
        expect_quiet(&rig);
        raise_line(&rig, 0);
        serve(&rig);
        expect_line(&rig, 0);
    }
}

static void delivered_and_signalled_while_masked_is_one_interrupt(enum host host)
{
    for BOTH_WAYS(promoted) {
        RIG(rig, host);
        if (!begin(&rig, promoted, 1))
            return;
        int second = rig_bound(&rig, 0, 0);
        for (unsigned round = 0; round < 2; round++) {
            expect_ok(msi_vector_mask(rig.dev, 0));
            expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
            raise_line(&rig, 0);
            fires(&rig, second);
            if (round)
                serve(&rig);
            expect_ok(msi_vector_unmask(rig.dev, 0));
            serve(&rig);
            expect_line(&rig, 0);
            expect_quiet(&rig);
        }
    }
}

static void after_set_the_old_message_never_comes(enum host host)
{
    for BOTH_WAYS(promoted) {
        RIG(rig, host);
        if (!begin(&rig, promoted, 1))
            return;
        for (unsigned i = 0; i < 30; i++) {
            unsigned cpu = i % 2, vector = 0x80 + i;
            expect_eq(TABLE_WRITES(&rig, expect_ok(msi_vector_set(rig.dev, 0, TO(cpu, vector)))), 0);
            expect_served(&rig, 0, RELAYED);
            raise_line(&rig, 0);
            if (i % 3 == 1) {                   /* raised before the change, told of after it */
                vector += 0x20;
                expect_ok(msi_vector_set(rig.dev, 0, TO(cpu, vector)));
            }
            serve(&rig);
            expect_arrival(&rig, cpu, vector);
            expect_quiet(&rig);
        }
        expect_ok(msi_vector_clear(rig.dev, 0));
        raise_line(&rig, 0);
        serve(&rig);
        expect_quiet(&rig);
        expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x70)));
        serve(&rig);
        expect_arrival(&rig, 1, 0x70);
        expect_quiet(&rig);
    }
}

static void unbound_is_silent_and_bound_again_is_served(enum host host)
{
    for BOTH_WAYS(promoted) {
        RIG(rig, host);
        if (!begin(&rig, promoted, 1))
            return;
        int fd = rig.eventfds[0];
        expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
        expect_eq(rig_stats(&rig).routes_pinned, 0);
        add_to_eventfd(fd, 3);
        serve(&rig);
        expect_quiet(&rig);
        expect_eq(take_count(fd), 3);
        add_to_eventfd(fd, 2);
        expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));  /* what it has counted is one interrupt */
        serve(&rig);
        expect_line(&rig, 0);
        expect_quiet(&rig);
        expect_eq(take_count(fd), 0);
    }
}

static void several_eventfds_raise_one_vector(enum host host)
{
    for BOTH_WAYS(promoted) {
        RIG(rig, host);
        if (!begin(&rig, promoted, 1))
            return;
        int more[2] = { rig_bound(&rig, 0, 0), rig_bound(&rig, 0, MSIROUTE_EVENTFD_BORROWED) };
        expect_served(&rig, 0, RELAYED);        /* or some of them */
        for (unsigned i = 0; i < 2; i++) {
            fires(&rig, more[i]);
            serve(&rig);
            expect_line(&rig, 0);
            raise_line(&rig, 0);
            serve(&rig);
            expect_line(&rig, 0);
        }
        expect_ok(msi_vector_mask(rig.dev, 0));
        for (unsigned i = 0; i < 2; i++)
            fires(&rig, more[i]);
        raise_line(&rig, 0);
        serve(&rig);
        expect_ok(msi_vector_unmask(rig.dev, 0));
        serve(&rig);
        expect_line(&rig, 0);
        expect_quiet(&rig);
        for (uint64_t end = now_us() + PATIENCE_US; !is(&rig, 0, IN_KERNEL) && now_us() < end; nap_ms(1)) {
            fires(&rig, more[0]);
            serve(&rig);
        }
        forget(&rig);
        expect_served(&rig, 0, IN_KERNEL);
        for (unsigned i = 0; i < 2; i++) {
            fires(&rig, more[i]);
            expect_line(&rig, 0);
        }
        expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, more[0]));
        fires(&rig, more[0]);
        serve(&rig);
        expect_quiet(&rig);
        raise_line(&rig, 0);
        expect_line(&rig, 0);
    }
}

struct shutter {
    const char *name;
    int (*shut)(struct rig *rig), (*open)(struct rig *rig);
};

static int mask_function(struct rig *rig) { return msi_device_set_control(rig->dev, MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED); }
static int enable(struct rig *rig)        { return msi_device_set_control(rig->dev, MSIROUTE_ENABLED); }
static int disable(struct rig *rig)       { return msi_device_set_control(rig->dev, 0); }
static int master(struct rig *rig)        { return msi_device_set_bus_master(rig->dev, 1); }
static int resume(struct rig *rig)        { return msi_route_cache_resume(rig->cache); }

static int save_and_load(struct rig *rig)
{
    struct saved state = saved(rig->dev);
    expect_ok(msi_device_reset(rig->dev));
    expect_ok(msi_device_load(rig->dev, state.bytes, state.size));
    return msi_route_cache_resume(rig->cache);
}

static void whatever_shuts_a_function_silences_it_and_loses_nothing(enum host host)
{
    enum { LINES = 3 };
    static const struct shutter shutters[] = {
        { "function mask", mask_function, enable }, { "disabled", disable, enable }, { "bus master", no_master, master },
        { "paused", hold, resume }, { "paused, saved and loaded", hold, save_and_load },
    };
    for (size_t i = 0; i < sizeof(shutters) / sizeof(shutters[0]); i++) {
        for BOTH_WAYS(promoted) {
            RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = LINES);
            expect_ok(enable(&rig));
            if (!begin(&rig, promoted, LINES))
                return;
            tap_context("%s, %s", shutters[i].name, promoted ? "promoted" : "relayed");
            uint64_t writes = rig_stats(&rig).table_writes;
            expect_ok(shutters[i].shut(&rig));
            for (uint32_t line = 0; line < LINES - 1; line++) {
                raise_line(&rig, line);
                raise_line(&rig, line);
            }
            serve(&rig);
            expect_quiet(&rig);
            for (uint32_t line = 0; line < LINES; line++)
                expect_eq(msi_vector_is_pending(rig.dev, line), line < LINES - 1);
            expect_ok(shutters[i].open(&rig));
            serve(&rig);
            if (i < 4)      /* what a load makes of it beside what stayed counted is another test's */
                for (uint32_t line = 0; line < LINES - 1; line++)
                    expect_line(&rig, line);
            else
                rig_arrivals(&rig, 0, FIRST), rig_arrivals(&rig, 1, FIRST + 1);
            expect_quiet(&rig);
            expect_eq(rig_stats(&rig).table_writes, writes);
            for (uint32_t line = 0; line < LINES; line++) {
                expect_served(&rig, line, RELAYED);
                raise_line(&rig, line);
                serve(&rig);
                expect_line(&rig, line);
            }
        }
    }
}

static void what_is_saved_pending_is_sent_once_after_a_load(enum host host)
{
    for BOTH_WAYS(promoted) {
        RIG(rig, host);
        if (!begin(&rig, promoted, 1))
            return;
        expect_ok(msi_route_cache_pause(rig.cache));
        raise_line(&rig, 0);
        serve(&rig);
        struct saved state = saved(rig.dev);
        expect_ok(msi_device_load(rig.dev, state.bytes, state.size));
        expect_ok(msi_route_cache_resume(rig.cache));
        serve(&rig);
        expect_line(&rig, 0);
        expect_quiet(&rig);
    }
}

static void a_reset_throws_away_what_is_counted(enum host host)
{
    for BOTH_WAYS(promoted) {
        RIG(rig, host);
        if (!begin(&rig, promoted, 2))
            return;
        expect_ok(msi_vector_mask(rig.dev, 0));
        raise_line(&rig, 0);
        raise_line(&rig, 1);                    /* perhaps not told of yet */
        if (promoted)
            expect_line(&rig, 1);
        expect_ok(msi_device_reset(rig.dev));
        serve(&rig);
        expect_quiet(&rig);
        for (uint32_t i = 0; i < 2; i++) {
            expect_eq(msi_vector_is_pending(rig.dev, i), 0);
            expect_ok(msi_vector_set(rig.dev, i, TO(i, FIRST + i)));
            expect_served(&rig, i, RELAYED);
        }
        serve(&rig);
        expect_quiet(&rig);
        for (uint32_t i = 0; i < 2; i++) {
            raise_line(&rig, i);
            serve(&rig);
            expect_line(&rig, i);
        }
    }
}

static void a_closed_device_leaves_the_relay(enum host host)
{
    for BOTH_WAYS(promoted) {
        RIG(rig, host);
        if (!begin(&rig, promoted, 2))
            return;
        raise_line(&rig, 0);
        if (promoted)
            expect_line(&rig, 0);
        expect_ok(msi_device_close(rig.dev));
        raise_line(&rig, 1);
        serve(&rig);
        expect_quiet(&rig);
        expect_eq(rig_stats(&rig).relayed_vectors, 0);
        expect_eq(rig_stats(&rig).routes_pinned, 0);
        expect_eq(take_count(rig.eventfds[1]), 1);
        /* They are free for another. */
        struct msi_device *other = rig_device(&rig, MSIROUTE_KIND_PLAIN, 1);
        expect_ok(msi_vector_set(other, 0, TO(1, 0x88)));
        expect_ok(msi_vector_bind_eventfd(other, 0, rig.eventfds[1], 0));
        raise_line(&rig, 1);
        serve(&rig);
        expect_arrival(&rig, 1, 0x88);
        expect_quiet(&rig);
    }
}

static void in_a_transaction_the_relay_serves_too(enum host host)
{
    RIG(rig, host);
    turn_on(&rig);
    expect_ok(msi_route_cache_begin(rig.cache));
    open_lines(&rig, 2);
    raise_line(&rig, 0);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_route_cache_commit(rig.cache))), 0);
    serve(&rig);
    expect_line(&rig, 0);
    raise_line(&rig, 1);
    serve(&rig);
    expect_line(&rig, 1);
    expect_quiet(&rig);
}

/* ---- through a vIOMMU ---- */

struct viommu { bool present; unsigned cpu, vector; };
#define HANDLE 0xFEE00000u | 7u << 5 | 1u << 4, 0

static int translate(void *opaque, uint32_t requester, uint64_t *address, uint32_t *data, uint64_t *tag)
{
    const struct viommu *viommu = opaque;
    (void)requester;
    *tag = *address >> 5 & 0x7FFF;
    *address = to_apic(viommu->cpu);
    *data = vector_data(viommu->vector);
    return viommu->present ? 0 : -EPERM;
}

static void what_the_viommu_changes_or_blocks_the_relay_does_too(enum host host)
{
    for BOTH_WAYS(promoted) {
        RIG(rig, host);
        struct viommu viommu = { true, 0, FIRST };
        turn_on(&rig);
        expect_ok(msi_route_cache_set_remap(rig.cache, translate, &viommu));
        expect_ok(msi_vector_set(rig.dev, 0, HANDLE));
        rig_bound(&rig, 0, 0);
        tap_context(promoted ? "promoted" : "relayed");
        if (promoted && !promote(&rig, 0, 1))
            return;
        uint64_t writes = rig_stats(&rig).table_writes;
        raise_line(&rig, 0);
        serve(&rig);
        expect_line(&rig, 0);
        viommu = (struct viommu){ true, 1, 0xA1 };
        expect_ok(msi_route_cache_invalidate(rig.cache, MSIROUTE_NO_REQUESTER, 7, 7));
        expect_served(&rig, 0, RELAYED);
        raise_line(&rig, 0);
        serve(&rig);
        expect_arrival(&rig, 1, 0xA1);
        raise_line(&rig, 0);                    /* before, told of after */
        viommu.present = false;
        expect_ok(msi_route_cache_invalidate(rig.cache, MSIROUTE_NO_REQUESTER, 7, 7));
        serve(&rig);
        expect(is(&rig, 0, MSIROUTE_VECTOR_BLOCKED));
        raise_line(&rig, 0);
        serve(&rig);
        expect_quiet(&rig);
        expect_eq(msi_vector_is_pending(rig.dev, 0), 1);
        viommu = (struct viommu){ true, 1, 0xA2 };
        expect_ok(msi_route_cache_invalidate(rig.cache, MSIROUTE_NO_REQUESTER, 0, UINT64_MAX));
        serve(&rig);
        expect_arrival(&rig, 1, 0xA2);
        expect_quiet(&rig);
        expect_eq(rig_stats(&rig).table_writes, writes);
        expect_ok(msi_route_cache_set_remap(rig.cache, NULL, NULL));
        expect_ok(msi_vector_set(rig.dev, 0, TO(0, FIRST)));
        raise_line(&rig, 0);
        serve(&rig);
        expect_line(&rig, 0);
    }
}

/* ---- sources that do not know when to stop ---- */

static void a_noisy_masked_vector_wakes_the_relay_once(enum host host)
{
    for BOTH_WAYS(promoted) {
        RIG(rig, host);
        if (!begin(&rig, promoted, 2))
            return;
        int fd = msi_route_cache_relay_fd(rig.cache);
        for (unsigned round = 0; round < 3; round++) {
            unsigned woken = 0;
            expect_ok(msi_vector_mask(rig.dev, 0));
            for (unsigned i = 0; i < 100; i++) {
                raise_line(&rig, 0);
                woken += is_readable(fd);
                serve(&rig);
            }
            expect(woken <= 1);
            raise_line(&rig, 1);                /* the others are heard */
            serve(&rig);
            expect_line(&rig, 1);
            expect_ok(msi_vector_unmask(rig.dev, 0));
            serve(&rig);
            expect_line(&rig, 0);
            expect_eq(is_readable(fd), false);
        }
    }
}

static void a_blocking_eventfd_never_makes_the_relay_wait(enum host host)
{
    RIG(rig, host);
    turn_on(&rig);
    int fd = rig_eventfd(&rig, 0), quiet = rig_eventfd(&rig, 0);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, FIRST)));
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, quiet, 0));
    for (unsigned round = 0; round < 5; round++) {
        fires(&rig, fd);
        serve(&rig);
        expect_line(&rig, 0);
        fires(&rig, fd);
        expect_ok(msi_vector_mask(rig.dev, 0));     /* the relay comes for nothing */
        serve(&rig);
        expect_eq(msi_vector_clear_pending(rig.dev, 0), 1);
        expect_ok(msi_vector_unmask(rig.dev, 0));
        serve(&rig);
    }
    if (!promote(&rig, 0, 1))
        return;
    expect_ok(msi_route_cache_relay_stop(rig.cache));
    expect_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    expect_quiet(&rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, poll_and_run_in_the_main_loop_serve_eventfds),
        TEST(ON_KVM | ON_MODEL, one_run_serves_a_bounded_batch_and_says_whether_there_may_be_more),
        TEST(EVERYWHERE, while_it_is_off_run_and_loop_and_stop_are_refused),
        TEST(ON_KVM | ON_MODEL, a_lent_thread_serves_eventfds_until_the_relay_is_stopped),
        TEST(ON_KVM | ON_MODEL, freeing_the_cache_ends_the_loop),
        TEST(ON_KVM | ON_MODEL, several_threads_in_the_loop_serve_together),
        TEST(EVERYWHERE, unmasking_and_setting_write_no_table),
        TEST(EVERYWHERE, busy_calm_vectors_are_promoted_with_one_table_write),
        TEST(EVERYWHERE, a_vector_that_is_masked_again_and_again_is_not_promoted),
        TEST(EVERYWHERE, what_is_counted_while_masked_is_sent_once_at_unmask),
        TEST(EVERYWHERE, delivered_and_signalled_while_masked_is_one_interrupt),
        TEST(EVERYWHERE, after_set_the_old_message_never_comes),
        TEST(EVERYWHERE, unbound_is_silent_and_bound_again_is_served),
        TEST(EVERYWHERE, several_eventfds_raise_one_vector),
        TEST(EVERYWHERE, whatever_shuts_a_function_silences_it_and_loses_nothing),
        TEST(EVERYWHERE, what_is_saved_pending_is_sent_once_after_a_load),
        TEST(EVERYWHERE, a_reset_throws_away_what_is_counted),
        TEST(EVERYWHERE, a_closed_device_leaves_the_relay),
        TEST(EVERYWHERE, in_a_transaction_the_relay_serves_too),
        TEST(EVERYWHERE, what_the_viommu_changes_or_blocks_the_relay_does_too),
        TEST(EVERYWHERE, a_noisy_masked_vector_wakes_the_relay_once),
        TEST(EVERYWHERE, a_blocking_eventfd_never_makes_the_relay_wait),
    };
    return TAP_MAIN(tests);
}
