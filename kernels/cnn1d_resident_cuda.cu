/* cnn1d_resident_cuda.cu -- see cnn1d_resident.cuh.
 *
 * A block takes a few sequences from tokens to logits: the residual stream stays in shared memory
 * as float32, and so does what a convolution reads, as bf16 (group_conv.cuh).  Bound by the
 * tensor cores, and between layers by the norms.
 */
#include "cnn1d_resident.cuh"

#include "group_conv.cuh"

struct resident_call {
    kac_query q;
    kac_cuda_resident net;
    int32_t sequences; /* of a block */
};

/* feat = relu(bias + weights of the tokens). */
template <int C> static __device__ void embed(const resident_call *a, group_memory<C> *m)
{
    const int length = a->q.length, half = a->net.kernel / 2, tokens = a->net.states + 1;
    const int first = (int)blockIdx.x * a->sequences, last = kac_query_rows(&a->q) - 1;
    const float4 *weight = reinterpret_cast<const float4 *>(a->net.linear.weight);
    const float4 *bias = reinterpret_cast<const float4 *>(a->net.linear.bias);
    for (int i = (int)threadIdx.x; i < a->sequences * length * (C / 4); i += GROUP_THREADS) {
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
            kac_relu(sum.x), kac_relu(sum.y), kac_relu(sum.z), kac_relu(sum.w)};
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
static __device__ void normalise(const resident_call *a, group_memory<C> *m, int layer)
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
         row += GROUP_THREADS / KAC_WARP * AT_ONCE) {
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
            if (row + r < rows) store_bf16<C>(group_at(m, row + r, c), y[r]);
    }
}

/* Of layer `layers`: final0. */
static __device__ group_layer layer_of(const resident_call *a, int layer)
{
    const bool last = layer == a->net.layers;
    const int64_t step = last ? 0 : (int64_t)a->net.dilation[layer] * a->sequences;
    return {a->net.weight[layer],       a->net.bias[layer],          last ? 1 : a->net.kernel,
            a->sequences * a->q.length, -(a->net.kernel / 2) * step, step};
}

/* feat += relu(bias + convolution of h); without `adds` feat = that. */
template <int C>
static __device__ void convolve(const group_layer *a, group_memory<C> *m, group_part<C> *part,
                                bool adds)
{
    float *feat = m->feat;
    group_convolve<C>(a, m, part, [=](int row, int channel, float sum) {
        float *x = feat + row * group_memory<C>::PITCH + channel;
        *x = kac_relu(sum) + (adds ? *x : 0.0f);
    });
}

/* The logits of feat. */
template <int C> static __device__ void answer(const resident_call *a, group_memory<C> *m)
{
    const int first = (int)blockIdx.x * a->sequences, states = a->net.states;
    const int step = a->net.final2.step, left = kac_query_rows(&a->q) - first;
    for (int row = (int)threadIdx.x; row < a->sequences * a->q.length; row += GROUP_THREADS) {
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

template <int C>
KAC_KERNEL __launch_bounds__(GROUP_THREADS, GROUP_BLOCKS<C>) reside(KAC_ARGS resident_call a)
{
    KAC_DYNAMIC_SHARED(group_memory<C>, m);
    if ((int)blockIdx.x * a.sequences >= kac_query_rows(&a.q)) return;
    group_clear<C>(m);
    embed<C>(&a, m);
    __syncthreads();
    for (int layer = 0; layer <= a.net.layers; layer++) {
        const group_layer it = layer_of(&a, layer);
        group_part<C> part = group_open<C>(&it);
        normalise<C>(&a, m, layer);
        kac_shared_publish();
        __syncthreads();
        convolve<C>(&it, m, &part, layer < a.net.layers);
        __syncthreads();
    }
    answer<C>(&a, m);
}

/* ---- run ---------------------------------------------------------------------------------- */

bool kac_cuda_resident_fits(const kac_cuda_resident *net, int32_t length)
{
    for (int32_t i = 0; i <= net->layers; i++)
        if (net->weight[i] == NULL) return false;
    return length <= GROUP_ROWS;
}

template <int C> static kac_status launch(kac_device *dev, const resident_call *a)
{
    auto *kernel = reside<C>;
    const int32_t blocks = (a->q.capacity + a->sequences - 1) / a->sequences;
    KAC_TRY(kac_allow_shared(kernel, sizeof(group_memory<C>)));
    return KAC_LAUNCH(dev, kernel, (unsigned)blocks, GROUP_THREADS, sizeof(group_memory<C>),
                      *a);
}

kac_status kac_cuda_resident_run(kac_device *dev, const kac_cuda_resident *net,
                                 const kac_query *q)
{
    if (q->capacity < 1) return KAC_OK;
    const resident_call a = {
        *q, *net, kac_cuda_group_sequences(dev, net->hidden, q->length, q->capacity)};
    return net->hidden == 64 ? launch<64>(dev, &a) : launch<128>(dev, &a);
}
