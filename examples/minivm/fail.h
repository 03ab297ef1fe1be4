/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Errors end the program: it is a demo that demands that all goes well. From any thread. */
#ifndef FAIL_H
#define FAIL_H
#include <pthread.h>

__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);
__attribute__((noreturn)) void fail_errno(const char *what);

/* Passes on what a msi_* function returned; a negative errno fails with the library's own words for it. */
int must(int result, const char *call);
#define MUST(call) must((call), #call)

void start_thread(pthread_t *thread, void *(*run)(void *argument), void *argument);

#endif
