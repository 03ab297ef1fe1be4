/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the machine looks like from both sides: physical memory, device registers and the page that guest and devices
 * share. Included by the VMM, by the guest's C and by its assembly.
 */
#ifndef GUEST_ABI_H
#define GUEST_ABI_H

#define NR_CPUS     2
#define NR_DEVICES  3
#define NR_VECTORS  2           /* of each device: vector v interrupts vCPU v at first */
#define MAX_QUEUES  4           /* of a device: queue q interrupts by vector q % NR_VECTORS */

/* Physical memory: 2 MiB of RAM, mapped one to one like the rest of the first GiB. */
#define RAM_SIZE       0x200000
#define PAGE_TABLES    0x001000 /* three pages, made by the VMM */
#define SHARED_PAGE    0x010000 /* struct guest_shared */
#define GUEST_IMAGE    0x100000 /* entered at its first byte, in long mode, with the CPU's number in RDI */

/* The guest's code and data segments, in the GDT it loads and in the registers the VMM starts it with. */
#define GUEST_CS 0x08
#define GUEST_DS 0x10

/*
 * Device d, a PCI function: its window is BAR 0 and, for want of a bus, has config space at its start. The device's own
 * registers are 32 bits wide, those of PCI what PCI says.
 */
#define DEVICE(d)      (0x10000000u + (d) * DEVICE_SIZE)
#define DEVICE_SIZE    0x1000u
#define CONFIG_SIZE    0x100            /* config space */
#define CONFIG_MSIX    0x040            /* the MSI-X capability in it: says where table and pending bits lie */
#define REG_QUEUES     0x100            /* RO: how many queues the device has */
#define REG_QUEUE(q)   (0x140 + 4 * (q)) /* the vector queue q interrupts by */
#define REG_DONE(q)    (0x180 + 4 * (q)) /* doorbell: the guest has caught up with queue q */
#define REG_TABLE      0x800            /* the MSI-X table */
#define REG_PBA        0xc00            /* the MSI-X pending bit array */

/* Registers of the machine itself. */
#define BOARD          DEVICE(NR_DEVICES)
#define BOARD_READY    0x0              /* a CPU has set up its vectors and takes interrupts */
#define BOARD_PANIC    0x4              /* a CPU met this exception and stops */

/* What the guest makes of a vector: the CPU's interrupt number, and the message that brings it. */
#define IRQ(d, v)      (0x40 + (d) * NR_VECTORS + (v))
#define MSI_ADDRESS(cpu) (0xfee00000u | (cpu) << 12)

/* At every so manyth interrupt of a vector the guest masks it or its function, and waits for the next to be pending. */
#define MASK_EVERY 200

#ifndef __ASSEMBLER__
#include <linux/pci_regs.h>
#include <stdint.h>

/* As in a virtqueue, the device counts what it has done in `used`, then interrupts; the guest catches up in `seen`. */
struct guest_queue {
    uint32_t used __attribute__((aligned(64)));
    uint32_t seen __attribute__((aligned(64)));
};

/* One writer each: `used` is the device's, [cpu] that CPU's, the rest is the handler's of that vector. */
struct guest_shared {
    struct guest_queue queues[NR_DEVICES][MAX_QUEUES];
    uint64_t interrupts[NR_DEVICES][NR_VECTORS][NR_CPUS];
    uint64_t strays[NR_CPUS];               /* interrupts with a number nobody asked for */
    uint64_t misdirected[NR_CPUS];          /* interrupts of a vector whose message says another CPU */
    uint32_t target[NR_DEVICES][NR_VECTORS]; /* the CPU that the vector's message says */
    uint64_t retargets[NR_DEVICES][NR_VECTORS];
    uint64_t held[NR_DEVICES][NR_VECTORS];  /* seen pending while the vector was masked */
    uint64_t function_held[NR_DEVICES][NR_VECTORS]; /* while the function was: vector 0's handler writes them */
};

_Static_assert(SHARED_PAGE + sizeof(struct guest_shared) <= GUEST_IMAGE, "the shared page runs into the guest");
#endif
#endif
