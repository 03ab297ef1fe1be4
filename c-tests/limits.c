/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Many: thousands of vectors, eventfds up to the kernel's last route, and what happens after that one. */
#include <errno.h>

#include "rig.h"

#define UNSERVED  MSIROUTE_VECTOR_UNSERVED
#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL
#define CPUS_FOR(messages) ((messages) / VECTORS_PER_CPU + 1)

/* The first `n` messages have arrived, once each, and nothing else. */
static void expect_arrivals_of_first(struct rig *rig, unsigned n)
{
    unsigned missing = 0;
    for (unsigned i = 0; i < n; i++)
        missing += rig_arrivals(rig, nth_cpu(i), nth_vector(i)) != 1;
    expect_eq(missing, 0);
    expect_quiet(rig);
}

static void hundreds_of_devices_deliver_thousands_of_vectors(enum host host)
{
    enum { DEVICES = 300, VECTORS = 16, ALL = DEVICES * VECTORS };
    RIG(rig, host, .cpus = CPUS_FOR(ALL));
    unsigned sent = 0;
    for (unsigned d = 0; d < DEVICES; d++) {
        struct msi_device *dev = rig_device(&rig, MSIROUTE_KIND_MSIX, VECTORS);
        expect_ok(msi_device_set_control(dev, MSIROUTE_ENABLED));
        for (unsigned v = 0; v < VECTORS; v++) {
            expect_ok(msi_vector_set(dev, v, TO_NTH(d * VECTORS + v)));
            expect_ok(msi_vector_unmask(dev, v));
        }
    }
    for (unsigned i = 0; i < ALL; i++)
        sent += msi_deliver(rig.devices[1 + i / VECTORS], i % VECTORS) == MSIROUTE_SENT;
    expect_eq(sent, ALL);
    expect_arrivals_of_first(&rig, ALL);
}

static void one_transaction_binds_2048_eventfds_with_one_table_write(enum host host)
{
    enum { ALL = 2048 };
    RIG(rig, host, .cpus = CPUS_FOR(ALL), .vectors = ALL);
    uint64_t before = rig_stats(&rig).table_writes;
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < ALL; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i)));
        rig_bound(&rig, i, 0);
    }
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(rig_stats(&rig).table_writes - before, 1);
    expect_eq(rig_stats(&rig).routes_pinned, ALL);
    for (unsigned i = 0; i < ALL; i++)
        add_to_eventfd(rig.eventfds[i], 1);
    for (unsigned i = 0; i < ALL; i += 97)
        expect(info_of(rig.dev, i).flags & IN_KERNEL);
    if (host == ON_MODEL)
        nap_ms(500);        /* its thread takes them one after the other */
    expect_arrivals_of_first(&rig, ALL);
}

static void past_1024_eventfds_bound_one_by_one_each_works(enum host host)
{
    enum { ALL = 1100 };
    RIG(rig, host, .cpus = CPUS_FOR(ALL), .vectors = ALL);
    for (unsigned i = 0; i < ALL; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i)));
        rig_bound(&rig, i, MSIROUTE_EVENTFD_BORROWED);
    }
    expect_eq(rig_stats(&rig).table_writes, ALL);
    for (unsigned i = 0; i < ALL; i++)
        add_to_eventfd(rig.eventfds[i], 1);
    expect_arrivals_of_first(&rig, ALL);
}

/* ---- the last route ---- */

#define TABLE_ENTRIES 4096      /* KVM_CAP_IRQ_ROUTING: entries, and one more than the highest GSI */
#define DEFAULT_PINS  40        /* entries that a full irqchip starts with */
#define FIRST_GSI     24

static struct msi_device *device_of(struct rig *rig, unsigned i) { return rig->devices[i / 2048]; }

/* Binds one vector each, message i for vector i, until every route is taken. */
static void fill(struct rig *rig, unsigned routes)
{
    expect(rig_device(rig, MSIROUTE_KIND_PLAIN, 2048) != NULL);
    expect_ok(msi_route_cache_begin(rig->cache));
    for (unsigned i = 0; i < routes; i++) {
        int fd = rig_eventfd(rig, EFD_NONBLOCK);
        expect_ok(msi_vector_set(device_of(rig, i), i % 2048, TO_NTH(i)));
        expect_ok(msi_vector_bind_eventfd(device_of(rig, i), i % 2048, fd, i % 2 ? MSIROUTE_EVENTFD_BORROWED : 0));
    }
    expect_ok(msi_route_cache_commit(rig->cache));
    for (unsigned i = 0; i < routes; i++)
        add_to_eventfd(rig->eventfds[i], 1);
    expect_arrivals_of_first(rig, routes);
}

static void up_to_the_last_route(struct rig *rig, unsigned routes)
{
    fill(rig, routes);
    struct msi_route_cache_stats full = rig_stats(rig);
    expect_eq(full.routes_pinned, routes);
    expect_eq(full.unserved_vectors, 0);

    /* one more message: no */
    unsigned more = routes;
    struct msi_device *dev = rig_device(rig, MSIROUTE_KIND_PLAIN, 2);
    int fd = rig_eventfd(rig, EFD_NONBLOCK);
    expect_ok(msi_vector_set(dev, 0, TO_NTH(more)));
    expect_eq(msi_vector_bind_eventfd(dev, 0, fd, 0), -ENOSPC);
    expect(msi_route_cache_last_error()[0]);
    expect_eq(info_of(dev, 0).eventfds, 0);
    expect_eq(rig_stats(rig).routes, full.routes);
    expect_eq(rig_stats(rig).table_writes, full.table_writes);
    expect_eq(rig_stats(rig).unserved_vectors, 0);
    add_to_eventfd(fd, 1);
    expect_quiet(rig);
    expect_eq(take_count(fd), 1);
    /* but it can be delivered, */
    expect_eq(msi_deliver(dev, 0), MSIROUTE_SENT);
    expect_arrival(rig, nth_cpu(more), nth_vector(more));
    /* and one more eventfd for a message that has a route is fine. */
    int sharing = rig_eventfd(rig, EFD_NONBLOCK);
    expect_ok(msi_vector_set(dev, 1, TO_NTH(17)));
    expect_ok(msi_vector_bind_eventfd(dev, 1, sharing, 0));
    add_to_eventfd(sharing, 1);
    expect_arrival(rig, nth_cpu(17), nth_vector(17));

    /* one less, one more: yes */
    unsigned last = routes - 1;
    expect_ok(msi_vector_unbind_eventfd(device_of(rig, last), last % 2048, rig->eventfds[last]));
    expect_ok(msi_vector_bind_eventfd(dev, 0, fd, 0));
    add_to_eventfd(fd, 1);
    expect_arrival(rig, nth_cpu(more), nth_vector(more));
    add_to_eventfd(rig->eventfds[last], 1);
    expect_quiet(rig);
    add_to_eventfd(rig->eventfds[0], 1);
    expect_arrival(rig, 0, nth_vector(0));
}

static void every_route_that_the_pins_leave_can_be_used_and_no_more(enum host host)
{
    const unsigned routes = TABLE_ENTRIES - DEFAULT_PINS;
    RIG(rig, host, .cpus = CPUS_FOR(routes), .vectors = 2048);
    up_to_the_last_route(&rig, routes);
}

static void every_GSI_above_the_pins_can_be_used_and_no_more(enum host host)
{
    const unsigned routes = TABLE_ENTRIES - FIRST_GSI;
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP, .cpus = CPUS_FOR(routes), .vectors = 2048);
    up_to_the_last_route(&rig, routes);
}

/* ---- more eventfds than routes ---- */

/* How many messages can be bound with this small a table, found out on a cache of its own. */
static unsigned routes_with(uint32_t max_routes)
{
    unsigned n = 0;
    __attribute__((cleanup(rig_close))) struct rig rig;
    if (!rig_open(&rig, ON_FAKE, &(struct rig_config){ .max_routes = max_routes, .vectors = max_routes + 1 }))
        return 0;
    for (;; n++) {
        int fd = rig_eventfd(&rig, EFD_NONBLOCK);
        msi_vector_set(rig.dev, n, TO_NTH(n));
        int result = msi_vector_bind_eventfd(rig.dev, n, fd, 0);
        if (result < 0) {
            expect_eq(result, -ENOSPC);
            break;
        }
    }
    expect(n > 0 && n <= max_routes);
    return n;
}

static unsigned count_unserved(struct rig *rig, unsigned vectors)
{
    unsigned n = 0;
    for (unsigned i = 0; i < vectors; i++) {
        struct msi_vector_info info = info_of(rig->dev, i);
        if (info.flags & UNSERVED) {
            n++;
            expect_eq(info.error, -ENOSPC);
            expect(!(info.flags & IN_KERNEL));
        }
    }
    expect_eq(rig_stats(rig).unserved_vectors, n);
    return n;
}

static void a_transaction_that_wants_too_much_serves_what_it_can_and_tells(enum host host)
{
    const unsigned routes = routes_with(40), wanted = routes + 10;
    RIG(rig, host, .max_routes = 40, .vectors = wanted);
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < wanted; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i)));
        rig_bound(&rig, i, 0);
    }
    expect_eq(msi_route_cache_commit(rig.cache), -ENOSPC);
    expect_eq(count_unserved(&rig, wanted), 10);
    for (unsigned i = 0; i < wanted; i++)
        add_to_eventfd(rig.eventfds[i], 1);
    unsigned arrived = 0, freed = 0;
    for (unsigned i = 0; i < wanted; i++)
        arrived += rig_arrivals(&rig, 0, nth_vector(i));
    expect_eq(arrived, routes);
    expect_quiet(&rig);

    for (unsigned i = 0; i < wanted && freed < 10; i++)
        if (info_of(rig.dev, i).flags & IN_KERNEL)
            freed++, expect_ok(msi_vector_unbind_eventfd(rig.dev, i, -1));
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(count_unserved(&rig, wanted), 0);
    arrived = 0;
    for (unsigned i = 0; i < wanted; i++)
        arrived += rig_arrivals(&rig, 0, nth_vector(i));
    expect_eq(arrived, 10);         /* they were counted all the while */
}

static void an_unmask_without_a_free_route_stands_and_is_served_later(enum host host)
{
    const unsigned routes = routes_with(40), wanted = routes + 3;
    RIG(rig, host, .max_routes = 40, .vectors = wanted);
    for (unsigned i = 0; i < wanted; i++) {
        expect_ok(msi_vector_mask(rig.dev, i));
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i)));
        rig_bound(&rig, i, 0);      /* masked: needs no route */
    }
    for (unsigned i = 0; i < wanted; i++)
        expect_eq(msi_vector_unmask(rig.dev, i), i < routes ? 0 : -ENOSPC);
    expect_eq(count_unserved(&rig, wanted), 3);
    unsigned late = wanted - 1;
    expect_eq(info_of(rig.dev, late).flags, MSIROUTE_VECTOR_SET | MSIROUTE_VECTOR_LIVE | UNSERVED);
    fires(&rig, rig.eventfds[late]);
    expect_quiet(&rig);
    expect_eq(msi_vector_is_pending(rig.dev, late), 1);

    for (unsigned i = 0; i < 3; i++)
        expect_ok(msi_vector_mask(rig.dev, i));     /* a route each, which others take at once */
    expect_eq(count_unserved(&rig, wanted), 0);
    expect_arrival(&rig, 0, nth_vector(late));
    fires(&rig, rig.eventfds[late]);
    expect_arrival(&rig, 0, nth_vector(late));
    expect_quiet(&rig);
}

static void a_served_eventfd_does_not_make_up_for_an_unserved_one(enum host host)
{
    const unsigned routes = routes_with(40);
    RIG(rig, host, .max_routes = 40, .vectors = routes + 1);
    for (unsigned i = 0; i < routes; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i)));
        rig_bound(&rig, i, 0);
    }
    /* a guest's write moves a bound vector to a message for which there is no room: its old route is its own to take */
    expect_ok(msi_vector_set(rig.dev, 0, TO_NTH(300)));
    fires(&rig, rig.eventfds[0]);
    expect_arrival(&rig, nth_cpu(300), nth_vector(300));
    /* unless it shares it */
    expect_ok(msi_vector_set(rig.dev, routes, TO_NTH(1)));
    int sharing = rig_bound(&rig, routes, 0);
    expect_eq(msi_vector_set(rig.dev, routes, TO_NTH(301)), -ENOSPC);
    expect_eq(info_of(rig.dev, routes).data, nth_vector(301));
    expect_eq(count_unserved(&rig, routes + 1), 1);
    fires(&rig, sharing);
    expect_quiet(&rig);             /* never the old message */
    fires(&rig, rig.eventfds[1]);
    expect_arrival(&rig, 0, nth_vector(1));
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 2, -1));
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_arrival(&rig, nth_cpu(301), nth_vector(301));
    expect_quiet(&rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, hundreds_of_devices_deliver_thousands_of_vectors),
        TEST(EVERYWHERE, one_transaction_binds_2048_eventfds_with_one_table_write),
        TEST(ON_KVM | ON_FAKE, past_1024_eventfds_bound_one_by_one_each_works),
        TEST(ON_KVM, every_route_that_the_pins_leave_can_be_used_and_no_more),
        TEST(ON_KVM | ON_FAKE, every_GSI_above_the_pins_can_be_used_and_no_more),
        TEST(ON_FAKE, a_transaction_that_wants_too_much_serves_what_it_can_and_tells),
        TEST(ON_FAKE, an_unmask_without_a_free_route_stands_and_is_served_later),
        TEST(ON_FAKE, a_served_eventfd_does_not_make_up_for_an_unserved_one),
    };
    return TAP_MAIN(tests);
}
