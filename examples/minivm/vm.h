/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One virtual machine: RAM, devices, and the route cache that takes their interrupts; run by KVM or by a stand-in. */
#ifndef VM_H
#define VM_H
#include <msiroute.h>
#include <semaphore.h>

#include "devices.h"
#include "guest_abi.h"

struct vm;

struct backend {
    const char *name;
    void (*create)(struct vm *vm, uint32_t cache_flags);    /* the machine and vm->cache */
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
    struct device devices[NR_DEVICES];
    int ram_fd;             /* a memfd, so that a device process can map it too */
    uint8_t *ram;
    struct guest_shared *shared;
    sem_t cpus_ready;       /* posted by each CPU that takes interrupts */
    struct machine *machine; /* the backend's */
};

/* Boots the guest and returns when all its CPUs take interrupts. */
void vm_start(struct vm *vm, const struct backend *backend, uint32_t cache_flags);
/* RAM stays mapped, for the report. */
void vm_stop(struct vm *vm);

#endif
