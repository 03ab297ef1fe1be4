/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "rig.h"

#define ARRIVAL_US   1000000    /* how long a message may be under way */
#define QUIET_MS     3          /* how long silence is listened to */
#define MAX_DEVICES  1024
#define MAX_EVENTFDS 8192

uint32_t rig_flags;

static bool open_host(struct rig *rig, enum irqchip irqchip)
{
    if (rig->host != ON_KVM)
        return expect(fake_open(&rig->fake, rig->cpus));
    if (!vm_open(&rig->vm, irqchip))
        return false;
    for (unsigned i = 0; i < rig->cpus; i++)
        if (irqchip != NO_IRQCHIP && !vm_add_cpu(&rig->vm, i))
            return false;
    return true;
}

static bool open_cache(struct rig *rig, const struct rig_config *config)
{
    bool has_own = rig->host == ON_FAKE && config->ops;
    struct msi_route_cache_ops ops = has_own ? *config->ops : fake_ops(rig->host == ON_FAKE);
    struct msi_route_cache_config cache = MSIROUTE_CACHE_CONFIG_INIT;
    cache.flags = config->cache_flags | rig_flags;
    cache.max_routes = config->max_routes;
    cache.first_gsi = config->first_gsi;
    if (rig->host == ON_KVM) {
        cache.vm_fd = rig->vm.fd;
    } else {
        cache.ops = &ops;
        cache.opaque = &rig->fake;
        cache.flags |= rig->host == ON_MODEL ? MSIROUTE_CACHE_MODEL : 0;
    }
    return expect_ok(msi_route_cache_new(&cache, &rig->cache));
}

bool rig_open(struct rig *rig, enum host host, const struct rig_config *config)
{
    *rig = (struct rig){ .host = host, .cpus = config->cpus ? config->cpus : 2, .vm = { .kvm = -1, .fd = -1 } };
    rig->devices = calloc(MAX_DEVICES, sizeof(*rig->devices));
    rig->eventfds = calloc(MAX_EVENTFDS, sizeof(*rig->eventfds));
    if (expect(rig->devices && rig->eventfds) && open_host(rig, config->irqchip) && open_cache(rig, config)) {
        struct msi_device_config device = MSIROUTE_DEVICE_CONFIG_INIT;
        device.kind = config->kind;
        device.vectors = config->vectors ? config->vectors : 4;
        device.flags = config->device_flags;
        put_registers(&device);
        rig->dev = rig_device_of(rig, &device);
        if (rig->dev)
            return true;
    }
    rig_close(rig);
    return false;
}

void rig_close(struct rig *rig)
{
    for (size_t i = 0; i < rig->n_devices; i++)
        msi_device_free(rig->devices[i]);
    msi_route_cache_free(rig->cache);
    if (rig->host == ON_FAKE)
        expect_eq(rig->fake.bound, 0);
    for (size_t i = 0; i < rig->n_eventfds; i++)
        close(rig->eventfds[i]);
    if (rig->host == ON_KVM)
        vm_close(&rig->vm);
    else
        fake_close(&rig->fake);
    free(rig->devices);
    free(rig->eventfds);
    *rig = (struct rig){ .host = ON_KVM, .vm = { .kvm = -1, .fd = -1 } };
}

struct msi_device *rig_device_of(struct rig *rig, const struct msi_device_config *wanted)
{
    struct msi_device_config config = *wanted;
    struct msi_device *dev = NULL;
    char name[32];
    snprintf(name, sizeof(name), "device-%zu", rig->n_devices);
    if (!config.name)
        config.name = name;
    if (!expect(rig->n_devices < MAX_DEVICES) || !expect_ok(msi_device_new(rig->cache, &config, &dev)))
        return NULL;
    rig->devices[rig->n_devices++] = dev;
    return dev;
}

struct msi_device *rig_device(struct rig *rig, uint32_t kind, uint32_t vectors)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.kind = kind;
    config.vectors = vectors;
    put_registers(&config);
    return rig_device_of(rig, &config);
}

struct msi_device *rig_msi_device(struct rig *rig, uint32_t flags, unsigned log)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.kind = MSIROUTE_KIND_MSI;
    config.vectors = 1u << log;
    config.flags = flags;
    put_registers(&config);
    tap_context("%u vectors, %s address%s", 1u << log, msi_is_wide(flags) ? "64-bit" : "32-bit",
                msi_has_mask(flags) ? ", mask bits" : "");
    return rig_device_of(rig, &config);
}

int rig_eventfd(struct rig *rig, int flags)
{
    int fd = eventfd(0, flags | EFD_CLOEXEC);
    if (expect(fd >= 0 && rig->n_eventfds < MAX_EVENTFDS))
        rig->eventfds[rig->n_eventfds++] = fd;
    return fd;
}

int rig_bound(struct rig *rig, uint32_t index, uint32_t flags)
{
    int fd = rig_eventfd(rig, EFD_NONBLOCK);
    expect_ok(msi_vector_bind_eventfd(rig->dev, index, fd, flags));
    return fd;
}

struct msi_route_cache *rig_take_cache(struct rig *rig)
{
    struct msi_route_cache *cache = rig->cache;
    rig->cache = NULL;
    return cache;
}

struct msi_device *rig_take_device(struct rig *rig)
{
    struct msi_device *dev = rig->dev;
    for (size_t i = 0; i < rig->n_devices; i++)
        if (rig->devices[i] == dev)
            rig->devices[i] = NULL;
    rig->dev = NULL;
    return dev;
}

/* ---- what arrives ---- */

static void settle(struct rig *rig)
{
    if (rig->host == ON_FAKE)
        fake_pump(&rig->fake);
}

void fires(struct rig *rig, int eventfd)
{
    add_to_eventfd(eventfd, 1);
    settle(rig);
}

static void arrived(struct rig *rig, unsigned cpu, unsigned counts[256])
{
    uint8_t irr[256];
    if (rig->host == ON_KVM) {
        cpu_arrived(&rig->vm, cpu, irr);
        for (unsigned vector = 0; vector < 256; vector++)
            counts[vector] = irr[vector];
        return;
    }
    settle(rig);
    pthread_mutex_lock(&rig->fake.lock);
    memcpy(counts, rig->fake.arrived[cpu], sizeof(rig->fake.arrived[cpu]));
    pthread_mutex_unlock(&rig->fake.lock);
}

static void forget(struct rig *rig, unsigned cpu, unsigned vector)
{
    if (rig->host == ON_KVM) {
        cpu_forget(&rig->vm, cpu, vector);
        return;
    }
    pthread_mutex_lock(&rig->fake.lock);
    rig->fake.arrived[cpu][vector] = 0;
    pthread_mutex_unlock(&rig->fake.lock);
}

static unsigned cpus_there(const struct rig *rig)
{
    return rig->host == ON_KVM ? rig->vm.cpus : rig->cpus;
}

unsigned rig_arrivals(struct rig *rig, unsigned cpu, unsigned vector)
{
    unsigned counts[256];
    arrived(rig, cpu, counts);
    if (counts[vector])
        forget(rig, cpu, vector);
    return counts[vector];
}

static void note_arrivals(struct rig *rig)
{
    unsigned counts[256];
    for (unsigned cpu = 0; cpu < cpus_there(rig); cpu++) {
        arrived(rig, cpu, counts);
        for (unsigned vector = 0; vector < 256; vector++)
            if (counts[vector])
                tap_note("  arrived: vector %#x at vCPU %u (%u times)", vector, cpu, counts[vector]);
    }
}

bool rig_expect_arrival(const char *file, int line, struct rig *rig, unsigned cpu, unsigned vector)
{
    uint64_t end = now_us() + (rig->missed < 3 ? ARRIVAL_US : ARRIVAL_US / 100);
    unsigned counts[256];
    arrived(rig, cpu, counts);
    while (!counts[vector] && rig->host != ON_FAKE && now_us() < end) {
        usleep(100);
        arrived(rig, cpu, counts);
    }
    if (counts[vector] != 1) {
        rig->missed += !counts[vector];
        tap_fail(file, line, "vector %#x reached vCPU %u %u times instead of once", vector, cpu, counts[vector]);
        note_arrivals(rig);
    }
    forget(rig, cpu, vector);
    return counts[vector] == 1;
}

bool rig_expect_delivers(const char *file, int line, struct rig *rig, uint32_t index, unsigned cpu, unsigned vector)
{
    return tap_expect_eq(file, line, "msi_deliver", msi_deliver(rig->dev, index), MSIROUTE_SENT)
        && rig_expect_arrival(file, line, rig, cpu, vector);
}

bool rig_expect_quiet(const char *file, int line, struct rig *rig)
{
    unsigned counts[256], unexpected = 0;
    if (rig->host != ON_FAKE)
        nap_ms(QUIET_MS);
    for (unsigned cpu = 0; cpu < cpus_there(rig); cpu++) {
        arrived(rig, cpu, counts);
        for (unsigned vector = 0; vector < 256; vector++) {
            if (!counts[vector])
                continue;
            unexpected++;
            tap_fail(file, line, "vector %#x reached vCPU %u (%u times) unexpectedly", vector, cpu, counts[vector]);
            forget(rig, cpu, vector);
        }
    }
    return !unexpected;
}

void order_of(unsigned k, unsigned n, unsigned order[])
{
    for (unsigned i = 0; i < n; i++)
        order[i] = i;
    for (unsigned i = 0; i < n; i++) {
        unsigned pick = i + k % (n - i), picked = order[pick];
        k /= n - i;
        memmove(order + i + 1, order + i, (pick - i) * sizeof(order[0]));
        order[i] = picked;
    }
}

/* ---- what the library says ---- */

struct msi_route_cache_stats rig_stats(const struct rig *rig)
{
    struct msi_route_cache_stats stats = MSIROUTE_STATS_INIT;
    expect_ok(msi_route_cache_stats(rig->cache, &stats));
    return stats;
}

struct saved saved(struct msi_device *dev)
{
    struct saved state = { .size = msi_device_save_size(dev) };
    if (expect(state.size && state.size <= sizeof(state.bytes)))
        expect_ok(msi_device_save(dev, state.bytes, state.size));
    return state;
}

bool is_same(const struct saved *a, const struct saved *b)
{
    return a->size == b->size && !memcmp(a->bytes, b->bytes, a->size);
}

struct msi_vector_info info_of(struct msi_device *dev, uint32_t index)
{
    struct msi_vector_info info = MSIROUTE_VECTOR_INFO_INIT;
    expect_ok(msi_vector_info(dev, index, &info));
    return info;
}
