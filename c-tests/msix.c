/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* MSI-X registers as a guest sees them: capability, table and pending bit array, by accesses of any place and width. What
 * messages follow from them is in msix_messages.c. */
#include <errno.h>
#include <stdlib.h>

#include "rig.h"

#define ENTRY PCI_MSIX_ENTRY_SIZE

static const size_t sizes[] = { 0, 1, 2, 3, 4, 5, 8, 16 };
#define FOR_EACH_SIZE(size) for (const size_t *size = sizes; size < sizes + sizeof(sizes) / sizeof(sizes[0]); size++)

/* ---- the capability ---- */

static struct shadow msix_shadow(uint32_t vectors)
{
    uint16_t control = (uint16_t)(vectors - 1);
    uint32_t table = TABLE_OFFSET | TABLE_BAR, pba = PBA_OFFSET | PBA_BAR;
    struct shadow shadow = { .size = PCI_CAP_MSIX_SIZEOF, .bytes = { 0x11, CAP_NEXT }, .writable = { [3] = 0xC0 } };
    memcpy(shadow.bytes + PCI_MSIX_FLAGS, &control, 2);
    memcpy(shadow.bytes + PCI_MSIX_TABLE, &table, 4);
    memcpy(shadow.bytes + PCI_MSIX_PBA, &pba, 4);
    return shadow;
}

static void the_capability_says_what_the_device_is_and_takes_writes_of_any_width(enum host host)
{
    static const uint32_t counts[] = { 1, 2, 64, 2048 };
    RIG(rig, host);
    for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        struct msi_device *dev = rig_device(&rig, MSIROUTE_KIND_MSIX, counts[i]);
        struct shadow shadow = msix_shadow(counts[i]);
        uint8_t bytes[PCI_CAP_MSIX_SIZEOF];
        cap_read(dev, bytes);
        expect(!memcmp(bytes, shadow.bytes, sizeof(bytes)));
        every_config_access_is_right(dev, &shadow);
        uint32_t control = shadow.bytes[3], state = msi_device_state(dev);
        expect_eq(!!(state & MSIROUTE_ENABLED), control >> 7);
        expect_eq(!!(state & MSIROUTE_FUNCTION_MASKED), control >> 6 & 1);
    }
}

static void a_capability_lies_anywhere_between_0x40_and_0xff(enum host host)
{
    static const uint32_t places[] = { 0x40, 0x9C, 0xF4 };
    RIG(rig, host);
    for (unsigned i = 0; i < 3; i++) {
        struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
        uint8_t space[256], around[256];
        config.kind = MSIROUTE_KIND_MSIX;
        config.vectors = 2048;
        config.cap_offset = places[i];
        config.table_bar = config.pba_bar = 5;
        config.table_offset = 0xFFFF0000;
        config.pba_offset = 0xFFFF8000;     /* right behind it */
        struct msi_device *dev = rig_device_of(&rig, &config);
        memset(space, 0x5A, sizeof(space));
        memset(around, 0x5A, sizeof(around));
        expect_eq(msi_device_config_read(dev, 0, space, sizeof(space)), 1);
        const uint8_t want[] = { 0x11, 0, 0xFF, 0x07, 5, 0, 0xFF, 0xFF, 5, 0x80, 0xFF, 0xFF };
        expect(!memcmp(space + places[i], want, sizeof(want)));
        memcpy(around + places[i], want, sizeof(want));
        expect(!memcmp(space, around, sizeof(space)));
        memset(space, 0xFF, sizeof(space));
        expect_eq(msi_device_config_write(dev, 0, space, sizeof(space)), 1);
        expect_eq(msi_device_state(dev), MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED | MSIROUTE_BUS_MASTER);
        uint32_t byte = 0;
        expect_eq(msi_device_config_read(dev, UINT32_MAX, &byte, 4), 0);
        expect_eq(msi_device_config_write(dev, UINT32_MAX, &byte, 4), 0);
        expect_eq(msi_device_config_write(dev, 0x100 + places[i], &byte, 4), 0);    /* no wrapping around */
        expect_eq(msi_device_state(dev) & MSIROUTE_ENABLED, MSIROUTE_ENABLED);
    }
}

static void without_cap_offset_config_space_is_not_the_librarys(enum host host)
{
    RIG(rig, host);
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    uint8_t space[256], before[256];
    config.kind = MSIROUTE_KIND_MSIX;
    config.vectors = 2;
    struct msi_device *dev = rig_device_of(&rig, &config);
    memset(space, 0xFF, sizeof(space));
    memcpy(before, space, sizeof(space));
    expect_eq(msi_device_config_read(dev, 0, space, sizeof(space)), 0);
    expect_eq(msi_device_config_write(dev, 0, space, sizeof(space)), 0);
    expect(!memcmp(space, before, sizeof(space)));
    expect_eq(msi_device_state(dev), MSIROUTE_BUS_MASTER);
    expect_eq(msi_device_capability_size(dev), PCI_CAP_MSIX_SIZEOF);    /* for export, all the same */
    expect_eq(table_read32(dev, entry_control(1)), 1);
    expect_eq(msi_device_config_read(rig.dev, CAP, space, 4), 0);       /* nor of a plain device */
    expect_eq(msi_device_config_write(rig.dev, CAP, space, 4), 0);
    expect_eq(msi_device_capability_size(rig.dev), 0);
}

/* ---- the table as memory ---- */

struct memory {
    uint8_t bytes[130 * ENTRY];
    size_t size;
};

static struct memory fresh_table(uint32_t vectors)
{
    struct memory memory = { .size = vectors * ENTRY };
    for (uint32_t v = 0; v < vectors; v++)
        memory.bytes[entry_control(v)] = 1;
    return memory;
}

/* As the guest reads it in dwords. */
static bool table_is(struct msi_device *dev, const struct memory *memory)
{
    for (uint64_t offset = 0; offset < memory->size; offset += 4) {
        uint32_t want;
        memcpy(&want, memory->bytes + offset, 4);
        if (!expect_eq(table_read32(dev, offset), want))
            return false;
    }
    return true;
}

#define CANARY 0x5A
/* What it gives, and nothing behind it. */
static bool read_is_right(struct msi_device *dev, int (*read)(struct msi_device *, uint64_t, void *, size_t),
                          const struct memory *memory, uint64_t offset, size_t len)
{
    uint8_t got[64], want[64];
    memset(got, CANARY, sizeof(got));
    memset(want, CANARY, sizeof(want));
    if (is_defined(offset, len, memory->size))
        memcpy(want, memory->bytes + offset, len);
    else
        memset(want, 0xFF, len);
    return expect_ok(read(dev, offset, got, len)) && expect(!memcmp(got, want, sizeof(got)));
}

static void write_memory(struct memory *memory, uint64_t offset, const uint8_t *data, size_t len)
{
    if (is_defined(offset, len, memory->size))
        memcpy(memory->bytes + offset, data, len);
}

/* All offsets up to past the end, and the highest there are. */
static uint64_t nth_offset(uint64_t n, size_t size)
{
    return n < size + 40 ? n : UINT64_MAX - (n - size - 40);
}
#define OFFSETS(size) ((size) + 40 + 40)

static void table_accesses_of_any_offset_and_size(struct msi_device *dev, uint32_t vectors)
{
    struct memory memory = fresh_table(vectors);
    uint8_t data[16], noise = 0;
    for (uint64_t n = 0; n < OFFSETS(memory.size); n++) {
        FOR_EACH_SIZE(size) {
            uint64_t offset = nth_offset(n, memory.size);
            for (size_t i = 0; i < *size; i++)
                data[i] = noise += 0x35;
            tap_context("%u vectors, %zu bytes at %#llx", vectors, *size, (unsigned long long)offset);
            expect_ok(msi_device_table_write(dev, offset, data, *size));
            write_memory(&memory, offset, data, *size);
            if (!table_is(dev, &memory) || !read_is_right(dev, msi_device_table_read, &memory, offset, *size))
                return;
        }
    }
    for (uint32_t v = 0; v < vectors; v++)
        expect_eq(!!(info_of(dev, v).flags & MSIROUTE_VECTOR_MASKED), memory.bytes[entry_control(v)] & 1);
    tap_context("%s", "");
}

static void the_table_keeps_what_aligned_dwords_and_qwords_write_and_nothing_else(enum host host)
{
    RIG(rig, host);
    for (uint32_t vectors = 1; vectors <= 5; vectors++) {
        struct msi_device *dev = rig_device(&rig, MSIROUTE_KIND_MSIX, vectors);
        if (vectors % 2)
            expect_ok(guest_controls(dev, ENABLE_MSIX));    /* what is written is no message, then */
        table_accesses_of_any_offset_and_size(dev, vectors);
    }
    expect_quiet(&rig);
}

static void accesses_longer_than_the_table_read_ones_and_write_nothing(enum host host)
{
    static uint8_t data[4096], ones[4096];
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    struct memory memory = fresh_table(4);
    memset(ones, 0xFF, sizeof(ones));
    for (size_t len = 9; len <= sizeof(data); len += len < 80 ? 1 : 1004) {
        for (uint64_t offset = 0; offset < 72; offset++) {
            tap_context("%zu bytes at %llu", len, (unsigned long long)offset);
            memset(data, 0, sizeof(data));
            expect_ok(msi_device_table_write(rig.dev, offset, data, len));
            expect_ok(msi_device_pba_write(rig.dev, offset, data, len));
            expect_ok(msi_device_table_read(rig.dev, offset, data, len));
            expect(!memcmp(data, ones, len) && (len == sizeof(data) || !data[len]));
            memset(data, 0, sizeof(data));
            expect_ok(msi_device_pba_read(rig.dev, offset, data, len));
            expect(!memcmp(data, ones, len) && (len == sizeof(data) || !data[len]));
        }
    }
    table_is(rig.dev, &memory);
}

static void the_last_of_2048_entries_ends_the_table(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = 2048);
    struct msi_device *dev = rig.dev;
    expect_ok(table_write64(dev, entry_low(2047), 0x1122334455667788));
    expect_ok(table_write64(dev, entry_data(2047), 0x8899AABBCCDDEEFE));
    expect_eq(table_read32(dev, entry_low(2047)), 0x55667788);
    expect_eq(table_read32(dev, entry_high(2047)), 0x11223344);
    expect_eq(table_read32(dev, entry_data(2047)), 0xCCDDEEFE);
    expect_eq(table_read32(dev, entry_control(2047)), 0x8899AABB);
    expect_eq(table_read32(dev, entry_low(2048)), UINT32_MAX);
    expect_eq((long long)table_read64(dev, entry_control(2047)), -1);       /* not aligned */
    expect_entry(dev, 2046, 0, 0, 1);
    expect_eq((long long)pba_read64(dev, 256), -1);
    expect_eq(pba_read64(dev, 248), 0);
}

static void reserved_bits_of_vector_control_read_back_and_mask_nothing(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    guest_opens(rig.dev, 2, 1, 0x41);
    for (unsigned bit = 1; bit < 32; bit++) {
        tap_context("bit %u", bit);
        expect_ok(table_write32(rig.dev, entry_control(0), 1u << bit));
        expect_entry(rig.dev, 0, TO(1, 0x41), 1u << bit);
        expect_delivers(&rig, 0, 1, 0x41);
        expect_ok(table_write32(rig.dev, entry_control(0), 1u << bit | 1));
        expect_entry(rig.dev, 0, TO(1, 0x41), 1u << bit | 1);
        expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
        expect_eq(msi_vector_clear_pending(rig.dev, 0), 1);
    }
    expect_ok(msi_vector_unmask(rig.dev, 0));      /* the VMM changes the mask bit alone */
    expect_entry(rig.dev, 0, TO(1, 0x41), 1u << 31);
    expect_ok(msi_vector_mask(rig.dev, 0));
    expect_entry(rig.dev, 0, TO(1, 0x41), 1u << 31 | 1);
    expect_entry(rig.dev, 1, TO(1, 0x42), 0);
}

static void what_the_VMM_sets_stands_in_the_table(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    expect_ok(msi_vector_set(rig.dev, 2, to_apic(1), 0x99));
    expect_entry(rig.dev, 2, to_apic(1), 0x99, 1);
    expect_ok(msi_vector_unmask(rig.dev, 2));
    expect_entry(rig.dev, 2, to_apic(1), 0x99, 0);
    expect_ok(msi_device_set_control(rig.dev, MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED));
    expect_eq(cap_read16(rig.dev, PCI_MSIX_FLAGS), ENABLE_MSIX | MASK_ALL | 3);
    expect_ok(guest_controls(rig.dev, ENABLE_MSIX));
    expect_delivers(&rig, 2, 1, 0x99);
}

/* ---- the pending bit array ---- */

static void the_PBA_has_a_bit_a_vector_in_64_bit_words_and_cannot_be_written(enum host host)
{
    static const uint32_t counts[] = { 1, 63, 64, 65, 130 };
    uint8_t data[16];
    RIG(rig, host);
    for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        struct msi_device *dev = rig_device(&rig, MSIROUTE_KIND_MSIX, counts[i]);
        struct memory memory = { .size = (counts[i] + 63) / 64 * 8 };
        expect_ok(msi_device_set_control(dev, MSIROUTE_ENABLED));
        for (uint32_t v = 0; v < counts[i]; v += v % 7 ? 2 : 3) {
            expect_eq(msi_deliver(dev, v), MSIROUTE_PENDING);
            memory.bytes[v / 8] |= (uint8_t)(1 << v % 8);
        }
        for (uint64_t n = 0; n < OFFSETS(memory.size); n++) {
            FOR_EACH_SIZE(size) {
                uint64_t offset = nth_offset(n, memory.size);
                tap_context("%u vectors, %zu bytes at %#llx", counts[i], *size, (unsigned long long)offset);
                memset(data, n % 2 ? 0xFF : 0, sizeof(data));
                expect_ok(msi_device_pba_write(dev, offset, data, *size));
                read_is_right(dev, msi_device_pba_read, &memory, offset, *size);
                for (uint64_t word = 0; word < memory.size; word += 8)
                    read_is_right(dev, msi_device_pba_read, &memory, word, 8);
            }
        }
        tap_context("%s", "");
        for (uint32_t v = 0; v < counts[i]; v++)
            expect_eq(msi_vector_is_pending(dev, v), memory.bytes[v / 8] >> v % 8 & 1);
    }
}

/* ---- ends ---- */

static void a_reset_makes_the_registers_those_of_a_new_device(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = 5);
    struct memory memory = fresh_table(5);
    guest_opens(rig.dev, 5, 1, 0x41);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(table_write32(rig.dev, entry_low(1), 0xFEE00000));            /* half a message */
    expect_ok(table_write32(rig.dev, entry_control(2), UINT32_MAX));
    expect_eq(msi_deliver(rig.dev, 2), MSIROUTE_PENDING);
    expect_ok(guest_controls(rig.dev, ENABLE_MSIX | MASK_ALL));
    fires(&rig, fd);
    expect_eq(pba_read64(rig.dev, 0), 5);
    expect_ok(msi_device_reset(rig.dev));
    table_is(rig.dev, &memory);
    expect_eq(cap_read16(rig.dev, PCI_MSIX_FLAGS), 4);
    expect_eq(pba_read64(rig.dev, 0), 0);
    expect_ok(table_write32(rig.dev, entry_data(1), 0x42));
    guest_opens(rig.dev, 5, 1, 0x51);
    expect_quiet(&rig);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x51);
}

static void a_reset_device_is_saved_as_a_new_one_is(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    uint8_t fresh[256], after[256];
    size_t size = msi_device_save_size(rig.dev);
    expect(size <= sizeof(fresh));
    expect_ok(msi_device_save(rig.dev, fresh, size));
    guest_opens(rig.dev, 4, 1, 0x41);
    expect_ok(msi_device_reset(rig.dev));
    expect_ok(msi_device_save(rig.dev, after, size));
    expect(!memcmp(fresh, after, size));
}

/* Each access, on a device of any state. */
static int access(struct msi_device *dev, unsigned which, uint32_t *value)
{
    switch (which) {
    case 0: return msi_device_table_read(dev, 0, value, 4);
    case 1: return msi_device_pba_read(dev, 0, value, 4);
    case 2: return msi_device_table_write(dev, 0, value, 4);
    case 3: return msi_device_pba_write(dev, 0, value, 4);
    case 4: return msi_device_config_read(dev, CAP, value, 4);
    default: return msi_device_config_write(dev, CAP, value, 4);
    }
}
enum { TABLE_AND_PBA = 4, ACCESSES = 6 };

static void a_closed_device_reads_ones(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    guest_opens(rig.dev, 1, 1, 0x41);
    expect_ok(msi_device_close(rig.dev));
    for (unsigned i = 0; i < ACCESSES; i++) {
        uint32_t value = 0;
        tap_context("access %u", i);
        expect_eq(access(rig.dev, i, &value), -ENODEV);
        expect_eq(value, i < 2 ? UINT32_MAX : 0);
    }
}

static void a_device_whose_cache_is_gone_reads_ones(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    msi_route_cache_free(rig_take_cache(&rig));
    for (unsigned i = 0; i < ACCESSES; i++) {
        uint32_t value = 0;
        tap_context("access %u", i);
        expect_eq(access(rig.dev, i, &value), -ESHUTDOWN);
        expect_eq(value, i < 2 ? UINT32_MAX : 0);
    }
}

static void what_is_no_device_reads_ones(enum host host)
{
    (void)host;
    for (unsigned i = 0; i < ACCESSES; i++) {
        uint32_t value = 0;
        tap_context("access %u", i);
        expect_eq(access(NULL, i, &value), -EINVAL);
        expect_eq(value, i < 2 ? UINT32_MAX : 0);
    }
}

static void other_kinds_have_no_table(enum host host)
{
    static const uint32_t kinds[] = { MSIROUTE_KIND_PLAIN, MSIROUTE_KIND_MSI };
    RIG(rig, host);
    for (unsigned k = 0; k < 2; k++) {
        struct msi_device *dev = rig_device(&rig, kinds[k], 4);
        for (unsigned i = 0; i < TABLE_AND_PBA; i++) {
            uint32_t value = 0;
            tap_context("kind %u, access %u", kinds[k], i);
            expect_eq(access(dev, i, &value), -EINVAL);
            expect_eq(value, i < 2 ? UINT32_MAX : 0);
        }
    }
}

/* ---- from inside ---- */

static struct msi_device *reentered;
static int reads_its_registers(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    (void)opaque, (void)requester, (void)address, (void)data;
    for (unsigned i = 0; i < ACCESSES; i++) {
        uint32_t value = 0;
        tap_context("access %u", i);
        expect_eq(access(reentered, i, &value), -EDEADLK);
        expect_eq(value, i < 2 ? UINT32_MAX : 0);
    }
    return 1;
}

static void from_inside_a_callback_they_are_refused_and_read_ones(enum host host)
{
    struct msi_route_cache_ops ops = fake_ops(true);
    ops.signal = reads_its_registers;
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .ops = &ops);
    guest_opens(rig.dev, 1, 1, 0x41);
    reentered = rig.dev;
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_SENT);
    expect_entry(rig.dev, 0, TO(1, 0x41), 0);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_KVM | ON_FAKE, the_capability_says_what_the_device_is_and_takes_writes_of_any_width),
        TEST(ON_FAKE, a_capability_lies_anywhere_between_0x40_and_0xff),
        TEST(ON_FAKE, without_cap_offset_config_space_is_not_the_librarys),
        TEST(ON_KVM | ON_FAKE, the_table_keeps_what_aligned_dwords_and_qwords_write_and_nothing_else),
        TEST(ON_FAKE, accesses_longer_than_the_table_read_ones_and_write_nothing),
        TEST(ON_FAKE, the_last_of_2048_entries_ends_the_table),
        TEST(EVERYWHERE, reserved_bits_of_vector_control_read_back_and_mask_nothing),
        TEST(EVERYWHERE, what_the_VMM_sets_stands_in_the_table),
        TEST(EVERYWHERE, the_PBA_has_a_bit_a_vector_in_64_bit_words_and_cannot_be_written),
        TEST(EVERYWHERE, a_reset_makes_the_registers_those_of_a_new_device),
        TEST(EVERYWHERE, a_reset_device_is_saved_as_a_new_one_is),
        TEST(EVERYWHERE, a_closed_device_reads_ones),
        TEST(EVERYWHERE, a_device_whose_cache_is_gone_reads_ones),
        TEST(ANYWHERE, what_is_no_device_reads_ones),
        TEST(EVERYWHERE, other_kinds_have_no_table),
        TEST(ON_FAKE, from_inside_a_callback_they_are_refused_and_read_ones),
    };
    return TAP_MAIN(tests);
}
