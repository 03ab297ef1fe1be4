/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "iommu.h"
#include "machine.h"
#include "message.h"
#include "panic.h"

#define REGISTERS 0xfed90000u
#define GCMD      0x18
#define GSTS      0x1c
#define   COMMAND_REMAP       (1u << 25)
#define   COMMAND_QUEUE       (1u << 26)
#define   COMMAND_SET_TABLE   (1u << 24)
#define IQT       0x88
#define IQA       0x90
#define IRTA      0xb8
#define   IRTA_ENTRIES        11u     /* 2 to the power of 11 + 1 */

#define HANDLES   4096
#define QUEUE     256                 /* a page of invalidation descriptors */

#define INVALIDATE_INTERRUPTS 4u
#define   INVALIDATE_ONE        (1u << 4)
#define INVALIDATE_WAIT       5u
#define   WAIT_WRITES_STATUS    (1u << 5)

static uint64_t table[HANDLES][2] __attribute__((aligned(4096)));
static uint64_t queue[QUEUE][2] __attribute__((aligned(4096)));
static volatile uint32_t status;
static unsigned tail;
static bool on;

static void command(uint32_t bit)
{
    write32(REGISTERS + GCMD, (read32(REGISTERS + GSTS) & (COMMAND_REMAP | COMMAND_QUEUE)) | bit);
    while (!(read32(REGISTERS + GSTS) & bit))
        ;
}

static void push(uint64_t low, uint64_t high)
{
    queue[tail][0] = low;
    queue[tail][1] = high;
    tail = (tail + 1) % QUEUE;
}

/* With a wait descriptor behind it, and seen to be done. */
static void invalidate(uint64_t descriptor)
{
    uint32_t next = status + 1;

    push(descriptor, 0);
    push((uint64_t)next << 32 | WAIT_WRITES_STATUS | INVALIDATE_WAIT, address_of(&status));
    write32(REGISTERS + IQT, tail * 16);
    while (status != next)
        barrier();
}

void iommu_start(void)
{
    write32(REGISTERS + IQT, 0);
    write32(REGISTERS + IQA, address_of(queue));
    write32(REGISTERS + IQA + 4, 0);
    command(COMMAND_QUEUE);
    write32(REGISTERS + IRTA, address_of(table) | IRTA_ENTRIES);
    write32(REGISTERS + IRTA + 4, 0);
    command(COMMAND_SET_TABLE);
    invalidate(INVALIDATE_INTERRUPTS);
    command(COMMAND_REMAP);
    on = true;
}

bool iommu_is_on(void) { return on; }

void iommu_set(unsigned handle, unsigned cpu, uint8_t vector)
{
    if (handle >= HANDLES)
        panic("no such handle", handle);
    table[handle][0] = (uint64_t)cpu << 40 | (uint32_t)vector << 16 | 1; /* fixed, edge, physical, present */
    table[handle][1] = 0;                                                /* from any requester */
    barrier();
    invalidate((uint64_t)handle << 32 | INVALIDATE_ONE | INVALIDATE_INTERRUPTS);
}

struct message message_to(unsigned source, unsigned cpu, uint8_t vector)
{
    if (!on)
        return (struct message){ 0xfee00000u | cpu << 12, vector };
    iommu_set(source, cpu, vector);
    return (struct message){ 0xfee00010u | source << 5, 0 };
}
