/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What becomes of a guest's register writes, as a policy: the library's, and stand-ins for those of other VMMs. Stand-ins are
 * written anew and small: what they ask of the kernel, and when, is as the real ones do it; the rest is as fast as it
 * can be. Each file says where its stand-in differs from the real one.
 *
 * A policy has one machine at a time: `vectors` vectors, in devices of `per_device`, numbered through. Each has an eventfd;
 * at first each is masked, and nothing is in the kernel. A message is a number (see bench_data). */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H
#include <stdint.h>

struct machine;     /* a stand-in's (machine.h), or the library's (msiroute.c) */

struct peer {
    const char *name;
    struct machine *machine;    /* what the functions are given */
    void (*open)(struct machine *machine, uint32_t vectors, uint32_t per_device);
    void (*close)(struct machine *machine);

    /* The guest's writes. `set` is of a masked vector. */
    void (*set)(struct machine *machine, uint32_t vector, uint32_t message);
    void (*unmask)(struct machine *machine, uint32_t vector);
    void (*mask)(struct machine *machine, uint32_t vector);
    void (*function_mask)(struct machine *machine, uint32_t device, int on);
    /* Around the writes that a guest, or the VMM, has made one: the function mask of device 0, or a transaction. */
    void (*begin)(struct machine *machine);
    void (*end)(struct machine *machine);

    void (*unplug)(struct machine *machine, uint32_t device);

    /* Registers come from a file: vector v has message v, and is not masked. `load`: they are read, nothing is live.
     * `restore`: all is live. NULL: it has no such thing. */
    void (*load)(struct machine *machine);
    void (*restore)(struct machine *machine);

    /* All that was opened is the kernel's when this returns; NULL: it always is. */
    void (*settle)(struct machine *machine);

    /* A device raises a vector, in the VMM. */
    void (*deliver)(struct machine *machine, uint32_t vector);
    /* A message without KVM_SIGNAL_MSI. NULL: it cannot. */
    void (*send)(struct machine *machine, uint32_t message);
};

extern const struct peer qemu, kvmtool, cloud_hypervisor, firecracker;
/* The library; with helper threads; with a VMM that masks at the source (vhost, VFIO); with a relay in a thread of its own. */
extern const struct peer msiroute, msiroute_helpers, msiroute_source, msiroute_relay;
#endif
