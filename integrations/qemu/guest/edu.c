/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* QEMU's teaching device: its MSI, raised by a register write or by the device's own thread. */
#include "apic.h"
#include "iommu.h"
#include "message.h"
#include "pci.h"
#include "phase.h"

#define SLOT            4
#define VENDOR          0x1234
#define DEVICE_ID       0x11e8
#define REG_FACTORIAL   0x08
#define REG_STATUS      0x20
#define   STATUS_INTERRUPT 0x80u
#define REG_RAISE       0x60
#define REG_ACKNOWLEDGE 0x64

#define VECTOR          0x38
#define INTERRUPTS      300
#define MESSAGES        5000

static struct pci_device edu;
static unsigned capability;

static void write_message(struct message message)
{
    bool is_64bit = pci_read(&edu, capability + PCI_MSI_FLAGS) & PCI_MSI_FLAGS_64BIT;

    pci_write(&edu, capability + PCI_MSI_ADDRESS_LO, message.address);
    if (is_64bit)
        pci_write(&edu, capability + PCI_MSI_ADDRESS_HI, 0);
    pci_write(&edu, capability + (is_64bit ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32), message.data);
}

static void enable(bool on)
{
    pci_write(&edu, capability, (on ? PCI_MSI_FLAGS_ENABLE : 0u) << 16);
}

static bool open_edu(void)
{
    if (!pci_open(&edu, SLOT, VENDOR, DEVICE_ID))
        return false;
    capability = pci_find_capability(&edu, PCI_CAP_ID_MSI, 0);
    return capability;
}

static void raise(void) { write32(edu.bars[0] + REG_RAISE, 1); }

static void one_by_one(const char *name)
{
    struct phase phase;

    phase_begin(&phase, name);
    write_message(message_to(SOURCE_EDU, 0, VECTOR));
    for (unsigned i = 0; i < INTERRUPTS; i++) {
        uint32_t before = arrived(VECTOR);

        raise();
        expect_one(&phase, VECTOR, before);
    }
    phase_end(&phase);
}

static void from_its_thread(void)
{
    struct phase phase;

    phase_begin(&phase, "edu: MSI from the device's thread");
    write32(edu.bars[0] + REG_STATUS, STATUS_INTERRUPT);
    for (unsigned i = 0; i < INTERRUPTS; i++) {
        uint32_t before = arrived(VECTOR);

        write32(edu.bars[0] + REG_FACTORIAL, 5);
        expect_one(&phase, VECTOR, before);
    }
    write32(edu.bars[0] + REG_STATUS, 0);
    phase_end(&phase);
}

static void retargeted(void)
{
    struct phase phase;

    phase_begin(&phase, "edu: MSI, retargeted each time");
    for (unsigned i = 0; i < INTERRUPTS / 4; i++) {
        unsigned cpu = i % NR_CPUS;
        uint8_t vector = (uint8_t)(VECTOR + i % 4);
        uint32_t before = arrived(vector), there = mailbox()->counts[cpu][vector];

        write_message(message_to(SOURCE_EDU, cpu, vector));
        raise();
        expect_one(&phase, vector, before);
        phase.astray += mailbox()->counts[cpu][vector] == there;
    }
    phase_end(&phase);
}

void edu_phases(void)
{
    if (!open_edu()) {
        phase_skip("edu");
        return;
    }
    write_message(message_to(SOURCE_EDU, 0, VECTOR));
    enable(true);
    one_by_one("edu: MSI one by one");
    from_its_thread();
    retargeted();
    enable(false);
}

/* ---- many different messages ---- */

#define FIRST_VECTOR 0x40u
#define VECTORS      184u

/*
 * The messages differ in destination and x86 vector, and in what makes no difference here: delivery mode (lowest
 * priority), level, redirection hint, destination mode. The inner loop changes data alone, which is two exits a message.
 */
static struct message nth_address(unsigned n)
{
    unsigned cpu = n % NR_CPUS, hint = n / 2 % 2, logical = n / 4 % 2;

    return (struct message){ 0xfee00000u | (logical ? 1u << cpu : cpu) << 12 | hint << 3 | logical << 2, 0 };
}

static uint32_t nth_data(unsigned n)
{
    return (FIRST_VECTOR + n % VECTORS) | (n / VECTORS % 2) << 8 | (n / VECTORS / 2 % 2) << 14;
}

/* Value 0 raises nothing: what the loop itself costs. */
static void send_messages(struct phase *phase, uint32_t raised)
{
    const unsigned data_register = capability + (pci_read(&edu, capability + PCI_MSI_FLAGS) & PCI_MSI_FLAGS_64BIT
                                                 ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32);
    const unsigned per_address = 4 * VECTORS;

    const uint32_t first = arrived_all();

    write32(edu.bars[0] + REG_ACKNOWLEDGE, 0xffffffff);
    clock_start(phase);
    for (unsigned n = 0; n < MESSAGES; n++) {
        if (n % VECTORS == 0 && raised) { /* before an x86 vector's next turn: two interrupts would become one */
            clock_stop(phase);
            wait_arrived_all(first + n);
            clock_start(phase);
        }
        if (n % per_address == 0) {
            pci_write(&edu, capability + PCI_MSI_ADDRESS_LO, nth_address(n / per_address).address);
            pci_select(&edu, data_register);
        }
        outl(PCI_CONFIG_DATA, nth_data(n % per_address));
        write32(edu.bars[0] + REG_RAISE, raised);
    }
    clock_stop(phase);
    phase->accesses = 2 * MESSAGES;
}

static void round_of_messages(const char *name)
{
    struct phase phase;
    uint32_t before = arrived_all(), now;

    phase_begin(&phase, name);
    send_messages(&phase, 1);
    phase.sent = MESSAGES;
    wait_arrived_all(before + MESSAGES);
    now = arrived_all() - before;
    phase.lost += now < MESSAGES ? MESSAGES - now : 0;
    phase.doubled += now > MESSAGES ? now - MESSAGES : 0;
    phase_end(&phase);
}

void edu_messages(void)
{
    struct phase phase;

    if (!open_edu()) {
        phase_skip("messages");
        return;
    }
    if (iommu_is_on()) {
        phase_skip("messages: remapped");
        return;
    }
    write_message(message_to(SOURCE_EDU, 0, VECTOR));
    enable(true);
    phase_begin(&phase, "messages: the loop alone");
    send_messages(&phase, 0);
    phase_end(&phase);
    round_of_messages("messages: 5000 in turn");
    round_of_messages("messages: 5000 in turn, again");
    enable(false);
}
