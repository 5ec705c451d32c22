/* gdss_back_cuda.cu -- gradients of graphs' scores: a block takes a graph through both networks and
 * back.
 *
 * What it works on is in memory of the block's own, which the caches hold, and what goes through a
 * small network in shared memory, where there is room.  Bound by that memory.
 */
#include "gdss_layers.cuh"

enum { MOST_COLUMNS = 128 }; /* that go through a network together */

struct gdss_back_call {
    kac_query q;
    const gdss_model *model;
    const float *cotangent;
    float *grad;
    int32_t *next;   /* the next row to take */
    float *arena;    /* blocks' memory */
    int64_t floats;  /* of a block */
    int32_t columns; /* that go through a network together */
};

/* ---- memory --------------------------------------------------------------------------------- */

/* What a graph has; g_: gradients of what has the name without.  Of both networks, features and
 * channels of all layers. */
struct gdss_way {
    uint32_t *ends;
    float *x[2], *channels[2], *g_x[2], *g_channels[2];
    gdss_room room;
    /* Of one layer: */
    float *full, *norm, *turned; /* [c_most][n][step], turned: g_norm and its transpose */
    float *degree, *sum;         /* [c_most][step] */
    float *y, *part, *g_part;    /* [n][rows + GDSS_PAD] */
    float *g_y;                  /* [rows][step] */
    float *y_rows, *g_rows;      /* y and g_part, [rows][step] */
    float *g_norm;               /* as norm */
    float *dot;                  /* [heads][n][step] */
    float *g_value, *g_score;    /* [values][step], [c_most][edges] */
    float *mlp, *g_mlp[2];       /* [mlp_rows][columns], [mlp_widest][columns] */
    int32_t columns;             /* that go through a network together */
    float *memory;               /* NULL: only counted */
    int64_t used;
};

static KAC_HD inline float *take(gdss_way *m, int64_t rows, int64_t step)
{
    float *piece = m->memory != NULL ? m->memory + m->used : NULL;
    m->used += rows * step;
    return piece;
}

/* Floats that a column of a network needs. */
static KAC_HD inline int64_t column_floats(const gdss_model *model)
{
    return model->mlp_rows + 2 * (int64_t)model->mlp_widest;
}

/* `apart`: columns go through networks elsewhere. */
static KAC_HD inline void divide(const gdss_graph *g, float *memory, bool apart,
                                 int32_t columns, gdss_way *m)
{
    const gdss_model *model = g->model;
    const int64_t step = g->step, edges = g->edges, rows = model->rows + GDSS_PAD;
    *m = {};
    m->memory = memory;
    m->ends = reinterpret_cast<uint32_t *>(take(m, 1, edges));
    for (int k = 0; k < 2; k++) {
        m->x[k] = take(m, model->net[k].width, step);
        m->g_x[k] = take(m, model->net[k].width, step);
        m->channels[k] = take(m, model->net[k].channels, edges);
        m->g_channels[k] = take(m, model->net[k].channels, edges);
    }
    m->room.edge = take(m, 2 * model->c_most, edges);
    m->room.value = take(m, model->values, step);
    const int64_t work = m->used;
    m->full = take(m, (int64_t)model->c_most * g->n, step);
    m->norm = take(m, (int64_t)model->c_most * g->n, step);
    m->turned = take(m, (int64_t)model->c_most * g->n, step);
    m->degree = take(m, model->c_most, step);
    m->sum = take(m, model->c_most, step);
    m->y = take(m, g->n, rows);
    m->part = take(m, g->n, rows);
    m->g_part = take(m, g->n, rows);
    m->g_y = take(m, model->rows, step);
    m->y_rows = take(m, model->rows, step);
    m->g_rows = take(m, model->rows, step);
    m->g_norm = take(m, (int64_t)model->c_most * g->n, step);
    m->dot = take(m, (int64_t)model->heads * g->n, step);
    m->g_value = take(m, model->values, step);
    m->g_score = take(m, model->c_most, edges);
    m->columns = columns;
    if (!apart) m->mlp = take(m, column_floats(model), columns);
    /* The layers' own work is done before that of the way back begins. */
    const int64_t least = gdss_work_floats(model, g, true);
    if (m->used - work < least) (void)take(m, 1, least - (m->used - work));
    m->room.work = m->full;
    m->room.floats = (int32_t)(m->used - work);
}

/* Where columns go through networks. */
static __device__ inline void place_columns(const gdss_model *model, float *at, gdss_way *m)
{
    m->mlp = at;
    m->g_mlp[0] = m->mlp + model->mlp_rows * m->columns;
    m->g_mlp[1] = m->g_mlp[0] + model->mlp_widest * m->columns;
}

/* for (t of 0 .. count - 1, among the threads) make(t), and a barrier. */
template <class Make> static __device__ __forceinline__ void each(int32_t count, Make make)
{
    GDSS_EACH(t, count) make(t);
    __syncthreads();
}

/* `rows` rows of `columns` numbers, from rows of from_step to rows of to_step; a barrier. */
static __device__ void copy(int32_t rows, int32_t columns, const float *from, int32_t from_step,
                            float *to, int32_t to_step)
{
    each(rows * columns, [=](int32_t t) {
        to[t / columns * to_step + t % columns] = from[t / columns * from_step + t % columns];
    });
}

/* ---- small networks --------------------------------------------------------------------------- */

/* A network on `columns` columns; rows of m->mlp have `step` floats. */
struct passage {
    const gdss_mlp *net;
    int32_t step, columns;
};

/* The input is in the first rows of m->mlp; each layer's output follows.  Returns the last. */
template <bool SHARED>
static __device__ const float *mlp_there(const gdss_way *m, const passage &way)
{
    float *x = m->mlp;
    for (int32_t i = 0; i < way.net->layers; i++) {
        const gdss_linear l = way.net->layer[i];
        float *y = x + l.in * way.step;
        gdss_run_linear<false, SHARED>(l, way.net->forward, x, way.step, way.columns,
                                       i + 1 == way.net->layers ? GDSS_PLAIN : GDSS_ELU, y,
                                       way.step);
        __syncthreads();
        x = y;
    }
    return x;
}

/* From what mlp_there left and the gradient of its last output in m->g_mlp[0]; returns the
 * gradient of the input. */
template <bool SHARED>
static __device__ const float *mlp_back(const gdss_way *m, const passage &way)
{
    const float *x = m->mlp;
    int from = 0;
    for (int32_t i = 0; i + 1 < way.net->layers; i++)
        x += way.net->layer[i].in * way.step;
    for (int32_t i = way.net->layers - 1; i >= 0; i--) {
        const gdss_linear l = way.net->layer[i];
        gdss_product<false, SHARED> p = {};
        p.a = {way.net->back + l.back};
        p.b = gdss_at_of<SHARED>(m->g_mlp[from]);
        p.a_step = gdss_round(l.in, GDSS_TILE);
        p.b_step = p.out_step = way.step;
        p.rows = l.in;
        p.inner = l.out;
        p.columns = way.columns;
        p.side = 2;
        p.ending = i > 0 ? GDSS_ELU_BACK : GDSS_PLAIN;
        p.out = m->g_mlp[1 - from];
        p.y = x;
        gdss_multiply(p);
        __syncthreads();
        if (i > 0) x -= way.net->layer[i - 1].in * way.step;
        from = 1 - from;
    }
    return m->g_mlp[from];
}

/* ---- convolutions ------------------------------------------------------------------------------- */

/* All channels of a layer: full, degree, norm, y and, bias + y norm, part. */
static __device__ gdss_group convolve(const gdss_graph *g, const gdss_way *m,
                                      const gdss_layer *l, const float *channels,
                                      const float *x)
{
    const gdss_group w = {l,         0,       l->channels, l->rows,   l->rows + GDSS_PAD,
                          l->weight, l->rows, m->norm,     m->degree, m->y,
                          m->part};
    gdss_unpack(g, channels, w.count, 1, 1, m->full);
    __syncthreads();
    gdss_degrees(g, m->full, w.count, w.degree);
    gdss_weigh<false>(g, w, x);
    __syncthreads();
    gdss_normalise(g, m->full, w.degree, w.count, w.norm);
    __syncthreads();
    gdss_spread<false>(g, w, 0, NULL);
    __syncthreads();
    return w;
}

/* turned = g_norm + its transpose, of the channels that are wanted: g_norm_ij = the sum over rows
 * r of y_ri g_part_rj. */
static __device__ void turn(const gdss_graph *g, const gdss_way *m, const gdss_group &w)
{
    const gdss_layer *l = w.layer;
    const int32_t step = g->step, size = g->n * step;
    each(w.rows * g->n, [=](int32_t t) {
        const int32_t row = t % w.rows, i = t / w.rows;
        m->y_rows[row * step + i] = w.y[i * w.step + row];
        m->g_rows[row * step + i] = m->g_part[i * w.step + row];
    });
    for (int32_t c = 0; c < w.count; c++) {
        gdss_product<false, false> p = {};
        p.a = {m->y_rows + l->first[c] * step};
        p.b = {m->g_rows + l->first[c] * step};
        p.a_step = p.b_step = p.out_step = step;
        p.rows = p.columns = g->n;
        p.inner = gdss_wanted(l, c);
        p.side = 2;
        p.out = m->g_norm + c * size;
        gdss_multiply(p);
    }
    __syncthreads();
    each(w.count * g->n * g->n, [=](int32_t t) {
        const int32_t c = t / (g->n * g->n), i = t / g->n % g->n, j = t % g->n;
        const float *own = m->g_norm + c * size;
        m->turned[c * size + i * step + j] = own[i * step + j] + own[j * step + i];
    });
}

/* From m->turned, of the norms, to the channels that they were made from: it is added there.  See
 * normalise_back in gdss_simd.c. */
static __device__ void normalise_back(const gdss_graph *g, const gdss_way *m,
                                      const gdss_group &w, float *g_channels)
{
    const gdss_layer *l = w.layer;
    const int32_t step = g->step, size = g->n * step;
    each(w.count * g->n, [=](int32_t t) {
        const int32_t c = t / g->n, i = t % g->n;
        const float *turned = m->turned + c * size + i, *full = m->full + c * size + i;
        const float *degree = w.degree + c * step, d = degree[i];
        float sum = 0;
        for (int32_t j = 0; j < g->n; j++)
            sum = fmaf(turned[j * step], full[j * step] * degree[j], sum);
        m->sum[c * step + i] = d < 1 ? -0.5f * d * d * d * sum : 0;
    });
    each(w.count * g->pairs, [=](int32_t t) {
        const int32_t c = t / g->pairs, p = t % g->pairs;
        const int32_t i = (int32_t)(g->ends[p] >> 16), j = (int32_t)(g->ends[p] & 0xffff);
        const float *degree = w.degree + c * step, *sum = m->sum + c * step;
        if (gdss_wanted(l, c) == 0) return;
        g_channels[c * g->edges + p] +=
            fmaf(m->turned[c * size + i * step + j], degree[i] * degree[j], sum[i] + sum[j]);
    });
}

/* m->g_part back to the input, and to the channels: both are added. */
static __device__ void convolve_back(const gdss_graph *g, const gdss_way *m,
                                     const gdss_group &w, float *g_x, float *g_channels)
{
    const gdss_layer *l = w.layer;
    gdss_product<false, false> p = {};
    p.a = {m->g_part};
    p.b = {w.norm};
    p.a_step = w.step;
    p.b_step = p.out_step = g->step;
    p.rows = w.rows;
    p.inner = g->n;
    p.columns = g->n;
    p.owner = l->owner;
    p.b_floats = g->n * g->step;
    p.side = 2;
    p.out = m->g_y;
    gdss_multiply(p);
    __syncthreads();
    p.owner = NULL;
    p.a_step = gdss_round(l->in, GDSS_TILE);
    p.rows = l->in;
    p.from = p.out = g_x;
    for (int32_t c = 0; c < w.count; c++) {
        p.a = {l->back + l->first[c] * p.a_step};
        p.b = {m->g_y + l->first[c] * g->step};
        p.inner = gdss_wanted(l, c);
        gdss_multiply(p);
        __syncthreads();
    }
    turn(g, m, w);
    normalise_back(g, m, w, g_channels);
}

/* ---- attention ---------------------------------------------------------------------------------- */

/* The place of pair i, j of different nodes. */
static __device__ inline int32_t pair_of(const gdss_graph *g, int32_t i, int32_t j)
{
    const int32_t low = i < j ? i : j, high = i < j ? j : i;
    return low * g->n - low * (low + 1) / 2 + high - low - 1;
}

/* g_part of the queries and keys of channel c from the gradient of its scores. */
static __device__ void heads_back(const gdss_graph *g, const gdss_way *m, const gdss_group &w,
                                  int32_t c)
{
    const gdss_layer *l = w.layer;
    const int32_t size = g->n * g->step, first = l->first[c];
    const float *score = m->g_score + c * g->edges, *part = w.part + first;
    each(l->heads * g->n * g->n, [=](int32_t t) {
        const int32_t h = t / (g->n * g->n), i = t / g->n % g->n, j = t % g->n;
        const float *query = part + i * w.step + h * l->width;
        const float *key = part + j * w.step + l->query + h * l->width;
        const float of_score = i == j ? 0 : l->mean * score[pair_of(g, i, j)];
        const float y = kac_tanhf(gdss_dot(query, key, l->width) * l->scale);
        m->dot[h * size + i * g->step + j] = of_score * fmaf(-y, y, 1.0f) * l->scale;
    });
    each(2 * l->query * g->n, [=](int32_t t) {
        const int32_t row = t % (2 * l->query), i = t / (2 * l->query);
        const bool key = row >= l->query;
        const int32_t h = (key ? row - l->query : row) / l->width;
        const float *other = part + (key ? row - l->query : row + l->query);
        const float *dot = m->dot + h * size + i * (key ? 1 : g->step);
        float sum = 0;
        for (int32_t k = 0; k < g->n; k++)
            sum = fmaf(other[k * w.step], dot[k * (key ? g->step : 1)], sum);
        m->g_part[i * w.step + first + row] = sum;
    });
}

/* m->g_value from the gradient of the nodes' features. */
template <bool SHARED>
static __device__ void nodes_back(const gdss_graph *g, const gdss_way *m, const gdss_layer *l,
                                  const float *x_out, const float *g_x_out)
{
    const int32_t values = l->channels * l->value, most = m->columns;
    for (int32_t first = 0; first < g->step; first += most) {
        const int32_t columns = g->step - first < most ? g->step - first : most;
        const passage way = {&l->nodes, most, columns};
        copy(values, columns, m->room.value + first, g->step, m->mlp, most);
        const float *y = mlp_there<SHARED>(m, way);
        each(l->x_out * columns, [=](int32_t t) {
            const int32_t row = t / columns, i = t % columns, at = row * g->step + first + i;
            float of_y = g_x_out[at];
            if (l->twice) of_y = kac_activate_back(KAC_ACT_TANH, 0, x_out[at], of_y);
            m->g_mlp[0][row * most + i] =
                kac_activate_back(KAC_ACT_TANH, 0, kac_tanhf(y[row * most + i]), of_y);
        });
        copy(values, columns, mlp_back<SHARED>(m, way), most, m->g_value + first, g->step);
    }
}

/* m->g_score, and what the pair network reads of the channels, from the gradient of what it
 * gives. */
template <bool SHARED>
static __device__ void pairs_back(const gdss_graph *g, const gdss_way *m, const gdss_layer *l,
                                  const float *edge, const float *g_channels_out,
                                  float *g_channels)
{
    const int32_t most = m->columns;
    for (int32_t first = 0; first < g->edges; first += most) {
        const int32_t columns = g->edges - first < most ? g->edges - first : most;
        const passage way = {&l->pairs, most, columns};
        copy(2 * l->channels, columns, edge + first, g->edges, m->mlp, most);
        (void)mlp_there<SHARED>(m, way);
        each(l->c_out * columns, [=](int32_t t) {
            const int32_t c = t / columns, p = t % columns;
            m->g_mlp[0][c * most + p] = 2 * g_channels_out[c * g->edges + first + p];
        });
        const float *back = mlp_back<SHARED>(m, way);
        each(l->channels * columns, [=](int32_t t) {
            const int32_t c = t / columns, p = t % columns;
            m->g_score[c * g->edges + first + p] = back[c * most + p];
            g_channels[c * g->edges + first + p] += back[(l->channels + c) * most + p];
        });
    }
}

/* ---- layers ------------------------------------------------------------------------------------ */

/* What a layer read and made, and gradients. */
struct turn_back {
    const float *x, *x_out, *channels, *g_x_out, *g_channels_out;
    float *g_x, *g_channels;
};

template <bool SHARED>
static __device__ void attend_back(const gdss_graph *g, const gdss_way *m, const gdss_layer *l,
                                   const turn_back &a)
{
    const float *edge = gdss_edges(g, &m->room, l, a.channels);
    __syncthreads();
    const gdss_group w = convolve(g, m, l, a.channels, a.x);
    if (l->c_out > 0) gdss_score(g, w, const_cast<float *>(edge));
    if (l->x_out > 0) gdss_values(g, w, m->room.value);
    __syncthreads();
    if (l->x_out > 0) nodes_back<SHARED>(g, m, l, a.x_out, a.g_x_out);
    if (l->c_out > 0) pairs_back<SHARED>(g, m, l, edge, a.g_channels_out, a.g_channels);
    for (int32_t c = 0; c < l->channels; c++)
        if (l->scored >> c & 1) heads_back(g, m, w, c);
    const int32_t values = l->x_out > 0 ? l->channels * l->value : 0;
    each(values * g->n, [=](int32_t t) {
        const int32_t row = t % values, i = t / values, c = row / l->value;
        const int32_t at = l->first[c] + (l->scored >> c & 1 ? 2 * l->query : 0);
        m->g_part[i * w.step + at + row % l->value] = m->g_value[row * g->step + i];
    });
    convolve_back(g, m, w, a.g_x, a.g_channels);
}

static __device__ void conv_back(const gdss_graph *g, const gdss_way *m, const gdss_layer *l,
                                 const turn_back &a)
{
    const gdss_group w = convolve(g, m, l, a.channels, a.x);
    each(l->x_out * g->n, [=](int32_t t) {
        const int32_t row = t % l->x_out, i = t / l->x_out, at = row * g->step + i;
        m->g_part[i * w.step + row] =
            kac_activate_back(KAC_ACT_TANH, 0, a.x_out[at], a.g_x_out[at]);
    });
    convolve_back(g, m, w, a.g_x, a.g_channels);
}

template <bool SHARED>
static __device__ void layers_back(const gdss_graph *g, const gdss_way *m, int k)
{
    const gdss_network *net = &g->model->net[k];
    for (int32_t i = net->layers - 1; i >= 0; i--) {
        const gdss_layer *l = &net->layer[i];
        const int32_t in = l->x_first * g->step, out = in + l->in * g->step;
        const int32_t c = l->c_first * g->edges, c_out = c + l->channels * g->edges;
        const turn_back a = {m->x[k] + in,
                             m->x[k] + out,
                             m->channels[k] + c,
                             m->g_x[k] + out,
                             m->g_channels[k] + c_out,
                             m->g_x[k] + in,
                             m->g_channels[k] + c};
        if (net->attends)
            attend_back<SHARED>(g, m, l, a);
        else
            conv_back(g, m, l, a);
    }
}

/* ---- rows -------------------------------------------------------------------------------------- */

/* The gradients of the features and channels that the ends read, from the cotangent. */
template <bool SHARED>
static __device__ void ends_back(const gdss_graph *g, const gdss_way *m, const float *cotangent)
{
    const gdss_model *model = g->model;
    const int32_t features = model->features, rows = model->net[1].channels;
    const int32_t most = m->columns;
    for (int32_t first = 0; first < g->step; first += most) {
        const int32_t columns = g->step - first < most ? g->step - first : most;
        const passage way = {&model->net[0].last, most, columns};
        copy(model->net[0].width, columns, m->x[0] + first, g->step, m->mlp, most);
        (void)mlp_there<SHARED>(m, way);
        each(features * columns, [=](int32_t t) {
            const int32_t f = t % features, i = t / features;
            m->g_mlp[0][f * most + i] =
                first + i < g->n ? cotangent[1 + (first + i) * features + f] : 0;
        });
        copy(model->net[0].width, columns, mlp_back<SHARED>(m, way), most, m->g_x[0] + first,
             g->step);
    }
    const float *of_pairs = cotangent + 1 + model->nodes * features;
    for (int32_t first = 0; first < g->edges; first += most) {
        const int32_t columns = g->edges - first < most ? g->edges - first : most;
        const passage way = {&model->net[1].last, most, columns};
        copy(rows, columns, m->channels[1] + first, g->edges, m->mlp, most);
        (void)mlp_there<SHARED>(m, way);
        each(columns, [=](int32_t p) {
            m->g_mlp[0][p] = first + p < g->pairs
                                 ? of_pairs[gdss_place(model->nodes, g->ends[first + p])]
                                 : 0;
        });
        copy(rows, columns, mlp_back<SHARED>(m, way), most, m->g_channels[1] + first, g->edges);
    }
}

/* The gradient of the square of the first channel goes to that of the channel: with G symmetric,
 * G A + A G. */
static __device__ void square_back(const gdss_graph *g, const gdss_way *m)
{
    gdss_unpack(g, m->channels[1], 1, 1, 0, m->full);
    gdss_unpack(g, m->g_channels[1] + g->edges, 1, 1, 0, m->turned);
    __syncthreads();
    each(g->pairs, [=](int32_t p) {
        const int32_t i = (int32_t)(g->ends[p] >> 16), j = (int32_t)(g->ends[p] & 0xffff);
        float there = 0, back = 0;
        for (int32_t k = 0; k < g->n; k++) {
            there = fmaf(m->turned[i * g->step + k], m->full[k * g->step + j], there);
            back = fmaf(m->turned[j * g->step + k], m->full[k * g->step + i], back);
        }
        m->g_channels[1][p] += there + back;
    });
}

template <bool SHARED>
static __device__ void pull(const gdss_graph *g, const gdss_way *m, const float *row,
                            const float *cotangent, float *grad)
{
    const gdss_model *model = g->model;
    const int32_t features = model->features;
    gdss_read(g, row, m->x[1], m->channels[1]);
    __syncthreads();
    gdss_square(g, m->channels[1], m->room.work);
    copy(features, g->n, m->x[1], g->step, m->x[0], g->step);
    copy(KAC_GDSS_POWERS, g->pairs, m->channels[1], g->edges, m->channels[0], g->edges);
    for (int k = 0; k < 2; k++)
        gdss_run_layers<false>(g, &m->room, &model->net[k], false, m->x[k], m->channels[k]);
    each(model->net[1].width * g->step, [=](int32_t t) { m->g_x[1][t] = 0; });
    each(model->net[0].channels * g->edges, [=](int32_t t) { m->g_channels[0][t] = 0; });
    ends_back<SHARED>(g, m, cotangent);
    for (int k = 0; k < 2; k++)
        layers_back<SHARED>(g, m, k);
    each(features * g->step, [=](int32_t t) { m->g_x[1][t] += m->g_x[0][t]; });
    each(KAC_GDSS_POWERS * g->edges,
         [=](int32_t t) { m->g_channels[1][t] += m->g_channels[0][t]; });
    square_back(g, m);
    each(features * g->n,
         [=](int32_t t) { grad[1 + t] = m->g_x[1][t % features * g->step + t / features]; });
    each(g->pairs, [=](int32_t p) {
        grad[1 + model->nodes * features + gdss_place(model->nodes, g->ends[p])] =
            m->g_channels[1][p];
    });
}

template <bool SHARED>
KAC_KERNEL __launch_bounds__(KAC_THREADS, 2) gdss_back_rows(KAC_ARGS gdss_back_call a)
{
    KAC_SHARED(int32_t, next, 1);
    const gdss_model *model = a.model;
    const int32_t rows = kac_query_rows(&a.q);
    const int64_t length = a.q.length;
    for (;;) {
        if (threadIdx.x == 0) next[0] = atomicAdd(a.next, 1);
        __syncthreads();
        const int32_t j = next[0];
        if (j >= rows) return;
        const float *row = kac_query_vector(&a.q, j);
        float *grad = a.grad + j * length;
        gdss_graph g = gdss_graph_of(model, kac_gdss_live(model->nodes, row));
        gdss_way m;
        divide(&g, a.arena + (int64_t)blockIdx.x * a.floats, SHARED, a.columns, &m);
        place_columns(model, SHARED ? gdss_shared() : m.mlp, &m);
        gdss_list_pairs(&g, m.ends);
        g.ends = m.ends;
        each((int32_t)length, [=](int32_t i) { grad[i] = 0; });
        if (g.n > 0) pull<SHARED>(&g, &m, row, a.cotangent + j * length, grad);
    }
}

/* ---- the vector-Jacobian product ------------------------------------------------------------------ */

template <bool SHARED>
static kac_status launch(kac_device *dev, const gdss_back_call *a, int32_t blocks, size_t bytes)
{
    auto *kernel = gdss_back_rows<SHARED>;
    KAC_TRY(kac_allow_shared(kernel, bytes));
    return KAC_LAUNCH(dev, kernel, (unsigned)blocks, KAC_THREADS, bytes, *a);
}

/* Columns that have room in half of a multiprocessor's shared memory, 0: too few to be worth it. */
static int32_t columns_of(const kac_device *dev, const gdss_model *m)
{
    enum { RESERVED = 2048, WORTH = 16 };
    int all = 0;
    (void)cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerMultiprocessor,
                                 dev->ordinal);
    const int64_t floats = (all / 2 - RESERVED) / (int64_t)sizeof(float);
    const int64_t columns = floats / column_floats(m) / GDSS_COLUMNS * GDSS_COLUMNS;
    return columns < WORTH ? 0 : columns < MOST_COLUMNS ? (int32_t)columns : MOST_COLUMNS;
}

kac_status kac_cuda_gdss_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                             const float *cotangent, float *grad)
{
    const int64_t room = (int64_t)1 << 30; /* bytes of all blocks */
    const gdss_model *m = &net->host;
    KAC_REQUIRE(q->length == kac_gdss_length(m->nodes, m->features));
    if (q->capacity < 1) return KAC_OK;
    int processors = 1;
    void *memory = NULL;
    gdss_way way;
    const gdss_graph largest = gdss_graph_of(m, m->nodes);
    const int32_t fit = columns_of(dev, m), columns = fit > 0 ? fit : MOST_COLUMNS;
    divide(&largest, NULL, fit > 0, columns, &way);
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, dev->ordinal);
    const int64_t bytes = way.used * (int64_t)sizeof(float);
    int64_t blocks = 2 * (int64_t)processors;
    if (blocks * bytes > room) blocks = gdss_more(room / bytes, 1);
    if (blocks > q->capacity) blocks = q->capacity;
    KAC_TRY(kac_cuda_scratch(dev, 64 + (size_t)(blocks * bytes), &memory));
    int32_t *next = (int32_t *)memory;
    const gdss_back_call a = {*q,   net->model,           cotangent, grad,
                              next, (float *)memory + 16, way.used,  columns};
    KAC_TRY(kac_cuda_status(cudaMemsetAsync(next, 0, sizeof *next, kac_stream(dev)), "gdss"));
    const size_t shared = (size_t)(column_floats(m) * columns) * sizeof(float);
    return fit > 0 ? launch<true>(dev, &a, (int32_t)blocks, shared)
                   : launch<false>(dev, &a, (int32_t)blocks, 0);
}
