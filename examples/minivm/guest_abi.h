/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the machine looks like from both sides: physical memory, device registers and the page that guest and devices
 * share. Included by the VMM, by the guest's C and by its assembly.
 */
#ifndef GUEST_ABI_H
#define GUEST_ABI_H

#define NR_CPUS     2
#define NR_DEVICES  3
#define NR_VECTORS  2           /* of each device: vector v interrupts vCPU v */
#define MAX_QUEUES  4           /* of a device: queue q interrupts by vector q % NR_VECTORS */

/* Physical memory: 2 MiB of RAM, mapped one to one like the rest of the first GiB. */
#define RAM_SIZE       0x200000
#define PAGE_TABLES    0x001000 /* three pages, made by the VMM */
#define SHARED_PAGE    0x010000 /* struct guest_shared */
#define GUEST_IMAGE    0x100000 /* entered at its first byte, in long mode, with the CPU's number in RDI */

/* The guest's code and data segments, in the GDT it loads and in the registers the VMM starts it with. */
#define GUEST_CS 0x08
#define GUEST_DS 0x10

/* Device d's registers, all 32 bits wide. Those of interrupts are laid out as in MSI-X. */
#define DEVICE(d)      (0x10000000u + (d) * DEVICE_SIZE)
#define DEVICE_SIZE    0x1000u
#define REG_QUEUES     0x000            /* RO: how many queues the device has */
#define REG_CONTROL    0x004            /* Message Control */
#define   CONTROL_ENABLE     (1u << 15)
#define   CONTROL_MASK_ALL   (1u << 14)
#define REG_QUEUE(q)   (0x100 + 4 * (q)) /* the vector queue q interrupts by */
#define REG_DONE(q)    (0x200 + 4 * (q)) /* doorbell: the guest has caught up with queue q */
#define REG_PENDING    0x400            /* RO: pending bits, one a vector */
#define REG_TABLE      0x800            /* 16 bytes a vector: address low and high, data, control */
#define   TABLE_ENTRY_SIZE   16
#define   VECTOR_MASKED      (1u << 0)

/* Registers of the machine itself. */
#define BOARD          DEVICE(NR_DEVICES)
#define BOARD_READY    0x0              /* a CPU has set up its vectors and takes interrupts */
#define BOARD_PANIC    0x4              /* a CPU met this exception and stops */

/* What the guest makes of a vector: the CPU's interrupt number, and the message that brings it. */
#define IRQ(d, v)      (0x40 + (d) * NR_VECTORS + (v))
#define MSI_ADDRESS(cpu) (0xfee00000u | (cpu) << 12)

/* At every so manyth interrupt of a vector the guest masks it, and waits for the next one to become pending. */
#define MASK_EVERY 256

#ifndef __ASSEMBLER__
#include <stdint.h>

/* As in a virtqueue, the device counts what it has done in `used`, then interrupts; the guest catches up in `seen`. */
struct guest_queue {
    uint32_t used __attribute__((aligned(64)));
    uint32_t seen __attribute__((aligned(64)));
};

/* One writer each: `used` is the device's, the rest the guest's, interrupts[][][cpu] that CPU's alone. */
struct guest_shared {
    struct guest_queue queues[NR_DEVICES][MAX_QUEUES];
    uint64_t interrupts[NR_DEVICES][NR_VECTORS][NR_CPUS];
    uint64_t held[NR_DEVICES][NR_VECTORS];  /* seen pending while the vector was masked */
    uint64_t strays[NR_CPUS];               /* interrupts with a number nobody asked for */
};

_Static_assert(SHARED_PAGE + sizeof(struct guest_shared) <= GUEST_IMAGE, "the shared page runs into the guest");
#endif
#endif
