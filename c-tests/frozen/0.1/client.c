/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A VMM as it was written for version 0.1, compiled with the header of then: it calls every function, and runs with today's
 * library. Its guest is the library's model. Not to be changed once 0.1 is released. */
#include <errno.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "msiroute.h"

#define APIC 0xFEE00000u

static int failed;
#define expect(condition) ((condition) ? 0 : (failed++, printf("# line %d: %s; last error: %s\n", __LINE__, #condition, msi_route_cache_last_error())))

/* ---- the guest ---- */

static atomic_uint arrived[256];    /* by vector */

static int signal_guest(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    (void)requester, (void)address;
    atomic_fetch_add(&arrived[data & 0xFF], 1);
    return opaque == arrived;
}

/* So many messages with this vector came since the last question. */
static int came(unsigned vector, unsigned n)
{
    for (int i = 0; i < 5000 && atomic_load(&arrived[vector]) < n; i++)
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    return atomic_exchange(&arrived[vector], 0) == n;
}

static struct msi_route_cache *new_cache(uint32_t flags)
{
    struct msi_route_cache_ops ops = MSIROUTE_CACHE_OPS_INIT;
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache *cache;
    ops.signal = signal_guest;
    config.flags = MSIROUTE_CACHE_MODEL | flags;
    config.ops = &ops;
    config.opaque = arrived;
    expect(msi_route_cache_new(&config, &cache) == 0);
    return cache;
}

static struct msi_device_config device_config(uint32_t kind)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.kind = kind;
    config.vectors = 4;
    config.name = "nic";
    return config;
}

static struct msi_device *new_device(struct msi_route_cache *cache, uint32_t kind)
{
    struct msi_device_config config = device_config(kind);
    struct msi_device *dev;
    if (kind == MSIROUTE_KIND_MSIX) {
        config.cap_offset = 0x40;
        config.pba_offset = 0x800;
    }
    expect(msi_device_new(cache, &config, &dev) == 0);
    return dev;
}

/* ---- what it does ---- */

static void says_what_it_is(void)
{
    struct msi_route_cache *cache = new_cache(0);
    uint32_t max_routes = 0;
    expect(!strncmp(msi_route_cache_version(), "0.", 2) || atoi(msi_route_cache_version()) > 0);
    expect(msi_route_cache_features(cache, &max_routes) & MSIROUTE_HAS_IRQFD);
    expect(max_routes > 0);
    expect(msi_device_state(NULL) == 0);
    expect(msi_deliver(NULL, 0) == -EINVAL && msi_route_cache_last_error()[0]);
    msi_route_cache_free(cache);
    msi_route_cache_free(NULL);
    msi_device_free(NULL);
}

static void raises_vectors(void)
{
    struct msi_route_cache *cache = new_cache(0);
    struct msi_device *dev = new_device(cache, MSIROUTE_KIND_PLAIN);
    struct msi_vector_info info = MSIROUTE_VECTOR_INFO_INIT;
    expect(msi_vector_set(dev, 1, APIC, 0x41) == 0);
    expect(msi_deliver(dev, 1) == MSIROUTE_SENT && came(0x41, 1));
    expect(msi_vector_mask(dev, 1) == 0);
    expect(msi_deliver(dev, 1) == MSIROUTE_PENDING && msi_vector_is_pending(dev, 1) == 1);
    expect(msi_vector_info(dev, 1, &info) == 0);
    expect(info.size == sizeof(info) && info.flags == (MSIROUTE_VECTOR_SET | MSIROUTE_VECTOR_MASKED));
    expect(info.address == APIC && info.data == 0x41 && !info.eventfds && info.gsi == MSIROUTE_ANY_GSI && !info.error);
    expect(msi_vector_unmask(dev, 1) == 0 && came(0x41, 1));
    expect(msi_device_set_bus_master(dev, 0) == 0 && msi_deliver(dev, 1) == MSIROUTE_PENDING);
    expect(msi_vector_clear_pending(dev, 1) == 1);
    expect(msi_device_set_bus_master(dev, 1) == 0 && msi_device_state(dev) == (MSIROUTE_ENABLED | MSIROUTE_BUS_MASTER));
    expect(msi_device_set_requester(dev, 0x0100) == 0);
    expect(msi_deliver_message(cache, 0x0100, APIC, 0x42, 0) == MSIROUTE_SENT && came(0x42, 1));
    expect(msi_vector_clear(dev, 1) == 0 && msi_deliver(dev, 1) == MSIROUTE_PENDING);
    expect(msi_device_reset(dev) == 0 && msi_vector_is_pending(dev, 1) == 0);
    expect(msi_device_ref(dev) == dev);
    msi_device_free(dev);
    expect(msi_device_close(dev) == 0 && msi_deliver(dev, 1) == -ENODEV);
    msi_device_free(dev);
    expect(came(0x41, 0));
    msi_route_cache_free(cache);
}

static int count_length(void *opaque, const char *text, size_t len)
{
    *(size_t *)opaque += text ? len : 0;
    return 0;
}

static void binds_eventfds(void)
{
    size_t length = 0;
    struct msi_route_cache *cache = new_cache(MSIROUTE_CACHE_HELPER_THREADS);
    struct msi_device *dev = new_device(cache, MSIROUTE_KIND_PLAIN);
    struct msi_route_cache_stats stats = MSIROUTE_STATS_INIT;
    int fd[4];
    expect(msi_route_cache_set_addressing(cache, MSIROUTE_X2APIC_IDS) == 0);
    expect(msi_route_cache_begin(cache) == 0);
    for (uint32_t i = 0; i < 4; i++) {
        fd[i] = eventfd(0, EFD_NONBLOCK);
        expect(msi_vector_set(dev, i, APIC, 0x50 + i) == 0);
        expect(msi_vector_bind_eventfd(dev, i, fd[i], MSIROUTE_EVENTFD_KERNEL_ONLY) == 0);
    }
    expect(msi_route_cache_commit(cache) == 0);
    expect(msi_route_cache_stats(cache, &stats) == 0 && stats.size == sizeof(stats));
    expect(msi_route_cache_dump(cache, count_length, &length) == 0 && length > 100);
    expect(stats.table_writes == 1 && stats.irqfd_binds == 4 && stats.routes_pinned == 4 && !stats.unserved_vectors);
    for (uint32_t i = 0; i < 4; i++)
        expect(eventfd_write(fd[i], 1) == 0 && came(0x50 + i, 1));
    expect(msi_route_cache_pause(cache) == 0);
    expect(eventfd_write(fd[2], 1) == 0 && msi_vector_is_pending(dev, 2) == 1);
    expect(msi_route_cache_resume(cache) == 0 && came(0x52, 1));
    expect(msi_vector_unbind_eventfd(dev, 0, fd[0]) == 0 && msi_vector_unbind_eventfd(dev, 1, -1) == 0);
    msi_device_free(dev);
    msi_route_cache_free(cache);
    for (uint32_t i = 0; i < 4; i++)
        close(fd[i]);
}

static void forwards_registers(void)
{
    struct msi_route_cache *cache = new_cache(0);
    struct msi_device *dev = new_device(cache, MSIROUTE_KIND_MSIX), *next = new_device(cache, MSIROUTE_KIND_MSIX);
    uint32_t entry[4] = { APIC, 0, 0x61, 1 }, read[4];
    uint16_t control = 0x8000;
    uint8_t cap[12], table[64], pba[8];
    uint64_t pending;
    for (unsigned i = 0; i < 4; i++)
        expect(msi_device_table_write(dev, 16 * 3 + 4 * i, &entry[i], 4) == 0);
    for (unsigned i = 0; i < 4; i++)
        expect(msi_device_table_read(dev, 16 * 3 + 4 * i, &read[i], 4) == 0);
    expect(!memcmp(entry, read, sizeof(entry)));
    expect(msi_deliver(dev, 3) == MSIROUTE_DISABLED);
    expect(msi_device_config_write(dev, 0x42, &control, 2) == 1);
    expect(msi_device_config_read(dev, 0x42, &control, 2) == 1 && control == 0x8003);
    expect(msi_device_config_read(dev, 0x80, &control, 2) == 0);
    expect(msi_device_capability_size(dev) == sizeof(cap));
    expect(msi_deliver(dev, 3) == MSIROUTE_PENDING);
    expect(msi_device_pba_read(dev, 0, &pending, 8) == 0 && pending == 1 << 3);
    expect(msi_device_pba_write(dev, 0, &pending, 8) == 0);

    size_t size = msi_device_save_size(dev);
    uint8_t *state = calloc(1, size);
    expect(msi_route_cache_pause(cache) == 0 && msi_device_save(dev, state, size) == 0 && msi_route_cache_resume(cache) == 0);
    expect(msi_device_export(dev, cap, sizeof(cap), table, sizeof(table), pba, sizeof(pba)) == 0 && pba[0] == 1 << 3);
    expect(msi_device_load(next, state, size) == 0 && msi_vector_is_pending(next, 3) == 1);
    expect(msi_vector_unmask(next, 3) == 0 && came(0x61, 1));
    expect(msi_device_reset(next) == 0);
    expect(msi_device_import(next, cap, sizeof(cap), table, sizeof(table), pba, sizeof(pba)) == 0);
    expect(msi_device_set_control(next, MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED) == 0);
    expect(msi_vector_unmask(next, 3) == 0 && came(0x61, 0));
    expect(msi_device_set_control(next, MSIROUTE_ENABLED) == 0 && came(0x61, 1));
    free(state);
    msi_device_free(dev);
    msi_device_free(next);
    msi_route_cache_free(cache);
}

static uint32_t told;

static void changed(void *opaque, struct msi_device *dev, uint32_t what, uint32_t first, uint32_t n)
{
    expect(opaque == &told && dev && first == 2 && n == 1);
    told |= what;
}

static void is_told_of_changes(void)
{
    struct msi_route_cache *cache = new_cache(0);
    struct msi_device_config config = device_config(MSIROUTE_KIND_PLAIN);
    struct msi_device *dev;
    config.changed = changed;
    config.opaque = &told;
    expect(msi_device_new(cache, &config, &dev) == 0);
    expect(msi_vector_set(dev, 2, APIC, 0x41) == 0 && told == MSIROUTE_CHANGED_VECTORS);
    msi_device_free(dev);
    msi_route_cache_free(cache);
}

static struct kvm_irq_routing_entry message(uint32_t data)
{
    struct kvm_irq_routing_entry entry = { .type = KVM_IRQ_ROUTING_MSI };
    entry.u.msi.address_lo = APIC;
    entry.u.msi.data = data;
    return entry;
}

static void numbers_routes_itself(void)
{
    struct msi_route_cache *cache = new_cache(0);
    struct kvm_irq_routing_entry first = message(0x71), second = message(0x72), fixed = message(0x73);
    uint32_t gsi = MSIROUTE_ANY_GSI;
    int fd = eventfd(0, EFD_NONBLOCK);
    fixed.gsi = 5;
    expect(msi_route_cache_set_fixed(cache, &fixed, 1) == 0);
    expect(msi_route_cache_add_route(cache, &first, MSIROUTE_ROUTE_IRQFD_ONLY, &gsi) == 0 && gsi != MSIROUTE_ANY_GSI);
    expect(msi_route_cache_bind_irqfd(cache, gsi, fd, -1) == 0);
    expect(eventfd_write(fd, 1) == 0 && came(0x71, 1));
    expect(msi_route_cache_update_route(cache, gsi, &second) == 0 && msi_route_cache_commit(cache) == 0);
    expect(eventfd_write(fd, 1) == 0 && came(0x72, 1));
    expect(msi_route_cache_unbind_irqfd(cache, gsi, fd) == 0);
    expect(msi_route_cache_bind_irqfd(cache, 5, fd, -1) == 0);
    expect(eventfd_write(fd, 1) == 0 && came(0x73, 1));
    expect(msi_route_cache_unbind_irqfd(cache, 5, fd) == 0);
    expect(msi_route_cache_remove_route(cache, gsi) == 0 && msi_route_cache_commit(cache) == 0);
    msi_route_cache_free(cache);
    close(fd);
}

static void *lend(void *cache)
{
    return (void *)(intptr_t)msi_route_cache_relay_loop(cache);
}

static void runs_the_relay(void)
{
    struct msi_route_cache *cache = new_cache(0);
    struct msi_device *dev = new_device(cache, MSIROUTE_KIND_PLAIN);
    int fd = eventfd(0, EFD_NONBLOCK);
    struct pollfd relay = { .fd = msi_route_cache_relay_fd(cache), .events = POLLIN };
    pthread_t thread;
    void *result;
    expect(relay.fd >= 0);
    expect(msi_vector_set(dev, 0, APIC, 0x81) == 0 && msi_vector_bind_eventfd(dev, 0, fd, MSIROUTE_EVENTFD_RELAY_ONLY) == 0);
    expect(eventfd_write(fd, 1) == 0 && poll(&relay, 1, 5000) == 1);
    expect(msi_route_cache_relay_run(cache) >= 0 && came(0x81, 1));
    expect(pthread_create(&thread, NULL, lend, cache) == 0);
    expect(eventfd_write(fd, 1) == 0 && came(0x81, 1));
    expect(msi_route_cache_relay_stop(cache) == 0);
    expect(pthread_join(thread, &result) == 0 && !result);
    msi_device_free(dev);
    msi_route_cache_free(cache);
    close(fd);
}

static int translate(void *opaque, uint32_t requester, uint64_t *address, uint32_t *data, uint64_t *tag)
{
    (void)requester;
    *address = APIC;
    *data = *(uint32_t *)opaque;
    *tag = 7;
    return *data ? 0 : -EPERM;
}

static void log_nothing(void *opaque, uint32_t level, const char *message)
{
    (void)opaque, (void)level, (void)message;
}

static void has_a_viommu(void)
{
    struct msi_route_cache *cache = new_cache(0);
    struct msi_device *dev = new_device(cache, MSIROUTE_KIND_PLAIN);
    uint32_t becomes = 0x91;
    msi_route_cache_set_log(log_nothing, NULL);
    expect(msi_route_cache_set_remap(cache, translate, &becomes) == 0);
    expect(msi_vector_set(dev, 0, APIC | 0x10, 0) == 0);
    expect(msi_deliver(dev, 0) == MSIROUTE_SENT && came(0x91, 1));
    becomes = 0;
    expect(msi_route_cache_invalidate(cache, MSIROUTE_NO_REQUESTER, 7, 7) == 0);
    expect(msi_deliver(dev, 0) == MSIROUTE_BLOCKED);
    becomes = 0x92;
    expect(msi_route_cache_invalidate(cache, MSIROUTE_NO_REQUESTER, 0, UINT64_MAX) == 0 && came(0x92, 1));
    expect(msi_route_cache_set_remap(cache, NULL, NULL) == 0);
    msi_route_cache_set_log(NULL, NULL);
    msi_device_free(dev);
    msi_route_cache_free(cache);
}

int main(void)
{
    static const struct { const char *name; void (*run)(void); } tests[] = {
        { "says what it is", says_what_it_is },
        { "raises vectors", raises_vectors },
        { "binds eventfds", binds_eventfds },
        { "forwards registers", forwards_registers },
        { "is told of changes", is_told_of_changes },
        { "numbers routes itself", numbers_routes_itself },
        { "runs the relay", runs_the_relay },
        { "has a vIOMMU", has_a_viommu },
    };
    size_t n = sizeof(tests) / sizeof(tests[0]);
    int bad = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("1..%zu\n", n);
    for (size_t i = 0; i < n; i++) {
        failed = 0;
        tests[i].run();
        bad |= failed;
        printf("%s %zu - a program of 0.1 %s\n", failed ? "not ok" : "ok", i + 1, tests[i].name);
    }
    return bad != 0;
}
