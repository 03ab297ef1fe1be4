/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The scene of most tests: a host with some vCPUs, a route cache on it, a device, and a view of what reaches the vCPUs.
 * The same on every host, so that a test written once is proven on KVM, on the fake kernel and on the model. */
#ifndef TEST_RIG_H
#define TEST_RIG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>

#include "fake.h"
#include "kvm.h"
#include "message.h"
#include "msiroute.h"
#include "proc.h"
#include "registers.h"
#include "tap.h"

struct rig_config {     /* what is 0 is usual */
    unsigned cpus;      /* 2 */
    enum irqchip irqchip;
    uint32_t cache_flags, max_routes, first_gsi;
    uint32_t kind, vectors, device_flags;       /* of the first device: PLAIN, 4 */
    const struct msi_route_cache_ops *ops;      /* of the fake kernel: fake_ops(true); gets the `struct fake` */
};

struct rig {
    enum host host;
    unsigned cpus;
    struct vm vm;
    struct fake fake;           /* where there is no KVM: the kernel, or the model's guest */
    struct msi_route_cache *cache;
    struct msi_device *dev;     /* the first of: */
    struct msi_device **devices;
    int *eventfds;
    size_t n_devices, n_eventfds;
    unsigned missed;            /* messages that did not come; after some, patience is short */
};

/* Declares a rig that is taken down at the end of the block; ends the test if it can't be put up. */
#define RIG(name, host, ...) \
    __attribute__((cleanup(rig_close))) struct rig name; \
    if (!rig_open(&name, host, &(struct rig_config){ __VA_ARGS__ })) \
        return

extern uint32_t rig_flags;  /* more flags for every cache of this program */
bool rig_open(struct rig *rig, enum host host, const struct rig_config *config);
void rig_close(struct rig *rig);

/* These are the rig's to free and close. */
struct msi_device *rig_device(struct rig *rig, uint32_t kind, uint32_t vectors);     /* registers are where registers.h says */
struct msi_device *rig_device_of(struct rig *rig, const struct msi_device_config *config);
struct msi_device *rig_msi_device(struct rig *rig, uint32_t flags, unsigned log);    /* of 2^log vectors; says so with failures */
int rig_eventfd(struct rig *rig, int flags);
int rig_bound(struct rig *rig, uint32_t index, uint32_t flags);    /* a new eventfd, bound to this vector of the first device */
/* The rig forgets them: the test frees them itself. */
struct msi_route_cache *rig_take_cache(struct rig *rig);
struct msi_device *rig_take_device(struct rig *rig);

/* What a device's back-end does. */
void fires(struct rig *rig, int eventfd);

/* Exactly one message for this vector has reached this vCPU, or does within a second; it is then forgotten. */
#define expect_arrival(rig, cpu, vector) rig_expect_arrival(__FILE__, __LINE__, rig, cpu, vector)
bool rig_expect_arrival(const char *file, int line, struct rig *rig, unsigned cpu, unsigned vector);
/* Nothing has arrived that was not expected before, and nothing does soon. */
#define expect_quiet(rig) rig_expect_quiet(__FILE__, __LINE__, rig)
bool rig_expect_quiet(const char *file, int line, struct rig *rig);
/* How many messages have arrived (KVM: 1 for any number), looked at once; they are forgotten. */
unsigned rig_arrivals(struct rig *rig, unsigned cpu, unsigned vector);

/* Raising this vector of the first device makes this one message. */
#define expect_delivers(rig, index, cpu, vector) rig_expect_delivers(__FILE__, __LINE__, rig, index, cpu, vector)
bool rig_expect_delivers(const char *file, int line, struct rig *rig, uint32_t index, unsigned cpu, unsigned vector);

/* The k-th of the n! orders of 0 to n - 1. */
void order_of(unsigned k, unsigned n, unsigned order[]);

struct msi_route_cache_stats rig_stats(const struct rig *rig);
struct msi_vector_info info_of(struct msi_device *dev, uint32_t index);
/* As msi_device_save() saves it. */
struct saved {
    size_t size;
    uint8_t bytes[1024];
};
struct saved saved(struct msi_device *dev);
bool is_same(const struct saved *a, const struct saved *b);

/* Table writes that `call` makes. */
#define TABLE_WRITES(rig, call) ({ \
    uint64_t before_ = rig_stats(rig).table_writes; \
    (void)(call); \
    rig_stats(rig).table_writes - before_; })

#endif
