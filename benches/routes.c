/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The kernel's table as a cache. Messages through routes, without KVM_SIGNAL_MSI, in working sets that fit and that do not,
 * beside what QEMU did up to 8.1 (peers/qemu.c): routes are added one write each, and when none is free all go. And many
 * threads that change live vectors of a full table at once. */
#include <linux/kvm.h>
#include <msiroute.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "bench.h"
#include "peers/peer.h"

/* ---- messages ---- */

#define MAX_MESSAGES 20000
#define SENDS        200000     /* at most; a run ends earlier when its time is up */
#define RUN_NS       1500000000ull  /* about what the stand-in takes to fill up and be flushed */
#define SETTLE_NS    1500000000ull
#define TURNS        30

static uint32_t sequence[SENDS];

static void make_sequence(uint32_t messages, int zipf)
{
    static double sums[MAX_MESSAGES];
    static uint32_t ranks[MAX_MESSAGES];
    double sum = 0;
    for (uint32_t i = 0; i < messages; i++) {
        sums[i] = sum += zipf ? 1.0 / (i + 1) : 1.0;
        ranks[i] = i;
    }
    for (uint32_t i = messages - 1; i > 0; i--) {       /* so that popularity has nothing to do with the number */
        uint32_t j = (uint32_t)(random_bits() % (i + 1)), other = ranks[j];
        ranks[j] = ranks[i];
        ranks[i] = other;
    }
    for (uint32_t s = 0; s < SENDS; s++) {
        double at = (double)(random_bits() >> 11) / 9007199254740992.0 * sum;
        uint32_t low = 0, high = messages - 1;
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (sums[middle] < at)
                low = middle + 1;
            else
                high = middle;
        }
        sequence[s] = ranks[low];
    }
}

/* ---- runs ---- */

static struct msi_route_cache *cache;

static void send_flushing(uint32_t message) { qemu.send(qemu.machine, message); }
static void send_msiroute(uint32_t message)
{
    need(msi_deliver_message(cache, MSIROUTE_NO_REQUESTER, BENCH_ADDRESS, bench_data(message), 0) >= 0, "msi_deliver_message");
}

struct side {
    void (*send)(uint32_t message);
    uint32_t at;
    uint64_t sends, ns;
    double turns_us[TURNS];     /* a send, in each turn */
};

/* Microseconds a send. */
static double run_for(struct side *side, uint64_t ns)
{
    uint64_t start = nanoseconds(), sends = side->sends, now;
    do {
        for (unsigned i = 0; i < 16; i++) {
            side->send(sequence[side->at]);
            side->at = (side->at + 1) % SENDS;
        }
        side->sends += 16;
        now = nanoseconds();
    } while (now - start < ns);
    side->ns += now - start;
    return (double)(now - start) / 1e3 / (double)(side->sends - sends);
}

/* ---- what no policy can beat ---- */

#define PINS  40            /* entries that travel along: the kernel's own */
#define SMALL (PINS + 16)
#define LARGE (PINS + 1024)

static int bare_vm;
static double small_us[TURNS], large_us[TURNS];     /* a bare write of so many entries, in each turn */

#define WRITES 16

/* The median: the first one frees what the last wrote. */
static double write_us(uint32_t entries)
{
    static struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry entries[LARGE]; } table;
    table.head.nr = entries;
    for (uint32_t i = 0; i < entries; i++)
        table.entries[i] = (struct kvm_irq_routing_entry){ .gsi = i, .type = KVM_IRQ_ROUTING_MSI,
                                                           .u.msi = { .address_lo = BENCH_ADDRESS, .data = bench_data(i) } };
    double us[WRITES];
    for (unsigned i = 0; i < WRITES; i++) {
        uint64_t start = nanoseconds();
        need(ioctl(bare_vm, KVM_SET_GSI_ROUTING, &table) == 0, "KVM_SET_GSI_ROUTING");
        us[i] = (double)(nanoseconds() - start) / 1e3;
    }
    return median(us, WRITES);
}

/* While nothing but frequency tells what is sent next: the most frequent have routes, as many as is best, and each other send
 * writes a table of these. Of a write's cost what these turns had. */
static double least_us(uint32_t messages, int zipf)
{
    double small = median(small_us, TURNS), entry = (median(large_us, TURNS) - small) / (LARGE - SMALL);
    double sum = 0, hits = 0, least = 0;
    for (uint32_t i = 0; i < messages; i++)
        sum += zipf ? 1.0 / (i + 1) : 1.0;
    for (uint32_t k = 1; k <= messages && k < 4096 - PINS; k++) {
        hits += zipf ? 1.0 / k : 1.0;
        double cost = (1 - hits / sum) * (small + entry * (PINS + (double)k - SMALL));
        least = k == 1 || cost < least ? cost : least;
    }
    return least;
}

/* Microseconds a send, once both have settled. In turns: what else the machine does falls on both. */
static void compare(struct side *theirs, struct side *ours)
{
    run_for(theirs, SETTLE_NS);
    run_for(ours, SETTLE_NS);
    theirs->sends = theirs->ns = ours->sends = ours->ns = 0;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        theirs->turns_us[turn] = run_for(theirs, RUN_NS / TURNS);
        ours->turns_us[turn] = run_for(ours, RUN_NS / TURNS);
        small_us[turn] = write_us(SMALL);
        large_us[turn] = write_us(LARGE);
    }
}

/* The mean, for what is rare is dear; and the quartiles of the turns. */
static double print_cost(struct side *side, uint32_t messages, const char *how, const char *whose)
{
    double mean = (double)side->ns / 1e3 / (double)side->sends;
    printf("thrash_%u_%s_%s_us=%.3f\n", messages, how, whose, mean);
    printf("thrash_%u_%s_%s_us_q1=%.3f\n", messages, how, whose, percentile(side->turns_us, TURNS, 25));
    printf("thrash_%u_%s_%s_us_q3=%.3f\n", messages, how, whose, percentile(side->turns_us, TURNS, 75));
    return mean;
}

static void thrash(uint32_t messages, int zipf)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_stats stats = MSIROUTE_STATS_INIT;
    struct side theirs = { .send = send_flushing }, ours = { .send = send_msiroute };
    make_sequence(messages, zipf);
    qemu.open(qemu.machine, 1, 1);
    config.vm_fd = bench_vm();
    config.flags = MSIROUTE_CACHE_NO_DIRECT;
    need(!msi_route_cache_new(&config, &cache), "cache");
    compare(&theirs, &ours);
    need(!msi_route_cache_stats(cache, &stats), "stats");
    const char *how = zipf ? "zipf" : "uniform";
    double theirs_us = print_cost(&theirs, messages, how, "qemu"), ours_us = print_cost(&ours, messages, how, "msiroute");
    printf("thrash_%u_%s_times=%.1f\n", messages, how, theirs_us / ours_us);
    double least = least_us(messages, zipf);
    if (least > 0)      /* else all have routes */
        printf("thrash_%u_%s_possible_times=%.1f\n", messages, how, theirs_us / least);
    printf("thrash_%u_%s_routes=%llu\n", messages, how, (unsigned long long)stats.routes);
    msi_route_cache_free(cache);
    qemu.close(qemu.machine);
}

/* ---- many threads ---- */

#define THREADS     8
#define PER_THREAD  200
#define TABLE       4000

static struct msi_device *full;
static pthread_barrier_t start_line;

static void *retarget(void *argument)
{
    uint32_t first = (uint32_t)(uintptr_t)argument;
    pthread_barrier_wait(&start_line);
    for (uint32_t i = 0; i < PER_THREAD; i++)
        need(!msi_vector_set(full, (first + i) % 2048, BENCH_ADDRESS, bench_data(MAX_MESSAGES + first + i)), "set");
    return NULL;
}

static void group_commit(void)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_stats before = MSIROUTE_STATS_INIT, after = MSIROUTE_STATS_INIT;
    struct msi_device_config device = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_device *other;
    pthread_t threads[THREADS];
    config.vm_fd = bench_vm();
    device.vectors = 2048;
    need(!msi_route_cache_new(&config, &cache), "cache");
    need(!msi_device_new(cache, &device, &full), "device");
    device.vectors = TABLE - 2048;
    need(!msi_device_new(cache, &device, &other), "device");
    need(!msi_route_cache_begin(cache), "begin");
    for (uint32_t i = 0; i < TABLE; i++) {
        struct msi_device *dev = i < 2048 ? full : other;
        uint32_t index = i < 2048 ? i : i - 2048;
        need(!msi_vector_set(dev, index, BENCH_ADDRESS, bench_data(i)), "set");
        need(!msi_vector_bind_eventfd(dev, index, eventfd(0, EFD_NONBLOCK), MSIROUTE_EVENTFD_BORROWED), "bind");
    }
    need(!msi_route_cache_commit(cache), "commit");
    need(!msi_route_cache_stats(cache, &before), "stats");
    pthread_barrier_init(&start_line, NULL, THREADS);
    for (uintptr_t t = 0; t < THREADS; t++)
        need(!pthread_create(&threads[t], NULL, retarget, (void *)(t * PER_THREAD)), "thread");
    for (unsigned t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    need(!msi_route_cache_stats(cache, &after), "stats");
    printf("group_commit_changes=%u\n", THREADS * PER_THREAD);
    printf("group_commit_table_writes=%llu\n", (unsigned long long)(after.table_writes - before.table_writes));
    printf("group_commit_writes_a_change=%.3f\n", (double)(after.table_writes - before.table_writes) / (THREADS * PER_THREAD));
    msi_device_free(full);
    msi_device_free(other);
    msi_route_cache_free(cache);
}

int main(void)
{
    bench_allow_descriptors();
    group_commit();
    bare_vm = bench_vm();
    static const uint32_t sets[] = { 200, 1000, 4000, 5000, 20000 };
    for (unsigned i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
        for (int zipf = 0; zipf < 2; zipf++)
            thrash(sets[i], zipf);
    return 0;
}
