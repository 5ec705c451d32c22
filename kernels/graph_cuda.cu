/* graph_cuda.cu -- graph diffusion on a GPU: noise, moves, completions.
 *
 * A block a row, a thread for each pair of neighbouring floats, which one draw serves.  Bound by
 * the fp64 logarithm, root and sine of the pair, and where rows are few by the launches: a move
 * is one kernel, or three where all move together.
 */
#include "complete.h"
#include "fault.cuh"
#include "graph.h"
#include "primitives.cuh"

/* for (l = first number of each pair of a row that is this thread's) */
#define EACH_PAIR(l, shape)                                                                    \
    for (int32_t l = 2 * (int32_t)threadIdx.x; l < (shape).stride / (int32_t)sizeof(float);    \
         l += 2 * KAC_GRAPH_LANES)

/* Names of structs are this file's alone. */
namespace
{
/* Norms over the parts. */
struct norms {
    double part[2];
};

/* Arguments with the host structs that they point to. */
struct propose_call {
    kac_propose_args a;
    kac_particles x, y;
    kac_memo memo;
};

struct complete_call {
    kac_complete_args a;
    kac_memo memo;
    kac_fresh fresh;
};

struct slope_call {
    kac_slope_args a;
    kac_fresh fresh;
};

/* Parts of two neighbouring numbers. */
struct pair_parts {
    int32_t first, second;
};
} // namespace

static __device__ pair_parts parts_at(const kac_shape &shape, int32_t n, int32_t l)
{
    return {kac_graph_part_at(&shape, n, l), kac_graph_part_at(&shape, n, l + 1)};
}

/* Part of number l of the state in row q of a batch, or -1. */
static __device__ int32_t part_of(const slope_call &call, int32_t q, int32_t l)
{
    const kac_slope_args &a = call.a;
    const float *x = kac_vector(a.x, call.fresh.src[a.first + q], a.shape.stride);
    return kac_graph_part_at(&a.shape, kac_graph_nodes(x), l);
}

static __device__ float2 *pair_at(float *row, int32_t l)
{
    return reinterpret_cast<float2 *>(row + l);
}

static __device__ float2 pair_of(const float *row, int32_t l)
{
    return *reinterpret_cast<const float2 *>(row + l);
}

/* Whether numbers l and l + 1 of an answer are both numbers, where it has them. */
static __device__ bool has_nan(const float *answer, int32_t l, int32_t length)
{
    return (l < length && answer[l] != answer[l]) ||
           (l + 1 < length && answer[l + 1] != answer[l + 1]);
}

/* Blocks for rows, one each. */
static unsigned blocks_of(int64_t rows)
{
    return kac_blocks(rows * KAC_THREADS);
}

/* ---- start -------------------------------------------------------------------------------- */

KAC_KERNEL start(KAC_ARGS kac_start_args a, uint8_t *x)
{
    const kac_graph_level *level = &a.levels[a.clock->level].graph;
    for (int32_t i = (int32_t)blockIdx.x; i < a.n; i += (int32_t)gridDim.x) {
        float *row = kac_vector_out(x, i, a.shape.stride);
        kac_key key = kac_key_of(a.seed, a.clock, &a.groups[a.group[i]], i);
        int32_t n = kac_graph_draw_nodes(&a, key);
        EACH_PAIR (l, a.shape) {
            pair_parts p = parts_at(a.shape, n, l);
            float2 pair = {l == 0 ? (float)n : 0.0f, 0.0f};
            double z[2] = {0, 0};
            if (p.first >= 0 || p.second >= 0)
                kac_normals(kac_draw(key, KAC_DRAW_START, (uint32_t)(l / 2)), z);
            if (p.first >= 0) pair.x = (float)(level->part[p.first].start * z[0]);
            if (p.second >= 0) pair.y = (float)(level->part[p.second].start * z[1]);
            *pair_at(row, l) = pair;
        }
    }
}

kac_status kac_cuda_graph_start(kac_device *dev, const kac_start_args *a, uint8_t *x)
{
    return KAC_LAUNCH(dev, start, blocks_of(a->n), KAC_GRAPH_LANES, 0, *a, x);
}

/* ---- norms -------------------------------------------------------------------------------- */

/* What each thread brings, its lane of several sums, becomes the sums (kac_graph_add_up), the same
 * in all threads.  A thread a lane. */
template <int SUMS, int LANES> static __device__ void add_up(double (&sum)[SUMS])
{
    KAC_SHARED(double, lane, SUMS *LANES);
    const int t = (int)threadIdx.x;
    __syncthreads(); /* an earlier call's sums are no longer read */
    KAC_UNROLL
    for (int k = 0; k < SUMS; k++)
        lane[k * LANES + t] = sum[k];
    for (int half = LANES / 2; half > 0; half /= 2) {
        __syncthreads();
        KAC_UNROLL
        for (int k = 0; k < SUMS && t < half; k++)
            lane[k * LANES + t] += lane[k * LANES + t + half];
    }
    __syncthreads();
    KAC_UNROLL
    for (int k = 0; k < SUMS; k++)
        sum[k] = lane[k * LANES];
}

/* Adds s^2 to the sum of a part, if it is one. */
static __device__ void add_square(int32_t part, double s, double *sum)
{
    if (part == 0) sum[0] = fma(s, s, sum[0]);
    if (part == 1) sum[1] = fma(s, s, sum[1]);
}

/* A child and its parent, as one block sees them. */
namespace
{
struct birth {
    const kac_graph_level *level;
    const float *x, *answer;
    float *child;
    const float *given[2]; /* noise instead of draws, or NULL */
    kac_key key;
    kac_graph_pull pull;
    int32_t i, n; /* slot of the parent; nodes */
};
} // namespace

static __device__ birth birth_of(const propose_call *call, int64_t c)
{
    const kac_propose_args &a = call->a;
    kac_quotient at = kac_split(c, a.children);
    birth b;
    b.i = (int32_t)at.whole;
    const kac_group *group = &a.groups[call->x.group[b.i]];
    b.level = &a.levels[a.clock->level + 1].graph;
    b.x = kac_vector(call->x.x, b.i, a.shape.stride);
    b.answer = kac_logits_of(&call->memo, call->x.entry[b.i]);
    b.child = kac_vector_out(call->y.x, c, a.shape.stride);
    b.key = kac_key_of(a.seed, a.clock, group, b.i);
    b.pull = kac_graph_pull_of(&a, group, b.i);
    b.key.child = (uint32_t)at.rest;
    b.n = kac_graph_nodes(b.x);
    for (int which = 0; which < 2; which++)
        b.given[which] = kac_graph_given(&a, which, c);
    return b;
}

/* Noise of numbers l and l + 1, the corrector's or the predictor's. */
static __device__ void noise_at(const kac_shape &shape, const birth &b, kac_purpose purpose,
                                int32_t l, double z[2])
{
    const float *given = b.given[purpose == KAC_DRAW_PROPOSE];
    if (given == NULL) {
        kac_normals(kac_draw(b.key, purpose, (uint32_t)(l / 2)), z);
        return;
    }
    z[0] = (double)given[l];
    z[1] = l + 1 < shape.length ? (double)given[l + 1] : 0;
}

/* The corrector's noise of a child, left in its row, and the norms of that and of the score. */
static __device__ void begin_child(const kac_shape &shape, const birth &b, norms *noise,
                                   norms *score)
{
    double sum[4] = {0, 0, 0, 0}; /* of the noise, of the score */
    EACH_PAIR (l, shape) {
        pair_parts p = parts_at(shape, b.n, l);
        float2 z = {0, 0};
        if (p.first < 0 && p.second < 0) continue;
        double draw[2];
        noise_at(shape, b, KAC_DRAW_CORRECT, l, draw);
        if (p.first >= 0) {
            z.x = (float)draw[0];
            add_square(p.first, (double)z.x, sum);
            add_square(p.first, kac_graph_score(&b.level->part[p.first], b.x[l], b.answer[l]),
                       sum + 2);
        }
        if (p.second >= 0) {
            z.y = (float)draw[1];
            add_square(p.second, (double)z.y, sum);
            add_square(p.second,
                       kac_graph_score(&b.level->part[p.second], b.x[l + 1], b.answer[l + 1]),
                       sum + 2);
        }
        *pair_at(b.child, l) = z;
    }
    add_up<4, KAC_GRAPH_LANES>(sum);
    *noise = {{sqrt(sum[0]), sqrt(sum[1])}};
    *score = {{sqrt(sum[2]), sqrt(sum[3])}};
}

/* Integers, in any order. */
static __device__ void add(int64_t *to, int64_t number)
{
    atomicAdd(reinterpret_cast<unsigned long long *>(to), (unsigned long long)number);
}

/* Children in use, of all parents in use. */
static __device__ int64_t children_of(const propose_call *call)
{
    return (int64_t)kac_live(call->x.live, call->x.n) * call->a.children;
}

KAC_KERNEL clear(kac_norms *sum)
{
    *sum = {};
}

/* The norms of every child and parent, where the level corrects. */
KAC_KERNEL measure(KAC_ARGS propose_call call, kac_norms *sum)
{
    kac_norms own = {};
    int64_t children = children_of(&call);
    if (!call.a.levels[call.a.clock->level + 1].graph.corrects) return;
    for (int64_t c = blockIdx.x; c < children; c += gridDim.x) {
        birth b = birth_of(&call, c);
        norms noise, score;
        begin_child(call.a.shape, b, &noise, &score);
        kac_graph_count(&own, 0, noise.part);
        if (b.key.child == 0) kac_graph_count(&own, 1, score.part);
    }
    if (threadIdx.x > 0) return;
    for (int which = 0; which < 2; which++) {
        for (int p = 0; p < 2; p++) {
            add(&sum->whole[which][p], own.whole[which][p]);
            add(&sum->part[which][p], own.part[which][p]);
        }
        add(&sum->rows[which], own.rows[which]);
    }
}

kac_status kac_cuda_graph_measure(kac_device *dev, const kac_propose_args *a, kac_norms *norms)
{
    propose_call call = {*a, *a->x, *a->y, *a->memo};
    KAC_TRY(KAC_LAUNCH(dev, clear, 1, 1, 0, norms));
    return KAC_LAUNCH(dev, measure, blocks_of(a->y->n), KAC_GRAPH_LANES, 0, call, norms);
}

/* ---- children ----------------------------------------------------------------------------- */

/* The step sizes of a child, whose row then holds the corrector's noise. */
static __device__ void correct(const propose_call *call, const birth &b, double step[2])
{
    norms noise, score;
    if (call->a.norms == NULL) begin_child(call->a.shape, b, &noise, &score);
    for (int p = 0; p < 2 && call->a.norms != NULL; p++) {
        noise.part[p] = kac_graph_mean(call->a.norms, 0, p);
        score.part[p] = kac_graph_mean(call->a.norms, 1, p);
    }
    for (int p = 0; p < 2; p++)
        step[p] = kac_graph_step(&b.level->part[p], noise.part[p], score.part[p]);
}

/* Number l of a child; z is the corrector's and `draw` the predictor's, where it has one. */
static __device__ float move_number(const birth &b, int32_t part, int32_t l,
                                    const double step[2], float z, double draw)
{
    const kac_graph_level *level = b.level;
    float y =
        kac_graph_drift(level, part, b.x[l], b.answer[l], part == 0 ? step[0] : step[1], z);
    bool diffuses = level->part[0].spread != 0 || level->part[1].spread != 0;
    double u = kac_graph_shift(&level->part[part], b.pull, l);
    return diffuses ? kac_graph_diffuse(&level->part[part], y, draw + u) : y;
}

/* The whole row of a child. */
static __device__ void move_row(const kac_shape &shape, const birth &b, const double step[2],
                                bool rounds)
{
    bool diffuses = b.level->part[0].spread != 0 || b.level->part[1].spread != 0;
    EACH_PAIR (l, shape) {
        pair_parts p = parts_at(shape, b.n, l);
        bool live = p.first >= 0 || p.second >= 0;
        float2 z = {0, 0}, pair = {l == 0 ? b.x[0] : 0.0f, 0.0f};
        double draw[2] = {0, 0};
        if (live && b.level->corrects) z = pair_of(b.child, l);
        if (live && diffuses) noise_at(shape, b, KAC_DRAW_PROPOSE, l, draw);
        if (p.first >= 0) pair.x = move_number(b, p.first, l, step, z.x, draw[0]);
        if (p.second >= 0) pair.y = move_number(b, p.second, l + 1, step, z.y, draw[1]);
        if (rounds && p.first == 1) pair.x = kac_graph_round_pair(pair.x);
        if (rounds && p.second == 1) pair.y = kac_graph_round_pair(pair.y);
        *pair_at(b.child, l) = pair;
    }
}

/* The nodes of a row that the block has just written become atoms. */
static __device__ void round_nodes(const kac_shape &shape, int32_t n, float *row)
{
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += KAC_GRAPH_LANES)
        kac_graph_round_node(row + 1 + (int64_t)i * shape.features, shape.features);
}

KAC_KERNEL propose(KAC_ARGS propose_call call)
{
    const kac_propose_args &a = call.a;
    int64_t children = children_of(&call);
    bool rounds = a.clock->level == 0;
    for (int64_t c = blockIdx.x; c < children; c += gridDim.x) {
        birth b = birth_of(&call, c);
        double step[2] = {0, 0};
        bool is_nan = false;
        if (b.level->corrects) correct(&call, b, step);
        move_row(a.shape, b, step, rounds);
        if (rounds) round_nodes(a.shape, b.n, b.child);
        EACH_PAIR (l, a.shape)
            is_nan |= has_nan(b.answer, l, a.shape.length);
        if (is_nan) kac_fault_note(a.fault, {KAC_FAULT_NAN, b.i, a.clock->move, -1});
        if (threadIdx.x > 0) continue;
        call.y.entry[c] = -1;
        call.y.ratio[c] = 0;
    }
}

/* The ratio of a child that a tilt has shifted, a warp for each: its numbers are drawn once more,
 * and their terms are added in order. */
KAC_KERNEL sum_ratios(KAC_ARGS propose_call call)
{
    const kac_shape &shape = call.a.shape;
    KAC_EACH_WARP (c, children_of(&call)) {
        birth b = birth_of(&call, c);
        double sum = 0;
        for (int32_t from = 0; from < shape.length; from += KAC_WARP) {
            int32_t l = from + (int32_t)(threadIdx.x % KAC_WARP);
            int32_t part = l < shape.length ? kac_graph_part_at(&shape, b.n, l) : -1;
            double shift = 0, term = 0, z[2];
            if (part >= 0) shift = kac_graph_shift(&b.level->part[part], b.pull, l);
            if (shift != 0) {
                noise_at(shape, b, KAC_DRAW_PROPOSE, l - l % 2, z);
                term = kac_shift_ratio(shift, z[l % 2]);
            }
            sum = kac_add_in_order(sum, term, shift != 0);
        }
        if (threadIdx.x % KAC_WARP == 0) call.y.ratio[c] = sum;
    }
}

kac_status kac_cuda_graph_propose(kac_device *dev, const kac_propose_args *a)
{
    propose_call call = {*a, *a->x, *a->y, *a->memo};
    KAC_TRY(KAC_LAUNCH(dev, propose, blocks_of(a->y->n), KAC_GRAPH_LANES, 0, call));
    if (a->twist.tilt == NULL) return KAC_OK;
    return KAC_LAUNCH(dev, sum_ratios, kac_blocks((int64_t)a->y->n * KAC_WARP), KAC_THREADS, 0,
                      call);
}

/* ---- completions -------------------------------------------------------------------------- */

static complete_call call_of(const kac_complete_args *a)
{
    return {*a, *a->memo, *a->fresh};
}

static __device__ kac_complete_args args_of(const complete_call *call)
{
    kac_complete_args a = call->a;
    a.memo = &call->memo;
    a.fresh = &call->fresh;
    return a;
}

/* Number l of the estimate of a row of n nodes, and that n as number 0. */
static __device__ float estimate(const kac_complete_args *a, const float *x,
                                 const float *answer, int32_t n, int32_t l)
{
    const kac_graph_level *level = &a->levels[a->clock->level].graph;
    int32_t part = kac_graph_part_at(&a->shape, n, l);
    if (l == 0) return x[0];
    return part >= 0 ? kac_graph_estimate(&level->part[part], x[l], answer[l]) : 0;
}

/* The estimate of row i of x, or with no entries the row itself. */
static __device__ void copy_row(const kac_complete_args *a, int32_t i, float *row)
{
    const float *x = kac_vector(a->x, i, a->shape.stride);
    const float *answer = a->entry != NULL ? kac_logits_of(a->memo, a->entry[i]) : NULL;
    int32_t n = kac_graph_nodes(x);
    bool is_nan = false;
    EACH_PAIR (l, a->shape) {
        float2 pair = pair_of(x, l);
        if (answer != NULL) {
            pair = {estimate(a, x, answer, n, l), estimate(a, x, answer, n, l + 1)};
            is_nan |= has_nan(answer, l, a->shape.length);
        }
        if (kac_graph_part_at(&a->shape, n, l) == 1) pair.x = kac_graph_round_pair(pair.x);
        if (kac_graph_part_at(&a->shape, n, l + 1) == 1) pair.y = kac_graph_round_pair(pair.y);
        *pair_at(row, l) = pair;
    }
    if (is_nan) kac_fault_note(a->fault, kac_nan_at(a, i));
}

KAC_KERNEL complete(KAC_ARGS complete_call call, uint8_t *out)
{
    const kac_complete_args a = args_of(&call);
    int32_t rows = kac_rows_of_result(&a);
    for (int32_t r = (int32_t)blockIdx.x; r < rows; r += (int32_t)gridDim.x) {
        int32_t i = a.entry == NULL ? r : kac_row_of_result(&a, r);
        float *row = kac_vector_out(out, r, a.shape.stride);
        if (i < 0) continue;
        copy_row(&a, i, row);
        round_nodes(a.shape, kac_graph_nodes(kac_vector(a.x, i, a.shape.stride)), row);
    }
}

kac_status kac_cuda_graph_complete(kac_device *dev, const kac_complete_args *a, uint8_t *out)
{
    return KAC_LAUNCH(dev, complete, blocks_of(a->every_row ? a->n : a->batch), KAC_GRAPH_LANES,
                      0, call_of(a), out);
}

/* A thread a number. */
KAC_KERNEL soften(KAC_ARGS complete_call call, float *out)
{
    const kac_complete_args a = args_of(&call);
    int32_t end = kac_window_end(&a);
    KAC_EACH (t, (int64_t)a.batch * a.shape.length) {
        kac_quotient at = kac_split(t, a.shape.length);
        int32_t q = a.first + (int32_t)at.whole, l = (int32_t)at.rest;
        if (q >= end) return;
        int32_t i = a.fresh->src[q];
        const float *x = kac_vector(a.x, i, a.shape.stride);
        const float *answer = kac_logits_of(a.memo, a.entry[i]);
        out[t] = estimate(&a, x, answer, kac_graph_nodes(x), l);
        if (answer[l] != answer[l]) kac_fault_note(a.fault, kac_nan_at(&a, i));
    }
}

kac_status kac_cuda_graph_soften(kac_device *dev, const kac_complete_args *a, float *out)
{
    return KAC_LAUNCH(dev, soften, kac_blocks((int64_t)a->batch * a->shape.length), KAC_THREADS,
                      0, call_of(a), out);
}

/* ---- gradients ---------------------------------------------------------------------------- */

/* A thread a number: of the slope, row by row, or of the tilt, whose rows the states have. */
KAC_KERNEL gradients(KAC_ARGS slope_call call, bool tilts, float *out)
{
    const kac_slope_args &a = call.a;
    KAC_EACH (t, (int64_t)a.batch * a.shape.length) {
        kac_quotient at = kac_split(t, a.shape.length);
        int32_t q = (int32_t)at.whole, l = (int32_t)at.rest;
        if (a.first + q >= *call.fresh.count) return;
        int32_t part = part_of(call, q, l), row = tilts ? call.fresh.entry[a.first + q] : q;
        float x = 0;
        if (part >= 0)
            x = tilts ? kac_graph_tilt(&a, part, q, l) : kac_graph_slope(&a, part, q, l);
        out[(int64_t)row * a.shape.length + l] = x;
    }
}

static kac_status find_gradients(kac_device *dev, const kac_slope_args *a, bool tilts,
                                 float *out)
{
    slope_call call = {*a, *a->fresh};
    return KAC_LAUNCH(dev, gradients, kac_blocks((int64_t)a->batch * a->shape.length),
                      KAC_THREADS, 0, call, tilts, out);
}

kac_status kac_cuda_graph_slope(kac_device *dev, const kac_slope_args *a, float *out)
{
    return find_gradients(dev, a, false, out);
}

kac_status kac_cuda_graph_tilt(kac_device *dev, const kac_slope_args *a, float *tilt)
{
    return find_gradients(dev, a, true, tilt);
}

/* ---- what graphs do not have -------------------------------------------------------------- */

static kac_status refuse(const char *what)
{
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "%s", what);
}

kac_status kac_cuda_graph_imagine(kac_device *, const kac_complete_args *, uint8_t *)
{
    return refuse(KAC_GRAPH_NO_DRAWS);
}

kac_status kac_cuda_graph_blend(kac_device *, const kac_blend_args *, float *)
{
    return refuse(KAC_GRAPH_NO_BLEND);
}

kac_status kac_cuda_graph_renoise(kac_device *, const kac_renoise_args *, uint8_t *)
{
    return refuse(KAC_GRAPH_NO_NOISE);
}

kac_status kac_cuda_graph_score(kac_device *, const kac_renoise_args *, const uint8_t *,
                                const int32_t *, const kac_memo *, double *)
{
    return refuse(KAC_GRAPH_NO_DENSITY);
}

kac_status kac_cuda_graph_remask(kac_device *, const kac_remask_args *, uint8_t *)
{
    return refuse(KAC_GRAPH_NO_MASKS);
}
