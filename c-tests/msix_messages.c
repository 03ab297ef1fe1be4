/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What follows from what a guest writes to MSI-X registers: which message is sent when, and what is pending, in whatever
 * order things were written. The registers themselves are in msix.c. */
#include <errno.h>

#include "rig.h"

#define LIVE      MSIROUTE_VECTOR_LIVE
#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL

/* ---- pending bits ---- */

struct gate {
    const char *name;
    int (*shut)(struct rig *rig);
    int (*open)(struct rig *rig);
};

static int mask_vector(struct rig *rig)     { return guest_masks(rig->dev, 1); }
static int unmask_vector(struct rig *rig)   { return guest_unmasks(rig->dev, 1); }
static int mask_function(struct rig *rig)   { return guest_controls(rig->dev, ENABLE_MSIX | MASK_ALL); }
static int unmask_function(struct rig *rig) { return guest_controls(rig->dev, ENABLE_MSIX); }
static int master_off(struct rig *rig)      { return msi_device_set_bus_master(rig->dev, 0); }
static int master_on(struct rig *rig)       { return msi_device_set_bus_master(rig->dev, 1); }
static int pause_cache(struct rig *rig)     { return msi_route_cache_pause(rig->cache); }
static int resume_cache(struct rig *rig)    { return msi_route_cache_resume(rig->cache); }
static int spoil_message(struct rig *rig)   { return guest_sets(rig->dev, 1, 0x1000, 0x42); }
static int mend_message(struct rig *rig)    { return guest_sets(rig->dev, 1, TO(1, 0x42)); }

static const struct gate gates[] = {
    { "vector mask", mask_vector, unmask_vector },
    { "function mask", mask_function, unmask_function },
    { "bus master", master_off, master_on },
    { "pause", pause_cache, resume_cache },
    { "message", spoil_message, mend_message },
};
#define FOR_EACH_GATE(gate) for (const struct gate *gate = gates; gate < gates + sizeof(gates) / sizeof(gates[0]); gate++)

/* Raises vector 1, by msi_deliver or its eventfd. */
static void raise_it(struct rig *rig, unsigned way, int fd)
{
    if (way & 1)
        expect_eq(msi_deliver(rig->dev, 1), MSIROUTE_PENDING);
    if (way & 2)
        fires(rig, fd);
}

static void what_is_raised_behind_a_gate_shows_in_the_PBA_and_is_sent_once_when_it_opens(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    guest_opens(rig.dev, 3, 1, 0x41);
    rig_bound(&rig, 0, 0);
    int fd = rig_bound(&rig, 1, 0);
    FOR_EACH_GATE(gate) {
        for (unsigned way = 1; way < 4; way++) {
            tap_context("gate: %s, raised by %u", gate->name, way);
            expect_ok(gate->shut(&rig));
            expect_eq(pba_read64(rig.dev, 0), 0);
            raise_it(&rig, way, fd);
            raise_it(&rig, way, fd);
            expect_quiet(&rig);
            expect_eq(pba_read64(rig.dev, 0), 2);
            expect_eq(pba_read64(rig.dev, 0), 2);       /* looking changes nothing */
            expect_ok(gate->open(&rig));
            expect_arrival(&rig, 1, 0x42);
            expect_eq(pba_read64(rig.dev, 0), 0);
            expect_quiet(&rig);

            expect_ok(gate->shut(&rig));
            raise_it(&rig, way, fd);
            expect_eq(msi_vector_clear_pending(rig.dev, 1), 1);
            expect_eq(pba_read64(rig.dev, 0), 0);
            expect_ok(gate->open(&rig));
            expect_quiet(&rig);
        }
    }
}

/* ---- enable, function mask, vector mask, message: any order, any width ---- */

#define STEPS 4
enum width { BYTES, WORDS, DWORDS, WIDTHS };

static int write_control(struct msi_device *dev, enum width width, uint16_t control)
{
    uint8_t all[PCI_CAP_MSIX_SIZEOF] = { 0 };
    memcpy(all + PCI_MSIX_FLAGS, &control, 2);
    switch (width) {
    case BYTES: return cap_write8(dev, PCI_MSIX_FLAGS + 1, (uint8_t)(control >> 8));
    case WORDS: return cap_write16(dev, PCI_MSIX_FLAGS, control);
    default:    return cap_write(dev, 0, all, control & MASK_ALL ? 4 : sizeof(all));
    }
}

static int take_step(struct msi_device *dev, unsigned step, enum width width)
{
    uint16_t control = cap_read16(dev, PCI_MSIX_FLAGS);
    uint64_t address = to_apic(1);
    switch (step) {
    case 0: return write_control(dev, width, control | ENABLE_MSIX);
    case 1: return write_control(dev, width, control & ~MASK_ALL);
    case 2: return width == DWORDS ? guest_unmasks(dev, 0)
                                   : table_write64(dev, entry_data(0), table_read32(dev, entry_data(0)));
    default:
        if (width == DWORDS)
            return guest_sets(dev, 0, address, 0x41);
        /* The vector's mask bit as it is. */
        table_write64(dev, entry_data(0), (uint64_t)table_read32(dev, entry_control(0)) << 32 | 0x41);
        return table_write64(dev, entry_low(0), address);
    }
}

static void the_order_and_width_of_what_opens_a_vector_do_not_matter(enum host host)
{
    RIG(rig, host);
    for (unsigned k = 0; k < 24 * WIDTHS; k++) {
        unsigned order[STEPS];
        order_of(k % 24, STEPS, order);
        tap_context("order: %u %u %u %u, width %u", order[0], order[1], order[2], order[3], k / 24);
        struct msi_device *dev = rig_device(&rig, MSIROUTE_KIND_MSIX, 1);
        int fd = rig_eventfd(&rig, EFD_NONBLOCK);
        expect_ok(guest_controls(dev, MASK_ALL));
        expect_ok(msi_vector_bind_eventfd(dev, 0, fd, 0));
        for (unsigned i = 0; i < STEPS; i++) {
            expect(!(info_of(dev, 0).flags & (LIVE | IN_KERNEL)));
            bool enabled = cap_read16(dev, PCI_MSIX_FLAGS) & ENABLE_MSIX;
            expect_eq(msi_deliver(dev, 0), enabled ? MSIROUTE_PENDING : MSIROUTE_DISABLED);
            expect_eq(pba_bit(dev, 0), enabled);
            expect_ok(take_step(dev, order[i], k / 24));
        }
        expect_eq(info_of(dev, 0).flags, MSIROUTE_VECTOR_SET | LIVE | IN_KERNEL);
        expect_entry(dev, 0, to_apic(1), 0x41, 0);
        if (order[STEPS - 1] != 0)      /* else nothing was kept */
            expect_arrival(&rig, 1, 0x41);
        expect_quiet(&rig);
        expect_eq(msi_deliver(dev, 0), MSIROUTE_SENT);
        expect_arrival(&rig, 1, 0x41);
        fires(&rig, fd);
        expect_arrival(&rig, 1, 0x41);
        expect_ok(msi_device_close(dev));
    }
    expect_quiet(&rig);
}

static void disabling_unbinds_and_forgets_nothing_that_the_registers_say(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    guest_opens(rig.dev, 2, 1, 0x41);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(guest_controls(rig.dev, 0));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_DISABLED);
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_entry(rig.dev, 0, TO(1, 0x41), 0);
    expect_entry(rig.dev, 1, TO(1, 0x42), 0);
    expect_entry(rig.dev, 2, 0, 0, 1);
    expect_eq(take_count(fd), 1);
    expect_ok(guest_controls(rig.dev, ENABLE_MSIX));
    expect_quiet(&rig);
    expect_delivers(&rig, 1, 1, 0x42);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
}

static void whatever_number_one_control_write_opens_it_is_one_table_write(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = 64);
    expect_ok(guest_controls(rig.dev, ENABLE_MSIX | MASK_ALL));
    for (uint32_t v = 0; v < 64; v++) {
        rig_bound(&rig, v, 0);
        expect_ok(guest_sets(rig.dev, v, TO(0, 0x41 + v)));
        expect_ok(guest_unmasks(rig.dev, v));
    }
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_eq(TABLE_WRITES(&rig, expect_ok(guest_controls(rig.dev, ENABLE_MSIX))), 1);
    expect_eq(rig_stats(&rig).irqfd_binds, 64);
    for (uint32_t v = 0; v < 64; v++) {
        fires(&rig, rig.eventfds[v]);
        expect_arrival(&rig, 0, 0x41 + v);
    }
}

/* ---- a message that is changed while it may be sent ---- */

/* Both ways to raise vector 0 send this one now. */
#define expect_sends(rig, fd, cpu, vector) do { \
        expect_delivers(rig, 0, cpu, vector); \
        fires(rig, fd); \
        expect_arrival(rig, cpu, vector); \
        expect_quiet(rig); \
    } while (0)

static void half_of_a_new_message_leaves_the_old_one_in_force(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    guest_opens(rig.dev, 2, 0, 0x41);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(table_write32(rig.dev, entry_low(0), (uint32_t)to_apic(1)));
    expect_entry(rig.dev, 0, to_apic(1), 0x41, 0);
    expect_sends(&rig, fd, 0, 0x41);
    expect_ok(table_write32(rig.dev, entry_high(0), 0));
    expect_sends(&rig, fd, 0, 0x41);
    expect_ok(table_write32(rig.dev, entry_data(0), 0x52));
    expect_sends(&rig, fd, 1, 0x52);
    expect_ok(table_write32(rig.dev, entry_data(0), 0x63));        /* data first */
    expect_sends(&rig, fd, 1, 0x52);
    expect_ok(table_write64(rig.dev, entry_low(0), to_apic(0)));
    expect_sends(&rig, fd, 0, 0x63);
    expect_ok(table_write64(rig.dev, entry_low(0), to_apic(1)));
    expect_sends(&rig, fd, 0, 0x63);
    expect_ok(table_write64(rig.dev, entry_data(0), 0x74));
    expect_sends(&rig, fd, 1, 0x74);
    expect_delivers(&rig, 1, 0, 0x42);
}

static void parts_in_any_order(struct msi_device *dev, unsigned parts, uint64_t address)
{
    const uint64_t where[] = { entry_low(0), entry_data(0), entry_high(0) };
    const uint32_t what[] = { (uint32_t)address, 0x52, (uint32_t)(address >> 32) };
    unsigned order[3];
    for (unsigned k = 0; k < (parts == 2 ? 2 : 6); k++) {
        order_of(k, parts, order);
        tap_context("address %#llx, order: %u %u %u", (unsigned long long)address, order[0], order[1], parts > 2 ? order[2] : 9);
        expect_ok(msi_vector_set(dev, 0, TO(0, 0x41)));
        for (unsigned i = 0; i < parts; i++) {
            expect_ok(table_write32(dev, where[order[i]], what[order[i]]));
            struct msi_vector_info info = info_of(dev, 0);
            bool is_old = info.address == to_apic(0) && info.data == 0x41, is_new = info.address == address && info.data == 0x52;
            if (!is_old && !is_new)
                tap_fail(__FILE__, __LINE__, "%u parts written: the message is %#llx, %#x", i + 1,
                         (unsigned long long)info.address, info.data);
        }
        expect(info_of(dev, 0).address == address);
    }
}

static void in_whatever_order_its_dwords_are_written_no_mixture_is_in_force(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    guest_opens(rig.dev, 1, 0, 0x41);
    parts_in_any_order(rig.dev, 2, to_apic(1));
    parts_in_any_order(rig.dev, 3, to_apic(1));
}

static void nor_with_another_high_half(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    expect_ok(msi_route_cache_set_addressing(rig.cache, MSIROUTE_X2APIC_IDS));
    guest_opens(rig.dev, 1, 0, 0x41);
    parts_in_any_order(rig.dev, 3, to_x2apic(0x201));
}

static int mask_and_unmask(struct rig *rig)
{
    return BOTH(guest_masks(rig->dev, 0), guest_unmasks(rig->dev, 0));
}
static int mask_and_unmask_function(struct rig *rig)
{
    return BOTH(guest_controls(rig->dev, ENABLE_MSIX | MASK_ALL), guest_controls(rig->dev, ENABLE_MSIX));
}
static int disable_and_enable(struct rig *rig)
{
    return BOTH(guest_controls(rig->dev, 0), guest_controls(rig->dev, ENABLE_MSIX));
}
static int VMM_masks_and_unmasks(struct rig *rig)
{
    return BOTH(msi_vector_mask(rig->dev, 0), msi_vector_unmask(rig->dev, 0));
}
static int VMM_disables_and_enables(struct rig *rig)
{
    return BOTH(msi_device_set_control(rig->dev, 0), msi_device_set_control(rig->dev, MSIROUTE_ENABLED));
}

static void a_half_written_message_comes_into_force_when_the_vector_is_masked(enum host host)
{
    static int (*const ways[])(struct rig *) = {
        mask_and_unmask, mask_and_unmask_function, disable_and_enable, VMM_masks_and_unmasks, VMM_disables_and_enables,
    };
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    guest_opens(rig.dev, 2, 0, 0x41);
    int fd = rig_bound(&rig, 0, 0);
    for (unsigned way = 0; way < sizeof(ways) / sizeof(ways[0]); way++) {
        tap_context("way %u", way);
        expect_ok(guest_sets(rig.dev, 0, TO(0, 0x41)));
        expect_sends(&rig, fd, 0, 0x41);
        expect_ok(table_write32(rig.dev, entry_low(0), (uint32_t)to_apic(1)));
        expect_ok(ways[way](&rig));
        expect_sends(&rig, fd, 1, 0x41);
        expect_ok(table_write32(rig.dev, entry_data(0), 0x52));     /* begins anew: the address was taken */
        expect_sends(&rig, fd, 1, 0x41);
        expect_ok(ways[way](&rig));
        expect_sends(&rig, fd, 1, 0x52);
    }
}

static void what_is_pending_goes_out_with_the_message_that_stands_then(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    guest_opens(rig.dev, 1, 0, 0x41);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(guest_masks(rig.dev, 0));
    fires(&rig, fd);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    expect_ok(guest_sets(rig.dev, 0, TO(1, 0x52)));
    expect_quiet(&rig);
    expect_ok(guest_unmasks(rig.dev, 0));
    expect_arrival(&rig, 1, 0x52);
    expect_quiet(&rig);
}

static void one_qword_of_data_and_mask_bit_is_one_change(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    expect_ok(guest_controls(rig.dev, ENABLE_MSIX));
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(table_write64(rig.dev, entry_low(0), to_apic(1)));
    expect_eq(TABLE_WRITES(&rig, expect_ok(table_write64(rig.dev, entry_data(0), 0x41))), 1);
    expect_sends(&rig, fd, 1, 0x41);
    expect_ok(table_write64(rig.dev, entry_data(0), 1ull << 32 | 0x52));
    expect_entry(rig.dev, 0, to_apic(1), 0x52, 1);
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_ok(table_write64(rig.dev, entry_data(0), 0x63));
    expect_arrival(&rig, 1, 0x63);
}

static void writing_what_is_there_already_costs_nothing(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    guest_opens(rig.dev, 2, 1, 0x41);
    int fd = rig_bound(&rig, 0, 0);
    struct msi_route_cache_stats before = rig_stats(&rig);
    for (unsigned i = 0; i < 3; i++) {
        expect_ok(guest_sets(rig.dev, 0, TO(1, 0x41)));
        expect_ok(guest_unmasks(rig.dev, 0));
        expect_ok(guest_controls(rig.dev, ENABLE_MSIX));
    }
    struct msi_route_cache_stats after = rig_stats(&rig);
    expect(!memcmp(&before, &after, sizeof(before)));
    expect_sends(&rig, fd, 1, 0x41);
    expect_ok(guest_masks(rig.dev, 0));
    expect_eq(TABLE_WRITES(&rig, expect_ok(guest_unmasks(rig.dev, 0))), 0);
}

/* ---- messages that are none ---- */

static void what_is_no_message_stands_in_the_table_and_disarms(enum host host)
{
    static const struct { uint64_t address; uint32_t data; } wrong[] = {
        { 0, 0 }, { 0x1000, 0x41 }, { 0xFEF00000, 0x41 }, { 0xFEDFF000, 0x41 },
        { 1ull << 32 | 0xFEE01000, 0x41 }, { UINT64_MAX, UINT32_MAX },
    };
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    guest_opens(rig.dev, 2, 1, 0x41);
    int fd = rig_bound(&rig, 0, 0);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        tap_context("address %#llx", (unsigned long long)wrong[i].address);
        expect_ok(guest_sets(rig.dev, 0, wrong[i].address, wrong[i].data));
        expect_entry(rig.dev, 0, wrong[i].address, wrong[i].data, 0);
        expect_eq(info_of(rig.dev, 0).flags & (LIVE | IN_KERNEL | MSIROUTE_VECTOR_SET), 0);
        expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
        fires(&rig, fd);
        expect_ok(guest_masks(rig.dev, 0));
        expect_ok(guest_unmasks(rig.dev, 0));
        expect_quiet(&rig);
        expect_eq(pba_bit(rig.dev, 0), 1);
        expect_delivers(&rig, 1, 1, 0x42);
        expect_ok(guest_sets(rig.dev, 0, TO(1, 0x41)));
        expect_arrival(&rig, 1, 0x41);
        expect_eq(pba_bit(rig.dev, 0), 0);
        expect_sends(&rig, fd, 1, 0x41);
    }
}

static void with_DATA0_OFF_data_of_0_switches_a_vector_off(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .device_flags = MSIROUTE_DEVICE_DATA0_OFF);
    guest_opens(rig.dev, 2, 1, 0x41);
    int fd = rig_bound(&rig, 0, 0);
    expect_sends(&rig, fd, 1, 0x41);
    expect_ok(guest_sets(rig.dev, 0, to_apic(1), 0));
    expect_entry(rig.dev, 0, to_apic(1), 0, 0);
    expect_eq(info_of(rig.dev, 0).flags & (LIVE | IN_KERNEL), 0);
    fires(&rig, fd);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    expect_quiet(&rig);
    expect_eq(pba_bit(rig.dev, 0), 1);
    expect_ok(guest_sets(rig.dev, 0, to_apic(1), 0x43));
    expect_arrival(&rig, 1, 0x43);
    expect_sends(&rig, fd, 1, 0x43);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, what_is_raised_behind_a_gate_shows_in_the_PBA_and_is_sent_once_when_it_opens),
        TEST(EVERYWHERE, the_order_and_width_of_what_opens_a_vector_do_not_matter),
        TEST(EVERYWHERE, disabling_unbinds_and_forgets_nothing_that_the_registers_say),
        TEST(EVERYWHERE, whatever_number_one_control_write_opens_it_is_one_table_write),
        TEST(EVERYWHERE, half_of_a_new_message_leaves_the_old_one_in_force),
        TEST(ON_FAKE, in_whatever_order_its_dwords_are_written_no_mixture_is_in_force),
        TEST(ON_FAKE, nor_with_another_high_half),
        TEST(EVERYWHERE, a_half_written_message_comes_into_force_when_the_vector_is_masked),
        TEST(EVERYWHERE, what_is_pending_goes_out_with_the_message_that_stands_then),
        TEST(EVERYWHERE, one_qword_of_data_and_mask_bit_is_one_change),
        TEST(EVERYWHERE, writing_what_is_there_already_costs_nothing),
        TEST(EVERYWHERE, what_is_no_message_stands_in_the_table_and_disarms),
        TEST(EVERYWHERE, with_DATA0_OFF_data_of_0_switches_a_vector_off),
    };
    return TAP_MAIN(tests);
}
