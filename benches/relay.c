/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The relay: what it spares the thread that unmasks, what it costs, and more eventfds than the kernel has routes. */
#include <errno.h>
#include <linux/kvm.h>
#include <msiroute.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "bench.h"

static struct msi_route_cache *cache;
static pthread_t relay_thread;

static struct msi_route_cache_stats stats(void)
{
    struct msi_route_cache_stats now = MSIROUTE_STATS_INIT;
    need(!msi_route_cache_stats(cache, &now), "stats");
    return now;
}

static void *run_relay(void *unused)
{
    (void)unused;
    need(!msi_route_cache_relay_loop(cache), "relay_loop");
    return NULL;
}

static void open_cache(int with_relay)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    config.vm_fd = bench_vm();
    need(!msi_route_cache_new(&config, &cache), "cache");
    if (with_relay) {
        need(msi_route_cache_relay_fd(cache) >= 0, "relay_fd");
        need(!pthread_create(&relay_thread, NULL, run_relay, NULL), "thread");
    }
}

static void close_cache(int with_relay)
{
    msi_route_cache_free(cache);
    if (with_relay)
        pthread_join(relay_thread, NULL);
}

#define MAX_VECTORS 16384
static int fd[MAX_VECTORS];
static struct msi_device *devices[MAX_VECTORS / 2048];

/* `n` vectors with an eventfd each; masked. */
static void make_vectors(uint32_t n)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.vectors = 2048;
    for (uint32_t i = 0; i < n; i++) {
        if (i % 2048 == 0)
            need(!msi_device_new(cache, &config, &devices[i / 2048]), "device");
        struct msi_device *dev = devices[i / 2048];
        need(!msi_vector_mask(dev, i % 2048), "mask");
        need(!msi_vector_set(dev, i % 2048, BENCH_ADDRESS, bench_data(i)), "set");
        fd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        need(fd[i] >= 0, "eventfd");
        need(!msi_vector_bind_eventfd(dev, i % 2048, fd[i], MSIROUTE_EVENTFD_BORROWED), "bind");
    }
}

static void free_vectors(uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 2048)
        msi_device_free(devices[i / 2048]);
    for (uint32_t i = 0; i < n; i++)
        close(fd[i]);
}

static void signal_eventfd(uint32_t i)
{
    need(eventfd_write(fd[i], 1) == 0, "eventfd_write");
}

/* Signals these until the kernel serves all of them; a few seconds at most. How many it serves. */
static uint64_t warm_up(uint32_t first, uint32_t n)
{
    uint64_t end = nanoseconds() + 10000000000u, promoted = 0;
    do {
        for (uint32_t i = first; i < first + n; i++)
            signal_eventfd(i);
        usleep(1000);
        promoted = stats().routes_pinned;
    } while (promoted < n && nanoseconds() < end);
    return promoted;
}

/* ---- many vectors, one thread ---- */

static void unmask_many(int with_relay)
{
    enum { VECTORS = 2048 };
    const char *how = with_relay ? "relay" : "plain";
    open_cache(with_relay);
    make_vectors(VECTORS);
    struct msi_route_cache_stats before = stats();
    uint64_t start = nanoseconds();
    for (uint32_t i = 0; i < VECTORS; i++)
        need(!msi_vector_unmask(devices[0], i), "unmask");
    uint64_t unmasked = nanoseconds();
    if (with_relay) {
        printf("unmask_2048_relay_us_a_vector=%.2f\n", (double)(unmasked - start) / 1e3 / VECTORS);
        start = nanoseconds();
        for (uint32_t i = 0; i < VECTORS; i++)
            need(!msi_vector_mask(devices[0], i), "mask");
        printf("mask_2048_relayed_us_a_vector=%.2f\n", (double)(nanoseconds() - start) / 1e3 / VECTORS);
        for (uint32_t i = 0; i < VECTORS; i++)
            need(!msi_vector_unmask(devices[0], i), "unmask");
        printf("unmask_2048_relay_promoted=%llu\n", (unsigned long long)warm_up(0, VECTORS));
    } else {
        printf("unmask_2048_plain_us_a_vector=%.2f\n", (double)(unmasked - start) / 1e3 / VECTORS);
    }
    printf("unmask_2048_%s_table_writes=%llu\n", how, (unsigned long long)(stats().table_writes - before.table_writes));
    start = nanoseconds();
    for (uint32_t i = 0; i < VECTORS; i++)
        need(!msi_vector_mask(devices[0], i), "mask");
    printf("mask_2048_%s_us_a_vector=%.2f\n", with_relay ? "promoted" : "plain", (double)(nanoseconds() - start) / 1e3 / VECTORS);
    free_vectors(VECTORS);
    close_cache(with_relay);
}

/* ---- a promoted vector's affinity ---- */

static void change_affinity(int with_relay)
{
    enum { VECTORS = 4000, CHANGES = 10000, TIMED = 1000 };
    static double times[TIMED];
    open_cache(with_relay);
    make_vectors(VECTORS);
    need(!msi_route_cache_begin(cache), "begin");
    for (uint32_t i = 0; i < VECTORS; i++)
        need(!msi_vector_unmask(devices[i / 2048], i % 2048), "unmask");
    need(!msi_route_cache_commit(cache), "commit");
    if (with_relay)     /* on a busy machine not all in time: then this is not what it costs to take one from the kernel */
        printf("affinity_relay_promoted=%llu\n", (unsigned long long)warm_up(0, VECTORS));
    for (uint32_t i = 0; i < TIMED; i++) {
        uint32_t at = (i * 7) % 2048;
        uint64_t start = nanoseconds();
        need(!msi_vector_mask(devices[0], at), "mask");
        need(!msi_vector_set(devices[0], at, BENCH_ADDRESS, bench_data(VECTORS + i)), "set");
        need(!msi_vector_unmask(devices[0], at), "unmask");
        times[i] = (double)(nanoseconds() - start) / 1e3;
    }
    printf("affinity_%s_us=%.1f\n", with_relay ? "relay" : "plain", median(times, TIMED));
    if (with_relay) {
        struct msi_route_cache_stats before = stats();
        uint64_t start = nanoseconds();
        for (uint32_t i = 0; i < CHANGES; i++) {
            uint32_t at = (i * 7) % 2048;
            need(!msi_vector_mask(devices[0], at), "mask");
            need(!msi_vector_set(devices[0], at, BENCH_ADDRESS, bench_data(2 * VECTORS + i)), "set");
            need(!msi_vector_unmask(devices[0], at), "unmask");
            signal_eventfd(at);
        }
        double seconds = (double)(nanoseconds() - start) / 1e9;
        uint64_t writes = stats().table_writes - before.table_writes;
        printf("affinity_10000_relay_table_writes=%llu\n", (unsigned long long)writes);
        printf("affinity_10000_relay_table_writes_a_second=%.0f\n", (double)writes / seconds);
    }
    free_vectors(VECTORS);
    close_cache(with_relay);
}

/* ---- more eventfds than routes ---- */

static void spill_over(uint32_t vectors)
{
    enum { ROUNDS = 10, SECONDS = 4 };
    const uint32_t hot = vectors / 10;
    open_cache(1);
    make_vectors(vectors);
    for (uint32_t i = 0; i < vectors; i++)
        need(!msi_vector_unmask(devices[i / 2048], i % 2048), "unmask");
    /* In rounds: each is seen, by the kernel or by the relay. */
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < vectors; i++)
            signal_eventfd(i);
        usleep(20000);
    }
    uint64_t left = 0;
    for (unsigned patience = 100; patience; patience--) {
        left = 0;
        for (uint32_t i = 0; i < vectors; i++)
            left += (uint64_t)(msi_vector_is_pending(devices[i / 2048], i % 2048) != 0);
        if (!left)
            break;
        usleep(10000);
    }
    struct msi_route_cache_stats now = stats();
    printf("spill_%u_left_pending=%llu\n", vectors, (unsigned long long)left);
    printf("spill_%u_unserved=%llu\n", vectors, (unsigned long long)now.unserved_vectors);
    printf("spill_%u_in_kernel=%llu\n", vectors, (unsigned long long)now.routes_pinned);
    printf("spill_%u_relayed=%llu\n", vectors, (unsigned long long)now.relayed_vectors);
    /* 90 % of the signals on a tenth of them, that were no more than others till now. */
    uint64_t start = nanoseconds(), sent = 0, writing = 0;
    struct msi_route_cache_stats before = now;
    for (unsigned second = 1; second <= SECONDS; second++) {
        writing = 0;
        while (nanoseconds() < start + second * 1000000000ull) {
            uint64_t begun = nanoseconds();
            for (unsigned k = 0; k < 16; k++) {
                uint64_t bits = random_bits() >> 11;
                uint32_t i = bits % 10 ? vectors - 1 - (uint32_t)(bits / 10 % hot) : (uint32_t)(bits / 10 % (vectors - hot));
                signal_eventfd(i);
                sent++;
            }
            writing += nanoseconds() - begun;
            usleep(50);
        }
        now = stats();
        uint64_t relayed = now.relayed_messages - before.relayed_messages;
        printf("spill_%u_second_%u_kernel_share=%.3f\n", vectors, second, 1 - (double)relayed / (double)sent);
        printf("spill_%u_second_%u_signal_us=%.3f\n", vectors, second, (double)writing / 1e3 / (double)sent);
        before = now;
        sent = 0;
    }
    printf("spill_%u_promotions=%llu\n", vectors, (unsigned long long)now.promotions);
    printf("spill_%u_demotions=%llu\n", vectors, (unsigned long long)now.demotions);
    printf("spill_%u_table_writes=%llu\n", vectors, (unsigned long long)now.table_writes);
    free_vectors(vectors);
    close_cache(1);
}

/* ---- one signal ---- */

static void one_signal(void)
{
    enum { ROUNDS = 31, WRITES = 20000, LATENCIES = 2000 };
    static double bare[ROUNDS], ours[ROUNDS], latencies[LATENCIES];
    open_cache(1);
    make_vectors(2);
    need(!msi_vector_unmask(devices[0], 0), "unmask");
    need(warm_up(0, 1) == 1, "promoted");
    /* A bare irqfd on a VM of its own. */
    int vm = bench_vm(), irqfd = eventfd(0, EFD_NONBLOCK);
    struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry entry; } table = {
        .head.nr = 1,
        .entry = { .gsi = 24, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = BENCH_ADDRESS, .data = bench_data(0) } } };
    need(!ioctl(vm, KVM_SET_GSI_ROUTING, &table), "KVM_SET_GSI_ROUTING");
    struct kvm_irqfd bind = { .fd = (uint32_t)irqfd, .gsi = 24 };
    need(!ioctl(vm, KVM_IRQFD, &bind), "KVM_IRQFD");
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t start = nanoseconds();
        for (unsigned i = 0; i < WRITES; i++)
            eventfd_write(irqfd, 1);
        uint64_t middle = nanoseconds();
        for (unsigned i = 0; i < WRITES; i++)
            eventfd_write(fd[0], 1);
        bare[round] = (double)(middle - start) / WRITES;
        ours[round] = (double)(nanoseconds() - middle) / WRITES;
    }
    printf("bare_irqfd_ns=%.1f\n", median(bare, ROUNDS));
    printf("promoted_ns=%.1f\n", median(ours, ROUNDS));
    printf("promoted_ratio=%.3f\n", median(ours, ROUNDS) / median(bare, ROUNDS));
    /* Relayed: freshly unmasked each time, so that it stays so. */
    need(!msi_vector_unmask(devices[0], 1), "unmask");
    for (unsigned i = 0; i < LATENCIES; i++) {
        uint64_t before = stats().relayed_messages, start = nanoseconds();
        signal_eventfd(1);
        while (stats().relayed_messages == before)
            ;
        latencies[i] = (double)(nanoseconds() - start) / 1e3;
        need(!msi_vector_mask(devices[0], 1), "mask");
        need(!msi_vector_unmask(devices[0], 1), "unmask");
    }
    printf("relayed_latency_median_us=%.1f\n", median(latencies, LATENCIES));
    printf("relayed_latency_p99_us=%.1f\n", percentile(latencies, LATENCIES, 99));
    free_vectors(2);
    close_cache(1);
    close(irqfd);
}

/* ---- a hostile guest ---- */

static atomic_int over;

static void *set_another(void *dev)
{
    enum { AT_MOST = 100000 };
    static double times[AT_MOST];
    uint32_t n = 0;
    for (; n < AT_MOST && !atomic_load(&over); n++) {
        uint64_t start = nanoseconds();
        need(!msi_vector_set(dev, 0, BENCH_ADDRESS, bench_data(n)), "set");
        times[n] = (double)(nanoseconds() - start) / 1e3;
        usleep(100);
    }
    printf("hostile_other_set_median_us=%.1f\n", median(times, n));
    printf("hostile_other_set_p99_us=%.1f\n", percentile(times, n, 99));
    return NULL;
}

static void hostile_guest(void)
{
    enum { VECTORS = 4000, CYCLES = 100000 };
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_device *other;
    pthread_t thread;
    open_cache(1);
    make_vectors(VECTORS);
    for (uint32_t i = 0; i < VECTORS; i++)
        need(!msi_vector_unmask(devices[i / 2048], i % 2048), "unmask");
    warm_up(0, VECTORS);
    config.vectors = 1;
    need(!msi_device_new(cache, &config, &other), "device");
    int other_fd = eventfd(0, EFD_NONBLOCK);
    need(!msi_vector_set(other, 0, BENCH_ADDRESS, bench_data(0)), "set");
    need(!msi_vector_bind_eventfd(other, 0, other_fd, 0), "bind");
    need(!pthread_create(&thread, NULL, set_another, other), "thread");
    struct msi_route_cache_stats before = stats();
    uint64_t start = nanoseconds();
    for (uint32_t i = 0; i < CYCLES; i++) {
        uint32_t at = i % 64;
        need(!msi_vector_mask(devices[0], at), "mask");
        need(!msi_vector_set(devices[0], at, BENCH_ADDRESS, bench_data(VECTORS + i)), "set");
        need(!msi_vector_unmask(devices[0], at), "unmask");
        signal_eventfd(at);
    }
    double seconds = (double)(nanoseconds() - start) / 1e9;
    atomic_store(&over, 1);
    pthread_join(thread, NULL);
    printf("hostile_cycle_us=%.2f\n", seconds * 1e6 / CYCLES);
    printf("hostile_table_writes_a_second=%.1f\n", (double)(stats().table_writes - before.table_writes) / seconds);
    msi_device_free(other);
    free_vectors(VECTORS);
    close_cache(1);
    close(other_fd);
}

int main(void)
{
    static const uint32_t sizes[] = { 1000, 2000, 4000, 8000, 16000 };
    uint32_t descriptors = bench_allow_descriptors();
    unmask_many(0);
    unmask_many(1);
    change_affinity(0);
    change_affinity(1);
    one_signal();
    hostile_guest();
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        if (sizes[i] + 100 < descriptors)
            spill_over(sizes[i]);
        else
            fprintf(stderr, "%u eventfds are more than the machine allows (ulimit -n): left out\n", sizes[i]);
    return 0;
}
