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
#define MISTAKE_FUNCTION(name, want, expression) \
    static int name(void *opaque) { struct rig *rig = opaque; (void)rig; return (expression); }
#define MISTAKE_ENTRY(name, want, expression) { #name, want, name },
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
#define BEGIN(cache)          msi_route_cache_begin(cache)
#define COMMIT(cache)         msi_route_cache_commit(cache)
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
    NULL_AND_SKEWED_CACHE(X, begin, BEGIN) \
    NULL_AND_SKEWED_CACHE(X, commit, COMMIT) \
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
    X(no_entries_but_a_number_of_them, -EINVAL, msi_route_cache_set_fixed(rig->cache, NULL, 1)) \
    X(misaligned_entries, -EINVAL, msi_route_cache_set_fixed(rig->cache, SKEWED(&route), 1))
MISTAKES(POINTERS, other_pointers_that_are_NULL_or_misaligned)

/* ---- numbers ---- */

static int device_with(struct rig *rig, uint32_t kind, uint32_t vectors, uint32_t flags)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.kind = kind;
    config.vectors = vectors;
    config.flags = flags;
    new_device = rig->dev;
    int result = msi_device_new(rig->cache, &config, &new_device);
    expect(new_device == NULL);     /* the result of a failure */
    return result;
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
    X(control_of_a_plain_device, -EINVAL, msi_device_set_control(rig->dev, MSIROUTE_ENABLED)) \
    X(unknown_addressing, -EINVAL, msi_route_cache_set_addressing(rig->cache, BAD_FLAG)) \
    X(unknown_bind_flag, -EINVAL, msi_vector_bind_eventfd(rig->dev, 1, rig_eventfd(rig, 0), BAD_FLAG)) \
    X(no_message, -EINVAL, msi_vector_set(rig->dev, 0, 0x1000, 0x42)) \
    X(no_message_at_all, -EINVAL, msi_vector_set(rig->dev, 0, 0, 0)) \
    X(no_message_to_send, -EINVAL, msi_deliver_message(rig->cache, 0, 0xFEDFFFFC, 0x42, 0)) \
    X(more_fixed_routes_than_the_table_holds, -ENOSPC, fixed_routes(rig, 4097))
MISTAKES(NUMBERS, numbers_out_of_range_and_unknown_flags)

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
        TEST(EVERYWHERE, a_control_flag_that_is_none_of_the_guests),
        TEST(EVERYWHERE, freeing_nothing_is_nothing),
    };
    return TAP_MAIN(tests);
}
