/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* An interrupt controller for which a message is a GSI, as GICv2m is: no table of routes is ever written. A real VM stands behind
 * it: its IOAPIC's pins are the GSIs, and the frame to which messages are written is nowhere near 0xFEExxxxx. */
#include <errno.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "rig.h"

#define FRAME 0x0000000108020040u   /* SETSPI_NS of a frame above 4 GB */
#define PINS  24
#define TO_PIN(pin) FRAME, (pin)

struct controller {
    struct vm vm;
    atomic_uint asked, refusals;
};

static int gsi_of(void *opaque, uint64_t address, uint32_t data)
{
    struct controller *controller = opaque;
    atomic_fetch_add(&controller->asked, 1);
    return address == FRAME && data < PINS ? (int)data : -EINVAL;
}

static int raise_gsi(void *opaque, uint32_t gsi)
{
    struct controller *controller = opaque;
    line_pulse(&controller->vm, gsi);
    return 1;
}

static int irqfd(void *opaque, int fd, uint32_t gsi, uint32_t flags)
{
    struct controller *controller = opaque;
    struct kvm_irqfd irqfd = { .fd = (uint32_t)fd, .gsi = gsi, .flags = flags };
    return ioctl(controller->vm.fd, KVM_IRQFD, &irqfd) ? -errno : 0;
}

static int bind_irqfd(void *opaque, int fd, int resamplefd, uint32_t gsi)
{
    return resamplefd < 0 ? irqfd(opaque, fd, gsi, 0) : -ENOTSUP;
}

static int unbind_irqfd(void *opaque, int fd, uint32_t gsi)
{
    return irqfd(opaque, fd, gsi, KVM_IRQFD_FLAG_DEASSIGN);
}

static int set_routes(void *opaque, const struct kvm_irq_routing_entry *entries, size_t n)
{
    (void)opaque, (void)entries, (void)n;
    return 0;
}

static const struct msi_route_cache_ops gsi_ops = {
    .size = sizeof(gsi_ops), .bind_irqfd = bind_irqfd, .unbind_irqfd = unbind_irqfd, .raise_gsi = raise_gsi, .gsi_of = gsi_of,
};

static struct msi_route_cache *cache_of(struct controller *controller, const struct msi_route_cache_ops *ops)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache *cache;
    config.ops = ops;
    config.opaque = controller;
    return expect_ok(msi_route_cache_new(&config, &cache)) ? cache : NULL;
}

/* This pin's vector, and no other, arrives, if it does within `patience` ms: a pin's irqfd raises it a little later. */
static bool arrives(struct controller *controller, unsigned pin, unsigned patience)
{
    uint8_t arrived[256];
    for (cpu_arrived(&controller->vm, 0, arrived); patience && !arrived[0x40 + pin]; patience--) {
        usleep(1000);
        cpu_arrived(&controller->vm, 0, arrived);
    }
    unsigned others = 0;
    for (unsigned v = FIRST_VECTOR; v < 256; v++)
        others += arrived[v] && v != 0x40 + pin;
    bool came = arrived[0x40 + pin];
    if (came)
        cpu_forget(&controller->vm, 0, 0x40 + pin);
    return expect_eq(others, 0) && came;
}

#define expect_pin(controller, pin)   expect(arrives(controller, pin, 1000))
#define expect_silent(controller, pin) expect(!arrives(controller, pin, 20))

static void messages_are_gsis(enum host host)
{
    (void)host;
    struct controller controller = { 0 };
    if (!expect(vm_open(&controller.vm, FULL_IRQCHIP)) || !expect(vm_add_cpu(&controller.vm, 0)))
        return;
    for (unsigned pin = 0; pin < PINS; pin++)
        expect(ioapic_connect(&controller.vm, pin, 0, 0x40 + pin));
    struct msi_route_cache *cache = cache_of(&controller, &gsi_ops);
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.vectors = 4;
    struct msi_device *dev;
    if (!cache || !expect_ok(msi_device_new(cache, &config, &dev)))
        return;
    expect_eq(msi_route_cache_features(cache, NULL), MSIROUTE_HAS_IRQFD | MSIROUTE_HAS_RESAMPLE);

    expect_ok(msi_vector_set(dev, 0, TO_PIN(5)));
    expect_eq(msi_deliver(dev, 0), MSIROUTE_SENT);
    expect_pin(&controller, 5);
    expect_eq(msi_deliver_message(cache, 0, TO_PIN(6), 0), MSIROUTE_SENT);
    expect_pin(&controller, 6);

    int fd = eventfd(0, EFD_NONBLOCK);
    expect_ok(msi_vector_set(dev, 1, TO_PIN(7)));
    expect_ok(msi_vector_bind_eventfd(dev, 1, fd, 0));
    expect_eq(info_of(dev, 1).gsi, 7);
    eventfd_write(fd, 1);
    expect_pin(&controller, 7);
    /* Another message is another GSI. */
    expect_ok(msi_vector_set(dev, 1, TO_PIN(8)));
    eventfd_write(fd, 1);
    expect_pin(&controller, 8);
    /* A second vector may have the same one. */
    int other = eventfd(0, EFD_NONBLOCK);
    expect_ok(msi_vector_set(dev, 2, TO_PIN(8)));
    expect_ok(msi_vector_bind_eventfd(dev, 2, other, 0));
    expect_ok(msi_vector_mask(dev, 1));
    eventfd_write(fd, 1);
    expect_silent(&controller, 8);
    eventfd_write(other, 1);
    expect_pin(&controller, 8);
    expect_ok(msi_vector_unmask(dev, 1));
    expect_pin(&controller, 8);

    /* What is no GSI is no message. */
    expect_eq(msi_vector_set(dev, 1, FRAME, PINS), -EINVAL);
    expect_eq(msi_vector_set(dev, 1, 0xFEE00000, 9), -EINVAL);
    eventfd_write(fd, 1);
    expect_pin(&controller, 8);
    expect_ok(msi_vector_set(dev, 1, TO_PIN(9)));
    eventfd_write(fd, 1);
    expect_pin(&controller, 9);
    expect_eq(msi_deliver_message(cache, 0, 0x1000, 3, 0), -EINVAL);

    /* No table: nothing to route by. */
    struct kvm_irq_routing_entry entry = { .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xFEE00000 } };
    uint32_t gsi = MSIROUTE_ANY_GSI;
    expect_eq(msi_route_cache_add_route(cache, &entry, 0, &gsi), -ENOTSUP);
    struct msi_route_cache_stats stats = MSIROUTE_STATS_INIT;
    expect_ok(msi_route_cache_stats(cache, &stats));
    expect_eq(stats.table_writes + stats.routes, 0);

    msi_device_free(dev);
    eventfd_write(fd, 1);
    expect_silent(&controller, 9);
    msi_route_cache_free(cache);
    close(fd);
    close(other);
    vm_close(&controller.vm);
}

static void a_message_is_a_gsi_or_has_a_route(enum host host)
{
    (void)host;
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops both = gsi_ops;
    struct msi_route_cache *cache;
    both.set_routes = set_routes;
    config.ops = &both;
    expect_eq(msi_route_cache_new(&config, &cache), -EINVAL);
    /* Nor is a GSI any use that nobody can raise. */
    both = gsi_ops;
    both.raise_gsi = NULL;
    expect_eq(msi_route_cache_new(&config, &cache), -ENOTSUP);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_KVM, messages_are_gsis),
        TEST(ANYWHERE, a_message_is_a_gsi_or_has_a_route),
    };
    return TAP_MAIN(tests);
}
