/* pool_cuda.cuh -- what a block does with a pool of groups, or a part of one, in selection.
 *
 * The group stage is a list of phases, each parallel over candidates or offspring.  Those here
 * serve small pools, of which a block does all phases, and large ones, of which it does a part
 * of one.  Weights are integers, so sums of any shape give the CPU's bits.
 */
#ifndef KAC_POOL_CUDA_CUH
#define KAC_POOL_CUDA_CUH

#include "block.cuh"
#include "fault.cuh"
#include "pool.h"
#include "weights.cuh"

/* The arguments with the host structs that they point to, and working memory. */
struct select_call {
    kac_select_args a;
    kac_particles x, y;
    int32_t *count; /* [n K] */
};

static __device__ inline kac_select_args select_args_of(const select_call *call)
{
    kac_select_args a = call->a;
    a.x = &call->x;
    a.y = &call->y;
    return a;
}

/* ---- the best --------------------------------------------------------------------------- */

/* Compares and exchanges pairs t, t + step, ...: step `half` of a bitonic sort of
 * order[0 .. n-1] in which the better always moves to the lower place, so places from n on, as if
 * they held the worst, never take part.  mirrored: the first step of a stage. */
static __device__ inline void pool_exchange(const double *l, int32_t *order, int32_t n,
                                            int32_t half, bool mirrored, int32_t t,
                                            int32_t step)
{
    const int32_t mask = mirrored ? 2 * half - 1 : half;
    for (;; t += step) {
        int32_t i = 2 * t - (t & (half - 1)), j = i ^ mask;
        if (i >= n) break;
        if (j >= n || !kac_is_better(l, order[j], order[i])) continue;
        int32_t worse = order[i];
        order[i] = order[j];
        order[j] = worse;
    }
}

/* Steps half, half / 2, .. 1 of a stage, by a block. */
static __device__ inline void pool_merge(const double *l, int32_t *order, int32_t n,
                                         int32_t half, bool mirrored)
{
    for (; half > 0; half /= 2, mirrored = false) {
        pool_exchange(l, order, n, half, mirrored, (int32_t)threadIdx.x, (int32_t)blockDim.x);
        __syncthreads();
    }
}

/* order = first .. first + n - 1, the best first, by a block. */
static __device__ inline void pool_sort(const double *l, int32_t *order, int32_t first,
                                        int32_t n)
{
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += (int32_t)blockDim.x)
        order[i] = first + i;
    __syncthreads();
    for (int32_t half = 1; half < n; half *= 2)
        pool_merge(l, order, n, half, true);
}

/* ---- phases of a pool ------------------------------------------------------------------- */

/* The candidates, or offspring, first .. first + size - 1 that a block works on. */
struct pool_part {
    int32_t first, size;
};

static __device__ inline int32_t pool_end(pool_part on, int32_t n)
{
    return n - on.first < on.size ? n : on.first + on.size;
}

/* for (i = the thread's first; i < what there is of n in the part; ...) */
#define EACH_OF(i, on, n)                                                                      \
    for (int32_t i = (on).first + (int32_t)threadIdx.x, end_ = pool_end((on), (n)); i < end_;  \
         i += (int32_t)blockDim.x)

/* What a pool is to its phases. */
struct pool_stage {
    const kac_select_args *a;
    kac_pool p;
    kac_pool_verdict v;
    int32_t best;   /* the first candidate with the largest log-weight */
    int32_t *count; /* [C] offspring of each candidate, or candidates in order */
};

/* The largest |value| that counts in the part. */
static __device__ inline double pool_find_unit(const pool_stage *s, pool_part on)
{
    double unit = 0;
    EACH_OF (i, on, s->p.candidates) {
        double size = kac_pool_size(s->a, &s->p, i);
        if (size > unit) unit = size;
    }
    return kac_block_max(unit);
}

/* Makes log-weights of values where that is asked for; the largest of the part. */
static __device__ inline double pool_find_top(const pool_stage *s, pool_part on, double unit)
{
    double top = -(double)INFINITY;
    if (s->a->weights != KAC_WEIGHTS_PROPER) {
        EACH_OF (i, on, s->p.candidates)
            s->p.l[i] = kac_pool_value(s->a, &s->p, i, unit);
    }
    const int32_t end = pool_end(on, s->p.candidates), step = (int32_t)blockDim.x;
    int32_t i = on.first + (int32_t)threadIdx.x;
    for (; i < end - 3 * step; i += 4 * step) { /* four loads under way */
        const double x[4] = {s->p.l[i], s->p.l[i + step], s->p.l[i + 2 * step],
                             s->p.l[i + 3 * step]};
        KAC_UNROLL
        for (int k = 0; k < 4; k++)
            if (x[k] > top) top = x[k];
    }
    for (; i < end; i += step)
        if (s->p.l[i] > top) top = s->p.l[i];
    return kac_block_max(top);
}

/* Sums over the weights of a part.  A square is below 2^48 and a sum of them below 2^72. */
struct pool_sums {
    uint64_t sum, coarse, low, high; /* square = low + high 2^40 */
    int32_t best;
};
enum { SQUARE_BITS = 40 };
#define SQUARE_MASK ((UINT64_C(1) << SQUARE_BITS) - 1)

/* Adds the weight, the shortened and its square of N log-weights. */
template <int N>
static __device__ inline void pool_add_weights(uint64_t *sum, double *x, double top)
{
    static_assert(N <= 128, "of a coarse sum 32 bits are read");
    double few = KAC_SUM_FROM;
    uint32_t coarse = 0;
    uint64_t square = 0;
    kac_raw_weights<N>(x, top);
    KAC_UNROLL
    for (int k = 0; k < N; k++) {
        const uint32_t shortened = kac_coarse_of_raw(x[k]);
        few = kac_add_raw(few, x[k]);
        coarse += shortened;
        square += kac_wide(shortened, shortened);
    }
    sum[0] += kac_sum_of(few);
    sum[1] += coarse;
    sum[2] += square;
}

/* The first of the part with the largest log-weight, INT32_MAX: none. */
static __device__ inline int32_t pool_find_best(const pool_stage *s, pool_part on)
{
    int32_t best = INT32_MAX;
    EACH_OF (i, on, s->p.candidates)
        if (s->p.l[i] == s->v.top && i < best) best = i;
    return -kac_block_max(-best);
}

static __device__ inline pool_sums pool_sum_weights(const pool_stage *s, pool_part on)
{
    enum { SIDE = 8 }; /* side by side */
    const double *l = s->p.l, top = s->v.top;
    const int32_t end = pool_end(on, s->p.candidates), step = (int32_t)blockDim.x;
    uint64_t sum[4] = {0, 0, 0, 0};
    auto take_in = [&](const uint64_t *own) {
        sum[0] += own[0];
        sum[1] += own[1];
        sum[2] += own[2] & SQUARE_MASK;
        sum[3] += own[2] >> SQUARE_BITS;
    };
    int32_t i = on.first + (int32_t)threadIdx.x;
    for (; i < end - (SIDE - 1) * step; i += SIDE * step) {
        double x[SIDE];
        KAC_UNROLL
        for (int k = 0; k < SIDE; k++)
            x[k] = l[i + k * step];
        uint64_t own[3] = {0, 0, 0};
        pool_add_weights<SIDE>(own, x, top);
        take_in(own);
    }
    for (; i < end; i += step) {
        double x = l[i];
        uint64_t own[3] = {0, 0, 0};
        pool_add_weights<1>(own, &x, top);
        take_in(own);
    }
    kac_block_sums<4>(sum);
    const bool argmax = s->a->group_rule == KAC_RULE_ARGMAX;
    return {sum[0], sum[1], sum[2], sum[3], argmax ? pool_find_best(s, on) : INT32_MAX};
}

/* Takes in the sums over the whole pool. */
static __device__ inline void pool_judge(pool_stage *s, const pool_sums *sums)
{
    s->v.dead = s->v.top == -(double)INFINITY;
    if (s->v.dead) return;
    s->v.sums.sum = s->p.sum = sums->sum;
    s->v.sums.coarse = sums->coarse;
    s->v.sums.square = sums->low + ((unsigned __int128)sums->high << SQUARE_BITS);
    s->v.selects = kac_pool_selects(s->a, &s->v.sums, s->p.candidates);
    s->best = sums->best;
}

/* What systematic divides running sums of weights by. */
static __device__ inline kac_divisor pool_systematic(const kac_pool *p)
{
    return kac_divisor_of(p->n, kac_below(kac_pool_draw(p, 0), 0, p->sum), p->sum);
}

/* Running sums of the weights, and each candidate's offspring so far. */
static __device__ inline void pool_run_weights(const pool_stage *s, pool_part on,
                                               uint64_t before)
{
    const kac_pool *p = &s->p;
    const double top = s->v.top;
    const kac_scheme scheme = s->a->scheme;
    const bool shares = scheme == KAC_SCHEME_RESIDUAL || scheme == KAC_SCHEME_TOURNAMENT;
    const kac_divisor by =
        scheme == KAC_SCHEME_SYSTEMATIC ? pool_systematic(p) : kac_divisor_of(p->n, 0, p->sum);
    int32_t *count = s->count;
    auto load = [=](int32_t i) { return kac_weight(p->l[i], top); };
    auto store = [=](int32_t i, uint64_t c, uint64_t w) {
        kac_share share = {0, 0};
        if (scheme == KAC_SCHEME_SYSTEMATIC) {
            p->offspring[i] = kac_divide(&by, c).whole;
            return;
        }
        if (shares) share = kac_divide(&by, w);
        p->w[i] = c;
        count[i] = share.whole;
        if (scheme == KAC_SCHEME_MULTINOMIAL && i == 0) count[i] = p->held;
        if (scheme != KAC_SCHEME_TOURNAMENT) return;
        p->w[i] = share.residue;
        p->offspring[i] = i; /* the champion of each subtree, at its first leaf */
    };
    (void)kac_block_run(on.first, pool_end(on, p->candidates), before, load, store);
}

/* Offspring of candidates 0 .. i together, from those of each. */
static __device__ inline void pool_run_counts(const pool_stage *s, pool_part on, int32_t before)
{
    const int32_t *count = s->count;
    int32_t *offspring = s->p.offspring;
    auto load = [=](int32_t i) { return count[i]; };
    auto store = [=](int32_t i, int32_t upto, int32_t) { offspring[i] = upto; };
    (void)kac_block_run(on.first, pool_end(on, s->p.candidates), before, load, store);
}

/* Weights of the best in their order, running sums (replace). */
static __device__ inline void pool_run_best(const pool_stage *s, pool_part on, uint64_t before)
{
    const kac_pool *p = &s->p;
    const int32_t *order = s->count;
    const double top = s->v.top;
    auto load = [=](int32_t i) { return kac_weight(p->l[order[i]], top); };
    auto store = [=](int32_t i, uint64_t c, uint64_t) { p->w[i] = c; };
    (void)kac_block_run(on.first, pool_end(on, kac_pool_stay(p, s->a->fraction)), before, load,
                        store);
}

static __device__ inline uint64_t pool_weight(const kac_pool *p, int32_t i)
{
    return p->w[i] - (i > 0 ? p->w[i - 1] : 0);
}

/* The slot in which a retained candidate 0 goes on (pool.h). */
static __device__ inline int32_t pool_retained_slot(const kac_pool *p)
{
    uint64_t u = kac_pool_retained_point(p);
    int32_t low = 0, high = p->n - 1;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        uint64_t c = p->sum + (uint64_t)(middle + 1) * KAC_WEIGHT_ONE - p->w[middle];
        if (c > u)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Multinomial and killing: whether draw j chooses a candidate by a point below the sum of the
 * weights, the high half of *word times that sum; else who gets the offspring, if any does, is
 * known. */
static __device__ inline bool pool_has_point(const pool_stage *s, int32_t j, int32_t retained,
                                             uint64_t *word)
{
    const kac_pool *p = &s->p;
    const kac_u32x4 words = kac_pool_draw(p, j);
    if (s->a->scheme == KAC_SCHEME_MULTINOMIAL) {
        *word = kac_pair_of(words, 0);
        return j >= p->held;
    }
    *word = kac_pair_of(words, 1);
    const bool stays =
        j != retained && kac_survives(pool_weight(p, j), kac_below(words, 0, KAC_WEIGHT_ONE));
    if (stays || j == retained) atomicAdd(&s->count[stays ? j : 0], 1);
    return !stays && j != retained;
}

/* The slot whose place killing gives to a retained candidate, -1: none. */
static __device__ inline int32_t pool_retained(const pool_stage *s)
{
    return s->a->scheme == KAC_SCHEME_KILLING && s->p.held ? pool_retained_slot(&s->p) : -1;
}

static __device__ inline void pool_give(const pool_stage *s, uint64_t point)
{
    atomicAdd(&s->count[kac_first_above(s->p.w, s->p.candidates, point)], 1);
}

static __device__ inline void pool_draw_residual(const pool_stage *s, pool_part on)
{
    const kac_pool *p = &s->p;
    int32_t left = p->n - p->offspring[p->candidates - 1];
    EACH_OF (j, on, left) {
        kac_u32x4 words = kac_pool_draw(p, j);
        uint64_t u1 = kac_below(words, 0, (uint64_t)left), u2 = kac_below(words, 1, p->sum);
        int32_t i = kac_residual(p->w, p->offspring, p->candidates, p->n, u1, u2);
        atomicAdd(&s->count[i], 1);
    }
}

/* Subtrees 0 .. n - 1 of a tournament, `leaves` each from leaf `first` on. */
template <class Index> struct pool_subtrees {
    int32_t first, leaves, n;
    uint64_t *residue; /* of the champion of each */
    Index *champion;
};

/* Plays them level by level: which subtrees meet, and with which draw, hangs on their first
 * leaves alone.  place(t): where in the arrays subtree t is; mark(champion): gets an offspring.
 * What is at place 0 is left.  Between barriers of the block. */
template <class Index, class Place, class Mark>
static __device__ inline void pool_play(const kac_pool *p, const pool_subtrees<Index> &all,
                                        Place place, Mark mark)
{
    for (int32_t size = 1; size < all.n; size *= 2) {
        for (int64_t at = (int64_t)threadIdx.x * 2 * size; at + size < all.n;
             at += (int64_t)blockDim.x * 2 * size) {
            const int32_t second = (int32_t)at + size, i = place((int32_t)at),
                          j = place(second);
            const uint64_t one = all.residue[i], two = all.residue[j];
            const uint64_t u = kac_below(kac_pool_draw(p, all.first + second * all.leaves), 0,
                                         kac_match_range(one, two, p->sum));
            const kac_match match = kac_match_play(one, two, p->sum, u);
            Index winner = all.champion[i], loser = all.champion[j];
            if (!match.first_goes_on) {
                winner = loser;
                loser = all.champion[i];
            }
            if (match.decided) mark(loser);
            all.champion[i] = winner;
            all.residue[i] = match.residue;
        }
        __syncthreads();
    }
}

/* The first candidate from low to high that has offspring j: offspring[i] > j. */
static __device__ inline int32_t pool_owner(const int32_t *offspring, int32_t low, int32_t high,
                                            int32_t j)
{
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (offspring[middle] > j)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The candidate that goes on in slot j; owners are from low to high. */
static __device__ inline int32_t pool_candidate(const pool_stage *s, int32_t j, int32_t low,
                                                int32_t high)
{
    const kac_pool *p = &s->p;
    if (!s->v.selects || s->a->group_rule == KAC_RULE_NONE) return j * s->a->keep;
    if (s->a->group_rule == KAC_RULE_ARGMAX) return s->best;
    if (s->a->group_rule == KAC_RULE_TOP_K) return s->count[j];
    if (s->a->group_rule == KAC_RULE_REPLACE) {
        int32_t stay = kac_pool_stay(p, s->a->fraction);
        if (j < stay) return s->count[j];
        uint64_t u = kac_below(kac_pool_draw(p, j), 0, p->w[stay - 1]);
        return s->count[kac_first_above(p->w, stay, u)];
    }
    if (s->a->scheme == KAC_SCHEME_STRATIFIED) {
        uint64_t u = kac_below(kac_pool_draw(p, j), 0, p->sum);
        return kac_first_above(p->w, p->candidates, kac_stratum(j, p->n, u, p->sum));
    }
    return pool_owner(p->offspring, low, high, j);
}

/* Whether pool_owner() says who goes on. */
static __device__ inline bool pool_counts_offspring(const pool_stage *s)
{
    return s->v.selects && s->a->group_rule == KAC_RULE_CATEGORICAL &&
           s->a->scheme != KAC_SCHEME_STRATIFIED;
}

static __device__ inline void pool_emit(const pool_stage *s, pool_part on)
{
    const kac_pool *p = &s->p;
    int32_t low = 0, high = p->candidates - 1, last = pool_end(on, p->n) - 1;
    if (last < on.first) return;
    if (pool_counts_offspring(s) && on.first > 0)
        low = pool_owner(p->offspring, low, high, on.first);
    if (pool_counts_offspring(s)) high = pool_owner(p->offspring, low, high, last);
    EACH_OF (j, on, p->n) {
        int32_t i = pool_candidate(s, j, low, high);
        s->a->log_w[p->first_slot + j] = kac_pool_log_w(p->l[i], s->v.selects);
        p->chosen[j] = p->row[i];
    }
}

/* The pool's groups and, where it is dead, the fault. */
static __device__ inline void pool_tell(const pool_stage *s, int32_t number)
{
    const kac_select_args *a = s->a;
    int32_t first = a->pool_first[number];
    for (int32_t g = first + (int32_t)threadIdx.x; g < a->pool_first[number + 1];
         g += (int32_t)blockDim.x)
        kac_pool_tell(a, &s->p, &s->v, &a->groups[g]);
    if (threadIdx.x == 0 && s->v.dead && a->dead_is_error)
        kac_fault_note(a->fault, {KAC_FAULT_DEAD, a->groups[first].offset, a->clock->move, -1});
}

static __device__ inline pool_stage pool_open(const kac_select_args *a, int32_t number,
                                              int32_t *count)
{
    pool_stage s;
    s.a = a;
    s.p = kac_pool_open(a, number);
    s.v.top = -(double)INFINITY;
    s.v.sums.sum = s.v.sums.coarse = 0;
    s.v.sums.square = 0;
    s.v.dead = s.v.selects = false;
    s.best = 0;
    s.count = count + s.p.first;
    return s;
}

/* ---- large pools ------------------------------------------------------------------------- */

/* From so many candidates a pool on, and up to so many pools, each phase is a launch. */
enum { LARGE_POOL = 16384, MOST_LARGE_POOLS = 65535 };

/* The group stage of large pools (select_large_cuda.cu); call->count is not set yet. */
kac_status kac_select_large(kac_device *dev, const select_call *call);

#endif /* KAC_POOL_CUDA_CUH */
