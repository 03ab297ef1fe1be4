/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* MSI-X as a driver sees it. */
#ifndef MSIX_H
#define MSIX_H
#include "iommu.h"
#include "message.h"
#include "pci.h"

struct msix {
    const struct pci_device *device;
    unsigned capability;
    unsigned vectors;
    uint32_t table, pending;
};

bool msix_open(struct msix *msix, const struct pci_device *device);
void msix_enable(const struct msix *msix, bool enable, bool mask_all);

#define MSIX_WRITE_ACCESSES (iommu_is_on() ? 4u : 3u)
void msix_write(const struct msix *msix, unsigned vector, struct message message);
void msix_mask(const struct msix *msix, unsigned vector, bool mask);
bool msix_is_pending(const struct msix *msix, unsigned vector);
/* As Linux does for a live vector: mask, write, unmask, read back; with remapping, the remapping table's entry alone. */
#define MSIX_RETARGET_ACCESSES (iommu_is_on() ? 1u : 6u)
void msix_retarget(const struct msix *msix, unsigned vector, unsigned source, unsigned cpu, uint8_t x86_vector);

#endif
