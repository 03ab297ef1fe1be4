/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The bare system calls: nobody can be faster than these. */
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"

enum { ROUNDS = 31, MAX_ENTRIES = 4096 };

static int vm, irqfd;
static struct kvm_irq_routing *table;

static void nothing(void)    { syscall(SYS_getppid); }

static void signal_msi(void)
{
    struct kvm_msi msi = { .address_lo = BENCH_ADDRESS, .data = bench_data(0) };
    need(ioctl(vm, KVM_SIGNAL_MSI, &msi) >= 0, "KVM_SIGNAL_MSI");
}

static void irq_line(void)
{
    struct kvm_irq_level level = { .irq = 0, .level = 1 };
    need(ioctl(vm, KVM_IRQ_LINE, &level) == 0, "KVM_IRQ_LINE");
}

static void write_irqfd(void) { need(eventfd_write(irqfd, 1) == 0, "eventfd"); }

static void set_routes(uint32_t entries)
{
    table->nr = entries;
    need(ioctl(vm, KVM_SET_GSI_ROUTING, table) == 0, "KVM_SET_GSI_ROUTING");
}

static void set_routes_64(void)   { set_routes(64); }
static void set_routes_256(void)  { set_routes(256); }
static void set_routes_1024(void) { set_routes(1024); }
static void set_routes_4096(void) { set_routes(4096); }

static void bind_irqfd(int eventfd, uint32_t flags)
{
    struct kvm_irqfd arguments = { .fd = (uint32_t)eventfd, .gsi = 1, .flags = flags };
    need(ioctl(vm, KVM_IRQFD, &arguments) == 0, "KVM_IRQFD");
}

static const struct call { const char *name; void (*make)(void); unsigned times; int apart; } calls[] = {
    { "nothing", nothing, 2000, 0 },
    { "signal_msi", signal_msi, 2000, 0 },
    { "irq_line", irq_line, 2000, 0 },
    { "irqfd_write", write_irqfd, 2000, 0 },
    { "set_gsi_routing_64", set_routes_64, 20, 1 },
    { "set_gsi_routing_256", set_routes_256, 20, 1 },
    { "set_gsi_routing_1024", set_routes_1024, 10, 1 },
    { "set_gsi_routing_4096", set_routes_4096, 5, 1 },
};
enum { CALLS = sizeof(calls) / sizeof(calls[0]), MAX_APART = 20 };

static double mean_us(const struct call *call)
{
    uint64_t start = nanoseconds();
    for (unsigned t = 0; t < call->times; t++)
        call->make();
    return (double)(nanoseconds() - start) / 1e3 / call->times;
}

/* Of what takes microseconds, and at times, waiting for grace periods, a hundred times that. */
static double usual_us(const struct call *call)
{
    double us[MAX_APART];
    for (unsigned t = 0; t < call->times; t++) {
        uint64_t start = nanoseconds();
        call->make();
        us[t] = (double)(nanoseconds() - start) / 1e3;
    }
    return median(us, call->times);
}

static void irqfds(void)
{
    enum { EVENTFDS = 16 };
    static double bind_us[ROUNDS], unbind_us[ROUNDS];
    int eventfds[EVENTFDS];
    for (unsigned i = 0; i < EVENTFDS; i++)
        eventfds[i] = eventfd(0, EFD_NONBLOCK);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t start = nanoseconds();
        for (unsigned i = 0; i < EVENTFDS; i++)
            bind_irqfd(eventfds[i], 0);
        uint64_t bound = nanoseconds();
        for (unsigned i = 0; i < EVENTFDS; i++)
            bind_irqfd(eventfds[i], KVM_IRQFD_FLAG_DEASSIGN);
        bind_us[round] = (double)(bound - start) / 1e3 / EVENTFDS;
        unbind_us[round] = (double)(nanoseconds() - bound) / 1e3 / EVENTFDS;
    }
    print_median(bind_us, ROUNDS, "call_irqfd_assign_us");
    print_median(unbind_us, ROUNDS, "call_irqfd_deassign_us");
}

int main(void)
{
    static double us[CALLS][ROUNDS];
    vm = bench_vm();
    table = calloc(1, sizeof(*table) + MAX_ENTRIES * sizeof(table->entries[0]));
    need(table != NULL, "memory");
    for (uint32_t gsi = 0; gsi < MAX_ENTRIES; gsi++)
        table->entries[gsi] = (struct kvm_irq_routing_entry){
            .gsi = gsi, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = BENCH_ADDRESS, .data = bench_data(gsi) } };
    set_routes_64();
    irqfd = eventfd(0, EFD_NONBLOCK);
    bind_irqfd(irqfd, 0);
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned i = 0; i < CALLS; i++) {
            unsigned c = (i + round) % CALLS;
            us[c][round] = calls[c].apart ? usual_us(&calls[c]) : mean_us(&calls[c]);
        }
    for (unsigned c = 0; c < CALLS; c++)
        print_median(us[c], ROUNDS, "call_%s_us", calls[c].name);
    irqfds();
    return 0;
}
