/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the process asks of KVM, counted on its way there; held up and refused on demand. A program that has calls.c
 * among its sources has an `ioctl` that stands before libc's, for the library too. The two calls that the library
 * makes in place, past libc, are met by a filter of system calls: see calls_in_place. */
#ifndef TEST_CALLS_H
#define TEST_CALLS_H
#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum call {
    CALL_WRITE,     /* KVM_SET_GSI_ROUTING */
    CALL_BIND,      /* KVM_IRQFD */
    CALL_UNBIND,    /* the same with KVM_IRQFD_FLAG_DEASSIGN */
    CALL_SIGNAL,    /* KVM_SIGNAL_MSI */
    CALL_LINE,      /* KVM_IRQ_LINE and KVM_IRQ_LINE_STATUS */
    CALLS
};

/* All so far, with those that were refused, of all threads. */
uint64_t calls(enum call call);
/* How many of them a statement makes. */
#define CALLED(call, statement) ({ \
    uint64_t called_before_ = calls(call); \
    (void)(statement); \
    calls(call) - called_before_; })

/* The table as the kernel took it last. */
size_t table_entries(void);
size_t table_entries_of_type(uint32_t type);
bool table_has(uint32_t gsi, uint64_t address, uint32_t data);  /* a message; ANY_GSI: somewhere */
#define ANY_GSI UINT32_MAX

/* From now on the at-th call of this kind fails, and if it lasts, all later ones too. */
void calls_fail(enum call call, unsigned at, int error, bool lasts);
/* Tables with a message of this data are refused: EINVAL. 0: none. */
void refuse_data(uint32_t data);
/* Neither any more; whether one of them had struck. */
bool calls_heal(void);

/* Called on the calling thread, the kernel not asked yet. Of calls in place: from a signal's handler. NULL: none. */
void calls_inside(enum call call, void (*inside)(void));

/* From now on CALL_SIGNAL and CALL_LINE of this thread, and of those that it starts, are counted even if they are
 * made in place: a filter makes a signal of each, whose handler makes the call. */
bool calls_in_place(void);
/* From now on a table write or irqfd of this thread that is not counted here fails with ENOTUNIQ. */
bool calls_not_past_us(void);

#endif
