/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "kernel.h"

#include <linux/kvm.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic uint64_t writes, binds, unbinds;

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (request == KVM_SET_GSI_ROUTING) {
        atomic_fetch_add_explicit(&writes, 1, memory_order_relaxed);
    } else if (request == KVM_IRQFD) {
        const struct kvm_irqfd *irqfd = argument;
        atomic_fetch_add_explicit(irqfd->flags & KVM_IRQFD_FLAG_DEASSIGN ? &unbinds : &binds, 1, memory_order_relaxed);
    }
    return (int)syscall(SYS_ioctl, fd, request, argument);
}

struct asked asked(void)
{
    return (struct asked){ atomic_load(&writes), atomic_load(&binds), atomic_load(&unbinds) };
}

struct asked asked_since(struct asked before)
{
    struct asked now = asked();
    return (struct asked){ now.writes - before.writes, now.binds - before.binds, now.unbinds - before.unbinds };
}

void print_asked(struct asked asked, const char *name, ...)
{
    char text[128];
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(text, sizeof text, name, arguments);
    va_end(arguments);
    printf("%s_writes=%llu\n%s_binds=%llu\n%s_unbinds=%llu\n", text, (unsigned long long)asked.writes,
           text, (unsigned long long)asked.binds, text, (unsigned long long)asked.unbinds);
}
