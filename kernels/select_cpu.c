/* select_cpu.c -- both stages of selection: among siblings, then within pools of groups. */
#include "pool.h"

#include <string.h>

#include "fault.h"
#include "ops.h"
#include "select_cpu.h"

/* ---- the best --------------------------------------------------------------------------- */

/* Restores the heap below `at`; its root is the worst. */
static void sift(const double *l, int32_t *heap, int32_t size, int32_t at)
{
    for (int32_t below = 2 * at + 1; below < size; below = 2 * at + 1) {
        if (below + 1 < size && kac_is_better(l, heap[below], heap[below + 1])) below++;
        if (kac_is_better(l, heap[below], heap[at])) return;
        int32_t index = heap[at];
        heap[at] = heap[below];
        heap[below] = index;
        at = below;
    }
}

void kac_cpu_take_best(const double *l, int32_t n, int32_t keep, int32_t *best)
{
    for (int32_t i = 0; i < keep; i++)
        best[i] = i;
    for (int32_t i = keep / 2 - 1; i >= 0; i--)
        sift(l, best, keep, i);
    for (int32_t i = keep; i < n; i++) {
        if (!kac_is_better(l, i, best[0])) continue;
        best[0] = i;
        sift(l, best, keep, 0);
    }
    for (int32_t size = keep - 1; size > 0; size--) {
        int32_t worst = best[0];
        best[0] = best[size];
        best[size] = worst;
        sift(l, best, size, 0);
    }
}

static double largest(const double *l, int32_t n)
{
    double top = -(double)INFINITY;
    for (int32_t i = 0; i < n; i++)
        if (l[i] > top) top = l[i];
    return top;
}

/* ---- the parent stage ------------------------------------------------------------------- */

/* One of the children l[0 .. M-1] in proportion to exp(l), or the first where it is retained;
 * *log_sum = log sum exp(l). */
static int32_t draw_child(const kac_select_args *a, int32_t i, const double *l, double *log_sum)
{
    double top = largest(l, a->children);
    uint64_t sum = 0, c = 0;
    int32_t m = 0;

    *log_sum = top;
    if (top == -(double)INFINITY) return 0;
    for (m = 0; m < a->children; m++)
        sum += kac_weight(l[m], top);
    *log_sum = kac_log_mean(top, sum, 1);
    if (kac_is_retained(a, i)) return 0;

    uint64_t u = kac_parent_point(a, i, sum);
    for (m = 0; (c += kac_weight(l[m], top)) <= u;)
        m++;
    return m;
}

static void select_children(const kac_select_args *a, int32_t i)
{
    const double *l = a->y->log_w + (int64_t)i * a->children;
    int32_t *pick = a->pick + (int64_t)i * a->keep;
    double *pick_w = a->pick_w + (int64_t)i * a->keep;
    double log_sum = 0;

    switch (a->parent_rule) {
    case KAC_RULE_NONE:
        for (int32_t k = 0; k < a->keep; k++)
            pick[k] = k;
        break;
    case KAC_RULE_CATEGORICAL: pick[0] = draw_child(a, i, l, &log_sum); break;
    case KAC_RULE_ARGMAX:
    case KAC_RULE_TOP_K: kac_cpu_take_best(l, a->children, a->keep, pick); break;
    case KAC_RULE_REPLACE: break; /* groups only */
    }
    for (int32_t k = 0; k < a->keep; k++) {
        pick_w[k] = kac_picked_log_w(a, i, l[pick[k]], log_sum);
        pick[k] += i * a->children;
    }
}

kac_status kac_cpu_select_parent(kac_device *dev, const kac_select_args *a)
{
    (void)dev;
    KAC_REQUIRE(a->parent_rule == KAC_RULE_TOP_K || a->parent_rule == KAC_RULE_NONE ||
                a->keep == 1);
    KAC_REQUIRE(a->keep >= 1 && a->keep <= a->children && a->parent_rule != KAC_RULE_REPLACE);
    KAC_REQUIRE(a->parent_rule != KAC_RULE_NONE || a->keep == a->children);
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < a->x->n; i++)
        select_children(a, i);
    return KAC_OK;
}

/* ---- offspring of a pool ---------------------------------------------------------------- */

static void run_sums(kac_pool *p)
{
    for (int32_t i = 1; i < p->candidates; i++)
        p->w[i] += p->w[i - 1];
}

static void systematic(kac_pool *p)
{
    uint64_t u = kac_below(kac_pool_draw(p, 0), 0, p->sum);
    int32_t before = 0;
    run_sums(p);
    for (int32_t i = 0; i < p->candidates; i++) {
        int32_t upto = kac_systematic(p->w[i], p->n, u, p->sum);
        p->offspring[i] = upto - before;
        before = upto;
    }
}

static void stratified(kac_pool *p)
{
    run_sums(p);
    for (int32_t j = 0; j < p->n; j++) {
        uint64_t u = kac_stratum(j, p->n, kac_below(kac_pool_draw(p, j), 0, p->sum), p->sum);
        p->offspring[kac_first_above(p->w, p->candidates, u)]++;
    }
}

/* Where candidate 0 is retained, it has one slot for certain, and the others are drawn as ever:
 * the slots are independent of each other.  Andrieu, Doucet and Holenstein, "Particle Markov chain
 * Monte Carlo methods", J. R. Stat. Soc. B 72(3), 2010. */
static void multinomial(kac_pool *p)
{
    run_sums(p);
    p->offspring[0] += p->held;
    for (int32_t j = p->held; j < p->n; j++) {
        uint64_t u = kac_below(kac_pool_draw(p, j), 0, p->sum);
        p->offspring[kac_first_above(p->w, p->candidates, u)]++;
    }
}

static void residual(kac_pool *p)
{
    int32_t last = p->candidates - 1;
    for (int32_t i = 0; i <= last; i++)
        p->offspring[i] = kac_share_of(p->w[i], p->n, p->sum).whole;
    run_sums(p);
    for (int32_t i = 1; i <= last; i++)
        p->offspring[i] += p->offspring[i - 1];

    int32_t left = p->n - p->offspring[last];
    for (int32_t j = 0; j < left; j++) {
        kac_u32x4 words = kac_pool_draw(p, j);
        uint64_t u1 = kac_below(words, 0, (uint64_t)left), u2 = kac_below(words, 1, p->sum);
        p->chosen[j] = kac_residual(p->w, p->offspring, p->candidates, p->n, u1, u2);
    }
    for (int32_t i = last; i > 0; i--)
        p->offspring[i] -= p->offspring[i - 1];
    for (int32_t j = 0; j < left; j++)
        p->offspring[p->chosen[j]]++;
}

/* Leaves first .. first + size - 1 of the tournament; at the right edge fewer exist. */
typedef struct subtree {
    int32_t first;
    int32_t size; /* a power of two */
    int32_t champion;
    uint64_t residue;
} subtree;

/* Two neighbours meet.  The number of the draw is the first leaf of the second, which no other
 * match has. */
static subtree meet(kac_pool *p, const subtree *one, const subtree *two)
{
    uint64_t range = kac_match_range(one->residue, two->residue, p->sum);
    uint64_t u = kac_below(kac_pool_draw(p, two->first), 0, range);
    kac_match match = kac_match_play(one->residue, two->residue, p->sum, u);
    int32_t goes_on = match.first_goes_on ? one->champion : two->champion;
    p->offspring[one->champion + two->champion - goes_on] += match.decided;
    return (subtree){one->first, 2 * one->size, goes_on, match.residue};
}

/* Leaves come in order; the stack holds finished subtrees, larger ones below, as a binary
 * counter holds its ones.  At the end the right edge is played from the smallest up. */
static void tournament(kac_pool *p)
{
    subtree stack[32];
    int32_t height = 0;
    for (int32_t i = 0; i < p->candidates; i++) {
        kac_share share = kac_share_of(p->w[i], p->n, p->sum);
        subtree top = {i, 1, i, share.residue};
        p->offspring[i] = share.whole;
        while (height > 0 && stack[height - 1].size == top.size)
            top = meet(p, &stack[--height], &top);
        stack[height++] = top;
    }
    for (; height > 1; height--)
        stack[height - 2] = meet(p, &stack[height - 2], &stack[height - 1]);
}

/* The slot in which a retained candidate 0 goes on, given that it does; slots differ, because
 * each prefers its own candidate.  With w* the largest weight and S the sum, slot i has candidate 0
 * with probability (1 - w_i / w*) w_0 / S, slot 0 with w_0 / w* more, N w_0 / S in all: so it is
 * slot i with probability (w* - w_i) / N w*, and slot 0 with S / N w* more. */
static int32_t retained_slot(const kac_pool *p)
{
    uint64_t u = kac_pool_retained_point(p);
    uint64_t c = p->sum + KAC_WEIGHT_ONE - p->w[0];
    int32_t i = 0;
    while (c <= u)
        c += KAC_WEIGHT_ONE - p->w[++i];
    return i;
}

static void killing(kac_pool *p)
{
    int32_t redrawn = 0, retained = p->held ? retained_slot(p) : -1;
    for (int32_t i = 0; i < p->n; i++) {
        if (i == retained)
            p->offspring[0]++;
        else if (kac_survives(p->w[i], kac_below(kac_pool_draw(p, i), 0, KAC_WEIGHT_ONE)))
            p->offspring[i]++;
        else
            p->chosen[redrawn++] = i;
    }
    run_sums(p);
    for (int32_t j = 0; j < redrawn; j++) {
        uint64_t u = kac_below(kac_pool_draw(p, p->chosen[j]), 1, p->sum);
        p->offspring[kac_first_above(p->w, p->candidates, u)]++;
    }
}

/* The worst of the pool's candidates (one a particle) give way to draws from the others. */
static void replace_worst(kac_pool *p, double fraction)
{
    int32_t stay = kac_pool_stay(p, fraction);
    uint64_t sum = 0;
    kac_cpu_take_best(p->l, p->candidates, stay, p->chosen);
    for (int32_t i = 0; i < stay; i++) { /* running sums of the best, in their order */
        sum += kac_weight(p->l[p->chosen[i]], p->l[p->chosen[0]]);
        p->w[i] = sum;
    }
    for (int32_t j = stay; j < p->n; j++) {
        uint64_t u = kac_below(kac_pool_draw(p, j), 0, sum);
        p->chosen[j] = p->chosen[kac_first_above(p->w, stay, u)];
    }
}

/* chosen = candidate i offspring[i] times, in the order of i. */
static void draw_offspring(kac_pool *p, kac_scheme scheme)
{
    memset(p->offspring, 0, (size_t)p->candidates * sizeof *p->offspring);
    switch (scheme) {
    case KAC_SCHEME_TOURNAMENT: tournament(p); break;
    case KAC_SCHEME_SYSTEMATIC: systematic(p); break;
    case KAC_SCHEME_STRATIFIED: stratified(p); break;
    case KAC_SCHEME_RESIDUAL: residual(p); break;
    case KAC_SCHEME_MULTINOMIAL: multinomial(p); break;
    case KAC_SCHEME_KILLING: killing(p); break;
    }
    int32_t j = 0;
    for (int32_t i = 0; i < p->candidates; i++)
        for (int32_t k = 0; k < p->offspring[i]; k++)
            p->chosen[j++] = i;
}

/* ---- the group stage -------------------------------------------------------------------- */

/* Candidate of each slot, and the log-weights that go with them. */
static void choose(const kac_select_args *a, kac_pool *p, bool selects)
{
    kac_rule rule = selects ? a->group_rule : KAC_RULE_NONE;
    switch (rule) {
    case KAC_RULE_NONE:
        for (int32_t i = 0; i < p->n; i++)
            p->chosen[i] = i * a->keep;
        break;
    case KAC_RULE_CATEGORICAL: draw_offspring(p, a->scheme); break;
    case KAC_RULE_ARGMAX:
        kac_cpu_take_best(p->l, p->candidates, 1, p->chosen);
        for (int32_t i = 1; i < p->n; i++)
            p->chosen[i] = p->chosen[0];
        break;
    case KAC_RULE_TOP_K: kac_cpu_take_best(p->l, p->candidates, p->n, p->chosen); break;
    case KAC_RULE_REPLACE: replace_worst(p, a->fraction); break;
    }
    for (int32_t i = 0; i < p->n; i++) {
        a->log_w[p->first_slot + i] = kac_pool_log_w(p->l[p->chosen[i]], selects);
        p->chosen[i] = p->row[p->chosen[i]];
    }
}

/* Log-weights made of values; weight zero stays. */
static void weigh_values(const kac_select_args *a, kac_pool *p)
{
    double unit = 0;
    if (a->weights == KAC_WEIGHTS_VALUE) unit = p->alpha;
    for (int32_t i = 0; i < p->candidates && a->weights == KAC_WEIGHTS_SCALED; i++) {
        double size = kac_pool_size(a, p, i);
        if (size > unit) unit = size;
    }
    for (int32_t i = 0; i < p->candidates; i++)
        p->l[i] = kac_pool_value(a, p, i, unit);
}

/* Returns whether the pool is dead. */
static bool select_pool(const kac_select_args *a, int32_t number)
{
    kac_pool p = kac_pool_open(a, number);
    kac_pool_verdict v = {0, {0, 0, 0}, false, false};
    if (a->weights != KAC_WEIGHTS_PROPER) weigh_values(a, &p);
    v.top = largest(p.l, p.candidates);
    v.dead = v.top == -(double)INFINITY;

    if (!v.dead) {
        for (int32_t i = 0; i < p.candidates; i++) {
            p.w[i] = kac_weight(p.l[i], v.top);
            kac_weight_add(&v.sums, p.w[i]);
        }
        p.sum = v.sums.sum;
        v.selects = kac_pool_selects(a, &v.sums, p.candidates);
    }
    choose(a, &p, v.selects);
    for (int32_t g = a->pool_first[number]; g < a->pool_first[number + 1]; g++)
        kac_pool_tell(a, &p, &v, &a->groups[g]);
    return v.dead;
}

kac_status kac_cpu_select_group(kac_device *dev, const kac_select_args *a)
{
    (void)dev;
    KAC_REQUIRE(a->scheme != KAC_SCHEME_KILLING || a->group_rule != KAC_RULE_CATEGORICAL ||
                a->keep == 1);
    int32_t worst = INT32_MAX;
#pragma omp parallel for schedule(dynamic, 1) reduction(min : worst)
    for (int32_t number = 0; number < a->pools; number++) {
        if (!select_pool(a, number)) continue;
        int32_t slot = a->groups[a->pool_first[number]].offset;
        if (slot < worst) worst = slot;
    }
    if (worst < INT32_MAX && a->dead_is_error)
        kac_fault_note(a->fault, (kac_trouble){KAC_FAULT_DEAD, worst, a->clock->move, -1});
    return KAC_OK;
}
