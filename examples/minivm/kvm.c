/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The machine on KVM: memory, interrupt controller, vCPU threads. Interrupts from devices are not its business. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fail.h"
#include "vm.h"

#define SIGNAL_STOP SIGUSR1

struct vcpu {
    struct vm *vm;
    pthread_t thread;
    int fd;
    struct kvm_run *run;
    size_t run_size;
};

struct machine {
    int kvm_fd, vm_fd;
    struct vcpu vcpus[NR_CPUS];
    bool stop;
};

extern const uint8_t guest_image[], guest_image_end[];

static int must_ioctl(int fd, unsigned long request, void *argument, const char *what)
{
    int result = ioctl(fd, request, argument);

    if (result < 0)
        fail_errno(what);
    return result;
}
#define MUST_IOCTL(fd, request, argument) must_ioctl((fd), (request), (void *)(uintptr_t)(argument), #request)

/* Identity map of the first GiB, in 2 MiB pages. */
static void make_page_tables(uint8_t *ram)
{
    uint64_t *top = (uint64_t *)(ram + PAGE_TABLES), *middle = top + 512, *bottom = middle + 512;
    const uint64_t present_writable = 3, large = 1 << 7;

    top[0] = (PAGE_TABLES + 0x1000) | present_writable;
    middle[0] = (PAGE_TABLES + 0x2000) | present_writable;
    for (uint64_t i = 0; i < 512; i++)
        bottom[i] = i << 21 | large | present_writable;
}

static void set_cpuid(int kvm_fd, int vcpu_fd, uint32_t apic_id)
{
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));

    if (!cpuid)
        fail_errno("memory");
    cpuid->nent = 256;
    MUST_IOCTL(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid);
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *leaf = &cpuid->entries[i];

        if (leaf->function == 1)
            leaf->ebx = (leaf->ebx & 0x00ffffff) | apic_id << 24;
        else if (leaf->function == 0xb || leaf->function == 0x1f)
            leaf->edx = apic_id;
    }
    MUST_IOCTL(vcpu_fd, KVM_SET_CPUID2, cpuid);
    free(cpuid);
}

/* Straight into long mode: no BIOS, no boot loader, no INIT and SIPI. */
static void set_registers(int vcpu_fd, unsigned cpu)
{
    struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
    struct kvm_regs regs = { .rip = GUEST_IMAGE, .rdi = cpu, .rflags = 2 };
    struct kvm_segment code = { .selector = GUEST_CS, .type = 11, .l = 1 };
    struct kvm_segment data = { .selector = GUEST_DS, .type = 3, .db = 1 };
    struct kvm_sregs sregs;

    code.present = data.present = 1;
    code.s = data.s = 1;
    code.g = data.g = 1;
    code.limit = data.limit = UINT32_MAX;
    MUST_IOCTL(vcpu_fd, KVM_GET_SREGS, &sregs);
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.cr0 = 0x80000011; /* paging, extension type, protection */
    sregs.cr3 = PAGE_TABLES;
    sregs.cr4 = 0x20;       /* physical address extension */
    sregs.efer = 0x500;     /* long mode enabled and active */
    MUST_IOCTL(vcpu_fd, KVM_SET_SREGS, &sregs);
    MUST_IOCTL(vcpu_fd, KVM_SET_REGS, &regs);
    MUST_IOCTL(vcpu_fd, KVM_SET_MP_STATE, &runnable);
}

static void make_vcpu(struct vm *vm, unsigned cpu)
{
    struct machine *machine = vm->machine;
    struct vcpu *vcpu = &machine->vcpus[cpu];

    vcpu->vm = vm;
    vcpu->fd = MUST_IOCTL(machine->vm_fd, KVM_CREATE_VCPU, cpu);
    vcpu->run_size = MUST_IOCTL(machine->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    vcpu->run = mmap(NULL, vcpu->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->run == MAP_FAILED)
        fail_errno("mapping a vCPU");
    set_cpuid(machine->kvm_fd, vcpu->fd, cpu);
    set_registers(vcpu->fd, cpu);
}

static void kvm_create(struct vm *vm, const struct cache_choice *choice)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct kvm_userspace_memory_region ram = { .memory_size = RAM_SIZE, .userspace_addr = (uintptr_t)vm->ram };
    struct machine *machine = calloc(1, sizeof(*machine));

    if (!machine)
        fail_errno("memory");
    vm->machine = machine;
    machine->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (machine->kvm_fd < 0)
        fail_errno("/dev/kvm");
    machine->vm_fd = MUST_IOCTL(machine->kvm_fd, KVM_CREATE_VM, 0);
    MUST_IOCTL(machine->vm_fd, KVM_SET_TSS_ADDR, 0xfffbd000); /* Intel hosts want three pages nobody uses */
    MUST_IOCTL(machine->vm_fd, KVM_CREATE_IRQCHIP, 0);
    MUST_IOCTL(machine->vm_fd, KVM_SET_USER_MEMORY_REGION, &ram);
    make_page_tables(vm->ram);
    memcpy(vm->ram + GUEST_IMAGE, guest_image, guest_image_end - guest_image);
    for (unsigned cpu = 0; cpu < NR_CPUS; cpu++)
        make_vcpu(vm, cpu);

    config.flags = choice->flags;
    config.max_routes = choice->max_routes;
    config.vm_fd = machine->vm_fd;
    config.kvm_fd = machine->kvm_fd;
    MUST(msi_route_cache_new(&config, &vm->cache));
}

static void kvm_wire(struct vm *vm, uint32_t address, int fd)
{
    struct kvm_ioeventfd ioeventfd = { .addr = address, .len = 4, .fd = fd };

    MUST_IOCTL(vm->machine->vm_fd, KVM_IOEVENTFD, &ioeventfd);
}

static void handle_exit(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;

    switch (run->exit_reason) {
    case KVM_EXIT_MMIO:
        if (run->mmio.is_write)
            devices_write(vcpu->vm, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
        else
            devices_read(vcpu->vm, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        fail("KVM gave up on the guest: internal error %u", run->internal.suberror);
    case KVM_EXIT_FAIL_ENTRY:
        fail("KVM gave up on the guest: entry failed, %#llx", run->fail_entry.hardware_entry_failure_reason);
    default:
        fail("unexpected vCPU exit %u", run->exit_reason);
    }
}

static void *run_vcpu(void *argument)
{
    struct vcpu *vcpu = argument;
    struct machine *machine = vcpu->vm->machine;

    while (!__atomic_load_n(&machine->stop, __ATOMIC_ACQUIRE)) {
        if (ioctl(vcpu->fd, KVM_RUN, 0) == 0)
            handle_exit(vcpu);
        else if (errno != EINTR && errno != EAGAIN)
            fail_errno("KVM_RUN");
    }
    return NULL;
}

static void interrupt_the_system_call(int signal)
{
    (void)signal;
}

static void kvm_start(struct vm *vm)
{
    struct sigaction action = { .sa_handler = interrupt_the_system_call };

    sigaction(SIGNAL_STOP, &action, NULL);
    for (unsigned cpu = 0; cpu < NR_CPUS; cpu++)
        start_thread(&vm->machine->vcpus[cpu].thread, run_vcpu, &vm->machine->vcpus[cpu]);
}

static void kvm_stop(struct vm *vm)
{
    struct machine *machine = vm->machine;

    __atomic_store_n(&machine->stop, true, __ATOMIC_RELEASE);
    for (unsigned cpu = 0; cpu < NR_CPUS; cpu++) {
        struct vcpu *vcpu = &machine->vcpus[cpu];

        vcpu->run->immediate_exit = 1; /* for a signal that comes before KVM_RUN does */
        pthread_kill(vcpu->thread, SIGNAL_STOP);
        pthread_join(vcpu->thread, NULL);
    }
}

static void kvm_destroy(struct vm *vm)
{
    struct machine *machine = vm->machine;

    for (unsigned cpu = 0; cpu < NR_CPUS; cpu++) {
        munmap(machine->vcpus[cpu].run, machine->vcpus[cpu].run_size);
        close(machine->vcpus[cpu].fd);
    }
    close(machine->vm_fd);
    close(machine->kvm_fd);
    free(machine);
}

const char *kvm_missing(void)
{
    int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm_fd;

    if (kvm_fd < 0)
        return strerror(errno);
    vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    if (vm_fd < 0) {
        const char *why = strerror(errno);

        close(kvm_fd);
        return why;
    }
    close(vm_fd);
    close(kvm_fd);
    return NULL;
}

const struct backend kvm_backend = { "kvm", kvm_create, kvm_wire, kvm_start, kvm_stop, kvm_destroy };
