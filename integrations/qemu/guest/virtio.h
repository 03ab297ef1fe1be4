/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A virtio 1.x device over PCI, one queue, one request at a time: so one completion is one interrupt. */
#ifndef VIRTIO_H
#define VIRTIO_H
#include "msix.h"

struct virtio {
    struct pci_device pci;
    struct msix msix;
    uint32_t common, notify;        /* where its registers lie */
    unsigned source;                /* of its queue's interrupt; message.h */
    uint8_t x86_vector;
    unsigned cpu;
    struct virtqueue *queue;
};

enum { VIRTIO_ID_BLK = 2, VIRTIO_ID_RNG = 4 };

bool virtio_open(struct virtio *device, unsigned slot, unsigned id, unsigned source, uint8_t x86_vector);
/* Resets the device, and sets it up with its queue interrupting CPU 0. */
void virtio_start(struct virtio *device);
void virtio_stop(struct virtio *device);
void virtio_retarget(struct virtio *device, unsigned cpu);

/* A read of a sector, or some random bytes; then how many requests the device has completed, and with what result. */
void virtio_read_sector(struct virtio *device, uint64_t sector);
void virtio_read_random(struct virtio *device);
uint16_t virtio_completed(const struct virtio *device);
bool virtio_succeeded(const struct virtio *device);

#endif
