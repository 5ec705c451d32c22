/* search_cuda.cu -- paths and trees of noisy states.  Trees are independent of each other; what
 * happens within one is done in a fixed order by one thread, and its warp copies the rows. */
#include "share.cuh"
#include "wave.h"

/* ---- paths -------------------------------------------------------------------------------- */

KAC_KERNEL spread(int32_t n_groups, int32_t each, kac_group *groups, int32_t *group)
{
    KAC_EACH (g, n_groups) {
        groups[g].offset = (int32_t)g * each;
        groups[g].count = each;
    }
    KAC_EACH (i, (int64_t)n_groups * each)
        group[i] = (int32_t)(i / each);
}

kac_status kac_cuda_spread(kac_device *dev, int32_t n_groups, int32_t each, kac_group *groups,
                           int32_t *group)
{
    return KAC_LAUNCH(dev, spread, kac_blocks((int64_t)n_groups * each), KAC_THREADS, 0,
                      n_groups, each, groups, group);
}

KAC_KERNEL path(int64_t n, int32_t children, const double *score, const double *value,
                double *out)
{
    KAC_EACH (c, n)
        out[c] = score[c / children] + value[c];
}

kac_status kac_cuda_path(kac_device *dev, const kac_particles *x, int32_t children,
                         kac_particles *y)
{
    int64_t n = (int64_t)x->n * children;
    return KAC_LAUNCH(dev, path, kac_blocks(n), KAC_THREADS, 0, n, children, x->log_w, y->value,
                      y->log_w);
}

struct prune_call {
    kac_prune_args a;
    int32_t *kept; /* [groups roots] 1: goes on */
    int32_t lanes; /* a root */
    unsigned parts;
};

/* The best leaf of each root, by neighbouring lanes.  Whole warps stay to the end. */
KAC_KERNEL prune_leaves(KAC_ARGS prune_call call)
{
    const double *score = call.a.score;
    int64_t roots = (int64_t)call.a.groups * call.a.roots;
    int32_t lanes = call.lanes, shift = __ffs(lanes) - 1, leaves = call.a.leaves;
    KAC_EACH (t, (roots * lanes + KAC_WARP - 1) / KAC_WARP * KAC_WARP) {
        int64_t j = t >> shift < roots ? t >> shift : roots - 1;
        int32_t lane = (int32_t)(t & (lanes - 1)), best = (int32_t)(j * leaves);
        for (int32_t leaf = best + lane; leaf < (j + 1) * leaves; leaf += lanes)
            if (score[leaf] > score[best]) best = leaf;
        for (int32_t by = lanes / 2; by > 0; by /= 2) {
            int32_t other = __shfl_xor_sync(KAC_WHOLE_WARP, best, by);
            if (score[other] > score[best] || (score[other] == score[best] && other < best))
                best = other;
        }
        if (lane == 0) call.a.best[j] = best;
    }
}

KAC_BLOCK_KERNEL prune_ranks(KAC_ARGS prune_call call)
{
    const kac_prune_args *a = &call.a;
    int32_t first = (int32_t)(blockIdx.x / call.parts) * a->roots;
    KAC_EACH_OF(j, a->roots, call.parts)
    call.kept[first + j] = a->keep == a->roots || kac_root_rank(a, first, (int32_t)j) < a->keep;
}

/* Those that go on, in the order that they had; a block a group. */
KAC_BLOCK_KERNEL prune_roots(KAC_ARGS prune_call call)
{
    const kac_prune_args *a = &call.a;
    int32_t first = (int32_t)blockIdx.x * a->roots;
    const int32_t *kept = call.kept + first, *best = a->best + first;
    int32_t *chosen = a->chosen + (int64_t)blockIdx.x * a->keep;
    (void)kac_block_run<int32_t>(
        0, a->roots, 0, [&](int32_t j) { return kept[j]; },
        [&](int32_t j, int32_t upto, int32_t goes_on) {
            if (goes_on) chosen[upto - 1] = best[j];
        });
}

kac_status kac_cuda_prune(kac_device *dev, const kac_prune_args *a)
{
    KAC_REQUIRE(a->keep >= 1 && a->keep <= a->roots && a->leaves >= 1);
    int64_t roots = (int64_t)a->groups * a->roots;
    unsigned groups = (unsigned)a->groups, threads = kac_block_threads(roots, groups);
    void *scratch = NULL;
    KAC_TRY(kac_cuda_scratch(dev, (size_t)roots * sizeof(int32_t), &scratch));
    prune_call call = {*a, (int32_t *)scratch, kac_lanes(a->leaves), kac_parts(roots, groups)};
    KAC_TRY(
        KAC_LAUNCH(dev, prune_leaves, kac_blocks(roots * call.lanes), KAC_THREADS, 0, call));
    KAC_TRY(KAC_LAUNCH(dev, prune_ranks, groups * call.parts, threads, 0, call));
    return KAC_LAUNCH(dev, prune_roots, groups, threads, 0, call);
}

/* ---- trees -------------------------------------------------------------------------------- */

/* The arguments with the host structs that they point to. */
struct tree_call {
    kac_tree_args a;
    kac_trees trees;
    kac_particles x, y;
};

static tree_call call_of(const kac_tree_args *a)
{
    return {*a, *a->trees, *a->x, *a->y};
}

/* The arguments of a kernel, pointing to the structs that came with them. */
static __device__ kac_tree_args args_of(const tree_call *call)
{
    kac_tree_args a = call->a;
    a.trees = const_cast<kac_trees *>(&call->trees);
    a.x = const_cast<kac_particles *>(&call->x);
    a.y = &call->y;
    return a;
}

/* Blocks of KAC_THREADS where a warp serves each of n trees or samples; EACH_WARP is its loop. */
static unsigned warp_blocks(int64_t n)
{
    return kac_blocks(n * KAC_WARP);
}

#define EACH_WARP(g, n)                                                                        \
    for (int64_t g = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / KAC_WARP,              \
                 step_ = (int64_t)blockDim.x * gridDim.x / KAC_WARP;                           \
         g < (n); g += step_)

static __device__ int32_t lane_of(void)
{
    return (int32_t)(threadIdx.x % KAC_WARP);
}

KAC_KERNEL plant(KAC_ARGS tree_call call)
{
    kac_tree_args a = args_of(&call);
    kac_trees *t = a.trees;
    EACH_WARP(g, t->n)
    {
        int32_t v = 0;
        if (lane_of() == 0) v = kac_tree_begin(t, (int32_t)g);
        v = __shfl_sync(KAC_WHOLE_WARP, v, 0);
        kac_row_copy(t->x + kac_row_at(v, t->stride),
                     a.x->x + kac_row_at(g * a.each, t->stride), t->stride, lane_of(),
                     KAC_WARP);
    }
}

kac_status kac_cuda_tree_plant(kac_device *dev, const kac_tree_args *a)
{
    const kac_trees *t = a->trees;
    size_t rows = (size_t)t->n * (size_t)t->capacity;
    KAC_REQUIRE(t->stride > 0 && t->stride % 16 == 0);
    /* -1: nothing is known of nodes to come either. */
    KAC_TRY(kac_cuda_status(
        cudaMemsetAsync(t->entry, 0xff, rows * sizeof *t->entry, kac_stream(dev)), "plant"));
    return KAC_LAUNCH(dev, plant, warp_blocks(t->n), KAC_THREADS, 0, call_of(a));
}

static __device__ void add_idle(int64_t *count, int64_t more)
{
    if (more != 0) atomicAdd((unsigned long long *)count, (unsigned long long)more);
}

/* Bound by the way down, a chain of reads by one thread of each warp. */
KAC_KERNEL select_nodes(KAC_ARGS tree_call call)
{
    kac_tree_args a = args_of(&call);
    kac_trees *t = a.trees;
    EACH_WARP(g, t->n)
    {
        int32_t v = 0;
        if (lane_of() == 0) v = kac_tree_choose(&a, (int32_t)g);
        v = __shfl_sync(KAC_WHOLE_WARP, v, 0);
        int32_t d = t->depth[v], object = d == a.stages, first = (int32_t)g * a.each;
        int32_t from = a.level[d], to = object || a.ahead ? 0 : a.level[d + 1];
        for (int32_t i = first; i < first + a.each; i++)
            kac_row_copy(a.x->x + kac_row_at(i, t->stride), t->x + kac_row_at(v, t->stride),
                         t->stride, lane_of(), KAC_WARP);
        for (int32_t i = first + lane_of(); i < first + a.each; i += KAC_WARP) {
            a.x->entry[i] = t->entry[v];
            a.at[i] = v;
            a.from[i] = from;
            a.to[i] = to;
        }
        if (lane_of() > 0) continue;
        add_idle(&a.idle[0], (int64_t)a.each * (a.clock->level - (from - to) + object));
        add_idle(&a.idle[1], (int64_t)a.each * object);
    }
}

kac_status kac_cuda_tree_select(kac_device *dev, const kac_tree_args *a)
{
    return KAC_LAUNCH(dev, select_nodes, warp_blocks(a->trees->n), KAC_THREADS, 0, call_of(a));
}

/* The entries and nodes of the rows of tree g that move to this level, in their order. */
static __device__ void move_rows(const kac_tree_args *a, int32_t g, int32_t level)
{
    bool leaves_node = a->depth[level + 1] >= 0;
    for (int32_t i = g * a->each; i < (g + 1) * a->each; i++) {
        if (!kac_tree_moves(a, i, level)) continue;
        if (leaves_node && a->keep_entries && a->ahead)
            a->trees->entry[a->at[i]] = a->x->entry[i];
        /* At the end the entry of the state before keeps the row from being asked about. */
        if (a->ahead || level > a->to[i]) a->x->entry[i] = a->y->entry[i];
        if (a->depth[level] >= 0)
            a->at[i] = kac_tree_add(a->trees, g, a->at[i], a->depth[level]);
    }
}

KAC_KERNEL advance(KAC_ARGS tree_call call)
{
    kac_tree_args a = args_of(&call);
    kac_trees *t = a.trees;
    int32_t level = a.clock->level;
    EACH_WARP(g, t->n)
    {
        if (lane_of() == 0) move_rows(&a, (int32_t)g, level);
        __syncwarp();
        for (int32_t i = (int32_t)g * a.each; i < ((int32_t)g + 1) * a.each; i++) {
            const uint8_t *y = a.y->x + kac_row_at(i, t->stride);
            if (!kac_tree_moves(&a, i, level)) continue;
            kac_row_copy(a.x->x + kac_row_at(i, t->stride), y, t->stride, lane_of(), KAC_WARP);
            if (a.depth[level] >= 0)
                kac_row_copy(t->x + kac_row_at(a.at[i], t->stride), y, t->stride, lane_of(),
                             KAC_WARP);
        }
    }
}

kac_status kac_cuda_tree_advance(kac_device *dev, const kac_tree_args *a)
{
    return KAC_LAUNCH(dev, advance, warp_blocks(a->trees->n), KAC_THREADS, 0, call_of(a));
}

/* A thread a tree, in blocks of a warp so that few trees spread over the device. */
static unsigned tree_blocks(const kac_tree_args *a)
{
    return (unsigned)((a->trees->n + KAC_WARP - 1) / KAC_WARP);
}

KAC_KERNEL backup(KAC_ARGS tree_call call)
{
    kac_tree_args a = args_of(&call);
    KAC_EACH (g, a.trees->n)
        kac_tree_back_up(&a, (int32_t)g);
}

kac_status kac_cuda_tree_backup(kac_device *dev, const kac_tree_args *a)
{
    return KAC_LAUNCH(dev, backup, tree_blocks(a), KAC_WARP, 0, call_of(a));
}

KAC_KERNEL commit(KAC_ARGS tree_call call)
{
    kac_tree_args a = args_of(&call);
    KAC_EACH (g, a.trees->n)
        kac_tree_commit(a.trees, (int32_t)g);
}

kac_status kac_cuda_tree_commit(kac_device *dev, const kac_tree_args *a)
{
    return KAC_LAUNCH(dev, commit, tree_blocks(a), KAC_WARP, 0, call_of(a));
}

KAC_KERNEL draw(KAC_ARGS tree_call call, int32_t each, uint8_t *x, double *value)
{
    kac_tree_args a = args_of(&call);
    const kac_trees *t = a.trees;
    EACH_WARP(i, (int64_t)t->n * each)
    {
        int32_t v = 0;
        if (lane_of() == 0) v = kac_tree_drawn(&a, (int32_t)(i / each), (int32_t)(i % each));
        v = __shfl_sync(KAC_WHOLE_WARP, v, 0);
        kac_row_copy(x + kac_row_at(i, t->stride), t->x + kac_row_at(v, t->stride), t->stride,
                     lane_of(), KAC_WARP);
        if (lane_of() == 0) value[i] = t->value[v];
    }
}

kac_status kac_cuda_tree_draw(kac_device *dev, const kac_tree_args *a, int32_t each,
                              kac_particles *out)
{
    return KAC_LAUNCH(dev, draw, warp_blocks((int64_t)a->trees->n * each), KAC_THREADS, 0,
                      call_of(a), each, out->x, out->value);
}
