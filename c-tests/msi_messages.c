/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* MSI's one message: changed while it may be sent, in any pieces and order; and messages that are none. */
#include <errno.h>

#include "rig.h"

#define LIVE      MSIROUTE_VECTOR_LIVE
#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL
#define MASK      MSIROUTE_DEVICE_MSI_MASK
#define WIDE      MSIROUTE_DEVICE_MSI_64
#define MSI       .kind = MSIROUTE_KIND_MSI

/* ---- a message that is changed while it may be sent ---- */

#define OLD_ADDRESS to_apic(0)
#define OLD_DATA    0x5060
#define NEW_DATA    0x60A1

enum { LOW, DATA, HIGH, PARTS };

static int write_part(struct msi_device *dev, uint32_t flags, unsigned part, uint64_t address, uint16_t data)
{
    switch (part) {
    case LOW:  return cap_write32(dev, PCI_MSI_ADDRESS_LO, (uint32_t)address);
    case HIGH: return cap_write32(dev, PCI_MSI_ADDRESS_HI, (uint32_t)(address >> 32));
    default:   return cap_write16(dev, msi_data_at(flags), data);
    }
}

/* The vectors' messages are all the old ones or all the new ones. */
#define expect_no_mixture(dev, vectors, address) no_mixture(__FILE__, __LINE__, dev, vectors, address)
static bool no_mixture(const char *file, int line, struct msi_device *dev, uint32_t vectors, uint64_t address)
{
    uint32_t low = vectors - 1;
    for (uint32_t v = 0; v < vectors; v++) {
        struct msi_vector_info info = info_of(dev, v);
        bool is_old = info.address == OLD_ADDRESS && info.data == ((OLD_DATA & ~low) | v);
        bool is_new = info.address == address && info.data == ((NEW_DATA & ~low) | v);
        if (!is_old && !is_new) {
            tap_fail(file, line, "vector %u has the message %#llx, %#x", v, (unsigned long long)info.address, info.data);
            return false;
        }
    }
    return true;
}

/* Live, with the old message, on a host where a high half is a destination. */
static struct msi_device *live_device(struct rig *rig, uint32_t flags, unsigned log)
{
    struct msi_device *dev = rig_msi_device(rig, flags, log);
    expect_ok(msi_guest_sets(dev, flags, OLD_ADDRESS, OLD_DATA));
    expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(log)));
    expect(info_of(dev, 0).flags & LIVE);
    return dev;
}

static void parts_in_any_order(struct rig *rig, uint32_t flags, unsigned parts, uint64_t address)
{
    for (unsigned k = 0; k < (parts == 2 ? 2 : 6); k++) {
        unsigned order[PARTS];
        struct msi_device *dev = live_device(rig, flags, 2);
        order_of(k, parts, order);
        tap_context("flags %u, address %#llx, order: %u %u %u", flags, (unsigned long long)address,
                    order[0], order[1], parts > 2 ? order[2] : HIGH);
        for (unsigned i = 0; i < parts; i++) {
            expect_no_mixture(dev, 4, address);
            expect_ok(write_part(dev, flags, order[i], address, NEW_DATA));
        }
        expect_no_mixture(dev, 4, address);
        expect_eq(info_of(dev, 3).data, NEW_DATA | 3);
        expect_ok(msi_device_close(dev));
    }
}

static void a_live_message_changes_when_address_and_data_are_written_and_is_never_torn(enum host host)
{
    RIG(rig, host);
    for (unsigned form = 0; form < MSI_FORMS; form++) {
        parts_in_any_order(&rig, MSI_FORM(form), 2, to_apic(1));
        if (MSI_FORM(form) & WIDE)
            parts_in_any_order(&rig, MSI_FORM(form), 3, to_apic(1));
    }
}

static void with_another_high_half_it_is_not_torn_either(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_route_cache_set_addressing(rig.cache, MSIROUTE_X2APIC_IDS));
    parts_in_any_order(&rig, WIDE, 3, to_x2apic(0x201));
    parts_in_any_order(&rig, WIDE | MASK, 3, to_x2apic(0x201));
}

static void written_live_in_pieces_of_any_size_it_is_not_torn_either(enum host host)
{
    RIG(rig, host);
    for (unsigned form = 0; form < MSI_FORMS; form++) {
        uint32_t flags = MSI_FORM(form);
        size_t end = msi_data_at(flags) + 2;
        for (size_t piece = 1; piece <= end; piece++) {
            for (unsigned down = 0; down < 2; down++) {
                struct msi_device *dev = live_device(&rig, flags, 1);
                uint8_t bytes[24];
                uint32_t low = (uint32_t)to_apic(1);
                uint16_t data = NEW_DATA;
                size_t n = (end - 4 + piece - 1) / piece;
                bool good = true;
                cap_read(dev, bytes);
                memcpy(bytes + PCI_MSI_ADDRESS_LO, &low, 4);
                memcpy(bytes + msi_data_at(flags), &data, 2);
                tap_context("flags %u, in pieces of %zu, %s", flags, piece, down ? "downwards" : "upwards");
                for (size_t i = 0; i < n && good; i++) {
                    size_t at = 4 + (down ? n - 1 - i : i) * piece;
                    expect_ok(cap_write(dev, (unsigned)at, bytes + at, end - at < piece ? end - at : piece));
                    good = expect_no_mixture(dev, 2, to_apic(1));
                }
                if (good)
                    expect_eq(info_of(dev, 1).data, NEW_DATA | 1);
                expect_ok(msi_device_close(dev));
            }
        }
    }
}

static void unmasking_one_vector_brings_no_half_of_a_message_to_another(enum host host)
{
    RIG(rig, host);
    for (unsigned by_VMM = 0; by_VMM < 2; by_VMM++) {
        struct msi_device *dev = live_device(&rig, MASK, 1);
        tap_context("by the %s", by_VMM ? "VMM" : "guest");
        expect_ok(cap_write8(dev, msi_mask_at(MASK), 2));      /* vector 0 stays live */
        expect_ok(cap_write32(dev, PCI_MSI_ADDRESS_LO, (uint32_t)to_apic(1)));
        expect_no_mixture(dev, 1, to_apic(1));
        expect_ok(by_VMM ? msi_vector_unmask(dev, 1) : cap_write8(dev, msi_mask_at(MASK), 0));
        struct msi_vector_info info = info_of(dev, 0);
        expect(info.address == OLD_ADDRESS && info.data == (OLD_DATA & ~1));
        expect_ok(cap_write16(dev, msi_data_at(MASK), NEW_DATA));
        info = info_of(dev, 0);
        expect(info.address == to_apic(1) && info.data == (NEW_DATA & ~1));
        expect_ok(msi_device_close(dev));
    }
}

static void half_written_it_comes_into_force_when_no_vector_can_send_it(enum host host)
{
    RIG(rig, host);
    for (unsigned way = 0; way < 3; way++) {
        struct msi_device *dev = live_device(&rig, MASK, 1);
        tap_context("way %u", way);
        expect_ok(cap_write32(dev, PCI_MSI_ADDRESS_LO, (uint32_t)to_apic(1)));
        expect(info_of(dev, 0).address == OLD_ADDRESS);
        if (way == 0)
            expect_ok(BOTH(cap_write16(dev, PCI_MSI_FLAGS, 1 << 4), cap_write16(dev, PCI_MSI_FLAGS, msi_on(1))));
        else if (way == 1)
            expect_ok(BOTH(cap_write8(dev, msi_mask_at(MASK), 3), cap_write8(dev, msi_mask_at(MASK), 0)));
        else
            expect_ok(BOTH(msi_device_set_control(dev, 0), msi_device_set_control(dev, MSIROUTE_ENABLED)));
        for (uint32_t v = 0; v < 2; v++) {
            expect(info_of(dev, v).address == to_apic(1));
            expect_eq(info_of(dev, v).data, OLD_DATA | v);
        }
        expect_ok(msi_device_close(dev));
    }
}

/* Vectors beyond those enabled cannot send, whatever their mask bits say. */
static void vectors_that_are_not_enabled_do_not_hold_a_message_back(enum host host)
{
    struct msi_device *dev;
    RIG(rig, host);
    dev = live_device(&rig, MASK, 1);
    expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(0)));
    expect_ok(cap_write8(dev, msi_mask_at(MASK), 1));          /* vector 0; vector 1 is not enabled */
    expect_ok(cap_write32(dev, PCI_MSI_ADDRESS_LO, (uint32_t)to_apic(1)));
    expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(1)));
    expect(info_of(dev, 1).flags & LIVE);
    expect(info_of(dev, 1).address == to_apic(1));
}

static void a_live_message_moves_its_eventfds(enum host host)
{
    RIG(rig, host, MSI, .vectors = 2, .device_flags = WIDE);
    expect_ok(msi_guest_sets(rig.dev, WIDE, to_apic(0), 0x60));
    expect_ok(cap_write16(rig.dev, PCI_MSI_FLAGS, msi_on(1)));
    int first = rig_bound(&rig, 0, 0), second = rig_bound(&rig, 1, 0);
    expect_ok(cap_write32(rig.dev, PCI_MSI_ADDRESS_LO, (uint32_t)to_apic(1)));
    fires(&rig, second);
    expect_arrival(&rig, 0, 0x61);
    expect_ok(cap_write16(rig.dev, msi_data_at(WIDE), 0x70));
    fires(&rig, first);
    expect_arrival(&rig, 1, 0x70);
    fires(&rig, second);
    expect_arrival(&rig, 1, 0x71);
    expect_quiet(&rig);
}

/* ---- messages that are none ---- */

static void what_is_no_message_stands_in_the_registers_and_disarms(enum host host)
{
    RIG(rig, host, MSI, .vectors = 2, .device_flags = MASK);
    expect_ok(msi_guest_sets(rig.dev, MASK, to_apic(1), 0x60));
    expect_ok(cap_write16(rig.dev, PCI_MSI_FLAGS, msi_on(1)));
    int fd = rig_bound(&rig, 1, 0);
    expect_ok(msi_guest_sets(rig.dev, MASK, 0x1000, 0x60));
    expect_eq(cap_read32(rig.dev, PCI_MSI_ADDRESS_LO), 0x1000);
    expect_eq(info_of(rig.dev, 1).flags & (LIVE | IN_KERNEL), 0);
    fires(&rig, fd);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    expect_quiet(&rig);
    expect_eq(cap_read32(rig.dev, msi_pending_at(MASK)), 3);
    expect_ok(msi_guest_sets(rig.dev, MASK, to_apic(1), 0x60));
    expect_arrival(&rig, 1, 0x60);
    expect_arrival(&rig, 1, 0x61);
    expect_quiet(&rig);
}

static void with_DATA0_OFF_data_of_0_switches_the_function_off(enum host host)
{
    RIG(rig, host, MSI, .vectors = 2, .device_flags = MASK | MSIROUTE_DEVICE_DATA0_OFF);
    expect_ok(msi_guest_sets(rig.dev, MASK, to_apic(1), 0));
    expect_ok(cap_write16(rig.dev, PCI_MSI_FLAGS, msi_on(1)));
    for (uint32_t v = 0; v < 2; v++)
        expect_eq(msi_deliver(rig.dev, v), MSIROUTE_PENDING);
    expect_ok(msi_guest_sets(rig.dev, MASK, to_apic(1), 0x60));
    expect_arrival(&rig, 1, 0x60);
    expect_arrival(&rig, 1, 0x61);
}

static void the_VMM_cannot_set_one_vectors_message(enum host host)
{
    RIG(rig, host, MSI, .vectors = 2);
    expect_ok(msi_guest_sets(rig.dev, 0, to_apic(1), 0x60));
    expect_ok(cap_write16(rig.dev, PCI_MSI_FLAGS, msi_on(1)));
    expect_eq(msi_vector_set(rig.dev, 0, TO(1, 0x41)), -EINVAL);
    expect_eq(msi_vector_set(rig.dev, 0, TO(1, 0x60)), -EINVAL);
    expect_eq(msi_vector_clear(rig.dev, 0), -EINVAL);
    expect_delivers(&rig, 0, 1, 0x60);
    expect_delivers(&rig, 1, 1, 0x61);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_FAKE, a_live_message_changes_when_address_and_data_are_written_and_is_never_torn),
        TEST(ON_FAKE, with_another_high_half_it_is_not_torn_either),
        TEST(ON_FAKE, written_live_in_pieces_of_any_size_it_is_not_torn_either),
        TEST(ON_FAKE, unmasking_one_vector_brings_no_half_of_a_message_to_another),
        TEST(ON_FAKE, half_written_it_comes_into_force_when_no_vector_can_send_it),
        TEST(ON_FAKE, vectors_that_are_not_enabled_do_not_hold_a_message_back),
        TEST(EVERYWHERE, a_live_message_moves_its_eventfds),
        TEST(EVERYWHERE, what_is_no_message_stands_in_the_registers_and_disarms),
        TEST(EVERYWHERE, with_DATA0_OFF_data_of_0_switches_the_function_off),
        TEST(EVERYWHERE, the_VMM_cannot_set_one_vectors_message),
    };
    return TAP_MAIN(tests);
}
