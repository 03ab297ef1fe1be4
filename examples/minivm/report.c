/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

/* Median and 99th percentile of a vector's round trips, in microseconds. */
struct round_trip {
    double median, p99;
};

static int compare(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

    return (left > right) - (left < right);
}

static struct round_trip round_trip(struct scoreboard *board, unsigned machine, unsigned d, unsigned v)
{
    uint32_t *times = malloc((size_t)MAX_QUEUES * board->room * sizeof(*times));
    struct round_trip result = { 0, 0 };
    size_t n = 0;

    if (!times)
        return result;
    for (unsigned q = v; q < device_types[d].queues; q += NR_VECTORS) {
        uint32_t timed = board->tallies[machine][d][q].timed;

        memcpy(times + n, scoreboard_times(board, machine, d, q), timed * sizeof(*times));
        n += timed;
    }
    if (n) {
        qsort(times, n, sizeof(*times), compare);
        result.median = times[n / 2] / 1000.0;
        result.p99 = times[n * 99 / 100] / 1000.0;
    }
    free(times);
    return result;
}

_Static_assert(NR_CPUS == 2, "the table has a column for each CPU");

/* The path of one vector. What a handler ran for is what counts; where queues share it, what their driver found. */
static void report_path(const struct machine_run *run, struct scoreboard *board, unsigned machine, unsigned d,
                        unsigned v, struct totals *totals)
{
    static const char *const raised_by[NR_DEVICES] = {
        [DIRECT]  = "msi_deliver, by a thread",
        [EVENTFD] = "eventfd, by a process",
        [SHARED]  = "two eventfds, two threads",
    };
    const struct guest_shared *shared = run->vm.shared;
    const char *name = d == DIRECT ? run->direct_name : device_types[d].name;
    const uint64_t *on = shared->interrupts[d][v];
    uint64_t sent = 0, seen = 0, interrupts = 0, received, lost;
    struct round_trip times = round_trip(board, machine, d, v);

    for (unsigned q = v; q < device_types[d].queues; q += NR_VECTORS) {
        sent += board->tallies[machine][d][q].sent;
        seen += shared->queues[d][q].seen;
    }
    for (unsigned cpu = 0; cpu < NR_CPUS; cpu++)
        interrupts += on[cpu];

    received = d == SHARED ? seen : interrupts;
    lost = received < sent ? sent - received : 0;
    totals->sent += sent;
    totals->received += received;
    totals->lost += lost;
    /* Each event of a shared vector is good for one interrupt at most, too: doubled ones cannot hide there. */
    totals->wrong += interrupts > sent ? interrupts - sent : 0;

    printf("  %-9s %-26s %6u %9" PRIu64 " %9" PRIu64 " %6" PRIu64 " %9" PRIu64 " %9" PRIu64 " %9.1f %9.1f\n",
           v ? "" : name, v ? "" : raised_by[d], v, sent, received, lost, on[0], on[1], times.median, times.p99);
}

static void report_machine(const struct machine_run *run, struct scoreboard *board, unsigned machine,
                           struct totals *totals)
{
    const struct guest_shared *shared = run->vm.shared;
    uint64_t held = 0, function_held = 0, retargets = 0, misdirected = 0;

    printf("\n%s\n", run->title);
    for (unsigned d = 0; d < NR_DEVICES; d++)
        for (unsigned v = 0; v < NR_VECTORS; v++) {
            report_path(run, board, machine, d, v, totals);
            held += shared->held[d][v];
            function_held += shared->function_held[d][v];
            retargets += shared->retargets[d][v];
        }
    for (unsigned cpu = 0; cpu < NR_CPUS; cpu++) {
        totals->wrong += shared->strays[cpu] + shared->misdirected[cpu];
        misdirected += shared->misdirected[cpu];
    }
    printf("  held until the guest unmasked: %" PRIu64 " by a vector's mask, %" PRIu64 " by the function mask\n",
           held, function_held);
    printf("  vectors moved to the other vCPU: %" PRIu64 " times; interrupts on the wrong one: %" PRIu64 "\n",
           retargets, misdirected);
    if (!run->finished)
        return;
    printf("  library: %" PRIu64 " table writes, %" PRIu64 " routes, %" PRIu64 " irqfd binds, %" PRIu64 " unbinds\n",
           run->stats.table_writes, run->stats.routes, run->stats.irqfd_binds, run->stats.irqfd_unbinds);
    if (run->cache.relay)
        printf("  relay: %" PRIu64 " messages, %" PRIu64 " vectors given to the kernel, %" PRIu64 " made way for others\n",
               run->stats.relayed_messages, run->stats.promotions, run->stats.demotions);
}

struct totals report_table(const struct machine_run *runs, struct scoreboard *board)
{
    struct totals totals = { 0 };

    printf("\n  %-9s %-26s %6s %9s %9s %6s %19s %19s\n", "", "", "", "", "", "", "interrupts on vCPU",
           "round trip, us");
    printf("  %-9s %-26s %6s %9s %9s %6s %9s %9s %9s %9s\n", "path", "raised by", "vector", "sent", "received", "lost",
           "0", "1", "median", "p99");
    for (unsigned machine = 0; machine < NR_MACHINES; machine++)
        if (__atomic_load_n(&runs[machine].vm.shared, __ATOMIC_ACQUIRE))
            report_machine(&runs[machine], board, machine, &totals);
    printf("\n");
    return totals;
}

void report_result(const struct totals *totals, const char *backend)
{
    printf("demo: backend=%s vcpus=%d sent=%" PRIu64 " received=%" PRIu64 " lost=%" PRIu64 "\n", backend, NR_CPUS,
           totals->sent, totals->received, totals->lost);
    fflush(stdout);
}
