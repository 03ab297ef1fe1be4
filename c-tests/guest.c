/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"
#include "proc.h"
#include "tap.h"

#define GUEST_MEMORY   0x100000
#define GUEST_CODE     0x1000
#define GUEST_STACKS   0x8000       /* down from its end, 1 KiB a vCPU */
#define GUEST_COUNTERS 0x20000      /* 1 KiB a vCPU */
#define ENTRY_SIZE     8
#define SIGNAL_STOP    SIGUSR1
#define PATIENCE_US    5000000

extern const uint8_t guest_code[], guest_main[], guest_code_end[];

static bool tried(int result, const char *what)
{
    if (result < 0)
        tap_fail(__FILE__, __LINE__, "%s: %s", what, strerror(errno));
    return result >= 0;
}
#define TRY(fd, request, argument) tried(ioctl(fd, request, argument), #request)

static bool put_memory(const struct guest *guest)
{
    struct kvm_userspace_memory_region region = { .memory_size = GUEST_MEMORY, .userspace_addr = (uintptr_t)guest->memory };
    return TRY(guest->vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000)     /* some hosts want it for real mode */
        && TRY(guest->vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static bool map_run(struct guest *guest, unsigned cpu)
{
    int size = ioctl(guest->vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    guest->run[cpu] = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, guest->vm->cpu[cpu], 0);
    return expect(guest->run[cpu] != MAP_FAILED);
}

static bool set_registers(const struct guest *guest, unsigned cpu)
{
    struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
    struct kvm_regs regs = { .rip = GUEST_CODE + (uintptr_t)(guest_main - guest_code), .rflags = 2 };
    struct kvm_sregs sregs;
    regs.rsp = GUEST_STACKS - 1024 * cpu;
    if (!cpu_enter_x2apic(guest->vm, cpu) || !TRY(guest->vm->cpu[cpu], KVM_GET_SREGS, &sregs))
        return false;
    sregs.cs.base = sregs.cs.selector = 0;
    sregs.ds.base = GUEST_COUNTERS + 1024 * cpu;
    sregs.ds.selector = (uint16_t)(sregs.ds.base >> 4);
    return TRY(guest->vm->cpu[cpu], KVM_SET_SREGS, &sregs) && TRY(guest->vm->cpu[cpu], KVM_SET_REGS, &regs)
        && TRY(guest->vm->cpu[cpu], KVM_SET_MP_STATE, &runnable);
}

bool guest_open(struct guest *guest, struct vm *vm)
{
    *guest = (struct guest){ .vm = vm };
    guest->memory = mmap(NULL, GUEST_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!expect(guest->memory != MAP_FAILED) || !put_memory(guest))
        return false;
    memcpy(guest->memory + GUEST_CODE, guest_code, (size_t)(guest_code_end - guest_code));
    for (unsigned vector = 0; vector < 256; vector++) {
        const uint16_t entry[2] = { (uint16_t)(GUEST_CODE + ENTRY_SIZE * vector), 0 };
        memcpy(guest->memory + sizeof(entry) * vector, entry, sizeof(entry));
    }
    for (unsigned cpu = 0; cpu < vm->cpus; cpu++)
        if (!map_run(guest, cpu) || !set_registers(guest, cpu))
            return false;
    return true;
}

static void unmap_run(struct guest *guest)
{
    int size = ioctl(guest->vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    for (unsigned cpu = 0; cpu < guest->vm->cpus; cpu++)
        munmap(guest->run[cpu], (size_t)size);
}

bool guest_move(struct guest *guest, struct vm *vm)
{
    unmap_run(guest);
    guest->vm = vm;
    bool moved = put_memory(guest);
    for (unsigned cpu = 0; cpu < vm->cpus && moved; cpu++)
        moved = map_run(guest, cpu);
    return moved;
}

void guest_close(struct guest *guest)
{
    unmap_run(guest);
    munmap(guest->memory, GUEST_MEMORY);
}

/* ---- running ---- */

struct runner {
    struct guest *guest;
    unsigned cpu;
};

static void handle_exit(struct guest *guest, const struct kvm_run *run)
{
    if (run->exit_reason == KVM_EXIT_IOAPIC_EOI)
        atomic_fetch_add(&guest->eois[run->eoi.vector], 1);
    else
        tap_fail(__FILE__, __LINE__, "the guest left with %u", run->exit_reason);
}

static void *run_cpu(void *opaque)
{
    struct runner *runner = opaque;
    struct guest *guest = runner->guest;
    unsigned cpu = runner->cpu;
    free(runner);
    while (!atomic_load(&guest->stop)) {
        if (ioctl(guest->vm->cpu[cpu], KVM_RUN, 0) == 0)
            handle_exit(guest, guest->run[cpu]);
        else if (errno != EINTR && errno != EAGAIN && !tried(-1, "KVM_RUN"))
            break;
    }
    return NULL;
}

static void nothing(int signal) { (void)signal; }

void guest_start(struct guest *guest)
{
    struct sigaction action = { .sa_handler = nothing };
    sigaction(SIGNAL_STOP, &action, NULL);
    atomic_store(&guest->stop, false);
    for (unsigned cpu = 0; cpu < guest->vm->cpus; cpu++) {
        struct runner *runner = malloc(sizeof(*runner));
        *runner = (struct runner){ guest, cpu };
        guest->run[cpu]->immediate_exit = 0;
        expect_ok(pthread_create(&guest->threads[cpu], NULL, run_cpu, runner));
    }
}

void guest_stop(struct guest *guest)
{
    atomic_store(&guest->stop, true);
    for (unsigned cpu = 0; cpu < guest->vm->cpus; cpu++) {
        guest->run[cpu]->immediate_exit = 1;    /* for a signal that comes before KVM_RUN does */
        pthread_kill(guest->threads[cpu], SIGNAL_STOP);
        pthread_join(guest->threads[cpu], NULL);
    }
}

/* ---- state ---- */

bool cpu_save(const struct guest *guest, unsigned cpu, struct cpu_state *state)
{
    int fd = guest->vm->cpu[cpu];
    return TRY(fd, KVM_GET_MP_STATE, &state->mp_state) && TRY(fd, KVM_GET_REGS, &state->regs)
        && TRY(fd, KVM_GET_SREGS, &state->sregs) && TRY(fd, KVM_GET_LAPIC, &state->apic)
        && TRY(fd, KVM_GET_VCPU_EVENTS, &state->events);
}

bool cpu_restore(const struct guest *guest, unsigned cpu, struct cpu_state *state)
{
    int fd = guest->vm->cpu[cpu];
    return cpu_enter_x2apic(guest->vm, cpu)     /* for the CPUID that x2APIC needs */
        && TRY(fd, KVM_SET_SREGS, &state->sregs) && TRY(fd, KVM_SET_REGS, &state->regs)
        && TRY(fd, KVM_SET_LAPIC, &state->apic) && TRY(fd, KVM_SET_VCPU_EVENTS, &state->events)
        && TRY(fd, KVM_SET_MP_STATE, &state->mp_state);
}

/* ---- what it counted ---- */

uint32_t guest_count(const struct guest *guest, unsigned cpu, unsigned vector)
{
    const uint32_t *counters = (const uint32_t *)(guest->memory + GUEST_COUNTERS + 1024 * cpu);
    return __atomic_load_n(&counters[vector], __ATOMIC_ACQUIRE);
}

bool guest_reaches(const struct guest *guest, unsigned cpu, unsigned vector, uint32_t count)
{
    uint64_t end = now_us() + PATIENCE_US;
    while (guest_count(guest, cpu, vector) < count && now_us() < end)
        usleep(50);
    return expect_eq(guest_count(guest, cpu, vector), count);
}
