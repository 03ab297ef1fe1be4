/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A stand-in for firecracker: a write of the table at each unmask, one for a device whose function mask is cleared, one for a VM
 * that is restored. A mask does not reach the kernel.
 *
 * The real one keeps its routes in a hash map and makes the table anew at each write; here the table is kept. It
 * stops at 4,095 routes, and its restore was a write a device before 2026. */
#include "../bench.h"
#include "machine.h"
#include "peer.h"

static void set(struct machine *m, uint32_t v, uint32_t message)                   { m->vectors[v].message = message; }

static void stage(struct machine *m, struct vector *vector)
{
    if (vector->gsi == NO_GSI) {
        vector->gsi = machine_add_route(m, vector->message);
        need(vector->gsi != NO_GSI, "a free GSI");
    } else {
        machine_update_route(m, vector->gsi, vector->message);
    }
}

static void use(struct machine *m, uint32_t first, uint32_t end)
{
    for (uint32_t v = first; v < end; v++)
        if (!m->vectors[v].masked)
            stage(m, &m->vectors[v]);
    machine_commit(m);
    for (uint32_t v = first; v < end; v++)
        if (!m->vectors[v].masked)
            machine_bind(m, &m->vectors[v]);
}

static void unmask(struct machine *m, uint32_t v)
{
    m->vectors[v].masked = false;
    if (!m->function_masked[machine_device(m, v)])
        use(m, v, v + 1);
}

static void mask(struct machine *m, uint32_t v) { m->vectors[v].masked = true; }

static void function_mask(struct machine *m, uint32_t device, int on)
{
    m->function_masked[device] = on;
    if (!on)
        use(m, machine_first(m, device), machine_end(m, device));
}

static void unplug(struct machine *m, uint32_t device)
{
    for (uint32_t v = machine_first(m, device); v < machine_end(m, device); v++) {
        machine_unbind(m, &m->vectors[v]);
        if (m->vectors[v].gsi != NO_GSI)
            machine_remove_route(m, m->vectors[v].gsi);
        m->vectors[v].gsi = NO_GSI;
    }
}

static void begin(struct machine *m)          { function_mask(m, 0, 1); }
static void end(struct machine *m)            { function_mask(m, 0, 0); }
static void load(struct machine *m)           { machine_load(m); }
static void restore(struct machine *m)        { use(m, 0, m->n_vectors); }
static void deliver(struct machine *m, uint32_t v)  { machine_write_eventfd(m, &m->vectors[v]); }

static struct machine one;

const struct peer firecracker = {
    .name = "firecracker", .machine = &one, .open = machine_open, .close = machine_close, .set = set, .unmask = unmask, .mask = mask,
    .function_mask = function_mask, .begin = begin, .end = end, .unplug = unplug, .load = load, .restore = restore,
    .deliver = deliver,
};
