/* gdss_cuda.cu -- scores of graphs: a block takes a graph through both networks.
 *
 * State in, answer out: in between are shared memory and the channels of all layers, which the
 * last network reads, in memory of the block's own that the second-level cache holds.  Bound by
 * fma and by the tanh of the heads; blocks go on to the next graph as they finish one, since
 * graphs differ in size.
 */
#include "gdss_layers.cuh"

struct gdss_call {
    kac_query q;
    const gdss_model *model;
    int32_t floats;  /* of a block's memory */
    int32_t *next;   /* the next row to take */
    float *arena;    /* blocks' memory where it is not shared */
    float *channels; /* [blocks][channel_floats] */
    int64_t channel_floats;
};

/* ---- memory --------------------------------------------------------------------------------- */

/* A block's memory: the list of pairs, features, and what is left for the layers; the last network
 * of the nodes has what follows the features, that of the pairs all but the list. */
struct gdss_places {
    int32_t x, edge, value, work;
};

static KAC_HD inline gdss_places places_of(const gdss_model *m, const gdss_graph *g)
{
    const int32_t rows = m->net[0].width > 2 * m->x_most ? m->net[0].width : 2 * m->x_most;
    gdss_places at = {};
    at.x = g->edges;
    at.edge = at.x + rows * g->step;
    at.value = at.edge + 2 * m->c_most * g->edges;
    at.work = at.value + m->values * g->step;
    return at;
}

/* Floats of a block's memory for graphs of all nodes: the least, or for all channels and many
 * pairs at once. */
static int64_t floats_of(const gdss_model *m, bool least)
{
    const gdss_graph g = gdss_graph_of(m, m->nodes);
    const gdss_places at = places_of(m, &g);
    const int64_t columns = least ? 16 : 256;
    const int64_t work = gdss_work_floats(m, &g, least);
    const gdss_mlp *pairs = &m->net[1].last;
    const int64_t ends =
        gdss_more(at.edge + gdss_mlp_floats(&m->net[0].last, g.step),
                  at.x + pairs->floats +
                      (gdss_more(pairs->widest, m->net[1].channels) + pairs->widest) * columns);
    return gdss_more(at.work + work, ends);
}

/* ---- the ends ----------------------------------------------------------------------------------- */

/* The answer for the nodes. */
template <bool STAGED>
static __device__ __forceinline__ void end_nodes(const gdss_graph *g, const float *x,
                                                 float *memory, float *out)
{
    const gdss_mlp *mlp = &g->model->net[0].last;
    const int32_t features = g->model->features;
    float *hidden = memory + mlp->floats;
    const float *weights = gdss_stage<STAGED>(mlp->forward, mlp->floats, memory);
    float *last = hidden + (mlp->layers % 2 == 0 ? mlp->widest * g->step : 0);
    const gdss_mlp_call call = {
        mlp,  weights,   x,       {hidden, hidden + mlp->widest * g->step},
        last, g->step,   g->step, g->step,
        g->n, GDSS_PLAIN};
    __syncthreads();
    gdss_run_mlp<STAGED>(call);
    GDSS_EACH(t, features * g->n)
    out[1 + t] = last[t % features * g->step + t / features];
    __syncthreads();
}

/* And for the pairs, some at a time. */
template <bool STAGED>
static __device__ __forceinline__ void end_pairs(const gdss_graph *g, const float *channels,
                                                 float *memory, int32_t floats, float *out)
{
    const gdss_mlp *mlp = &g->model->net[1].last;
    const int32_t nodes = g->model->nodes, rows = g->model->net[1].channels;
    const int32_t widest = mlp->widest, taller = rows > widest ? rows : widest;
    const int32_t chunk = gdss_chunk(g->edges, taller + widest, floats - mlp->floats);
    float *hidden = memory + mlp->floats, *in = hidden + widest * chunk;
    float *to = out + 1 + nodes * g->model->features;
    const float *weights = gdss_stage<STAGED>(mlp->forward, mlp->floats, memory);
    for (int32_t first = 0; first < g->edges; first += chunk) {
        const int32_t columns = g->edges - first < chunk ? g->edges - first : chunk;
        const int32_t quads = columns / 4;
        GDSS_EACH(t, rows * quads)
        *reinterpret_cast<float4 *>(in + t / quads * chunk + t % quads * 4) =
            *reinterpret_cast<const float4 *>(channels + t / quads * g->edges + first +
                                              t % quads * 4);
        float *last = mlp->layers % 2 == 0 ? in : hidden;
        const gdss_mlp_call call = {mlp,   weights, in,    {hidden, in}, last,
                                    chunk, chunk,   chunk, columns,      GDSS_PLAIN};
        __syncthreads();
        gdss_run_mlp<STAGED>(call);
        GDSS_EACH(p, columns)
        if (first + p < g->pairs) to[gdss_place(nodes, g->ends[first + p])] = last[p];
        __syncthreads();
    }
}

/* ---- rows ------------------------------------------------------------------------------------- */

template <bool STAGED>
static __device__ __forceinline__ void answer(const gdss_call *a, const float *row, float *out,
                                              float *memory)
{
    const gdss_model *m = a->model;
    float *channels = a->channels + blockIdx.x * a->channel_floats;
    gdss_graph g = gdss_graph_of(m, kac_gdss_live(m->nodes, row));
    GDSS_EACH(i, (int32_t)kac_gdss_length(m->nodes, m->features)) out[i] = 0;
    if (g.n == 0) return;
    const gdss_places at = places_of(m, &g);
    uint32_t *ends = reinterpret_cast<uint32_t *>(memory);
    float *x = memory + at.x;
    const gdss_room room = {memory + at.edge, memory + at.value, memory + at.work,
                            a->floats - at.work};
    gdss_list_pairs(&g, ends);
    g.ends = ends;
    __syncthreads();
    gdss_read(&g, row, x, channels);
    __syncthreads();
    gdss_square(&g, channels, room.work);
    for (int k = 0; k < 2; k++) {
        gdss_run_layers<STAGED>(&g, &room, &m->net[k], k == 1, x, channels);
        if (k == 0) end_nodes<STAGED>(&g, x, memory + at.edge, out);
    }
    end_pairs<STAGED>(&g, channels, memory + at.x, a->floats - at.x, out);
}

template <bool STAGED>
KAC_KERNEL __launch_bounds__(GDSS_THREADS) gdss_rows(KAC_ARGS gdss_call a)
{
    KAC_DYNAMIC_SHARED(float, shared);
    KAC_SHARED(int32_t, next, 1);
    const int32_t rows = kac_query_rows(&a.q);
    for (;;) {
        if (threadIdx.x == 0) next[0] = atomicAdd(a.next, 1);
        __syncthreads();
        const int32_t j = next[0];
        if (j >= rows) return;
        if constexpr (STAGED)
            answer<true>(&a, kac_query_vector(&a.q, j), kac_query_out(&a.q, j), shared);
        else
            answer<false>(&a, kac_query_vector(&a.q, j), kac_query_out(&a.q, j),
                          a.arena + (int64_t)blockIdx.x * a.floats);
        __syncthreads();
    }
}

/* ---- forward ------------------------------------------------------------------------------------ */

/* How a query is shared out among blocks. */
struct gdss_plan {
    bool staged;
    int32_t blocks, threads;
    int64_t floats; /* of a block's memory */
};

/* Few graphs: each has a processor with all its memory.  Many: two share one, so that one goes on
 * where the other waits. */
static gdss_plan plan_of(const kac_device *dev, const gdss_model *m, int32_t rows)
{
    enum { RESERVED = 2048 }; /* bytes of a block's shared memory that are not its own to use */
    int processors = 1, most = 0, all = 0;
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, dev->ordinal);
    (void)cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, dev->ordinal);
    (void)cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerMultiprocessor,
                                 dev->ordinal);
    const int64_t least = floats_of(m, true) * (int64_t)sizeof(float);
    const int64_t half = all / 2 - RESERVED, whole = most - RESERVED;
    gdss_plan plan = {least <= whole, processors, GDSS_THREADS, whole / 4 / 4 * 4};
    if (rows > processors && (least <= half || !plan.staged))
        plan = {plan.staged, 2 * processors, GDSS_THREADS / 2, half / 4 / 4 * 4};
    if (!plan.staged) {
        const int64_t full = floats_of(m, false), enough = 1 << 20;
        plan.floats = gdss_more(least / 4, full < enough ? full : enough);
        plan.floats = (plan.floats + 3) / 4 * 4;
    }
    if (plan.blocks > rows) plan.blocks = rows;
    return plan;
}

template <bool STAGED>
static kac_status launch(kac_device *dev, const gdss_plan *plan, const gdss_call *a)
{
    auto *kernel = gdss_rows<STAGED>;
    const size_t bytes = STAGED ? (size_t)plan->floats * sizeof(float) : 0;
    KAC_TRY(kac_allow_shared(kernel, bytes));
    return KAC_LAUNCH(dev, kernel, (unsigned)plan->blocks, (unsigned)plan->threads, bytes, *a);
}

kac_status kac_cuda_gdss_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    const gdss_model *m = &net->host;
    KAC_REQUIRE(q->length == kac_gdss_length(m->nodes, m->features));
    if (q->capacity < 1) return KAC_OK;
    const gdss_plan plan = plan_of(dev, m, q->capacity);
    const gdss_graph largest = gdss_graph_of(m, m->nodes);
    const int64_t channels =
        gdss_more(m->net[0].channels, m->net[1].channels) * (int64_t)largest.edges;
    const int64_t arena = plan.staged ? 0 : plan.floats;
    void *memory = NULL;
    KAC_TRY(kac_cuda_scratch(
        dev, 64 + (size_t)(plan.blocks * (channels + arena)) * sizeof(float), &memory));
    int32_t *next = (int32_t *)memory;
    float *first = (float *)memory + 16;
    const gdss_call a = {
        *q,    net->model, (int32_t)plan.floats, next, first + plan.blocks * channels,
        first, channels};
    KAC_TRY(kac_cuda_status(cudaMemsetAsync(next, 0, sizeof *next, kac_stream(dev)), "gdss"));
    return plan.staged ? launch<true>(dev, &plan, &a) : launch<false>(dev, &plan, &a);
}
