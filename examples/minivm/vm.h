/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One virtual machine: RAM, devices, and the route cache that takes their interrupts; run by KVM or by a stand-in. */
#ifndef VM_H
#define VM_H
#include <msiroute.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

#include "devices.h"
#include "guest_abi.h"

struct vm;

/* How a machine's route cache is made. */
struct cache_choice {
    uint32_t flags, max_routes;
    bool relay;             /* in a thread of ours */
};

struct backend {
    const char *name;
    void (*create)(struct vm *vm, const struct cache_choice *choice); /* the machine and vm->cache */
    void (*wire)(struct vm *vm, uint32_t address, int fd);  /* a guest's write there shall signal the eventfd */
    void (*start)(struct vm *vm);                           /* the CPUs */
    void (*stop)(struct vm *vm);
    void (*destroy)(struct vm *vm);                         /* when vm->cache is gone */
};

extern const struct backend kvm_backend, model_backend;

/* Why this host cannot run the KVM backend; NULL if it can. */
const char *kvm_missing(void);

struct vm {
    const struct backend *backend;
    struct msi_route_cache *cache;
    bool relay;
    pthread_t relay_thread;
    struct device devices[NR_DEVICES];
    int ram_fd;             /* a memfd, so that a device process can map it too */
    uint8_t *ram;
    struct guest_shared *shared;
    sem_t cpus_ready;       /* posted by each CPU that takes interrupts */
    struct machine *machine; /* the backend's */
};

/* Boots the guest and returns when all its CPUs take interrupts. */
void vm_start(struct vm *vm, const struct backend *backend, const struct cache_choice *choice);
/* RAM stays mapped, for the report. */
void vm_stop(struct vm *vm);

#endif
