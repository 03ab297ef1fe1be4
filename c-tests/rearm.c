/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Several threads that move eventfds in and out of the kernel at once, on routes they share, while the eventfds fire. The
 * fake kernel sees to the order (no irqfd without its route, no route gone before its irqfd); in the end every eventfd
 * raises the message of its vector, and that alone. */
#include <errno.h>
#include <pthread.h>

#include "lanes.h"
#include "rig.h"

#define THREADS  3
#define EACH     8      /* vectors a thread has to itself */
#define VECTORS  (THREADS * EACH)
#define MESSAGES 12     /* for all: so most routes are shared */
#define STORM_US 600000

struct scene {
    struct rig *rig;
    int fd[VECTORS];
    bool bound[VECTORS];
    bool tight;         /* there are fewer routes than messages: -ENOSPC is an answer */
    atomic_bool over;
    atomic_uint changes, refusals;
};

struct worker { struct scene *scene; uint32_t first; };

static bool answered(struct scene *s, int result)
{
    atomic_fetch_add(&s->changes, 1);
    if (s->tight && result == -ENOSPC) {
        atomic_fetch_add(&s->refusals, 1);
        return false;
    }
    return expect_ok(result);
}

static int set(struct scene *s, uint32_t v, unsigned message)
{
    return msi_vector_set(s->rig->dev, v, TO(message % 2, 0x40 + message));
}

static void rebind(struct scene *s, uint32_t v)
{
    if (s->bound[v])
        expect_ok(msi_vector_unbind_eventfd(s->rig->dev, v, s->fd[v]));
    s->bound[v] = answered(s, msi_vector_bind_eventfd(s->rig->dev, v, s->fd[v], v % 2 ? MSIROUTE_EVENTFD_BORROWED : 0));
}

static void change(struct scene *s, uint32_t v, bool is_own)
{
    struct msi_device *dev = s->rig->dev;
    switch (chance() % (is_own ? 5 : 4)) {
    case 0:
        expect_ok(msi_vector_mask(dev, v));
        answered(s, msi_vector_unmask(dev, v));
        break;
    case 1:
        answered(s, set(s, v, chance() % MESSAGES));
        break;
    case 2:
        expect_ok(msi_vector_mask(dev, v));
        answered(s, set(s, v, chance() % MESSAGES));
        answered(s, msi_vector_unmask(dev, v));
        break;
    case 3:
        expect_ok(msi_vector_clear(dev, v));
        answered(s, set(s, v, chance() % MESSAGES));
        break;
    default:
        rebind(s, v);
    }
}

/* Mostly its own: the eventfds of the others are not its to bind, but their registers may be written by two at once. */
static void *change_vectors(void *opaque)
{
    struct worker *worker = opaque;
    struct scene *s = worker->scene;
    while (!atomic_load(&s->over)) {
        bool together = chance() % 4 == 0;
        if (together)
            expect_ok(msi_route_cache_begin(s->rig->cache));
        for (unsigned i = 0; i < (together ? EACH : 1); i++) {
            bool is_own = chance() % 4;
            change(s, is_own ? worker->first + chance() % EACH : chance() % VECTORS, is_own);
        }
        if (together)
            answered(s, msi_route_cache_commit(s->rig->cache));
    }
    return NULL;
}

static void *fire_all(void *opaque)
{
    struct scene *s = opaque;
    while (!atomic_load(&s->over)) {
        fires(s->rig, s->fd[chance() % VECTORS]);
        dawdle(300);
    }
    return NULL;
}

static unsigned messages_so_far(struct rig *rig)
{
    unsigned n = 0;
    pthread_mutex_lock(&rig->fake.lock);
    for (unsigned cpu = 0; cpu < 2; cpu++)
        for (unsigned vector = 0; vector < 256; vector++)
            n += rig->fake.arrived[cpu][vector];
    pthread_mutex_unlock(&rig->fake.lock);
    return n;
}

static size_t irqfds_now(struct rig *rig)
{
    pthread_mutex_lock(&rig->fake.lock);
    size_t n = rig->fake.bound;
    pthread_mutex_unlock(&rig->fake.lock);
    return n;
}

/* While the function may not master the bus nothing arrives, whatever the other threads are about. */
static void *shut_and_open(void *opaque)
{
    struct scene *s = opaque;
    while (!atomic_load(&s->over)) {
        expect_ok(msi_device_set_bus_master(s->rig->dev, 0));
        unsigned before = messages_so_far(s->rig);
        for (unsigned look = 0; look < 10; look++) {
            dawdle(2000);
            expect_eq(irqfds_now(s->rig), 0);
        }
        expect_eq(messages_so_far(s->rig), before);
        answered(s, msi_device_set_bus_master(s->rig->dev, 1));
        dawdle(20000);
    }
    return NULL;
}

static void forget_arrivals(struct rig *rig)
{
    if (rig->host == ON_MODEL)
        nap_ms(50);
    for (unsigned message = 0; message < MESSAGES; message++)
        for (unsigned cpu = 0; cpu < 2; cpu++)
            rig_arrivals(rig, cpu, 0x40 + message);
}

/* Few enough messages for any table; then each eventfd raises its vector's. */
static void expect_all_to_work(struct scene *s)
{
    for (uint32_t v = 0; v < VECTORS; v++) {
        int result = set(s, v, v % 4);
        expect(result == 0 || (s->tight && result == -ENOSPC));
    }
    for (uint32_t v = 0; v < VECTORS; v++)
        if (!s->bound[v])
            rebind(s, v);
    expect_ok(msi_route_cache_commit(s->rig->cache));
    expect_eq(rig_stats(s->rig).unserved_vectors, 0);
    expect_eq(rig_stats(s->rig).routes_pinned, 4);
    forget_arrivals(s->rig);
    for (uint32_t v = 0; v < VECTORS; v++) {
        tap_context("vector %u", v);
        expect(info_of(s->rig->dev, v).flags & MSIROUTE_VECTOR_IN_KERNEL);
        expect_eq(msi_vector_is_pending(s->rig->dev, v), 0);
        fires(s->rig, s->fd[v]);
        expect_arrival(s->rig, v % 4 % 2, 0x40 + v % 4);
    }
    expect_quiet(s->rig);
}

static void storm(struct rig *rig, bool tight, bool shutting)
{
    struct scene scene = { .rig = rig, .tight = tight };
    struct worker workers[THREADS];
    pthread_t threads[THREADS + 2];
    unsigned n = THREADS;
    for (uint32_t v = 0; v < VECTORS; v++) {
        scene.fd[v] = rig_eventfd(rig, v % 3 ? EFD_NONBLOCK : 0);
        answered(&scene, set(&scene, v, v % MESSAGES));
        rebind(&scene, v);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){ &scene, i * EACH };
        expect_ok(pthread_create(&threads[i], NULL, change_vectors, &workers[i]));
    }
    expect_ok(pthread_create(&threads[n++], NULL, fire_all, &scene));
    if (shutting)
        expect_ok(pthread_create(&threads[n++], NULL, shut_and_open, &scene));
    for (unsigned ms = 0; ms < STORM_US / 1000 || (ms < 10000 && atomic_load(&scene.changes) <= 300); ms += 10)
        nap_ms(10);
    atomic_store(&scene.over, true);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    tap_note("%u changes, %u found no route", scene.changes, scene.refusals);
    expect(scene.changes > 300);
    expect_eq(scene.refusals > 0, tight);
    expect_all_to_work(&scene);
}

static void threads_share_routes(enum host host)
{
    RIG(rig, host, .vectors = VECTORS);
    storm(&rig, false, false);
}

static void threads_share_too_few_routes(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP, .vectors = VECTORS, .max_routes = 24 + 6);
    storm(&rig, true, false);
}

static void threads_that_arm_do_not_open_what_another_has_shut(enum host host)
{
    RIG(rig, host, .vectors = VECTORS);
    storm(&rig, false, true);
}

/* ---- two at one vector ---- */

struct rival { struct rig *rig; struct gate_of_two gate; atomic_bool over; unsigned message; };

static void *set_too(void *opaque)
{
    struct rival *rival = opaque;
    for (;;) {
        meet(&rival->gate);
        if (atomic_load(&rival->over))
            return NULL;
        dawdle(200);
        expect_ok(msi_vector_set(rival->rig->dev, 0, TO(1, rival->message)));
        meet(&rival->gate);
    }
}

static void when_two_set_one_vector_its_eventfd_raises_what_it_says(enum host host)
{
    RIG(rig, host);
    struct rival rival = { .rig = &rig };
    pthread_t thread;
    unsigned won = 0, rounds = host == ON_MODEL ? 300 : 1500;
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x20)));
    int fd = rig_bound(&rig, 0, 0);
    if (!expect_ok(pthread_create(&thread, NULL, set_too, &rival)))
        return;
    for (unsigned round = 0; round < rounds; round++) {
        unsigned mine = 0x21 + round % 200;
        rival.message = mine;
        meet(&rival.gate);
        dawdle(200);
        expect_ok(msi_vector_set(rig.dev, 0, TO(0, mine)));
        meet(&rival.gate);
        unsigned cpu = info_of(rig.dev, 0).address == to_apic(1);
        won += cpu == 0;
        fires(&rig, fd);
        bool by_eventfd = expect_arrival(&rig, cpu, mine), by_hand = expect_delivers(&rig, 0, cpu, mine);
        if (!by_eventfd || !by_hand)
            break;
    }
    atomic_store(&rival.over, true);
    meet(&rival.gate);
    pthread_join(thread, NULL);
    expect_quiet(&rig);
    tap_note("the last word was ours %u of %u times", won, rounds);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, threads_share_routes),
        TEST(ON_KVM | ON_FAKE, threads_share_too_few_routes),
        TEST(EVERYWHERE, when_two_set_one_vector_its_eventfd_raises_what_it_says),
        TEST(ON_FAKE | ON_MODEL, threads_that_arm_do_not_open_what_another_has_shut),
    };
    return TAP_MAIN(tests);
}
