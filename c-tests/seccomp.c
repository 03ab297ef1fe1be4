/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What msiroute-seccomp(7) says is so: each phase runs under a filter of its system calls alone, and with any of them taken out
 * some run of it ends by SIGSYS. Each run is a process of its own, in which one thread has the filter. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "seccomp.h"
#include "seccomp_scenarios.h"

/* ---- a run ---- */

static bool is_made(const struct system_call *call, const struct scenario *s, enum barrier barrier)
{
    const char *when = call->when;
    bool direct = !(s->config.cache_flags & MSIROUTE_CACHE_NO_DIRECT);
    return !strcmp(when, "-") || !strcmp(when, "may") || (s->with && !strcmp(when, s->with))
        || !strcmp(when, direct ? "direct" : "routes") || (!strcmp(when, "asked") && barrier != BY_FENCES)
        || (!strcmp(when, "barrier") && barrier == BY_MEMBARRIER)
        || (!strcmp(when, "helpers") && s->config.cache_flags & MSIROUTE_CACHE_HELPER_THREADS);
}

static bool is_same_call(const struct system_call *a, const struct system_call *b)
{
    return a->number == b->number && a->place == b->place && a->argument == b->argument;
}

static bool filter_of(const struct scenario *s, enum barrier barrier, const struct system_call *without, struct call_list *filter)
{
    struct call_list all = { 0 };
    if (!calls_of(s->filter, true, &all))
        return false;
    for (size_t i = 0; i < all.n; i++)
        if (is_made(&all.calls[i], s, barrier) && !(without && is_same_call(&all.calls[i], without)))
            filter->calls[filter->n++] = all.calls[i];
    return true;
}

struct act {
    const struct scenario *scenario;
    struct scene *scene;
    const struct call_list *filter;
    atomic_int result;
};
#define RUNS (-1)

static void *act_under_filter(void *opaque)
{
    struct act *act = opaque;
    if (act->scenario->warm_up)
        act->scenario->warm_up(act->scene);
    int result = seccomp_allow(act->filter) ? act->scenario->act(act->scene) : __LINE__;
    atomic_store(&act->result, result);
    for (;;)    /* what it would take to end is not the library's */
        __asm__ volatile("pause");
    return NULL;
}

static bool open_scene(const struct scenario *s, struct scene *scene)
{
    if (!s->no_cache)
        return rig_open(&scene->rig, s->host ? s->host : ON_KVM, &s->config);
    scene->rig = (struct rig){ .host = ON_KVM, .cpus = 2 };
    return vm_open(&scene->rig.vm, FULL_IRQCHIP) && vm_add_cpu(&scene->rig.vm, 0) && vm_add_cpu(&scene->rig.vm, 1);
}

/* The child's life: 0 if all went well. */
static int live(const struct scenario *s, enum barrier barrier, const struct call_list *filter)
{
    static struct scene scene;
    struct act act = { s, &scene, filter, RUNS };
    pthread_t thread;
    unsigned failures = tap_failures();
    scene.barrier = barrier;
    rig_flags = barrier == BY_FENCES ? MSIROUTE_CACHE_FENCES : 0;
    if (!seccomp_prepare() || (barrier == BY_REFUSAL && !seccomp_refuse_membarrier(EPERM)) || !open_scene(s, &scene))
        return 1;
    if (s->prepare)
        s->prepare(&scene);
    if (pthread_create(&thread, NULL, act_under_filter, &act))
        return 1;
    if (s->meanwhile)
        s->meanwhile(&scene);
    int result;
    while ((result = atomic_load(&act.result)) == RUNS)
        nap_ms(1);
    if (result)
        tap_note("%s: line %d: %s", s->sentence, result, msi_route_cache_last_error());
    if (s->check)
        expect(s->check(&scene));
    return result || tap_failures() != failures;
}

enum end { WELL, BADLY, BY_SIGSYS };
static enum end run(const struct scenario *s, enum barrier barrier, const struct call_list *filter)
{
    int status = -1;
    seccomp_hit->number = -1;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(live(s, barrier, filter));
    waitpid(child, &status, 0);
    if (status == 0)
        return WELL;
    /* In a thread that has all signals blocked there is no handler to tell of it. */
    return (WIFEXITED(status) && WEXITSTATUS(status) == SECCOMP_EXIT) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) ? BY_SIGSYS : BADLY;
}

/* ---- tests ---- */

static void run_all(enum barrier barrier)
{
    for (size_t i = 0; i < n_scenarios; i++) {
        struct call_list filter = { 0 };
        if (!expect(filter_of(&scenarios[i], barrier, NULL, &filter)))
            return;
        enum end end = run(&scenarios[i], barrier, &filter);
        if (end == BY_SIGSYS)
            tap_fail(__FILE__, __LINE__, "%s: made system call %d (%#lx, %#lx, %#lx), which phase %s does not list", scenarios[i].sentence,
                     seccomp_hit->number, seccomp_hit->arguments[0], seccomp_hit->arguments[1], seccomp_hit->arguments[2], scenarios[i].filter);
        else if (end != WELL)
            tap_fail(__FILE__, __LINE__, "%s: went wrong", scenarios[i].sentence);
    }
}

static void every_phase_runs_with_its_system_calls_alone(enum host host)
{
    (void)host;
    run_all(BY_MEMBARRIER);
}

static void every_phase_runs_so_with_fences(enum host host)
{
    (void)host;
    run_all(BY_FENCES);
}

static void every_phase_runs_so_where_membarrier_is_refused(enum host host)
{
    (void)host;
    run_all(BY_REFUSAL);
}

static bool is_needed(const struct system_call *call, const char *phase)
{
    /* More than once: a busy machine may end a wait before it begins. */
    for (size_t i = 0; i < 3 * n_scenarios; i++) {
        const struct scenario *s = &scenarios[i % n_scenarios];
        struct call_list filter = { 0 };
        if (strcmp(s->proves ? s->proves : s->filter, phase) || !is_made(call, s, BY_MEMBARRIER))
            continue;
        if (filter_of(s, BY_MEMBARRIER, call, &filter) && run(s, BY_MEMBARRIER, &filter) == BY_SIGSYS)
            return true;
    }
    return false;
}

static void every_system_call_that_is_listed_is_needed(enum host host)
{
    const char *phases[32];
    size_t n = calls_phases(phases, 32);
    (void)host;
    for (size_t p = 0; p < n; p++) {
        struct call_list list = { 0 };
        expect(calls_of(phases[p], false, &list));
        for (size_t i = 0; i < list.n; i++)
            if (strcmp(list.calls[i].when, "may") && !is_needed(&list.calls[i], phases[p]))
                tap_fail(__FILE__, __LINE__, "phase %s lists %s, and runs without", phases[p], list.calls[i].text);
    }
}

/* valgrind and sanitizers make system calls of their own. */
static bool is_watched(void)
{
    const char *preloaded = getenv("LD_PRELOAD");
#ifdef __SANITIZE_ADDRESS__
    return true;
#endif
    return preloaded && strstr(preloaded, "valgrind");
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(ON_KVM, every_phase_runs_with_its_system_calls_alone),
        TEST(ON_KVM, every_phase_runs_so_with_fences),
        TEST(ON_KVM, every_phase_runs_so_where_membarrier_is_refused),
        TEST(ON_KVM, every_system_call_that_is_listed_is_needed),
    };
    if (is_watched()) {
        printf("1..0 # SKIP valgrind or a sanitizer makes system calls of its own\n");
        return 0;
    }
    if (!calls_read(argc > 1 ? argv[1] : NULL) || !seccomp_prepare())
        return 1;
    return TAP_MAIN(tests);
}
