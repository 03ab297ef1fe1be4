/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The scene of the relay's tests: line i is vector i of the first device, its eventfd i, and vector FIRST + i of vCPU i % 2. */
#ifndef TEST_RELAYS_H
#define TEST_RELAYS_H
#include <pthread.h>
#include <stdatomic.h>

#include "rig.h"

#define RELAYED   MSIROUTE_VECTOR_RELAYED
#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL
#define UNSERVED  MSIROUTE_VECTOR_UNSERVED
#define SERVERS   (RELAYED | IN_KERNEL | UNSERVED)

#define FIRST     0x40
#define MAX_LINES 64
#define PATIENCE_US 8000000
#define ROUTES(n) .irqchip = SPLIT_IRQCHIP, .max_routes = 24 + (n)

/* By whom it is served: one of SERVERS, or 0. */
#define expect_served(rig, index, by) expect_eq(info_of((rig)->dev, index).flags & SERVERS, by)
bool is(struct rig *rig, uint32_t index, uint32_t flag);

void open_line(struct rig *rig, uint32_t index, uint32_t flags);
void open_lines(struct rig *rig, uint32_t n);
void enable_and_open(struct rig *rig, uint32_t n);      /* of a device with registers */
void raise_line(struct rig *rig, uint32_t index);
#define expect_line(rig, index) expect_arrival(rig, (index) % 2, FIRST + (index))
void expect_all_lines(struct rig *rig, uint32_t n);     /* delivered and by their eventfds, and nothing else */
void forget(struct rig *rig);       /* what arrives, until nothing does any more */

void turn_on(struct rig *rig);
void serve(struct rig *rig);        /* as a main loop does, until there is nothing to do; turns it on, too */
bool is_readable(int fd);
/* Lines from `first` on are busy until the kernel serves all of them. */
bool promote(struct rig *rig, uint32_t first, uint32_t n);
/* Turns the relay on, and opens lines; each is in the state that the context names. */
bool begin(struct rig *rig, bool promoted, uint32_t lines);
#define BOTH_WAYS(promoted) (unsigned promoted = 0; promoted < 2; promoted++)

/* A thread in msi_route_cache_relay_loop. */
struct lent {
    pthread_t thread;
    struct msi_route_cache *cache;
    atomic_bool inside;
    int result;
};
void lend(struct rig *rig, struct lent *lent);
void take_back(struct lent *lent);  /* it ends well */

/* Calls, for tables of them and for expect_refused. The cache's: */
int relay_run(void *cache);
int relay_loop(void *cache);
int relay_stop(void *cache);
/* Line 0's, or its device's: */
int unbind_it(struct rig *rig);
int mask_it(struct rig *rig);
int set_it(struct rig *rig);
int clear_it(struct rig *rig);
int reset_it(struct rig *rig);
int close_it(struct rig *rig);
int stop_it(struct rig *rig);
int no_master(struct rig *rig);
int hold(struct rig *rig);          /* pause */

#endif
