/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a guest's register access means: see device_read and device_write. What belongs to MSI-X, the library keeps. */
#include <stdint.h>
#include <string.h>
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
        config.cap_offset = CONFIG_MSIX;
        config.table_offset = REG_TABLE; /* of BAR 0, as is the next */
        config.pba_offset = REG_PBA;
        config.name = dev->type->name;
        MUST(msi_device_new(vm->cache, &config, &dev->msi));

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

/* What is written to the device's own registers. */
static uint32_t word(const void *data)
{
    uint32_t value;

    memcpy(&value, data, sizeof(value));
    return value;
}

static void board_write(struct vm *vm, uint64_t reg, uint32_t value)
{
    if (reg == BOARD_READY)
        sem_post(&vm->cpus_ready);
    else if (reg == BOARD_PANIC)
        fail("the guest met exception %u", value);
}

static void device_read(struct device *dev, uint32_t reg, void *data, uint32_t len)
{
    if (reg >= REG_PBA)
        MUST(msi_device_pba_read(dev->msi, reg - REG_PBA, data, len));
    else if (reg >= REG_TABLE)
        MUST(msi_device_table_read(dev->msi, reg - REG_TABLE, data, len));
    else if (reg < CONFIG_SIZE)
        MUST(msi_device_config_read(dev->msi, reg, data, len));
    else if (reg == REG_QUEUES && len == 4)
        memcpy(data, &dev->type->queues, 4);
}

static void device_write(struct device *dev, uint32_t reg, const void *data, uint32_t len)
{
    if (reg >= REG_PBA)
        MUST(msi_device_pba_write(dev->msi, reg - REG_PBA, data, len));
    else if (reg >= REG_TABLE)
        MUST(msi_device_table_write(dev->msi, reg - REG_TABLE, data, len));
    else if (reg < CONFIG_SIZE)
        MUST(msi_device_config_write(dev->msi, reg, data, len));
    else if (reg >= REG_DONE(0) && len == 4)
        done_write(dev, (reg - REG_DONE(0)) / 4);
    else if (reg >= REG_QUEUE(0) && len == 4)
        queue_write(dev, (reg - REG_QUEUE(0)) / 4, word(data));
}

void devices_read(struct vm *vm, uint64_t address, void *data, uint32_t len)
{
    uint64_t offset = address - DEVICE(0);

    memset(data, 0, len);
    if (offset / DEVICE_SIZE < NR_DEVICES)
        device_read(&vm->devices[offset / DEVICE_SIZE], offset % DEVICE_SIZE, data, len);
}

void devices_write(struct vm *vm, uint64_t address, const void *data, uint32_t len)
{
    uint64_t offset = address - DEVICE(0);

    if (offset / DEVICE_SIZE < NR_DEVICES)
        device_write(&vm->devices[offset / DEVICE_SIZE], offset % DEVICE_SIZE, data, len);
    else if (len == 4)
        board_write(vm, address - BOARD, word(data));
}
