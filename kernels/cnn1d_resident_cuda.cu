/* cnn1d_resident_cuda.cu -- see cnn1d_resident.cuh.
 *
 * A block takes a few sequences, up to 208 rows (a row is a position of a sequence), from tokens
 * to logits.  Its residual stream, `feat`, stays in shared memory as float32, and so does what a
 * convolution reads, `h`, as bf16; only weights stream in, through a ring of slices.  Rows of
 * neighbouring positions lie a constant distance apart, so a tap is the same tile of h some rows
 * further on, and a tap outside the sequence is a row outside h: zeros.
 *
 * The product is (channels x inputs) (inputs x rows), so that any number of rows costs no more
 * than its own.  A warpgroup has 64 channels of one of two pieces of 104 rows; a tap skips the
 * pieces that lie wholly outside.  Bound by the tensor cores, between layers by their norms.
 */
#include <stdlib.h>

#include "cnn1d_resident.cuh"
#include "group.cuh"

constexpr int PIECE = KAC_GROUP_COLS;
constexpr int ROWS = 2 * PIECE;
constexpr int PAD =
    PIECE + 1; /* zeros before a chunk of h; they follow the chunk before, too */
constexpr int CHUNK = PAD + ROWS; /* rows of a chunk of h: odd, so that banks differ */
constexpr int SLICE = 32;         /* input channels of a slice of weights */
constexpr int STAGES = 4;

/* Threads that compute, of a network of C channels; one more warp fetches weights. */
template <int C> constexpr int WORKERS = C / 64 * 2 * KAC_GROUP;
template <int C> constexpr int THREADS = WORKERS<C> + KAC_WARP;

struct resident_call {
    kac_query q;
    kac_cuda_resident net;
    int32_t sequences; /* of a block */
};

/* The shared memory of a block. */
template <int C> struct resident_memory {
    static constexpr int PITCH = C + 4; /* floats of a row of feat */
    float feat[ROWS * PITCH];
    uint16_t ring[STAGES * SLICE * C];
    uint16_t h[(C / 8 * CHUNK + PAD) * 8];
    uint64_t full[STAGES], empty[STAGES];
};

/* Rows between an output and the input that a tap of a layer reads. */
static __device__ int64_t shift_of(const resident_call *a, int layer, int tap)
{
    if (layer == a->net.layers) return 0; /* final0 */
    return (int64_t)(tap - a->net.kernel / 2) * a->net.dilation[layer] * a->sequences;
}

static __device__ int taps_of(const resident_call *a, int layer)
{
    return layer == a->net.layers ? 1 : a->net.kernel;
}

/* Whether a piece of the block's rows meets them again when shifted. */
static __device__ bool is_live(int rows, int piece, int64_t shift)
{
    const int64_t begin = piece * PIECE + shift;
    return piece * PIECE < rows && begin < rows && begin + PIECE > 0;
}

/* One thread: slices of weights, in the order in which they are used. */
template <int C> static __device__ void fetch(const resident_call *a, resident_memory<C> *m)
{
    const int rows = a->sequences * a->q.length;
    const uint16_t *weight = a->net.weight;
    uint32_t n = 0; /* slices so far */
    for (int layer = 0; layer <= a->net.layers; layer++) {
        for (int tap = 0; tap < taps_of(a, layer); tap++, weight += C * C) {
            const int64_t shift = shift_of(a, layer, tap);
            if (!is_live(rows, 0, shift) && !is_live(rows, 1, shift)) continue;
            for (int slice = 0; slice < C / SLICE; slice++, n++) {
                const uint32_t stage = n % STAGES;
                kac_gate_wait(&m->empty[stage], (n / STAGES & 1) ^ 1);
                kac_gate_copy(&m->full[stage], m->ring + stage * SLICE * C,
                              weight + slice * SLICE * C, SLICE * C * 2);
            }
        }
    }
}

/* feat = relu(bias + weights of the tokens). */
template <int C> static __device__ void embed(const resident_call *a, resident_memory<C> *m)
{
    const int length = a->q.length, half = a->net.kernel / 2, tokens = a->net.states + 1;
    const int first = (int)blockIdx.x * a->sequences, last = kac_query_rows(&a->q) - 1;
    const float4 *weight = reinterpret_cast<const float4 *>(a->net.linear);
    const float4 *bias = reinterpret_cast<const float4 *>(a->net.linear_bias);
    for (int i = (int)threadIdx.x; i < a->sequences * length * (C / 4); i += WORKERS<C>) {
        const int row = i / (C / 4), c = i % (C / 4), l = row / a->sequences;
        const int b = first + row % a->sequences;
        const uint8_t *x = kac_query_tokens(&a->q, b < last ? b : last);
        float4 sum = bias[c];
        for (int k = 0; k < a->net.kernel; k++) {
            const int from = l + k - half;
            if (from < 0 || from >= length) continue;
            const float4 y = weight[(k * tokens + x[from]) * (C / 4) + c];
            sum = {sum.x + y.x, sum.y + y.y, sum.z + y.z, sum.w + y.w};
        }
        *reinterpret_cast<float4 *>(m->feat + row * m->PITCH + 4 * c) = {
            fmaxf(sum.x, 0.0f), fmaxf(sum.y, 0.0f), fmaxf(sum.z, 0.0f), fmaxf(sum.w, 0.0f)};
    }
}

/* Each x over a warp, in every lane. */
template <int N> static __device__ void sum_over_warp(float *x)
{
    KAC_UNROLL
    for (int by = KAC_WARP / 2; by > 0; by /= 2) {
        KAC_UNROLL
        for (int i = 0; i < N; i++)
            x[i] += __shfl_xor_sync(KAC_WHOLE_WARP, x[i], by);
    }
}

/* Neighbouring channels of a lane, that many: C / 32. */
template <int C> struct channels {
    static constexpr int N = C / KAC_WARP;
    float x[N];
};

/* One access for a lane's channels. */
template <int C> static __device__ channels<C> load(const float *from)
{
    if constexpr (C == 128) {
        const float4 v = *reinterpret_cast<const float4 *>(from);
        return {v.x, v.y, v.z, v.w};
    } else {
        const float2 v = *reinterpret_cast<const float2 *>(from);
        return {v.x, v.y};
    }
}

template <int C> static __device__ void store_bf16(uint16_t *to, const channels<C> &v)
{
    const uint32_t low = kac_bf16_pair(v.x[0], v.x[1]);
    if constexpr (C == 128)
        *reinterpret_cast<uint2 *>(to) = {low, kac_bf16_pair(v.x[2], v.x[3])};
    else
        *reinterpret_cast<uint32_t *>(to) = low;
}

/* h = LayerNorm(feat + shift) of a layer; before final0 h = feat.  A warp a row, whose lanes
 * have neighbouring channels; four rows at once, so that their sums overlap. */
template <int C>
static __device__ void normalise(const resident_call *a, resident_memory<C> *m, int layer)
{
    constexpr int N = C / KAC_WARP, AT_ONCE = 4, WARPS = WORKERS<C> / KAC_WARP;
    const int c = (int)threadIdx.x % KAC_WARP * N, rows = a->sequences * a->q.length;
    const bool norms = layer < a->net.layers;
    channels<C> shift = {}, gamma = {}, beta = {};
    if (norms) {
        shift = load<C>(a->net.shift + layer * C + c);
        gamma = load<C>(a->net.norm + layer * C + c);
        beta = load<C>(a->net.norm_bias + layer * C + c);
    }
    for (int row = (int)threadIdx.x / KAC_WARP; row < rows; row += AT_ONCE * WARPS) {
        channels<C> y[AT_ONCE];
        float mean[AT_ONCE], square[AT_ONCE];
        KAC_UNROLL
        for (int r = 0; r < AT_ONCE; r++) {
            const int from = row + r * WARPS < rows ? row + r * WARPS : row;
            y[r] = load<C>(m->feat + from * m->PITCH + c);
            mean[r] = square[r] = 0;
            KAC_UNROLL
            for (int i = 0; i < N; i++) {
                y[r].x[i] += shift.x[i];
                mean[r] += y[r].x[i];
            }
        }
        if (norms) {
            sum_over_warp<AT_ONCE>(mean);
            KAC_UNROLL
            for (int r = 0; r < AT_ONCE; r++) {
                KAC_UNROLL
                for (int i = 0; i < N; i++) {
                    y[r].x[i] = fmaf(mean[r], -1.0f / C, y[r].x[i]);
                    square[r] = fmaf(y[r].x[i], y[r].x[i], square[r]);
                }
            }
            sum_over_warp<AT_ONCE>(square);
            KAC_UNROLL
            for (int r = 0; r < AT_ONCE; r++) {
                const float scale = kac_rsqrt(fmaf(square[r], 1.0f / C, 1e-5f));
                KAC_UNROLL
                for (int i = 0; i < N; i++)
                    y[r].x[i] = fmaf(y[r].x[i] * scale, gamma.x[i], beta.x[i]);
            }
        }
        KAC_UNROLL
        for (int r = 0; r < AT_ONCE; r++)
            if (row + r * WARPS < rows)
                store_bf16<C>(m->h + (c / 8 * CHUNK + PAD + row + r * WARPS) * 8 + c % 8, y[r]);
    }
}

/* feat += relu(bias + convolution of h); of final0 feat = that. */
template <int C>
static __device__ void convolve(const resident_call *a, resident_memory<C> *m, int layer,
                                uint32_t *slices)
{
    constexpr int SLICES = C / SLICE;
    const int group = (int)threadIdx.x / KAC_GROUP, lane = (int)threadIdx.x % KAC_WARP;
    const int piece = group % 2, channel = group / 2 * 64;
    const int mine = channel + (int)threadIdx.x % KAC_GROUP / KAC_WARP * 16 + lane / 4;
    const int rows = a->sequences * a->q.length;
    const float bias[2] = {a->net.bias[layer * C + mine], a->net.bias[layer * C + mine + 8]};
    const kac_shared_tile w = kac_tile_at(m->ring + channel * 8, C);
    const kac_shared_tile h = kac_tile_at(m->h + (PAD + piece * PIECE) * 8, CHUNK);
    float sum[KAC_GROUP_SUMS];
    KAC_UNROLL
    for (int i = 0; i < KAC_GROUP_SUMS; i++)
        sum[i] = bias[i / 2 % 2];

    uint32_t n = *slices;
    auto release = [&]() { /* the slice before n */
                           if (n != *slices && lane == 0)
                               kac_gate_arrive(&m->empty[(n - 1) % STAGES]);
    };
    for (int tap = 0; tap < taps_of(a, layer); tap++) {
        const int64_t shift = shift_of(a, layer, tap);
        const uint32_t end = n + SLICES;
        if (is_live(rows, piece, shift)) {
            kac_shared_tile x = kac_tile_move(h, (int)shift);
            for (; n < end; n++, x = kac_tile_move(x, SLICE / 8 * CHUNK)) {
                const uint32_t stage = n % STAGES;
                const kac_shared_tile y = kac_tile_move(w, (int)stage * (SLICE / 8) * C);
                kac_gate_wait(&m->full[stage], n / STAGES & 1);
                kac_group_begin();
                KAC_UNROLL
                for (int k = 0; k < SLICE / 8; k += 2)
                    kac_group_mma(sum, kac_tile_move(y, k * C), kac_tile_move(x, k * CHUNK));
                kac_group_commit();
                kac_group_wait<1>();
                release();
            }
        } else if (is_live(rows, 1 - piece, shift)) { /* the weights are for the others */
            kac_group_wait<0>();
            for (; n < end; n++) {
                kac_gate_wait(&m->full[n % STAGES], n / STAGES & 1);
                __syncwarp();
                release();
            }
        }
    }
    kac_group_wait<0>();
    kac_group_keep(sum);
    release();
    *slices = n;

    KAC_UNROLL
    for (int i = 0; i < KAC_GROUP_SUMS; i++) {
        const int row = piece * PIECE + i / 4 * 8 + lane % 4 * 2 + i % 2;
        float *x = m->feat + row * m->PITCH + mine + i / 2 % 2 * 8;
        const float y = fmaxf(sum[i], 0.0f);
        *x = layer < a->net.layers ? *x + y : y;
    }
}

/* The logits of feat. */
template <int C> static __device__ void answer(const resident_call *a, resident_memory<C> *m)
{
    const int first = (int)blockIdx.x * a->sequences, states = a->net.states;
    const int step = a->net.final2.step, left = kac_query_rows(&a->q) - first;
    for (int row = (int)threadIdx.x; row < a->sequences * a->q.length; row += WORKERS<C>) {
        const int l = row / a->sequences, b = row % a->sequences;
        const float *x = m->feat + row * m->PITCH;
        if (b >= left) continue;
        float *out = kac_query_out(&a->q, first + b) + l * states;
        for (int s = 0; s < states; s += 4) {
            float4 y = *reinterpret_cast<const float4 *>(a->net.final2.bias + s);
            for (int c = 0; c < C; c++) {
                const float4 w =
                    *reinterpret_cast<const float4 *>(a->net.final2.weight + c * step + s);
                y = {fmaf(x[c], w.x, y.x), fmaf(x[c], w.y, y.y), fmaf(x[c], w.z, y.z),
                     fmaf(x[c], w.w, y.w)};
            }
            const float z[4] = {y.x, y.y, y.z, y.w};
            KAC_UNROLL
            for (int i = 0; i < 4; i++)
                if (s + i < states) out[s + i] = z[i];
        }
    }
}

template <int C> KAC_KERNEL __launch_bounds__(THREADS<C>, 1) reside(KAC_ARGS resident_call a)
{
    KAC_DYNAMIC_SHARED(resident_memory<C>, m);
    const int me = (int)threadIdx.x;
    if ((int)blockIdx.x * a.sequences >= kac_query_rows(&a.q)) return;
    if (me < STAGES) {
        kac_gate_open(&m->full[me], 1);
        kac_gate_open(&m->empty[me], WORKERS<C> / KAC_WARP);
    }
    __syncthreads();
    if (me >= WORKERS<C>) {
        if (me == WORKERS<C>) fetch<C>(&a, m);
        return;
    }
    for (int i = me; i < (C / 8 * CHUNK + PAD) * 4; i += WORKERS<C>)
        reinterpret_cast<uint32_t *>(m->h)[i] = 0;
    embed<C>(&a, m);
    kac_first_threads_sync(WORKERS<C>);
    uint32_t slices = 0;
    for (int layer = 0; layer <= a.net.layers; layer++) {
        normalise<C>(&a, m, layer);
        kac_shared_publish();
        kac_first_threads_sync(WORKERS<C>);
        convolve<C>(&a, m, layer, &slices);
        kac_first_threads_sync(WORKERS<C>);
    }
    answer<C>(&a, m);
}

/* ---- pack --------------------------------------------------------------------------------- */

/* To nearest, ties to even; x is a number. */
static uint16_t bf16_of(float x)
{
    uint32_t bits = 0;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* A layer's weight [out][in][taps] of h by h channels, see kac_cuda_resident.weight. */
static void repack(const float *weight, int32_t h, int32_t taps, uint16_t *out)
{
    for (int64_t k = 0; k < taps; k++)
        for (int64_t c = 0; c < h; c++)
            for (int64_t o = 0; o < h; o++)
                out[((k * (h / 8) + c / 8) * h + o) * 8 + c % 8] =
                    bf16_of(weight[(o * h + c) * taps + k]);
}

/* Whether the device runs the kernel. */
static bool device_allows(const kac_device *dev, int32_t *processors)
{
    cudaDeviceProp prop;
    if (cudaGetDeviceProperties(&prop, dev->ordinal) != cudaSuccess) return false;
    *processors = prop.multiProcessorCount;
    return prop.major == 9 && prop.minor == 0;
}

kac_status kac_cuda_resident_pack(kac_device *dev, const kac_cnn1d_weights *w,
                                  kac_cuda_resident *net)
{
    const int64_t h = w->hidden, block = h * h, layers = w->layers;
    const size_t entries = (size_t)((layers * w->kernel + 1) * block);
    int32_t processors = 0;
    if (h != 64 && h != 128) return KAC_OK;
    if (!device_allows(dev, &processors)) return KAC_OK;
    net->states = w->states;
    net->hidden = w->hidden;
    net->kernel = w->kernel;
    net->layers = w->layers;
    net->blocks = processors * (h == 64 ? 2 : 1);
    memcpy(net->dilation, w->dilation, sizeof net->dilation);
    uint16_t *weight = (uint16_t *)malloc(entries * sizeof *weight);
    float *bias = (float *)malloc((size_t)((layers + 1) * h) * sizeof *bias);
    kac_status status = KAC_FAIL(KAC_ERR_NOMEM, "cnn1d: no memory to pack it");
    if (weight != NULL && bias != NULL) {
        for (int64_t i = 0; i < layers; i++) {
            repack(w->conv[i], w->hidden, w->kernel, weight + i * w->kernel * block);
            memcpy(bias + i * h, w->conv_bias[i], (size_t)h * sizeof *bias);
        }
        repack(w->final0, w->hidden, 1, weight + layers * w->kernel * block);
        memcpy(bias + layers * h, w->final0_bias, (size_t)h * sizeof *bias);
        net->bias = kac_cuda_floats(dev, bias, (layers + 1) * h, (layers + 1) * h);
        net->weight = (uint16_t *)dev->ops->memory.alloc(dev, entries * sizeof *weight);
        if (net->bias != NULL && net->weight != NULL)
            status =
                dev->ops->memory.upload(dev, net->weight, weight, entries * sizeof *weight);
    }
    free(weight);
    free(bias);
    return status;
}

void kac_cuda_resident_drop(kac_device *dev, kac_cuda_resident *net)
{
    dev->ops->memory.release(dev, net->weight);
    dev->ops->memory.release(dev, net->bias);
    *net = {};
}

/* ---- run ---------------------------------------------------------------------------------- */

bool kac_cuda_resident_fits(const kac_cuda_resident *net, int32_t length)
{
    return net->weight != NULL && length <= ROWS;
}

template <int C> static kac_status launch(kac_device *dev, const resident_call *a)
{
    auto *kernel = reside<C>;
    const int32_t blocks = (a->q.capacity + a->sequences - 1) / a->sequences;
    KAC_TRY(kac_allow_shared(kernel, sizeof(resident_memory<C>)));
    return KAC_LAUNCH(dev, kernel, (unsigned)blocks, THREADS<C>, sizeof(resident_memory<C>),
                      *a);
}

/* As many sequences a block as keep all multiprocessors busy. */
kac_status kac_cuda_resident_run(kac_device *dev, const kac_cuda_resident *net,
                                 const kac_query *q)
{
    const int32_t most = ROWS / q->length;
    const int32_t even = (q->capacity + net->blocks - 1) / net->blocks;
    const resident_call a = {*q, *net, even < 1 ? 1 : even < most ? even : most};
    if (q->capacity < 1) return KAC_OK;
    return net->hidden == 64 ? launch<64>(dev, &a) : launch<128>(dev, &a);
}
