/* tree.h -- what is believed of nodes, and which child of a node is gone to: scalar maths.
 *
 * Kocsis and Szepesvari, "Bandit based Monte-Carlo planning", ECML 2006 (uct); Jain et al.,
 * "Diffusion tree sampling", arXiv 2506.20701, 2025 (soft values and the soft policy).
 */
#ifndef KAC_TREE_H
#define KAC_TREE_H

#include <math.h>

#include "exact.h"
#include "hd.h"
#include "particles.h"
#include "rng.h"
#include "types.h"

/* How good a child looks: its value within the tree's range, and more where it has been visited
 * little.  A value of -INFINITY counts as the least. */
KAC_HD static inline double kac_uct(double value, double low, double high, double explore,
                                    int32_t parent_visits, int32_t visits)
{
    double range = high - low;
    double q = range > 0 && value > low ? (value - low) / range : 0;
    return q + explore * sqrt(kac_log((double)parent_visits) / (double)visits);
}

/* How many children a node of so many visits may have. */
KAC_HD static inline double kac_tree_width(int32_t children, double widening, int32_t visits)
{
    double grown = visits > 1 ? kac_exp(widening * kac_log((double)visits)) : 1;
    return (double)children * grown;
}

/* alpha log mean exp(value / alpha) over the children of a node that has some. */
KAC_HD static inline double kac_soft_value(const kac_trees *t, int32_t node, double alpha)
{
    double top = -(double)INFINITY, sum = 0;
    for (int32_t c = t->child[node]; c >= 0; c = t->sibling[c])
        if (t->value[c] > top) top = t->value[c];
    if (top == -(double)INFINITY) return top;
    for (int32_t c = t->child[node]; c >= 0; c = t->sibling[c])
        sum += kac_exp((t->value[c] - top) / alpha);
    return top + alpha * kac_log(sum / t->children[node]);
}

/* The child of `node` that looks best, first on ties. */
KAC_HD static inline int32_t kac_uct_child(const kac_trees *t, int32_t node, double low,
                                           double high, double explore)
{
    int32_t best = -1;
    double most = 0;
    for (int32_t c = t->child[node]; c >= 0; c = t->sibling[c]) { /* the latest comes first */
        double score = kac_uct(t->value[c], low, high, explore, t->visits[node], t->visits[c]);
        if (best >= 0 && score < most) continue;
        best = c;
        most = score;
    }
    return best;
}

/* A child of `node` in proportion to exp(value / alpha), all alike where none has a weight. */
KAC_HD static inline int32_t kac_soft_child(const kac_trees *t, int32_t node, double alpha,
                                            kac_u32x4 draw)
{
    double top = -(double)INFINITY;
    uint64_t sum = 0, u = 0;
    for (int32_t c = t->child[node]; c >= 0; c = t->sibling[c])
        if (t->value[c] / alpha > top) top = t->value[c] / alpha;
    int blind = top == -(double)INFINITY;
    for (int32_t c = t->child[node]; c >= 0; c = t->sibling[c])
        sum += blind ? 1 : kac_weight(t->value[c] / alpha, top);
    u = kac_below(draw, 0, sum);
    for (int32_t c = t->child[node];; c = t->sibling[c]) {
        uint64_t w = blind ? 1 : kac_weight(t->value[c] / alpha, top);
        if (u < w) return c;
        u -= w;
    }
}

/* Whether node b is rather to be moved to than node a: it has met an allowed object and a has none,
 * then it has more visits, then the larger value. */
KAC_HD static inline int kac_is_rather(const kac_trees *t, int32_t b, int32_t a)
{
    int allowed_a = t->allowed[a] > 0, allowed_b = t->allowed[b] > 0;
    if (allowed_a != allowed_b) return allowed_b;
    if (t->visits[a] != t->visits[b]) return t->visits[b] > t->visits[a];
    return t->value[b] > t->value[a];
}

/* The child of `node` that is rather to be moved to than all others, the first on ties; -1: none. */
KAC_HD static inline int32_t kac_visited_child(const kac_trees *t, int32_t node)
{
    int32_t best = -1;
    for (int32_t c = t->child[node]; c >= 0; c = t->sibling[c]) /* the latest comes first */
        if (best < 0 || !kac_is_rather(t, best, c)) best = c;
    return best;
}

#endif /* KAC_TREE_H */
