/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The `changed` callback: what a VMM needs for VFIO, for a vhost back-end that masks at the source, and for INTx. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "rig.h"

#define ENABLED MSIROUTE_ENABLED
#define MASKED  MSIROUTE_FUNCTION_MASKED
#define ENABLE  MSIROUTE_CHANGED_ENABLE
#define VECTORS MSIROUTE_CHANGED_VECTORS
#define LIVE    MSIROUTE_VECTOR_LIVE

/* What the VMM was told. */
struct ear {
    unsigned calls;
    uint32_t what, first, n;        /* the last time */
    struct msi_device *dev;
    void (*then)(struct ear *ear);  /* inside */
    struct rig *rig;
    int fd;
};

static void hear(void *opaque, struct msi_device *dev, uint32_t what, uint32_t first, uint32_t n)
{
    struct ear *ear = opaque;
    ear->calls++;
    ear->dev = dev;
    ear->what = what;
    ear->first = first;
    ear->n = n;
    if (ear->then)
        ear->then(ear);
}

/* A device of the rig's that is heard of. */
static struct msi_device *heard(struct rig *rig, struct ear *ear, uint32_t kind, uint32_t vectors)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_device *dev = NULL;
    config.kind = kind;
    config.vectors = vectors;
    config.changed = hear;
    config.opaque = ear;
    ear->rig = rig;
    expect_ok(msi_device_new(rig->cache, &config, &dev));
    return dev;
}

/* Just this was said, once, since it was last asked. */
#define expect_heard(ear, what, first, n) hears(__FILE__, __LINE__, ear, 1, what, first, n)
#define expect_nothing_heard(ear)         hears(__FILE__, __LINE__, ear, 0, 0, 0, 0)
static void hears(const char *file, int line, struct ear *ear, unsigned calls, uint32_t what, uint32_t first, uint32_t n)
{
    tap_expect_eq(file, line, "calls", ear->calls, calls);
    tap_expect_eq(file, line, "what", ear->what, what);
    tap_expect_eq(file, line, "first", ear->first, first);
    tap_expect_eq(file, line, "n", ear->n, n);
    ear->calls = ear->what = ear->first = ear->n = 0;
}

static void open_all(struct msi_device *dev, uint32_t vectors)
{
    expect_ok(msi_device_set_control(dev, ENABLED));
    for (uint32_t v = 0; v < vectors; v++) {
        expect_ok(msi_vector_set(dev, v, TO(1, 0x41 + v)));
        expect_ok(msi_vector_unmask(dev, v));
    }
}

static void one_call_tells_of_each_change_and_none_of_what_is_none(enum host host)
{
    RIG(rig, host);
    struct ear ear = { 0 };
    struct msi_device *dev = heard(&rig, &ear, MSIROUTE_KIND_MSIX, 8);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_nothing_heard(&ear);
    expect_ok(msi_device_set_control(dev, ENABLED));
    expect_heard(&ear, ENABLE, 0, 0);
    expect(ear.dev == dev);
    expect_ok(msi_device_set_control(dev, ENABLED));
    expect_ok(msi_vector_set(dev, 3, TO(1, 0x41)));     /* masked: not live yet */
    expect_nothing_heard(&ear);
    expect_ok(msi_vector_unmask(dev, 3));
    expect_heard(&ear, VECTORS, 3, 1);
    expect_ok(msi_vector_unmask(dev, 3));
    expect_ok(msi_vector_set(dev, 3, TO(1, 0x41)));
    expect_ok(msi_vector_bind_eventfd(dev, 3, fd, 0));
    expect_ok(msi_vector_unbind_eventfd(dev, 3, fd));
    expect_ok(msi_device_set_bus_master(dev, 0));       /* the guest's wish is as it was */
    expect_ok(msi_device_set_bus_master(dev, 1));
    expect_nothing_heard(&ear);
    expect_ok(msi_vector_set(dev, 3, TO(0, 0x42)));
    expect_heard(&ear, VECTORS, 3, 1);
    expect_ok(msi_vector_mask(dev, 3));
    expect_heard(&ear, VECTORS, 3, 1);
    expect_ok(msi_vector_unmask(dev, 3));
    expect_heard(&ear, VECTORS, 3, 1);
    expect_ok(msi_vector_clear(dev, 3));
    expect_heard(&ear, VECTORS, 3, 1);
    expect_ok(msi_device_reset(dev));
    expect_heard(&ear, ENABLE, 0, 0);
    msi_device_free(dev);
    expect_nothing_heard(&ear);
}

static void function_wide_changes_are_one_call_for_all_vectors(enum host host)
{
    RIG(rig, host);
    struct ear ear = { 0 };
    struct msi_device *dev = heard(&rig, &ear, MSIROUTE_KIND_MSIX, 64);
    open_all(dev, 64);
    expect_ok(msi_vector_mask(dev, 0));
    expect_ok(msi_vector_mask(dev, 63));
    ear = (struct ear){ 0 };
    expect_ok(msi_device_set_control(dev, ENABLED | MASKED));
    expect_heard(&ear, VECTORS, 1, 62);
    expect_ok(msi_device_set_control(dev, ENABLED));
    expect_heard(&ear, VECTORS, 1, 62);
    expect_ok(msi_device_set_control(dev, 0));
    expect_heard(&ear, ENABLE | VECTORS, 1, 62);
    expect_ok(msi_device_set_control(dev, ENABLED));
    expect_heard(&ear, ENABLE | VECTORS, 1, 62);
    expect_ok(msi_device_reset(dev));
    expect_heard(&ear, ENABLE | VECTORS, 1, 62);
    msi_device_free(dev);
}

static void look_around(struct ear *ear)
{
    struct msi_vector_info info = info_of(ear->dev, 0);
    expect(info.flags & LIVE);
    expect(info.flags & MSIROUTE_VECTOR_IN_KERNEL);
    fires(ear->rig, ear->fd);
    expect_arrival(ear->rig, 1, 0x41);
}

static void it_is_told_when_the_change_is_live(enum host host)
{
    RIG(rig, host);
    struct ear ear = { 0 };
    struct msi_device *dev = heard(&rig, &ear, MSIROUTE_KIND_MSIX, 1);
    ear.fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_bind_eventfd(dev, 0, ear.fd, 0));
    expect_ok(msi_vector_set(dev, 0, TO(1, 0x41)));
    expect_ok(msi_device_set_control(dev, ENABLED));
    ear.calls = 0;
    ear.then = look_around;
    expect_ok(msi_vector_unmask(dev, 0));
    expect_heard(&ear, VECTORS, 0, 1);
    msi_device_free(dev);
}

/* ---- re-entry ---- */

static void mask_again(struct ear *ear)
{
    ear->then = NULL;
    expect_ok(msi_vector_mask(ear->dev, 0));
    expect_ok(msi_device_set_control(ear->dev, ENABLED | MASKED));
    expect_eq(msi_deliver(ear->dev, 0), MSIROUTE_PENDING);
    expect_ok(msi_route_cache_begin(ear->rig->cache));
    expect_ok(msi_vector_set(ear->dev, 1, TO(1, 0x42)));
    expect_ok(msi_route_cache_commit(ear->rig->cache));
    expect_ok(msi_route_cache_pause(ear->rig->cache));
    expect_ok(msi_route_cache_resume(ear->rig->cache));
    expect(msi_device_ref(ear->dev) == ear->dev);
    msi_device_free(ear->dev);      /* not the last reference */
}

static void it_may_call_the_library(enum host host)
{
    RIG(rig, host);
    struct ear ear = { .then = mask_again };
    struct msi_device *dev = heard(&rig, &ear, MSIROUTE_KIND_MSIX, 2);
    expect_ok(msi_vector_set(dev, 0, TO(1, 0x41)));
    expect_ok(msi_vector_unmask(dev, 0));
    expect_ok(msi_device_set_control(dev, ENABLED));
    expect_eq(ear.calls, 2);    /* this, and the mask inside; the function mask then changed no live vector */
    expect_quiet(&rig);
    expect_eq(msi_vector_is_pending(dev, 0), 1);
    msi_device_free(dev);
}

static void free_it(struct ear *ear)
{
    ear->then = NULL;
    msi_device_free(ear->dev);      /* the last reference: forbidden, and refused */
    expect(strstr(msi_route_cache_last_error(), "changed"));
}

static void close_it(struct ear *ear)
{
    ear->then = NULL;
    expect_ok(msi_device_close(ear->dev));
}

static void a_device_cannot_be_freed_but_closed_from_inside(enum host host)
{
    RIG(rig, host);
    struct ear ear = { .then = free_it };
    struct msi_device *dev = heard(&rig, &ear, MSIROUTE_KIND_MSIX, 1);
    expect_ok(msi_device_set_control(dev, ENABLED));
    expect_heard(&ear, ENABLE, 0, 0);
    expect_eq(msi_device_state(dev), ENABLED | MSIROUTE_BUS_MASTER);
    ear.then = close_it;
    expect_ok(msi_device_set_control(dev, 0));
    expect_heard(&ear, ENABLE, 0, 0);
    expect_eq(msi_device_set_control(dev, 0), -ENODEV);
    msi_device_free(dev);
}

/* ---- put off ---- */

static void a_transaction_is_told_of_once_a_device_at_its_commit(enum host host)
{
    RIG(rig, host);
    struct ear one = { 0 }, two = { 0 };
    struct msi_device *first = heard(&rig, &one, MSIROUTE_KIND_MSIX, 8);
    struct msi_device *second = heard(&rig, &two, MSIROUTE_KIND_MSIX, 8);
    expect_ok(msi_route_cache_begin(rig.cache));
    open_all(first, 8);
    expect_ok(msi_route_cache_begin(rig.cache));
    open_all(second, 4);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(one.calls + two.calls, 0);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_heard(&one, ENABLE | VECTORS, 0, 8);
    expect_heard(&two, ENABLE | VECTORS, 0, 4);
    msi_device_free(first);
    msi_device_free(second);
}

static void while_paused_nothing_is_told_and_at_resume_everything(enum host host)
{
    RIG(rig, host);
    struct ear ear = { 0 };
    struct msi_device *dev = heard(&rig, &ear, MSIROUTE_KIND_MSIX, 8);
    expect_ok(msi_route_cache_pause(rig.cache));
    open_all(dev, 6);
    expect_ok(msi_vector_mask(dev, 5));
    expect_nothing_heard(&ear);
    expect_ok(msi_route_cache_resume(rig.cache));
    expect_heard(&ear, ENABLE | VECTORS, 0, 6);
    expect_ok(msi_route_cache_pause(rig.cache));
    expect_ok(msi_route_cache_resume(rig.cache));
    expect_nothing_heard(&ear);
    msi_device_free(dev);
}

/* ---- from other threads ---- */

static atomic_bool inside, may_leave;

static void stay(struct ear *ear)
{
    ear->then = NULL;
    atomic_store(&inside, true);
    while (!atomic_load(&may_leave))
        usleep(100);
    expect_eq(msi_vector_is_pending(ear->dev, 0), -ENODEV);     /* closed, but still there */
    atomic_store(&inside, false);
}

static void *enable(void *dev)
{
    expect_ok(msi_device_set_control(dev, ENABLED));
    return NULL;
}

static void *free_device(void *dev)
{
    msi_device_free(dev);
    expect(!atomic_load(&inside));
    return NULL;
}

static void free_waits_until_nobody_is_told(enum host host)
{
    RIG(rig, host);
    struct ear ear = { .then = stay };
    struct msi_device *dev = heard(&rig, &ear, MSIROUTE_KIND_MSIX, 1);
    pthread_t enabler, freer;
    atomic_store(&may_leave, false);
    expect_ok(pthread_create(&enabler, NULL, enable, dev));
    while (!atomic_load(&inside))
        usleep(100);
    expect_ok(msi_device_close(dev));   /* does not wait */
    expect_ok(pthread_create(&freer, NULL, free_device, dev));
    nap_ms(20);
    atomic_store(&may_leave, true);
    pthread_join(freer, NULL);
    pthread_join(enabler, NULL);
    expect_eq(ear.calls, 1);
}

/* ---- what it is for ---- */

/* VFIO: all of a function's vectors are given to the hardware with one call, whatever the guest did. */
static void vfio_sees_a_guest_enable_2048_vectors_in_one_call(enum host host)
{
    enum { N = 2048 };
    RIG(rig, host);
    struct ear ear = { 0 };
    struct msi_device *dev = heard(&rig, &ear, MSIROUTE_KIND_MSIX, N);
    expect_ok(msi_device_set_control(dev, ENABLED | MASKED));
    for (unsigned v = 0; v < N; v++) {
        expect_ok(msi_vector_set(dev, v, TO_NTH(v % 400)));
        expect_ok(msi_vector_unmask(dev, v));
    }
    expect_heard(&ear, ENABLE, 0, 0);
    expect_ok(msi_device_set_control(dev, ENABLED));
    expect_heard(&ear, VECTORS, 0, N);
    msi_device_free(dev);
}

/* vhost: while the vector is not live the back-end is given another eventfd, which the VMM looks at for the pending bit. */
struct backend {
    struct ear ear;
    int kick;       /* the eventfd that the back-end writes now */
    int irqfd, masked_notifier;
};

static void switch_backend(struct ear *ear)
{
    struct backend *backend = (struct backend *)ear;
    bool live = info_of(ear->dev, 0).flags & LIVE;
    backend->kick = live ? backend->irqfd : backend->masked_notifier;
    if (live && take_count(backend->masked_notifier))
        expect(msi_deliver(ear->dev, 0) == MSIROUTE_SENT);
}

static unsigned pending_bit(struct backend *backend)
{
    uint64_t word = 0;
    if (take_count(backend->masked_notifier))
        expect_eq(msi_deliver(backend->ear.dev, 0), MSIROUTE_PENDING);
    expect_ok(msi_device_pba_read(backend->ear.dev, 0, &word, sizeof(word)));
    return word & 1;
}

static void a_vhost_backend_masks_at_the_source_and_its_irqfd_stays(enum host host)
{
    RIG(rig, host);
    struct backend backend = { .ear.then = switch_backend };
    struct msi_device *dev = heard(&rig, &backend.ear, MSIROUTE_KIND_MSIX, 1);
    backend.irqfd = rig_eventfd(&rig, EFD_NONBLOCK);
    backend.masked_notifier = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_bind_eventfd(dev, 0, backend.irqfd, MSIROUTE_EVENTFD_MASKED_AT_SOURCE));
    open_all(dev, 1);
    fires(&rig, backend.kick);
    expect_arrival(&rig, 1, 0x41);
    struct msi_route_cache_stats before = rig_stats(&rig);
    for (unsigned i = 0; i < 5; i++) {
        if (i % 2)
            expect_ok(msi_vector_mask(dev, 0));
        else
            expect_ok(msi_device_set_control(dev, ENABLED | MASKED));
        expect(backend.kick == backend.masked_notifier);
        expect_eq(pending_bit(&backend), 0);
        fires(&rig, backend.kick);
        expect_quiet(&rig);
        if (i < 3)
            expect_eq(pending_bit(&backend), 1);
        expect_ok(i % 2 ? msi_vector_unmask(dev, 0) : msi_device_set_control(dev, ENABLED));
        expect(backend.kick == backend.irqfd);
        expect_arrival(&rig, 1, 0x41);
        expect_eq(pending_bit(&backend), 0);
        fires(&rig, backend.kick);
        expect_arrival(&rig, 1, 0x41);
    }
    expect_eq(rig_stats(&rig).irqfd_binds, before.irqfd_binds);
    expect_eq(rig_stats(&rig).irqfd_unbinds, before.irqfd_unbinds);
    expect_eq(rig_stats(&rig).table_writes, before.table_writes);
    /* Another message while it is masked: one write, and the irqfd stays. */
    expect_ok(msi_vector_mask(dev, 0));
    expect_eq(TABLE_WRITES(&rig, msi_vector_set(dev, 0, TO(0, 0x52))), 0);
    expect_eq(TABLE_WRITES(&rig, msi_vector_unmask(dev, 0)), 1);
    fires(&rig, backend.kick);
    expect_arrival(&rig, 0, 0x52);
    expect_eq(rig_stats(&rig).irqfd_unbinds, before.irqfd_unbinds);
    msi_device_free(dev);
}

struct way {
    const char *name;
    int (*shut)(struct rig *rig, struct msi_device *dev);
    int (*open)(struct rig *rig, struct msi_device *dev);
};

#define WAY(name, call) static int name(struct rig *rig, struct msi_device *dev) { (void)rig, (void)dev; return call; }
WAY(master_off, msi_device_set_bus_master(dev, 0))
WAY(master_on, msi_device_set_bus_master(dev, 1))
WAY(pause_all, msi_route_cache_pause(rig->cache))
WAY(resume_all, msi_route_cache_resume(rig->cache))
WAY(switch_off, msi_device_set_control(dev, 0))
WAY(switch_on, msi_device_set_control(dev, ENABLED))
WAY(clear, msi_vector_clear(dev, 0))
WAY(set, msi_vector_set(dev, 0, TO(1, 0x41)))

static const struct way ways[] = {
    { "bus master", master_off, master_on },
    { "pause", pause_all, resume_all },
    { "capability", switch_off, switch_on },
    { "message", clear, set },
};

static void what_the_source_cannot_know_unbinds_its_irqfd_all_the_same(enum host host)
{
    RIG(rig, host);
    struct ear ear = { 0 };
    struct msi_device *dev = heard(&rig, &ear, MSIROUTE_KIND_MSIX, 1);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_bind_eventfd(dev, 0, fd, MSIROUTE_EVENTFD_MASKED_AT_SOURCE));
    open_all(dev, 1);
    for (const struct way *way = ways; way < ways + sizeof(ways) / sizeof(ways[0]); way++) {
        tap_context("%s", way->name);
        expect_ok(way->shut(&rig, dev));
        fires(&rig, fd);
        expect_quiet(&rig);
        expect(!(info_of(dev, 0).flags & MSIROUTE_VECTOR_IN_KERNEL));
        expect_ok(way->open(&rig, dev));
        expect_arrival(&rig, 1, 0x41);
    }
    expect_ok(msi_device_reset(dev));
    fires(&rig, fd);
    expect_quiet(&rig);
    msi_device_free(dev);
}

static void masking_at_the_source_needs_somebody_to_tell(enum host host)
{
    RIG(rig, host);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_eq(msi_vector_bind_eventfd(rig.dev, 0, fd, MSIROUTE_EVENTFD_MASKED_AT_SOURCE), -EINVAL);
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
}

/* INTx: while the capability is off the VMM serves the eventfds itself. */
static void a_vmm_falls_back_to_INTx(enum host host)
{
    RIG(rig, host);
    struct ear ear = { 0 };
    struct msi_device *dev = heard(&rig, &ear, MSIROUTE_KIND_MSIX, 1);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_bind_eventfd(dev, 0, fd, 0));
    expect(!(msi_device_state(dev) & ENABLED));
    fires(&rig, fd);
    expect_eq(take_count(fd), 1);       /* INTx */
    expect_eq(msi_deliver(dev, 0), MSIROUTE_DISABLED);
    open_all(dev, 1);
    expect(ear.what & ENABLE || ear.calls > 1);
    expect(msi_device_state(dev) & ENABLED);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_quiet(&rig);
    msi_device_free(dev);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, one_call_tells_of_each_change_and_none_of_what_is_none),
        TEST(EVERYWHERE, function_wide_changes_are_one_call_for_all_vectors),
        TEST(EVERYWHERE, it_is_told_when_the_change_is_live),
        TEST(EVERYWHERE, it_may_call_the_library),
        TEST(ON_FAKE, a_device_cannot_be_freed_but_closed_from_inside),
        TEST(EVERYWHERE, a_transaction_is_told_of_once_a_device_at_its_commit),
        TEST(EVERYWHERE, while_paused_nothing_is_told_and_at_resume_everything),
        TEST(ON_FAKE, free_waits_until_nobody_is_told),
        TEST(EVERYWHERE, vfio_sees_a_guest_enable_2048_vectors_in_one_call),
        TEST(EVERYWHERE, a_vhost_backend_masks_at_the_source_and_its_irqfd_stays),
        TEST(EVERYWHERE, what_the_source_cannot_know_unbinds_its_irqfd_all_the_same),
        TEST(EVERYWHERE, masking_at_the_source_needs_somebody_to_tell),
        TEST(EVERYWHERE, a_vmm_falls_back_to_INTx),
    };
    return TAP_MAIN(tests);
}
