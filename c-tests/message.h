/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* x86 messages: which vector to which local APIC. */
#ifndef TEST_MESSAGE_H
#define TEST_MESSAGE_H
#include <stdint.h>

/* The two arguments of msi_vector_set. */
#define TO(apic_id, vector) to_apic(apic_id), vector_data(vector)

static inline uint64_t to_apic(unsigned apic_id)    /* physical destination */
{
    return 0xFEE00000u | (apic_id & 0xFF) << 12;
}

static inline uint64_t to_x2apic(uint32_t apic_id)  /* bits 31:8 in the high half */
{
    return to_apic(apic_id) | (uint64_t)(apic_id & ~0xFFu) << 32;
}

static inline uint64_t to_apic_15_bits(unsigned apic_id)    /* bits 14:8 in address bits 11:5 */
{
    return to_apic(apic_id) | (apic_id >> 8 & 0x7F) << 5;
}

static inline uint32_t vector_data(unsigned vector) /* fixed delivery, edge */
{
    return vector;
}

/* The vectors a test may use start above the exceptions; `nth_vector` deals them out, `nth_cpu` says to whom. */
#define FIRST_VECTOR 32
#define VECTORS_PER_CPU (256 - FIRST_VECTOR)
static inline unsigned nth_cpu(unsigned n)    { return n / VECTORS_PER_CPU; }
static inline unsigned nth_vector(unsigned n) { return FIRST_VECTOR + n % VECTORS_PER_CPU; }
#define TO_NTH(n) TO(nth_cpu(n), nth_vector(n))

#endif
