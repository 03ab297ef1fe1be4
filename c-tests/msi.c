/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* MSI as a guest sees it: the capability in all its forms, for 1 to 32 vectors, and the messages that follow. What a guest
 * does to a message while it is sent is in msi_messages.c. */
#include <errno.h>

#include "rig.h"

#define LIVE      MSIROUTE_VECTOR_LIVE
#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL
#define MASK      MSIROUTE_DEVICE_MSI_MASK
#define WIDE      MSIROUTE_DEVICE_MSI_64
#define MSI       .kind = MSIROUTE_KIND_MSI

#define LOGS 6
#define BASE 0xBF   /* its low five bits are set, and what they are replaced by stays above 0x9f */

#define FOR_EACH_FORM(flags, log) \
    for (unsigned form_ = 0, flags = 0; form_ < MSI_FORMS; form_++, flags = MSI_FORM(form_)) \
        for (unsigned log = 0; log < LOGS; log++)

/* Which vector number the message of this vector has, with so many enabled. */
static unsigned number(unsigned base, unsigned log, uint32_t index)
{
    return (base & ~((1u << log) - 1)) | index;
}

/* ---- the capability ---- */

static unsigned log_of(const struct shadow *shadow) { return shadow->bytes[2] >> 1 & 7; }

static void clamp_enabled_to_capable(struct shadow *shadow)
{
    unsigned enabled = shadow->bytes[2] >> 4 & 7;
    if (enabled > log_of(shadow))
        shadow->bytes[2] = (uint8_t)((shadow->bytes[2] & ~0x70) | log_of(shadow) << 4);
}

static struct shadow msi_shadow(uint32_t flags, unsigned log)
{
    struct shadow shadow = { .size = msi_size(flags), .bytes = { 0x05, CAP_NEXT }, .settle = clamp_enabled_to_capable };
    unsigned data = msi_data_at(flags);
    shadow.bytes[2] = (uint8_t)(log << 1 | (flags & WIDE ? 0x80 : 0));
    shadow.bytes[3] = flags & MASK ? 1 : 0;
    shadow.writable[2] = 0x71;
    memset(shadow.writable + PCI_MSI_ADDRESS_LO, 0xFF, data + 2 - PCI_MSI_ADDRESS_LO);
    shadow.writable[PCI_MSI_ADDRESS_LO] = 0xFC;
    if (flags & MASK) {
        uint32_t bits = UINT32_MAX >> (32 - (1u << log));
        memcpy(shadow.writable + msi_mask_at(flags), &bits, 4);
    }
    return shadow;
}

static void the_capability_says_what_the_device_is_and_takes_writes_of_any_width(enum host host)
{
    static const size_t sizes[MSI_FORMS] = { 10, 14, 20, 24 };
    RIG(rig, host);
    FOR_EACH_FORM(flags, log) {
        struct msi_device *dev = rig_msi_device(&rig, flags, log);
        struct shadow shadow = msi_shadow(flags, log);
        uint8_t bytes[24];
        expect_eq(msi_device_capability_size(dev), sizes[flags]);
        cap_read(dev, bytes);
        expect(!memcmp(bytes, shadow.bytes, shadow.size));
        every_config_access_is_right(dev, &shadow);
        expect_eq(!!(msi_device_state(dev) & MSIROUTE_ENABLED), shadow.bytes[2] & 1);
    }
}

static void more_messages_than_there_are_cannot_be_enabled(enum host host)
{
    RIG(rig, host);
    FOR_EACH_FORM(flags, log) {
        struct msi_device *dev = rig_msi_device(&rig, flags, log);
        for (unsigned wanted = 0; wanted < 8; wanted++) {
            unsigned got = wanted < log ? wanted : log;
            expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(wanted)));
            expect_eq(cap_read16(dev, PCI_MSI_FLAGS) >> 4 & 7, got);
            expect_ok(cap_write8(dev, PCI_MSI_FLAGS, (uint8_t)(wanted << 4)));
            expect_eq(cap_read16(dev, PCI_MSI_FLAGS) >> 4 & 7, got);
        }
    }
}

/* The same capability written whole, or in pieces of this many bytes, upwards or downwards. */
static void write_in_pieces(struct msi_device *dev, const uint8_t *bytes, size_t size, size_t piece, bool down)
{
    size_t n = (size + piece - 1) / piece;
    for (size_t i = 0; i < n; i++) {
        size_t at = (down ? n - 1 - i : i) * piece;
        expect_ok(cap_write(dev, (unsigned)at, bytes + at, size - at < piece ? size - at : piece));
    }
}

static void written_in_pieces_of_any_size_it_is_as_if_written_whole(enum host host)
{
    RIG(rig, host);
    FOR_EACH_FORM(flags, log) {
        uint8_t bytes[24] = { 0 }, whole[24], pieces[24];
        uint32_t low = (uint32_t)to_apic(1);
        struct msi_device *dev = rig_msi_device(&rig, flags, log);
        memcpy(bytes + PCI_MSI_ADDRESS_LO, &low, 4);
        bytes[PCI_MSI_FLAGS] = (uint8_t)msi_on(7);
        bytes[msi_data_at(flags)] = BASE;
        if (flags & MASK)
            bytes[msi_mask_at(flags)] = 0xFE;
        expect_ok(cap_write(dev, 0, bytes, msi_size(flags)));
        cap_read(dev, whole);
        for (size_t piece = 1; piece <= 24; piece++) {
            for (unsigned down = 0; down < 2; down++) {
                expect_ok(msi_device_reset(dev));
                write_in_pieces(dev, bytes, msi_size(flags), piece, down);
                cap_read(dev, pieces);
                if (!expect(!memcmp(whole, pieces, msi_size(flags))))
                    tap_note("in pieces of %zu, %s", piece, down ? "downwards" : "upwards");
                /* Written upwards it is enabled before it has a message: that is a change of a message in force. */
                if (down)
                    expect_eq(msi_deliver(dev, 0), MSIROUTE_SENT);
            }
        }
        expect(rig_arrivals(&rig, 1, number(BASE, log, 0)));
        expect_quiet(&rig);
    }
}

/* ---- the messages ---- */

static void the_index_stands_in_the_low_bits_of_the_data(enum host host)
{
    RIG(rig, host);
    FOR_EACH_FORM(flags, log) {
        struct msi_device *dev = rig_msi_device(&rig, flags, log);
        expect_ok(msi_guest_sets(dev, flags, to_apic(1), BASE));
        for (unsigned enabled = 0; enabled <= log; enabled++) {
            expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(enabled)));
            for (uint32_t v = 0; v < 1u << enabled; v++) {
                expect_eq(info_of(dev, v).data, number(BASE, enabled, v));
                expect_eq(msi_deliver(dev, v), MSIROUTE_SENT);
                expect_arrival(&rig, 1, number(BASE, enabled, v));
            }
        }
        expect_eq(cap_read16(dev, msi_data_at(flags)), BASE);   /* as it was written */
        expect_ok(msi_device_close(dev));
    }
    expect_quiet(&rig);
}

static void eventfds_of(enum host host, uint32_t flags, unsigned log)
{
    RIG(rig, host);
    struct msi_device *dev = rig_msi_device(&rig, flags, log);
    int fds[32];
    for (uint32_t v = 0; v < 1u << log; v++) {
        fds[v] = rig_eventfd(&rig, EFD_NONBLOCK);
        expect_ok(msi_vector_bind_eventfd(dev, v, fds[v], 0));
    }
    expect_ok(msi_guest_sets(dev, flags, to_apic(1), BASE));
    expect_eq(TABLE_WRITES(&rig, expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(log)))), 1);
    for (uint32_t v = 0; v < 1u << log; v++) {
        expect(info_of(dev, v).flags & IN_KERNEL);
        fires(&rig, fds[v]);
        expect_arrival(&rig, 1, number(BASE, log, v));
    }
    expect_ok(cap_write16(dev, PCI_MSI_FLAGS, 0));
    for (uint32_t v = 0; v < 1u << log; v++) {
        fires(&rig, fds[v]);
        expect_eq(msi_deliver(dev, v), MSIROUTE_DISABLED);
        expect_eq(take_count(fds[v]), 1);
    }
    expect_quiet(&rig);
}

static void eventfds_send_the_same_and_enabling_them_is_one_table_write(enum host host)
{
    FOR_EACH_FORM(flags, log)
        eventfds_of(host, flags, log);
}

static void vectors_beyond_those_enabled_are_pending_until_they_are_enabled(enum host host)
{
    RIG(rig, host, MSI, .vectors = 8, .device_flags = MASK);
    expect_ok(msi_guest_sets(rig.dev, MASK, to_apic(1), BASE));
    expect_ok(cap_write16(rig.dev, PCI_MSI_FLAGS, msi_on(1)));
    int fd = rig_bound(&rig, 5, 0), used = rig_bound(&rig, 1, 0);
    for (unsigned i = 0; i < 3; i++) {
        expect_eq(msi_deliver(rig.dev, 2), MSIROUTE_PENDING);
        fires(&rig, fd);
    }
    expect_eq(info_of(rig.dev, 5).flags & (LIVE | IN_KERNEL), 0);
    expect_quiet(&rig);
    expect_eq(cap_read32(rig.dev, msi_pending_at(MASK)), 1 << 2 | 1 << 5);
    expect_ok(cap_write16(rig.dev, PCI_MSI_FLAGS, msi_on(2)));
    expect_arrival(&rig, 1, 0xBE);
    expect_quiet(&rig);
    expect_eq(cap_read32(rig.dev, msi_pending_at(MASK)), 1 << 5);
    fires(&rig, used);
    expect_arrival(&rig, 1, 0xBD);
    expect_ok(cap_write16(rig.dev, PCI_MSI_FLAGS, msi_on(7)));
    expect_arrival(&rig, 1, 0xBD);
    expect_quiet(&rig);
    expect_eq(cap_read32(rig.dev, msi_pending_at(MASK)), 0);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0xBD);
    expect_ok(cap_write16(rig.dev, PCI_MSI_FLAGS, msi_on(0)));      /* fewer again */
    fires(&rig, fd);
    fires(&rig, used);
    expect_quiet(&rig);
    expect_eq(cap_read32(rig.dev, msi_pending_at(MASK)), 1 << 1 | 1 << 5);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_SENT);
    expect_arrival(&rig, 1, 0xBF);
}

/* ---- mask and pending bits ---- */

static void masked_vectors_set_their_pending_bits_and_send_once_when_unmasked(enum host host)
{
    RIG(rig, host);
    for (unsigned log = 0; log < LOGS; log++) {
        for (unsigned wide = 0; wide < 2; wide++) {
            uint32_t flags = MASK | (wide ? WIDE : 0), n = 1u << log, all = UINT32_MAX >> (32 - n);
            struct msi_device *dev = rig_msi_device(&rig, flags, log);
            int fds[32];
            expect_ok(msi_guest_sets(dev, flags, to_apic(1), BASE));
            expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(log)));
            expect_ok(cap_write32(dev, msi_mask_at(flags), UINT32_MAX));
            expect_eq(cap_read32(dev, msi_mask_at(flags)), all);
            for (uint32_t v = 0; v < n; v++) {
                fds[v] = rig_eventfd(&rig, EFD_NONBLOCK);
                expect_ok(msi_vector_bind_eventfd(dev, v, fds[v], 0));
                if (v % 2)
                    expect_eq(msi_deliver(dev, v), MSIROUTE_PENDING);
                else
                    fires(&rig, fds[v]);
                expect_eq(cap_read32(dev, msi_pending_at(flags)), UINT32_MAX >> (31 - v));
            }
            expect_ok(cap_write32(dev, msi_pending_at(flags), 0));     /* read-only */
            expect_eq(cap_read32(dev, msi_pending_at(flags)), all);
            expect_quiet(&rig);
            for (uint32_t v = 0; v < n; v++) {      /* one after the other, by bytes */
                uint32_t masked = all & ~(UINT32_MAX >> (31 - v));
                expect_ok(cap_write8(dev, msi_mask_at(flags) + v / 8, (uint8_t)(masked >> v / 8 * 8)));
                expect_eq(cap_read32(dev, msi_mask_at(flags)), masked);
                expect_eq(cap_read32(dev, msi_pending_at(flags)), masked);
                expect_arrival(&rig, 1, number(BASE, log, v));
                expect_quiet(&rig);
            }
            expect_ok(msi_device_close(dev));
        }
    }
}

static void the_mask_register_and_the_VMM_mask_the_same_bit(enum host host)
{
    RIG(rig, host);
    for (unsigned form = 0; form < MSI_FORMS; form++) {
        uint32_t flags = MSI_FORM(form);
        struct msi_device *dev = rig_msi_device(&rig, flags, 2);
        expect_ok(msi_guest_sets(dev, flags, to_apic(1), BASE));
        expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(2)));
        expect_ok(msi_vector_mask(dev, 2));
        expect_eq(msi_deliver(dev, 2), MSIROUTE_PENDING);
        expect_eq(msi_deliver(dev, 1), MSIROUTE_SENT);
        expect_arrival(&rig, 1, 0xBD);
        if (flags & MASK) {
            expect_eq(cap_read32(dev, msi_mask_at(flags)), 4);
            expect_eq(cap_read32(dev, msi_pending_at(flags)), 4);
            expect_ok(cap_write8(dev, msi_mask_at(flags), 0));
        } else {
            expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(2)));      /* has no mask bits to change */
            expect_quiet(&rig);
            expect_ok(msi_vector_unmask(dev, 2));
        }
        expect_arrival(&rig, 1, 0xBE);
        expect_eq(msi_vector_is_pending(dev, 2), 0);
    }
    expect_quiet(&rig);
}

/* ---- any order ---- */

enum { ENABLE, COUNT, UNMASK, MESSAGE, STEPS };

static int take_step(struct msi_device *dev, unsigned step, uint32_t flags)
{
    uint16_t control = cap_read16(dev, PCI_MSI_FLAGS);
    switch (step) {
    case ENABLE: return cap_write16(dev, PCI_MSI_FLAGS, control | PCI_MSI_FLAGS_ENABLE);
    case COUNT:  return cap_write16(dev, PCI_MSI_FLAGS, control | 2 << 4);
    case UNMASK: return cap_write32(dev, msi_mask_at(flags), 0);
    default:     return msi_guest_sets(dev, flags, to_apic(1), BASE);
    }
}

static void the_order_of_enable_count_mask_and_message_does_not_matter(enum host host)
{
    RIG(rig, host);
    for (unsigned k = 0; k < 2 * 24; k++) {
        uint32_t flags = MASK | (k / 24 ? WIDE : 0);
        unsigned order[STEPS];
        struct msi_device *dev = rig_msi_device(&rig, flags, 2);
        int fd = rig_eventfd(&rig, EFD_NONBLOCK);
        bool enabled = false;
        order_of(k % 24, STEPS, order);
        tap_context("order: %u %u %u %u, flags %u", order[0], order[1], order[2], order[3], flags);
        expect_ok(cap_write32(dev, msi_mask_at(flags), UINT32_MAX));
        expect_ok(msi_vector_bind_eventfd(dev, 3, fd, 0));
        for (unsigned i = 0; i < STEPS; i++) {
            expect_eq(info_of(dev, 3).flags & (LIVE | IN_KERNEL), 0);
            expect_eq(msi_deliver(dev, 3), enabled ? MSIROUTE_PENDING : MSIROUTE_DISABLED);
            expect_eq(cap_read32(dev, msi_pending_at(flags)), enabled ? 8 : 0);
            expect_ok(take_step(dev, order[i], flags));
            enabled |= order[i] == ENABLE;
        }
        expect_eq(info_of(dev, 3).flags, MSIROUTE_VECTOR_SET | LIVE | IN_KERNEL);
        if (order[STEPS - 1] != ENABLE)     /* else nothing was kept */
            expect_arrival(&rig, 1, 0xBF);
        fires(&rig, fd);
        expect_arrival(&rig, 1, 0xBF);
        expect_quiet(&rig);
        expect_ok(msi_device_close(dev));
    }
}

static void the_VMM_enables_and_disables_the_same_bit(enum host host)
{
    RIG(rig, host, MSI, .vectors = 2, .device_flags = WIDE);
    expect_ok(msi_guest_sets(rig.dev, WIDE, to_apic(1), BASE));
    expect_ok(cap_write16(rig.dev, PCI_MSI_FLAGS, 1 << 4));
    expect_ok(msi_device_set_control(rig.dev, MSIROUTE_ENABLED));
    expect_eq(cap_read16(rig.dev, PCI_MSI_FLAGS) & 0x7F, 1 << 4 | 1 << 1 | 1);
    expect_delivers(&rig, 1, 1, 0xBF);
    expect_ok(msi_device_set_control(rig.dev, 0));
    expect_eq(cap_read16(rig.dev, PCI_MSI_FLAGS) & 1, 0);
    expect_eq(msi_deliver(rig.dev, 1), MSIROUTE_DISABLED);
    expect_eq(msi_device_set_control(rig.dev, MSIROUTE_FUNCTION_MASKED), -EINVAL);
}

/* ---- ends ---- */

static void a_reset_makes_the_registers_those_of_a_new_device(enum host host)
{
    RIG(rig, host);
    FOR_EACH_FORM(flags, log) {
        struct msi_device *dev = rig_msi_device(&rig, flags, log);
        uint8_t fresh[2][1024], after[2][1024];
        size_t size = msi_device_save_size(dev);
        int fd = rig_eventfd(&rig, EFD_NONBLOCK);
        cap_read(dev, fresh[0]);
        expect_ok(msi_device_save(dev, fresh[1], size));
        expect_ok(msi_guest_sets(dev, flags, to_apic(1), BASE));
        expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(log)));
        expect_ok(msi_vector_bind_eventfd(dev, 0, fd, 0));
        expect_ok(cap_write32(dev, PCI_MSI_ADDRESS_LO, 0xFEE00000));        /* half a message */
        expect_ok(msi_vector_mask(dev, 0));
        fires(&rig, fd);
        expect_eq(msi_vector_is_pending(dev, 0), 1);
        expect_ok(msi_device_reset(dev));
        cap_read(dev, after[0]);
        expect(!memcmp(fresh[0], after[0], msi_size(flags)));
        expect_ok(msi_device_save(dev, after[1], size));
        expect(!memcmp(fresh[1], after[1], size));
        fires(&rig, fd);
        expect_eq(take_count(fd), 1);
        expect_ok(msi_guest_sets(dev, flags, to_apic(1), BASE));
        expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(log)));
        expect_quiet(&rig);
        fires(&rig, fd);
        expect_arrival(&rig, 1, number(BASE, log, 0));
        expect_ok(msi_device_close(dev));
    }
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_FAKE, the_capability_says_what_the_device_is_and_takes_writes_of_any_width),
        TEST(ON_FAKE, more_messages_than_there_are_cannot_be_enabled),
        TEST(EVERYWHERE, written_in_pieces_of_any_size_it_is_as_if_written_whole),
        TEST(EVERYWHERE, the_index_stands_in_the_low_bits_of_the_data),
        TEST(EVERYWHERE, eventfds_send_the_same_and_enabling_them_is_one_table_write),
        TEST(EVERYWHERE, vectors_beyond_those_enabled_are_pending_until_they_are_enabled),
        TEST(EVERYWHERE, masked_vectors_set_their_pending_bits_and_send_once_when_unmasked),
        TEST(EVERYWHERE, the_mask_register_and_the_VMM_mask_the_same_bit),
        TEST(EVERYWHERE, the_order_of_enable_count_mask_and_message_does_not_matter),
        TEST(EVERYWHERE, the_VMM_enables_and_disables_the_same_bit),
        TEST(EVERYWHERE, a_reset_makes_the_registers_those_of_a_new_device),
    };
    return TAP_MAIN(tests);
}
