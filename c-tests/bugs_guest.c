/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Bugs that other VMMs had and a guest could cause by its register accesses. Each test says what is right instead; the
 * numbers are those of the list in bugs_host.c too, which has the rest. */
#include <errno.h>
#include <stdlib.h>

#include "rig.h"

#define LIVE      MSIROUTE_VECTOR_LIVE
#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL
#define UNSERVED  MSIROUTE_VECTOR_UNSERVED
#define MSIX      .kind = MSIROUTE_KIND_MSIX

/* CVE-2020-13754 */
static void bug_01_no_access_reaches_past_the_table_or_the_PBA(enum host host)
{
    enum { N = 3, END = N * PCI_MSIX_ENTRY_SIZE, FAR = 4096 };
    RIG(rig, host, MSIX, .vectors = N);
    struct msi_device *neighbour = rig_device(&rig, MSIROUTE_KIND_MSIX, N);
    guest_opens(rig.dev, N, 1, 0x41);
    guest_opens(neighbour, N, 1, 0x51);
    for (uint64_t offset = END - 8; offset < END + FAR; offset++) {
        for (size_t size = 1; size <= 8; size *= 2) {
            uint64_t zeros = 0, table = 0, pba = 0, ones = UINT64_MAX >> (64 - 8 * size);
            if (offset + size <= END)
                continue;
            tap_context("%zu bytes at %llu", size, (unsigned long long)offset);
            expect_ok(msi_device_table_write(rig.dev, offset, &zeros, size));
            expect_ok(msi_device_table_read(rig.dev, offset, &table, size));
            expect_ok(msi_device_pba_write(rig.dev, offset, &zeros, size));
            expect_ok(msi_device_pba_read(rig.dev, offset, &pba, size));
            if (!expect(table == ones) || !expect(pba == ones))
                return;
        }
    }
    tap_context("%s", "");
    for (uint32_t v = 0; v < N; v++) {
        expect_delivers(&rig, v, 1, 0x41 + v);
        expect_eq(msi_deliver(neighbour, v), MSIROUTE_SENT);
        expect_arrival(&rig, 1, 0x51 + v);
    }
    expect_quiet(&rig);
}

/* CVE-2015-7549 */
static void bug_02_a_write_to_the_PBA_changes_nothing(enum host host)
{
    static const uint8_t ones[16] = { [0 ... 15] = 0xFF }, zeros[16];
    RIG(rig, host, MSIX);
    guest_opens(rig.dev, 2, 1, 0x41);
    expect_ok(guest_masks(rig.dev, 0));
    expect_ok(guest_masks(rig.dev, 1));
    expect_eq(msi_deliver(rig.dev, 1), MSIROUTE_PENDING);
    for (uint64_t offset = 0; offset < 20; offset++) {
        for (size_t size = 0; size <= 16; size++) {
            expect_ok(msi_device_pba_write(rig.dev, offset, ones, size));
            expect_eq(pba_read64(rig.dev, 0), 2);
            expect_ok(msi_device_pba_write(rig.dev, offset, zeros, size));
            expect_eq(pba_read64(rig.dev, 0), 2);
        }
    }
    expect_ok(guest_unmasks(rig.dev, 0));
    expect_quiet(&rig);
    expect_ok(guest_unmasks(rig.dev, 1));
    expect_arrival(&rig, 1, 0x42);
    expect_quiet(&rig);
}

static uint64_t noise = 88172645463325252ull;
static uint64_t random64(void)
{
    noise ^= noise << 13;
    noise ^= noise >> 7;
    return noise ^= noise << 17;
}

/* Near where something begins or ends, or anywhere. */
static uint64_t some_offset(void)
{
    static const uint64_t places[] = { 0, 16, 48, 64, CAP, CAP + 24, 0xFF, 0xFFFF, 0x8000, UINT32_MAX, UINT64_MAX };
    uint64_t r = random64();
    return r % 8 ? places[r / 8 % (sizeof(places) / sizeof(places[0]))] + (random64() % 17) - 8 : random64();
}

static void bug_03_no_access_of_any_width_and_place_harms(enum host host)
{
    static const uint32_t device_kinds[] = { MSIROUTE_KIND_MSIX, MSIROUTE_KIND_MSI, MSIROUTE_KIND_PLAIN };
    static uint8_t data[300];
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    struct msi_device *devices[] = { rig.dev, rig_device(&rig, device_kinds[1], 4), rig_device(&rig, device_kinds[2], 4) };
    int fd = rig_bound(&rig, 3, 0);
    for (unsigned i = 0; i < 30000; i++) {
        struct msi_device *dev = devices[i % 16 ? 0 : i / 16 % 3];
        uint64_t r = random64(), offset = some_offset();
        size_t len = r % 3 ? r / 4 % 9 : r / 4 % sizeof(data);
        uint64_t word = r % 5 ? random64() : to_apic(random64() % 2);
        memcpy(data, &word, sizeof(word));
        if (r % 7 == 0)
            offset = offset % 64 & ~7ull;
        switch (r / 1024 % 8) {
        case 0: msi_device_table_read(dev, offset, data, len); break;
        case 1: msi_device_pba_read(dev, offset, data, len); break;
        case 2: msi_device_pba_write(dev, offset, data, len); break;
        case 3: msi_device_config_read(dev, (uint32_t)offset, data, len); break;
        case 4: msi_device_config_write(dev, (uint32_t)offset, data, len); break;
        case 5: msi_deliver(dev, (uint32_t)random64() % 6 + (r % 9 ? 0 : 0xFFFC)); fires(&rig, fd); break;
        default: msi_device_table_write(dev, offset, data, len);
        }
    }
    for (unsigned x = 0; x < 256; x++)
        rig_arrivals(&rig, 0, x), rig_arrivals(&rig, 1, x);
    expect_eq(rig.fake.wrongs, 0);
    expect_ok(msi_device_reset(rig.dev));
    expect_ok(msi_device_reset(devices[1]));
    guest_opens(rig.dev, 4, 1, 0x41);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x44);
    expect_delivers(&rig, 0, 1, 0x41);
    expect_quiet(&rig);
}

/* kvmtool: what a guest enables indexes an array. */
static void bug_05_more_MSI_messages_than_the_function_has_cannot_be_enabled(enum host host)
{
    RIG(rig, host);
    for (unsigned form = 0; form < 6 * 3; form++) {
        unsigned log = form / 3, width = 1u << form % 3;
        uint32_t n = 1u << log, word = 0;
        uint16_t control = msi_on(7);
        struct msi_device *dev = rig_device(&rig, MSIROUTE_KIND_MSI, n);
        tap_context("%u vectors, written by %u", n, width);
        memcpy((uint8_t *)&word + 2, &control, 2);
        expect_ok(cap_write32(dev, PCI_MSI_ADDRESS_LO, (uint32_t)to_apic(1)));
        expect_ok(cap_write16(dev, PCI_MSI_DATA_32, 0x60));
        expect_ok(cap_write(dev, width == 4 ? 0 : PCI_MSI_FLAGS, width == 4 ? (void *)&word : &control, width));
        expect_eq(cap_read16(dev, PCI_MSI_FLAGS) >> 4 & 7, log);
        for (uint32_t v = 0; v < n; v++)
            expect_eq(info_of(dev, v).data, 0x60 + v);
        expect_eq(msi_deliver(dev, n - 1), MSIROUTE_SENT);
        expect_arrival(&rig, 1, 0x60 + n - 1);
        expect_eq(msi_deliver(dev, n), -EINVAL);
        expect_eq(msi_deliver(dev, 127), -EINVAL);
    }
    expect_quiet(&rig);
}

/* cloud-hypervisor 795 */
static void bug_06_what_is_signalled_while_masked_comes_once_when_unmasked(enum host host)
{
    RIG(rig, host, MSIX);
    guest_opens(rig.dev, 1, 1, 0x41);
    int fd = rig_bound(&rig, 0, 0);
    for (unsigned i = 0; i < 10; i++) {
        expect_ok(guest_masks(rig.dev, 0));
        for (unsigned n = 0; n <= i; n++)
            signal_from_another_process(fd, 1);
        expect_quiet(&rig);
        expect_ok(guest_unmasks(rig.dev, 0));
        expect_arrival(&rig, 1, 0x41);
        expect_quiet(&rig);
    }
}

/* kvmtool */
static void bug_07_a_pending_bit_is_sent_and_cleared_when_the_vector_is_unmasked(enum host host)
{
    RIG(rig, host, MSIX);
    guest_opens(rig.dev, 4, 1, 0x41);
    for (uint32_t v = 0; v < 4; v++)
        expect_ok(guest_masks(rig.dev, v));
    for (uint32_t v = 0; v < 4; v++)
        expect_eq(msi_deliver(rig.dev, v), MSIROUTE_PENDING);
    for (uint32_t v = 0; v < 4; v++) {
        expect_eq(pba_read64(rig.dev, 0), 0xF << v & 0xF);
        expect_ok(guest_unmasks(rig.dev, v));
        expect_arrival(&rig, 1, 0x41 + v);
        expect_quiet(&rig);
    }
    expect_eq(pba_read64(rig.dev, 0), 0);
}

/* cloud-hypervisor 7813 */
static void bug_08_a_masked_eventfd_does_not_fire_and_shows_in_the_PBA(enum host host)
{
    RIG(rig, host, MSIX, .vectors = 70);
    guest_opens(rig.dev, 70, 0, 0x41);
    int fd = rig_bound(&rig, 66, 0);
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x41 + 66);
    expect_eq(pba_read64(rig.dev, 8), 0);
    expect_ok(guest_masks(rig.dev, 66));
    expect_eq(pba_read64(rig.dev, 8), 0);
    signal_from_another_process(fd, 1);
    expect_quiet(&rig);
    expect_eq(pba_read64(rig.dev, 8), 4);
    expect_eq(pba_read64(rig.dev, 0), 0);
    expect_ok(guest_unmasks(rig.dev, 66));
    expect_arrival(&rig, 0, 0x41 + 66);
    expect_eq(pba_read64(rig.dev, 8), 0);
}

/* crosvm; all orders are in msix_messages.c. */
static void bug_09_what_is_unmasked_under_the_function_mask_is_armed_when_that_is_cleared(enum host host)
{
    enum { ENABLE, UNMASK, MESSAGE, STEPS };
    RIG(rig, host);
    for (unsigned k = 0; k < 6; k++) {
        unsigned order[STEPS];
        struct msi_device *dev = rig_device(&rig, MSIROUTE_KIND_MSIX, 2);
        int fd = rig_eventfd(&rig, EFD_NONBLOCK);
        order_of(k, STEPS, order);
        tap_context("order: %u %u %u", order[0], order[1], order[2]);
        expect_ok(msi_vector_bind_eventfd(dev, 1, fd, 0));
        expect_ok(guest_controls(dev, MASK_ALL));
        for (unsigned i = 0; i < STEPS; i++)
            expect_ok(order[i] == ENABLE ? guest_controls(dev, ENABLE_MSIX | MASK_ALL)
                    : order[i] == UNMASK ? guest_unmasks(dev, 1) : guest_sets(dev, 1, TO(1, 0x42)));
        fires(&rig, fd);
        expect_quiet(&rig);
        expect_ok(guest_controls(dev, ENABLE_MSIX));
        expect_arrival(&rig, 1, 0x42);
        expect(info_of(dev, 1).flags & IN_KERNEL);
        fires(&rig, fd);
        expect_arrival(&rig, 1, 0x42);
        expect_quiet(&rig);
    }
}

/* QEMU, where a translation fails. There is none yet, but a guest can write a message that is none. */
static void bug_14_a_message_that_is_none_disarms_and_keeps_what_is_raised(enum host host)
{
    RIG(rig, host, MSIX);
    guest_opens(rig.dev, 2, 1, 0x41);
    int fd = rig_bound(&rig, 0, 0);
    for (unsigned masked = 0; masked < 2; masked++) {
        tap_context("written while %smasked", masked ? "" : "un");
        if (masked)
            expect_ok(guest_masks(rig.dev, 0));
        expect_ok(guest_sets(rig.dev, 0, 0xFED00000, 0x55));
        expect_ok(guest_unmasks(rig.dev, 0));
        expect_eq(info_of(rig.dev, 0).flags & (LIVE | IN_KERNEL | UNSERVED), 0);
        fires(&rig, fd);                                /* the old route is not live */
        expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
        expect_quiet(&rig);
        expect_eq(pba_read64(rig.dev, 0), 1);
        expect_delivers(&rig, 1, 1, 0x42);
        expect_ok(guest_sets(rig.dev, 0, TO(0, 0x61)));
        expect_arrival(&rig, 0, 0x61);
        expect_quiet(&rig);
        fires(&rig, fd);
        expect_arrival(&rig, 0, 0x61);
        expect_ok(guest_sets(rig.dev, 0, TO(1, 0x41)));
    }
}

/* ---- 16: whatever is handed to the kernel is looked at ---- */

#define OLD_ADDRESS to_apic(0)
#define NEW_ADDRESS to_apic(1)
#define OLD_DATA    0x41
#define NEW_DATA    0x52

static struct msi_route_cache_ops kernel;

static void refuse_mixture(const char *where, uint64_t address, uint32_t data)
{
    if ((address == OLD_ADDRESS && data == NEW_DATA) || (address == NEW_ADDRESS && data == OLD_DATA))
        tap_fail(__FILE__, __LINE__, "a mixture in %s: address %#llx, data %#x", where, (unsigned long long)address, data);
}

static int watch_signal(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    refuse_mixture("a signal", address, data);
    return kernel.signal(opaque, requester, address, data);
}

static int watch_routes(void *opaque, const struct kvm_irq_routing_entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct kvm_irq_routing_msi *msi = &entries[i].u.msi;
        refuse_mixture("the table", (uint64_t)msi->address_hi << 32 | msi->address_lo, msi->data);
    }
    return kernel.set_routes(opaque, entries, n);
}

/* Makes the kernel see vector 0 in all ways; the table is written for vector 1. Which message vector 0 sends. */
static unsigned look_at_everything(struct rig *rig, int fd)
{
    static unsigned other;
    unsigned old, new;
    expect_ok(msi_vector_set(rig->dev, 1, TO(1, 0x80 + other++ % 0x40)));
    expect_eq(msi_deliver(rig->dev, 0), MSIROUTE_SENT);
    fires(rig, fd);
    old = rig_arrivals(rig, 0, OLD_DATA);
    new = rig_arrivals(rig, 1, NEW_DATA);
    expect_quiet(rig);
    expect_eq(old + new, 2);
    expect(!old || !new);
    return old ? OLD_DATA : NEW_DATA;
}

struct part { uint64_t offset, value; size_t size; };
enum { WAYS = 4, MOST_PARTS = 3 };
static const struct { unsigned parts; struct part part[MOST_PARTS]; } ways[WAYS] = {
    { 2, { { PCI_MSIX_ENTRY_LOWER_ADDR, 0xFEE01000, 4 }, { PCI_MSIX_ENTRY_DATA, NEW_DATA, 4 } } },
    { 3, { { PCI_MSIX_ENTRY_LOWER_ADDR, 0xFEE01000, 4 }, { PCI_MSIX_ENTRY_UPPER_ADDR, 0, 4 },
           { PCI_MSIX_ENTRY_DATA, NEW_DATA, 4 } } },
    { 2, { { PCI_MSIX_ENTRY_LOWER_ADDR, 0xFEE01000, 8 }, { PCI_MSIX_ENTRY_DATA, NEW_DATA, 4 } } },
    { 2, { { PCI_MSIX_ENTRY_LOWER_ADDR, 0xFEE01000, 8 }, { PCI_MSIX_ENTRY_DATA, NEW_DATA, 8 } } },
};

static void write_in_any_order(struct rig *rig, int fd, unsigned way)
{
    unsigned parts = ways[way].parts, order[MOST_PARTS];
    for (unsigned k = 0; k < (parts == 2 ? 2 : 6); k++) {
        order_of(k, parts, order);
        tap_context("way %u, order %u %u %u", way, order[0], order[1], parts > 2 ? order[2] : 9);
        expect_ok(msi_vector_set(rig->dev, 0, OLD_ADDRESS, OLD_DATA));
        for (unsigned i = 0; i < parts; i++) {
            const struct part *part = &ways[way].part[order[i]];
            look_at_everything(rig, fd);
            expect_ok(msi_device_table_write(rig->dev, part->offset, &part->value, part->size));
        }
        expect_eq(look_at_everything(rig, fd), NEW_DATA);
    }
}

/* kvmtool and crosvm write the table dword by dword. */
static void bug_16_no_mixture_of_an_old_and_a_new_message_reaches_the_kernel(enum host host)
{
    struct msi_route_cache_ops ops = kernel = fake_ops(true);
    ops.signal = watch_signal;
    ops.set_routes = watch_routes;
    RIG(rig, host, MSIX, .ops = &ops);
    guest_opens(rig.dev, 2, 0, OLD_DATA);
    int fd = rig_bound(&rig, 0, 0);
    rig_bound(&rig, 1, 0);
    for (unsigned way = 0; way < WAYS; way++)
        write_in_any_order(&rig, fd, way);
}

/* cloud-hypervisor: the same data for all. */
static void bug_17_each_MSI_vector_has_its_index_in_the_data(enum host host)
{
    RIG(rig, host);
    for (unsigned log = 0; log < 6; log++) {
        uint32_t n = 1u << log;
        struct msi_device *dev = rig_device(&rig, MSIROUTE_KIND_MSI, n);
        expect_ok(msi_guest_sets(dev, 0, to_apic(1), 0xDF));        /* the low bits are replaced, not added to */
        expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(log)));
        for (uint32_t v = 0; v < n; v++) {
            tap_context("vector %u of %u", v, n);
            int fd = rig_eventfd(&rig, EFD_NONBLOCK);
            expect_ok(msi_vector_bind_eventfd(dev, v, fd, 0));
            expect_eq(msi_deliver(dev, v), MSIROUTE_SENT);
            expect_arrival(&rig, 1, (0xDF & ~(n - 1)) | v);
            fires(&rig, fd);
            expect_arrival(&rig, 1, (0xDF & ~(n - 1)) | v);
        }
        expect_ok(msi_device_close(dev));
    }
    expect_quiet(&rig);
}

static void bug_18_a_vector_without_a_message_has_no_route(enum host host)
{
    RIG(rig, host, MSIX, .vectors = 8);
    expect_ok(guest_controls(rig.dev, ENABLE_MSIX));
    for (uint32_t v = 0; v < 8; v++) {
        rig_bound(&rig, v, 0);
        expect_ok(guest_unmasks(rig.dev, v));       /* all zeros: vector 0 to APIC 0, if it were one */
        fires(&rig, rig.eventfds[v]);
    }
    expect_quiet(&rig);
    expect_eq(rig_stats(&rig).routes, 0);
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_ok(guest_sets(rig.dev, 5, TO(1, 0x46)));
    expect_arrival(&rig, 1, 0x46);
    expect_quiet(&rig);
    expect_eq(rig_stats(&rig).routes, 1);
    if (host == ON_FAKE)
        expect_eq(fake_msi_routes(&rig.fake), 1);
    expect_ok(guest_sets(rig.dev, 5, 0, 0));
    fires(&rig, rig.eventfds[5]);
    expect_quiet(&rig);
    expect_eq(rig_stats(&rig).routes_pinned, 0);
}

static void bug_20_reserved_bits_of_vector_control_read_back_and_do_not_mask(enum host host)
{
    RIG(rig, host, MSIX);
    guest_opens(rig.dev, 1, 1, 0x41);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(table_write32(rig.dev, entry_control(0), 0xFFFFFFFE));
    expect_eq(table_read32(rig.dev, entry_control(0)), 0xFFFFFFFE);
    expect_delivers(&rig, 0, 1, 0x41);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_ok(table_write32(rig.dev, entry_control(0), 0xFFFFFFFF));
    expect_eq(table_read32(rig.dev, entry_control(0)), 0xFFFFFFFF);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_ok(table_write32(rig.dev, entry_control(0), 0x80000000));
    expect_arrival(&rig, 1, 0x41);
    expect_eq(table_read32(rig.dev, entry_control(0)), 0x80000000);
}

/* cloud-hypervisor, seen in the IRR. */
static void bug_23_function_mask_and_disable_reach_the_irqfds(enum host host)
{
    static const uint16_t shut[] = { ENABLE_MSIX | MASK_ALL, 0, MASK_ALL };
    RIG(rig, host, MSIX);
    guest_opens(rig.dev, 4, 1, 0x41);
    for (uint32_t v = 0; v < 4; v++)
        rig_bound(&rig, v, 0);
    for (unsigned i = 0; i < 3; i++) {
        tap_context("Message Control %#x", shut[i]);
        expect_ok(guest_controls(rig.dev, shut[i]));
        for (uint32_t v = 0; v < 4; v++) {
            expect(!(info_of(rig.dev, v).flags & IN_KERNEL));
            signal_from_another_process(rig.eventfds[v], 1);
        }
        expect_quiet(&rig);
        for (uint32_t v = 0; v < 4 && !(shut[i] & ENABLE_MSIX); v++)
            expect_eq(take_count(rig.eventfds[v]), 1);              /* the VMM's, who may raise INTx */
        expect_ok(guest_controls(rig.dev, ENABLE_MSIX));
        for (uint32_t v = 0; v < 4; v++) {
            if (shut[i] & ENABLE_MSIX)
                expect_arrival(&rig, 1, 0x41 + v);
            fires(&rig, rig.eventfds[v]);
            expect_arrival(&rig, 1, 0x41 + v);
        }
        expect_quiet(&rig);
    }
}

/* Vectors 1 to 3 change their messages, and send by them. */
static void others_go_on(struct rig *rig)
{
    static unsigned turn;
    for (uint32_t v = 1; v < 4; v++) {
        unsigned data = 0x60 + turn++ % 0x80;
        expect_ok(guest_sets(rig->dev, v, TO(1, data)));
        fires(rig, rig->eventfds[v]);
        expect_arrival(rig, 1, data);
        expect_delivers(rig, v, 1, data);
    }
}

static bool with_x2apic_ids(struct rig *rig)
{
    return (rig->host != ON_KVM || vm_use_x2apic_ids(&rig->vm))
        && expect_ok(msi_route_cache_set_addressing(rig->cache, MSIROUTE_X2APIC_IDS));
}

/* cloud-hypervisor: bits 7:0 of the high half are reserved then, and KVM refuses a table with such an entry, for all. */
static void bug_25_a_message_that_the_kernel_refuses_spoils_no_other(enum host host)
{
    RIG(rig, host, MSIX);
    if (!with_x2apic_ids(&rig))
        return;
    guest_opens(rig.dev, 4, 1, 0x41);
    for (uint32_t v = 0; v < 4; v++)
        rig_bound(&rig, v, 0);
    for (unsigned masked = 0; masked < 2; masked++) {
        if (masked)
            expect_ok(guest_masks(rig.dev, 0));
        expect_ok(guest_sets(rig.dev, 0, 1ull << 32 | to_apic(1), 0x41));
        expect_ok(guest_unmasks(rig.dev, 0));
        fires(&rig, rig.eventfds[0]);
        expect_quiet(&rig);
        others_go_on(&rig);
        expect_eq(rig_stats(&rig).table_write_errors, 0);
        expect_eq(pba_read64(rig.dev, 0), 1);
        expect_ok(guest_sets(rig.dev, 0, TO(1, 0x41)));
        expect_arrival(&rig, 1, 0x41);
        others_go_on(&rig);
    }
    expect_quiet(&rig);
}

/* firecracker: one route more than the table holds, and no route can be changed from then on. */
static void bug_25_neither_does_a_route_too_many(enum host host)
{
    RIG(rig, host, MSIX, .irqchip = SPLIT_IRQCHIP, .max_routes = 24 + 4);
    struct msi_device *late = rig_device(&rig, MSIROUTE_KIND_MSIX, 1);
    guest_opens(rig.dev, 4, 1, 0x41);
    for (uint32_t v = 0; v < 4; v++)
        rig_bound(&rig, v, 0);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_bind_eventfd(late, 0, fd, 0));
    expect_ok(guest_sets(late, 0, TO(0, 0x55)));
    expect_ok(guest_controls(late, ENABLE_MSIX));
    expect_eq(guest_unmasks(late, 0), -ENOSPC);
    expect(info_of(late, 0).flags & UNSERVED);
    others_go_on(&rig);
    expect_eq(msi_deliver(late, 0), MSIROUTE_SENT);
    expect_arrival(&rig, 0, 0x55);
    expect_ok(guest_masks(late, 0));
    others_go_on(&rig);
    expect_quiet(&rig);
}

/* cloud-hypervisor past 4072. */
static void bug_27_a_vector_that_got_no_route_says_so_and_loses_nothing(enum host host)
{
    RIG(rig, host, MSIX, .irqchip = SPLIT_IRQCHIP, .max_routes = 24 + 2);
    expect_ok(guest_controls(rig.dev, ENABLE_MSIX));
    for (uint32_t v = 0; v < 3; v++) {
        rig_bound(&rig, v, 0);
        expect_ok(guest_sets(rig.dev, v, TO(1, 0x41 + v)));
        expect_eq(guest_unmasks(rig.dev, v), v < 2 ? 0 : -ENOSPC);
    }
    expect_eq(table_read32(rig.dev, entry_control(2)), 0);          /* what the guest wrote stands */
    expect_eq(info_of(rig.dev, 2).flags, MSIROUTE_VECTOR_SET | LIVE | UNSERVED);
    expect_eq(info_of(rig.dev, 2).error, -ENOSPC);
    expect_eq(rig_stats(&rig).unserved_vectors, 1);
    for (unsigned i = 0; i < 5; i++)
        fires(&rig, rig.eventfds[2]);
    expect_quiet(&rig);
    expect_eq(pba_read64(rig.dev, 0), 4);
    expect_eq(msi_route_cache_commit(rig.cache), -ENOSPC);
    expect_ok(guest_masks(rig.dev, 0));             /* a route is free */
    expect_arrival(&rig, 1, 0x43);
    expect_quiet(&rig);
    expect_eq(pba_read64(rig.dev, 0), 0);
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
    expect(info_of(rig.dev, 2).flags & IN_KERNEL);
    fires(&rig, rig.eventfds[2]);
    expect_arrival(&rig, 1, 0x43);
}

static void bug_27_nor_is_a_trigger_without_a_route_said_to_be_sent(enum host host)
{
    RIG(rig, host, MSIX, .cache_flags = MSIROUTE_CACHE_NO_DIRECT);
    guest_opens(rig.dev, 3, 1, 0x41);
    fake_fault(&rig.fake, FAKE_SET_ROUTES, 1, ENOSPC, true);
    expect_eq(msi_deliver(rig.dev, 2), -ENOSPC);
    expect_quiet(&rig);
    expect_eq(pba_read64(rig.dev, 0), 0);           /* the caller was told */
    expect_ok(guest_masks(rig.dev, 2));
    expect_eq(msi_deliver(rig.dev, 2), MSIROUTE_PENDING);
    expect_eq(guest_unmasks(rig.dev, 2), -ENOSPC);
    expect_quiet(&rig);
    expect_eq(pba_read64(rig.dev, 0), 4);
    expect(fake_faultless(&rig.fake));
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_arrival(&rig, 1, 0x43);
    expect_quiet(&rig);
    expect_eq(pba_read64(rig.dev, 0), 0);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, bug_01_no_access_reaches_past_the_table_or_the_PBA),
        TEST(EVERYWHERE, bug_02_a_write_to_the_PBA_changes_nothing),
        TEST(EVERYWHERE, bug_03_no_access_of_any_width_and_place_harms),
        TEST(EVERYWHERE, bug_05_more_MSI_messages_than_the_function_has_cannot_be_enabled),
        TEST(EVERYWHERE, bug_06_what_is_signalled_while_masked_comes_once_when_unmasked),
        TEST(EVERYWHERE, bug_07_a_pending_bit_is_sent_and_cleared_when_the_vector_is_unmasked),
        TEST(EVERYWHERE, bug_08_a_masked_eventfd_does_not_fire_and_shows_in_the_PBA),
        TEST(EVERYWHERE, bug_09_what_is_unmasked_under_the_function_mask_is_armed_when_that_is_cleared),
        TEST(EVERYWHERE, bug_14_a_message_that_is_none_disarms_and_keeps_what_is_raised),
        TEST(ON_FAKE, bug_16_no_mixture_of_an_old_and_a_new_message_reaches_the_kernel),
        TEST(EVERYWHERE, bug_17_each_MSI_vector_has_its_index_in_the_data),
        TEST(EVERYWHERE, bug_18_a_vector_without_a_message_has_no_route),
        TEST(EVERYWHERE, bug_20_reserved_bits_of_vector_control_read_back_and_do_not_mask),
        TEST(EVERYWHERE, bug_23_function_mask_and_disable_reach_the_irqfds),
        TEST(EVERYWHERE, bug_25_a_message_that_the_kernel_refuses_spoils_no_other),
        TEST(ON_KVM | ON_FAKE, bug_25_neither_does_a_route_too_many),
        TEST(ON_KVM | ON_FAKE, bug_27_a_vector_that_got_no_route_says_so_and_loses_nothing),
        TEST(ON_FAKE, bug_27_nor_is_a_trigger_without_a_route_said_to_be_sent),
    };
    return TAP_MAIN(tests);
}
