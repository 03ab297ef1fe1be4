/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <errno.h>
#include <msiroute.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"

void fail(const char *format, ...)
{
    static pthread_mutex_t one_is_enough = PTHREAD_MUTEX_INITIALIZER;
    char message[512];
    va_list arguments;

    pthread_mutex_lock(&one_is_enough);
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    printf("demo: failed: %s\n", message);
    fflush(NULL);
    _exit(1); /* other threads may be anywhere: nothing is torn down */
}

void fail_errno(const char *what)
{
    fail("%s: %s", what, strerror(errno));
}

int must(int result, const char *call)
{
    if (result < 0)
        fail("%s: %s (%s)", call, strerror(-result), msi_route_cache_last_error());
    return result;
}

void start_thread(pthread_t *thread, void *(*run)(void *argument), void *argument)
{
    errno = pthread_create(thread, NULL, run, argument);
    if (errno)
        fail_errno("starting a thread");
}
