/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The kernel's table as a cache: what shares a route, what writes the table, and what does not. */
#include <pthread.h>

#include "rig.h"

#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL

static void vectors_with_the_same_message_share_one_route(enum host host)
{
    RIG(rig, host);
    struct msi_device *other = rig_device(&rig, MSIROUTE_KIND_PLAIN, 1);
    int third = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x41)));
    expect_ok(msi_vector_set(other, 0, TO(1, 0x41)));
    int first = rig_bound(&rig, 0, 0), second = rig_bound(&rig, 1, 0);
    expect_ok(msi_vector_bind_eventfd(other, 0, third, 0));
    expect_eq(rig_stats(&rig).routes, 1);
    expect_eq(rig_stats(&rig).routes_pinned, 1);
    expect_eq(rig_stats(&rig).irqfd_binds, 3);
    expect_eq(info_of(rig.dev, 0).gsi, info_of(other, 0).gsi);
    const int fds[] = { first, second, third };
    for (unsigned i = 0; i < 3; i++) {
        fires(&rig, fds[i]);
        expect_arrival(&rig, 1, 0x41);
    }
    /* the route lasts as long as its last user */
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, first));
    expect_ok(msi_device_close(other));
    expect_eq(rig_stats(&rig).routes_pinned, 1);
    fires(&rig, second);
    expect_arrival(&rig, 1, 0x41);
    fires(&rig, first);
    fires(&rig, third);
    expect_quiet(&rig);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 1, second));
    expect_eq(rig_stats(&rig).routes_pinned, 0);
}

static void what_differs_in_destination_or_vector_gets_a_route_of_its_own(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 2, TO(0, 0x42)));
    for (unsigned i = 0; i < 3; i++)
        rig_bound(&rig, i, 0);
    expect_eq(rig_stats(&rig).routes, 3);
    expect_eq(rig_stats(&rig).routes_pinned, 3);
    expect(info_of(rig.dev, 0).gsi != info_of(rig.dev, 1).gsi);
    expect(info_of(rig.dev, 0).gsi != info_of(rig.dev, 2).gsi);
    expect(info_of(rig.dev, 1).gsi != info_of(rig.dev, 2).gsi);
}

static int mask_and_unmask(struct rig *rig)
{
    return msi_vector_mask(rig->dev, 0) || msi_vector_unmask(rig->dev, 0);
}

static void mask_and_unmask_with_the_same_message_write_no_table(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_eq(rig_stats(&rig).table_writes, 1);
    for (unsigned i = 0; i < 10; i++)
        expect_eq(TABLE_WRITES(&rig, expect_ok(mask_and_unmask(&rig))), 0);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
}

static void an_unchanged_set_writes_no_table(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    struct msi_route_cache_stats before = rig_stats(&rig);
    for (unsigned i = 0; i < 10; i++)
        expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_eq(rig_stats(&rig).table_writes, before.table_writes);
    expect_eq(rig_stats(&rig).irqfd_unbinds, before.irqfd_unbinds);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
}

static void nothing_but_a_new_message_under_an_eventfd_writes_the_table(enum host host)
{
    RIG(rig, host);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_eq(TABLE_WRITES(&rig, msi_vector_set(rig.dev, 0, TO(1, 0x41))), 0);
    expect_eq(TABLE_WRITES(&rig, msi_vector_bind_eventfd(rig.dev, 0, fd, 0)), 1);
    expect_eq(TABLE_WRITES(&rig, msi_vector_mask(rig.dev, 0)), 0);
    expect_eq(TABLE_WRITES(&rig, msi_vector_set(rig.dev, 0, TO(1, 0x42))), 0);     /* masked: nobody needs it yet */
    expect_eq(TABLE_WRITES(&rig, msi_vector_unmask(rig.dev, 0)), 1);
    expect_eq(TABLE_WRITES(&rig, msi_vector_unbind_eventfd(rig.dev, 0, fd)), 0);
    expect_eq(TABLE_WRITES(&rig, msi_vector_bind_eventfd(rig.dev, 0, fd, 0)), 0);  /* the idle route is found again */
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x42);
    expect_quiet(&rig);
}

static void an_idle_route_is_found_again_by_another_vector(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
    expect_eq(rig_stats(&rig).routes, 1);
    expect_eq(rig_stats(&rig).routes_pinned, 0);
    expect_ok(msi_vector_set(rig.dev, 3, TO(1, 0x41)));
    expect_eq(TABLE_WRITES(&rig, fd = rig_bound(&rig, 3, 0)), 0);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
}

/* ---- transactions ---- */

static void a_transaction_writes_the_table_once(enum host host)
{
    RIG(rig, host, .vectors = 64);
    int fds[64];
    uint64_t before = rig_stats(&rig).table_writes;
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < 64; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i)));
        fds[i] = rig_bound(&rig, i, 0);
    }
    expect_eq(rig_stats(&rig).table_writes, before);
    expect_eq(info_of(rig.dev, 63).eventfds, 1);        /* attached at once, armed at commit */
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(rig_stats(&rig).table_writes, before + 1);
    for (unsigned i = 0; i < 64; i++) {
        expect(info_of(rig.dev, i).flags & IN_KERNEL);
        fires(&rig, fds[i]);
        expect_arrival(&rig, nth_cpu(i), nth_vector(i));
    }
    expect_quiet(&rig);
}

static void what_is_raised_inside_a_transaction_arrives_once_at_its_commit(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_route_cache_begin(rig.cache));
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    fires(&rig, fd);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_arrival(&rig, 1, 0x41);
    expect_quiet(&rig);
}

static void inside_a_transaction_mask_holds_at_once(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(msi_route_cache_begin(rig.cache));
    expect_ok(msi_vector_mask(rig.dev, 0));
    fires(&rig, fd);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    expect_quiet(&rig);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x42)));
    expect_ok(msi_vector_unmask(rig.dev, 0));
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_arrival(&rig, 1, 0x42);
    expect_quiet(&rig);
}

static void inside_a_transaction_eventfds_get_their_new_message_at_the_commit(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(msi_route_cache_begin(rig.cache));
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x42)));
    expect_delivers(&rig, 0, 1, 0x42);      /* what the VMM raises itself has it at once */
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_ok(msi_route_cache_commit(rig.cache));
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x42);
    expect_quiet(&rig);
    expect_eq(rig_stats(&rig).irqfd_unbinds, 0);
}

static void transactions_nest_and_the_outermost_commit_counts(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_route_cache_begin(rig.cache));
    expect_ok(msi_route_cache_begin(rig.cache));
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(rig_stats(&rig).table_writes, 1);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
}

static void *bind_on_another_thread(void *opaque)
{
    struct rig *rig = opaque;
    expect_ok(msi_vector_set(rig->dev, 1, TO(1, 0x42)));
    int fd = rig_bound(rig, 1, 0);
    fires(rig, fd);
    expect_arrival(rig, 1, 0x42);
    return NULL;
}

static void a_transaction_holds_up_no_other_thread(enum host host)
{
    RIG(rig, host);
    pthread_t thread;
    expect_ok(msi_route_cache_begin(rig.cache));
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    pthread_create(&thread, NULL, bind_on_another_thread, &rig);
    pthread_join(thread, NULL);
    expect_ok(msi_route_cache_commit(rig.cache));
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x41);
}

static void what_is_undone_inside_a_transaction_is_never_written(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_route_cache_begin(rig.cache));
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x42)));
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(rig_stats(&rig).routes_pinned, 0);
    expect_eq(rig_stats(&rig).irqfd_binds, rig_stats(&rig).irqfd_unbinds);
    fires(&rig, fd);
    expect_quiet(&rig);
}

static void commit_without_begin_is_nothing(enum host host)
{
    RIG(rig, host);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_route_cache_commit(rig.cache))), 0);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_route_cache_commit(rig.cache))), 0);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
}

static void a_function_that_goes_live_writes_the_table_once(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = 64);
    for (unsigned i = 0; i < 64; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i)));
        expect_ok(msi_vector_unmask(rig.dev, i));
        rig_bound(&rig, i, MSIROUTE_EVENTFD_KERNEL_ONLY);
    }
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_device_set_control(rig.dev, MSIROUTE_ENABLED))), 1);
    expect_eq(rig_stats(&rig).routes_pinned, 64);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_device_set_bus_master(rig.dev, 0))), 0);
    expect_eq(rig_stats(&rig).routes_pinned, 0);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_device_set_bus_master(rig.dev, 1))), 0);    /* the same messages */
    for (unsigned i = 0; i < 64; i++) {
        fires(&rig, rig.eventfds[i]);
        expect_arrival(&rig, nth_cpu(i), nth_vector(i));
    }
}

/* ---- the library's belief and the table ---- */

static void the_table_holds_what_the_vectors_say(enum host host)
{
    RIG(rig, host, .vectors = 100);
    for (unsigned i = 0; i < 100; i++) {
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(i)));
        rig_bound(&rig, i, MSIROUTE_EVENTFD_BORROWED);
    }
    for (unsigned i = 0; i < 100; i += 3)
        expect_ok(msi_vector_set(rig.dev, i, TO_NTH(200 + i)));
    for (unsigned i = 0; i < 100; i++) {
        uint64_t address = 0;
        uint32_t data = 0, gsi = MSIROUTE_ANY_GSI;
        struct msi_vector_info info = info_of(rig.dev, i);
        expect(fake_route(&rig.fake, info.gsi, &address, &data));
        expect_eq(address, info.address);
        expect_eq(data, info.data);
        expect(fake_has_irqfd(&rig.fake, rig.eventfds[i], &gsi));
        expect_eq(gsi, info.gsi);
    }
    expect_eq(rig_stats(&rig).routes, fake_msi_routes(&rig.fake));
    expect_eq(rig_stats(&rig).table_writes, rig.fake.calls[FAKE_SET_ROUTES]);
    expect_eq(rig_stats(&rig).irqfd_binds, rig.fake.calls[FAKE_BIND]);
    expect_eq(rig_stats(&rig).irqfd_unbinds, rig.fake.calls[FAKE_UNBIND]);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, vectors_with_the_same_message_share_one_route),
        TEST(EVERYWHERE, what_differs_in_destination_or_vector_gets_a_route_of_its_own),
        TEST(EVERYWHERE, mask_and_unmask_with_the_same_message_write_no_table),
        TEST(EVERYWHERE, an_unchanged_set_writes_no_table),
        TEST(EVERYWHERE, nothing_but_a_new_message_under_an_eventfd_writes_the_table),
        TEST(EVERYWHERE, an_idle_route_is_found_again_by_another_vector),
        TEST(EVERYWHERE, a_transaction_writes_the_table_once),
        TEST(EVERYWHERE, what_is_raised_inside_a_transaction_arrives_once_at_its_commit),
        TEST(EVERYWHERE, inside_a_transaction_mask_holds_at_once),
        TEST(EVERYWHERE, inside_a_transaction_eventfds_get_their_new_message_at_the_commit),
        TEST(EVERYWHERE, transactions_nest_and_the_outermost_commit_counts),
        TEST(EVERYWHERE, a_transaction_holds_up_no_other_thread),
        TEST(EVERYWHERE, what_is_undone_inside_a_transaction_is_never_written),
        TEST(EVERYWHERE, commit_without_begin_is_nothing),
        TEST(EVERYWHERE, a_function_that_goes_live_writes_the_table_once),
        TEST(ON_FAKE, the_table_holds_what_the_vectors_say),
    };
    return TAP_MAIN(tests);
}
