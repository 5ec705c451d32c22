/* gdss_layers.cuh -- a graph through the layers of the gdss networks, by one block.
 *
 * STAGED: what a block works on is in its shared memory, and so is a copy of the weights that it
 * reads next.  Else it is in memory of the block's own, and weights are read where they are.
 */
#ifndef KAC_GDSS_LAYERS_CUH
#define KAC_GDSS_LAYERS_CUH

#include "gdss_cuda.cuh"

/* ---- memory -------------------------------------------------------------------------------- */

/* Where a block has what it works on. */
struct gdss_room {
    float *edge;    /* [2 c_most][edges]: the scores of a layer's channels, then the channels */
    float *value;   /* [values][step] */
    float *work;    /* what one operation needs */
    int32_t floats; /* of work */
};

/* Floats for so many channels of a layer to be convolved together. */
static KAC_HD inline int64_t gdss_group_floats(const gdss_layer *l, int64_t n, int32_t count)
{
    const int64_t step = gdss_round((int32_t)n, GDSS_COLUMNS);
    return count * (n * step + step + (int64_t)l->channel_rows * (l->in + 2 * n)) +
           2 * n * GDSS_PAD;
}

/* Floats for a network on so many columns: its weights, and hidden features. */
static KAC_HD inline int64_t gdss_mlp_floats(const gdss_mlp *mlp, int64_t columns)
{
    return mlp->floats + 2 * (int64_t)mlp->widest * columns;
}

static KAC_HD inline int64_t gdss_more(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Floats of work for any layer: the least, or for all channels and many pairs at once. */
static KAC_HD inline int64_t gdss_work_floats(const gdss_model *m, const gdss_graph *g,
                                              bool least)
{
    int64_t floats = (int64_t)g->n * g->step; /* of the square */
    for (int k = 0; k < 2; k++)
        for (int32_t i = 0; i < m->net[k].layers; i++) {
            const gdss_layer *l = &m->net[k].layer[i];
            floats = gdss_more(floats, gdss_group_floats(l, g->n, least ? 1 : l->channels));
            floats = gdss_more(floats, gdss_mlp_floats(&l->nodes, g->step));
            floats = gdss_more(floats, gdss_mlp_floats(&l->pairs, least ? 16 : 256));
        }
    return floats;
}

/* The columns of pairs that fit where `floats` floats are for `rows` rows of them, cut evenly. */
static KAC_HD inline int32_t gdss_chunk(int32_t edges, int32_t rows, int64_t floats)
{
    const int64_t most = floats / rows / GDSS_COLUMNS * GDSS_COLUMNS;
    if (most >= edges) return edges;
    const int32_t chunks = (int32_t)((edges + most - 1) / most);
    return gdss_round((edges + chunks - 1) / chunks, GDSS_COLUMNS);
}

/* The channels of a layer that are convolved together. */
static KAC_HD inline int32_t gdss_channels_at_once(const gdss_layer *l, int32_t n,
                                                   int64_t floats)
{
    int32_t count = l->channels;
    while (count > 1 && gdss_group_floats(l, n, count) > floats)
        count--;
    const int32_t groups = (l->channels + count - 1) / count;
    return (l->channels + groups - 1) / groups;
}

/* `floats` floats, a multiple of 4, where the block reads them; a barrier comes first. */
template <bool STAGED>
static __device__ __forceinline__ const float *gdss_stage(const float *from, int32_t floats,
                                                          float *to)
{
    if constexpr (STAGED) {
        GDSS_EACH(i, floats / 4)
        reinterpret_cast<float4 *>(to)[i] = reinterpret_cast<const float4 *>(from)[i];
        return to;
    } else {
        return from;
    }
}

/* ---- convolutions --------------------------------------------------------------------------- */

/* Channels `channel` .. of a layer in the room's work. */
template <bool STAGED>
static __device__ __forceinline__ gdss_group gdss_group_in(const gdss_graph *g,
                                                           const gdss_layer *l, int32_t channel,
                                                           int32_t count, float *work)
{
    const int32_t first = l->first[channel], rows = l->first[channel + count] - first;
    gdss_group w = {l, channel, count, rows, rows + GDSS_PAD, NULL, 0, NULL, NULL, NULL, NULL};
    w.norm = work;
    w.degree = w.norm + count * g->n * g->step;
    float *weight = w.degree + count * g->step;
    w.y = weight + l->in * rows;
    w.part = w.y + g->n * w.step;
    w.weight = l->weight + first;
    w.weight_step = l->rows;
    if constexpr (STAGED) {
        const int32_t quads = rows / 4;
        GDSS_EACH(t, l->in * quads)
        {
            const int32_t k = t / quads, r = t % quads * 4;
            *reinterpret_cast<float4 *>(weight + k * rows + r) =
                *reinterpret_cast<const float4 *>(w.weight + k * l->rows + r);
        }
        w.weight = weight;
        w.weight_step = rows;
    }
    return w;
}

/* bias + weight x norm of the group's rows, as gdss_spread.  channels: those of the group, NULL:
 * their norms are there.  Begins after the group has been opened, ends in a barrier. */
template <bool STAGED>
static __device__ __forceinline__ void gdss_convolve(const gdss_graph *g, const gdss_group &w,
                                                     const float *channels, const float *x,
                                                     int32_t rows, float *x_out)
{
    if (channels != NULL) gdss_unpack(g, channels, w.count, 1, 1, w.norm);
    __syncthreads();
    if (channels != NULL) gdss_degrees(g, w.norm, w.count, w.degree);
    gdss_weigh<STAGED>(g, w, x);
    __syncthreads();
    if (channels != NULL) {
        gdss_normalise(g, w.norm, w.degree, w.count, w.norm);
        __syncthreads();
    }
    gdss_spread<STAGED>(g, w, rows, x_out);
    __syncthreads();
}

/* ---- layers ----------------------------------------------------------------------------------- */

/* x_out = tanh(convolution of x).  `channel` as in gdss_convolve. */
template <bool STAGED>
static __device__ __forceinline__ void gdss_conv(const gdss_graph *g, const gdss_room *room,
                                                 const gdss_layer *l, const float *channel,
                                                 const float *x, float *x_out)
{
    const gdss_group w = gdss_group_in<STAGED>(g, l, 0, 1, room->work);
    gdss_convolve<STAGED>(g, w, channel, x, l->x_out, x_out);
    gdss_tanh(l->x_out * g->step, 0, x_out);
}

/* Values and scores of all channels of a layer, the scores before the channels at `edge`.  Ends in
 * a barrier. */
template <bool STAGED>
static __device__ __forceinline__ void
gdss_read_channels(const gdss_graph *g, const gdss_room *room, const gdss_layer *l,
                   const float *x, float *edge)
{
    const float *channels = edge + l->channels * g->edges;
    const int32_t most = gdss_channels_at_once(l, g->n, room->floats);
    for (int32_t c = 0; c < l->channels; c += most) {
        const int32_t count = l->channels - c < most ? l->channels - c : most;
        const gdss_group w = gdss_group_in<STAGED>(g, l, c, count, room->work);
        gdss_convolve<STAGED>(g, w, channels + c * g->edges, x, 0, NULL);
        if (l->c_out > 0) gdss_score(g, w, edge + c * g->edges);
        if (l->x_out > 0) gdss_values(g, w, room->value + c * l->value * g->step);
        __syncthreads();
    }
}

/* From the values to the nodes' features. */
template <bool STAGED>
static __device__ __forceinline__ void gdss_nodes(const gdss_graph *g, const gdss_room *room,
                                                  const gdss_layer *l, float *x_out)
{
    float *hidden = room->work + l->nodes.floats;
    const float *weights = gdss_stage<STAGED>(l->nodes.forward, l->nodes.floats, room->work);
    const gdss_mlp_call call = {
        &l->nodes, weights,   room->value, {hidden, hidden + l->nodes.widest * g->step},
        x_out,     g->step,   g->step,     g->step,
        g->n,      GDSS_PLAIN};
    __syncthreads();
    gdss_run_mlp<STAGED>(call);
    gdss_tanh(l->x_out * g->step, l->twice, x_out);
}

/* From scores and channels to the next channels, twice what the network gives. */
template <bool STAGED>
static __device__ __forceinline__ void gdss_pairs(const gdss_graph *g, const gdss_room *room,
                                                  const gdss_layer *l, const float *edge,
                                                  float *channels_out)
{
    const int32_t widest = l->pairs.widest;
    const int32_t chunk = gdss_chunk(g->edges, 2 * widest, room->floats - l->pairs.floats);
    float *hidden = room->work + l->pairs.floats;
    const float *weights = gdss_stage<STAGED>(l->pairs.forward, l->pairs.floats, room->work);
    __syncthreads();
    for (int32_t first = 0; first < g->edges; first += chunk) {
        const gdss_mlp_call call = {&l->pairs,
                                    weights,
                                    edge + first,
                                    {hidden, hidden + widest * chunk},
                                    channels_out + first,
                                    g->edges,
                                    chunk,
                                    g->edges,
                                    g->edges - first < chunk ? g->edges - first : chunk,
                                    GDSS_DOUBLED};
        gdss_run_mlp<STAGED>(call);
    }
}

/* Where the scores of a layer are, its channels behind them, once they have been read. */
static __device__ __forceinline__ float *gdss_edges(const gdss_graph *g, const gdss_room *room,
                                                    const gdss_layer *l, const float *channels)
{
    float *edge = room->edge + (g->model->c_most - l->channels) * g->edges;
    const int32_t quads = l->channels * g->edges / 4;
    float4 *to = reinterpret_cast<float4 *>(edge + l->channels * g->edges);
    GDSS_EACH(t, quads) to[t] = reinterpret_cast<const float4 *>(channels)[t];
    return edge;
}

template <bool STAGED>
static __device__ __forceinline__ void
gdss_attend(const gdss_graph *g, const gdss_room *room, const gdss_layer *l,
            const float *channels, const float *x, float *x_out, float *channels_out)
{
    const float *edge = gdss_edges(g, room, l, channels);
    __syncthreads();
    gdss_read_channels<STAGED>(g, room, l, x, const_cast<float *>(edge));
    if (l->x_out > 0) gdss_nodes<STAGED>(g, room, l, x_out);
    if (l->c_out > 0) gdss_pairs<STAGED>(g, room, l, edge, channels_out);
}

/* All layers of a network.  Features of layer i are `x_first` rows on, or where `turns` are in
 * the first and the second half of 2 x_most rows in turn; channels [..][edges] are all kept. */
template <bool STAGED>
static __device__ __forceinline__ void
gdss_run_layers(const gdss_graph *g, const gdss_room *room, const gdss_network *net, bool turns,
                float *x, float *channels)
{
    const int32_t half = g->model->x_most * g->step;
    for (int32_t i = 0; i < net->layers; i++) {
        const gdss_layer *l = &net->layer[i];
        const float *in = x + (turns ? i % 2 * half : l->x_first * g->step);
        float *out = x + (turns ? (i + 1) % 2 * half : (l->x_first + l->in) * g->step);
        float *own = channels + l->c_first * g->edges;
        if (net->attends)
            gdss_attend<STAGED>(g, room, l, own, in, out, own + l->channels * g->edges);
        else
            gdss_conv<STAGED>(g, room, l, i == 0 ? channels : NULL, in, out);
    }
}

#endif /* KAC_GDSS_LAYERS_CUH */
