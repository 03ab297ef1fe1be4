/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Preloaded into a VMM: counts what it asks of KVM through libc, as libraries do too, in the file that COUNT_IOCTLS_FILE
 * names, for the harness to read meanwhile. With COUNT_IOCTLS_HIDE_SIGNAL_MSI in the environment the host has no
 * KVM_SIGNAL_MSI. libmsiroute sends messages by a system call of its own: those are not counted.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Read by calls.py. */
struct counts {
    _Atomic uint64_t table_writes, table_ns;    /* KVM_SET_GSI_ROUTING, and the time in it */
    _Atomic uint64_t binds, unbinds, irqfd_ns;  /* KVM_IRQFD */
    _Atomic uint64_t signals;                   /* KVM_SIGNAL_MSI */
    _Atomic uint64_t lines;                     /* KVM_IRQ_LINE, KVM_IRQ_LINE_STATUS */
};

static struct counts *counts;
static bool hides_signal;
static int (*real_ioctl)(int fd, unsigned long request, ...);

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("COUNT_IOCTLS_FILE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (map == MAP_FAILED) {
        perror("count-ioctls: COUNT_IOCTLS_FILE");
        exit(1);
    }
    close(fd);
    counts = map;
    hides_signal = getenv("COUNT_IOCTLS_HIDE_SIGNAL_MSI") != NULL;
    real_ioctl = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int timed(int fd, unsigned long request, void *argument, _Atomic uint64_t *ns)
{
    uint64_t start = now_ns();
    int result = real_ioctl(fd, request, argument);
    int error = errno;

    atomic_fetch_add(ns, now_ns() - start);
    errno = error;
    return result;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);

    if (!counts) /* another constructor, before ours */
        start();
    switch (request) {
    case KVM_SET_GSI_ROUTING:
        atomic_fetch_add(&counts->table_writes, 1);
        return timed(fd, request, argument, &counts->table_ns);
    case KVM_IRQFD: {
        bool unbinds = ((struct kvm_irqfd *)argument)->flags & KVM_IRQFD_FLAG_DEASSIGN;
        atomic_fetch_add(unbinds ? &counts->unbinds : &counts->binds, 1);
        return timed(fd, request, argument, &counts->irqfd_ns);
    }
    case KVM_SIGNAL_MSI:
        atomic_fetch_add(&counts->signals, 1);
        if (hides_signal) {
            errno = ENOTTY;
            return -1;
        }
        break;
    case KVM_IRQ_LINE:
    case KVM_IRQ_LINE_STATUS:
        atomic_fetch_add(&counts->lines, 1);
        break;
    case KVM_CHECK_EXTENSION:
        if (hides_signal && (uintptr_t)argument == KVM_CAP_SIGNAL_MSI)
            return 0;
        break;
    }
    return real_ioctl(fd, request, argument);
}
