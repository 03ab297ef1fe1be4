/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Several threads that deliver while others mask, unmask and change the message, for a while; and the same against KVM,
 * as far as its APICs can tell. */
#include <pthread.h>

#include "lanes.h"
#include "rig.h"

#define STORM_US 1000000

static atomic_bool over;
static atomic_ulong sent, kept, refused;

static void *raise_any_lane(void *unused)
{
    while (!atomic_load(&over)) {
        int result = lane_raise(chance() % LANES);
        atomic_fetch_add(result == MSIROUTE_SENT ? &sent : result == MSIROUTE_PENDING ? &kept : &refused, 1);
        dawdle(100);
    }
    return unused;
}

/* What the guest does to one lane. */
static void change_lane(unsigned lane)
{
    switch (chance() % 4) {
    case 0:
        lane_mask(lane);
        dawdle(200);
        lane_unmask(lane);
        break;
    case 1:
        lane_set(lane);
        break;
    case 2:
        lane_mask(lane);
        lane_set(lane);
        dawdle(200);
        lane_unmask(lane);
        break;
    default:
        dawdle(400);
    }
}

static void *change_even_lanes(void *unused)
{
    while (!atomic_load(&over))
        change_lane(chance() % LANES & ~1u);
    return unused;
}

static void *change_odd_lanes(void *unused)
{
    while (!atomic_load(&over))
        change_lane(chance() % LANES | 1);
    return unused;
}

static void *change_the_function(void *unused)
{
    while (!atomic_load(&over)) {
        bool bus_master = chance() % 2;
        expect_ok(bus_master ? msi_device_set_bus_master(lanes_dev, 0)
                             : msi_device_set_control(lanes_dev, MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED));
        for (unsigned i = 0; i < LANES; i++)
            atomic_store(&lanes[i].shut, true);
        dawdle(200);
        for (unsigned i = 0; i < LANES; i++)
            atomic_store(&lanes[i].shut, false);
        expect_ok(bus_master ? msi_device_set_bus_master(lanes_dev, 1) : msi_device_set_control(lanes_dev, MSIROUTE_ENABLED));
        dawdle(400);
    }
    return unused;
}

static void *pause_and_save(void *unused)
{
    uint8_t state[1024];
    size_t size = msi_device_save_size(lanes_dev);
    expect(size <= sizeof(state));
    while (!atomic_load(&over)) {
        lanes_pause();
        dawdle(400);
        expect_ok(msi_device_save(lanes_dev, state, size));
        lanes_resume();
        nap_ms(1);
    }
    return unused;
}

static void blow(void *(*const jobs[])(void *), unsigned n)
{
    pthread_t threads[8];
    atomic_store(&over, false);
    atomic_store(&sent, 0);
    atomic_store(&kept, 0);
    atomic_store(&refused, 0);
    for (unsigned i = 0; i < n; i++)
        expect_ok(pthread_create(&threads[i], NULL, jobs[i], NULL));
    nap_ms(STORM_US / 1000);
    atomic_store(&over, true);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < LANES; i++) {
        tap_context("lane %u", i);
        lane_is_quiet(i);
        expect(atomic_load(&lanes[i].messages) > 100);
    }
    expect(atomic_load(&sent) > 1000);
    expect(atomic_load(&kept) > 10);
    expect_eq(atomic_load(&refused), 0);
    tap_note("%lu sent, %lu kept", atomic_load(&sent), atomic_load(&kept));
}

static void vectors_change_in_the_storm(enum host host)
{
    static void *(*const jobs[])(void *) = { raise_any_lane, raise_any_lane, change_even_lanes, change_odd_lanes };
    (void)host;
    if (!lanes_open(MSIROUTE_KIND_PLAIN, 0, 0))
        return;
    blow(jobs, 4);
    lanes_close();
}

static void registers_change_in_the_storm(enum host host)
{
    static void *(*const jobs[])(void *) = { raise_any_lane, raise_any_lane, change_even_lanes, change_odd_lanes, pause_and_save };
    (void)host;
    lanes_by_registers = true;
    if (lanes_open(MSIROUTE_KIND_MSIX, 0, 0)) {
        blow(jobs, 5);
        lanes_close();
    }
    lanes_by_registers = false;
}

static void functions_change_in_the_storm(enum host host)
{
    static void *(*const jobs[])(void *) = { raise_any_lane, raise_any_lane, change_the_function };
    (void)host;
    if (!lanes_open(MSIROUTE_KIND_MSIX, 0, 0))
        return;
    blow(jobs, 3);
    lanes_close();
}

static void messages_by_routes_in_the_storm(enum host host)
{
    enum { FEW = 28 };      /* routes: many fewer than there are messages */
    static void *(*const jobs[])(void *) = { raise_any_lane, raise_any_lane, change_even_lanes, change_odd_lanes };
    struct msi_route_cache_stats stats = MSIROUTE_STATS_INIT;
    (void)host;
    if (!lanes_open(MSIROUTE_KIND_PLAIN, MSIROUTE_CACHE_NO_DIRECT, FEW))
        return;
    blow(jobs, 4);
    expect_ok(msi_route_cache_stats(lanes_cache, &stats));
    expect(stats.evictions > 100);
    lanes_close();
}

/* ---- KVM ---- */

/* Vector i of the device is vector 0x40 of vCPU i, so that what is done to one vCPU's IRR leaves the others alone. */
#define STREAMS 4
struct stream { struct rig *rig; uint32_t index; int fd; atomic_bool quiet; };

static void *deliver_and_signal(void *opaque)
{
    struct stream *streams = opaque;
    while (!atomic_load(&over)) {
        struct stream *stream = &streams[chance() % STREAMS];
        if (chance() % 2) {
            int result = msi_deliver(stream->rig->dev, stream->index);
            expect(result == MSIROUTE_SENT || result == MSIROUTE_PENDING);
        } else {
            add_to_eventfd(stream->fd, 1);
        }
        dawdle(200);
    }
    return NULL;
}

static void masked_vectors_stay_silent_in_the_storm(enum host host)
{
    RIG(rig, host, .cpus = STREAMS);
    struct stream streams[STREAMS];
    unsigned turns = 0, delivered = 0;
    pthread_t threads[2];
    for (uint32_t i = 0; i < STREAMS; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO(i, 0x40)));
        streams[i] = (struct stream){ .rig = &rig, .index = i, .fd = rig_bound(&rig, i, 0) };
    }
    atomic_store(&over, false);
    for (unsigned i = 0; i < 2; i++)
        expect_ok(pthread_create(&threads[i], NULL, deliver_and_signal, streams));
    /* Longer on a machine that has other things to do. */
    for (uint64_t start = now_us(); now_us() < start + (turns > 100 ? STORM_US : 20 * STORM_US); turns++) {
        uint32_t i = turns % STREAMS;
        unsigned vector = 0x40 + turns / STREAMS % 64;
        expect_ok(msi_vector_mask(rig.dev, i));
        delivered += rig_arrivals(&rig, i, vector);
        for (unsigned look = 0; look < 3; look++) {
            dawdle(3000);
            if (!expect_eq(rig_arrivals(&rig, i, vector), 0))
                break;
        }
        unsigned next = 0x40 + (turns / STREAMS + 1) % 64;
        expect_ok(msi_vector_set(rig.dev, i, TO(i, next)));
        expect_ok(msi_vector_unmask(rig.dev, i));
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    tap_note("%u times masked, %u of them after an interrupt", turns, delivered);
    expect(turns > 100 && delivered > turns / 10);
    for (uint32_t i = 0; i < STREAMS; i++) {
        unsigned vector = info_of(rig.dev, i).data;
        expect_eq(msi_vector_is_pending(rig.dev, i), 0);
        rig_arrivals(&rig, i, vector);
        add_to_eventfd(streams[i].fd, 1);
        expect_arrival(&rig, i, vector);
    }
    expect_quiet(&rig);
}

/* ---- one signal of an eventfd against one change, again and again ---- */

static struct gate_of_two gate;
static int signalled;

static void *signal_each_round(void *unused)
{
    for (;;) {
        meet(&gate);
        if (atomic_load(&over))
            return unused;
        dawdle(2000);
        add_to_eventfd(signalled, 1);
        meet(&gate);
    }
}

/* One of the two arrives within a second, and not the other as well. */
static bool one_of(struct rig *rig, unsigned before, unsigned after)
{
    unsigned n = 0;
    for (uint64_t end = now_us() + 1000000; n == 0 && now_us() < end;)
        n = rig_arrivals(rig, 0, before) + (after == before ? 0 : rig_arrivals(rig, 0, after));
    return expect_eq(n, 1);
}

static void no_signal_is_lost_or_doubled_around_a_change(enum host host)
{
    enum { ROUNDS = 1000 };
    RIG(rig, host, .cpus = 1);
    unsigned now = 0x40;
    pthread_t thread;
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, now)));
    signalled = rig_bound(&rig, 0, 0);
    atomic_store(&over, false);
    if (!expect_ok(pthread_create(&thread, NULL, signal_each_round, NULL)))
        return;
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned next = 0x40 + round % 150;
        meet(&gate);
        dawdle(2000);
        if (round % 3 != 0)
            expect_ok(msi_vector_mask(rig.dev, 0));
        if (round % 3 != 1)
            expect_ok(msi_vector_set(rig.dev, 0, TO(0, next)));
        else
            next = now;
        if (round % 3 != 0)
            expect_ok(msi_vector_unmask(rig.dev, 0));
        meet(&gate);
        if (!one_of(&rig, now, next))
            break;
        now = next;
    }
    atomic_store(&over, true);
    meet(&gate);
    pthread_join(thread, NULL);
    expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
    expect_quiet(&rig);     /* a double of any round is still in the IRR */
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(ANYWHERE, vectors_change_in_the_storm),
        TEST(ANYWHERE, registers_change_in_the_storm),
        TEST(ANYWHERE, functions_change_in_the_storm),
        TEST(ANYWHERE, messages_by_routes_in_the_storm),
        TEST(ON_KVM, masked_vectors_stay_silent_in_the_storm),
        TEST(ON_KVM | ON_MODEL, no_signal_is_lost_or_doubled_around_a_change),
    };
    return lanes_choose_barrier(argc, argv) ? TAP_MAIN(tests) : 1;
}
