/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Deliveries inside deliveries, deliveries that take their time, threads that come and go, and more of them than any table
 * has room for. */
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#include "lanes.h"
#include "rig.h"

/* ---- deliveries inside deliveries ---- */

static _Thread_local unsigned depth;

static void deliver_to_the_next_lane(unsigned lane)
{
    if (depth == 0) {
        depth++;
        expect_eq(lane_raise((lane + 1) % LANES), MSIROUTE_SENT);
        depth--;
    }
}

static void deliver_to_the_same_lane(unsigned lane)
{
    if (depth < 3) {
        depth++;
        expect_eq(lane_raise(lane), MSIROUTE_SENT);
        depth--;
    }
}

static void a_delivery_may_deliver_to_another_vector(enum host host)
{
    (void)host;
    if (!lanes_open(MSIROUTE_KIND_PLAIN, 0, 0))
        return;
    atomic_store(&lanes_inside, deliver_to_the_next_lane);
    for (unsigned i = 0; i < LANES; i++) {
        expect_eq(lane_raise(i), MSIROUTE_SENT);
        lane_mask(i);       /* neither of the two hangs on */
        lane_unmask(i);
    }
    for (unsigned i = 0; i < LANES; i++)
        expect_eq(atomic_load(&lanes[i].messages), 2);
    lanes_close();
}

static void a_delivery_may_deliver_to_its_own_vector(enum host host)
{
    (void)host;
    if (!lanes_open(MSIROUTE_KIND_PLAIN, 0, 0))
        return;
    atomic_store(&lanes_inside, deliver_to_the_same_lane);
    expect_eq(lane_raise(0), MSIROUTE_SENT);
    expect_eq(atomic_load(&lanes[0].messages), 4);
    lane_mask(0);
    lane_unmask(0);
    expect_eq(lane_raise(0), MSIROUTE_SENT);
    expect_eq(atomic_load(&lanes[0].messages), 8);
    lanes_close();
}

/* ---- deliveries that take their time ---- */

static sem_t parked, go_on;

static void park(unsigned lane)
{
    (void)lane;
    sem_post(&parked);
    sem_wait(&go_on);
}

static void park_in_the_inner_one(unsigned lane)
{
    if (depth++ == 0)
        expect_eq(lane_raise((lane + 1) % LANES), MSIROUTE_SENT);
    else
        park(lane);
    depth--;
}

struct job { unsigned lane; int result; atomic_bool done; };

static void *raise_lane(void *opaque)
{
    struct job *job = opaque;
    job->result = lane_raise(job->lane);
    atomic_store(&job->done, true);
    return NULL;
}

static void *mask_lane(void *opaque)
{
    struct job *job = opaque;
    job->result = msi_vector_mask(lanes_dev, job->lane);
    atomic_store(&job->done, true);
    return NULL;
}

static pthread_t start(void *(*work)(void *), struct job *job)
{
    pthread_attr_t small;
    pthread_t thread = pthread_self();
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 * 1024);
    expect_ok(pthread_create(&thread, &small, work, job));
    pthread_attr_destroy(&small);
    return thread;
}

static void open_car_park(void (*inside)(unsigned lane))
{
    sem_init(&parked, 0, 0);
    sem_init(&go_on, 0, 0);
    atomic_store(&lanes_inside, inside);
}

/* Masking this lane returns when the parked delivery has ended, not before. */
static void mask_waits_for(pthread_t deliverer, struct job *delivery, unsigned lane)
{
    struct job mask = { .lane = lane };
    pthread_t masker = start(mask_lane, &mask);
    nap_ms(30);
    expect(!atomic_load(&mask.done));
    sem_post(&go_on);
    pthread_join(deliverer, NULL);
    pthread_join(masker, NULL);
    expect_eq(delivery->result, MSIROUTE_SENT);
    expect_ok(mask.result);
    atomic_store(&lanes_inside, NULL);
}

static void mask_waits_for_the_delivery_under_way_and_for_no_other(enum host host)
{
    (void)host;
    if (!lanes_open(MSIROUTE_KIND_PLAIN, 0, 0))
        return;
    open_car_park(park);
    struct job delivery = { .lane = 0 };
    pthread_t first = start(raise_lane, &delivery);
    sem_wait(&parked);
    lane_mask(1);                   /* nobody is there: returns */
    lane_set(2);
    mask_waits_for(first, &delivery, 0);
    expect_eq(lane_raise(0), MSIROUTE_PENDING);
    lanes_close();
}

static void mask_waits_for_the_outer_and_the_inner_of_nested_deliveries(enum host host)
{
    (void)host;
    if (!lanes_open(MSIROUTE_KIND_PLAIN, 0, 0))
        return;
    for (unsigned masked = 0; masked < 2; masked++) {
        open_car_park(park_in_the_inner_one);
        struct job delivery = { .lane = 0 };
        pthread_t first = start(raise_lane, &delivery);
        sem_wait(&parked);
        mask_waits_for(first, &delivery, masked);
        lane_unmask(masked);
    }
    lanes_close();
}

static void park_table(void) { park(0); }

static void *bind_to_lane(void *opaque)
{
    struct job *job = opaque;
    int fd = eventfd(0, EFD_CLOEXEC);
    job->result = msi_vector_bind_eventfd(lanes_dev, job->lane, fd, 0);
    close(fd);
    return NULL;
}

/* `work` on lane 0 needs the table written. */
static void deliver_while_the_table_is_written(uint32_t cache_flags, void *(*work)(void *))
{
    struct job job = { .lane = 0 };
    if (!lanes_open(MSIROUTE_KIND_PLAIN, cache_flags, 0))
        return;
    for (unsigned i = 0; i < LANES; i++)
        expect_eq(lane_raise(i), MSIROUTE_SENT);    /* by routes: each has its own now, */
    lane_set(0);                                    /* but the first is to get a new one */
    open_car_park(NULL);
    atomic_store(&lanes_inside_table, park_table);
    pthread_t writer = start(work, &job);
    sem_wait(&parked);
    for (unsigned i = 1; i < LANES; i++)            /* hangs if one waits */
        expect_eq(lane_raise(i), MSIROUTE_SENT);
    if (!(cache_flags & MSIROUTE_CACHE_NO_DIRECT))
        expect_eq(lane_raise(0), MSIROUTE_SENT);
    atomic_store(&lanes_inside_table, NULL);
    sem_post(&go_on);
    pthread_join(writer, NULL);
    expect_ok(job.result);
    for (unsigned i = 0; i < LANES; i++)
        lane_is_quiet(i);
    lanes_close();
}

static void a_delivery_does_not_wait_for_a_table_write(enum host host)
{
    (void)host;
    deliver_while_the_table_is_written(0, bind_to_lane);
}

static void nor_does_one_by_a_route_that_is_there(enum host host)
{
    (void)host;
    deliver_while_the_table_is_written(MSIROUTE_CACHE_NO_DIRECT, raise_lane);
}

static void fifteen_hundred_threads_deliver_at_once(enum host host)
{
    enum { THREADS = 1500 };
    static struct job deliveries[THREADS];
    static pthread_t threads[THREADS];
    struct job mask = { .lane = 3 };
    unsigned sent = 0;
    (void)host;
    if (!lanes_open(MSIROUTE_KIND_PLAIN, 0, 0))
        return;
    open_car_park(park);
    for (unsigned i = 0; i < THREADS; i++) {
        deliveries[i] = (struct job){ .lane = i % 4 };
        threads[i] = start(raise_lane, &deliveries[i]);
    }
    for (unsigned i = 0; i < THREADS; i++)
        sem_wait(&parked);
    lane_mask(5);                   /* nobody is there */
    pthread_t masker = start(mask_lane, &mask);
    nap_ms(10);
    expect(!atomic_load(&mask.done));
    for (unsigned i = 0; i < THREADS; i++)
        sem_post(&go_on);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sent += deliveries[i].result == MSIROUTE_SENT;
    }
    pthread_join(masker, NULL);
    expect_ok(mask.result);
    expect_eq(sent, THREADS);
    uint64_t messages = 0;
    for (unsigned i = 0; i < LANES; i++)
        messages += atomic_load(&lanes[i].messages);
    expect_eq(messages, THREADS);
    atomic_store(&lanes_inside, NULL);
    atomic_store(&lanes[3].shut, true);
    expect_eq(lane_raise(3), MSIROUTE_PENDING);
    lanes_close();
}

/* ---- threads that come and go ---- */

static void thousands_of_threads_deliver_once_and_end(enum host host)
{
    enum { BATCHES = 250, BATCH = 20 };
    (void)host;
    if (!lanes_open(MSIROUTE_KIND_PLAIN, 0, 0))
        return;
    unsigned sent = 0;
    for (unsigned b = 0; b < BATCHES; b++) {
        struct job deliveries[BATCH];
        pthread_t threads[BATCH];
        for (unsigned i = 0; i < BATCH; i++) {
            deliveries[i] = (struct job){ .lane = i % LANES };
            threads[i] = start(raise_lane, &deliveries[i]);
        }
        for (unsigned i = 0; i < BATCH; i++) {
            pthread_join(threads[i], NULL);
            sent += deliveries[i].result == MSIROUTE_SENT;
        }
        lane_set(b % LANES);        /* no thread that is gone holds it up */
    }
    expect_eq(sent, BATCHES * BATCH);
    for (unsigned i = 0; i < LANES; i++) {
        lane_is_quiet(i);
        lane_mask(i);
        expect_eq(lane_raise(i), MSIROUTE_PENDING);
        lane_unmask(i);
        lane_is_quiet(i);
    }
    lanes_close();
}

/* A thread that ends inside a transaction takes nothing with it. */
static void *begin_bind_and_end(void *opaque)
{
    struct rig *rig = opaque;
    expect_ok(msi_route_cache_begin(rig->cache));
    expect_ok(msi_vector_set(rig->dev, 0, TO(1, 0x41)));
    rig_bound(rig, 0, 0);
    return NULL;
}

static void a_thread_that_ends_inside_a_transaction_leaves_its_changes_to_others(enum host host)
{
    RIG(rig, host);
    pthread_t thread;
    expect_ok(pthread_create(&thread, NULL, begin_bind_and_end, &rig));
    pthread_join(thread, NULL);
    expect_ok(msi_route_cache_commit(rig.cache));
    fires(&rig, rig.eventfds[0]);
    expect_arrival(&rig, 1, 0x41);
    expect_quiet(&rig);
}

static void call_while_ending(void *opaque)
{
    struct job *job = opaque;
    lane_mask(job->lane);
    expect_eq(lane_raise(job->lane), MSIROUTE_PENDING);
    lane_unmask(job->lane);
    expect_eq(lane_raise(job->lane), MSIROUTE_SENT);
    atomic_store(&job->done, true);
}

static pthread_key_t ending;

static void *call_and_end(void *opaque)
{
    struct job *job = opaque;
    expect_ok(pthread_setspecific(ending, job));
    expect_eq(lane_raise(job->lane), MSIROUTE_SENT);
    lane_mask(job->lane);
    lane_unmask(job->lane);
    return NULL;
}

/* The library's own thread-local storage is gone by then. */
static void a_thread_may_call_from_a_destructor_of_its_own(enum host host)
{
    (void)host;
    if (!lanes_open(MSIROUTE_KIND_PLAIN, 0, 0))
        return;
    expect_ok(pthread_key_create(&ending, call_while_ending));
    struct job job = { .lane = 0 };
    pthread_join(start(call_and_end, &job), NULL);
    expect(atomic_load(&job.done));
    pthread_key_delete(ending);
    lanes_close();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(ANYWHERE, a_delivery_may_deliver_to_another_vector),
        TEST(ANYWHERE, a_delivery_may_deliver_to_its_own_vector),
        TEST(ANYWHERE, mask_waits_for_the_delivery_under_way_and_for_no_other),
        TEST(ANYWHERE, mask_waits_for_the_outer_and_the_inner_of_nested_deliveries),
        TEST(ANYWHERE, a_delivery_does_not_wait_for_a_table_write),
        TEST(ANYWHERE, nor_does_one_by_a_route_that_is_there),
        TEST(ANYWHERE, fifteen_hundred_threads_deliver_at_once),
        TEST(ANYWHERE, thousands_of_threads_deliver_once_and_end),
        TEST(EVERYWHERE, a_thread_that_ends_inside_a_transaction_leaves_its_changes_to_others),
        TEST(ANYWHERE, a_thread_may_call_from_a_destructor_of_its_own),
    };
    return lanes_choose_barrier(argc, argv) ? TAP_MAIN(tests) : 1;
}
