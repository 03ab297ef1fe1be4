/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Who raises interrupts: one worker a queue, a thread or a process of its own, each in lockstep with the guest. */
#ifndef SOURCES_H
#define SOURCES_H
#include "vm.h"

#define NR_MACHINES 3

/* One queue's count and times, written by its worker alone. */
struct tally {
    uint64_t sent __attribute__((aligned(64)));
    uint32_t timed;                 /* round trips recorded */
};

/* Memory that worker processes share with us, and the guest does not see. */
struct scoreboard {
    uint32_t room;                  /* round trips that can be recorded for each queue */
    struct tally tallies[NR_MACHINES][NR_DEVICES][MAX_QUEUES];
    uint32_t nanoseconds[];         /* room of them for each queue, in the order of tallies */
};

/* Before the first round. */
struct scoreboard *scoreboard_create(uint32_t room);
uint32_t *scoreboard_times(struct scoreboard *board, unsigned machine, unsigned d, unsigned q);

/* Each queue of devices first..last raises so many events, all queues at once; returns when the guest has seen them. */
void sources_run(struct vm *vm, unsigned machine, unsigned first, unsigned last, uint32_t events, bool timed);

/* The whole life of a worker process; argv is what sources_run gave it. */
#define WORKER_OPTION "--worker"
int worker_process(char **argv);

#endif
