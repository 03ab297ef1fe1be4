/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* How often the kernel is asked, counted on the way to it: what is kept while it is idle is not written again, what
 * nobody needs yet is not written at all, and what nobody needs any more does not fill the table. */
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "calls.h"
#include "rig.h"

#define TURNS    10000
#define MAX_IDLE 64     /* routes that stay in the table unused */

/* All of them, if there is time: each unbind waits in the kernel, and on a busy machine for milliseconds. */
#define ENOUGH_US 8000000
static bool goes_on(unsigned turn, uint64_t start)
{
    if (turn < TURNS && (turn < TURNS / 10 || now_us() < start + ENOUGH_US))
        return true;
    if (turn < TURNS)
        tap_note("a busy machine: %u turns", turn);
    return false;
}

/* No IRQCHIP entries: all that is in the table is the library's. */
#define SPLIT(rig, host, ...) RIG(rig, host, .irqchip = SPLIT_IRQCHIP, __VA_ARGS__)

/* ---- the counters ---- */

static void no_table_write_and_no_irqfd_goes_past_the_counters(enum host host)
{
    SPLIT(rig, host, .vectors = 32);
    uint64_t writes = calls(CALL_WRITE), binds = calls(CALL_BIND), unbinds = calls(CALL_UNBIND);
    struct kvm_irqfd none = { .fd = (uint32_t)-1 };
    if (!expect(calls_not_past_us()))
        return;
    expect_eq(syscall(SYS_ioctl, rig.vm.fd, KVM_IRQFD, &none), -1);
    expect_eq(errno, ENOTUNIQ);     /* the filter works */
    for (unsigned i = 0; i < 32; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i)));
        fires(&rig, rig_bound(&rig, i, 0));
        expect_arrival(&rig, nth_cpu(i), nth_vector(i));
        expect_ok(msi_vector_mask(rig.dev, i));
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i % 8 + 100)));
        expect_ok(msi_vector_unmask(rig.dev, i));
    }
    expect_eq(calls(CALL_WRITE) - writes, 40);
    expect_eq(calls(CALL_BIND) - binds, 64);
    expect_eq(calls(CALL_UNBIND) - unbinds, 32);
    expect_eq(rig_stats(&rig).table_writes, 40);
    expect_eq(rig_stats(&rig).irqfd_binds, 64);
    expect_eq(rig_stats(&rig).irqfd_unbinds, 32);
    expect_eq(table_entries(), 40);
    expect_eq(rig_stats(&rig).routes, 40);
}

static void a_delivery_is_one_call_and_one_of_a_masked_vector_is_none(enum host host)
{
    SPLIT(rig, host);
    if (!expect(calls_in_place()))
        return;
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_eq(CALLED(CALL_SIGNAL, expect_delivers(&rig, 0, 1, 0x41)), 1);
    expect_eq(CALLED(CALL_SIGNAL, fires(&rig, fd)), 0);     /* the kernel's alone */
    expect_arrival(&rig, 1, 0x41);
    expect_ok(msi_vector_mask(rig.dev, 0));
    expect_eq(CALLED(CALL_SIGNAL, msi_deliver(rig.dev, 0)), 0);
    expect_eq(CALLED(CALL_SIGNAL, msi_vector_unmask(rig.dev, 0)), 1);
    expect_arrival(&rig, 1, 0x41);
    expect_eq(calls(CALL_LINE), 0);
}

/* ---- kept while idle ---- */

static void an_eventfd_masked_and_unmasked_ten_thousand_times_writes_no_table(enum host host)
{
    SPLIT(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    uint64_t writes = calls(CALL_WRITE), binds = calls(CALL_BIND), unbinds = calls(CALL_UNBIND), start = now_us();
    unsigned turn;
    for (turn = 0; goes_on(turn, start); turn++) {
        expect_ok(msi_vector_mask(rig.dev, 0));
        if (turn % 100 == 0) {
            fires(&rig, fd);
            expect_eq(rig_arrivals(&rig, 1, 0x41), 0);
        }
        expect_ok(msi_vector_unmask(rig.dev, 0));
        if (turn % 100 == 0)
            expect_arrival(&rig, 1, 0x41);
    }
    expect_eq(calls(CALL_WRITE) - writes, 0);
    expect_eq(calls(CALL_BIND) - binds, turn);
    expect_eq(calls(CALL_UNBIND) - unbinds, turn);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_quiet(&rig);
}

static void an_eventfd_unbound_and_bound_ten_thousand_times_writes_no_table(enum host host)
{
    SPLIT(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    uint64_t writes = calls(CALL_WRITE), binds = calls(CALL_BIND), start = now_us();
    unsigned turn;
    for (turn = 0; goes_on(turn, start); turn++) {
        expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
        expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
    }
    expect_eq(calls(CALL_WRITE) - writes, 0);
    expect_eq(calls(CALL_BIND) - binds, turn);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_quiet(&rig);
}

static int moves(struct rig *rig, uint32_t index, unsigned n)
{
    return msi_vector_mask(rig->dev, index) || msi_vector_set(rig->dev, index, TO_NTH(n))
        || msi_vector_unmask(rig->dev, index);
}

/* As a guest moves interrupts between its CPUs: masked. */
static void messages_that_come_back_while_few_are_idle_write_no_table(enum host host)
{
    SPLIT(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO_NTH(0)));
    int fd = rig_bound(&rig, 0, 0);
    expect_eq(CALLED(CALL_WRITE, moves(&rig, 0, 1)), 1);
    expect_eq(CALLED(CALL_WRITE, moves(&rig, 0, 0)), 0);
    expect_ok(msi_vector_mask(rig.dev, 0));     /* there and back behind the mask */
    expect_ok(msi_vector_set(rig.dev, 0, TO_NTH(MAX_IDLE + 1)));
    expect_ok(msi_vector_set(rig.dev, 0, TO_NTH(0)));
    expect_eq(CALLED(CALL_WRITE, msi_vector_unmask(rig.dev, 0)), 0);
    for (unsigned n = 2; n < MAX_IDLE; n++)
        expect_eq(CALLED(CALL_WRITE, moves(&rig, 0, n)), 1);
    uint64_t writes = calls(CALL_WRITE);
    for (unsigned turn = 0; turn < 50; turn++) {
        for (unsigned n = 0; n < MAX_IDLE; n++)
            expect_ok(moves(&rig, 0, n));
        unsigned n = turn % MAX_IDLE;
        expect_ok(moves(&rig, 0, n));
        fires(&rig, fd);
        expect_arrival(&rig, nth_cpu(n), nth_vector(n));
    }
    expect_eq(calls(CALL_WRITE) - writes, 0);
    expect_eq(table_entries(), MAX_IDLE);
    expect_quiet(&rig);
}

/* ---- and not more than that ---- */

/* Eventfds on vectors from `first` on that keep their messages all the while. */
#define BYSTANDERS 8
static void bind_bystanders(struct rig *rig, uint32_t first, int fds[BYSTANDERS])
{
    for (unsigned i = 0; i < BYSTANDERS; i++) {
        expect_ok(msi_vector_set(rig->dev, first + i, TO(1, 0xE0 + i)));
        fds[i] = rig_bound(rig, first + i, 0);
    }
}

static void bystanders_still_interrupt(struct rig *rig, const int fds[BYSTANDERS])
{
    for (unsigned i = 0; i < BYSTANDERS; i++) {
        fires(rig, fds[i]);
        expect_arrival(rig, 1, 0xE0 + i);
    }
    expect_quiet(rig);
}

/* Of vCPUs that do not exist, which KVM finds out only when one is sent. */
#define ELSEWHERE(n) (2 * VECTORS_PER_CPU + (n))

static void ten_thousand_messages_on_a_live_eventfd_leave_few_idle_routes(enum host host)
{
    SPLIT(rig, host, .vectors = 1 + BYSTANDERS);
    int others[BYSTANDERS];
    bind_bystanders(&rig, 1, others);
    expect_ok(msi_vector_set(rig.dev, 0, TO_NTH(ELSEWHERE(0))));
    int fd = rig_bound(&rig, 0, 0);
    uint64_t writes = calls(CALL_WRITE), unbinds = calls(CALL_UNBIND);
    size_t most = 0;
    for (unsigned n = 1; n < TURNS; n++) {
        expect_ok(msi_vector_set(rig.dev, 0, TO_NTH(ELSEWHERE(n))));
        most = table_entries() > most ? table_entries() : most;
        expect(table_has(info_of(rig.dev, 0).gsi, TO_NTH(ELSEWHERE(n))));
    }
    expect_eq(calls(CALL_WRITE) - writes, TURNS - 1);
    expect_eq(calls(CALL_UNBIND) - unbinds, 0);         /* in place */
    expect(most <= 1 + BYSTANDERS + MAX_IDLE);
    tap_note("at most %zu entries", most);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x41);
    bystanders_still_interrupt(&rig, others);
}

static void nor_do_ten_thousand_that_are_set_behind_the_mask(enum host host)
{
    SPLIT(rig, host, .vectors = 1 + BYSTANDERS);
    int others[BYSTANDERS];
    bind_bystanders(&rig, 1, others);
    expect_ok(msi_vector_set(rig.dev, 0, TO_NTH(ELSEWHERE(0))));
    int fd = rig_bound(&rig, 0, 0);
    size_t most = 0;
    uint64_t start = now_us();
    for (unsigned n = 1; goes_on(n, start); n++) {
        expect_eq(CALLED(CALL_WRITE, moves(&rig, 0, ELSEWHERE(n))), 1);
        most = table_entries() > most ? table_entries() : most;
    }
    expect(most > MAX_IDLE / 2);        /* some are kept, else nothing could come back */
    expect(most <= 1 + BYSTANDERS + MAX_IDLE);
    tap_note("at most %zu entries", most);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x41);
    bystanders_still_interrupt(&rig, others);
}

/* A route that two share cannot change in place: each step leaves one behind. */
static void nor_do_those_of_vectors_that_share(enum host host)
{
    SPLIT(rig, host, .vectors = 2 + BYSTANDERS);
    int others[BYSTANDERS], fds[2];
    size_t most = 0;
    uint64_t start = now_us();
    bind_bystanders(&rig, 2, others);
    for (unsigned i = 0; i < 2; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(ELSEWHERE(0))));
        fds[i] = rig_bound(&rig, i, 0);
    }
    for (unsigned n = 1; goes_on(2 * n, start); n++) {
        expect_ok(msi_vector_set(rig.dev, n % 2, TO_NTH(ELSEWHERE(n))));
        expect_ok(msi_vector_set(rig.dev, !(n % 2), TO_NTH(ELSEWHERE(n))));
        most = table_entries() > most ? table_entries() : most;
    }
    expect(most <= 2 + BYSTANDERS + MAX_IDLE);
    expect_eq(info_of(rig.dev, 0).gsi, info_of(rig.dev, 1).gsi);
    tap_note("at most %zu entries", most);
    for (unsigned i = 0; i < 2; i++)
        expect_ok(msi_vector_set(rig.dev, i, TO(0, 0x41)));
    for (unsigned i = 0; i < 2; i++) {
        fires(&rig, fds[i]);
        expect_arrival(&rig, 0, 0x41);
    }
    bystanders_still_interrupt(&rig, others);
}

/* Idle routes beyond measure go with the next write, not with one of their own. */
static void routes_given_up_all_at_once_are_gone_with_the_next_write(enum host host)
{
    enum { N = 400 };
    SPLIT(rig, host, .vectors = N);
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < N; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i)));
        rig_bound(&rig, i, MSIROUTE_EVENTFD_BORROWED);
    }
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(table_entries(), N);
    uint64_t writes = calls(CALL_WRITE);
    for (unsigned i = 0; i < N; i++)
        expect_ok(msi_vector_mask(rig.dev, i));
    expect_eq(calls(CALL_WRITE) - writes, 0);
    struct msi_device *other = rig_device(&rig, MSIROUTE_KIND_PLAIN, 1);
    expect_ok(msi_vector_set(other, 0, TO(1, 0xFE)));
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_eq(CALLED(CALL_WRITE, expect_ok(msi_vector_bind_eventfd(other, 0, fd, 0))), 1);
    expect(table_entries() <= 1 + MAX_IDLE);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0xFE);
    /* Those that went come back, with one write. */
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < N; i++)
        expect_ok(msi_vector_unmask(rig.dev, i));
    expect_eq(CALLED(CALL_WRITE, expect_ok(msi_route_cache_commit(rig.cache))), 1);
    for (unsigned i = 0; i < N; i++) {
        fires(&rig, rig.eventfds[i]);
        expect_arrival(&rig, nth_cpu(i), nth_vector(i));
    }
    expect_quiet(&rig);
}

/* ---- what nobody needs yet ---- */

static void two_thousand_managed_vectors_without_an_eventfd_ask_nothing_of_the_kernel(enum host host)
{
    enum { N = 2048 };
    SPLIT(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = N);
    uint64_t writes = calls(CALL_WRITE), binds = calls(CALL_BIND);
    expect_ok(guest_controls(rig.dev, ENABLE_MSIX));
    for (unsigned i = 0; i < N; i++) {
        expect_ok(guest_sets(rig.dev, i, TO_NTH(i % 400)));
        expect_ok(guest_unmasks(rig.dev, i));
    }
    for (unsigned i = 0; i < 400; i++)
        expect_delivers(&rig, i, nth_cpu(i), nth_vector(i));
    expect_ok(guest_controls(rig.dev, ENABLE_MSIX | MASK_ALL));
    expect_eq(msi_deliver(rig.dev, 7), MSIROUTE_PENDING);
    expect_ok(guest_controls(rig.dev, ENABLE_MSIX));
    expect_arrival(&rig, nth_cpu(7), nth_vector(7));
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(calls(CALL_WRITE) - writes, 0);
    expect_eq(calls(CALL_BIND) - binds, 0);
    expect_quiet(&rig);
    /* An eventfd makes the difference, of one route. */
    expect_eq(CALLED(CALL_WRITE, rig_bound(&rig, 9, 0)), 1);
    expect_eq(table_entries(), 1);
}

static void an_eventfd_of_a_vector_that_is_not_open_asks_nothing_of_the_kernel(enum host host)
{
    SPLIT(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = 4);
    uint64_t writes = calls(CALL_WRITE), binds = calls(CALL_BIND);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(guest_controls(rig.dev, ENABLE_MSIX));
    expect_ok(guest_sets(rig.dev, 0, TO(1, 0x41)));
    expect_ok(guest_sets(rig.dev, 0, TO(1, 0x42)));
    fires(&rig, fd);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(calls(CALL_WRITE) - writes, 0);
    expect_eq(calls(CALL_BIND) - binds, 0);
    expect_eq(CALLED(CALL_WRITE, guest_unmasks(rig.dev, 0)), 1);
    expect_eq(calls(CALL_BIND) - binds, 1);
    expect_arrival(&rig, 1, 0x42);
    expect_quiet(&rig);
}

static uint32_t added(struct rig *rig, unsigned cpu, unsigned vector, uint32_t flags)
{
    struct kvm_irq_routing_entry entry = { .type = KVM_IRQ_ROUTING_MSI };
    uint32_t gsi = MSIROUTE_ANY_GSI;
    entry.u.msi.address_lo = (uint32_t)to_apic(cpu);
    entry.u.msi.data = vector;
    expect_ok(msi_route_cache_add_route(rig->cache, &entry, flags, &gsi));
    return gsi;
}

static void explicit_routes_are_written_at_the_commit_and_those_for_irqfds_with_their_irqfd(enum host host)
{
    enum { N = 100 };
    SPLIT(rig, host);
    uint32_t plain[N], lazy[N];
    uint64_t writes = calls(CALL_WRITE), binds = calls(CALL_BIND);
    for (unsigned i = 0; i < N; i++) {
        plain[i] = added(&rig, 0, 0x40 + i, 0);
        lazy[i] = added(&rig, 1, 0x40 + i, MSIROUTE_ROUTE_IRQFD_ONLY);
    }
    expect_eq(calls(CALL_WRITE) - writes, 0);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(calls(CALL_WRITE) - writes, 1);
    expect_eq(table_entries(), N);
    for (unsigned i = 0; i < N; i++) {
        expect(table_has(plain[i], TO(0, 0x40 + i)));
        expect(!table_has(lazy[i], TO(1, 0x40 + i)));
    }
    expect_eq(CALLED(CALL_WRITE, expect_ok(msi_route_cache_commit(rig.cache))), 0);
    expect_eq(calls(CALL_BIND) - binds, 0);

    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_eq(CALLED(CALL_WRITE, expect_ok(msi_route_cache_bind_irqfd(rig.cache, lazy[7], fd, -1))), 1);
    expect_eq(table_entries(), N + 1);
    expect(table_has(lazy[7], TO(1, 0x47)));
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x47);

    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < N; i++)
        if (i != 7)
            expect_ok(msi_route_cache_bind_irqfd(rig.cache, lazy[i], rig_eventfd(&rig, EFD_NONBLOCK), -1));
    expect_eq(table_entries(), N + 1);
    expect_eq(CALLED(CALL_WRITE, expect_ok(msi_route_cache_commit(rig.cache))), 1);
    expect_eq(table_entries(), 2 * N);
    fires(&rig, rig.eventfds[N - 1]);
    expect_arrival(&rig, 1, 0x40 + N - 1);
    expect_quiet(&rig);
}

/* An update that changes nothing, and one that is taken back, write nothing. */
static void what_is_as_it_was_at_the_commit_is_not_written(enum host host)
{
    SPLIT(rig, host);
    struct kvm_irq_routing_entry entry = { .type = KVM_IRQ_ROUTING_MSI }, other;
    uint32_t gsi = MSIROUTE_ANY_GSI;
    entry.u.msi.address_lo = (uint32_t)to_apic(0);
    entry.u.msi.data = 0x41;
    other = entry;
    other.u.msi.data = 0x42;
    expect_ok(msi_route_cache_add_route(rig.cache, &entry, 0, &gsi));
    expect_ok(msi_route_cache_commit(rig.cache));
    uint64_t writes = calls(CALL_WRITE);
    for (unsigned i = 0; i < 1000; i++) {
        expect_ok(msi_route_cache_update_route(rig.cache, gsi, &other));
        expect_ok(msi_route_cache_update_route(rig.cache, gsi, &entry));
        expect_ok(msi_route_cache_commit(rig.cache));
    }
    expect_eq(calls(CALL_WRITE) - writes, 0);
    expect(table_has(gsi, TO(0, 0x41)));
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_KVM, no_table_write_and_no_irqfd_goes_past_the_counters),
        TEST(ON_KVM, a_delivery_is_one_call_and_one_of_a_masked_vector_is_none),
        TEST(ON_KVM, an_eventfd_masked_and_unmasked_ten_thousand_times_writes_no_table),
        TEST(ON_KVM, an_eventfd_unbound_and_bound_ten_thousand_times_writes_no_table),
        TEST(ON_KVM, messages_that_come_back_while_few_are_idle_write_no_table),
        TEST(ON_KVM, ten_thousand_messages_on_a_live_eventfd_leave_few_idle_routes),
        TEST(ON_KVM, nor_do_ten_thousand_that_are_set_behind_the_mask),
        TEST(ON_KVM, nor_do_those_of_vectors_that_share),
        TEST(ON_KVM, routes_given_up_all_at_once_are_gone_with_the_next_write),
        TEST(ON_KVM, two_thousand_managed_vectors_without_an_eventfd_ask_nothing_of_the_kernel),
        TEST(ON_KVM, an_eventfd_of_a_vector_that_is_not_open_asks_nothing_of_the_kernel),
        TEST(ON_KVM, explicit_routes_are_written_at_the_commit_and_those_for_irqfds_with_their_irqfd),
        TEST(ON_KVM, what_is_as_it_was_at_the_commit_is_not_written),
    };
    return TAP_MAIN(tests);
}
