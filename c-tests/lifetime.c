/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Unplug, the end of a cache, and what is left behind: nothing. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "rig.h"

/* ---- unplug ---- */

static void a_closed_device_answers_ENODEV_and_sends_nothing(enum host host)
{
    RIG(rig, host);
    struct msi_vector_info info = MSIROUTE_VECTOR_INFO_INIT;
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0), other = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_mask(rig.dev, 1));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x42)));
    expect_eq(msi_deliver(rig.dev, 1), MSIROUTE_PENDING);
    expect_ok(msi_device_close(rig.dev));
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_eq(take_count(fd), 1);       /* its eventfds are let go */
    expect_eq(msi_deliver(rig.dev, 0), -ENODEV);
    expect_eq(msi_vector_set(rig.dev, 0, TO(0, 0x43)), -ENODEV);
    expect_eq(msi_vector_clear(rig.dev, 0), -ENODEV);
    expect_eq(msi_vector_mask(rig.dev, 0), -ENODEV);
    expect_eq(msi_vector_unmask(rig.dev, 1), -ENODEV);
    expect_eq(msi_vector_is_pending(rig.dev, 1), -ENODEV);
    expect_eq(msi_vector_clear_pending(rig.dev, 1), -ENODEV);
    expect_eq(msi_vector_bind_eventfd(rig.dev, 0, other, 0), -ENODEV);
    expect_eq(msi_vector_unbind_eventfd(rig.dev, 0, fd), -ENODEV);
    expect_eq(msi_vector_info(rig.dev, 0, &info), -ENODEV);
    expect_eq(msi_device_reset(rig.dev), -ENODEV);
    expect_eq(msi_device_set_bus_master(rig.dev, 1), -ENODEV);
    expect_eq(msi_device_set_requester(rig.dev, 1), -ENODEV);
    expect(msi_route_cache_last_error()[0]);
    expect_ok(msi_device_close(rig.dev));       /* again is nothing */
    expect_quiet(&rig);
    expect_eq(rig_stats(&rig).routes_pinned, 0);
}

static void the_last_reference_closes_the_device(enum host host)
{
    RIG(rig, host);
    struct msi_device *dev = rig_take_device(&rig);
    expect_ok(msi_vector_set(dev, 0, TO(1, 0x41)));
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_bind_eventfd(dev, 0, fd, 0));
    expect(msi_device_ref(dev) == dev);
    msi_device_free(dev);
    expect_eq(msi_deliver(dev, 0), MSIROUTE_SENT);
    expect_arrival(&rig, 1, 0x41);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    msi_device_free(dev);
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_eq(take_count(fd), 1);
}

struct io_thread {
    struct msi_device *dev;
    atomic_bool end;
    atomic_ulong sent;
    int first_error;
    bool sent_after_error;
};

/* An I/O thread with a reference of its own: goes on delivering whatever it is told, and once more after the end. */
static void *keep_delivering(void *opaque)
{
    struct io_thread *io = opaque;
    for (bool last = false; !last;) {
        last = atomic_load(&io->end);
        int result = msi_deliver(io->dev, 0);
        if (result < 0 && !io->first_error)
            io->first_error = result;
        if (result >= 0) {
            atomic_fetch_add(&io->sent, 1);
            io->sent_after_error |= io->first_error != 0;
        }
    }
    msi_device_free(io->dev);
    return NULL;
}

/* `stop` ends the device's life while the thread delivers; afterwards nothing arrives and the thread is told so. */
static void stop_while_delivering(struct rig *rig, struct msi_device *dev, void (*stop)(struct rig *, struct msi_device *), int told)
{
    struct io_thread io = { .dev = msi_device_ref(dev) };
    pthread_t thread;
    expect_ok(msi_vector_set(dev, 0, TO(1, 0x41)));
    if (!expect_ok(pthread_create(&thread, NULL, keep_delivering, &io)))
        return;
    for (uint64_t end = now_us() + 1000000; atomic_load(&io.sent) < 10 && now_us() < end;)
        usleep(50);
    stop(rig, dev);
    expect(rig_arrivals(rig, 1, 0x41) > 0);
    expect_quiet(rig);
    atomic_store(&io.end, true);
    pthread_join(thread, NULL);
    expect_eq(io.first_error, told);
    expect(!io.sent_after_error);
    expect_quiet(rig);
}

static void close_device(struct rig *rig, struct msi_device *dev)
{
    (void)rig;
    expect_ok(msi_device_close(dev));
}

static void unplug_while_another_thread_delivers(enum host host)
{
    RIG(rig, host);
    for (unsigned round = 0; round < 50; round++)
        stop_while_delivering(&rig, rig_device(&rig, MSIROUTE_KIND_PLAIN, 1), close_device, -ENODEV);
}

static void the_old_eventfd_of_a_closed_device_raises_nothing_of_the_next(enum host host)
{
    RIG(rig, host);
    struct msi_device *next = rig_device(&rig, MSIROUTE_KIND_PLAIN, 1);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int old = rig_bound(&rig, 0, 0), new = rig_eventfd(&rig, EFD_NONBLOCK);
    uint32_t gsi = info_of(rig.dev, 0).gsi;
    expect_ok(msi_device_close(rig.dev));
    expect_ok(msi_vector_set(next, 0, TO(1, 0x41)));
    expect_ok(msi_vector_bind_eventfd(next, 0, new, 0));
    expect_eq(info_of(next, 0).gsi, gsi);
    fires(&rig, old);
    expect_quiet(&rig);
    fires(&rig, new);
    expect_arrival(&rig, 1, 0x41);
}

static void nor_when_its_GSI_has_another_message(enum host host)
{
    RIG(rig, host, .max_routes = 64, .vectors = 60);
    unsigned used = 0;
    for (; used < 60; used++) {         /* every route there is */
        expect_ok(msi_vector_set(rig.dev, used, TO_NTH(used)));
        int fd = rig_eventfd(&rig, EFD_NONBLOCK), result = msi_vector_bind_eventfd(rig.dev, used, fd, 0);
        if (result && expect_eq(result, -ENOSPC))
            break;
    }
    expect_ok(msi_device_close(rig.dev));
    struct msi_device *next = rig_device(&rig, MSIROUTE_KIND_PLAIN, 60);
    for (unsigned i = 0; i < used; i++) {
        expect_ok(msi_vector_set(next, i, TO_NTH(100 + i)));
        expect_ok(msi_vector_bind_eventfd(next, i, rig_eventfd(&rig, EFD_NONBLOCK), 0));
    }
    expect(rig_stats(&rig).evictions > 0);
    for (unsigned i = 0; i < used; i++)
        fires(&rig, rig.eventfds[i]);
    expect_quiet(&rig);
}

/* ---- the end of a cache ---- */

static void devices_that_outlive_their_cache_answer_ESHUTDOWN(enum host host)
{
    RIG(rig, host);
    struct msi_vector_info info = MSIROUTE_VECTOR_INFO_INIT;
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0), other = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_mask(rig.dev, 1));
    msi_route_cache_free(rig_take_cache(&rig));
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_eq(take_count(fd), 1);
    expect_eq(msi_deliver(rig.dev, 0), -ESHUTDOWN);
    expect_eq(msi_deliver(rig.dev, 1), -ESHUTDOWN);
    expect_eq(msi_vector_set(rig.dev, 0, TO(1, 0x42)), -ESHUTDOWN);
    expect_eq(msi_vector_mask(rig.dev, 0), -ESHUTDOWN);
    expect_eq(msi_vector_unmask(rig.dev, 1), -ESHUTDOWN);
    expect_eq(msi_vector_is_pending(rig.dev, 0), -ESHUTDOWN);
    expect_eq(msi_vector_bind_eventfd(rig.dev, 0, other, 0), -ESHUTDOWN);
    expect_eq(msi_vector_unbind_eventfd(rig.dev, 0, fd), -ESHUTDOWN);
    expect_eq(msi_vector_info(rig.dev, 0, &info), -ESHUTDOWN);
    expect_eq(msi_device_reset(rig.dev), -ESHUTDOWN);
    expect(msi_route_cache_last_error()[0]);
    expect_quiet(&rig);
}

static void free_cache(struct rig *rig, struct msi_device *dev)
{
    (void)dev;
    msi_route_cache_free(rig_take_cache(rig));
}

static void a_cache_may_end_while_another_thread_delivers(enum host host)
{
    for (unsigned round = 0; round < 20; round++) {
        RIG(rig, host);
        stop_while_delivering(&rig, rig.dev, free_cache, -ESHUTDOWN);
    }
}

static void the_end_of_a_cache_closes_its_descriptors(enum host host)
{
    RIG(rig, host);
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_device_config device = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_route_cache *cache;
    struct msi_device *dev;
    int fds[3];
    for (unsigned i = 0; i < 3; i++)
        fds[i] = rig_eventfd(&rig, EFD_NONBLOCK);
    unsigned before = open_descriptors(), vms = descriptors_of("anon_inode:kvm-vm");
    expect_eq(vms, 2);      /* ours, and that of the rig's cache */
    config.vm_fd = rig.vm.fd;
    device.vectors = 3;
    expect_ok(msi_route_cache_new(&config, &cache));
    expect_eq(descriptors_of("anon_inode:kvm-vm"), vms + 1);
    expect_ok(msi_device_new(cache, &device, &dev));
    for (unsigned i = 0; i < 3; i++) {
        expect_ok(msi_vector_set(dev, i, TO_NTH(i)));
        expect_ok(msi_vector_bind_eventfd(dev, i, fds[i], 0));
    }
    msi_route_cache_free(cache);
    expect_eq(descriptors_of("anon_inode:kvm-vm"), vms);       /* though the device is still held */
    for (unsigned i = 0; i < 3; i++)
        fires(&rig, fds[i]);
    expect_quiet(&rig);
    msi_device_free(dev);
    expect_eq(open_descriptors(), before);
}

static void the_VMM_may_close_its_own_VM_descriptor(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    close(rig.vm.fd);
    rig.vm.fd = -1;
    expect_delivers(&rig, 0, 1, 0x41);
    fires(&rig, rig_bound(&rig, 0, 0));
    expect_arrival(&rig, 1, 0x41);
}

static void caches_of_several_VMs_do_not_disturb_each_other(enum host host)
{
    RIG(a, host);
    RIG(b, host);
    expect_ok(msi_vector_set(a.dev, 0, TO(1, 0x41)));
    expect_ok(msi_vector_set(b.dev, 0, TO(1, 0x41)));
    int first = rig_bound(&a, 0, 0), second = rig_bound(&b, 0, 0);
    fires(&a, first);
    expect_arrival(&a, 1, 0x41);
    expect_quiet(&b);
    fires(&b, second);
    expect_arrival(&b, 1, 0x41);
    expect_quiet(&a);
    msi_route_cache_free(rig_take_cache(&a));
    expect_delivers(&b, 0, 1, 0x41);
}

static void one_eventfd_in_two_VMs_is_one_too_many(enum host host)
{
    RIG(a, host);
    RIG(b, host);
    expect_ok(msi_vector_set(a.dev, 0, TO(1, 0x41)));
    expect_ok(msi_vector_set(b.dev, 0, TO(1, 0x42)));
    int fd = rig_bound(&a, 0, 0);
    int result = msi_vector_bind_eventfd(b.dev, 0, fd, 0);
    if (result == 0) {      /* a kernel before 6.17 */
        expect_ok(msi_vector_unbind_eventfd(b.dev, 0, fd));
    } else {
        expect_eq(result, -EBUSY);
        expect_eq(info_of(b.dev, 0).eventfds, 0);
    }
    fires(&a, fd);
    expect_arrival(&a, 1, 0x41);
    expect_quiet(&b);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, a_closed_device_answers_ENODEV_and_sends_nothing),
        TEST(EVERYWHERE, the_last_reference_closes_the_device),
        TEST(EVERYWHERE, unplug_while_another_thread_delivers),
        TEST(EVERYWHERE, the_old_eventfd_of_a_closed_device_raises_nothing_of_the_next),
        TEST(EVERYWHERE, nor_when_its_GSI_has_another_message),
        TEST(EVERYWHERE, devices_that_outlive_their_cache_answer_ESHUTDOWN),
        TEST(EVERYWHERE, a_cache_may_end_while_another_thread_delivers),
        TEST(ON_KVM, the_end_of_a_cache_closes_its_descriptors),
        TEST(ON_KVM, the_VMM_may_close_its_own_VM_descriptor),
        TEST(EVERYWHERE, caches_of_several_VMs_do_not_disturb_each_other),
        TEST(ON_KVM, one_eventfd_in_two_VMs_is_one_too_many),
    };
    return TAP_MAIN(tests);
}
