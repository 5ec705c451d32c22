/* revive_cpu.c -- the alive particle filter over the last levels: tries in rounds, until each
 * group has enough that are alive.
 *
 * What a group has to keep in mind from round to round is in the table of groups (tries, alive)
 * and in the slots of `kept`; groups do not look at each other, so what becomes of one does
 * not depend on the others.
 */
#include <stdbool.h>
#include <string.h>

#include "ops.h"
#include "particles.h"
#include "rng.h"
#include "select.h"

static size_t row_at(int64_t row, int32_t stride)
{
    return (size_t)row * (size_t)stride;
}

static bool has_enough(const kac_revive_args *a, const kac_group *group)
{
    return group->alive > a->each;
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

/* Row `q` of the tries begins as particle i. */
static void begin_try(const kac_revive_args *a, int32_t q, int32_t i, int32_t g)
{
    const kac_particles *x = a->x;
    kac_particles *tries = a->tries;
    memcpy(tries->x + row_at(q, x->stride), x->x + row_at(i, x->stride), (size_t)x->stride);
    tries->entry[q] = x->entry[i];
    tries->bank[q] = x->bank[i];
    tries->stat[q] = x->stat[i];
    tries->log_w[q] = x->log_w[i] > -(double)INFINITY ? 0 : x->log_w[i];
    tries->eve[q] = i;
    tries->group[q] = g;
}

static void recruit_group(const kac_revive_args *a, int32_t g)
{
    const kac_group *group = &a->groups[g];
    int32_t first = g * a->each;
    uint64_t *c = a->weight + first, sum = 0;
    kac_key key = {
        .seed = a->seed, .move = (uint32_t)a->clock->move, .group = (uint32_t)group->id};

    (void)weigh_particles(a, g, c, &sum);
    for (int32_t j = 0; j < group->count; j++) {
        kac_u32x4 draw = kac_draw(key, KAC_DRAW_REVIVE, (uint32_t)j);
        int32_t i = sum > 0 ? kac_first_above(c, a->each, kac_below(draw, 0, sum)) : j;
        begin_try(a, group->offset + j, first + i, g);
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
        group->count = has_enough(a, group) ? 0 : a->each;
        live += group->count;
    }
#pragma omp parallel for schedule(static)
    for (int32_t g = 0; g < a->n_groups; g++)
        recruit_group(a, g);
    for (int32_t q = live; q < a->tries->n; q++)
        a->tries->entry[q] = -1;
    *a->live = live;
    *a->idle += a->tries->n - live;
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

/* Where the try just counted is kept, an index in the group, or -1: those alive from the front,
 * the others from the back, where they give way. */
static int32_t seat(const kac_revive_args *a, const kac_group *group, bool alive)
{
    int32_t at = alive ? group->alive - 1 : a->each - (group->tries - group->alive);
    if (alive) return at < a->each ? at : -1;
    return at >= group->alive ? at : -1;
}

static void enlist_group(const kac_revive_args *a, const kac_particles *y, int32_t g)
{
    kac_group *group = &a->groups[g];
    kac_particles *kept = a->kept;
    for (int32_t q = group->offset; q < group->offset + group->count; q++) {
        if (has_enough(a, group)) break;
        bool alive = y->log_w[q] > -(double)INFINITY;
        group->tries++;
        group->alive += alive;
        int32_t at = seat(a, group, alive), i = g * a->each + at;
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

/* log(N / K), which makes the mean over N slots a sum over K tries divided by K.  Tries are
 * independent draws of one law, so w phi of the first one is unbiased (w its weight, 0 where it
 * is dead), and so is its expectation given what is known at the end.  Where try T made N + 1
 * alive, any N of the T - 1 before it may have been those alive, all with the same probability:
 * the expectation is the mean of w phi over these T - 1.  Where the rounds ended
 * first, all tries are alike: it is the mean over all.  With T counted in it would be biased,
 * since T is alive for certain.
 * Jasra, Lee, Yau and Zhang, "The alive particle filter", arXiv 1304.0151, 2013; Le Gland and
 * Oudjane, "A sequential particle algorithm that keeps the particle system alive", 2006. */
static double log_share(const kac_revive_args *a, const kac_group *group)
{
    int32_t tries = has_enough(a, group) ? group->tries - 1 : group->tries;
    return kac_log((double)a->each / tries);
}

static void settle_group(const kac_revive_args *a, int32_t g)
{
    kac_group *group = &a->groups[g];
    kac_particles *x = a->x;
    int32_t first = g * a->each;
    double share = log_share(a, group);
    uint64_t *c = a->weight + first, sum = 0;
    kac_weight_sums sums = {0, 0, 0};

    double top = weigh_particles(a, g, c, &sum);
    group->offset = first;
    group->count = a->each;
    group->selected = 1;
    group->dead = group->alive == 0;
    group->log_z =
        group->dead ? -(double)INFINITY : group->log_z + kac_log_mean(top, sum, a->each);
    for (int32_t i = first; i < first + a->each; i++) {
        memcpy(x->x + row_at(i, x->stride), a->kept->x + row_at(i, x->stride),
               (size_t)x->stride);
        x->log_w[i] = a->kept->log_w[i] + share; /* -infinity stays */
        x->value[i] = a->kept->value[i];
        x->entry[i] = -1;
        a->chosen[i] = a->kept->eve[i] * a->children;
        a->scratch[i] = x->eve[a->kept->eve[i]];
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
