/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Bug 13 of the list in bugs_host.c: an assertion, or half a change, when a call of the kernel's fails. Whatever a guest or
 * its VMM does, each of the calls that it takes fails in turn: registers are what was written, the caller is told, nothing
 * raised is lost, others are as they were; and when the fault is over everything works. */
#include <errno.h>
#include <stdio.h>

#include "rig.h"

#define LIVE      MSIROUTE_VECTOR_LIVE
#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL
#define UNSERVED  MSIROUTE_VECTOR_UNSERVED
#define MSIX      .kind = MSIROUTE_KIND_MSIX

#define VECTORS 4
struct scene {
    struct rig rig;
    struct msi_device *neighbour;
    int fds[VECTORS], neighbours_fd;
    uint8_t state[512];                 /* what LOAD loads */
};

struct deed {
    const char *name;
    int (*do_it)(struct scene *s);
};
#define DEED(name, expression) static int name(struct scene *s) { return (expression); }
DEED(unmask, guest_unmasks(s->rig.dev, 2))
DEED(mask, guest_masks(s->rig.dev, 0))
DEED(write_message, BOTH(table_write32(s->rig.dev, entry_low(0), (uint32_t)to_apic(1)),
                         table_write32(s->rig.dev, entry_data(0), 0x51)))
DEED(write_no_message, BOTH(table_write64(s->rig.dev, entry_low(0), 0), table_write32(s->rig.dev, entry_data(0), 0)))
DEED(mask_function, guest_controls(s->rig.dev, ENABLE_MSIX | MASK_ALL))
DEED(disable, guest_controls(s->rig.dev, 0))
DEED(mask_and_unmask_function, BOTH(mask_function(s), guest_controls(s->rig.dev, ENABLE_MSIX)))
DEED(reset, msi_device_reset(s->rig.dev))
DEED(pause_cache, msi_route_cache_pause(s->rig.cache))
DEED(load, msi_device_load(s->rig.dev, s->state, msi_device_save_size(s->rig.dev)))
DEED(reset_and_load, BOTH(reset(s), load(s)))
static int resume(struct scene *s)
{
    int result = msi_route_cache_pause(s->rig.cache);
    fires(&s->rig, s->fds[0]);
    expect_eq(msi_deliver(s->rig.dev, 1), MSIROUTE_PENDING);
    return BOTH(result, msi_route_cache_resume(s->rig.cache));
}
#define NAMED(name) { #name, name }
static const struct deed deeds[] = {
    NAMED(unmask), NAMED(mask), NAMED(write_message), NAMED(write_no_message), NAMED(mask_function), NAMED(disable),
    NAMED(mask_and_unmask_function), NAMED(reset), NAMED(pause_cache), NAMED(load), NAMED(reset_and_load), NAMED(resume),
};

struct registers { uint8_t cap[PCI_CAP_MSIX_SIZEOF], table[VECTORS * PCI_MSIX_ENTRY_SIZE]; };

static struct registers registers_of(struct msi_device *dev)
{
    struct registers registers;
    expect_ok(msi_device_export(dev, registers.cap, sizeof(registers.cap), registers.table, sizeof(registers.table), NULL, 0));
    return registers;
}

/* Vectors 0 and 1 are open, 2 and 3 masked, 2 has counted and 3 is pending; the neighbour has one of its own. */
static bool set_the_scene(struct scene *s, uint32_t cache_flags)
{
    if (!rig_open(&s->rig, ON_FAKE, &(struct rig_config){ MSIX, .vectors = VECTORS, .cache_flags = cache_flags }))
        return false;
    struct msi_device *dev = s->rig.dev;
    s->neighbour = rig_device(&s->rig, MSIROUTE_KIND_MSIX, 1);
    guest_opens(dev, VECTORS, 1, 0x71);
    expect_ok(msi_device_save(dev, s->state, msi_device_save_size(dev)));
    guest_opens(dev, VECTORS, 0, 0x41);
    guest_opens(s->neighbour, 1, 0, 0x61);
    for (uint32_t v = 0; v < VECTORS; v++)
        s->fds[v] = rig_bound(&s->rig, v, 0);
    s->neighbours_fd = rig_eventfd(&s->rig, EFD_NONBLOCK);
    expect_ok(msi_vector_bind_eventfd(s->neighbour, 0, s->neighbours_fd, 0));
    expect_ok(guest_masks(dev, 2));
    expect_ok(guest_masks(dev, 3));
    fires(&s->rig, s->fds[2]);
    expect_eq(msi_deliver(dev, 3), MSIROUTE_PENDING);
    return true;
}

/* What the library says, the fake kernel has; the neighbour is as it was, unless it was resumed too. */
static void audit(struct scene *s, bool unbind_failed, bool is_paused, bool was_resumed)
{
    for (uint32_t v = 0; v < VECTORS; v++) {
        struct msi_vector_info info = info_of(s->rig.dev, v);
        uint64_t address = 0;
        uint32_t data = 0;
        if (info.flags & IN_KERNEL)
            expect(fake_route(&s->rig.fake, info.gsi, &address, &data) && address == info.address && data == info.data);
        else if (info.flags & LIVE && !is_paused)
            expect(info.flags & UNSERVED);
        expect(!(info.flags & UNSERVED) || info.error || unbind_failed);
    }
    fires(&s->rig, s->neighbours_fd);
    if (was_resumed && info_of(s->neighbour, 0).flags & UNSERVED)
        expect_eq(pba_read64(s->neighbour, 0), 1);
    else if (!is_paused && !unbind_failed)
        expect_arrival(&s->rig, 0, 0x61);
    expect_eq(s->rig.fake.wrongs, 0);
}

/* The fault is over: everything is opened and works. */
static void make_up_for_it(struct scene *s, bool is_paused)
{
    struct msi_device *dev = s->rig.dev;
    if (is_paused)
        expect_ok(msi_route_cache_resume(s->rig.cache));
    expect_ok(msi_route_cache_commit(s->rig.cache));
    expect_eq(rig_stats(&s->rig).unserved_vectors, 0);
    expect_ok(guest_controls(dev, ENABLE_MSIX | MASK_ALL));
    for (uint32_t v = 0; v < VECTORS; v++)
        expect_ok(BOTH(guest_sets(dev, v, TO(1, 0x81 + v)), BOTH(guest_masks(dev, v), guest_unmasks(dev, v))));
    expect_ok(guest_controls(dev, ENABLE_MSIX));
}

/* What arrives when all is opened: a bit for each of 0x81 to 0x84. What arrived before, whatever it was, is in `all`. */
static unsigned collect(struct scene *s, bool all[256])
{
    unsigned late = 0;
    for (unsigned x = 0; x < 256; x++) {
        bool here = rig_arrivals(&s->rig, 0, x) + rig_arrivals(&s->rig, 1, x);
        all[x] |= here;
        if (here && x >= 0x81 && x < 0x81 + VECTORS)
            late |= 1u << (x - 0x81);
    }
    return late;
}

static void everything_works(struct scene *s)
{
    for (uint32_t v = 0; v < VECTORS; v++) {
        fires(&s->rig, s->fds[v]);
        expect_arrival(&s->rig, 1, 0x81 + v);
        expect_delivers(&s->rig, v, 1, 0x81 + v);
    }
    fires(&s->rig, s->neighbours_fd);
    expect_arrival(&s->rig, 0, 0x61);
    expect_quiet(&s->rig);
    for (uint32_t v = 0; v < VECTORS; v++)
        expect_eq(msi_vector_is_pending(s->rig.dev, v), 0);
}

struct outcome {
    struct registers registers;
    unsigned raised[VECTORS];   /* how often something arrived for it, by whatever message */
    bool struck;
};

/* Any message the vector had in this scene. */
static bool is_of(unsigned x, uint32_t v)
{
    return x == 0x41 + v || x == 0x71 + v || x == 0x81 + v || (v == 0 && x == 0x51);
}

static void close_scene(struct scene *s) { rig_close(&s->rig); }

static struct outcome done_with_a_fault(const struct deed *deed, uint32_t cache_flags, enum fake_call call, unsigned k,
                                        int error, bool lasts)
{
    struct outcome outcome = { 0 };
    __attribute__((cleanup(close_scene))) struct scene s = { 0 };
    bool is_paused = deed->do_it == pause_cache, all[256] = { 0 };
    if (!set_the_scene(&s, cache_flags))
        return outcome;
    if (error)
        fake_fault(&s.rig.fake, call, k, error, lasts);
    int result = deed->do_it(&s);
    bool struck = s.rig.fake.fault.struck, unbind_failed = struck && call == FAKE_UNBIND;
    expect(result == 0 || (struck && result == -error));
    if (struck && lasts)
        expect_eq(result, -error);
    outcome.registers = registers_of(s.rig.dev);
    collect(&s, all);
    audit(&s, unbind_failed, is_paused, deed->do_it == resume);
    collect(&s, all);
    outcome.struck = fake_faultless(&s.rig.fake);
    make_up_for_it(&s, is_paused);
    collect(&s, all);
    for (unsigned x = 0; x < 256; x++)
        for (uint32_t v = 0; v < VECTORS; v++)
            outcome.raised[v] += all[x] && is_of(x, v);
    if (!unbind_failed)
        everything_works(&s);
    return outcome;
}

/* What the guest wrote stands as if nothing had failed, and as many interrupts come. */
static void every_call_fails(const struct deed *deed, uint32_t cache_flags, enum fake_call call)
{
    static const int errors[] = { EINVAL, ENOMEM, ENOSPC, EBUSY, EINTR };
    tap_context("%s, no fault", deed->name);
    struct outcome want = done_with_a_fault(deed, cache_flags, call, 0, 0, false);
    for (unsigned e = 0; e < 2 * sizeof(errors) / sizeof(errors[0]); e++) {
        int error = errors[e / 2];
        for (unsigned k = 1; k < 50; k++) {
            tap_context("%s, %s fails with %s at call %u%s", deed->name, fake_call_name(call), strerrorname_np(error), k,
                        e % 2 ? " and all later" : "");
            struct outcome got = done_with_a_fault(deed, cache_flags, call, k, error, e % 2);
            if (!got.struck)
                break;
            expect(k < 49);
            expect(!memcmp(&got.registers, &want.registers, sizeof(want.registers)));
            for (uint32_t v = 0; v < VECTORS && call != FAKE_UNBIND; v++)
                if (!expect_eq(got.raised[v], want.raised[v]))
                    tap_note("of vector %u", v);
        }
    }
}

#define WHEN(name, flags, call) \
    static void name(enum host host) \
    { \
        (void)host; \
        for (const struct deed *deed = deeds; deed < deeds + sizeof(deeds) / sizeof(deeds[0]); deed++) \
            every_call_fails(deed, flags, call); \
    }
WHEN(bug_13_when_table_writes_fail_registers_stand_and_nothing_is_lost, 0, FAKE_SET_ROUTES)
WHEN(bug_13_when_binds_fail_registers_stand_and_nothing_is_lost, 0, FAKE_BIND)
WHEN(bug_13_when_unbinds_fail_registers_stand, 0, FAKE_UNBIND)
WHEN(bug_13_when_messages_fail_registers_stand_and_nothing_is_lost, 0, FAKE_SIGNAL)
WHEN(bug_13_when_messages_by_routes_fail_registers_stand_and_nothing_is_lost, MSIROUTE_CACHE_NO_DIRECT, FAKE_RAISE)
WHEN(bug_13_when_table_writes_for_them_fail_registers_stand_and_nothing_is_lost, MSIROUTE_CACHE_NO_DIRECT, FAKE_SET_ROUTES)

static void bug_13_the_old_message_is_not_sent_when_there_is_no_route_for_the_new(enum host host)
{
    for (unsigned kept = 0; kept < 2; kept++) {     /* the old route: for another vector, or for nobody */
        RIG(rig, host, MSIX);
        tap_context("the old route is %sused by another", kept ? "" : "not ");
        guest_opens(rig.dev, 2, 0, 0x41);
        int fd = rig_bound(&rig, 0, 0), other = rig_bound(&rig, 1, 0);
        if (kept)
            expect_ok(guest_sets(rig.dev, 1, TO(0, 0x41)));
        fake_fault(&rig.fake, FAKE_SET_ROUTES, 1, ENOMEM, true);
        expect_eq(guest_sets(rig.dev, 0, TO(1, 0x51)), -ENOMEM);
        expect_eq(info_of(rig.dev, 0).flags, MSIROUTE_VECTOR_SET | LIVE | UNSERVED);
        fires(&rig, fd);
        expect_quiet(&rig);
        expect_eq(pba_read64(rig.dev, 0), 1);
        fires(&rig, other);
        expect_arrival(&rig, 0, kept ? 0x41 : 0x42);
        expect(fake_faultless(&rig.fake));
        expect_ok(msi_route_cache_commit(rig.cache));
        expect_arrival(&rig, 1, 0x51);
        expect_quiet(&rig);
        expect_eq(pba_read64(rig.dev, 0), 0);
    }
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ANYWHERE, bug_13_when_table_writes_fail_registers_stand_and_nothing_is_lost),
        TEST(ANYWHERE, bug_13_when_binds_fail_registers_stand_and_nothing_is_lost),
        TEST(ANYWHERE, bug_13_when_unbinds_fail_registers_stand),
        TEST(ANYWHERE, bug_13_when_messages_fail_registers_stand_and_nothing_is_lost),
        TEST(ANYWHERE, bug_13_when_messages_by_routes_fail_registers_stand_and_nothing_is_lost),
        TEST(ANYWHERE, bug_13_when_table_writes_for_them_fail_registers_stand_and_nothing_is_lost),
        TEST(ON_FAKE, bug_13_the_old_message_is_not_sent_when_there_is_no_route_for_the_new),
    };
    return TAP_MAIN(tests);
}
