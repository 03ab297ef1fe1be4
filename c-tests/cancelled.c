/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Threads that are cancelled inside the library: the request waits until the call has returned, and nothing is left locked,
 * closed or lost. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "relays.h"

#define LINES 4

/* ---- a request that has come before the call ---- */

struct call {
    struct rig *rig;
    int (*make)(struct rig *rig);
    bool returned;
    int result;
};

static void *make_cancelled(void *opaque)
{
    struct call *call = opaque;
    pthread_cancel(pthread_self());     /* acted upon at the next cancellation point */
    call->result = call->make(call->rig);
    call->returned = true;
    pthread_testcancel();
    return NULL;
}

#define expect_returns(rig, call, want) returns(__FILE__, __LINE__, rig, #call, call, want)
static void returns(const char *file, int line, struct rig *rig, const char *what, int (*make)(struct rig *), int want)
{
    struct call call = { .rig = rig, .make = make };
    pthread_t thread;
    void *end = NULL;
    expect_ok(pthread_create(&thread, NULL, make_cancelled, &call));
    pthread_join(thread, &end);
    if (!call.returned)
        tap_fail(file, line, "%s was cancelled before it returned", what);
    else if (call.result != want)
        tap_fail(file, line, "%s returned %d, not %d", what, call.result, want);
    else if (end != PTHREAD_CANCELED)
        tap_fail(file, line, "%s has swallowed the request", what);
}

static int deliver_it(struct rig *rig)       { return msi_deliver(rig->dev, 0); }
static int send(struct rig *rig)             { return msi_deliver_message(rig->cache, MSIROUTE_NO_REQUESTER, TO(1, 0x99), 0); }
static int unmask_it(struct rig *rig)        { return msi_vector_unmask(rig->dev, 0); }
static int is_pending(struct rig *rig)       { return msi_vector_is_pending(rig->dev, 0); }
static int clear_pending(struct rig *rig)    { return msi_vector_clear_pending(rig->dev, 0); }
static int resume(struct rig *rig)           { return msi_route_cache_resume(rig->cache); }
static int enable(struct rig *rig)           { return msi_device_set_control(rig->dev, MSIROUTE_ENABLED); }
static int mask_all(struct rig *rig)         { return msi_device_set_control(rig->dev, MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED); }
static int bind_another(struct rig *rig)     { return msi_vector_bind_eventfd(rig->dev, 0, rig_eventfd(rig, EFD_NONBLOCK), 0); }
static int unbind_another(struct rig *rig)
{
    return msi_vector_unbind_eventfd(rig->dev, 0, rig->eventfds[rig->n_eventfds - 1]);
}

static int read_pending_bits(struct rig *rig)
{
    uint64_t bits = 0;
    int result = msi_device_pba_read(rig->dev, 0, &bits, sizeof(bits));
    return result ? result : (int)bits;
}

static int write_unmasked(struct rig *rig)
{
    const uint32_t control = 0;
    return msi_device_table_write(rig->dev, 12, &control, sizeof(control));
}

static int make_and_free_a_device(struct rig *rig)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_device *dev;
    config.vectors = 1;
    int result = msi_device_new(rig->cache, &config, &dev);
    msi_device_free(dev);
    return result;
}

static int relay_on(struct rig *rig)   { return msi_route_cache_relay_fd(rig->cache) < 0; }
static int run_relay(struct rig *rig)  { return msi_route_cache_relay_run(rig->cache); }

static void no_function_is_a_cancellation_point(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = LINES);
    enable_and_open(&rig, LINES);
    expect_returns(&rig, deliver_it, MSIROUTE_SENT);
    expect_arrival(&rig, 0, FIRST);
    expect_returns(&rig, send, MSIROUTE_SENT);
    expect_arrival(&rig, 1, 0x99);
    expect_returns(&rig, mask_it, 0);
    add_to_eventfd(rig.eventfds[0], 1);
    expect_returns(&rig, is_pending, 1);
    expect_returns(&rig, read_pending_bits, 1);
    expect_returns(&rig, clear_pending, 1);
    expect_returns(&rig, is_pending, 0);
    add_to_eventfd(rig.eventfds[0], 1);
    expect_returns(&rig, unmask_it, 0);
    expect_line(&rig, 0);
    expect_returns(&rig, mask_it, 0);
    add_to_eventfd(rig.eventfds[0], 1);
    expect_returns(&rig, write_unmasked, 0);
    expect_line(&rig, 0);
    expect_returns(&rig, mask_all, 0);
    expect_returns(&rig, enable, 0);
    expect_returns(&rig, hold, 0);
    expect_returns(&rig, resume, 0);
    expect_returns(&rig, bind_another, 0);
    expect_returns(&rig, unbind_another, 0);
    expect_returns(&rig, make_and_free_a_device, 0);
    expect_all_lines(&rig, LINES);
}

static void nor_where_messages_go_by_routes(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = LINES, .cache_flags = MSIROUTE_CACHE_NO_DIRECT);
    enable_and_open(&rig, LINES);
    expect_returns(&rig, deliver_it, MSIROUTE_SENT);    /* makes the route */
    expect_arrival(&rig, 0, FIRST);
    expect_returns(&rig, send, MSIROUTE_SENT);
    expect_arrival(&rig, 1, 0x99);
    expect_all_lines(&rig, LINES);
}

static void nor_are_those_of_the_relay(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = LINES);
    enable_and_open(&rig, LINES);
    expect_returns(&rig, relay_on, 0);
    for (uint32_t i = 0; i < LINES; i++)
        expect_ok(msi_vector_mask(rig.dev, i) | msi_vector_unmask(rig.dev, i));
    raise_line(&rig, 1);
    expect_returns(&rig, run_relay, 0);
    expect_line(&rig, 1);
    expect_returns(&rig, mask_it, 0);
    add_to_eventfd(rig.eventfds[0], 1);
    expect_returns(&rig, unmask_it, 0);
    expect_returns(&rig, run_relay, 0);
    expect_line(&rig, 0);
    expect_returns(&rig, stop_it, 0);
    expect_all_lines(&rig, LINES);
}

static void helper_threads_are_waited_for(enum host host)
{
    enum { MANY = 128 };
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = MANY, .cache_flags = MSIROUTE_CACHE_HELPER_THREADS);
    expect_ok(enable(&rig));
    for (uint32_t i = 0; i < MANY; i++)
        open_line(&rig, i, 0);
    unsigned threads = threads_alive();
    expect_returns(&rig, mask_all, 0);
    for (uint64_t end = now_us() + PATIENCE_US; threads_alive() > threads && now_us() < end;)
        nap_ms(1);      /* the kernel may count one that was joined a moment longer */
    expect_eq(threads_alive(), threads);
    expect_returns(&rig, enable, 0);
    expect_all_lines(&rig, LINES);
}

/* ---- one that comes meanwhile ---- */

static void a_cancelled_thread_goes_on_relaying_until_it_is_stopped(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = LINES);
    struct lent lent;
    void *end = NULL;
    expect_ok(enable(&rig));
    turn_on(&rig);
    open_lines(&rig, LINES);
    lend(&rig, &lent);
    raise_line(&rig, 0);
    expect_line(&rig, 0);
    pthread_cancel(lent.thread);
    nap_ms(5);
    raise_line(&rig, 1);
    expect_line(&rig, 1);
    expect_ok(msi_route_cache_relay_stop(rig.cache));
    pthread_join(lent.thread, &end);
    expect_ok(lent.result);
    expect_all_lines(&rig, LINES);
}

struct worker {
    struct rig *rig;
    pthread_t thread;
    unsigned seed;
};

static void *work(void *opaque)
{
    struct worker *worker = opaque;
    struct rig *rig = worker->rig;
    for (;;) {
        uint32_t line = (uint32_t)rand_r(&worker->seed) % LINES;
        msi_deliver(rig->dev, line);
        add_to_eventfd(rig->eventfds[line], 1);     /* a cancellation point of the test's own */
        msi_vector_mask(rig->dev, line);
        msi_vector_is_pending(rig->dev, line);
        msi_vector_unmask(rig->dev, line);
        msi_vector_set(rig->dev, line, TO(line % 2, FIRST + line));
    }
    return NULL;
}

static void threads_cancelled_at_any_moment_leave_everything_usable(enum host host)
{
    enum { THREADS = 4, TURNS = 150 };
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = LINES);
    struct worker workers[THREADS];
    enable_and_open(&rig, LINES);
    for (unsigned turn = 0; turn < TURNS; turn++) {
        struct worker *worker = &workers[turn % THREADS];
        void *end = NULL;
        if (turn >= THREADS) {
            pthread_cancel(worker->thread);
            pthread_join(worker->thread, &end);
            expect(end == PTHREAD_CANCELED);
        }
        *worker = (struct worker){ .rig = &rig, .seed = turn };
        expect_ok(pthread_create(&worker->thread, NULL, work, worker));
        usleep(turn % 7 * 100);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_cancel(workers[i].thread);
        pthread_join(workers[i].thread, NULL);
    }
    for (uint32_t i = 0; i < LINES; i++) {
        expect_ok(msi_vector_mask(rig.dev, i));
        msi_vector_clear_pending(rig.dev, i);
        expect_ok(msi_vector_unmask(rig.dev, i));
    }
    forget(&rig);
    expect_all_lines(&rig, LINES);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, no_function_is_a_cancellation_point),
        TEST(EVERYWHERE, nor_where_messages_go_by_routes),
        TEST(EVERYWHERE, nor_are_those_of_the_relay),
        TEST(EVERYWHERE, helper_threads_are_waited_for),
        TEST(ON_KVM | ON_MODEL, a_cancelled_thread_goes_on_relaying_until_it_is_stopped),
        TEST(EVERYWHERE, threads_cancelled_at_any_moment_leave_everything_usable),
    };
    return TAP_MAIN(tests);
}
