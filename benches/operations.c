/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a guest's writes cost under the library's policy and under others': time, and what the kernel was asked. All policies
 * take turns, round by round, each on a VM of its own. */
#include <stdio.h>

#include "bench.h"
#include "kernel.h"
#include "peers/peer.h"

static const struct peer *const peers[] = {
    &qemu, &kvmtool, &cloud_hypervisor, &firecracker, &msiroute, &msiroute_helpers, &msiroute_source, &msiroute_relay,
};
enum { PEERS = sizeof(peers) / sizeof(peers[0]), MAX_ROUNDS = 15 };

/* Another goes first in each round. */
static unsigned turn(unsigned round, unsigned i) { return (i + round) % PEERS; }

static double us_since(uint64_t start) { return (double)(nanoseconds() - start) / 1e3; }

/* ---- a device's life: enabled, masked, gone ---- */

struct life {
    double caller_us[MAX_ROUNDS], total_us[MAX_ROUNDS];             /* enabling */
    double mask_us[MAX_ROUNDS], unmask_us[MAX_ROUNDS];              /* function mask */
    double unplug_us[MAX_ROUNDS];
    struct asked caller, total, mask, unmask, unplug;
};

static void live(const struct peer *peer, struct life *life, unsigned round, uint32_t vectors, int at_once)
{
    struct machine *m = peer->machine;
    peer->open(m, vectors, vectors);
    struct asked before = asked();
    uint64_t start = nanoseconds();
    if (at_once)
        peer->begin(m);
    for (uint32_t v = 0; v < vectors; v++) {
        peer->set(m, v, v);
        peer->unmask(m, v);
    }
    if (at_once)
        peer->end(m);
    life->caller_us[round] = us_since(start);
    life->caller = asked_since(before);
    if (peer->settle)
        peer->settle(m);
    life->total_us[round] = us_since(start);
    life->total = asked_since(before);

    before = asked();
    start = nanoseconds();
    peer->function_mask(m, 0, 1);
    life->mask_us[round] = us_since(start);
    life->mask = asked_since(before);

    before = asked();
    start = nanoseconds();
    peer->function_mask(m, 0, 0);
    life->unmask_us[round] = us_since(start);
    life->unmask = asked_since(before);
    if (peer->settle)
        peer->settle(m);

    before = asked();
    start = nanoseconds();
    peer->unplug(m, 0);
    life->unplug_us[round] = us_since(start);
    life->unplug = asked_since(before);
    peer->close(m);
}

static void lives(uint32_t vectors, int at_once, unsigned rounds)
{
    static struct life lives[PEERS];
    const char *how = at_once ? "at_once" : "one_by_one";
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned i = 0; i < PEERS; i++)
            live(peers[turn(round, i)], &lives[turn(round, i)], round, vectors, at_once);
    for (unsigned p = 0; p < PEERS; p++) {
        struct life *life = &lives[p];
        const char *name = peers[p]->name;
        print_median(life->caller_us, rounds, "enable_%s_%u_%s_caller_us", how, vectors, name);
        print_median(life->total_us, rounds, "enable_%s_%u_%s_total_us", how, vectors, name);
        print_asked(life->caller, "enable_%s_%u_%s_caller", how, vectors, name);
        print_asked(life->total, "enable_%s_%u_%s_total", how, vectors, name);
        if (!at_once)
            continue;
        print_median(life->mask_us, rounds, "function_mask_%u_%s_us", vectors, name);
        print_asked(life->mask, "function_mask_%u_%s", vectors, name);
        print_median(life->unmask_us, rounds, "function_unmask_%u_%s_us", vectors, name);
        print_asked(life->unmask, "function_unmask_%u_%s", vectors, name);
        print_median(life->unplug_us, rounds, "unplug_%u_%s_us", vectors, name);
        print_asked(life->unplug, "unplug_%u_%s", vectors, name);
    }
}

/* ---- one vector of many ---- */

static void affinity(const struct peer *peer, uint32_t v, uint32_t message)
{
    peer->mask(peer->machine, v);
    peer->set(peer->machine, v, message);
    peer->unmask(peer->machine, v);
}

static void mask_unmask(const struct peer *peer, uint32_t v, uint32_t unused)
{
    (void)unused;
    peer->mask(peer->machine, v);
    peer->unmask(peer->machine, v);
}

static void open_live(const struct peer *peer, uint32_t vectors)
{
    peer->open(peer->machine, vectors, 2048);
    if (peer->load) {
        peer->load(peer->machine);
        peer->restore(peer->machine);
    } else {
        for (uint32_t v = 0; v < vectors; v++) {
            peer->set(peer->machine, v, v);
            peer->unmask(peer->machine, v);
        }
    }
}

static void one_of(uint32_t vectors)
{
    enum { ROUNDS = 11, TIMES = 16 };
    static const struct { const char *name; void (*change)(const struct peer *peer, uint32_t v, uint32_t message); } changes[] = {
        { "affinity", affinity }, { "mask_unmask", mask_unmask },
    };
    static double us[2][PEERS][ROUNDS * TIMES];
    struct asked counted[2][PEERS];
    uint32_t next = 0;
    for (unsigned p = 0; p < PEERS; p++)
        open_live(peers[p], vectors);
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned change = 0; change < 2; change++, next += TIMES)
            for (unsigned i = 0; i < PEERS; i++) {
                const struct peer *peer = peers[turn(round, i)];
                if (peer->settle)
                    peer->settle(peer->machine);
                struct asked before = asked();
                for (uint32_t t = 0; t < TIMES; t++) {
                    uint64_t start = nanoseconds();
                    changes[change].change(peer, (next + t) * 7 % vectors, vectors + next + t);
                    us[change][turn(round, i)][round * TIMES + t] = us_since(start);
                }
                counted[change][turn(round, i)] = asked_since(before);
            }
    for (unsigned change = 0; change < 2; change++)
        for (unsigned p = 0; p < PEERS; p++) {
            struct asked *count = &counted[change][p];
            print_median(us[change][p], ROUNDS * TIMES, "%s_%u_%s_us", changes[change].name, vectors, peers[p]->name);
            printf("%s_%u_%s_writes=%.2f\n", changes[change].name, vectors, peers[p]->name, (double)count->writes / TIMES);
            printf("%s_%u_%s_binds=%.2f\n", changes[change].name, vectors, peers[p]->name, (double)count->binds / TIMES);
            printf("%s_%u_%s_unbinds=%.2f\n", changes[change].name, vectors, peers[p]->name, (double)count->unbinds / TIMES);
        }
    for (unsigned p = 0; p < PEERS; p++)
        peers[p]->close(peers[p]->machine);
}

/* ---- a VM from a file ---- */

static void restored(uint32_t devices, uint32_t per_device)
{
    enum { ROUNDS = 3 };
    static double caller_us[PEERS][ROUNDS], total_us[PEERS][ROUNDS];
    struct asked counted[PEERS];
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned i = 0; i < PEERS; i++) {
            unsigned p = turn(round, i);
            const struct peer *peer = peers[p];
            if (!peer->load)
                continue;
            peer->open(peer->machine, devices * per_device, per_device);
            peer->load(peer->machine);
            struct asked before = asked();
            uint64_t start = nanoseconds();
            peer->restore(peer->machine);
            caller_us[p][round] = us_since(start);
            if (peer->settle)
                peer->settle(peer->machine);
            total_us[p][round] = us_since(start);
            counted[p] = asked_since(before);
            peer->close(peer->machine);
        }
    for (unsigned p = 0; p < PEERS; p++)
        if (peers[p]->load) {
            print_median(caller_us[p], ROUNDS, "restore_%ux%u_%s_caller_us", devices, per_device, peers[p]->name);
            print_median(total_us[p], ROUNDS, "restore_%ux%u_%s_total_us", devices, per_device, peers[p]->name);
            print_asked(counted[p], "restore_%ux%u_%s", devices, per_device, peers[p]->name);
        }
}

int main(void)
{
    static const struct { uint32_t vectors; unsigned rounds; } sizes[] = { { 64, 15 }, { 256, 9 }, { 1024, 5 }, { 2048, 3 } };
    static const uint32_t tables[] = { 64, 1000, 2400 };
    uint32_t descriptors = bench_allow_descriptors();
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (int at_once = 0; at_once < 2; at_once++)
            lives(sizes[i].vectors, at_once, sizes[i].rounds);
    for (unsigned i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        if (descriptors > tables[i] * PEERS + 100)
            one_of(tables[i]);
        else
            fprintf(stderr, "affinity changes on %u routes need %u descriptors (ulimit -n): left out\n", tables[i], tables[i] * PEERS + 100);
    }
    restored(100, 32);
    return 0;
}
