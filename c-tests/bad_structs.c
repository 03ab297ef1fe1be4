/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Structs of another size than today's, by the rules of openat2: too short is refused, longer is fine as long as what
 * is not known is zero. And configurations that make no sense. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "rig.h"

#define NOWHERE ((void *)1)     /* what a failure must overwrite with NULL */

/* Any of the structs, with room behind it. */
struct grown {
    union {
        struct msi_route_cache_config cache;
        struct msi_route_cache_ops ops;
        struct msi_device_config device;
        struct msi_route_cache_stats stats;
        struct msi_vector_info info;
    };
    uint8_t tail[64];
};

/* ---- the caches' ---- */

static struct fake fake;

/* ops, or config, of this size, with this byte after what is known */
struct cache_case { uint32_t config_size, ops_size, config_flags, ops_flags; uint8_t tail; };

static int new_cache(void *opaque)
{
    const struct cache_case *c = opaque;
    struct grown config = { .cache = MSIROUTE_CACHE_CONFIG_INIT }, ops = { .ops = fake_ops(true) };
    struct msi_route_cache *cache = NOWHERE;
    size_t config_end = sizeof(config.cache), ops_end = sizeof(ops.ops);
    ((uint8_t *)&config)[config_end] = c->config_size > config_end ? c->tail : 0xEE;
    ((uint8_t *)&ops)[ops_end] = c->ops_size > ops_end ? c->tail : 0xEE;
    ops.ops.size = c->ops_size;
    ops.ops.flags = c->ops_flags;
    config.cache.size = c->config_size;
    config.cache.flags = c->config_flags;
    config.cache.ops = &ops.ops;
    config.cache.opaque = &fake;
    int result = msi_route_cache_new(&config.cache, &cache);
    if (result < 0)
        expect(cache == NULL);
    else
        msi_route_cache_free(cache);
    return result;
}

static void cache_configurations_of_any_age(enum host host)
{
    enum { CONFIG = sizeof(struct msi_route_cache_config), OPS = sizeof(struct msi_route_cache_ops) };
    struct cache_case right = { CONFIG, OPS, 0, 0, 0 }, newer = { CONFIG + 8, OPS, 0, 0, 0 }, newer_ops = { CONFIG, OPS + 8, 0, 0, 0 };
    struct { int want; struct cache_case c; } wrong[] = {
        { -EINVAL, { 0, OPS, 0, 0, 0 } },
        { -EINVAL, { 4, OPS, 0, 0, 0 } },
        { -EINVAL, { CONFIG, 0, 0, 0, 0 } },
        { -ENOTSUP, { CONFIG, 8, 0, 0, 0 } },      /* has no functions, then */
        { -E2BIG, { CONFIG + 8, OPS, 0, 0, 1 } },
        { -E2BIG, { CONFIG, OPS + 8, 0, 0, 1 } },
        { -EINVAL, { UINT32_MAX, OPS, 0, 0, 0 } },     /* nobody's size: it was not set */
        { -EINVAL, { CONFIG, UINT32_MAX, 0, 0, 0 } },
        { -EINVAL, { CONFIG, OPS, 1u << 31, 0, 0 } },
        { -EINVAL, { CONFIG, OPS, 0, 1, 0 } },
    };
    (void)host;
    expect(fake_open(&fake, 2));
    expect_ok(new_cache(&right));
    expect_ok(new_cache(&newer));
    expect_ok(new_cache(&newer_ops));
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        tap_context("case %zu", i);
        expect_refused(wrong[i].want, new_cache, &wrong[i].c);
    }
    fake_close(&fake);
}

/* What lies past its end is not looked at: here it makes no sense. */
static void an_older_cache_configuration_has_zeros_where_it_ends(enum host host)
{
    RIG(rig, host);
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache *cache;
    uint32_t max_routes = 0;
    config.size = offsetof(struct msi_route_cache_config, first_gsi);
    config.vm_fd = rig.vm.fd;
    config.first_gsi = config.max_routes = UINT32_MAX;
    config.ops = NOWHERE;
    if (expect_ok(msi_route_cache_new(&config, &cache))) {
        msi_route_cache_features(cache, &max_routes);
        expect_eq(max_routes, 4096);
        msi_route_cache_free(cache);
    }
}

static void older_callbacks_have_none_where_they_end(enum host host)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = fake_ops(true);
    struct msi_route_cache *cache;
    (void)host;
    expect(fake_open(&fake, 2));
    config.ops = &ops;
    config.opaque = &fake;
    ops.size = offsetof(struct msi_route_cache_ops, bind_irqfd);
    if (expect_ok(msi_route_cache_new(&config, &cache))) {
        expect_eq(msi_route_cache_features(cache, NULL) & (MSIROUTE_HAS_DIRECT | MSIROUTE_HAS_IRQFD), MSIROUTE_HAS_DIRECT);
        msi_route_cache_free(cache);
    }
    fake_close(&fake);
}

/* ---- the devices' ---- */

struct device_case { struct rig *rig; uint32_t size; uint8_t tail; uint32_t cap_offset; };

static int new_device(void *opaque)
{
    const struct device_case *c = opaque;
    struct grown config = { .device = MSIROUTE_DEVICE_CONFIG_INIT };
    struct msi_device *dev = NOWHERE;
    size_t end = sizeof(config.device);
    ((uint8_t *)&config)[end] = c->size > end ? c->tail : 0xEE;
    config.device.vectors = 2;
    config.device.size = c->size;
    if (c->cap_offset) {
        config.device.kind = MSIROUTE_KIND_MSI;
        config.device.cap_offset = c->cap_offset;
        config.device.cap_next = 0x3C;      /* wrong, if it counts */
        config.device.name = NOWHERE;
    }
    int result = msi_device_new(c->rig->cache, &config.device, &dev);
    if (result < 0)
        expect(dev == NULL);
    else
        msi_device_free(dev);
    return result;
}

static void device_configurations_of_any_age(enum host host)
{
    enum { SIZE = sizeof(struct msi_device_config) };
    RIG(rig, host);
    struct device_case right = { &rig, SIZE, 0, 0 }, newer = { &rig, SIZE + 16, 0, 0 };
    /* What lies past its end does not count: the next capability, the name. */
    struct device_case up_to_first_pin = { &rig, offsetof(struct msi_device_config, cap_offset), 0, 0x3C };
    struct device_case up_to_cap_offset = { &rig, offsetof(struct msi_device_config, cap_next), 0, 0x40 };
    struct { int want; struct device_case c; } wrong[] = {
        { -EINVAL, { &rig, 0, 0, 0 } },
        { -EINVAL, { &rig, 8, 0, 0 } },
        { -EINVAL, { &rig, offsetof(struct msi_device_config, table_bar), 0, 0x40 } },     /* with the next one */
        { -EINVAL, { &rig, offsetof(struct msi_device_config, cap_next), 0, 0x3C } },
        { -E2BIG, { &rig, SIZE + 16, 1, 0 } },
        { -EINVAL, { &rig, UINT32_MAX, 0, 0 } },       /* nobody's size: it was not set */
    };
    expect_ok(new_device(&right));
    expect_ok(new_device(&newer));
    expect_ok(new_device(&up_to_first_pin));
    expect_ok(new_device(&up_to_cap_offset));
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        tap_context("case %zu", i);
        expect_refused(wrong[i].want, new_device, &wrong[i].c);
    }
}

/* ---- what is filled in ---- */

static void answers_of_any_age(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    for (uint32_t extra = 0; extra <= 16; extra += 8) {
        struct grown answer = { .info = { .size = sizeof(answer.info) + extra } };
        memset((uint8_t *)&answer + answer.info.size, 0xEE, 8);
        expect_ok(msi_vector_info(rig.dev, 0, &answer.info));
        expect_eq(answer.info.data, 0x41);
        expect_eq(((uint8_t *)&answer)[sizeof(answer.info) + extra], 0xEE);     /* nothing past its end */

        answer = (struct grown){ .stats = { .size = sizeof(answer.stats) + extra } };
        memset((uint8_t *)&answer + answer.stats.size, 0xEE, 8);
        expect_ok(msi_route_cache_stats(rig.cache, &answer.stats));
        expect_eq(((uint8_t *)&answer)[sizeof(answer.stats) + extra], 0xEE);
    }
    struct msi_vector_info info = { .size = 4, .data = 0xEE };
    struct msi_route_cache_stats stats = { .size = 4, .routes = 0xEE };
    expect_eq(msi_vector_info(rig.dev, 0, &info), -EINVAL);
    expect_eq(info.data, 0xEE);
    expect_eq(msi_route_cache_stats(rig.cache, &stats), -EINVAL);
    expect_eq(stats.routes, 0xEE);
}

static void an_older_answer_gets_as_much_as_it_has_room_for(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    struct msi_vector_info info;
    struct msi_route_cache_stats stats;
    for (uint32_t size = 8; size < sizeof(stats); size += 4) {
        tap_context("%u bytes", size);
        memset(&info, 0xEE, sizeof(info));
        info.size = size;
        if (size < sizeof(info)) {
            expect_ok(msi_vector_info(rig.dev, 0, &info));
            expect_eq(info.size, size);
            expect_eq(info.flags, MSIROUTE_VECTOR_SET | MSIROUTE_VECTOR_LIVE);
            expect_eq(((uint8_t *)&info)[size - 1] == 0xEE, false);
            expect_eq(((uint8_t *)&info)[size], 0xEE);
        }
        memset(&stats, 0xEE, sizeof(stats));
        stats.size = size;
        expect_ok(msi_route_cache_stats(rig.cache, &stats));
        expect_eq(stats.size, size);
        expect_eq(((uint8_t *)&stats)[size - 1], 0);
        expect_eq(((uint8_t *)&stats)[size], 0xEE);
    }
}

/* ---- configurations that make no sense ---- */

static int a_model_with_a_table_of_its_own(void *opaque)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = fake_ops(true);
    struct msi_route_cache *cache = NOWHERE;
    config.flags = MSIROUTE_CACHE_MODEL;
    config.ops = &ops;
    config.opaque = opaque;
    int result = msi_route_cache_new(&config, &cache);
    expect(cache == NULL);
    return result;
}

static int no_direct_way_and_no_table_either(void *opaque)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = fake_ops(true);
    struct msi_route_cache *cache = NOWHERE;
    ops.raise_gsi = NULL;
    ops.set_routes = NULL;
    config.flags = MSIROUTE_CACHE_NO_DIRECT;
    config.ops = &ops;
    config.opaque = opaque;
    int result = msi_route_cache_new(&config, &cache);
    if (result == 0) {      /* or else nothing can be sent */
        result = msi_deliver_message(cache, MSIROUTE_NO_REQUESTER, TO(0, 0x41), 0);
        msi_route_cache_free(cache);
    }
    return result;
}

static void configurations_that_make_no_sense(enum host host)
{
    (void)host;
    expect(fake_open(&fake, 2));
    expect_refused(-EINVAL, a_model_with_a_table_of_its_own, &fake);
    expect_refused(-ENOTSUP, no_direct_way_and_no_table_either, &fake);
    fake_close(&fake);
}

static void callbacks_without_signal_send_by_routes(enum host host)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = fake_ops(true);
    struct msi_route_cache *cache;
    (void)host;
    expect(fake_open(&fake, 2));
    ops.signal = NULL;
    config.ops = &ops;
    config.opaque = &fake;
    if (expect_ok(msi_route_cache_new(&config, &cache))) {
        expect_eq(msi_route_cache_features(cache, NULL) & (MSIROUTE_HAS_DIRECT | MSIROUTE_HAS_IRQFD), MSIROUTE_HAS_IRQFD);
        expect_eq(msi_deliver_message(cache, MSIROUTE_NO_REQUESTER, TO(1, 0x41), 0), MSIROUTE_SENT);
        expect_eq(fake.arrived[1][0x41], 1);
        expect_eq(fake.calls[FAKE_RAISE], 1);
        msi_route_cache_free(cache);
    }
    fake_close(&fake);
}

static int fences_too_late(void *opaque)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = fake_ops(true);
    struct msi_route_cache *cache = NOWHERE;
    config.flags = MSIROUTE_CACHE_FENCES;
    config.ops = &ops;
    config.opaque = opaque;
    int result = msi_route_cache_new(&config, &cache);
    expect(cache == NULL);
    return result;
}

static void fences_are_chosen_with_the_first_cache_or_not_at_all(enum host host)
{
    RIG(rig, host);     /* without them */
    expect_refused(-EBUSY, fences_too_late, &rig.fake);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ANYWHERE, cache_configurations_of_any_age),
        TEST(ON_KVM, an_older_cache_configuration_has_zeros_where_it_ends),
        TEST(ANYWHERE, older_callbacks_have_none_where_they_end),
        TEST(ON_FAKE, device_configurations_of_any_age),
        TEST(EVERYWHERE, answers_of_any_age),
        TEST(EVERYWHERE, an_older_answer_gets_as_much_as_it_has_room_for),
        TEST(ANYWHERE, configurations_that_make_no_sense),
        TEST(ANYWHERE, callbacks_without_signal_send_by_routes),
        TEST(ON_FAKE, fences_are_chosen_with_the_first_cache_or_not_at_all),
    };
    return TAP_MAIN(tests);
}
