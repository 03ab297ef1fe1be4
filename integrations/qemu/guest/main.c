/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The guest: drives what it finds. It knows the command line (what to do, and whether to switch remapping on) and how
 * often it was started; not which QEMU runs it.
 */
#include "apic.h"
#include "iommu.h"
#include "panic.h"
#include "phase.h"

#define PIC_1_MASK  0x21
#define PIC_2_MASK  0xa1
#define PORT_RESET  0xcf9
#define   RESET_HARD  0x06

struct multiboot { uint32_t flags, memory[2], boot_device, command_line; };

/* The line begins with the image's path: so no word that might occur in one. */
static bool has_word(const char *line, const char *word)
{
    for (; *line; line++) {
        unsigned i = 0;

        while (word[i] && line[i] == word[i])
            i++;
        if (!word[i])
            return true;
    }
    return false;
}

static _Noreturn void reset_system(void)
{
    outb(PORT_RESET, RESET_HARD);
    for (;;)
        __asm__ volatile("cli; hlt");
}

_Noreturn void main(const struct multiboot *multiboot);
void main(const struct multiboot *multiboot)
{
    const char *line = (const char *)(uintptr_t)multiboot->command_line;
    uint32_t boot = mailbox()->boots++;

    outb(PIC_1_MASK, 0xff);
    outb(PIC_2_MASK, 0xff);
    apic_start();
    if (!second_cpu_start())
        panic("no second CPU", 0);
    if (has_word(line, "remap=on"))
        iommu_start();
    if (has_word(line, "do=messages")) {
        edu_messages();
    } else if (has_word(line, "do=times")) {
        ivshmem_times();
    } else if (boot == 0) {
        edu_phases();
        virtio_phases();
        ivshmem_phases();
        reset_system();
    } else {
        virtio_after_reset();
        ivshmem_after_reset();
    }
    ask(REQUEST_DONE, "");
    leave(0);
}
