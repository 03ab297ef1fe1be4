/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Bugs that other VMMs had and that it takes the host for: its kernel's refusals, its order of calls, devices that come and
 * go. The rest of the list is in bugs_guest.c:
 *
 *  4 vector counts      10 order of irqfd and route    11 table written during an unbind    12 one eventfd, two VMs
 * 15 stale routes       19 hostile snapshots           21 two users of a vector            22 data 0
 * 24 dropped devices    26 a delivery that waits for a table write                         13 is in bugs_faults.c */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "rig.h"

#define LIVE      MSIROUTE_VECTOR_LIVE
#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL
#define UNSERVED  MSIROUTE_VECTOR_UNSERVED
#define MSIX      .kind = MSIROUTE_KIND_MSIX

static void bug_04_a_number_of_vectors_that_no_device_has_is_refused(enum host host)
{
    static const struct { uint32_t kind, vectors; } wrong[] = {
        { MSIROUTE_KIND_MSIX, 0 }, { MSIROUTE_KIND_MSIX, 2049 }, { MSIROUTE_KIND_MSIX, 0xFFFF }, { MSIROUTE_KIND_MSIX, UINT32_MAX },
        { MSIROUTE_KIND_PLAIN, 0 }, { MSIROUTE_KIND_PLAIN, 2049 }, { MSIROUTE_KIND_PLAIN, UINT32_MAX },
        { MSIROUTE_KIND_MSI, 0 }, { MSIROUTE_KIND_MSI, 3 }, { MSIROUTE_KIND_MSI, 31 }, { MSIROUTE_KIND_MSI, 33 },
        { MSIROUTE_KIND_MSI, 64 }, { MSIROUTE_KIND_MSI, 1u << 31 }, { MSIROUTE_KIND_PINS, 0 }, { MSIROUTE_KIND_PINS, 2049 },
    };
    RIG(rig, host);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
        struct msi_device *dev = rig.dev;
        tap_context("kind %u, %u vectors", wrong[i].kind, wrong[i].vectors);
        config.kind = wrong[i].kind;
        config.vectors = wrong[i].vectors;
        expect_eq(msi_device_new(rig.cache, &config, &dev), -EINVAL);
        expect(dev == NULL);
        put_registers(&config);
        expect_eq(msi_device_new(rig.cache, &config, &dev), -EINVAL);
        expect(dev == NULL);
    }
}

/* ---- 10 and 11: the fake kernel says when an irqfd has no route, whenever and however that comes about ---- */

static uint32_t noise = 1;
static uint32_t random_below(uint32_t n)
{
    noise = noise * 1664525 + 1013904223;
    return (noise >> 8) % n;
}

static void do_something(struct rig *rig, uint32_t v)
{
    switch (random_below(12)) {
    case 0: guest_masks(rig->dev, v); break;
    case 1: case 2: guest_unmasks(rig->dev, v); break;
    case 3: case 4: guest_sets(rig->dev, v, TO(random_below(2), 0x40 + random_below(8))); break;
    case 5: guest_sets(rig->dev, v, 0, 0); break;
    case 6: guest_controls(rig->dev, ENABLE_MSIX | MASK_ALL); break;
    case 7: case 8: guest_controls(rig->dev, ENABLE_MSIX); break;
    case 9: guest_controls(rig->dev, 0); break;
    case 10: msi_vector_unbind_eventfd(rig->dev, v, -1); break;
    default: msi_vector_bind_eventfd(rig->dev, v, rig->eventfds[v], 0);
    }
    if (random_below(100) == 0)
        msi_device_reset(rig->dev);
    fires(rig, rig->eventfds[v]);
    msi_deliver(rig->dev, v);
}

/* Few routes, many messages: routes are taken, moved and evicted all the time. */
static void bug_10_an_irqfd_has_a_route_from_its_first_moment_to_its_last(enum host host)
{
    enum { VECTORS = 6 };
    for (unsigned direct = 0; direct < 2; direct++) {
        /* (Some are kept for messages where those need a route.) */
        RIG(rig, host, MSIX, .vectors = VECTORS, .max_routes = 24 + (direct ? 4 : 8),
            .cache_flags = direct ? 0 : MSIROUTE_CACHE_NO_DIRECT);
        for (uint32_t v = 0; v < VECTORS; v++)
            rig_bound(&rig, v, 0);
        for (unsigned i = 0; i < 3000 && !rig.fake.wrongs; i++)
            do_something(&rig, random_below(VECTORS));
        expect_eq(rig.fake.wrongs, 0);
        expect(rig.fake.calls[FAKE_BIND] > 100 && rig.fake.calls[FAKE_SET_ROUTES] > 100);
        expect_ok(msi_device_close(rig.dev));
        expect_eq(rig.fake.bound, 0);
    }
}

static struct msi_route_cache_ops kernel;   /* the fake one, behind what follows */
static atomic_bool inside, may_go;          /* of a call that is held up, for two seconds at most */

static void hold_up(void)
{
    atomic_store(&inside, true);
    for (uint64_t end = now_us() + 2000000; !atomic_load(&may_go) && now_us() < end;)
        usleep(100);
    atomic_store(&inside, false);
}

static void wait_until_inside(void)
{
    for (uint64_t end = now_us() + 2000000; !atomic_load(&inside) && now_us() < end;)
        usleep(100);
    expect(atomic_load(&inside));
}

static atomic_uint held_gsi;    /* of an eventfd whose unbind has not returned yet */
static atomic_uint routes_written;

static int unbind_slowly(void *opaque, int fd, uint32_t gsi)
{
    int result = kernel.unbind_irqfd(opaque, fd, gsi);
    atomic_store(&held_gsi, gsi);
    hold_up();
    atomic_store(&held_gsi, 0);
    return result;
}

/* What a held eventfd stands on must be in the table, with the message it had. */
static int check_held_route(void *opaque, const struct kvm_irq_routing_entry *entries, size_t n)
{
    uint32_t gsi = atomic_load(&held_gsi);
    bool found = !gsi;
    for (size_t i = 0; i < n; i++)
        found |= entries[i].gsi == gsi && entries[i].u.msi.data == 0x41;
    if (!found)
        tap_fail(__FILE__, __LINE__, "GSI %u is routed elsewhere while its irqfd is being unbound", gsi);
    atomic_fetch_add(&routes_written, gsi != 0);
    return kernel.set_routes(opaque, entries, n);
}

static void *mask_vector_0(void *dev)
{
    expect_ok(guest_masks(dev, 0));
    return NULL;
}

/* CVE-2026-23198: in posted-interrupt mode the kernel uses the route until the unbind is over. */
static void bug_11_a_route_stays_until_the_unbind_of_its_irqfd_has_returned(enum host host)
{
    struct msi_route_cache_ops ops = kernel = fake_ops(true);
    pthread_t masker;
    ops.unbind_irqfd = unbind_slowly;
    ops.set_routes = check_held_route;
    RIG(rig, host, MSIX, .ops = &ops, .max_routes = 24 + 4);
    struct msi_device *other = rig_device(&rig, MSIROUTE_KIND_MSIX, 4);
    guest_opens(rig.dev, 1, 1, 0x41);
    guest_opens(other, 4, 1, 0x51);
    rig_bound(&rig, 0, 0);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_bind_eventfd(other, 0, fd, 0));
    atomic_store(&may_go, false);
    expect_ok(pthread_create(&masker, NULL, mask_vector_0, rig.dev));
    wait_until_inside();
    for (unsigned i = 0; i < 10; i++)       /* others take routes meanwhile, and want more than there are */
        expect_ok(guest_sets(other, 0, TO(1, 0x60 + i)));
    for (unsigned v = 1; v < 4; v++)
        msi_vector_bind_eventfd(other, v, rig_eventfd(&rig, EFD_NONBLOCK), 0);
    expect(atomic_load(&routes_written));
    atomic_store(&may_go, true);
    pthread_join(masker, NULL);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x69);
}

/* ---- 12 ---- */

static void bug_12_an_eventfd_that_another_VM_has_is_an_error_and_nothing_is_half_done(enum host host)
{
    RIG(rig, host, MSIX);
    RIG(other, host, MSIX);
    guest_opens(rig.dev, 1, 1, 0x41);
    guest_opens(other.dev, 2, 1, 0x51);
    int fd = rig_bound(&rig, 0, 0), neighbour = rig_bound(&other, 1, 0);
    unsigned descriptors = open_descriptors();
    if (host == ON_FAKE)        /* which does not know of the other */
        fake_fault(&other.fake, FAKE_BIND, 1, EBUSY, true);
    int result = msi_vector_bind_eventfd(other.dev, 0, fd, 0);
    if (result == 0) {
        tap_note("this kernel lets two VMs have it");
        return;
    }
    expect_eq(result, -EBUSY);
    expect_eq(open_descriptors(), descriptors);
    expect_eq(info_of(other.dev, 0).eventfds, 0);
    expect_eq(info_of(other.dev, 0).flags, MSIROUTE_VECTOR_SET | LIVE);
    expect_eq(rig_stats(&other).unserved_vectors, 0);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_quiet(&other);

    /* Bound while the vector is masked, it is the guest's unmask that the kernel refuses. */
    expect_ok(guest_masks(other.dev, 0));
    expect_ok(msi_vector_bind_eventfd(other.dev, 0, fd, 0));
    expect_eq(guest_unmasks(other.dev, 0), -EBUSY);
    expect_eq(info_of(other.dev, 0).flags, MSIROUTE_VECTOR_SET | LIVE | UNSERVED);
    expect_eq(info_of(other.dev, 0).error, -EBUSY);
    expect_eq(msi_deliver(other.dev, 0), MSIROUTE_SENT);
    expect_arrival(&other, 1, 0x51);
    fires(&other, neighbour);
    expect_arrival(&other, 1, 0x52);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
    fake_faultless(&other.fake);
    expect_ok(msi_route_cache_commit(other.cache));
    expect(info_of(other.dev, 0).flags & IN_KERNEL);
    fires(&other, fd);
    expect_arrival(&other, 1, 0x51);
    expect_quiet(&rig);
}

/* ---- 15 and 24: who had a GSI has it no more ---- */

static int its_reset(struct rig *rig, int fd)   { (void)fd; return msi_device_reset(rig->dev); }
static int its_close(struct rig *rig, int fd)   { (void)fd; return msi_device_close(rig->dev); }
static int its_mask(struct rig *rig, int fd)    { (void)fd; return guest_masks(rig->dev, 0); }
static int its_disable(struct rig *rig, int fd) { (void)fd; return guest_controls(rig->dev, 0); }
static int its_clear(struct rig *rig, int fd)   { (void)fd; return msi_vector_clear(rig->dev, 0); }
static int its_unbind(struct rig *rig, int fd)  { return msi_vector_unbind_eventfd(rig->dev, 0, fd); }
static int its_free(struct rig *rig, int fd)
{
    (void)fd;
    msi_device_free(rig_take_device(rig));
    return 0;
}

/* There is one GSI: whoever comes next has it too. */
static void another_takes_its_GSI(enum host host, int (*leave)(struct rig *, int))
{
    RIG(rig, host, MSIX, .irqchip = SPLIT_IRQCHIP, .max_routes = 24 + 1);
    struct msi_device *next = rig_device(&rig, MSIROUTE_KIND_MSIX, 1);
    guest_opens(rig.dev, 1, 1, 0x41);
    guest_opens(next, 1, 1, 0x52);
    int old = rig_bound(&rig, 0, 0), fd = rig_eventfd(&rig, EFD_NONBLOCK);
    fires(&rig, old);
    expect_arrival(&rig, 1, 0x41);
    expect_eq(info_of(rig.dev, 0).gsi, 24);
    expect_eq(msi_vector_bind_eventfd(next, 0, fd, 0), -ENOSPC);
    expect_ok(leave(&rig, old));
    fires(&rig, old);
    expect_quiet(&rig);
    expect_ok(msi_vector_bind_eventfd(next, 0, fd, 0));
    expect_eq(info_of(next, 0).gsi, 24);
    for (unsigned i = 0; i < 3; i++) {
        fires(&rig, old);
        expect_quiet(&rig);
        fires(&rig, fd);
        expect_arrival(&rig, 1, 0x52);
    }
    expect_eq(rig_stats(&rig).routes, 1);
    expect_quiet(&rig);
}

static void bug_15_who_takes_a_GSI_over_never_gets_the_old_message(enum host host)
{
    static int (*const ways[])(struct rig *, int) = { its_reset, its_close, its_mask, its_disable, its_clear, its_unbind };
    for (unsigned way = 0; way < sizeof(ways) / sizeof(ways[0]); way++) {
        tap_context("way %u", way);
        another_takes_its_GSI(host, ways[way]);
    }
}

static void bug_24_a_dropped_device_leaves_neither_irqfds_nor_descriptors(enum host host)
{
    another_takes_its_GSI(host, its_free);
    RIG(rig, host, MSIX, .vectors = 16);
    int fds[16];
    for (uint32_t v = 0; v < 16; v++)
        fds[v] = rig_eventfd(&rig, EFD_NONBLOCK);
    for (unsigned turn = 0; turn < 20; turn++) {
        unsigned descriptors = open_descriptors();
        struct msi_device *dev = rig_device(&rig, MSIROUTE_KIND_MSIX, 16);
        guest_opens(dev, 16, 1, 0x40 + turn);
        for (uint32_t v = 0; v < 16; v++)
            expect_ok(msi_vector_bind_eventfd(dev, v, fds[v], 0));
        rig.devices[--rig.n_devices] = NULL;
        msi_device_free(dev);
        expect_eq(open_descriptors(), descriptors);
        expect_eq(rig_stats(&rig).routes_pinned, 0);
        for (uint32_t v = 0; v < 16; v++)
            fires(&rig, fds[v]);
        expect_quiet(&rig);
        for (uint32_t v = 0; v < 16; v++)
            expect_eq(take_count(fds[v]), 1);
    }
}

/* ---- 19; more in savestate.c ---- */

static void bug_19_a_hostile_snapshot_is_refused_and_what_eventfds_hold_survives(enum host host)
{
    enum { N = 3 };
    static const struct { size_t at; uint8_t value; int want; } lies[] = {
        { 0, 'X', -EINVAL }, { 4, 2, -ENOTSUP }, { 4, 0xFF, -ENOTSUP }, { 6, 2, -EINVAL }, { 6, 0, -EINVAL },
        { 8, N + 1, -EINVAL }, { 8, 0, -EINVAL }, { 11, 0xFF, -EINVAL }, { 15, 0x80, -EINVAL },
    };
    RIG(rig, host, MSIX, .vectors = N);
    uint8_t good[512], bytes[513], after[512];
    size_t size = msi_device_save_size(rig.dev);
    guest_opens(rig.dev, N, 1, 0x41);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(guest_masks(rig.dev, 0));
    fires(&rig, fd);
    expect_ok(msi_device_save(rig.dev, good, size));
    for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        tap_context("byte %zu is %#x", lies[i].at, lies[i].value);
        memcpy(bytes, good, size);
        bytes[lies[i].at] = lies[i].value;
        expect_eq(msi_device_load(rig.dev, bytes, size), lies[i].want);
        expect_ok(msi_device_save(rig.dev, after, size));
        expect(!memcmp(good, after, size));
    }
    tap_context("lengths");
    for (size_t len = 0; len <= sizeof(bytes); len++)
        expect_eq(msi_device_load(rig.dev, good, len), len == size ? 0 : -EINVAL);
    expect_quiet(&rig);
    expect_eq(pba_read64(rig.dev, 0), 1);
    expect_ok(guest_unmasks(rig.dev, 0));
    expect_arrival(&rig, 1, 0x41);
    expect_quiet(&rig);
}

/* ---- 21 ---- */

static void bug_21_who_lets_a_vector_go_does_not_silence_its_other_users(enum host host)
{
    RIG(rig, host, MSIX);
    struct msi_device *other = rig_device(&rig, MSIROUTE_KIND_MSIX, 1);
    guest_opens(rig.dev, 1, 1, 0x41);
    guest_opens(other, 1, 1, 0x41);         /* the same message: the same route */
    int first = rig_bound(&rig, 0, 0), second = rig_bound(&rig, 0, 0), third = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_bind_eventfd(other, 0, third, 0));
    expect(msi_device_ref(rig.dev) == rig.dev);
    msi_device_free(rig.dev);               /* one owner of two */
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, first));
    fires(&rig, second);
    expect_arrival(&rig, 1, 0x41);
    fires(&rig, third);
    expect_arrival(&rig, 1, 0x41);
    expect_ok(guest_masks(rig.dev, 0));
    fires(&rig, third);
    expect_arrival(&rig, 1, 0x41);
    expect_ok(guest_unmasks(rig.dev, 0));
    expect_ok(msi_device_close(other));
    fires(&rig, second);
    expect_arrival(&rig, 1, 0x41);
    expect_delivers(&rig, 0, 1, 0x41);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, second));
    expect_delivers(&rig, 0, 1, 0x41);
    fires(&rig, first);
    fires(&rig, second);
    fires(&rig, third);
    expect_quiet(&rig);
}

/* ---- 22 ---- */

static void bug_22_data_0_is_a_message_unless_the_device_says_otherwise(enum host host)
{
    for (unsigned off = 0; off < 2; off++) {
        RIG(rig, host, MSIX, .device_flags = off ? MSIROUTE_DEVICE_DATA0_OFF : 0);
        tap_context("%s the option", off ? "with" : "without");
        guest_opens(rig.dev, 2, 1, 0x41);
        int fd = rig_bound(&rig, 0, 0);
        expect_ok(guest_sets(rig.dev, 0, to_apic(1), 0));
        expect_eq(info_of(rig.dev, 0).flags & LIVE, off ? 0 : LIVE);
        expect_eq(info_of(rig.dev, 0).flags & IN_KERNEL, off ? 0 : IN_KERNEL);
        fires(&rig, fd);
        if (host != ON_KVM && !off) {       /* whose APICs have no vector 0 */
            expect_arrival(&rig, 1, 0);
            expect_delivers(&rig, 0, 1, 0);
        }
        expect_eq(pba_read64(rig.dev, 0), off);
        expect_ok(guest_sets(rig.dev, 0, to_apic(1), 0x43));
        if (off)
            expect_arrival(&rig, 1, 0x43);
        fires(&rig, fd);
        expect_arrival(&rig, 1, 0x43);
        expect_delivers(&rig, 1, 1, 0x42);
    }
}

/* ---- 26 ---- */

static atomic_bool slow_table;

static int write_slowly(void *opaque, const struct kvm_irq_routing_entry *entries, size_t n)
{
    int result = kernel.set_routes(opaque, entries, n);
    if (atomic_load(&slow_table))
        hold_up();
    return result;
}

static void *give_vector_0_another_message(void *dev)
{
    expect_ok(guest_sets(dev, 0, TO(1, 0x61)));
    return NULL;
}

static void *unmask_vector_2(void *dev)
{
    expect_ok(guest_unmasks(dev, 2));
    return NULL;
}

static void deliveries_go_on_beside(struct rig *rig, struct msi_device *other, void *(*change)(void *), unsigned first)
{
    pthread_t changer;
    atomic_store(&may_go, false);
    atomic_store(&slow_table, true);
    expect_ok(pthread_create(&changer, NULL, change, rig->dev));
    wait_until_inside();
    for (unsigned i = 0; i < 10; i++) {
        expect_delivers(rig, 0, 1, first);
        expect_delivers(rig, 1, 1, 0x42);
        expect_eq(msi_deliver(other, 0), MSIROUTE_SENT);
        expect_arrival(rig, 1, 0x51);
        expect_eq(msi_deliver_message(rig->cache, MSIROUTE_NO_REQUESTER, TO(0, 0x90), 0), MSIROUTE_SENT);
        expect_arrival(rig, 0, 0x90);
        expect_eq(msi_deliver(rig->dev, 3), MSIROUTE_PENDING);      /* masked */
    }
    expect_ok(guest_masks(other, 0));       /* nor does another device's guest wait */
    expect_ok(guest_unmasks(other, 0));
    expect_eq(pba_read64(rig->dev, 0), 8);
    expect(atomic_load(&inside));           /* all the while */
    atomic_store(&may_go, true);
    pthread_join(changer, NULL);
    atomic_store(&slow_table, false);
}

/* cloud-hypervisor: held up by as long as the write of a large table takes. */
static void bug_26_a_delivery_does_not_wait_for_a_write_of_the_table(enum host host)
{
    struct msi_route_cache_ops ops = kernel = fake_ops(true);
    ops.set_routes = write_slowly;
    RIG(rig, host, MSIX, .ops = &ops);
    struct msi_device *other = rig_device(&rig, MSIROUTE_KIND_MSIX, 1);
    guest_opens(rig.dev, 3, 1, 0x41);
    guest_opens(other, 1, 1, 0x51);
    expect_ok(guest_masks(rig.dev, 2));
    int fd = rig_bound(&rig, 0, 0);
    rig_bound(&rig, 2, 0);
    deliveries_go_on_beside(&rig, other, give_vector_0_another_message, 0x61);
    deliveries_go_on_beside(&rig, other, unmask_vector_2, 0x61);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x61);
    expect_quiet(&rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, bug_04_a_number_of_vectors_that_no_device_has_is_refused),
        TEST(ON_FAKE, bug_10_an_irqfd_has_a_route_from_its_first_moment_to_its_last),
        TEST(ON_FAKE, bug_11_a_route_stays_until_the_unbind_of_its_irqfd_has_returned),
        TEST(ON_KVM | ON_FAKE, bug_12_an_eventfd_that_another_VM_has_is_an_error_and_nothing_is_half_done),
        TEST(ON_KVM | ON_FAKE, bug_15_who_takes_a_GSI_over_never_gets_the_old_message),
        TEST(EVERYWHERE, bug_19_a_hostile_snapshot_is_refused_and_what_eventfds_hold_survives),
        TEST(EVERYWHERE, bug_21_who_lets_a_vector_go_does_not_silence_its_other_users),
        TEST(EVERYWHERE, bug_22_data_0_is_a_message_unless_the_device_says_otherwise),
        TEST(ON_KVM | ON_FAKE, bug_24_a_dropped_device_leaves_neither_irqfds_nor_descriptors),
        TEST(ON_FAKE, bug_26_a_delivery_does_not_wait_for_a_write_of_the_table),
    };
    return TAP_MAIN(tests);
}
