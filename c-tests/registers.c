/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "message.h"
#include "registers.h"
#include "tap.h"

void put_registers(struct msi_device_config *config)
{
    if (config->kind != MSIROUTE_KIND_MSIX && config->kind != MSIROUTE_KIND_MSI)
        return;
    config->cap_offset = CAP;
    config->cap_next = CAP_NEXT;
    if (config->kind == MSIROUTE_KIND_MSIX) {
        config->table_bar = TABLE_BAR;
        config->table_offset = TABLE_OFFSET;
        config->pba_bar = PBA_BAR;
        config->pba_offset = PBA_OFFSET;
    }
}

/* ---- MSI-X ---- */

int table_write32(struct msi_device *dev, uint64_t offset, uint32_t value)
{
    return msi_device_table_write(dev, offset, &value, sizeof(value));
}

int table_write64(struct msi_device *dev, uint64_t offset, uint64_t value)
{
    return msi_device_table_write(dev, offset, &value, sizeof(value));
}

uint32_t table_read32(struct msi_device *dev, uint64_t offset)
{
    uint32_t value = 0;
    expect_ok(msi_device_table_read(dev, offset, &value, sizeof(value)));
    return value;
}

uint64_t table_read64(struct msi_device *dev, uint64_t offset)
{
    uint64_t value = 0;
    expect_ok(msi_device_table_read(dev, offset, &value, sizeof(value)));
    return value;
}

uint64_t pba_read64(struct msi_device *dev, uint64_t offset)
{
    uint64_t value = 0;
    expect_ok(msi_device_pba_read(dev, offset, &value, sizeof(value)));
    return value;
}

bool pba_bit(struct msi_device *dev, uint32_t index)
{
    return pba_read64(dev, index / 64 * 8) >> index % 64 & 1;
}

void registers_expect_entry(const char *file, int line, struct msi_device *dev, uint32_t index,
                            uint64_t address, uint32_t data, uint32_t control)
{
    tap_expect_eq(file, line, "address low", table_read32(dev, entry_low(index)), (uint32_t)address);
    tap_expect_eq(file, line, "address high", table_read32(dev, entry_high(index)), (uint32_t)(address >> 32));
    tap_expect_eq(file, line, "data", table_read32(dev, entry_data(index)), data);
    tap_expect_eq(file, line, "vector control", table_read32(dev, entry_control(index)), control);
}

int guest_sets(struct msi_device *dev, uint32_t index, uint64_t address, uint32_t data)
{
    int low = table_write32(dev, entry_low(index), (uint32_t)address);
    int high = table_write32(dev, entry_high(index), (uint32_t)(address >> 32));
    int all = table_write32(dev, entry_data(index), data);
    return low ? low : high ? high : all;
}

int guest_masks(struct msi_device *dev, uint32_t index)
{
    return table_write32(dev, entry_control(index), PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

int guest_unmasks(struct msi_device *dev, uint32_t index)
{
    return table_write32(dev, entry_control(index), 0);
}

int guest_controls(struct msi_device *dev, uint16_t control)
{
    return cap_write16(dev, PCI_MSIX_FLAGS, control);
}

void guest_opens(struct msi_device *dev, uint32_t vectors, unsigned cpu, unsigned vector)
{
    expect_ok(guest_controls(dev, ENABLE_MSIX | MASK_ALL));
    for (uint32_t v = 0; v < vectors; v++) {
        expect_ok(guest_sets(dev, v, TO(cpu, vector + v)));
        expect_ok(guest_unmasks(dev, v));
    }
    expect_ok(guest_controls(dev, ENABLE_MSIX));
}

/* ---- the capability ---- */

int cap_write(struct msi_device *dev, unsigned at, const void *data, size_t len)
{
    int result = msi_device_config_write(dev, CAP + at, data, len);
    return result == 1 ? 0 : result == 0 ? -ENXIO : result;
}

int cap_write8(struct msi_device *dev, unsigned at, uint8_t value)   { return cap_write(dev, at, &value, sizeof(value)); }
int cap_write16(struct msi_device *dev, unsigned at, uint16_t value) { return cap_write(dev, at, &value, sizeof(value)); }
int cap_write32(struct msi_device *dev, unsigned at, uint32_t value) { return cap_write(dev, at, &value, sizeof(value)); }

uint16_t cap_read16(struct msi_device *dev, unsigned at)
{
    uint16_t value = 0;
    expect_eq(msi_device_config_read(dev, CAP + at, &value, sizeof(value)), 1);
    return value;
}

uint32_t cap_read32(struct msi_device *dev, unsigned at)
{
    uint32_t value = 0;
    expect_eq(msi_device_config_read(dev, CAP + at, &value, sizeof(value)), 1);
    return value;
}

void cap_read(struct msi_device *dev, uint8_t *bytes)
{
    expect_eq(msi_device_config_read(dev, CAP, bytes, msi_device_capability_size(dev)), 1);
}

int msi_guest_sets(struct msi_device *dev, uint32_t flags, uint64_t address, uint16_t data)
{
    int low = cap_write32(dev, PCI_MSI_ADDRESS_LO, (uint32_t)address);
    int high = msi_is_wide(flags) ? cap_write32(dev, PCI_MSI_ADDRESS_HI, (uint32_t)(address >> 32)) : 0;
    int all = cap_write16(dev, msi_data_at(flags), data);
    return low ? low : high ? high : all;
}

/* ---- any of them ---- */

enum { AROUND = 8, LONGEST_ACCESS = 40 };

static void write_shadow(struct shadow *shadow, int at, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        int to = at + (int)i;
        if (to >= 0 && (size_t)to < shadow->size)
            shadow->bytes[to] = (shadow->bytes[to] & ~shadow->writable[to]) | (data[i] & shadow->writable[to]);
    }
    if (shadow->settle)
        shadow->settle(shadow);
}

static bool meets(const struct shadow *shadow, int at, size_t len)
{
    return at < (int)shadow->size && at + (int)len > 0 && len;
}

/* Whole, and as this access reads it. */
static bool reads_as(struct msi_device *dev, const struct shadow *shadow, int at, size_t len)
{
    uint8_t whole[24], got[LONGEST_ACCESS + 1], want[LONGEST_ACCESS + 1];
    memset(got, 0x5A, sizeof(got));
    memset(want, 0x5A, sizeof(want));
    for (size_t i = 0; i < len; i++)
        if (at + (int)i >= 0 && (size_t)(at + (int)i) < shadow->size)
            want[i] = shadow->bytes[at + (int)i];
    bool good = expect_eq(msi_device_config_read(dev, (uint32_t)((int)CAP + at), got, len), meets(shadow, at, len));
    cap_read(dev, whole);
    return expect(!memcmp(got, want, sizeof(got))) && expect(!memcmp(whole, shadow->bytes, shadow->size)) && good;
}

void every_config_access_is_right(struct msi_device *dev, struct shadow *shadow)
{
    uint8_t data[LONGEST_ACCESS];
    uint32_t noise = 1;
    expect_eq(msi_device_capability_size(dev), shadow->size);
    for (unsigned pattern = 0; pattern < 4; pattern++) {
        for (int at = -AROUND; at < (int)shadow->size + AROUND; at++) {
            for (size_t len = 0; len <= LONGEST_ACCESS; len++) {
                for (size_t i = 0; i < len; i++)
                    data[i] = pattern < 2 ? (uint8_t)-pattern : (uint8_t)((noise = noise * 1664525 + 1013904223) >> 24);
                tap_context("pattern %u, %zu bytes at %d of the capability", pattern, len, at);
                bool met = expect_eq(msi_device_config_write(dev, (uint32_t)((int)CAP + at), data, len), meets(shadow, at, len));
                write_shadow(shadow, at, data, len);
                if (!reads_as(dev, shadow, at, len) || !met)
                    return;
            }
        }
    }
    tap_context("%s", "");
}
