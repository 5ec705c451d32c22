/* cnn1d_cpu.c -- packs the cnn1d denoiser and spreads its rows over threads. */
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "cnn1d.h"
#include "cnn1d_weights.h"
#include "ops.h"
#include "query.h"
#include "scratch_cpu.h"
#include "simd.h"
#include "tile.h"

static kac_cnn1d_time_fn *const time_of[] = KAC_SIMD_TABLE(kac_cnn1d_time);
static kac_cnn1d_chunk_fn *const chunk_of[] = KAC_SIMD_TABLE(kac_cnn1d_chunk);
static kac_cnn1d_vjp_fn *const vjp_of[] = KAC_SIMD_TABLE(kac_cnn1d_vjp);

/* ---- pack ------------------------------------------------------------------------------- */

/* The next `floats` of the memory, on a cache line of their own; NULL while only counting. */
static float *place(float *memory, int64_t *used, int64_t floats)
{
    float *p = memory != NULL ? memory + *used : NULL;
    *used += (floats + 15) / 16 * 16;
    return p;
}

/* Says where everything lies; returns the floats in all. */
static int64_t arrange(kac_net *net, int has_time, float *memory)
{
    const int64_t width = net->width;
    const int64_t rows = net->layers * width;
    int64_t used = 0;
    net->linear = place(memory, &used, (int64_t)net->kernel * (net->states + 1) * width);
    net->linear_bias = place(memory, &used, width);
    if (has_time) {
        net->fourier = place(memory, &used, net->hidden / 2);
        net->embed = place(memory, &used, net->dense_step);
        net->embed_bias = place(memory, &used, width);
        net->time = place(memory, &used, net->layers * net->dense_step);
        net->time_bias = place(memory, &used, rows);
        net->features = place(memory, &used, width);
        net->embedded = place(memory, &used, width);
    }
    net->conv = place(memory, &used, net->layers * net->conv_step);
    net->conv_bias = place(memory, &used, rows);
    net->norm = place(memory, &used, rows);
    net->norm_bias = place(memory, &used, rows);
    net->final0 = place(memory, &used, net->dense_step);
    net->final0_bias = place(memory, &used, width);
    net->final2 = place(memory, &used, (int64_t)net->head_width * net->hidden);
    net->final2_bias = place(memory, &used, net->head_width);
    net->linear_back =
        place(memory, &used, (int64_t)net->token_width * net->kernel * net->hidden);
    net->conv_back = place(memory, &used, net->layers * net->conv_step);
    net->final0_back = place(memory, &used, net->dense_step);
    net->final2_back = place(memory, &used, width * net->states);
    net->zeros = place(memory, &used, width > net->token_width ? width : net->token_width);
    net->shift = place(memory, &used, rows);
    return used;
}

/* A layer [out][H] with its bias. */
static void pack_dense(const kac_net *net, int32_t out, const float *weight, const float *bias,
                       float *packed, float *packed_bias)
{
    kac_tile_weights w = {weight, out, 1, net->hidden, net->hidden, 0, 1};
    kac_tile_pack(net->isa, &w, packed);
    memcpy(packed_bias, bias, (size_t)out * sizeof *bias);
}

/* The transposed layers.  Tap k of one is tap K - 1 - k of the other. */
static void pack_back(kac_net *net, const kac_cnn1d_weights *w)
{
    const int32_t h = net->hidden;
    const int32_t k = net->kernel;
    const int32_t tokens = net->states + 1;
    kac_tile_weights linear = {w->linear + k - 1, tokens, k, h, k, -1, (int64_t)tokens * k};
    kac_tile_weights final0 = {w->final0, h, 1, h, 1, 0, h};
    kac_tile_weights final2 = {w->final2, h, 1, net->states, 1, 0, h};
    kac_tile_pack(net->isa, &linear, net->linear_back);
    for (int32_t i = 0; i < net->layers; i++) {
        kac_tile_weights conv = {w->conv[i] + k - 1, h, k, h, k, -1, (int64_t)h * k};
        kac_tile_pack(net->isa, &conv, net->conv_back + i * net->conv_step);
    }
    kac_tile_pack(net->isa, &final0, net->final0_back);
    kac_tile_pack(net->isa, &final2, net->final2_back);
}

static void pack_all(kac_net *net, const kac_cnn1d_weights *w)
{
    const int32_t tokens = net->states + 1;
    const size_t row = (size_t)net->hidden * sizeof(float);
    for (int32_t k = 0; k < net->kernel; k++)
        for (int32_t s = 0; s < tokens; s++)
            for (int32_t o = 0; o < net->hidden; o++)
                net->linear[((int64_t)k * tokens + s) * net->width + o] =
                    w->linear[((int64_t)o * tokens + s) * net->kernel + k];
    memcpy(net->linear_bias, w->linear_bias, row);
    for (int32_t i = 0; i < net->layers; i++) {
        kac_tile_weights conv = {w->conv[i],
                                 net->hidden,
                                 net->kernel,
                                 net->hidden,
                                 (int64_t)net->hidden * net->kernel,
                                 1,
                                 net->kernel};
        const int64_t at = (int64_t)i * net->width;
        kac_tile_pack(net->isa, &conv, net->conv + i * net->conv_step);
        memcpy(net->conv_bias + at, w->conv_bias[i], row);
        memcpy(net->norm + at, w->norm[i], row);
        memcpy(net->norm_bias + at, w->norm_bias[i], row);
        if (w->fourier != NULL)
            pack_dense(net, net->hidden, w->time[i], w->time_bias[i],
                       net->time + i * net->dense_step, net->time_bias + at);
    }
    pack_dense(net, net->hidden, w->final0, w->final0_bias, net->final0, net->final0_bias);
    pack_dense(net, net->states, w->final2, w->final2_bias, net->final2, net->final2_bias);
    if (w->fourier != NULL) {
        memcpy(net->fourier, w->fourier, row / 2);
        pack_dense(net, net->hidden, w->embed, w->embed_bias, net->embed, net->embed_bias);
    }
}

kac_status kac_cpu_cnn1d_pack(kac_device *dev, const kac_cnn1d_weights *host_weights,
                              kac_net **out)
{
    const kac_cnn1d_weights *w = host_weights;
    KAC_TRY(kac_cnn1d_check(w));
    kac_net *net = dev->ops->memory.alloc(dev, sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->isa = dev->isa;
    net->states = w->states;
    net->hidden = w->hidden;
    net->kernel = w->kernel;
    net->layers = w->layers;
    net->reads_time = w->reads_time;
    net->width = kac_tile_round(dev->isa, w->hidden);
    net->head_width = kac_tile_round(dev->isa, w->states);
    net->token_width = kac_tile_round(dev->isa, w->states + 1);
    memcpy(net->dilation, w->dilation, sizeof net->dilation);
    net->dense_step = (int64_t)net->width * net->hidden;
    net->conv_step = net->dense_step * net->kernel;

    int64_t floats = arrange(net, w->fourier != NULL, NULL);
    net->memory = dev->ops->memory.alloc(dev, (size_t)floats * sizeof *net->memory);
    if (net->memory == NULL) {
        kac_cpu_cnn1d_drop(dev, net);
        return KAC_ERR_NOMEM;
    }
    (void)arrange(net, w->fourier != NULL, net->memory);
    pack_all(net, w);
    pack_back(net, w);
    time_of[net->isa](net, 0.0f);
    *out = net;
    return KAC_OK;
}

void kac_cpu_cnn1d_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->memory);
    dev->ops->memory.release(dev, net);
}

/* ---- forward ---------------------------------------------------------------------------- */

/* Particles of a chunk.  Its activations should stay in a core's second-level cache beside one
 * layer's weights, yet half fill a register tile where the taps change with every position; and
 * every thread should get its share of few rows. */
static int32_t chunk_size(const kac_net *net, int32_t length, int32_t rows)
{
    enum { CACHE_FLOATS = 1 << 18, STEP = 7, MOST = 56 };
    int32_t threads = 1;
#ifdef _OPENMP
    threads = omp_get_max_threads();
#endif
    int64_t fit = CACHE_FLOATS / kac_cnn1d_work_floats(net, length, 1) / STEP * STEP;
    int32_t most = fit < STEP ? STEP : fit > MOST ? MOST : (int32_t)fit;
    int32_t chunks = (rows - 1) / most + 1;
    if (chunks % threads != 0) chunks += threads - chunks % threads;
    return (rows - 1) / chunks + 1;
}

static void forward_chunk(const kac_cpu_call *c, int32_t first, int32_t batch, void *work)
{
    chunk_of[c->net->isa](c->net, c->q, first, batch, work);
}

kac_status kac_cpu_cnn1d_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    const kac_cpu_call call = {.name = "cnn1d", .net = net, .q = q};
    const int32_t rows = kac_query_rows(q);
    if (rows == 0) return KAC_OK;
    if (net->reads_time) time_of[net->isa](net, q->levels[q->clock->level].sigma);

    const int32_t size = chunk_size(net, q->length, rows);
    const int64_t bytes = kac_cnn1d_work_floats(net, q->length, size) * (int64_t)sizeof(float);
    return kac_cpu_each_chunk(&call, rows, size, (size_t)bytes, forward_chunk);
}

/* ---- vector-Jacobian product ------------------------------------------------------------ */

static void vjp_chunk(const kac_cpu_call *c, int32_t first, int32_t batch, void *work)
{
    vjp_of[c->net->isa](c->net, c->q, first, batch, c->cotangent, c->grad, work);
}

kac_status kac_cpu_cnn1d_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                             const float *cotangent, float *grad)
{
    (void)dev;
    const kac_cpu_call call = {"cnn1d", net, q, cotangent, grad};
    const int32_t rows = kac_query_rows(q);
    if (rows == 0) return KAC_OK;
    if (net->reads_time) time_of[net->isa](net, q->levels[q->clock->level].sigma);

    const int32_t size = kac_cpu_scratch_rows(chunk_size(net, q->length, rows),
                                              kac_cnn1d_vjp_floats(net, q->length, 1));
    const int64_t bytes = kac_cnn1d_vjp_floats(net, q->length, size) * (int64_t)sizeof(float);
    return kac_cpu_each_chunk(&call, rows, size, (size_t)bytes, vjp_chunk);
}
