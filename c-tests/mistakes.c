/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Mistakes that the tools of scripts/check-memory must find, or else they are not at work: one is made, by its name. No test. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "msiroute.h"

static int guest(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    (void)opaque, (void)requester, (void)address, (void)data;
    return 1;
}

static struct msi_device *new_device(void)
{
    struct msi_route_cache_ops ops = MSIROUTE_CACHE_OPS_INIT;
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_device_config device = MSIROUTE_DEVICE_CONFIG_INIT;
    static struct msi_route_cache *cache;   /* found from here: not lost */
    struct msi_device *dev = NULL;
    ops.signal = guest;
    config.ops = &ops;
    config.flags = MSIROUTE_CACHE_MODEL;
    device.vectors = 1;
    if (msi_route_cache_new(&config, &cache) || msi_device_new(cache, &device, &dev))
        exit(2);
    return dev;
}

/* Not to be seen through by the compiler. */
static volatile size_t eight = 8;
static volatile int most = INT_MAX;

static void overrun(void)
{
    volatile char *block = malloc(eight);
    block[eight] = 1;
    free((void *)block);
}

/* The library reads too far: what is found in it counts as what is found in the caller. */
static void short_buffer(void)
{
    struct msi_device *dev = new_device();
    char *block = malloc(eight);
    msi_device_save(dev, block, msi_device_save_size(dev));
    free(block);
}

static void use_after_free(void)
{
    struct msi_device *dev = new_device();
    msi_device_free(dev);
    msi_vector_mask(dev, 0);
}

static void uninitialized(void)
{
    struct msi_device *dev = new_device();
    uint32_t *index = malloc(eight);
    msi_vector_mask(dev, *(volatile uint32_t *)index);
    free(index);
}

/* Several, for one may still be found where it stood on the stack. */
static void lost_handle(void)
{
    for (unsigned i = 0; i < 4; i++)
        new_device();
}

static void undefined(void)
{
    most++;
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*make)(void); } mistakes[] = {
        { "overrun", overrun }, { "short-buffer", short_buffer }, { "use-after-free", use_after_free },
        { "uninitialized", uninitialized }, { "lost-handle", lost_handle }, { "undefined", undefined },
    };
    for (size_t i = 0; argc == 2 && i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        if (!strcmp(argv[1], mistakes[i].name)) {
            mistakes[i].make();
            return 0;   /* not found, so far */
        }
    }
    fprintf(stderr, "usage: mistakes NAME\n");
    return 2;
}
