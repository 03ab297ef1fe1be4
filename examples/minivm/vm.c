/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fail.h"
#include "vm.h"

/* Serves eventfds that the kernel does not, until the relay is stopped. */
static void *relay(void *cache)
{
    MUST(msi_route_cache_relay_loop(cache));
    return NULL;
}

void vm_start(struct vm *vm, const struct backend *backend, const struct cache_choice *choice)
{
    vm->backend = backend;
    vm->ram_fd = memfd_create("guest RAM", MFD_CLOEXEC);
    if (vm->ram_fd < 0 || ftruncate(vm->ram_fd, RAM_SIZE))
        fail_errno("guest RAM");
    vm->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, vm->ram_fd, 0);
    if (vm->ram == MAP_FAILED)
        fail_errno("mapping guest RAM");
    __atomic_store_n(&vm->shared, (struct guest_shared *)(vm->ram + SHARED_PAGE), __ATOMIC_RELEASE);
    sem_init(&vm->cpus_ready, 0, 0);

    backend->create(vm, choice);
    vm->relay = choice->relay;
    if (vm->relay) {
        MUST(msi_route_cache_relay_fd(vm->cache));
        start_thread(&vm->relay_thread, relay, vm->cache);
    }
    devices_create(vm);
    backend->start(vm);
    for (int cpu = 0; cpu < NR_CPUS; cpu++)
        while (sem_wait(&vm->cpus_ready) && errno == EINTR)
            ;
}

void vm_stop(struct vm *vm)
{
    vm->backend->stop(vm);
    devices_destroy(vm);
    if (vm->relay) {
        MUST(msi_route_cache_relay_stop(vm->cache));
        pthread_join(vm->relay_thread, NULL);
    }
    msi_route_cache_free(vm->cache);
    vm->backend->destroy(vm);
    sem_destroy(&vm->cpus_ready);
    close(vm->ram_fd);
}
