/* particles_cuda.cu -- values, banks and log-weights of children, and the survivors' arrays. */
#include "fault.cuh"
#include "team.cuh"
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

/* The arguments of a kernel, pointing to the structs that came with them. */
static __device__ kac_weigh_args args_of(const weigh_call *call)
{
    kac_weigh_args a = call->a;
    a.x = &call->x;
    a.y = const_cast<kac_particles *>(&call->y);
    return a;
}

KAC_KERNEL value(KAC_ARGS weigh_call call)
{
    kac_weigh_args a = args_of(&call);
    KAC_EACH(c, (int64_t)a.x->n * a.children)
    {
        int32_t bad = -1;
        a.y->value[c] = kac_child_value(&a, c, &bad);
        if (bad >= 0 && !a.invalid_is_worst)
            kac_fault_note(a.fault,
                           {KAC_FAULT_NAN, (int32_t)(c / a.children), a.clock->move, bad});
    }
}

kac_status kac_cuda_value(kac_device *dev, const kac_weigh_args *a)
{
    return KAC_LAUNCH(dev, value, kac_blocks((int64_t)a->x->n * a->children), KAC_THREADS, 0,
                      call_of(a));
}

KAC_KERNEL weigh(KAC_ARGS weigh_call call)
{
    kac_weigh_args a = args_of(&call);
    KAC_EACH(c, (int64_t)a.x->n * a.children)
    {
        kac_weighed child =
            kac_child_weighed(&a, c, a.groups[a.x->group[c / a.children]].lambda);
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
    KAC_EACH(j, a.batch)
    if (a.first + j < *a.fresh->count)
        kac_row_cotangent(&a, (int32_t)(a.first + j), call.first_column, call.n,
                          call.out + j * call.n);
}

kac_status kac_cuda_cotangent(kac_device *dev, const kac_slope_args *a, int32_t first_column,
                              int32_t n, float *out)
{
    cotangent_call call = {*a, *a->fresh, first_column, n, out};
    return KAC_LAUNCH(dev, cotangent, kac_blocks(a->batch), KAC_THREADS, 0, call);
}

KAC_KERNEL axpy(int64_t n, float a, const float *x, float *y)
{
    KAC_EACH(i, n)
    y[i] = fmaf(a, x[i], y[i]);
}

kac_status kac_cuda_axpy(kac_device *dev, int64_t n, float a, const float *x, float *y)
{
    return KAC_LAUNCH(dev, axpy, kac_blocks(n), KAC_THREADS, 0, n, a, x, y);
}

/* ---- tempering ---------------------------------------------------------------------------- */

/* Whether the ESS of children first .. end - 1 at this lambda is too low; all threads agree. */
static __device__ bool is_too_steep(const kac_weigh_args *a, int64_t first, int64_t end,
                                    double lambda)
{
    kac_weight_sums sums = {0, 0, 0};
    double top = -(double)INFINITY;
    for (int64_t c = first + threadIdx.x; c < end; c += blockDim.x) {
        double log_w = kac_child_weighed(a, c, lambda).log_w;
        if (log_w > top) top = log_w;
    }
    top = kac_block_max(top);
    if (top == -(double)INFINITY) return false;
    for (int64_t c = first + threadIdx.x; c < end; c += blockDim.x)
        kac_weight_add(&sums, kac_weight(kac_child_weighed(a, c, lambda).log_w, top));
    uint64_t low = kac_block_sum((uint64_t)sums.square & 0xffffffffu);
    uint64_t high = kac_block_sum((uint64_t)(sums.square >> 32));
    sums.coarse = kac_block_sum(sums.coarse);
    sums.square = ((unsigned __int128)high << 32) + low;
    return kac_ess_is_below(&sums, end - first, a->temper_below);
}

static __device__ double solve_lambda(const kac_weigh_args *a, int64_t first, int64_t end,
                                      double lambda)
{
    double low = lambda, high = 1;
    if (!is_too_steep(a, first, end, high)) return high;
    for (int k = 0; k < KAC_TEMPER_BISECTIONS; k++) {
        double middle = low + (high - low) / 2;
        if (is_too_steep(a, first, end, middle))
            high = middle;
        else
            low = middle;
    }
    return low;
}

/* A team a pool.  The ESS bounds it: 31 probes, each two passes over the pool's children. */
KAC_TEAM_KERNEL temper(KAC_ARGS weigh_call call)
{
    kac_weigh_args a = args_of(&call);
    int32_t first = a.pool_first[blockIdx.x], last = a.pool_first[blockIdx.x + 1] - 1;
    double lambda = a.levels[a.clock->level].temper;
    if (a.clock->level == 0)
        lambda = 1;
    else if (a.temper == KAC_TEMPER_ESS)
        lambda =
            solve_lambda(&a, (int64_t)a.groups[first].offset * a.children,
                         ((int64_t)a.groups[last].offset + a.groups[last].count) * a.children,
                         a.groups[first].lambda);
    for (int32_t g = first + (int32_t)threadIdx.x; g <= last; g += (int32_t)blockDim.x)
        a.groups[g].lambda = lambda;
}

kac_status kac_cuda_temper(kac_device *dev, const kac_weigh_args *a)
{
    if (a->terms == NULL) return KAC_OK;
    return KAC_LAUNCH(dev, temper, (unsigned)a->pools,
                      kac_team((int64_t)a->x->n * a->children, a->pools), 0, call_of(a));
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
    KAC_EACH(t, (int64_t)call.x.n * lanes)
    {
        int64_t i = t >> shift;
        kac_row_copy(call.x.x + kac_row_at(i, stride),
                     call.y.x + kac_row_at(call.chosen[i], stride), stride,
                     (int32_t)(t & (lanes - 1)), lanes);
    }
}

KAC_KERNEL survive_scalars(KAC_ARGS survive_call call)
{
    KAC_EACH(i, call.x.n)
    {
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
    KAC_REQUIRE(x->stride > 0 && x->stride % 16 == 0 && x->stride == y->stride);
    survive_call call = {*x, *y, children, kac_lanes(x->stride / 16), chosen, scratch};
    KAC_TRY(KAC_LAUNCH(dev, survive_rows, kac_blocks((int64_t)x->n * call.lanes), KAC_THREADS,
                       0, call));
    KAC_TRY(KAC_LAUNCH(dev, survive_scalars, kac_blocks(x->n), KAC_THREADS, 0, call));
    return kac_cuda_status(cudaMemcpyAsync(x->eve, scratch, (size_t)x->n * sizeof *x->eve,
                                           cudaMemcpyDeviceToDevice, kac_stream(dev)),
                           "survive");
}

KAC_KERNEL regroup(const kac_level *levels, const kac_clock *clock, int32_t n_groups,
                   kac_group *groups, int32_t *group)
{
    int32_t each = levels[clock->level].particles;
    KAC_EACH(g, n_groups)
    {
        groups[g].offset = (int32_t)g * each;
        groups[g].count = each;
    }
    KAC_EACH(i, (int64_t)n_groups * each)
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
