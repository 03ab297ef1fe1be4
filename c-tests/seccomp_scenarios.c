/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <malloc.h>
#include <sys/ioctl.h>

#include "seccomp.h"
#include "seccomp_scenarios.h"

#define MUST(holds) do { if (!(holds)) return __LINE__; } while (0)

static int make_cache(struct scene *s, int kvm_fd)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    config.vm_fd = s->rig.vm.fd;
    config.kvm_fd = kvm_fd;
    config.flags = rig_flags;
    MUST(msi_route_cache_new(&config, &s->cache) == 0);
    return 0;
}
static int make_cache_by_path(struct scene *s) { return make_cache(s, -1); }
static int make_cache_of_descriptors(struct scene *s) { return make_cache(s, s->rig.vm.kvm); }
static bool cache_works(struct scene *s)
{
    bool sent = expect_eq(msi_deliver_message(s->cache, MSIROUTE_NO_REQUESTER, TO(0, 0x41), 0), MSIROUTE_SENT);
    return expect_arrival(&s->rig, 0, 0x41) && sent;
}

static int make_none(struct scene *s)
{
    struct msi_device *dev = s->rig.dev;
    MUST(msi_route_cache_features(s->rig.cache, NULL) & MSIROUTE_HAS_IRQFD);
    MUST(msi_route_cache_version());
    MUST(msi_device_ref(dev) == dev);
    MUST(msi_device_state(dev) == MSIROUTE_BUS_MASTER);
    MUST(msi_device_capability_size(dev) == 12);
    MUST(msi_device_save_size(dev) > 16);
    return 0;
}

static int ask(struct scene *s)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_route_cache_stats stats = MSIROUTE_STATS_INIT;
    struct msi_vector_info info = MSIROUTE_VECTOR_INFO_INIT;
    struct msi_device *dev;
    uint32_t word = 0;
    config.kind = MSIROUTE_KIND_MSIX;
    config.vectors = 16;
    MUST(msi_device_new(s->rig.cache, &config, &dev) == 0);
    MUST(msi_route_cache_stats(s->rig.cache, &stats) == 0);
    MUST(msi_route_cache_begin(s->rig.cache) == 0);
    MUST(msi_device_table_read(dev, 12, &word, 4) == 0 && word == 1);
    MUST(msi_device_pba_write(dev, 0, &word, 4) == 0);
    MUST(msi_device_config_read(dev, 0x40, &word, 4) >= 0);
    MUST(msi_vector_info(dev, 0, &info) == 0);
    MUST(msi_vector_info(dev, 99, &info) == -EINVAL && *msi_route_cache_last_error());
    msi_route_cache_set_log(NULL, NULL);
    return 0;
}

/* Vector 0 has counted, and is masked. */
static void bind_counted(struct scene *s)
{
    expect_ok(msi_vector_set(s->rig.dev, 0, TO(0, 0x41)));
    expect_ok(msi_vector_mask(s->rig.dev, 0));
    fires(&s->rig, rig_bound(&s->rig, 0, 0));
}
static int pass_over(void *opaque, const char *text, size_t len) { return (void)opaque, (void)text, len > 0 ? 0 : -EIO; }
static int look_at_counted(struct scene *s)
{
    uint64_t word = 0;
    MUST(msi_vector_is_pending(s->rig.dev, 0) == 1);
    MUST(msi_device_pba_read(s->rig.dev, 0, &word, 8) == 0 && word == 1);
    MUST(msi_device_export(s->rig.dev, NULL, 0, NULL, 0, &word, 8) == 0);
    MUST(msi_route_cache_dump(s->rig.cache, pass_over, NULL) == 0);
    MUST(msi_device_save(s->rig.dev, s->state, msi_device_save_size(s->rig.dev)) == 0);
    return 0;
}

static void set_two(struct scene *s)
{
    expect_ok(msi_vector_set(s->rig.dev, 0, TO(0, 0x41)));
    expect_ok(msi_vector_set(s->rig.dev, 1, TO(1, 0x42)));
    expect_ok(msi_vector_mask(s->rig.dev, 1));
}
static int deliver_all_ways(struct scene *s)
{
    MUST(msi_deliver(s->rig.dev, 0) == MSIROUTE_SENT);
    MUST(msi_deliver(s->rig.dev, 1) == MSIROUTE_PENDING);
    MUST(msi_deliver_message(s->rig.cache, MSIROUTE_NO_REQUESTER, TO(1, 0x43), 0) == MSIROUTE_SENT);
    return 0;
}
static void deliver_masked(struct scene *s) { msi_deliver(s->rig.dev, 1); }
static bool delivered(struct scene *s)
{
    bool first = expect_arrival(&s->rig, 0, 0x41);
    return expect_arrival(&s->rig, 1, 0x43) && expect_quiet(&s->rig) && first;
}

#define TURNING 12
static int deliver_in_turn(struct scene *s)
{
    for (unsigned i = 0; i < TURNING; i++)
        MUST(msi_deliver_message(s->rig.cache, MSIROUTE_NO_REQUESTER, TO(i % 2, 0x50 + i), 0) == MSIROUTE_SENT);
    return 0;
}
static bool delivered_in_turn(struct scene *s)
{
    bool all = true;
    for (unsigned i = 0; i < TURNING; i++)
        all &= expect_arrival(&s->rig, i % 2, 0x50 + i);
    return all;
}

static void set_one(struct scene *s)
{
    expect_ok(msi_vector_set(s->rig.dev, 0, TO(0, 0x41)));
    rig_eventfd(&s->rig, 0);
    rig_eventfd(&s->rig, 0);
}
static int bind_two(struct scene *s)
{
    MUST(msi_vector_bind_eventfd(s->rig.dev, 0, s->rig.eventfds[0], 0) == 0);
    MUST(msi_route_cache_bind_irqfd(s->rig.cache, 4, s->rig.eventfds[1], -1) == 0);
    return 0;
}
static bool first_fires(struct scene *s)
{
    fires(&s->rig, s->rig.eventfds[0]);
    return expect_arrival(&s->rig, 0, 0x41);
}

/* Vectors 0 and 1 have delivered, and have eventfds. */
static void use_two(struct scene *s)
{
    for (unsigned v = 0; v < 2; v++) {
        expect_ok(msi_vector_set(s->rig.dev, v, TO(v, 0x41 + v)));
        expect_eq(msi_deliver(s->rig.dev, v), MSIROUTE_SENT);
        expect_arrival(&s->rig, v, 0x41 + v);
        rig_bound(&s->rig, v, 0);
    }
    expect_ok(msi_device_save(s->rig.dev, s->state, msi_device_save_size(s->rig.dev)));
}
static int change_all_ways(struct scene *s)
{
    struct msi_device *dev = s->rig.dev;
    struct kvm_irq_routing_entry entry = { .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee00000, .data = 0x41 } };
    uint32_t gsi = MSIROUTE_ANY_GSI;
    MUST(msi_vector_mask(dev, 0) == 0);
    MUST(msi_deliver(dev, 0) == MSIROUTE_PENDING);
    MUST(msi_vector_set(dev, 0, TO(1, 0x61)) == 0);
    MUST(msi_vector_unmask(dev, 0) == 0);                   /* sends it */
    MUST(msi_vector_clear_pending(dev, 1) == 0);
    MUST(msi_route_cache_pause(s->rig.cache) == 0);
    MUST(msi_device_load(dev, s->state, msi_device_save_size(dev)) == 0);
    MUST(msi_route_cache_resume(s->rig.cache) == 0);
    MUST(msi_device_set_bus_master(dev, 0) == 0 && msi_device_set_bus_master(dev, 1) == 0);
    MUST(msi_device_set_requester(dev, 8) == 0);
    MUST(msi_route_cache_set_fixed(s->rig.cache, NULL, 0) == 0);
    MUST(msi_route_cache_set_addressing(s->rig.cache, MSIROUTE_X2APIC_IDS) == 0);
    MUST(msi_route_cache_add_route(s->rig.cache, &entry, 0, &gsi) == 0);
    MUST(msi_route_cache_update_route(s->rig.cache, gsi, &entry) == 0);
    MUST(msi_route_cache_commit(s->rig.cache) == 0);
    MUST(msi_route_cache_remove_route(s->rig.cache, gsi) == 0);
    MUST(msi_vector_unbind_eventfd(dev, 0, -1) == 0);
    MUST(msi_vector_clear(dev, 0) == 0);
    MUST(msi_device_reset(dev) == 0);
    MUST(msi_device_close(dev) == 0);
    return 0;
}
static bool sent_once(struct scene *s)
{
    return expect_arrival(&s->rig, 1, 0x61) && expect_quiet(&s->rig);
}

/* The same by the guest: vectors 0 and 1 are open, and have delivered and eventfds. GSI 4 is a third eventfd's. */
static void let_guest_use_two(struct scene *s)
{
    guest_opens(s->rig.dev, 2, 0, 0x41);
    for (unsigned v = 0; v < 2; v++) {
        expect_eq(msi_deliver(s->rig.dev, v), MSIROUTE_SENT);
        expect_arrival(&s->rig, 0, 0x41 + v);
        rig_bound(&s->rig, v, 0);
    }
    expect_ok(msi_route_cache_bind_irqfd(s->rig.cache, 4, rig_eventfd(&s->rig, 0), -1));
    expect_ok(msi_device_export(s->rig.dev, NULL, 0, s->state, 4 * PCI_MSIX_ENTRY_SIZE, NULL, 0));
    s->dev = rig_take_device(&s->rig);
}
static int unmoved(void *opaque, uint32_t requester, uint64_t *address, uint32_t *data, uint64_t *tag)
{
    (void)opaque, (void)requester, (void)address, (void)data;
    *tag = 1;
    return 0;
}
static int change_as_guest(struct scene *s)
{
    const uint32_t masked = PCI_MSIX_ENTRY_CTRL_MASKBIT, open = 0, data = 0x61;
    const uint16_t all_masked = ENABLE_MSIX | MASK_ALL, enabled = ENABLE_MSIX;
    MUST(msi_device_table_write(s->dev, entry_control(0), &masked, 4) == 0);
    MUST(msi_device_table_write(s->dev, entry_data(0), &data, 4) == 0);
    MUST(msi_deliver(s->dev, 0) == MSIROUTE_PENDING);
    MUST(msi_device_table_write(s->dev, entry_control(0), &open, 4) == 0);  /* sends it */
    MUST(msi_device_config_write(s->dev, CAP + PCI_MSIX_FLAGS, &all_masked, 2) == 1);
    MUST(msi_device_config_write(s->dev, CAP + PCI_MSIX_FLAGS, &enabled, 2) == 1);
    MUST(msi_device_set_control(s->dev, 0) == 0);
    MUST(msi_device_import(s->dev, NULL, 0, s->state, 4 * PCI_MSIX_ENTRY_SIZE, NULL, 0) == 0);
    MUST(msi_route_cache_set_remap(s->rig.cache, unmoved, NULL) == 0);
    MUST(msi_device_set_control(s->dev, MSIROUTE_ENABLED) == 0);
    MUST(msi_route_cache_invalidate(s->rig.cache, MSIROUTE_NO_REQUESTER, 1, 1) == 0);
    MUST(msi_route_cache_set_remap(s->rig.cache, NULL, NULL) == 0);
    MUST(msi_route_cache_unbind_irqfd(s->rig.cache, 4, s->rig.eventfds[2]) == 0);
    msi_device_free(s->dev);
    return 0;
}
static bool guests_was_sent(struct scene *s)
{
    return expect_arrival(&s->rig, 0, 0x61) && expect_quiet(&s->rig);
}

/* Vector 0's eventfd has counted; the kernel will refuse it, for it is an irqfd behind the library's back. */
static void steal_eventfd(struct scene *s)
{
    bind_counted(s);
    struct kvm_irqfd irqfd = { .fd = (uint32_t)s->rig.eventfds[0], .gsi = 3 };
    expect_ok(ioctl(s->rig.vm.fd, KVM_IRQFD, &irqfd));
}
static int unmask_stolen(struct scene *s)
{
    MUST(msi_vector_unmask(s->rig.dev, 0) == -EBUSY);
    return 0;
}
static bool says_why(struct scene *s)
{
    return expect_served(&s->rig, 0, UNSERVED) && expect_eq(info_of(s->rig.dev, 0).error, -EBUSY);
}

static atomic_uint complaints;
static void complain(void *opaque, uint32_t level, const char *message)
{
    (void)opaque, (void)level, (void)message;
    atomic_fetch_add(&complaints, 1);
}
static void refuse_membarrier(struct scene *s)
{
    (void)s;
    msi_route_cache_set_log(complain, NULL);
    expect(seccomp_refuse_membarrier(ENOSYS));
}
static int change_slowly(struct scene *s)
{
    uint64_t before = now_us();
    MUST(msi_vector_mask(s->rig.dev, 0) == 0);
    s->took_us = now_us() - before;
    MUST(msi_deliver(s->rig.dev, 0) == MSIROUTE_PENDING);
    MUST(msi_vector_set(s->rig.dev, 0, TO(1, 0x61)) == 0);
    MUST(msi_vector_unmask(s->rig.dev, 0) == 0);
    return 0;
}
static bool changed_and_told(struct scene *s)
{
    bool by_membarrier = s->barrier == BY_MEMBARRIER;
    expect_eq(atomic_load(&complaints), by_membarrier);     /* once a process */
    return expect(!by_membarrier || s->took_us >= 10000) && sent_once(s);
}

/* ---- the relay ---- */

static void relay_two(struct scene *s)
{
    turn_on(&s->rig);
    open_lines(&s->rig, 2);
}
static int turn_relay_on(struct scene *s)
{
    MUST(msi_route_cache_relay_fd(s->rig.cache) >= 0);
    return 0;
}
static void open_two(struct scene *s)
{
    open_lines(&s->rig, 2);
    serve(&s->rig);
    expect_ok(msi_route_cache_relay_stop(s->rig.cache));
}
static void open_two_lines(struct scene *s) { open_lines(&s->rig, 2); }
static int mask_and_unmask_line(struct scene *s)
{
    MUST(msi_vector_mask(s->rig.dev, 0) == 0);
    MUST(msi_vector_unmask(s->rig.dev, 0) == 0);
    MUST(msi_vector_unbind_eventfd(s->rig.dev, 1, -1) == 0);
    return 0;
}
static bool line_is_served(struct scene *s)
{
    raise_line(&s->rig, 0);
    serve(&s->rig);
    return expect_line(&s->rig, 0);
}

/* Line 0 is about to be promoted; line 1 is masked, and has counted. */
static void make_busy(struct scene *s)
{
    relay_two(s);
    expect_ok(msi_vector_mask(s->rig.dev, 1));
    for (unsigned i = 0; i < 8; i++) {
        raise_line(&s->rig, 0);
        msi_route_cache_relay_run(s->rig.cache);
        expect_line(&s->rig, 0);
    }
    raise_line(&s->rig, 1);
    nap_ms(10);
    raise_line(&s->rig, 0);
}
static int run_relay(struct scene *s)
{
    MUST(msi_route_cache_relay_run(s->rig.cache) == 0);
    return 0;
}
static bool is_promoted(struct scene *s)
{
    return expect_line(&s->rig, 0) && expect_served(&s->rig, 0, IN_KERNEL);
}

static int run_loop(struct scene *s)
{
    atomic_store(&s->inside, true);
    MUST(msi_route_cache_relay_loop(s->rig.cache) == 0);
    return 0;
}
static void keep_loop_busy(struct scene *s)
{
    while (!atomic_load(&s->inside))
        nap_ms(1);
    for (unsigned i = 0; i < 30; i++) {
        raise_line(&s->rig, 0);
        expect_line(&s->rig, 0);
    }
    expect_ok(msi_vector_mask(s->rig.dev, 1));
    raise_line(&s->rig, 1);
    nap_ms(2);
    expect_ok(msi_vector_unmask(s->rig.dev, 1));
    expect_line(&s->rig, 1);
    expect_ok(msi_route_cache_relay_stop(s->rig.cache));
}

static void lend_two(struct scene *s)
{
    relay_two(s);
    lend(&s->rig, &s->lent);
    nap_ms(5);
}
static int stop_relay(struct scene *s)
{
    MUST(msi_route_cache_relay_stop(s->rig.cache) == 0);
    return 0;
}
static bool kernel_serves(struct scene *s)
{
    take_back(&s->lent);
    return expect_served(&s->rig, 0, IN_KERNEL);
}

/* ---- the end ---- */

static void take_cache(struct scene *s)
{
    use_two(s);
    s->cache = rig_take_cache(&s->rig);
}
static void take_cache_with_relay(struct scene *s)
{
    lend_two(s);
    s->cache = rig_take_cache(&s->rig);
}
static int free_cache(struct scene *s)
{
    msi_route_cache_free(s->cache);
    return 0;
}
static bool is_gone(struct scene *s)
{
    return expect_eq(msi_deliver(s->rig.dev, 0), -ESHUTDOWN);
}

/* ---- memory, waiting, threads ---- */

#define TINY 8192
static void tune_main_heap(struct scene *s)
{
    (void)s;
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_TOP_PAD, 0);
    mallopt(M_TRIM_THRESHOLD, 0);
    mallopt(M_MMAP_THRESHOLD, TINY);
}
static void tune_other_heaps(struct scene *s)
{
    (void)s;
    mallopt(M_TOP_PAD, 0);
    mallopt(M_TRIM_THRESHOLD, TINY);
    mallopt(M_MMAP_THRESHOLD, 64 << 20);
}
static int use_memory(struct scene *s)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct kvm_irq_routing_entry entry = { .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = 0xfee00000, .data = 0x41 } };
    struct msi_device *dev;
    config.vectors = 2048;
    for (unsigned i = 0; i < 8; i++) {
        MUST(msi_device_new(s->rig.cache, &config, &dev) == 0);
        MUST(msi_route_cache_dump(s->rig.cache, pass_over, NULL) == 0);     /* large lists, the last of a heap */
        msi_device_free(dev);
    }
    MUST(msi_route_cache_begin(s->rig.cache) == 0);
    for (unsigned i = 0; i < 2000; i++) {
        uint32_t gsi = MSIROUTE_ANY_GSI;
        MUST(msi_route_cache_add_route(s->rig.cache, &entry, 0, &gsi) == 0);
    }
    return 0;
}

/* What the library waits for ends some time after it has begun to wait. */
static void last(struct scene *s)
{
    atomic_store(&s->inside, true);
    while (!atomic_load(&s->acting))
        nap_ms(1);
    nap_ms(50);
}

static void changes_long(void *opaque, struct msi_device *dev, uint32_t what, uint32_t first, uint32_t n)
{
    (void)dev, (void)what, (void)first, (void)n;
    last(opaque);
}
static void *change_long(void *opaque)
{
    struct scene *s = opaque;
    msi_vector_set(s->dev, 0, TO(0, 0x41));
    return NULL;
}
static void begin_to_tell(struct scene *s)
{
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    config.vectors = 1;
    config.changed = changes_long;
    config.opaque = s;
    s->dev = rig_device_of(&s->rig, &config);
    pthread_create(&s->other, NULL, change_long, s);
    while (!atomic_load(&s->inside))
        nap_ms(1);
}
static int wait_until_told(struct scene *s)
{
    atomic_store(&s->acting, true);
    MUST(msi_route_cache_pause(s->rig.cache) == 0);
    return 0;
}

static struct scene *slow_scene;
static int slow_signal(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    (void)opaque, (void)requester, (void)address, (void)data;
    last(slow_scene);
    return 1;
}
static const struct msi_route_cache_ops slow_ops = { .size = sizeof(slow_ops), .signal = slow_signal };
static void *deliver_long(void *opaque)
{
    struct scene *s = opaque;
    expect_eq(msi_deliver(s->rig.dev, 0), MSIROUTE_SENT);
    return NULL;
}
static void begin_to_deliver(struct scene *s)
{
    slow_scene = s;
    expect_ok(msi_vector_set(s->rig.dev, 0, TO(0, 0x41)));
    pthread_create(&s->other, NULL, deliver_long, s);
    while (!atomic_load(&s->inside))
        nap_ms(1);
}
static int mask_one(struct scene *s)
{
    atomic_store(&s->acting, true);
    MUST(msi_vector_mask(s->rig.dev, 0) == 0);
    return 0;
}

#define MANY 128
static void bind_many(struct scene *s)
{
    for (unsigned v = 0; v < MANY; v++) {
        expect_ok(msi_vector_set(s->rig.dev, v, TO_NTH(v)));
        rig_bound(&s->rig, v, 0);
    }
}
static int pause_many(struct scene *s)
{
    MUST(msi_route_cache_pause(s->rig.cache) == 0);
    return 0;
}
static bool all_count(struct scene *s)
{
    fires(&s->rig, s->rig.eventfds[MANY - 1]);
    return expect_quiet(&s->rig) && expect_eq(msi_vector_is_pending(s->rig.dev, MANY - 1), 1);
}

#define NO_DIRECT .cache_flags = MSIROUTE_CACHE_NO_DIRECT
const struct scenario scenarios[] = {
    { "a cache of a path", "new", .no_cache = true, .with = "open", .act = make_cache_by_path, .check = cache_works },
    { "a cache of descriptors", "new", .no_cache = true, .act = make_cache_of_descriptors, .check = cache_works },
    { "what costs nothing", "none", .config = { .kind = MSIROUTE_KIND_MSIX }, .act = make_none },
    { "asking", "ask", .act = ask },
    { "looking at counters", "look", .config = { .kind = MSIROUTE_KIND_MSIX }, .prepare = bind_counted, .act = look_at_counted },
    { "raising", "deliver", .prepare = set_two, .warm_up = deliver_masked, .act = deliver_all_ways, .check = delivered },
    { "raising first", "first", .prepare = set_two, .act = deliver_all_ways, .check = delivered },
    { "raising through routes", "route", .config = { NO_DIRECT }, .prepare = set_two, .act = deliver_all_ways, .check = delivered },
    { "raising in turn", "route", .config = { NO_DIRECT, ROUTES(4) }, .act = deliver_in_turn, .check = delivered_in_turn },
    { "binding", "bind", .prepare = set_one, .act = bind_two, .check = first_fires },
    { "changing", "change", .prepare = use_two, .act = change_all_ways, .check = sent_once },
    { "a guest that changes", "change", .config = { .kind = MSIROUTE_KIND_MSIX }, .prepare = let_guest_use_two,
      .act = change_as_guest, .check = guests_was_sent },
    { "changing without KVM_SIGNAL_MSI", "change", .config = { NO_DIRECT }, .prepare = use_two, .act = change_all_ways, .check = sent_once },
    { "changing what the kernel refuses", "change", .prepare = steal_eventfd, .act = unmask_stolen, .check = says_why },
    { "changing when membarrier is refused at last", "change", .prepare = use_two, .warm_up = refuse_membarrier, .act = change_slowly,
      .check = changed_and_told },
    { "changing what is relayed", "change", .with = "relay", .prepare = relay_two, .act = mask_and_unmask_line, .check = line_is_served },
    { "turning the relay on", "relay_fd", .with = "relay", .prepare = open_two_lines, .act = turn_relay_on, .check = line_is_served },
    { "turning it on again", "relay_fd", .with = "relay", .prepare = open_two, .act = turn_relay_on, .check = line_is_served },
    { "running the relay", "relay", .with = "relay", .prepare = make_busy, .act = run_relay, .check = is_promoted },
    { "a thread in the relay", "relay", .with = "relay", .prepare = relay_two, .act = run_loop, .meanwhile = keep_loop_busy },
    { "turning the relay off", "relay_stop", .with = "relay", .prepare = lend_two, .act = stop_relay, .check = kernel_serves },
    { "freeing a cache", "free", .prepare = take_cache, .act = free_cache, .check = is_gone },
    { "freeing a cache with a relay", "free", .with = "relay", .prepare = take_cache_with_relay, .act = free_cache, .check = is_gone },
    { "memory of the main heap", "change", "memory", .prepare = tune_main_heap, .act = use_memory },
    { "memory of another heap", "change", "memory", .with = "shrink", .prepare = tune_other_heaps, .act = use_memory },
    { "waiting for the VMM", "change", "waiting", .prepare = begin_to_tell, .act = wait_until_told },
    { "waiting for a delivery", "change", "waiting", .host = ON_FAKE, .config = { .ops = &slow_ops }, .prepare = begin_to_deliver, .act = mask_one },
    { "helper threads", "change", "threads", .config = { .vectors = MANY, .cache_flags = MSIROUTE_CACHE_HELPER_THREADS },
      .prepare = bind_many, .act = pause_many, .check = all_count },
};
const size_t n_scenarios = sizeof(scenarios) / sizeof(scenarios[0]);
