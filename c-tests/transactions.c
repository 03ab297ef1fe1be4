/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Transactions, by the calls that reach the kernel: one write for any number of changes, none before the outermost
 * commit, and when the kernel refuses, everything is as the header says. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "calls.h"
#include "lanes.h"
#include "rig.h"

#define SPLIT(rig, host, ...) RIG(rig, host, .irqchip = SPLIT_IRQCHIP, __VA_ARGS__)
#define UNSERVED  MSIROUTE_VECTOR_UNSERVED
#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL

typedef struct kvm_irq_routing_entry entry_t;

static entry_t message(unsigned cpu, unsigned vector)
{
    return (entry_t){ .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = (uint32_t)to_apic(cpu), .data = vector } };
}

/* The IOAPIC has no such pin: KVM refuses the whole table. */
static entry_t nonsense(void)
{
    return (entry_t){ .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { .irqchip = KVM_IRQCHIP_IOAPIC, .pin = 200 } };
}

static uint32_t added(struct rig *rig, entry_t entry)
{
    uint32_t gsi = MSIROUTE_ANY_GSI;
    expect_ok(msi_route_cache_add_route(rig->cache, &entry, 0, &gsi));
    return gsi;
}

static int updated(struct rig *rig, uint32_t gsi, entry_t entry)
{
    return msi_route_cache_update_route(rig->cache, gsi, &entry);
}

static int bound_to(struct rig *rig, uint32_t gsi)
{
    int fd = rig_eventfd(rig, EFD_NONBLOCK);
    expect_ok(msi_route_cache_bind_irqfd(rig->cache, gsi, fd, -1));
    return fd;
}

static bool last_error_names(uint32_t gsi)
{
    char name[32];
    snprintf(name, sizeof(name), "GSI %u", gsi);
    const char *at = strstr(msi_route_cache_last_error(), name);
    return at && !(at[strlen(name)] >= '0' && at[strlen(name)] <= '9');
}

/* ---- one write ---- */

static void changes_of_2048_eventfds_on_16_devices_are_one_write(enum host host)
{
    enum { DEVICES = 16, EACH = 128, ALL = DEVICES * EACH, ROUND = 200 };
    SPLIT(rig, host, .cpus = 10, .cache_flags = MSIROUTE_CACHE_HELPER_THREADS);      /* to close devices sooner */
    struct msi_device *devices[DEVICES];
    static int fds[ALL];
    uint64_t writes = calls(CALL_WRITE), binds = calls(CALL_BIND), unbinds = calls(CALL_UNBIND);

    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < ALL; i++) {
        if (i % EACH == 0)
            devices[i / EACH] = rig_device(&rig, i / EACH % 2 ? MSIROUTE_KIND_PLAIN : MSIROUTE_KIND_MSIX, EACH);
        struct msi_device *dev = devices[i / EACH];
        expect_ok(msi_vector_set(dev, i % EACH, TO_NTH(i)));
        expect_ok(msi_vector_unmask(dev, i % EACH));
        fds[i] = rig_eventfd(&rig, EFD_NONBLOCK);
        expect_ok(msi_vector_bind_eventfd(dev, i % EACH, fds[i], MSIROUTE_EVENTFD_BORROWED));
        if (i % EACH == EACH - 1 && i / EACH % 2 == 0)
            expect_ok(msi_device_set_control(dev, MSIROUTE_ENABLED));
    }
    expect_eq(calls(CALL_WRITE) - writes, 0);
    expect_eq(calls(CALL_BIND) - binds, 0);
    fires(&rig, fds[5]);
    expect_quiet(&rig);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_arrival(&rig, nth_cpu(5), nth_vector(5));
    expect_eq(calls(CALL_WRITE) - writes, 1);
    expect_eq(calls(CALL_BIND) - binds, ALL);
    expect_eq(table_entries(), ALL);
    for (unsigned i = 0; i < ALL; i++) {
        fires(&rig, fds[i]);
        expect_arrival(&rig, nth_cpu(i), nth_vector(i));
    }
    expect_quiet(&rig);

    /* All get new messages: in place, with no gap in which they are not bound. */
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < ALL; i++)
        expect_ok(msi_vector_set(devices[i / EACH], i % EACH, TO(20 + nth_cpu(i), nth_vector(i))));
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(calls(CALL_WRITE) - writes, 2);
    expect_eq(calls(CALL_BIND) - binds, ALL);
    expect_eq(calls(CALL_UNBIND) - unbinds, 0);
    expect_eq(table_entries(), ALL);
    for (unsigned i = 0; i < ALL; i++)
        expect(table_has(info_of(devices[i / EACH], i % EACH).gsi, TO(20 + nth_cpu(i), nth_vector(i))));

    /* And back, each to its neighbour's. */
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < ALL; i++)
        expect_ok(msi_vector_set(devices[i / EACH], i % EACH, TO_NTH((i + 1) % ALL)));
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(calls(CALL_WRITE) - writes, 3);
    for (unsigned i = 0; i < ALL; i++) {
        fires(&rig, fds[i]);
        expect_arrival(&rig, nth_cpu((i + 1) % ALL), nth_vector((i + 1) % ALL));
    }
    expect_quiet(&rig);

    /* Messages that go round among those who have them are all there already. */
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < ROUND; i++)
        expect_ok(msi_vector_set(devices[i / EACH], i % EACH, TO_NTH((i + 2) % ROUND)));
    expect_ok(msi_route_cache_commit(rig.cache));
    expect(calls(CALL_WRITE) - writes <= 4);
    for (unsigned i = 0; i < ROUND; i++) {
        fires(&rig, fds[i]);
        expect_arrival(&rig, nth_cpu((i + 2) % ROUND), nth_vector((i + 2) % ROUND));
    }
    expect_quiet(&rig);
}

static void only_the_outermost_commit_writes(enum host host)
{
    enum { DEPTH = 5 };
    SPLIT(rig, host, .vectors = 2 * DEPTH);
    uint64_t writes = calls(CALL_WRITE), binds = calls(CALL_BIND);
    uint32_t gsis[DEPTH];
    int fds[2 * DEPTH], explicit_fds[DEPTH];
    for (unsigned i = 0; i < DEPTH; i++) {
        expect_ok(msi_route_cache_begin(rig.cache));
        expect_ok(msi_vector_set(rig.dev, i, TO(1, 0x40 + i)));
        fds[i] = rig_bound(&rig, i, 0);
        gsis[i] = added(&rig, message(0, 0x80 + i));
        explicit_fds[i] = bound_to(&rig, gsis[i]);
    }
    for (unsigned i = DEPTH; i < 2 * DEPTH; i++) {
        expect_eq(calls(CALL_WRITE) - writes, 0);
        expect_eq(calls(CALL_BIND) - binds, 0);
        expect_ok(msi_vector_set(rig.dev, i, TO(1, 0x40 + i)));
        fds[i] = rig_bound(&rig, i, 0);
        expect_ok(msi_route_cache_commit(rig.cache));
    }
    expect_eq(calls(CALL_WRITE) - writes, 1);
    expect_eq(calls(CALL_BIND) - binds, 3 * DEPTH);
    expect_eq(table_entries(), 3 * DEPTH);
    for (unsigned i = 0; i < 2 * DEPTH; i++) {
        fires(&rig, fds[i]);
        expect_arrival(&rig, 1, 0x40 + i);
    }
    for (unsigned i = 0; i < DEPTH; i++) {
        fires(&rig, explicit_fds[i]);
        expect_arrival(&rig, 0, 0x80 + i);
    }
    expect_quiet(&rig);
}

/* ---- whose it is ---- */

static void *change_without_a_transaction(void *opaque)
{
    struct rig *rig = opaque;
    expect_ok(msi_vector_set(rig->dev, 1, TO(1, 0x42)));
    int fd;
    expect_eq(CALLED(CALL_WRITE, fd = rig_bound(rig, 1, 0)), 1);
    expect(!table_has(ANY_GSI, TO(0, 0x41)));   /* the other's are not taken along */
    expect_eq(table_entries(), 2);              /* vectors 1 and 2 */
    fires(rig, fd);
    expect_arrival(rig, 1, 0x42);
    expect_eq(CALLED(CALL_WRITE, expect_ok(msi_vector_set(rig->dev, 1, TO(1, 0x43)))), 1);
    fires(rig, fd);
    expect_arrival(rig, 1, 0x43);
    expect_eq(CALLED(CALL_WRITE, expect_ok(msi_route_cache_commit(rig->cache))), 0);    /* it has none of its own */
    uint32_t gsi = added(rig, message(1, 0x44));
    fires(rig, bound_to(rig, gsi));
    expect_arrival(rig, 1, 0x44);
    return NULL;
}

static void another_threads_changes_are_live_at_once_and_leave_this_ones_staged(enum host host)
{
    SPLIT(rig, host);
    pthread_t thread;
    expect_ok(msi_vector_set(rig.dev, 2, TO(0, 0x51)));
    int live = rig_bound(&rig, 2, 0);
    uint32_t gsi = added(&rig, message(0, 0x61));
    expect_ok(msi_route_cache_remove_route(rig.cache, gsi));
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_ok(msi_route_cache_begin(rig.cache));
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(msi_vector_set(rig.dev, 2, TO(0, 0x52)));
    pthread_create(&thread, NULL, change_without_a_transaction, &rig);
    pthread_join(thread, NULL);
    fires(&rig, fd);
    expect_quiet(&rig);
    fires(&rig, live);
    expect_arrival(&rig, 0, 0x51);
    expect_eq(CALLED(CALL_WRITE, expect_ok(msi_route_cache_commit(rig.cache))), 1);
    expect_arrival(&rig, 0, 0x41);
    fires(&rig, live);
    expect_arrival(&rig, 0, 0x52);
    expect_quiet(&rig);
}

/* ---- refused ---- */

static void a_commit_that_KVM_refuses_leaves_explicit_routes_as_before_begin(enum host host)
{
    RIG(rig, host);
    uint32_t kept = added(&rig, message(0, 0x41)), gone = added(&rig, message(0, 0x42)), bad, good;
    int fd = bound_to(&rig, kept), fd_of_gone = bound_to(&rig, gone);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x51)));
    int live = rig_bound(&rig, 0, 0);

    expect_ok(msi_route_cache_begin(rig.cache));
    expect_ok(updated(&rig, kept, message(1, 0x61)));
    int second = bound_to(&rig, kept);
    bad = added(&rig, nonsense());
    good = added(&rig, message(1, 0x67));
    int fd_of_good = bound_to(&rig, good);
    expect_ok(msi_route_cache_unbind_irqfd(rig.cache, gone, fd_of_gone));   /* not staged, and so not undone */
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x52)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x53)));
    int fresh = rig_bound(&rig, 1, 0);
    expect_eq(msi_route_cache_commit(rig.cache), -EINVAL);
    if (!expect(last_error_names(bad)))
        tap_note("\"%s\" of GSI %u", msi_route_cache_last_error(), bad);

    expect(table_has(kept, TO(0, 0x41)));
    expect(table_has(gone, TO(0, 0x42)));
    expect(!table_has(ANY_GSI, TO(1, 0x61)) && !table_has(ANY_GSI, TO(1, 0x67)));
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x41);
    fires(&rig, second);
    fires(&rig, fd_of_good);
    fires(&rig, fd_of_gone);
    expect_quiet(&rig);
    expect_eq(take_count(second), 1);
    expect_eq(take_count(fd_of_good), 1);
    expect_eq(take_count(fd_of_gone), 1);
    expect_eq(msi_route_cache_remove_route(rig.cache, bad), -ENOENT);
    expect_eq(msi_route_cache_remove_route(rig.cache, good), -ENOENT);
    /* What is the guest's stands; it was not the culprit, so it is served. */
    fires(&rig, live);
    expect_arrival(&rig, 1, 0x52);
    fires(&rig, fresh);
    expect_arrival(&rig, 1, 0x53);
    /* What was let go can be taken up again. */
    expect_eq(added(&rig, message(1, 0x68)), bad);
    expect_ok(msi_route_cache_bind_irqfd(rig.cache, kept, fd_of_good, -1));
    expect_ok(msi_route_cache_commit(rig.cache));
    fires(&rig, fd_of_good);
    expect_arrival(&rig, 0, 0x41);
    expect_quiet(&rig);
}

/* No table is taken at all: out of memory, say. */
static void when_every_write_is_refused_what_the_guest_wrote_stands_and_its_events_are_kept(enum host host)
{
    enum { N = 16 };
    SPLIT(rig, host, .vectors = 2 * N);
    int fds[2 * N];
    uint32_t kept = added(&rig, message(0, 0x31)), staged;
    int fd = bound_to(&rig, kept);
    for (unsigned i = 0; i < N; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO(0, 0x40 + i)));
        fds[i] = rig_bound(&rig, i, 0);
    }
    size_t entries = table_entries();
    calls_fail(CALL_WRITE, 1, ENOMEM, true);
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < 2 * N; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO(1, 0x80 + i)));
        if (i >= N)
            fds[i] = rig_bound(&rig, i, 0);
    }
    expect_ok(updated(&rig, kept, message(1, 0x32)));
    staged = added(&rig, message(1, 0x33));
    int fd_of_staged = bound_to(&rig, staged);
    expect_eq(msi_route_cache_commit(rig.cache), -ENOMEM);
    expect(msi_route_cache_last_error()[0]);
    expect_eq(table_entries(), entries);
    for (unsigned i = 0; i < 2 * N; i++) {
        struct msi_vector_info info = info_of(rig.dev, i);
        expect(info.address == to_apic(1) && info.data == 0x80 + i && info.eventfds == 1);
        expect_eq(info.flags & (UNSERVED | IN_KERNEL), UNSERVED);
        expect_eq(info.error, -ENOMEM);
        fires(&rig, fds[i]);
        expect_eq(msi_vector_is_pending(rig.dev, i), 1);
    }
    expect_eq(rig_stats(&rig).unserved_vectors, 2 * N);
    expect_quiet(&rig);
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x31);
    fires(&rig, fd_of_staged);
    expect_quiet(&rig);
    expect_eq(msi_route_cache_remove_route(rig.cache, staged), -ENOENT);

    expect_eq(msi_route_cache_commit(rig.cache), -ENOMEM);      /* still */
    for (unsigned i = 0; i < 2 * N; i++)
        fires(&rig, fds[i]);
    expect_quiet(&rig);
    expect(calls_heal());
    expect_ok(msi_route_cache_commit(rig.cache));
    for (unsigned i = 0; i < 2 * N; i++) {
        expect_arrival(&rig, 1, 0x80 + i);
        expect_eq(info_of(rig.dev, i).flags & (UNSERVED | IN_KERNEL), IN_KERNEL);
        expect_eq(info_of(rig.dev, i).error, 0);
    }
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
    expect_quiet(&rig);
    for (unsigned i = 0; i < 2 * N; i++) {
        fires(&rig, fds[i]);
        expect_arrival(&rig, 1, 0x80 + i);
    }
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x31);
    expect_eq(take_count(fd_of_staged), 1);
    expect_quiet(&rig);
}

/* One transaction, in which the k-th call of a kind fails. False: it has no k-th. */
static bool commit_with_a_fault(enum host host, enum call call, unsigned k, int error, bool with_nonsense)
{
    enum { N = 5 };
    bool struck = false;
    __attribute__((cleanup(rig_close))) struct rig rig;
    if (!rig_open(&rig, host, &(struct rig_config){ .vectors = 2 * N }))
        return false;
    tap_context("%s %u fails%s", call == CALL_WRITE ? "write" : "bind", k, with_nonsense ? " beside nonsense" : "");
    int fds[2 * N];
    uint32_t kept = added(&rig, message(0, 0x31));
    int fd = bound_to(&rig, kept);
    for (unsigned i = 0; i < N; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO(0, 0x40 + i)));
        fds[i] = rig_bound(&rig, i, 0);
    }
    expect_ok(msi_route_cache_begin(rig.cache));
    expect_ok(updated(&rig, kept, message(1, 0x32)));
    if (with_nonsense)
        added(&rig, nonsense());
    uint32_t staged = added(&rig, message(1, 0x33));
    int fd_of_staged = bound_to(&rig, staged);
    for (unsigned i = 0; i < 2 * N; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO(1, 0x80 + i)));
        if (i < N)
            continue;
        fds[i] = rig_bound(&rig, i, 0);
        fires(&rig, fds[i]);        /* counted: it waits for the commit, or for whoever serves it later */
    }
    calls_fail(call, k, error, false);
    int result = msi_route_cache_commit(rig.cache);
    struck = calls_heal();
    if (with_nonsense)
        expect(result == -EINVAL || result == -error);
    else
        expect(result == 0 || (struck && result == -error));
    for (unsigned i = 0; i < 2 * N; i++) {
        struct msi_vector_info info = info_of(rig.dev, i);
        expect(info.address == to_apic(1) && info.data == 0x80 + i && info.eventfds == 1);
    }
    /* Once it is healthy again, all is as if nothing had happened to the vectors ... */
    expect_ok(msi_route_cache_commit(rig.cache));
    for (unsigned i = N; i < 2 * N; i++)
        expect_arrival(&rig, 1, 0x80 + i);
    expect_quiet(&rig);
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
    for (unsigned i = 0; i < 2 * N; i++) {
        fires(&rig, fds[i]);
        expect_arrival(&rig, 1, 0x80 + i);
    }
    /* ... and explicit routes are as the commit said. */
    fires(&rig, fd);
    fires(&rig, fd_of_staged);
    if (result == 0) {
        expect_arrival(&rig, 1, 0x32);
        expect_arrival(&rig, 1, 0x33);
    } else {
        expect_arrival(&rig, 0, 0x31);
        expect(table_has(kept, TO(0, 0x31)));
        expect(!table_has(ANY_GSI, TO(1, 0x33)));
        expect_eq(take_count(fd_of_staged), 1);
        expect_eq(msi_route_cache_remove_route(rig.cache, staged), -ENOENT);
    }
    expect_quiet(&rig);
    return struck;
}

static void whichever_call_of_a_commit_fails_explicit_routes_are_all_new_or_all_old(enum host host)
{
    for (unsigned with_nonsense = 0; with_nonsense < 2; with_nonsense++) {
        static const enum call kinds[] = { CALL_WRITE, CALL_BIND };
        for (unsigned kind = 0; kind < 2; kind++) {
            unsigned k = 1;
            while (k < 100 && commit_with_a_fault(host, kinds[kind], k, ENOMEM, with_nonsense))
                k++;
            expect(k > 1 && k < 100);
            tap_context("%s", "");
            tap_note("%u %s%s", k - 1, kind ? "binds" : "writes", with_nonsense ? " beside nonsense" : "");
        }
    }
}

/* ---- of several at once ---- */

enum errand { GOOD_VECTOR, GOOD_ROUTE, BAD_ROUTE, BAD_VECTOR };
#define POISON 0xEE

struct caller {
    struct rig *rig;
    enum errand errand;
    unsigned number;            /* its vector of the first device, and the vCPU */
    atomic_int tid, may_commit;
    int result, fd;
    uint32_t gsi;
    bool named;
};

static void wait_for(atomic_int *what, int value)
{
    for (unsigned ms = 0; ms < 3000 && atomic_load(what) != value; ms++)
        nap_ms(1);
}

static void *run_errand(void *opaque)
{
    struct caller *caller = opaque;
    struct rig *rig = caller->rig;
    unsigned vector = 0x40 + caller->number;
    expect_ok(msi_route_cache_begin(rig->cache));
    switch (caller->errand) {
    case GOOD_VECTOR:
    case BAD_VECTOR:
        vector = caller->errand == BAD_VECTOR ? POISON : vector;
        expect_ok(msi_vector_set(rig->dev, caller->number, TO(caller->number, vector)));
        expect_ok(msi_vector_bind_eventfd(rig->dev, caller->number, caller->fd, 0));
        break;
    case GOOD_ROUTE:
    case BAD_ROUTE:
        caller->gsi = added(rig, caller->errand == BAD_ROUTE ? nonsense() : message(caller->number, vector));
        expect_ok(msi_route_cache_bind_irqfd(rig->cache, caller->gsi, caller->fd, -1));
        break;
    }
    atomic_store(&caller->tid, (int)syscall(SYS_gettid));
    while (!atomic_load(&caller->may_commit))
        sched_yield();      /* awake: who sleeps waits for its turn */
    caller->result = msi_route_cache_commit(rig->cache);
    caller->named = caller->result && last_error_names(caller->gsi);
    return NULL;
}

static bool sleeps(int tid)
{
    char path[64], line[512];
    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
    FILE *stat = fopen(path, "re");
    if (!stat)
        return false;
    char *end = fgets(line, sizeof(line), stat) ? strrchr(line, ')') : NULL;
    fclose(stat);
    return end && end[1] == ' ' && end[2] == 'S';
}

static atomic_int held;     /* 0: the next write is to be held; 1: it is; 2: it may go on */

static void hold_the_first(void)
{
    int next = 0;
    if (!atomic_compare_exchange_strong(&held, &next, 1))
        return;
    for (unsigned ms = 0; ms < 3000 && atomic_load(&held) == 1; ms++)
        nap_ms(1);
}

/* Lets it commit, and waits until it waits for its turn: for the write that is held. */
static void let_it_queue(struct caller *caller)
{
    atomic_store(&caller->may_commit, 1);
    for (unsigned ms = 0, seen = 0; ms < 3000 && seen < 3; ms++) {
        seen = sleeps(atomic_load(&caller->tid)) ? seen + 1 : 0;
        nap_ms(1);
    }
}

/* The first is held in its write while the others come, in this order. One write carries all vectors among them. */
static void at_once(enum host host, const enum errand errands[], unsigned n, bool bad_is_vector)
{
    RIG(rig, host, .cpus = 8, .vectors = 8);
    struct caller callers[8];
    pthread_t threads[8];
    atomic_store(&held, 0);
    refuse_data(POISON);
    calls_inside(CALL_WRITE, hold_the_first);
    for (unsigned i = 0; i < n; i++) {
        callers[i] = (struct caller){ .rig = &rig, .errand = errands[i], .number = i, .gsi = MSIROUTE_ANY_GSI };
        callers[i].fd = rig_eventfd(&rig, EFD_NONBLOCK);
        pthread_create(&threads[i], NULL, run_errand, &callers[i]);
        for (unsigned ms = 0; ms < 3000 && !atomic_load(&callers[i].tid); ms++)
            nap_ms(1);
    }
    for (unsigned i = 0; i < n; i++) {
        let_it_queue(&callers[i]);
        if (i == 0)
            wait_for(&held, 1);
    }
    uint64_t writes = calls(CALL_WRITE);
    atomic_store(&held, 2);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    calls_inside(CALL_WRITE, NULL);
    expect_eq(calls_heal(), bad_is_vector);
    expect(rig_stats(&rig).table_write_errors >= (bad_is_vector ? 2 : 1));  /* refused together, and then alone */
    expect(calls(CALL_WRITE) - writes > 1);
    for (unsigned i = 0; i < n; i++) {
        struct caller *caller = &callers[i];
        bool bad = caller->errand == BAD_ROUTE || caller->errand == BAD_VECTOR;
        tap_context("caller %u", i);
        expect_eq(caller->result, bad ? -EINVAL : 0);
        if (caller->errand == BAD_ROUTE)
            expect(caller->named);
        fires(&rig, caller->fd);
        if (!bad)
            expect_arrival(&rig, i, 0x40 + i);
        else if (caller->errand == BAD_VECTOR)
            expect_eq(msi_vector_is_pending(rig.dev, i), 1);
        else
            expect_eq(take_count(caller->fd), 1);
    }
    tap_context("%s", "");
    expect_quiet(&rig);
    expect_ok(msi_route_cache_commit(rig.cache));
    for (unsigned i = 0; i < n; i++)
        if (callers[i].errand == BAD_VECTOR)
            expect_arrival(&rig, i, POISON);        /* nobody refuses it any more */
    expect_quiet(&rig);
}

static void a_refused_route_fails_its_own_caller_alone(enum host host)
{
    static const enum errand first[] = { GOOD_VECTOR, BAD_ROUTE, GOOD_VECTOR, GOOD_ROUTE };
    static const enum errand last[] = { GOOD_ROUTE, GOOD_ROUTE, GOOD_VECTOR, BAD_ROUTE };
    static const enum errand two[] = { GOOD_ROUTE, GOOD_VECTOR, BAD_ROUTE, GOOD_ROUTE, BAD_ROUTE, GOOD_VECTOR };
    at_once(host, first, 4, false);
    at_once(host, last, 4, false);
    at_once(host, two, 6, false);
}

static void a_refused_vector_fails_its_own_caller_alone(enum host host)
{
    static const enum errand first[] = { GOOD_VECTOR, BAD_VECTOR, GOOD_VECTOR, GOOD_ROUTE };
    static const enum errand last[] = { GOOD_ROUTE, GOOD_ROUTE, GOOD_VECTOR, BAD_VECTOR };
    at_once(host, first, 4, true);
    at_once(host, last, 4, true);
}

/* ---- and again, as it comes ---- */

#define COMMITS 150

static void *commit_what_is_good(void *opaque)
{
    struct caller *caller = opaque;
    struct rig *rig = caller->rig;
    unsigned cpu = caller->number;
    caller->gsi = added(rig, message(cpu, 0x40));
    expect_ok(msi_route_cache_bind_irqfd(rig->cache, caller->gsi, caller->fd, -1));
    int of_vector = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    expect_ok(msi_vector_bind_eventfd(rig->dev, cpu, of_vector, 0));
    for (unsigned i = 1; i < COMMITS; i++) {
        expect_ok(msi_route_cache_begin(rig->cache));
        expect_ok(updated(rig, caller->gsi, message(cpu, 0x40 + i % 64)));
        expect_ok(msi_vector_set(rig->dev, cpu, TO(cpu, 0x80 + i % 64)));
        if (!expect_ok(msi_route_cache_commit(rig->cache)))
            break;
        fires(rig, caller->fd);
        fires(rig, of_vector);
        if (!expect_arrival(rig, cpu, 0x40 + i % 64) || !expect_arrival(rig, cpu, 0x80 + i % 64))
            break;
    }
    expect_ok(msi_vector_unbind_eventfd(rig->dev, cpu, of_vector));
    close(of_vector);
    return NULL;
}

static void *commit_nonsense(void *opaque)
{
    struct caller *caller = opaque;
    struct rig *rig = caller->rig;
    unsigned cpu = caller->number;
    caller->gsi = added(rig, message(cpu, 0x40));
    expect_ok(msi_route_cache_bind_irqfd(rig->cache, caller->gsi, caller->fd, -1));
    for (unsigned i = 1; i < COMMITS; i++) {
        expect_ok(msi_route_cache_begin(rig->cache));
        expect_ok(updated(rig, caller->gsi, message(cpu, 0x40 + i % 64)));
        uint32_t bad = added(rig, nonsense());
        bool refused = expect_eq(msi_route_cache_commit(rig->cache), -EINVAL);
        expect(last_error_names(bad));
        fires(rig, caller->fd);
        if (!refused || !expect_arrival(rig, cpu, 0x40))
            break;
    }
    return NULL;
}

static void who_commits_nonsense_over_and_over_fails_nobody_else(enum host host)
{
    enum { CALLERS = 4 };
    RIG(rig, host, .cpus = CALLERS, .vectors = CALLERS);
    struct caller callers[CALLERS];
    pthread_t threads[CALLERS];
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){ .rig = &rig, .number = i, .fd = rig_eventfd(&rig, EFD_NONBLOCK) };
        pthread_create(&threads[i], NULL, i % 2 ? commit_nonsense : commit_what_is_good, &callers[i]);
    }
    for (unsigned i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    expect(rig_stats(&rig).table_write_errors >= CALLERS / 2 * (COMMITS - 1));
    expect_eq(table_entries_of_type(KVM_IRQ_ROUTING_IRQCHIP), 40);
    expect_quiet(&rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_KVM, changes_of_2048_eventfds_on_16_devices_are_one_write),
        TEST(ON_KVM, only_the_outermost_commit_writes),
        TEST(ON_KVM, another_threads_changes_are_live_at_once_and_leave_this_ones_staged),
        TEST(ON_KVM, a_commit_that_KVM_refuses_leaves_explicit_routes_as_before_begin),
        TEST(ON_KVM, when_every_write_is_refused_what_the_guest_wrote_stands_and_its_events_are_kept),
        TEST(ON_KVM, whichever_call_of_a_commit_fails_explicit_routes_are_all_new_or_all_old),
        TEST(ON_KVM, a_refused_route_fails_its_own_caller_alone),
        TEST(ON_KVM, a_refused_vector_fails_its_own_caller_alone),
        TEST(ON_KVM, who_commits_nonsense_over_and_over_fails_nobody_else),
    };
    return TAP_MAIN(tests);
}
