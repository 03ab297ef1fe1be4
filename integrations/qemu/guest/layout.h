/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where things lie in guest memory, for C and assembly. The harness knows the mailbox's layout as well: mailbox.py. */
#ifndef LAYOUT_H
#define LAYOUT_H

#define CODE_SEGMENT 0x08
#define DATA_SEGMENT 0x10
#define STACK_SIZE   0x4000

#define TRAMPOLINE   0x008000 /* where CPU 1 starts, in real mode */
#define MAILBOX      0x400000

#define NR_CPUS      2
#define MAX_VECTORS  2048     /* MSI-X entries of one device */

#define VECTOR_TICK     0x30  /* the timer */
#define VECTOR_SPURIOUS 0xff

#endif
