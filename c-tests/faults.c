/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A kernel that says no: one story, told again and again, in which the first, second, third ... call of each kind fails.
 * Each time the caller is told, what the library believes is what the kernel has, nothing stale arrives, nothing raised is
 * lost; and when the fault is gone, everything works. */
#include <errno.h>
#include <stdio.h>

#include "rig.h"

#define VECTORS   4
#define LIVE      MSIROUTE_VECTOR_LIVE
#define IN_KERNEL MSIROUTE_VECTOR_IN_KERNEL
#define UNSERVED  MSIROUTE_VECTOR_UNSERVED

/* ---- the story ---- */

enum verb { CONTROL, SET, BIND, UNBIND, FIRE, MASK, UNMASK, DELIVER, SEND, FIX, BEGIN, COMMIT };
static const char *const verbs[] = {
    "control", "set", "bind", "unbind", "fire", "mask", "unmask", "deliver", "send", "fix", "begin", "commit",
};

struct step {
    enum verb verb;
    uint32_t vector, argument;  /* SET, SEND: the x86 vector; CONTROL: flags */
};

static const struct step story[] = {
    { CONTROL, 0, MSIROUTE_ENABLED },
    { SET, 0, 0x40 }, { BIND, 0, 0 }, { UNMASK, 0, 0 }, { FIRE, 0, 0 },
    { SET, 1, 0x50 }, { UNMASK, 1, 0 }, { BIND, 1, 0 }, { FIRE, 1, 0 },
    { SET, 0, 0x41 }, { FIRE, 0, 0 },                               /* while unmasked */
    { MASK, 1, 0 }, { FIRE, 1, 0 }, { DELIVER, 1, 0 }, { UNMASK, 1, 0 },
    { BEGIN, 0, 0 },
    { SET, 2, 0x60 }, { UNMASK, 2, 0 }, { BIND, 2, 0 }, { FIRE, 2, 0 },
    { SET, 3, 0x50 }, { UNMASK, 3, 0 }, { BIND, 3, 0 },             /* vector 1's message */
    { COMMIT, 0, 0 },
    { FIRE, 3, 0 }, { DELIVER, 2, 0 }, { SEND, 0, 0x90 },
    { SET, 1, 0x51 }, { FIRE, 1, 0 }, { FIRE, 3, 0 },               /* vector 3 keeps it */
    { FIX, 0, 0x91 },
    { CONTROL, 0, MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED },
    { FIRE, 0, 0 }, { FIRE, 1, 0 }, { DELIVER, 2, 0 }, { FIRE, 3, 0 },
    { CONTROL, 0, MSIROUTE_ENABLED },
    { UNBIND, 2, 0 }, { SET, 3, 0x70 }, { FIRE, 3, 0 }, { DELIVER, 3, 0 },
};

struct scene {
    struct rig rig;
    int fd[VECTORS];
    bool bound[VECTORS];
    bool owed[VECTORS];         /* raised, and not yet arrived */
    size_t fixed;
    bool in_transaction;
    int error;                  /* of the fault */
    bool let_go_failed;         /* an irqfd that the kernel kept may still send: no fault of the library's */
};

static int fix(struct scene *s, uint32_t vector)
{
    struct kvm_irq_routing_entry entry = { .gsi = 3, .type = KVM_IRQ_ROUTING_MSI };
    entry.u.msi.address_lo = (uint32_t)to_apic(0);
    entry.u.msi.data = vector;
    int result = msi_route_cache_set_fixed(s->rig.cache, &entry, 1);
    if (result == 0)
        s->fixed = 1;
    return result;
}

static int bind_vector(struct scene *s, uint32_t v)
{
    int result = msi_vector_bind_eventfd(s->rig.dev, v, s->fd[v], MSIROUTE_EVENTFD_BORROWED);
    s->bound[v] = result == 0;
    return result;
}

static int unbind_vector(struct scene *s, uint32_t v)
{
    if (!s->bound[v])
        return 0;
    int result = msi_vector_unbind_eventfd(s->rig.dev, v, s->fd[v]);
    expect_eq(info_of(s->rig.dev, v).eventfds, result == 0 ? 0 : 1);
    s->bound[v] = result != 0;
    return result;
}

static int fire(struct scene *s, uint32_t v)
{
    if (s->bound[v]) {
        s->owed[v] = true;
        fires(&s->rig, s->fd[v]);
    }
    return 0;
}

static int deliver(struct scene *s, uint32_t v)
{
    int result = msi_deliver(s->rig.dev, v);
    if (result >= 0)
        s->owed[v] = true;
    return result < 0 ? result : 0;
}

static int take(struct scene *s, const struct step *step)
{
    struct msi_device *dev = s->rig.dev;
    uint32_t v = step->vector, argument = step->argument;
    switch (step->verb) {
    case CONTROL: return msi_device_set_control(dev, argument);
    case SET:     return msi_vector_set(dev, v, TO(0, argument));
    case BIND:    return bind_vector(s, v);
    case UNBIND:  return unbind_vector(s, v);
    case FIRE:    return fire(s, v);
    case MASK:    return msi_vector_mask(dev, v);
    case UNMASK:  return msi_vector_unmask(dev, v);
    case DELIVER: return deliver(s, v);
    case SEND:    return msi_deliver_message(s->rig.cache, MSIROUTE_NO_REQUESTER, TO(0, argument), 0);
    case FIX:     return fix(s, argument);
    case BEGIN:   s->in_transaction = true; return msi_route_cache_begin(s->rig.cache);
    case COMMIT:  s->in_transaction = false; return msi_route_cache_commit(s->rig.cache);
    }
    return -ENOSYS;
}

/* ---- what must be true after every step ---- */

/* The story gives vector v messages from 0x40 + 0x10 * v on. */
static bool once_had(uint32_t v, unsigned x) { return x >> 4 == 4 + v; }

/* What has arrived is a message that a live vector has now; its vectors are owed nothing more. */
static void collect(struct scene *s)
{
    for (unsigned x = 0; x < 256; x++) {
        bool known = x == 0x90;     /* SEND's */
        if (!rig_arrivals(&s->rig, 0, x))
            continue;
        for (uint32_t v = 0; v < VECTORS; v++) {
            struct msi_vector_info info = info_of(s->rig.dev, v);
            if (info.data == x && info.flags & LIVE)
                known = true, s->owed[v] = false;
            if (s->let_go_failed && once_had(v, x))
                s->owed[v] = false;     /* late or stale, but there */
        }
        if (!known && !s->let_go_failed)
            tap_fail(__FILE__, __LINE__, "vector %#x arrived, which no live vector has", x);
    }
}

static void audit_vector(struct scene *s, uint32_t v)
{
    struct msi_vector_info info = info_of(s->rig.dev, v);
    uint64_t address = 0;
    uint32_t data = 0, gsi = MSIROUTE_ANY_GSI;
    bool has_irqfd = fake_has_irqfd(&s->rig.fake, s->fd[v], &gsi);

    expect_eq(info.eventfds, s->bound[v]);
    if (info.flags & IN_KERNEL) {
        expect(has_irqfd && gsi == info.gsi);
        expect(fake_route(&s->rig.fake, gsi, &address, &data) && address == info.address && data == info.data);
    } else {
        expect(!has_irqfd || s->let_go_failed);
    }
    if (info.flags & UNSERVED) {
        expect_eq(info.error, -s->error);
        expect(info.flags & LIVE || s->let_go_failed);
        expect(!(info.flags & IN_KERNEL));
    } else if (!s->let_go_failed) {
        expect_eq(!!(info.flags & IN_KERNEL), info.flags & LIVE && info.eventfds);
    }
}

static void audit(struct scene *s)
{
    unsigned unserved = 0;
    for (uint32_t v = 0; v < VECTORS; v++) {
        audit_vector(s, v);
        unserved += !!(info_of(s->rig.dev, v).flags & UNSERVED);
    }
    struct msi_route_cache_stats stats = rig_stats(&s->rig);
    expect_eq(stats.unserved_vectors, unserved);
    expect_eq(stats.routes + s->fixed, fake_msi_routes(&s->rig.fake));
    expect(stats.routes_pinned <= stats.routes);
}

/* What was raised while it could not be sent is still known. */
static void nothing_owed_is_forgotten(struct scene *s)
{
    for (uint32_t v = 0; v < VECTORS; v++)
        if (s->owed[v] && !s->in_transaction)
            expect(msi_vector_is_pending(s->rig.dev, v) == 1);
}

/* ---- with a fault in it ---- */

static bool has_struck(struct scene *s)
{
    return s->rig.fake.fault.struck;
}

static void live_through(struct scene *s, enum fake_call call, bool lasts)
{
    for (size_t i = 0; i < sizeof(story) / sizeof(story[0]); i++) {
        bool before = has_struck(s);
        int result = take(s, &story[i]);
        bool now = !before && has_struck(s);
        if (now && call == FAKE_UNBIND)
            s->let_go_failed = true;
        bool told = result == -s->error && (now || (lasts && before));
        if (!told && (result != 0 || (now && lasts)))
            tap_fail(__FILE__, __LINE__, "step %zu (%s vector %u) returned %d%s", i, verbs[story[i].verb], story[i].vector,
                     result, now ? ", where the fault struck" : "");
        collect(s);
        if (!s->in_transaction)
            audit(s);
        if (!s->let_go_failed)
            nothing_owed_is_forgotten(s);
    }
}

static void make_up_for_it(struct scene *s)
{
    expect_ok(msi_route_cache_commit(s->rig.cache));
    collect(s);
    expect_eq(rig_stats(&s->rig).unserved_vectors, 0);
    s->let_go_failed = false;
    for (uint32_t v = 0; v < VECTORS; v++)
        if (!s->bound[v])
            expect_ok(bind_vector(s, v));
    /* what could be unmasked or masked but halfway is done again by the guest */
    for (uint32_t v = 0; v < VECTORS; v++)
        expect_ok(msi_vector_mask(s->rig.dev, v));
    for (uint32_t v = 0; v < VECTORS; v++)
        expect_ok(msi_vector_unmask(s->rig.dev, v));
    collect(s);
    audit(s);
    expect_ok(fix(s, 0x91));
    for (uint32_t v = 0; v < VECTORS; v++) {
        expect(!s->owed[v]);
        expect(info_of(s->rig.dev, v).flags & IN_KERNEL);
        fires(&s->rig, s->fd[v]);
        expect_arrival(&s->rig, 0, info_of(s->rig.dev, v).data);
        expect_delivers(&s->rig, v, 0, info_of(s->rig.dev, v).data);
        expect_eq(msi_vector_is_pending(s->rig.dev, v), 0);
    }
    expect_quiet(&s->rig);
    audit(s);
}

static void close_scene(struct scene *s) { rig_close(&s->rig); }

/* False: the story has no k-th call of this kind. */
static bool told_with_a_fault(uint32_t cache_flags, enum fake_call call, unsigned k, int error, bool lasts)
{
    struct rig_config config = { .cache_flags = cache_flags, .kind = MSIROUTE_KIND_MSIX, .vectors = VECTORS };
    __attribute__((cleanup(close_scene))) struct scene s = { .error = error };
    tap_context("%s fails with %s at call %u%s", fake_call_name(call), strerrorname_np(error), k, lasts ? " and all later" : "");
    if (!rig_open(&s.rig, ON_FAKE, &config))
        return false;
    for (uint32_t v = 0; v < VECTORS; v++)
        s.fd[v] = rig_eventfd(&s.rig, EFD_NONBLOCK);
    fake_fault(&s.rig.fake, call, k, error, lasts);
    live_through(&s, call, lasts);
    if (!fake_faultless(&s.rig.fake))
        return false;
    make_up_for_it(&s);
    return true;
}

static void every_call_of_this_kind_fails_once_in_turn(uint32_t cache_flags, enum fake_call call)
{
    static const int errors[] = { EINVAL, ENOMEM, ENOSPC, EBUSY, EINTR };
    for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
        for (unsigned lasts = 0; lasts < 2; lasts++) {
            unsigned k = 1;
            while (k < 1000 && told_with_a_fault(cache_flags, call, k, errors[e], lasts))
                k++;
            expect(k > 2 && k < 1000);      /* the story has several such calls */
        }
    }
}

static void the_story_without_a_fault(enum host host)
{
    (void)host;
    expect(!told_with_a_fault(0, FAKE_SIGNAL, UINT32_MAX, EINVAL, false));
    expect(!told_with_a_fault(MSIROUTE_CACHE_NO_DIRECT, FAKE_SIGNAL, UINT32_MAX, EINVAL, false));
}

#define WHEN(name, flags, call) \
    static void name(enum host host) { (void)host; every_call_of_this_kind_fails_once_in_turn(flags, call); }
WHEN(when_messages_fail, 0, FAKE_SIGNAL)
WHEN(when_table_writes_fail, 0, FAKE_SET_ROUTES)
WHEN(when_binds_fail, 0, FAKE_BIND)
WHEN(when_unbinds_fail, 0, FAKE_UNBIND)
WHEN(when_messages_by_routes_fail, MSIROUTE_CACHE_NO_DIRECT, FAKE_RAISE)
WHEN(when_table_writes_for_messages_fail, MSIROUTE_CACHE_NO_DIRECT, FAKE_SET_ROUTES)
WHEN(when_binds_beside_messages_by_routes_fail, MSIROUTE_CACHE_NO_DIRECT, FAKE_BIND)
WHEN(when_unbinds_beside_messages_by_routes_fail, MSIROUTE_CACHE_NO_DIRECT, FAKE_UNBIND)

int main(void)
{
    static const struct test tests[] = {
        TEST(ANYWHERE, the_story_without_a_fault),
        TEST(ANYWHERE, when_messages_fail),
        TEST(ANYWHERE, when_table_writes_fail),
        TEST(ANYWHERE, when_binds_fail),
        TEST(ANYWHERE, when_unbinds_fail),
        TEST(ANYWHERE, when_messages_by_routes_fail),
        TEST(ANYWHERE, when_table_writes_for_messages_fail),
        TEST(ANYWHERE, when_binds_beside_messages_by_routes_fail),
        TEST(ANYWHERE, when_unbinds_beside_messages_by_routes_fail),
    };
    return TAP_MAIN(tests);
}
