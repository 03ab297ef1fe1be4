/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A VM is saved while its devices interrupt, and goes on in another VM: pause, save devices and vCPUs, restore, resume. */
#include <errno.h>
#include <unistd.h>

#include "guest.h"
#include "rig.h"

/* ---- pause ---- */

static void while_paused_nothing_is_sent_and_everything_kept(enum host host)
{
    RIG(rig, host);
    struct msi_device *msix = rig_device(&rig, MSIROUTE_KIND_MSIX, 1);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x42)));
    int fd = rig_bound(&rig, 1, 0);
    expect_ok(msi_route_cache_pause(rig.cache));
    for (unsigned i = 0; i < 3; i++) {
        expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
        fires(&rig, fd);
    }
    expect_eq(msi_deliver(msix, 0), MSIROUTE_DISABLED);
    expect_eq(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, TO(0, 0x50), 0), -EAGAIN);
    expect_quiet(&rig);
    expect_eq(msi_vector_is_pending(rig.dev, 0), 1);
    expect_eq(msi_vector_is_pending(rig.dev, 1), 1);
    expect(info_of(rig.dev, 0).flags & MSIROUTE_VECTOR_LIVE);   /* the guest's wish is as it was */
    expect_ok(msi_route_cache_resume(rig.cache));
    expect_arrival(&rig, 1, 0x41);
    expect_arrival(&rig, 1, 0x42);
    expect_quiet(&rig);
    expect_eq(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, TO(0, 0x50), 0), MSIROUTE_SENT);
    expect_arrival(&rig, 0, 0x50);
    fires(&rig, fd);
    expect_arrival(&rig, 1, 0x42);
}

static void pauses_nest(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_ok(msi_route_cache_pause(rig.cache));
    expect_ok(msi_route_cache_pause(rig.cache));
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    expect_ok(msi_route_cache_resume(rig.cache));
    expect_quiet(&rig);
    expect_ok(msi_route_cache_resume(rig.cache));
    expect_arrival(&rig, 1, 0x41);
    expect_eq(msi_route_cache_resume(rig.cache), -EINVAL);
    expect_delivers(&rig, 0, 1, 0x41);
}

static void a_cache_may_start_paused_and_devices_join_it_so(enum host host)
{
    RIG(rig, host, .cache_flags = MSIROUTE_CACHE_PAUSED);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    rig_bound(&rig, 0, 0);
    expect_eq(msi_deliver(rig.dev, 0), MSIROUTE_PENDING);
    expect(!(info_of(rig.dev, 0).flags & MSIROUTE_VECTOR_IN_KERNEL));
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_ok(msi_route_cache_resume(rig.cache));
    expect_arrival(&rig, 1, 0x41);
    expect(info_of(rig.dev, 0).flags & MSIROUTE_VECTOR_IN_KERNEL);
}

static void what_a_guest_writes_while_paused_counts_at_resume(enum host host)
{
    RIG(rig, host);
    expect_ok(msi_vector_set(rig.dev, 0, TO(1, 0x41)));
    expect_ok(msi_vector_set(rig.dev, 1, TO(1, 0x42)));
    int fd = rig_bound(&rig, 0, 0);
    expect_ok(msi_route_cache_pause(rig.cache));
    expect_eq(msi_deliver(rig.dev, 1), MSIROUTE_PENDING);
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x51)));
    expect_ok(msi_vector_mask(rig.dev, 1));
    expect_ok(msi_route_cache_resume(rig.cache));
    expect_quiet(&rig);
    fires(&rig, fd);
    expect_arrival(&rig, 0, 0x51);
    expect_ok(msi_vector_unmask(rig.dev, 1));
    expect_arrival(&rig, 1, 0x42);
}

static void resuming_many_devices_is_one_table_write(enum host host)
{
    enum { DEVICES = 20, VECTORS = 8 };
    RIG(rig, host);
    struct msi_device *devices[DEVICES];
    for (unsigned d = 0; d < DEVICES; d++) {
        devices[d] = rig_device(&rig, MSIROUTE_KIND_PLAIN, VECTORS);
        for (unsigned v = 0; v < VECTORS; v++)
            expect_ok(msi_vector_bind_eventfd(devices[d], v, rig_eventfd(&rig, EFD_NONBLOCK), 0));
    }
    expect_ok(msi_route_cache_pause(rig.cache));
    for (unsigned d = 0; d < DEVICES; d++)
        for (unsigned v = 0; v < VECTORS; v++)
            expect_ok(msi_vector_set(devices[d], v, TO_NTH(d * VECTORS + v)));
    expect_eq(rig_stats(&rig).table_writes, 0);
    expect_eq(TABLE_WRITES(&rig, expect_ok(msi_route_cache_resume(rig.cache))), 1);
    expect_eq(rig_stats(&rig).irqfd_binds, DEVICES * VECTORS);
}

/* ---- a guest moves ---- */

#define VECTORS 4       /* 0 and 1 by eventfd, 2 and 3 by msi_deliver; odd ones to vCPU 1 */
#define FIRST   0x40
#define MOVES   8

struct machine {
    struct vm vm;
    struct msi_route_cache *cache;
    struct msi_device *dev;
};

struct source {
    pthread_t thread;
    struct guest *guest;
    pthread_rwlock_t *lock;             /* which machine it is */
    struct machine **machine;
    unsigned vector;
    int eventfd;                        /* -1: msi_deliver */
    atomic_bool *stop;
    uint32_t sent;
    bool lost;
};

static unsigned cpu_of(unsigned vector) { return vector & 1; }

static bool raise_vector(struct source *source)
{
    if (source->eventfd >= 0) {
        add_to_eventfd(source->eventfd, 1);
        return true;
    }
    pthread_rwlock_rdlock(source->lock);
    int result = msi_deliver((*source->machine)->dev, source->vector);
    pthread_rwlock_unlock(source->lock);
    return expect(result == MSIROUTE_SENT || result == MSIROUTE_PENDING);
}

/* One at a time, so that none may merge with another: each makes one interrupt, however often the guest moves meanwhile. */
static void *raise_all_the_time(void *opaque)
{
    struct source *source = opaque;
    while (!atomic_load(source->stop) && !source->lost) {
        source->lost = !raise_vector(source)
            || !guest_reaches(source->guest, cpu_of(source->vector), FIRST + source->vector, source->sent + 1);
        source->sent++;
    }
    return NULL;
}

static bool machine_open(struct machine *machine, uint32_t flags)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_device_config device = MSIROUTE_DEVICE_CONFIG_INIT;
    if (!vm_open(&machine->vm, FULL_IRQCHIP) || !vm_add_cpu(&machine->vm, 0) || !vm_add_cpu(&machine->vm, 1))
        return false;
    config.vm_fd = machine->vm.fd;
    config.flags = flags;
    device.kind = MSIROUTE_KIND_MSIX;
    device.vectors = VECTORS;
    return expect_ok(msi_route_cache_new(&config, &machine->cache)) && expect_ok(msi_device_new(machine->cache, &device, &machine->dev));
}

static void machine_close(struct machine *machine)
{
    msi_device_free(machine->dev);
    msi_route_cache_free(machine->cache);
    vm_close(&machine->vm);
    *machine = (struct machine){ .vm = { .kvm = -1, .fd = -1 } };
}

/* Out of one machine, into the other. */
static bool move(struct guest *guest, struct machine *from, struct machine *to, const struct source *sources)
{
    struct cpu_state cpus[2];
    uint8_t device[4096];
    size_t size = msi_device_save_size(from->dev);
    expect_ok(msi_route_cache_pause(from->cache));
    nap_ms(2);              /* sources go on meanwhile */
    guest_stop(guest);
    if (!cpu_save(guest, 0, &cpus[0]) || !cpu_save(guest, 1, &cpus[1]) || !expect(size && size <= sizeof(device)))
        return false;
    expect_ok(msi_device_save(from->dev, device, size));
    for (unsigned v = 0; v < VECTORS; v++)      /* no kernel takes an eventfd twice */
        if (sources[v].eventfd >= 0)
            expect_ok(msi_vector_unbind_eventfd(from->dev, v, sources[v].eventfd));

    if (!machine_open(to, MSIROUTE_CACHE_PAUSED))
        return false;
    for (unsigned v = 0; v < VECTORS; v++)
        if (sources[v].eventfd >= 0)
            expect_ok(msi_vector_bind_eventfd(to->dev, v, sources[v].eventfd, 0));
    expect_ok(msi_device_load(to->dev, device, size));
    if (!guest_move(guest, &to->vm) || !cpu_restore(guest, 0, &cpus[0]) || !cpu_restore(guest, 1, &cpus[1]))
        return false;
    return true;
}

static void a_running_guest_is_saved_and_restored_and_no_interrupt_is_lost(enum host host)
{
    struct machine machines[2] = { 0 }, *machine = &machines[0];
    struct guest guest;
    struct source sources[VECTORS];
    pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
    atomic_bool stop = false;
    (void)host;
    if (!machine_open(machine, 0) || !guest_open(&guest, &machine->vm))
        return;
    expect_ok(msi_device_set_control(machine->dev, MSIROUTE_ENABLED));
    for (unsigned v = 0; v < VECTORS; v++) {
        expect_ok(msi_vector_set(machine->dev, v, TO(cpu_of(v), FIRST + v)));
        expect_ok(msi_vector_unmask(machine->dev, v));
        sources[v] = (struct source){ .guest = &guest, .lock = &lock, .machine = &machine, .vector = v, .stop = &stop };
        sources[v].eventfd = v < 2 ? eventfd(0, EFD_CLOEXEC) : -1;
        if (v < 2)
            expect_ok(msi_vector_bind_eventfd(machine->dev, v, sources[v].eventfd, 0));
    }
    guest_start(&guest);
    for (unsigned v = 0; v < VECTORS; v++)
        expect_ok(pthread_create(&sources[v].thread, NULL, raise_all_the_time, &sources[v]));

    for (unsigned i = 0; i < MOVES; i++) {
        struct machine *next = &machines[(i + 1) % 2], *old = machine;
        nap_ms(10);
        pthread_rwlock_wrlock(&lock);
        bool moved = move(&guest, old, next, sources);
        machine = next;
        pthread_rwlock_unlock(&lock);
        if (!moved)
            break;
        nap_ms(2);
        expect_ok(msi_route_cache_resume(machine->cache));
        guest_start(&guest);
        machine_close(old);
    }

    atomic_store(&stop, true);
    for (unsigned v = 0; v < VECTORS; v++)
        pthread_join(sources[v].thread, NULL);
    nap_ms(20);
    for (unsigned v = 0; v < VECTORS; v++) {
        tap_context("vector %u", v);
        expect(!sources[v].lost);
        expect(sources[v].sent > MOVES);
        expect_eq(guest_count(&guest, cpu_of(v), FIRST + v), sources[v].sent);
        expect_eq(guest_count(&guest, !cpu_of(v), FIRST + v), 0);
    }
    guest_stop(&guest);
    guest_close(&guest);
    machine_close(machine);
    for (unsigned v = 0; v < 2; v++)
        close(sources[v].eventfd);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, while_paused_nothing_is_sent_and_everything_kept),
        TEST(EVERYWHERE, pauses_nest),
        TEST(EVERYWHERE, a_cache_may_start_paused_and_devices_join_it_so),
        TEST(EVERYWHERE, what_a_guest_writes_while_paused_counts_at_resume),
        TEST(EVERYWHERE, resuming_many_devices_is_one_table_write),
        TEST(ON_KVM, a_running_guest_is_saved_and_restored_and_no_interrupt_is_lost),
    };
    return TAP_MAIN(tests);
}
