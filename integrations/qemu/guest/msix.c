/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "msix.h"
#include "iommu.h"

bool msix_open(struct msix *msix, const struct pci_device *device)
{
    uint32_t table, pending;

    msix->device = device;
    msix->capability = pci_find_capability(device, PCI_CAP_ID_MSIX, 0);
    if (!msix->capability)
        return false;
    msix->vectors = (pci_read(device, msix->capability + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_QSIZE) + 1;
    table = pci_read(device, msix->capability + PCI_MSIX_TABLE);
    pending = pci_read(device, msix->capability + PCI_MSIX_PBA);
    msix->table = device->bars[table & PCI_MSIX_TABLE_BIR] + (table & PCI_MSIX_TABLE_OFFSET);
    msix->pending = device->bars[pending & PCI_MSIX_PBA_BIR] + (pending & PCI_MSIX_PBA_OFFSET);
    return true;
}

void msix_enable(const struct msix *msix, bool enable, bool mask_all)
{
    uint32_t flags = (enable ? PCI_MSIX_FLAGS_ENABLE : 0u) | (mask_all ? PCI_MSIX_FLAGS_MASKALL : 0u);

    pci_write(msix->device, msix->capability, flags << 16); /* the low half is read-only */
}

static uint32_t entry(const struct msix *msix, unsigned vector) { return msix->table + vector * PCI_MSIX_ENTRY_SIZE; }

void msix_write(const struct msix *msix, unsigned vector, struct message message)
{
    write32(entry(msix, vector) + PCI_MSIX_ENTRY_LOWER_ADDR, message.address);
    write32(entry(msix, vector) + PCI_MSIX_ENTRY_UPPER_ADDR, 0);
    write32(entry(msix, vector) + PCI_MSIX_ENTRY_DATA, message.data);
}

void msix_mask(const struct msix *msix, unsigned vector, bool mask)
{
    write32(entry(msix, vector) + PCI_MSIX_ENTRY_VECTOR_CTRL, mask ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0);
}

bool msix_is_pending(const struct msix *msix, unsigned vector)
{
    return read32(msix->pending + vector / 32 * 4) >> vector % 32 & 1;
}

void msix_retarget(const struct msix *msix, unsigned vector, unsigned source, unsigned cpu, uint8_t x86_vector)
{
    struct message message;

    if (iommu_is_on()) {
        iommu_set(source, cpu, x86_vector);
        return;
    }
    message = message_to(source, cpu, x86_vector);
    msix_mask(msix, vector, true);
    msix_write(msix, vector, message);
    msix_mask(msix, vector, false);
    (void)read32(entry(msix, vector) + PCI_MSIX_ENTRY_VECTOR_CTRL);
}
