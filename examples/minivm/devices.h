/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The devices' side of the guest: registers, queues, and how each of them interrupts. */
#ifndef DEVICES_H
#define DEVICES_H
#include <msiroute.h>
#include <stdbool.h>

#include "guest_abi.h"

struct vm;

enum { DIRECT, EVENTFD, SHARED };

struct device_type {
    const char *name;
    unsigned queues;
    bool eventfds;          /* interrupts by writing eventfds, not by msi_deliver */
    bool own_process;       /* its queues are worked by processes, as with vhost-user */
};

extern const struct device_type device_types[NR_DEVICES];

struct queue {
    int interrupt_fd;       /* to the guest; -1: msi_deliver */
    int done_fd;            /* from the guest: REG_DONE was written */
};

struct device {
    const struct device_type *type;
    struct msi_device *msi;
    struct queue queues[MAX_QUEUES];
};

void devices_create(struct vm *vm);
void devices_destroy(struct vm *vm);

/* A guest's access to the devices' windows, as a KVM MMIO exit tells of it. From any thread, with no lock held. */
void devices_read(struct vm *vm, uint64_t address, void *data, uint32_t len);
void devices_write(struct vm *vm, uint64_t address, const void *data, uint32_t len);

#endif
