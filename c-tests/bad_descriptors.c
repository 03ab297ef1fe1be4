/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Descriptors that are not what they should be, or are so twice. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "rig.h"

static int closed_descriptor(void)
{
    int fd = dup(0);
    close(fd);
    return fd;
}

/* ---- the VM's ---- */

struct kvm_case { int vm_fd, kvm_fd; };

static int new_cache(void *opaque)
{
    const struct kvm_case *c = opaque;
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache *cache = (void *)1;
    config.vm_fd = c->vm_fd;
    config.kvm_fd = c->kvm_fd;
    int result = msi_route_cache_new(&config, &cache);
    if (result < 0)
        expect(cache == NULL);
    else
        msi_route_cache_free(cache);
    return result;
}

static void expect_no_vm(int want, int vm_fd, int kvm_fd)
{
    struct kvm_case c = { vm_fd, kvm_fd };
    unsigned before = open_descriptors();
    expect_refused(want, new_cache, &c);
    expect_eq(open_descriptors(), before);
}

static void descriptors_that_are_no_VM(enum host host)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), pipes[2];
    (void)host;
    expect_ok(pipe(pipes));
    expect_no_vm(-EBADF, -1, -1);
    expect_no_vm(-EBADF, -100, -1);
    expect_no_vm(-EBADF, closed_descriptor(), -1);
    expect_no_vm(-EINVAL, null, -1);
    expect_no_vm(-EINVAL, pipes[0], -1);
    close(null);
    close(pipes[0]);
    close(pipes[1]);
}

static void descriptors_of_KVM_that_are_no_VM(enum host host)
{
    RIG(rig, host);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct kvm_case given = { rig.vm.fd, rig.vm.kvm };
    expect_no_vm(-EINVAL, rig.vm.kvm, -1);
    expect_no_vm(-EINVAL, rig.vm.cpu[0], -1);
    expect_no_vm(-EINVAL, rig.vm.fd, null);             /* a right VM and a wrong /dev/kvm */
    expect_no_vm(-EINVAL, rig.vm.fd, rig.vm.fd);
    expect_no_vm(-EBADF, rig.vm.fd, closed_descriptor());
    expect_ok(new_cache(&given));                       /* both right: /dev/kvm need not be opened */
    close(null);
}

/* ---- eventfds ---- */

struct bind_case {
    struct msi_device *dev;
    uint32_t index;
    int fd;
};

static int bind_eventfd(void *opaque)
{
    const struct bind_case *c = opaque;
    return msi_vector_bind_eventfd(c->dev, c->index, c->fd, 0);
}

static int unbind_eventfd(void *opaque)
{
    const struct bind_case *c = opaque;
    return msi_vector_unbind_eventfd(c->dev, c->index, c->fd);
}

/* Refused, and attached to nothing. */
static void expect_no_bind(int want, struct msi_device *dev, uint32_t index, int fd)
{
    struct bind_case c = { dev, index, fd };
    uint32_t eventfds = info_of(dev, index).eventfds;
    unsigned before = open_descriptors();
    expect_refused(want, bind_eventfd, &c);
    expect_eq(info_of(dev, index).eventfds, eventfds);
    expect_eq(open_descriptors(), before);
}

static void files_that_are_no_eventfd(enum host host)
{
    int pipes[2], sockets[2];
    RIG(rig, host);
    expect_ok(pipe(pipes));
    expect_ok(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
    const int fds[] = {
        open("/dev/null", O_RDWR | O_CLOEXEC), open("/proc/self/status", O_RDONLY | O_CLOEXEC),
        timerfd_create(CLOCK_MONOTONIC, 0), epoll_create1(0), pipes[0], pipes[1], sockets[0], sockets[1],
    };
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        tap_context("file %zu", i);
        expect(fds[i] >= 0);
        expect_no_bind(-EINVAL, rig.dev, 0, fds[i]);
        expect_no_bind(-EINVAL, rig.dev, 1, fds[i]);    /* unset: refused at bind, not later */
        close(fds[i]);
    }
    expect_no_bind(-EBADF, rig.dev, 0, closed_descriptor());
    expect_no_bind(-EBADF, rig.dev, 0, -1);
    expect_no_bind(-EBADF, rig.dev, 0, -7);
    expect_no_bind(-EINVAL, rig.dev, 0, rig_eventfd(&rig, EFD_SEMAPHORE));
    expect_delivers(&rig, 0, 1, 0x41);
    fires(&rig, rig_bound(&rig, 0, 0));
    expect_arrival(&rig, 1, 0x41);
}

static void an_eventfd_that_is_bound_already(enum host host)
{
    RIG(rig, host);
    struct msi_device *other = rig_device(&rig, MSIROUTE_KIND_PLAIN, 1);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(0, 0x42)));
    expect_ok(msi_vector_set(other, 0, TO(0, 0x43)));
    int fd = rig_bound(&rig, 0, 0), again = dup(fd);
    for (unsigned masked = 0; masked < 2; masked++) {
        tap_context(masked ? "masked" : "live");
        expect_no_bind(-EBUSY, rig.dev, 0, fd);
        expect_no_bind(-EBUSY, rig.dev, 1, fd);
        expect_no_bind(-EBUSY, rig.dev, 2, fd);         /* unset */
        expect_no_bind(-EBUSY, other, 0, fd);
        expect_no_bind(-EBUSY, rig.dev, 0, again);
        expect_no_bind(-EBUSY, rig.dev, 1, again);
        expect_no_bind(-EBUSY, other, 0, again);
        if (!masked) {
            fires(&rig, fd);
            expect_arrival(&rig, 0, 0x41);
        }
        expect_quiet(&rig);
        expect_ok(msi_vector_mask(rig.dev, 0));
    }
    expect_ok(msi_vector_unmask(rig.dev, 0));
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
    expect_ok(msi_vector_bind_eventfd(other, 0, again, 0));     /* free again, under any number */
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x43);
    close(again);
}

static void an_eventfd_that_the_VMM_bound_itself(enum host host)
{
    RIG(rig, host);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    struct kvm_irqfd own = { .fd = (uint32_t)fd, .gsi = 5 };
    uint64_t binds = rig_stats(&rig).irqfd_binds;
    expect_ok(ioctl(rig.vm.fd, KVM_IRQFD, &own));
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    expect_no_bind(-EBUSY, rig.dev, 0, fd);
    expect_eq(rig_stats(&rig).irqfd_binds, binds);
    expect_eq(rig_stats(&rig).routes_pinned, 0);
    own.flags = KVM_IRQFD_FLAG_DEASSIGN;
    expect_ok(ioctl(rig.vm.fd, KVM_IRQFD, &own));
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x41);
}

static void unbinding_what_is_not_bound(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    int bound = rig_bound(&rig, 0, 0), never = rig_eventfd(&rig, 0);
    struct bind_case cases[] = {
        { rig.dev, 0, never }, { rig.dev, 1, bound }, { rig.dev, 0, closed_descriptor() }, { rig.dev, 0, -2 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect_refused(-ENOENT, unbind_eventfd, &cases[i]);
    fires(&rig, bound);
    expect_arrival(&rig, 0, 0x41);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, bound));
    expect_eq(msi_vector_unbind_eventfd(rig.dev, 0, bound), -ENOENT);
}

static void a_host_without_irqfds_binds_none(enum host host)
{
    RIG(rig, host);     /* for its fake kernel; the cache under test is another */
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = fake_ops(false);
    struct msi_device_config device = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_route_cache *cache;
    struct msi_device *dev;
    config.ops = &ops;
    config.opaque = &rig.fake;
    device.vectors = 1;
    if (!expect_ok(msi_route_cache_new(&config, &cache)) || !expect_ok(msi_device_new(cache, &device, &dev)))
        return;
    expect_eq(msi_route_cache_features(cache, NULL) & (MSIROUTE_HAS_IRQFD | MSIROUTE_HAS_DIRECT), MSIROUTE_HAS_DIRECT);
    expect_no_bind(-ENOTSUP, dev, 0, rig_eventfd(&rig, 0));
    expect_ok(msi_vector_set(dev, 0, TO(1, 0x41)));
    expect_no_bind(-ENOTSUP, dev, 0, rig_eventfd(&rig, 0));
    expect_eq(msi_deliver(dev, 0), MSIROUTE_SENT);
    expect_arrival(&rig, 1, 0x41);
    msi_device_free(dev);
    msi_route_cache_free(cache);
}

/* ---- a VM that is not ready ---- */

static void before_the_irqchip_errors_and_after_it_the_same_objects_work(enum host host)
{
    RIG(rig, host, .irqchip = NO_IRQCHIP);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK), early = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_mask(rig.dev, 1));
    expect_ok(msi_vector_bind_eventfd(rig.dev, 1, early, 0));  /* masked: nothing to do in the kernel */
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(0, 0x42)));
    expect(msi_deliver(rig.dev, 0) < 0);
    expect(msi_route_cache_last_error()[0]);
    expect(msi_vector_bind_eventfd(rig.dev, 0, fd, 0) < 0);
    expect_eq(info_of(rig.dev, 0).eventfds, 0);
    expect_eq(rig_stats(&rig).routes, 0);

    vm_add_irqchip(&rig.vm, FULL_IRQCHIP);
    vm_add_cpu(&rig.vm, 0);
    vm_add_cpu(&rig.vm, 1);
    ioapic_connect(&rig.vm, 5, 1, 0x65);
    expect_quiet(&rig);
    expect_delivers(&rig, 0, 1, 0x41);
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fd, 0));
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_ok(msi_vector_unmask(rig.dev, 1));
    fires(&rig, early);
    expect_arrival(&rig, 0, 0x42);
    line_pulse(&rig.vm, 5);         /* the irqchip's pins were not forgotten */
    expect_arrival(&rig, 1, 0x65);
    expect_quiet(&rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ANYWHERE, descriptors_that_are_no_VM),
        TEST(ON_KVM, descriptors_of_KVM_that_are_no_VM),
        TEST(EVERYWHERE, files_that_are_no_eventfd),
        TEST(EVERYWHERE, an_eventfd_that_is_bound_already),
        TEST(ON_KVM, an_eventfd_that_the_VMM_bound_itself),
        TEST(EVERYWHERE, unbinding_what_is_not_bound),
        TEST(ON_FAKE, a_host_without_irqfds_binds_none),
        TEST(ON_KVM, before_the_irqchip_errors_and_after_it_the_same_objects_work),
    };
    return TAP_MAIN(tests);
}
