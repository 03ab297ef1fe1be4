/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a guest's register access means, in msiroute's terms: see device_read and device_write. */
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices.h"
#include "fail.h"
#include "vm.h"

const struct device_type device_types[NR_DEVICES] = {
    [DIRECT]  = { .name = "direct",  .queues = NR_VECTORS },
    [EVENTFD] = { .name = "eventfd", .queues = NR_VECTORS, .eventfds = true, .own_process = true },
    [SHARED]  = { .name = "shared",  .queues = 2 * NR_VECTORS, .eventfds = true },
};

static int new_eventfd(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);

    if (fd < 0)
        fail_errno("eventfd");
    return fd;
}

void devices_create(struct vm *vm)
{
    for (unsigned d = 0; d < NR_DEVICES; d++) {
        struct device *dev = &vm->devices[d];
        struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;

        dev->type = &device_types[d];
        config.kind = MSIROUTE_KIND_MSIX;
        config.vectors = NR_VECTORS;
        config.requester = d << 3; /* bus 0, device d, function 0 */
        config.name = dev->type->name;
        MUST(msi_device_new(vm->cache, &config, &dev->msi));

        for (unsigned v = 0; v < NR_VECTORS; v++)
            dev->table[v][3] = VECTOR_MASKED;
        for (unsigned q = 0; q < dev->type->queues; q++) {
            dev->queues[q].interrupt_fd = dev->type->eventfds ? new_eventfd() : -1;
            dev->queues[q].done_fd = new_eventfd();
            vm->backend->wire(vm, DEVICE(d) + REG_DONE(q), dev->queues[q].done_fd);
        }
    }
}

void devices_destroy(struct vm *vm)
{
    for (unsigned d = 0; d < NR_DEVICES; d++) {
        struct device *dev = &vm->devices[d];

        msi_device_free(dev->msi); /* unbinds the eventfds */
        for (unsigned q = 0; q < dev->type->queues; q++) {
            if (dev->queues[q].interrupt_fd >= 0)
                close(dev->queues[q].interrupt_fd);
            close(dev->queues[q].done_fd);
        }
    }
}

static void control_write(struct device *dev, uint32_t value)
{
    uint32_t flags = 0;

    if (value & CONTROL_ENABLE)
        flags |= MSIROUTE_ENABLED;
    if (value & CONTROL_MASK_ALL)
        flags |= MSIROUTE_FUNCTION_MASKED;
    MUST(msi_device_set_control(dev->msi, flags));
}

/* A message counts once its vector is unmasked: until then the guest may have written half of it. */
static void table_write(struct device *dev, uint32_t offset, uint32_t value)
{
    unsigned v = offset / TABLE_ENTRY_SIZE, field = offset % TABLE_ENTRY_SIZE / 4;
    uint32_t *entry = dev->table[v];

    entry[field] = value;
    if (entry[3] & VECTOR_MASKED) {
        if (field == 3)
            MUST(msi_vector_mask(dev->msi, v));
        return;
    }
    MUST(msi_vector_set(dev->msi, v, (uint64_t)entry[1] << 32 | entry[0], entry[2]));
    if (field == 3)
        MUST(msi_vector_unmask(dev->msi, v));
}

static uint32_t pending_read(struct device *dev)
{
    uint32_t bits = 0;

    for (unsigned v = 0; v < NR_VECTORS; v++)
        bits |= (uint32_t)MUST(msi_vector_is_pending(dev->msi, v)) << v;
    return bits;
}

/* From now on the queue's eventfd is the vector's: its writes go to the guest without us, while the vector is open. */
static void queue_write(struct device *dev, unsigned q, uint32_t vector)
{
    if (q < dev->type->queues && dev->queues[q].interrupt_fd >= 0)
        MUST(msi_vector_bind_eventfd(dev->msi, vector, dev->queues[q].interrupt_fd, 0));
}

/* Reached only where no machine has wired the doorbell to the eventfd itself. */
static void done_write(struct device *dev, unsigned q)
{
    if (q < dev->type->queues && eventfd_write(dev->queues[q].done_fd, 1))
        fail_errno("doorbell");
}

static uint32_t device_read(struct device *dev, uint32_t reg)
{
    if (reg == REG_QUEUES)
        return dev->type->queues;
    if (reg == REG_PENDING)
        return pending_read(dev);
    if (reg >= REG_TABLE && reg < REG_TABLE + sizeof(dev->table))
        return dev->table[(reg - REG_TABLE) / TABLE_ENTRY_SIZE][reg % TABLE_ENTRY_SIZE / 4];
    return 0;
}

static void device_write(struct device *dev, uint32_t reg, uint32_t value)
{
    if (reg == REG_CONTROL)
        control_write(dev, value);
    else if (reg >= REG_TABLE && reg < REG_TABLE + sizeof(dev->table))
        table_write(dev, reg - REG_TABLE, value);
    else if (reg >= REG_QUEUE(0) && reg < REG_QUEUE(MAX_QUEUES))
        queue_write(dev, (reg - REG_QUEUE(0)) / 4, value);
    else if (reg >= REG_DONE(0) && reg < REG_DONE(MAX_QUEUES))
        done_write(dev, (reg - REG_DONE(0)) / 4);
}

static void board_write(struct vm *vm, uint32_t reg, uint32_t value)
{
    if (reg == BOARD_READY)
        sem_post(&vm->cpus_ready);
    else if (reg == BOARD_PANIC)
        fail("the guest met exception %u", value);
}

uint32_t devices_read(struct vm *vm, uint32_t address)
{
    uint32_t offset = address - DEVICE(0);

    if (offset / DEVICE_SIZE < NR_DEVICES)
        return device_read(&vm->devices[offset / DEVICE_SIZE], offset % DEVICE_SIZE);
    return 0;
}

void devices_write(struct vm *vm, uint32_t address, uint32_t value)
{
    uint32_t offset = address - DEVICE(0);

    if (offset / DEVICE_SIZE < NR_DEVICES)
        device_write(&vm->devices[offset / DEVICE_SIZE], offset % DEVICE_SIZE, value);
    else
        board_write(vm, address - BOARD, value);
}
