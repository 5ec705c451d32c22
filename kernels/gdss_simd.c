/* gdss_simd.c -- a graph through the gdss networks, and back. */
#include <math.h>
#include <string.h>

#include "activation.h"
#include "gdss.h"
#include "simd.h"

/* ---- products --------------------------------------------------------------------------- */

/* Where a chain starts. */
typedef enum start { FROM_ZERO, FROM_BIAS, FROM_OUT } start;

/* out[r][c] = start + sum over k of a(r, k) b[k][c], one fma chain in the order of k.  Columns
 * are a multiple of KAC_GDSS_ROUND. */
typedef struct product {
    const float *a;
    int64_t a_row, a_column; /* floats from row to row, and from k to k */
    const float *b;
    float *out;
    int64_t b_step, out_step;
    const float *bias; /* [rows] */
    int32_t rows, inner, columns;
    start start;
} product;

#if defined(KAC_SIMD_avx512)
enum { ROWS = 12, VECTORS = 2 };
#elif defined(KAC_SIMD_avx2)
enum { ROWS = 6, VECTORS = 2 };
#else
enum { ROWS = 4, VECTORS = 2 };
#endif

/* A tile of `rows` rows and `vectors` vectors, both constants wherever this is inlined. */
__attribute__((always_inline)) static inline void
multiply_tile(const product *p, int64_t row, int64_t column, const int rows, const int vectors)
{
    const float *a = p->a + row * p->a_row;
    const float *b = p->b + column;
    float *out = p->out + row * p->out_step + column;
    const int64_t a_row = p->a_row;
    kac_vec acc[ROWS][VECTORS];
    KAC_UNROLL
    for (int r = 0; r < rows; r++) {
        KAC_UNROLL
        for (int v = 0; v < vectors; v++)
            acc[r][v] = p->start == FROM_OUT
                            ? kac_vec_load(out + r * p->out_step + (int64_t)v * KAC_LANES)
                            : kac_vec_splat(p->start == FROM_BIAS ? p->bias[row + r] : 0);
    }
    for (int32_t k = 0; k < p->inner; k++) {
        kac_vec x[VECTORS];
        KAC_UNROLL
        for (int v = 0; v < vectors; v++)
            x[v] = kac_vec_load(b + (int64_t)v * KAC_LANES);
        KAC_UNROLL
        for (int r = 0; r < rows; r++) {
            kac_vec y = kac_vec_splat(a[r * a_row]);
            KAC_UNROLL
            for (int v = 0; v < vectors; v++)
                acc[r][v] = kac_vec_fma(y, x[v], acc[r][v]);
        }
        a += p->a_column;
        b += p->b_step;
    }
    KAC_UNROLL
    for (int r = 0; r < rows; r++) {
        KAC_UNROLL
        for (int v = 0; v < vectors; v++)
            kac_vec_store(out + r * p->out_step + (int64_t)v * KAC_LANES, acc[r][v]);
    }
}

__attribute__((always_inline)) static inline void
multiply_rows(const product *p, int64_t row, int64_t column, int rows, const int vectors)
{
    switch (rows) {
    case 1: multiply_tile(p, row, column, 1, vectors); break;
    case 2: multiply_tile(p, row, column, 2, vectors); break;
    case 3: multiply_tile(p, row, column, 3, vectors); break;
    case 4: multiply_tile(p, row, column, 4, vectors); break;
#if !defined(KAC_SIMD_portable)
    case 5: multiply_tile(p, row, column, 5, vectors); break;
    case 6: multiply_tile(p, row, column, 6, vectors); break;
#endif
#if defined(KAC_SIMD_avx512)
    case 7: multiply_tile(p, row, column, 7, vectors); break;
    case 8: multiply_tile(p, row, column, 8, vectors); break;
    case 9: multiply_tile(p, row, column, 9, vectors); break;
    case 10: multiply_tile(p, row, column, 10, vectors); break;
    case 11: multiply_tile(p, row, column, 11, vectors); break;
    case 12: multiply_tile(p, row, column, 12, vectors); break;
#endif
    default: break;
    }
}

/* Rows are cut evenly, as a short tile wastes most. */
static void multiply(const product *p)
{
    const int32_t tiles = (p->rows + ROWS - 1) / ROWS;
    int32_t column = 0;
    while (column < p->columns) {
        const int32_t left = p->columns - column;
        for (int32_t i = 0; i < tiles; i++) {
            const int32_t row = p->rows * i / tiles;
            const int32_t end = p->rows * (i + 1) / tiles;
            if (left >= VECTORS * KAC_LANES)
                multiply_rows(p, row, column, end - row, VECTORS);
            else
                multiply_rows(p, row, column, end - row, 1);
        }
        column += left >= VECTORS * KAC_LANES ? VECTORS * KAC_LANES : KAC_LANES;
    }
}

/* ---- activations ------------------------------------------------------------------------ */

static void apply_tanh(int64_t count, float *x)
{
    for (int64_t i = 0; i < count; i++)
        x[i] = kac_activate(KAC_ACT_TANH, x[i]);
}

/* g, the gradient of y = tanh(x), becomes that of x. */
static void tanh_back(int64_t count, const float *restrict y, float *restrict g)
{
    for (int64_t i = 0; i < count; i++)
        g[i] = kac_activate_back(KAC_ACT_TANH, 0, y[i], g[i]);
}

static void apply_elu(int64_t count, float *x)
{
    for (int64_t i = 0; i < count; i++)
        x[i] = kac_activate(KAC_ACT_ELU, x[i]);
}

static void elu_back(int64_t count, const float *restrict y, float *restrict g)
{
    for (int64_t i = 0; i < count; i++)
        g[i] = kac_activate_back(KAC_ACT_ELU, 0, y[i], g[i]);
}

static void add(int64_t count, const float *restrict x, float *restrict sum)
{
    for (int64_t i = 0; i < count; i++)
        sum[i] += x[i];
}

/* ---- small networks ---------------------------------------------------------------------- */

static const kac_gdss_linear *last_of(const kac_gdss_mlp *mlp)
{
    return &mlp->layer[mlp->layers - 1];
}

/* The input is in the first rows of g->mlp; each layer's output follows.  Rows have `step`
 * floats, of which the first `columns` count.  Returns the last output. */
static const float *run_mlp(const kac_gdss_graph *g, const kac_gdss_mlp *mlp, int32_t step,
                            int32_t columns)
{
    float *x = g->mlp;
    for (int32_t i = 0; i < mlp->layers; i++) {
        const kac_gdss_linear *layer = &mlp->layer[i];
        float *y = x + (int64_t)layer->in * step;
        multiply(&(product){.a = layer->weight,
                            .a_row = layer->in,
                            .a_column = 1,
                            .b = x,
                            .b_step = step,
                            .out = y,
                            .out_step = step,
                            .bias = layer->bias,
                            .start = FROM_BIAS,
                            .rows = layer->out,
                            .inner = layer->in,
                            .columns = columns});
        for (int32_t j = 0; i + 1 < mlp->layers && j < layer->out; j++)
            apply_elu(columns, y + (int64_t)j * step);
        x = y;
    }
    return x;
}

/* From what run_mlp left and the gradient of its last output in g->g_mlp[0]; returns the
 * gradient of the input. */
static const float *mlp_back(const kac_gdss_graph *g, const kac_gdss_mlp *mlp, int32_t step,
                             int32_t columns)
{
    float *of_y = g->g_mlp[0], *of_x = g->g_mlp[1];
    const float *x = g->mlp;
    for (int32_t i = 0; i + 1 < mlp->layers; i++)
        x += (int64_t)mlp->layer[i].in * step;
    for (int32_t i = mlp->layers - 1; i >= 0; i--) {
        const kac_gdss_linear *layer = &mlp->layer[i];
        multiply(&(product){.a = layer->weight,
                            .a_row = 1,
                            .a_column = layer->in,
                            .b = of_y,
                            .b_step = step,
                            .out = of_x,
                            .out_step = step,
                            .rows = layer->in,
                            .inner = layer->out,
                            .columns = columns});
        for (int32_t j = 0; i > 0 && j < layer->in; j++)
            elu_back(columns, x + (int64_t)j * step, of_x + (int64_t)j * step);
        if (i > 0) x -= (int64_t)mlp->layer[i - 1].in * step;
        float *next = of_y;
        of_y = of_x;
        of_x = next;
    }
    return of_y;
}

/* `rows` rows of `columns` floats, from rows of from_step to rows of to_step. */
static void copy_rows(int32_t rows, int32_t columns, const float *from, int64_t from_step,
                      float *to, int64_t to_step)
{
    for (int32_t i = 0; i < rows; i++)
        memcpy(to + i * to_step, from + i * from_step, (size_t)columns * sizeof *to);
}

/* Pairs of the chunk that begins at `first`. */
static int32_t chunk_of(const kac_gdss_graph *g, int32_t first)
{
    return g->pairs - first < KAC_GDSS_CHUNK ? g->pairs - first : KAC_GDSS_CHUNK;
}

/* ---- adjacency -------------------------------------------------------------------------- */

/* A channel times `scale` as a matrix [n][step], with `diagonal`, and zeros beyond n. */
static void unpack(const kac_gdss_graph *g, const float *channel, float scale, float diagonal,
                   float *full)
{
    const int64_t step = g->step;
    for (int32_t i = 0; i < g->n; i++) {
        float *row = full + i * step;
        memset(row + g->n, 0, (size_t)(g->step - g->n) * sizeof *row);
        row[i] = diagonal;
        for (int32_t j = i + 1; j < g->n; j++)
            row[j] = full[j * step + i] = scale * *channel++;
    }
}

/* channel[pair] = scale (full[i][j] + full[j][i]) or, with keep, that more; zeros beyond.  Rows
 * of full are `step` floats apart. */
static void fold(const kac_gdss_graph *g, const float *full, int64_t step, float scale,
                 int keep, float *channel)
{
    float *end = channel + g->pairs;
    for (int32_t i = 0; i < g->n; i++)
        for (int32_t j = i + 1; j < g->n; j++) {
            float sum = scale * (full[i * step + j] + full[j * step + i]);
            *channel = keep ? *channel + sum : sum;
            channel++;
        }
    while (channel < end)
        *channel++ = 0;
}

/* g->full = the channel with 1 on its diagonal, g->norm = D^-1/2 full D^-1/2, D the sums of its
 * rows, at least 1. */
static void normalise(const kac_gdss_graph *g, const float *channel)
{
    const int32_t step = g->step;
    float *degree = g->degree;
    unpack(g, channel, 1, 1, g->full);
    memset(degree, 0, (size_t)step * sizeof *degree);
    for (int32_t j = 0; j < g->n; j++)
        add(step, g->full + (int64_t)j * step, degree);
    for (int32_t i = 0; i < step; i++)
        degree[i] = kac_gdss_degree(degree[i]);
    for (int32_t i = 0; i < g->n; i++) {
        const float *restrict row = g->full + (int64_t)i * step;
        float *restrict norm = g->norm + (int64_t)i * step;
        for (int32_t j = 0; j < step; j++)
            norm[j] = row[j] * (degree[i] * degree[j]);
    }
}

/* g->g_norm, of g->norm, back to what `channel` is the gradient of: it is added there.  With
 * H = g_norm + its transpose and d the degrees, pair i, j gets
 *     H_ij d_i d_j + s_i + s_j,    s_i = -1/2 d_i^3 sum_j H_ij full_ij d_j,
 * s_i 0 where the sum of the row was at most 1. */
static void normalise_back(const kac_gdss_graph *g, float *channel)
{
    const int64_t step = g->step;
    const float *degree = g->degree;
    float *restrict sum = g->g_y;
    for (int32_t i = 0; i < g->n; i++)
        for (int32_t j = i; j < g->n; j++)
            g->turned[i * step + j] = g->turned[j * step + i] =
                g->g_norm[i * step + j] + g->g_norm[j * step + i];
    memset(sum, 0, (size_t)step * sizeof *sum);
    for (int32_t j = 0; j < g->n; j++)
        for (int32_t i = 0; i < g->n; i++)
            sum[i] = fmaf(g->turned[j * step + i], g->full[j * step + i] * degree[j], sum[i]);
    for (int32_t i = 0; i < g->n; i++)
        sum[i] = degree[i] < 1 ? -0.5f * degree[i] * degree[i] * degree[i] * sum[i] : 0;
    for (int32_t i = 0; i < g->n; i++)
        for (int32_t j = i + 1; j < g->n; j++)
            *channel++ += fmaf(g->turned[i * step + j], degree[i] * degree[j], sum[i] + sum[j]);
}

/* channels[1] = the square of channels[0], its diagonal left out. */
static void square(const kac_gdss_graph *g, float *channels)
{
    unpack(g, channels, 1, 0, g->full);
    multiply(&(product){.a = g->full,
                        .a_row = g->step,
                        .a_column = 1,
                        .b = g->full,
                        .b_step = g->step,
                        .out = g->dot,
                        .out_step = g->step,
                        .rows = g->n,
                        .inner = g->n,
                        .columns = g->step});
    fold(g, g->dot, g->step, 0.5f, 0, channels + g->pairs); /* it is symmetric to the bit */
}

/* The gradient of channels[1] goes to that of channels[0]: with G symmetric, G A + A G. */
static void square_back(const kac_gdss_graph *g, const float *channels, float *gradients)
{
    unpack(g, channels, 1, 0, g->full);
    unpack(g, gradients + g->pairs, 1, 0, g->turned);
    multiply(&(product){.a = g->turned,
                        .a_row = g->step,
                        .a_column = 1,
                        .b = g->full,
                        .b_step = g->step,
                        .out = g->dot,
                        .out_step = g->step,
                        .rows = g->n,
                        .inner = g->n,
                        .columns = g->step});
    fold(g, g->dot, g->step, 1, 1, gradients);
}

/* ---- graph convolutions ------------------------------------------------------------------ */

/* Convolutions of the same input whose weights follow each other: `rows` features in all, which
 * go to rows `first` .. of g->part. */
typedef struct convolution {
    const float *weight, *bias; /* [rows][in], [rows] */
    int32_t in, first, rows;
} convolution;

/* g->y = weight x, g->part = bias + y norm. */
static void convolve(const kac_gdss_graph *g, const convolution *c, const float *x)
{
    const int64_t at = (int64_t)c->first * g->step;
    multiply(&(product){.a = c->weight,
                        .a_row = c->in,
                        .a_column = 1,
                        .b = x,
                        .b_step = g->step,
                        .out = g->y + at,
                        .out_step = g->step,
                        .rows = c->rows,
                        .inner = c->in,
                        .columns = g->step});
    multiply(&(product){.a = g->y + at,
                        .a_row = g->step,
                        .a_column = 1,
                        .b = g->norm,
                        .b_step = g->step,
                        .out = g->part + at,
                        .out_step = g->step,
                        .bias = c->bias,
                        .start = FROM_BIAS,
                        .rows = c->rows,
                        .inner = g->n,
                        .columns = g->step});
}

/* g->g_part back to the input, and to the channel: both are added. */
static void convolve_back(const kac_gdss_graph *g, const convolution *c, float *g_x,
                          float *g_channel)
{
    const int64_t at = (int64_t)c->first * g->step;
    multiply(&(product){.a = g->g_part + at,
                        .a_row = g->step,
                        .a_column = 1,
                        .b = g->norm,
                        .b_step = g->step,
                        .out = g->g_y + at,
                        .out_step = g->step,
                        .rows = c->rows,
                        .inner = g->n,
                        .columns = g->step});
    multiply(&(product){.a = c->weight,
                        .a_row = 1,
                        .a_column = c->in,
                        .b = g->g_y + at,
                        .b_step = g->step,
                        .out = g_x,
                        .out_step = g->step,
                        .start = FROM_OUT,
                        .rows = c->in,
                        .inner = c->rows,
                        .columns = g->step});
    multiply(&(product){.a = g->y + at,
                        .a_row = 1,
                        .a_column = g->step,
                        .b = g->g_part + at,
                        .b_step = g->step,
                        .out = g->g_norm,
                        .out_step = g->step,
                        .rows = g->n,
                        .inner = c->rows,
                        .columns = g->step});
    normalise_back(g, g_channel);
}

/* ---- attention -------------------------------------------------------------------------- */

/* A layer with what it reads and makes; NULL: not wanted.  The gradients of the input are added
 * to. */
typedef struct attention {
    const kac_gdss_attention *layer;
    const uint8_t *silent; /* [C] */
    int32_t heads;
    int32_t twice;               /* 1: the nodes' features go through tanh once more */
    const float *x, *channels;   /* [in][step], [C][pairs] */
    float *x_out, *channels_out; /* [out][step], [C'][pairs] */
    const float *g_x_out, *g_channels_out;
    float *g_x, *g_channels;
} attention;

/* The convolutions of channel c whose results are wanted. */
static convolution convolution_of(const attention *a, int32_t c, int nodes, int pairs)
{
    const kac_gdss_linear *conv = a->layer->conv[c];
    const int32_t both = 2 * conv[KAC_GDSS_QUERY].out;
    const int32_t first = pairs ? 0 : both;
    const int32_t end = nodes ? both + conv[KAC_GDSS_VALUE].out : both;
    const int32_t in = conv[KAC_GDSS_QUERY].in;
    return (convolution){.weight = conv[KAC_GDSS_QUERY].weight + (int64_t)first * in,
                         .bias = conv[KAC_GDSS_QUERY].bias + first,
                         .in = in,
                         .first = first,
                         .rows = end - first};
}

/* g->dot = Q^T K of head h, rows `step` floats apart. */
static void compare(const kac_gdss_graph *g, const attention *a, int32_t h, int64_t step)
{
    const int32_t size = a->layer->conv[0][KAC_GDSS_QUERY].out;
    const int32_t width = size / a->heads;
    const float *query = g->part + (int64_t)h * width * g->step;
    multiply(&(product){.a = query,
                        .a_row = 1,
                        .a_column = g->step,
                        .b = query + (int64_t)size * g->step,
                        .b_step = g->step,
                        .out = g->dot,
                        .out_step = step,
                        .rows = g->n,
                        .inner = width,
                        .columns = g->step});
}

/* Floats between rows of n x n numbers that go through tanh: n where a row is one tile of columns,
 * whose whole vectors reach into the next row, which is written after it; so hardly any are
 * computed for nothing. */
static int64_t packed_step(const kac_gdss_graph *g)
{
    return g->step <= VECTORS * KAC_LANES ? g->n : g->step;
}

/* The mean over heads of tanh, and over both directions of a pair. */
static void run_heads(const kac_gdss_graph *g, const attention *a, float *out)
{
    const int64_t step = packed_step(g), count = kac_gdss_round(g->n * step);
    const float scale = kac_gdss_scale(a->layer);
    memset(g->sum, 0, (size_t)count * sizeof *g->sum);
    for (int32_t h = 0; h < a->heads; h++) {
        const float *restrict dot = g->dot;
        float *restrict sum = g->sum;
        compare(g, a, h, step);
        for (int64_t i = 0; i < count; i++)
            sum[i] += kac_tanhf(dot[i] * scale);
    }
    fold(g, g->sum, step, 0.5f / (float)a->heads, 0, out);
}

/* The gradient of the scores becomes that of queries and keys. */
static void heads_back(const kac_gdss_graph *g, const attention *a, const float *g_score)
{
    const int64_t count = (int64_t)g->n * g->step;
    const float scale = kac_gdss_scale(a->layer);
    const int32_t size = a->layer->conv[0][KAC_GDSS_QUERY].out;
    const int32_t width = size / a->heads;
    unpack(g, g_score, 0.5f / (float)a->heads, 0, g->sum);
    for (int32_t h = 0; h < a->heads; h++) {
        const int64_t query = (int64_t)h * width * g->step;
        const int64_t key = query + (int64_t)size * g->step;
        float *restrict dot = g->dot;
        const float *restrict sum = g->sum;
        compare(g, a, h, g->step);
        for (int64_t i = 0; i < count; i++) {
            float y = kac_tanhf(dot[i] * scale);
            dot[i] = sum[i] * fmaf(-y, y, 1.0f) * scale;
        }
        for (int32_t i = 0; i < g->n; i++)
            for (int32_t j = 0; j < g->step; j++)
                g->turned[(int64_t)i * g->step + j] =
                    j < g->n ? dot[(int64_t)j * g->step + i] : 0;
        product p = {.a = g->part + key,
                     .a_row = g->step,
                     .a_column = 1,
                     .b = g->turned,
                     .b_step = g->step,
                     .out = g->g_part + query,
                     .out_step = g->step,
                     .rows = width,
                     .inner = g->n,
                     .columns = g->step};
        multiply(&p);
        p.a = g->part + query;
        p.b = dot;
        p.out = g->g_part + key;
        multiply(&p);
    }
}

/* Values and scores of every channel. */
static void read_channels(const kac_gdss_graph *g, const attention *a, int nodes, int pairs)
{
    const kac_gdss_linear *conv = a->layer->conv[0];
    const int64_t value = 2 * (int64_t)conv[KAC_GDSS_QUERY].out * g->step;
    const int64_t size = (int64_t)conv[KAC_GDSS_VALUE].out * g->step;
    for (int32_t c = 0; c < a->layer->channels; c++) {
        const int scores = pairs && !a->silent[c];
        float *score = g->score + (int64_t)c * g->pairs;
        if (pairs && !scores) memset(score, 0, (size_t)g->pairs * sizeof *score);
        if (!nodes && !scores) continue;
        const convolution wanted = convolution_of(a, c, nodes, scores);
        normalise(g, a->channels + (int64_t)c * g->pairs);
        convolve(g, &wanted, a->x);
        if (nodes) memcpy(g->value + c * size, g->part + value, (size_t)size * sizeof(float));
        if (scores) run_heads(g, a, score);
    }
}

/* From the values to what the node network gives. */
static const float *run_nodes(const kac_gdss_graph *g, const attention *a)
{
    const kac_gdss_mlp *mlp = &a->layer->nodes;
    copy_rows(mlp->layer[0].in, g->step, g->value, g->step, g->mlp, g->step);
    return run_mlp(g, mlp, g->step, g->step);
}

/* From scores and channels of a chunk of pairs to what the pair network gives. */
static const float *run_pairs(const kac_gdss_graph *g, const attention *a, int32_t first)
{
    const int32_t channels = a->layer->channels;
    const int32_t columns = chunk_of(g, first);
    copy_rows(channels, columns, g->score + first, g->pairs, g->mlp, KAC_GDSS_CHUNK);
    copy_rows(channels, columns, a->channels + first, g->pairs,
              g->mlp + (int64_t)channels * KAC_GDSS_CHUNK, KAC_GDSS_CHUNK);
    return run_mlp(g, &a->layer->pairs, KAC_GDSS_CHUNK, columns);
}

static void attend(const kac_gdss_graph *g, const attention *a)
{
    read_channels(g, a, a->x_out != NULL, a->channels_out != NULL);
    if (a->x_out != NULL) {
        const int64_t count = (int64_t)last_of(&a->layer->nodes)->out * g->step;
        memcpy(a->x_out, run_nodes(g, a), (size_t)count * sizeof *a->x_out);
        for (int i = 0; i <= a->twice; i++)
            apply_tanh(count, a->x_out);
    }
    const int32_t out = last_of(&a->layer->pairs)->out;
    for (int32_t p = 0; a->channels_out != NULL && p < g->pairs; p += KAC_GDSS_CHUNK) {
        const float *y = run_pairs(g, a, p);
        for (int32_t c = 0; c < out; c++)
            for (int32_t i = 0; i < chunk_of(g, p); i++)
                a->channels_out[(int64_t)c * g->pairs + p + i] =
                    2 * y[(int64_t)c * KAC_GDSS_CHUNK + i];
    }
}

/* g->g_value from the gradient of the nodes' features. */
static void nodes_back(const kac_gdss_graph *g, const attention *a)
{
    const kac_gdss_mlp *mlp = &a->layer->nodes;
    const int64_t count = (int64_t)last_of(mlp)->out * g->step;
    float *y = g->value; /* what tanh gave, once the network has read the values */
    memcpy(y, run_nodes(g, a), (size_t)count * sizeof *y);
    memcpy(g->g_mlp[0], a->g_x_out, (size_t)count * sizeof *y);
    apply_tanh(count, y);
    if (a->twice) tanh_back(count, a->x_out, g->g_mlp[0]);
    tanh_back(count, y, g->g_mlp[0]);
    copy_rows(mlp->layer[0].in, g->step, mlp_back(g, mlp, g->step, g->step), g->step,
              g->g_value, g->step);
}

/* g->g_score, and what the pair network reads of the channels, from the gradient of what it
 * gives. */
static void pairs_back(const kac_gdss_graph *g, const attention *a)
{
    const int32_t channels = a->layer->channels;
    const int32_t out = last_of(&a->layer->pairs)->out;
    for (int32_t p = 0; p < g->pairs; p += KAC_GDSS_CHUNK) {
        const int32_t columns = chunk_of(g, p);
        (void)run_pairs(g, a, p);
        for (int32_t c = 0; c < out; c++)
            for (int32_t i = 0; i < columns; i++)
                g->g_mlp[0][(int64_t)c * KAC_GDSS_CHUNK + i] =
                    2 * a->g_channels_out[(int64_t)c * g->pairs + p + i];
        const float *back = mlp_back(g, &a->layer->pairs, KAC_GDSS_CHUNK, columns);
        copy_rows(channels, columns, back, KAC_GDSS_CHUNK, g->g_score + p, g->pairs);
        for (int32_t c = 0; c < channels; c++)
            add(columns, back + (int64_t)(channels + c) * KAC_GDSS_CHUNK,
                a->g_channels + (int64_t)c * g->pairs + p);
    }
}

static void attend_back(const kac_gdss_graph *g, const attention *a)
{
    const int nodes = a->g_x_out != NULL, pairs = a->g_channels_out != NULL;
    const kac_gdss_linear *conv = a->layer->conv[0];
    const int64_t value = 2 * (int64_t)conv[KAC_GDSS_QUERY].out * g->step;
    const int64_t size = (int64_t)conv[KAC_GDSS_VALUE].out * g->step;
    read_channels(g, a, nodes, pairs);
    if (nodes) nodes_back(g, a);
    if (pairs) pairs_back(g, a);
    for (int32_t c = 0; c < a->layer->channels; c++) {
        const int scores = pairs && !a->silent[c];
        if (!nodes && !scores) continue;
        const convolution wanted = convolution_of(a, c, nodes, scores);
        normalise(g, a->channels + (int64_t)c * g->pairs);
        convolve(g, &wanted, a->x);
        if (scores) heads_back(g, a, g->g_score + (int64_t)c * g->pairs);
        if (nodes)
            memcpy(g->g_part + value, g->g_value + c * size, (size_t)size * sizeof(float));
        convolve_back(g, &wanted, a->g_x, a->g_channels + (int64_t)c * g->pairs);
    }
}

/* ---- networks --------------------------------------------------------------------------- */

/* One of the two networks with its arrays in a graph. */
typedef struct network {
    const kac_gdss_network *w;
    int32_t nodes;       /* 1: that of the nodes */
    float *x, *channels; /* of all layers, each after the one before it */
    float *g_x, *g_channels;
} network;

static network network_of_nodes(const kac_gdss_graph *g)
{
    return (network){&g->net->w.x, 1, g->x, g->x_chan, g->g_x, g->g_x_chan};
}

static network network_of_pairs(const kac_gdss_graph *g)
{
    return (network){&g->net->w.adj, 0, g->adj, g->a_chan, g->g_adj, g->g_a_chan};
}

/* Features of all layers before layer i, in floats. */
static int64_t features_before(const kac_gdss_graph *g, const network *m, int32_t i)
{
    int64_t rows = 0;
    for (int32_t j = 0; j < i; j++)
        rows += m->w->attends ? m->w->attention[j].conv[0][0].in : m->w->conv[j].in;
    return rows * g->step;
}

static int64_t channels_before(const kac_gdss_graph *g, const network *m, int32_t i)
{
    int64_t rows = 0;
    for (int32_t j = 0; j < i; j++)
        rows += m->w->attention[j].channels;
    return rows * g->pairs;
}

/* Layer i; the last one makes only what the end of its network reads. */
static attention attention_of(const kac_gdss_graph *g, const network *m, int32_t i)
{
    const int last = i == m->w->layers - 1;
    const int64_t x = features_before(g, m, i), x_out = features_before(g, m, i + 1);
    const int64_t c = channels_before(g, m, i), c_out = channels_before(g, m, i + 1);
    attention a = {.layer = &m->w->attention[i],
                   .silent = g->net->silent[m->nodes][i],
                   .heads = m->w->heads,
                   .twice = m->nodes,
                   .x = m->x + x,
                   .channels = m->channels + c};
    if (!last || m->nodes) a.x_out = m->x + x_out;
    if (!last || !m->nodes) a.channels_out = m->channels + c_out;
    if (m->g_x == NULL) return a;
    a.g_x = m->g_x + x;
    a.g_channels = m->g_channels + c;
    if (a.x_out != NULL) a.g_x_out = m->g_x + x_out;
    if (a.channels_out != NULL) a.g_channels_out = m->g_channels + c_out;
    return a;
}

static convolution layer_of(const kac_gdss_linear *conv)
{
    return (convolution){conv->weight, conv->bias, conv->in, 0, conv->out};
}

static void run_layers(const kac_gdss_graph *g, const network *m)
{
    if (!m->w->attends) normalise(g, m->channels);
    for (int32_t i = 0; i < m->w->layers; i++) {
        if (m->w->attends) {
            const attention a = attention_of(g, m, i);
            attend(g, &a);
            continue;
        }
        const convolution c = layer_of(&m->w->conv[i]);
        const int64_t count = (int64_t)c.rows * g->step;
        float *out = m->x + features_before(g, m, i + 1);
        convolve(g, &c, m->x + features_before(g, m, i));
        memcpy(out, g->part, (size_t)count * sizeof *out);
        apply_tanh(count, out);
    }
}

static void layers_back(const kac_gdss_graph *g, const network *m)
{
    if (!m->w->attends) normalise(g, m->channels);
    for (int32_t i = m->w->layers - 1; i >= 0; i--) {
        if (m->w->attends) {
            const attention a = attention_of(g, m, i);
            attend_back(g, &a);
            continue;
        }
        const convolution c = layer_of(&m->w->conv[i]);
        const int64_t count = (int64_t)c.rows * g->step;
        const int64_t in = features_before(g, m, i), out = features_before(g, m, i + 1);
        convolve(g, &c, m->x + in);
        memcpy(g->g_part, m->g_x + out, (size_t)count * sizeof(float));
        tanh_back(count, m->x + out, g->g_part);
        convolve_back(g, &c, m->g_x + in, m->g_channels);
    }
}

/* The last network of the nodes, [F][step]. */
static const float *end_nodes(const kac_gdss_graph *g)
{
    const kac_gdss_mlp *mlp = &g->net->w.x.final;
    copy_rows(mlp->layer[0].in, g->step, g->x, g->step, g->mlp, g->step);
    return run_mlp(g, mlp, g->step, g->step);
}

/* And of a chunk of pairs, [1][KAC_GDSS_CHUNK]. */
static const float *end_pairs(const kac_gdss_graph *g, int32_t first)
{
    const kac_gdss_mlp *mlp = &g->net->w.adj.final;
    const int32_t columns = chunk_of(g, first);
    copy_rows(mlp->layer[0].in, columns, g->a_chan + first, g->pairs, g->mlp, KAC_GDSS_CHUNK);
    return run_mlp(g, mlp, KAC_GDSS_CHUNK, columns);
}

/* ---- rows ------------------------------------------------------------------------------- */

/* Where pair i, i + 1 of a row is, past its features. */
static int64_t pair_of(const kac_gdss_graph *g, int64_t i)
{
    const int64_t nodes = g->net->w.nodes;
    return i * nodes - i * (i + 1) / 2;
}

/* Features [F][step] and a channel from a row, zeros in what is left of theirs. */
static void read_row(const kac_gdss_graph *g, const float *row, float *x, float *channel)
{
    const int32_t features = g->net->w.features;
    const float *pairs = row + 1 + (int64_t)g->net->w.nodes * features;
    float *end = channel + g->pairs;
    memset(x, 0, (size_t)features * (size_t)g->step * sizeof *x);
    for (int32_t i = 0; i < g->n; i++) {
        for (int32_t f = 0; f < features; f++)
            x[(int64_t)f * g->step + i] = row[1 + (int64_t)i * features + f];
        const int32_t count = g->n - 1 - i;
        memcpy(channel, pairs + pair_of(g, i), (size_t)count * sizeof *channel);
        channel += count;
    }
    memset(channel, 0, (size_t)(end - channel) * sizeof *channel);
}

/* The other way; NULL: not written. */
static void write_row(const kac_gdss_graph *g, const float *x, const float *channel, float *row)
{
    const int32_t features = g->net->w.features;
    float *pairs = row + 1 + (int64_t)g->net->w.nodes * features;
    for (int32_t i = 0; i < g->n; i++) {
        for (int32_t f = 0; x != NULL && f < features; f++)
            row[1 + (int64_t)i * features + f] = x[(int64_t)f * g->step + i];
        if (channel == NULL) continue;
        const int32_t count = g->n - 1 - i;
        memcpy(pairs + pair_of(g, i), channel, (size_t)count * sizeof *channel);
        channel += count;
    }
}

/* Both networks up to their ends. */
static void run(const kac_gdss_graph *g, const float *row)
{
    const network nodes = network_of_nodes(g), pairs = network_of_pairs(g);
    const size_t features = (size_t)g->net->w.features * (size_t)g->step * sizeof *g->x;
    read_row(g, row, g->adj, g->a_chan);
    square(g, g->a_chan);
    memcpy(g->x, g->adj, features);
    memcpy(g->x_chan, g->a_chan, KAC_GDSS_POWERS * (size_t)g->pairs * sizeof *g->x_chan);
    run_layers(g, &nodes);
    run_layers(g, &pairs);
}

/* The graph of a row in `memory`; `to` becomes zeros. */
static void begin(const kac_net *net, const float *row, int back, float *to, float *memory,
                  kac_gdss_graph *g)
{
    kac_gdss_divide(net, kac_gdss_live(net->w.nodes, row), back, memory, g);
    memset(to, 0, (size_t)kac_gdss_length(net->w.nodes, net->w.features) * sizeof *to);
}

void KAC_SIMD_NAME(kac_gdss_row)(const kac_net *net, const float *row, float *out,
                                 float *memory)
{
    kac_gdss_graph g;
    begin(net, row, 0, out, memory, &g);
    if (g.n == 0) return;
    run(&g, row);
    write_row(&g, end_nodes(&g), NULL, out);
    for (int32_t p = 0; p < g.pairs; p += KAC_GDSS_CHUNK)
        memcpy(g.score + p, end_pairs(&g, p), (size_t)chunk_of(&g, p) * sizeof *out);
    write_row(&g, NULL, g.score, out);
}

/* The gradients of the features and channels that the ends read, from the cotangent. */
static void ends_back(const kac_gdss_graph *g, const float *cotangent)
{
    const int32_t features = g->net->w.features;
    const kac_gdss_mlp *x_end = &g->net->w.x.final, *a_end = &g->net->w.adj.final;
    read_row(g, cotangent, g->g_value, g->g_score);
    (void)end_nodes(g);
    copy_rows(features, g->step, g->g_value, g->step, g->g_mlp[0], g->step);
    copy_rows(g->net->x_width, g->step, mlp_back(g, x_end, g->step, g->step), g->step, g->g_x,
              g->step);
    for (int32_t p = 0; p < g->pairs; p += KAC_GDSS_CHUNK) {
        const int32_t columns = chunk_of(g, p);
        (void)end_pairs(g, p);
        copy_rows(1, columns, g->g_score + p, g->pairs, g->g_mlp[0], KAC_GDSS_CHUNK);
        copy_rows(g->net->adj_channels, columns, mlp_back(g, a_end, KAC_GDSS_CHUNK, columns),
                  KAC_GDSS_CHUNK, g->g_a_chan + p, g->pairs);
    }
}

void KAC_SIMD_NAME(kac_gdss_back)(const kac_net *net, const float *row, const float *cotangent,
                                  float *grad, float *memory)
{
    kac_gdss_graph g;
    begin(net, row, 1, grad, memory, &g);
    if (g.n == 0) return;
    const network nodes = network_of_nodes(&g), pairs = network_of_pairs(&g);
    const int64_t features = (int64_t)net->w.features * g.step;
    run(&g, row);
    memset(g.g_adj, 0, (size_t)net->adj_width * (size_t)g.step * sizeof *g.g_adj);
    memset(g.g_x_chan, 0, (size_t)net->x_channels * (size_t)g.pairs * sizeof *g.g_x_chan);
    ends_back(&g, cotangent);
    layers_back(&g, &nodes);
    layers_back(&g, &pairs);
    add(features, g.g_x, g.g_adj);
    add(KAC_GDSS_POWERS * (int64_t)g.pairs, g.g_x_chan, g.g_a_chan);
    square_back(&g, g.a_chan, g.g_a_chan);
    write_row(&g, g.g_adj, g.g_a_chan, grad);
}
