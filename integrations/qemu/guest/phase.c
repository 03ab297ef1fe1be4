/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "phase.h"
#include "apic.h"
#include "panic.h"

void ask(enum request request, const char *name)
{
    volatile struct mailbox *box = mailbox();
    uint32_t number = box->asked + 1;

    for (unsigned i = 0; i < sizeof(box->name); i++) {
        box->name[i] = *name;
        name += *name != 0;
    }
    box->request = request;
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
    ask(REQUEST_BEGIN, name);
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
    ask(REQUEST_END, "");
}

void phase_skip(const char *name) { ask(REQUEST_SKIP, name); }

void expect_one(struct phase *phase, uint8_t vector, uint32_t before)
{
    uint32_t more;

    phase->sent++;
    phase->lost += !wait_arrived(vector, before + 1);
    more = arrived(vector) - before;
    phase->doubled += more > 1 ? more - 1 : 0;
}

void expect_none(struct phase *phase, uint8_t vector, uint32_t before) { phase->doubled += arrived(vector) - before; }

static void ask_for(enum request request, unsigned first, unsigned count, unsigned times)
{
    volatile struct mailbox *box = mailbox();

    box->argument[0] = first;
    box->argument[1] = count;
    box->argument[2] = times;
    ask(request, "");
}

void signal(unsigned first, unsigned count) { ask_for(REQUEST_SEND, first, count, 1); }

void lockstep(struct phase *phase, unsigned first, unsigned count, unsigned times)
{
    ask_for(REQUEST_LOCKSTEP, first, count, times);
    phase->lost += mailbox()->answer[1];
    phase->doubled += mailbox()->answer[2];
}

void storm_begins(unsigned count) { ask_for(REQUEST_STORM, 0, count, 1); }

void storm_ends(struct phase *phase)
{
    ask(REQUEST_CALM, "");
    phase->lost += mailbox()->answer[1];
    phase->doubled += mailbox()->answer[2];
}
