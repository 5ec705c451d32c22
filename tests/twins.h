/* twins.h -- the same operation on the CPU and on the device under test, byte by byte. */
#ifndef KAC_TWINS_H
#define KAC_TWINS_H

#include <stdlib.h>
#include <string.h>

#include "on_device.h"
#include "rng.h"

enum { TWINS = 2 };

/* 0: the CPU, 1: the device under test.  Suites of twins begin with need_device. */
static inline kac_device *twin(int k)
{
    static kac_device *cpu;
    if (k == 1) return dev();
    if (cpu == NULL)
        cr_assert_eq(kac_device_open("cpu", -1, &cpu), KAC_OK, "%s", kac_last_error());
    return cpu;
}

/* An operation of the tests must not fail. */
static inline void ok(kac_status status)
{
    cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
}

/* Memory of twin k that holds a copy of n bytes of the host's, or zeros where `host` is NULL. */
static inline void *twin_put(int k, const void *host, size_t n)
{
    void *ptr = twin(k)->ops->memory.alloc(twin(k), n);
    cr_assert_not_null(ptr);
    if (host != NULL) ok(twin(k)->ops->memory.upload(twin(k), ptr, host, n));
    return ptr;
}

static inline void twin_get(int k, void *host, const void *ptr, size_t n)
{
    ok(twin(k)->ops->memory.download(twin(k), host, ptr, n));
}

static inline void twin_drop(int k, void *const *all, size_t n)
{
    for (size_t i = 0; i < n; i++)
        twin(k)->ops->memory.release(twin(k), all[i]);
}

/* Fails where the n bytes at `cpu` on the CPU are not those at `device` on the device. */
static inline void twins_equal(const void *cpu, const void *device, size_t n, const char *what,
                               int64_t test)
{
    unsigned char *a = malloc(n + 1), *b = malloc(n + 1);
    cr_assert(a != NULL && b != NULL);
    twin_get(0, a, cpu, n);
    twin_get(1, b, device, n);
    size_t at = 0;
    while (at < n && a[at] == b[at])
        at++;
    cr_assert_eq(at, n, "case %lld: %s differs at byte %zu of %zu", (long long)test, what, at,
                 n);
    free(a);
    free(b);
}

/* A stream of numbers of the tests. */
typedef struct dice {
    uint64_t seed;
    uint32_t position;
} dice;

static inline uint32_t roll(dice *d, uint32_t below)
{
    kac_u32x4 c = {{d->position++, 0, 0, 0}};
    c = kac_philox(c, (uint32_t)d->seed, (uint32_t)(d->seed >> 32));
    return (uint32_t)((uint64_t)c.v[0] * below >> 32);
}

#endif /* KAC_TWINS_H */
