/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The ways out: words on the debug console, and the exit device. */
#ifndef PANIC_H
#define PANIC_H
#include <stdint.h>

void say(const char *text);
void say_number(const char *what, uint32_t value);
_Noreturn void leave(int status);
_Noreturn void panic(const char *what, uint32_t value);

#endif
