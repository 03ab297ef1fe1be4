/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "calls.h"

/* The fourth argument, which ioctl does not have, tells our system calls from others'. */
#define MARK 0x6D736972u

/* As libc's syscall, but it leaves no mark in the register for whoever makes the next system call; a negative errno. */
static long marked_ioctl(long fd, unsigned long request, void *argument)
{
    register long mark __asm__("r10") = MARK;
    long result = SYS_ioctl;
    __asm__ volatile("syscall\n\txor %%r10d, %%r10d"
                     : "+a"(result), "+r"(mark) : "D"(fd), "S"(request), "d"(argument) : "rcx", "r11", "cc", "memory");
    return result;
}

static _Atomic uint64_t counts[CALLS];
static void (*_Atomic hooks[CALLS])(void);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kvm_irq_routing_entry table[4096];
static size_t entries;
static struct { enum call call; unsigned at; int error; bool lasts, struck; } fault;
static uint32_t poison;

/* ---- what is asked ---- */

static bool is_unbind(const struct kvm_irqfd *irqfd) { return irqfd->flags & KVM_IRQFD_FLAG_DEASSIGN; }

static enum call kind_of(unsigned long request, const void *argument)
{
    switch ((uint32_t)request) {
    case KVM_SET_GSI_ROUTING: return CALL_WRITE;
    case KVM_IRQFD:           return is_unbind(argument) ? CALL_UNBIND : CALL_BIND;
    case KVM_SIGNAL_MSI:      return CALL_SIGNAL;
    case KVM_IRQ_LINE:
    case KVM_IRQ_LINE_STATUS: return CALL_LINE;
    default:                  return CALLS;
    }
}

static void note(enum call call)
{
    void (*inside)(void) = atomic_load(&hooks[call]);
    atomic_fetch_add(&counts[call], 1);
    if (inside)
        inside();
}

static bool is_poisoned(const struct kvm_irq_routing *routing)
{
    for (uint32_t i = 0; poison && i < routing->nr; i++)
        if (routing->entries[i].type == KVM_IRQ_ROUTING_MSI && routing->entries[i].u.msi.data == poison)
            return true;
    return false;
}

/* The errno with which the call is refused, or 0. */
static int refusal(enum call call, const void *argument)
{
    int error = 0;
    pthread_mutex_lock(&lock);
    if (fault.error && fault.call == call) {
        if (fault.at > 1) {
            fault.at--;
        } else if (fault.lasts || !fault.struck) {
            fault.struck = true;
            error = fault.error;
        }
    }
    if (call == CALL_WRITE && is_poisoned(argument)) {
        fault.struck = true;
        error = EINVAL;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

static void remember(const struct kvm_irq_routing *routing)
{
    pthread_mutex_lock(&lock);
    entries = routing->nr < 4096 ? routing->nr : 4096;
    memcpy(table, routing->entries, entries * sizeof(table[0]));
    pthread_mutex_unlock(&lock);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    enum call call = kind_of(request, argument);
    int error = 0;
    if (call != CALLS) {
        note(call);
        error = refusal(call, argument);
    }
    long result = error ? -error : marked_ioctl(fd, request, argument);
    if (result < 0) {
        errno = (int)-result;
        return -1;
    }
    if (call == CALL_WRITE)
        remember(argument);
    return (int)result;
}

/* ---- what was asked ---- */

uint64_t calls(enum call call) { return atomic_load(&counts[call]); }

size_t table_entries(void)
{
    pthread_mutex_lock(&lock);
    size_t n = entries;
    pthread_mutex_unlock(&lock);
    return n;
}

size_t table_entries_of_type(uint32_t type)
{
    size_t n = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < entries; i++)
        n += table[i].type == type;
    pthread_mutex_unlock(&lock);
    return n;
}

bool table_has(uint32_t gsi, uint64_t address, uint32_t data)
{
    bool has = false;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < entries; i++)
        has |= (gsi == ANY_GSI || table[i].gsi == gsi) && table[i].type == KVM_IRQ_ROUTING_MSI
            && table[i].u.msi.address_lo == (uint32_t)address && table[i].u.msi.data == data;
    pthread_mutex_unlock(&lock);
    return has;
}

/* ---- refusing, holding up ---- */

void calls_fail(enum call call, unsigned at, int error, bool lasts)
{
    pthread_mutex_lock(&lock);
    fault.call = call;
    fault.at = at;
    fault.error = error;
    fault.lasts = lasts;
    fault.struck = false;
    pthread_mutex_unlock(&lock);
}

void refuse_data(uint32_t data)
{
    pthread_mutex_lock(&lock);
    poison = data;
    fault.struck = false;
    pthread_mutex_unlock(&lock);
}

bool calls_heal(void)
{
    pthread_mutex_lock(&lock);
    bool struck = fault.struck;
    memset(&fault, 0, sizeof(fault));
    poison = 0;
    pthread_mutex_unlock(&lock);
    return struck;
}

void calls_inside(enum call call, void (*inside)(void)) { atomic_store(&hooks[call], inside); }

/* ---- filters ---- */

static bool put_filter(struct sock_filter *code, size_t n)
{
    struct sock_fprog program = { (unsigned short)n, code };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* An ioctl without our mark whose request is one of three gets this verdict. */
static bool meet_unmarked(uint32_t first, uint32_t second, uint32_t third, uint32_t verdict)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 6),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MARK, 4, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, first, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, second, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, third, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, verdict),
    };
    return put_filter(code, sizeof(code) / sizeof(code[0]));
}

bool calls_not_past_us(void)
{
    return meet_unmarked(KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_IRQFD, SECCOMP_RET_ERRNO | ENOTUNIQ);
}

/* Makes the call that was stopped, and leaves the interrupted code its result: all but rax as the kernel leaves it. */
static void make_stopped_call(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned long request = (unsigned long)registers[REG_RSI];
    void *argument = (void *)registers[REG_RDX];
    int saved = errno;
    (void)signal, (void)info;
    note(kind_of(request, argument));
    registers[REG_RAX] = marked_ioctl(registers[REG_RDI], request, argument);
    errno = saved;
}

bool calls_in_place(void)
{
    struct sigaction action = { .sa_sigaction = make_stopped_call, .sa_flags = SA_SIGINFO | SA_NODEFER };
    return sigaction(SIGSYS, &action, NULL) == 0
        && meet_unmarked(KVM_SIGNAL_MSI, KVM_IRQ_LINE, KVM_IRQ_LINE_STATUS, SECCOMP_RET_TRAP);
}
