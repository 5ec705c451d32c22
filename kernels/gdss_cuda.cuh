/* gdss_cuda.cuh -- the gdss networks as a GPU has them, a graph's memory there, and the steps of a
 * layer that a block of threads takes a graph through.
 *
 * Every number is the chain of fma that gdss_simd.c states, so that the bits are the CPU's whatever
 * the precision that is asked for: tf32 and bf16 change nothing here.
 *
 * Notation: n live nodes; a row over nodes has `step` floats, a row over pairs i < j `edges`, both
 * whole quadruples, of which what is past the last means nothing.  Features lie as
 * [feature][node]; queries, keys and values as [node][row], a row a feature of a channel.
 */
#ifndef KAC_GDSS_CUDA_CUH
#define KAC_GDSS_CUDA_CUH

#include "activation.h"
#include "gdss_weights.h"
#include "primitives.cuh"
#include "query.h"

enum {
    GDSS_TILE = 8, /* rows of a product that a thread may have, and that rows are rounded to */
    GDSS_COLUMNS = 4,   /* and columns */
    GDSS_THREADS = 512, /* the most of a block */
    GDSS_PAD = 4,       /* floats past a node's rows, so that nodes are not all in one bank */
};

/* ---- networks ----------------------------------------------------------------------------- */

/* Where a linear layer's numbers are in its mlp's. */
struct gdss_linear {
    int32_t in, out;
    int32_t weight, bias; /* [in][out], [out], out rounded */
    int32_t back;         /* [out][in], in rounded */
};

struct gdss_mlp {
    int32_t layers;
    int32_t floats; /* of forward */
    int32_t widest; /* the most outputs of a layer */
    int32_t rows;   /* of the input and all outputs */
    gdss_linear layer[KAC_GDSS_MAX_LINEARS];
    const float *forward, *back;
};

/* An attention layer, or a graph convolution of one channel.  The rows of a channel are its
 * queries, keys and values, those that are wanted, and zeros up to a whole tile. */
struct gdss_layer {
    int32_t in, channels;
    int32_t x_first, c_first;    /* features and channels of the layers before */
    int32_t x_out, c_out;        /* features and channels that it gives; 0: not wanted */
    int32_t query, value, width; /* features of queries, of values, of a head's queries */
    int32_t heads;               /* 0: a graph convolution */
    int32_t twice;               /* 1: the features go through tanh once more */
    int32_t scored;              /* bit c: channel c has scores */
    int32_t rows, channel_rows;  /* of all channels, and the most of one */
    int32_t first[KAC_GDSS_MAX_CHANNELS + 1]; /* row of channel c; the end */
    float scale, mean; /* of a head's products, and of the sum of heads and directions */
    const float *weight, *bias, *back; /* [in][rows], [rows], [rows][in rounded] */
    const int32_t *owner;              /* [rows / GDSS_TILE] the channel of a tile of rows */
    gdss_mlp nodes, pairs;
};

/* One of the two networks. */
struct gdss_network {
    int32_t layers, attends;
    int32_t width, channels; /* of all layers together, those of the row too */
    gdss_layer layer[KAC_GDSS_MAX_LAYERS];
    gdss_mlp last;
};

struct gdss_model {
    int32_t nodes, features;
    gdss_network net[2]; /* of the nodes, of the pairs */
    /* The most, over both networks' layers: */
    int32_t x_most, c_most; /* features and channels that a layer reads */
    int32_t values;         /* features of all channels' values */
    int32_t rows, heads;
    int32_t mlp_rows, mlp_widest; /* of any network, mlp_widest with its input */
};

struct kac_net {
    gdss_model host; /* what is at `model` on the device */
    gdss_model *model;
    float *weights;
    int32_t *owners;
};

static KAC_HD inline int32_t gdss_round(int32_t n, int32_t to)
{
    return (n + to - 1) / to * to;
}

/* ---- a graph ------------------------------------------------------------------------------ */

struct gdss_graph {
    const gdss_model *model;
    int32_t n, step;
    int32_t pairs, edges;
    const uint32_t *ends; /* [edges] i << 16 | j of pair i < j */
};

static KAC_HD inline gdss_graph gdss_graph_of(const gdss_model *model, int32_t n)
{
    const int32_t pairs = n * (n - 1) / 2;
    return {model, n, gdss_round(n, GDSS_COLUMNS), pairs, gdss_round(pairs, GDSS_COLUMNS),
            NULL};
}

/* for (i = the thread's number; i < n; i += threads of the block) */
#define GDSS_EACH(i, n)                                                                        \
    for (int32_t i = (int32_t)threadIdx.x; i < (n); i += (int32_t)blockDim.x)

/* Where the pair of `ends` is in a row of numbers, past its features. */
static __device__ inline int64_t gdss_place(int32_t nodes, uint32_t ends)
{
    const int64_t i = ends >> 16, j = ends & 0xffff;
    return i * nodes - i * (i + 1) / 2 + j - i - 1;
}

static __device__ inline void gdss_list_pairs(const gdss_graph *g, uint32_t *ends)
{
    GDSS_EACH(i, g->n)
    {
        uint32_t *to = ends + i * g->n - i * (i + 1) / 2;
        for (int32_t j = i + 1; j < g->n; j++)
            *to++ = (uint32_t)i << 16 | (uint32_t)j;
    }
}

/* The features and the pairs of a row; its pairs are listed. */
static __device__ inline void gdss_read(const gdss_graph *g, const float *row, float *x,
                                        float *channel)
{
    const int32_t nodes = g->model->nodes, features = g->model->features;
    GDSS_EACH(t, g->n * features)
    x[t % features * g->step + t / features] = row[1 + t];
    GDSS_EACH(p, g->pairs)
    channel[p] = row[1 + nodes * features + gdss_place(nodes, g->ends[p])];
}

/* ---- products ------------------------------------------------------------------------------ */

/* Floats in the block's shared memory, counted from its start so that the compiler knows where
 * they are, or anywhere. */
template <bool SHARED> struct gdss_at {
    const float *at;
};
template <> struct gdss_at<true> {
    int32_t at;
};

static __device__ inline float *gdss_shared()
{
    KAC_DYNAMIC_SHARED(float, shared);
    return shared;
}

template <bool SHARED> static __device__ inline gdss_at<SHARED> gdss_at_of(const float *x)
{
    if constexpr (SHARED)
        return {(int32_t)(x - gdss_shared())};
    else
        return {x};
}

template <bool SHARED> static __device__ inline const float *gdss_floats(gdss_at<SHARED> x)
{
    if constexpr (SHARED)
        return gdss_shared() + x.at;
    else
        return x.at;
}

/* What becomes of sums. */
enum gdss_ending {
    GDSS_PLAIN,
    GDSS_TURNED,  /* to columns of out, of the first `columns` */
    GDSS_DOUBLED, /* twice the sum */
    GDSS_ELU,
    GDSS_ELU_BACK, /* as a gradient, through y = elu(x) */
};

/* out[r][c] = bias[r] + the sum over k of a[k][r] b[k][c], one chain in the order of k.  Rows of
 * a, of b and of out begin at multiples of 16 bytes; those of a go on up to a whole tile, those of b
 * and out to a whole quadruple. */
template <bool A, bool B> struct gdss_product { /* whether a, and b, are in shared memory */
    gdss_at<A> a;
    gdss_at<B> b;
    int32_t a_step, b_step;
    int32_t rows, inner, columns;
    const float *bias;    /* [rows], NULL: 0 */
    const float *from;    /* NULL, or what the chains start from, [rows][b_step] */
    const int32_t *owner; /* NULL, or for each tile of rows which of the matrices b it has, */
    int32_t b_floats;     /* of so many floats each */
    int32_t side; /* tiles of rows that neighbouring threads have, if that divides them */
    gdss_ending ending;
    float *out;
    int32_t out_step;
    const float *y; /* [rows][out_step], of GDSS_ELU_BACK */
};

template <int ROWS> static __device__ __forceinline__ void gdss_load(const float *a, float *x)
{
    if constexpr (ROWS == 2) {
        const float2 v = *reinterpret_cast<const float2 *>(a);
        x[0] = v.x, x[1] = v.y;
    } else {
        KAC_UNROLL
        for (int r = 0; r < ROWS; r += 4) {
            const float4 v = *reinterpret_cast<const float4 *>(a + r);
            x[r] = v.x, x[r + 1] = v.y, x[r + 2] = v.z, x[r + 3] = v.w;
        }
    }
}

/* A thread's sums of a product. */
template <int ROWS> struct gdss_sums {
    float v[ROWS][GDSS_COLUMNS];
};

template <bool A, bool B, int ROWS>
static __device__ __forceinline__ void gdss_end(const gdss_product<A, B> &p, int32_t row,
                                                int32_t column, gdss_sums<ROWS> &sum)
{
    float *out = p.out + row * p.out_step + column;
    KAC_UNROLL
    for (int r = 0; r < ROWS; r++) {
        if (row + r >= p.rows) continue;
        float *v = sum.v[r];
        if (p.ending == GDSS_ELU) {
            KAC_UNROLL
            for (int c = 0; c < GDSS_COLUMNS; c++)
                v[c] = kac_activate(KAC_ACT_ELU, v[c]);
        } else if (p.ending == GDSS_DOUBLED) {
            KAC_UNROLL
            for (int c = 0; c < GDSS_COLUMNS; c++)
                v[c] *= 2;
        } else if (!A && p.ending == GDSS_ELU_BACK) {
            KAC_UNROLL
            for (int c = 0; c < GDSS_COLUMNS; c++)
                v[c] = kac_activate_back(KAC_ACT_ELU, 0,
                                         p.y[(row + r) * p.out_step + column + c], v[c]);
        }
        *reinterpret_cast<float4 *>(out + r * p.out_step) = {v[0], v[1], v[2], v[3]};
    }
}

template <int ROWS>
static __device__ __forceinline__ void
gdss_end_turned(float *out, int32_t step, int32_t columns, const gdss_sums<ROWS> &sum)
{
    KAC_UNROLL
    for (int c = 0; c < GDSS_COLUMNS; c++) {
        float *at = out + c * step;
        if (c >= columns) continue;
        if constexpr (ROWS == 2)
            *reinterpret_cast<float2 *>(at) = {sum.v[0][c], sum.v[1][c]};
        else {
            KAC_UNROLL
            for (int r = 0; r < ROWS; r += 4)
                *reinterpret_cast<float4 *>(at + r) = {sum.v[r][c], sum.v[r + 1][c],
                                                       sum.v[r + 2][c], sum.v[r + 3][c]};
        }
    }
}

/* By tiles of ROWS rows and GDSS_COLUMNS columns, one of a thread. */
template <int ROWS, bool A, bool B>
static __device__ __forceinline__ void gdss_multiply_by(const gdss_product<A, B> &p)
{
    const int32_t down = (p.rows + ROWS - 1) / ROWS;
    const int32_t across = (p.columns + GDSS_COLUMNS - 1) / GDSS_COLUMNS;
    const int32_t side = down % p.side == 0 ? p.side : down % 2 == 0 ? 2 : 1;
    const float *all_a = gdss_floats<A>(p.a), *all_b = gdss_floats<B>(p.b);
    GDSS_EACH(t, down * across)
    {
        const int32_t rest = t / side, row = (t % side + rest / across * side) * ROWS;
        const int32_t column = rest % across * GDSS_COLUMNS;
        const float *a = all_a + row, *b = all_b + column;
        gdss_sums<ROWS> sum;
        if (p.owner != NULL) b += p.owner[row / GDSS_TILE] * p.b_floats;
        KAC_UNROLL
        for (int r = 0; r < ROWS; r++) {
            const float start = p.bias != NULL ? p.bias[row + r] : 0.0f;
            KAC_UNROLL
            for (int c = 0; c < GDSS_COLUMNS; c++)
                sum.v[r][c] = !A && p.from != NULL && row + r < p.rows
                                  ? p.from[(row + r) * p.b_step + column + c]
                                  : start;
        }
        for (int32_t k = 0; k < p.inner; k++) {
            float x[ROWS], y[GDSS_COLUMNS];
            gdss_load<ROWS>(a, x);
            gdss_load<GDSS_COLUMNS>(b, y);
            KAC_UNROLL
            for (int r = 0; r < ROWS; r++) {
                KAC_UNROLL
                for (int c = 0; c < GDSS_COLUMNS; c++)
                    sum.v[r][c] = fmaf(x[r], y[c], sum.v[r][c]);
            }
            a += p.a_step;
            b += p.b_step;
        }
        if (p.ending == GDSS_TURNED)
            gdss_end_turned(p.out + column * p.out_step + row, p.out_step, p.columns - column,
                            sum);
        else
            gdss_end(p, row, column, sum);
    }
}

/* What a product by tiles of so many rows takes, in instructions of one of a multiprocessor's four
 * schedulers: warps of tiles, times what one has for each k. */
static __device__ inline int32_t gdss_cost(int32_t rows, int32_t across, int32_t tile)
{
    const int32_t tiles = (rows + tile - 1) / tile * across;
    const int32_t each = tile * GDSS_COLUMNS + (tile + 3) / 4 + 3;
    return (tiles + 4 * KAC_WARP - 1) / (4 * KAC_WARP) * each;
}

/* Large tiles reuse more of what they load, small ones keep more threads at work. */
template <bool A, bool B>
static __device__ KAC_OUT_OF_LINE void gdss_multiply(gdss_product<A, B> p)
{
    const int32_t across = (p.columns + GDSS_COLUMNS - 1) / GDSS_COLUMNS;
    const int32_t two = gdss_cost(p.rows, across, 2), four = gdss_cost(p.rows, across, 4);
    if (gdss_cost(p.rows, across, GDSS_TILE) < (two < four ? two : four))
        gdss_multiply_by<GDSS_TILE>(p);
    else if (four < two)
        gdss_multiply_by<4>(p);
    else
        gdss_multiply_by<2>(p);
}

/* ---- small networks ------------------------------------------------------------------------ */

/* A linear layer: its output from x, to rows of `step` floats. */
template <bool A, bool B>
static __device__ inline void gdss_run_linear(const gdss_linear &l, const float *weights,
                                              const float *x, int32_t x_step, int32_t columns,
                                              gdss_ending ending, float *out, int32_t step)
{
    gdss_product<A, B> p = {};
    p.a = gdss_at_of<A>(weights + l.weight);
    p.b = gdss_at_of<B>(x);
    p.a_step = gdss_round(l.out, GDSS_TILE);
    p.b_step = x_step;
    p.rows = l.out;
    p.inner = l.in;
    p.columns = columns;
    p.bias = weights + l.bias;
    p.side = 2;
    p.ending = ending;
    p.out = out;
    p.out_step = step;
    gdss_multiply(p);
}

/* A network on `columns` columns of x [in][x_step].  Outputs of hidden layers go to hidden[0] and
 * hidden[1] in turn, rows of `step` floats, where hidden[1] may be x, those of the last to `out`,
 * which may be either.  `weights` is net->forward, or its copy.  Ends in a barrier. */
struct gdss_mlp_call {
    const gdss_mlp *net;
    const float *weights, *x;
    float *hidden[2], *out;
    int32_t x_step, step, out_step, columns;
    gdss_ending ending;
};

template <bool SHARED> static __device__ inline void gdss_run_mlp(const gdss_mlp_call &call)
{
    const float *x = call.x;
    const int32_t last = call.net->layers - 1;
    for (int32_t i = 0; i <= last; i++) {
        float *y = i == last ? call.out : i % 2 == 0 ? call.hidden[0] : call.hidden[1];
        gdss_run_linear<SHARED, SHARED>(
            call.net->layer[i], call.weights, x, i == 0 ? call.x_step : call.step, call.columns,
            i == last ? call.ending : GDSS_ELU, y, i == last ? call.out_step : call.step);
        __syncthreads();
        x = y;
    }
}

/* ---- adjacency ------------------------------------------------------------------------------ */

/* `count` channels [count][edges] times `scale` as matrices [count][n][step] with `diagonal`. */
static __device__ inline void gdss_unpack(const gdss_graph *g, const float *channels,
                                          int32_t count, float scale, float diagonal,
                                          float *full)
{
    const int32_t size = g->n * g->step;
    GDSS_EACH(t, count * g->pairs)
    {
        const int32_t c = t / g->pairs, p = t % g->pairs;
        const int32_t i = (int32_t)(g->ends[p] >> 16), j = (int32_t)(g->ends[p] & 0xffff);
        const float x = scale * channels[c * g->edges + p];
        full[c * size + i * g->step + j] = x;
        full[c * size + j * g->step + i] = x;
    }
    GDSS_EACH(t, count * g->n)
    full[t / g->n * size + t % g->n * (g->step + 1)] = diagonal;
}

/* degree[c][i] of matrices with ones on the diagonal. */
static __device__ inline void gdss_degrees(const gdss_graph *g, const float *full,
                                           int32_t count, float *degree)
{
    GDSS_EACH(t, count * g->n)
    {
        const int32_t c = t / g->n, i = t % g->n;
        const float *column = full + c * g->n * g->step + i;
        float sum = 0;
        for (int32_t j = 0; j < g->n; j++)
            sum += column[j * g->step];
        degree[c * g->step + i] = kac_gdss_degree(sum);
    }
}

/* norm = D^-1/2 full D^-1/2; it may be full. */
static __device__ inline void gdss_normalise(const gdss_graph *g, const float *full,
                                             const float *degree, int32_t count, float *norm)
{
    const int32_t quads = g->step / 4;
    GDSS_EACH(t, count * g->n * quads)
    {
        const int32_t row = t / quads, j = t % quads * 4, c = row / g->n;
        const float own = degree[c * g->step + row % g->n];
        const float4 other = *reinterpret_cast<const float4 *>(degree + c * g->step + j);
        const float4 x = *reinterpret_cast<const float4 *>(full + row * g->step + j);
        *reinterpret_cast<float4 *>(norm + row * g->step +
                                    j) = {x.x * (own * other.x), x.y * (own * other.y),
                                          x.z * (own * other.z), x.w * (own * other.w)};
    }
}

/* channels[1] = the square of channels[0] outside of the diagonal; full: room for a matrix. */
static __device__ inline void gdss_square(const gdss_graph *g, float *channels, float *full)
{
    gdss_unpack(g, channels, 1, 1, 0, full);
    __syncthreads();
    GDSS_EACH(p, g->pairs)
    {
        const float *row = full + (g->ends[p] >> 16) * (uint32_t)g->step;
        const float *column = full + (g->ends[p] & 0xffff);
        float sum = 0;
        for (int32_t k = 0; k < g->n; k++)
            sum = fmaf(row[k], column[k * g->step], sum);
        channels[g->edges + p] = 0.5f * (sum + sum);
    }
    __syncthreads();
}

/* ---- convolutions and attention ---------------------------------------------------------------- */

/* The rows of some channels of a layer, and what they need. */
struct gdss_group {
    const gdss_layer *layer;
    int32_t channel, count; /* the first of them, and how many */
    int32_t rows, step;     /* rows of theirs, and floats from node to node */
    const float *weight;    /* [in][weight_step] from their first row on */
    int32_t weight_step;
    float *norm, *degree; /* [count][n][step of nodes], [count][step of nodes] */
    float *y, *part;      /* [n][step] weights times features; queries, keys, values */
};

/* Rows of channel c that are no filling: queries and keys, values. */
static __device__ inline int32_t gdss_wanted(const gdss_layer *l, int32_t c)
{
    return (l->scored >> c & 1 ? 2 * l->query : 0) + (l->x_out > 0 ? l->value : 0);
}

static __device__ inline int32_t gdss_first(const gdss_group &w)
{
    return w.layer->first[w.channel];
}

/* y = weight x. */
template <bool SHARED>
static __device__ inline void gdss_weigh(const gdss_graph *g, const gdss_group &w,
                                         const float *x)
{
    gdss_product<SHARED, SHARED> p = {};
    p.a = gdss_at_of<SHARED>(w.weight);
    p.b = gdss_at_of<SHARED>(x);
    p.a_step = w.weight_step;
    p.b_step = g->step;
    p.rows = w.rows;
    p.inner = w.layer->in;
    p.columns = g->n;
    p.side = 4;
    p.ending = GDSS_TURNED;
    p.out = w.y;
    p.out_step = w.step;
    gdss_multiply(p);
}

/* bias + y norm: to part or, `rows` rows of features, to x_out. */
template <bool SHARED>
static __device__ inline void gdss_spread(const gdss_graph *g, const gdss_group &w,
                                          int32_t rows, float *x_out)
{
    const int32_t first = gdss_first(w), size = g->n * g->step;
    gdss_product<SHARED, SHARED> p = {};
    p.a = gdss_at_of<SHARED>(w.y);
    p.b = gdss_at_of<SHARED>(w.norm - w.channel * size);
    p.a_step = w.step;
    p.b_step = g->step;
    p.rows = x_out != NULL ? rows : w.rows;
    p.inner = g->n;
    p.columns = g->n;
    p.bias = w.layer->bias + first;
    p.owner = w.layer->owner + first / GDSS_TILE;
    p.b_floats = size;
    p.side = 4;
    p.ending = x_out != NULL ? GDSS_PLAIN : GDSS_TURNED;
    p.out = x_out != NULL ? x_out : w.part;
    p.out_step = x_out != NULL ? g->step : w.step;
    gdss_multiply(p);
}

/* x = tanh(x), or that twice; a barrier. */
static __device__ inline void gdss_tanh(int32_t count, int32_t twice, float *x)
{
    GDSS_EACH(t, count)
    {
        const float y = kac_tanhf(x[t]);
        x[t] = twice ? kac_tanhf(y) : y;
    }
    __syncthreads();
}

/* The product of a head's query and another node's key: [width] each. */
static __device__ __forceinline__ float gdss_dot(const float *query, const float *key,
                                                 int32_t width)
{
    float sum = 0;
    if (width == 4) { /* as published; rows are then in whole quadruples */
        const float4 q = *reinterpret_cast<const float4 *>(query);
        const float4 k = *reinterpret_cast<const float4 *>(key);
        sum = fmaf(q.w, k.w, fmaf(q.z, k.z, fmaf(q.y, k.y, fmaf(q.x, k.x, sum))));
        return sum;
    }
    for (int32_t k = 0; k < width; k++)
        sum = fmaf(query[k], key[k], sum);
    return sum;
}

/* Scores of every pair, [count][edges]: the mean over heads of tanh, and over both directions;
 * 0 in channels that have none. */
static __device__ inline void gdss_score(const gdss_graph *g, const gdss_group &w, float *score)
{
    const gdss_layer *l = w.layer;
    const int32_t width = l->width, query = l->query, first = gdss_first(w);
    const float scale = l->scale;
    GDSS_EACH(t, w.count * g->pairs)
    {
        const int32_t c = t / g->pairs, p = t % g->pairs, channel = w.channel + c;
        const float *own = w.part + l->first[channel] - first;
        const float *i = own + (g->ends[p] >> 16) * (uint32_t)w.step;
        const float *j = own + (g->ends[p] & 0xffff) * (uint32_t)w.step;
        float there = 0, back = 0;
        for (int32_t k = 0; k < query && l->scored >> channel & 1; k += width) {
            there += kac_tanhf(gdss_dot(i + k, j + query + k, width) * scale);
            back += kac_tanhf(gdss_dot(j + k, i + query + k, width) * scale);
        }
        score[c * g->edges + p] = l->mean * (there + back);
    }
}

/* The values of every channel, [count value][step of nodes]. */
static __device__ inline void gdss_values(const gdss_graph *g, const gdss_group &w,
                                          float *value)
{
    const gdss_layer *l = w.layer;
    const int32_t first = gdss_first(w);
    const int32_t some = l->value % 4 == 0 ? 4 : 1, parts = l->value / some; /* of a thread */
    GDSS_EACH(t, w.count * parts * g->n)
    {
        const int32_t i = t % g->n, part = t / g->n % parts, c = w.channel + t / g->n / parts;
        const int32_t row = (c - w.channel) * l->value + part * some;
        const int32_t at = l->first[c] - first + (l->scored >> c & 1 ? 2 * l->query : 0);
        const float *from = w.part + i * w.step + at + part * some;
        for (int32_t k = 0; k < some; k++)
            value[(row + k) * g->step + i] = from[k];
    }
}

#endif /* KAC_GDSS_CUDA_CUH */
