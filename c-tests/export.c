/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A device's registers as raw bytes, for a VMM with a format of its own: exported as the guest reads them, and imported. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "rig.h"

#define VECTORS   4
#define BASE      0x60      /* vector v sends BASE + v to vCPU 1 */
#define MSIX      .kind = MSIROUTE_KIND_MSIX

/* Vector 1 is masked and pending. */
static void prepare(struct msi_device *dev)
{
    guest_opens(dev, VECTORS, 1, BASE);
    expect_ok(guest_masks(dev, 1));
    expect_eq(msi_deliver(dev, 1), MSIROUTE_PENDING);
}

struct raw {
    uint8_t cap[24], table[VECTORS * PCI_MSIX_ENTRY_SIZE], pba[8];
};

static int export_all(struct msi_device *dev, struct raw *raw, size_t pba_len)
{
    memset(raw, 0x5A, sizeof(*raw));
    return msi_device_export(dev, raw->cap, PCI_CAP_MSIX_SIZEOF, raw->table, sizeof(raw->table), raw->pba, pba_len);
}

static int import_all(struct msi_device *dev, const struct raw *raw, size_t pba_len)
{
    return msi_device_import(dev, raw->cap, PCI_CAP_MSIX_SIZEOF, raw->table, sizeof(raw->table), raw->pba, pba_len);
}

static void MSIX_registers_export_as_the_guest_reads_them_and_import_elsewhere(enum host host)
{
    for (size_t pba_len = 1; pba_len <= 8; pba_len += 7) {
        struct raw raw, again;
        uint8_t cap[24];
        RIG(rig, host, MSIX);
        RIG(next, host, MSIX, .first_gsi = 90);
        tap_context("%zu bytes of PBA", pba_len);
        guest_opens(rig.dev, VECTORS, 1, BASE);
        expect_ok(table_write32(rig.dev, entry_control(1), 0x1231));
        int counts = rig_bound(&rig, 2, 0), fd = rig_bound(&next, 0, 0);
        expect_ok(guest_masks(rig.dev, 2));
        fires(&rig, counts);
        expect_eq(msi_deliver(rig.dev, 1), MSIROUTE_PENDING);
        expect_ok(export_all(rig.dev, &raw, pba_len));
        cap_read(rig.dev, cap);
        expect(!memcmp(cap, raw.cap, PCI_CAP_MSIX_SIZEOF) && raw.cap[PCI_CAP_MSIX_SIZEOF] == 0x5A);
        for (size_t offset = 0; offset < sizeof(raw.table); offset += 4) {
            uint32_t want = table_read32(rig.dev, offset);
            expect(!memcmp(raw.table + offset, &want, 4));
        }
        expect_eq(raw.pba[0], 1 << 1 | 1 << 2);
        expect_eq(raw.pba[1], pba_len == 1 ? 0x5A : 0);

        expect_ok(msi_device_set_control(next.dev, MSIROUTE_ENABLED));
        expect_eq(msi_deliver(next.dev, 3), MSIROUTE_PENDING);      /* gone with the import */
        expect_ok(import_all(next.dev, &raw, pba_len));
        expect_ok(export_all(next.dev, &again, pba_len));
        expect(!memcmp(&raw, &again, sizeof(raw)));
        expect_quiet(&next);
        expect_delivers(&next, 3, 1, BASE + 3);
        fires(&next, fd);
        expect_arrival(&next, 1, BASE);
        expect_ok(guest_unmasks(next.dev, 1));
        expect_arrival(&next, 1, BASE + 1);
        expect_ok(guest_unmasks(next.dev, 2));
        expect_arrival(&next, 1, BASE + 2);
        expect_quiet(&next);
    }
}

static void MSI_registers_export_and_import_with_their_pending_bits(enum host host)
{
    for (unsigned form = 0; form < MSI_FORMS; form++) {
        uint32_t flags = MSI_FORM(form);
        uint8_t cap[24], read[24];
        RIG(rig, host, .kind = MSIROUTE_KIND_MSI, .device_flags = flags);
        RIG(next, host, .kind = MSIROUTE_KIND_MSI, .device_flags = flags, .first_gsi = 90);
        tap_context("flags %u", flags);
        expect_ok(msi_guest_sets(rig.dev, flags, to_apic(1), BASE));
        expect_ok(cap_write16(rig.dev, PCI_MSI_FLAGS, msi_on(2)));
        expect_ok(msi_vector_mask(rig.dev, 2));
        expect_eq(msi_deliver(rig.dev, 2), MSIROUTE_PENDING);
        expect_ok(msi_device_export(rig.dev, cap, msi_size(flags), NULL, 0, NULL, 0));
        cap_read(rig.dev, read);
        expect(!memcmp(cap, read, msi_size(flags)));
        expect_eq(msi_device_export(rig.dev, cap, msi_size(flags), cap, 16, NULL, 0), -EINVAL);     /* has no table */
        int fd = rig_bound(&next, 3, 0);
        expect_ok(msi_device_import(next.dev, cap, msi_size(flags), NULL, 0, NULL, 0));
        cap_read(next.dev, read);
        expect(!memcmp(cap, read, msi_size(flags)));
        expect_delivers(&next, 0, 1, BASE);
        fires(&next, fd);
        expect_arrival(&next, 1, BASE + 3);
        expect_quiet(&next);
        if (msi_has_mask(flags)) {
            expect_ok(cap_write8(next.dev, msi_mask_at(flags), 0));
            expect_arrival(&next, 1, BASE + 2);
        }
        expect_quiet(&next);
    }
}

static void what_is_left_out_of_an_import_stays(enum host host)
{
    struct raw raw;
    RIG(rig, host, MSIX);
    guest_opens(rig.dev, VECTORS, 1, BASE);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(export_all(rig.dev, &raw, 8));
    expect_ok(guest_controls(rig.dev, ENABLE_MSIX | MASK_ALL));
    expect_eq(msi_deliver(rig.dev, 1), MSIROUTE_PENDING);
    add_to_eventfd(fd, 3);
    expect_ok(msi_device_import(rig.dev, NULL, 0, raw.table, sizeof(raw.table), NULL, 0));
    expect_eq(pba_read64(rig.dev, 0), 3);
    expect_eq(cap_read16(rig.dev, PCI_MSIX_FLAGS), ENABLE_MSIX | MASK_ALL | (VECTORS - 1));
    expect_ok(msi_device_import(rig.dev, NULL, 0, NULL, 0, NULL, 0));
    expect_eq(pba_read64(rig.dev, 0), 3);
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
    expect_eq(take_count(fd), 3);
    expect_eq(pba_read64(rig.dev, 0), 2);       /* what the eventfd had counted was its own */
    expect_ok(msi_device_import(rig.dev, raw.cap, PCI_CAP_MSIX_SIZEOF, NULL, 0, NULL, 0));
    expect_arrival(&rig, 1, BASE + 1);
    expect_quiet(&rig);
}

static atomic_bool stop;
static void *import_tables(void *opaque)
{
    struct rig *rig = opaque;
    struct raw raw;
    expect_ok(export_all(rig->dev, &raw, 8));
    while (!atomic_load(&stop))
        expect_ok(msi_device_import(rig->dev, NULL, 0, raw.table, sizeof(raw.table), NULL, 0));
    return NULL;
}

static void an_interrupt_raised_during_an_import_without_pending_bits_is_not_lost(enum host host)
{
    pthread_t importer;
    RIG(rig, host, MSIX);
    guest_opens(rig.dev, VECTORS, 1, BASE);
    expect_ok(guest_masks(rig.dev, 0));
    atomic_store(&stop, false);
    expect_ok(pthread_create(&importer, NULL, import_tables, &rig));
    for (uint64_t end = now_us() + 500000; now_us() < end;) {
        expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
        for (unsigned i = 0; i < 20; i++)
            if (!expect_eq(msi_vector_is_pending(rig.dev, 0), 1))
                end = 0;
        expect(msi_vector_clear_pending(rig.dev, 0) == 1 || !end);
    }
    atomic_store(&stop, true);
    pthread_join(importer, NULL);
}

static void import_and_count(struct msi_device *dev, const struct raw *raw, size_t cap, size_t table, size_t pba)
{
    struct saved before = saved(dev), after;
    tap_context("%zu, %zu, %zu bytes", cap, table, pba);
    expect_eq(msi_device_import(dev, raw->cap, cap, raw->table, table, raw->pba, pba), -EINVAL);
    after = saved(dev);
    expect(is_same(&before, &after));
}

static void lengths_that_do_not_fit_are_refused(enum host host)
{
    struct raw raw = { 0 };
    RIG(rig, host, MSIX);
    prepare(rig.dev);
    expect_ok(export_all(rig.dev, &raw, 8));
    for (size_t len = 1; len <= 65; len++) {
        if (len <= 24 && len != PCI_CAP_MSIX_SIZEOF) {
            import_and_count(rig.dev, &raw, len, 0, 0);
            expect_eq(msi_device_export(rig.dev, raw.cap, len, NULL, 0, NULL, 0), -EINVAL);
        }
        if (len != sizeof(raw.table)) {
            import_and_count(rig.dev, &raw, 0, len, 0);
            expect_eq(msi_device_export(rig.dev, NULL, 0, raw.table, len, NULL, 0), -EINVAL);
        }
        if (len <= 8 && len != 1 && len != 8) {
            import_and_count(rig.dev, &raw, 0, 0, len);
            expect_eq(msi_device_export(rig.dev, NULL, 0, NULL, 0, raw.pba, len), -EINVAL);
        }
    }
    tap_context("NULL");
    expect_eq(msi_device_import(rig.dev, NULL, 12, NULL, 0, NULL, 0), -EINVAL);
    expect_eq(msi_device_import(rig.dev, NULL, 0, NULL, 64, NULL, 0), -EINVAL);
    expect_eq(msi_device_import(rig.dev, NULL, 0, NULL, 0, NULL, 8), -EINVAL);
    expect_eq(msi_device_export(rig.dev, NULL, 12, NULL, 0, NULL, 0), -EINVAL);
    expect_eq(msi_device_export(rig.dev, NULL, 0, NULL, 64, NULL, 0), -EINVAL);
    expect_eq(msi_device_export(rig.dev, NULL, 0, NULL, 0, NULL, 8), -EINVAL);
}

static void registers_of_another_capability_are_refused_and_change_nothing(enum host host)
{
    static const struct { size_t at; uint8_t change; } changes[] = { { 0, 0x14 }, { 2, 1 }, { 2, 0x80 }, { 3, 1 } };
    RIG(rig, host, MSIX);
    struct raw good, raw;
    prepare(rig.dev);
    expect_ok(export_all(rig.dev, &good, 8));
    for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        raw = good;
        raw.cap[changes[i].at] ^= changes[i].change;
        memset(raw.table, 0, sizeof(raw.table));
        import_and_count(rig.dev, &raw, PCI_CAP_MSIX_SIZEOF, sizeof(raw.table), 8);
    }
    for (unsigned bit = VECTORS; bit < 64; bit++) {
        raw = good;
        memset(raw.table, 0, sizeof(raw.table));
        raw.pba[bit / 8] = (uint8_t)(1 << bit % 8);
        import_and_count(rig.dev, &raw, PCI_CAP_MSIX_SIZEOF, sizeof(raw.table), 8);
    }
    raw = good;
    raw.cap[1] = 0x44;                              /* where its neighbours lie does not matter */
    memset(raw.cap + 4, 0, 8);
    expect_ok(import_all(rig.dev, &raw, 8));
    expect_eq(cap_read16(rig.dev, 0), 0x11 | CAP_NEXT << 8);
    expect_eq(cap_read32(rig.dev, PCI_MSIX_TABLE), TABLE_OFFSET | TABLE_BAR);
}

static void an_import_takes_a_half_written_message_for_whole(enum host host)
{
    RIG(rig, host, MSIX);
    struct raw raw;
    guest_opens(rig.dev, VECTORS, 1, BASE);
    expect_ok(table_write32(rig.dev, entry_low(0), (uint32_t)to_apic(0)));
    expect_ok(export_all(rig.dev, &raw, 8));        /* shows the registers, not what is in force */
    expect_delivers(&rig, 0, 1, BASE);
    expect_ok(import_all(rig.dev, &raw, 8));
    expect_delivers(&rig, 0, 0, BASE);
}

static void plain_devices_have_nothing_to_export(enum host host)
{
    RIG(rig, host);
    uint8_t bytes[16];
    expect_ok(msi_device_export(rig.dev, NULL, 0, NULL, 0, NULL, 0));
    expect_ok(msi_device_import(rig.dev, NULL, 0, NULL, 0, NULL, 0));
    expect_eq(msi_device_export(rig.dev, bytes, 12, NULL, 0, NULL, 0), -EINVAL);
    expect_eq(msi_device_import(rig.dev, NULL, 0, bytes, 16, NULL, 0), -EINVAL);
    expect_eq(msi_device_import(rig.dev, NULL, 0, NULL, 0, bytes, 8), -EINVAL);
}

static void a_closed_device_is_neither_saved_nor_loaded(enum host host)
{
    RIG(rig, host, MSIX);
    struct raw raw;
    struct saved state = saved(rig.dev);
    expect_ok(export_all(rig.dev, &raw, 8));
    expect_ok(msi_device_close(rig.dev));
    expect_eq(msi_device_save(rig.dev, state.bytes, state.size), -ENODEV);
    expect_eq(msi_device_load(rig.dev, state.bytes, state.size), -ENODEV);
    expect_eq(export_all(rig.dev, &raw, 8), -ENODEV);
    expect_eq(import_all(rig.dev, &raw, 8), -ENODEV);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, MSIX_registers_export_as_the_guest_reads_them_and_import_elsewhere),
        TEST(EVERYWHERE, MSI_registers_export_and_import_with_their_pending_bits),
        TEST(EVERYWHERE, what_is_left_out_of_an_import_stays),
        TEST(ON_FAKE, an_interrupt_raised_during_an_import_without_pending_bits_is_not_lost),
        TEST(ON_FAKE, lengths_that_do_not_fit_are_refused),
        TEST(ON_FAKE, registers_of_another_capability_are_refused_and_change_nothing),
        TEST(EVERYWHERE, an_import_takes_a_half_written_message_for_whole),
        TEST(ON_FAKE, plain_devices_have_nothing_to_export),
        TEST(ON_FAKE, a_closed_device_is_neither_saved_nor_loaded),
    };
    return TAP_MAIN(tests);
}
