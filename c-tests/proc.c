/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proc.h"
#include "tap.h"

/* Of all if no file is named. */
static unsigned count_descriptors(const char *file)
{
    char name[64];
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        ssize_t length = readlinkat(dirfd(dir), entry->d_name, name, sizeof(name) - 1);
        if (length < 0 || strtol(entry->d_name, NULL, 10) == dirfd(dir))
            continue;   /* no descriptor, or the one that is looking */
        name[length] = 0;
        n += !file || !strcmp(name, file);
    }
    closedir(dir);
    return n;
}

unsigned open_descriptors(void)                { return count_descriptors(NULL); }
unsigned descriptors_of(const char *file)      { return count_descriptors(file); }

static long status_field(const char *field)
{
    char line[256];
    long value = -1;
    FILE *status = fopen("/proc/self/status", "re");
    if (!status)
        return -1;
    while (fgets(line, sizeof(line), status))
        if (!strncmp(line, field, strlen(field)))
            value = strtol(line + strlen(field), NULL, 10);
    fclose(status);
    return value;
}

long resident_kib(void)      { return status_field("VmRSS:"); }
unsigned threads_alive(void) { return (unsigned)status_field("Threads:"); }

void add_to_eventfd(int eventfd, uint64_t value)
{
    if (write(eventfd, &value, sizeof(value)) != sizeof(value))
        tap_fail(__FILE__, __LINE__, "eventfd %d takes no %llu", eventfd, (unsigned long long)value);
}

void signal_from_another_process(int eventfd, uint64_t value)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0)
        _exit(write(eventfd, &value, sizeof(value)) == sizeof(value) ? 0 : 1);
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        tap_fail(__FILE__, __LINE__, "the writing process failed (status %d)", status);
}

uint64_t take_count(int eventfd)
{
    struct pollfd wait = { .fd = eventfd, .events = POLLIN };
    uint64_t count = 0;
    if (poll(&wait, 1, 0) == 1 && read(eventfd, &count, sizeof(count)) != sizeof(count))
        count = 0;
    return count;
}

void nap_ms(unsigned ms)
{
    struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
    nanosleep(&time, NULL);
}

uint64_t now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000u + (uint64_t)time.tv_nsec / 1000u;
}
