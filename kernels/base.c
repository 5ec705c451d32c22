/* base.c -- the one error channel, a status up and a sentence beside it; and the one clock. */
#include "base.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static _Thread_local char message[4096]; /* a config may hold many mistakes */

void kac_note(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
}

const char *kac_last_error(void)
{
    return message;
}

const char *kac_status_string(kac_status status)
{
    switch (status) { /* no default: -Wswitch reports a missing case */
    case KAC_OK: return "success";
    case KAC_ERR_INVALID: return "invalid argument";
    case KAC_ERR_NOMEM: return "out of memory";
    case KAC_ERR_IO: return "input or output error";
    case KAC_ERR_UNSUPPORTED: return "not supported here";
    case KAC_ERR_DEVICE: return "device error";
    case KAC_ERR_NUMERIC: return "numerical failure";
    case KAC_ERR_WORKER: return "worker failed";
    case KAC_ERR_RANK: return "another rank is lost";
    case KAC_ERR_INTERNAL: return "internal error";
    }
    return "unknown status";
}

int64_t kac_nanoseconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

double kac_now(void)
{
    return 1e-9 * (double)kac_nanoseconds();
}

const char *kac_version(void)
{
    return "0.1.0";
}
