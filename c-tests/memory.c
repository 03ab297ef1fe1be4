/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Out of memory where something is made: -ENOMEM, nothing changed, nothing left behind. malloc is ours, and fails on demand. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "relays.h"

/* ---- malloc ---- */

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

enum failing { NONE, ONCE, FROM_THEN_ON, LARGE_ONES };
#define LARGE 4097

static _Thread_local enum failing failing;
static _Thread_local unsigned at;       /* the at-th allocation of this thread from now on */
static _Thread_local bool struck;
static atomic_long blocks;              /* of the whole process */

static bool fails(size_t size)
{
    bool now = failing == LARGE_ONES ? size >= LARGE : failing != NONE && (at <= 1 || !--at);
    if (now) {
        struck = true;
        if (failing == ONCE)
            failing = NONE;
        errno = ENOMEM;
    }
    return now;
}

static void *counted(void *block)
{
    if (block)
        atomic_fetch_add(&blocks, 1);
    return block;
}

void *malloc(size_t size)                          { return fails(size) ? NULL : counted(__libc_malloc(size)); }
void *calloc(size_t n, size_t size)                { return fails(n * size) ? NULL : counted(__libc_calloc(n, size)); }
void *aligned_alloc(size_t alignment, size_t size) { return fails(size) ? NULL : counted(__libc_memalign(alignment, size)); }
int posix_memalign(void **out, size_t alignment, size_t size)
{
    *out = aligned_alloc(alignment, size);
    return *out ? 0 : ENOMEM;
}
void *realloc(void *old, size_t size)
{
    if (fails(size))
        return NULL;
    return old ? __libc_realloc(old, size) : malloc(size);
}
void free(void *block)
{
    if (block)
        atomic_fetch_sub(&blocks, 1);
    __libc_free(block);
}

/* ---- what is made, and undone ---- */

struct made {
    const char *what;
    int (*make)(struct rig *rig);
    void (*undo)(struct rig *rig);
    unsigned hosts;
    uint32_t kind, vectors, flags;
};
static const struct made *now;          /* which is made */

static struct msi_route_cache *cache;
static int make_cache(struct rig *rig)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = fake_ops(true);
    config.flags = now->flags;
    if (rig->host == ON_KVM) {
        config.vm_fd = rig->vm.fd;
    } else {
        config.ops = &ops;
        config.opaque = &rig->fake;
    }
    return msi_route_cache_new(&config, &cache);
}
static void free_cache(struct rig *rig)     { (void)rig; msi_route_cache_free(cache); }

static void changed(void *opaque, struct msi_device *dev, uint32_t what, uint32_t first, uint32_t n)
{
    (void)opaque, (void)dev, (void)what, (void)first, (void)n;
}

static struct msi_device *dev;
static int make_device(struct rig *rig)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.kind = now->kind;
    config.vectors = now->vectors;
    config.first_pin = now->kind == MSIROUTE_KIND_PINS ? 100 : 0;
    config.name = "a device with a name that is not the shortest";
    config.changed = changed;
    return msi_device_new(rig->cache, &config, &dev);
}
static void free_device(struct rig *rig)    { (void)rig; msi_device_free(dev); }

static int make_binding(struct rig *rig)    { return msi_vector_bind_eventfd(rig->dev, 0, rig->eventfds[0], now->flags); }
static void unbind(struct rig *rig)         { expect_ok(msi_vector_unbind_eventfd(rig->dev, 0, rig->eventfds[0])); }

static int make_binding_of_pin(struct rig *rig)
{
    return msi_route_cache_bind_irqfd(rig->cache, 5, rig->eventfds[0], rig->eventfds[1]);
}
static void unbind_pin(struct rig *rig)     { expect_ok(msi_route_cache_unbind_irqfd(rig->cache, 5, rig->eventfds[0])); }

static uint32_t gsi;
static int make_route(struct rig *rig)
{
    struct kvm_irq_routing_entry entry = { .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee00000, .data = 0x77 } };
    gsi = MSIROUTE_ANY_GSI;
    return msi_route_cache_add_route(rig->cache, &entry, 0, &gsi);
}
static void remove_route(struct rig *rig)
{
    expect_ok(msi_route_cache_remove_route(rig->cache, gsi));
    expect_ok(msi_route_cache_commit(rig->cache));
}

static int make_fixed(struct rig *rig)
{
    static struct kvm_irq_routing_entry entries[24];
    for (uint32_t pin = 0; pin < 24; pin++)
        entries[pin] = (struct kvm_irq_routing_entry){ .gsi = pin, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { .irqchip = 2, .pin = pin } };
    return msi_route_cache_set_fixed(rig->cache, entries, 24);
}
static void no_fixed(struct rig *rig)       { expect_ok(msi_route_cache_set_fixed(rig->cache, NULL, 0)); }

static int make_relay(struct rig *rig)
{
    int result = msi_route_cache_relay_fd(rig->cache);
    return result < 0 ? result : 0;
}
static void stop_relay(struct rig *rig)     { expect_ok(msi_route_cache_relay_stop(rig->cache)); }

static int translate(void *opaque, uint32_t requester, uint64_t *address, uint32_t *data, uint64_t *tag)
{
    (void)opaque, (void)requester, (void)address, (void)data;
    *tag = 1;
    return 0;
}
static int make_remap(struct rig *rig)      { return msi_route_cache_set_remap(rig->cache, translate, NULL); }
static void no_remap(struct rig *rig)       { expect_ok(msi_route_cache_set_remap(rig->cache, NULL, NULL)); }

/* Not the model where it plays the kernel: it has a thread, which Rust's standard library cannot start without memory, and a
 * table of its own. */
static const struct made all[] = {
    { "a cache", make_cache, free_cache, ON_KVM | ON_FAKE, 0, 0, 0 },
    { "a cache without direct messages", make_cache, free_cache, ON_KVM | ON_FAKE, 0, 0, MSIROUTE_CACHE_NO_DIRECT },
    { "a small device", make_device, free_device, EVERYWHERE, MSIROUTE_KIND_PLAIN, 1, 0 },
    { "a plain device", make_device, free_device, EVERYWHERE, MSIROUTE_KIND_PLAIN, 2048, 0 },
    { "an MSI-X device", make_device, free_device, EVERYWHERE, MSIROUTE_KIND_MSIX, 2048, 0 },
    { "an MSI device", make_device, free_device, EVERYWHERE, MSIROUTE_KIND_MSI, 32, 0 },
    { "pins", make_device, free_device, EVERYWHERE, MSIROUTE_KIND_PINS, 32, 0 },
    { "a binding", make_binding, unbind, EVERYWHERE, 0, 0, 0 },
    { "a binding of one that is lent", make_binding, unbind, EVERYWHERE, 0, 0, MSIROUTE_EVENTFD_BORROWED },
    { "a binding of a pin", make_binding_of_pin, unbind_pin, ON_KVM, 0, 0, 0 },
    { "a route", make_route, remove_route, EVERYWHERE, 0, 0, 0 },
    { "fixed routes", make_fixed, no_fixed, ON_KVM | ON_FAKE, 0, 0, 0 },
    { "a relay", make_relay, stop_relay, EVERYWHERE, 0, 0, 0 },
    { "remapping", make_remap, no_remap, EVERYWHERE, 0, 0, 0 },
};

/* ---- tests ---- */

/* False if no allocation failed. What failed may have been done without. */
static bool make_failing(struct rig *rig, enum failing how, unsigned n, unsigned *refused)
{
    tap_context("%s, allocation %u fails%s", now->what, n, how == FROM_THEN_ON ? " and all later ones" : "");
    struct msi_vector_info before = info_of(rig->dev, 0);
    errno = 4711;
    struck = false;
    at = n;
    failing = how;
    int result = now->make(rig);
    failing = NONE;
    expect_eq(errno, 4711);
    if (result == 0) {
        now->undo(rig);
        return struck;
    }
    ++*refused;
    expect_eq(result, -ENOMEM);
    expect(struck);
    expect(msi_route_cache_last_error()[0]);
    struct msi_vector_info after = info_of(rig->dev, 0);
    expect(!memcmp(&before, &after, sizeof(before)));
    return struck;
}

static unsigned all_refused;    /* not each call is: what was set aside before may be enough */

static void make_all_ways(struct rig *rig, enum failing how)
{
    unsigned n = 1, refused = 0;
    while (n < 5000 && make_failing(rig, how, n, &refused))
        n++;
    expect(n > 1 && n < 5000);
    all_refused += refused;
}

static void each_allocation_fails_in_turn(enum host host)
{
    all_refused = 0;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (!(all[i].hosts & host))
            continue;
        RIG(rig, host);
        long first = 0;
        now = &all[i];
        expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
        rig_eventfd(&rig, EFD_NONBLOCK);
        rig_eventfd(&rig, EFD_NONBLOCK);
        for (unsigned round = 0; round < 3; round++) {
            make_all_ways(&rig, ONCE);
            make_all_ways(&rig, FROM_THEN_ON);
            expect_eq(msi_vector_mask(NULL, 0), -EINVAL);   /* the same last words each time */
            if (round == 1)
                first = atomic_load(&blocks);
        }
        tap_context("%s", now->what);
        expect_eq(atomic_load(&blocks), first);             /* nothing is left behind */
        expect_delivers(&rig, 0, 1, 0x41);
    }
    expect(all_refused > 0);
}

static void large_amounts_are_refused(enum host host)
{
    unsigned refused = 0;
    RIG(rig, host);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        now = &all[i];
        if (now->vectors == 2048)
            expect(make_failing(&rig, LARGE_ONES, 0, &refused));
    }
    expect_eq(refused, 2);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_delivers(&rig, 0, 1, 0x41);
}

/* Tables of all kinds grow: at each of their sizes. */
static void however_many_there_are_already(enum host host)
{
    enum { MANY = 300 };
    RIG(rig, host, .vectors = MANY);
    unsigned served = 0;
    for (uint32_t i = 0; i < MANY; i++) {
        struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
        struct msi_device *device = NULL;
        int fd = rig_eventfd(&rig, EFD_NONBLOCK), bound, result;
        config.vectors = 1;
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i % 200)));
        unsigned n = 1;
        do {
            tap_context("eventfd %u, allocation %u and all later ones fail", i, n);
            at = n++, failing = FROM_THEN_ON;
            bound = msi_vector_bind_eventfd(rig.dev, i, fd, 0);
            failing = NONE;
        } while (n < 500 && bound == -ENOMEM);
        expect_ok(bound);
        served += !!(info_of(rig.dev, i).flags & IN_KERNEL);
        n = 1;
        do {
            tap_context("device %u, allocation %u and all later ones fail", i, n);
            at = n++, failing = FROM_THEN_ON;
            result = msi_device_new(rig.cache, &config, &device);
            failing = NONE;
        } while (n < 500 && result == -ENOMEM);
        if (expect_ok(result))
            rig.devices[rig.n_devices++] = device;
    }
    expect_eq(served, MANY);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, each_allocation_fails_in_turn),
        TEST(EVERYWHERE, large_amounts_are_refused),
        TEST(ON_KVM | ON_FAKE, however_many_there_are_already),
    };
    return TAP_MAIN(tests);
}
