/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Intel's VT-d: interrupt remapping alone. */
#ifndef IOMMU_H
#define IOMMU_H
#include <stdbool.h>
#include <stdint.h>

void iommu_start(void);
bool iommu_is_on(void);
/* The table's entry, and that the IOMMU forgets what it knew of it. */
void iommu_set(unsigned handle, unsigned cpu, uint8_t vector);

#endif
