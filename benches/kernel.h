/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the process asks of KVM, the library and the stand-ins for others alike, counted in the place of libc's ioctl.
 * (KVM_SIGNAL_MSI and KVM_IRQ_LINE are not counted: the library makes them past libc.) */
#ifndef BENCH_KERNEL_H
#define BENCH_KERNEL_H
#include <stdint.h>

struct asked {
    uint64_t writes;    /* KVM_SET_GSI_ROUTING */
    uint64_t binds;     /* KVM_IRQFD */
    uint64_t unbinds;   /* the same with KVM_IRQFD_FLAG_DEASSIGN */
};

/* All so far, of all threads. */
struct asked asked(void);
struct asked asked_since(struct asked before);

/* Prints NAME_writes, NAME_binds and NAME_unbinds. */
__attribute__((format(printf, 2, 3)))
void print_asked(struct asked asked, const char *name, ...);
#endif
