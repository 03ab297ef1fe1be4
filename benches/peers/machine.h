/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the stand-ins for other VMMs share: a VM, vectors, and a table in the kernel's form. No policy. */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#define MACHINE_ROUTES 4056     /* what the kernel takes beside the default pins' 40 entries */
#define NO_GSI         0

struct vector {
    uint32_t message, gsi;
    int eventfd;
    bool masked, bound, pending;
};

struct machine {
    int vm;
    uint32_t n_vectors, per_device;
    struct vector *vectors;
    bool *function_masked;
    struct kvm_irq_routing *table;
    uint32_t n_fixed;           /* pins, which come first */
    uint32_t lowest_free;       /* no GSI below it is free */
    uint32_t *at;               /* by GSI: where in the table; 0: free */
};

void machine_open(struct machine *machine, uint32_t vectors, uint32_t per_device);
void machine_close(struct machine *machine);

static inline uint32_t machine_device(const struct machine *machine, uint32_t vector) { return vector / machine->per_device; }
static inline uint32_t machine_first(const struct machine *machine, uint32_t device)  { return device * machine->per_device; }
uint32_t machine_end(const struct machine *machine, uint32_t device);

/* The table in memory; the kernel's with machine_commit. `add` takes the lowest GSI that is free; 0: none is. */
uint32_t machine_add_route(struct machine *machine, uint32_t message);
void machine_add_at(struct machine *machine, uint32_t gsi, uint32_t message);
void machine_update_route(struct machine *machine, uint32_t gsi, uint32_t message);
void machine_remove_route(struct machine *machine, uint32_t gsi);
void machine_commit(struct machine *machine);

/* KVM_IRQFD, if it changes anything. */
void machine_bind(struct machine *machine, struct vector *vector);
void machine_unbind(struct machine *machine, struct vector *vector);

/* KVM_SIGNAL_MSI, or the eventfd; pending if it is masked. */
void machine_signal(struct machine *machine, struct vector *vector);
void machine_write_eventfd(struct machine *machine, struct vector *vector);

/* The registers alone. */
void machine_load(struct machine *machine);
#endif
