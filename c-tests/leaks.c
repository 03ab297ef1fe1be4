/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Made and freed again and again: no descriptor, no thread and no memory is left behind. */
#include <errno.h>
#include <unistd.h>

#include "rig.h"

/* One life: made, used, and taken down in either order. Things of the host's are made once. */
static void live_once(struct rig *host, unsigned round)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = fake_ops(host->host == ON_FAKE);
    struct msi_device_config device = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_route_cache *cache;
    struct msi_device *dev;
    int fds[2] = { eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC) };
    config.vm_fd = host->vm.fd;
    if (host->host != ON_KVM) {
        config.ops = &ops;
        config.opaque = &host->fake;
        config.flags = host->host == ON_MODEL ? MSIROUTE_CACHE_MODEL : 0;
    }
    device.vectors = 16;
    device.name = "again";
    if (!expect_ok(msi_route_cache_new(&config, &cache)) || !expect_ok(msi_device_new(cache, &device, &dev)))
        return;
    for (uint32_t i = 0; i < 16; i++)
        expect_ok(msi_vector_set(dev, i, TO_NTH(round + i)));
    expect_ok(msi_vector_bind_eventfd(dev, 0, fds[0], 0));
    expect_ok(msi_vector_bind_eventfd(dev, 1, fds[1], MSIROUTE_EVENTFD_BORROWED));
    expect_ok(msi_vector_mask(dev, 1));
    expect(msi_deliver(dev, 2) >= 0);
    expect_eq(msi_deliver(dev, 16), -EINVAL);   /* leaves a text behind */
    if (round % 2) {
        msi_route_cache_free(cache);
        msi_device_free(dev);
    } else {
        msi_device_free(dev);
        msi_route_cache_free(cache);
    }
    close(fds[0]);
    close(fds[1]);
}

static void live(enum host host, unsigned first, unsigned all)
{
    RIG(rig, host);
    for (unsigned round = 0; round < first; round++)
        live_once(&rig, round);
    unsigned descriptors = open_descriptors(), threads = threads_alive();
    long resident = resident_kib();
    for (unsigned round = first; round < all; round++)
        live_once(&rig, round);
    expect_eq(open_descriptors(), descriptors);
    expect_eq(threads_alive(), threads);
    long grown = resident_kib() - resident;
    tap_note("%ld KiB more after %u lives than after %u", grown, all, first);
    expect(grown < 512);
}

static void ten_thousand_lives_leave_nothing_behind(enum host host) { live(host, 2000, 10000); }
static void a_thousand_lives_leave_nothing_behind(enum host host)   { live(host, 200, 1000); }

static void thousands_of_binds_leave_nothing_behind(enum host host)
{
    enum { FIRST = 2000, ALL = 6000 };
    RIG(rig, host);
    unsigned descriptors = 0;
    long resident = 0;
    for (unsigned round = 0; round < ALL; round++) {
        int fd = eventfd(0, EFD_CLOEXEC);
        expect_ok(msi_vector_set(rig.dev, 0, TO_NTH(round % 448)));
        expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
        expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
        close(fd);
        if (round == FIRST) {
            descriptors = open_descriptors();
            resident = resident_kib();
        }
    }
    expect_eq(open_descriptors(), descriptors);
    expect(resident_kib() - resident < 512);
    expect_eq(rig_stats(&rig).irqfd_binds, ALL);
    expect_eq(rig_stats(&rig).irqfd_unbinds, ALL);
    expect_eq(rig_stats(&rig).routes_pinned, 0);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_FAKE, ten_thousand_lives_leave_nothing_behind),
        TEST(ON_KVM | ON_MODEL, a_thousand_lives_leave_nothing_behind),
        TEST(ON_KVM | ON_FAKE, thousands_of_binds_leave_nothing_behind),
    };
    return TAP_MAIN(tests);
}
