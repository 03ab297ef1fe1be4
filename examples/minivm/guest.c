/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The guest: switches its x2APIC on, lets the driver program the devices' vectors, and halts; all else happens in
 * interrupts. Plain instructions only: some hosts' KVM has no VMX or SVM under it and emulates supervisor code.
 */
#include "guest_abi.h"

#define MSR_APIC_BASE   0x1b
#define   APIC_BASE_X2APIC  (3u << 10)
#define MSR_X2APIC_ID   0x802
#define MSR_X2APIC_EOI  0x80b
#define MSR_X2APIC_SVR  0x80f
#define   SVR_ENABLE        (1u << 8)
#define MSR_X2APIC_IRR  0x820

static uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

/* Asked of the APIC and not remembered: what it says is where the message went. */
static unsigned this_cpu(void)
{
    return rdmsr(MSR_X2APIC_ID);
}

static struct guest_shared *shared_page(void)
{
    return (struct guest_shared *)SHARED_PAGE;
}

static int irq_requested(unsigned irq)
{
    return rdmsr(MSR_X2APIC_IRR + irq / 32) >> irq % 32 & 1;
}

static uint64_t mmio_read(uint32_t address, unsigned len)
{
    volatile void *reg = (void *)(uintptr_t)address;

    switch (len) {
    case 2: return *(volatile uint16_t *)reg;
    case 4: return *(volatile uint32_t *)reg;
    default: return *(volatile uint64_t *)reg;
    }
}

static void mmio_write(uint32_t address, uint64_t value, unsigned len)
{
    volatile void *reg = (void *)(uintptr_t)address;

    __asm__ volatile("" : : : "memory"); /* devices and the other CPU see memory as it is now */
    if (len == 2)
        *(volatile uint16_t *)reg = value;
    else
        *(volatile uint32_t *)reg = value;
    __asm__ volatile("" : : : "memory");
}

#include "driver.h"

struct gate {
    uint16_t offset_0, selector, type, offset_16;
    uint32_t offset_32, zero;
};

struct __attribute__((packed)) table_pointer {
    uint16_t limit;
    uint64_t base;
};

#define GATE_INTERRUPT 0x8e00

extern const uint8_t interrupt_entries[256][16];
static struct gate idts[NR_CPUS][256];

static void load_idt(struct gate *idt)
{
    struct table_pointer pointer = { sizeof(idts[0]) - 1, (uintptr_t)idt };

    for (int i = 0; i < 256; i++) {
        uintptr_t entry = (uintptr_t)interrupt_entries[i];

        idt[i] = (struct gate){ entry, GUEST_CS, GATE_INTERRUPT, entry >> 16, entry >> 32, 0 };
    }
    __asm__ volatile("lidt %0" : : "m"(pointer), "m"(*(struct gate(*)[256])idt));
}

void guest_interrupt(unsigned irq)
{
    if (irq < 32) {
        mmio_write(BOARD + BOARD_PANIC, irq, 4);
        for (;;)
            __asm__ volatile("cli; hlt");
    }
    driver_interrupt(irq);
    wrmsr(MSR_X2APIC_EOI, 0);
}

void guest_main(unsigned cpu)
{
    load_idt(idts[cpu]);
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_X2APIC);
    wrmsr(MSR_X2APIC_SVR, SVR_ENABLE | 0xff);
    driver_start();
    for (;;)
        __asm__ volatile("sti; hlt" : : : "memory");
}
