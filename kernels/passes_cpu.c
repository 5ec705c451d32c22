/* passes_cpu.c -- between one arrival at level 0 and the next start: refinement and particle
 * Gibbs. */
#include <stdbool.h>
#include <string.h>

#include "ops.h"
#include "passes.h"
#include "pool.h"
#include "scratch_cpu.h"
#include "select_cpu.h"
#include "states.h"

static size_t row_at(int64_t row, int32_t stride)
{
    return (size_t)row * (size_t)stride;
}

kac_status kac_cpu_reset(kac_device *dev, const kac_reset_args *a)
{
    (void)dev;
    a->clock->level = a->level;
    for (int32_t g = 0; g < a->n_groups; g++)
        kac_group_reset(a, g);
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < a->x->n; i++)
        kac_particle_reset(a, i);
    return KAC_OK;
}

/* ---- refine ----------------------------------------------------------------------------- */

static void renew_group(const kac_renew_args *a, const kac_group *group)
{
    const double *value = a->x->value + group->offset;
    uint64_t *c = a->weight + group->offset;
    uint64_t sum = 0;
    double top = -(double)INFINITY;

    for (int32_t i = 0; i < group->count; i++)
        if (value[i] > top) top = value[i];
    for (int32_t i = 0; i < group->count; i++) {
        sum += kac_renew_weight(a->strength, group->alpha, value[i], top);
        c[i] = sum;
    }
    for (int32_t j = 0; j < group->count; j++)
        a->chosen[group->offset + j] = group->offset + kac_renew_draw(a, group, c, j);
}

kac_status kac_cpu_renew(kac_device *dev, const kac_renew_args *a)
{
    (void)dev;
#pragma omp parallel for schedule(dynamic, 1)
    for (int32_t g = 0; g < a->n_groups; g++)
        renew_group(a, &a->groups[g]);
    return KAC_OK;
}

/* Candidate c of a group: the past ones first. */
typedef struct candidate {
    const kac_particles *from;
    int32_t row;
} candidate;

static candidate candidate_of(const kac_elect_args *a, const kac_group *group, int32_t c)
{
    int32_t past = a->past->n > 0 ? group->count : 0;
    if (c < past) return (candidate){a->past, group->offset + c};
    return (candidate){a->now, group->offset + c - past};
}

static const uint8_t *tokens_of(candidate c)
{
    return c.from->x + row_at(c.row, c.from->stride);
}

static double value_of(const kac_elect_args *a, const kac_group *group, int32_t c)
{
    candidate from = candidate_of(a, group, c);
    return from.from->value[from.row];
}

/* Whether `table`, of candidates by the hashes of their objects, has one that equals c; else it
 * has c from now on. */
static bool is_repeated(const kac_elect_args *a, const kac_group *group, int32_t *table,
                        uint32_t places, int32_t c)
{
    const uint8_t *tokens = tokens_of(candidate_of(a, group, c));
    int32_t stride = a->x->stride;
    double value = value_of(a, group, c);
    uint32_t at = (uint32_t)(kac_hash_row(tokens, stride) % places);
    for (; table[at] >= 0; at = at + 1 < places ? at + 1 : 0)
        if (value_of(a, group, table[at]) == value &&
            memcmp(tokens, tokens_of(candidate_of(a, group, table[at])), (size_t)stride) == 0)
            return true;
    table[at] = c;
    return false;
}

/* Slot i of the group gets candidate c. */
static void elect_one(const kac_elect_args *a, const kac_group *group, int32_t i, int32_t c)
{
    candidate from = candidate_of(a, group, c);
    int64_t row = group->offset + i;
    memcpy(a->x->x + row_at(row, a->x->stride), tokens_of(from), (size_t)a->x->stride);
    a->x->value[row] = from.from->value[from.row];
    a->x->log_w[row] = kac_pool_log_w(a->x->value[row], true);
    a->x->eve[row] = from.from->eve[from.row];
}

/* The best distinct objects, then those that repeat them.  Errors: NOMEM. */
static kac_status elect_group(const kac_elect_args *a, const kac_group *group)
{
    int32_t n = a->past->n > 0 ? 2 * group->count : group->count;
    int32_t filled = 0, repeated = 0;
    uint32_t places = 2 * (uint32_t)n;
    double *value = a->value + 2 * (int64_t)group->offset;
    int32_t *order = a->order + 2 * (int64_t)group->offset;
    int32_t *table = kac_cpu_scratch((size_t)places * sizeof *table);
    if (table == NULL) return KAC_ERR_NOMEM;

    for (int32_t c = 0; c < n; c++)
        value[c] = value_of(a, group, c);
    kac_cpu_take_best(value, n, n, order);
    memset(table, -1, (size_t)places * sizeof *table);
    for (int32_t k = 0; k < n && filled < group->count; k++) {
        if (is_repeated(a, group, table, places, order[k]))
            order[repeated++] = order[k];
        else
            elect_one(a, group, filled++, order[k]);
    }
    for (int32_t k = 0; filled < group->count; k++)
        elect_one(a, group, filled++, order[k]);
    return KAC_OK;
}

kac_status kac_cpu_elect(kac_device *dev, const kac_elect_args *a)
{
    bool short_of_memory = false;
    (void)dev;
#pragma omp parallel for schedule(dynamic, 1) reduction(|| : short_of_memory)
    for (int32_t g = 0; g < a->n_groups; g++)
        short_of_memory = elect_group(a, &a->groups[g]) != KAC_OK || short_of_memory;
    if (short_of_memory) return KAC_FAIL(KAC_ERR_NOMEM, "elect: no memory for a group");
    return KAC_OK;
}

/* ---- particle Gibbs --------------------------------------------------------------------- */

/* Copies the states that led to slot `slot` of level 0. */
static void retain(const kac_retrace_args *a, int32_t g, int32_t slot)
{
    int32_t n = a->x->n, stride = a->x->stride, levels = a->retained->levels;
    for (int32_t k = 0; k < levels; k++) {
        int32_t child = a->chosen[(int64_t)k * n + slot];
        memcpy(a->retained->path + row_at((int64_t)g * levels + k, stride),
               a->children + row_at((int64_t)k * n * a->n_children + child, stride),
               (size_t)stride);
        slot = child / a->n_children;
    }
    a->retained->held[g] = 1;
}

static void retrace_group(const kac_retrace_args *a, int32_t g)
{
    const kac_group *group = &a->groups[g];
    const double *l = a->x->log_w + group->offset;
    size_t stride = (size_t)a->x->stride;
    double top = -(double)INFINITY;
    uint64_t sum = 0, c = 0;
    int32_t i = 0;

    for (i = 0; i < group->count; i++)
        if (l[i] > top) top = l[i];
    for (i = 0; i < group->count; i++)
        sum += kac_weight(l[i], top);
    if (a->log_z != NULL) a->log_z[g] = kac_sweep_evidence(group, top, sum);
    i = 0;
    if (sum > 0) {
        uint64_t u = kac_retain_point(a, group, sum);
        for (c = kac_weight(l[0], top); c <= u;)
            c += kac_weight(l[++i], top);
        retain(a, g, group->offset + i);
    }
    if (a->object != NULL)
        memcpy(a->object + row_at(g, a->x->stride),
               a->x->x + row_at(group->offset + i, a->x->stride), stride);
}

kac_status kac_cpu_retrace(kac_device *dev, const kac_retrace_args *a)
{
    (void)dev;
#pragma omp parallel for schedule(static)
    for (int32_t g = 0; g < a->n_groups; g++)
        retrace_group(a, g);
    return KAC_OK;
}
