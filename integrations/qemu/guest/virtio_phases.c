/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio-blk (with an iothread), vhost-user-blk (another process writes the eventfds) and virtio-rng. */
#include "apic.h"
#include "panic.h"
#include "phase.h"
#include "virtio.h"

struct driven {
    const char *one_by_one, *masked, *retargeted, *in_flight, *reset, *after_reset;
    unsigned slot, id, source, requests;
    uint8_t x86_vector;
};

#define PHASES(name) name ": MSI-X one by one", name ": masked, completed, unmasked", name ": retargeted each time", \
    name ": retargeted in flight", name ": device reset", name ": after system reset"

static const struct driven all[] = {
    { PHASES("virtio-blk"), 6, VIRTIO_ID_BLK, SOURCE_BLK, 300, 0x3c },
    { PHASES("virtio-rng"), 7, VIRTIO_ID_RNG, SOURCE_RNG, 100, 0x3d },
    { PHASES("vhost-user-blk"), 8, VIRTIO_ID_BLK, SOURCE_VHOST_BLK, 300, 0x3e },
};

static struct virtio devices[sizeof(all) / sizeof(all[0])];

static void submit(struct virtio *device, const struct driven *driven, unsigned n)
{
    if (driven->id == VIRTIO_ID_BLK)
        virtio_read_sector(device, n % 64);
    else
        virtio_read_random(device);
}

static void check(const struct virtio *device, const struct driven *driven)
{
    if (driven->id == VIRTIO_ID_BLK && !virtio_succeeded(device))
        panic("a read failed, slot", driven->slot);
}

static void await_completion(const struct virtio *device, uint16_t before)
{
    for (int ms = 0; virtio_completed(device) == before; ms += 4) {
        if (ms > 2000)
            panic("no completion, slot", device->pci.slot);
        sleep_ms(1);
    }
}

static void run_requests(struct phase *phase, struct virtio *device, const struct driven *driven, unsigned requests)
{
    for (unsigned i = 0; i < requests; i++) {
        uint16_t completed = virtio_completed(device);
        uint32_t before = arrived(driven->x86_vector);

        submit(device, driven, i);
        expect_one(phase, driven->x86_vector, before);
        await_completion(device, completed);
        check(device, driven);
    }
}

static void one_by_one(struct virtio *device, const struct driven *driven, const char *name, unsigned requests)
{
    struct phase phase;

    virtio_start(device);
    sleep_ms(20); /* a vhost-user back-end may notify when it starts, for nothing */
    phase_begin(&phase, name);
    run_requests(&phase, device, driven, requests);
    phase_end(&phase);
}

static void masked(struct virtio *device, const struct driven *driven)
{
    struct phase phase;

    phase_begin(&phase, driven->masked);
    for (unsigned i = 0; i < 20; i++) {
        uint16_t completed = virtio_completed(device);
        uint32_t before = arrived(driven->x86_vector);

        msix_mask(&device->msix, 0, true);
        submit(device, driven, i);
        await_completion(device, completed);
        sleep_ms(4); /* the device interrupts after it has completed */
        phase.astray += !msix_is_pending(&device->msix, 0);
        expect_none(&phase, driven->x86_vector, before);
        msix_mask(&device->msix, 0, false);
        expect_one(&phase, driven->x86_vector, before);
    }
    phase_end(&phase);
}

static void retargeted(struct virtio *device, const struct driven *driven)
{
    struct phase phase;

    phase_begin(&phase, driven->retargeted);
    for (unsigned i = 0; i < 40; i++) {
        unsigned cpu = (i + 1) % NR_CPUS;
        uint32_t there = mailbox()->counts[cpu][driven->x86_vector];

        virtio_retarget(device, cpu);
        run_requests(&phase, device, driven, 1);
        phase.astray += mailbox()->counts[cpu][driven->x86_vector] == there;
    }
    phase_end(&phase);
}

/* The device works on the request while its vector changes: the interrupt comes once, to this CPU or that. */
static void in_flight(struct virtio *device, const struct driven *driven)
{
    struct phase phase;

    phase_begin(&phase, driven->in_flight);
    for (unsigned i = 0; i < 100; i++) {
        uint16_t completed = virtio_completed(device);
        uint32_t before = arrived(driven->x86_vector);

        submit(device, driven, i);
        virtio_retarget(device, (i + 1) % NR_CPUS);
        expect_one(&phase, driven->x86_vector, before);
        await_completion(device, completed);
    }
    phase_end(&phase);
}

void virtio_phases(void)
{
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        const struct driven *driven = &all[i];

        if (!virtio_open(&devices[i], driven->slot, driven->id, driven->source, driven->x86_vector)) {
            phase_skip(driven->one_by_one);
            continue;
        }
        one_by_one(&devices[i], driven, driven->one_by_one, driven->requests);
        masked(&devices[i], driven);
        retargeted(&devices[i], driven);
        in_flight(&devices[i], driven);
        one_by_one(&devices[i], driven, driven->reset, 20);
    }
}

void virtio_after_reset(void)
{
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (virtio_open(&devices[i], all[i].slot, all[i].id, all[i].source, all[i].x86_vector))
            one_by_one(&devices[i], &all[i], all[i].after_reset, 20);
}
