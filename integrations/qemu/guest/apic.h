/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The local APICs, the two CPUs, and waiting for interrupts. */
#ifndef APIC_H
#define APIC_H
#include "machine.h"

void apic_start(void);                  /* on this CPU */
bool second_cpu_start(void);

/* Interrupts so far with this x86 vector, on both CPUs; and on either with any but the timer's. */
uint32_t arrived(uint8_t vector);
uint32_t arrived_all(void);

/* Sleeps until arrived(vector) is `count`, for a second at most: a CPU that is not halted may get its interrupts late. */
bool wait_arrived(uint8_t vector, uint32_t count);
bool wait_arrived_all(uint32_t count);
void sleep_ms(unsigned ms);

#endif
