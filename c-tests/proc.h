/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the process has, and others to work with. */
#ifndef TEST_PROC_H
#define TEST_PROC_H
#include <stdbool.h>
#include <stdint.h>

unsigned open_descriptors(void);
unsigned descriptors_of(const char *file);      /* as the links in /proc/self/fd name it */
long resident_kib(void);
unsigned threads_alive(void);

/* A process of its own writes to the eventfd and ends. */
void signal_from_another_process(int eventfd, uint64_t value);
void add_to_eventfd(int eventfd, uint64_t value);
uint64_t take_count(int eventfd);       /* never waits, even for a blocking one */

void nap_ms(unsigned ms);
uint64_t now_us(void);

#endif
