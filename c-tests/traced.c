/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Does everything that has a tracepoint, and says how often: scripts/check-tracepoints listens. */
#include <errno.h>

#include "relays.h"

static struct msi_route_cache_stats total;

static void count_in(struct rig *rig)
{
    struct msi_route_cache_stats stats = rig_stats(rig);
    total.table_writes += stats.table_writes;
    total.table_write_errors += stats.table_write_errors;
    total.evictions += stats.evictions;
    total.relayed_messages += stats.relayed_messages;
    total.promotions += stats.promotions;
    total.demotions += stats.demotions;
}

static void what_is_traced_happens(enum host host)
{
    enum { RAISED = 7, KEPT = 3, MESSAGES = 40 };
    {
        RIG(rig, host, ROUTES(1));
        if (!begin(&rig, false, 2) || !promote(&rig, 0, 1) || !promote(&rig, 1, 1))
            return;
        expect_ok(msi_vector_set(rig.dev, 2, TO(0, 0x51)));
        for (unsigned n = 0; n < RAISED; n++)
            expect_eq(msi_deliver(rig.dev, 2), MSIROUTE_SENT);
        expect_ok(msi_vector_mask(rig.dev, 2));
        for (unsigned n = 0; n < KEPT; n++)
            expect_eq(msi_deliver(rig.dev, 2), MSIROUTE_PENDING);
        expect_eq(msi_deliver(rig.dev, 99), -EINVAL);
        fake_fault(&rig.fake, FAKE_SET_ROUTES, 1, EIO, false);
        struct kvm_irq_routing_entry fixed = { .gsi = 4, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip.pin = 4 };
        expect_eq(msi_route_cache_set_fixed(rig.cache, &fixed, 1), -EIO);
        count_in(&rig);
    }
    {
        RIG(rig, host, ROUTES(8), .cache_flags = MSIROUTE_CACHE_NO_DIRECT);
        for (unsigned n = 0; n < MESSAGES; n++)
            expect(msi_deliver_message(rig.cache, MSIROUTE_NO_REQUESTER, TO_NTH(n), 1) >= 0);
        count_in(&rig);
    }
    expect(total.evictions > 0 && total.demotions > 0);
    tap_note("deliver=%d pend=%d deliver_message=%d relay=%llu promote=%llu demote=%llu table_write=%llu evict=%llu", RAISED + KEPT + 1,
             KEPT, MESSAGES, (unsigned long long)total.relayed_messages, (unsigned long long)total.promotions,
             (unsigned long long)total.demotions, (unsigned long long)(total.table_writes + total.table_write_errors),
             (unsigned long long)total.evictions);
}

int main(void)
{
    static const struct test tests[] = { TEST(ON_FAKE, what_is_traced_happens) };
    return TAP_MAIN(tests);
}
