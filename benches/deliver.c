/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What msi_deliver adds to the bare system call, and what exactness costs who masks.
 *
 * The two are interleaved in one run, in short slices whose order alternates; each round gives one ratio, and the median
 * of the rounds counts. */
#include "bench.h"

#include <linux/kvm.h>
#include <msiroute.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { ROUNDS = 61, SLICES = 20, CALLS = 1000 };

static int vm;
static struct msi_route_cache *cache;
static struct msi_device *device;

static void make(uint32_t flags)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    config.vm_fd = vm;
    config.flags = flags;
    need(msi_route_cache_new(&config, &cache) == 0, msi_route_cache_last_error());
    struct msi_device_config device_config = MSIROUTE_DEVICE_CONFIG_INIT;
    device_config.vectors = 2;
    need(msi_device_new(cache, &device_config, &device) == 0, msi_route_cache_last_error());
    for (uint32_t i = 0; i < 2; i++)
        need(msi_vector_set(device, i, BENCH_ADDRESS, 0x50 + i) == 0, msi_route_cache_last_error());
}

static void end(void)
{
    msi_device_free(device);
    msi_route_cache_free(cache);
}

static void bare_signal(void)
{
    struct kvm_msi msi = {.address_lo = BENCH_ADDRESS, .data = 0x50};
    for (int i = 0; i < CALLS; i++)
        need(ioctl(vm, KVM_SIGNAL_MSI, &msi) >= 0, "KVM_SIGNAL_MSI");
}

static uint32_t line_gsi = 24; /* the library's first route */

static void bare_line(void)
{
    struct kvm_irq_level level = {.irq = line_gsi, .level = 1};
    for (int i = 0; i < CALLS; i++)
        need(ioctl(vm, KVM_IRQ_LINE, &level) >= 0, "KVM_IRQ_LINE");
}

static void deliver(void)
{
    for (int i = 0; i < CALLS; i++)
        need(msi_deliver(device, 0) == MSIROUTE_SENT, msi_route_cache_last_error());
}

static double per_call(void (*slice)(void))
{
    uint64_t begin = nanoseconds();
    slice();
    return (double)(nanoseconds() - begin) / CALLS;
}

static void compare(const char *name, void (*bare)(void), void (*ours)(void))
{
    double ratios[ROUNDS], bares[ROUNDS], all_ours[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        double bare_ns[SLICES], our_ns[SLICES];
        for (int i = 0; i < SLICES; i++) {
            if (i % 2)
                bare_ns[i] = per_call(bare), our_ns[i] = per_call(ours);
            else
                our_ns[i] = per_call(ours), bare_ns[i] = per_call(bare);
        }
        bares[round] = median(bare_ns, SLICES);
        all_ours[round] = median(our_ns, SLICES);
        ratios[round] = all_ours[round] / bares[round];
    }
    print_median(bares, ROUNDS, "%s_bare_ns", name);
    print_median(all_ours, ROUNDS, "%s_ns", name);
    print_median(ratios, ROUNDS, "%s_ratio", name);
}

/* ---- changes ---- */

static atomic_int stop;

static void *keep_busy(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop))
        msi_deliver(device, 1);
    return NULL;
}

static void *sleep_on(void *mutex)
{
    pthread_mutex_lock(mutex);
    pthread_mutex_unlock(mutex);
    return NULL;
}

static void changes(const char *others)
{
    double mask[ROUNDS], unmask[ROUNDS], set[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        enum { TIMES = 50 };
        uint64_t spent[3] = {0};
        for (int i = 0; i < TIMES; i++) {
            need(msi_deliver(device, 0) >= 0, msi_route_cache_last_error());
            uint64_t t0 = nanoseconds();
            msi_vector_mask(device, 0);
            uint64_t t1 = nanoseconds();
            msi_vector_unmask(device, 0);
            uint64_t t2 = nanoseconds();
            msi_vector_set(device, 0, BENCH_ADDRESS, i % 2 ? 0x60 : 0x61);
            uint64_t t3 = nanoseconds();
            spent[0] += t1 - t0, spent[1] += t2 - t1, spent[2] += t3 - t2;
        }
        mask[round] = (double)spent[0] / TIMES;
        unmask[round] = (double)spent[1] / TIMES;
        set[round] = (double)spent[2] / TIMES;
    }
    print_median(mask, ROUNDS, "mask_others_%s_ns", others);
    print_median(unmask, ROUNDS, "unmask_others_%s_ns", others);
    print_median(set, ROUNDS, "set_others_%s_ns", others);
}

/* ---- what is masked ---- */

static void deliver_masked(void)
{
    double ns[ROUNDS];
    msi_vector_mask(device, 0);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = nanoseconds();
        for (int i = 0; i < CALLS; i++)
            need(msi_deliver(device, 0) == MSIROUTE_PENDING, msi_route_cache_last_error());
        ns[round] = (double)(nanoseconds() - start) / CALLS;
    }
    print_median(ns, ROUNDS, "deliver_masked_ns");
    msi_vector_unmask(device, 0);
}

int main(void)
{
    vm = bench_vm();
    make(0);
    compare("deliver", bare_signal, deliver);
    deliver_masked();

    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_t thread;
    pthread_mutex_lock(&mutex);
    need(pthread_create(&thread, NULL, sleep_on, &mutex) == 0, "pthread_create");
    changes("idle");
    pthread_mutex_unlock(&mutex);
    pthread_join(thread, NULL);

    need(pthread_create(&thread, NULL, keep_busy, NULL) == 0, "pthread_create");
    changes("busy");
    atomic_store(&stop, 1);
    pthread_join(thread, NULL);
    end();

    make(MSIROUTE_CACHE_NO_DIRECT);
    deliver(); /* makes the route */
    struct msi_route_cache_stats stats = MSIROUTE_STATS_INIT;
    need(msi_route_cache_stats(cache, &stats) == 0 && stats.table_writes == 1, "one route was expected");
    compare("fallback_hit", bare_line, deliver);
    end();
    return 0;
}
