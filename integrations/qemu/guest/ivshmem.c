/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * ivshmem's MSI-X: up to 2048 vectors, whose eventfds the harness writes. More of them than x86 vectors: number v goes to
 * the same x86 vector and CPU as v + 256. So they come in lockstep, or 256 neighbours at once.
 */
#include "apic.h"
#include "iommu.h"
#include "msix.h"
#include "phase.h"

#define SLOT            5
#define VENDOR          0x1af4
#define DEVICE_ID       0x1110

#define FIRST_VECTOR    0x40u
#define VECTORS         128u
#define AT_ONCE         (VECTORS * NR_CPUS)

#define BUSY            3000
#define RETARGETS       200
#define CHANGES         1000
#define STORM_VECTORS   32
#define STORM_ROUNDS    1500

static struct pci_device ivshmem;
static struct msix msix;

static unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }

static unsigned first_cpu(unsigned v) { return v / VECTORS % NR_CPUS; }
static uint8_t x86_vector(unsigned v) { return (uint8_t)(FIRST_VECTOR + v % VECTORS); }
static unsigned cpu_of(unsigned v) { return mailbox()->targets[v] >> 8; }

static void set_target(unsigned v, unsigned cpu) { mailbox()->targets[v] = (uint16_t)(cpu << 8 | x86_vector(v)); }

static void write_vector(unsigned v)
{
    set_target(v, first_cpu(v));
    msix_write(&msix, v, message_to(SOURCE_IVSHMEM + v, first_cpu(v), x86_vector(v)));
}

static void retarget(unsigned v)
{
    set_target(v, 1 - cpu_of(v));
    msix_retarget(&msix, v, SOURCE_IVSHMEM + v, cpu_of(v), x86_vector(v));
}

static bool open_ivshmem(void) { return pci_open(&ivshmem, SLOT, VENDOR, DEVICE_ID) && msix_open(&msix, &ivshmem); }

static void mask_all(bool mask)
{
    for (unsigned v = 0; v < msix.vectors; v++)
        msix_mask(&msix, v, mask);
}

/* ---- set up ---- */

static void write_all(void)
{
    struct phase phase;

    phase_begin(&phase, "ivshmem: messages written");
    clock_start(&phase);
    for (unsigned v = 0; v < msix.vectors; v++)
        write_vector(v);
    clock_stop(&phase);
    phase.accesses = msix.vectors * MSIX_WRITE_ACCESSES;
    phase_end(&phase);
}

/* As Linux: enabled with all masked, the vectors one by one masked, then the function unmasked. */
static void enable(void)
{
    struct phase phase;

    phase_begin(&phase, "ivshmem: enable");
    clock_start(&phase);
    msix_enable(&msix, true, true);
    clock_stop(&phase);
    mask_all(true);
    clock_start(&phase);
    msix_enable(&msix, true, false);
    clock_stop(&phase);
    phase_end(&phase);
}

static void unmask(void)
{
    struct phase phase;

    phase_begin(&phase, "ivshmem: as many writes that change nothing");
    clock_start(&phase);
    mask_all(true);
    clock_stop(&phase);
    phase.accesses = msix.vectors;
    phase_end(&phase);

    phase_begin(&phase, "ivshmem: unmask");
    clock_start(&phase);
    mask_all(false);
    clock_stop(&phase);
    phase.accesses = msix.vectors;
    phase_end(&phase);
}

/* ---- interrupts ---- */

static void one_by_one(const char *name, unsigned vectors, unsigned times)
{
    struct phase phase;

    phase_begin(&phase, name);
    clock_start(&phase);
    lockstep(&phase, 0, vectors, times);
    clock_stop(&phase);
    phase_end(&phase);
}

/* The `n` eventfds from `first` were written: has each interrupt come? `counts` are those of the x86 vectors before. */
static void expect_each(struct phase *phase, unsigned first, unsigned n, const uint32_t *counts)
{
    uint32_t each = n / min(n, VECTORS);

    for (unsigned i = 0; i < min(n, VECTORS); i++) {
        uint8_t vector = x86_vector(first + i);
        uint32_t more;

        wait_arrived(vector, counts[i] + each);
        more = arrived(vector) - counts[i];
        phase->lost += more < each ? each - more : 0;
        phase->doubled += more > each ? more - each : 0;
    }
}

static void remember(uint32_t *counts, unsigned first, unsigned n)
{
    for (unsigned i = 0; i < min(n, VECTORS); i++)
        counts[i] = arrived(x86_vector(first + i));
}

static void at_once(void)
{
    uint32_t counts[VECTORS];
    struct phase phase;

    phase_begin(&phase, "ivshmem: many at once");
    for (unsigned first = 0; first < msix.vectors; first += AT_ONCE) {
        unsigned n = min(AT_ONCE, msix.vectors - first);

        remember(counts, first, n);
        signal(first, n);
        expect_each(&phase, first, n, counts);
    }
    phase_end(&phase);
}

/* ---- masked ---- */

static void set_mask(unsigned n, bool mask, bool function)
{
    if (function)
        msix_enable(&msix, true, mask);
    for (unsigned v = 0; v < n && !function; v++)
        msix_mask(&msix, v, mask);
}

/* Signalled while masked: they are pending, and come once unmasked. */
static void masked(const char *name, bool function)
{
    unsigned n = min(64, msix.vectors);
    uint32_t counts[VECTORS];
    struct phase phase;

    phase_begin(&phase, name);
    set_mask(n, true, function);
    sleep_ms(4);
    remember(counts, 0, n);
    signal(0, n);
    sleep_ms(10);
    for (unsigned v = 0; v < n; v++) {
        phase.astray += !msix_is_pending(&msix, v);
        expect_none(&phase, x86_vector(v), counts[v]);
    }
    set_mask(n, false, function);
    expect_each(&phase, 0, n, counts);
    phase_end(&phase);
}

/* ---- retargeted ---- */

static void retargets(void)
{
    struct phase phase;
    unsigned n = min(RETARGETS, msix.vectors);

    phase_begin(&phase, "ivshmem: 200 live vectors retargeted");
    clock_start(&phase);
    for (unsigned i = 0; i < RETARGETS; i++)
        retarget(i % n);
    clock_stop(&phase);
    phase.accesses = RETARGETS * MSIX_RETARGET_ACCESSES;
    phase_end(&phase);

    one_by_one("ivshmem: one by one after that", n, 1);

    phase_begin(&phase, "ivshmem: 1000 affinity changes");
    clock_start(&phase);
    for (unsigned i = 0; i < CHANGES; i++)
        retarget(i % msix.vectors);
    clock_stop(&phase);
    phase.accesses = CHANGES * MSIX_RETARGET_ACCESSES;
    phase_end(&phase);

    one_by_one("ivshmem: all one by one after that", msix.vectors, 1);
}

/* The harness signals all the time while the vectors change: whatever is written arrives once, here or there. */
static void storm(void)
{
    unsigned n = min(STORM_VECTORS, msix.vectors);
    struct phase phase;

    phase_begin(&phase, "ivshmem: retargeted and masked under fire");
    storm_begins(n);
    for (unsigned i = 0; i < STORM_ROUNDS; i++) {
        if (i % 3 == 2) {
            msix_mask(&msix, i % n, true);
            msix_mask(&msix, i % n, false);
        } else {
            retarget(i % n);
        }
        if (i % 16 == 0)
            sleep_ms(1);
    }
    storm_ends(&phase);
    phase_end(&phase);
}

/* ---- off and on ---- */

/* Written before it is enabled, and unmasked all at once. */
static void set_up_at_once(void)
{
    for (unsigned v = 0; v < msix.vectors; v++) {
        write_vector(v);
        msix_mask(&msix, v, false);
    }
    msix_enable(&msix, true, true);
    msix_enable(&msix, true, false);
}

static void disabled_and_enabled(void)
{
    struct phase phase;

    phase_begin(&phase, "ivshmem: disable");
    clock_start(&phase);
    msix_enable(&msix, false, false);
    clock_stop(&phase);
    phase_end(&phase);

    phase_begin(&phase, "ivshmem: enabled again, unmasked by the function's bit");
    clock_start(&phase);
    set_up_at_once();
    clock_stop(&phase);
    lockstep(&phase, 0, msix.vectors, 1);
    phase_end(&phase);
}

static void set_up(void)
{
    /* QEMU's ivshmem asks for a route a vector when MSI-X is enabled, which the IOMMU refuses an unwritten message. */
    if (iommu_is_on())
        write_all();
    enable();
    if (!iommu_is_on())
        write_all();
    unmask();
    one_by_one("ivshmem: one by one", msix.vectors, 1);
    one_by_one("ivshmem: one vector, again and again", 1, BUSY);
}

void ivshmem_phases(void)
{
    if (!open_ivshmem()) {
        phase_skip("ivshmem");
        return;
    }
    set_up();
    at_once();
    masked("ivshmem: signalled while masked", false);
    masked("ivshmem: signalled while the function is masked", true);
    retargets();
    storm();
    disabled_and_enabled();
}

void ivshmem_times(void)
{
    if (!open_ivshmem()) {
        phase_skip("ivshmem");
        return;
    }
    set_up();
    retargets();
}

void ivshmem_after_reset(void)
{
    if (!open_ivshmem())
        return;
    mask_all(true);
    set_up_at_once();
    one_by_one("ivshmem: after system reset", msix.vectors, 1);
}
