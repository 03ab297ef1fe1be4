/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <poll.h>

#include "relays.h"

bool is(struct rig *rig, uint32_t index, uint32_t flag)
{
    return info_of(rig->dev, index).flags & flag;
}

bool is_readable(int fd)
{
    struct pollfd look = { .fd = fd, .events = POLLIN };
    return poll(&look, 1, 0) == 1;
}

void serve(struct rig *rig)
{
    int fd = msi_route_cache_relay_fd(rig->cache), result = 1;
    for (unsigned turn = 0; turn < 1000 && (result == 1 || is_readable(fd)); turn++)
        result = msi_route_cache_relay_run(rig->cache);
    expect_eq(result, 0);
}

void open_line(struct rig *rig, uint32_t index, uint32_t flags)
{
    expect_ok(msi_vector_set(rig->dev, index, TO(index % 2, FIRST + index)));
    rig_bound(rig, index, flags);
    expect_ok(msi_vector_unmask(rig->dev, index));
}

void open_lines(struct rig *rig, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        open_line(rig, i, 0);
}

void enable_and_open(struct rig *rig, uint32_t n)
{
    expect_ok(msi_device_set_control(rig->dev, MSIROUTE_ENABLED));
    open_lines(rig, n);
}

void raise_line(struct rig *rig, uint32_t index)
{
    fires(rig, rig->eventfds[index]);
}

void expect_all_lines(struct rig *rig, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        expect_delivers(rig, i, i % 2, FIRST + i);
        raise_line(rig, i);
        expect_line(rig, i);
    }
    expect_quiet(rig);
}

void turn_on(struct rig *rig)
{
    expect(msi_route_cache_relay_fd(rig->cache) >= 0);
}

void forget(struct rig *rig)
{
    unsigned n;
    do {
        if (rig->host != ON_FAKE)
            nap_ms(5);
        n = 0;
        for (unsigned line = 0; line < MAX_LINES; line++)
            n += rig_arrivals(rig, line % 2, FIRST + line);
    } while (n);
}

bool promote(struct rig *rig, uint32_t first, uint32_t n)
{
    for (uint64_t end = now_us() + PATIENCE_US; now_us() < end; nap_ms(1)) {
        unsigned there = 0;
        for (uint32_t i = first; i < first + n; i++) {
            bool promoted = is(rig, i, IN_KERNEL);
            there += promoted;
            if (!promoted)
                raise_line(rig, i);
        }
        serve(rig);
        if (there == n) {
            forget(rig);
            return true;
        }
    }
    tap_fail(__FILE__, __LINE__, "lines %u to %u are not all in the kernel", first, first + n - 1);
    return false;
}

bool begin(struct rig *rig, bool promoted, uint32_t lines)
{
    turn_on(rig);
    open_lines(rig, lines);
    tap_context(promoted ? "promoted" : "relayed");
    if (promoted)
        return promote(rig, 0, lines);
    for (uint32_t i = 0; i < lines; i++)
        expect_served(rig, i, RELAYED);
    return true;
}

/* ---- threads ---- */

static void *run_loop(void *opaque)
{
    struct lent *lent = opaque;
    atomic_store(&lent->inside, true);
    lent->result = msi_route_cache_relay_loop(lent->cache);
    return NULL;
}

void lend(struct rig *rig, struct lent *lent)
{
    *lent = (struct lent){ .cache = rig->cache, .result = 1 };
    turn_on(rig);
    expect_ok(pthread_create(&lent->thread, NULL, run_loop, lent));
    while (!atomic_load(&lent->inside))
        nap_ms(1);
}

void take_back(struct lent *lent)
{
    pthread_join(lent->thread, NULL);
    expect_ok(lent->result);
}

/* ---- calls ---- */

int relay_run(void *cache)  { return msi_route_cache_relay_run(cache); }
int relay_loop(void *cache) { return msi_route_cache_relay_loop(cache); }
int relay_stop(void *cache) { return msi_route_cache_relay_stop(cache); }

int unbind_it(struct rig *rig)  { return msi_vector_unbind_eventfd(rig->dev, 0, rig->eventfds[0]); }
int mask_it(struct rig *rig)    { return msi_vector_mask(rig->dev, 0); }
int set_it(struct rig *rig)     { return msi_vector_set(rig->dev, 0, TO(1, 0x99)); }
int clear_it(struct rig *rig)   { return msi_vector_clear(rig->dev, 0); }
int reset_it(struct rig *rig)   { return msi_device_reset(rig->dev); }
int close_it(struct rig *rig)   { return msi_device_close(rig->dev); }
int stop_it(struct rig *rig)    { return msi_route_cache_relay_stop(rig->cache); }
int no_master(struct rig *rig)     { return msi_device_set_bus_master(rig->dev, 0); }
int hold(struct rig *rig)          { return msi_route_cache_pause(rig->cache); }
