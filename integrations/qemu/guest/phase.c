/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "phase.h"
#include "apic.h"
#include "panic.h"

void ask(enum request request, const char *name, uint64_t first, uint64_t second)
{
    volatile struct mailbox *box = mailbox();
    uint32_t number = box->asked + 1;

    for (unsigned i = 0; i < sizeof(box->name); i++) {
        box->name[i] = *name;
        name += *name != 0;
    }
    box->request = request;
    if (request != REQUEST_END) {
        box->argument[0] = first;
        box->argument[1] = second;
    }
    box->tsc = rdtsc();
    barrier();
    box->asked = number;
    while (box->answered != number)
        __asm__ volatile("sti; hlt" : : : "memory"); /* the timer ticks */
}

void phase_begin(struct phase *phase, const char *name)
{
    *phase = (struct phase){ 0 };
    say(name);
    say("\n");
    ask(REQUEST_BEGIN, name, 0, 0);
}

void phase_end(struct phase *phase)
{
    volatile struct mailbox *box = mailbox();

    box->argument[0] = phase->sent;
    box->argument[1] = phase->lost;
    box->argument[2] = phase->doubled;
    box->argument[3] = phase->astray;
    box->argument[4] = phase->accesses;
    box->argument[5] = phase->cycles;
    ask(REQUEST_END, "", 0, 0);
}

void phase_skip(const char *name) { ask(REQUEST_SKIP, name, 0, 0); }

void expect_one(struct phase *phase, uint8_t vector, uint32_t before)
{
    uint32_t more;

    phase->sent++;
    phase->lost += !wait_arrived(vector, before + 1);
    more = arrived(vector) - before;
    phase->doubled += more > 1 ? more - 1 : 0;
}

void expect_none(struct phase *phase, uint8_t vector, uint32_t before) { phase->doubled += arrived(vector) - before; }

void lockstep(struct phase *phase, unsigned first, unsigned count)
{
    ask(REQUEST_LOCKSTEP, "", first, count);
    phase->lost += mailbox()->answer[1];
    phase->doubled += mailbox()->answer[2];
}

void storm_ends(struct phase *phase)
{
    ask(REQUEST_CALM, "", 0, 0);
    phase->lost += mailbox()->answer[1];
    phase->doubled += mailbox()->answer[2];
}
