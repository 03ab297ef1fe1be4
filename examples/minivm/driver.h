/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The guest's driver for the devices of devices.c. guest.c compiles it for a real vCPU, model.c for the stand-in that
 * runs without KVM; each says first how to reach the machine:
 *
 *     unsigned this_cpu(void);
 *     struct guest_shared *shared_page(void);
 *     uint32_t mmio_read(uint32_t address);
 *     void mmio_write(uint32_t address, uint32_t value);
 */
#ifndef DRIVER_H
#define DRIVER_H
#include "guest_abi.h"

#define TABLE_ENTRY(d, v) (DEVICE(d) + REG_TABLE + (v) * TABLE_ENTRY_SIZE)

/* Each CPU programs the vectors it wants to be interrupted by, so the CPUs' register writes overlap. */
static void driver_start(void)
{
    unsigned cpu = this_cpu(), v = cpu;

    for (unsigned d = 0; d < NR_DEVICES; d++) {
        uint32_t queues = mmio_read(DEVICE(d) + REG_QUEUES);

        mmio_write(TABLE_ENTRY(d, v) + 0, MSI_ADDRESS(cpu));
        mmio_write(TABLE_ENTRY(d, v) + 4, 0);
        mmio_write(TABLE_ENTRY(d, v) + 8, IRQ(d, v));
        mmio_write(TABLE_ENTRY(d, v) + 12, 0);
        for (unsigned q = v; q < queues; q += NR_VECTORS)
            mmio_write(DEVICE(d) + REG_QUEUE(q), v);
        if (cpu == 0)
            mmio_write(DEVICE(d) + REG_CONTROL, CONTROL_ENABLE);
    }
    mmio_write(BOARD + BOARD_READY, cpu);
}

/* The vector is masked: the device's next interrupt must not come, but show as pending. Some have none. */
static void driver_await_pending(unsigned d, unsigned v)
{
    for (int tries = 0; tries < 64; tries++) {
        if (mmio_read(DEVICE(d) + REG_PENDING) & 1u << v) {
            shared_page()->held[d][v]++;
            return;
        }
    }
}

static void driver_interrupt(unsigned irq)
{
    struct guest_shared *shared = shared_page();
    unsigned cpu = this_cpu(), d, v;
    int mask;

    if (irq < IRQ(0, 0) || irq >= IRQ(NR_DEVICES, 0)) {
        shared->strays[cpu]++;
        return;
    }
    d = (irq - IRQ(0, 0)) / NR_VECTORS;
    v = (irq - IRQ(0, 0)) % NR_VECTORS;

    mask = ++shared->interrupts[d][v][cpu] % MASK_EVERY == 0;
    if (mask)
        mmio_write(TABLE_ENTRY(d, v) + 12, VECTOR_MASKED);

    for (unsigned q = v; q < MAX_QUEUES; q += NR_VECTORS) {
        struct guest_queue *queue = &shared->queues[d][q];
        uint32_t used = __atomic_load_n(&queue->used, __ATOMIC_ACQUIRE);

        if (used == queue->seen)
            continue; /* the interrupt was for another queue of this vector */
        __atomic_store_n(&queue->seen, used, __ATOMIC_RELEASE);
        mmio_write(DEVICE(d) + REG_DONE(q), used);
    }

    if (mask) {
        driver_await_pending(d, v);
        mmio_write(TABLE_ENTRY(d, v) + 12, 0);
    }
}
#endif
