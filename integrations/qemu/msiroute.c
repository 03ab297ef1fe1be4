/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU's MSI routing by libmsiroute, on x86: each function here stands in for QEMU's own of that name (ld --wrap). QEMU keeps its
 * virqs, the library has the kernel's table, the irqfds, and the messages.
 *
 * The routes of PCI devices serve irqfds alone. With the library's relay, which gets a thread here, they enter the table when they
 * are busy, many at once; before that the relay serves their eventfds. So QEMU may commit after every vector, as it does. */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/event_notifier.h"
#include "qemu/thread.h"
#include "hw/pci/msi.h"
#include "hw/pci/pci.h"
#if __has_include("system/kvm_int.h")
#include "system/kvm.h"
#include "system/kvm_int.h"
#else
#include "sysemu/kvm.h"
#include "sysemu/kvm_int.h"
#endif

#include <msiroute.h>

/* A stand-in and what it stands in for. */
#define WRAP(type, name, ...) \
    type __real_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__)

#define APIC_WINDOW 0xfee00000

/* QEMU has one VM. */
static struct msi_route_cache *cache;

/* How routes of PCI devices are added: without a relay each is in the table from its commit on, as QEMU has it. */
static uint32_t device_route_flags;

static void *run_relay(void *unused)
{
    msi_route_cache_relay_loop(cache);
    return NULL;
}

/* The VM's descriptor exists, and its interrupt controller. MSIROUTE_QEMU_RELAY=0: without a relay. */
WRAP(void, kvm_arch_init_irq_routing, KVMState *s)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    QemuThread thread;

    config.vm_fd = s->vmfd;
    config.kvm_fd = s->fd;
    /* QEMU adds the pins of the interrupt controller itself, and not quite the kernel's. */
    if (msi_route_cache_new(&config, &cache) < 0 || msi_route_cache_set_fixed(cache, NULL, 0) < 0) {
        error_report("msiroute: %s", msi_route_cache_last_error());
        exit(1);
    }
    if (g_strcmp0(g_getenv("MSIROUTE_QEMU_RELAY"), "0") != 0 && msi_route_cache_relay_fd(cache) >= 0) {
        device_route_flags = MSIROUTE_ROUTE_IRQFD_ONLY;
        qemu_thread_create(&thread, "msiroute", run_relay, NULL, QEMU_THREAD_DETACHED);
    }
    __real_kvm_arch_init_irq_routing(s);
}

/* Whether the upper half of an address counts. */
WRAP(bool, kvm_enable_x2apic, void)
{
    bool enabled = __real_kvm_enable_x2apic();

    if (enabled) {
        msi_route_cache_set_addressing(cache, MSIROUTE_X2APIC_IDS);
    }
    return enabled;
}

/* The address may be an offset in the APICs' window. Translated it is already. */
WRAP(int, kvm_irqchip_send_msi, KVMState *s, MSIMessage msg)
{
    int ret = msi_deliver_message(cache, MSIROUTE_NO_REQUESTER, msg.address | APIC_WINDOW, msg.data, 1);

    return ret < 0 ? ret : ret == MSIROUTE_SENT;
}

/* ---- routes ---- */

/* A guest's message in the kernel's form, through the vIOMMU if there is one. */
static int make_entry(struct kvm_irq_routing_entry *entry, MSIMessage msg, PCIDevice *dev)
{
    *entry = (struct kvm_irq_routing_entry) {
        .type = KVM_IRQ_ROUTING_MSI,
        .u.msi = { .address_lo = msg.address, .address_hi = msg.address >> 32, .data = msg.data },
    };
    return kvm_arch_fixup_msi_route(entry, msg.address, msg.data, dev) ? -EINVAL : 0;
}

/* Without a device: a pin of the split interrupt controller, from GSI 0 on. QEMU raises it itself, so it may not be lazy. */
WRAP(int, kvm_irqchip_add_msi_route, KVMRouteChange *c, int vector, PCIDevice *dev)
{
    static uint32_t pins;
    MSIMessage msg = dev ? pci_get_msi_message(dev, vector) : (MSIMessage) {};
    uint32_t gsi = dev ? MSIROUTE_ANY_GSI : pins++;
    struct kvm_irq_routing_entry entry;
    int ret = make_entry(&entry, msg, dev);

    if (ret == 0) {
        ret = msi_route_cache_add_route(cache, &entry, dev ? device_route_flags : 0, &gsi);
    }
    if (ret < 0) {
        return ret;
    }
    entry.gsi = gsi;
    kvm_arch_add_msi_route_post(&entry, vector, dev);
    c->changes++;
    return gsi;
}

WRAP(int, kvm_irqchip_update_msi_route, KVMState *s, int virq, MSIMessage msg, PCIDevice *dev)
{
    struct kvm_irq_routing_entry entry;
    int ret = make_entry(&entry, msg, dev);

    return ret < 0 ? ret : msi_route_cache_update_route(cache, virq, &entry);
}

WRAP(void, kvm_irqchip_add_irq_route, KVMState *s, int irq, int irqchip, int pin)
{
    struct kvm_irq_routing_entry entry = {
        .type = KVM_IRQ_ROUTING_IRQCHIP,
        .u.irqchip = { .irqchip = irqchip, .pin = pin },
    };
    uint32_t gsi = irq;
    int ret = msi_route_cache_add_route(cache, &entry, 0, &gsi);

    assert(ret == 0);
}

/* Any other entry, as Hyper-V's: QEMU 10 takes a GSI first, and then gives it the entry. */
WRAP(int, kvm_irqchip_get_virq, KVMState *s)
{
    struct kvm_irq_routing_entry none = { .type = KVM_IRQ_ROUTING_MSI };
    uint32_t gsi = MSIROUTE_ANY_GSI;
    int ret = msi_route_cache_add_route(cache, &none, 0, &gsi);

    return ret < 0 ? ret : gsi;
}

WRAP(void, kvm_add_routing_entry, KVMState *s, struct kvm_irq_routing_entry *entry)
{
    int ret = msi_route_cache_update_route(cache, entry->gsi, entry);

    assert(ret == 0);
}

WRAP(int, kvm_irqchip_add_hv_sint_route, KVMState *s, uint32_t vcpu, uint32_t sint)
{
    struct kvm_irq_routing_entry entry = {
        .type = KVM_IRQ_ROUTING_HV_SINT,
        .u.hv_sint = { .vcpu = vcpu, .sint = sint },
    };
    uint32_t gsi = MSIROUTE_ANY_GSI;
    int ret = kvm_check_extension(s, KVM_CAP_HYPERV_SYNIC) ? 0 : -ENOSYS;

    ret = ret < 0 ? ret : msi_route_cache_add_route(cache, &entry, 0, &gsi);
    if (ret < 0) {
        return ret;
    }
    msi_route_cache_commit(cache);
    return gsi;
}

/* s390's. */
WRAP(int, kvm_irqchip_add_adapter_route, KVMState *s, void *adapter)
{
    return -ENOSYS;
}

/* What fails here is as it was before, and binding an irqfd to it says so. */
WRAP(void, kvm_irqchip_commit_routes, KVMState *s)
{
    msi_route_cache_commit(cache);
}

WRAP(void, kvm_irqchip_release_virq, KVMState *s, int virq)
{
    msi_route_cache_remove_route(cache, virq);
    kvm_arch_release_virq_post(virq);
}

/* ---- irqfds ---- */

/* A level-triggered pin of the split interrupt controller stays QEMU's: its IOAPIC knows when the guest ends the interrupt. */
WRAP(int, kvm_irqchip_add_irqfd_notifier_gsi, KVMState *s, EventNotifier *n, EventNotifier *resample, int virq)
{
    if (resample && kvm_irqchip_is_split()) {
        return __real_kvm_irqchip_add_irqfd_notifier_gsi(s, n, resample, virq);
    }
    return msi_route_cache_bind_irqfd(cache, virq, event_notifier_get_fd(n), resample ? event_notifier_get_fd(resample) : -1);
}

WRAP(int, kvm_irqchip_remove_irqfd_notifier_gsi, KVMState *s, EventNotifier *n, int virq)
{
    int ret = msi_route_cache_unbind_irqfd(cache, virq, event_notifier_get_fd(n));

    return ret == -ENOENT ? __real_kvm_irqchip_remove_irqfd_notifier_gsi(s, n, virq) : ret;
}
