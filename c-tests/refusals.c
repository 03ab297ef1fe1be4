/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a refusal of the kernel does to one call, to its neighbours, and to nobody else. */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rig.h"

#define UNSERVED MSIROUTE_VECTOR_UNSERVED

static void a_bind_that_the_kernel_refuses_is_not_bound(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    for (enum fake_call call = FAKE_SET_ROUTES; call <= FAKE_BIND; call++) {
        fake_fault(&rig.fake, call, 1, ENOMEM, true);
        expect_eq(msi_vector_bind_eventfd(rig.dev, 0, fd, 0), -ENOMEM);
        expect(msi_route_cache_last_error()[0]);
        expect(fake_faultless(&rig.fake));
        expect_eq(info_of(rig.dev, 0).eventfds, 0);
        expect_eq(rig_stats(&rig).unserved_vectors, 0);
        fires(&rig, fd);
        expect_quiet(&rig);
        expect_eq(take_count(fd), 1);
    }
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect(rig_stats(&rig).table_write_errors > 0);
}

static void a_refused_bind_leaves_its_vector_and_its_eventfd_as_they_were(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int bound = rig_bound(&rig, 0, 0), fd = rig_eventfd(&rig, EFD_NONBLOCK);
    struct msi_vector_info before = info_of(rig.dev, 0);
    add_to_eventfd(fd, 3);
    fake_fault(&rig.fake, FAKE_BIND, 1, ENOMEM, true);
    expect_eq(msi_vector_bind_eventfd(rig.dev, 0, fd, 0), -ENOMEM);
    expect(fake_faultless(&rig.fake));
    struct msi_vector_info after = info_of(rig.dev, 0);
    expect_eq(after.flags, before.flags);
    expect_eq(after.eventfds, 1);
    expect_eq(after.error, 0);
    expect_eq(after.gsi, before.gsi);
    expect_eq(msi_vector_is_pending(rig.dev, 0), 0);
    expect_quiet(&rig);             /* what it counted is not this vector's */
    expect_eq(take_count(fd), 3);
    fires(&rig, bound);
    expect_arrival(&rig, 1, 0x41);
}

static void one_refused_eventfd_spoils_no_other(enum host host)
{
    RIG(rig, host, .vectors = 8);
    expect_ok(msi_route_cache_begin(rig.cache));
    for (uint32_t v = 0; v < 8; v++) {
        expect_ok(msi_vector_set(rig.dev, v, TO(0, 0x40 + v)));
        rig_bound(&rig, v, 0);
    }
    fake_fault(&rig.fake, FAKE_BIND, 3, EBUSY, false);      /* one eventfd that someone else has bound */
    expect_eq(msi_route_cache_commit(rig.cache), -EBUSY);
    expect(fake_faultless(&rig.fake));
    unsigned unserved = 0, arrived = 0;
    for (uint32_t v = 0; v < 8; v++) {
        unserved += !!(info_of(rig.dev, v).flags & UNSERVED);
        fires(&rig, rig.eventfds[v]);
        arrived += rig_arrivals(&rig, 0, 0x40 + v);
    }
    /* The commit's own write was an occasion to try that one again. */
    expect_eq(unserved, 0);
    expect_eq(arrived, 8);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
}

static void one_message_that_the_kernel_never_takes_spoils_no_other(enum host host)
{
    RIG(rig, host, .vectors = 8);
    rig.fake.poison = 0x44;
    expect_ok(msi_route_cache_begin(rig.cache));
    for (uint32_t v = 0; v < 8; v++) {
        expect_ok(msi_vector_set(rig.dev, v, TO(0, 0x40 + v)));
        rig_bound(&rig, v, 0);
    }
    for (unsigned turn = 0; turn < 3; turn++) {
        expect_eq(msi_route_cache_commit(rig.cache), -EINVAL);
        for (uint32_t v = 0; v < 8; v++) {
            bool refused = info_of(rig.dev, v).data == 0x44;
            expect_eq(!!(info_of(rig.dev, v).flags & UNSERVED), refused);
            fires(&rig, rig.eventfds[v]);
            if (!refused)
                expect_arrival(&rig, 0, info_of(rig.dev, v).data);
        }
        expect_quiet(&rig);
        expect_eq(rig_stats(&rig).unserved_vectors, 1);
        expect_ok(msi_vector_set(rig.dev, turn, TO(1, 0x60 + turn)));       /* others go on changing */
        fires(&rig, rig.eventfds[turn]);
        expect_arrival(&rig, 1, 0x60 + turn);
        expect_ok(msi_vector_set(rig.dev, turn, TO(0, 0x40 + turn)));
    }
    expect_ok(msi_vector_set(rig.dev, 4, TO(1, 0x77)));
    expect_arrival(&rig, 1, 0x77);      /* what it counted meanwhile */
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_quiet(&rig);
}

static void what_was_refused_is_served_with_the_next_table_write(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_mask(rig.dev, 0));
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    fake_fault(&rig.fake, FAKE_SET_ROUTES, 1, ENOMEM, true);
    expect_eq(msi_vector_unmask(rig.dev, 0), -ENOMEM);
    expect(fake_faultless(&rig.fake));
    expect_eq(info_of(rig.dev, 0).flags, MSIROUTE_VECTOR_SET | MSIROUTE_VECTOR_LIVE | UNSERVED);
    expect_eq(info_of(rig.dev, 0).error, -ENOMEM);
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_SENT);      /* the vector itself is open */
    rig_arrivals(&rig, 1, 0x41);

    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x42)));
    rig_bound(&rig, 1, 0);                                  /* somebody else's write */
    expect_eq(info_of(rig.dev, 0).flags & UNSERVED, 0);
    fires(&rig, fd);
    expect(rig_arrivals(&rig, 1, 0x41) > 0);
}

static void an_irqfd_that_the_kernel_keeps_never_gets_another_message(enum host host)
{
    RIG(rig, host);
    struct msi_device *gone = rig_device(&rig, MSIROUTE_KIND_PLAIN, 1);
    int old = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_set(gone, 0, TO(0, 0x33)));
    expect_ok(msi_vector_bind_eventfd(gone, 0, old, MSIROUTE_EVENTFD_BORROWED));
    fake_fault(&rig.fake, FAKE_UNBIND, 1, EIO, true);
    expect_eq(msi_device_close(gone), -EIO);
    for (uint32_t v = 0; v < 4; v++) {
        expect_ok(msi_vector_set(rig.dev, v, TO(0, 0x40 + v)));
        rig_bound(&rig, v, 0);
    }
    fires(&rig, old);
    rig_arrivals(&rig, 0, 0x33);        /* the old message at worst */
    expect_quiet(&rig);
    fake_faultless(&rig.fake);
    fake_let_go(&rig.fake, old);
}

/* ---- what no caller can be told ---- */

struct heard { unsigned errors, others; char last[256]; };

static void hear(void *opaque, uint32_t level, const char *message)
{
    struct heard *heard = opaque;
    if (level == MSIROUTE_LOG_ERROR)
        heard->errors++;
    else
        heard->others++;
    snprintf(heard->last, sizeof(heard->last), "%s", message);
}

/* Frees a device whose eventfd the kernel does not let go: there is nobody to tell. */
static void fail_silently(struct rig *rig)
{
    struct msi_device *gone = rig_take_device(rig);
    int fd = rig_eventfd(rig, EFD_NONBLOCK);
    expect_ok(msi_vector_set(gone, 0, TO(0, 0x33)));
    expect_ok(msi_vector_bind_eventfd(gone, 0, fd, MSIROUTE_EVENTFD_BORROWED));
    fake_fault(&rig->fake, FAKE_UNBIND, 1, EIO, true);
    msi_device_free(gone);      /* has no result */
    expect(fake_faultless(&rig->fake));
    fake_let_go(&rig->fake, fd);
}

static void without_a_log_function_nothing_is_said(enum host host)
{
    RIG(rig, host);
    int said = memfd_create("said", MFD_CLOEXEC), out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
    fflush(NULL);
    dup2(said, STDOUT_FILENO);
    dup2(said, STDERR_FILENO);
    fail_silently(&rig);
    fflush(NULL);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    expect_eq(lseek(said, 0, SEEK_END), 0);
    close(said);
    close(out);
    close(err);
}

static void what_no_caller_can_be_told_is_logged(enum host host)
{
    struct heard heard = { 0 };
    RIG(rig, host);
    msi_route_cache_set_log(hear, &heard);
    fail_silently(&rig);
    expect(heard.errors > 0);
    expect(heard.last[0]);
    msi_route_cache_set_log(NULL, NULL);
    unsigned before = heard.errors + heard.others;
    fake_fault(&rig.fake, FAKE_SET_ROUTES, 1, EIO, true);
    msi_route_cache_set_fixed(rig.cache, NULL, 0);
    fake_faultless(&rig.fake);
    msi_route_cache_commit(rig.cache);
    expect_eq(heard.errors + heard.others, before);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_FAKE, a_bind_that_the_kernel_refuses_is_not_bound),
        TEST(ON_FAKE, a_refused_bind_leaves_its_vector_and_its_eventfd_as_they_were),
        TEST(ON_FAKE, one_refused_eventfd_spoils_no_other),
        TEST(ON_FAKE, one_message_that_the_kernel_never_takes_spoils_no_other),
        TEST(ON_FAKE, what_was_refused_is_served_with_the_next_table_write),
        TEST(ON_FAKE, an_irqfd_that_the_kernel_keeps_never_gets_another_message),
        TEST(ON_FAKE, without_a_log_function_nothing_is_said),     /* before any is set */
        TEST(ON_FAKE, what_no_caller_can_be_told_is_logged),
    };
    return TAP_MAIN(tests);
}
