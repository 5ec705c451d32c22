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
    int32_t *order;  /* [rows] the largest graphs first */
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

/* And for the pairs of which edges `from` .. end - 1 are, multiples of 4, some at a time. */
template <bool STAGED>
static __device__ __forceinline__ void end_pairs(const gdss_graph *g, const float *channels,
                                                 float *memory, int32_t floats, int32_t from,
                                                 int32_t end, float *out)
{
    const gdss_mlp *mlp = &g->model->net[1].last;
    const int32_t nodes = g->model->nodes, rows = g->model->net[1].channels;
    const int32_t widest = mlp->widest, taller = rows > widest ? rows : widest;
    const int32_t chunk = gdss_chunk(end - from, taller + widest, floats - mlp->floats);
    float *hidden = memory + mlp->floats, *in = hidden + widest * chunk;
    float *to = out + 1 + nodes * g->model->features;
    const float *weights = gdss_stage<STAGED>(mlp->forward, mlp->floats, memory);
    for (int32_t first = from; first < end; first += chunk) {
        const int32_t columns = end - first < chunk ? end - first : chunk;
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

/* A row with a block's memory for its graph. */
struct gdss_job {
    const float *row;
    float *out, *memory, *channels;
};

static __device__ inline gdss_job job_of(const gdss_call *a, int32_t j, float *memory,
                                         int64_t channels)
{
    return {kac_query_vector(&a->q, j), kac_query_out(&a->q, j), memory,
            a->channels + channels * a->channel_floats};
}

/* The graph of a row; its pairs are listed after the next barrier. */
static __device__ inline gdss_graph open_graph(const gdss_call *a, const gdss_job &job)
{
    gdss_graph g = gdss_graph_of(a->model, kac_gdss_live(a->model->nodes, job.row));
    gdss_list_pairs(&g, reinterpret_cast<uint32_t *>(job.memory));
    g.ends = reinterpret_cast<const uint32_t *>(job.memory);
    return g;
}

/* Networks `first` .. `last` up to the end of that of the pairs, which is not made.  What they
 * answer is 0 where there is no live node or pair. */
template <bool STAGED>
static __device__ __forceinline__ void run_networks(const gdss_call *a, const gdss_job &job,
                                                    const gdss_graph *g, int first, int last)
{
    const gdss_model *m = a->model;
    const int32_t split = 1 + m->nodes * m->features;
    const int32_t begin = first == 0 ? 0 : split, end = last == 0 ? split : a->q.length;
    GDSS_EACH(i, end - begin) job.out[begin + i] = 0;
    if (g->n == 0) return;
    const gdss_places at = places_of(m, g);
    float *x = job.memory + at.x;
    const gdss_room room = {job.memory + at.edge, job.memory + at.value, job.memory + at.work,
                            a->floats - at.work};
    __syncthreads();
    gdss_read(g, job.row, x, job.channels);
    __syncthreads();
    gdss_square(g, job.channels, room.work);
    for (int k = first; k <= last; k++) {
        gdss_run_layers<STAGED>(g, &room, &m->net[k], k == 1, x, job.channels);
        if (k == 0) end_nodes<STAGED>(g, x, job.memory + at.edge, job.out);
    }
}

/* order = the rows by their live nodes, the most first, so that no large graph is left for the end.
 * By one block; which of equals comes first does not show in any answer. */
KAC_KERNEL __launch_bounds__(GDSS_THREADS) gdss_sort(KAC_ARGS gdss_call a)
{
    KAC_SHARED(int32_t, place, KAC_GDSS_MAX_NODES + 1);
    const int32_t rows = kac_query_rows(&a.q), nodes = a.model->nodes;
    GDSS_EACH(n, nodes + 1) place[n] = 0;
    __syncthreads();
    GDSS_EACH(j, rows)
    (void)atomicAdd(&place[kac_gdss_live(nodes, kac_query_vector(&a.q, j))], 1);
    __syncthreads();
    if (threadIdx.x == 0) {
        int32_t before = 0;
        for (int32_t n = nodes; n >= 0; n--) {
            const int32_t count = place[n];
            place[n] = before;
            before += count;
        }
        a.next[0] = 0;
    }
    __syncthreads();
    GDSS_EACH(j, rows)
    a.order[atomicAdd(&place[kac_gdss_live(nodes, kac_query_vector(&a.q, j))], 1)] = j;
}

/* Many graphs: blocks take one after the other, since they differ in size. */
template <bool STAGED>
KAC_KERNEL __launch_bounds__(GDSS_THREADS) gdss_rows(KAC_ARGS gdss_call a)
{
    KAC_SHARED(int32_t, next, 1);
    float *memory = gdss_shared();
    const int32_t rows = kac_query_rows(&a.q);
    if constexpr (!STAGED) memory = a.arena + (int64_t)blockIdx.x * a.floats;
    for (;;) {
        if (threadIdx.x == 0) next[0] = atomicAdd(a.next, 1);
        __syncthreads();
        if (next[0] >= rows) return;
        const gdss_job job = job_of(&a, a.order[next[0]], memory, blockIdx.x);
        const gdss_graph g = open_graph(&a, job);
        const int32_t x = places_of(a.model, &g).x;
        run_networks<STAGED>(&a, job, &g, 0, 1);
        if (g.n > 0)
            end_pairs<STAGED>(&g, job.channels, memory + x, a.floats - x, 0, g.edges, job.out);
        __syncthreads();
    }
}

/* Few graphs: each has two blocks, one for the pairs' network up to its end, and one for the
 * nodes' network. */
KAC_KERNEL __launch_bounds__(GDSS_THREADS) gdss_networks(KAC_ARGS gdss_call a)
{
    const int32_t rows = kac_query_rows(&a.q), half = (int32_t)gridDim.x / 2;
    const int32_t k = (int32_t)blockIdx.x < half ? 1 : 0, j = (int32_t)blockIdx.x % half;
    if (j >= rows) return;
    const gdss_job job = job_of(&a, j, gdss_shared(), blockIdx.x);
    const gdss_graph g = open_graph(&a, job);
    run_networks<true>(&a, job, &g, k, k);
}

/* And then some blocks for the end of the pairs' network, each for some pairs. */
enum { END_PAIRS = 64 };

KAC_KERNEL __launch_bounds__(GDSS_THREADS) gdss_ends(KAC_ARGS gdss_call a, int32_t parts)
{
    const int32_t rows = kac_query_rows(&a.q), j = (int32_t)blockIdx.x / parts;
    const int32_t first = (int32_t)blockIdx.x % parts * END_PAIRS;
    if (j >= rows) return;
    const gdss_job job = job_of(&a, j, gdss_shared(), j);
    const gdss_graph g = open_graph(&a, job);
    if (first >= g.edges) return;
    const int32_t x = places_of(a.model, &g).x;
    const int32_t end = first + END_PAIRS < g.edges ? first + END_PAIRS : g.edges;
    end_pairs<true>(&g, job.channels, job.memory + x, a.floats - x, first, end, job.out);
}

/* ---- forward ------------------------------------------------------------------------------------ */

/* How a query is shared out among blocks. */
struct gdss_plan {
    bool staged;
    bool apart; /* the networks, and parts of the pairs' end, are blocks of their own */
    int32_t blocks, threads;
    int64_t floats; /* of a block's memory */
};

/* Few graphs: each has processors with all their memory.  Many: as many blocks as have room share
 * a processor, two at least, so that one goes on where another waits. */
static gdss_plan plan_of(const kac_device *dev, const gdss_model *m, int32_t rows)
{
    enum { RESERVED = 2048 }; /* bytes of a block's shared memory that are not its own to use */
    int processors = 1, most = 0, all = 0;
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, dev->ordinal);
    (void)cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, dev->ordinal);
    (void)cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerMultiprocessor,
                                 dev->ordinal);
    const int64_t least = floats_of(m, true) * (int64_t)sizeof(float);
    const int64_t whole = most - RESERVED;
    gdss_plan plan = {least <= whole, rows <= processors && least <= whole, processors,
                      GDSS_THREADS, whole / 16 * 4};
    for (int32_t share = 4; share > 1 && !plan.apart && plan.threads == GDSS_THREADS;
         share -= 2) {
        const int64_t bytes = all / share - RESERVED;
        if (least <= bytes || (!plan.staged && share == 2))
            plan = {plan.staged, false, share * processors, GDSS_THREADS / share,
                    bytes / 16 * 4};
    }
    if (!plan.staged) {
        const int64_t full = floats_of(m, false), enough = 1 << 20;
        plan.floats = gdss_more(least / 4, full < enough ? full : enough);
        plan.floats = (plan.floats + 3) / 4 * 4;
    }
    if (plan.apart || plan.blocks > rows) plan.blocks = plan.apart ? 2 * rows : rows;
    return plan;
}

/* Floats of a block of gdss_ends: all its pairs at once, or what there is. */
static int64_t end_floats(const gdss_model *m, int64_t most)
{
    const gdss_graph g = gdss_graph_of(m, m->nodes);
    const gdss_mlp *mlp = &m->net[1].last;
    const int64_t rows = gdss_more(mlp->widest, m->net[1].channels) + mlp->widest;
    const int64_t floats = places_of(m, &g).x + mlp->floats + rows * END_PAIRS;
    return floats < most ? floats : most;
}

/* What a launch is of. */
struct gdss_grid {
    int32_t blocks, threads;
    int64_t floats;
};

template <class Kernel, class... More>
static kac_status launch(kac_device *dev, Kernel *kernel, const gdss_grid &grid, gdss_call a,
                         bool staged, More... more)
{
    const size_t bytes = staged ? (size_t)grid.floats * sizeof(float) : 0;
    a.floats = (int32_t)grid.floats;
    KAC_TRY(kac_allow_shared(kernel, bytes));
    return KAC_LAUNCH(dev, kernel, (unsigned)grid.blocks, (unsigned)grid.threads, bytes, a,
                      more...);
}

static kac_status run(kac_device *dev, const gdss_model *m, const gdss_plan *plan,
                      const gdss_call *a)
{
    const gdss_grid all = {plan->blocks, plan->threads, plan->floats};
    if (!plan->apart) {
        KAC_TRY(KAC_LAUNCH(dev, gdss_sort, 1, GDSS_THREADS, 0, *a));
        return plan->staged ? launch(dev, gdss_rows<true>, all, *a, true)
                            : launch(dev, gdss_rows<false>, all, *a, false);
    }
    const int32_t parts = (gdss_graph_of(m, m->nodes).edges + END_PAIRS - 1) / END_PAIRS;
    KAC_TRY(launch(dev, gdss_networks, all, *a, true));
    if (parts == 0) return KAC_OK;
    const gdss_grid ends = {plan->blocks / 2 * parts, GDSS_THREADS / 2,
                            end_floats(m, plan->floats)};
    return launch(dev, gdss_ends, ends, *a, true, parts);
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
    const int64_t listed = (1 + (int64_t)q->capacity + 15) / 16 * 16;
    KAC_TRY(kac_cuda_scratch(
        dev, (size_t)(listed + plan.blocks * (channels + arena)) * sizeof(float), &memory));
    int32_t *next = (int32_t *)memory;
    float *first = (float *)memory + listed;
    const gdss_call a = {*q,       net->model, (int32_t)plan.floats,
                         next + 1, next,       first + plan.blocks * channels,
                         first,    channels};
    return run(dev, m, &plan, &a);
}
