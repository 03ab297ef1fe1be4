/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The library as one of the policies, in four ways. */
#include <msiroute.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../bench.h"
#include "peer.h"

struct machine {
    uint32_t cache_flags, eventfd_flags;
    bool relayed;
    struct msi_route_cache *cache;
    uint32_t n_vectors, per_device, n_devices;
    struct msi_device **devices;
    int *eventfds;
    unsigned char **saved;      /* of load */
    pthread_t relay;
};

static void ok(int result) { need(result >= 0, msi_route_cache_last_error()); }

static void *run_relay(void *cache)
{
    ok(msi_route_cache_relay_loop(cache));
    return NULL;
}

static struct msi_device *device(const struct machine *m, uint32_t v) { return m->devices[v / m->per_device]; }

/* The VMM of a source that masks itself has nothing else to do here. */
static void changed(void *opaque, struct msi_device *dev, uint32_t what, uint32_t first, uint32_t n)
{
    (void)opaque, (void)dev, (void)what, (void)first, (void)n;
}

static uint32_t vectors_of(const struct machine *m, uint32_t d)
{
    uint32_t left = m->n_vectors - d * m->per_device;
    return left < m->per_device ? left : m->per_device;
}

static void open_machine(struct machine *m, uint32_t vectors, uint32_t per_device)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_device_config device_config = MSIROUTE_DEVICE_CONFIG_INIT;
    int vm = bench_vm();
    config.vm_fd = vm;
    config.flags = m->cache_flags;
    ok(msi_route_cache_new(&config, &m->cache));
    close(vm);
    m->n_vectors = vectors;
    m->per_device = per_device;
    m->n_devices = (vectors + per_device - 1) / per_device;
    m->devices = calloc(m->n_devices, sizeof(*m->devices));
    m->saved = calloc(m->n_devices, sizeof(*m->saved));
    m->eventfds = calloc(vectors, sizeof(*m->eventfds));
    need(m->devices && m->saved && m->eventfds, "memory");
    device_config.kind = MSIROUTE_KIND_MSIX;
    device_config.changed = m->eventfd_flags & MSIROUTE_EVENTFD_MASKED_AT_SOURCE ? changed : NULL;
    for (uint32_t d = 0; d < m->n_devices; d++) {
        device_config.vectors = vectors_of(m, d);
        ok(msi_device_new(m->cache, &device_config, &m->devices[d]));
        ok(msi_device_set_control(m->devices[d], MSIROUTE_ENABLED));
    }
    for (uint32_t v = 0; v < vectors; v++) {
        m->eventfds[v] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        need(m->eventfds[v] >= 0, "eventfd");
        ok(msi_vector_bind_eventfd(device(m, v), v % per_device, m->eventfds[v],
                                   MSIROUTE_EVENTFD_BORROWED | m->eventfd_flags));
    }
    if (m->relayed) {
        ok(msi_route_cache_relay_fd(m->cache));
        need(pthread_create(&m->relay, NULL, run_relay, m->cache) == 0, "thread");
    }
}

static void close_machine(struct machine *m)
{
    msi_route_cache_free(m->cache);
    if (m->relayed)
        pthread_join(m->relay, NULL);
    for (uint32_t d = 0; d < m->n_devices; d++) {
        msi_device_free(m->devices[d]);
        free(m->saved[d]);
    }
    for (uint32_t v = 0; v < m->n_vectors; v++)
        close(m->eventfds[v]);
    free(m->devices);
    free(m->saved);
    free(m->eventfds);
}

static int never(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    (void)opaque, (void)requester, (void)address, (void)data;
    return 0;
}

/* A state in which all is set and unmasked; made on a model of KVM, for the devices here have their eventfds already. */
static void load(struct machine *m)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = MSIROUTE_CACHE_OPS_INIT;
    struct msi_device_config device_config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_route_cache *model;
    config.flags = MSIROUTE_CACHE_MODEL;
    ops.signal = never;
    config.ops = &ops;
    ok(msi_route_cache_new(&config, &model));
    device_config.kind = MSIROUTE_KIND_MSIX;
    for (uint32_t d = 0; d < m->n_devices; d++) {
        struct msi_device *dev;
        device_config.vectors = vectors_of(m, d);
        ok(msi_device_new(model, &device_config, &dev));
        ok(msi_device_set_control(dev, MSIROUTE_ENABLED));
        for (uint32_t i = 0; i < device_config.vectors; i++) {
            ok(msi_vector_set(dev, i, BENCH_ADDRESS, bench_data(d * m->per_device + i)));
            ok(msi_vector_unmask(dev, i));
        }
        m->saved[d] = malloc(msi_device_save_size(dev));
        need(m->saved[d] != NULL, "memory");
        ok(msi_device_save(dev, m->saved[d], msi_device_save_size(dev)));
        msi_device_free(dev);
    }
    msi_route_cache_free(model);
    ok(msi_route_cache_pause(m->cache));
}

static void restore(struct machine *m)
{
    for (uint32_t d = 0; d < m->n_devices; d++)
        ok(msi_device_load(m->devices[d], m->saved[d], msi_device_save_size(m->devices[d])));
    ok(msi_route_cache_resume(m->cache));
}

/* Signals everything, now and then, until all of it is the kernel's. */
static void settle(struct machine *m)
{
    struct msi_route_cache_stats stats = MSIROUTE_STATS_INIT;
    uint64_t give_up = nanoseconds() + 20000000000u;
    for (;;) {
        ok(msi_route_cache_stats(m->cache, &stats));
        if (stats.relayed_vectors == 0 && stats.routes_pinned >= m->n_vectors)
            return;
        need(nanoseconds() < give_up, "all promoted");
        for (uint32_t v = 0; v < m->n_vectors; v++)
            need(eventfd_write(m->eventfds[v], 1) == 0, "eventfd");
        usleep(200);
    }
}


static void set(struct machine *m, uint32_t v, uint32_t message)
{
    ok(msi_vector_set(device(m, v), v % m->per_device, BENCH_ADDRESS, bench_data(message)));
}

static void unmask(struct machine *m, uint32_t v)   { ok(msi_vector_unmask(device(m, v), v % m->per_device)); }
static void mask(struct machine *m, uint32_t v)     { ok(msi_vector_mask(device(m, v), v % m->per_device)); }
static void deliver(struct machine *m, uint32_t v)  { ok(msi_deliver(device(m, v), v % m->per_device)); }
static void begin(struct machine *m)                { ok(msi_route_cache_begin(m->cache)); }
static void end(struct machine *m)                  { ok(msi_route_cache_commit(m->cache)); }
static void unplug(struct machine *m, uint32_t d)   { ok(msi_device_close(m->devices[d])); }

static void function_mask(struct machine *m, uint32_t d, int on)
{
    ok(msi_device_set_control(m->devices[d], MSIROUTE_ENABLED | (on ? MSIROUTE_FUNCTION_MASKED : 0)));
}

#define POLICY(policy, ...)                                                                                             \
    static struct machine policy##_machine = { __VA_ARGS__ };                                                           \
    const struct peer policy = {                                                                                        \
        .name = #policy, .machine = &policy##_machine, .open = open_machine, .close = close_machine, .set = set,        \
        .unmask = unmask, .mask = mask, .function_mask = function_mask, .begin = begin, .end = end, .unplug = unplug,   \
        .load = load, .restore = restore, .settle = settle, .deliver = deliver,                                         \
    }

POLICY(msiroute, .cache_flags = 0);
POLICY(msiroute_helpers, .cache_flags = MSIROUTE_CACHE_HELPER_THREADS);
POLICY(msiroute_source, .eventfd_flags = MSIROUTE_EVENTFD_MASKED_AT_SOURCE);
POLICY(msiroute_relay, .relayed = true);
