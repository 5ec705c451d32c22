/* revive_cpu.c -- the alive particle filter over the last levels: tries in rounds, until each
 * group has enough that are alive.
 *
 * What a group has to keep in mind from round to round is in the table of groups (tries, alive)
 * and in the slots of `kept`; groups do not look at each other, so what becomes of one does
 * not depend on the others.
 */
#include "revive.h"

#include <stdbool.h>
#include <string.h>

#include "ops.h"

static size_t row_at(int64_t row, int32_t stride)
{
    return (size_t)row * (size_t)stride;
}

/* Running sums of the integer weights of the particles of group g into `c`, their sum, and the
 * largest log-weight, which is returned. */
static double weigh_particles(const kac_revive_args *a, int32_t g, uint64_t *c, uint64_t *sum)
{
    const double *log_w = a->x->log_w + (int64_t)g * a->each;
    double top = -(double)INFINITY;
    for (int32_t i = 0; i < a->each; i++)
        top = log_w[i] > top ? log_w[i] : top;
    *sum = 0;
    for (int32_t i = 0; i < a->each; i++)
        c[i] = *sum += kac_weight(log_w[i], top);
    return top;
}

/* ---- a round ---------------------------------------------------------------------------- */

static void recruit_group(const kac_revive_args *a, int32_t g)
{
    const kac_group *group = &a->groups[g];
    const kac_particles *x = a->x;
    int32_t first = g * a->each;
    uint64_t *c = a->weight + first, sum = 0;

    (void)weigh_particles(a, g, c, &sum);
    for (int32_t j = 0; j < group->count; j++) {
        int32_t q = group->offset + j, i = first + kac_try_draw(a, group, c, sum, j);
        memcpy(a->tries->x + row_at(q, x->stride), x->x + row_at(i, x->stride),
               (size_t)x->stride);
        kac_begin_try(a, q, i, g);
    }
}

kac_status kac_cpu_recruit(kac_device *dev, const kac_revive_args *a)
{
    (void)dev;
    int32_t live = 0;
    a->clock->level = a->level;
    for (int32_t g = 0; g < a->n_groups; g++) {
        kac_group *group = &a->groups[g];
        group->offset = live;
        group->count = kac_has_enough(a, group) ? 0 : a->each;
        live += group->count;
    }
#pragma omp parallel for schedule(static)
    for (int32_t g = 0; g < a->n_groups; g++)
        recruit_group(a, g);
    for (int32_t q = live; q < a->tries->n; q++)
        a->tries->entry[q] = -1;
    *a->live = live;
    a->idle[0] += (int64_t)(a->tries->n - live) * a->asked;
    a->idle[1] += a->tries->n - live;
    return KAC_OK;
}

kac_status kac_cpu_follow(kac_device *dev, const kac_particles *y, kac_particles *x)
{
    (void)dev;
    size_t n = (size_t)kac_live(x->live, x->n);
    memcpy(x->x, y->x, row_at((int64_t)n, x->stride));
    memcpy(x->entry, y->entry, n * sizeof *x->entry);
    memcpy(x->log_w, y->log_w, n * sizeof *x->log_w);
    memcpy(x->bank, y->bank, n * sizeof *x->bank);
    memcpy(x->stat, y->stat, n * sizeof *x->stat);
    return KAC_OK;
}

static void enlist_group(const kac_revive_args *a, const kac_particles *y, int32_t g)
{
    kac_group *group = &a->groups[g];
    kac_particles *kept = a->kept;
    for (int32_t q = group->offset; q < group->offset + group->count; q++) {
        if (kac_has_enough(a, group)) break;
        bool alive = y->log_w[q] > -(double)INFINITY;
        group->tries++;
        group->alive += alive;
        int32_t at = kac_seat(a->each, group->tries, group->alive, alive);
        int32_t i = g * a->each + at;
        if (at < 0) continue;
        memcpy(kept->x + row_at(i, y->stride), y->x + row_at(q, y->stride), (size_t)y->stride);
        kept->log_w[i] = y->log_w[q];
        kept->value[i] = y->value[q];
        kept->eve[i] = a->tries->eve[q];
    }
}

kac_status kac_cpu_enlist(kac_device *dev, const kac_revive_args *a, const kac_particles *y)
{
    (void)dev;
#pragma omp parallel for schedule(static)
    for (int32_t g = 0; g < a->n_groups; g++)
        enlist_group(a, y, g);
    return KAC_OK;
}

/* ---- the end ---------------------------------------------------------------------------- */

static void settle_group(const kac_revive_args *a, int32_t g)
{
    kac_group *group = &a->groups[g];
    kac_particles *x = a->x;
    int32_t first = g * a->each;
    double share = kac_log_share(a, group);
    uint64_t *c = a->weight + first, sum = 0;
    kac_weight_sums sums = {0, 0, 0};

    double top = weigh_particles(a, g, c, &sum);
    kac_settle_group(a, g, top, sum);
    for (int32_t i = first; i < first + a->each; i++) {
        memcpy(x->x + row_at(i, x->stride), a->kept->x + row_at(i, x->stride),
               (size_t)x->stride);
        kac_settle_particle(a, i, share);
    }
    (void)weigh_particles(a, g, c, &sum);
    for (int32_t i = 0; i < a->each; i++)
        kac_weight_add(&sums, c[i] - (i > 0 ? c[i - 1] : 0));
    group->ess = group->dead ? 0 : kac_ess_share(&sums, a->each);
}

kac_status kac_cpu_settle(kac_device *dev, const kac_revive_args *a)
{
    (void)dev;
#pragma omp parallel for schedule(static)
    for (int32_t g = 0; g < a->n_groups; g++)
        settle_group(a, g);
    memcpy(a->x->eve, a->scratch, (size_t)a->x->n * sizeof *a->x->eve);
    return KAC_OK;
}
