/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What is shown of the run. */
#ifndef REPORT_H
#define REPORT_H
#include "sources.h"

struct machine_run {
    const char *title;
    const char *direct_name;        /* what device DIRECT shows in this machine */
    struct cache_choice cache;
    struct vm vm;
    struct msi_route_cache_stats stats;
    bool finished;                  /* stats are there */
};

struct totals {
    uint64_t sent, received, lost, wrong; /* wrong: doubled, or on another CPU, or with a number nobody asked for */
};

struct totals report_table(const struct machine_run *runs, struct scoreboard *board);
/* The last line. */
void report_result(const struct totals *totals, const char *backend);

#endif
