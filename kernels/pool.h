/* pool.h -- what one parent, one candidate, one pool does in selection: the maths that both
 * backends share. */
#ifndef KAC_POOL_H
#define KAC_POOL_H

#include "particles.h"
#include "rng.h"
#include "select.h"

/* The order of argmax and top_k: larger first, then lower index. */
KAC_HD static inline bool kac_is_better(const double *l, int32_t i, int32_t j)
{
    return l[i] > l[j] || (l[i] == l[j] && i < j);
}

/* ---- the parent stage ------------------------------------------------------------------- */

/* Whether particle i follows the path that its group retains. */
KAC_HD static inline bool kac_is_retained(const kac_select_args *a, int32_t i)
{
    int32_t g = a->x->group[i];
    return a->held != NULL && a->held[g] && i == a->groups[g].offset;
}

/* The point below `sum` that chooses among the children of particle i. */
KAC_HD static inline uint64_t kac_parent_point(const kac_select_args *a, int32_t i,
                                               uint64_t sum)
{
    const kac_group *group = &a->groups[a->x->group[i]];
    kac_key key = {a->seed, (uint32_t)a->clock->move, (uint32_t)group->id,
                   (uint32_t)(i - group->offset), 0};
    return kac_below(kac_draw(key, KAC_DRAW_PARENT, 0), 0, sum);
}

/* Log-weight of a child of particle i after the stage, from its own before it and log sum exp of
 * those of all children. */
KAC_HD static inline double kac_picked_log_w(const kac_select_args *a, int32_t i, double own,
                                             double log_sum)
{
    if (a->parent_rule == KAC_RULE_NONE || own == -(double)INFINITY) return own;
    if (a->parent_rule == KAC_RULE_CATEGORICAL && a->keep_normaliser) return log_sum;
    return a->x->log_w[i];
}

/* ---- the group stage -------------------------------------------------------------------- */

/* Candidates that compete for the slots of a pool. */
typedef struct kac_pool {
    kac_key key;
    int32_t parents;    /* N */
    int32_t candidates; /* C = N K */
    int32_t first;      /* candidate 0 among those of all pools */
    int32_t first_slot; /* of the offspring */
    int32_t n;          /* offspring */
    double alpha;       /* of the first group */
    const int32_t *row; /* [C] rows of y */
    double *l;          /* [C] log-weights */
    uint64_t *w;        /* [C] integer weights, or running sums of them */
    int32_t *offspring; /* [C] */
    int32_t *chosen;    /* [n] indices of candidates, then rows of y */
    uint64_t sum;       /* of the weights */
    bool held;          /* candidate 0 is retained: it has the first slot */
} kac_pool;

KAC_HD static inline kac_pool kac_pool_open(const kac_select_args *a, int32_t number)
{
    int32_t g = a->pool_first[number], end = a->pool_first[number + 1];
    const kac_group *first = &a->groups[g], *last = &a->groups[end - 1];
    int32_t each = a->levels[a->clock->level].particles;
    kac_pool p;
    p.key.seed = a->seed;
    p.key.move = (uint32_t)a->clock->move;
    p.key.group = (uint32_t)first->id;
    p.key.particle = 0;
    p.key.child = 0;
    p.parents = last->offset + last->count - first->offset;
    p.candidates = p.parents * a->keep;
    p.first = first->offset * a->keep;
    p.first_slot = each > 0 ? g * each : first->offset;
    p.n = each > 0 ? (end - g) * each : p.parents;
    p.alpha = first->alpha;
    p.row = a->pick + p.first;
    p.l = a->pick_w + p.first;
    p.w = a->weight + p.first;
    p.offspring = a->offspring + p.first;
    p.chosen = a->chosen + p.first_slot;
    p.sum = 0;
    p.held = a->held != NULL && a->held[g];
    return p;
}

KAC_HD static inline kac_u32x4 kac_pool_draw(const kac_pool *p, int32_t number)
{
    return kac_draw(p->key, KAC_DRAW_GROUP, (uint32_t)number);
}

/* What candidate i says of the largest |value|: its own, or 0 where its weight or value does not
 * count. */
KAC_HD static inline double kac_pool_size(const kac_select_args *a, const kac_pool *p,
                                          int32_t i)
{
    double size = fabs(a->y->value[p->row[i]]);
    return p->l[i] > -(double)INFINITY && size < (double)INFINITY ? size : 0;
}

/* Log-weight of candidate i made of its value; weight zero stays.  An invalid completion on the way
 * comes after all that are valid, and does not kill: only the end does. */
KAC_HD static inline double kac_pool_value(const kac_select_args *a, const kac_pool *p,
                                           int32_t i, double unit)
{
    if (!(p->l[i] > -(double)INFINITY)) return p->l[i];
    double value = a->y->value[p->row[i]];
    if (value == -(double)INFINITY && a->clock->level > 0) return -1e300;
    return unit > 0 ? value / unit : 0;
}

KAC_HD static inline bool kac_pool_selects(const kac_select_args *a,
                                           const kac_weight_sums *sums, int32_t n)
{
    switch ((kac_trigger)a->levels[a->clock->level].trigger) {
    case KAC_TRIGGER_NEVER: return false;
    case KAC_TRIGGER_ALWAYS: return a->group_rule != KAC_RULE_NONE;
    case KAC_TRIGGER_ESS: break;
    }
    return a->group_rule != KAC_RULE_NONE && kac_ess_is_below(sums, n, a->below);
}

/* The point of the law by which killing keeps a retained candidate 0: it goes on in the first
 * slot i with sum of KAC_WEIGHT_ONE - w[0 .. i] + the sum of all weights > the point. */
KAC_HD static inline uint64_t kac_pool_retained_point(const kac_pool *p)
{
    return kac_below(kac_pool_draw(p, p->n), 0, (uint64_t)p->n * KAC_WEIGHT_ONE);
}

/* How many of the best stay under rule replace. */
KAC_HD static inline int32_t kac_pool_stay(const kac_pool *p, double fraction)
{
    int32_t worst = (int32_t)(fraction * p->n);
    int32_t stay = p->n - (worst > 1 ? worst : 1);
    return stay < 1 ? 1 : stay;
}

/* Log-weight of a survivor; top_k may have to take what has weight zero. */
KAC_HD static inline double kac_pool_log_w(double own, bool selects)
{
    return selects && own > -(double)INFINITY ? 0 : own;
}

/* What was decided about a pool. */
typedef struct kac_pool_verdict {
    double top; /* the largest log-weight */
    kac_weight_sums sums;
    bool dead, selects;
} kac_pool_verdict;

/* Tells a group of the pool. */
KAC_HD static inline void kac_pool_tell(const kac_select_args *a, const kac_pool *p,
                                        const kac_pool_verdict *v, kac_group *group)
{
    group->ess = v->dead ? 0 : kac_ess_share(&v->sums, p->candidates);
    group->selected = v->selects;
    group->dead = v->dead;
    if (v->dead) group->log_z = -(double)INFINITY;
    if (v->selects && a->group_rule == KAC_RULE_CATEGORICAL && a->weights == KAC_WEIGHTS_PROPER)
        group->log_z += kac_log_mean(v->top, v->sums.sum, p->parents);
}

#endif /* KAC_POOL_H */
