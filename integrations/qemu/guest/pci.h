/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* PCI functions of bus 0, one a slot, with BARs as the firmware set them. */
#ifndef PCI_H
#define PCI_H
#include "machine.h"
#include <linux/pci_regs.h>

struct pci_device {
    unsigned slot;
    uint32_t bars[6];
};

bool pci_open(struct pci_device *device, unsigned slot, uint16_t vendor, uint16_t id);
uint32_t pci_read(const struct pci_device *device, unsigned offset);
void pci_write(const struct pci_device *device, unsigned offset, uint32_t value);
/* The offset of the capability after `from`, or the first if that is 0; 0 if there is none. */
unsigned pci_find_capability(const struct pci_device *device, unsigned id, unsigned from);

#define PCI_CONFIG_DATA 0xcfc
/* The next access to PCI_CONFIG_DATA is to this register. */
void pci_select(const struct pci_device *device, unsigned offset);

#endif
