/* search_cpu.c -- paths and trees of noisy states on the CPU.  Trees are independent of each
 * other, and what happens within one happens in a fixed order. */
#include "wave.h"

#include <stdbool.h>
#include <string.h>

#include "ops.h"

static size_t row_at(int64_t row, int32_t stride)
{
    return (size_t)row * (size_t)stride;
}

/* ---- paths ------------------------------------------------------------------------------ */

kac_status kac_cpu_spread(kac_device *dev, int32_t n_groups, int32_t each, kac_group *groups,
                          int32_t *group)
{
    (void)dev;
    for (int32_t g = 0; g < n_groups; g++) {
        groups[g].offset = g * each;
        groups[g].count = each;
        for (int32_t i = 0; i < each; i++)
            group[g * each + i] = g;
    }
    return KAC_OK;
}

kac_status kac_cpu_path(kac_device *dev, const kac_particles *x, int32_t children,
                        kac_particles *y)
{
    (void)dev;
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < x->n; i++)
        for (int64_t c = (int64_t)i * children; c < (int64_t)(i + 1) * children; c++)
            y->log_w[c] = x->log_w[i] + y->value[c];
    return KAC_OK;
}

kac_status kac_cpu_prune(kac_device *dev, const kac_prune_args *a)
{
    (void)dev;
    KAC_REQUIRE(a->keep >= 1 && a->keep <= a->roots && a->leaves >= 1);
#pragma omp parallel for schedule(static)
    for (int32_t g = 0; g < a->groups; g++) {
        int32_t first = g * a->roots, kept = g * a->keep;
        for (int32_t j = first; j < first + a->roots; j++) {
            int32_t best = j * a->leaves;
            for (int32_t leaf = best; leaf < (j + 1) * a->leaves; leaf++)
                if (a->score[leaf] > a->score[best]) best = leaf;
            a->best[j] = best;
        }
        for (int32_t j = 0; j < a->roots; j++)
            if (a->keep == a->roots || kac_root_rank(a, first, j) < a->keep)
                a->chosen[kept++] = a->best[first + j];
    }
    return KAC_OK;
}

/* ---- trees ------------------------------------------------------------------------------ */

kac_status kac_cpu_tree_plant(kac_device *dev, const kac_tree_args *a)
{
    (void)dev;
    kac_trees *t = a->trees;
    for (int32_t v = 0; v < t->n * t->capacity; v++)
        t->entry[v] = -1; /* of nodes to come, too */
    for (int32_t g = 0; g < t->n; g++)
        memcpy(t->x + row_at(kac_tree_begin(t, g), t->stride),
               a->x->x + row_at((int64_t)g * a->each, t->stride), (size_t)t->stride);
    return KAC_OK;
}

kac_status kac_cpu_tree_select(kac_device *dev, const kac_tree_args *a)
{
    (void)dev;
    kac_trees *t = a->trees;
    int64_t idle = 0, idle_objects = 0;
#pragma omp parallel for schedule(dynamic, 1) reduction(+ : idle, idle_objects)
    for (int32_t g = 0; g < t->n; g++) {
        int32_t v = kac_tree_choose(a, g), d = t->depth[v];
        bool object = d == a->stages;
        int32_t from = a->level[d], to = object || a->ahead ? 0 : a->level[d + 1];
        for (int32_t i = g * a->each; i < (g + 1) * a->each; i++) {
            memcpy(a->x->x + row_at(i, t->stride), t->x + row_at(v, t->stride),
                   (size_t)t->stride);
            a->x->entry[i] = t->entry[v];
            a->at[i] = v;
            a->from[i] = from;
            a->to[i] = to;
            idle += a->clock->level - (from - to) + object;
            idle_objects += object;
        }
    }
    a->idle[0] += idle;
    a->idle[1] += idle_objects;
    return KAC_OK;
}

kac_status kac_cpu_tree_advance(kac_device *dev, const kac_tree_args *a)
{
    (void)dev;
    kac_trees *t = a->trees;
    int32_t level = a->clock->level;
    bool leaves_node = a->depth[level + 1] >= 0;
#pragma omp parallel for schedule(static)
    for (int32_t g = 0; g < t->n; g++)
        for (int32_t i = g * a->each; i < (g + 1) * a->each; i++) {
            if (!kac_tree_moves(a, i, level)) continue;
            uint8_t *x = a->x->x + row_at(i, t->stride);
            if (leaves_node && a->keep_entries && a->ahead) t->entry[a->at[i]] = a->x->entry[i];
            memcpy(x, a->y->x + row_at(i, t->stride), (size_t)t->stride);
            /* At the end the entry of the state before keeps the row from being asked about. */
            if (a->ahead || level > a->to[i]) a->x->entry[i] = a->y->entry[i];
            if (a->depth[level] < 0) continue;
            a->at[i] = kac_tree_add(t, g, a->at[i], a->depth[level]);
            memcpy(t->x + row_at(a->at[i], t->stride), x, (size_t)t->stride);
        }
    return KAC_OK;
}

kac_status kac_cpu_tree_backup(kac_device *dev, const kac_tree_args *a)
{
    (void)dev;
#pragma omp parallel for schedule(dynamic, 1)
    for (int32_t g = 0; g < a->trees->n; g++)
        kac_tree_back_up(a, g);
    return KAC_OK;
}

kac_status kac_cpu_tree_commit(kac_device *dev, const kac_tree_args *a)
{
    (void)dev;
    for (int32_t g = 0; g < a->trees->n; g++)
        kac_tree_commit(a->trees, g);
    return KAC_OK;
}

kac_status kac_cpu_tree_draw(kac_device *dev, const kac_tree_args *a, int32_t each,
                             kac_particles *out)
{
    (void)dev;
    const kac_trees *t = a->trees;
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < t->n * each; i++) {
        int32_t v = kac_tree_drawn(a, i / each, i % each);
        memcpy(out->x + row_at(i, t->stride), t->x + row_at(v, t->stride), (size_t)t->stride);
        out->value[i] = t->value[v];
    }
    return KAC_OK;
}
