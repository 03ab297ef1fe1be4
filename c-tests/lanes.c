/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "lanes.h"
#include "rig.h"

struct lane lanes[LANES];
struct msi_route_cache *lanes_cache;
struct msi_device *lanes_dev;
atomic_ulong torn, stale, late, misrouted;
void (*_Atomic lanes_inside)(unsigned lane);
void (*_Atomic lanes_inside_table)(void);
bool lanes_by_registers;

static atomic_bool paused;
static _Thread_local unsigned raising = LANES;  /* the lane that this thread is delivering to */

/* ---- messages: the serial is in the address; the data says which lane, and is a sum over the address ---- */

#define SERIALS 1024

static uint64_t address_of(uint32_t serial)
{
    return 0xFEE00000u | (serial & 0xFF) << 12 | (serial >> 8 & 3) << 2;
}

static uint32_t serial_of(uint64_t address)
{
    return (address >> 12 & 0xFF) | (address >> 2 & 3) << 8;
}

static uint32_t data_of(uint64_t address, unsigned lane)
{
    uint32_t sum = (uint32_t)(address * 2654435761u >> 9) ^ lane * 40503u;
    return (sum << 3 & 0xFFF8) | lane;
}

static bool is_older(uint32_t serial, uint32_t than)
{
    return ((serial - than) & (SERIALS - 1)) >= SERIALS / 2;
}

/* ---- the judge ---- */

static void judge(const struct lane *lane, uint32_t serial)
{
    if (atomic_load(&lane->shut) || atomic_load(&paused))
        atomic_fetch_add(&late, 1);
    if (is_older(serial, atomic_load(&lane->oldest)))
        atomic_fetch_add(&stale, 1);
}

static int judging_signal(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    unsigned number = data % LANES;
    struct lane *lane = &lanes[number];
    uint64_t known = atomic_load(&lane->raised), seen = atomic_load(&lane->seen);
    (void)opaque, (void)requester;
    if (address >> 20 != 0xFEE || data != data_of(address, number))
        atomic_fetch_add(&torn, 1);
    judge(lane, serial_of(address));
    void (*inside)(unsigned) = atomic_load(&lanes_inside);
    if (inside)
        inside(number);
    else
        dawdle(100);
    judge(lane, serial_of(address));
    while (seen < known && !atomic_compare_exchange_weak(&lane->seen, &seen, known))
        ;
    atomic_fetch_add(&lane->messages, 1);
    return 1;
}

/* ---- for NO_DIRECT: a table, and messages by GSI ---- */

static pthread_rwlock_t table_lock = PTHREAD_RWLOCK_INITIALIZER;
static struct kvm_irq_routing_entry table[4096];

static int write_table(void *opaque, const struct kvm_irq_routing_entry *entries, size_t n)
{
    void (*inside)(void) = atomic_load(&lanes_inside_table);
    (void)opaque;
    if (inside)
        inside();
    pthread_rwlock_wrlock(&table_lock);
    memset(table, 0, sizeof(table));
    for (size_t i = 0; i < n; i++)
        table[entries[i].gsi % 4096] = entries[i];
    pthread_rwlock_unlock(&table_lock);
    return 0;
}

static int raise_gsi(void *opaque, uint32_t gsi)
{
    dawdle(200);
    pthread_rwlock_rdlock(&table_lock);
    struct kvm_irq_routing_entry entry = table[gsi % 4096];
    pthread_rwlock_unlock(&table_lock);
    if (entry.type != KVM_IRQ_ROUTING_MSI || (raising < LANES && raising != entry.u.msi.data % LANES)) {
        atomic_fetch_add(&misrouted, 1);
        return 0;
    }
    return judging_signal(opaque, MSIROUTE_NO_REQUESTER, entry.u.msi.address_lo, entry.u.msi.data);
}

static int take_irqfd(void *opaque, int fd, int resamplefd, uint32_t gsi)
{
    (void)opaque, (void)fd, (void)resamplefd, (void)gsi;
    return 0;
}

static int leave_irqfd(void *opaque, int fd, uint32_t gsi)
{
    (void)opaque, (void)fd, (void)gsi;
    return 0;
}

/* ---- the lanes ---- */

bool lanes_open(uint32_t kind, uint32_t flags, uint32_t max_routes)
{
    struct msi_route_cache_ops ops = MSIROUTE_CACHE_OPS_INIT;
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_device_config device = MSIROUTE_DEVICE_CONFIG_INIT;
    ops.signal = judging_signal;
    ops.set_routes = write_table;
    ops.raise_gsi = raise_gsi;
    ops.bind_irqfd = take_irqfd;
    ops.unbind_irqfd = leave_irqfd;
    config.flags = flags | rig_flags;
    config.max_routes = max_routes;
    config.ops = &ops;
    device.kind = kind;
    device.vectors = LANES;
    memset(lanes, 0, sizeof(lanes));
    atomic_store(&torn, 0);
    atomic_store(&stale, 0);
    atomic_store(&late, 0);
    atomic_store(&misrouted, 0);
    atomic_store(&lanes_inside, NULL);
    atomic_store(&lanes_inside_table, NULL);
    atomic_store(&paused, false);
    if (!expect_ok(msi_route_cache_new(&config, &lanes_cache)) || !expect_ok(msi_device_new(lanes_cache, &device, &lanes_dev)))
        return false;
    if (kind == MSIROUTE_KIND_MSIX)
        expect_ok(msi_device_set_control(lanes_dev, MSIROUTE_ENABLED));
    for (unsigned i = 0; i < LANES; i++) {
        lane_set(i);
        lane_unmask(i);
    }
    return true;
}

void lanes_close(void)
{
    msi_device_free(lanes_dev);
    msi_route_cache_free(lanes_cache);
    expect_eq(torn, 0);
    expect_eq(stale, 0);
    expect_eq(late, 0);
    expect_eq(misrouted, 0);
}

int lane_raise(unsigned lane)
{
    atomic_fetch_add(&lanes[lane].raised, 1);
    unsigned outer = raising;
    raising = lane;
    int result = msi_deliver(lanes_dev, lane);
    raising = outer;
    return result;
}

static void write_entry(unsigned lane, unsigned field, uint32_t value)
{
    expect_ok(msi_device_table_write(lanes_dev, lane * 16 + field * 4, &value, sizeof(value)));
}

/* Piece by piece, in any order. */
static void write_message(unsigned lane, uint64_t address, uint32_t data)
{
    const uint32_t value[3] = { (uint32_t)address, (uint32_t)(address >> 32), data };
    for (unsigned first = chance() % 3, i = 0; i < 3; i++)
        write_entry(lane, (first + i) % 3, value[(first + i) % 3]);
}

void lane_set(unsigned lane)
{
    uint32_t serial = atomic_fetch_add(&lanes[lane].serial, 1) + 1, data = data_of(address_of(serial), lane);
    if (lanes_by_registers)
        write_message(lane, address_of(serial), data);
    else
        expect_ok(msi_vector_set(lanes_dev, lane, address_of(serial), data));
    atomic_store(&lanes[lane].oldest, serial & (SERIALS - 1));
}

void lane_mask(unsigned lane)
{
    if (lanes_by_registers)
        write_entry(lane, 3, 1);
    else
        expect_ok(msi_vector_mask(lanes_dev, lane));
    atomic_store(&lanes[lane].shut, true);
}

void lane_unmask(unsigned lane)
{
    atomic_store(&lanes[lane].shut, false);
    if (lanes_by_registers)
        write_entry(lane, 3, 0);
    else
        expect_ok(msi_vector_unmask(lanes_dev, lane));
}

void lanes_pause(void)
{
    expect_ok(msi_route_cache_pause(lanes_cache));
    atomic_store(&paused, true);
}

void lanes_resume(void)
{
    atomic_store(&paused, false);
    expect_ok(msi_route_cache_resume(lanes_cache));
}

bool lane_is_quiet(unsigned lane)
{
    bool seen = expect_eq(atomic_load(&lanes[lane].seen), atomic_load(&lanes[lane].raised));
    bool nothing_pending = expect_eq(msi_vector_is_pending(lanes_dev, lane), 0);
    return seen && nothing_pending;
}

/* ---- threads ---- */

uint32_t chance(void)
{
    static atomic_uint threads;
    static _Thread_local uint32_t state;
    if (!state)
        state = 2463534242u + 747796405u * atomic_fetch_add(&threads, 1);
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

void dawdle(unsigned at_most)
{
    uint32_t random = chance();
    if (random % 128 == 0)
        sched_yield();
    for (unsigned turns = random / 128 % at_most; turns; turns--)
        __asm__ volatile("pause");
}

void meet(struct gate_of_two *gate)
{
    unsigned turn = atomic_load(&gate->turn), waited = 0;
    if (atomic_fetch_add(&gate->arrived, 1) == 1) {
        atomic_store(&gate->arrived, 0);
        atomic_fetch_add(&gate->turn, 1);
        return;
    }
    while (atomic_load(&gate->turn) == turn)
        if (++waited % 1000 == 0)
            sched_yield();
}

/* ---- how changes wait for deliveries ---- */

static bool forbid_membarrier(uint32_t instead)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, instead),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

bool lanes_choose_barrier(int argc, char **argv)
{
    const char *choice = argc > 1 ? argv[1] : "";
    if (!strcmp(choice, "fences")) {
        rig_flags = MSIROUTE_CACHE_FENCES;
        return forbid_membarrier(SECCOMP_RET_KILL_PROCESS);
    }
    if (!strcmp(choice, "refused"))
        return forbid_membarrier(SECCOMP_RET_ERRNO | EPERM);
    return !*choice;
}
