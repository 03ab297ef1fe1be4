/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "pci.h"
#include "panic.h"

#define PCI_CONFIG_ADDRESS 0xcf8

void pci_select(const struct pci_device *device, unsigned offset)
{
    outl(PCI_CONFIG_ADDRESS, 0x80000000u | device->slot << 11 | (offset & 0xfc));
}

uint32_t pci_read(const struct pci_device *device, unsigned offset)
{
    pci_select(device, offset);
    return inl(PCI_CONFIG_DATA) >> offset % 4 * 8;
}

void pci_write(const struct pci_device *device, unsigned offset, uint32_t value)
{
    pci_select(device, offset);
    outl(PCI_CONFIG_DATA, value);
}

unsigned pci_find_capability(const struct pci_device *device, unsigned id, unsigned from)
{
    unsigned at = from ? from + PCI_CAP_LIST_NEXT : PCI_CAPABILITY_LIST;

    for (;;) {
        at = pci_read(device, at) & 0xfc;
        if (!at || (pci_read(device, at) & 0xff) == id)
            return at;
        at += PCI_CAP_LIST_NEXT;
    }
}

static void read_bars(struct pci_device *device)
{
    for (unsigned i = 0; i < 6; i++) {
        uint32_t bar = pci_read(device, PCI_BASE_ADDRESS_0 + 4 * i);

        device->bars[i] = bar & PCI_BASE_ADDRESS_SPACE_IO ? 0 : bar & ~0xfu;
        if (!(bar & PCI_BASE_ADDRESS_SPACE_IO) && bar & PCI_BASE_ADDRESS_MEM_TYPE_64) {
            i++;
            if (pci_read(device, PCI_BASE_ADDRESS_0 + 4 * i))
                panic("a BAR above 4 GiB", device->slot);
        }
    }
}

bool pci_open(struct pci_device *device, unsigned slot, uint16_t vendor, uint16_t id)
{
    device->slot = slot;
    if (pci_read(device, PCI_VENDOR_ID) != ((uint32_t)id << 16 | vendor))
        return false;
    read_bars(device);
    pci_write(device, PCI_COMMAND, (pci_read(device, PCI_COMMAND) & 0xffff) | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    return true;
}
