/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The relay against processes that signal without a pause, while the guest masks, changes, resets and the VMM stops and starts,
 * with fewer routes than vectors. The APICs say what came, and the model counts it.
 *
 * Arguments: how many times each test is run (1), and for how many seconds each storm blows (2); the rounds take half of that. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lanes.h"
#include "rig.h"

#define LINES   6           /* line i: vector i of the device, eventfd i, and vCPU i, so that one IRR is one line's */
#define WRITERS 2           /* line i is written by process i % WRITERS */
#define FIT     3           /* routes */
#define RELAYS  2           /* threads */
#define FIRST   0x40        /* a line's messages go round these vectors */
#define ROUND   128
#define IDLE_US     70000
#define PATIENCE_US 8000000

static unsigned seconds = 2;

/* ---- the writers ---- */

struct shared {
    atomic_bool over;
    atomic_uint go, done[WRITERS];      /* rounds */
    _Atomic uint64_t sent[LINES];
};

static void signal_line(struct shared *shared, const int fd[LINES], unsigned line)
{
    uint64_t one = 1;
    atomic_fetch_add(&shared->sent[line], 1);
    if (write(fd[line], &one, sizeof(one)) != sizeof(one))
        _exit(2);
}

/* One of its lines is idle for some time, then another, so that the busiest change. */
static void write_without_a_pause(struct shared *shared, const int fd[LINES], unsigned writer)
{
    for (uint64_t n = 0, idle = 0; !atomic_load(&shared->over); n++) {
        if (n % 256 == 0)
            idle = now_us() / IDLE_US % (LINES / WRITERS) * WRITERS + writer;
        for (unsigned line = writer; line < LINES; line += WRITERS)
            if (line != idle)
                signal_line(shared, fd, line);
    }
}

static void write_once_a_round(struct shared *shared, const int fd[LINES], unsigned writer)
{
    for (unsigned round = 1; !atomic_load(&shared->over); round++) {
        while (atomic_load(&shared->go) != round) {
            if (atomic_load(&shared->over))
                return;
            usleep(20);
        }
        for (unsigned line = writer; line < LINES; line += WRITERS) {
            dawdle(1500);
            signal_line(shared, fd, line);
        }
        atomic_store(&shared->done[writer], round);
    }
}

struct field {
    struct rig *rig;
    struct shared *shared;
    int fd[LINES];
    pid_t writers[WRITERS];
    unsigned serial[LINES];
    uint64_t messages[LINES];           /* that were swept up; on KVM some are one */
    pthread_t relays[RELAYS];
    atomic_bool is_over;
    unsigned changes, stops;
};

/* Before there is a VM that the processes would hold. */
static bool start_writers(struct field *f, void (*job)(struct shared *, const int[LINES], unsigned))
{
    f->shared = mmap(NULL, sizeof(*f->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!expect(f->shared != MAP_FAILED))
        return false;
    for (unsigned line = 0; line < LINES; line++)
        f->fd[line] = eventfd(0, EFD_CLOEXEC | (line % 2 ? EFD_NONBLOCK : 0));
    for (unsigned writer = 0; writer < WRITERS; writer++) {
        f->writers[writer] = fork();
        if (f->writers[writer] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);   /* the test may be given up */
            job(f->shared, f->fd, writer);
            _exit(0);
        }
    }
    return true;
}

static void end_writers(struct field *f)
{
    atomic_store(&f->shared->over, true);
    for (unsigned writer = 0; writer < WRITERS; writer++) {
        int status = -1;
        expect_eq(waitpid(f->writers[writer], &status, 0), f->writers[writer]);
        expect_eq(status, 0);
    }
}

/* ---- what arrives ---- */

static unsigned current(const struct field *f, unsigned line) { return FIRST + f->serial[line] % ROUND; }

/* Forgets what has arrived for a line, but for this vector (0: all of it); how many that were. */
static unsigned sweep(struct field *f, unsigned line, unsigned but)
{
    struct rig *rig = f->rig;
    unsigned n = 0;
    if (rig->host == ON_KVM) {
        uint8_t irr[256];
        cpu_arrived(&rig->vm, line, irr);
        for (unsigned vector = 0; vector < 256; vector++) {
            if (irr[vector] && vector != but) {
                cpu_forget(&rig->vm, line, vector);
                n++;
            }
        }
    } else {
        pthread_mutex_lock(&rig->fake.lock);
        for (unsigned vector = 0; vector < 256; vector++) {
            if (vector != but) {
                n += rig->fake.arrived[line][vector];
                rig->fake.arrived[line][vector] = 0;
            }
        }
        pthread_mutex_unlock(&rig->fake.lock);
    }
    f->messages[line] += n;
    return n;
}

/* Of a line that is shut (`but` 0), or has just got this vector in place of another: nothing else comes any more. */
static bool expect_silence(struct field *f, unsigned line, unsigned but)
{
    sweep(f, line, but);
    for (unsigned look = 0; look < 3; look++) {
        dawdle(2000);
        if (!expect_eq(sweep(f, line, but), 0))
            return false;
    }
    return true;
}

static void expect_silence_of_all(struct field *f)
{
    for (unsigned line = 0; line < LINES; line++)
        expect_silence(f, line, 0);
}

/* While the writers write, each line goes on. */
static void expect_life(struct field *f, unsigned line)
{
    uint64_t end = now_us() + PATIENCE_US;
    sweep(f, line, 0);
    while (!sweep(f, line, 0))
        if (!expect(now_us() < end))
            return;
}

/* ---- what is done to them ---- */

static void *run_relay(void *opaque)
{
    struct field *f = opaque;
    while (!atomic_load(&f->is_over)) {
        int result = msi_route_cache_relay_loop(f->rig->cache);
        if (result == -EINVAL)
            nap_ms(1);                      /* it is off for a moment */
        else
            expect_ok(result);
    }
    return NULL;
}

static void set(struct field *f, unsigned line)
{
    f->serial[line]++;
    expect_ok(msi_vector_set(f->rig->dev, line, TO(line, current(f, line))));
}

static void open_all(struct field *f)
{
    for (unsigned line = 0; line < LINES; line++) {
        set(f, line);
        expect_ok(msi_vector_unmask(f->rig->dev, line));
    }
    expect_ok(msi_device_set_control(f->rig->dev, MSIROUTE_ENABLED));
}

static void start_relay(struct field *f)
{
    struct rig *rig = f->rig;
    expect(msi_route_cache_relay_fd(rig->cache) >= 0);
    for (unsigned line = 0; line < LINES; line++)
        expect_ok(msi_vector_bind_eventfd(rig->dev, line, f->fd[line], line % 3 ? 0 : MSIROUTE_EVENTFD_BORROWED));
    open_all(f);
    for (unsigned i = 0; i < RELAYS; i++)
        expect_ok(pthread_create(&f->relays[i], NULL, run_relay, f));
}

static void stop_and_start_relay(struct field *f)
{
    int stopped = msi_route_cache_relay_stop(f->rig->cache);
    expect(stopped == 0 || stopped == -ENOSPC);
    f->stops++;
    dawdle(3000);
    expect(msi_route_cache_relay_fd(f->rig->cache) >= 0);
}

static void rebind(struct field *f, unsigned line, bool look)
{
    struct msi_device *dev = f->rig->dev;
    expect_ok(msi_vector_unbind_eventfd(dev, line, f->fd[line]));
    if (look)
        expect_silence(f, line, 0);
    expect_ok(msi_vector_bind_eventfd(dev, line, f->fd[line], line % 3 ? 0 : MSIROUTE_EVENTFD_BORROWED));
}

/* `look`: and sees to it that what is shut is silent. */
static void change(struct field *f, bool look)
{
    struct msi_device *dev = f->rig->dev;
    struct msi_route_cache *cache = f->rig->cache;
    unsigned line = chance() % LINES, what = chance() % 64;
    f->changes++;
    tap_context("change %u is %u, of line %u", f->changes, what, line);
    if (what < 20) {
        expect_ok(msi_vector_mask(dev, line));
        if (look)
            expect_silence(f, line, 0);
        if (what % 2)
            set(f, line);
        expect_ok(msi_vector_unmask(dev, line));
    } else if (what < 35) {
        set(f, line);
        if (look)
            expect_silence(f, line, current(f, line));
    } else if (what < 41) {
        bool disabled = what % 2;
        expect_ok(msi_device_set_control(dev, disabled ? 0 : MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED));
        if (look)
            expect_silence_of_all(f);
        expect_ok(msi_device_set_control(dev, MSIROUTE_ENABLED));
    } else if (what < 44) {
        expect_ok(msi_device_set_bus_master(dev, 0));
        if (look)
            expect_silence_of_all(f);
        expect_ok(msi_device_set_bus_master(dev, 1));
    } else if (what < 48) {
        expect_ok(msi_route_cache_pause(cache));
        if (look)
            expect_silence_of_all(f);
        expect_ok(msi_route_cache_resume(cache));
    } else if (what < 52) {
        rebind(f, line, look);
    } else if (what < 54) {
        stop_and_start_relay(f);
    } else if (what < 57) {
        unsigned other = (line + 1) % LINES;
        expect_ok(msi_route_cache_begin(cache));
        expect_ok(msi_vector_mask(dev, line));
        expect_ok(msi_vector_mask(dev, other));
        if (look)
            expect_silence(f, line, 0);
        set(f, other);
        expect_ok(msi_vector_unmask(dev, line));
        expect_ok(msi_vector_unmask(dev, other));
        expect_ok(msi_route_cache_commit(cache));
    } else if (what < 59 && look) {         /* a reset throws away what is counted */
        expect_ok(msi_device_reset(dev));
        expect_silence_of_all(f);
        open_all(f);
    } else if (what < 61) {
        expect_ok(msi_vector_clear(dev, line));
        if (look)
            expect_silence(f, line, 0);
        set(f, line);
    } else {
        nap_ms(chance() % 8);               /* so that some are calm */
    }
}

/* ---- the end ---- */

/* Nobody writes any more: nothing is left behind. Then one more signal of each line comes. */
static void expect_nothing_lost(struct field *f)
{
    for (unsigned line = 0; line < LINES; line++) {
        uint64_t end = now_us() + PATIENCE_US;
        tap_context("line %u at the end", line);
        while (msi_vector_is_pending(f->rig->dev, line) != 0)
            if (!expect(now_us() < end))
                break;
    }
    nap_ms(50);
    for (unsigned line = 0; line < LINES; line++)
        sweep(f, line, 0);
    for (unsigned line = 0; line < LINES; line++) {
        uint64_t end = now_us() + PATIENCE_US;
        tap_context("line %u after the end", line);
        atomic_fetch_add(&f->shared->sent[line], 1);
        signal_from_another_process(f->fd[line], 1);
        unsigned n = 0;
        while (!n && expect(now_us() < end))
            n = rig_arrivals(f->rig, line, current(f, line));
        expect_eq(n, 1);
        f->messages[line] += n;
        expect_silence(f, line, 0);
    }
}

static void close_field(struct field *f, uint64_t *signals, uint64_t *messages)
{
    struct rig *rig = f->rig;
    atomic_store(&f->is_over, true);
    int stopped = msi_route_cache_relay_stop(rig->cache);
    expect(stopped == 0 || stopped == -ENOSPC);
    for (unsigned i = 0; i < RELAYS; i++)
        pthread_join(f->relays[i], NULL);
    struct msi_route_cache_stats stats = rig_stats(rig);
    for (unsigned line = 0; line < LINES; line++) {
        tap_context("line %u", line);
        expect(f->messages[line] > 0 && f->messages[line] <= atomic_load(&f->shared->sent[line]));
        *signals += atomic_load(&f->shared->sent[line]);
        *messages += f->messages[line];
    }
    expect(stats.relayed_messages <= *signals);
    expect_ok(msi_device_close(rig->dev));
    expect_eq(rig_stats(rig).routes_pinned, 0);
    tap_note("%u changes, %u of them stops; %llu relayed, %llu promoted, %llu demoted, %llu table writes", f->changes, f->stops,
             (unsigned long long)stats.relayed_messages, (unsigned long long)stats.promotions,
             (unsigned long long)stats.demotions, (unsigned long long)stats.table_writes);
    for (unsigned line = 0; line < LINES; line++)
        close(f->fd[line]);
    munmap(f->shared, sizeof(*f->shared));
}

/* ---- the tests ---- */

#define FIELD(f, rig_name, host, job) \
    struct field f = { 0 }; \
    if (!start_writers(&f, job)) \
        return; \
    struct rig rig_name; \
    if (!rig_open(&rig_name, host, &(struct rig_config){ .cpus = LINES, .max_routes = 40 + FIT, \
                                                         .kind = MSIROUTE_KIND_MSIX, .vectors = LINES })) { \
        end_writers(&f); \
        return; \
    } \
    f.rig = &rig_name; \
    start_relay(&f)

static void writers_that_never_pause_lose_nothing_and_reach_nobody_who_is_shut(enum host host)
{
    static _Atomic uint64_t all_signals;
    uint64_t signals = 0, messages = 0;
    FIELD(f, rig, host, write_without_a_pause);
    /* Longer on a machine that has other things to do. */
    for (uint64_t start = now_us(); now_us() < start + (f.changes > 40 ? 1 : 4) * 1000000ull * seconds;) {
        change(&f, true);
        if (f.changes % 16 == 0)
            expect_life(&f, chance() % LINES);
    }
    for (unsigned line = 0; line < LINES; line++) {
        tap_context("line %u", line);
        set(&f, line);
        expect_life(&f, line);
    }
    end_writers(&f);
    expect_nothing_lost(&f);
    close_field(&f, &signals, &messages);
    expect(f.changes > 40);
    rig_close(&rig);
    atomic_fetch_add(&all_signals, signals);
    tap_note("%llu signals, %llu messages %s; %llu signals so far", (unsigned long long)signals, (unsigned long long)messages,
             host == ON_KVM ? "seen" : "sent", (unsigned long long)atomic_load(&all_signals));
}

/* The one signal of a round meets a change: it comes, and comes once. */
static void one_signal_around_a_change_makes_one_message(enum host host)
{
    uint64_t signals = 0, messages = 0;
    unsigned round = 0;
    FIELD(f, rig, host, write_once_a_round);
    for (uint64_t start = now_us(); now_us() < start + (round > 40 ? 1 : 8) * 500000ull * seconds;) {
        uint64_t before[LINES];
        bool good = true;
        round++;
        for (unsigned line = 0; line < LINES; line++)
            good &= expect_eq(sweep(&f, line, 0), 0);   /* doubled, or late, of the round before */
        for (unsigned line = 0; line < LINES; line++)
            before[line] = f.messages[line];
        atomic_store(&f.shared->go, round);
        for (unsigned i = chance() % 4; i; i--) {
            dawdle(2000);
            change(&f, false);
        }
        for (unsigned writer = 0; writer < WRITERS; writer++)
            while (atomic_load(&f.shared->done[writer]) != round)
                usleep(20);
        for (unsigned line = 0; line < LINES; line++) {
            uint64_t end = now_us() + PATIENCE_US;
            while (f.messages[line] == before[line] && now_us() < end)
                if (!sweep(&f, line, 0))
                    usleep(20);
            good &= expect_eq(f.messages[line] - before[line], 1);
            good &= expect_eq(msi_vector_is_pending(rig.dev, line), 0);
        }
        if (!good)
            break;
    }
    end_writers(&f);
    expect_nothing_lost(&f);
    close_field(&f, &signals, &messages);
    rig_close(&rig);
    expect(round > 40);
    tap_note("%u rounds, %llu signals, %llu messages", round, (unsigned long long)signals, (unsigned long long)messages);
}

int main(int argc, char **argv)
{
    static const struct test once[] = {
        TEST(ON_KVM | ON_MODEL, writers_that_never_pause_lose_nothing_and_reach_nobody_who_is_shut),
        TEST(ON_KVM | ON_MODEL, one_signal_around_a_change_makes_one_message),
    };
    enum { ONCE = sizeof(once) / sizeof(once[0]), MOST = 1000 };
    static struct test tests[MOST * ONCE];
    unsigned times = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
    if (argc > 2)
        seconds = (unsigned)strtoul(argv[2], NULL, 10);
    if (times == 0 || times > MOST || seconds == 0)
        return 2;
    for (unsigned i = 0; i < times * ONCE; i++)
        tests[i] = once[i % ONCE];
    return tap_main(tests, (size_t)times * ONCE);
}
