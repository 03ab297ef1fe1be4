/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A stand-in for cloud-hypervisor: at each unmask the table is made anew of all routes and written. A mask does not reach the
 * kernel: the eventfd still interrupts. What a device that is gone had stays in the table, its irqfds bound.
 *
 * The real one keeps its routes in a hash map, which costs more to go through than this array; asks the kernel for a
 * capability at every update, by a system call; and VFIO, if there is a device of it, is told of nothing here. */
#include "../bench.h"
#include "machine.h"
#include "peer.h"

#define FIRST_GSI 24

static struct route { uint32_t gsi, message; } routes[MACHINE_ROUTES];
static uint32_t n_routes;

static void open_machine(struct machine *m, uint32_t vectors, uint32_t per_device)
{
    machine_open(m, vectors, per_device);
    n_routes = 0;
}

static void set(struct machine *m, uint32_t v, uint32_t message) { m->vectors[v].message = message; }

static void use(struct machine *m, struct vector *vector)
{
    if (vector->gsi == NO_GSI) {
        need(n_routes < MACHINE_ROUTES, "a free GSI");
        vector->gsi = FIRST_GSI + n_routes++;
    }
    routes[vector->gsi - FIRST_GSI] = (struct route){ vector->gsi, vector->message };
    m->table->nr = m->n_fixed;
    for (uint32_t i = 0; i < n_routes; i++)
        machine_add_at(m, routes[i].gsi, routes[i].message);
    machine_commit(m);
    machine_bind(m, vector);
}

static void unmask(struct machine *m, uint32_t v)
{
    m->vectors[v].masked = false;
    if (!m->function_masked[machine_device(m, v)])
        use(m, &m->vectors[v]);
}

static void mask(struct machine *m, uint32_t v) { m->vectors[v].masked = true; }

static void function_mask(struct machine *m, uint32_t device, int on)
{
    m->function_masked[device] = on;
    for (uint32_t v = machine_first(m, device); !on && v < machine_end(m, device); v++)
        if (!m->vectors[v].masked)
            use(m, &m->vectors[v]);
}

static void begin(struct machine *m)              { function_mask(m, 0, 1); }
static void end(struct machine *m)                { function_mask(m, 0, 0); }
static void unplug(struct machine *m, uint32_t device)  { (void)m, (void)device; }
static void load(struct machine *m)               { machine_load(m); }
static void deliver(struct machine *m, uint32_t v)      { machine_write_eventfd(m, &m->vectors[v]); }

static void restore(struct machine *m)
{
    for (uint32_t v = 0; v < m->n_vectors; v++)
        use(m, &m->vectors[v]);
}

static struct machine one;

const struct peer cloud_hypervisor = {
    .name = "cloud_hypervisor", .machine = &one, .open = open_machine, .close = machine_close, .set = set, .unmask = unmask, .mask = mask,
    .function_mask = function_mask, .begin = begin, .end = end, .unplug = unplug, .load = load, .restore = restore,
    .deliver = deliver,
};
