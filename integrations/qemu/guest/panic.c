/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "panic.h"
#include "machine.h"

#define PORT_CONSOLE 0xe9
#define PORT_EXIT    0xf4

void say(const char *text)
{
    while (*text)
        outb(PORT_CONSOLE, (uint8_t)*text++);
}

void say_number(const char *what, uint32_t value)
{
    char digits[] = ": ........\n";

    for (int i = 0; i < 8; i++)
        digits[2 + i] = "0123456789abcdef"[value >> (28 - 4 * i) & 0xf];
    say(what);
    say(digits);
}

void leave(int status)
{
    outb(PORT_EXIT, (uint8_t)status);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void panic(const char *what, uint32_t value)
{
    say_number(what, value);
    leave(1);
}

/* On top lies the exception's number, below that an error code, if it has one, and EIP. */
_Noreturn void panic_exception(const uint64_t *frame);
void panic_exception(const uint64_t *frame)
{
    say_number("exception", (uint32_t)frame[0]);
    say_number("error code or EIP", (uint32_t)frame[1]);
    panic("EIP or CS", (uint32_t)frame[2]);
}
