/* search_cpu.c -- paths and trees of noisy states on the CPU.  Trees are independent of each
 * other, and what happens within one happens in a fixed order. */
#include "tree.h"

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

/* How many roots of the group that starts at `first` come before root j. */
static int32_t rank_of(const kac_prune_args *a, int32_t first, int32_t j)
{
    int32_t rank = 0;
    double own = a->score[a->best[first + j]];
    for (int32_t k = 0; k < a->roots; k++) {
        double other = a->score[a->best[first + k]];
        rank += other > own || (other == own && k < j);
    }
    return rank;
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
            if (a->keep == a->roots || rank_of(a, first, j) < a->keep)
                a->chosen[kept++] = a->best[first + j];
    }
    return KAC_OK;
}

/* ---- trees ------------------------------------------------------------------------------ */

/* A new node of tree g; parent -1: node 0. */
static int32_t add_node(kac_trees *t, int32_t g, int32_t parent, int32_t depth,
                        const uint8_t *x)
{
    int32_t v = g * t->capacity + t->count[g]++;
    memcpy(t->x + row_at(v, t->stride), x, (size_t)t->stride);
    t->parent[v] = parent;
    t->child[v] = -1;
    t->sibling[v] = -1;
    t->children[v] = 0;
    t->depth[v] = depth;
    t->visits[v] = 0;
    t->sum[v] = 0;
    t->value[v] = 0;
    t->entry[v] = -1;
    if (parent < 0) return v;
    t->sibling[v] = t->child[parent];
    t->child[parent] = v;
    t->children[parent]++;
    return v;
}

kac_status kac_cpu_tree_plant(kac_device *dev, const kac_tree_args *a)
{
    (void)dev;
    kac_trees *t = a->trees;
    for (int32_t v = 0; v < t->n * t->capacity; v++)
        t->entry[v] = -1; /* of nodes to come, too */
    for (int32_t g = 0; g < t->n; g++) {
        t->count[g] = 0;
        t->root[g] = add_node(t, g, -1, 0, a->x->x + row_at((int64_t)g * a->each, t->stride));
        t->low[g] = (double)INFINITY;
        t->high[g] = -(double)INFINITY;
    }
    return KAC_OK;
}

/* The child that the soft policy goes to from a node, for sample `particle` of tree g. */
static int32_t draw_child(const kac_tree_args *a, int32_t g, int32_t node, int32_t particle)
{
    const kac_group *group = &a->groups[g];
    kac_key key = {.seed = a->seed,
                   .move = (uint32_t)a->clock->move,
                   .group = (uint32_t)group->id,
                   .particle = (uint32_t)particle};
    kac_u32x4 draw = kac_draw(key, KAC_DRAW_TREE, (uint32_t)a->trees->depth[node]);
    return kac_soft_child(a->trees, node, group->alpha, draw);
}

static int32_t choose_node(const kac_tree_args *a, int32_t g)
{
    const kac_trees *t = a->trees;
    int32_t v = t->root[g];
    while (t->depth[v] < a->stages &&
           !(t->children[v] < kac_tree_width(a->children, a->widening, t->visits[v])))
        v = a->policy == KAC_POLICY_UCT ? kac_uct_child(t, v, t->low[g], t->high[g], a->explore)
                                        : draw_child(a, g, v, 0);
    return v;
}

kac_status kac_cpu_tree_select(kac_device *dev, const kac_tree_args *a)
{
    (void)dev;
    kac_trees *t = a->trees;
    int64_t idle = 0, idle_objects = 0;
#pragma omp parallel for schedule(dynamic, 1) reduction(+ : idle, idle_objects)
    for (int32_t g = 0; g < t->n; g++) {
        int32_t v = choose_node(a, g), d = t->depth[v];
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
            if (level < a->to[i] || level >= a->from[i]) continue;
            uint8_t *x = a->x->x + row_at(i, t->stride);
            if (leaves_node && a->keep_entries && a->ahead) t->entry[a->at[i]] = a->x->entry[i];
            memcpy(x, a->y->x + row_at(i, t->stride), (size_t)t->stride);
            /* At the end the entry of the state before keeps the row from being asked about. */
            if (a->ahead || level > a->to[i]) a->x->entry[i] = a->y->entry[i];
            if (a->depth[level] >= 0) a->at[i] = add_node(t, g, a->at[i], a->depth[level], x);
        }
    return KAC_OK;
}

/* One visit and one value go up from node v of tree g. */
static void go_up(const kac_tree_args *a, int32_t g, int32_t v, double value)
{
    kac_trees *t = a->trees;
    if (isfinite(value) && value < t->low[g]) t->low[g] = value;
    if (isfinite(value) && value > t->high[g]) t->high[g] = value;
    for (; v >= 0; v = t->parent[v]) {
        t->visits[v]++;
        t->sum[v] += value;
        switch (a->backup) {
        case KAC_BACKUP_MEAN: t->value[v] = t->sum[v] / t->visits[v]; break;
        case KAC_BACKUP_MAX:
            if (t->visits[v] == 1 || value > t->value[v]) t->value[v] = value;
            break;
        case KAC_BACKUP_SOFT:
            t->value[v] = t->children[v] > 0 ? kac_soft_value(t, v, a->groups[g].alpha) : value;
            break;
        }
    }
}

kac_status kac_cpu_tree_backup(kac_device *dev, const kac_tree_args *a)
{
    (void)dev;
    kac_trees *t = a->trees;
#pragma omp parallel for schedule(dynamic, 1)
    for (int32_t g = 0; g < t->n; g++)
        for (int32_t i = g * a->each; i < (g + 1) * a->each; i++) {
            int32_t v = a->at[i];
            if (a->from[i] == a->to[i]) {
                go_up(a, g, v, t->value[v]);
                break;
            }
            if (a->keep_entries && !a->ahead) t->entry[v] = a->x->entry[i];
            go_up(a, g, v, a->x->value[i]);
        }
    return KAC_OK;
}

kac_status kac_cpu_tree_commit(kac_device *dev, const kac_tree_args *a)
{
    (void)dev;
    kac_trees *t = a->trees;
    for (int32_t g = 0; g < t->n; g++) {
        int32_t child = kac_visited_child(t, t->root[g]);
        if (child >= 0) t->root[g] = child;
    }
    return KAC_OK;
}

kac_status kac_cpu_tree_draw(kac_device *dev, const kac_tree_args *a, int32_t each,
                             kac_particles *out)
{
    (void)dev;
    const kac_trees *t = a->trees;
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < t->n * each; i++) {
        int32_t g = i / each, v = t->root[g];
        while (t->child[v] >= 0)
            v = draw_child(a, g, v, i % each);
        memcpy(out->x + row_at(i, t->stride), t->x + row_at(v, t->stride), (size_t)t->stride);
        out->value[i] = t->value[v];
    }
    return KAC_OK;
}
