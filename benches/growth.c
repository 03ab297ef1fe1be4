/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What each operation costs on one device of 16 vectors, in VMs of 16 to 4,000 vectors, the others' in devices of 64.
 *
 *   growth time     in time: on /dev/kvm, and on a kernel that does nothing, so that what is left is user space's.
 *   growth count    in what the kernel is asked; under callgrind in instructions too, which it dumps, one file an operation.
 *   growth deliver N    N deliveries, for callgrind to count the instructions of msi_deliver alone.
 */
#include <linux/kvm.h>
#include <msiroute.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_TOGGLE_COLLECT
#define CALLGRIND_DUMP_STATS_AT(name) ((void)(name))
#endif

#include "bench.h"
#include "kernel.h"

enum { VECTORS = 16, PER_DEVICE = 64, MAX_VECTORS = 4000, CLOSED = VECTORS - 1, WIDE = 8 };

static void ok(int result) { need(result >= 0, msi_route_cache_last_error()); }

/* ---- VMs ---- */

static struct msi_route_cache *cache;
static struct msi_device *dev, *others[MAX_VECTORS / PER_DEVICE + 1], *another;
static uint32_t n_others, fresh;      /* the next message that nobody has */
static int fd[MAX_VECTORS], spare[VECTORS];
static unsigned char *saved;

static int take_message(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    (void)opaque, (void)requester, (void)address, (void)data;
    return 1;
}
static int take_table(void *opaque, const struct kvm_irq_routing_entry *entries, size_t n)
{
    (void)opaque, (void)entries, (void)n;
    return 0;
}
static int take_eventfd(void *opaque, int eventfd, int resamplefd, uint32_t gsi)
{
    (void)opaque, (void)eventfd, (void)resamplefd, (void)gsi;
    return 0;
}
static int leave_eventfd(void *opaque, int eventfd, uint32_t gsi)
{
    (void)opaque, (void)eventfd, (void)gsi;
    return 0;
}
static int take_gsi(void *opaque, uint32_t gsi)
{
    (void)opaque, (void)gsi;
    return 1;
}

static void changed(void *opaque, struct msi_device *device, uint32_t what, uint32_t first, uint32_t n)
{
    (void)opaque, (void)device, (void)what, (void)first, (void)n;
}

static int translate(void *opaque, uint32_t requester, uint64_t *address, uint32_t *data, uint64_t *tag)
{
    (void)opaque, (void)requester, (void)address;
    *tag = *data;
    return 0;
}

enum { ON_KVM = 1 << 0, NO_DIRECT = 1 << 1, REMAPPED = 1 << 2, RELAYED = 1 << 3, AT_SOURCE = 1 << 4 };

static struct msi_device *new_device(uint32_t vectors, unsigned kind)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_device *device;
    config.kind = MSIROUTE_KIND_MSIX;
    config.vectors = vectors;
    config.changed = kind & AT_SOURCE ? changed : NULL;
    ok(msi_device_new(cache, &config, &device));
    ok(msi_device_set_control(device, MSIROUTE_ENABLED));
    return device;
}

/* Live, each vector with an eventfd of these. In a transaction. */
static void fill(struct msi_device *device, uint32_t vectors, const int *eventfds, unsigned kind)
{
    uint32_t flags = MSIROUTE_EVENTFD_BORROWED | (kind & RELAYED ? MSIROUTE_EVENTFD_RELAY_ONLY : 0)
        | (kind & AT_SOURCE ? MSIROUTE_EVENTFD_MASKED_AT_SOURCE : 0);
    for (uint32_t v = 0; v < vectors; v++) {
        ok(msi_vector_set(device, v, BENCH_ADDRESS, bench_data(fresh++)));
        ok(msi_vector_bind_eventfd(device, v, eventfds[v], flags));
        ok(msi_vector_unmask(device, v));
    }
}

static void open_vm(uint32_t vectors, unsigned kind)
{
    static const struct msi_route_cache_ops ops = {
        .size = sizeof(ops), .signal = take_message, .set_routes = take_table, .bind_irqfd = take_eventfd,
        .unbind_irqfd = leave_eventfd, .raise_gsi = take_gsi };
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    int vm = -1;
    if (kind & ON_KVM)
        config.vm_fd = vm = bench_vm();
    else
        config.ops = &ops;
    config.flags = kind & NO_DIRECT ? MSIROUTE_CACHE_NO_DIRECT : 0;
    ok(msi_route_cache_new(&config, &cache));
    close(vm);
    fresh = 0;
    if (kind & REMAPPED)
        ok(msi_route_cache_set_remap(cache, translate, NULL));
    if (kind & RELAYED)
        ok(msi_route_cache_relay_fd(cache));
    ok(msi_route_cache_begin(cache));
    dev = new_device(VECTORS, kind);
    fill(dev, VECTORS, fd, kind);
    n_others = 0;
    for (uint32_t at = VECTORS; at < vectors; at += PER_DEVICE) {
        uint32_t n = vectors - at < PER_DEVICE ? vectors - at : PER_DEVICE;
        others[n_others] = new_device(n, kind);
        fill(others[n_others++], n, &fd[at], kind);
    }
    ok(msi_route_cache_commit(cache));
    ok(msi_vector_mask(dev, CLOSED));
    saved = malloc(msi_device_save_size(dev));
    need(saved != NULL, "memory");
    ok(msi_device_save(dev, saved, msi_device_save_size(dev)));
}

static void close_vm(void)
{
    msi_route_cache_free(cache);
    for (uint32_t i = 0; i < n_others; i++)
        msi_device_free(others[i]);
    msi_device_free(dev);
    free(saved);
}

/* ---- operations ---- */

static void nothing(void)           { }
static void deliver(void)           { need(msi_deliver(dev, 0) == MSIROUTE_SENT, "msi_deliver"); }
static void deliver_closed(void)    { need(msi_deliver(dev, CLOSED) == MSIROUTE_PENDING, "msi_deliver"); }
static void mask(void)              { ok(msi_vector_mask(dev, 1)); }
static void unmask(void)            { ok(msi_vector_unmask(dev, 1)); }
static void set_fresh(void)         { ok(msi_vector_set(dev, 2, BENCH_ADDRESS, bench_data(fresh++))); }
static void function_mask(void)     { ok(msi_device_set_control(dev, MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED)); }
static void function_unmask(void)   { ok(msi_device_set_control(dev, MSIROUTE_ENABLED)); }
static void unbind(void)            { ok(msi_vector_unbind_eventfd(dev, 3, fd[3])); }
static void bind(void)              { ok(msi_vector_bind_eventfd(dev, 3, fd[3], MSIROUTE_EVENTFD_BORROWED)); }
static void save(void)              { ok(msi_device_save(dev, saved, msi_device_save_size(dev))); }
static void load(void)              { ok(msi_device_load(dev, saved, msi_device_save_size(dev))); }
static void plug(void)              { another = new_device(VECTORS, 0); }
static void unplug(void)            { ok(msi_device_close(another)); }
static void forget(void)            { msi_device_free(another); }
static void invalidate(void)        { ok(msi_route_cache_invalidate(cache, MSIROUTE_NO_REQUESTER, bench_data(0), bench_data(0))); }
static void signal_first(void)      { need(eventfd_write(fd[0], 1) == 0, "eventfd"); }
static void run_relay(void)         { ok(msi_route_cache_relay_run(cache)); }
static void commit_nothing(void)    { ok(msi_route_cache_begin(cache)); ok(msi_route_cache_commit(cache)); }
static void stats(void)             { ok(msi_route_cache_stats(cache, &(struct msi_route_cache_stats)MSIROUTE_STATS_INIT)); }
static void info(void)              { ok(msi_vector_info(dev, 0, &(struct msi_vector_info)MSIROUTE_VECTOR_INFO_INIT)); }
static void affinity(void)          { ok(msi_vector_mask(dev, 2)); set_fresh(); ok(msi_vector_unmask(dev, 2)); }

static void write_closed(void)
{
    const uint32_t data = fresh++;
    ok(msi_device_table_write(dev, CLOSED * 16 + 8, &data, sizeof(data)));
}

static void read_table(void)
{
    uint64_t address;
    ok(msi_device_table_read(dev, 16, &address, sizeof(address)));
}

static void read_pba(void)
{
    uint64_t word;
    ok(msi_device_pba_read(dev, 0, &word, sizeof(word)));
}

static void enable(void)
{
    ok(msi_route_cache_begin(cache));
    fill(another, VECTORS, spare, 0);
    ok(msi_route_cache_commit(cache));
}

static void enabled(void) { plug(); enable(); }
static void gone(void)    { unplug(); forget(); }

static uint32_t gsi;
static void add_route(void)
{
    struct kvm_irq_routing_entry entry = {
        .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = BENCH_ADDRESS, .data = bench_data(fresh++) } };
    gsi = MSIROUTE_ANY_GSI;
    ok(msi_route_cache_add_route(cache, &entry, 0, &gsi));
    ok(msi_route_cache_commit(cache));
}
static void remove_route(void)
{
    ok(msi_route_cache_remove_route(cache, gsi));
    ok(msi_route_cache_commit(cache));
}

/* `before` and `after` are not measured. */
static const struct operation { const char *name; unsigned kind; void (*run)(void), (*before)(void), (*after)(void); } operations[] = {
    { "nothing",            0,          nothing,            NULL,           NULL },
    { "deliver",            0,          deliver,            NULL,           NULL },
    { "deliver_masked",     0,          deliver_closed,     NULL,           NULL },
    { "table_write_masked", 0,          write_closed,       NULL,           NULL },
    { "table_read",         0,          read_table,         NULL,           NULL },
    { "pba_read",           0,          read_pba,           NULL,           NULL },
    { "vector_info",        0,          info,               NULL,           NULL },
    { "stats",              0,          stats,              NULL,           NULL },
    { "mask",               0,          mask,               NULL,           unmask },
    { "unmask",             0,          unmask,             mask,           NULL },
    { "set_live",           0,          set_fresh,          NULL,           NULL },
    { "affinity",           0,          affinity,           NULL,           NULL },
    { "function_mask",      0,          function_mask,      NULL,           function_unmask },
    { "function_unmask",    0,          function_unmask,    function_mask,  NULL },
    { "unbind",             0,          unbind,             NULL,           bind },
    { "bind",               0,          bind,               unbind,         NULL },
    { "save",               0,          save,               NULL,           NULL },
    { "load",               0,          load,               NULL,           NULL },
    { "plug",               0,          plug,               NULL,           forget },
    { "enable",             0,          enable,             plug,           gone },
    { "unplug",             0,          unplug,             enabled,        forget },
    { "commit_nothing",     0,          commit_nothing,     NULL,           NULL },
    { "add_route",          0,          add_route,          NULL,           remove_route },
    { "remove_route",       0,          remove_route,       add_route,      NULL },
    { "deliver_fallback",   NO_DIRECT,  deliver,            NULL,           NULL },
    { "invalidate",         REMAPPED,   invalidate,         NULL,           NULL },
    { "mask_source",        AT_SOURCE,  mask,               NULL,           unmask },
    { "unmask_source",      AT_SOURCE,  unmask,             mask,           NULL },
    { "mask_relayed",       RELAYED,    mask,               NULL,           unmask },
    { "unmask_relayed",     RELAYED,    unmask,             mask,           NULL },
    { "set_relayed",        RELAYED,    set_fresh,          NULL,           NULL },
    { "relay_signal",       RELAYED,    run_relay,          signal_first,   NULL },
};
enum { OPERATIONS = sizeof(operations) / sizeof(operations[0]) };
static const unsigned kinds[] = { 0, NO_DIRECT, REMAPPED, AT_SOURCE, RELAYED };

static void call(void (*function)(void))
{
    if (function)
        function();
}

/* ---- in time ---- */

static void time_of(const struct operation *operation, uint32_t vectors, const char *where)
{
    enum { SAMPLES = 48 };
    double us[SAMPLES];
    unsigned calls = operation->before || operation->after || operation->run == affinity ? 1 : WIDE;
    for (unsigned s = 0; s < SAMPLES; s++) {
        call(operation->before);
        uint64_t start = nanoseconds();
        for (unsigned i = 0; i < calls; i++)
            operation->run();
        us[s] = (double)(nanoseconds() - start) / 1e3 / calls;
        call(operation->after);
    }
    print_median(us, SAMPLES, "growth_%s_%s_%u_us", operation->name, where, vectors);
}

/* ---- in what is asked, and instructions ---- */

static void count(const struct operation *operation, uint32_t vectors)
{
    enum { TIMES = 4 };
    char name[64];
    struct asked counted = { 0 };
    snprintf(name, sizeof(name), "%s_%u", operation->name, vectors);
    call(operation->before);    /* once for what is made once */
    operation->run();
    call(operation->after);
    for (unsigned i = 0; i < TIMES; i++) {
        call(operation->before);
        struct asked before = asked();
        CALLGRIND_TOGGLE_COLLECT;
        operation->run();
        CALLGRIND_TOGGLE_COLLECT;
        struct asked once = asked_since(before);
        counted.writes += once.writes, counted.binds += once.binds, counted.unbinds += once.unbinds;
        call(operation->after);
    }
    CALLGRIND_DUMP_STATS_AT(name);
    printf("%s_table_writes=%g\n%s_binds=%g\n%s_unbinds=%g\n", name, (double)counted.writes / TIMES,
           name, (double)counted.binds / TIMES, name, (double)counted.unbinds / TIMES);
}

static void deliver_often(int times)
{
    open_vm(64, ON_KVM);
    for (int i = 0; i < times; i++)
        deliver();
    close_vm();
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[] = { 16, 64, 256, 1024, 4000 }, few_sizes[] = { 64, 4000 };
    const int in_time = argc == 2 && strcmp(argv[1], "time") == 0;
    const int deliveries = argc == 3 && strcmp(argv[1], "deliver") == 0 ? atoi(argv[2]) : 0;
    need(in_time || deliveries > 0 || (argc == 2 && strcmp(argv[1], "count") == 0), "time, count or deliver N");
    bench_allow_descriptors();
    for (uint32_t i = 0; i < MAX_VECTORS; i++)
        need((fd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) >= 0, "eventfd");
    for (uint32_t i = 0; i < VECTORS; i++)
        need((spare[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) >= 0, "eventfd");
    if (deliveries > 0) {
        deliver_often(deliveries);
        return 0;
    }
    const uint32_t *size = in_time ? sizes : few_sizes, *end = in_time ? sizes + 5 : few_sizes + 2;
    for (; size < end; size++)
        for (unsigned k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
            for (unsigned on_kvm = in_time ? 0 : ON_KVM; on_kvm <= ON_KVM; on_kvm++) {
                open_vm(*size, kinds[k] | on_kvm);
                for (unsigned o = 0; o < OPERATIONS; o++) {
                    if (operations[o].kind != kinds[k])
                        continue;
                    if (in_time)
                        time_of(&operations[o], *size, on_kvm ? "kvm" : "user");
                    else
                        count(&operations[o], *size);
                }
                close_vm();
            }
    return 0;
}
