/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* System calls by phase, as man/source/system-calls says, and a filter that lets them alone pass. */
#ifndef TEST_SECCOMP_H
#define TEST_SECCOMP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct system_call {
    char text[80];          /* as the file has it */
    int number;
    int place;              /* of the argument that tells it from others of this number; -1: none does */
    uint32_t argument;
    char when[16];          /* "-" or a condition */
};

#define MAX_CALLS 96
struct call_list {
    size_t n;
    struct system_call calls[MAX_CALLS];
};

bool calls_read(const char *path);
/* Of the phase alone, or with what it takes along. */
bool calls_of(const char *phase, bool along, struct call_list *list);
size_t calls_phases(const char *names[], size_t room);      /* all there are, in the file's order */

struct seccomp_hit {        /* shared by parent and child */
    volatile int number;    /* -1: none */
    volatile unsigned long arguments[6];
};
extern struct seccomp_hit *seccomp_hit;
#define SECCOMP_EXIT 86     /* the status of a process that made another call, which is in `seccomp_hit` then */

bool seccomp_prepare(void);
/* This thread, and what it starts, may make these calls and exit_group(2); any other ends the process. */
bool seccomp_allow(const struct call_list *list);
/* From now on membarrier(2) fails for this thread, and what it starts. */
bool seccomp_refuse_membarrier(int error);

#endif
