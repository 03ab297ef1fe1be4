/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A small virtual machine monitor whose devices' interrupts all go through libmsiroute, and a guest that counts them.
 * It runs the machine three times: with KVM_SIGNAL_MSI; as if the host had none; and with a relay, because the kernel's
 * table has no room for all the messages of its eventfds.
 *
 *     guest_abi.h            memory and registers, as guest and VMM agree on them
 *     guest.S guest.c        the guest, on real vCPUs (kvm.c)
 *     driver.h               its device driver, which the stand-in guest without KVM (model.c) runs too
 *     devices.c              the devices: their guest's accesses to MSI-X registers are passed on to msi_device_*
 *     sources.c              who raises interrupts, by msi_deliver or an eventfd, and waits for the guest to answer
 *     vm.c report.c fail.c   the machine from start to stop; the table; errors
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "report.h"

#define DEFAULT_COUNT     4000
#define MAX_COUNT         1000000
#define PATIENCE_SECONDS  10
#define PINS_ENTRIES      40    /* of the kernel's table: two for each of GSIs 0 to 15, one for 16 to 23 */

static struct machine_run runs[NR_MACHINES] = {
    { .title = "machine 1: messages go straight to the guest (KVM_SIGNAL_MSI)", .direct_name = "direct" },
    { .title = "machine 2: every message needs a route (MSIROUTE_CACHE_NO_DIRECT)", .direct_name = "fallback",
      .cache.flags = MSIROUTE_CACHE_NO_DIRECT },
    { .title = "machine 3: four vectors with eventfds, room for two of them in the kernel's table, and a relay",
      .direct_name = "direct", .cache = { .max_routes = PINS_ENTRIES + 2, .relay = true } },
};
static const struct backend *backend = &kvm_backend;
static struct scoreboard *board;
static bool over;

/* Ends the program when nothing has been sent for a while: an interrupt is lost, or something hangs. */
static void *watchdog(void *unused)
{
    uint64_t before = 0;

    for (int idle = 0; idle < PATIENCE_SECONDS * 10; idle++) {
        const struct tally *tally = &board->tallies[0][0][0];
        uint64_t sent = 0;

        usleep(100000);
        if (__atomic_load_n(&over, __ATOMIC_ACQUIRE))
            return unused;
        for (unsigned i = 0; i < sizeof(board->tallies) / sizeof(*tally); i++)
            sent += __atomic_load_n(&tally[i].sent, __ATOMIC_RELAXED);
        if (sent != before)
            idle = 0;
        before = sent;
    }
    struct totals totals = report_table(runs, board);

    if (!totals.lost)
        fail("no progress for %d seconds", PATIENCE_SECONDS);
    printf("minivm: no progress for %d seconds: what is missing now is lost\n", PATIENCE_SECONDS);
    report_result(&totals, backend->name);
    _exit(1);
}

static void run_machine(unsigned machine, uint32_t count)
{
    struct machine_run *run = &runs[machine];

    vm_start(&run->vm, backend, &run->cache);
    for (unsigned d = 0; d < NR_DEVICES; d++)
        sources_run(&run->vm, machine, d, d, count, true); /* one device at a time, for the round trips */
    sources_run(&run->vm, machine, 0, NR_DEVICES - 1, count / 2, false); /* all at once, for the crowd */
    usleep(20000); /* nobody waits for an interrupt doubled by mistake: time for the last one to be counted */

    run->stats = (struct msi_route_cache_stats)MSIROUTE_STATS_INIT;
    MUST(msi_route_cache_stats(run->vm.cache, &run->stats));
    vm_stop(&run->vm);
    run->finished = true;
}

static int usage(FILE *to, int status)
{
    fprintf(to,
            "usage: minivm [--model] [--count N]\n"
            "  --model    without KVM, on the library's model (also: MINIVM_BACKEND=model)\n"
            "  --count N  interrupts a queue, one device at a time; half as many again all at once (%d)\n",
            DEFAULT_COUNT);
    return status;
}

int main(int argc, char **argv)
{
    const char *wanted = getenv("MINIVM_BACKEND"), *missing;
    bool model = wanted && !strcmp(wanted, "model");
    unsigned long count = DEFAULT_COUNT;
    struct totals totals;
    pthread_t thread;

    if (argc > 1 && !strcmp(argv[1], WORKER_OPTION))
        return worker_process(argv);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--model"))
            model = true;
        else if (!strcmp(argv[i], "--count") && i + 1 < argc)
            count = strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return usage(stdout, 0);
        else
            return usage(stderr, 2);
    }
    if (count < 2 || count > MAX_COUNT)
        return usage(stderr, 2);

    missing = model ? "not wanted" : kvm_missing();
    if (missing) {
        printf("minivm: /dev/kvm: %s; the library's model of it instead\n", missing);
        backend = &model_backend;
    }
    printf("minivm: libmsiroute %s, backend %s, %d vCPUs\n", msi_route_cache_version(), backend->name, NR_CPUS);
    fflush(stdout);

    board = scoreboard_create(count);
    start_thread(&thread, watchdog, NULL);
    for (unsigned machine = 0; machine < NR_MACHINES; machine++)
        run_machine(machine, count);
    __atomic_store_n(&over, true, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);

    totals = report_table(runs, board);
    if (totals.wrong)
        fail("%llu interrupts nobody raised, or on the wrong vCPU", (unsigned long long)totals.wrong);
    report_result(&totals, backend->name);
    return totals.lost || totals.sent != totals.received;
}
