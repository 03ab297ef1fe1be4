/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Messages sent through a few routes that thousands of them take turns on: a route may change while another thread is
 * about to send through it. Each send is to arrive, once, and at its own destination. The calls that send are held up
 * between the library's look-up and the kernel, where it hurts. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "calls.h"
#include "lanes.h"
#include "rig.h"

#define FEW_ROUTES 64       /* and GSIs: from 24 to 63 there are forty */
#define SENDS      2500     /* of the one who sends always the same */
#define ROUNDS     8        /* of the churners together, at least */
#define CHURNERS   2
#define CPUS_EACH  6        /* of each churner: 1,344 messages */
#define CPUS       (1 + CHURNERS * CPUS_EACH)
#define STALL_US   3000     /* long enough for every idle route to be thrown out twice */

static atomic_bool over;
static atomic_ulong sends, stalls, rounds;
static _Thread_local unsigned stall_one_in;     /* 0: never */

/* In the handler of a signal: the route was found, and the kernel has not been asked yet. */
static void stall(void)
{
    if (stall_one_in && chance() % stall_one_in == 0) {
        atomic_fetch_add(&stalls, 1);
        usleep(STALL_US);
    }
}

struct sender {
    struct rig *rig;
    unsigned number;
    int fd;
};

static bool sent(int result)
{
    atomic_fetch_add(&sends, 1);
    return expect_eq(result, MSIROUTE_SENT);
}

/* One message of no vector, one of a vector, and an eventfd, all to vCPU 0, which nobody else sends to. */
static void *send_the_same_again_and_again(void *opaque)
{
    struct sender *sender = opaque;
    struct rig *rig = sender->rig;
    stall_one_in = 8;
    for (unsigned i = 0; i < SENDS || (i < 10 * SENDS && atomic_load(&rounds) < ROUNDS); i++) {
        if (!sent(msi_deliver_message(rig->cache, MSIROUTE_NO_REQUESTER, TO(0, 0x41), 0))
         || !expect_arrival(rig, 0, 0x41))
            break;
        if (i % 4 == 0 && (!sent(msi_deliver(rig->dev, 0)) || !expect_arrival(rig, 0, 0x42)))
            break;
        fires(rig, sender->fd);
        if (!expect_arrival(rig, 0, 0x43))
            break;
        if (i % 32 == 0)
            nap_ms(2);      /* its routes get cold */
    }
    atomic_store(&over, true);
    return NULL;
}

/* All vectors of a vCPU in turn, each once; then they must be there. In between, its eventfd gets a new message. */
static void *churn(void *opaque)
{
    struct sender *sender = opaque;
    struct rig *rig = sender->rig;
    unsigned first = 1 + sender->number * CPUS_EACH, index = 2 + sender->number;
    stall_one_in = 256;
    for (unsigned round = 0; !atomic_load(&over); round++) {
        unsigned cpu = first + round % CPUS_EACH, start = chance() % VECTORS_PER_CPU;
        for (unsigned i = 0; i < VECTORS_PER_CPU; i++)
            if (!sent(msi_deliver_message(rig->cache, MSIROUTE_NO_REQUESTER, TO(cpu, nth_vector(start + i * 5)), 0)))
                return NULL;
        unsigned arrived = 0;
        for (unsigned i = 0; i < VECTORS_PER_CPU; i++)
            arrived += rig_arrivals(rig, cpu, nth_vector(i)) == 1;
        if (!expect_eq(arrived, VECTORS_PER_CPU))
            return NULL;
        unsigned vector = nth_vector(chance());
        expect_ok(msi_vector_set(rig->dev, index, TO(cpu, vector)));
        fires(rig, sender->fd);
        if (!expect_arrival(rig, cpu, vector))
            return NULL;
        atomic_fetch_add(&rounds, 1);
    }
    return NULL;
}

static void routes_change_hands_under_those_who_send_and_each_send_arrives(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP, .cpus = CPUS, .vectors = 2 + CHURNERS,
        .cache_flags = MSIROUTE_CACHE_NO_DIRECT, .max_routes = FEW_ROUTES);
    struct sender senders[1 + CHURNERS];
    pthread_t threads[1 + CHURNERS];
    atomic_store(&over, false);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x42)));
    for (unsigned i = 0; i <= CHURNERS; i++) {
        senders[i] = (struct sender){ &rig, i ? i - 1 : 0, rig_eventfd(&rig, EFD_NONBLOCK) };
        expect_ok(msi_vector_set(rig.dev, 1 + i, TO(i ? 1 + (i - 1) * CPUS_EACH : 0, 0x43)));
        expect_ok(msi_vector_bind_eventfd(rig.dev, 1 + i, senders[i].fd, 0));
    }
    if (!expect(calls_in_place()))
        return;
    uint64_t lines = calls(CALL_LINE), signals = calls(CALL_SIGNAL);
    calls_inside(CALL_LINE, stall);
    for (unsigned i = 0; i <= CHURNERS; i++)
        pthread_create(&threads[i], NULL, i ? churn : send_the_same_again_and_again, &senders[i]);
    for (unsigned i = 0; i <= CHURNERS; i++)
        pthread_join(threads[i], NULL);
    calls_inside(CALL_LINE, NULL);
    struct msi_route_cache_stats stats = rig_stats(&rig);
    tap_note("%lu sends, %lu of them held up; %lu rounds, %llu evictions", atomic_load(&sends), atomic_load(&stalls),
             atomic_load(&rounds), (unsigned long long)stats.evictions);
    expect_eq(calls(CALL_LINE) - lines, atomic_load(&sends));   /* one call each */
    expect_eq(calls(CALL_SIGNAL) - signals, 0);
    expect(table_entries() <= FEW_ROUTES);
    expect(stats.evictions > 1000);
    expect_quiet(&rig);
}

/* Without company: what misses costs one write, and what fits none. */
static void a_miss_is_one_write_and_a_hit_none(enum host host)
{
    enum { FIT = 30, ALL = 2 * VECTORS_PER_CPU };
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP, .cache_flags = MSIROUTE_CACHE_NO_DIRECT, .max_routes = FEW_ROUTES);
    if (!expect(calls_in_place()))
        return;
    uint64_t writes = calls(CALL_WRITE), lines = calls(CALL_LINE);
    for (unsigned turn = 0; turn < 100; turn++) {
        for (unsigned i = 0; i < FIT; i++) {
            expect_eq(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, TO_NTH(i), 0), MSIROUTE_SENT);
            if (turn % 10 == 0)
                expect_arrival(&rig, nth_cpu(i), nth_vector(i));
            else
                rig_arrivals(&rig, nth_cpu(i), nth_vector(i));
        }
    }
    expect_eq(calls(CALL_WRITE) - writes, FIT);
    expect_eq(calls(CALL_LINE) - lines, 100 * FIT);
    for (unsigned turn = 0; turn < 3; turn++) {
        for (unsigned i = 0; i < ALL; i++) {
            expect(CALLED(CALL_WRITE, msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, TO_NTH(i), 0)) <= 1);
            expect_arrival(&rig, nth_cpu(i), nth_vector(i));
        }
    }
    expect_eq(calls(CALL_LINE) - lines, 100 * FIT + 3 * ALL);
    expect(table_entries() <= FEW_ROUTES);
    expect_quiet(&rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_KVM, a_miss_is_one_write_and_a_hit_none),
        TEST(ON_KVM, routes_change_hands_under_those_who_send_and_each_send_arrives),
    };
    return TAP_MAIN(tests);
}
