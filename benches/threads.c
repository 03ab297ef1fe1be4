/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Two threads that deliver at once, on one device or on one each, beside two that make the bare system calls, and beside a big
 * lock. Each thread has a vector of its own; the ways take turns. */
#include <linux/kvm.h>
#include <msiroute.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "bench.h"
#include "peers/peer.h"

enum { ROUNDS = 61, CALLS = 10000 };

static int vm;
static struct msi_device *devices[2];

static void ok(int result) { need(result >= 0, msi_route_cache_last_error()); }

static void bare_signal(unsigned thread)
{
    struct kvm_msi msi = { .address_lo = BENCH_ADDRESS, .data = bench_data(thread) };
    need(ioctl(vm, KVM_SIGNAL_MSI, &msi) >= 0, "KVM_SIGNAL_MSI");
}

static void big_lock(unsigned thread)            { qemu.deliver(qemu.machine, thread); }
static void bare_irqfd(unsigned thread)          { firecracker.deliver(firecracker.machine, thread); }
static void one_device(unsigned thread)          { ok(msi_deliver(devices[0], thread)); }
static void two_devices(unsigned thread)         { ok(msi_deliver(devices[thread], 0)); }

static const struct way { const char *name; void (*deliver)(unsigned thread); } ways[] = {
    { "signal_msi", bare_signal }, { "irqfd_write", bare_irqfd }, { "big_lock", big_lock },
    { "one_device", one_device }, { "two_devices", two_devices },
};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static pthread_barrier_t gate;
static const struct way *way;

static void work(unsigned thread)
{
    void (*deliver)(unsigned thread) = way->deliver;
    for (unsigned i = 0; i < CALLS; i++)
        deliver(thread);
}

static void *second_thread(void *unused)
{
    for (;;) {
        pthread_barrier_wait(&gate);
        if (!way)
            return unused;
        work(1);
        pthread_barrier_wait(&gate);
    }
}

static double both_ns(const struct way *now)
{
    way = now;
    pthread_barrier_wait(&gate);
    uint64_t start = nanoseconds();
    work(0);
    pthread_barrier_wait(&gate);
    return (double)(nanoseconds() - start) / CALLS;
}

int main(void)
{
    static double ns[WAYS][ROUNDS], ratios[ROUNDS];
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_device_config device_config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_route_cache *cache;
    pthread_t thread;
    vm = bench_vm();
    config.vm_fd = bench_vm();
    ok(msi_route_cache_new(&config, &cache));
    device_config.vectors = 2;
    for (unsigned d = 0; d < 2; d++) {
        ok(msi_device_new(cache, &device_config, &devices[d]));
        for (unsigned v = 0; v < 2; v++)
            ok(msi_vector_set(devices[d], v, BENCH_ADDRESS, bench_data(d + v)));
    }
    const struct peer *const peers[] = { &qemu, &firecracker };
    for (unsigned p = 0; p < 2; p++) {
        peers[p]->open(peers[p]->machine, 2, 2);
        for (unsigned v = 0; v < 2; v++) {
            peers[p]->set(peers[p]->machine, v, v);
            peers[p]->unmask(peers[p]->machine, v);
        }
    }
    pthread_barrier_init(&gate, NULL, 2);
    need(pthread_create(&thread, NULL, second_thread, NULL) == 0, "thread");
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned i = 0; i < WAYS; i++) {
            unsigned w = (i + round) % WAYS;
            ns[w][round] = both_ns(&ways[w]);
        }
    way = NULL;
    pthread_barrier_wait(&gate);
    pthread_join(thread, NULL);
    for (unsigned w = WAYS; w-- > 0;) {     /* the bare one last: print_median reorders */
        for (unsigned round = 0; round < ROUNDS; round++)
            ratios[round] = ns[w][round] / ns[0][round];
        print_median(ratios, ROUNDS, "two_threads_%s_ratio", ways[w].name);
    }
    for (unsigned w = 0; w < WAYS; w++)
        print_median(ns[w], ROUNDS, "two_threads_%s_ns", ways[w].name);
    for (unsigned p = 0; p < 2; p++)
        peers[p]->close(peers[p]->machine);
    msi_device_free(devices[0]);
    msi_device_free(devices[1]);
    msi_route_cache_free(cache);
    return 0;
}
