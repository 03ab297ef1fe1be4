/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"
#include "proc.h"
#include "tap.h"

const char *fake_call_name(enum fake_call call)
{
    static const char *const names[FAKE_CALLS] = { "signal", "set_routes", "bind_irqfd", "unbind_irqfd", "raise_gsi" };
    return names[call];
}

bool fake_open(struct fake *fake, unsigned cpus)
{
    *fake = (struct fake){ .lock = PTHREAD_MUTEX_INITIALIZER, .cpus = cpus };
    fake->table = calloc(FAKE_MAX_ROUTES, sizeof(*fake->table));
    fake->irqfds = calloc(FAKE_MAX_IRQFDS, sizeof(*fake->irqfds));
    return fake->table && fake->irqfds;
}

void fake_close(struct fake *fake)
{
    free(fake->table);
    free(fake->irqfds);
    pthread_mutex_destroy(&fake->lock);
}

static void wrong(struct fake *fake, const char *what, unsigned number)
{
    fake->wrongs++;
    tap_fail(__FILE__, __LINE__, "the fake kernel was told to %s (%u)", what, number);
}

/* ---- with the lock held ---- */

static int fault_of(struct fake *fake, enum fake_call call)
{
    fake->calls[call]++;
    if (!fake->fault.error || fake->fault.call != call)
        return 0;
    if (fake->fault.struck)
        return fake->fault.lasts ? fake->fault.error : 0;
    fake->fault.struck = --fake->fault.at == 0;
    return fake->fault.struck ? fake->fault.error : 0;
}

static bool is_msi(const struct kvm_irq_routing_entry *entry) { return entry->type == KVM_IRQ_ROUTING_MSI; }

static const struct kvm_irq_routing_entry *msi_route(const struct fake *fake, uint32_t gsi)
{
    for (size_t i = 0; i < fake->routes; i++)
        if (fake->table[i].gsi == gsi && is_msi(&fake->table[i]))
            return &fake->table[i];
    return NULL;
}

static int arrive(struct fake *fake, uint64_t address, uint32_t data)
{
    unsigned apic = (unsigned)(address >> 12 & 0xFF);
    if (address >> 20 != 0xFEE)
        wrong(fake, "send a message that is none, address", (unsigned)address);
    if (apic >= fake->cpus)
        return 0;
    fake->arrived[apic][data & 0xFF]++;
    return 1;
}

static int arrive_by_gsi(struct fake *fake, uint32_t gsi)
{
    const struct kvm_irq_routing_entry *route = msi_route(fake, gsi);
    if (!route) {
        wrong(fake, "raise a GSI that has no route", gsi);
        return 0;
    }
    return arrive(fake, (uint64_t)route->u.msi.address_hi << 32 | route->u.msi.address_lo, route->u.msi.data);
}

static void pump(struct fake *fake)
{
    for (size_t i = 0; i < fake->bound; i++)
        if (take_count(fake->irqfds[i].fd))
            arrive_by_gsi(fake, fake->irqfds[i].gsi);
}

static int check_entry(const struct kvm_irq_routing_entry *entry)
{
    if (entry->gsi >= FAKE_MAX_ROUTES || entry->flags & ~KVM_MSI_VALID_DEVID)
        return -EINVAL;
    if (entry->type == KVM_IRQ_ROUTING_IRQCHIP)
        return entry->u.irqchip.irqchip <= 2 && entry->u.irqchip.pin < 24 ? 0 : -EINVAL;
    return is_msi(entry) ? 0 : -EINVAL;
}

static int check_table(struct fake *fake, const struct kvm_irq_routing_entry *entries, size_t n)
{
    enum { NOTHING, PIN, MESSAGE };
    uint8_t what[FAKE_MAX_ROUTES] = { NOTHING };
    if (n > FAKE_MAX_ROUTES)
        return -EINVAL;
    for (size_t i = 0; i < n; i++) {
        uint32_t gsi = entries[i].gsi;
        if (check_entry(&entries[i]))
            return -EINVAL;
        if (what[gsi] == MESSAGE || (what[gsi] == PIN && is_msi(&entries[i])))
            return -EINVAL;
        if (is_msi(&entries[i]) && fake->poison && entries[i].u.msi.data == fake->poison)
            return -EINVAL;
        what[gsi] = is_msi(&entries[i]) ? MESSAGE : PIN;
        if (is_msi(&entries[i]) && !entries[i].u.msi.address_lo)
            wrong(fake, "route a message that is none, GSI", gsi);
    }
    for (size_t i = 0; i < fake->bound; i++)
        if (what[fake->irqfds[i].gsi] != MESSAGE)
            wrong(fake, "drop the route of a bound irqfd, GSI", fake->irqfds[i].gsi);
    return 0;
}

/* ---- the callbacks ---- */

static int fake_signal(void *opaque, uint32_t requester, uint64_t address, uint32_t data)
{
    struct fake *fake = opaque;
    pthread_mutex_lock(&fake->lock);
    fake->requester = requester;
    int result = -fault_of(fake, FAKE_SIGNAL);
    if (!result)
        result = arrive(fake, address, data);
    pthread_mutex_unlock(&fake->lock);
    return result;
}

static int fake_set_routes(void *opaque, const struct kvm_irq_routing_entry *entries, size_t n)
{
    struct fake *fake = opaque;
    pthread_mutex_lock(&fake->lock);
    pump(fake);
    int result = -fault_of(fake, FAKE_SET_ROUTES);
    if (!result)
        result = check_table(fake, entries, n);
    if (!result) {
        if (n)
            memcpy(fake->table, entries, n * sizeof(*entries));
        fake->routes = n;
    }
    pthread_mutex_unlock(&fake->lock);
    return result;
}

static int fake_bind(void *opaque, int fd, int resamplefd, uint32_t gsi)
{
    struct fake *fake = opaque;
    pthread_mutex_lock(&fake->lock);
    int result = -fault_of(fake, FAKE_BIND);
    (void)resamplefd;
    for (size_t i = 0; i < fake->bound && !result; i++)
        if (fake->irqfds[i].fd == fd)
            result = -EBUSY;
    if (!result && fake->bound == FAKE_MAX_IRQFDS)
        result = -ENOMEM;
    if (!result) {
        if (!msi_route(fake, gsi))
            wrong(fake, "bind an irqfd to a GSI without a route", gsi);
        fake->irqfds[fake->bound].fd = fd;
        fake->irqfds[fake->bound++].gsi = gsi;
        if (take_count(fd))
            arrive_by_gsi(fake, gsi);
    }
    pthread_mutex_unlock(&fake->lock);
    return result;
}

static int fake_unbind(void *opaque, int fd, uint32_t gsi)
{
    struct fake *fake = opaque;
    pthread_mutex_lock(&fake->lock);
    int result = -fault_of(fake, FAKE_UNBIND);
    size_t i = 0;
    while (i < fake->bound && (fake->irqfds[i].fd != fd || fake->irqfds[i].gsi != gsi))
        i++;
    if (!result && i == fake->bound)
        wrong(fake, "unbind an irqfd that is not bound, GSI", gsi);     /* KVM returns 0 */
    else if (!result) {
        if (take_count(fd))
            arrive_by_gsi(fake, gsi);
        fake->irqfds[i] = fake->irqfds[--fake->bound];
    }
    pthread_mutex_unlock(&fake->lock);
    return result;
}

static int fake_raise(void *opaque, uint32_t gsi)
{
    struct fake *fake = opaque;
    pthread_mutex_lock(&fake->lock);
    int result = -fault_of(fake, FAKE_RAISE);
    if (!result)
        result = arrive_by_gsi(fake, gsi);
    pthread_mutex_unlock(&fake->lock);
    return result;
}

struct msi_route_cache_ops fake_ops(bool whole_kernel)
{
    struct msi_route_cache_ops ops = MSIROUTE_CACHE_OPS_INIT;
    ops.signal = fake_signal;
    if (whole_kernel) {
        ops.set_routes = fake_set_routes;
        ops.bind_irqfd = fake_bind;
        ops.unbind_irqfd = fake_unbind;
        ops.raise_gsi = fake_raise;
    }
    return ops;
}

/* ---- for the tests ---- */

void fake_pump(struct fake *fake)
{
    pthread_mutex_lock(&fake->lock);
    pump(fake);
    pthread_mutex_unlock(&fake->lock);
}

void fake_fault(struct fake *fake, enum fake_call call, unsigned at, int error, bool lasts)
{
    pthread_mutex_lock(&fake->lock);
    fake->fault.call = call;
    fake->fault.at = at;
    fake->fault.error = error;
    fake->fault.lasts = lasts;
    fake->fault.struck = false;
    pthread_mutex_unlock(&fake->lock);
}

bool fake_faultless(struct fake *fake)
{
    pthread_mutex_lock(&fake->lock);
    bool struck = fake->fault.struck;
    fake->fault.error = 0;
    pthread_mutex_unlock(&fake->lock);
    return struck;
}

void fake_let_go(struct fake *fake, int fd)
{
    pthread_mutex_lock(&fake->lock);
    for (size_t i = 0; i < fake->bound; i++)
        if (fake->irqfds[i].fd == fd)
            fake->irqfds[i--] = fake->irqfds[--fake->bound];
    pthread_mutex_unlock(&fake->lock);
}

size_t fake_msi_routes(struct fake *fake)
{
    size_t n = 0;
    pthread_mutex_lock(&fake->lock);
    for (size_t i = 0; i < fake->routes; i++)
        n += is_msi(&fake->table[i]);
    pthread_mutex_unlock(&fake->lock);
    return n;
}

bool fake_route(struct fake *fake, uint32_t gsi, uint64_t *address, uint32_t *data)
{
    pthread_mutex_lock(&fake->lock);
    const struct kvm_irq_routing_entry *route = msi_route(fake, gsi);
    if (route) {
        *address = (uint64_t)route->u.msi.address_hi << 32 | route->u.msi.address_lo;
        *data = route->u.msi.data;
    }
    pthread_mutex_unlock(&fake->lock);
    return route != NULL;
}

bool fake_has_irqfd(struct fake *fake, int fd, uint32_t *gsi)
{
    bool found = false;
    pthread_mutex_lock(&fake->lock);
    for (size_t i = 0; i < fake->bound && !found; i++) {
        if (fake->irqfds[i].fd == fd) {
            found = true;
            *gsi = fake->irqfds[i].gsi;
        }
    }
    pthread_mutex_unlock(&fake->lock);
    return found;
}
