/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU's MSI routing by libmsiroute, on x86: each function here stands in for QEMU's own of that name (ld --wrap).
 *
 * A PCI device's virq is a vector of the library's, and no GSI: what carries its message in the kernel's table, and when, is the
 * library's to say. With the relay, which gets a thread here, that is once it is busy, and for many at once; before, the relay
 * serves its irqfds. So QEMU may commit after every vector, as it does. The pins of interrupt controllers keep their GSIs. */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
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

/* A stand-in, and what it stands in for. */
#define WRAP(type, name, ...) \
    type __real_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__)

#define APIC_WINDOW 0xfee00000

/* QEMU has one VM. */
static struct msi_route_cache *cache;

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
    /* QEMU adds the interrupt controller's pins itself, and not quite the kernel's. It has encoded wide destinations. */
    if (msi_route_cache_new(&config, &cache) < 0 || msi_route_cache_set_fixed(cache, NULL, 0) < 0 ||
        msi_route_cache_set_addressing(cache, MSIROUTE_X2APIC_IDS) < 0) {
        error_report("msiroute: %s", msi_route_cache_last_error());
        exit(1);
    }
    if (g_strcmp0(g_getenv("MSIROUTE_QEMU_RELAY"), "0") != 0) {
        if (msi_route_cache_relay_fd(cache) >= 0) {
            qemu_thread_create(&thread, "msiroute", run_relay, NULL, QEMU_THREAD_DETACHED);
        } else {
            warn_report("msiroute: no relay: %s", msi_route_cache_last_error());
        }
    }
    __real_kvm_arch_init_irq_routing(s);
}

/* On any thread. The address may be an offset in the APICs' window; translated it is already. */
WRAP(int, kvm_irqchip_send_msi, KVMState *s, MSIMessage msg)
{
    int ret = msi_deliver_message(cache, MSIROUTE_NO_REQUESTER, msg.address | APIC_WINDOW, msg.data, 1);

    return ret < 0 ? ret : ret == MSIROUTE_SENT;
}

/* ---- PCI devices' virqs: vectors, of as many devices of the library's as they need ---- */

#define VECTORS 2048
#define DEVICES 32
#define FIRST_VIRQ 0x10000              /* above all GSIs */

static struct msi_device *devices[DEVICES];
static DECLARE_BITMAP(virqs, DEVICES * VECTORS);

#define IS_VECTOR(virq) ((virq) >= FIRST_VIRQ)
#define DEVICE(virq) devices[((virq) - FIRST_VIRQ) / VECTORS]
#define INDEX(virq) (((virq) - FIRST_VIRQ) % VECTORS)

static int take_virq(void)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    unsigned long slot = find_first_zero_bit(virqs, DEVICES * VECTORS);
    int virq = FIRST_VIRQ + slot, ret;

    config.vectors = VECTORS;
    config.name = "QEMU";
    if (slot == DEVICES * VECTORS) {
        return -ENOSPC;
    }
    if (!DEVICE(virq) && (ret = msi_device_new(cache, &config, &DEVICE(virq))) < 0) {
        return ret;
    }
    set_bit(slot, virqs);
    return virq;
}

/* A guest's message in the kernel's form, through the vIOMMU if there is one. */
static int make_entry(struct kvm_irq_routing_entry *entry, MSIMessage msg, PCIDevice *dev)
{
    *entry = (struct kvm_irq_routing_entry) {
        .type = KVM_IRQ_ROUTING_MSI,
        .u.msi = { .address_lo = msg.address, .address_hi = msg.address >> 32, .data = msg.data },
    };
    if (kvm_arch_fixup_msi_route(entry, msg.address, msg.data, dev) || entry->type != KVM_IRQ_ROUTING_MSI) {
        return -EINVAL;                 /* or it is one of Xen's event channels */
    }
    return 0;
}

/* Of what is no message, as in a table that the guest has not filled in, eventfds are counted. */
static int set_message(int virq, const struct kvm_irq_routing_entry *entry)
{
    uint64_t address = (uint64_t)entry->u.msi.address_hi << 32 | entry->u.msi.address_lo;
    int ret = msi_vector_set(DEVICE(virq), INDEX(virq), address, entry->u.msi.data);

    return ret == -EINVAL ? msi_vector_clear(DEVICE(virq), INDEX(virq)) : ret;
}

WRAP(void, kvm_irqchip_release_virq, KVMState *s, int virq)
{
    if (IS_VECTOR(virq)) {
        msi_vector_unbind_eventfd(DEVICE(virq), INDEX(virq), -1);
        msi_vector_clear(DEVICE(virq), INDEX(virq));
        msi_vector_clear_pending(DEVICE(virq), INDEX(virq));
        clear_bit(virq - FIRST_VIRQ, virqs);
    } else {
        msi_route_cache_remove_route(cache, virq);
    }
    kvm_arch_release_virq_post(virq);
}

/* Without a device: the next of the split interrupt controller's pins, which QEMU raises by GSI. */
WRAP(int, kvm_irqchip_add_msi_route, KVMRouteChange *c, int vector, PCIDevice *dev)
{
    static uint32_t pins;
    struct kvm_irq_routing_entry entry;
    int ret = make_entry(&entry, dev ? pci_get_msi_message(dev, vector) : (MSIMessage) {}, dev);

    ret = ret < 0 ? ret : dev ? take_virq() : pins++;
    if (ret < 0) {
        return ret;
    }
    entry.gsi = ret;
    ret = dev ? set_message(entry.gsi, &entry) : msi_route_cache_add_route(cache, &entry, 0, &entry.gsi);
    if (ret < 0) {
        __wrap_kvm_irqchip_release_virq(kvm_state, entry.gsi);
        return ret;
    }
    kvm_arch_add_msi_route_post(&entry, vector, dev);
    c->changes++;
    return entry.gsi;
}

WRAP(int, kvm_irqchip_update_msi_route, KVMState *s, int virq, MSIMessage msg, PCIDevice *dev)
{
    struct kvm_irq_routing_entry entry;
    int ret = make_entry(&entry, msg, dev);

    if (ret < 0) {
        return ret;
    }
    return IS_VECTOR(virq) ? set_message(virq, &entry) : msi_route_cache_update_route(cache, virq, &entry);
}

/* The descriptor is duplicated (no BORROWED): a guest that changes a queue's vector in flight makes QEMU close one unremoved. A
 * level-triggered pin of the split interrupt controller stays QEMU's, whose IOAPIC knows when the guest ends the interrupt. */
WRAP(int, kvm_irqchip_add_irqfd_notifier_gsi, KVMState *s, EventNotifier *n, EventNotifier *resample, int virq)
{
    int fd = event_notifier_get_fd(n);

    if (IS_VECTOR(virq)) {
        return msi_vector_bind_eventfd(DEVICE(virq), INDEX(virq), fd, 0);
    }
    if (resample && kvm_irqchip_is_split()) {
        return __real_kvm_irqchip_add_irqfd_notifier_gsi(s, n, resample, virq);
    }
    return msi_route_cache_bind_irqfd(cache, virq, fd, resample ? event_notifier_get_fd(resample) : -1);
}

/* As the kernel has it, what is not bound may be removed. */
WRAP(int, kvm_irqchip_remove_irqfd_notifier_gsi, KVMState *s, EventNotifier *n, int virq)
{
    int fd = event_notifier_get_fd(n), ret;

    if (IS_VECTOR(virq)) {
        ret = msi_vector_unbind_eventfd(DEVICE(virq), INDEX(virq), fd);
        return ret == -ENOENT ? 0 : ret;
    }
    ret = msi_route_cache_unbind_irqfd(cache, virq, fd);
    return ret == -ENOENT ? __real_kvm_irqchip_remove_irqfd_notifier_gsi(s, n, virq) : ret;
}

/* ---- GSIs: pins and the like ---- */

/* Of an entry that is refused, what was before stays in force. */
WRAP(void, kvm_irqchip_commit_routes, KVMState *s)
{
    if (msi_route_cache_commit(cache) < 0) {
        error_report_once("msiroute: %s", msi_route_cache_last_error());
    }
}

WRAP(void, kvm_irqchip_add_irq_route, KVMState *s, int irq, int irqchip, int pin)
{
    struct kvm_irq_routing_entry entry = {
        .gsi = irq,
        .type = KVM_IRQ_ROUTING_IRQCHIP,
        .u.irqchip = { .irqchip = irqchip, .pin = pin },
    };
    int ret = msi_route_cache_add_route(cache, &entry, 0, &entry.gsi);

    assert(ret == 0);
}

WRAP(int, kvm_irqchip_get_virq, KVMState *s)
{
    struct kvm_irq_routing_entry none = { .gsi = MSIROUTE_ANY_GSI, .type = KVM_IRQ_ROUTING_MSI };
    int ret = msi_route_cache_add_route(cache, &none, 0, &none.gsi);

    return ret < 0 ? ret : none.gsi;
}

WRAP(void, kvm_add_routing_entry, KVMState *s, struct kvm_irq_routing_entry *entry)
{
    int ret = msi_route_cache_update_route(cache, entry->gsi, entry);

    assert(ret == 0);
}

/* In QEMU 10 it is not this one that is called from outside, but the two above. */
WRAP(int, kvm_irqchip_add_hv_sint_route, KVMState *s, uint32_t vcpu, uint32_t sint)
{
    struct kvm_irq_routing_entry entry = { .type = KVM_IRQ_ROUTING_HV_SINT, .u.hv_sint = { .vcpu = vcpu, .sint = sint } };
    int virq = kvm_check_extension(s, KVM_CAP_HYPERV_SYNIC) ? __wrap_kvm_irqchip_get_virq(s) : -ENOSYS;

    if (virq >= 0) {
        entry.gsi = virq;
        __wrap_kvm_add_routing_entry(s, &entry);
        __wrap_kvm_irqchip_commit_routes(s);
    }
    return virq;
}

/* s390's. */
WRAP(int, kvm_irqchip_add_adapter_route, KVMState *s, void *adapter)
{
    return -ENOSYS;
}
