/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the benchmarks share: a VM, the clock, medians. */
#ifndef BENCH_H
#define BENCH_H
#include <stddef.h>
#include <stdint.h>

/* Ends the program with a message unless `ok`. */
void need(int ok, const char *what);

/* A VM with a full in-kernel irqchip and one vCPU whose local APIC is switched on. */
int bench_vm(void);

/* As many descriptors as the system lets the program have; how many. */
uint32_t bench_allow_descriptors(void);

/* An address that reaches that vCPU. */
#define BENCH_ADDRESS 0xfee00000u

/* Bits 31:16 are ignored: any number of distinct messages reach that vCPU. */
uint32_t bench_data(uint32_t message);

uint64_t nanoseconds(void);

/* A pseudo-random number, the same ones in every run. */
uint64_t random_bits(void);

/* Of n values; reorders them. */
double median(double *values, size_t n);
double percentile(double *values, size_t n, unsigned percent);

/* Prints NAME=median, and the quartiles as NAME_q1 and NAME_q3. Reorders too. */
__attribute__((format(printf, 3, 4)))
void print_median(double *values, size_t n, const char *name, ...);
#endif
