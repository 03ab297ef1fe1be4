/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Many eventfds with few messages: one entry of the kernel's table for each message, whoever uses it, and each
 * eventfd raises its own message whatever its companions do. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "calls.h"
#include "lanes.h"
#include "rig.h"

#define SPLIT(rig, host, ...) RIG(rig, host, .irqchip = SPLIT_IRQCHIP, __VA_ARGS__)

/* ---- ten thousand ---- */

#define EVENTFDS   10000
#define MESSAGES   500
#define DEVICES    20
#define PER_DEVICE (EVENTFDS / DEVICES)
#define SPARE_FDS  200

/* Eventfd i is that of vector i % PER_DEVICE of device i / PER_DEVICE; its message is to begin with: */
static unsigned message_of(unsigned i) { return i * 7 % MESSAGES; }

struct crowd {
    struct msi_device *devices[DEVICES];
    int fds[EVENTFDS];
    unsigned n;
};

static void close_crowd(struct crowd *crowd)
{
    while (crowd->n)
        close(crowd->fds[--crowd->n]);
}

static bool join(struct rig *rig, struct crowd *crowd)
{
    for (unsigned d = 0; d < DEVICES; d++)
        crowd->devices[d] = rig_device(rig, d % 2 ? MSIROUTE_KIND_PLAIN : MSIROUTE_KIND_MSIX, PER_DEVICE);
    for (unsigned i = 0; i < EVENTFDS; i++) {
        struct msi_device *dev = crowd->devices[i / PER_DEVICE];
        uint32_t index = i % PER_DEVICE;
        int fd = crowd->fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (!expect(fd >= 0))
            return false;
        crowd->n++;
        if (!expect_ok(msi_vector_set(dev, index, TO_NTH(message_of(i)))) || !expect_ok(msi_vector_unmask(dev, index))
         || !expect_ok(msi_vector_bind_eventfd(dev, index, fd, MSIROUTE_EVENTFD_BORROWED)))
            return false;
    }
    return true;
}

static void raises(struct rig *rig, const struct crowd *crowd, unsigned i, unsigned message)
{
    fires(rig, crowd->fds[i]);
    expect_arrival(rig, nth_cpu(message), nth_vector(message));
}

static void ten_thousand_eventfds_with_500_messages_share_500_routes(enum host host)
{
    __attribute__((cleanup(close_crowd))) struct crowd crowd = { .n = 0 };   /* closed after the rig */
    SPLIT(rig, host, .cpus = 3, .cache_flags = MSIROUTE_CACHE_HELPER_THREADS);   /* to close devices sooner */
    uint64_t writes = calls(CALL_WRITE), binds = calls(CALL_BIND), unbinds = calls(CALL_UNBIND);
    if (!join(&rig, &crowd))
        return;
    /* Half of the devices are not enabled yet: their messages are none of the others'. */
    expect_eq(calls(CALL_BIND) - binds, EVENTFDS / 2);
    for (unsigned d = 0; d < DEVICES; d += 2)
        expect_ok(msi_device_set_control(crowd.devices[d], MSIROUTE_ENABLED));

    unsigned in_kernel = 0, routed = 0;
    uint32_t gsis[MESSAGES];
    memset(gsis, 0xFF, sizeof(gsis));
    for (unsigned i = 0; i < EVENTFDS; i++) {
        struct msi_vector_info info = info_of(crowd.devices[i / PER_DEVICE], i % PER_DEVICE);
        uint32_t *gsi = &gsis[message_of(i)];
        in_kernel += !!(info.flags & MSIROUTE_VECTOR_IN_KERNEL);
        *gsi = *gsi == MSIROUTE_ANY_GSI ? info.gsi : *gsi;
        routed += info.gsi == *gsi && info.gsi != MSIROUTE_ANY_GSI;
    }
    expect_eq(in_kernel, EVENTFDS);
    expect_eq(routed, EVENTFDS);        /* equal messages are on one GSI */
    expect_eq(rig_stats(&rig).routes, MESSAGES);
    expect_eq(rig_stats(&rig).routes_pinned, MESSAGES);
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
    expect_eq(table_entries(), MESSAGES);
    for (unsigned m = 0; m < MESSAGES; m++)
        expect(table_has(gsis[m], TO_NTH(m)));
    expect(calls(CALL_WRITE) - writes <= MESSAGES);
    expect_eq(calls(CALL_BIND) - binds, EVENTFDS);
    expect_eq(calls(CALL_UNBIND) - unbinds, 0);

    for (unsigned i = 0; i < EVENTFDS; i++)
        raises(&rig, &crowd, i, message_of(i));
    expect_quiet(&rig);

    /* Twenty of them change over to messages that nobody has, twenty to a companion's; the 9,960 others notice
     * nothing. */
    unsigned now[EVENTFDS];
    for (unsigned i = 0; i < EVENTFDS; i++)
        now[i] = message_of(i);
    for (unsigned k = 0; k < 40; k++) {
        unsigned i = k * 241 + 3, message = k < 20 ? MESSAGES + k : (now[i] + 1) % MESSAGES;
        struct msi_device *dev = crowd.devices[i / PER_DEVICE];
        uint64_t written = CALLED(CALL_WRITE, expect_ok(msi_vector_set(dev, i % PER_DEVICE, TO_NTH(message))));
        expect_eq(written, k < 20);
        now[i] = message;
        raises(&rig, &crowd, i, message);
    }
    expect_eq(rig_stats(&rig).routes_pinned, MESSAGES + 20);
    for (unsigned i = 0; i < EVENTFDS; i++)
        raises(&rig, &crowd, i, now[i]);
    expect_quiet(&rig);

    /* Whole devices leave; the routes stay for the others. */
    for (unsigned d = 0; d < DEVICES - 1; d++)
        expect_ok(msi_device_close(crowd.devices[d]));
    for (unsigned i = EVENTFDS - PER_DEVICE; i < EVENTFDS; i++)
        raises(&rig, &crowd, i, now[i]);
    fires(&rig, crowd.fds[0]);
    expect_quiet(&rig);
    expect_eq(take_count(crowd.fds[0]), 1);
}

/* ---- one of several changes ---- */

static void who_changes_alone_leaves_the_message_to_the_others(enum host host)
{
    enum { USERS = 5 };
    SPLIT(rig, host, .vectors = USERS);
    int fds[USERS];
    for (unsigned i = 0; i < USERS; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO(0, 0x41)));
        fds[i] = rig_bound(&rig, i, 0);
    }
    uint64_t writes = calls(CALL_WRITE);
    for (unsigned gone = 0; gone < USERS; gone++) {
        /* All but the last need a route of their own; the last changes the one it has. */
        uint32_t old = info_of(rig.dev, gone).gsi;
        uint64_t unbinds = calls(CALL_UNBIND);
        expect_ok(msi_vector_set(rig.dev, gone, TO(1, 0x50 + gone)));
        expect_eq(calls(CALL_UNBIND) - unbinds, gone < USERS - 1);
        expect_eq(info_of(rig.dev, gone).gsi == old, gone == USERS - 1);
        expect(table_has(info_of(rig.dev, gone).gsi, TO(1, 0x50 + gone)));
        expect_eq(table_has(ANY_GSI, TO(0, 0x41)), gone < USERS - 1);
        for (unsigned i = 0; i < USERS; i++) {
            fires(&rig, fds[i]);
            if (i <= gone)
                expect_arrival(&rig, 1, 0x50 + i);
            else
                expect_arrival(&rig, 0, 0x41);
        }
    }
    expect_eq(calls(CALL_WRITE) - writes, USERS);
    expect_eq(table_entries(), USERS);
    /* And back together: nothing to write but what had gone. */
    for (unsigned i = 0; i < USERS; i++)
        expect_ok(msi_vector_set(rig.dev, i, TO(0, 0x41)));
    expect_eq(calls(CALL_WRITE) - writes, USERS + 1);
    expect_eq(rig_stats(&rig).routes_pinned, 1);
    for (unsigned i = 0; i < USERS; i++) {
        fires(&rig, fds[i]);
        expect_arrival(&rig, 0, 0x41);
    }
    expect_quiet(&rig);
}

/* An entry in the wrong hands: a vector changes, and gets the message of the one that it shared with, in every order.
 * */
static void messages_change_places_among_vectors_in_one_transaction(enum host host)
{
    enum { N = 6 };
    SPLIT(rig, host, .vectors = N);
    int fds[N];
    unsigned message[N];
    for (unsigned i = 0; i < N; i++) {
        message[i] = i / 2;     /* three pairs */
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(message[i])));
        fds[i] = rig_bound(&rig, i, 0);
    }
    for (unsigned k = 0; k < 720; k += 7) {
        unsigned order[N];
        tap_context("order %u", k);
        order_of(k, N, order);
        expect_ok(msi_route_cache_begin(rig.cache));
        for (unsigned i = 0; i < N; i++) {
            message[i] = (order[i] * 5 + k) % 9;     /* some alone, some in company, some new */
            expect_ok(msi_vector_set(rig.dev, i, TO_NTH(message[i])));
        }
        expect(CALLED(CALL_WRITE, expect_ok(msi_route_cache_commit(rig.cache))) <= 1);
        for (unsigned i = 0; i < N; i++) {
            fires(&rig, fds[i]);
            expect_arrival(&rig, 0, nth_vector(message[i]));
        }
    }
    expect_quiet(&rig);
}

/* ---- while others signal ---- */

/* Thread s signals its own eventfds, whose messages, at vCPU s, are shared with eventfds that thread `mover` r moves
 * to vCPU SIGNALLERS + r and back. Each vCPU's APIC is read by one thread. */
#define SIGNALLERS 2
#define MOVERS     2
#define SHARED     12       /* messages of each signaller */
#define COMPANIONS 2        /* of each message, of each mover */
#define MOVES      1500     /* of each mover, if there is time: a tenth of them in any case */
#define ENOUGH_US  5000000
#define STAYS      (SIGNALLERS * SHARED)
#define VECTORS    (STAYS + MOVERS * STAYS * COMPANIONS)

struct party {
    struct rig *rig;
    unsigned number;
    const int *fds;
};

static atomic_uint moving;
static atomic_ulong signals, moved;

static unsigned home_cpu(unsigned stay)    { return stay / SHARED; }
static unsigned home_vector(unsigned stay) { return 0x40 + stay % SHARED; }
static unsigned companion(unsigned mover, unsigned stay, unsigned k)
{
    return STAYS + (mover * STAYS + stay) * COMPANIONS + k;
}

static void *signal_those_that_stay(void *opaque)
{
    const struct party *party = opaque;
    while (atomic_load(&moving)) {
        unsigned stay = party->number * SHARED + chance() % SHARED;
        fires(party->rig, party->fds[stay]);
        if (!expect_arrival(party->rig, party->number, home_vector(stay)))
            break;
        atomic_fetch_add(&signals, 1);
    }
    return NULL;
}

static void *move_companions(void *opaque)
{
    const struct party *party = opaque;
    struct rig *rig = party->rig;
    unsigned cpu = SIGNALLERS + party->number;
    bool away[STAYS][COMPANIONS] = { 0 };
    uint64_t end = now_us() + ENOUGH_US;
    for (unsigned move = 0; move < MOVES && (move < MOVES / 10 || now_us() < end); move++) {
        unsigned stay = chance() % STAYS, k = chance() % COMPANIONS, vector = 0x40 + chance() % 8;
        uint32_t index = companion(party->number, stay, k);
        if (away[stay][k] && chance() % 2) {
            expect_ok(msi_vector_set(rig->dev, index, TO(home_cpu(stay), home_vector(stay))));
            away[stay][k] = false;
        } else {
            expect_ok(msi_vector_set(rig->dev, index, TO(cpu, vector)));
            away[stay][k] = true;
            fires(rig, party->fds[index]);
            if (!expect_arrival(rig, cpu, vector))
                break;
        }
        atomic_fetch_add(&moved, 1);
    }
    atomic_fetch_sub(&moving, 1);
    return NULL;
}

/* The kernel's table is about to change: others may run now. */
static void let_others_run(void)
{
    if (chance() % 4 == 0)
        usleep(50);
    else
        sched_yield();
}

static void an_entry_changes_hands_while_its_companions_signal(enum host host)
{
    SPLIT(rig, host, .cpus = SIGNALLERS + MOVERS, .vectors = VECTORS);
    pthread_t threads[SIGNALLERS + MOVERS];
    struct party parties[SIGNALLERS + MOVERS];
    int fds[VECTORS];
    atomic_store(&signals, 0);
    atomic_store(&moved, 0);
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < VECTORS; i++) {
        unsigned stay = i < STAYS ? i : (i - STAYS) / COMPANIONS % STAYS;
        expect_ok(msi_vector_set(rig.dev, i, TO(home_cpu(stay), home_vector(stay))));
        fds[i] = rig_bound(&rig, i, 0);
    }
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(table_entries(), STAYS);
    calls_inside(CALL_WRITE, let_others_run);
    atomic_store(&moving, MOVERS);
    for (unsigned t = 0; t < SIGNALLERS + MOVERS; t++) {
        parties[t] = (struct party){ &rig, t < SIGNALLERS ? t : t - SIGNALLERS, fds };
        pthread_create(&threads[t], NULL, t < SIGNALLERS ? signal_those_that_stay : move_companions, &parties[t]);
    }
    for (unsigned t = 0; t < SIGNALLERS + MOVERS; t++)
        pthread_join(threads[t], NULL);
    calls_inside(CALL_WRITE, NULL);
    tap_note("%lu signals, %lu moves", atomic_load(&signals), atomic_load(&moved));
    expect(atomic_load(&signals) > 100);
    expect_quiet(&rig);
    for (unsigned i = 0; i < VECTORS; i++) {
        struct msi_vector_info info = info_of(rig.dev, i);
        fires(&rig, fds[i]);
        expect_arrival(&rig, (unsigned)(info.address >> 12 & 0xFF), info.data);
    }
    expect_quiet(&rig);
}

/* ---- */

static void nothing(enum host host) { (void)host; }

static bool may_open(unsigned descriptors)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max >= descriptors;
}

int main(void)
{
    struct test tests[] = {
        TEST(ON_KVM, ten_thousand_eventfds_with_500_messages_share_500_routes),
        TEST(ON_KVM, who_changes_alone_leaves_the_message_to_the_others),
        TEST(ON_KVM, messages_change_places_among_vectors_in_one_transaction),
        TEST(ON_KVM, an_entry_changes_hands_while_its_companions_signal),
    };
    if (!may_open(EVENTFDS + SPARE_FDS))
        tests[0] = (struct test){ "ten_thousand_eventfds_with_500_messages_share_500_routes # SKIP so many descriptors are "
                                  "not allowed here", nothing, ANYWHERE };
    return TAP_MAIN(tests);
}
