/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What guest and harness share: guest memory, which the harness maps. The guest asks, the harness answers; in between
 * the guest waits. The harness is the outside writer of ivshmem's eventfds, and it samples QEMU's system calls.
 */
#ifndef MAILBOX_H
#define MAILBOX_H
#include "layout.h"
#include "machine.h"

enum request {
    REQUEST_BEGIN = 1,  /* a phase begins: name */
    REQUEST_END,        /* and ends: arguments are struct phase's, from `sent` to `cycles` */
    REQUEST_LOCKSTEP,   /* eventfds argument[0] and argument[1] - 1 more, argument[2] times, each after the last arrived */
    REQUEST_SEND,       /* the same eventfds, none waited for */
    REQUEST_STORM,      /* from now on, the eventfds, each written when its last interrupt has arrived */
    REQUEST_CALM,       /* the storm ends: what was sent has arrived, or is lost */
    REQUEST_SKIP,       /* the phase cannot be run here: name */
    REQUEST_DONE,       /* all phases were run */
};

struct mailbox {
    uint32_t counts[NR_CPUS][256];      /* interrupts that arrived, by CPU and x86 vector */
    uint16_t targets[MAX_VECTORS];      /* of ivshmem's vectors: CPU << 8 | x86 vector */
    uint32_t boots;
    uint32_t asked;                     /* a request's number: written last */
    uint32_t answered;                  /* the request that the harness has carried out */
    uint32_t request;
    uint64_t tsc;
    uint64_t argument[6];
    uint64_t answer[3];                 /* lockstep, calm: interrupts sent, lost, doubled */
    char name[64];
};

static inline volatile struct mailbox *mailbox(void) { return (volatile struct mailbox *)MAILBOX; }

/* Asks for something, and waits until it is done. The arguments are in the mailbox already. */
void ask(enum request request, const char *name);

#endif
