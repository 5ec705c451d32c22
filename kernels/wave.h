/* wave.h -- what search does with one root of a path, or with one tree. */
#ifndef KAC_WAVE_H
#define KAC_WAVE_H

#include "tree.h"

/* ---- paths ------------------------------------------------------------------------------ */

/* How many roots of the group that starts at `first` come before root j. */
KAC_HD static inline int32_t kac_root_rank(const kac_prune_args *a, int32_t first, int32_t j)
{
    int32_t rank = 0;
    double own = a->score[a->best[first + j]];
    for (int32_t k = 0; k < a->roots; k++) {
        double other = a->score[a->best[first + k]];
        rank += other > own || (other == own && k < j);
    }
    return rank;
}

/* ---- trees ------------------------------------------------------------------------------ */

/* A new node of tree g, whose state is still to be copied; parent -1: node 0. */
KAC_HD static inline int32_t kac_tree_add(kac_trees *t, int32_t g, int32_t parent,
                                          int32_t depth)
{
    int32_t v = g * t->capacity + t->count[g]++;
    t->parent[v] = parent;
    t->child[v] = -1;
    t->sibling[v] = -1;
    t->children[v] = 0;
    t->depth[v] = depth;
    t->visits[v] = 0;
    t->allowed[v] = 0;
    t->sum[v] = 0;
    t->value[v] = 0;
    t->entry[v] = -1;
    if (parent < 0) return v;
    t->sibling[v] = t->child[parent];
    t->child[parent] = v;
    t->children[parent]++;
    return v;
}

/* Tree g begins anew as node 0. */
KAC_HD static inline int32_t kac_tree_begin(kac_trees *t, int32_t g)
{
    t->count[g] = 0;
    t->low[g] = (double)INFINITY;
    t->high[g] = -(double)INFINITY;
    t->root[g] = kac_tree_add(t, g, -1, 0);
    return t->root[g];
}

/* The child that the soft policy goes to from a node, for sample `particle` of tree g. */
KAC_HD static inline int32_t kac_tree_draw_child(const kac_tree_args *a, int32_t g,
                                                 int32_t node, int32_t particle)
{
    const kac_group *group = &a->groups[g];
    kac_key key = {a->seed, (uint32_t)a->clock->move, (uint32_t)group->id, (uint32_t)particle,
                   0};
    kac_u32x4 draw = kac_draw(key, KAC_DRAW_TREE, (uint32_t)a->trees->depth[node]);
    return kac_soft_child(a->trees, node, group->alpha, draw);
}

/* Where the policy leads to from the root of tree g: a node that may have another child, or an
 * object. */
KAC_HD static inline int32_t kac_tree_choose(const kac_tree_args *a, int32_t g)
{
    const kac_trees *t = a->trees;
    int32_t v = t->root[g];
    while (t->depth[v] < a->stages &&
           !(t->children[v] < kac_tree_width(a->children, a->widening, t->visits[v])))
        v = a->policy == KAC_POLICY_UCT ? kac_uct_child(t, v, t->low[g], t->high[g], a->explore)
                                        : kac_tree_draw_child(a, g, v, 0);
    return v;
}

/* The end of the soft policy's way from the root of tree g, for sample `particle`. */
KAC_HD static inline int32_t kac_tree_drawn(const kac_tree_args *a, int32_t g, int32_t particle)
{
    int32_t v = a->trees->root[g];
    while (a->trees->child[v] >= 0)
        v = kac_tree_draw_child(a, g, v, particle);
    return v;
}

/* Whether row i at work moves on arriving at this level. */
KAC_HD static inline int kac_tree_moves(const kac_tree_args *a, int32_t i, int32_t level)
{
    return level >= a->to[i] && level < a->from[i];
}

/* The mean of what went through node v of tree g; a forbidden object counts as the least value that the
 * tree has met, and where there was nothing else the mean is -INFINITY. */
KAC_HD static inline double kac_mean_value(const kac_trees *t, int32_t g, int32_t v)
{
    int32_t forbidden = t->visits[v] - t->allowed[v];
    if (forbidden == 0) return t->sum[v] / t->visits[v];
    if (t->allowed[v] == 0) return -(double)INFINITY;
    return (t->sum[v] + forbidden * t->low[g]) / t->visits[v];
}

/* One visit and one value go up from node v of tree g. */
KAC_HD static inline void kac_tree_go_up(const kac_tree_args *a, int32_t g, int32_t v,
                                         double value)
{
    kac_trees *t = a->trees;
    if (isfinite(value) && value < t->low[g]) t->low[g] = value;
    if (isfinite(value) && value > t->high[g]) t->high[g] = value;
    for (; v >= 0; v = t->parent[v]) {
        t->visits[v]++;
        t->allowed[v] += isfinite(value) != 0;
        t->sum[v] += isfinite(value) ? value : 0;
        switch (a->backup) {
        case KAC_BACKUP_MEAN: t->value[v] = kac_mean_value(t, g, v); break;
        case KAC_BACKUP_MAX:
            if (t->visits[v] == 1 || value > t->value[v]) t->value[v] = value;
            break;
        case KAC_BACKUP_SOFT:
            t->value[v] = t->children[v] > 0 ? kac_soft_value(t, v, a->groups[g].alpha) : value;
            break;
        }
    }
}

/* The values of the rows of tree g go up, row by row. */
KAC_HD static inline void kac_tree_back_up(const kac_tree_args *a, int32_t g)
{
    kac_trees *t = a->trees;
    for (int32_t i = g * a->each; i < (g + 1) * a->each; i++) {
        int32_t v = a->at[i];
        if (a->from[i] == a->to[i]) {
            kac_tree_go_up(a, g, v, t->value[v]);
            return;
        }
        if (a->keep_entries && !a->ahead) t->entry[v] = a->x->entry[i];
        kac_tree_go_up(a, g, v, a->x->value[i]);
    }
}

/* The root of tree g moves to its most visited child. */
KAC_HD static inline void kac_tree_commit(kac_trees *t, int32_t g)
{
    int32_t child = kac_visited_child(t, t->root[g]);
    if (child >= 0) t->root[g] = child;
}

#endif /* KAC_WAVE_H */
