/* revive_cuda.cu -- the alive particle filter over the last levels, on a GPU.
 *
 * A block serves a group where its particles are weighed or its tries are counted; rows are moved by
 * lanes, bound by memory.
 */
#include "revive.h"

#include "share.cuh"

/* Arguments with the host structs that they point to.  Their names are this file's alone. */
namespace
{
struct revive_call {
    kac_revive_args a;
    kac_particles x, tries, kept, y;
    int32_t lanes;
};

struct follow_call {
    kac_particles x, y;
    int32_t lanes;
};
} // namespace

static revive_call call_of(const kac_revive_args *a, const kac_particles *y)
{
    return {*a, *a->x, *a->tries, *a->kept, *y, kac_lanes(a->x->stride / 16)};
}

/* The arguments of a kernel, pointing to the structs that came with them. */
static __device__ kac_revive_args args_of(const revive_call *call)
{
    kac_revive_args a = call->a;
    a.x = const_cast<kac_particles *>(&call->x);
    a.tries = const_cast<kac_particles *>(&call->tries);
    a.kept = const_cast<kac_particles *>(&call->kept);
    return a;
}

/* By lane t % lanes of item t / lanes: its share of row `from` of one, to row `to` of another. */
static __device__ void move_row(const kac_particles *to, int64_t i, const kac_particles *from,
                                int64_t j, int32_t lane, int32_t lanes)
{
    kac_row_copy(to->x + kac_row_at(i, to->stride), from->x + kac_row_at(j, to->stride),
                 to->stride, lane, lanes);
}

/* ---- a round ------------------------------------------------------------------------------ */

/* Who tries, and in which rows.  A launch of one block. */
KAC_BLOCK_KERNEL recruit_groups(KAC_ARGS revive_call call)
{
    const kac_revive_args *a = &call.a;
    int32_t live = kac_block_run<int32_t>(
        0, a->n_groups, 0,
        [&](int32_t g) { return kac_has_enough(a, &a->groups[g]) ? 0 : a->each; },
        [&](int32_t g, int32_t sum, int32_t own) {
            a->groups[g].offset = sum - own;
            a->groups[g].count = own;
        });
    if (threadIdx.x > 0) return;
    a->clock->level = a->level;
    *a->live = live;
    a->idle[0] += (int64_t)(call.tries.n - live) * a->asked;
    a->idle[1] += call.tries.n - live;
}

/* Running sums of the weights of a group's particles. */
KAC_BLOCK_KERNEL recruit_sums(KAC_ARGS revive_call call)
{
    const kac_revive_args *a = &call.a;
    int64_t first = (int64_t)blockIdx.x * a->each;
    const double *log_w = call.x.log_w + first;
    uint64_t *c = a->weight + first;
    if (a->groups[blockIdx.x].count == 0) return;
    double top = kac_block_largest(log_w, a->each);
    (void)kac_block_run<uint64_t>(
        0, a->each, 0, [&](int32_t i) { return kac_weight(log_w[i], top); },
        [&](int32_t i, uint64_t sum, uint64_t) { c[i] = sum; });
}

/* A thread for each particle, whose group may make as many tries. */
KAC_KERNEL recruit_tries(KAC_ARGS revive_call call)
{
    const kac_revive_args a = args_of(&call);
    KAC_EACH (t, call.tries.n) {
        int32_t g = (int32_t)(t / a.each), j = (int32_t)(t % a.each), first = g * a.each;
        const kac_group *group = &a.groups[g];
        const uint64_t *c = a.weight + first;
        if (t >= *a.live) call.tries.entry[t] = -1;
        if (j < group->count)
            kac_begin_try(&a, group->offset + j,
                          first + kac_try_draw(&a, group, c, c[a.each - 1], j), g);
    }
}

KAC_KERNEL recruit_rows(KAC_ARGS revive_call call)
{
    KAC_EACH (t, (int64_t)*call.a.live * call.lanes) {
        int64_t q = t / call.lanes;
        move_row(&call.tries, q, &call.x, call.tries.eve[q], (int32_t)(t % call.lanes),
                 call.lanes);
    }
}

kac_status kac_cuda_recruit(kac_device *dev, const kac_revive_args *a)
{
    revive_call call = call_of(a, a->tries);
    int64_t n = a->x->n;
    unsigned groups = (unsigned)a->n_groups;
    KAC_TRY(KAC_LAUNCH(dev, recruit_groups, 1, kac_block_threads(a->n_groups, 1), 0, call));
    KAC_TRY(KAC_LAUNCH(dev, recruit_sums, groups, kac_block_threads(n, groups), 0, call));
    KAC_TRY(KAC_LAUNCH(dev, recruit_tries, kac_blocks(n), KAC_THREADS, 0, call));
    return KAC_LAUNCH(dev, recruit_rows, kac_blocks(n * call.lanes), KAC_THREADS, 0, call);
}

KAC_KERNEL follow_rows(KAC_ARGS follow_call call)
{
    KAC_EACH (t, (int64_t)kac_live(call.x.live, call.x.n) * call.lanes) {
        int64_t i = t / call.lanes;
        int32_t lane = (int32_t)(t % call.lanes);
        move_row(&call.x, i, &call.y, i, lane, call.lanes);
        if (lane > 0) continue;
        call.x.entry[i] = call.y.entry[i];
        call.x.log_w[i] = call.y.log_w[i];
        call.x.bank[i] = call.y.bank[i];
        call.x.stat[i] = call.y.stat[i];
    }
}

kac_status kac_cuda_follow(kac_device *dev, const kac_particles *y, kac_particles *x)
{
    follow_call call = {*x, *y, kac_lanes(x->stride / 16)};
    return KAC_LAUNCH(dev, follow_rows, kac_blocks((int64_t)x->n * call.lanes), KAC_THREADS, 0,
                      call);
}

static __device__ bool is_alive(const kac_particles *y, int64_t q)
{
    return y->log_w[q] > -(double)INFINITY;
}

/* The seats of a group's tries go to scratch[the try's row], -1: none.  No two of a round have the
 * same: the dead of the first, which is of `each` tries, sit where its living leave room, and the
 * dead of later ones nowhere. */
KAC_BLOCK_KERNEL enlist_tries(KAC_ARGS revive_call call)
{
    const kac_revive_args *a = &call.a;
    kac_group *group = &a->groups[blockIdx.x];
    const int32_t tries = group->tries, alive = group->alive, each = a->each;
    const int32_t first = (int32_t)blockIdx.x * each, count = group->count;
    const kac_particles *y = &call.y;
    int32_t own = 0, *seat = a->scratch + group->offset;
    for (int32_t j = (int32_t)threadIdx.x; j < count; j += (int32_t)blockDim.x)
        own += is_alive(y, group->offset + j);
    int32_t all = alive + kac_block_sum(own); /* every thread has read the group */
    if (count == 0) return;
    if (threadIdx.x == 0) {
        group->alive = all <= each ? all : each + 1;
        if (all <= each) group->tries = tries + count;
    }
    (void)kac_block_run<int32_t>(
        0, count, alive, [&](int32_t j) { return (int32_t)is_alive(y, group->offset + j); },
        [&](int32_t j, int32_t sum, int32_t lives) {
            int32_t at = kac_seat(each, tries + j + 1, sum, lives);
            seat[j] = at >= 0 ? first + at : -1;
            if (lives && sum == each + 1) group->tries = tries + j + 1;
        });
}

KAC_KERNEL enlist_rows(KAC_ARGS revive_call call)
{
    const kac_particles *y = &call.y, *kept = &call.kept;
    KAC_EACH (t, (int64_t)*call.a.live * call.lanes) {
        int64_t q = t / call.lanes;
        int32_t lane = (int32_t)(t % call.lanes), i = call.a.scratch[q];
        if (i < 0) continue;
        move_row(kept, i, y, q, lane, call.lanes);
        if (lane > 0) continue;
        kept->log_w[i] = y->log_w[q];
        kept->value[i] = y->value[q];
        kept->eve[i] = call.tries.eve[q];
    }
}

kac_status kac_cuda_enlist(kac_device *dev, const kac_revive_args *a, const kac_particles *y)
{
    revive_call call = call_of(a, y);
    int64_t n = a->x->n;
    unsigned groups = (unsigned)a->n_groups;
    KAC_TRY(KAC_LAUNCH(dev, enlist_tries, groups, kac_block_threads(n, groups), 0, call));
    return KAC_LAUNCH(dev, enlist_rows, kac_blocks(n * call.lanes), KAC_THREADS, 0, call);
}

/* ---- the end ------------------------------------------------------------------------------ */

static __device__ double share_of_ess(const double *log_w, int32_t n)
{
    double top = kac_block_largest(log_w, n);
    kac_weight_sums own = {0, 0, 0};
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += (int32_t)blockDim.x)
        kac_weight_add(&own, kac_weight(log_w[i], top));
    uint64_t low = kac_block_sum((uint64_t)own.square & 0xffffffffu);
    uint64_t high = kac_block_sum((uint64_t)(own.square >> 32));
    kac_weight_sums all = {0, kac_block_sum(own.coarse), ((unsigned __int128)high << 32) + low};
    return kac_ess_share(&all, n);
}

KAC_BLOCK_KERNEL settle_groups(KAC_ARGS revive_call call)
{
    const kac_revive_args a = args_of(&call);
    kac_group *group = &a.groups[blockIdx.x];
    int32_t g = (int32_t)blockIdx.x, first = g * a.each;
    double *log_w = call.x.log_w + first;
    double share = kac_log_share(&a, group), top = kac_block_largest(log_w, a.each);
    uint64_t own = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < a.each; i += (int32_t)blockDim.x)
        own += kac_weight(log_w[i], top);
    uint64_t sum = kac_block_sum(own);
    for (int32_t i = (int32_t)threadIdx.x; i < a.each; i += (int32_t)blockDim.x)
        kac_settle_particle(&a, first + i, share);
    __syncthreads(); /* the new weights are there */
    double ess = share_of_ess(log_w, a.each);
    if (threadIdx.x > 0) return;
    kac_settle_group(&a, g, top, sum);
    group->ess = group->dead ? 0 : ess;
}

KAC_KERNEL settle_rows(KAC_ARGS revive_call call)
{
    KAC_EACH (t, (int64_t)call.x.n * call.lanes) {
        int64_t i = t / call.lanes;
        move_row(&call.x, i, &call.kept, i, (int32_t)(t % call.lanes), call.lanes);
    }
}

kac_status kac_cuda_settle(kac_device *dev, const kac_revive_args *a)
{
    revive_call call = call_of(a, a->tries);
    int64_t n = a->x->n;
    unsigned groups = (unsigned)a->n_groups;
    KAC_TRY(KAC_LAUNCH(dev, settle_groups, groups, kac_block_threads(n, groups), 0, call));
    KAC_TRY(KAC_LAUNCH(dev, settle_rows, kac_blocks(n * call.lanes), KAC_THREADS, 0, call));
    return dev->ops->memory.copy(dev, a->x->eve, a->scratch, (size_t)n * sizeof *a->x->eve);
}
