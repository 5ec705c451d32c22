/* select_cuda.cu -- both stages of selection: among siblings, then within pools of groups.
 *
 * Where pools are small a block does all phases of a pool, with barriers between them.  Where they
 * are large (known from the numbers of particles and pools alone) select_large_cuda.cu does them.
 */
#include "pool_cuda.cuh"

/* Threads of a block for so many items: 4 each, one warp at least. */
static unsigned team(int64_t items, unsigned most)
{
    unsigned threads = KAC_WARP;
    while (threads < most && (int64_t)threads * 4 < items)
        threads *= 2;
    return threads;
}

/* ---- the parent stage ------------------------------------------------------------------- */

KAC_KERNEL pick_all(KAC_ARGS select_call call)
{
    kac_select_args a = select_args_of(&call);
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
    kac_select_args a = select_args_of(&call);
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
    kac_select_args a = select_args_of(&call);
    KAC_DYNAMIC_SHARED(int32_t, order);
    for (int32_t i = (int32_t)blockIdx.x; i < a.x->n; i += (int32_t)gridDim.x) {
        const double *l = a.y->log_w + (int64_t)i * a.children;
        int64_t to = (int64_t)i * a.keep;
        pool_sort(l, order, 0, a.children);
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

/* ---- small pools: a block each ------------------------------------------------------------
 */

static __device__ void draw_points(const pool_stage *s, pool_part on)
{
    const int32_t retained = pool_retained(s);
    uint64_t word;
    EACH_OF (j, on, s->p.n)
        if (pool_has_point(s, j, retained, &word)) pool_give(s, kac_mulhi64(word, s->p.sum));
}

/* The tournament of a pool whose shares pool_run_weights has left. */
static __device__ void play_all(const pool_stage *s)
{
    const pool_subtrees<int32_t> leaves = {0, 1, s->p.candidates, s->p.w, s->p.offspring};
    int32_t *count = s->count;
    pool_play(
        &s->p, leaves, [](int32_t t) { return t; }, [=](int32_t i) { count[i]++; });
}

static __device__ void draw_offspring(const pool_stage *s, pool_part all)
{
    const kac_scheme scheme = s->a->scheme;
    pool_run_weights(s, all, 0);
    __syncthreads();
    if (scheme == KAC_SCHEME_SYSTEMATIC || scheme == KAC_SCHEME_STRATIFIED) return;
    if (scheme == KAC_SCHEME_RESIDUAL) {
        pool_run_counts(s, all, 0);
        __syncthreads();
        pool_draw_residual(s, all);
    }
    if (scheme == KAC_SCHEME_TOURNAMENT) play_all(s);
    if (scheme == KAC_SCHEME_MULTINOMIAL || scheme == KAC_SCHEME_KILLING) draw_points(s, all);
    __syncthreads();
    pool_run_counts(s, all, 0);
    __syncthreads();
}

enum { MOST_THREADS = 512 };

/* Bound by the latency of its barriers; many pools hide it. */
KAC_KERNEL __launch_bounds__(MOST_THREADS) select_pool(KAC_ARGS select_call call)
{
    kac_select_args a = select_args_of(&call);
    const pool_part all = {0, INT32_MAX};
    const int32_t number = (int32_t)blockIdx.x;
    pool_stage s = pool_open(&a, number, call.count);
    double unit = 0;
    if (a.weights == KAC_WEIGHTS_VALUE) unit = s.p.alpha;
    if (a.weights == KAC_WEIGHTS_SCALED) unit = pool_find_unit(&s, all);
    s.v.top = pool_find_top(&s, all, unit);
    pool_sums sums = pool_sum_weights(&s, all);
    pool_judge(&s, &sums);
    if (s.v.selects && a.group_rule == KAC_RULE_CATEGORICAL) draw_offspring(&s, all);
    if (s.v.selects && (a.group_rule == KAC_RULE_TOP_K || a.group_rule == KAC_RULE_REPLACE))
        pool_sort(s.p.l, s.count, 0, s.p.candidates);
    if (s.v.selects && a.group_rule == KAC_RULE_REPLACE) {
        pool_run_best(&s, all, 0);
        __syncthreads();
    }
    pool_emit(&s, all);
    pool_tell(&s, number);
}

static kac_status select_small(kac_device *dev, const select_call *call)
{
    int64_t candidates = (int64_t)call->x.n * call->a.keep;
    return KAC_LAUNCH(dev, select_pool, (unsigned)call->a.pools,
                      team(candidates / call->a.pools, MOST_THREADS), 0, *call);
}

kac_status kac_cuda_select_group(kac_device *dev, const kac_select_args *a)
{
    KAC_REQUIRE(a->scheme != KAC_SCHEME_KILLING || a->group_rule != KAC_RULE_CATEGORICAL ||
                a->keep == 1);
    if (a->pools == 0) return KAC_OK;
    const int64_t candidates = (int64_t)a->x->n * a->keep;
    select_call call = {*a, *a->x, *a->y, NULL};
    if (candidates / a->pools >= LARGE_POOL && a->pools <= MOST_LARGE_POOLS)
        return kac_select_large(dev, &call);
    void *scratch = NULL;
    KAC_TRY(kac_cuda_scratch(dev, (size_t)candidates * sizeof(int32_t), &scratch));
    call.count = (int32_t *)scratch;
    return select_small(dev, &call);
}
