/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A stand-in for QEMU with VFIO: a write of the table for each change, whether it changed anything or not; one lock around
 * everything. Restoring, a write a device. Without KVM_SIGNAL_MSI (up to 8.1) a message gets a route when it is first sent, and
 * when none is free all of those go.
 *
 * The real one also tells VFIO or vhost, which then mask at the source: 64 calls for 64 vectors and two for each change of one,
 * which are neither made nor counted here. With vhost it writes the table twice for a vector that is enabled. It finds
 * a dynamic route in 256 hash chains; this one in an array. */
#include <linux/kvm.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "../bench.h"
#include "machine.h"
#include "peer.h"

#define MAX_MESSAGES 20000

static pthread_mutex_t big_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t dynamic_gsi[MAX_MESSAGES];      /* NO_GSI: none */

static void open_machine(struct machine *m, uint32_t vectors, uint32_t per_device)
{
    machine_open(m, vectors, per_device);
    memset(dynamic_gsi, 0, sizeof(dynamic_gsi));
}

static void set(struct machine *m, uint32_t v, uint32_t message)
{
    pthread_mutex_lock(&big_lock);
    m->vectors[v].message = message;
    pthread_mutex_unlock(&big_lock);
}

/* It could send now. */
static void use(struct machine *m, struct vector *vector)
{
    if (vector->gsi == NO_GSI) {
        vector->gsi = machine_add_route(m, vector->message);
        need(vector->gsi != NO_GSI, "a free GSI");
    } else {
        machine_update_route(m, vector->gsi, vector->message);
    }
    machine_commit(m);
    machine_bind(m, vector);
}

static void unmask(struct machine *m, uint32_t v)
{
    pthread_mutex_lock(&big_lock);
    m->vectors[v].masked = false;
    if (!m->function_masked[machine_device(m, v)])
        use(m, &m->vectors[v]);
    pthread_mutex_unlock(&big_lock);
}

static void mask(struct machine *m, uint32_t v)
{
    pthread_mutex_lock(&big_lock);
    m->vectors[v].masked = true;
    pthread_mutex_unlock(&big_lock);
}

static void function_mask(struct machine *m, uint32_t device, int on)
{
    pthread_mutex_lock(&big_lock);
    m->function_masked[device] = on;
    for (uint32_t v = machine_first(m, device); !on && v < machine_end(m, device); v++)
        if (!m->vectors[v].masked)
            use(m, &m->vectors[v]);
    pthread_mutex_unlock(&big_lock);
}

static void begin(struct machine *m) { function_mask(m, 0, 1); }
static void end(struct machine *m)   { function_mask(m, 0, 0); }

static void unplug(struct machine *m, uint32_t device)
{
    pthread_mutex_lock(&big_lock);
    for (uint32_t v = machine_first(m, device); v < machine_end(m, device); v++) {
        machine_unbind(m, &m->vectors[v]);
        if (m->vectors[v].gsi != NO_GSI)
            machine_remove_route(m, m->vectors[v].gsi);     /* the kernel's stays until the next write */
        m->vectors[v].gsi = NO_GSI;
    }
    pthread_mutex_unlock(&big_lock);
}

static void load(struct machine *m) { machine_load(m); }

static void restore(struct machine *m)
{
    pthread_mutex_lock(&big_lock);
    for (uint32_t first = 0; first < m->n_vectors; first += m->per_device) {
        uint32_t last = machine_end(m, machine_device(m, first));
        for (uint32_t v = first; v < last; v++)
            m->vectors[v].gsi = machine_add_route(m, m->vectors[v].message);
        machine_commit(m);
        for (uint32_t v = first; v < last; v++)
            machine_bind(m, &m->vectors[v]);
    }
    pthread_mutex_unlock(&big_lock);
}

static void deliver(struct machine *m, uint32_t v)
{
    pthread_mutex_lock(&big_lock);
    machine_signal(m, &m->vectors[v]);
    pthread_mutex_unlock(&big_lock);
}

static void flush(struct machine *m)
{
    for (uint32_t i = 0; i < MAX_MESSAGES; i++)
        if (dynamic_gsi[i] != NO_GSI)
            machine_remove_route(m, dynamic_gsi[i]);
    memset(dynamic_gsi, 0, sizeof(dynamic_gsi));
}

static void send(struct machine *m, uint32_t message)
{
    struct kvm_irq_level line = { .level = 1 };
    pthread_mutex_lock(&big_lock);
    if (dynamic_gsi[message] == NO_GSI) {
        dynamic_gsi[message] = machine_add_route(m, message);
        if (dynamic_gsi[message] == NO_GSI) {
            flush(m);
            dynamic_gsi[message] = machine_add_route(m, message);
        }
        machine_commit(m);
    }
    line.irq = dynamic_gsi[message];
    need(ioctl(m->vm, KVM_IRQ_LINE, &line) == 0, "KVM_IRQ_LINE");
    pthread_mutex_unlock(&big_lock);
}

static struct machine one;

const struct peer qemu = {
    .name = "qemu", .machine = &one, .open = open_machine, .close = machine_close, .set = set, .unmask = unmask, .mask = mask,
    .function_mask = function_mask, .begin = begin, .end = end, .unplug = unplug, .load = load, .restore = restore,
    .deliver = deliver, .send = send,
};
