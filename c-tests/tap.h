/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Test programs that speak TAP. A test is a function named like the sentence it proves; it goes on after a failed
 * expectation, and each failure says what was expected and what came instead. */
#ifndef TAP_H
#define TAP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What stands where the guest would be. A test says on which of these it makes sense and is run once on each. */
enum host {
    ON_KVM   = 1,   /* a real virtual machine: its local APICs say what arrived */
    ON_FAKE  = 2,   /* callbacks that play the kernel: see fake.h */
    ON_MODEL = 4,   /* the library's embedded model of the kernel */
    ANYWHERE = 8,   /* the test brings what it needs; run once, with or without /dev/kvm */
};
#define EVERYWHERE (ON_KVM | ON_FAKE | ON_MODEL)

struct test {
    const char *sentence;
    void (*run)(enum host host);
    unsigned hosts;
};
#define TEST(hosts, function) { #function, function, hosts }
#define TAP_MAIN(tests) tap_main(tests, sizeof(tests) / sizeof((tests)[0]))

/* Runs every test on a thread of its own; the exit status of the program. */
int tap_main(const struct test *tests, size_t n);

/* How many times as long as usual things may take (under valgrind): MSIROUTE_TESTS_SLOWNESS, or 1. */
unsigned tap_slowness(void);

/* Shown under the running test. */
void tap_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Shown with each failure from now on, until the test ends: which turn of a loop this is. "" for none. */
void tap_context(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The running test has failed. Any thread. */
void tap_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* How often it has, so far. */
unsigned tap_failures(void);

/* Each gives back whether it held. */
#define expect(condition) tap_expect(__FILE__, __LINE__, #condition, (condition))
#define expect_eq(got, want) tap_expect_eq(__FILE__, __LINE__, #got, (long long)(got), (long long)(want))
#define expect_ok(call) expect_eq(call, 0)
bool tap_expect(const char *file, int line, const char *what, bool holds);
bool tap_expect_eq(const char *file, int line, const char *what, long long got, long long want);

/* The refused call left its mark: this error, this thread's last error in words (which had none before), errno as it was.
 * Runs `call` on a thread of its own, so that an older text cannot be taken for this one's. */
#define expect_refused(want, call, argument) tap_expect_refused(__FILE__, __LINE__, #call, want, call, argument)
bool tap_expect_refused(const char *file, int line, const char *what, int want, int (*call)(void *), void *argument);

#endif
