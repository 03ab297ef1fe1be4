/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The CPU: ports, MSRs, the time stamp counter, memory as devices and the host see it. */
#ifndef MACHINE_H
#define MACHINE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline void outb(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outl(uint16_t port, uint32_t value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

/* Where something lies, for a device: all of the guest lies below 4 GiB. */
static inline uint32_t address_of(const volatile void *object) { return (uint32_t)(uintptr_t)object; }

static inline void barrier(void) { __asm__ volatile("" : : : "memory"); }

static inline uint32_t read32(uint32_t address) { return *(volatile uint32_t *)(uintptr_t)address; }
static inline uint16_t read16(uint32_t address) { return *(volatile uint16_t *)(uintptr_t)address; }
static inline uint8_t read8(uint32_t address) { return *(volatile uint8_t *)(uintptr_t)address; }

static inline void write32(uint32_t address, uint32_t value)
{
    barrier();
    *(volatile uint32_t *)(uintptr_t)address = value;
    barrier();
}

static inline void write16(uint32_t address, uint16_t value)
{
    barrier();
    *(volatile uint16_t *)(uintptr_t)address = value;
    barrier();
}

static inline void write8(uint32_t address, uint8_t value)
{
    barrier();
    *(volatile uint8_t *)(uintptr_t)address = value;
    barrier();
}

#endif
