/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

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
    close(kvm);
    return vm;
}

void bench_allow_descriptors(void)
{
    struct rlimit limit;
    need(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    need(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
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

double spread(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare);
    return values[3 * n / 4] - values[n / 4];
}
