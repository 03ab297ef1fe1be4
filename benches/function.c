/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a guest pays for its register accesses: setting and clearing the function mask of many vectors with irqfds, with and
 * without helper threads, and table and PBA accesses that need nothing of the kernel. */
#include <msiroute.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "bench.h"

#define MAX_VECTORS 2048
#define ROUNDS      11
#define ACCESSES    200000

struct function {
    struct msi_route_cache *cache;
    struct msi_device *dev;
    double mask_ms[ROUNDS], unmask_ms[ROUNDS];
};

static uint64_t table_writes(const struct function *function)
{
    struct msi_route_cache_stats stats = MSIROUTE_STATS_INIT;
    need(!msi_route_cache_stats(function->cache, &stats), "stats");
    return stats.table_writes;
}

static void open_function(struct function *function, uint32_t flags, uint32_t vectors)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_device_config device = MSIROUTE_DEVICE_CONFIG_INIT;
    config.vm_fd = bench_vm();
    config.flags = flags;
    device.kind = MSIROUTE_KIND_MSIX;
    device.vectors = vectors;
    need(!msi_route_cache_new(&config, &function->cache), "cache");
    need(!msi_device_new(function->cache, &device, &function->dev), "device");
    for (uint32_t v = 0; v < vectors; v++) {
        /* Messages of many vectors and destinations: a route each. */
        need(!msi_vector_set(function->dev, v, BENCH_ADDRESS | (v / 200) << 12, 0x20 + v % 200), "set");
        need(!msi_vector_unmask(function->dev, v), "unmask");
        need(!msi_vector_bind_eventfd(function->dev, v, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), 0), "eventfd");
    }
}

static double set_control(struct function *function, uint32_t control)
{
    uint64_t start = nanoseconds();
    need(!msi_device_set_control(function->dev, control), "control");
    return (double)(nanoseconds() - start) / 1e6;
}

static void function_mask(uint32_t vectors)
{
    struct function one = { 0 }, many = { 0 }, *functions[] = { &one, &many };
    uint64_t before;
    open_function(&one, 0, vectors);
    open_function(&many, MSIROUTE_CACHE_HELPER_THREADS, vectors);
    before = table_writes(&one);
    set_control(&one, MSIROUTE_ENABLED);
    printf("enable_%u_table_writes=%llu\n", vectors, (unsigned long long)(table_writes(&one) - before));
    set_control(&many, MSIROUTE_ENABLED);
    before = table_writes(&one);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 2; i++) {
            functions[i]->mask_ms[round] = set_control(functions[i], MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED);
            functions[i]->unmask_ms[round] = set_control(functions[i], MSIROUTE_ENABLED);
        }
    }
    printf("function_mask_%u_table_writes=%llu\n", vectors, (unsigned long long)(table_writes(&one) - before));
    printf("function_mask_%u_ms=%.2f\n", vectors, median(one.mask_ms, ROUNDS));
    printf("function_mask_%u_helpers_ms=%.2f\n", vectors, median(many.mask_ms, ROUNDS));
    printf("function_unmask_%u_ms=%.2f\n", vectors, median(one.unmask_ms, ROUNDS));
    for (int i = 0; i < 2; i++) {
        msi_device_free(functions[i]->dev);
        msi_route_cache_free(functions[i]->cache);
    }
}

static double access_ns(struct msi_device *dev, int (*access)(struct msi_device *dev, uint64_t i))
{
    double rounds[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = nanoseconds();
        for (uint64_t i = 0; i < ACCESSES; i++)
            need(!access(dev, i), "access");
        rounds[round] = (double)(nanoseconds() - start) / ACCESSES;
    }
    return median(rounds, ROUNDS);
}

static int write_entry(struct msi_device *dev, uint64_t i)
{
    const uint32_t data = (uint32_t)i;
    return msi_device_table_write(dev, i % MAX_VECTORS * 16 + 8, &data, sizeof(data));
}

static int read_entry(struct msi_device *dev, uint64_t i)
{
    uint32_t data;
    return msi_device_table_read(dev, i % MAX_VECTORS * 16 + 8, &data, sizeof(data));
}

static int read_pba(struct msi_device *dev, uint64_t i)
{
    uint64_t word;
    return msi_device_pba_read(dev, i % (MAX_VECTORS / 64) * 8, &word, sizeof(word));
}

static void accesses(void)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_device_config device = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_route_cache *cache;
    struct msi_device *dev;
    config.vm_fd = bench_vm();
    device.kind = MSIROUTE_KIND_MSIX;
    device.vectors = MAX_VECTORS;
    need(!msi_route_cache_new(&config, &cache) && !msi_device_new(cache, &device, &dev), "device");
    printf("table_write_masked_ns=%.0f\n", access_ns(dev, write_entry));
    printf("table_read_ns=%.0f\n", access_ns(dev, read_entry));
    printf("pba_read_64_vectors_ns=%.0f\n", access_ns(dev, read_pba));
    msi_device_free(dev);
    msi_route_cache_free(cache);
}

int main(void)
{
    bench_allow_descriptors();
    accesses();
    function_mask(64);
    function_mask(256);
    function_mask(MAX_VECTORS);
    return 0;
}
