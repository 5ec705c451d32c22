/* passes_cuda.cu -- between one arrival at level 0 and the next start: refinement and particle
 * Gibbs. */
#include "passes.h"
#include "pool.h"
#include "rows.cuh"
#include "share.cuh"

struct reset_call {
    kac_reset_args a;
    kac_particles x;
};

KAC_KERNEL reset(KAC_ARGS reset_call call)
{
    kac_reset_args a = call.a;
    kac_particles x = call.x;
    a.x = &x;
    if (blockIdx.x == 0 && threadIdx.x == 0) a.clock->level = a.level;
    KAC_EACH (g, a.n_groups)
        kac_group_reset(&a, (int32_t)g);
    KAC_EACH (i, x.n)
        kac_particle_reset(&a, (int32_t)i);
}

kac_status kac_cuda_reset(kac_device *dev, const kac_reset_args *a)
{
    reset_call call = {*a, *a->x};
    return KAC_LAUNCH(dev, reset, kac_blocks(a->x->n), KAC_THREADS, 0, call);
}

/* ---- refine ------------------------------------------------------------------------------- */

struct renew_call {
    kac_renew_args a;
    const double *value;
    unsigned parts;
};

/* Running sums of the weights; a block a group. */
KAC_BLOCK_KERNEL renew_sums(KAC_ARGS renew_call call)
{
    const kac_group *group = &call.a.groups[blockIdx.x];
    const double *value = call.value + group->offset;
    double top = kac_block_largest(value, group->count);
    uint64_t *c = call.a.weight + group->offset;
    (void)kac_block_run<uint64_t>(
        0, group->count, 0,
        [&](int32_t i) {
            return kac_renew_weight(call.a.strength, group->alpha, value[i], top);
        },
        [&](int32_t i, uint64_t sum, uint64_t) { c[i] = sum; });
}

KAC_BLOCK_KERNEL renew_draws(KAC_ARGS renew_call call)
{
    const kac_group *group = &call.a.groups[blockIdx.x / call.parts];
    KAC_EACH_OF(j, group->count, call.parts)
    call.a.chosen[group->offset + j] =
        group->offset +
        kac_renew_draw(&call.a, group, call.a.weight + group->offset, (int32_t)j);
}

kac_status kac_cuda_renew(kac_device *dev, const kac_renew_args *a)
{
    renew_call call = {*a, a->x->value, kac_parts(a->x->n, a->n_groups)};
    unsigned threads = kac_block_threads(a->x->n, a->n_groups), groups = (unsigned)a->n_groups;
    KAC_TRY(KAC_LAUNCH(dev, renew_sums, groups, threads, 0, call));
    return KAC_LAUNCH(dev, renew_draws, groups * call.parts, threads, 0, call);
}

/* ---- the elite: sorted by (value, index), repeated objects behind the others --------------- */

/* The candidates of a group are the past ones and then the present ones; arrays of 2 n numbers
 * hold a group's from twice its offset. */
struct elect_call {
    kac_elect_args a;
    kac_particles past, now, x;
    int32_t *order, *spare; /* [2 n] candidates, the best first; where the next order goes */
    int32_t *claimed;       /* [2 n] the claim of each place */
    int32_t *pick;          /* [2 n] the candidate that a slot gets */
    int32_t *claim;         /* [4 n] the first place that holds an object, or -1 */
    int64_t width;          /* of the sorted runs in `order` */
    unsigned parts;
    int32_t lanes; /* that copy a row */
};

struct contest {
    const kac_group *group;
    int32_t past, n;     /* candidates, past ones and all */
    int64_t first;       /* in the arrays of 2 n */
    const double *value; /* [n] */
};

static __device__ contest contest_of(const elect_call *call, unsigned g)
{
    const kac_group *group = &call->a.groups[g];
    int32_t past = call->past.n > 0 ? group->count : 0;
    int64_t first = 2 * (int64_t)group->offset;
    return {group, past, past + group->count, first, call->a.value + first};
}

/* Array and row of candidate c. */
static __device__ const kac_particles *source_of(const elect_call *call, const contest *of,
                                                 int32_t c, int64_t *row)
{
    *row = of->group->offset + (c < of->past ? c : c - of->past);
    return c < of->past ? &call->past : &call->now;
}

static __device__ bool comes_before(uint64_t one, int32_t i, uint64_t other, int32_t j)
{
    return one > other || (one == other && i < j);
}

enum { SORT_TILE = 1024 };

/* Sorts tile number t of a group: bitonic, in shared memory. */
static __device__ void sort_tile(const elect_call *call, const contest *of, int32_t first)
{
    KAC_SHARED(uint64_t, number, SORT_TILE);
    KAC_SHARED(int32_t, index, SORT_TILE);
    int32_t n = of->n - first < SORT_TILE ? of->n - first : SORT_TILE, size = 1;
    while (size < n)
        size *= 2;
    for (int32_t i = (int32_t)threadIdx.x; i < size; i += (int32_t)blockDim.x) {
        number[i] = 0;
        index[i] = INT32_MAX; /* beyond the end: behind all others */
        if (i >= n) continue;
        int64_t row = 0;
        const kac_particles *from = source_of(call, of, first + i, &row);
        call->a.value[of->first + first + i] = from->value[row];
        number[i] = kac_ordered(from->value[row]);
        index[i] = first + i;
    }
    for (int32_t run = 2; run <= size; run *= 2)
        for (int32_t by = run / 2; by > 0; by /= 2) {
            __syncthreads();
            for (int32_t t = (int32_t)threadIdx.x; t < size / 2; t += (int32_t)blockDim.x) {
                int32_t i = t / by * 2 * by + t % by, j = i + by;
                bool down = (i & run) == 0;
                if (comes_before(number[j], index[j], number[i], index[i]) != down) continue;
                uint64_t one = number[i];
                int32_t at = index[i];
                number[i] = number[j];
                index[i] = index[j];
                number[j] = one;
                index[j] = at;
            }
        }
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += (int32_t)blockDim.x)
        call->order[of->first + first + i] = index[i];
    __syncthreads();
}

KAC_BLOCK_KERNEL elect_tiles(KAC_ARGS elect_call call)
{
    contest of = contest_of(&call, blockIdx.x / call.parts);
    KAC_EACH_OF(b, 2 * (int64_t)of.n, call.parts)
    call.claim[2 * of.first + b] = -1;
    for (int64_t first = (int64_t)(blockIdx.x % call.parts) * SORT_TILE; first < of.n;
         first += (int64_t)call.parts * SORT_TILE)
        sort_tile(&call, &of, (int32_t)first);
}

/* How many of the n candidates of a sorted run come before candidate c. */
static __device__ int64_t count_before(const contest *of, const int32_t *run, int64_t n,
                                       int32_t c)
{
    uint64_t own = kac_ordered(of->value[c]);
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (comes_before(kac_ordered(of->value[run[middle]]), run[middle], own, c))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Neighbouring sorted runs become one: a candidate's place is its place in its own run plus how
 * many of the other run come before it. */
KAC_BLOCK_KERNEL elect_merge(KAC_ARGS elect_call call)
{
    contest of = contest_of(&call, blockIdx.x / call.parts);
    const int32_t *order = call.order + of.first;
    KAC_EACH_OF(k, of.n, call.parts)
    {
        int64_t run = k / call.width, other = (run ^ 1) * call.width, place = k;
        if (other < of.n) {
            int64_t n = of.n - other < call.width ? of.n - other : call.width;
            place = (run & ~(int64_t)1) * call.width + k % call.width +
                    count_before(&of, order + other, n, order[k]);
        }
        call.spare[of.first + place] = order[k];
    }
}

static __device__ const uint64_t *tokens_of(const elect_call *call, const contest *of,
                                            int32_t c)
{
    int64_t row = 0;
    const kac_particles *from = source_of(call, of, c, &row);
    return kac_row_words(from->x, (int32_t)row, from->stride);
}

/* The claim of place k, by a warp: claims are a hash table of the group's.  One belongs to the
 * places whose objects equal that of the place that took it, values too, and each of them
 * lowers its number to the first; what is read may be old and so too high, never too low. */
static __device__ int32_t find_claim(const elect_call *call, const contest *of, int32_t k)
{
    const int32_t *order = call->order + of->first, lane = (int32_t)threadIdx.x % KAC_WARP;
    const uint64_t *tokens = tokens_of(call, of, order[k]);
    const uint32_t claims = 2 * (uint32_t)of->n;
    int32_t *claim = call->claim + 2 * of->first;
    uint32_t b = (uint32_t)(kac_row_hash(tokens, call->x.stride) % claims);
    for (;; b = b + 1 < claims ? b + 1 : 0) {
        int32_t there = 0;
        if (lane == 0) there = kac_peek(&claim[b]);
        if (lane == 0 && there < 0) there = atomicCAS(&claim[b], -1, k);
        there = __shfl_sync(KAC_WHOLE_WARP, there, 0);
        if (there < 0) return (int32_t)b;
        if (of->value[order[there]] != of->value[order[k]] ||
            !kac_rows_equal(tokens_of(call, of, order[there]), tokens, call->x.stride))
            continue;
        if (lane == 0 && there > k) atomicMin(&claim[b], k);
        return (int32_t)b;
    }
}

KAC_KERNEL elect_claims(KAC_ARGS elect_call call)
{
    contest of = contest_of(&call, blockIdx.x / call.parts);
    KAC_EACH_OF(t, (int64_t)of.n * KAC_WARP, call.parts)
    {
        int32_t k = (int32_t)(t / KAC_WARP), b = find_claim(&call, &of, k);
        if (threadIdx.x % KAC_WARP == 0) call.claimed[of.first + k] = b;
    }
}

/* Who gets which slot: a block a group numbers the distinct objects, then the others. */
KAC_BLOCK_KERNEL elect_places(KAC_ARGS elect_call call)
{
    contest of = contest_of(&call, blockIdx.x);
    const int32_t *claimed = call.claimed + of.first, *claim = call.claim + 2 * of.first;
    const int32_t *order = call.order + of.first;
    int32_t *pick = call.pick + of.first, distinct = 0;
    auto is_first = [=](int32_t k) { return claim[claimed[k]] == k; };
    for (int32_t k = (int32_t)threadIdx.x; k < of.n; k += (int32_t)blockDim.x)
        distinct += is_first(k);
    distinct = kac_block_sum(distinct);
    (void)kac_block_run<int32_t>(
        0, of.n, 0, [&](int32_t k) { return (int32_t)is_first(k); },
        [&](int32_t k, int32_t upto, int32_t is_new) {
            int32_t slot = is_new ? upto - 1 : distinct + k - upto;
            if (slot < of.group->count) pick[slot] = order[k];
        });
}

KAC_BLOCK_KERNEL elect_rows(KAC_ARGS elect_call call)
{
    contest of = contest_of(&call, blockIdx.x / call.parts);
    int32_t stride = call.x.stride, lanes = call.lanes;
    KAC_EACH_OF(t, (int64_t)of.group->count * lanes, call.parts)
    {
        int64_t slot = t / lanes, i = of.group->offset + slot, row = 0;
        int32_t lane = (int32_t)(t % lanes);
        const kac_particles *from = source_of(&call, &of, call.pick[of.first + slot], &row);
        kac_row_copy(call.x.x + kac_row_at(i, stride), from->x + kac_row_at(row, stride),
                     stride, lane, lanes);
        if (lane > 0) continue;
        call.x.value[i] = from->value[row];
        call.x.log_w[i] = kac_pool_log_w(from->value[row], true);
        call.x.eve[i] = from->eve[row];
    }
}

kac_status kac_cuda_elect(kac_device *dev, const kac_elect_args *a)
{
    int64_t n = a->x->n;
    unsigned groups = (unsigned)a->n_groups, threads = kac_block_threads(2 * n, groups);
    void *scratch = NULL;
    KAC_REQUIRE(a->x->stride > 0 && a->x->stride % 16 == 0);
    KAC_TRY(kac_cuda_scratch(dev, 5 * 2 * (size_t)n * sizeof(int32_t), &scratch));
    int32_t *spare = (int32_t *)scratch;
    elect_call call = {*a,
                       *a->past,
                       *a->now,
                       *a->x,
                       a->order,
                       spare,
                       spare + 2 * n,
                       spare + 4 * n,
                       spare + 6 * n,
                       SORT_TILE,
                       kac_parts(2 * n, groups),
                       kac_lanes(a->x->stride / 16)};
    unsigned blocks = groups * call.parts;

    KAC_TRY(KAC_LAUNCH(dev, elect_tiles, blocks, threads, 0, call));
    for (; call.width < 2 * n; call.width *= 2) { /* no group has more */
        KAC_TRY(KAC_LAUNCH(dev, elect_merge, blocks, threads, 0, call));
        int32_t *merged = call.spare;
        call.spare = call.order;
        call.order = merged;
    }
    KAC_TRY(KAC_LAUNCH(dev, elect_claims, blocks, KAC_THREADS, 0, call));
    KAC_TRY(KAC_LAUNCH(dev, elect_places, groups, threads, 0, call));
    return KAC_LAUNCH(dev, elect_rows, blocks, threads, 0, call);
}

/* ---- particle Gibbs ----------------------------------------------------------------------- */

struct retrace_call {
    kac_retrace_args a;
    kac_particles x;
    kac_retained retained;
};

/* The first i with w[0] + .. + w[i] > u, of weights whose sum is above u; all threads agree. */
static __device__ int32_t find_point(const double *l, int32_t n, double top, uint64_t u)
{
    KAC_SHARED(int32_t, found, 1);
    (void)kac_block_run<uint64_t>(
        0, n, 0, [&](int32_t i) { return kac_weight(l[i], top); },
        [&](int32_t i, uint64_t sum, uint64_t w) {
            if (sum > u && sum - w <= u) *found = i;
        });
    __syncthreads();
    return *found;
}

/* Copies the states that led to slot `slot` of level 0: one level after the other, a row by all
 * threads. */
static __device__ void retain(const retrace_call *call, int32_t g, int32_t slot)
{
    const kac_retrace_args *a = &call->a;
    int32_t n = call->x.n, stride = call->x.stride, levels = call->retained.levels;
    for (int32_t k = 0; k < levels; k++) {
        int32_t child = a->chosen[(int64_t)k * n + slot];
        kac_row_copy(call->retained.path + kac_row_at((int64_t)g * levels + k, stride),
                     a->children + kac_row_at((int64_t)k * n * a->n_children + child, stride),
                     stride, (int32_t)threadIdx.x, (int32_t)blockDim.x);
        slot = child / a->n_children;
    }
    if (threadIdx.x == 0) call->retained.held[g] = 1;
}

/* A block a group. */
KAC_BLOCK_KERNEL retrace(KAC_ARGS retrace_call call)
{
    const kac_retrace_args *a = &call.a;
    int32_t g = (int32_t)blockIdx.x, i = 0;
    const kac_group *group = &a->groups[g];
    const double *l = call.x.log_w + group->offset;
    double top = kac_block_largest(l, group->count);
    uint64_t sum = 0;
    for (i = (int32_t)threadIdx.x; i < group->count; i += (int32_t)blockDim.x)
        sum += kac_weight(l[i], top);
    sum = kac_block_sum(sum);
    if (a->log_z != NULL && threadIdx.x == 0) a->log_z[g] = kac_sweep_evidence(group, top, sum);
    i = 0;
    if (sum > 0) {
        i = find_point(l, group->count, top, kac_retain_point(a, group, sum));
        retain(&call, g, group->offset + i);
    }
    if (a->object != NULL)
        kac_row_copy(a->object + kac_row_at(g, call.x.stride),
                     call.x.x + kac_row_at(group->offset + i, call.x.stride), call.x.stride,
                     (int32_t)threadIdx.x, (int32_t)blockDim.x);
}

kac_status kac_cuda_retrace(kac_device *dev, const kac_retrace_args *a)
{
    retrace_call call = {*a, *a->x, *a->retained};
    KAC_REQUIRE(a->x->stride > 0 && a->x->stride % 16 == 0);
    return KAC_LAUNCH(dev, retrace, (unsigned)a->n_groups,
                      kac_block_threads(a->x->n, a->n_groups), 0, call);
}
