/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Interrupt remapping: a vIOMMU with a table of entries, as VT-d has one, stands between the guest's messages and its APICs. */
#include <errno.h>
#include <stdatomic.h>

#include "rig.h"

#define ENTRIES 512

struct viommu {
    struct { bool present, has_no_tag; unsigned cpu, vector; } entries[ENTRIES];
    atomic_uint asked;          /* calls of translate */
    uint32_t requester;         /* of the last */
    struct msi_device *raises;  /* translate delivers vector 0 of this */
    struct msi_device *changes; /* and tries to set one of this */
    int delivered, changed;
    bool babbles;               /* what it makes of a message is none */
};

/* A message in remappable format: VT-d 5.1.2.2. */
#define HANDLE(n) (0xFEE00000u | (uint64_t)(n) << 5 | 1u << 4), 0

static int translate(void *opaque, uint32_t requester, uint64_t *address, uint32_t *data, uint64_t *tag)
{
    struct viommu *viommu = opaque;
    atomic_fetch_add(&viommu->asked, 1);
    viommu->requester = requester;
    if (viommu->raises)
        viommu->delivered = msi_deliver(viommu->raises, 0);
    if (viommu->changes)
        viommu->changed = msi_vector_set(viommu->changes, 1, TO(0, 0x30));
    if (!(*address & 1u << 4))
        return 0;
    unsigned handle = (*address >> 5 & 0x7FFF) % ENTRIES;
    if (!viommu->entries[handle].has_no_tag)
        *tag = handle;
    if (!viommu->entries[handle].present)
        return -EPERM;
    *address = viommu->babbles ? 0xFED00000 : to_apic(viommu->entries[handle].cpu);
    *data = vector_data(viommu->entries[handle].vector);
    return 0;
}

static void entry(struct viommu *viommu, unsigned handle, unsigned cpu, unsigned vector)
{
    viommu->entries[handle].present = true;
    viommu->entries[handle].cpu = cpu;
    viommu->entries[handle].vector = vector;
}

static void use(struct rig *rig, struct viommu *viommu)
{
    expect_ok(msi_route_cache_set_remap(rig->cache, translate, viommu));
}

/* The guest changes entries, and says so. */
#define invalidate(rig, first, last) \
    expect_ok(msi_route_cache_invalidate((rig)->cache, MSIROUTE_NO_REQUESTER, first, last))

static unsigned take_asked(struct viommu *viommu)
{
    return atomic_exchange(&viommu->asked, 0);
}

static bool has(struct msi_device *dev, uint32_t index, uint32_t flag)
{
    return info_of(dev, index).flags & flag;
}

static void a_message_is_what_the_viommu_makes_of_it(enum host host)
{
    RIG(rig, host);
    struct viommu viommu = { 0 };
    entry(&viommu, 3, 1, 0x51);
    use(&rig, &viommu);
    expect_eq(take_asked(&viommu), 0);
    expect_ok(msi_vector_set(rig.dev, 0, HANDLE(3)));
    expect_eq(take_asked(&viommu), 1);
    expect_delivers(&rig, 0, 1, 0x51);
    expect_delivers(&rig, 0, 1, 0x51);
    expect_eq(take_asked(&viommu), 0);
    /* Not in remappable format: this vIOMMU lets it pass. */
    expect_ok(msi_vector_set(rig.dev, 1, TO(0, 0x61)));
    expect_delivers(&rig, 1, 0, 0x61);
    /* What the guest set is what is told. */
    expect_eq(info_of(rig.dev, 0).address, 0xFEE00070u);
    expect_quiet(&rig);
}

static void a_viommu_that_comes_or_goes_late_concerns_live_messages(enum host host)
{
    RIG(rig, host);
    struct viommu viommu = { 0 }, other = { 0 };
    entry(&viommu, 0, 1, 0x52);
    entry(&other, 0, 0, 0x53);
    /* Without a vIOMMU it is an address like any: vector 0x20 to APIC 0. */
    expect_ok(msi_vector_set(rig.dev, 0, 0xFEE00010, 0x20));
    int fd = rig_bound(&rig, 0, 0);
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x20);
    use(&rig, &viommu);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x52);
    use(&rig, &other);
    expect_delivers(&rig, 0, 0, 0x53);
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x53);
    take_asked(&other);
    expect_ok(msi_route_cache_set_remap(rig.cache, NULL, NULL));
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x20);
    expect_eq(take_asked(&viommu) + take_asked(&other), 1);     /* `viommu`, when it came */
    expect_eq(rig_stats(&rig).irqfd_unbinds, 0);
    expect_quiet(&rig);
}

static void an_invalidation_retargets_in_place(enum host host)
{
    RIG(rig, host);
    struct viommu viommu = { 0 };
    entry(&viommu, 7, 0, 0x40);
    use(&rig, &viommu);
    expect_ok(msi_vector_set(rig.dev, 0, HANDLE(7)));
    int fd = rig_bound(&rig, 0, 0);
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x40);
    entry(&viommu, 7, 1, 0x41);
    expect_eq(TABLE_WRITES(&rig, invalidate(&rig, 7, 7)), 1);
    expect_eq(rig_stats(&rig).irqfd_unbinds, 0);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_delivers(&rig, 0, 1, 0x41);
    /* The same again is nothing. */
    expect_eq(TABLE_WRITES(&rig, invalidate(&rig, 7, 7)), 0);
    expect_quiet(&rig);
}

static void an_invalidation_asks_only_what_it_must(enum host host)
{
    RIG(rig, host, .vectors = 16);
    struct viommu viommu = { 0 };
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.vectors = 16;
    config.requester = 0x1234;
    struct msi_device *other = rig_device_of(&rig, &config);
    use(&rig, &viommu);
    for (unsigned i = 0; i < 16; i++) {
        entry(&viommu, i, 0, 0x40 + i);
        entry(&viommu, 100 + i, 1, 0x40 + i);
        expect_ok(msi_vector_set(rig.dev, i, HANDLE(i)));
        expect_ok(msi_vector_set(other, i, HANDLE(100 + i)));
    }
    expect_eq(viommu.requester, 0x1234);
    expect_eq(take_asked(&viommu), 32);
    invalidate(&rig, 4, 7);
    expect_eq(take_asked(&viommu), 4);
    invalidate(&rig, 15, 100);
    expect_eq(take_asked(&viommu), 2);
    invalidate(&rig, 200, UINT64_MAX);
    expect_eq(take_asked(&viommu), 0);
    expect_ok(msi_route_cache_invalidate(rig.cache, 0x1234, 0, UINT64_MAX));
    expect_eq(take_asked(&viommu), 16);
    expect_ok(msi_route_cache_invalidate(rig.cache, 0x1235, 0, UINT64_MAX));
    expect_eq(take_asked(&viommu), 0);
    invalidate(&rig, 0, UINT64_MAX);
    expect_eq(take_asked(&viommu), 32);
    /* Masked ones are asked about when they are unmasked. */
    expect_ok(msi_vector_mask(rig.dev, 5));
    entry(&viommu, 5, 1, 0x95);
    invalidate(&rig, 4, 6);
    expect_eq(take_asked(&viommu), 2);
    expect_eq(msi_deliver(rig.dev, 5), MSIROUTE_PENDING);
    expect_ok(msi_vector_unmask(rig.dev, 5));
    expect_eq(take_asked(&viommu), 1);
    expect_arrival(&rig, 1, 0x95);
    /* One that nothing invalidated is not asked about again. */
    expect_ok(msi_vector_mask(rig.dev, 6));
    expect_ok(msi_vector_unmask(rig.dev, 6));
    expect_eq(take_asked(&viommu), 0);
    expect_delivers(&rig, 6, 0, 0x46);
    expect_quiet(&rig);
}

static void an_invalidation_of_all_devices_is_one_table_write(enum host host)
{
    RIG(rig, host);
    struct viommu viommu = { 0 };
    use(&rig, &viommu);
    enum { DEVICES = 4, EACH = 32 };
    struct msi_device *devices[DEVICES];
    int fd[DEVICES * EACH];
    for (unsigned d = 0; d < DEVICES; d++) {
        devices[d] = rig_device(&rig, MSIROUTE_KIND_PLAIN, EACH);
        for (unsigned i = 0, n = d * EACH; i < EACH; i++, n++) {
            entry(&viommu, n, 0, 0x20 + n);
            expect_ok(msi_vector_set(devices[d], i, HANDLE(n)));
            fd[n] = rig_eventfd(&rig, EFD_NONBLOCK);
            expect_ok(msi_vector_bind_eventfd(devices[d], i, fd[n], 0));
        }
    }
    for (unsigned n = 0; n < DEVICES * EACH; n++)
        entry(&viommu, n, 1, 0x20 + n);
    expect_eq(TABLE_WRITES(&rig, invalidate(&rig, 0, UINT64_MAX)), 1);
    for (unsigned n = 0; n < DEVICES * EACH; n += 5) {
        fires(&rig, fd[n]);
        expect_arrival(&rig, 1, 0x20 + n);
    }
    /* Inside a transaction too it is live when it returns; what the transaction staged still is not. */
    for (unsigned n = 0; n < DEVICES * EACH; n++)
        entry(&viommu, n, 0, 0x20 + n);
    expect_ok(msi_route_cache_begin(rig.cache));
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0xE0)));
    int staged = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_bind_eventfd(rig.dev, 0, staged, 0));
    expect_eq(TABLE_WRITES(&rig, invalidate(&rig, 0, UINT64_MAX - 1)), 1);
    expect(!has(rig.dev, 0, MSIROUTE_VECTOR_IN_KERNEL));
    fires(&rig, fd[9]);
    expect_arrival(&rig, 0, 0x29);
    expect_ok(msi_route_cache_commit(rig.cache));
    fires(&rig, staged);
    expect_arrival(&rig, 1, 0xE0);
    expect_quiet(&rig);
}

static void what_is_blocked_is_kept_and_live_again_later(enum host host)
{
    RIG(rig, host);
    struct viommu viommu = { 0 };
    entry(&viommu, 1, 0, 0x71);
    entry(&viommu, 2, 1, 0x72);
    use(&rig, &viommu);
    expect_ok(msi_vector_set(rig.dev, 0, HANDLE(1)));
    expect_ok(msi_vector_set(rig.dev, 1, HANDLE(2)));
    int fd = rig_bound(&rig, 1, 0);
    viommu.entries[1].present = viommu.entries[2].present = false;
    invalidate(&rig, 0, 10);
    expect_eq(rig_stats(&rig).irqfd_unbinds, 1);
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
    for (uint32_t i = 0; i < 2; i++) {
        expect(has(rig.dev, i, MSIROUTE_VECTOR_BLOCKED));
        expect(!has(rig.dev, i, MSIROUTE_VECTOR_LIVE));
    }
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_BLOCKED);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_BLOCKED);
    fires(&rig, fd);
    fires(&rig, fd);
    expect_eq(msi_vector_is_pending(rig.dev, 0), 1);
    expect_eq(msi_vector_is_pending(rig.dev, 1), 1);
    expect_quiet(&rig);
    /* Masked it is masked, whatever the vIOMMU thinks. */
    expect_ok(msi_vector_mask(rig.dev, 0));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    expect_ok(msi_vector_unmask(rig.dev, 0));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_BLOCKED);

    entry(&viommu, 1, 1, 0x73);
    entry(&viommu, 2, 0, 0x74);
    invalidate(&rig, 1, 2);
    expect_arrival(&rig, 1, 0x73);
    expect_arrival(&rig, 0, 0x74);
    expect(!has(rig.dev, 0, MSIROUTE_VECTOR_BLOCKED));
    expect(has(rig.dev, 1, MSIROUTE_VECTOR_LIVE));
    expect(has(rig.dev, 1, MSIROUTE_VECTOR_IN_KERNEL));
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x74);
    expect_quiet(&rig);
}

static void what_is_blocked_without_a_tag_is_tried_at_every_invalidation(enum host host)
{
    RIG(rig, host);
    struct viommu viommu = { 0 };
    viommu.entries[1].has_no_tag = true;
    use(&rig, &viommu);
    expect_ok(msi_vector_set(rig.dev, 0, HANDLE(1)));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_BLOCKED);
    invalidate(&rig, 300, 300);
    expect_eq(take_asked(&viommu), 2);
    entry(&viommu, 1, 1, 0x48);
    invalidate(&rig, 300, 300);
    expect_arrival(&rig, 1, 0x48);
    /* Now only by an invalidation of all. */
    entry(&viommu, 1, 0, 0x49);
    take_asked(&viommu);
    invalidate(&rig, 0, UINT64_MAX - 1);
    expect_eq(take_asked(&viommu), 0);
    invalidate(&rig, 0, UINT64_MAX);
    expect_delivers(&rig, 0, 0, 0x49);
    /* Another message, or none, is not blocked. */
    viommu.entries[1].present = false;
    invalidate(&rig, 0, UINT64_MAX);
    expect(has(rig.dev, 0, MSIROUTE_VECTOR_BLOCKED));
    expect_ok(msi_vector_clear(rig.dev, 0));
    expect(!has(rig.dev, 0, MSIROUTE_VECTOR_BLOCKED));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x4A)));
    expect_arrival(&rig, 0, 0x4A);
    expect_quiet(&rig);
}

static void messages_without_a_vector_are_translated_unless_they_are_already(enum host host)
{
    RIG(rig, host);
    struct viommu viommu = { 0 };
    entry(&viommu, 5, 1, 0x55);
    use(&rig, &viommu);
    expect_eq(msi_deliver_message(rig.cache, 0x99, HANDLE(5), 0), MSIROUTE_SENT);
    expect_arrival(&rig, 1, 0x55);
    expect_eq(viommu.requester, 0x99);
    expect_eq(msi_deliver_message(rig.cache, 0x99, HANDLE(6), 0), MSIROUTE_BLOCKED);
    entry(&viommu, 5, 0, 0x56);
    expect_eq(msi_deliver_message(rig.cache, 0x99, HANDLE(5), 0), MSIROUTE_SENT);
    expect_arrival(&rig, 0, 0x56);
    expect_eq(take_asked(&viommu), 3);
    expect_eq(msi_deliver_message(rig.cache, 0x99, TO(1, 0x57), 1), MSIROUTE_SENT);
    expect_arrival(&rig, 1, 0x57);
    expect_eq(msi_deliver_message(rig.cache, 0x99, 0x1000, 5, 0), -EINVAL);
    expect_eq(take_asked(&viommu), 0);
    expect_quiet(&rig);
}

static void a_device_may_stand_beside_the_viommu(enum host host)
{
    RIG(rig, host, .device_flags = MSIROUTE_DEVICE_NO_REMAP);
    struct viommu viommu = { 0 };
    use(&rig, &viommu);
    expect_ok(msi_vector_set(rig.dev, 0, 0xFEE00010, 0x20));
    expect_delivers(&rig, 0, 0, 0x20);
    invalidate(&rig, 0, UINT64_MAX);
    expect_eq(take_asked(&viommu), 0);
}

static void wide_destinations_are_taken_after_the_translation(enum host host)
{
    RIG(rig, host, .cpus = 1);
    if (host == ON_KVM && (!expect(vm_use_x2apic_ids(&rig.vm)) || !expect(vm_add_cpu(&rig.vm, 300)) ||
                           !expect(cpu_enter_x2apic(&rig.vm, 1))))
        return;
    expect_ok(msi_route_cache_set_addressing(rig.cache, MSIROUTE_X2APIC_IDS | MSIROUTE_EXT_DEST_ID));
    struct viommu viommu = { 0 };
    entry(&viommu, 1, 0, 0x42);
    use(&rig, &viommu);
    expect_ok(msi_vector_set(rig.dev, 0, HANDLE(1)));
    expect_delivers(&rig, 0, 0, 0x42);
    if (host == ON_KVM) {
        /* Destination 300, as a guest would write it. */
        expect_ok(msi_vector_set(rig.dev, 1, to_apic_15_bits(300), 0x43));
        expect_delivers(&rig, 1, 1, 0x43);
    }
    expect_quiet(&rig);
}

static void a_paused_cache_asks_nothing(enum host host)
{
    RIG(rig, host);
    struct viommu viommu = { 0 };
    entry(&viommu, 1, 0, 0x61);
    entry(&viommu, 2, 0, 0x62);
    use(&rig, &viommu);
    expect_ok(msi_vector_set(rig.dev, 0, HANDLE(1)));
    int fd = rig_bound(&rig, 0, 0);
    take_asked(&viommu);
    expect_ok(msi_route_cache_pause(rig.cache));
    expect_ok(msi_vector_set(rig.dev, 1, HANDLE(2)));
    entry(&viommu, 1, 1, 0x63);
    invalidate(&rig, 0, UINT64_MAX);
    fires(&rig, fd);
    expect_eq(msi_deliver(rig.dev, 1), MSIROUTE_PENDING);
    expect_eq(msi_deliver_message(rig.cache, 0, HANDLE(1), 0), -EAGAIN);
    expect_eq(take_asked(&viommu), 0);
    expect_quiet(&rig);
    expect_ok(msi_route_cache_resume(rig.cache));
    expect_eq(take_asked(&viommu), 2);
    expect_arrival(&rig, 1, 0x63);
    expect_arrival(&rig, 0, 0x62);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x63);
    expect_quiet(&rig);
}

static void a_guest_that_writes_its_table_has_it_translated_when_it_unmasks(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    struct viommu viommu = { 0 };
    entry(&viommu, 4, 1, 0x44);
    use(&rig, &viommu);
    expect_ok(msi_device_set_control(rig.dev, MSIROUTE_ENABLED));
    uint32_t words[] = { 0xFEE00090, 0, 0 };
    for (unsigned i = 0; i < 3; i++)
        expect_ok(msi_device_table_write(rig.dev, 16 + 4 * i, &words[i], 4));
    expect_eq(take_asked(&viommu), 0);
    expect_ok(msi_device_table_write(rig.dev, 16 + 12, &(uint32_t){ 0 }, 4));
    expect_eq(take_asked(&viommu), 1);
    expect_delivers(&rig, 1, 1, 0x44);
    /* Saved is what the guest wrote; restored, it is translated anew. */
    struct saved before = saved(rig.dev);
    expect_ok(msi_device_reset(rig.dev));
    entry(&viommu, 4, 0, 0x45);
    expect_ok(msi_device_load(rig.dev, before.bytes, before.size));
    expect_delivers(&rig, 1, 0, 0x45);
    struct saved after = saved(rig.dev);
    expect(is_same(&before, &after));
    expect_quiet(&rig);
}

static void another_requester_is_another_question(enum host host)
{
    RIG(rig, host);
    struct viommu viommu = { 0 };
    entry(&viommu, 1, 0, 0x61);
    use(&rig, &viommu);
    expect_ok(msi_vector_set(rig.dev, 0, HANDLE(1)));
    entry(&viommu, 1, 1, 0x62);
    expect_ok(msi_device_set_requester(rig.dev, 0x77));
    expect_eq(viommu.requester, 0x77);
    expect_delivers(&rig, 0, 1, 0x62);
    entry(&viommu, 1, 0, 0x63);
    expect_ok(msi_route_cache_invalidate(rig.cache, 0x77, 1, 1));
    expect_delivers(&rig, 0, 0, 0x63);
    expect_quiet(&rig);
}

static void pins_of_an_ioapic_in_user_space_are_translated(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP, .first_gsi = 24, .kind = MSIROUTE_KIND_PINS, .vectors = 24);
    struct viommu viommu = { 0 };
    entry(&viommu, 1, 0, 0x31);
    use(&rig, &viommu);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_vector_set(rig.dev, 9, HANDLE(1)))), 1);
    expect_delivers(&rig, 9, 0, 0x31);
    entry(&viommu, 1, 1, 0x32);
    expect_eq(TABLE_WRITES(&rig, invalidate(&rig, 1, 1)), 1);
    expect_delivers(&rig, 9, 1, 0x32);
    viommu.entries[1].present = false;
    expect_eq(TABLE_WRITES(&rig, invalidate(&rig, 1, 1)), 1);
    expect_eq(msi_deliver(rig.dev, 9), MSIROUTE_BLOCKED);
    expect_quiet(&rig);
}

struct told { unsigned times; uint32_t what, first, n; };

static void note(void *opaque, struct msi_device *dev, uint32_t what, uint32_t first, uint32_t n)
{
    (void)dev;
    struct told *told = opaque;
    *told = (struct told){ told->times + 1, what, first, n };
}

static void the_vmm_is_told_once_of_what_an_invalidation_changed(enum host host)
{
    RIG(rig, host);
    struct told told = { 0 };
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.vectors = 4;
    config.changed = note;
    config.opaque = &told;
    struct msi_device *dev = rig_device_of(&rig, &config);
    struct viommu viommu = { 0 };
    entry(&viommu, 1, 0, 0x31);
    entry(&viommu, 2, 0, 0x32);
    use(&rig, &viommu);
    expect_eq(told.times, 0);
    expect_ok(msi_vector_set(dev, 1, HANDLE(1)));
    expect_eq(told.times, 1);
    expect_ok(msi_vector_set(dev, 2, HANDLE(2)));
    expect_eq(told.times, 2);
    invalidate(&rig, 0, UINT64_MAX);
    expect_eq(told.times, 2);
    viommu.entries[2].present = false;
    invalidate(&rig, 0, UINT64_MAX);
    expect_eq(told.times, 3);
    expect_eq(told.what, MSIROUTE_CHANGED_VECTORS);
    expect(told.first == 2 && told.n == 1);
    entry(&viommu, 1, 1, 0x33);
    entry(&viommu, 2, 1, 0x34);
    invalidate(&rig, 0, UINT64_MAX);
    expect_eq(told.times, 4);
    expect(told.first == 1 && told.n == 2);
}

static void translate_may_deliver_but_change_nothing(enum host host)
{
    RIG(rig, host, .device_flags = MSIROUTE_DEVICE_NO_REMAP);
    struct msi_device *dev = rig_device(&rig, MSIROUTE_KIND_PLAIN, 2);
    struct viommu viommu = { .raises = rig.dev, .changes = dev };
    entry(&viommu, 1, 0, 0x35);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x36)));
    use(&rig, &viommu);
    expect_ok(msi_vector_set(dev, 0, HANDLE(1)));
    expect_eq(viommu.delivered, MSIROUTE_SENT);
    expect_eq(viommu.changed, -EDEADLK);
    expect_arrival(&rig, 1, 0x36);
    expect_eq(msi_deliver(dev, 0), MSIROUTE_SENT);
    expect_arrival(&rig, 0, 0x35);
    expect_quiet(&rig);
}

static void bad_input_is_refused(enum host host)
{
    RIG(rig, host);
    struct viommu viommu = { 0 };
    expect_eq(msi_route_cache_set_remap(NULL, translate, &viommu), -EINVAL);
    expect_eq(msi_route_cache_invalidate(NULL, 0, 0, 1), -EINVAL);
    /* Without a vIOMMU there is nothing to invalidate. */
    invalidate(&rig, 0, UINT64_MAX);
    use(&rig, &viommu);
    expect_eq(msi_route_cache_invalidate(rig.cache, 0, 2, 1), -EINVAL);
    expect_eq(msi_vector_set(rig.dev, 0, 0x1000, 0), -EINVAL);
    expect_eq(take_asked(&viommu), 0);
    /* No interrupt message is made of what is none. */
    viommu.babbles = true;
    entry(&viommu, 1, 0, 0x35);
    expect_ok(msi_vector_set(rig.dev, 0, HANDLE(1)));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_BLOCKED);
    expect_quiet(&rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, a_message_is_what_the_viommu_makes_of_it),
        TEST(EVERYWHERE, a_viommu_that_comes_or_goes_late_concerns_live_messages),
        TEST(EVERYWHERE, an_invalidation_retargets_in_place),
        TEST(EVERYWHERE, an_invalidation_asks_only_what_it_must),
        TEST(EVERYWHERE, an_invalidation_of_all_devices_is_one_table_write),
        TEST(EVERYWHERE, what_is_blocked_is_kept_and_live_again_later),
        TEST(EVERYWHERE, what_is_blocked_without_a_tag_is_tried_at_every_invalidation),
        TEST(EVERYWHERE, messages_without_a_vector_are_translated_unless_they_are_already),
        TEST(EVERYWHERE, a_device_may_stand_beside_the_viommu),
        TEST(EVERYWHERE, wide_destinations_are_taken_after_the_translation),
        TEST(EVERYWHERE, a_paused_cache_asks_nothing),
        TEST(EVERYWHERE, a_guest_that_writes_its_table_has_it_translated_when_it_unmasks),
        TEST(EVERYWHERE, another_requester_is_another_question),
        TEST(ON_KVM, pins_of_an_ioapic_in_user_space_are_translated),
        TEST(EVERYWHERE, the_vmm_is_told_once_of_what_an_invalidation_changed),
        TEST(EVERYWHERE, translate_may_deliver_but_change_nothing),
        TEST(EVERYWHERE, bad_input_is_refused),
    };
    return TAP_MAIN(tests);
}
