/* cnn1d_resident_cuda.cu -- see cnn1d_resident.cuh.
 *
 * A block takes a few sequences, up to 208 rows (a row is a position of a sequence), from tokens
 * to logits.  Its residual stream, `feat`, stays in shared memory as float32, and so does what a
 * convolution reads, `h`, as bf16.  Rows of neighbouring positions lie a constant distance apart,
 * so a tap is the same tile of h some rows further on, and a tap outside the sequence is a row
 * outside h: zeros.
 *
 * The product is (channels x inputs) (inputs x rows), so that any number of rows costs no more
 * than its own.  One of two warpgroups has 64 channels of all rows; where there are no more, of
 * half the rows.  Weights go from memory to the registers of those who multiply with them, half
 * a tap ahead.  Bound by the tensor cores, and between layers by the norms.
 */
#include <stdlib.h>

#include "cnn1d_resident.cuh"
#include "group.cuh"

constexpr int ROWS = 2 * KAC_GROUP_COLS;
constexpr int PAD = ROWS + 1; /* zeros before a chunk of h; they follow the one before, too */
constexpr int CHUNK = PAD + ROWS; /* rows of a chunk of h: odd, so that banks differ */
constexpr int THREADS = 2 * KAC_GROUP;

struct resident_call {
    kac_query q;
    kac_cuda_resident net;
    int32_t sequences; /* of a block */
};

/* The shared memory of a block. */
template <int C> struct resident_memory {
    static constexpr int PITCH = C + 4; /* floats of a row of feat */
    float feat[ROWS * PITCH];
    uint16_t h[(C / 8 * CHUNK + PAD) * 8];
};

/* feat = relu(bias + weights of the tokens). */
template <int C> static __device__ void embed(const resident_call *a, resident_memory<C> *m)
{
    const int length = a->q.length, half = a->net.kernel / 2, tokens = a->net.states + 1;
    const int first = (int)blockIdx.x * a->sequences, last = kac_query_rows(&a->q) - 1;
    const float4 *weight = reinterpret_cast<const float4 *>(a->net.linear);
    const float4 *bias = reinterpret_cast<const float4 *>(a->net.linear_bias);
    for (int i = (int)threadIdx.x; i < a->sequences * length * (C / 4); i += THREADS) {
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

/* Eight sums over a warp at once: that of x[r] in lanes 4 r .. 4 r + 3.  With each exchange a
 * lane gives away the half of its sums that others go on with. */
static __device__ float sum_eight(float *x)
{
    const int lane = (int)threadIdx.x % KAC_WARP;
    KAC_UNROLL
    for (int by = 16, n = 4; n > 0; by /= 2, n /= 2) {
        KAC_UNROLL
        for (int i = 0; i < 4; i++) {
            if (i >= n) continue;
            const float give = lane & by ? x[i] : x[i + n], keep = lane & by ? x[i + n] : x[i];
            x[i] = keep + __shfl_xor_sync(KAC_WHOLE_WARP, give, by);
        }
    }
    x[0] += __shfl_xor_sync(KAC_WHOLE_WARP, x[0], 2);
    return x[0] + __shfl_xor_sync(KAC_WHOLE_WARP, x[0], 1);
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

/* h = LayerNorm(feat + shift) of a layer; before final0 h = feat.  A warp takes eight rows at
 * once, a lane neighbouring channels of each. */
template <int C>
static __device__ void normalise(const resident_call *a, resident_memory<C> *m, int layer)
{
    constexpr int N = C / KAC_WARP, AT_ONCE = 8;
    const int c = (int)threadIdx.x % KAC_WARP * N, rows = a->sequences * a->q.length;
    const bool norms = layer < a->net.layers;
    channels<C> shift = {}, gamma = {}, beta = {};
    if (norms) {
        shift = load<C>(a->net.shift + layer * C + c);
        gamma = load<C>(a->net.norm + layer * C + c);
        beta = load<C>(a->net.norm_bias + layer * C + c);
    }
    for (int row = (int)threadIdx.x / KAC_WARP * AT_ONCE; row < rows;
         row += THREADS / KAC_WARP * AT_ONCE) {
        channels<C> y[AT_ONCE];
        float sum[AT_ONCE];
        KAC_UNROLL
        for (int r = 0; r < AT_ONCE; r++) { /* rows beyond the last are there, and not used */
            y[r] = load<C>(m->feat + (row + r) * m->PITCH + c);
            sum[r] = 0;
            KAC_UNROLL
            for (int i = 0; i < N; i++) {
                y[r].x[i] += shift.x[i];
                sum[r] += y[r].x[i];
            }
        }
        if (norms) {
            const float mean = sum_eight(sum) * (1.0f / C);
            KAC_UNROLL
            for (int r = 0; r < AT_ONCE; r++) {
                const float of_row = __shfl_sync(KAC_WHOLE_WARP, mean, 4 * r);
                sum[r] = 0;
                KAC_UNROLL
                for (int i = 0; i < N; i++) {
                    y[r].x[i] -= of_row;
                    sum[r] = fmaf(y[r].x[i], y[r].x[i], sum[r]);
                }
            }
            const float scale = kac_rsqrt(fmaf(sum_eight(sum), 1.0f / C, 1e-5f));
            KAC_UNROLL
            for (int r = 0; r < AT_ONCE; r++) {
                const float of_row = __shfl_sync(KAC_WHOLE_WARP, scale, 4 * r);
                KAC_UNROLL
                for (int i = 0; i < N; i++)
                    y[r].x[i] = fmaf(y[r].x[i] * of_row, gamma.x[i], beta.x[i]);
            }
        }
        KAC_UNROLL
        for (int r = 0; r < AT_ONCE; r++)
            if (row + r < rows)
                store_bf16<C>(m->h + (c / 8 * CHUNK + PAD + row + r) * 8 + c % 8, y[r]);
    }
}

/* Rows between an output and the input that a tap of a layer reads. */
static __device__ int64_t shift_of(const resident_call *a, int layer, int tap)
{
    if (layer == a->net.layers) return 0; /* final0 */
    return (int64_t)(tap - a->net.kernel / 2) * a->net.dilation[layer] * a->sequences;
}

/* The first tap of the layer from `tap` on that reads some row for rows begin .. end - 1, or how
 * many there are. */
static __device__ int next_tap(const resident_call *a, int layer, int tap, int begin, int end)
{
    const int taps = layer < a->net.layers ? a->net.kernel : 1;
    const int rows = a->sequences * a->q.length, last = end < rows ? end : rows;
    for (; tap < taps; tap++) {
        const int64_t shift = shift_of(a, layer, tap);
        if (begin < last && begin + shift < rows && last + shift > 0) break;
    }
    return tap;
}

/* A thread's weights of half the channels that a tap reads. */
template <int C> struct half_tap {
    static constexpr int N = C / 32; /* products */
    uint4 w[N];
};

/* Those from channel half C / 2 on, for 16 output channels of a warp. */
template <int C>
static __device__ half_tap<C> weights_of(const resident_call *a, int layer, int tap, int half,
                                         int channel)
{
    const int64_t at = ((int64_t)layer * a->net.kernel + tap) * (C / 16) + half * (C / 32);
    const uint4 *from = reinterpret_cast<const uint4 *>(a->net.weight) +
                        (at * (C / 16) + channel / 16) * KAC_WARP + threadIdx.x % KAC_WARP;
    half_tap<C> to;
    KAC_UNROLL
    for (int k = 0; k < half_tap<C>::N; k++)
        to.w[k] = from[k * (C / 16) * KAC_WARP];
    return to;
}

/* Starts sum += weights of half a tap times h. */
template <int C, int COLS>
static __device__ void multiply(float *sum, const half_tap<C> &w, kac_shared_tile h)
{
    kac_group_begin();
    KAC_UNROLL
    for (int k = 0; k < half_tap<C>::N; k++)
        kac_group_mma<COLS>(sum, w.w[k], kac_tile_move(h, 2 * k * CHUNK));
    kac_group_commit();
}

/* feat += relu(bias + convolution of h); of final0 feat = that. */
template <int C>
static __device__ void convolve(const resident_call *a, resident_memory<C> *m, int layer)
{
    constexpr int COLS = C / 64 * KAC_GROUP_COLS, SUMS = COLS / 2; /* rows of a warpgroup */
    const int group = (int)threadIdx.x / KAC_GROUP, lane = (int)threadIdx.x % KAC_WARP;
    const int first = C == 64 ? group * COLS : 0;
    const int channel = (C == 64 ? 0 : group * 64) + (int)threadIdx.x / KAC_WARP % 4 * 16;
    const int mine = channel + lane / 4;
    const float bias[2] = {a->net.bias[layer * C + mine], a->net.bias[layer * C + mine + 8]};
    const kac_shared_tile h = kac_tile_at(m->h + (PAD + first) * 8, CHUNK);
    float sum[SUMS];
    KAC_UNROLL
    for (int i = 0; i < SUMS; i++)
        sum[i] = bias[i / 2 % 2];

    const int taps = layer < a->net.layers ? a->net.kernel : 1;
    int tap = next_tap(a, layer, 0, first, first + COLS);
    if (tap == taps) return; /* no row of this warpgroup's is there */
    half_tap<C> low = weights_of<C>(a, layer, tap, 0, channel);
    while (true) {
        const kac_shared_tile x = kac_tile_move(h, (int)shift_of(a, layer, tap));
        multiply<C, COLS>(sum, low, x);
        kac_group_wait<1>(); /* what was read from high */
        const half_tap<C> high = weights_of<C>(a, layer, tap, 1, channel);
        multiply<C, COLS>(sum, high, kac_tile_move(x, C / 16 * CHUNK));
        tap = next_tap(a, layer, tap + 1, first, first + COLS);
        if (tap == taps) break;
        kac_group_wait<1>(); /* from low */
        low = weights_of<C>(a, layer, tap, 0, channel);
    }
    kac_group_wait<0>();
    kac_group_keep<SUMS>(sum);

    KAC_UNROLL
    for (int i = 0; i < SUMS; i++) {
        const int row = first + i / 4 * 8 + lane % 4 * 2 + i % 2;
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
    for (int row = (int)threadIdx.x; row < a->sequences * a->q.length; row += THREADS) {
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

/* Registers a thread: of 128 channels one block fits into a multiprocessor, of 64 two. */
template <int C>
KAC_KERNEL __launch_bounds__(THREADS, C == 128 ? 1 : 2) reside(KAC_ARGS resident_call a)
{
    KAC_DYNAMIC_SHARED(resident_memory<C>, m);
    if ((int)blockIdx.x * a.sequences >= kac_query_rows(&a.q)) return;
    for (int i = (int)threadIdx.x; i < (C / 8 * CHUNK + PAD) * 4; i += THREADS)
        reinterpret_cast<uint32_t *>(m->h)[i] = 0;
    embed<C>(&a, m);
    __syncthreads();
    for (int layer = 0; layer <= a.net.layers; layer++) {
        normalise<C>(&a, m, layer);
        kac_shared_publish();
        __syncthreads();
        convolve<C>(&a, m, layer);
        __syncthreads();
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

/* A layer's weight [out][in][taps] of h by h channels, in the order of kac_group_mma's lanes. */
static void repack(const float *weight, int32_t h, int32_t taps, uint16_t *out)
{
    for (int64_t k = 0; k < taps; k++)
        for (int64_t c = 0; c < h; c++)
            for (int64_t o = 0; o < h; o++) {
                const int64_t lane = o % 8 * 4 + c % 8 / 2, word = c % 16 / 8 * 2 + o % 16 / 8;
                const int64_t tile = (k * (h / 16) + c / 16) * (h / 16) + o / 16;
                out[((tile * KAC_WARP + lane) * 4 + word) * 2 + c % 2] =
                    bf16_of(weight[(o * h + c) * taps + k]);
            }
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
    return KAC_LAUNCH(dev, kernel, (unsigned)blocks, THREADS, sizeof(resident_memory<C>), *a);
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
