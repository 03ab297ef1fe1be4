/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The relay where descriptors run out, a kernel refuses, and calls meet what it is just doing. */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "relays.h"

/* ---- descriptors ---- */

static void the_number_of_a_lent_descriptor_closed_early_is_its_next_owners(enum host host)
{
    RIG(rig, host);
    turn_on(&rig);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, FIRST)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, FIRST + 1)));
    int lent = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), writer = dup(lent), number = lent;
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, lent, MSIROUTE_EVENTFD_BORROWED));
    close(lent);
    int next = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (expect_eq(next, number)) {
        expect_ok(msi_vector_bind_eventfd(rig.dev, 1, next, MSIROUTE_EVENTFD_BORROWED));
        expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, number));
        fires(&rig, writer);
        serve(&rig);
        expect_quiet(&rig);                     /* events of it are nobody's */
        for (unsigned round = 0; round < 3; round++) {
            fires(&rig, next);
            serve(&rig);
            expect_line(&rig, 1);
            expect_ok(msi_vector_mask(rig.dev, 1));
            fires(&rig, next);
            serve(&rig);
            expect_ok(msi_vector_unmask(rig.dev, 1));
            serve(&rig);
            expect_line(&rig, 1);
            expect_quiet(&rig);
        }
        expect_ok(msi_vector_bind_eventfd(rig.dev, 0, writer, 0));
        serve(&rig);
        expect_line(&rig, 0);                   /* what it has counted */
        fires(&rig, writer);
        serve(&rig);
        expect_line(&rig, 0);
        expect_quiet(&rig);
        expect_ok(msi_vector_unbind_eventfd(rig.dev, 1, next));
    }
    close(next);
    close(writer);
}

static void an_eventfd_closed_by_the_VMM_after_bind_is_served(enum host host)
{
    RIG(rig, host);
    turn_on(&rig);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), writer = dup(fd);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
    close(fd);
    for (unsigned round = 0; round < 3; round++) {
        fires(&rig, writer);
        serve(&rig);
        expect_arrival(&rig, 1, 0x41);
        expect_ok(msi_vector_mask(rig.dev, 0));
        fires(&rig, writer);
        serve(&rig);
        expect_ok(msi_vector_unmask(rig.dev, 0));
        serve(&rig);
        expect_arrival(&rig, 1, 0x41);
    }
    expect_quiet(&rig);
    close(writer);
}

/* No more descriptors than there are, and so many more. */
static struct rlimit few_descriptors(unsigned more)
{
    struct rlimit before, few;
    int next = dup(0);
    close(next);
    expect_ok(getrlimit(RLIMIT_NOFILE, &before));
    few = before;
    few.rlim_cur = (rlim_t)next + more;
    expect_ok(setrlimit(RLIMIT_NOFILE, &few));
    return before;
}

static void without_a_descriptor_for_it_the_relay_stays_off(enum host host)
{
    RIG(rig, host);
    open_lines(&rig, 2);
    unsigned before = open_descriptors();
    for (unsigned more = 0; more < 2; more++) {
        tap_context("%u descriptors left", more);
        struct rlimit limit = few_descriptors(more);
        expect_eq(msi_route_cache_relay_fd(rig.cache), -EMFILE);
        expect_eq(msi_route_cache_relay_run(rig.cache), -EINVAL);
        setrlimit(RLIMIT_NOFILE, &limit);
        expect_eq(open_descriptors(), before);
        for (uint32_t i = 0; i < 2; i++) {
            expect_served(&rig, i, IN_KERNEL);
            raise_line(&rig, i);
            expect_line(&rig, i);
        }
    }
    turn_on(&rig);
    expect_ok(msi_vector_mask(rig.dev, 0));
    expect_ok(msi_vector_unmask(rig.dev, 0));
    raise_line(&rig, 0);
    serve(&rig);
    expect_line(&rig, 0);
}

static void without_a_descriptor_for_it_an_eventfd_is_not_bound(enum host host)
{
    RIG(rig, host);
    if (!begin(&rig, false, 2))
        return;
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    unsigned before = open_descriptors();
    for (unsigned more = 0; more < 2; more++) {
        struct rlimit limit = few_descriptors(more);
        int refusal = msi_vector_bind_eventfd(rig.dev, 2, fd, 0), beside = more ? -EMFILE : msi_vector_bind_eventfd(rig.dev, 0, fd, 0);
        setrlimit(RLIMIT_NOFILE, &limit);
        if (more && refusal == 0) {             /* the one that is left will do */
            expect_ok(msi_vector_unbind_eventfd(rig.dev, 2, fd));
            refusal = -EMFILE;
        }
        expect_eq(refusal, -EMFILE);
        expect_eq(beside, -EMFILE);
        expect_eq(info_of(rig.dev, 2).eventfds, 0);
        expect_eq(info_of(rig.dev, 0).eventfds, 1);
        expect_eq(open_descriptors(), before);
    }
    fires(&rig, fd);
    for (uint32_t i = 0; i < 2; i++) {
        raise_line(&rig, i);
        serve(&rig);
        expect_line(&rig, i);
    }
    expect_quiet(&rig);
    expect_ok(msi_vector_set(rig.dev, 2, TO(0, FIRST + 2)));
    expect_ok(msi_vector_bind_eventfd(rig.dev, 2, fd, 0));
    serve(&rig);
    expect_line(&rig, 2);
}

static void it_gives_its_descriptors_back(enum host host)
{
    for (unsigned stopped = 0; stopped < 2; stopped++) {
        struct rig_config config = { .vectors = 2 };
        struct rig rig;
        RIG(warm_up, host);
        turn_on(&warm_up);
        unsigned before = open_descriptors();
        if (!rig_open(&rig, host, &config))
            return;
        if (begin(&rig, true, 2)) {
            struct lent lent;
            lend(&rig, &lent);
            if (stopped)
                expect_ok(msi_route_cache_relay_stop(rig.cache));
            else
                msi_route_cache_free(rig_take_cache(&rig));
            take_back(&lent);
        }
        rig_close(&rig);
        expect_eq(open_descriptors(), before);
    }
}

/* ---- a kernel that refuses ---- */

static void what_the_kernel_refuses_for_a_while_the_relay_serves(enum host host)
{
    static const struct { enum fake_call call; int error; } faults[] = { { FAKE_BIND, ENOMEM }, { FAKE_SET_ROUTES, ENOMEM } };
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        RIG(rig, host);
        if (!begin(&rig, false, 2))
            return;
        tap_context("%s refused", fake_call_name(faults[i].call));
        fake_fault(&rig.fake, faults[i].call, 1, faults[i].error, true);
        for (unsigned round = 0; round < 20; round++) {
            for (uint32_t line = 0; line < 2; line++) {
                raise_line(&rig, line);
                serve(&rig);
                expect_line(&rig, line);
                expect_served(&rig, line, RELAYED);
            }
            nap_ms(1);
        }
        expect_quiet(&rig);
        expect(fake_faultless(&rig.fake));
        expect_eq(rig_stats(&rig).promotions, 0);
        expect_eq(rig_stats(&rig).routes_pinned, 0);
        promote(&rig, 0, 2);
    }
}

static void a_message_that_the_kernel_refuses_keeps_nobody_else_from_it(enum host host)
{
    RIG(rig, host);
    if (!begin(&rig, false, 3))
        return;
    rig.fake.poison = FIRST;
    for (uint64_t end = now_us() + PATIENCE_US; !rig_stats(&rig).table_write_errors && now_us() < end; nap_ms(1)) {
        raise_line(&rig, 0);
        serve(&rig);
    }
    forget(&rig);
    expect(rig_stats(&rig).table_write_errors > 0);
    promote(&rig, 1, 2);
    for (unsigned round = 0; round < 20; round++) {
        expect_served(&rig, 0, RELAYED);
        raise_line(&rig, 0);
        serve(&rig);
        expect_line(&rig, 0);
    }
    expect_quiet(&rig);
}

static void an_eventfd_that_the_kernel_does_not_let_go_is_told_of(enum host host)
{
    RIG(rig, host);
    if (!begin(&rig, true, 1))
        return;
    fake_fault(&rig.fake, FAKE_UNBIND, 1, EIO, false);
    expect_eq(msi_vector_mask(rig.dev, 0), -EIO);
    expect_ok(msi_vector_mask(rig.dev, 0));                     /* as it says: again */
    raise_line(&rig, 0);
    serve(&rig);
    expect_quiet(&rig);
    fake_faultless(&rig.fake);
    expect_ok(msi_vector_unmask(rig.dev, 0));
    serve(&rig);
    expect_line(&rig, 0);
    if (!promote(&rig, 0, 1))
        return;
    fake_fault(&rig.fake, FAKE_UNBIND, 1, EIO, false);
    expect_eq(msi_vector_set(rig.dev, 0, TO(1, 0x99)), -EIO);
    fake_faultless(&rig.fake);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x98)));
    raise_line(&rig, 0);
    serve(&rig);
    expect_arrival(&rig, 1, 0x98);
    expect_quiet(&rig);
}

/* ---- a call against what the relay is just doing ---- */

/* The fake kernel's functions, which wait there for a test that makes a call meanwhile. */
static struct {
    struct msi_route_cache_ops real;
    atomic_bool in_signal, in_table;        /* wait in there, once */
    atomic_bool is_there, returned;         /* it is there; the call has returned */
    atomic_bool early;                      /* and that while it was there */
} door;

static void wait_at(atomic_bool *wanted, unsigned ms)
{
    if (!atomic_exchange(wanted, false))
        return;
    atomic_store(&door.is_there, true);
    for (unsigned i = 0; i < ms && !atomic_load(&door.returned); i++)
        nap_ms(1);
    atomic_store(&door.early, atomic_load(&door.returned));
}

static int slow_signal(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    wait_at(&door.in_signal, 60);
    return door.real.signal(opaque, requester, address, data);
}

static int slow_set_routes(void *opaque, const struct kvm_irq_routing_entry *entries, size_t n)
{
    wait_at(&door.in_table, 5000);
    return door.real.set_routes(opaque, entries, n);
}

static const struct msi_route_cache_ops *slow_ops(void)
{
    static struct msi_route_cache_ops ops;
    ops = door.real = fake_ops(true);
    ops.signal = slow_signal;
    ops.set_routes = slow_set_routes;
    atomic_store(&door.in_signal, false);
    atomic_store(&door.in_table, false);
    atomic_store(&door.is_there, false);
    atomic_store(&door.returned, false);
    atomic_store(&door.early, false);
    return &ops;
}

static bool somebody_is_at_the_door(void)
{
    for (uint64_t end = now_us() + PATIENCE_US; !atomic_load(&door.is_there); nap_ms(1))
        if (!expect(now_us() < end))
            return false;
    return true;
}

static void *raise_and_run(void *opaque)
{
    struct rig *rig = opaque;
    add_to_eventfd(rig->eventfds[0], 1);
    expect(msi_route_cache_relay_run(rig->cache) >= 0);
    return NULL;
}

static void no_call_that_silences_returns_before_the_relays_message_has_gone(enum host host)
{
    static const struct { const char *name; int (*call)(struct rig *rig); bool several; } calls[] = {
        { "mask", mask_it, false }, { "set", set_it, false }, { "clear", clear_it, false }, { "reset", reset_it, false },
        { "pause", hold, false }, { "bus master", no_master, false }, { "close", close_it, false }, { "stop", stop_it, false },
        { "unbind", unbind_it, false }, { "unbind one of two", unbind_it, true },
    };
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        RIG(rig, host, .ops = slow_ops());
        pthread_t thread;
        if (!begin(&rig, false, 1))
            return;
        if (calls[i].several)
            rig_bound(&rig, 0, 0);
        tap_context("%s", calls[i].name);
        atomic_store(&door.in_signal, true);
        expect_ok(pthread_create(&thread, NULL, raise_and_run, &rig));
        if (!somebody_is_at_the_door())
            return;
        expect_ok(calls[i].call(&rig));
        atomic_store(&door.returned, true);
        pthread_join(thread, NULL);
        expect_eq(atomic_load(&door.early), false);
        expect_line(&rig, 0);
        expect_quiet(&rig);
    }
}

static void *promote_a_batch(void *opaque)
{
    struct rig *rig = opaque;
    raise_line(rig, 0);
    serve(rig);
    return NULL;
}

/* Changed while it is on its way into the kernel, a vector is no reason to hold back others. */
static void a_change_during_a_promotion_keeps_nobody_from_the_kernel(enum host host)
{
    static const struct { const char *name; int (*call)(struct rig *rig); } calls[] = { { "mask", mask_it }, { "set", set_it } };
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        RIG(rig, host, .ops = slow_ops());
        pthread_t thread;
        if (!begin(&rig, false, 3))
            return;
        tap_context("%s", calls[i].name);
        nap_ms(10);
        for (unsigned round = 0; round < 3; round++) {
            raise_line(&rig, 0);
            serve(&rig);
        }
        forget(&rig);
        atomic_store(&door.in_table, true);
        expect_ok(pthread_create(&thread, NULL, promote_a_batch, &rig));
        if (!somebody_is_at_the_door())
            return;
        expect_ok(calls[i].call(&rig));
        atomic_store(&door.returned, true);
        pthread_join(thread, NULL);
        forget(&rig);
        expect_eq(rig_stats(&rig).routes_pinned, 0);
        expect_eq(info_of(rig.dev, 0).flags & IN_KERNEL, 0);
        promote(&rig, 1, 2);
    }
}

/* Whoever comes last: it is on in the end, and then serves all. */
struct switching { struct rig *rig; atomic_bool over; };

static void *switch_on_and_off(void *opaque)
{
    struct switching *switching = opaque;
    while (!atomic_load(&switching->over)) {
        int fd = msi_route_cache_relay_fd(switching->rig->cache);
        expect(fd >= 0);
        int stopped = msi_route_cache_relay_stop(switching->rig->cache);
        expect(stopped == 0 || stopped == -EINVAL || stopped == -ENOSPC);
    }
    return NULL;
}

static void several_threads_may_turn_it_on_and_off(enum host host)
{
    enum { LINES = 8, THREADS = 3, ROUNDS = 30 };
    RIG(rig, host, ROUTES(2), .vectors = LINES);
    pthread_t threads[THREADS];
    if (!begin(&rig, false, LINES))
        return;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct switching switching = { .rig = &rig };
        unsigned good = 0;
        tap_context("round %u", round);
        for (unsigned i = 0; i < THREADS; i++)
            expect_ok(pthread_create(&threads[i], NULL, switch_on_and_off, &switching));
        nap_ms(5);
        atomic_store(&switching.over, true);
        turn_on(&rig);
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        turn_on(&rig);
        expect_eq(rig_stats(&rig).unserved_vectors, 0);
        serve(&rig);
        forget(&rig);
        expect_eq(is_readable(msi_route_cache_relay_fd(rig.cache)), false);
        for (uint32_t i = 0; i < LINES; i++) {
            raise_line(&rig, i);
            serve(&rig);
            good += expect_line(&rig, i);
        }
        if (good < LINES)
            return;
    }
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, the_number_of_a_lent_descriptor_closed_early_is_its_next_owners),
        TEST(EVERYWHERE, an_eventfd_closed_by_the_VMM_after_bind_is_served),
        TEST(ON_KVM | ON_FAKE, without_a_descriptor_for_it_the_relay_stays_off),
        TEST(ON_KVM | ON_FAKE, without_a_descriptor_for_it_an_eventfd_is_not_bound),
        TEST(ON_KVM | ON_MODEL, it_gives_its_descriptors_back),
        TEST(ON_FAKE, what_the_kernel_refuses_for_a_while_the_relay_serves),
        TEST(ON_FAKE, a_message_that_the_kernel_refuses_keeps_nobody_else_from_it),
        TEST(ON_FAKE, an_eventfd_that_the_kernel_does_not_let_go_is_told_of),
        TEST(ON_FAKE, no_call_that_silences_returns_before_the_relays_message_has_gone),
        TEST(ON_FAKE, a_change_during_a_promotion_keeps_nobody_from_the_kernel),
        TEST(ON_KVM | ON_FAKE, several_threads_may_turn_it_on_and_off),
    };
    return TAP_MAIN(tests);
}
