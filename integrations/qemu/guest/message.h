/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Messages of interrupts: plain, or through the IOMMU's remapping table once that is on. */
#ifndef MESSAGE_H
#define MESSAGE_H
#include <stdint.h>

struct message { uint32_t address, data; };

/* Whoever sends it; each source of interrupts has its own number, below 4096. */
enum { SOURCE_EDU, SOURCE_BLK = 8, SOURCE_VHOST_BLK = 16, SOURCE_RNG = 24, SOURCE_IVSHMEM = 32 };

/* The message by which this source interrupts that CPU with that x86 vector. */
struct message message_to(unsigned source, unsigned cpu, uint8_t vector);

#endif
