/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a VMM's start pays: loading the library, its first cache, device and delivery. Each in a new process that is not linked
 * with it; the library's path is the argument. */
#include <dlfcn.h>
#include <msiroute.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

enum { LOAD, CACHE, DEVICE, DELIVER, STEPS, ROUNDS = 51 };
static const char *const names[STEPS] = { "load", "first_cache", "first_device", "first_delivery" };

#define FUNCTION(library, name) ((__typeof__(&name))dlsym(library, #name))

static double us_since(uint64_t *start)
{
    uint64_t now = nanoseconds();
    double us = (double)(now - *start) / 1e3;
    *start = now;
    return us;
}

static void start_once(const char *path, double us[STEPS])
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_device_config device_config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_route_cache *cache;
    struct msi_device *dev;
    config.vm_fd = bench_vm();
    device_config.vectors = 64;

    uint64_t start = nanoseconds();
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    us[LOAD] = us_since(&start);
    need(library != NULL, path);
    __typeof__(&msi_route_cache_new) cache_new = FUNCTION(library, msi_route_cache_new);
    __typeof__(&msi_device_new) device_new = FUNCTION(library, msi_device_new);
    __typeof__(&msi_vector_set) vector_set = FUNCTION(library, msi_vector_set);
    __typeof__(&msi_deliver) deliver = FUNCTION(library, msi_deliver);

    start = nanoseconds();
    need(cache_new(&config, &cache) == 0, "msi_route_cache_new");
    us[CACHE] = us_since(&start);
    need(device_new(cache, &device_config, &dev) == 0, "msi_device_new");
    us[DEVICE] = us_since(&start);
    need(vector_set(dev, 0, BENCH_ADDRESS, bench_data(0)) == 0, "msi_vector_set");
    start = nanoseconds();
    need(deliver(dev, 0) == MSIROUTE_SENT, "msi_deliver");
    us[DELIVER] = us_since(&start);
}

int main(int argc, char **argv)
{
    static double us[STEPS][ROUNDS];
    struct stat file;
    need(argc == 2, "the library's path");
    for (unsigned round = 0; round < ROUNDS; round++) {
        double once[STEPS];
        int channel[2], status;
        need(pipe(channel) == 0, "pipe");
        pid_t child = fork();
        need(child >= 0, "fork");
        if (child == 0) {
            start_once(argv[1], once);
            _exit(write(channel[1], once, sizeof(once)) != sizeof(once));
        }
        need(waitpid(child, &status, 0) == child && status == 0 && read(channel[0], once, sizeof(once)) == sizeof(once), "a start");
        close(channel[0]);
        close(channel[1]);
        for (unsigned step = 0; step < STEPS; step++)
            us[step][round] = once[step];
    }
    for (unsigned step = 0; step < STEPS; step++)
        print_median(us[step], ROUNDS, "start_%s_us", names[step]);
    need(stat(argv[1], &file) == 0, argv[1]);
    printf("library_bytes=%lld\n", (long long)file.st_size);
    return 0;
}
