/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A kernel of callbacks: it keeps KVM's rules about routes and irqfds, counts what arrives, tells when it is asked to do
 * what would lose or misdirect an interrupt, and fails on demand. */
#ifndef TEST_FAKE_H
#define TEST_FAKE_H
#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kvm.h"
#include "msiroute.h"

enum fake_call { FAKE_SIGNAL, FAKE_SET_ROUTES, FAKE_BIND, FAKE_UNBIND, FAKE_RAISE, FAKE_CALLS };
const char *fake_call_name(enum fake_call call);

#define FAKE_MAX_ROUTES 4096
#define FAKE_MAX_IRQFDS 8192

struct fake {
    pthread_mutex_t lock;
    unsigned cpus;          /* APICs 0 to cpus - 1 are there and on */
    struct kvm_irq_routing_entry *table;
    size_t routes;
    struct { int fd; uint32_t gsi; } *irqfds;
    size_t bound;
    unsigned arrived[MAX_CPUS][256];
    unsigned calls[FAKE_CALLS];
    uint32_t requester;     /* of the last message to `signal` */
    struct {                /* the at-th call of this kind from now on fails, and if it lasts, all later ones too */
        enum fake_call call;
        unsigned at;
        int error;          /* positive; 0: no fault */
        bool lasts, struck;
    } fault;
    uint32_t poison;        /* not 0: a table with a message of this data is refused, -EINVAL */
    unsigned wrongs;        /* things KVM would have let happen to the harm of the guest */
};

bool fake_open(struct fake *fake, unsigned cpus);
void fake_close(struct fake *fake);
struct msi_route_cache_ops fake_ops(bool whole_kernel);     /* else `signal` alone, as for the model */

/* Lets what the bound eventfds count arrive, as the kernel does the moment they are written. */
void fake_pump(struct fake *fake);
void fake_fault(struct fake *fake, enum fake_call call, unsigned at, int error, bool lasts);
bool fake_faultless(struct fake *fake);                     /* ends the fault; whether it had struck */
void fake_let_go(struct fake *fake, int fd);                /* of an irqfd that it refused to unbind; by number */

size_t fake_msi_routes(struct fake *fake);
bool fake_route(struct fake *fake, uint32_t gsi, uint64_t *address, uint32_t *data);
bool fake_has_irqfd(struct fake *fake, int fd, uint32_t *gsi);  /* by number: for eventfds that were lent */

#endif
