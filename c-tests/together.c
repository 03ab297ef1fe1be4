/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Threads that change a big table at the same time share its writes, and still each change is live when its call
 * returns. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "calls.h"
#include "rig.h"

#define THREADS 8
#define EACH    200                     /* live vectors of each thread */
#define LIVE    (THREADS * EACH)
#define ROUTES  4000                    /* in the table, those of the live vectors among them */
#define SAMPLE  8                       /* one change in so many is tried out when it has returned */
#define FAR     100                     /* vCPUs from here on do not exist: their messages only fill the table */

/* Thread t's eventfds raise vectors of vCPU t, and after the change of vCPU THREADS + t. */
struct worker {
    struct rig *rig;
    unsigned number, done;
    pthread_barrier_t *start;
    const int *fds;
};

static unsigned vector_of(unsigned i) { return FIRST_VECTOR + i; }

static struct kvm_irq_routing_entry message(unsigned cpu, unsigned vector)
{
    return (struct kvm_irq_routing_entry){ .type = KVM_IRQ_ROUTING_MSI,
                                           .u.msi = { .address_lo = (uint32_t)to_apic(cpu), .data = vector } };
}

static bool fill_the_table(struct rig *rig, int fds[LIVE])
{
    expect_ok(msi_route_cache_begin(rig->cache));
    for (unsigned i = 0; i < LIVE; i++) {
        expect_ok(msi_vector_set(rig->dev, i, TO(i / EACH, vector_of(i % EACH))));
        fds[i] = rig_bound(rig, i, MSIROUTE_EVENTFD_BORROWED);
    }
    for (unsigned i = LIVE; i < ROUTES; i++) {
        uint32_t gsi = MSIROUTE_ANY_GSI;
        struct kvm_irq_routing_entry entry = message(FAR + nth_cpu(i), nth_vector(i));
        expect_ok(msi_route_cache_add_route(rig->cache, &entry, 0, &gsi));
    }
    expect_eq(CALLED(CALL_WRITE, expect_ok(msi_route_cache_commit(rig->cache))), 1);
    return expect_eq(table_entries(), ROUTES);
}

static void *retarget(void *opaque)
{
    struct worker *worker = opaque;
    struct rig *rig = worker->rig;
    pthread_barrier_wait(worker->start);
    for (unsigned i = 0; i < EACH; i++) {
        uint32_t index = worker->number * EACH + i;
        if (!expect_ok(msi_vector_set(rig->dev, index, TO(THREADS + worker->number, vector_of(i)))))
            break;
        worker->done++;
        if (i % SAMPLE)
            continue;
        fires(rig, worker->fds[index]);
        if (!expect_arrival(rig, THREADS + worker->number, vector_of(i)))
            break;
    }
    return NULL;
}

static void run(struct rig *rig, const int *fds, void *(*work)(void *))
{
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    pthread_barrier_t start;
    unsigned done = 0;
    pthread_barrier_init(&start, NULL, THREADS);
    for (unsigned t = 0; t < THREADS; t++) {
        workers[t] = (struct worker){ rig, t, 0, &start, fds };
        pthread_create(&threads[t], NULL, work, &workers[t]);
    }
    for (unsigned t = 0; t < THREADS; t++) {
        pthread_join(threads[t], NULL);
        done += workers[t].done;
    }
    pthread_barrier_destroy(&start);
    expect_eq(done, LIVE);
}

static void eight_threads_that_retarget_live_vectors_share_writes(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP, .cpus = 2 * THREADS, .vectors = LIVE);
    static int fds[LIVE];
    if (!fill_the_table(&rig, fds))
        return;
    uint64_t writes = calls(CALL_WRITE), binds = calls(CALL_BIND), unbinds = calls(CALL_UNBIND);
    run(&rig, fds, retarget);
    writes = calls(CALL_WRITE) - writes;
    tap_note("%u changes, %llu writes", LIVE, (unsigned long long)writes);
    expect(writes <= LIVE / 4);
    expect_eq(calls(CALL_BIND) - binds, 0);     /* in place */
    expect_eq(calls(CALL_UNBIND) - unbinds, 0);
    expect_eq(table_entries(), ROUTES);
    for (unsigned i = 0; i < LIVE; i++) {
        expect(table_has(info_of(rig.dev, i).gsi, TO(THREADS + i / EACH, vector_of(i % EACH))));
        fires(&rig, fds[i]);
        expect_arrival(&rig, THREADS + i / EACH, vector_of(i % EACH));
    }
    expect_quiet(&rig);
}

/* ---- one write for all that wait ---- */

static atomic_uint inside_writes;
static atomic_uint most_inside;

static void take_long(void)
{
    unsigned inside = atomic_fetch_add(&inside_writes, 1) + 1;
    if (inside > atomic_load(&most_inside))
        atomic_store(&most_inside, inside);
    nap_ms(2);
    atomic_fetch_sub(&inside_writes, 1);
}

#define FEW 25

static void *retarget_a_few(void *opaque)
{
    struct worker *worker = opaque;
    struct rig *rig = worker->rig;
    pthread_barrier_wait(worker->start);
    for (unsigned i = 0; i < FEW; i++) {
        uint32_t index = worker->number * EACH + i;
        expect_ok(msi_vector_set(rig->dev, index, TO(THREADS + worker->number, vector_of(i))));
        fires(rig, worker->fds[index]);
        if (!expect_arrival(rig, THREADS + worker->number, vector_of(i)))
            break;
    }
    worker->done = EACH;
    return NULL;
}

/* So slow that all others have come when it ends: seven of eight wait for the next. */
static void while_a_write_lasts_the_changes_of_all_others_gather_for_the_next(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP, .cpus = 2 * THREADS, .vectors = LIVE);
    static int fds[LIVE];
    if (!fill_the_table(&rig, fds))
        return;
    uint64_t writes = calls(CALL_WRITE);
    atomic_store(&most_inside, 0);
    calls_inside(CALL_WRITE, take_long);
    run(&rig, fds, retarget_a_few);
    calls_inside(CALL_WRITE, NULL);
    writes = calls(CALL_WRITE) - writes;
    tap_note("%u changes, %llu writes", THREADS * FEW, (unsigned long long)writes);
    expect(writes <= THREADS * FEW / 4);
    expect(writes >= FEW);
    expect_eq(atomic_load(&most_inside), 1);    /* never two at once: one would undo the other's */
    expect_quiet(&rig);
}

/* ---- first binds and last unbinds too ---- */

static void *bind_one_by_one(void *opaque)
{
    struct worker *worker = opaque;
    struct rig *rig = worker->rig;
    pthread_barrier_wait(worker->start);
    for (unsigned i = 0; i < EACH; i++) {
        uint32_t index = worker->number * EACH + i;
        expect_ok(msi_vector_set(rig->dev, index, TO(worker->number, vector_of(i))));
        if (!expect_ok(msi_vector_bind_eventfd(rig->dev, index, worker->fds[index], MSIROUTE_EVENTFD_BORROWED)))
            break;
        worker->done++;
        if (i % SAMPLE)
            continue;
        fires(rig, worker->fds[index]);
        if (!expect_arrival(rig, worker->number, vector_of(i)))
            break;
    }
    return NULL;
}

static void what_eight_threads_bind_at_once_is_live_when_each_call_returns(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP, .cpus = THREADS, .vectors = LIVE);
    static int fds[LIVE];
    for (unsigned i = 0; i < LIVE; i++)
        fds[i] = rig_eventfd(&rig, EFD_NONBLOCK);
    uint64_t writes = calls(CALL_WRITE), binds = calls(CALL_BIND);
    run(&rig, fds, bind_one_by_one);
    tap_note("%u binds, %llu writes", LIVE, (unsigned long long)(calls(CALL_WRITE) - writes));
    expect(calls(CALL_WRITE) - writes <= LIVE);
    expect_eq(calls(CALL_BIND) - binds, LIVE);
    expect_eq(table_entries(), LIVE);
    expect_eq(rig_stats(&rig).routes_pinned, LIVE);
    for (unsigned i = 0; i < LIVE; i++) {
        fires(&rig, fds[i]);
        expect_arrival(&rig, i / EACH, vector_of(i % EACH));
    }
    expect_quiet(&rig);
}

/* ---- explicit routes ---- */

static uint32_t gsi_of[THREADS];

static void *update_again_and_again(void *opaque)
{
    struct worker *worker = opaque;
    struct rig *rig = worker->rig;
    unsigned cpu = worker->number;
    pthread_barrier_wait(worker->start);
    for (unsigned i = 0; i < FEW; i++) {
        struct kvm_irq_routing_entry entry = message(cpu, vector_of(1 + i));
        expect_ok(msi_route_cache_begin(rig->cache));
        expect_ok(msi_route_cache_update_route(rig->cache, gsi_of[cpu], &entry));
        if (!expect_ok(msi_route_cache_commit(rig->cache)))
            break;
        fires(rig, worker->fds[cpu]);
        if (!expect_arrival(rig, cpu, vector_of(1 + i)))
            break;
    }
    worker->done = EACH;
    return NULL;
}

static void explicit_routes_that_eight_threads_update_are_live_when_each_commit_returns(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP, .cpus = THREADS);
    int fds[THREADS];
    for (unsigned t = 0; t < THREADS; t++) {
        struct kvm_irq_routing_entry entry = message(t, vector_of(0));
        gsi_of[t] = MSIROUTE_ANY_GSI;
        expect_ok(msi_route_cache_add_route(rig.cache, &entry, 0, &gsi_of[t]));
        fds[t] = rig_eventfd(&rig, EFD_NONBLOCK);
        expect_ok(msi_route_cache_bind_irqfd(rig.cache, gsi_of[t], fds[t], -1));
    }
    uint64_t writes = calls(CALL_WRITE), unbinds = calls(CALL_UNBIND);
    calls_inside(CALL_WRITE, take_long);
    run(&rig, fds, update_again_and_again);
    calls_inside(CALL_WRITE, NULL);
    writes = calls(CALL_WRITE) - writes;
    tap_note("%u changes, %llu writes", THREADS * FEW, (unsigned long long)writes);
    expect(writes <= THREADS * FEW / 4);
    expect_eq(calls(CALL_UNBIND) - unbinds, 0);
    expect_quiet(&rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_KVM, eight_threads_that_retarget_live_vectors_share_writes),
        TEST(ON_KVM, while_a_write_lasts_the_changes_of_all_others_gather_for_the_next),
        TEST(ON_KVM, what_eight_threads_bind_at_once_is_live_when_each_call_returns),
        TEST(ON_KVM, explicit_routes_that_eight_threads_update_are_live_when_each_commit_returns),
    };
    return TAP_MAIN(tests);
}
