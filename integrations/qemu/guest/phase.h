/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A phase: something done with interrupts, its interrupts counted, its time taken, its system calls sampled. */
#ifndef PHASE_H
#define PHASE_H
#include "mailbox.h"

struct phase {
    uint64_t sent;              /* by the guest's own doing: those of the harness are added by it */
    uint64_t lost, doubled;
    uint64_t astray;            /* at the wrong CPU, or not pending although masked */
    uint64_t accesses;          /* to devices, in the time: their exits cost the same whatever the VMM does */
    uint64_t cycles;
    uint64_t started;
};

void phase_begin(struct phase *phase, const char *name);
void phase_end(struct phase *phase);
void phase_skip(const char *name);

/* Around what is to be timed. */
static inline void clock_start(struct phase *phase) { phase->started = rdtsc(); }
static inline void clock_stop(struct phase *phase) { phase->cycles += rdtsc() - phase->started; }

/* One interrupt more was sent after `before` had arrived: waits for it. */
void expect_one(struct phase *phase, uint8_t vector, uint32_t before);
/* None is to have come. */
void expect_none(struct phase *phase, uint8_t vector, uint32_t before);

/* The harness's part; what it finds lost or doubled is the phase's. */
void signal(unsigned first, unsigned count);
void lockstep(struct phase *phase, unsigned first, unsigned count, unsigned times);
void storm_begins(unsigned count);
void storm_ends(struct phase *phase);

void edu_phases(void);
void edu_messages(void);
void ivshmem_phases(void);
void ivshmem_times(void);
void ivshmem_after_reset(void);
void virtio_phases(void);
void virtio_after_reset(void);

#endif
