/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What scripts/check-* link with an installed library, as C or C++11: a device raises a vector on the model. */
#include <msiroute.h>
#include <stdio.h>

static int received;

static int guest(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    (void)opaque, (void)requester;
    received += address == 0xfee00000 && data == 0x41;
    return 1;
}

int main(void)
{
    struct msi_route_cache_ops ops = MSIROUTE_CACHE_OPS_INIT;
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_device_config device_config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_route_cache *cache;
    struct msi_device *device;
    ops.signal = guest;
    config.flags = MSIROUTE_CACHE_MODEL;
    config.ops = &ops;
    device_config.vectors = 1;
    if (msi_route_cache_new(&config, &cache) < 0 || msi_device_new(cache, &device_config, &device) < 0 ||
        msi_vector_set(device, 0, 0xfee00000, 0x41) < 0 || msi_deliver(device, 0) != MSIROUTE_SENT || received != 1) {
        fprintf(stderr, "%s\n", msi_route_cache_last_error());
        return 1;
    }
    msi_device_free(device);
    msi_route_cache_free(cache);
    return 0;
}
