/* particles_cuda.cu -- values, banks and log-weights of children, and the survivors' arrays. */
#include "fault.cuh"
#include "share.cuh"
#include "weigh.h"

/* ---- the clock ---------------------------------------------------------------------------- */

KAC_KERNEL tick(kac_clock *clock)
{
    clock->move++;
    clock->level--;
}

kac_status kac_cuda_tick(kac_device *dev, kac_clock *clock)
{
    return KAC_LAUNCH(dev, tick, 1, 1, 0, clock);
}

/* ---- values and weights ------------------------------------------------------------------- */

/* The arguments with the host structs that they point to. */
struct weigh_call {
    kac_weigh_args a;
    kac_particles x, y;
};

static weigh_call call_of(const kac_weigh_args *a)
{
    return {*a, *a->x, *a->y};
}

/* The arguments of a kernel, pointing to the structs that came with them.  Terms of the objective
 * are read where they came: an array of the copy would lie in the thread's own memory. */
static __device__ kac_weigh_args args_of(const weigh_call *call)
{
    kac_weigh_args a = call->a;
    a.x = &call->x;
    a.y = const_cast<kac_particles *>(&call->y);
    return a;
}

static __device__ void note_bad(const kac_weigh_args *a, int64_t c, int32_t bad)
{
    if (bad < 0 || a->invalid_is_worst) return;
    kac_fault_note(a->fault, {KAC_FAULT_NAN, (int32_t)(c / a->children), a->clock->move, bad});
}

KAC_KERNEL __launch_bounds__(KAC_THREADS, 4) value(KAC_ARGS weigh_call call)
{
    kac_weigh_args a = args_of(&call);
    KAC_EACH (c, kac_children_in_use(&a)) {
        int32_t bad = -1;
        a.y->value[c] = kac_child_value(&a, &call.a.objective, c, &bad);
        note_bad(&a, c, bad);
    }
}

/* The first term from k on that is looked at, or how many terms there are. */
KAC_HD static int32_t next_term(const kac_objective *o, int32_t k)
{
    while (k < o->terms && o->term[k].column < 0)
        k++;
    return k;
}

enum { PLAIN = 4, PLAIN_TILE = PLAIN * (int)KAC_THREADS }; /* children of a thread, a block */

/* Values where a child has one completion and r is the sum of its terms.  Bound by memory, for
 * which a thread has several children, whose loads are under way together.  Where the terms are
 * finite and within their bounds r is that sum and no more; other children are looked at again. */
KAC_KERNEL __launch_bounds__(KAC_THREADS, 4) value_plain(KAC_ARGS weigh_call call)
{
    const kac_weigh_args a = args_of(&call);
    const kac_objective *o = &call.a.objective;
    const uint32_t n = (uint32_t)kac_children_in_use(&a);
    for (uint32_t first = blockIdx.x * PLAIN_TILE + threadIdx.x; first < n;
         first += gridDim.x * PLAIN_TILE) {
        uint32_t c[PLAIN];
        int32_t group[PLAIN], k = next_term(o, 0);
        float x[PLAIN];
        double w[PLAIN], d[PLAIN], sum[PLAIN] = {};
        unsigned again = 0; /* a bit a child */
        auto read = [&]() {
            KAC_UNROLL
            for (uint32_t j = 0; j < PLAIN; j++)
                x[j] = a.terms[(int64_t)c[j] * a.columns + o->term[k].column];
        };
        KAC_UNROLL
        for (uint32_t j = 0; j < PLAIN; j++)
            c[j] = first + j * KAC_THREADS < n ? first + j * KAC_THREADS : first;
        read();
        if (a.children == 1) {
            KAC_UNROLL
            for (uint32_t j = 0; j < PLAIN; j++)
                group[j] = a.x->group[c[j]];
        } else {
            KAC_UNROLL
            for (uint32_t j = 0; j < PLAIN; j++)
                group[j] = a.x->group[kac_parent_of(c[j], a.children)];
        }
        while (true) {
            const kac_term t = o->term[k];
            KAC_UNROLL
            for (uint32_t j = 0; j < PLAIN; j++) {
                w[j] = a.group_weight[(int64_t)group[j] * o->terms + k];
                d[j] = (double)x[j];
                const bool outside = kac_is_outside(&t, x[j]), finite = isfinite(x[j]);
                again |= (unsigned)(outside | !finite) << j;
            }
            if (!isnan(t.low)) {
                KAC_UNROLL
                for (uint32_t j = 0; j < PLAIN; j++)
                    d[j] = kac_desirability(&t, d[j]);
            }
            KAC_UNROLL
            for (uint32_t j = 0; j < PLAIN; j++)
                sum[j] = w[j] != 0 ? fma(w[j], d[j], sum[j]) : sum[j];
            k = next_term(o, k + 1);
            if (k == o->terms) break;
            read();
        }
        KAC_UNROLL
        for (uint32_t j = 0; j < PLAIN; j++)
            if (c[j] == first + j * KAC_THREADS) a.y->value[c[j]] = sum[j];
        for (; again != 0; again &= again - 1) {
            const uint32_t at = first + (uint32_t)(__ffs((int)again) - 1) * KAC_THREADS;
            int32_t bad = -1;
            if (at >= n) continue;
            a.y->value[at] = kac_plain_value(&a, o, at, &bad);
            note_bad(&a, at, bad);
        }
    }
}

kac_status kac_cuda_value(kac_device *dev, const kac_weigh_args *a)
{
    const int64_t n = (int64_t)a->x->n * a->children;
    if (a->samples == 1 && a->objective.combine == KAC_COMBINE_SUM && a->terms != NULL &&
        next_term(&a->objective, 0) < a->objective.terms)
        return KAC_LAUNCH(dev, value_plain, kac_blocks((n + PLAIN - 1) / PLAIN), KAC_THREADS, 0,
                          call_of(a));
    return KAC_LAUNCH(dev, value, kac_blocks(n), KAC_THREADS, 0, call_of(a));
}

KAC_KERNEL weigh(KAC_ARGS weigh_call call)
{
    kac_weigh_args a = args_of(&call);
    KAC_EACH (c, kac_children_in_use(&a)) {
        kac_weighed child =
            kac_child_weighed(&a, c, a.groups[a.x->group[kac_parent_of(c, a.children)]].lambda);
        a.y->bank[c] = child.bank.bank;
        a.y->stat[c] = child.bank.stat;
        a.y->log_w[c] = child.log_w;
    }
}

kac_status kac_cuda_weigh(kac_device *dev, const kac_weigh_args *a)
{
    return KAC_LAUNCH(dev, weigh, kac_blocks((int64_t)a->x->n * a->children), KAC_THREADS, 0,
                      call_of(a));
}

/* ---- gradients ---------------------------------------------------------------------------- */

struct cotangent_call {
    kac_slope_args a;
    kac_fresh fresh;
    int32_t first_column, n;
    float *out;
};

KAC_KERNEL cotangent(KAC_ARGS cotangent_call call)
{
    kac_slope_args a = call.a;
    a.fresh = &call.fresh;
    KAC_EACH (j, a.batch)
        if (a.first + j < *a.fresh->count)
            kac_row_cotangent(&a, &call.a.objective, (int32_t)(a.first + j), call.first_column,
                              call.n, call.out + j * call.n);
}

kac_status kac_cuda_cotangent(kac_device *dev, const kac_slope_args *a, int32_t first_column,
                              int32_t n, float *out)
{
    cotangent_call call = {*a, *a->fresh, first_column, n, out};
    return KAC_LAUNCH(dev, cotangent, kac_blocks(a->batch), KAC_THREADS, 0, call);
}

KAC_KERNEL axpy(int64_t n, float a, const float *x, float *y)
{
    KAC_EACH (i, n)
        y[i] = fmaf(a, x[i], y[i]);
}

kac_status kac_cuda_axpy(kac_device *dev, int64_t n, float a, const float *x, float *y)
{
    return KAC_LAUNCH(dev, axpy, kac_blocks(n), KAC_THREADS, 0, n, a, x, y);
}

/* ---- tempering ---------------------------------------------------------------------------- */

/* What is found out about the weights of a pool's children at one exponent: the largest
 * log-weight (kac_ordered; 0: not yet known) and sums over the integer weights, that of squares in
 * two halves. */
struct probe {
    unsigned long long top, coarse, low, high;
};

/* Children first + the thread's number, by `step`, below end. */
struct span {
    int64_t first, end, step;
};

static __device__ span children_of(const kac_weigh_args *a, int32_t pool, unsigned part,
                                   unsigned parts)
{
    const kac_group *first = &a->groups[a->pool_first[pool]];
    const kac_group *last = &a->groups[a->pool_first[pool + 1] - 1];
    return {(int64_t)first->offset * a->children + (int64_t)part * blockDim.x,
            ((int64_t)last->offset + last->count) * a->children, (int64_t)parts * blockDim.x};
}

static __device__ double block_top(const kac_weigh_args *a, const span *s, double lambda)
{
    double top = -(double)INFINITY;
    for (int64_t c = s->first + threadIdx.x; c < s->end; c += s->step) {
        double log_w = kac_child_weighed(a, c, lambda).log_w;
        if (log_w > top) top = log_w;
    }
    return kac_block_max(top);
}

static __device__ probe block_sums(const kac_weigh_args *a, const span *s, double lambda,
                                   double top)
{
    kac_weight_sums sums = {0, 0, 0};
    for (int64_t c = s->first + threadIdx.x; c < s->end; c += s->step)
        kac_weight_add(&sums, kac_weight(kac_child_weighed(a, c, lambda).log_w, top));
    return {kac_ordered(top), kac_block_sum(sums.coarse),
            kac_block_sum((uint64_t)sums.square & 0xffffffffu),
            kac_block_sum((uint64_t)(sums.square >> 32))};
}

static __device__ bool is_too_steep(const probe *p, int64_t n, int32_t below)
{
    unsigned __int128 square = ((unsigned __int128)p->high << 32) + p->low;
    kac_weight_sums sums = {0, p->coarse, square};
    return kac_of_order(p->top) > -(double)INFINITY && kac_ess_is_below(&sums, n, below);
}

/* The exponent of all groups of a pool, by the threads of its block. */
static __device__ void set_lambda(const kac_weigh_args *a, int32_t pool, double lambda)
{
    for (int32_t g = a->pool_first[pool] + (int32_t)threadIdx.x; g < a->pool_first[pool + 1];
         g += (int32_t)blockDim.x)
        a->groups[g].lambda = lambda;
}

static __device__ bool is_solved_for(const kac_weigh_args *a)
{
    return a->temper == KAC_TEMPER_ESS && a->clock->level > 0;
}

/* A block a pool.  The ESS bounds it: 31 probes, each two passes over the pool's children. */
KAC_BLOCK_KERNEL temper(KAC_ARGS weigh_call call)
{
    kac_weigh_args a = args_of(&call);
    int32_t pool = (int32_t)blockIdx.x;
    double lambda = a.clock->level == 0 ? 1 : a.levels[a.clock->level].temper;
    if (is_solved_for(&a)) {
        span s = children_of(&a, pool, 0, 1);
        kac_bracket b = {a.groups[a.pool_first[pool]].lambda, 1, 1};
        for (int k = 0; k < KAC_TEMPER_PROBES && b.low != b.high; k++) {
            probe p = block_sums(&a, &s, b.at, block_top(&a, &s, b.at));
            kac_bracket_narrow(&b, is_too_steep(&p, s.end - s.first, a.temper_below));
        }
        lambda = b.low;
        __syncthreads(); /* all have read the exponent before */
    }
    set_lambda(&a, pool, lambda);
}

/* Large pools: each probe is two launches of many blocks, and who needs the bracket follows it
 * through the probes that are there. */
struct wide_call {
    weigh_call weigh;
    probe *probes; /* [KAC_TEMPER_PROBES][pools], zero at first */
    unsigned parts;
};

/* The bracket of the block's pool after `done` probes. */
static __device__ kac_bracket bracket_of(const wide_call *call, const kac_weigh_args *a,
                                         int32_t pool, int done)
{
    span s = children_of(a, pool, 0, 1);
    kac_bracket b = {a->groups[a->pool_first[pool]].lambda, 1, 1};
    for (int k = 0; k < done && b.low != b.high; k++)
        kac_bracket_narrow(&b, is_too_steep(&call->probes[(int64_t)k * a->pools + pool],
                                            s.end - s.first, a->temper_below));
    return b;
}

KAC_BLOCK_KERNEL temper_top(KAC_ARGS wide_call call, int number)
{
    kac_weigh_args a = args_of(&call.weigh);
    int32_t pool = (int32_t)(blockIdx.x / call.parts);
    span s = children_of(&a, pool, blockIdx.x % call.parts, call.parts);
    kac_bracket b = bracket_of(&call, &a, pool, number);
    if (!is_solved_for(&a) || b.low == b.high) return;
    double top = block_top(&a, &s, b.at);
    if (threadIdx.x == 0)
        atomicMax(&call.probes[(int64_t)number * a.pools + pool].top,
                  (unsigned long long)kac_ordered(top));
}

KAC_BLOCK_KERNEL temper_sums(KAC_ARGS wide_call call, int number)
{
    kac_weigh_args a = args_of(&call.weigh);
    int32_t pool = (int32_t)(blockIdx.x / call.parts);
    span s = children_of(&a, pool, blockIdx.x % call.parts, call.parts);
    kac_bracket b = bracket_of(&call, &a, pool, number);
    probe *p = &call.probes[(int64_t)number * a.pools + pool];
    if (!is_solved_for(&a) || b.low == b.high) return;
    probe own = block_sums(&a, &s, b.at, kac_of_order(p->top));
    if (threadIdx.x > 0) return;
    atomicAdd(&p->coarse, own.coarse);
    atomicAdd(&p->low, own.low);
    atomicAdd(&p->high, own.high);
}

KAC_BLOCK_KERNEL temper_end(KAC_ARGS wide_call call)
{
    kac_weigh_args a = args_of(&call.weigh);
    int32_t pool = (int32_t)blockIdx.x;
    double lambda = a.clock->level == 0 ? 1 : a.levels[a.clock->level].temper;
    if (is_solved_for(&a)) lambda = bracket_of(&call, &a, pool, KAC_TEMPER_PROBES).low;
    __syncthreads(); /* all have read the exponent before */
    set_lambda(&a, pool, lambda);
}

static kac_status temper_wide(kac_device *dev, const kac_weigh_args *a, unsigned parts)
{
    size_t bytes = KAC_TEMPER_PROBES * (size_t)a->pools * sizeof(probe);
    unsigned pools = (unsigned)a->pools;
    void *scratch = NULL;
    KAC_TRY(kac_cuda_scratch(dev, bytes, &scratch));
    KAC_TRY(kac_cuda_status(cudaMemsetAsync(scratch, 0, bytes, kac_stream(dev)), "temper"));
    wide_call call = {call_of(a), (probe *)scratch, parts};
    for (int k = 0; k < KAC_TEMPER_PROBES; k++) {
        KAC_TRY(KAC_LAUNCH(dev, temper_top, pools * parts, KAC_BLOCK_MOST, 0, call, k));
        KAC_TRY(KAC_LAUNCH(dev, temper_sums, pools * parts, KAC_BLOCK_MOST, 0, call, k));
    }
    return KAC_LAUNCH(dev, temper_end, pools, KAC_WARP, 0, call);
}

kac_status kac_cuda_temper(kac_device *dev, const kac_weigh_args *a)
{
    if (a->terms == NULL) return KAC_OK;
    int64_t n = (int64_t)a->x->n * a->children;
    unsigned parts = kac_parts(n, a->pools);
    if (a->temper == KAC_TEMPER_ESS && parts > 1) return temper_wide(dev, a, parts);
    return KAC_LAUNCH(dev, temper, (unsigned)a->pools, kac_block_threads(n, a->pools), 0,
                      call_of(a));
}

/* ---- survivors ---------------------------------------------------------------------------- */

struct survive_call {
    kac_particles x, y;
    int32_t children, lanes;
    const int32_t *chosen;
    int32_t *eve;
};

/* Bound by memory: neighbouring lanes move neighbouring 16 bytes of a row. */
KAC_KERNEL survive_rows(KAC_ARGS survive_call call)
{
    int32_t stride = call.x.stride, lanes = call.lanes, shift = __ffs(lanes) - 1;
    KAC_EACH (t, (int64_t)call.x.n * lanes) {
        int64_t i = t >> shift;
        kac_row_copy(call.x.x + kac_row_at(i, stride),
                     call.y.x + kac_row_at(call.chosen[i], stride), stride,
                     (int32_t)(t & (lanes - 1)), lanes);
    }
}

KAC_KERNEL survive_scalars(KAC_ARGS survive_call call)
{
    KAC_EACH (i, call.x.n) {
        int32_t c = call.chosen[i];
        call.x.bank[i] = call.y.bank[c];
        call.x.stat[i] = call.y.stat[c];
        call.x.value[i] = call.y.value[c];
        call.x.entry[i] = call.y.entry[c];
        call.eve[i] = call.x.eve[c / call.children]; /* eve is still read by others */
    }
}

kac_status kac_cuda_survive(kac_device *dev, const kac_particles *y, int32_t children,
                            const int32_t *chosen, kac_particles *x, int32_t *scratch)
{
    KAC_REQUIRE(x->stride >= 0 && x->stride % 16 == 0 && x->stride == y->stride);
    survive_call call = {*x, *y, children, kac_lanes(x->stride / 16), chosen, scratch};
    if (x->stride > 0)
        KAC_TRY(KAC_LAUNCH(dev, survive_rows, kac_blocks((int64_t)x->n * call.lanes),
                           KAC_THREADS, 0, call));
    KAC_TRY(KAC_LAUNCH(dev, survive_scalars, kac_blocks(x->n), KAC_THREADS, 0, call));
    return kac_cuda_status(cudaMemcpyAsync(x->eve, scratch, (size_t)x->n * sizeof *x->eve,
                                           cudaMemcpyDeviceToDevice, kac_stream(dev)),
                           "survive");
}

KAC_KERNEL regroup(const kac_level *levels, const kac_clock *clock, int32_t n_groups,
                   kac_group *groups, int32_t *group)
{
    int32_t each = levels[clock->level].particles;
    KAC_EACH (g, n_groups) {
        groups[g].offset = (int32_t)g * each;
        groups[g].count = each;
    }
    KAC_EACH (i, (int64_t)n_groups * each)
        group[i] = (int32_t)(i / each);
}

/* How many there are only the device knows; these blocks serve any number. */
kac_status kac_cuda_regroup(kac_device *dev, const kac_level *levels, const kac_clock *clock,
                            int32_t n_groups, kac_group *groups, int32_t *group)
{
    enum { BLOCKS = 128 };
    return KAC_LAUNCH(dev, regroup, BLOCKS, KAC_THREADS, 0, levels, clock, n_groups, groups,
                      group);
}
