/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A stand-in for kvmtool: a write of the table for each change, at the moment of the guest's write, masked or not; none when
 * nothing changed. Masks are the source's business, and no route is ever freed.
 *
 * The real one writes the table for each 32 bits of a message that differ (here only the data does, so once), tells VFIO or
 * vhost of masks, which is neither done nor counted here, cannot unplug a device (here: its irqfds go, as at a
 * reset), and saves and restores nothing. */
#include "../bench.h"
#include "machine.h"
#include "peer.h"

static void set(struct machine *m, uint32_t v, uint32_t message)
{
    struct vector *vector = &m->vectors[v];
    if (vector->gsi != NO_GSI && vector->message != message) {
        machine_update_route(m, vector->gsi, message);
        machine_commit(m);
    }
    vector->message = message;
}

static void unmask(struct machine *m, uint32_t v)
{
    struct vector *vector = &m->vectors[v];
    vector->masked = false;
    if (vector->gsi == NO_GSI) {
        vector->gsi = machine_add_route(m, vector->message);
        need(vector->gsi != NO_GSI, "a free GSI");
        machine_commit(m);
        machine_bind(m, vector);
    }
}

static void mask(struct machine *m, uint32_t v)                           { m->vectors[v].masked = true; }
static void function_mask(struct machine *m, uint32_t device, int on)     { m->function_masked[device] = on; }
static void begin(struct machine *m)                                { function_mask(m, 0, 1); }
static void end(struct machine *m)                                  { function_mask(m, 0, 0); }
static void deliver(struct machine *m, uint32_t v)                        { machine_signal(m, &m->vectors[v]); }

static void unplug(struct machine *m, uint32_t device)
{
    for (uint32_t v = machine_first(m, device); v < machine_end(m, device); v++)
        machine_unbind(m, &m->vectors[v]);
}

static struct machine one;

const struct peer kvmtool = {
    .name = "kvmtool", .machine = &one, .open = machine_open, .close = machine_close, .set = set, .unmask = unmask, .mask = mask,
    .function_mask = function_mask, .begin = begin, .end = end, .unplug = unplug, .deliver = deliver,
};
