/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "sources.h"

struct worker {
    struct guest_queue *queue;
    int done_fd;
    int interrupt_fd;               /* -1: by msi_deliver, of the two below */
    struct msi_device *msi;
    unsigned vector;
    pthread_rwlock_t *neighbours;   /* those of the same vector; NULL: none */
    struct tally *tally;
    uint32_t *nanoseconds;          /* NULL: not timed */
    uint32_t events;
    pthread_t thread;
    pid_t process;
};

static struct scoreboard *scoreboard;
static int scoreboard_fd;

/* ---- work: the same in a thread and in a process ---------------------------------------------------------------- */

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void interrupt_guest(struct worker *worker)
{
    if (worker->interrupt_fd >= 0) {
        if (eventfd_write(worker->interrupt_fd, 1))
            fail_errno("writing an eventfd");
        return;
    }
    switch (MUST(msi_deliver(worker->msi, worker->vector))) {
    case MSIROUTE_SENT:
    case MSIROUTE_PENDING: /* the guest has masked the vector, and gets it when it unmasks */
        return;
    default:
        fail("msi_deliver: not accepted by the guest");
    }
}

static void await_guest(struct worker *worker, uint32_t used)
{
    eventfd_t count;

    do
        if (eventfd_read(worker->done_fd, &count) && errno != EINTR)
            fail_errno("reading a doorbell");
    while (__atomic_load_n(&worker->queue->seen, __ATOMIC_ACQUIRE) != used);
}

static void raise_event(struct worker *worker)
{
    uint32_t used = worker->queue->used + 1;
    uint64_t start = now_ns();

    __atomic_store_n(&worker->queue->used, used, __ATOMIC_RELEASE);
    __atomic_store_n(&worker->tally->sent, worker->tally->sent + 1, __ATOMIC_RELAXED);
    interrupt_guest(worker);
    await_guest(worker, used);
    if (worker->nanoseconds)
        worker->nanoseconds[worker->tally->timed++] = now_ns() - start;
}

/*
 * Queues that share a vector race for every other event: one interrupt may then serve both. The events between are sent
 * with nothing else on the vector, so that a lost interrupt cannot hide behind a neighbour's.
 */
static void work(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->events; i++) {
        if (!worker->neighbours) {
            raise_event(worker);
            continue;
        }
        if (i % 2)
            pthread_rwlock_wrlock(worker->neighbours);
        else
            pthread_rwlock_rdlock(worker->neighbours);
        raise_event(worker);
        pthread_rwlock_unlock(worker->neighbours);
    }
}

/* ---- worker processes: this program again, with guest memory and eventfds inherited ---------------------------- */

enum {
    ARG_PROGRAM, ARG_OPTION, ARG_RAM, ARG_SCOREBOARD, ARG_INTERRUPT, ARG_DONE, ARG_MACHINE, ARG_DEVICE, ARG_QUEUE,
    ARG_EVENTS, ARG_TIMED, NR_ARGS
};

static void *map_whole(int fd)
{
    off_t size = lseek(fd, 0, SEEK_END);
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (memory == MAP_FAILED)
        fail_errno("mapping shared memory");
    return memory;
}

int worker_process(char **argv)
{
    unsigned arg[NR_ARGS] = { 0 };
    struct guest_shared *shared;
    struct worker worker = { 0 };

    for (int i = ARG_RAM; i < NR_ARGS; i++) {
        if (!argv[i])
            fail("%s is for the program's own use", WORKER_OPTION);
        arg[i] = strtoul(argv[i], NULL, 10);
    }
    shared = (struct guest_shared *)((uint8_t *)map_whole(arg[ARG_RAM]) + SHARED_PAGE);
    scoreboard = map_whole(arg[ARG_SCOREBOARD]);
    worker.queue = &shared->queues[arg[ARG_DEVICE]][arg[ARG_QUEUE]];
    worker.interrupt_fd = arg[ARG_INTERRUPT];
    worker.done_fd = arg[ARG_DONE];
    worker.tally = &scoreboard->tallies[arg[ARG_MACHINE]][arg[ARG_DEVICE]][arg[ARG_QUEUE]];
    if (arg[ARG_TIMED])
        worker.nanoseconds = scoreboard_times(scoreboard, arg[ARG_MACHINE], arg[ARG_DEVICE], arg[ARG_QUEUE]);
    worker.events = arg[ARG_EVENTS];
    work(&worker);
    return 0;
}

static void start_process(struct worker *worker, int ram_fd, unsigned machine, unsigned d, unsigned q)
{
    const int fds[] = { ram_fd, scoreboard_fd, worker->interrupt_fd, worker->done_fd };
    const unsigned values[] = { fds[0], fds[1], fds[2], fds[3], machine, d, q, worker->events, !!worker->nanoseconds };
    char text[NR_ARGS][16], *argv[NR_ARGS + 1] = { "minivm-worker", WORKER_OPTION };
    pid_t parent = getpid();

    for (int i = ARG_RAM; i < NR_ARGS; i++) {
        snprintf(text[i], sizeof(text[i]), "%u", values[i - ARG_RAM]);
        argv[i] = text[i];
    }
    worker->process = fork();
    if (worker->process < 0)
        fail_errno("fork");
    if (worker->process > 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    for (int i = 0; i < 4; i++)
        fcntl(fds[i], F_SETFD, 0); /* all others are closed by exec */
    execv("/proc/self/exe", argv);
    _exit(127);
}

/* ---- rounds ---------------------------------------------------------------------------------------------------- */

static void *run_thread(void *argument)
{
    work(argument);
    return NULL;
}

static void start_worker(struct worker *worker, struct vm *vm, unsigned machine, unsigned d, unsigned q, bool timed)
{
    struct device *dev = &vm->devices[d];

    worker->queue = &vm->shared->queues[d][q];
    worker->done_fd = dev->queues[q].done_fd;
    worker->interrupt_fd = dev->queues[q].interrupt_fd;
    worker->msi = dev->msi;
    worker->vector = q % NR_VECTORS;
    worker->tally = &scoreboard->tallies[machine][d][q];
    worker->nanoseconds = timed ? scoreboard_times(scoreboard, machine, d, q) : NULL;
    if (dev->type->own_process)
        start_process(worker, vm->ram_fd, machine, d, q);
    else
        start_thread(&worker->thread, run_thread, worker);
}

static void join_worker(struct worker *worker)
{
    int status;

    if (!worker->process) {
        pthread_join(worker->thread, NULL);
        return;
    }
    while (waitpid(worker->process, &status, 0) < 0)
        if (errno != EINTR)
            fail_errno("waiting for a device process");
    if (status)
        fail("a device process ended with status %#x", status);
}

void sources_run(struct vm *vm, unsigned machine, unsigned first, unsigned last, uint32_t events, bool timed)
{
    struct worker workers[NR_DEVICES][MAX_QUEUES] = { 0 };
    pthread_rwlock_t neighbours[NR_VECTORS];

    for (unsigned v = 0; v < NR_VECTORS; v++)
        pthread_rwlock_init(&neighbours[v], NULL);
    for (unsigned d = first; d <= last; d++)
        for (unsigned q = 0; q < device_types[d].queues; q++) {
            workers[d][q].events = events;
            if (d == SHARED)
                workers[d][q].neighbours = &neighbours[q % NR_VECTORS];
            start_worker(&workers[d][q], vm, machine, d, q, timed);
        }
    for (unsigned d = first; d <= last; d++)
        for (unsigned q = 0; q < device_types[d].queues; q++)
            join_worker(&workers[d][q]);
    for (unsigned v = 0; v < NR_VECTORS; v++)
        pthread_rwlock_destroy(&neighbours[v]);
}

/* ---- scoreboard ------------------------------------------------------------------------------------------------- */

struct scoreboard *scoreboard_create(uint32_t room)
{
    size_t queues = NR_MACHINES * NR_DEVICES * MAX_QUEUES;

    scoreboard_fd = memfd_create("scoreboard", MFD_CLOEXEC);
    if (scoreboard_fd < 0 || ftruncate(scoreboard_fd, sizeof(*scoreboard) + queues * room * sizeof(uint32_t)))
        fail_errno("scoreboard");
    scoreboard = map_whole(scoreboard_fd);
    scoreboard->room = room;
    return scoreboard;
}

uint32_t *scoreboard_times(struct scoreboard *board, unsigned machine, unsigned d, unsigned q)
{
    return board->nanoseconds + (size_t)((machine * NR_DEVICES + d) * MAX_QUEUES + q) * board->room;
}
