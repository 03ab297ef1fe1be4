/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Out of descriptors: what makes some says so, with whatever number are left, and has changed nothing; what makes none works. */
#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#include "relays.h"

#define LINES 4
#define MOST  8     /* more than any call makes */

/* From now on the process can open so many descriptors more. */
static void leave(unsigned n)
{
    struct rlimit limit;
    int fds[MOST + 1];
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (n > MOST)
        return;
    for (unsigned i = 0; i <= n; i++)
        fds[i] = dup(STDOUT_FILENO);
    limit.rlim_cur = (rlim_t)fds[n];    /* the first that is too many */
    for (unsigned i = 0; i <= n; i++)
        close(fds[i]);
    setrlimit(RLIMIT_NOFILE, &limit);
}
#define leave_all() leave(MOST + 1)

/* Calls `make` with ever more descriptors until it succeeds; with the last one fewer it must have failed. */
#define expect_needs(rig, make, least) needs(__FILE__, __LINE__, rig, #make, make, least)
static void needs(const char *file, int line, struct rig *rig, const char *what, int (*make)(struct rig *), unsigned least)
{
    unsigned before = open_descriptors(), n = 0;
    struct msi_vector_info info = info_of(rig->dev, 0);
    int result = -EMFILE;
    for (; n <= MOST && result == -EMFILE; n++) {
        leave(n);
        result = make(rig);
        leave_all();
        struct msi_vector_info now = info_of(rig->dev, 0);
        if (result < 0 && (open_descriptors() != before || memcmp(&info, &now, sizeof(now))))
            tap_fail(file, line, "%s with %u descriptors has failed, and yet changed something", what, n);
    }
    if (result < 0)
        tap_fail(file, line, "%s: %d with %u descriptors", what, result, n - 1);
    else if (n - 1 < least)
        tap_fail(file, line, "%s needs %u descriptors, at least, and was left %u", what, least, n - 1);
}

static struct msi_route_cache *made;
static int make_cache(struct rig *rig)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = fake_ops(rig->host == ON_FAKE);
    if (rig->host == ON_KVM) {
        config.vm_fd = rig->vm.fd;
    } else {
        config.ops = &ops;
        config.opaque = &rig->fake;
        config.flags = rig->host == ON_MODEL ? MSIROUTE_CACHE_MODEL : 0;
    }
    return msi_route_cache_new(&config, &made);
}

static int fd_to_bind, resample;
static int bind(struct rig *rig)      { return msi_vector_bind_eventfd(rig->dev, 1, fd_to_bind, 0); }
static int bind_lent(struct rig *rig) { return msi_vector_bind_eventfd(rig->dev, 1, fd_to_bind, MSIROUTE_EVENTFD_BORROWED); }
static int bind_gsi(struct rig *rig)  { return msi_route_cache_bind_irqfd(rig->cache, 30, fd_to_bind, -1); }
static int bind_pin(struct rig *rig)  { return msi_route_cache_bind_irqfd(rig->cache, 5, fd_to_bind, resample); }
static int relay(struct rig *rig)     { return msi_route_cache_relay_fd(rig->cache) < 0 ? msi_route_cache_relay_fd(rig->cache) : 0; }

static void what_makes_descriptors_says_so_and_changes_nothing(enum host host)
{
    RIG(rig, host, .vectors = LINES);
    struct kvm_irq_routing_entry entry = { .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee00000, .data = 0x77 } };
    uint32_t gsi = 30;
    open_line(&rig, 0, 0);
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, FIRST + 1)));
    fd_to_bind = rig_eventfd(&rig, EFD_NONBLOCK);
    resample = rig_eventfd(&rig, EFD_NONBLOCK);
    /* The VM, and /dev/kvm for a moment; the model's thread, its epoll set and an eventfd. */
    expect_needs(&rig, make_cache, host == ON_FAKE ? 0 : 2);
    msi_route_cache_free(made);
    expect_needs(&rig, bind, 1);
    raise_line(&rig, 1);
    expect_line(&rig, 1);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 1, fd_to_bind));
    expect_needs(&rig, bind_lent, 1);       /* to look at it */
    raise_line(&rig, 1);
    expect_line(&rig, 1);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 1, fd_to_bind));
    expect_ok(msi_route_cache_add_route(rig.cache, &entry, 0, &gsi));
    expect_needs(&rig, bind_gsi, 1);
    fires(&rig, fd_to_bind);
    expect_arrival(&rig, 0, 0x77);
    expect_ok(msi_route_cache_unbind_irqfd(rig.cache, 30, fd_to_bind));
    if (host == ON_KVM) {
        expect_needs(&rig, bind_pin, 2);
        expect_ok(msi_route_cache_unbind_irqfd(rig.cache, 5, fd_to_bind));
    }
    expect_needs(&rig, relay, 2);
    serve(&rig);
    raise_line(&rig, 0);
    serve(&rig);
    expect_line(&rig, 0);
    expect_quiet(&rig);
}

static int everything_else(struct rig *rig)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_device *dev = NULL;
    config.vectors = 2048;
    int result = msi_device_new(rig->cache, &config, &dev);
    msi_device_free(dev);
    result = result ? result : msi_vector_mask(rig->dev, 0);
    add_to_eventfd(rig->eventfds[0], 1);
    result = result ? result : msi_vector_is_pending(rig->dev, 0) - 1;
    result = result ? result : msi_vector_set(rig->dev, 0, TO(1, 0x99));
    result = result ? result : msi_vector_unmask(rig->dev, 0);
    result = result ? result : msi_route_cache_pause(rig->cache);
    result = result ? result : msi_route_cache_resume(rig->cache);
    result = result ? result : msi_deliver(rig->dev, 1);
    result = result ? result : msi_vector_unbind_eventfd(rig->dev, 0, rig->eventfds[0]);
    return result ? result : msi_device_reset(rig->dev);
}

static void with_none_left_all_else_works(enum host host)
{
    RIG(rig, host, .vectors = LINES);
    open_line(&rig, 0, 0);
    expect_ok(msi_vector_set(rig.dev, 1, TO(0, FIRST + 1)));
    leave(0);
    int result = everything_else(&rig);
    leave_all();
    expect_ok(result);
    expect_arrival(&rig, 1, 0x99);
    expect_arrival(&rig, 0, FIRST + 1);
    expect_quiet(&rig);
}

static void with_none_left_a_cache_is_freed(enum host host)
{
    RIG(rig, host, .vectors = LINES);
    open_lines(&rig, 2);
    turn_on(&rig);
    int fd = rig.eventfds[0];
    unsigned before = open_descriptors();
    leave(0);
    msi_device_free(rig_take_device(&rig));
    msi_route_cache_free(rig_take_cache(&rig));
    leave_all();
    expect(open_descriptors() <= before - (host == ON_FAKE ? 4 : 5));   /* two duplicates, two of the relay's, the VM */
    add_to_eventfd(fd, 1);
    expect_quiet(&rig);
    expect_eq(take_count(fd), 1);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, what_makes_descriptors_says_so_and_changes_nothing),
        TEST(ON_KVM | ON_FAKE, with_none_left_all_else_works),      /* the model looks into /proc */
        TEST(ON_KVM | ON_FAKE, with_none_left_a_cache_is_freed),
    };
    return TAP_MAIN(tests);
}
