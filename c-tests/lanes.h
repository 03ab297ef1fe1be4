/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* For tests with many threads: a cache whose `signal` judges every message. Each vector of its device is a lane with an
 * ever-changing message. A message is
 *   torn   if its address and its data are not from the same msi_vector_set,
 *   stale  if msi_vector_set of a newer one had returned,
 *   late   if the vector was shut (masked, say) and the call that shut it had returned,
 * and an event is lost if no message was sent after it, once the vector is open again. */
#ifndef TEST_LANES_H
#define TEST_LANES_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "msiroute.h"
#include "tap.h"

#define LANES 8
struct lane {
    _Atomic uint64_t raised;    /* events of the device so far */
    _Atomic uint64_t seen;      /* the newest of them when the last message was sent */
    _Atomic uint64_t messages;
    _Atomic uint32_t serial;    /* of the message set last */
    _Atomic uint32_t oldest;    /* of the messages that may still come */
    atomic_bool shut;
};

extern struct lane lanes[LANES];
extern struct msi_route_cache *lanes_cache;
extern struct msi_device *lanes_dev;
extern atomic_ulong torn, stale, late, misrouted;
/* Called inside `signal`, the lane's message judged already. */
extern void (*_Atomic lanes_inside)(unsigned lane);
/* Called inside `set_routes`, before the new table is in force. */
extern void (*_Atomic lanes_inside_table)(void);

/* The lane_ functions do it as a guest does: by writes to the MSI-X table. Before lanes_open. */
extern bool lanes_by_registers;

/* Routes for messages instead of `signal`: NO_DIRECT among the flags. All lanes start with a message, and on MSI-X open. */
bool lanes_open(uint32_t kind, uint32_t flags, uint32_t max_routes);
void lanes_close(void);         /* and judges: nothing torn, stale, late or misrouted */

int  lane_raise(unsigned lane);     /* one more event, delivered; what msi_deliver said */
void lane_set(unsigned lane);       /* a new message */
void lane_mask(unsigned lane);
void lane_unmask(unsigned lane);
void lanes_pause(void);         /* no message comes until: */
void lanes_resume(void);
bool lane_is_quiet(unsigned lane);  /* no thread is at it: everything raised was seen, nothing is pending */

/* ---- threads ---- */

uint32_t chance(void);                          /* a random number of this thread's */
void dawdle(unsigned at_most);                  /* some turns of doing nothing */

struct gate_of_two { atomic_uint arrived, turn; };
void meet(struct gate_of_two *gate);            /* both come here, then both go on at once */

/* ---- how changes wait for deliveries ---- */

/* main's arguments choose: nothing, "fences" (and membarrier(2) kills the program), "refused" (membarrier(2) fails). */
bool lanes_choose_barrier(int argc, char **argv);

#endif
