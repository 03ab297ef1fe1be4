/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the library says about itself: version, features, numbers, words. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "rig.h"

static void the_version_is_the_headers(enum host host)
{
    char version[32];
    (void)host;
    snprintf(version, sizeof(version), "%d.%d.%d", MSIROUTE_VERSION_MAJOR, MSIROUTE_VERSION_MINOR, MSIROUTE_VERSION_PATCH);
    expect(!strcmp(msi_route_cache_version(), version));
}

static void features_are_those_of_the_host(enum host host)
{
    uint32_t max_routes = 0;
    RIG(rig, host);
    uint32_t features = msi_route_cache_features(rig.cache, &max_routes);
    expect(features & MSIROUTE_HAS_DIRECT);
    expect(features & MSIROUTE_HAS_IRQFD);
    expect(!(features & MSIROUTE_HAS_REQUESTER));       /* no ITS on x86 */
    expect_eq(max_routes, 4096);
}

static void a_smaller_table_is_what_was_asked_for(enum host host)
{
    uint32_t max_routes = 0;
    RIG(rig, host, .max_routes = 64);
    msi_route_cache_features(rig.cache, &max_routes);
    expect_eq(max_routes, 64);
}

static void the_numbers_follow_what_is_done(enum host host)
{
    RIG(rig, host);
    struct msi_route_cache_stats none = rig_stats(&rig), stats;
    expect_eq(none.table_writes + none.table_write_errors + none.routes + none.routes_pinned + none.evictions
              + none.irqfd_binds + none.irqfd_unbinds + none.unserved_vectors, 0);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(0, 0x42)));
    int first = rig_bound(&rig, 0, 0);
    rig_bound(&rig, 1, 0);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, first));
    stats = rig_stats(&rig);
    expect_eq(stats.table_writes, 2);
    expect_eq(stats.table_write_errors, 0);
    expect_eq(stats.routes, 2);
    expect_eq(stats.routes_pinned, 1);
    expect_eq(stats.irqfd_binds, 2);
    expect_eq(stats.irqfd_unbinds, 1);
    expect_eq(stats.unserved_vectors, 0);
}

/* ---- words ---- */

static char other_threads_words[256];

static void *fail_on_another_thread(void *dev)
{
    expect_eq(msi_deliver(dev, 99), -EINVAL);
    snprintf(other_threads_words, sizeof(other_threads_words), "%s", msi_route_cache_last_error());
    return NULL;
}

static void the_last_error_is_each_threads_own(enum host host)
{
    RIG(rig, host);
    pthread_t thread;
    expect(!msi_route_cache_last_error()[0]);       /* this test's thread is new */
    expect_ok(pthread_create(&thread, NULL, fail_on_another_thread, rig.dev));
    pthread_join(thread, NULL);
    expect(other_threads_words[0]);
    expect(!msi_route_cache_last_error()[0]);
    expect_eq(msi_vector_set(rig.dev, 0, 0x1000, 0), -EINVAL);
    expect(msi_route_cache_last_error()[0]);
    expect(strcmp(msi_route_cache_last_error(), other_threads_words) != 0);     /* another failure, other words */
    char kept[256];
    snprintf(kept, sizeof(kept), "%s", msi_route_cache_last_error());
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect(!strcmp(msi_route_cache_last_error(), kept));        /* until the next failure */
}

static int closed_device(void *dev)         { return msi_deliver(dev, 0); }
static int mask_closed_device(void *dev)    { return msi_vector_mask(dev, 0); }
static int bind_nothing(void *dev)          { return msi_vector_bind_eventfd(dev, 0, -1, 0); }
static int unbind_nothing(void *dev)        { return msi_vector_unbind_eventfd(dev, 0, 3); }
static int set_no_message(void *dev)        { return msi_vector_set(dev, 0, 0, 0); }

static void every_failure_has_words_and_leaves_errno_alone(enum host host)
{
    RIG(rig, host);
    expect_refused(-EBADF, bind_nothing, rig.dev);
    expect_refused(-ENOENT, unbind_nothing, rig.dev);
    expect_refused(-EINVAL, set_no_message, rig.dev);
    expect_ok(msi_device_close(rig.dev));
    expect_refused(-ENODEV, closed_device, rig.dev);
    expect_refused(-ENODEV, mask_closed_device, rig.dev);
}

static void success_leaves_errno_alone_too(enum host host)
{
    RIG(rig, host);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    errno = 4711;
    int failed = msi_vector_set(rig.dev, 0, TO(1, 0x41));
    failed |= msi_vector_bind_eventfd(rig.dev, 0, fd, 0);
    failed |= msi_vector_mask(rig.dev, 0);
    failed |= msi_vector_is_pending(rig.dev, 0);            /* reads an empty eventfd */
    failed |= msi_vector_clear_pending(rig.dev, 0);
    failed |= msi_vector_unmask(rig.dev, 0);
    failed |= msi_deliver(rig.dev, 0);
    failed |= msi_vector_unbind_eventfd(rig.dev, 0, fd);
    int after = errno;
    expect_ok(failed);
    expect_eq(after, 4711);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ANYWHERE, the_version_is_the_headers),
        TEST(EVERYWHERE, features_are_those_of_the_host),
        TEST(EVERYWHERE, a_smaller_table_is_what_was_asked_for),
        TEST(EVERYWHERE, the_numbers_follow_what_is_done),
        TEST(EVERYWHERE, the_last_error_is_each_threads_own),
        TEST(EVERYWHERE, every_failure_has_words_and_leaves_errno_alone),
        TEST(EVERYWHERE, success_leaves_errno_alone_too),
    };
    return TAP_MAIN(tests);
}
