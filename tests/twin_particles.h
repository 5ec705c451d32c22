/* twin_particles.h -- random groups of particles that the CPU and the device both have. */
#ifndef KAC_TWIN_PARTICLES_H
#define KAC_TWIN_PARTICLES_H

#include <criterion/criterion.h>
#include <math.h>

#include "twins.h"

/* An array on both sides. */
typedef struct pair {
    void *at[TWINS];
    size_t bytes;
    const char *name; /* NULL: working memory, whose bytes may differ */
} pair;

/* The arrays of a test. */
typedef struct ground {
    pair pairs[64];
    int n;
    dice dice;
    int32_t groups, particles; /* G, n */
    kac_group *host_group;     /* [G] */
    kac_group *group[TWINS];
    kac_clock *clock[TWINS];
} ground;

/* An array of `bytes` that begins as `host` (NULL: zeros), one pointer for each side. */
static inline void **pair_put(ground *w, const char *name, const void *host, size_t bytes)
{
    cr_assert_lt(w->n, 64);
    pair *p = &w->pairs[w->n++];
    *p = (pair){.bytes = bytes, .name = name};
    for (int k = 0; k < TWINS; k++)
        p->at[k] = twin_put(k, host, bytes);
    return p->at;
}

/* Compares every array that has a name. */
static inline void ground_equal(const ground *w, int64_t test)
{
    for (int i = 0; i < w->n; i++)
        if (w->pairs[i].name != NULL)
            twins_equal(w->pairs[i].at[0], w->pairs[i].at[1], w->pairs[i].bytes,
                        w->pairs[i].name, test);
}

static inline void ground_drop(ground *w)
{
    for (int i = 0; i < w->n; i++)
        for (int k = 0; k < TWINS; k++)
            twin_drop(k, &w->pairs[i].at[k], 1);
    free(w->host_group);
}

/* Numbers in steps of 1/8 around 0, so that some are equal; one in eight is `rare`. */
static inline double roll_number(dice *d, double rare)
{
    double x = ((double)roll(d, 64) - 32) / 8;
    return roll(d, 8) == 0 ? rare : x;
}

static inline double *pair_numbers(ground *w, const char *name, int64_t n, double rare,
                                   double *sides[TWINS])
{
    double *host = malloc((size_t)n * sizeof *host + 1);
    cr_assert_not_null(host);
    for (int64_t i = 0; i < n; i++)
        host[i] = roll_number(&w->dice, rare);
    void **at = pair_put(w, name, host, (size_t)n * sizeof *host);
    for (int k = 0; k < TWINS; k++)
        sides[k] = at[k];
    free(host);
    return sides[0];
}

/* Integers below `below`. */
static inline void pair_integers(ground *w, const char *name, int64_t n, uint32_t below,
                                 int32_t *sides[TWINS])
{
    int32_t *host = malloc((size_t)n * sizeof *host + 1);
    cr_assert_not_null(host);
    for (int64_t i = 0; i < n; i++)
        host[i] = (int32_t)roll(&w->dice, below);
    void **at = pair_put(w, name, host, (size_t)n * sizeof *host);
    for (int k = 0; k < TWINS; k++)
        sides[k] = at[k];
    free(host);
}

/* n particles whose rows are of few kinds; stride 0: without rows. */
static inline void pair_particles(ground *w, int32_t n, int32_t stride,
                                  kac_particles sides[TWINS])
{
    double *numbers[5][TWINS];
    int32_t *integers[3][TWINS];
    uint8_t *x = calloc((size_t)n + 1, (size_t)stride + 1);
    cr_assert_not_null(x);
    for (int64_t i = 0; i < n && stride > 0; i++) {
        x[i * stride] = (uint8_t)roll(&w->dice, 3);
        x[(i + 1) * stride - 1] = (uint8_t)roll(&w->dice, 3);
    }
    void **rows = pair_put(w, "x", x, (size_t)n * (size_t)stride);
    free(x);
    pair_numbers(w, "log_w", n, -HUGE_VAL, numbers[0]);
    pair_numbers(w, "bank", n, 0, numbers[1]);
    pair_numbers(w, "stat", n, 0, numbers[2]);
    pair_numbers(w, "value", n, -HUGE_VAL, numbers[3]);
    pair_numbers(w, "ratio", n, 0, numbers[4]);
    pair_integers(w, "entry", n, 1000, integers[0]);
    pair_integers(w, "eve", n, 1000, integers[1]);
    pair_integers(w, "group", n, 1, integers[2]);
    for (int k = 0; k < TWINS; k++)
        sides[k] = (kac_particles){.n = n,
                                   .stride = stride,
                                   .x = rows[k],
                                   .log_w = numbers[0][k],
                                   .bank = numbers[1][k],
                                   .stat = numbers[2][k],
                                   .value = numbers[3][k],
                                   .ratio = numbers[4][k],
                                   .entry = integers[0][k],
                                   .eve = integers[1][k],
                                   .group = integers[2][k]};
}

/* The group of every particle. */
static inline void set_groups(const ground *w, kac_particles sides[TWINS])
{
    int32_t *group = malloc((size_t)w->particles * sizeof *group + 1);
    cr_assert_not_null(group);
    for (int32_t g = 0; g < w->groups; g++)
        for (int32_t i = 0; i < w->host_group[g].count; i++)
            group[w->host_group[g].offset + i] = g;
    for (int k = 0; k < TWINS; k++)
        cr_assert_eq(twin(k)->ops->memory.upload(twin(k), sides[k].group, group,
                                                 (size_t)w->particles * sizeof *group),
                     KAC_OK);
    free(group);
}

/* Groups of these sizes, and a clock at this level. */
static inline ground make_ground(const int32_t *size, int32_t groups, int32_t level,
                                 uint64_t seed)
{
    ground w = {.groups = groups, .dice = {.seed = seed}};
    kac_clock clock = {.level = level, .move = 11};
    w.host_group = calloc((size_t)groups, sizeof *w.host_group);
    cr_assert_not_null(w.host_group);
    for (int32_t g = 0; g < groups; g++) {
        w.host_group[g] = (kac_group){.offset = w.particles,
                                      .count = size[g],
                                      .id = 3 * g + 1,
                                      .alpha = 0.25 * (1 + roll(&w.dice, 4)),
                                      .lambda = 0.01 * roll(&w.dice, 50),
                                      .log_z = roll_number(&w.dice, 0)};
        w.particles += size[g];
    }
    void **group = pair_put(&w, "groups", w.host_group, (size_t)groups * sizeof *w.host_group);
    for (int k = 0; k < TWINS; k++)
        w.group[k] = group[k];
    void **at = pair_put(&w, "clock", &clock, sizeof clock);
    for (int k = 0; k < TWINS; k++)
        w.clock[k] = at[k];
    return w;
}

/* ON_BOTH(particles.weigh(twin(k), &a[k])): the call on side k = 0 and k = 1. */
#define ON_BOTH(call)                                                                          \
    for (int k = 0; k < TWINS; k++)                                                            \
    cr_assert_eq(twin(k)->ops->call, KAC_OK, "%s", kac_last_error())

#endif /* KAC_TWIN_PARTICLES_H */
