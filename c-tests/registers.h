/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a guest does to the registers of a device, forwarded as a VMM does it. */
#ifndef TEST_REGISTERS_H
#define TEST_REGISTERS_H
#include <linux/pci_regs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "msiroute.h"

/* Where the rig's MSI and MSI-X devices have them. */
#define CAP          0x70u
#define CAP_NEXT     0xB0u
#define TABLE_BAR    2u
#define TABLE_OFFSET 0x1000u
#define PBA_BAR      4u
#define PBA_OFFSET   0x800u
void put_registers(struct msi_device_config *config);    /* into what `kind` says */

/* One after the other: a guest sees no errors, and goes on. The first error. */
#define BOTH(first, second) ({ int first_ = (first), second_ = (second); first_ ? first_ : second_; })

/* ---- MSI-X ---- */

/* Where the fields of an entry are. */
static inline uint64_t entry_low(uint32_t index)     { return (uint64_t)index * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_LOWER_ADDR; }
static inline uint64_t entry_high(uint32_t index)    { return (uint64_t)index * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_UPPER_ADDR; }
static inline uint64_t entry_data(uint32_t index)    { return (uint64_t)index * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_DATA; }
static inline uint64_t entry_control(uint32_t index) { return (uint64_t)index * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL; }

int table_write32(struct msi_device *dev, uint64_t offset, uint32_t value);
int table_write64(struct msi_device *dev, uint64_t offset, uint64_t value);
uint32_t table_read32(struct msi_device *dev, uint64_t offset);
uint64_t table_read64(struct msi_device *dev, uint64_t offset);
uint64_t pba_read64(struct msi_device *dev, uint64_t offset);
bool pba_bit(struct msi_device *dev, uint32_t index);

/* The entry reads as this: address, data, vector control. */
#define expect_entry(dev, index, ...) registers_expect_entry(__FILE__, __LINE__, dev, index, __VA_ARGS__)
void registers_expect_entry(const char *file, int line, struct msi_device *dev, uint32_t index,
                            uint64_t address, uint32_t data, uint32_t control);

/* As Linux does it: low, high, data. */
int guest_sets(struct msi_device *dev, uint32_t index, uint64_t address, uint32_t data);
int guest_masks(struct msi_device *dev, uint32_t index);
int guest_unmasks(struct msi_device *dev, uint32_t index);
/* Message Control: PCI_MSIX_FLAGS_... */
int guest_controls(struct msi_device *dev, uint16_t control);
#define ENABLE_MSIX  PCI_MSIX_FLAGS_ENABLE
#define MASK_ALL     PCI_MSIX_FLAGS_MASKALL
/* The vectors from 0 on are enabled, unmasked, and have the messages from TO(cpu, vector) on. */
void guest_opens(struct msi_device *dev, uint32_t vectors, unsigned cpu, unsigned vector);

/* ---- the capability ---- */

/* 0 if the access met the capability, as it should. `at` counts from its start. */
int cap_write(struct msi_device *dev, unsigned at, const void *data, size_t len);
int cap_write8(struct msi_device *dev, unsigned at, uint8_t value);
int cap_write16(struct msi_device *dev, unsigned at, uint16_t value);
int cap_write32(struct msi_device *dev, unsigned at, uint32_t value);
uint16_t cap_read16(struct msi_device *dev, unsigned at);
uint32_t cap_read32(struct msi_device *dev, unsigned at);
void cap_read(struct msi_device *dev, uint8_t *bytes);     /* all of it */

/* ---- MSI: the fields, by the device's flags ---- */

#define MSI_FORMS 4
#define MSI_FORM(i) ((uint32_t)(i) & (MSIROUTE_DEVICE_MSI_64 | MSIROUTE_DEVICE_MSI_MASK))
static inline bool msi_is_wide(uint32_t flags)      { return flags & MSIROUTE_DEVICE_MSI_64; }
static inline bool msi_has_mask(uint32_t flags)     { return flags & MSIROUTE_DEVICE_MSI_MASK; }
static inline unsigned msi_data_at(uint32_t flags)  { return msi_is_wide(flags) ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32; }
static inline unsigned msi_mask_at(uint32_t flags)  { return msi_data_at(flags) + 4; }
static inline unsigned msi_pending_at(uint32_t flags) { return msi_mask_at(flags) + 4; }
static inline unsigned msi_size(uint32_t flags)
{
    return msi_has_mask(flags) ? msi_pending_at(flags) + 4 : msi_data_at(flags) + 2;
}
/* Message Control with 2^log messages enabled; the read-only bits are 0. */
static inline uint16_t msi_on(unsigned log)         { return (uint16_t)(PCI_MSI_FLAGS_ENABLE | log << 4); }

int msi_guest_sets(struct msi_device *dev, uint32_t flags, uint64_t address, uint16_t data);

/* ---- any of them ---- */

/* What registers must read as, and which bits of them a guest can change. */
struct shadow {
    size_t size;
    uint8_t bytes[24], writable[24];
    void (*settle)(struct shadow *shadow);      /* after a write, what follows from the new bits; may be NULL */
};

/* Writes of every offset and length across the capability and beyond, of different patterns: it reads as it should, in
 * any width, and nothing outside of it is touched. */
void every_config_access_is_right(struct msi_device *dev, struct shadow *shadow);

/* Whether PCI defines an access to a table or PBA of this size. */
static inline bool is_defined(uint64_t offset, size_t len, size_t size)
{
    return (len == 4 || len == 8) && offset % len == 0 && offset < size && len <= size - offset;
}

#endif
