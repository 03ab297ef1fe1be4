/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "virtio.h"
#include "panic.h"

#define VENDOR          0x1af4
#define DEVICE_ID(id)   (0x1040 + (id))
#define MSIX_VECTOR     0       /* of the queue; the configuration has none */
#define NO_VECTOR       0xffff
#define QUEUE_SIZE      8
#define FEATURE_VERSION_1_HIGH 1u   /* bit 32 */

/* Capabilities. */
#define CAP_VENDOR      0x09
#define CAP_TYPE        3
#define CAP_BAR         4
#define CAP_OFFSET      8
enum { CAP_COMMON = 1, CAP_NOTIFY = 2 };

/* The common configuration. */
enum {
    FEATURE_SELECT = 8, FEATURES = 12, CONFIG_VECTOR = 16, STATUS = 20, QUEUE_SELECT = 22, SIZE = 24, VECTOR = 26,
    ENABLE = 28, NOTIFY_OFFSET = 30, DESCRIPTORS = 32, DRIVER = 40, DEVICE = 48,
};
enum { ACKNOWLEDGE = 1, DRIVER_HERE = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

enum { DESCRIPTOR_NEXT = 1, DESCRIPTOR_DEVICE_WRITES = 2 };

struct virtqueue {
    struct { uint64_t address; uint32_t length; uint16_t flags, next; } descriptors[QUEUE_SIZE] __attribute__((aligned(16)));
    struct { uint16_t flags, index, ring[QUEUE_SIZE], used_event; } available __attribute__((aligned(4)));
    struct { uint16_t flags, index; struct { uint32_t id, length; } ring[QUEUE_SIZE]; } used __attribute__((aligned(4)));
    struct { uint32_t type, reserved; uint64_t sector; } header;
    uint8_t data[512];
    uint8_t status;
};

static struct virtqueue queues[4];

static bool find_registers(struct virtio *device)
{
    const struct pci_device *pci = &device->pci;

    for (unsigned at = 0; (at = pci_find_capability(pci, CAP_VENDOR, at));) {
        unsigned bar = pci_read(pci, at + CAP_BAR) & 0xff;
        uint32_t where;

        if (bar >= 6)
            continue;
        where = pci->bars[bar] + pci_read(pci, at + CAP_OFFSET);
        switch (pci_read(pci, at + CAP_TYPE) & 0xff) {
        case CAP_COMMON: device->common = where; break;
        case CAP_NOTIFY: device->notify = where; break; /* queue 0: the multiplier does not matter */
        }
    }
    return device->common && device->notify;
}

bool virtio_open(struct virtio *device, unsigned slot, unsigned id, unsigned source, uint8_t x86_vector)
{
    static unsigned opened;

    if (!pci_open(&device->pci, slot, VENDOR, (uint16_t)DEVICE_ID(id)))
        return false;
    if (!find_registers(device) || !msix_open(&device->msix, &device->pci))
        panic("no virtio 1.x device with MSI-X in slot", slot);
    device->queue = &queues[opened++];
    device->source = source;
    device->x86_vector = x86_vector;
    return true;
}

static void set_status(const struct virtio *device, uint8_t bits)
{
    write8(device->common + STATUS, read8(device->common + STATUS) | bits);
}

static void set_address(const struct virtio *device, unsigned offset, const void *address)
{
    write32(device->common + offset, address_of(address));
    write32(device->common + offset + 4, 0);
}

void virtio_stop(struct virtio *device)
{
    write8(device->common + STATUS, 0);
    while (read8(device->common + STATUS))
        ;
    msix_enable(&device->msix, false, false);
}

static void negotiate(const struct virtio *device)
{
    set_status(device, ACKNOWLEDGE);
    set_status(device, DRIVER_HERE);
    for (unsigned half = 0; half < 2; half++) {
        write32(device->common + FEATURE_SELECT, half);
        write32(device->common + FEATURES, half ? FEATURE_VERSION_1_HIGH : 0);
    }
    set_status(device, FEATURES_OK);
    if (!(read8(device->common + STATUS) & FEATURES_OK))
        panic("virtio features refused, slot", device->pci.slot);
}

void virtio_start(struct virtio *device)
{
    struct virtqueue *queue = device->queue;

    virtio_stop(device);
    for (uint8_t *byte = (uint8_t *)queue; byte < (uint8_t *)(queue + 1); byte++)
        *byte = 0;
    msix_enable(&device->msix, true, false);
    device->cpu = 0;
    msix_write(&device->msix, MSIX_VECTOR, message_to(device->source, device->cpu, device->x86_vector));
    msix_mask(&device->msix, MSIX_VECTOR, false);
    negotiate(device);
    write16(device->common + CONFIG_VECTOR, NO_VECTOR);
    write16(device->common + QUEUE_SELECT, 0);
    write16(device->common + SIZE, QUEUE_SIZE);
    write16(device->common + VECTOR, MSIX_VECTOR);
    if (read16(device->common + VECTOR) != MSIX_VECTOR)
        panic("virtio vector refused, slot", device->pci.slot);
    if (read16(device->common + NOTIFY_OFFSET))
        panic("virtio notifications elsewhere, slot", device->pci.slot);
    set_address(device, DESCRIPTORS, queue->descriptors);
    set_address(device, DRIVER, &queue->available);
    set_address(device, DEVICE, &queue->used);
    write16(device->common + ENABLE, 1);
    set_status(device, DRIVER_OK);
}

void virtio_retarget(struct virtio *device, unsigned cpu)
{
    device->cpu = cpu;
    msix_retarget(&device->msix, MSIX_VECTOR, device->source, cpu, device->x86_vector);
}

static void describe(struct virtqueue *queue, unsigned i, const void *address, uint32_t length, uint16_t flags)
{
    queue->descriptors[i].address = address_of(address);
    queue->descriptors[i].length = length;
    queue->descriptors[i].flags = flags;
    queue->descriptors[i].next = (uint16_t)(i + 1);
}

static void submit(struct virtio *device)
{
    struct virtqueue *queue = device->queue;

    queue->available.ring[queue->available.index % QUEUE_SIZE] = 0;
    barrier();
    queue->available.index++;
    write16(device->notify, 0);
}

void virtio_read_sector(struct virtio *device, uint64_t sector)
{
    struct virtqueue *queue = device->queue;

    queue->header.type = 0;
    queue->header.sector = sector;
    queue->status = 0xff;
    describe(queue, 0, &queue->header, sizeof(queue->header), DESCRIPTOR_NEXT);
    describe(queue, 1, queue->data, sizeof(queue->data), DESCRIPTOR_NEXT | DESCRIPTOR_DEVICE_WRITES);
    describe(queue, 2, &queue->status, 1, DESCRIPTOR_DEVICE_WRITES);
    submit(device);
}

void virtio_read_random(struct virtio *device)
{
    describe(device->queue, 0, device->queue->data, 64, DESCRIPTOR_DEVICE_WRITES);
    submit(device);
}

uint16_t virtio_completed(const struct virtio *device)
{
    barrier();
    return device->queue->used.index;
}

bool virtio_succeeded(const struct virtio *device)
{
    barrier();
    return device->queue->status == 0;
}
