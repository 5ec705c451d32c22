/* select_cuda.cu -- both stages of selection: among siblings, then within pools of groups.
 *
 * Weights are integers, so sums of any shape give the CPU's bits.  The group stage is a list of
 * phases, each parallel over candidates or offspring.  Where pools are small a block does all phases
 * of a pool, with barriers between them; where they are large (known from the numbers of
 * particles and pools alone) each phase is a launch over tiles of them.
 */
#include "block.cuh"
#include "fault.cuh"
#include "pool.h"

/* The arguments with the host structs that they point to, and working memory. */
struct select_call {
    kac_select_args a;
    kac_particles x, y;
    int32_t *count; /* [n K] */
};

static __device__ kac_select_args args_of(const select_call *call)
{
    kac_select_args a = call->a;
    a.x = &call->x;
    a.y = &call->y;
    return a;
}

/* Threads of a block for so many items: 4 each, one warp at least. */
static unsigned team(int64_t items, unsigned most)
{
    unsigned threads = KAC_WARP;
    while (threads < most && (int64_t)threads * 4 < items)
        threads *= 2;
    return threads;
}

/* ---- the best --------------------------------------------------------------------------- */

/* Compares and exchanges pairs t, t + step, ...: step `half` of a bitonic sort of
 * order[0 .. n-1] in which the better always moves to the lower place, so places from n on, as if
 * they held the worst, never take part.  mirrored: the first step of a stage. */
static __device__ void exchange(const double *l, int32_t *order, int32_t n, int32_t half,
                                bool mirrored, int32_t t, int32_t step)
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
static __device__ void merge(const double *l, int32_t *order, int32_t n, int32_t half,
                             bool mirrored)
{
    for (; half > 0; half /= 2, mirrored = false) {
        exchange(l, order, n, half, mirrored, (int32_t)threadIdx.x, (int32_t)blockDim.x);
        __syncthreads();
    }
}

/* order = first .. first + n - 1, the best first, by a block. */
static __device__ void sort(const double *l, int32_t *order, int32_t first, int32_t n)
{
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += (int32_t)blockDim.x)
        order[i] = first + i;
    __syncthreads();
    for (int32_t half = 1; half < n; half *= 2)
        merge(l, order, n, half, true);
}

/* ---- the parent stage ------------------------------------------------------------------- */

KAC_KERNEL pick_all(KAC_ARGS select_call call)
{
    kac_select_args a = args_of(&call);
    KAC_EACH (c, (int64_t)a.x->n * a.children) {
        a.pick[c] = (int32_t)c;
        a.pick_w[c] = a.y->log_w[c];
    }
}

/* The largest of l[0 .. n-1], by a warp. */
static __device__ double largest(const double *l, int32_t n, int32_t lane)
{
    double top = -(double)INFINITY;
    for (int32_t m = lane; m < n; m += KAC_WARP)
        if (l[m] > top) top = l[m];
    return kac_warp_max(top);
}

/* The first m with l[m] == top, or 0. */
static __device__ int32_t first_at(const double *l, int32_t n, double top, int32_t lane)
{
    for (int32_t m = 0; m < n; m += KAC_WARP) {
        unsigned at = __ballot_sync(KAC_WHOLE_WARP, m + lane < n && l[m + lane] == top);
        if (at != 0) return m + __ffs((int)at) - 1;
    }
    return 0;
}

/* *upto = the sum of the weights of children m .. m + lane; returns that of the warp's. */
static __device__ uint64_t add_weights(const double *l, int32_t n, double top, int32_t m,
                                       int32_t lane, uint64_t *upto)
{
    *upto = m + lane < n ? kac_weight(l[m + lane], top) : 0;
    for (int by = 1; by < KAC_WARP; by *= 2) {
        uint64_t other = __shfl_up_sync(KAC_WHOLE_WARP, *upto, by);
        if (lane >= by) *upto += other;
    }
    return __shfl_sync(KAC_WHOLE_WARP, *upto, KAC_WARP - 1);
}

/* draw_child of select_cpu.c, by a warp. */
static __device__ int32_t draw_child(const kac_select_args *a, int32_t i, const double *l,
                                     double top, int32_t lane, double *log_sum)
{
    uint64_t sum = 0, c = 0, upto;
    *log_sum = top;
    if (top == -(double)INFINITY) return 0;
    for (int32_t m = 0; m < a->children; m += KAC_WARP)
        sum += add_weights(l, a->children, top, m, lane, &upto);
    *log_sum = kac_log_mean(top, sum, 1);
    if (kac_is_retained(a, i)) return 0;

    uint64_t u = kac_parent_point(a, i, sum);
    for (int32_t m = 0; m < a->children; m += KAC_WARP) {
        uint64_t all = add_weights(l, a->children, top, m, lane, &upto);
        unsigned above = __ballot_sync(KAC_WHOLE_WARP, c + upto > u);
        if (above != 0) return m + __ffs((int)above) - 1;
        c += all;
    }
    return 0;
}

/* Categorical and argmax: a warp for each parent; bound by its exponentials. */
KAC_KERNEL pick_one(KAC_ARGS select_call call)
{
    kac_select_args a = args_of(&call);
    const int32_t lane = (int32_t)(threadIdx.x % KAC_WARP);
    const int64_t warps = (int64_t)gridDim.x * blockDim.x / KAC_WARP;
    for (int64_t at = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / KAC_WARP; at < a.x->n;
         at += warps) {
        int32_t i = (int32_t)at;
        const double *l = a.y->log_w + at * a.children;
        double top = largest(l, a.children, lane), log_sum = 0;
        int32_t m = a.parent_rule == KAC_RULE_ARGMAX
                        ? first_at(l, a.children, top, lane)
                        : draw_child(&a, i, l, top, lane, &log_sum);
        if (lane > 0) continue;
        a.pick[i] = i * a.children + m;
        a.pick_w[i] = kac_picked_log_w(&a, i, l[m], log_sum);
    }
}

/* top_k: a block for each parent sorts its children in shared memory. */
KAC_KERNEL pick_best(KAC_ARGS select_call call)
{
    kac_select_args a = args_of(&call);
    KAC_DYNAMIC_SHARED(int32_t, order);
    for (int32_t i = (int32_t)blockIdx.x; i < a.x->n; i += (int32_t)gridDim.x) {
        const double *l = a.y->log_w + (int64_t)i * a.children;
        int64_t to = (int64_t)i * a.keep;
        sort(l, order, 0, a.children);
        for (int32_t k = (int32_t)threadIdx.x; k < a.keep; k += (int32_t)blockDim.x) {
            a.pick[to + k] = i * a.children + order[k];
            a.pick_w[to + k] = kac_picked_log_w(&a, i, l[order[k]], 0);
        }
        __syncthreads();
    }
}

kac_status kac_cuda_select_parent(kac_device *dev, const kac_select_args *a)
{
    KAC_REQUIRE(a->parent_rule == KAC_RULE_TOP_K || a->parent_rule == KAC_RULE_NONE ||
                a->keep == 1);
    KAC_REQUIRE(a->keep >= 1 && a->keep <= a->children && a->parent_rule != KAC_RULE_REPLACE);
    KAC_REQUIRE(a->parent_rule != KAC_RULE_NONE || a->keep == a->children);
    KAC_REQUIRE(a->children <= KAC_MAX_CHILDREN);
    select_call call = {*a, *a->x, *a->y, NULL};
    int64_t children = (int64_t)a->x->n * a->children;
    unsigned rows = (unsigned)(a->x->n < 65536 ? a->x->n : 65536);
    if (a->x->n == 0) return KAC_OK;
    if (a->parent_rule == KAC_RULE_NONE)
        return KAC_LAUNCH(dev, pick_all, kac_blocks(children), KAC_THREADS, 0, call);
    if (a->parent_rule == KAC_RULE_TOP_K)
        return KAC_LAUNCH(dev, pick_best, rows, team(a->children, KAC_THREADS),
                          (size_t)a->children * sizeof(int32_t), call);
    return KAC_LAUNCH(dev, pick_one, kac_blocks((int64_t)a->x->n * KAC_WARP), KAC_THREADS, 0,
                      call);
}

/* ---- phases of a pool ------------------------------------------------------------------- */

/* The candidates, or offspring, first .. first + size - 1 that a block works on. */
struct part {
    int32_t first, size;
};

static __device__ int32_t end_of(part on, int32_t n)
{
    return n - on.first < on.size ? n : on.first + on.size;
}

/* for (i = the thread's first; i < what there is of n in the part; ...) */
#define EACH_OF(i, on, n)                                                                      \
    for (int32_t i = (on).first + (int32_t)threadIdx.x, end_ = end_of((on), (n)); i < end_;    \
         i += (int32_t)blockDim.x)

/* What a pool is to its phases. */
struct stage {
    const kac_select_args *a;
    kac_pool p;
    kac_verdict v;
    int32_t best;   /* the first candidate with the largest log-weight */
    int32_t *count; /* [C] offspring of each candidate, or candidates in order */
};

/* The largest |value| that counts in the part. */
static __device__ double find_unit(const stage *s, part on)
{
    double unit = 0;
    EACH_OF (i, on, s->p.candidates) {
        double size = kac_pool_size(s->a, &s->p, i);
        if (size > unit) unit = size;
    }
    return kac_block_max(unit);
}

/* Makes log-weights of values where that is asked for; the largest of the part. */
static __device__ double find_top(const stage *s, part on, double unit)
{
    double top = -(double)INFINITY;
    if (s->a->weights != KAC_WEIGHTS_PROPER) {
        EACH_OF (i, on, s->p.candidates)
            s->p.l[i] = kac_pool_value(s->a, &s->p, i, unit);
    }
    const int32_t end = end_of(on, s->p.candidates), step = (int32_t)blockDim.x;
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
struct part_sums {
    uint64_t sum, coarse, low, high; /* square = low + high 2^40 */
    int32_t best;
};
enum { SQUARE_BITS = 40 };
#define SQUARE_MASK ((UINT64_C(1) << SQUARE_BITS) - 1)

static __device__ part_sums sum_weights(const stage *s, part on)
{
    kac_weight_sums own = {0, 0, 0};
    int32_t best = INT32_MAX;
    auto add = [&](int32_t i, double l) {
        kac_weight_add(&own, kac_weight(l, s->v.top));
        if (l == s->v.top && i < best) best = i;
    };
    const int32_t end = end_of(on, s->p.candidates), step = (int32_t)blockDim.x;
    int32_t i = on.first + (int32_t)threadIdx.x;
    for (; i < end - 3 * step; i += 4 * step) { /* four side by side */
        const double l[4] = {s->p.l[i], s->p.l[i + step], s->p.l[i + 2 * step],
                             s->p.l[i + 3 * step]};
        KAC_UNROLL
        for (int k = 0; k < 4; k++)
            add(i + k * step, l[k]);
    }
    for (; i < end; i += step)
        add(i, s->p.l[i]);
    uint64_t sum[4] = {own.sum, own.coarse, (uint64_t)own.square & SQUARE_MASK,
                       (uint64_t)(own.square >> SQUARE_BITS)};
    kac_block_sums<4>(sum);
    return {sum[0], sum[1], sum[2], sum[3], -kac_block_max(-best)};
}

/* Takes in the sums over the whole pool. */
static __device__ void judge(stage *s, const part_sums *sums)
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
static __device__ kac_divisor systematic_of(const kac_pool *p)
{
    return kac_divisor_of(p->n, kac_below(kac_pool_draw(p, 0), 0, p->sum), p->sum);
}

/* Running sums of the weights, and each candidate's offspring so far. */
static __device__ void run_weights(const stage *s, part on, uint64_t before)
{
    const kac_pool *p = &s->p;
    const double top = s->v.top;
    const kac_scheme scheme = s->a->scheme;
    const bool shares = scheme == KAC_SCHEME_RESIDUAL || scheme == KAC_SCHEME_TOURNAMENT;
    const kac_divisor by =
        scheme == KAC_SCHEME_SYSTEMATIC ? systematic_of(p) : kac_divisor_of(p->n, 0, p->sum);
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
    (void)kac_block_run(on.first, end_of(on, p->candidates), before, load, store);
}

/* Offspring of candidates 0 .. i together, from those of each. */
static __device__ void run_counts(const stage *s, part on, int32_t before)
{
    const int32_t *count = s->count;
    int32_t *offspring = s->p.offspring;
    auto load = [=](int32_t i) { return count[i]; };
    auto store = [=](int32_t i, int32_t upto, int32_t) { offspring[i] = upto; };
    (void)kac_block_run(on.first, end_of(on, s->p.candidates), before, load, store);
}

/* Weights of the best in their order, running sums (replace). */
static __device__ void run_best(const stage *s, part on, uint64_t before)
{
    const kac_pool *p = &s->p;
    const int32_t *order = s->count;
    const double top = s->v.top;
    auto load = [=](int32_t i) { return kac_weight(p->l[order[i]], top); };
    auto store = [=](int32_t i, uint64_t c, uint64_t) { p->w[i] = c; };
    (void)kac_block_run(on.first, end_of(on, kac_pool_stay(p, s->a->fraction)), before, load,
                        store);
}

static __device__ uint64_t weight_of(const kac_pool *p, int32_t i)
{
    return p->w[i] - (i > 0 ? p->w[i - 1] : 0);
}

/* The slot in which a retained candidate 0 goes on (pool.h). */
static __device__ int32_t retained_slot(const kac_pool *p)
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

static __device__ bool draws_points(const stage *s)
{
    return s->a->scheme == KAC_SCHEME_MULTINOMIAL || s->a->scheme == KAC_SCHEME_KILLING;
}

/* Multinomial and killing: whether draw j chooses a candidate by a point below the sum of the
 * weights, the high half of *word times that sum; else who gets the offspring, if any does, is
 * known. */
static __device__ bool has_point(const stage *s, int32_t j, int32_t retained, uint64_t *word)
{
    const kac_pool *p = &s->p;
    const kac_u32x4 words = kac_pool_draw(p, j);
    if (s->a->scheme == KAC_SCHEME_MULTINOMIAL) {
        *word = kac_pair_of(words, 0);
        return j >= p->held;
    }
    *word = kac_pair_of(words, 1);
    const bool stays =
        j != retained && kac_survives(weight_of(p, j), kac_below(words, 0, KAC_WEIGHT_ONE));
    if (stays || j == retained) atomicAdd(&s->count[stays ? j : 0], 1);
    return !stays && j != retained;
}

/* The slot whose place killing gives to a retained candidate, -1: none. */
static __device__ int32_t retained_of(const stage *s)
{
    return s->a->scheme == KAC_SCHEME_KILLING && s->p.held ? retained_slot(&s->p) : -1;
}

static __device__ void give_to(const stage *s, uint64_t point)
{
    atomicAdd(&s->count[kac_first_above(s->p.w, s->p.candidates, point)], 1);
}

static __device__ void draw_points(const stage *s, part on)
{
    const int32_t retained = retained_of(s);
    uint64_t word;
    EACH_OF (j, on, s->p.n)
        if (has_point(s, j, retained, &word)) give_to(s, kac_mulhi64(word, s->p.sum));
}

static __device__ void draw_residual(const stage *s, part on)
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

static __device__ void draw(const stage *s, part on)
{
    if (draws_points(s)) draw_points(s, on);
    if (s->a->scheme == KAC_SCHEME_RESIDUAL) draw_residual(s, on);
}

/* Subtrees 0 .. n - 1 of a tournament, `leaves` each from leaf `first` on. */
template <class Index> struct subtrees {
    int32_t first, leaves, n;
    uint64_t *residue; /* of the champion of each */
    Index *champion;
};

/* Plays them level by level: which subtrees meet, and with which draw, hangs on their first
 * leaves alone.  place(t): where in the arrays subtree t is; mark(champion): gets an offspring.
 * What is at place 0 is left.  Between barriers of the block. */
template <class Index, class Place, class Mark>
static __device__ void play(const kac_pool *p, const subtrees<Index> &all, Place place,
                            Mark mark)
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

/* The tournament of a pool whose shares run_weights has left. */
static __device__ void play_all(const stage *s)
{
    const subtrees<int32_t> leaves = {0, 1, s->p.candidates, s->p.w, s->p.offspring};
    int32_t *count = s->count;
    play(
        &s->p, leaves, [](int32_t t) { return t; }, [=](int32_t i) { count[i]++; });
}

/* The first candidate from low to high that has offspring j: offspring[i] > j. */
static __device__ int32_t owner(const int32_t *offspring, int32_t low, int32_t high, int32_t j)
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
static __device__ int32_t candidate_of(const stage *s, int32_t j, int32_t low, int32_t high)
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
    return owner(p->offspring, low, high, j);
}

/* Whether owner() says who goes on. */
static __device__ bool counts_offspring(const stage *s)
{
    return s->v.selects && s->a->group_rule == KAC_RULE_CATEGORICAL &&
           s->a->scheme != KAC_SCHEME_STRATIFIED;
}

static __device__ void emit(const stage *s, part on)
{
    const kac_pool *p = &s->p;
    int32_t low = 0, high = p->candidates - 1, last = end_of(on, p->n) - 1;
    if (last < on.first) return;
    if (counts_offspring(s) && on.first > 0) low = owner(p->offspring, low, high, on.first);
    if (counts_offspring(s)) high = owner(p->offspring, low, high, last);
    EACH_OF (j, on, p->n) {
        int32_t i = candidate_of(s, j, low, high);
        s->a->log_w[p->first_slot + j] = kac_pool_log_w(p->l[i], s->v.selects);
        p->chosen[j] = p->row[i];
    }
}

/* A candidate's row and its slots first .. end - 1. */
struct share_of_slots {
    int32_t row, first, end;
    double log_w;
};

static __device__ void put(const stage *s, const share_of_slots *c, int32_t j)
{
    s->a->log_w[s->p.first_slot + j] = c->log_w;
    s->p.chosen[j] = c->row;
}

/* By threads `me`, me + step, ... */
static __device__ void take(const stage *s, const share_of_slots *c, int32_t me, int32_t step)
{
    for (int32_t j = c->first + me; j < c->end; j += step)
        put(s, c, j);
}

/* The slots of the candidates of a part: few by their thread, more by its warp, very many by the
 * block.  Slots end at slots(c), c the running sum of load from `before` on. */
template <class T, class Load, class Slots>
static __device__ void spread(const stage *s, part on, T before, Load load, Slots slots)
{
    enum { FEW = 4, MANY = 128, LIST = 16 };
    const kac_pool *p = &s->p;
    const int32_t end = end_of(on, p->candidates), lane = (int32_t)threadIdx.x % KAC_WARP;
    KAC_SHARED(int32_t, listed, 1);
    KAC_SHARED(share_of_slots, list, LIST);
    if (threadIdx.x == 0) *listed = 0; /* a sweep begins with a barrier */
    auto give = [&](int64_t i, const T *upto, const T *term) {
        share_of_slots own[KAC_ROWS];
        int32_t last = slots(__shfl_sync(KAC_WHOLE_WARP, upto[0] - term[0], 0));
        KAC_UNROLL
        for (int k = 0; k < KAC_ROWS; k++) {
            const int64_t at = i + k * KAC_WARP;
            own[k] = {at < end ? p->row[at] : 0, 0, slots(upto[k]),
                      p->held && at < end ? kac_pool_log_w(p->l[at], true)
                                          : 0}; /* others have weight */
        }
        KAC_UNROLL
        for (int k = 0; k < KAC_ROWS; k++) {
            const int32_t left = __shfl_up_sync(KAC_WHOLE_WARP, own[k].end, 1);
            own[k].first = lane > 0 ? left : last;
            last = __shfl_sync(KAC_WHOLE_WARP, own[k].end, KAC_WARP - 1);
        }
        KAC_UNROLL
        for (int k = 0; k < KAC_ROWS; k++) {
            const int32_t count = own[k].end - own[k].first;
            bool more = count > FEW;
            KAC_UNROLL
            for (int j = 0; j < FEW; j++)
                if (!more && j < count) put(s, &own[k], own[k].first + j);
            if (count > MANY) {
                const int32_t to = atomicAdd(listed, 1);
                if (to < LIST) list[to] = own[k];
                more = to >= LIST;
            }
            unsigned lanes = __ballot_sync(KAC_WHOLE_WARP, more);
            for (; lanes != 0; lanes &= lanes - 1) {
                const int from = __ffs((int)lanes) - 1;
                const share_of_slots theirs = {__shfl_sync(KAC_WHOLE_WARP, own[k].row, from),
                                               __shfl_sync(KAC_WHOLE_WARP, own[k].first, from),
                                               __shfl_sync(KAC_WHOLE_WARP, own[k].end, from),
                                               __shfl_sync(KAC_WHOLE_WARP, own[k].log_w, from)};
                take(s, &theirs, lane, KAC_WARP);
            }
        }
    };
    (void)kac_block_sweep(on.first, end, before, load, give);
    __syncthreads();
    for (int32_t k = 0; k < *listed && k < LIST; k++)
        take(s, &list[k], (int32_t)threadIdx.x, (int32_t)blockDim.x);
    __syncthreads();
}

/* Offspring of each candidate are counted; those before the part are `before`. */
static __device__ void spread_counts(const stage *s, part on, int32_t before)
{
    const int32_t *count = s->count;
    spread(
        s, on, before, [=](int32_t i) { return count[i]; }, [](int32_t upto) { return upto; });
}

/* Systematic, where the weights before the part are `before`. */
static __device__ void spread_systematic(const stage *s, part on, uint64_t before)
{
    const double *l = s->p.l, top = s->v.top;
    const kac_divisor by = systematic_of(&s->p);
    spread(
        s, on, before, [=](int32_t i) { return kac_weight(l[i], top); },
        [=](uint64_t upto) { return kac_divide(&by, upto).whole; });
}

/* The pool's groups and, where it is dead, the fault. */
static __device__ void tell(const stage *s, int32_t number)
{
    const kac_select_args *a = s->a;
    int32_t first = a->pool_first[number];
    for (int32_t g = first + (int32_t)threadIdx.x; g < a->pool_first[number + 1];
         g += (int32_t)blockDim.x)
        kac_pool_tell(a, &s->p, &s->v, &a->groups[g]);
    if (threadIdx.x == 0 && s->v.dead && a->dead_is_error)
        kac_fault_note(a->fault, {KAC_FAULT_DEAD, a->groups[first].offset, a->clock->move, -1});
}

static __device__ stage open_stage(const kac_select_args *a, int32_t number, int32_t *count)
{
    stage s;
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

/* ---- small pools: a block each ------------------------------------------------------------
 */

static __device__ void draw_offspring(const stage *s, part all)
{
    const kac_scheme scheme = s->a->scheme;
    run_weights(s, all, 0);
    __syncthreads();
    if (scheme == KAC_SCHEME_SYSTEMATIC || scheme == KAC_SCHEME_STRATIFIED) return;
    if (scheme == KAC_SCHEME_RESIDUAL) {
        run_counts(s, all, 0);
        __syncthreads();
    }
    if (scheme == KAC_SCHEME_TOURNAMENT) play_all(s);
    draw(s, all);
    __syncthreads();
    run_counts(s, all, 0);
    __syncthreads();
}

enum { MOST_THREADS = 512 };

/* Bound by the latency of its barriers; many pools hide it. */
KAC_KERNEL __launch_bounds__(MOST_THREADS) select_pool(KAC_ARGS select_call call)
{
    kac_select_args a = args_of(&call);
    const part all = {0, INT32_MAX};
    const int32_t number = (int32_t)blockIdx.x;
    stage s = open_stage(&a, number, call.count);
    double unit = 0;
    if (a.weights == KAC_WEIGHTS_VALUE) unit = s.p.alpha;
    if (a.weights == KAC_WEIGHTS_SCALED) unit = find_unit(&s, all);
    s.v.top = find_top(&s, all, unit);
    part_sums sums = sum_weights(&s, all);
    judge(&s, &sums);
    if (s.v.selects && a.group_rule == KAC_RULE_CATEGORICAL) draw_offspring(&s, all);
    if (s.v.selects && (a.group_rule == KAC_RULE_TOP_K || a.group_rule == KAC_RULE_REPLACE))
        sort(s.p.l, s.count, 0, s.p.candidates);
    if (s.v.selects && a.group_rule == KAC_RULE_REPLACE) {
        run_best(&s, all, 0);
        __syncthreads();
    }
    emit(&s, all);
    tell(&s, number);
}

static kac_status select_small(kac_device *dev, const select_call *call)
{
    int64_t candidates = (int64_t)call->x.n * call->a.keep;
    return KAC_LAUNCH(dev, select_pool, (unsigned)call->a.pools,
                      team(candidates / call->a.pools, MOST_THREADS), 0, *call);
}

/* ---- large pools: a block for each tile, a launch for each phase ----------------------------
 */

enum { TILE = 4096, LARGE = 4 * TILE, MOST_LARGE = 65535 };

/* What the tiles of a pool find out together: largest numbers and sums, from 0 on. */
struct pool_state {
    unsigned long long unit; /* rising() of the largest |value| */
    unsigned long long top;  /* and of the largest log-weight */
    unsigned long long sum, coarse, low, high;
    unsigned long long best; /* 2^31 - 1 - the first candidate with that */
};

struct tiles_call {
    select_call of;
    pool_state *state; /* [pools] */
    unsigned long long
        *tile_sum;       /* [tiles of all pools] of weights; in a tournament residues */
    int32_t *tile_count; /* and of offspring */
    int32_t *filled;     /* points in each bucket of all pools, zero at first */
    uint64_t *point;     /* of all buckets */
};

/* Bits that are in the order of the numbers, and back; above 0 for every number. */
static __device__ unsigned long long rising(double x)
{
    uint64_t bits = kac_bits64(x);
    return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

static __device__ double from_rising(unsigned long long bits)
{
    return kac_from_bits64(bits >> 63 ? bits & ~(UINT64_C(1) << 63) : ~bits);
}

/* In order; a phase after SUMS knows what was decided. */
enum phase {
    UNIT,
    TOP,
    SUMS,
    WEIGHTS,     /* run_weights */
    SYSTEMATIC,  /* spread_systematic */
    COUNT_TILES, /* offspring of each tile */
    COUNTS,      /* run_counts */
    SLOTS,       /* spread_counts */
    DRAW,
    SCATTER,    /* points into buckets */
    SEARCH,     /* for the points of a bucket */
    PLAY,       /* within tiles */
    PLAY_TILES, /* between them, a block for each pool */
    SORT,       /* tiles */
    EXCHANGE,   /* a step between tiles */
    MIRROR,     /* the first of a stage */
    MERGE,      /* the steps of a stage within tiles */
    BEST_TILES, /* weights of the best in each tile of them */
    BEST,       /* run_best */
    EMIT
};

/* The tile's share of TOP and SUMS. */
static __device__ void find_sums(const stage *s, part on, pool_state *state,
                                 unsigned long long *tile_sum)
{
    part_sums sums = sum_weights(s, on);
    if (threadIdx.x > 0) return;
    *tile_sum = sums.sum;
    atomicAdd(&state->sum, (unsigned long long)sums.sum);
    atomicAdd(&state->coarse, (unsigned long long)sums.coarse);
    atomicAdd(&state->low, (unsigned long long)sums.low);
    atomicAdd(&state->high, (unsigned long long)sums.high);
    atomicMax(&state->best, (unsigned long long)(INT32_MAX - sums.best));
}

static __device__ void find_largest(const stage *s, part on, pool_state *state, phase what)
{
    double unit = 0, found;
    if (s->a->weights == KAC_WEIGHTS_VALUE) unit = s->p.alpha;
    if (s->a->weights == KAC_WEIGHTS_SCALED && what == TOP) unit = from_rising(state->unit);
    found = what == UNIT ? find_unit(s, on) : find_top(s, on, unit);
    if (threadIdx.x == 0) atomicMax(what == UNIT ? &state->unit : &state->top, rising(found));
}

/* The sum of load(i) over the part. */
template <class T, class Load>
static __device__ void sum_part(part on, int32_t n, T *sum, Load load)
{
    T own = 0;
    EACH_OF (i, on, n)
        own += load(i);
    own = kac_block_sum(own);
    if (threadIdx.x == 0) *sum = own;
}

static __device__ void sum_best(const stage *s, part on, unsigned long long *sum)
{
    const double *l = s->p.l, top = s->v.top;
    const int32_t *order = s->count;
    sum_part(on, kac_pool_stay(&s->p, s->a->fraction), sum,
             [=](int32_t i) { return (unsigned long long)kac_weight(l[order[i]], top); });
}

/* ---- points in buckets: multinomial and killing ---------------------------------------------
 *
 * Points are searched for in memory that neighbours have read: first they are written into
 * buckets by the first bits of their words, which are uniform whatever the weights are.  So a
 * bucket gets its share of them but for some of its standard deviations, and the few that do not
 * fit are searched for at once.
 */

enum {
    MOST_BUCKETS = 8192,
    FULL = 1024,
    SPARE = FULL / 16,
    EACH = (int)TILE / (int)KAC_THREADS
};

/* Those of a pool. */
struct buckets {
    int32_t bits, room; /* 2^bits of them, and the points that fit into each */
    int32_t *filled;
    uint64_t *point; /* [2^bits][room] */
};

/* Buckets of FULL points or somewhat more, in memory of 17/16 as many as all pools have slots. */
static __device__ buckets buckets_of(const kac_pool *p, const tiles_call *call, int32_t number)
{
    buckets b = {0, p->n, call->filled + p->first_slot / FULL + number,
                 call->point + p->first_slot + p->first_slot / 16};
    while (b.bits < 31 && 1 << b.bits < MOST_BUCKETS && p->n >> b.bits >= 2 * FULL)
        b.bits++;
    if (b.bits > 0) b.room = (p->n >> b.bits) + SPARE;
    return b;
}

static __device__ int32_t bucket_of(const buckets *b, uint64_t word)
{
    return (int32_t)(word >> 1 >> (63 - b->bits));
}

/* The least word of a bucket. */
static __device__ uint64_t word_of(const buckets *b, int32_t bucket)
{
    return (uint64_t)bucket << (63 - b->bits) << 1;
}

/* Bound by writing 8 bytes at a time, and by Philox. */
static __device__ void scatter(const stage *s, part on, const buckets *b)
{
    KAC_SHARED(int32_t, place, MOST_BUCKETS); /* how many, then where the first of them goes */
    const int32_t end = end_of(on, s->p.n), me = (int32_t)threadIdx.x,
                  retained = retained_of(s);
    uint64_t word[EACH];
    int32_t nth[EACH]; /* of the bucket's, -1: no point */
    for (int32_t i = me; i < 1 << b->bits; i += KAC_THREADS)
        place[i] = 0;
    __syncthreads();
    KAC_UNROLL
    for (int k = 0; k < EACH; k++) {
        const int32_t j = on.first + k * KAC_THREADS + me;
        nth[k] = -1;
        if (j < end && has_point(s, j, retained, &word[k]))
            nth[k] = atomicAdd(&place[bucket_of(b, word[k])], 1);
    }
    __syncthreads();
    for (int32_t i = me; i < 1 << b->bits; i += KAC_THREADS)
        if (place[i] > 0) place[i] = atomicAdd(&b->filled[i], place[i]);
    __syncthreads();
    KAC_UNROLL
    for (int k = 0; k < EACH; k++) {
        if (nth[k] < 0) continue;
        const int32_t bucket = bucket_of(b, word[k]), at = place[bucket] + nth[k];
        const uint64_t point = kac_mulhi64(word[k], s->p.sum);
        if (at < b->room)
            b->point[(int64_t)bucket * b->room + at] = point;
        else
            give_to(s, point);
    }
    __syncthreads();
}

/* kac_first_above by a warp. */
static __device__ int32_t warp_first_above(const uint64_t *c, int32_t n, uint64_t u)
{
    const int32_t lane = (int32_t)threadIdx.x % KAC_WARP;
    int32_t low = 0;
    while (n > 1) {
        const int32_t step = (n + KAC_WARP - 1) / KAC_WARP, last = (lane + 1) * step - 1;
        const unsigned above =
            __ballot_sync(KAC_WHOLE_WARP, last >= n - 1 || c[low + last] > u);
        const int32_t skipped = (__ffs((int)above) - 1) * step;
        low += skipped;
        n = n - skipped < step ? n - skipped : step;
    }
    return low;
}

/* Bound by shared memory: 11 steps of a search for each point among neighbouring sums. */
static __device__ void search(const stage *s, const buckets *b, int32_t bucket)
{
    enum { STAGED = 3072 };
    const kac_pool *p = &s->p;
    const int32_t me = (int32_t)threadIdx.x, warp = me / KAC_WARP;
    KAC_SHARED(uint64_t, sums, STAGED);
    KAC_SHARED(int32_t, count, STAGED);
    KAC_SHARED(int32_t, ends, 2);
    if (warp < 2) { /* the first and last candidates that a point may choose */
        const uint64_t u = kac_mulhi64(word_of(b, bucket + warp) - (unsigned)warp, p->sum);
        const int32_t found = warp_first_above(p->w, p->candidates, u);
        if (me % KAC_WARP == 0) ends[warp] = found;
    }
    __syncthreads();
    const int32_t low = ends[0], n = ends[1] - low + 1;
    const bool staged = n <= STAGED;
    for (int32_t i = me; staged && i < n; i += KAC_THREADS) {
        sums[i] = p->w[low + i];
        count[i] = 0;
    }
    __syncthreads();
    const int32_t points = b->filled[bucket] < b->room ? b->filled[bucket] : b->room;
    for (int32_t j = me; j < points; j += KAC_THREADS) {
        const uint64_t u = b->point[(int64_t)bucket * b->room + j];
        if (staged)
            atomicAdd(&count[kac_first_above(sums, n, u)], 1);
        else
            atomicAdd(&s->count[low + kac_first_above(p->w + low, n, u)], 1);
    }
    __syncthreads();
    for (int32_t i = me; staged && i < n; i += KAC_THREADS)
        if (count[i] > 0) atomicAdd(&s->count[low + i], count[i]);
    __syncthreads();
}

/* ---- the tournament of tiles -------------------------------------------------------------- */

/* Where element t of an array lies so that elements a power of two apart differ in their bank. */
static __device__ int32_t apart(int32_t t)
{
    return t + t / 16;
}

/* That of a tile, all of it in shared memory: writes the offspring of each candidate and of the
 * tile, and its champion with what is left of it.  Bound by Philox and the exponential. */
static __device__ void play_tile(const stage *s, part on, unsigned long long *left,
                                 int32_t *tile_count)
{
    KAC_SHARED(uint64_t, residue, TILE + TILE / 16);
    KAC_SHARED(uint16_t, champion, TILE + TILE / 16);
    KAC_SHARED(uint8_t, gets, TILE);
    const kac_pool *p = &s->p;
    const int32_t n = end_of(on, p->candidates) - on.first, me = (int32_t)threadIdx.x;
    const kac_divisor by = kac_divisor_of(p->n, 0, p->sum);
    int32_t whole[EACH], sum = 0;
    KAC_UNROLL
    for (int k = 0; k < EACH; k++) {
        const int32_t t = k * KAC_THREADS + me;
        whole[k] = 0;
        if (t >= n) continue;
        const kac_share share = kac_divide(&by, kac_weight(p->l[on.first + t], s->v.top));
        whole[k] = share.whole;
        residue[apart(t)] = share.residue;
        champion[apart(t)] = (uint16_t)t;
        gets[t] = 0;
    }
    __syncthreads();
    play(p, subtrees<uint16_t>{on.first, 1, n, residue, champion}, apart,
         [=](uint16_t t) { gets[t] = 1; });
    KAC_UNROLL
    for (int k = 0; k < EACH; k++) {
        const int32_t t = k * KAC_THREADS + me;
        if (t < n) s->count[on.first + t] = whole[k] += gets[t];
        sum += whole[k];
    }
    sum = kac_block_sum(sum);
    if (me == 0) {
        *tile_count = sum;
        *left = residue[0];
        p->offspring[on.first / TILE] = on.first + champion[0];
    }
    __syncthreads(); /* the arrays are another tile's next */
}

/* Between the champions of tiles. */
static __device__ void play_tiles(const stage *s, unsigned long long *left, int32_t *tile_count)
{
    const int32_t tiles = (s->p.candidates + TILE - 1) / TILE;
    const subtrees<int32_t> all = {0, TILE, tiles, (uint64_t *)left, s->p.offspring};
    int32_t *count = s->count;
    play(
        &s->p, all, [](int32_t t) { return t; },
        [=](int32_t i) {
            count[i]++;
            tile_count[i / TILE]++;
        });
}

/* ---- phases ------------------------------------------------------------------------------- */

/* One phase of one tile.  sums, counts: of the pool's tiles. */
template <phase PHASE>
static __device__ void do_tile(const stage *s, int32_t tile, pool_state *state,
                               unsigned long long *sums, int32_t *counts)
{
    const part on = {tile * TILE, TILE};
    const int32_t n = end_of(on, s->p.candidates) - on.first;
    if constexpr (PHASE == UNIT || PHASE == TOP) find_largest(s, on, state, PHASE);
    if constexpr (PHASE == SUMS) find_sums(s, on, state, &sums[tile]);
    if constexpr (PHASE == WEIGHTS) run_weights(s, on, kac_block_total(sums, tile));
    if constexpr (PHASE == SYSTEMATIC) spread_systematic(s, on, kac_block_total(sums, tile));
    if constexpr (PHASE == COUNT_TILES) {
        const int32_t *count = s->count;
        sum_part(on, s->p.candidates, &counts[tile], [=](int32_t i) { return count[i]; });
    }
    if constexpr (PHASE == COUNTS) run_counts(s, on, kac_block_total(counts, tile));
    if constexpr (PHASE == SLOTS) spread_counts(s, on, kac_block_total(counts, tile));
    if constexpr (PHASE == DRAW) draw_residual(s, on);
    if constexpr (PHASE == PLAY) play_tile(s, on, &sums[tile], &counts[tile]);
    if constexpr (PHASE == SORT) sort(s->p.l, s->count + on.first, on.first, n);
    if constexpr (PHASE == MERGE) merge(s->p.l, s->count + on.first, n, TILE / 2, false);
    if constexpr (PHASE == BEST_TILES) sum_best(s, on, &sums[tile]);
    if constexpr (PHASE == BEST) run_best(s, on, kac_block_total(sums, tile));
    if constexpr (PHASE == EMIT)
        if (!counts_offspring(s)) emit(s, on); /* else spread has */
}

/* Blocks in x share the tiles of pool y.  Bound by memory where nothing else is said: with
 * systematic the phases read and write 40 bytes a candidate in all.  SUMS takes the tiles from the
 * last one on, which TOP has left in the cache. */
template <phase PHASE>
static __global__ void __launch_bounds__(KAC_THREADS)
    on_tiles(KAC_ARGS tiles_call call, int32_t half)
{
    kac_select_args a = args_of(&call.of);
    const int32_t number = (int32_t)blockIdx.y, step = (int32_t)(gridDim.x * blockDim.x);
    stage s = open_stage(&a, number, call.of.count);
    pool_state *state = &call.state[number];
    const int32_t before = s.p.first / TILE + number; /* tiles of the pools before, or more */
    const int32_t tiles = (s.p.candidates + TILE - 1) / TILE;
    if (PHASE > TOP) s.v.top = from_rising(state->top);
    if (PHASE > SUMS) {
        part_sums sums = {state->sum, state->coarse, state->low, state->high,
                          INT32_MAX - (int32_t)state->best};
        judge(&s, &sums);
        if (PHASE != EMIT && !s.v.selects) return;
    }
    if constexpr (PHASE == EXCHANGE || PHASE == MIRROR) {
        exchange(s.p.l, s.count, s.p.candidates, half, PHASE == MIRROR,
                 (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), step);
    } else if constexpr (PHASE == PLAY_TILES) {
        play_tiles(&s, call.tile_sum + before, call.tile_count + before);
    } else if constexpr (PHASE == SCATTER || PHASE == SEARCH) {
        const buckets b = buckets_of(&s.p, &call, number);
        const int32_t n = PHASE == SCATTER ? (s.p.n + TILE - 1) / TILE : 1 << b.bits;
        for (int32_t i = (int32_t)blockIdx.x; i < n; i += (int32_t)gridDim.x) {
            if constexpr (PHASE == SCATTER) scatter(&s, {i * TILE, TILE}, &b);
            if constexpr (PHASE == SEARCH) search(&s, &b, i);
        }
    } else {
        for (int32_t i = (int32_t)blockIdx.x; i < tiles; i += (int32_t)gridDim.x)
            do_tile<PHASE>(&s, PHASE == SUMS ? tiles - 1 - i : i, state, call.tile_sum + before,
                           call.tile_count + before);
        if (PHASE == EMIT && blockIdx.x == 0) tell(&s, number);
    }
}

#define DO(phase, half)                                                                        \
    KAC_TRY(KAC_LAUNCH(dev, on_tiles<phase>, grid, KAC_THREADS, 0, *c, half))

static kac_status draw_large(kac_device *dev, const tiles_call *c, dim3 grid)
{
    switch (c->of.a.scheme) {
    case KAC_SCHEME_SYSTEMATIC: DO(SYSTEMATIC, 0); return KAC_OK;
    case KAC_SCHEME_STRATIFIED: DO(WEIGHTS, 0); return KAC_OK;
    case KAC_SCHEME_RESIDUAL:
        DO(WEIGHTS, 0);
        DO(COUNT_TILES, 0);
        DO(COUNTS, 0);
        DO(DRAW, 0);
        DO(COUNT_TILES, 0);
        break;
    case KAC_SCHEME_MULTINOMIAL:
    case KAC_SCHEME_KILLING:
        DO(WEIGHTS, 0);
        DO(SCATTER, 0);
        DO(SEARCH, 0);
        DO(COUNT_TILES, 0);
        break;
    case KAC_SCHEME_TOURNAMENT:
        DO(PLAY, 0);
        KAC_TRY(KAC_LAUNCH(dev, on_tiles<PLAY_TILES>, dim3(1, grid.y), KAC_THREADS, 0, *c, 0));
        break;
    }
    DO(SLOTS, 0);
    return KAC_OK;
}

/* top_k and replace: log2(C)^2 / 2 launches, where a radix sort would need fewer. */
static kac_status sort_large(kac_device *dev, const tiles_call *c, dim3 grid)
{
    int64_t candidates = (int64_t)c->of.x.n * c->of.a.keep;
    DO(SORT, 0);
    for (int32_t top = TILE; top < candidates; top *= 2) {
        DO(MIRROR, top);
        for (int32_t half = top / 2; half >= TILE; half /= 2)
            DO(EXCHANGE, half);
        DO(MERGE, 0);
    }
    if (c->of.a.group_rule == KAC_RULE_TOP_K) return KAC_OK;
    DO(BEST_TILES, 0);
    DO(BEST, 0);
    return KAC_OK;
}

static kac_status select_large(kac_device *dev, const tiles_call *c, dim3 grid)
{
    const kac_rule rule = c->of.a.group_rule;
    if (c->of.a.weights == KAC_WEIGHTS_SCALED) DO(UNIT, 0);
    DO(TOP, 0);
    DO(SUMS, 0);
    if (rule == KAC_RULE_CATEGORICAL) KAC_TRY(draw_large(dev, c, grid));
    if (rule == KAC_RULE_TOP_K || rule == KAC_RULE_REPLACE) KAC_TRY(sort_large(dev, c, grid));
    DO(EMIT, 0);
    return KAC_OK;
}

/* Large pools: working memory behind `counts` bytes of it, and all phases. */
static kac_status open_large(kac_device *dev, const select_call *call, size_t counts)
{
    const kac_select_args *a = &call->a;
    const int64_t candidates = (int64_t)call->x.n * a->keep, mean = candidates / a->pools;
    const size_t pools = (size_t)a->pools, slots = (size_t)call->x.n;
    const bool points =
        a->group_rule == KAC_RULE_CATEGORICAL &&
        (a->scheme == KAC_SCHEME_MULTINOMIAL || a->scheme == KAC_SCHEME_KILLING);
    const size_t tiles = (size_t)(candidates / TILE) + pools + 1;
    const size_t fills = slots / FULL + pools + 1, all_points = slots + slots / 16 + 1;
    const size_t states = (pools * sizeof(pool_state) + fills * sizeof(int32_t) + 63) / 64 * 64;
    const size_t sums = tiles * sizeof(uint64_t);
    const size_t bytes = counts + states + sums + (points ? all_points * sizeof(uint64_t) : 0) +
                         tiles * sizeof(int32_t);
    void *scratch = NULL;
    KAC_TRY(kac_cuda_scratch(dev, bytes, &scratch));
    char *base = (char *)scratch;
    tiles_call large = {*call, (pool_state *)(base + counts), NULL, NULL, NULL, NULL};
    large.of.count = (int32_t *)base;
    large.filled = (int32_t *)(large.state + pools);
    large.tile_sum = (unsigned long long *)(base + counts + states);
    large.point = (uint64_t *)(large.tile_sum + tiles);
    large.tile_count = (int32_t *)(points ? large.point + all_points : large.point);
    KAC_TRY(
        kac_cuda_status(cudaMemsetAsync(large.state, 0, states, kac_stream(dev)), "select"));
    const int64_t blocks = (mean + TILE - 1) / TILE * (a->pools > 1 ? 2 : 1);
    return select_large(dev, &large, dim3((unsigned)blocks, (unsigned)a->pools));
}

kac_status kac_cuda_select_group(kac_device *dev, const kac_select_args *a)
{
    KAC_REQUIRE(a->scheme != KAC_SCHEME_KILLING || a->group_rule != KAC_RULE_CATEGORICAL ||
                a->keep == 1);
    if (a->pools == 0) return KAC_OK;
    const int64_t candidates = (int64_t)a->x->n * a->keep;
    const size_t counts = ((size_t)candidates * sizeof(int32_t) + 63) / 64 * 64;
    select_call call = {*a, *a->x, *a->y, NULL};
    if (candidates / a->pools >= LARGE && a->pools <= MOST_LARGE)
        return open_large(dev, &call, counts);
    void *scratch = NULL;
    KAC_TRY(kac_cuda_scratch(dev, counts, &scratch));
    call.count = (int32_t *)scratch;
    return select_small(dev, &call);
}
