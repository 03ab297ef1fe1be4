/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the library takes of memory, as malloc counts it and as the kernel does: a VM, a vector, a vector with an eventfd. */
#include <malloc.h>
#include <msiroute.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bench.h"

enum { VMS = 16, DEVICES = 100, VECTORS = 2048, BOUND = 4000 };

static void ok(int result) { need(result >= 0, msi_route_cache_last_error()); }

static double allocated(void)
{
    struct mallinfo2 info = mallinfo2();
    return (double)(info.uordblks + info.hblkhd);
}

static double resident(void)
{
    long size = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    need(file && fscanf(file, "%ld %ld", &size, &pages) == 2, "/proc/self/statm");
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static struct msi_route_cache *new_cache(void)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache *cache;
    int vm = bench_vm();
    config.vm_fd = vm;
    ok(msi_route_cache_new(&config, &cache));
    close(vm);
    return cache;
}

static void vms(void)
{
    struct msi_route_cache *caches[VMS];
    double before = allocated();
    struct msi_route_cache *first = new_cache();
    printf("bytes_first_vm=%.0f\n", allocated() - before);
    before = allocated();
    for (unsigned i = 0; i < VMS; i++)
        caches[i] = new_cache();
    printf("bytes_per_vm=%.0f\n", (allocated() - before) / VMS);
    for (unsigned i = 0; i < VMS; i++)
        msi_route_cache_free(caches[i]);
    msi_route_cache_free(first);
}

static void vectors(void)
{
    static struct msi_device *devices[DEVICES];
    struct msi_route_cache *cache = new_cache();
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.vectors = VECTORS;
    double before = allocated(), resident_before = resident();
    for (unsigned i = 0; i < DEVICES; i++) {
        ok(msi_device_new(cache, &config, &devices[i]));
        for (uint32_t v = 0; v < VECTORS; v++)
            ok(msi_vector_set(devices[i], v, BENCH_ADDRESS, 0x50));
    }
    printf("bytes_per_vector=%.1f\n", (allocated() - before) / (DEVICES * VECTORS));
    printf("resident_bytes_per_vector=%.1f\n", (resident() - resident_before) / (DEVICES * VECTORS));
    for (unsigned i = 0; i < DEVICES; i++)
        msi_device_free(devices[i]);
    msi_route_cache_free(cache);
}

static void eventfds(int relayed)
{
    static int fd[BOUND];
    struct msi_route_cache *cache = new_cache();
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_device *devices[2];
    double before_vm = allocated();
    if (relayed)
        ok(msi_route_cache_relay_fd(cache));
    for (uint32_t v = 0; v < BOUND; v++) {
        fd[v] = eventfd(0, EFD_CLOEXEC);
        need(fd[v] >= 0, "eventfd");
        if (v % VECTORS == 0) {
            config.vectors = v + VECTORS < BOUND ? VECTORS : BOUND - v;
            ok(msi_device_new(cache, &config, &devices[v / VECTORS]));
        }
        ok(msi_vector_set(devices[v / VECTORS], v % VECTORS, BENCH_ADDRESS, bench_data(v)));
    }
    double before = allocated();
    ok(msi_route_cache_begin(cache));
    for (uint32_t v = 0; v < BOUND; v++)
        ok(msi_vector_bind_eventfd(devices[v / VECTORS], v % VECTORS, fd[v], 0));
    ok(msi_route_cache_commit(cache));
    printf("bytes_more_per_vector_%s=%.1f\n", relayed ? "relayed" : "with_eventfd", (allocated() - before) / BOUND);
    printf("bytes_vm_of_%u_%s=%.0f\n", BOUND, relayed ? "relayed" : "with_eventfd", allocated() - before_vm);
    msi_device_free(devices[0]);
    msi_device_free(devices[1]);
    msi_route_cache_free(cache);
    for (uint32_t v = 0; v < BOUND; v++)
        close(fd[v]);
}

int main(void)
{
    bench_allow_descriptors();
    vms();
    vectors();
    eventfds(0);
    eventfds(1);
    return 0;
}
