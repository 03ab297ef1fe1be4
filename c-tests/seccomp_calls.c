/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/membarrier.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "seccomp.h"
#include "tap.h"

/* ---- names ---- */

static const struct { const char *name; int number, place; } numbers[] = {
    { "brk", SYS_brk, -1 },
    { "clock_nanosleep", SYS_clock_nanosleep, -1 },
    { "clone3", SYS_clone3, -1 },
    { "close", SYS_close, -1 },
    { "dup3", SYS_dup3, -1 },
    { "epoll_create1", SYS_epoll_create1, -1 },
    { "epoll_ctl", SYS_epoll_ctl, -1 },
    { "epoll_wait", SYS_epoll_wait, -1 },
    { "eventfd2", SYS_eventfd2, -1 },
    { "exit", SYS_exit, -1 },
    { "fcntl", SYS_fcntl, 1 },
    { "futex", SYS_futex, -1 },
    { "getrandom", SYS_getrandom, -1 },
    { "ioctl", SYS_ioctl, 1 },
    { "madvise", SYS_madvise, -1 },
    { "membarrier", SYS_membarrier, 0 },
    { "mmap", SYS_mmap, -1 },
    { "mprotect", SYS_mprotect, -1 },
    { "mremap", SYS_mremap, -1 },
    { "munmap", SYS_munmap, -1 },
    { "openat", SYS_openat, -1 },
    { "poll", SYS_poll, -1 },
    { "prctl", SYS_prctl, 0 },
    { "preadv2", SYS_preadv2, -1 },
    { "read", SYS_read, -1 },
    { "rseq", SYS_rseq, -1 },
    { "rt_sigprocmask", SYS_rt_sigprocmask, -1 },
    { "sched_yield", SYS_sched_yield, -1 },
    { "set_robust_list", SYS_set_robust_list, -1 },
    { "write", SYS_write, -1 },
};

#define ARGUMENT(name) { #name, (uint32_t)name }
static const struct { const char *name; uint32_t value; } arguments[] = {
    ARGUMENT(F_DUPFD_CLOEXEC),
    ARGUMENT(F_GETFD),
    ARGUMENT(KVM_CHECK_EXTENSION),
    ARGUMENT(KVM_GET_API_VERSION),
    ARGUMENT(KVM_GET_IRQCHIP),
    ARGUMENT(KVM_GET_VCPU_MMAP_SIZE),
    ARGUMENT(KVM_IRQFD),
    ARGUMENT(KVM_IRQ_LINE_STATUS),
    ARGUMENT(KVM_SET_GSI_ROUTING),
    ARGUMENT(KVM_SIGNAL_MSI),
    ARGUMENT(MEMBARRIER_CMD_PRIVATE_EXPEDITED),
    ARGUMENT(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED),
    ARGUMENT(PR_SET_NAME),
};
#define N(array) (sizeof(array) / sizeof((array)[0]))

/* ---- the file ---- */

#define MAX_PHASES 24
static struct phase {
    char name[16], also[4][16];
    struct call_list calls;
} phases[MAX_PHASES];
static size_t n_phases;

static bool add_call(struct phase *phase, const char *name, const char *argument, const char *when)
{
    struct system_call call = { .place = -1 };
    size_t i, a = 0;
    for (i = 0; i < N(numbers) && strcmp(numbers[i].name, name); i++)
        ;
    if (i == N(numbers) || phase->calls.n == MAX_CALLS)
        return false;
    call.number = numbers[i].number;
    if (strcmp(argument, "-")) {
        for (a = 0; a < N(arguments) && strcmp(arguments[a].name, argument); a++)
            ;
        if (a == N(arguments) || numbers[i].place < 0)
            return false;
        call.place = numbers[i].place;
        call.argument = arguments[a].value;
    }
    snprintf(call.text, sizeof(call.text), "%s %s", name, argument);
    snprintf(call.when, sizeof(call.when), "%s", when);
    phase->calls.calls[phase->calls.n++] = call;
    return true;
}

static bool read_line(char *line)
{
    struct phase *phase = n_phases ? &phases[n_phases - 1] : NULL;
    char name[32], argument[48], when[16];
    line[strcspn(line, "\n")] = 0;
    if (!*line || *line == '#' || !strncmp(line, "when ", 5) || !strncmp(line, "of ", 3))
        return true;
    if (!strncmp(line, "phase ", 6))
        return n_phases < MAX_PHASES && sscanf(line, "phase %15s", phases[n_phases++].name) == 1;
    if (!phase)
        return false;
    if (!strncmp(line, "also ", 5))
        return sscanf(line + 5, "%15s %15s %15s %15s", phase->also[0], phase->also[1], phase->also[2], phase->also[3]) > 0;
    return sscanf(line, "%31s %47s %15s", name, argument, when) == 3 && add_call(phase, name, argument, when);
}

bool calls_read(const char *path)
{
    FILE *file = path ? fopen(path, "re") : NULL;
    char line[512];
    bool good = file;
    while (good && fgets(line, sizeof(line), file)) {
        good = read_line(line);
        if (!good)
            tap_note("%s: %s?", path, line);
    }
    if (file)
        fclose(file);
    return good && n_phases;
}

bool calls_of(const char *name, bool along, struct call_list *list)
{
    for (size_t p = 0; p < n_phases; p++) {
        const struct phase *phase = &phases[p];
        if (strcmp(phase->name, name))
            continue;
        for (size_t i = 0; i < phase->calls.n && list->n < MAX_CALLS; i++)
            list->calls[list->n++] = phase->calls.calls[i];
        for (size_t i = 0; along && i < N(phase->also) && phase->also[i][0]; i++)
            if (!calls_of(phase->also[i], true, list))
                return false;
        return list->n < MAX_CALLS;
    }
    return false;
}

size_t calls_phases(const char *names[], size_t room)
{
    for (size_t i = 0; i < n_phases && i < room; i++)
        names[i] = phases[i].name;
    return n_phases;
}

/* ---- the filter ---- */

struct seccomp_hit *seccomp_hit;

static void on_refused_call(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    seccomp_hit->number = info->si_syscall;
#ifdef __x86_64__
    const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    seccomp_hit->arguments[0] = (unsigned long)registers[REG_RDI];
    seccomp_hit->arguments[1] = (unsigned long)registers[REG_RSI];
    seccomp_hit->arguments[2] = (unsigned long)registers[REG_RDX];
#endif
    syscall(SYS_exit_group, SECCOMP_EXIT);
}

bool seccomp_prepare(void)
{
    struct sigaction action = { .sa_sigaction = on_refused_call, .sa_flags = SA_SIGINFO };
    if (!seccomp_hit)
        seccomp_hit = mmap(NULL, sizeof(*seccomp_hit), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return seccomp_hit != MAP_FAILED && !sigaction(SIGSYS, &action, NULL);
}

static bool install(struct sock_filter *code, size_t n)
{
    struct sock_fprog program = { (unsigned short)n, code };
    return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

#define LOAD(offset)        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(offset))
#define SKIP_UNLESS(value, skipped) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, skipped)
#define RETURN(value)       BPF_STMT(BPF_RET | BPF_K, value)

bool seccomp_allow(const struct call_list *list)
{
    struct sock_filter code[MAX_CALLS * 5 + 4];
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++) {
        const struct system_call *call = &list->calls[i];
        code[n++] = (struct sock_filter)LOAD(offsetof(struct seccomp_data, nr));
        if (call->place < 0) {
            code[n++] = (struct sock_filter)SKIP_UNLESS(call->number, 1);
        } else {
            code[n++] = (struct sock_filter)SKIP_UNLESS(call->number, 3);
            code[n++] = (struct sock_filter)LOAD(offsetof(struct seccomp_data, args) + 8 * (size_t)call->place);
            code[n++] = (struct sock_filter)SKIP_UNLESS(call->argument, 1);
        }
        code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
    }
    code[n++] = (struct sock_filter)LOAD(offsetof(struct seccomp_data, nr));
    code[n++] = (struct sock_filter)SKIP_UNLESS(SYS_exit_group, 1);
    code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_TRAP);
    return install(code, n);
}

bool seccomp_refuse_membarrier(int error)
{
    struct sock_filter code[] = {
        LOAD(offsetof(struct seccomp_data, nr)),
        SKIP_UNLESS(SYS_membarrier, 1),
        RETURN(SECCOMP_RET_ERRNO | (uint32_t)error),
        RETURN(SECCOMP_RET_ALLOW),
    };
    return install(code, N(code));
}
