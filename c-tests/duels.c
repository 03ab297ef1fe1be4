/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One delivery against one change, at the same moment, a great many times over: after each the two have met, and it can
 * be said exactly how many messages there must have been. */
#include <errno.h>
#include <pthread.h>

#include "lanes.h"
#include "proc.h"

#define DUEL_US    250000
#define MIN_ROUNDS 200

struct duel {
    void (*before)(void);   /* nobody else is there */
    void (*change)(void);   /* against a delivery to lane 0 */
    void (*after)(void);    /* nobody else is there: opens what is shut */
};

static struct gate_of_two gate;
static atomic_bool over;
static int said;            /* by the delivery */

static void *deliverer(void *unused)
{
    for (;;) {
        meet(&gate);
        if (atomic_load(&over))
            return unused;
        dawdle(60);
        said = lane_raise(0);
        meet(&gate);
    }
}

/* Each raised event makes exactly one message; returns the number of rounds in which the delivery found the lane shut. */
static unsigned fight(const struct duel *duel)
{
    unsigned rounds = 0, kept = 0, sent = 0;
    uint64_t end = now_us() + DUEL_US;
    pthread_t thread;
    atomic_store(&over, false);
    if (!expect_ok(pthread_create(&thread, NULL, deliverer, NULL)))
        return 0;
    while (now_us() < end || rounds < MIN_ROUNDS) {
        if (duel->before)
            duel->before();
        uint64_t messages = atomic_load(&lanes[0].messages);
        meet(&gate);
        dawdle(60);
        duel->change();
        meet(&gate);
        sent += said == MSIROUTE_SENT;
        kept += said == MSIROUTE_PENDING;
        if (duel->after) {
            /* shut now: either it was sent or it is pending */
            uint64_t so_far = atomic_load(&lanes[0].messages) - messages;
            expect_eq(so_far, said == MSIROUTE_SENT);
            expect_eq(msi_vector_is_pending(lanes_dev, 0), said == MSIROUTE_PENDING);
            duel->after();
        }
        rounds++;
        bool one = expect_eq(atomic_load(&lanes[0].messages) - messages, 1), quiet = lane_is_quiet(0);
        if (!one || !quiet)
            break;
    }
    atomic_store(&over, true);
    meet(&gate);
    pthread_join(thread, NULL);
    expect_eq(sent + kept, rounds);
    tap_note("%u rounds, %u found it open, %u shut", rounds, sent, kept);
    return kept;
}

static void shut_all(bool shut)
{
    for (unsigned i = 0; i < LANES; i++)
        atomic_store(&lanes[i].shut, shut);
}

static void mask(void)   { lane_mask(0); }
static void unmask(void) { lane_unmask(0); }
static void set(void)    { lane_set(0); }
static void mask_function(void)
{
    expect_ok(msi_device_set_control(lanes_dev, MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED));
    shut_all(true);
}
static void unmask_function(void)
{
    shut_all(false);
    expect_ok(msi_device_set_control(lanes_dev, MSIROUTE_ENABLED));
}
static void bus_master_off(void)
{
    expect_ok(msi_device_set_bus_master(lanes_dev, 0));
    shut_all(true);
}
static void bus_master_on(void)
{
    shut_all(false);
    expect_ok(msi_device_set_bus_master(lanes_dev, 1));
}
static void clear(void)
{
    expect_ok(msi_vector_clear(lanes_dev, 0));
    atomic_store(&lanes[0].shut, true);
}
static void set_again(void)
{
    atomic_store(&lanes[0].shut, false);
    lane_set(0);
}
static void mask_and_unmask(void) { mask(), unmask(); }
static void move(void)            { mask(), set(), unmask(); }

#define DUEL(name, before, change, after) \
    static void name(enum host host) \
    { \
        (void)host; \
        if (lanes_open(MSIROUTE_KIND_MSIX, 0, 0)) { \
            fight(&(struct duel){ before, change, after }); \
            lanes_close(); \
        } \
    }
DUEL(delivery_against_unmask,                 mask,           unmask,          NULL)
DUEL(delivery_against_mask,                   NULL,           mask,            unmask)
DUEL(delivery_against_mask_and_unmask,        NULL,           mask_and_unmask, NULL)
DUEL(delivery_against_set,                    NULL,           set,             NULL)
DUEL(delivery_against_mask_set_and_unmask,    NULL,           move,            NULL)
DUEL(delivery_against_clear,                  NULL,           clear,           set_again)
DUEL(delivery_against_the_first_message,      clear,          set_again,       NULL)
DUEL(delivery_against_function_mask,          NULL,           mask_function,   unmask_function)
DUEL(delivery_against_the_end_of_function_mask, mask_function, unmask_function, NULL)
DUEL(delivery_against_bus_master_off,         NULL,           bus_master_off,  bus_master_on)
DUEL(delivery_against_bus_master_on,          bus_master_off, bus_master_on,   NULL)

/* ---- closing ---- */

/* After msi_device_close the deliverer sees -ENODEV, and what it sent was sent before. */
static void delivery_against_close(enum host host)
{
    pthread_t thread;
    (void)host;
    if (!lanes_open(MSIROUTE_KIND_PLAIN, 0, 0))
        return;
    atomic_store(&over, false);
    if (!expect_ok(pthread_create(&thread, NULL, deliverer, NULL)))
        return;
    struct msi_device *first = lanes_dev;
    unsigned refused = 0;
    for (unsigned round = 0; round < 5000; round++) {
        struct msi_device_config config = MSIROUTE_DEVICE_CONFIG_INIT;
        config.vectors = LANES;
        if (!expect_ok(msi_device_new(lanes_cache, &config, &lanes_dev)))
            break;
        shut_all(false);
        lane_set(0);
        uint64_t messages = atomic_load(&lanes[0].messages);
        meet(&gate);
        dawdle(60);
        expect_ok(msi_device_close(lanes_dev));
        shut_all(true);
        meet(&gate);
        expect(said == MSIROUTE_SENT || said == -ENODEV);
        expect_eq(atomic_load(&lanes[0].messages) - messages, said == MSIROUTE_SENT);
        refused += said == -ENODEV;
        msi_device_free(lanes_dev);
    }
    lanes_dev = first;
    atomic_store(&over, true);
    meet(&gate);
    pthread_join(thread, NULL);
    tap_note("%u of 5000 came too late", refused);
    lanes_close();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(ANYWHERE, delivery_against_unmask),
        TEST(ANYWHERE, delivery_against_mask),
        TEST(ANYWHERE, delivery_against_mask_and_unmask),
        TEST(ANYWHERE, delivery_against_set),
        TEST(ANYWHERE, delivery_against_mask_set_and_unmask),
        TEST(ANYWHERE, delivery_against_clear),
        TEST(ANYWHERE, delivery_against_the_first_message),
        TEST(ANYWHERE, delivery_against_function_mask),
        TEST(ANYWHERE, delivery_against_the_end_of_function_mask),
        TEST(ANYWHERE, delivery_against_bus_master_off),
        TEST(ANYWHERE, delivery_against_bus_master_on),
        TEST(ANYWHERE, delivery_against_close),
    };
    return lanes_choose_barrier(argc, argv) ? TAP_MAIN(tests) : 1;
}
