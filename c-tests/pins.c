/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* An IOAPIC in user space (split irqchip): its pins own GSIs, and the kernel tells of the EOIs of the level-triggered. */
#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "guest.h"
#include "rig.h"

#define PINS  24
#define LEVEL (1u << 15)    /* message data: trigger mode */
#define ASSERT (1u << 14)

static struct msi_device *new_pins(struct msi_route_cache *cache, uint32_t first, uint32_t n)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_device *dev = NULL;
    config.kind = MSIROUTE_KIND_PINS;
    config.vectors = n;
    config.first_pin = first;
    config.name = "ioapic";
    expect_ok(msi_device_new(cache, &config, &dev));
    return dev;
}

static bool in_table(struct rig *rig, uint32_t gsi, unsigned cpu, unsigned vector)
{
    uint64_t address;
    uint32_t data;
    return fake_route(&rig->fake, gsi, &address, &data) && address == to_apic(cpu) && data == vector;
}

static void a_pin_is_in_the_table_while_it_has_a_message(enum host host)
{
    RIG(rig, host);
    struct msi_device *pins = new_pins(rig.cache, 0, PINS);
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_vector_set(pins, 5, TO(1, 0x41)))), 1);
    expect(in_table(&rig, 5, 1, 0x41));
    expect_eq(info_of(pins, 5).gsi, 5);
    expect_ok(msi_vector_mask(pins, 5));
    expect(in_table(&rig, 5, 1, 0x41));
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_vector_set(pins, 5, TO(0, 0x42)))), 1);
    expect(in_table(&rig, 5, 0, 0x42));
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_vector_set(pins, 5, TO(0, 0x42)))), 0);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_vector_clear(pins, 5))), 1);
    expect_eq(fake_msi_routes(&rig.fake), 0);
    expect_eq(info_of(pins, 5).gsi, MSIROUTE_ANY_GSI);
    msi_device_free(pins);
}

static void pins_with_the_same_message_have_a_route_each(enum host host)
{
    RIG(rig, host);
    struct msi_device *pins = new_pins(rig.cache, 0, PINS);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    int fd = rig_bound(&rig, 0, 0);
    expect_eq(info_of(rig.dev, 0).gsi, 24);
    expect_ok(msi_vector_set(pins, 3, TO(1, 0x41)));
    expect_ok(msi_vector_set(pins, 4, TO(1, 0x41)));
    expect(in_table(&rig, 3, 1, 0x41) && in_table(&rig, 4, 1, 0x41) && in_table(&rig, 24, 1, 0x41));
    expect_ok(msi_vector_clear(pins, 3));
    expect(!in_table(&rig, 3, 1, 0x41) && in_table(&rig, 4, 1, 0x41) && in_table(&rig, 24, 1, 0x41));
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    msi_device_free(pins);
}

static void a_transaction_writes_all_pins_at_once(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP);
    struct msi_device *pins = new_pins(rig.cache, 0, PINS);
    uint64_t before = rig_stats(&rig).table_writes;
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned i = 0; i < PINS; i++)
        expect_ok(msi_vector_set(pins, i, TO(1, 0x41 + i)));
    expect_eq(rig_stats(&rig).table_writes, before);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_eq(rig_stats(&rig).table_writes, before + 1);
    expect_eq(rig_stats(&rig).routes, PINS);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_device_reset(pins))), 1);
    expect_eq(rig_stats(&rig).routes, 0);
    for (unsigned i = 0; i < PINS; i++)
        expect_ok(msi_vector_set(pins, i, TO(1, 0x41 + i)));
    expect_eq(TABLE_WRITES(&rig, msi_device_free(pins)), 1);
    expect_eq(rig_stats(&rig).routes, 0);
}

static void a_pin_delivers_and_takes_eventfds_like_any_vector(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP);
    struct msi_device *pins = new_pins(rig.cache, 0, PINS);
    int fd = rig_eventfd(&rig, EFD_NONBLOCK);
    expect_ok(msi_vector_bind_eventfd(pins, 7, fd, 0));
    fires(&rig, fd);
    expect_eq(msi_vector_is_pending(pins, 7), 1);
    expect_ok(msi_vector_set(pins, 7, TO(1, 0x41)));
    expect_arrival(&rig, 1, 0x41);
    expect(info_of(pins, 7).flags & MSIROUTE_VECTOR_IN_KERNEL);
    expect_eq(msi_deliver(pins, 7), MSIROUTE_SENT);
    expect_arrival(&rig, 1, 0x41);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x41);
    expect_ok(msi_vector_set(pins, 7, TO(0, 0x42)));
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x42);
    expect_ok(msi_vector_mask(pins, 7));
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_ok(msi_vector_unmask(pins, 7));
    expect_arrival(&rig, 0, 0x42);
    expect_ok(msi_vector_clear(pins, 7));
    fires(&rig, fd);
    expect_quiet(&rig);
    expect_ok(msi_vector_unbind_eventfd(pins, 7, fd));
    msi_device_free(pins);
}

static void pins_belong_to_one_owner(enum host host)
{
    RIG(rig, host);
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct kvm_irq_routing_entry fixed = { .gsi = 3, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee00000, .data = 0x50 } };
    struct msi_device *dev = NULL;
    struct msi_device *pins = new_pins(rig.cache, 0, 8);
    config.kind = MSIROUTE_KIND_PINS;
    config.vectors = 8;
    config.first_pin = 7;
    expect_eq(msi_device_new(rig.cache, &config, &dev), -EBUSY);
    expect_eq(msi_route_cache_set_fixed(rig.cache, &fixed, 1), -EBUSY);
    config.first_pin = 4090;
    expect_eq(msi_device_new(rig.cache, &config, &dev), -EINVAL);
    config.first_pin = UINT32_MAX;
    expect_eq(msi_device_new(rig.cache, &config, &dev), -EINVAL);
    config.first_pin = 8;
    expect_ok(msi_device_new(rig.cache, &config, &dev));
    msi_device_free(dev);
    msi_device_free(pins);
    pins = new_pins(rig.cache, 0, 16);
    msi_device_free(pins);
    expect_ok(msi_route_cache_set_fixed(rig.cache, &fixed, 1));
    config.first_pin = 0;
    expect_eq(msi_device_new(rig.cache, &config, &dev), -EBUSY);
}

static void the_kernels_own_pins_are_not_for_the_taking(enum host host)
{
    RIG(rig, host, .irqchip = FULL_IRQCHIP);
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_device *dev = NULL;
    config.kind = MSIROUTE_KIND_PINS;
    config.vectors = PINS;
    expect_eq(msi_device_new(rig.cache, &config, &dev), -EBUSY);
    expect(!dev);
}

static void a_refused_pin_is_told_and_tried_again(enum host host)
{
    RIG(rig, host);
    struct msi_device *pins = new_pins(rig.cache, 0, PINS);
    fake_fault(&rig.fake, FAKE_SET_ROUTES, 1, ENOMEM, true);
    expect_eq(msi_vector_set(pins, 2, TO(1, 0x41)), -ENOMEM);
    expect_eq(info_of(pins, 2).data, 0x41);
    expect(info_of(pins, 2).flags & MSIROUTE_VECTOR_UNSERVED);
    expect_eq(info_of(pins, 2).error, -ENOMEM);
    expect_eq(rig_stats(&rig).unserved_vectors, 1);
    fake_faultless(&rig.fake);
    expect_ok(msi_route_cache_commit(rig.cache));
    expect(in_table(&rig, 2, 1, 0x41));
    expect_eq(rig_stats(&rig).unserved_vectors, 0);
    expect_eq(info_of(pins, 2).error, 0);
    msi_device_free(pins);
}

/* ---- in a guest ---- */

static void level_triggered_pins_get_their_EOI_exits(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP, .cpus = 2);
    struct guest guest;
    if (!guest_open(&guest, &rig.vm))
        return;
    struct msi_device *pins = new_pins(rig.cache, 0, PINS);
    expect_ok(msi_vector_set(pins, 4, to_apic(0), 0x41 | LEVEL | ASSERT));
    expect_ok(msi_vector_set(pins, 9, to_apic(1), 0x52 | LEVEL | ASSERT));
    /* Edge: no EOI exit. But they wake the vCPU, and some hosts leave for an EOI only then. */
    expect_ok(msi_vector_set(pins, 5, to_apic(0), 0x43));
    expect_ok(msi_vector_set(pins, 6, to_apic(1), 0x43));
    guest_start(&guest);
    for (uint32_t i = 1; i <= 20; i++) {
        expect_eq(msi_deliver(pins, 4), MSIROUTE_SENT);
        guest_reaches(&guest, 0, 0x41, i);
        struct kvm_irq_level line = { .irq = 9, .level = 1 };      /* past the library, as a VMM may */
        expect_ok(ioctl(rig.vm.fd, KVM_IRQ_LINE, &line));
        guest_reaches(&guest, 1, 0x52, i);
        for (unsigned cpu = 0; cpu < 2; cpu++) {
            expect_eq(msi_deliver(pins, 5 + cpu), MSIROUTE_SENT);
            guest_reaches(&guest, cpu, 0x43, i);
        }
    }
    nap_ms(20);
    guest_stop(&guest);
    expect_eq(atomic_load(&guest.eois[0x41]), 20);
    expect_eq(atomic_load(&guest.eois[0x52]), 20);
    expect_eq(atomic_load(&guest.eois[0x43]), 0);
    msi_device_free(pins);
    guest_close(&guest);
}

/* ---- threads ---- */

struct changer {
    struct msi_device *pins;
    unsigned first;
};

static void *change(void *opaque)
{
    struct changer *changer = opaque;
    for (unsigned i = 0; i < 300; i++)
        expect_ok(msi_vector_set(changer->pins, 0, TO(1, changer->first + i % 64)));
    return NULL;
}

static void two_threads_change_a_pin_and_the_table_ends_with_the_last(enum host host)
{
    RIG(rig, host);
    struct msi_device *pins = new_pins(rig.cache, 0, 1);
    for (unsigned round = 0; round < 20; round++) {
        struct changer changers[2] = { { pins, 32 }, { pins, 128 } };
        pthread_t threads[2];
        for (unsigned i = 0; i < 2; i++)
            expect_ok(pthread_create(&threads[i], NULL, change, &changers[i]));
        for (unsigned i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        expect(in_table(&rig, 0, 1, info_of(pins, 0).data));
    }
    msi_device_free(pins);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_FAKE, a_pin_is_in_the_table_while_it_has_a_message),
        TEST(ON_FAKE, pins_with_the_same_message_have_a_route_each),
        TEST(ON_KVM | ON_FAKE, a_transaction_writes_all_pins_at_once),
        TEST(ON_KVM | ON_FAKE, a_pin_delivers_and_takes_eventfds_like_any_vector),
        TEST(ON_FAKE, pins_belong_to_one_owner),
        TEST(ON_KVM | ON_MODEL, the_kernels_own_pins_are_not_for_the_taking),
        TEST(ON_FAKE, a_refused_pin_is_told_and_tried_again),
        TEST(ON_FAKE, two_threads_change_a_pin_and_the_table_ends_with_the_last),
        TEST(ON_KVM, level_triggered_pins_get_their_EOI_exits),
    };
    return TAP_MAIN(tests);
}
