/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define DESCRIPTORS 65536   /* enough for all that is done here */

void need(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

int bench_vm(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    need(kvm >= 0, "/dev/kvm");
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    need(vm >= 0, "KVM_CREATE_VM");
    need(ioctl(vm, KVM_CREATE_IRQCHIP, 0) == 0, "KVM_CREATE_IRQCHIP");
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    need(vcpu >= 0, "KVM_CREATE_VCPU");

    struct kvm_lapic_state lapic;
    need(ioctl(vcpu, KVM_GET_LAPIC, &lapic) == 0, "KVM_GET_LAPIC");
    uint32_t spurious = 0x1ff; /* bit 8: switched on */
    memcpy(lapic.regs + 0xf0, &spurious, sizeof spurious);
    need(ioctl(vcpu, KVM_SET_LAPIC, &lapic) == 0, "KVM_SET_LAPIC");
    close(vcpu);    /* it stays the VM's */
    close(kvm);
    return vm;
}

uint32_t bench_allow_descriptors(void)
{
    struct rlimit limit, more;
    need(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    more.rlim_cur = more.rlim_max = limit.rlim_max > DESCRIPTORS ? limit.rlim_max : DESCRIPTORS;
    if (setrlimit(RLIMIT_NOFILE, &more) != 0) {     /* more than the hard limit is root's alone */
        more.rlim_cur = more.rlim_max = limit.rlim_max;
        need(setrlimit(RLIMIT_NOFILE, &more) == 0, "setrlimit");
    }
    return (uint32_t)(more.rlim_cur < UINT32_MAX ? more.rlim_cur : UINT32_MAX);
}

uint32_t bench_data(uint32_t message)
{
    return (message / 200) << 16 | (32 + message % 200);
}

uint64_t random_bits(void)
{
    static uint64_t state = 88172645463325252ull;
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double percentile(double *values, size_t n, unsigned percent)
{
    qsort(values, n, sizeof *values, compare);
    return values[n * percent / 100];
}

void print_median(double *values, size_t n, const char *name, ...)
{
    char text[128];
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(text, sizeof text, name, arguments);
    va_end(arguments);
    qsort(values, n, sizeof *values, compare);
    printf("%s=%.6g\n%s_q1=%.6g\n%s_q3=%.6g\n", text, median(values, n), text, values[n / 4], text, values[3 * n / 4]);
    fflush(stdout);
}
