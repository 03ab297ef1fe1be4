/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "kvm.h"
#include "msiroute.h"
#include "tap.h"

#define SECONDS_PER_TEST (60 * tap_slowness())
#define NOTES_PER_TEST   12 /* a test that fails in a loop need not say so a million times */

static atomic_uint failures, notes;
static char context[128];

unsigned tap_slowness(void)
{
    const char *times = getenv("MSIROUTE_TESTS_SLOWNESS");
    unsigned long n = times ? strtoul(times, NULL, 10) : 1;
    return n >= 1 && n <= 100 ? (unsigned)n : 1;
}

static void say(const char *format, va_list arguments)
{
    char line[1024];
    vsnprintf(line, sizeof(line), format, arguments);
    if (atomic_fetch_add(&notes, 1) < NOTES_PER_TEST)
        printf("# %s\n", line);
}

void tap_note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
}

void tap_context(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context, sizeof(context), format, arguments);
    va_end(arguments);
}

void tap_fail(const char *file, int line, const char *format, ...)
{
    const char *name = strrchr(file, '/');
    char text[900];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    atomic_fetch_add(&failures, 1);
    tap_note("%s:%d: %s%s%s%s", name ? name + 1 : file, line, text, context[0] ? " [" : "", context, context[0] ? "]" : "");
}

unsigned tap_failures(void) { return atomic_load(&failures); }

bool tap_expect(const char *file, int line, const char *what, bool holds)
{
    if (!holds)
        tap_fail(file, line, "expected: %s (last error: \"%s\")", what, msi_route_cache_last_error());
    return holds;
}

bool tap_expect_eq(const char *file, int line, const char *what, long long got, long long want)
{
    if (got != want)
        tap_fail(file, line, "%s: expected %lld, got %lld (last error: \"%s\")", what, want, got, msi_route_cache_last_error());
    return got == want;
}

struct refusal {
    int (*call)(void *);
    void *argument;
    int result, errno_after;
    char text_before[8], text_after[256];
};
#define ERRNO_BEFORE 4711

static void *make_refused_call(void *opaque)
{
    struct refusal *r = opaque;
    snprintf(r->text_before, sizeof(r->text_before), "%s", msi_route_cache_last_error());
    errno = ERRNO_BEFORE;
    r->result = r->call(r->argument);
    r->errno_after = errno;
    snprintf(r->text_after, sizeof(r->text_after), "%s", msi_route_cache_last_error());
    return NULL;
}

bool tap_expect_refused(const char *file, int line, const char *what, int want, int (*call)(void *), void *argument)
{
    struct refusal r = { .call = call, .argument = argument };
    pthread_t thread;
    if (pthread_create(&thread, NULL, make_refused_call, &r)) {
        tap_fail(file, line, "%s: no thread", what);
        return false;
    }
    pthread_join(thread, NULL);
    bool good = true;
    if (r.result != want)
        good = false, tap_fail(file, line, "%s: expected %d (%s), got %d (\"%s\")", what, want, strerror(-want), r.result, r.text_after);
    if (r.errno_after != ERRNO_BEFORE)
        good = false, tap_fail(file, line, "%s: errno became %d", what, r.errno_after);
    if (r.text_before[0])
        good = false, tap_fail(file, line, "%s: a new thread already had the last error \"%s...\"", what, r.text_before);
    if (!r.text_after[0])
        good = false, tap_fail(file, line, "%s: no last error in words", what);
    return good;
}

static const char *suffix(enum host host)
{
    switch (host) {
    case ON_KVM:   return " (KVM)";
    case ON_FAKE:  return " (fake kernel)";
    case ON_MODEL: return " (model)";
    default:       return "";
    }
}

static void name_of(const struct test *test, enum host host, char *name, size_t size)
{
    snprintf(name, size, "%s%s", test->sentence, suffix(host));
    for (char *c = name; *c; c++)
        if (*c == '_')
            *c = ' ';
}

struct running {
    const struct test *test;
    enum host host;
};

static void *run_test(void *opaque)
{
    const struct running *running = opaque;
    running->test->run(running->host);
    return NULL;
}

/* False: it is still running. */
static bool run_to_its_end(const struct test *test, enum host host)
{
    struct running running = { test, host };
    struct timespec deadline;
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_test, &running)) {
        tap_fail(__FILE__, __LINE__, "no thread for the test");
        return true;
    }
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += SECONDS_PER_TEST;
    return pthread_timedjoin_np(thread, NULL, &deadline) == 0;
}

static void allow_many_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int tap_main(const struct test *tests, size_t n)
{
    static const enum host hosts[] = { ON_KVM, ON_FAKE, ON_MODEL, ANYWHERE };
    const size_t kinds = sizeof(hosts) / sizeof(hosts[0]);
    unsigned planned = 0, number = 0, failed = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    allow_many_descriptors();
    for (size_t i = 0; i < n; i++)
        planned += (unsigned)__builtin_popcount(tests[i].hosts);
    printf("1..%u\n", planned);

    for (size_t i = 0; i < n; i++) {
        for (size_t h = 0; h < kinds; h++) {
            char name[256];
            if (!(tests[i].hosts & hosts[h]))
                continue;
            name_of(&tests[i], hosts[h], name, sizeof(name));
            number++;
            if (hosts[h] == ON_KVM && !have_kvm()) {
                printf("ok %u - %s # SKIP no /dev/kvm\n", number, name);
                continue;
            }
            atomic_store(&failures, 0);
            atomic_store(&notes, 0);
            context[0] = 0;
            if (!run_to_its_end(&tests[i], hosts[h])) {
                printf("not ok %u - %s\n# still running after %u s; nothing after it is run\n", number, name, SECONDS_PER_TEST);
                fflush(stdout);
                _exit(1);
            }
            if (atomic_load(&failures)) {
                failed++;
                printf("not ok %u - %s\n", number, name);
            } else {
                printf("ok %u - %s\n", number, name);
            }
        }
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
