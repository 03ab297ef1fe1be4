/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What must make no system call makes none: a thread that makes one other than those allowed to it is killed. And what must
 * not allocate does not: malloc is ours. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rig.h"

#define VECTORS 2048

/* ---- malloc ---- */

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static _Thread_local unsigned allocations;

void *malloc(size_t size)                        { return allocations++, __libc_malloc(size); }
void *calloc(size_t n, size_t size)              { return allocations++, __libc_calloc(n, size); }
void *realloc(void *old, size_t size)            { return allocations++, __libc_realloc(old, size); }
void *aligned_alloc(size_t alignment, size_t size) { return allocations++, __libc_memalign(alignment, size); }
int posix_memalign(void **out, size_t alignment, size_t size)
{
    allocations++;
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}

/* ---- system calls ---- */

/* From now on this thread makes no system call but `allowed`, and the one to end. */
static void allow_only(int allowed)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(99);
}
#define NOTHING (-1)


/* In a child, which has the library's memory as it was: how it ended, and whether it allocated. */
static int ends_frugally(struct msi_device *dev, int allowed, int (*run)(struct msi_device *dev))
{
    int status = -1;
    pid_t child = _Fork();      /* of which the library does not know: it would refuse to work */
    if (child == 0) {
        allow_only(allowed);
        allocations = 0;
        int result = run(dev);
        _exit(result ? result : allocations ? 98 : 0);
    }
    waitpid(child, &status, 0);
    return status;
}
#define expect_frugal(dev, allowed, run)   expect_eq(ends_frugally(dev, allowed, run), 0)
#define expect_a_call(dev, allowed, run)   expect_eq(ends_frugally(dev, allowed, run) & 0x7f, SIGSYS)

/* ---- what is done ---- */

static int program_all(struct msi_device *dev)
{
    for (uint32_t turn = 0; turn < 3; turn++) {
        for (uint64_t v = 0; v < VECTORS; v++) {
            const uint32_t entry[4] = { 0xfee00000, 0, 0x41 + turn, 1 };
            for (unsigned field = 0; field < 4; field++)
                if (msi_device_table_write(dev, v * 16 + field * 4, &entry[field], 4))
                    return 1;
        }
    }
    return 0;
}

static int read_table(struct msi_device *dev)
{
    uint64_t value;
    for (uint64_t offset = 0; offset < VECTORS * 16; offset += 8)
        if (msi_device_table_read(dev, offset, &value, sizeof(value)))
            return 1;
    return 0;
}

static uint64_t pba[VECTORS / 64];
static int read_pba(struct msi_device *dev)
{
    for (uint64_t offset = 0; offset < VECTORS / 8; offset += 8)
        if (msi_device_pba_read(dev, offset, &pba[offset / 8], 8))
            return 1;
    return 0;
}

static int read_pba_and_find_one(struct msi_device *dev)
{
    if (read_pba(dev))
        return 1;
    for (unsigned i = 0; i < VECTORS / 64; i++)
        if (pba[i] != (i == 1500 / 64 ? 1ull << 1500 % 64 : 0))
            return 2;
    return 0;
}

static int deliver_masked(struct msi_device *dev)
{
    for (unsigned v = 0; v < VECTORS; v++)
        if (msi_deliver(dev, v) != MSIROUTE_PENDING)
            return 1;
    return 0;
}

static int set_all_again(struct msi_device *dev)
{
    for (unsigned v = 0; v < 4; v++)
        if (msi_vector_set(dev, v, TO_NTH(v)))
            return 1;
    return 0;
}

static int unmask_one(struct msi_device *dev) { return msi_vector_unmask(dev, 0) != 0; }

/* ---- tests ---- */

static bool prepare(struct rig *rig)
{
    return expect_ok(msi_device_set_control(rig->dev, MSIROUTE_ENABLED));
}

static void a_table_write_of_a_masked_vector_makes_no_system_call_and_no_allocation(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = VECTORS);
    prepare(&rig);
    for (unsigned v = 0; v < VECTORS; v += 64)
        rig_bound(&rig, v, 0);
    expect_frugal(rig.dev, NOTHING, program_all);
    /* Nor if it was open and delivered before. */
    for (unsigned v = 0; v < VECTORS; v++) {
        expect_ok(msi_vector_set(rig.dev, v, TO(0, 0x41)));
        expect_ok(msi_vector_unmask(rig.dev, v));
        msi_deliver(rig.dev, v);
        expect_ok(msi_vector_mask(rig.dev, v));
    }
    expect_frugal(rig.dev, NOTHING, program_all);
    expect_frugal(rig.dev, NOTHING, read_table);
    expect_frugal(rig.dev, NOTHING, deliver_masked);
    expect_a_call(rig.dev, NOTHING, unmask_one);    /* the filter works */
}

static void a_PBA_read_makes_system_calls_for_masked_eventfds_alone(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = VECTORS);
    prepare(&rig);
    for (unsigned v = 0; v < VECTORS; v += 100) {
        expect_ok(msi_vector_set(rig.dev, v, TO_NTH(v / 100)));
        expect_ok(msi_vector_unmask(rig.dev, v));
        rig_bound(&rig, v, 0);
    }
    expect_frugal(rig.dev, NOTHING, read_pba);      /* 21 eventfds, all read by the kernel */
    expect_ok(msi_vector_mask(rig.dev, 1500));
    expect_a_call(rig.dev, NOTHING, read_pba);
    fires(&rig, rig.eventfds[15]);
    expect_frugal(rig.dev, SYS_poll, read_pba_and_find_one);
}

static void a_set_to_what_a_vector_has_makes_no_system_call(enum host host)
{
    RIG(rig, host, .vectors = 4);
    for (unsigned v = 0; v < 3; v++)
        expect_ok(msi_vector_set(rig.dev, v, TO_NTH(v)));
    expect_ok(msi_vector_set(rig.dev, 3, TO_NTH(3)));
    rig_bound(&rig, 0, 0);
    expect_frugal(rig.dev, NOTHING, set_all_again);
    expect(msi_route_cache_relay_fd(rig.cache) >= 0);
    rig_bound(&rig, 1, 0);
    expect_ok(msi_vector_mask(rig.dev, 2));
    rig_bound(&rig, 2, 0);
    expect_eq(info_of(rig.dev, 0).flags & MSIROUTE_VECTOR_IN_KERNEL, MSIROUTE_VECTOR_IN_KERNEL);
    expect_eq(info_of(rig.dev, 1).flags & MSIROUTE_VECTOR_RELAYED, MSIROUTE_VECTOR_RELAYED);
    expect_frugal(rig.dev, NOTHING, set_all_again);
    expect_ok(msi_vector_set(rig.dev, 0, TO_NTH(4)));
    expect_a_call(rig.dev, NOTHING, set_all_again);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(ON_KVM | ON_FAKE, a_table_write_of_a_masked_vector_makes_no_system_call_and_no_allocation),
        TEST(ON_KVM | ON_FAKE, a_set_to_what_a_vector_has_makes_no_system_call),
        TEST(ON_KVM | ON_FAKE, a_PBA_read_makes_system_calls_for_masked_eventfds_alone),
    };
    return TAP_MAIN(tests);
}
