/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What is done in each phase, and under which conditions. */
#ifndef TEST_SECCOMP_SCENARIOS_H
#define TEST_SECCOMP_SCENARIOS_H
#include <pthread.h>
#include <stdatomic.h>

#include "relays.h"

enum barrier { BY_MEMBARRIER, BY_FENCES, BY_REFUSAL };

struct scene {
    struct rig rig;
    struct msi_route_cache *cache;      /* the one that is made, or freed */
    struct msi_device *dev;
    struct lent lent;
    pthread_t other;
    atomic_bool inside, acting;
    enum barrier barrier;
    uint64_t took_us;
    uint8_t state[1024];
};

struct scenario {
    const char *sentence;
    const char *filter;     /* of which phase */
    const char *proves;     /* NULL: the same */
    struct rig_config config;
    enum host host;         /* 0: ON_KVM */
    bool no_cache;          /* a VM alone */
    const char *with;       /* a condition beyond those that follow from the config */
    void (*prepare)(struct scene *scene);   /* no filter */
    void (*warm_up)(struct scene *scene);   /* the same, on the thread that acts */
    int (*act)(struct scene *scene);        /* under the filter; 0, or the line that failed */
    void (*meanwhile)(struct scene *scene); /* on another thread, which has none */
    bool (*check)(struct scene *scene);
};

extern const struct scenario scenarios[];
extern const size_t n_scenarios;

#endif
