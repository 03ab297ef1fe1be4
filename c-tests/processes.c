/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Other processes: children that fork made, and one that is killed with this one's eventfds in its hands. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "relays.h"

#define LINES 4

static int status_of(pid_t child)
{
    int status = -1;
    expect(child > 0 && waitpid(child, &status, 0) == child);
    return status;
}

/* ---- fork, then exec ---- */

struct busy {
    struct rig *rig;
    atomic_bool stop;
    pthread_t threads[3];
};

static void *deliver_all(void *opaque)
{
    struct busy *busy = opaque;
    for (uint32_t i = 0; !atomic_load(&busy->stop); i++)
        msi_deliver(busy->rig->dev, i % LINES);
    return NULL;
}

static void *mask_all(void *opaque)
{
    struct busy *busy = opaque;
    for (uint32_t i = 0; !atomic_load(&busy->stop); i++) {
        msi_vector_mask(busy->rig->dev, i % LINES);
        msi_vector_unmask(busy->rig->dev, i % LINES);
    }
    return NULL;
}

static void make_busy(struct busy *busy, struct rig *rig)
{
    busy->rig = rig;
    atomic_init(&busy->stop, false);
    for (unsigned i = 0; i < 3; i++)
        expect_ok(pthread_create(&busy->threads[i], NULL, i ? deliver_all : mask_all, busy));
}

static void end_busy(struct busy *busy)
{
    atomic_store(&busy->stop, true);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(busy->threads[i], NULL);
}

/* What a child of this one's must not have: descriptors of the library's. */
#define LOOK_FOR_DESCRIPTORS \
    "for fd in /proc/$$/fd/*; do case $(readlink $fd) in *eventfd*|*eventpoll*|*kvm*) exit 1;; esac; done"

static void children_exec_while_others_deliver_and_mask(enum host host)
{
    RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = LINES);
    struct busy busy;
    enable_and_open(&rig, LINES);
    turn_on(&rig);
    make_busy(&busy, &rig);
    for (unsigned i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) {
            execl("/bin/sh", "sh", "-c", LOOK_FOR_DESCRIPTORS, (char *)NULL);
            _exit(127);
        }
        expect_eq(status_of(child), 0);
    }
    end_busy(&busy);
    expect_ok(msi_route_cache_relay_stop(rig.cache));
    forget(&rig);
    expect_all_lines(&rig, LINES);
}

/* ---- fork, and the library is called ---- */

/* In the child: how many calls were not refused. */
static int call_everything(struct rig *rig)
{
    struct msi_vector_info info = MSIROUTE_VECTOR_INFO_INIT;
    struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
    struct msi_device *dev;
    config.vectors = 1;
    const int results[] = {
        msi_vector_mask(rig->dev, 0),
        msi_vector_unmask(rig->dev, 1),
        msi_vector_clear(rig->dev, 1),
        msi_vector_clear_pending(rig->dev, 2),
        msi_vector_info(rig->dev, 0, &info),
        msi_vector_unbind_eventfd(rig->dev, 0, rig->eventfds[0]),
        msi_device_reset(rig->dev),
        msi_device_close(rig->dev),
        msi_device_new(rig->cache, &config, &dev),
        msi_route_cache_pause(rig->cache),
        msi_route_cache_commit(rig->cache),
        msi_route_cache_relay_run(rig->cache),
        msi_route_cache_relay_loop(rig->cache),
        msi_route_cache_relay_stop(rig->cache),
    };
    int taken = 0;
    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++)
        taken += results[i] != -EIO;
    taken += rig->host == ON_KVM && msi_deliver(rig->dev, 0) != -EIO;   /* the kernel says so */
    msi_device_free(rig->dev);
    msi_route_cache_free(rig->cache);
    return taken;
}

static void a_childs_calls_are_refused_and_the_parent_is_unharmed(enum host host)
{
    for BOTH_WAYS(relayed) {
        RIG(rig, host, .kind = MSIROUTE_KIND_MSIX, .vectors = LINES);
        tap_context(relayed ? "with a relay" : "without a relay");
        expect_ok(msi_device_set_control(rig.dev, MSIROUTE_ENABLED));
        if (relayed)
            turn_on(&rig);
        open_lines(&rig, LINES);
        expect_ok(msi_vector_mask(rig.dev, 2));
        add_to_eventfd(rig.eventfds[2], 1);
        pid_t child = fork();
        if (child == 0)
            _exit(call_everything(&rig));
        expect_eq(status_of(child), 0);
        expect_eq(msi_vector_is_pending(rig.dev, 2), 1);
        expect_ok(msi_vector_unmask(rig.dev, 2));
        if (relayed)
            serve(&rig);
        expect_line(&rig, 2);
        for (uint32_t i = 0; i < LINES; i++) {
            raise_line(&rig, i);
            if (relayed)
                serve(&rig);
            expect_line(&rig, i);
            expect_delivers(&rig, i, i % 2, FIRST + i);
        }
        expect_quiet(&rig);
    }
}

/* ---- killed ---- */

/* The program itself, as another process: it serves two eventfds of its parent's as long as it lives. */
static int be_killed(const char *first, const char *second)
{
    struct rig rig;
    struct busy busy;
    if (!rig_open(&rig, ON_KVM, &(struct rig_config){ .kind = MSIROUTE_KIND_MSIX, .vectors = LINES }))
        return 1;
    enable_and_open(&rig, LINES);
    if (msi_vector_bind_eventfd(rig.dev, 0, atoi(first), 0) || msi_vector_bind_eventfd(rig.dev, 1, atoi(second), 0))
        return 1;
    make_busy(&busy, &rig);
    add_to_eventfd(atoi(second), 1);
    for (;;)
        pause();
}

static bool is_taken_by_the_other(int fd)
{
    for (uint64_t end = now_us() + PATIENCE_US; now_us() < end; nap_ms(1)) {
        add_to_eventfd(fd, 1);
        if (!is_readable(fd))
            return true;
        take_count(fd);
    }
    return false;
}

static void of_a_killed_process_eventfds_are_free_again(enum host host)
{
    RIG(rig, host);
    char program[256], numbers[2][16];
    int fds[2];
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[length > 0 ? length : 0] = 0;
    for (unsigned i = 0; i < 2; i++) {
        fds[i] = rig_eventfd(&rig, EFD_NONBLOCK);
        expect_ok(fcntl(fds[i], F_SETFD, 0));
        snprintf(numbers[i], sizeof(numbers[i]), "%d", fds[i]);
    }
    expect_ok(msi_vector_set(rig.dev, 0, TO(0, 0x41)));
    for (unsigned turn = 0; turn < 8; turn++) {
        pid_t child = fork();
        if (child == 0) {
            execl(program, program, numbers[0], numbers[1], (char *)NULL);
            _exit(127);
        }
        expect(is_taken_by_the_other(fds[0]));
        usleep(turn * 300);
        kill(child, SIGKILL);
        expect_eq(status_of(child), SIGKILL);
        take_count(fds[0]);
        add_to_eventfd(fds[0], 1);      /* counted, and not lost */
        expect_ok(msi_vector_bind_eventfd(rig.dev, 0, fds[0], 0));
        expect_arrival(&rig, 0, 0x41);
        fires(&rig, fds[0]);
        expect_arrival(&rig, 0, 0x41);
        expect_ok(msi_vector_unbind_eventfd(rig.dev, 0, fds[0]));
        expect_quiet(&rig);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(EVERYWHERE, children_exec_while_others_deliver_and_mask),
        TEST(EVERYWHERE, a_childs_calls_are_refused_and_the_parent_is_unharmed),
        TEST(ON_KVM, of_a_killed_process_eventfds_are_free_again),
    };
    return argc == 3 ? be_killed(argv[1], argv[2]) : TAP_MAIN(tests);
}
