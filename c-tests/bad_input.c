/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Arguments that are wrong: a clear error each, and nothing has changed. Structs and descriptors that are wrong have
 * files of their own. */
#include <errno.h>
#include <linux/kvm.h>

#include "rig.h"

/* ---- what must not change ---- */

struct state {
    struct msi_vector_info vectors[4];
    struct msi_route_cache_stats stats;
    uint32_t device;
};

static struct state state_of(struct rig *rig)
{
    struct state state = { .stats = rig_stats(rig), .device = msi_device_state(rig->dev) };
    for (uint32_t i = 0; i < 4; i++)
        state.vectors[i] = info_of(rig->dev, i);
    return state;
}

struct mistake {
    const char *what;
    int want;
    int (*make)(void *rig);
};

static void make_mistakes(enum host host, const struct mistake *mistakes, size_t n)
{
    RIG(rig, host);
    rig_device(&rig, MSIROUTE_KIND_MSIX, 4);        /* devices[1], for what plain ones have not */
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    rig_bound(&rig, 0, 0);
    struct state before = state_of(&rig);
    for (size_t i = 0; i < n; i++) {
        tap_context("%s", mistakes[i].what);
        expect_refused(mistakes[i].want, mistakes[i].make, &rig);
        struct state after = state_of(&rig);
        expect(!memcmp(&before, &after, sizeof(before)));
    }
    tap_context("afterwards");
    expect_delivers(&rig, 0, 1, 0x41);
    fires(&rig, rig.eventfds[0]);
    expect_arrival(&rig, 1, 0x41);
    expect_quiet(&rig);
}

/* A list of mistakes is X(name, error, expression with `rig`), made into functions and a table of them. */
#define MISTAKE_FUNCTION(name, want, ...) \
    static int name(void *opaque) { struct rig *rig = opaque; (void)rig; return (__VA_ARGS__); }
#define MISTAKE_ENTRY(name, want, ...) { #name, want, name },
#define MISTAKES(LIST, test) \
    LIST(MISTAKE_FUNCTION) \
    static void test(enum host host) \
    { \
        static const struct mistake mistakes[] = { LIST(MISTAKE_ENTRY) }; \
        make_mistakes(host, mistakes, sizeof(mistakes) / sizeof(mistakes[0])); \
    }

/* ---- handles and pointers ---- */

#define NO_DEVICE ((struct msi_device *)NULL)
#define NO_CACHE  ((struct msi_route_cache *)NULL)
#define SKEWED(pointer) ((void *)((char *)(pointer) + 1))

static struct msi_route_cache_config cache_config = MSIROUTE_CACHE_CONFIG_INIT;
static struct msi_device_config device_config = { .size = sizeof(device_config), .vectors = 1 };
static struct msi_device *new_device;
static struct msi_route_cache *new_cache;
static struct msi_vector_info vector_info = MSIROUTE_VECTOR_INFO_INIT;
static struct msi_route_cache_stats cache_stats = MSIROUTE_STATS_INIT;
static struct kvm_irq_routing_entry route = { .gsi = 1, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { .irqchip = 2, .pin = 1 } };

#define NULL_AND_SKEWED(X, name, call) \
    X(name##_of_NULL, -EINVAL, call(NULL)) \
    X(name##_of_a_misaligned_handle, -EINVAL, call(SKEWED(rig->dev)))
#define NULL_AND_SKEWED_CACHE(X, name, call) \
    X(name##_of_NULL, -EINVAL, call(NULL)) \
    X(name##_of_a_misaligned_handle, -EINVAL, call(SKEWED(rig->cache)))

#define DELIVER(dev)          msi_deliver(dev, 0)
#define SET(dev)              msi_vector_set(dev, 0, TO(0, 0x42))
#define CLEAR(dev)            msi_vector_clear(dev, 0)
#define MASK(dev)             msi_vector_mask(dev, 0)
#define UNMASK(dev)           msi_vector_unmask(dev, 0)
#define IS_PENDING(dev)       msi_vector_is_pending(dev, 0)
#define CLEAR_PENDING(dev)    msi_vector_clear_pending(dev, 0)
#define BIND(dev)             msi_vector_bind_eventfd(dev, 0, rig->eventfds[0], 0)
#define UNBIND(dev)           msi_vector_unbind_eventfd(dev, 0, -1)
#define INFO(dev)             msi_vector_info(dev, 0, &vector_info)
#define SET_CONTROL(dev)      msi_device_set_control(dev, 0)
#define SET_BUS_MASTER(dev)   msi_device_set_bus_master(dev, 0)
#define SET_REQUESTER(dev)    msi_device_set_requester(dev, 1)
#define CLOSE(dev)            msi_device_close(dev)
#define RESET(dev)            msi_device_reset(dev)
static uint8_t buffer[512];
#define TABLE_READ(dev)       msi_device_table_read(dev, 0, buffer, 4)
#define TABLE_WRITE(dev)      msi_device_table_write(dev, 0, buffer, 4)
#define PBA_READ(dev)         msi_device_pba_read(dev, 0, buffer, 8)
#define PBA_WRITE(dev)        msi_device_pba_write(dev, 0, buffer, 8)
#define CONFIG_READ(dev)      msi_device_config_read(dev, CAP, buffer, 4)
#define CONFIG_WRITE(dev)     msi_device_config_write(dev, CAP, buffer, 4)
#define SAVE(device)          msi_device_save(device, buffer, msi_device_save_size(rig->dev))
#define LOAD(device)          msi_device_load(device, buffer, msi_device_save_size(rig->dev))
#define EXPORT(dev)           msi_device_export(dev, NULL, 0, NULL, 0, NULL, 0)
#define IMPORT(dev)           msi_device_import(dev, NULL, 0, NULL, 0, NULL, 0)
#define BEGIN(cache)          msi_route_cache_begin(cache)
#define COMMIT(cache)         msi_route_cache_commit(cache)
#define PAUSE(cache)          msi_route_cache_pause(cache)
#define RESUME(cache)         msi_route_cache_resume(cache)
#define STATS(cache)          msi_route_cache_stats(cache, &cache_stats)
#define SET_FIXED(cache)      msi_route_cache_set_fixed(cache, NULL, 0)
#define SET_ADDRESSING(cache) msi_route_cache_set_addressing(cache, 0)
#define SEND(cache)           msi_deliver_message(cache, 0, TO(0, 0x42), 0)
#define NEW_DEVICE(cache)     msi_device_new(cache, &device_config, &new_device)

#define HANDLES(X) \
    NULL_AND_SKEWED(X, deliver, DELIVER) \
    NULL_AND_SKEWED(X, set, SET) \
    NULL_AND_SKEWED(X, clear, CLEAR) \
    NULL_AND_SKEWED(X, mask, MASK) \
    NULL_AND_SKEWED(X, unmask, UNMASK) \
    NULL_AND_SKEWED(X, is_pending, IS_PENDING) \
    NULL_AND_SKEWED(X, clear_pending, CLEAR_PENDING) \
    NULL_AND_SKEWED(X, bind, BIND) \
    NULL_AND_SKEWED(X, unbind, UNBIND) \
    NULL_AND_SKEWED(X, info, INFO) \
    NULL_AND_SKEWED(X, set_control, SET_CONTROL) \
    NULL_AND_SKEWED(X, set_bus_master, SET_BUS_MASTER) \
    NULL_AND_SKEWED(X, set_requester, SET_REQUESTER) \
    NULL_AND_SKEWED(X, close, CLOSE) \
    NULL_AND_SKEWED(X, reset, RESET) \
    NULL_AND_SKEWED(X, table_read, TABLE_READ) \
    NULL_AND_SKEWED(X, table_write, TABLE_WRITE) \
    NULL_AND_SKEWED(X, pba_read, PBA_READ) \
    NULL_AND_SKEWED(X, pba_write, PBA_WRITE) \
    NULL_AND_SKEWED(X, config_read, CONFIG_READ) \
    NULL_AND_SKEWED(X, config_write, CONFIG_WRITE) \
    NULL_AND_SKEWED(X, save, SAVE) \
    NULL_AND_SKEWED(X, load, LOAD) \
    NULL_AND_SKEWED(X, export, EXPORT) \
    NULL_AND_SKEWED(X, import, IMPORT) \
    NULL_AND_SKEWED_CACHE(X, begin, BEGIN) \
    NULL_AND_SKEWED_CACHE(X, commit, COMMIT) \
    NULL_AND_SKEWED_CACHE(X, pause, PAUSE) \
    NULL_AND_SKEWED_CACHE(X, resume, RESUME) \
    NULL_AND_SKEWED_CACHE(X, stats, STATS) \
    NULL_AND_SKEWED_CACHE(X, set_fixed, SET_FIXED) \
    NULL_AND_SKEWED_CACHE(X, set_addressing, SET_ADDRESSING) \
    NULL_AND_SKEWED_CACHE(X, deliver_message, SEND) \
    NULL_AND_SKEWED_CACHE(X, device_new, NEW_DEVICE)
MISTAKES(HANDLES, handles_that_are_NULL_or_misaligned)

#define POINTERS(X) \
    X(no_info, -EINVAL, msi_vector_info(rig->dev, 0, NULL)) \
    X(misaligned_info, -EINVAL, msi_vector_info(rig->dev, 0, SKEWED(&vector_info))) \
    X(no_stats, -EINVAL, msi_route_cache_stats(rig->cache, NULL)) \
    X(misaligned_stats, -EINVAL, msi_route_cache_stats(rig->cache, SKEWED(&cache_stats))) \
    X(no_device_config, -EINVAL, msi_device_new(rig->cache, NULL, &new_device)) \
    X(misaligned_device_config, -EINVAL, msi_device_new(rig->cache, SKEWED(&device_config), &new_device)) \
    X(no_place_for_the_device, -EINVAL, msi_device_new(rig->cache, &device_config, NULL)) \
    X(misaligned_place_for_the_device, -EINVAL, msi_device_new(rig->cache, &device_config, SKEWED(&new_device))) \
    X(no_cache_config, -EINVAL, msi_route_cache_new(NULL, &new_cache)) \
    X(misaligned_cache_config, -EINVAL, msi_route_cache_new(SKEWED(&cache_config), &new_cache)) \
    X(no_place_for_the_cache, -EINVAL, msi_route_cache_new(&cache_config, NULL)) \
    X(misaligned_place_for_the_cache, -EINVAL, msi_route_cache_new(&cache_config, SKEWED(&new_cache))) \
    X(no_table_to_write_but_a_length, -EINVAL, msi_device_table_write(rig->devices[1], 0, NULL, 4)) \
    X(no_place_for_the_table, -EINVAL, msi_device_table_read(rig->devices[1], 0, NULL, 4)) \
    X(no_PBA_to_write_but_a_length, -EINVAL, msi_device_pba_write(rig->devices[1], 0, NULL, 8)) \
    X(no_place_for_the_PBA, -EINVAL, msi_device_pba_read(rig->devices[1], 0, NULL, 8)) \
    X(no_config_space_to_write_but_a_length, -EINVAL, msi_device_config_write(rig->devices[1], CAP, NULL, 4)) \
    X(no_place_for_config_space, -EINVAL, msi_device_config_read(rig->devices[1], CAP, NULL, 4)) \
    X(a_table_write_of_half_the_address_space, -EINVAL, msi_device_table_write(rig->devices[1], 0, buffer, SIZE_MAX / 2 + 1)) \
    X(a_table_read_of_the_address_space, -EINVAL, msi_device_table_read(rig->devices[1], 0, buffer, SIZE_MAX)) \
    X(a_config_write_of_the_address_space, -EINVAL, msi_device_config_write(rig->devices[1], CAP, buffer, SIZE_MAX)) \
    X(no_state_to_load_but_a_length, -EINVAL, msi_device_load(rig->dev, NULL, msi_device_save_size(rig->dev))) \
    X(no_place_for_the_state, -EINVAL, msi_device_save(rig->dev, NULL, msi_device_save_size(rig->dev))) \
    X(no_place_for_an_exported_table, -EINVAL, msi_device_export(rig->devices[1], NULL, 0, NULL, 64, NULL, 0)) \
    X(no_table_to_import_but_a_length, -EINVAL, msi_device_import(rig->devices[1], NULL, 0, NULL, 64, NULL, 0)) \
    X(no_entries_but_a_number_of_them, -EINVAL, msi_route_cache_set_fixed(rig->cache, NULL, 1)) \
    X(misaligned_entries, -EINVAL, msi_route_cache_set_fixed(rig->cache, SKEWED(&route), 1))
MISTAKES(POINTERS, other_pointers_that_are_NULL_or_misaligned)

/* ---- numbers ---- */

static int device_of(struct rig *rig, struct msi_device_config config)
{
    config.size = sizeof(config);
    new_device = rig->dev;
    int result = msi_device_new(rig->cache, &config, &new_device);
    expect(new_device == NULL);     /* the result of a failure */
    return result;
}
#define DEVICE(...) device_of(rig, (struct msi_device_config){ __VA_ARGS__ })

static int device_with(struct rig *rig, uint32_t kind, uint32_t vectors, uint32_t flags)
{
    return DEVICE(.kind = kind, .vectors = vectors, .flags = flags);
}

static int fixed_routes(struct rig *rig, size_t n)
{
    static struct kvm_irq_routing_entry entries[5000];
    for (size_t i = 0; i < 5000; i++)
        entries[i] = (struct kvm_irq_routing_entry){ .gsi = (uint32_t)(i % 4096), .type = KVM_IRQ_ROUTING_IRQCHIP };
    return msi_route_cache_set_fixed(rig->cache, entries, n);
}

#define BAD_FLAG (1u << 31)
#define NUMBERS(X) \
    X(deliver_past_the_last, -EINVAL, msi_deliver(rig->dev, 4)) \
    X(deliver_far_past_the_last, -EINVAL, msi_deliver(rig->dev, UINT32_MAX)) \
    X(set_past_the_last, -EINVAL, msi_vector_set(rig->dev, 4, TO(0, 0x42))) \
    X(clear_past_the_last, -EINVAL, msi_vector_clear(rig->dev, 4)) \
    X(mask_past_the_last, -EINVAL, msi_vector_mask(rig->dev, UINT32_MAX)) \
    X(unmask_past_the_last, -EINVAL, msi_vector_unmask(rig->dev, 4)) \
    X(is_pending_past_the_last, -EINVAL, msi_vector_is_pending(rig->dev, 4)) \
    X(clear_pending_past_the_last, -EINVAL, msi_vector_clear_pending(rig->dev, 4)) \
    X(bind_past_the_last, -EINVAL, msi_vector_bind_eventfd(rig->dev, 4, rig_eventfd(rig, 0), 0)) \
    X(unbind_past_the_last, -EINVAL, msi_vector_unbind_eventfd(rig->dev, 4, -1)) \
    X(info_past_the_last, -EINVAL, msi_vector_info(rig->dev, 4, &vector_info)) \
    X(no_vectors, -EINVAL, device_with(rig, MSIROUTE_KIND_PLAIN, 0, 0)) \
    X(too_many_vectors, -EINVAL, device_with(rig, MSIROUTE_KIND_PLAIN, 2049, 0)) \
    X(far_too_many_vectors, -EINVAL, device_with(rig, MSIROUTE_KIND_MSIX, UINT32_MAX, 0)) \
    X(unknown_kind, -EINVAL, device_with(rig, 77, 4, 0)) \
    X(unknown_device_flag, -EINVAL, device_with(rig, MSIROUTE_KIND_PLAIN, 4, BAD_FLAG)) \
    X(MSI_of_three_vectors, -EINVAL, device_with(rig, MSIROUTE_KIND_MSI, 3, 0)) \
    X(MSI_of_more_than_32, -EINVAL, device_with(rig, MSIROUTE_KIND_MSI, 64, 0)) \
    X(a_64_bit_address_of_MSIX, -EINVAL, device_with(rig, MSIROUTE_KIND_MSIX, 4, MSIROUTE_DEVICE_MSI_64)) \
    X(mask_bits_of_MSIX, -EINVAL, device_with(rig, MSIROUTE_KIND_MSIX, 4, MSIROUTE_DEVICE_MSI_MASK)) \
    X(a_64_bit_address_of_a_plain_device, -EINVAL, device_with(rig, MSIROUTE_KIND_PLAIN, 4, MSIROUTE_DEVICE_MSI_64)) \
    X(mask_bits_of_pins, -EINVAL, device_with(rig, MSIROUTE_KIND_PINS, 4, MSIROUTE_DEVICE_MSI_MASK)) \
    X(unknown_flag_of_MSI, -EINVAL, device_with(rig, MSIROUTE_KIND_MSI, 4, BAD_FLAG | MSIROUTE_DEVICE_MSI_64)) \
    X(first_pin_of_a_plain_device, -EINVAL, DEVICE(.kind = MSIROUTE_KIND_PLAIN, .vectors = 4, .first_pin = 4)) \
    X(first_pin_of_MSIX, -EINVAL, DEVICE(.kind = MSIROUTE_KIND_MSIX, .vectors = 4, .first_pin = 4)) \
    X(first_pin_of_MSI, -EINVAL, DEVICE(.kind = MSIROUTE_KIND_MSI, .vectors = 4, .first_pin = 4)) \
    X(a_table_of_a_plain_device, -EINVAL, TABLE_READ(rig->dev)) \
    X(a_PBA_of_a_plain_device, -EINVAL, PBA_WRITE(rig->dev)) \
    X(a_saved_state_too_short, -EINVAL, msi_device_load(rig->dev, buffer, 15)) \
    X(a_place_for_a_state_too_short, -EINVAL, msi_device_save(rig->dev, buffer, 15)) \
    X(bytes_that_are_no_state, -EINVAL, LOAD(rig->dev)) \
    X(resume_of_what_is_not_paused, -EINVAL, RESUME(rig->cache)) \
    X(control_of_a_plain_device, -EINVAL, msi_device_set_control(rig->dev, MSIROUTE_ENABLED)) \
    X(unknown_addressing, -EINVAL, msi_route_cache_set_addressing(rig->cache, BAD_FLAG)) \
    X(unknown_bind_flag, -EINVAL, msi_vector_bind_eventfd(rig->dev, 1, rig_eventfd(rig, 0), BAD_FLAG)) \
    X(no_message, -EINVAL, msi_vector_set(rig->dev, 0, 0x1000, 0x42)) \
    X(no_message_at_all, -EINVAL, msi_vector_set(rig->dev, 0, 0, 0)) \
    X(no_message_to_send, -EINVAL, msi_deliver_message(rig->cache, 0, 0xFEDFFFFC, 0x42, 0)) \
    X(more_fixed_routes_than_the_table_holds, -ENOSPC, fixed_routes(rig, 4097))
MISTAKES(NUMBERS, numbers_out_of_range_and_unknown_flags)

/* ---- capabilities that cannot lie there ---- */

#define TABLE_AT(bar, offset) .table_bar = bar, .table_offset = offset
#define PBA_AT(bar, offset)   .pba_bar = bar, .pba_offset = offset
#define OF_MSIX(...) DEVICE(.kind = MSIROUTE_KIND_MSIX, .vectors = 4, __VA_ARGS__)
#define OF_MSI(...)  DEVICE(.kind = MSIROUTE_KIND_MSI, .vectors = 4, __VA_ARGS__)
#define APART        TABLE_AT(0, 0), PBA_AT(1, 0)

#define CAPABILITIES(X) \
    X(in_the_header, -EINVAL, OF_MSIX(.cap_offset = 0x3C, APART)) \
    X(at_an_odd_place, -EINVAL, OF_MSIX(.cap_offset = 0x41, APART)) \
    X(at_a_multiple_of_2, -EINVAL, OF_MSIX(.cap_offset = 0x42, APART)) \
    X(past_the_end_of_config_space, -EINVAL, OF_MSIX(.cap_offset = 0xF8, APART)) \
    X(behind_config_space, -EINVAL, OF_MSIX(.cap_offset = 0x100, APART)) \
    X(far_behind_config_space, -EINVAL, OF_MSIX(.cap_offset = UINT32_MAX - 3, APART)) \
    X(beyond_what_a_byte_says, -EINVAL, OF_MSIX(.cap_offset = 0x140, APART)) \
    X(MSI_past_the_end, -EINVAL, OF_MSI(.cap_offset = 0xF8)) \
    X(wide_MSI_past_the_end, -EINVAL, OF_MSI(.cap_offset = 0xF4, .flags = MSIROUTE_DEVICE_MSI_64)) \
    X(masked_MSI_past_the_end, -EINVAL, OF_MSI(.cap_offset = 0xF0, .flags = MSIROUTE_DEVICE_MSI_MASK)) \
    X(the_longest_MSI_past_the_end, -EINVAL, \
      OF_MSI(.cap_offset = 0xEC, .flags = MSIROUTE_DEVICE_MSI_64 | MSIROUTE_DEVICE_MSI_MASK)) \
    X(the_next_in_the_header, -EINVAL, OF_MSIX(.cap_offset = 0x40, .cap_next = 0x3C, APART)) \
    X(the_next_at_an_odd_place, -EINVAL, OF_MSI(.cap_offset = 0x40, .cap_next = 0x51)) \
    X(the_next_behind_config_space, -EINVAL, OF_MSI(.cap_offset = 0x40, .cap_next = 0x150)) \
    X(a_next_one_without_a_first, -EINVAL, OF_MSI(.cap_next = 0x50)) \
    X(a_table_in_BAR_6, -EINVAL, OF_MSIX(.cap_offset = 0x40, TABLE_AT(6, 0), PBA_AT(1, 0))) \
    X(a_PBA_in_BAR_6, -EINVAL, OF_MSIX(.cap_offset = 0x40, TABLE_AT(0, 0), PBA_AT(6, 0))) \
    X(a_PBA_in_BAR_256, -EINVAL, OF_MSIX(.cap_offset = 0x40, TABLE_AT(0, 0), PBA_AT(256, 0))) \
    X(a_table_at_a_multiple_of_4, -EINVAL, OF_MSIX(.cap_offset = 0x40, TABLE_AT(0, 4), PBA_AT(1, 0))) \
    X(a_PBA_at_an_odd_place, -EINVAL, OF_MSIX(.cap_offset = 0x40, TABLE_AT(0, 0), PBA_AT(1, 1))) \
    X(table_and_PBA_at_one_place, -EINVAL, OF_MSIX(.cap_offset = 0x40, TABLE_AT(0, 0), PBA_AT(0, 0))) \
    X(a_PBA_in_the_table, -EINVAL, OF_MSIX(.cap_offset = 0x40, TABLE_AT(0, 0x1000), PBA_AT(0, 0x1038))) \
    X(a_table_that_begins_in_the_PBA, -EINVAL, DEVICE(.kind = MSIROUTE_KIND_MSIX, .vectors = 65, .cap_offset = 0x40, \
                                                      TABLE_AT(0, 0x1008), PBA_AT(0, 0x1000))) \
    X(a_place_for_the_table_without_a_capability, -EINVAL, OF_MSIX(TABLE_AT(0, 0), PBA_AT(1, 0))) \
    X(an_MSI_table, -EINVAL, OF_MSI(.cap_offset = 0x40, TABLE_AT(1, 0))) \
    X(an_MSI_PBA, -EINVAL, OF_MSI(.cap_offset = 0x40, PBA_AT(0, 0x1000))) \
    X(a_capability_of_a_plain_device, -EINVAL, DEVICE(.kind = MSIROUTE_KIND_PLAIN, .vectors = 4, .cap_offset = 0x40)) \
    X(a_capability_of_pins, -EINVAL, DEVICE(.kind = MSIROUTE_KIND_PINS, .vectors = 4, .cap_offset = 0x40)) \
    X(a_table_of_pins, -EINVAL, DEVICE(.kind = MSIROUTE_KIND_PINS, .vectors = 4, TABLE_AT(0, 8)))
MISTAKES(CAPABILITIES, capabilities_that_cannot_lie_there)

/* One step back, and each is good. */
static void capabilities_that_just_fit(enum host host)
{
    enum { WIDE = MSIROUTE_DEVICE_MSI_64, MASK = MSIROUTE_DEVICE_MSI_MASK };
    static const struct msi_device_config good[] = {
        { .kind = MSIROUTE_KIND_MSIX, .vectors = 4, .cap_offset = 0xF4, .cap_next = 0xFC, APART },
        { .kind = MSIROUTE_KIND_MSIX, .vectors = 4, .cap_offset = 0x40, .cap_next = 0x40, TABLE_AT(5, 0), PBA_AT(5, 0x40) },
        { .kind = MSIROUTE_KIND_MSIX, .vectors = 65, .cap_offset = 0x40, TABLE_AT(0, 0x1010), PBA_AT(0, 0x1000) },
        { .kind = MSIROUTE_KIND_MSIX, .vectors = 2048, .cap_offset = 0x40, TABLE_AT(0, 0), PBA_AT(0, 0x8000) },
        { .kind = MSIROUTE_KIND_MSI, .vectors = 32, .cap_offset = 0xF4 },
        { .kind = MSIROUTE_KIND_MSI, .vectors = 32, .cap_offset = 0xF0, .flags = WIDE },
        { .kind = MSIROUTE_KIND_MSI, .vectors = 32, .cap_offset = 0xEC, .flags = MASK },
        { .kind = MSIROUTE_KIND_MSI, .vectors = 32, .cap_offset = 0xE8, .flags = WIDE | MASK },
    };
    RIG(rig, host);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct msi_device_config config = good[i];
        uint8_t last = 0;
        config.size = sizeof(config);
        tap_context("case %zu", i);
        struct msi_device *dev = rig_device_of(&rig, &config);
        uint32_t end = config.cap_offset + (uint32_t)msi_device_capability_size(dev);
        expect_eq(msi_device_config_read(dev, end - 1, &last, 1), 1);
        expect_eq(msi_device_config_read(dev, end, &last, 1), 0);
    }
}

static void a_buffer_of_no_length_may_be_NULL(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    expect_ok(msi_device_table_read(rig.dev, 0, NULL, 0));
    expect_ok(msi_device_table_write(rig.dev, 0, NULL, 0));
    expect_ok(msi_device_pba_read(rig.dev, 0, NULL, 0));
    expect_ok(msi_device_pba_write(rig.dev, 0, NULL, 0));
    expect_eq(msi_device_config_read(rig.dev, CAP, NULL, 0), 0);
    expect_eq(msi_device_config_write(rig.dev, CAP, NULL, 0), 0);
    expect_eq(msi_device_load(rig.dev, NULL, 0), -EINVAL);
}

static void a_control_flag_that_is_none_of_the_guests(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX);
    expect_ok(msi_device_set_control(rig.dev, MSIROUTE_ENABLED));
    expect_eq(msi_device_set_control(rig.dev, MSIROUTE_BUS_MASTER), -EINVAL);
    expect_eq(msi_device_set_control(rig.dev, BAD_FLAG), -EINVAL);
    expect_eq(msi_device_state(rig.dev), MSIROUTE_ENABLED | MSIROUTE_BUS_MASTER);
}

/* ---- what has no result ---- */

static void freeing_nothing_is_nothing(enum host host)
{
    uint32_t max_routes = 5;
    RIG(rig, host);
    msi_route_cache_free(NULL);
    msi_device_free(NULL);
    msi_route_cache_free(SKEWED(rig.cache));
    msi_device_free(SKEWED(rig.dev));
    expect(msi_device_ref(NULL) == NULL);
    expect(msi_device_ref(SKEWED(rig.dev)) == NULL);
    expect_eq(msi_device_state(NULL), 0);
    expect_eq(msi_device_state(SKEWED(rig.dev)), 0);
    expect_eq(msi_device_capability_size(NULL), 0);
    expect_eq(msi_device_capability_size(SKEWED(rig.dev)), 0);
    expect_eq(msi_device_save_size(NULL), 0);
    expect_eq(msi_device_save_size(SKEWED(rig.dev)), 0);
    expect_eq(msi_route_cache_features(NULL, &max_routes), 0);
    expect(msi_route_cache_features(rig.cache, NULL) & MSIROUTE_HAS_DIRECT);   /* optional */
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_delivers(&rig, 0, 1, 0x41);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, handles_that_are_NULL_or_misaligned),
        TEST(EVERYWHERE, other_pointers_that_are_NULL_or_misaligned),
        TEST(EVERYWHERE, numbers_out_of_range_and_unknown_flags),
        TEST(EVERYWHERE, capabilities_that_cannot_lie_there),
        TEST(EVERYWHERE, capabilities_that_just_fit),
        TEST(EVERYWHERE, a_buffer_of_no_length_may_be_NULL),
        TEST(EVERYWHERE, a_control_flag_that_is_none_of_the_guests),
        TEST(EVERYWHERE, freeing_nothing_is_nothing),
    };
    return TAP_MAIN(tests);
}
