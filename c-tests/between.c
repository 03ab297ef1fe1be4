/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Opening a vector takes time: its route is staged, the kernel's table is written, its eventfds are bound. Whatever
 * the guest does in between on another vCPU holds: what it has shut stays shut, and what was raised meanwhile is not
 * lost. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "calls.h"
#include "lanes.h"
#include "rig.h"

/* How long the kernel's call is held up for the other thread: it need not wait for most writes of the table; for a
 * bind it has to, and for the write if it opens something itself. */
#define WRITE_US  50000
#define BIND_US   5000
#define ENOUGH_US 5000000

static int fd;              /* of vector 0 of the rig's device */

/* Messages of vector 0. */
#define OLD    TO(0, 0x41)
#define NEW    TO(1, 0x51)
#define OTHERS TO(0, 0x61)

/* ---- what one thread does ---- */

struct opening {
    const char *name;
    bool (*prepare)(struct rig *rig);
    int (*open)(struct rig *rig);
    bool was_open;          /* events do not wait for it */
};

static int set_enabled(struct rig *rig, uint32_t more)
{
    return msi_device_set_control(rig->dev, MSIROUTE_ENABLED | more);
}
static int bind_it(struct rig *rig)      { return msi_vector_bind_eventfd(rig->dev, 0, fd, 0); }
static int unbind_it(struct rig *rig)    { return msi_vector_unbind_eventfd(rig->dev, 0, fd); }
static int unmask(struct rig *rig)       { return msi_vector_unmask(rig->dev, 0); }
static int set_new(struct rig *rig)      { return msi_vector_set(rig->dev, 0, NEW); }
static int enable(struct rig *rig)       { return set_enabled(rig, 0); }
static int bus_master(struct rig *rig)   { return msi_device_set_bus_master(rig->dev, 1); }
static int commit(struct rig *rig)       { return msi_route_cache_commit(rig->cache); }
static int resume(struct rig *rig)       { return msi_route_cache_resume(rig->cache); }

static bool live_but_for_the_mask(struct rig *rig)
{
    return expect_ok(enable(rig)) && expect_ok(set_new(rig)) && expect_ok(bind_it(rig));
}
static bool live_but_for_the_eventfd(struct rig *rig)
{
    return expect_ok(enable(rig)) && expect_ok(set_new(rig)) && expect_ok(unmask(rig));
}
static bool live_but_for_enable(struct rig *rig)
{
    return expect_ok(set_new(rig)) && expect_ok(unmask(rig)) && expect_ok(bind_it(rig));
}
static bool live_but_for_the_function_mask(struct rig *rig)
{
    return expect_ok(set_enabled(rig, MSIROUTE_FUNCTION_MASKED)) && live_but_for_enable(rig);
}
static bool live_but_for_bus_master(struct rig *rig)
{
    return expect_ok(msi_device_set_bus_master(rig->dev, 0)) && expect_ok(enable(rig)) && live_but_for_enable(rig);
}
static bool live_but_for_the_commit(struct rig *rig)
{
    return expect_ok(msi_route_cache_begin(rig->cache)) && live_but_for_the_mask(rig) && expect_ok(unmask(rig));
}
static bool live_but_paused(struct rig *rig)
{
    return expect_ok(msi_route_cache_pause(rig->cache)) && live_but_for_the_mask(rig) && expect_ok(unmask(rig));
}
static bool live_with_the_old(struct rig *rig)
{
    return expect_ok(enable(rig)) && expect_ok(msi_vector_set(rig->dev, 0, OLD)) && expect_ok(unmask(rig))
        && expect_ok(bind_it(rig));
}
/* So that it cannot change in place. */
static bool live_with_the_old_in_company(struct rig *rig)
{
    return live_with_the_old(rig) && expect_ok(msi_vector_set(rig->dev, 1, OLD))
        && expect_ok(msi_vector_unmask(rig->dev, 1)) && rig_bound(rig, 1, 0) >= 0;
}
static bool staged_with_the_old(struct rig *rig)
{
    return live_with_the_old(rig) && expect_ok(msi_route_cache_begin(rig->cache)) && expect_ok(set_new(rig));
}

static const struct opening openings[] = {
    { "unmask",               live_but_for_the_mask,          unmask,     false },
    { "bind",                 live_but_for_the_eventfd,       bind_it,    false },
    { "enable",               live_but_for_enable,            enable,     false },
    { "function mask off",    live_but_for_the_function_mask, enable,     false },
    { "bus master on",        live_but_for_bus_master,        bus_master, false },
    { "commit",               live_but_for_the_commit,        commit,     false },
    { "resume",               live_but_paused,                resume,     false },
    { "set",                  live_with_the_old,              set_new,    true },
    { "set in company",       live_with_the_old_in_company,   set_new,    true },
    { "set and commit",       staged_with_the_old,            commit,     true },
};
#define OPENINGS (sizeof(openings) / sizeof(openings[0]))

/* ---- what the other does ---- */

struct interjection {
    const char *name;
    int (*shut)(struct rig *rig);
    int (*open)(struct rig *rig);   /* again; NULL: never */
    bool keeps;                     /* what is raised meanwhile is sent then */
};

static int mask(struct rig *rig)           { return msi_vector_mask(rig->dev, 0); }
static int mask_function(struct rig *rig)  { return set_enabled(rig, MSIROUTE_FUNCTION_MASKED); }
static int disable(struct rig *rig)        { return msi_device_set_control(rig->dev, 0); }
static int no_bus_master(struct rig *rig)  { return msi_device_set_bus_master(rig->dev, 0); }
static int clear(struct rig *rig)          { return msi_vector_clear(rig->dev, 0); }
static int set_others(struct rig *rig)     { return msi_vector_set(rig->dev, 0, OTHERS); }
static int pause_it(struct rig *rig)       { return msi_route_cache_pause(rig->cache); }
static int close_it(struct rig *rig)       { return msi_device_close(rig->dev); }
static int mask_and_set(struct rig *rig)   { return BOTH(mask(rig), set_others(rig)); }
static int open_and_mask(struct rig *rig)  { return mask(rig) || unmask(rig) || mask(rig); }

static const struct interjection interjections[] = {
    { "mask",                 mask,          unmask,      true },
    { "mask and set",         mask_and_set,  unmask,      true },
    { "mask, unmask, mask",   open_and_mask, unmask,      true },
    { "function mask",        mask_function, enable,      true },
    { "disable",              disable,       enable,      false },
    { "bus master off",       no_bus_master, bus_master,  true },
    { "clear",                clear,         set_others,  true },
    { "pause",                pause_it,      resume,      true },
    { "unbind",               unbind_it,     bind_it,     true },
    { "close",                close_it,      NULL,        false },
};
#define INTERJECTIONS (sizeof(interjections) / sizeof(interjections[0]))

/* ---- both at once ---- */

static struct { struct rig *rig; const struct interjection *what; int result; } cut_in;
static atomic_int stage;    /* 1: the call to hold up has been reached; 2: it was not, and the other is to go on */
static atomic_bool done, was_done;      /* the second: when the call that was held up went on */

static void *interject(void *unused)
{
    while (atomic_load(&stage) < 1)
        sched_yield();
    cut_in.result = cut_in.what->shut(cut_in.rig);
    atomic_store(&done, true);
    return unused;
}

static void hold_up_for(uint64_t us)
{
    int before = 0;
    if (!atomic_compare_exchange_strong(&stage, &before, 1))
        return;
    for (uint64_t end = now_us() + us; !atomic_load(&done) && now_us() < end;)
        usleep(100);
    atomic_store(&was_done, atomic_load(&done));
}

static void hold_up_write(void)   { hold_up_for(WRITE_US); }
static void hold_up_bind(void)    { hold_up_for(BIND_US); }
static void hold_up_enough(void)  { hold_up_for(ENOUGH_US); }

static bool drain(struct rig *rig)
{
    unsigned arrived = 0;
    for (unsigned cpu = 0; cpu < 2; cpu++)
        for (unsigned vector = 0x41; vector <= 0x61; vector += 0x10)
            arrived += rig_arrivals(rig, cpu, vector);
    return arrived > 0;
}

static void expect_its_message(struct rig *rig)
{
    struct msi_vector_info info = info_of(rig->dev, 0);
    expect_arrival(rig, (unsigned)(info.address >> 12 & 0xFF), info.data);
}

/* Whether the interjection was over before the call that was held up went on. */
static bool meet_in(enum host host, enum call call, const struct opening *opening,
                    const struct interjection *interjection)
{
    __attribute__((cleanup(rig_close))) struct rig rig;
    pthread_t thread;
    if (!rig_open(&rig, host, &(struct rig_config){ .kind = MSIROUTE_KIND_MSIX, .vectors = 2 }))
        return false;
    tap_context("%s during %s", interjection->name, opening->name);
    fd = rig_eventfd(&rig, EFD_NONBLOCK);
    if (!opening->prepare(&rig))
        return false;
    if (!opening->was_open)
        add_to_eventfd(fd, 1);
    cut_in.rig = &rig;
    cut_in.what = interjection;
    atomic_store(&stage, 0);
    atomic_store(&done, false);
    atomic_store(&was_done, false);
    pthread_create(&thread, NULL, interject, NULL);
    calls_inside(call, call == CALL_WRITE ? hold_up_write : hold_up_bind);
    int opened = opening->open(&rig);
    bool was_faster = atomic_load(&was_done);
    int unreached = 0;
    atomic_compare_exchange_strong(&stage, &unreached, 2);      /* nothing was to be held up: it comes after */
    pthread_join(thread, NULL);
    calls_inside(call, NULL);

    bool gone = interjection->shut == unbind_it && opening->open == bind_it;
    expect(opened == 0 || interjection->shut == close_it || gone);
    expect(cut_in.result == 0 || (gone && cut_in.result == -ENOENT));
    bool came = drain(&rig);
    if (opening->was_open || (was_faster && interjection->shut != open_and_mask))
        expect(!came);          /* nothing was raised while it was open */
    fires(&rig, fd);
    expect_quiet(&rig);
    if (interjection->open) {
        if (interjection->shut == unbind_it && info_of(rig.dev, 0).eventfds)
            expect(gone);       /* it came too early to find anything */
        else
            expect_ok(interjection->open(&rig));
        if (interjection->keeps)
            expect_its_message(&rig);
        else
            drain(&rig);
        fires(&rig, fd);
        expect_its_message(&rig);
        expect_quiet(&rig);
        expect_ok(mask(&rig));
        fires(&rig, fd);
        expect_quiet(&rig);
        expect_ok(unmask(&rig));
        expect_its_message(&rig);
        expect_quiet(&rig);
        expect_eq(rig_stats(&rig).unserved_vectors, 0);
    } else {
        expect(take_count(fd) >= 1);
    }
    /* No pin was forgotten. */
    while (rig.n_devices)
        msi_device_free(rig.devices[--rig.n_devices]);
    expect_eq(rig_stats(&rig).routes_pinned, 0);
    return was_faster;
}

static void meet_in_each(enum host host, enum call call)
{
    unsigned faster = 0;
    for (size_t o = 0; o < OPENINGS; o++)
        for (size_t i = 0; i < INTERJECTIONS; i++)
            faster += meet_in(host, call, &openings[o], &interjections[i]);
    tap_context("%s", "");
    tap_note("%u of %zu were over before it went on", faster, OPENINGS * INTERJECTIONS);
    /* Nobody is kept from shutting a vector by the write of a table. */
    expect(call != CALL_WRITE || faster > OPENINGS * INTERJECTIONS / 2);
}

static void what_is_shut_while_its_route_is_written_stays_shut(enum host host)
{
    meet_in_each(host, CALL_WRITE);
}

static void what_is_shut_while_its_eventfd_is_bound_stays_shut(enum host host)
{
    meet_in_each(host, CALL_BIND);
}

/* ---- many ---- */

#define MANY 1024
static struct rig *crowd;

static void *mask_every_other(void *unused)
{
    while (atomic_load(&stage) < 1)
        sched_yield();
    for (unsigned i = 0; i < MANY; i += 2)
        expect_ok(msi_vector_mask(crowd->dev, i));
    atomic_store(&done, true);
    for (unsigned i = 1; i < MANY; i += 8)      /* beside, some get another message */
        expect_ok(msi_vector_set(crowd->dev, i, TO(5 + nth_cpu(i), nth_vector(i))));
    return unused;
}

static void half_of_a_big_transaction_is_masked_while_its_table_is_written(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP, .cpus = 10, .vectors = MANY);
    pthread_t thread;
    crowd = &rig;
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < MANY; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i)));
        rig_bound(&rig, i, MSIROUTE_EVENTFD_BORROWED);
    }
    for (unsigned i = 0; i < MANY; i += 4)
        fires(&rig, rig.eventfds[i]);       /* counted; of vectors that will be masked */
    atomic_store(&stage, 0);
    atomic_store(&done, false);
    atomic_store(&was_done, false);
    pthread_create(&thread, NULL, mask_every_other, NULL);
    calls_inside(CALL_WRITE, hold_up_enough);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect(atomic_load(&was_done));     /* no mask had to wait for the table */
    pthread_join(thread, NULL);
    calls_inside(CALL_WRITE, NULL);
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
    for (unsigned turn = 0; turn < 2; turn++) {
        for (unsigned i = 0; i < MANY; i++) {
            unsigned cpu = nth_cpu(i) + (i % 8 == 1 ? 5 : 0);
            bool masked = turn == 0 && i % 2 == 0;
            expect_eq(!!(info_of(rig.dev, i).flags & MSIROUTE_VECTOR_IN_KERNEL), !masked);
            if (turn == 0 || i % 2)
                fires(&rig, rig.eventfds[i]);
            if (!masked)
                expect_arrival(&rig, cpu, nth_vector(i));   /* at the second turn, of the masked ones: what was kept */
        }
        expect_quiet(&rig);
        if (turn == 0) {
            expect_ok(msi_route_cache_begin(rig.cache));
            for (unsigned i = 0; i < MANY; i += 2)
                expect_ok(msi_vector_unmask(rig.dev, i));
            expect_ok(msi_route_cache_commit(rig.cache));
        }
    }
}

/* ---- as it comes ---- */

#define ROUNDS 600
#define CHOICE 8        /* messages of the vector: at vCPU 1, from 0x40 on */

static atomic_bool over;

static void *keep_arming(void *opaque)
{
    struct rig *rig = opaque;
    int second = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    while (!atomic_load(&over)) {
        switch (chance() % 4) {
        case 0:
            expect_ok(msi_vector_bind_eventfd(rig->dev, 0, second, 0));
            expect_ok(msi_vector_unbind_eventfd(rig->dev, 0, second));
            break;
        case 1:     /* both in one transaction */
            expect_ok(msi_route_cache_begin(rig->cache));
            expect_ok(msi_vector_set(rig->dev, 0, TO(1, 0x40 + chance() % CHOICE)));
            expect_ok(msi_vector_set(rig->dev, 1, TO(1, 0x40 + chance() % CHOICE)));
            expect_ok(msi_route_cache_commit(rig->cache));
            break;
        default:
            expect_ok(msi_vector_set(rig->dev, 0, TO(1, 0x40 + chance() % CHOICE)));
        }
    }
    close(second);
    return NULL;
}

static unsigned take_arrivals(struct rig *rig)
{
    uint8_t irr[256];
    unsigned n = 0;
    cpu_arrived(&rig->vm, 1, irr);
    for (unsigned vector = 0; vector < 256; vector++)
        if (irr[vector])
            n++, cpu_forget(&rig->vm, 1, vector);
    return n;
}

static void let_others_run(void)
{
    if (chance() % 4 == 0)
        usleep(100);
    else
        sched_yield();
}

static void a_mask_holds_against_a_thread_that_arms_all_the_time(enum host host)
{
    RIG(rig, host, .vectors = 2);
    pthread_t thread;
    unsigned while_masked = 0, lost = 0, doubled = 0;
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x40)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x40)));
    int mine = rig_bound(&rig, 0, 0);
    rig_bound(&rig, 1, 0);      /* never signalled: its company makes entries shared and not */
    atomic_store(&over, false);
    calls_inside(CALL_WRITE, let_others_run);
    pthread_create(&thread, NULL, keep_arming, &rig);
    for (unsigned round = 0; round < ROUNDS; round++) {
        expect_ok(msi_vector_mask(rig.dev, 0));
        take_arrivals(&rig);
        fires(&rig, mine);
        dawdle(2000);
        while_masked += take_arrivals(&rig);
        expect_ok(msi_vector_unmask(rig.dev, 0));
        unsigned arrived = 0;
        for (uint64_t end = now_us() + 1000000; !arrived && now_us() < end;)
            arrived = take_arrivals(&rig);
        lost += !arrived;
        doubled += arrived > 1;
        if (lost)
            break;
        fires(&rig, mine);      /* open: wherever it goes, it goes there once */
        arrived = 0;
        for (uint64_t end = now_us() + 1000000; !arrived && now_us() < end;)
            arrived = take_arrivals(&rig);
        lost += !arrived;
        doubled += arrived > 1;
    }
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    calls_inside(CALL_WRITE, NULL);
    expect_eq(while_masked, 0);
    expect_eq(lost, 0);
    expect_eq(doubled, 0);
    take_arrivals(&rig);
    fires(&rig, mine);
    expect_its_message(&rig);
    expect_quiet(&rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_KVM, what_is_shut_while_its_route_is_written_stays_shut),
        TEST(ON_KVM, what_is_shut_while_its_eventfd_is_bound_stays_shut),
        TEST(ON_KVM, half_of_a_big_transaction_is_masked_while_its_table_is_written),
        TEST(ON_KVM, a_mask_holds_against_a_thread_that_arms_all_the_time),
    };
    return TAP_MAIN(tests);
}
