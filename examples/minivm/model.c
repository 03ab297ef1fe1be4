/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The machine without KVM: the library's embedded model stands in for the kernel's routing and irqfds, and what reaches
 * the guest is handed to model_signal, the interrupt controller of two threads that run the guest's driver.
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "fail.h"
#include "vm.h"

struct model_cpu {
    struct vm *vm;
    unsigned id;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    uint64_t requested[256 / 64];   /* the interrupt request register: what is there already coalesces */
    bool stop;
};

struct machine {
    struct model_cpu cpus[NR_CPUS];
};

/* The CPU this thread is: what guest.c asks its APIC. */
static __thread struct model_cpu *self;

static unsigned this_cpu(void)
{
    return self->id;
}

static struct guest_shared *shared_page(void)
{
    return self->vm->shared;
}

static int irq_requested(unsigned irq)
{
    int requested;

    pthread_mutex_lock(&self->lock);
    requested = self->requested[irq / 64] >> irq % 64 & 1;
    pthread_mutex_unlock(&self->lock);
    return requested;
}

static uint64_t mmio_read(uint32_t address, unsigned len)
{
    uint64_t value = 0;

    sched_yield(); /* a real CPU's exit takes its time, too: others get on meanwhile */
    devices_read(self->vm, address, &value, len);
    return value;
}

static void mmio_write(uint32_t address, uint64_t value, unsigned len)
{
    devices_write(self->vm, address, &value, len);
}

#include "driver.h"

/* The library's way into the guest, called with none of its locks held: >0 accepted, 0 nobody has that address. */
static int model_signal(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    struct machine *machine = opaque;
    uint32_t destination = address >> 12 & 0xff, irq = data & 0xff;
    struct model_cpu *cpu;

    (void)requester;
    if (destination >= NR_CPUS)
        return 0;
    cpu = &machine->cpus[destination];
    pthread_mutex_lock(&cpu->lock);
    cpu->requested[irq / 64] |= 1ull << irq % 64;
    pthread_cond_signal(&cpu->wake);
    pthread_mutex_unlock(&cpu->lock);
    return 1;
}

/* The highest interrupt requested, taken out of the register; sleeps while there is none. -1: stop. */
static int next_interrupt(struct model_cpu *cpu)
{
    int irq = -1;

    pthread_mutex_lock(&cpu->lock);
    while (irq < 0 && !cpu->stop) {
        for (int word = 3; word >= 0 && irq < 0; word--)
            if (cpu->requested[word])
                irq = word * 64 + 63 - __builtin_clzll(cpu->requested[word]);
        if (irq < 0)
            pthread_cond_wait(&cpu->wake, &cpu->lock);
        else
            cpu->requested[irq / 64] &= ~(1ull << irq % 64);
    }
    pthread_mutex_unlock(&cpu->lock);
    return irq;
}

static void *run_cpu(void *argument)
{
    int irq;

    self = argument;
    driver_start();
    while ((irq = next_interrupt(self)) >= 0)
        driver_interrupt(irq);
    return NULL;
}

static void model_create(struct vm *vm, const struct cache_choice *choice)
{
    struct msi_route_cache_config config = MSIROUTE_CACHE_CONFIG_INIT;
    struct msi_route_cache_ops ops = MSIROUTE_CACHE_OPS_INIT;

    vm->machine = calloc(1, sizeof(*vm->machine));
    if (!vm->machine)
        fail_errno("memory");
    for (unsigned id = 0; id < NR_CPUS; id++) {
        struct model_cpu *cpu = &vm->machine->cpus[id];

        cpu->vm = vm;
        cpu->id = id;
        pthread_mutex_init(&cpu->lock, NULL);
        pthread_cond_init(&cpu->wake, NULL);
    }

    ops.signal = model_signal;
    config.flags = choice->flags | MSIROUTE_CACHE_MODEL;
    config.max_routes = choice->max_routes;
    config.ops = &ops;
    config.opaque = vm->machine;
    MUST(msi_route_cache_new(&config, &vm->cache));
}

/* No need: the driver's doorbell writes reach devices_write. */
static void model_wire(struct vm *vm, uint32_t address, int fd)
{
    (void)vm, (void)address, (void)fd;
}

static void model_start(struct vm *vm)
{
    for (unsigned id = 0; id < NR_CPUS; id++)
        start_thread(&vm->machine->cpus[id].thread, run_cpu, &vm->machine->cpus[id]);
}

static void model_stop(struct vm *vm)
{
    for (unsigned id = 0; id < NR_CPUS; id++) {
        struct model_cpu *cpu = &vm->machine->cpus[id];

        pthread_mutex_lock(&cpu->lock);
        cpu->stop = true;
        pthread_cond_signal(&cpu->wake);
        pthread_mutex_unlock(&cpu->lock);
        pthread_join(cpu->thread, NULL);
    }
}

static void model_destroy(struct vm *vm)
{
    free(vm->machine); /* not earlier: model_signal may run until the cache is gone */
}

const struct backend model_backend = { "model", model_create, model_wire, model_start, model_stop, model_destroy };
