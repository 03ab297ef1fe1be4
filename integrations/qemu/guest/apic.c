/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "apic.h"
#include "layout.h"
#include "mailbox.h"
#include "panic.h"

#define MSR_APIC_BASE     0x1b
#define   APIC_BASE_X2APIC  (3u << 10)
#define MSR_X2APIC_ID     0x802
#define MSR_X2APIC_TPR    0x808
#define MSR_X2APIC_SVR    0x80f
#define   SVR_ENABLE        (1u << 8)
#define MSR_X2APIC_ICR    0x830
#define   ICR_INIT          0x4500u
#define   ICR_STARTUP       0x4600u
#define MSR_X2APIC_TIMER  0x832
#define   TIMER_PERIODIC    (1u << 17)
#define MSR_X2APIC_LINT0  0x835
#define   LVT_MASKED        (1u << 16)
#define MSR_X2APIC_COUNT  0x838
#define MSR_X2APIC_DIVIDE 0x83e
#define   DIVIDE_BY_1       0xbu

#define TICK_MS      4
#define TICKS_COUNT  (TICK_MS * 1000000u) /* KVM's timer counts nanoseconds */
#define PATIENCE_MS  1000

struct gate { uint16_t offset_0, selector, type, offset_16; uint32_t offset_32, zero; };
struct __attribute__((packed)) table_pointer { uint16_t limit; uint64_t base; };

#define GATE_INTERRUPT 0x8e00

extern const uint8_t interrupt_entries[256][16], trampoline[], trampoline_end[];
static struct gate idt[256];
static volatile bool second_started;

static void load_idt(void)
{
    struct table_pointer pointer = { sizeof(idt) - 1, address_of(idt) };

    for (int i = 0; i < 256; i++) {
        uint32_t entry = address_of(interrupt_entries[i]);
        idt[i] = (struct gate){ (uint16_t)entry, CODE_SEGMENT, GATE_INTERRUPT, (uint16_t)(entry >> 16), 0, 0 };
    }
    __asm__ volatile("lidt %0" : : "m"(pointer) : "memory");
}

void apic_start(void)
{
    load_idt();
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_X2APIC);
    wrmsr(MSR_X2APIC_TPR, 0);
    wrmsr(MSR_X2APIC_LINT0, LVT_MASKED);
    wrmsr(MSR_X2APIC_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
    if (rdmsr(MSR_X2APIC_ID) != 0)
        return;
    wrmsr(MSR_X2APIC_DIVIDE, DIVIDE_BY_1);
    wrmsr(MSR_X2APIC_TIMER, TIMER_PERIODIC | VECTOR_TICK);
    wrmsr(MSR_X2APIC_COUNT, TICKS_COUNT);
    __asm__ volatile("sti");
}

/* CPU 1 only takes interrupts. */
_Noreturn void second_main(void);
void second_main(void)
{
    apic_start();
    second_started = true;
    for (;;)
        __asm__ volatile("sti; hlt" : : : "memory");
}

bool second_cpu_start(void)
{
    for (const uint8_t *from = trampoline; from < trampoline_end; from++)
        write8(TRAMPOLINE + (uint32_t)(from - trampoline), *from);
    wrmsr(MSR_X2APIC_ICR, 1ull << 32 | ICR_INIT);
    sleep_ms(10);
    wrmsr(MSR_X2APIC_ICR, 1ull << 32 | ICR_STARTUP | TRAMPOLINE >> 12);
    for (int i = 0; i < PATIENCE_MS && !second_started; i += TICK_MS)
        sleep_ms(TICK_MS);
    return second_started;
}

uint32_t arrived(uint8_t vector) { return mailbox()->counts[0][vector] + mailbox()->counts[1][vector]; }

uint32_t arrived_all(void)
{
    uint32_t sum = 0;

    for (unsigned vector = VECTOR_TICK + 1; vector < VECTOR_SPURIOUS; vector++)
        sum += arrived((uint8_t)vector);
    return sum;
}

static uint32_t ticks(void) { return mailbox()->counts[0][VECTOR_TICK]; }

/* No interrupt comes between `sti` and `hlt`. */
static void nap(void) { __asm__ volatile("sti; hlt" : : : "memory"); }

void sleep_ms(unsigned ms)
{
    for (uint32_t start = ticks(); (ticks() - start) * TICK_MS <= ms;)
        nap();
}

bool wait_arrived(uint8_t vector, uint32_t count)
{
    bool met = false;

    for (uint32_t start = ticks(); !met && (ticks() - start) * TICK_MS < PATIENCE_MS;) {
        __asm__ volatile("cli");
        met = (int32_t)(arrived(vector) - count) >= 0;
        if (!met)
            nap();
        __asm__ volatile("sti");
    }
    return met;
}

bool wait_arrived_all(uint32_t count)
{
    bool met = false;

    for (uint32_t start = ticks(); !met && (ticks() - start) * TICK_MS < PATIENCE_MS;) {
        met = (int32_t)(arrived_all() - count) >= 0;
        if (!met)
            nap();
    }
    return met;
}
