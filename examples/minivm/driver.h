/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The guest's driver for the devices of devices.c. guest.c compiles it for a real vCPU, model.c for the stand-in that
 * runs without KVM; each says first how to reach the machine:
 *
 *     unsigned this_cpu(void);
 *     int irq_requested(unsigned irq);         has this CPU been sent it, and not taken it yet?
 *     struct guest_shared *shared_page(void);
 *     uint64_t mmio_read(uint32_t address, unsigned len);
 *     void mmio_write(uint32_t address, uint64_t value, unsigned len);
 */
#ifndef DRIVER_H
#define DRIVER_H
#include "guest_abi.h"

#define MSIX(d) (DEVICE(d) + CONFIG_MSIX)

/* Where the capability says that the vector's table entry lies, and the pending bits. */
static uint32_t driver_entry(unsigned d, unsigned v)
{
    return DEVICE(d) + (mmio_read(MSIX(d) + PCI_MSIX_TABLE, 4) & PCI_MSIX_TABLE_OFFSET) + v * PCI_MSIX_ENTRY_SIZE;
}

static uint32_t driver_pending_bits(unsigned d)
{
    return DEVICE(d) + (mmio_read(MSIX(d) + PCI_MSIX_PBA, 4) & PCI_MSIX_PBA_OFFSET);
}

static void driver_set(uint32_t address, uint32_t bits, int on, unsigned len)
{
    uint32_t value = mmio_read(address, len);

    mmio_write(address, on ? value | bits : value & ~bits, len);
}

static void driver_mask(unsigned d, unsigned v, int on)
{
    driver_set(driver_entry(d, v) + PCI_MSIX_ENTRY_VECTOR_CTRL, PCI_MSIX_ENTRY_CTRL_MASKBIT, on, 4);
}

static void driver_mask_function(unsigned d, int on)
{
    driver_set(MSIX(d) + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_MASKALL, on, 2);
}

/* Each CPU programs the vectors it wants to be interrupted by, so the CPUs' register writes overlap. */
static void driver_start(void)
{
    unsigned cpu = this_cpu(), v = cpu;

    for (unsigned d = 0; d < NR_DEVICES; d++) {
        uint32_t queues = mmio_read(DEVICE(d) + REG_QUEUES, 4), entry = driver_entry(d, v);

        shared_page()->target[d][v] = cpu;
        mmio_write(entry + PCI_MSIX_ENTRY_LOWER_ADDR, MSI_ADDRESS(cpu), 4);
        mmio_write(entry + PCI_MSIX_ENTRY_UPPER_ADDR, 0, 4);
        mmio_write(entry + PCI_MSIX_ENTRY_DATA, IRQ(d, v), 4);
        driver_mask(d, v, 0);
        for (unsigned q = v; q < queues; q += NR_VECTORS)
            mmio_write(DEVICE(d) + REG_QUEUE(q), v, 4);
        if (cpu == 0)
            driver_set(MSIX(d) + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE, 1, 2);
    }
    mmio_write(BOARD + BOARD_READY, cpu, 4);
}

/* Whether the device has done something since the vector's queues were served. */
static int driver_behind(unsigned d, unsigned v)
{
    const struct guest_queue *queues = shared_page()->queues[d];

    for (unsigned q = v; q < MAX_QUEUES; q += NR_VECTORS)
        if (__atomic_load_n(&queues[q].used, __ATOMIC_ACQUIRE) != queues[q].seen)
            return 1;
    return 0;
}

static void driver_serve(unsigned d, unsigned v)
{
    for (unsigned q = v; q < MAX_QUEUES; q += NR_VECTORS) {
        struct guest_queue *queue = &shared_page()->queues[d][q];
        uint32_t used = __atomic_load_n(&queue->used, __ATOMIC_ACQUIRE);

        if (used == queue->seen)
            continue; /* the interrupt was for another queue of this vector */
        __atomic_store_n(&queue->seen, used, __ATOMIC_RELEASE);
        mmio_write(DEVICE(d) + REG_DONE(q), used, 4);
    }
}

/*
 * The vector is masked, and was served since: the device's next interrupt must show as pending. There may be none; but
 * if the device has done something and no pending bit follows, that interrupt is lost, or came through the mask: then we
 * wait until the VMM's patience ends.
 */
static uint64_t driver_await_pending(unsigned d, unsigned v)
{
    uint32_t address = driver_pending_bits(d);
    uint64_t pending = 0;

    for (int tries = 0; !(pending >> v & 1) && (tries < 32 || driver_behind(d, v)); tries++)
        pending = mmio_read(address, 8) & mmio_read(address, 4); /* both widths must show it */
    return pending;
}

/*
 * Sends the vector to the other CPU. It is masked, so nothing of it is on its way to this one but what has been
 * requested already, by a second queue: then it stays here for now. So whatever comes here later is wrong.
 */
static void driver_retarget(unsigned d, unsigned v)
{
    struct guest_shared *shared = shared_page();
    unsigned other = (this_cpu() + 1) % NR_CPUS;

    if (irq_requested(IRQ(d, v)))
        return;
    shared->target[d][v] = other;
    shared->retargets[d][v]++;
    mmio_write(driver_entry(d, v) + PCI_MSIX_ENTRY_LOWER_ADDR, MSI_ADDRESS(other), 4);
}

/* To unmask comes last: from then on the vector's handler may run on the other CPU. */
static void driver_masked_round(unsigned d, unsigned v, int retarget)
{
    driver_mask(d, v, 1);
    driver_serve(d, v);
    shared_page()->held[d][v] += driver_await_pending(d, v) >> v & 1;
    if (retarget)
        driver_retarget(d, v);
    driver_mask(d, v, 0);
}

static void driver_function_masked_round(unsigned d, unsigned v)
{
    uint64_t pending;

    driver_mask_function(d, 1);
    driver_serve(d, v);
    pending = driver_await_pending(d, v);
    for (unsigned u = 0; u < NR_VECTORS; u++)
        shared_page()->function_held[d][u] += pending >> u & 1;
    driver_mask_function(d, 0);
}

static void driver_interrupt(unsigned irq)
{
    struct guest_shared *shared = shared_page();
    unsigned cpu = this_cpu(), d, v;
    uint64_t count = 0;

    if (irq < IRQ(0, 0) || irq >= IRQ(NR_DEVICES, 0)) {
        shared->strays[cpu]++;
        return;
    }
    d = (irq - IRQ(0, 0)) / NR_VECTORS;
    v = (irq - IRQ(0, 0)) % NR_VECTORS;

    shared->misdirected[cpu] += shared->target[d][v] != cpu;
    shared->interrupts[d][v][cpu]++;
    for (unsigned c = 0; c < NR_CPUS; c++)
        count += shared->interrupts[d][v][c];

    if (count % MASK_EVERY)
        driver_serve(d, v);
    else if (count / MASK_EVERY % 3 == 1 && v == 0) /* one vector's handler alone: no lock for Message Control */
        driver_function_masked_round(d, v);
    else
        driver_masked_round(d, v, count / MASK_EVERY % 3 == 2);
}
#endif
