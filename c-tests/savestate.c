/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A device's state as bytes: saved and loaded; and what becomes of bytes that are no such state. Raw registers are in
 * export.c. */
#include <errno.h>

#include "rig.h"

#define LIVE      MSIROUTE_VECTOR_LIVE
#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL
#define VECTORS   4
#define BASE      0x60      /* vector v sends BASE + v to vCPU 1 */
#define HEADER    16        /* of a saved state: magic, version, kind, vectors, flags */

struct kind {
    const char *name;
    uint32_t kind, flags;
};
static const struct kind kinds[] = {
    { "plain", MSIROUTE_KIND_PLAIN, 0 },
    { "MSI-X", MSIROUTE_KIND_MSIX, 0 },
    { "MSI", MSIROUTE_KIND_MSI, 0 },
    { "MSI, 64-bit", MSIROUTE_KIND_MSI, MSIROUTE_DEVICE_MSI_64 },
    { "MSI, mask bits", MSIROUTE_KIND_MSI, MSIROUTE_DEVICE_MSI_MASK },
    { "MSI, 64-bit, mask bits", MSIROUTE_KIND_MSI, MSIROUTE_DEVICE_MSI_64 | MSIROUTE_DEVICE_MSI_MASK },
    { "pins", MSIROUTE_KIND_PINS, 0 },
};
/* Where pins 0 to 3 are not the kernel's own. */
#define FOR_EACH_KIND(it) \
    for (const struct kind *it = kinds; it < kinds + sizeof(kinds) / sizeof(kinds[0]); it++) \
        if (it->kind != MSIROUTE_KIND_PINS || host == ON_FAKE)
#define OF(it) .kind = (it)->kind, .device_flags = (it)->flags
#define MSIX   .kind = MSIROUTE_KIND_MSIX

static int load(struct msi_device *dev, const struct saved *s) { return msi_device_load(dev, s->bytes, s->size); }

/* ---- a device with something of everything ---- */

/* All four have messages, vector 1 is masked and pending. */
static void prepare(struct msi_device *dev, const struct kind *kind)
{
    switch (kind->kind) {
    case MSIROUTE_KIND_MSIX:
        guest_opens(dev, VECTORS, 1, BASE);
        expect_ok(table_write32(dev, entry_control(2), 0x1230));                /* reserved bits */
        expect_ok(table_write32(dev, entry_low(3), (uint32_t)to_apic(0)));      /* half a message */
        break;
    case MSIROUTE_KIND_MSI:
        expect_ok(msi_guest_sets(dev, kind->flags, to_apic(1), BASE));
        expect_ok(cap_write16(dev, PCI_MSI_FLAGS, msi_on(2)));
        expect_ok(cap_write16(dev, msi_data_at(kind->flags), 0x70));            /* half a message */
        break;
    default:
        for (uint32_t v = 0; v < VECTORS; v++)
            expect_ok(msi_vector_set(dev, v, TO(1, BASE + v)));
    }
    expect_ok(msi_vector_mask(dev, 1));
    expect_eq(msi_deliver(dev, 1), MSIROUTE_PENDING);
}

/* The rest of what `prepare` has begun. */
static void goes_on_as_prepared(struct rig *rig, const struct kind *kind)
{
    for (uint32_t v = 0; v < VECTORS; v += v ? 1 : 2)
        expect_delivers(rig, v, 1, BASE + v);
    expect_eq(msi_deliver(rig->dev, 1), MSIROUTE_PENDING);
    expect_quiet(rig);
    expect_ok(msi_vector_unmask(rig->dev, 1));
    expect_arrival(rig, 1, BASE + 1);
    if (kind->kind == MSIROUTE_KIND_MSIX) {
        expect_eq(table_read32(rig->dev, entry_control(2)), 0x1230);
        expect_eq(table_read32(rig->dev, entry_low(3)), (uint32_t)to_apic(0));
        expect_ok(table_write32(rig->dev, entry_data(3), 0x70));
        expect_delivers(rig, 3, 0, 0x70);
    } else if (kind->kind == MSIROUTE_KIND_MSI) {
        expect_eq(cap_read16(rig->dev, msi_data_at(kind->flags)), 0x70);
        expect_ok(cap_write32(rig->dev, PCI_MSI_ADDRESS_LO, (uint32_t)to_apic(0)));
        expect_delivers(rig, 3, 0, 0x73);
    }
    expect_quiet(rig);
}

/* ---- save and load ---- */

static struct saved saved_of(enum host host, const struct kind *kind, bool is_prepared)
{
    struct saved nothing = { 0 };
    __attribute__((cleanup(rig_close))) struct rig rig;
    if (!rig_open(&rig, host, &(struct rig_config){ OF(kind) }))
        return nothing;
    if (is_prepared)
        prepare(rig.dev, kind);
    return saved(rig.dev);
}

static struct saved a_saved(enum host host, const struct kind *kind) { return saved_of(host, kind, true); }

static void loads_elsewhere(enum host host, const struct kind *kind)
{
    struct saved state = a_saved(host, kind);
    RIG(rig, host, OF(kind), .first_gsi = 200);
    tap_context("%s", kind->name);
    expect_ok(load(rig.dev, &state));
    struct saved again = saved(rig.dev);
    expect(is_same(&state, &again));
    expect_quiet(&rig);
    goes_on_as_prepared(&rig, kind);
}

static void what_is_saved_loads_in_another_cache_with_other_GSIs(enum host host)
{
    FOR_EACH_KIND(kind)
        loads_elsewhere(host, kind);
}

static void into_a_device_in_use(enum host host, const struct kind *kind)
{
    struct saved state = a_saved(host, kind);
    RIG(rig, host, OF(kind), .first_gsi = 100);
    tap_context("%s", kind->name);
    if (kind->kind == MSIROUTE_KIND_MSI)
        expect_ok(BOTH(msi_guest_sets(rig.dev, kind->flags, to_apic(0), 0x90), cap_write16(rig.dev, PCI_MSI_FLAGS, msi_on(2))));
    if (kind->kind == MSIROUTE_KIND_MSIX)
        guest_opens(rig.dev, VECTORS, 0, 0x90);
    for (uint32_t v = 0; v < VECTORS && kind->kind != MSIROUTE_KIND_MSI && kind->kind != MSIROUTE_KIND_MSIX; v++)
        expect_ok(msi_vector_set(rig.dev, v, TO(0, 0x90 + v)));
    int moved = rig_bound(&rig, 0, 0), shut = rig_bound(&rig, 1, 0), other = rig_bound(&rig, 2, 0);
    expect_ok(msi_vector_mask(rig.dev, 2));
    expect_eq(msi_deliver(rig.dev, 2), MSIROUTE_PENDING);      /* not in the state: gone */
    expect_ok(load(rig.dev, &state));
    expect_quiet(&rig);
    fires(&rig, moved);
    expect_arrival(&rig, 1, BASE);
    fires(&rig, shut);
    expect_quiet(&rig);
    fires(&rig, other);
    expect_arrival(&rig, 1, BASE + 2);
    expect_eq(msi_vector_is_pending(rig.dev, 2), 0);
    expect(info_of(rig.dev, 0).flags & IN_KERNEL);
    expect(!(info_of(rig.dev, 1).flags & IN_KERNEL));
    goes_on_as_prepared(&rig, kind);
}

static void a_state_replaces_all_that_a_device_was(enum host host)
{
    FOR_EACH_KIND(kind)
        into_a_device_in_use(host, kind);
}

static void what_an_eventfd_has_counted_is_saved_and_stays_counted(enum host host)
{
    RIG(rig, host, MSIX);
    RIG(next, host, MSIX, .first_gsi = 50);
    guest_opens(rig.dev, 2, 1, BASE);
    int fd = rig_bound(&rig, 0, 0), other = rig_bound(&rig, 1, 0);
    expect_ok(msi_route_cache_pause(rig.cache));
    fires(&rig, fd);
    fires(&rig, fd);
    expect_eq(msi_deliver(rig.dev, 1), MSIROUTE_PENDING);
    struct saved state = saved(rig.dev), again = saved(rig.dev);
    expect(is_same(&state, &again));
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fd));
    expect_ok(msi_vector_unbind_eventfd(rig.dev, 1, other));

    /* There with the eventfd it is one interrupt; so it is without. */
    expect_ok(msi_route_cache_pause(next.cache));
    expect_ok(load(next.dev, &state));
    expect_ok(msi_vector_bind_eventfd(next.dev, 0, fd, 0));
    expect_eq(pba_read64(next.dev, 0), 3);
    again = saved(next.dev);
    expect(is_same(&state, &again));
    expect_ok(msi_route_cache_resume(next.cache));
    expect_arrival(&next, 1, BASE);
    expect_arrival(&next, 1, BASE + 1);
    expect_quiet(&next);
    expect_eq(pba_read64(next.dev, 0), 0);
    fires(&next, fd);
    expect_arrival(&next, 1, BASE);
    expect_ok(msi_vector_unbind_eventfd(next.dev, 0, fd));
    expect_eq(take_count(fd), 0);
}

static void loading_leaves_what_eventfds_have_counted(enum host host)
{
    RIG(rig, host, MSIX);
    struct saved fresh = saved(rig.dev);
    guest_opens(rig.dev, 1, 1, BASE);
    struct saved open = saved(rig.dev);
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(guest_masks(rig.dev, 0));
    add_to_eventfd(fd, 3);
    expect_ok(load(rig.dev, &fresh));
    expect_quiet(&rig);
    expect_eq(msi_vector_is_pending(rig.dev, 0), 1);
    expect_ok(load(rig.dev, &open));
    expect_arrival(&rig, 1, BASE);
    expect_quiet(&rig);
}

static void the_bus_master_bit_and_message_control_are_part_of_it(enum host host)
{
    RIG(rig, host, MSIX);
    struct msi_device *dev = rig_device(&rig, MSIROUTE_KIND_MSIX, VECTORS);
    for (uint32_t bits = 0; bits < 8; bits++) {
        uint32_t control = (bits & 1 ? MSIROUTE_ENABLED : 0) | (bits & 2 ? MSIROUTE_FUNCTION_MASKED : 0);
        expect_ok(msi_device_set_control(rig.dev, control));
        expect_ok(msi_device_set_bus_master(rig.dev, bits & 4));
        struct saved state = saved(rig.dev);
        expect_ok(load(dev, &state));
        expect_eq(msi_device_state(dev), control | (bits & 4 ? MSIROUTE_BUS_MASTER : 0));
    }
}

static void a_pending_vector_that_is_loaded_open_is_sent_once(enum host host)
{
    RIG(rig, host, MSIX);
    guest_opens(rig.dev, 1, 1, BASE);
    expect_ok(msi_route_cache_pause(rig.cache));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    struct saved state = saved(rig.dev);
    expect_eq(msi_vector_clear_pending(rig.dev, 0), 1);
    expect_ok(msi_route_cache_resume(rig.cache));
    expect_quiet(&rig);
    expect_ok(load(rig.dev, &state));
    expect_arrival(&rig, 1, BASE);
    expect_quiet(&rig);
    expect_eq(pba_read64(rig.dev, 0), 0);
}

/* ---- one write of the table ---- */

#define DEVICES 10
static void make_devices(struct rig *rig, struct msi_device *devices[DEVICES], struct saved states[DEVICES])
{
    for (unsigned d = 0; d < DEVICES; d++) {
        devices[d] = rig_device(rig, MSIROUTE_KIND_MSIX, VECTORS);
        guest_opens(devices[d], VECTORS, 0, 0x40 + d * VECTORS);
        states[d] = saved(devices[d]);
        expect_ok(msi_device_reset(devices[d]));
        for (unsigned v = 0; v < VECTORS; v++)
            expect_ok(msi_vector_bind_eventfd(devices[d], v, rig_eventfd(rig, EFD_NONBLOCK), 0));
    }
}

static void all_send(struct rig *rig)
{
    for (unsigned i = 0; i < DEVICES * VECTORS; i++) {
        fires(rig, rig->eventfds[i]);
        expect_arrival(rig, 0, 0x40 + i);
    }
}

static void loading_many_devices_in_a_transaction_is_one_table_write(enum host host)
{
    RIG(rig, host);
    struct msi_device *devices[DEVICES];
    struct saved states[DEVICES];
    make_devices(&rig, devices, states);
    expect_ok(msi_route_cache_begin(rig.cache));
    for (unsigned d = 0; d < DEVICES; d++)
        expect_ok(load(devices[d], &states[d]));
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_route_cache_commit(rig.cache))), 1);
    expect_eq(rig_stats(&rig).irqfd_binds, DEVICES * VECTORS);
    all_send(&rig);
}

static void loading_many_devices_while_paused_is_one_table_write_at_resume(enum host host)
{
    RIG(rig, host);
    struct msi_device *devices[DEVICES];
    struct saved states[DEVICES];
    make_devices(&rig, devices, states);
    expect_ok(msi_route_cache_pause(rig.cache));
    for (unsigned d = 0; d < DEVICES; d++)
        expect_ok(load(devices[d], &states[d]));
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_route_cache_resume(rig.cache))), 1);
    all_send(&rig);
}

static void loading_what_a_device_is_already_writes_no_table(enum host host)
{
    RIG(rig, host, MSIX);
    guest_opens(rig.dev, VECTORS, 1, BASE);
    int fd = rig_bound(&rig, 0, 0);
    struct saved state = saved(rig.dev);
    struct msi_route_cache_stats before = rig_stats(&rig), after;
    expect_ok(load(rig.dev, &state));
    after = rig_stats(&rig);
    expect(!memcmp(&before, &after, sizeof(before)));
    fires(&rig, fd);
    expect_arrival(&rig, 1, BASE);
}

/* ---- bytes that are no such state ---- */

/* Refused with this error, or, if that is 0, with any or taken as it stands: the device is one or the other, whole. */
static bool is_refused_or_taken(struct rig *rig, const struct saved *bytes, int want)
{
    struct saved before = saved(rig->dev);
    int result = load(rig->dev, bytes);
    struct saved after = saved(rig->dev);
    if (result == 0)
        return expect_eq(want, 0) && expect(is_same(bytes, &after));
    bool is_right = want ? expect_eq(result, want) : expect(result == -EINVAL || result == -ENOTSUP);
    return is_right && expect(is_same(&before, &after));
}

static void cut_off_or_prolonged(enum host host, const struct kind *kind)
{
    struct saved state = a_saved(host, kind), bytes = state;
    RIG(rig, host, OF(kind));
    prepare(rig.dev, kind);
    tap_context("%s", kind->name);
    for (bytes.size = 0; bytes.size < state.size; bytes.size++)
        is_refused_or_taken(&rig, &bytes, -EINVAL);
    for (bytes.size = state.size + 1; bytes.size < sizeof(bytes.bytes); bytes.size++)
        is_refused_or_taken(&rig, &bytes, -EINVAL);
    expect_eq(msi_device_load(rig.dev, NULL, state.size), -EINVAL);
    expect_eq(msi_device_load(rig.dev, state.bytes, SIZE_MAX), -EINVAL);
    expect_eq(msi_device_save(rig.dev, bytes.bytes, state.size - 1), -EINVAL);
    expect_eq(msi_device_save(rig.dev, bytes.bytes, state.size + 1), -EINVAL);
    expect_eq(msi_device_save(rig.dev, NULL, state.size), -EINVAL);
    goes_on_as_prepared(&rig, kind);
}

static void a_state_of_another_length_is_refused(enum host host)
{
    FOR_EACH_KIND(kind)
        cut_off_or_prolonged(host, kind);
}

/* Paused, so that what is pending stays so. */
static void every_byte_changed(enum host host, const struct kind *kind, bool is_prepared)
{
    struct saved state = saved_of(host, kind, is_prepared);
    RIG(rig, host, OF(kind), .cache_flags = MSIROUTE_CACHE_PAUSED);
    rig_bound(&rig, 0, 0);
    unsigned bad = 0;
    for (size_t at = 0; at < state.size && bad < 3; at++) {
        for (unsigned change = 1; change < 256; change++) {
            struct saved bytes = state;
            bytes.bytes[at] ^= (uint8_t)change;
            tap_context("%s%s, byte %zu changed by %#x", is_prepared ? "" : "fresh ", kind->name, at, change);
            if (!is_refused_or_taken(&rig, &bytes, 0)) {
                bad++;
                break;
            }
        }
    }
    tap_context("%s", kind->name);
    expect_ok(load(rig.dev, &state));
    expect_ok(msi_route_cache_resume(rig.cache));
    if (is_prepared)
        goes_on_as_prepared(&rig, kind);
}

static void a_state_with_any_byte_changed_is_refused_or_taken_as_it_stands(enum host host)
{
    FOR_EACH_KIND(kind) {
        every_byte_changed(host, kind, true);
        every_byte_changed(host, kind, false);
    }
}

static uint32_t noise = 1;
static uint32_t random_below(uint32_t n)
{
    noise = noise * 1664525 + 1013904223;
    return (noise >> 8) % n;
}

/* Served, not paused: messages go where they say, and must be messages. */
static void random_bytes(enum host host, const struct kind *kind)
{
    struct saved state = a_saved(host, kind);
    RIG(rig, host, OF(kind));
    int fd = rig_bound(&rig, 1, 0);
    for (unsigned i = 0; i < 3000; i++) {
        struct saved bytes = state, after;
        tap_context("%s, turn %u", kind->name, i);
        for (unsigned n = 0; n < 1 + i % 9; n++) {
            uint32_t spared = i % 4 ? HEADER : 0;
            bytes.bytes[spared + random_below((uint32_t)state.size - spared)] ^= (uint8_t)(1 << random_below(8));
        }
        if (load(rig.dev, &bytes) == 0) {
            after = saved(rig.dev);
            expect_ok(load(rig.dev, &after));
        }
        fires(&rig, fd);
        for (uint32_t v = 0; v < VECTORS; v++)
            expect(msi_deliver(rig.dev, v) >= 0);
    }
    tap_context("%s", kind->name);
    expect_ok(msi_device_reset(rig.dev));
    expect_ok(load(rig.dev, &state));
    for (unsigned x = 0; x < 256; x++)
        rig_arrivals(&rig, 0, x), rig_arrivals(&rig, 1, x);
    goes_on_as_prepared(&rig, kind);
}

static void random_bytes_do_no_harm(enum host host)
{
    FOR_EACH_KIND(kind)
        random_bytes(host, kind);
}

static void a_state_of_another_kind_or_number_of_vectors_or_version_is_refused(enum host host)
{
    FOR_EACH_KIND(kind) {
        RIG(rig, host, OF(kind));
        prepare(rig.dev, kind);
        FOR_EACH_KIND(other) {
            struct saved state = a_saved(host, other);
            tap_context("%s of %s", kind->name, other->name);
            if (other != kind)
                is_refused_or_taken(&rig, &state, -EINVAL);
        }
        struct saved state = saved(rig.dev);
        tap_context("%s", kind->name);
        state.bytes[8] = 2;     /* vectors */
        is_refused_or_taken(&rig, &state, -EINVAL);
        state.bytes[8] = 8;
        is_refused_or_taken(&rig, &state, -EINVAL);
        state.bytes[8] = VECTORS;
        state.bytes[4] = 2;     /* version */
        is_refused_or_taken(&rig, &state, -ENOTSUP);
        state.bytes[4] = 0;
        is_refused_or_taken(&rig, &state, -ENOTSUP);
        state.bytes[4] = 1;
        is_refused_or_taken(&rig, &state, 0);
    }
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, what_is_saved_loads_in_another_cache_with_other_GSIs),
        TEST(EVERYWHERE, a_state_replaces_all_that_a_device_was),
        TEST(EVERYWHERE, what_an_eventfd_has_counted_is_saved_and_stays_counted),
        TEST(EVERYWHERE, loading_leaves_what_eventfds_have_counted),
        TEST(ON_FAKE, the_bus_master_bit_and_message_control_are_part_of_it),
        TEST(EVERYWHERE, a_pending_vector_that_is_loaded_open_is_sent_once),
        TEST(EVERYWHERE, loading_many_devices_in_a_transaction_is_one_table_write),
        TEST(EVERYWHERE, loading_many_devices_while_paused_is_one_table_write_at_resume),
        TEST(EVERYWHERE, loading_what_a_device_is_already_writes_no_table),
        TEST(ON_FAKE, a_state_of_another_length_is_refused),
        TEST(ON_FAKE, a_state_with_any_byte_changed_is_refused_or_taken_as_it_stands),
        TEST(ON_FAKE, random_bytes_do_no_harm),
        TEST(ON_FAKE, a_state_of_another_kind_or_number_of_vectors_or_version_is_refused),
    };
    return TAP_MAIN(tests);
}
