/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "machine.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../bench.h"

#define PINS      24
#define MAX_TABLE 4096

void machine_open(struct machine *machine, uint32_t vectors, uint32_t per_device)
{
    uint32_t devices = (vectors + per_device - 1) / per_device;
    *machine = (struct machine){ .vm = bench_vm(), .n_vectors = vectors, .per_device = per_device, .lowest_free = PINS };
    machine->vectors = calloc(vectors, sizeof(*machine->vectors));
    machine->function_masked = calloc(devices, sizeof(*machine->function_masked));
    machine->table = calloc(1, sizeof(*machine->table) + MAX_TABLE * sizeof(machine->table->entries[0]));
    machine->at = calloc(MAX_TABLE, sizeof(*machine->at));
    need(machine->vectors && machine->function_masked && machine->table && machine->at, "memory");
    for (uint32_t v = 0; v < vectors; v++) {
        machine->vectors[v] = (struct vector){ .masked = true, .eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
        need(machine->vectors[v].eventfd >= 0, "eventfd");
    }
    for (uint32_t gsi = 0; gsi < PINS; gsi++) {     /* as the kernel has them at first: two controllers' of the lower ones */
        struct kvm_irq_routing_entry entry = { .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP };
        if (gsi < 16) {
            entry.u.irqchip.irqchip = gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
            entry.u.irqchip.pin = gsi % 8;
            machine->table->entries[machine->table->nr++] = entry;
        }
        entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
        entry.u.irqchip.pin = gsi;
        machine->table->entries[machine->table->nr++] = entry;
    }
    machine->n_fixed = machine->table->nr;
}

void machine_close(struct machine *machine)
{
    close(machine->vm);
    for (uint32_t v = 0; v < machine->n_vectors; v++)
        close(machine->vectors[v].eventfd);
    free(machine->vectors);
    free(machine->function_masked);
    free(machine->table);
    free(machine->at);
}

uint32_t machine_end(const struct machine *machine, uint32_t device)
{
    uint32_t end = machine_first(machine, device + 1);
    return end < machine->n_vectors ? end : machine->n_vectors;
}

/* ---- the table ---- */

static struct kvm_irq_routing_entry entry_of(uint32_t gsi, uint32_t message)
{
    return (struct kvm_irq_routing_entry){
        .gsi = gsi, .type = KVM_IRQ_ROUTING_MSI, .u.msi = { .address_lo = BENCH_ADDRESS, .data = bench_data(message) } };
}

void machine_add_at(struct machine *machine, uint32_t gsi, uint32_t message)
{
    machine->at[gsi] = machine->table->nr;
    machine->table->entries[machine->table->nr++] = entry_of(gsi, message);
}

uint32_t machine_add_route(struct machine *machine, uint32_t message)
{
    uint32_t gsi = machine->lowest_free;
    while (gsi < MAX_TABLE && machine->at[gsi])
        gsi++;
    machine->lowest_free = gsi;
    if (gsi == MAX_TABLE || machine->table->nr - machine->n_fixed == MACHINE_ROUTES)
        return NO_GSI;
    machine_add_at(machine, gsi, message);
    return gsi;
}

void machine_update_route(struct machine *machine, uint32_t gsi, uint32_t message)
{
    machine->table->entries[machine->at[gsi]] = entry_of(gsi, message);
}

void machine_remove_route(struct machine *machine, uint32_t gsi)
{
    struct kvm_irq_routing_entry last = machine->table->entries[--machine->table->nr];
    machine->table->entries[machine->at[gsi]] = last;
    machine->at[last.gsi] = machine->at[gsi];
    machine->at[gsi] = 0;
    if (gsi < machine->lowest_free)
        machine->lowest_free = gsi;
}

void machine_commit(struct machine *machine)
{
    need(ioctl(machine->vm, KVM_SET_GSI_ROUTING, machine->table) == 0, "KVM_SET_GSI_ROUTING");
}

/* ---- eventfds ---- */

static void irqfd(struct machine *machine, struct vector *vector, uint32_t flags)
{
    struct kvm_irqfd irqfd = { .fd = (uint32_t)vector->eventfd, .gsi = vector->gsi, .flags = flags };
    need(ioctl(machine->vm, KVM_IRQFD, &irqfd) == 0, "KVM_IRQFD");
    vector->bound = !flags;
}

void machine_bind(struct machine *machine, struct vector *vector)
{
    if (!vector->bound)
        irqfd(machine, vector, 0);
}

void machine_unbind(struct machine *machine, struct vector *vector)
{
    if (vector->bound)
        irqfd(machine, vector, KVM_IRQFD_FLAG_DEASSIGN);
}

/* ---- delivery ---- */

static bool keeps(struct machine *machine, struct vector *vector)
{
    if (!vector->masked && !machine->function_masked[machine_device(machine, (uint32_t)(vector - machine->vectors))])
        return false;
    vector->pending = true;
    return true;
}

void machine_signal(struct machine *machine, struct vector *vector)
{
    struct kvm_msi msi = { .address_lo = BENCH_ADDRESS, .data = bench_data(vector->message) };
    if (!keeps(machine, vector))
        need(ioctl(machine->vm, KVM_SIGNAL_MSI, &msi) >= 0, "KVM_SIGNAL_MSI");
}

void machine_write_eventfd(struct machine *machine, struct vector *vector)
{
    const uint64_t one = 1;
    if (!keeps(machine, vector))
        need(write(vector->eventfd, &one, sizeof(one)) == sizeof(one), "eventfd");
}

void machine_load(struct machine *machine)
{
    for (uint32_t v = 0; v < machine->n_vectors; v++) {
        machine->vectors[v].message = v;
        machine->vectors[v].masked = false;
    }
}
