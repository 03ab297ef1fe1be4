/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What msi_route_cache_dump() tells. Each dump is also left in the folder DUMPS, if that is set: scripts/check-dump holds them
 * against docs/dump.schema.json. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "relays.h"

static int append(void *file, const char *text, size_t len)
{
    expect(len >= 1 && len <= 4096);
    return fwrite(text, 1, len, file) == len ? 0 : -EIO;
}

/* The caller's to free. */
static char *dump(struct rig *rig)
{
    static unsigned number;
    char *text = NULL, path[4096];
    size_t len;
    FILE *file = open_memstream(&text, &len);
    expect_ok(msi_route_cache_dump(rig->cache, append, file));
    fclose(file);
    expect(len > 1 && text[0] == '{' && text[len - 1] == '\n');
    if (getenv("DUMPS")) {
        snprintf(path, sizeof(path), "%s/%04u.json", getenv("DUMPS"), number++);
        file = fopen(path, "w");
        expect(file && fwrite(text, 1, len, file) == len);
        fclose(file);
    }
    return text;
}

#define expect_told(rig, ...) expect_in_dump(__FILE__, __LINE__, rig, (const char *[]){ __VA_ARGS__, NULL })
static void expect_in_dump(const char *file, int line, struct rig *rig, const char **parts)
{
    char *text = dump(rig);
    for (; *parts; parts++)
        if (!strstr(text, *parts))
            tap_fail(file, line, "not told: %s, but: %s", *parts, text);
    free(text);
}

static void a_cache_tells_of_itself(enum host host)
{
    RIG(rig, host, .max_routes = 64);
    char head[64];
    snprintf(head, sizeof(head), "{\"format\":1,\"library\":\"%d.%d.%d\",\"time_ns\":", MSIROUTE_VERSION_MAJOR,
             MSIROUTE_VERSION_MINOR, MSIROUTE_VERSION_PATCH);
    expect_told(&rig, head, "\"direct\":true", "\"max_routes\":64", "\"pauses\":0",
                "\"in_transaction\":false", "\"table_written\":false", "\"relay\":null", "\"explicit\":[]");
    expect_ok(msi_route_cache_pause(rig.cache));
    expect_ok(msi_route_cache_begin(rig.cache));
    expect_told(&rig, "\"pauses\":1", "\"in_transaction\":true");
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_ok(msi_route_cache_resume(rig.cache));
    expect_ok(msi_route_cache_set_addressing(rig.cache, MSIROUTE_X2APIC_IDS | MSIROUTE_EXT_DEST_ID));
    expect_told(&rig, "\"x2apic_ids\":true,\"ext_dest_id\":true");
}

static void vectors_and_routes_are_told_with_each_other(enum host host)
{
    char route[256];
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    rig_bound(&rig, 0, 0);
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x42)));
    expect_ok(msi_vector_mask(rig.dev, 1));
    int masked = rig_bound(&rig, 1, 0);
    expect_ok(msi_vector_set(rig.dev, 2, TO(0, 0x43)));
    expect_ok(msi_vector_mask(rig.dev, 2));
    expect_eq(msi_deliver(rig.dev, 2), MSIROUTE_PENDING);
    fires(&rig, masked);
    snprintf(route, sizeof(route), "\"gsi\":%u,\"address\":\"0xfee01000\",\"data\":65,\"requester\":null,\"pins\":1,\"live\":true,"
             "\"is_pin\":false,\"users\":[{\"device\":\"0x", info_of(rig.dev, 0).gsi);
    expect_told(&rig, route, "\"vector\":0}]", "\"table_writes\":1,", "\"kind\":\"plain\"",
        "{\"index\":0,\"set\":true,\"address\":\"0xfee01000\",\"data\":65,\"masked\":false,\"pending\":false,\"live\":true,"
            "\"blocked\":false,\"unserved\":false,\"relayed\":false,\"in_kernel\":true,\"eventfds\":1,\"bound\":1,\"gsi\":",
        "{\"index\":1,\"set\":true,\"address\":\"0xfee01000\",\"data\":66,\"masked\":true,\"pending\":true,\"live\":false,"
            "\"blocked\":false,\"unserved\":false,\"relayed\":false,\"in_kernel\":false,\"eventfds\":1,\"bound\":0,\"gsi\":null",
        "{\"index\":2,\"set\":true,\"address\":\"0xfee00000\",\"data\":67,\"masked\":true,\"pending\":true,\"live\":false,",
        "{\"index\":3,\"set\":false,\"address\":\"0x0\",\"data\":0,");
}

static void each_kind_of_device_is_told(enum host host)
{
    RIG(rig, host, .irqchip = SPLIT_IRQCHIP);
    rig_device(&rig, MSIROUTE_KIND_MSIX, 2048);
    rig_device(&rig, MSIROUTE_KIND_MSI, 4);
    struct msi_device_config pins = MSIROUTE_DEVICE_CONFIG_INIT;
    pins.kind = MSIROUTE_KIND_PINS;
    pins.vectors = 24;
    pins.requester = 0x1234;
    struct msi_device *ioapic = rig_device_of(&rig, &pins);
    expect_ok(msi_vector_set(ioapic, 3, TO(0, 0x51)));
    expect_told(&rig, "\"kind\":\"msix\"", "{\"index\":2047,", "\"kind\":\"msi\"", "\"kind\":\"pins\",\"requester\":4660",
                "{\"gsi\":3,\"address\":\"0xfee00000\",\"data\":81,\"requester\":null,\"pins\":1,\"live\":true,\"is_pin\":true,");
    expect_ok(msi_device_close(ioapic));
    expect_told(&rig, "\"closed\":true");
}

static void the_vmms_own_routes_are_told(enum host host)
{
    struct kvm_irq_routing_entry fixed[] = {
        { .gsi = 4, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = { .irqchip = 2, .pin = 4 } },
        { .gsi = 5, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee00000, .data = 0x61 } },
    };
    struct kvm_irq_routing_entry added = { .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee01000, .data = 0x62 } };
    uint32_t gsi = 30;
    RIG(rig, host);
    expect_ok(msi_route_cache_set_fixed(rig.cache, fixed, 2));
    expect_ok(msi_route_cache_add_route(rig.cache, &added, 0, &gsi));
    expect_told(&rig, "\"fixed\":[{\"gsi\":4,\"type\":\"irqchip\",\"irqchip\":2,\"pin\":4},"
                "{\"gsi\":5,\"type\":\"msi\",\"address\":\"0xfee00000\",\"data\":97,\"requester\":null}]",
                "\"explicit\":[{\"gsi\":30,\"staged\":true,\"eventfds\":0,\"bound\":0,\"entries\":[]}]");
    expect_ok(msi_route_cache_commit(rig.cache));
    expect_ok(msi_route_cache_bind_irqfd(rig.cache, 30, rig_eventfd(&rig, EFD_NONBLOCK), -1));
    expect_told(&rig, "\"explicit\":[{\"gsi\":30,\"staged\":false,\"eventfds\":1,\"bound\":1,\"entries\":[{\"gsi\":30,\"type\":\"msi\","
                "\"address\":\"0xfee01000\",\"data\":98,\"requester\":null}]}]");
}

/* check-dump sees to it that some dump has each number above zero. */
static void every_number_of_the_relay_and_of_the_table_moves(enum host host)
{
    RIG(rig, host, ROUTES(1));
    if (!begin(&rig, false, 2) || !promote(&rig, 0, 1) || !promote(&rig, 1, 1))
        return;
    expect(rig_stats(&rig).demotions > 0);
    raise_line(&rig, 0);
    expect_told(&rig, "\"relay\":{\"on\":true,\"threads\":0,", "\"relayed\":true", "\"in_kernel\":true");
    expect_eq(msi_route_cache_relay_stop(rig.cache), -ENOSPC);
    expect_told(&rig, "\"relay\":{\"on\":false,", "\"unserved_vectors\":1", "\"unserved\":true");
}

static void evictions_and_refused_writes_are_told(enum host host)
{
    enum { MANY = 40 };
    RIG(rig, host, ROUTES(8), .cache_flags = MSIROUTE_CACHE_NO_DIRECT);
    for (unsigned n = 0; n < MANY; n++)
        expect(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, TO_NTH(n), 1) >= 0);
    expect(rig_stats(&rig).evictions > 0);
    free(dump(&rig));
    struct kvm_irq_routing_entry none = { .gsi = 1, .type = 0x7fff };
    if (host == ON_FAKE)
        fake_fault(&rig.fake, FAKE_SET_ROUTES, 1, EINVAL, false);
    expect(msi_route_cache_set_fixed(rig.cache, &none, 1) < 0);
    expect_told(&rig, "\"table_write_errors\":1,");
}

static void a_hostile_name_stays_a_name(enum host host)
{
    RIG(rig, host);
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.vectors = 1;
    config.name = "\"},{\\</script><script>document.title='broken'</script>\n\t\x01\x7f\xff\xc3\xa9";
    rig_device_of(&rig, &config);
    expect_told(&rig, "\"name\":\"\\\"},{\\\\</script><script>document.title='broken'</script>\\u000a\\u0009\\u0001\x7f\xef\xbf\xbd\xc3\xa9\"");
}

/* ---- the function that writes ---- */

struct reader {
    struct rig *rig;
    unsigned calls, fails_at;
};

static int fail_at(void *opaque, const char *text, size_t len)
{
    struct reader *reader = opaque;
    (void)text, (void)len;
    return ++reader->calls == reader->fails_at ? -EPIPE : 1;
}

static void a_write_that_fails_ends_the_dump(enum host host)
{
    RIG(rig, host, .vectors = 2048);
    for (unsigned at = 1; at < 4; at++) {
        struct reader reader = { .fails_at = at };
        expect_eq(msi_route_cache_dump(rig.cache, fail_at, &reader), -EPIPE);
        expect_eq(reader.calls, at);
    }
}

static int change(void *opaque, const char *text, size_t len)
{
    struct reader *reader = opaque;
    (void)text, (void)len;
    if (reader->calls++ == 0) {
        expect_ok(msi_vector_set(reader->rig->dev, 0, TO(0, 0x41)));
        expect_eq(msi_deliver(reader->rig->dev, 0), MSIROUTE_SENT);
        free(dump(reader->rig));
        errno = ERANGE;
    }
    return 0;
}

static void a_write_may_call_the_library(enum host host)
{
    RIG(rig, host);
    struct reader reader = { .rig = &rig };
    errno = 4711;
    expect_ok(msi_route_cache_dump(rig.cache, change, &reader));
    expect_eq(errno, 4711);
    expect(reader.calls > 0);
    expect_arrival(&rig, 0, 0x41);
}

static int dump_nothing(void *cache) { return msi_route_cache_dump(NULL, append, cache); }
static int dump_nowhere(void *cache) { return msi_route_cache_dump(cache, NULL, NULL); }

static void bad_arguments_are_refused(enum host host)
{
    RIG(rig, host);
    expect_refused(-EINVAL, dump_nothing, rig.cache);
    expect_refused(-EINVAL, dump_nowhere, rig.cache);
}

/* ---- while everything changes ---- */

static atomic_bool stop;

static void *change_all_the_time(void *opaque)
{
    struct rig *rig = opaque;
    for (unsigned n = 0; !stop; n++) {
        expect_ok(msi_vector_set(rig->dev, n % 4, TO(0, 0x40 + n % 32)));
        expect_ok(n % 2 ? msi_vector_mask(rig->dev, n % 4) : msi_vector_unmask(rig->dev, n % 4));
        msi_deliver(rig->dev, n % 4);
        struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
        struct msi_device *device;
        config.vectors = 8;
        config.name = "comes and goes";
        expect_ok(msi_device_new(rig->cache, &config, &device));
        msi_device_free(device);
    }
    return NULL;
}

static void dumps_are_whole_while_others_change(enum host host)
{
    enum { DUMPS = 100 };
    RIG(rig, host);
    pthread_t thread;
    rig_bound(&rig, 0, 0);
    stop = false;
    expect_ok(pthread_create(&thread, NULL, change_all_the_time, &rig));
    for (unsigned n = 0; n < DUMPS; n++)
        free(dump(&rig));
    stop = true;
    pthread_join(thread, NULL);
}

/* ---- a machine at work: the last two dumps, which scripts/check-view shows ---- */

static struct msi_device *device_named(struct rig *rig, const char *name, uint32_t kind, uint32_t vectors, uint32_t requester)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.name = name;
    config.kind = kind;
    config.vectors = vectors;
    config.requester = requester;
    struct msi_device *dev = rig_device_of(rig, &config);
    for (uint32_t i = 0; i < vectors && i < 6; i++) {
        expect_ok(msi_vector_set(dev, i, TO(i % 2, 0x50 + rig->n_devices * 8 + i)));
        if (kind == MSIROUTE_KIND_MSIX && i != 2)
            expect_ok(msi_vector_unmask(dev, i));
    }
    return dev;
}

static void a_machine_at_work_is_told(enum host host)
{
    RIG(rig, host, ROUTES(4));
    if (!begin(&rig, false, 4) || !promote(&rig, 0, 2))
        return;
    struct msi_device *net = device_named(&rig, "virtio-net <0>", MSIROUTE_KIND_MSIX, 64, 0x0010);
    struct msi_device *disk = device_named(&rig, "</script><img src=x onerror=\"document.title='broken'\">&amp;", MSIROUTE_KIND_MSIX, 9, 0x0018);
    device_named(&rig, "hpet", MSIROUTE_KIND_PLAIN, 3, MSIROUTE_NO_REQUESTER);
    expect_ok(msi_device_set_control(net, MSIROUTE_ENABLED));
    expect_eq(msi_deliver(net, 2), MSIROUTE_PENDING);
    expect_ok(msi_vector_bind_eventfd(net, 2, rig_eventfd(&rig, EFD_NONBLOCK), 0));
    expect_ok(msi_vector_bind_eventfd(net, 3, rig_eventfd(&rig, EFD_NONBLOCK), MSIROUTE_EVENTFD_KERNEL_ONLY));
    free(dump(&rig));
    expect_ok(msi_vector_unmask(net, 2));
    for (unsigned n = 0; n < 5; n++) {
        raise_line(&rig, 3);
        serve(&rig);
    }
    expect_ok(msi_device_set_bus_master(disk, 0));
    expect_told(&rig, "\"name\":\"virtio-net <0>\"");
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, a_cache_tells_of_itself),
        TEST(EVERYWHERE, vectors_and_routes_are_told_with_each_other),
        TEST(ON_KVM | ON_FAKE, each_kind_of_device_is_told),
        TEST(EVERYWHERE, the_vmms_own_routes_are_told),
        TEST(ON_KVM | ON_FAKE, every_number_of_the_relay_and_of_the_table_moves),
        TEST(ON_KVM | ON_FAKE, evictions_and_refused_writes_are_told),
        TEST(EVERYWHERE, a_hostile_name_stays_a_name),
        TEST(EVERYWHERE, a_write_that_fails_ends_the_dump),
        TEST(EVERYWHERE, a_write_may_call_the_library),
        TEST(EVERYWHERE, bad_arguments_are_refused),
        TEST(EVERYWHERE, dumps_are_whole_while_others_change),
        TEST(ON_FAKE, a_machine_at_work_is_told),
    };
    return TAP_MAIN(tests);
}
