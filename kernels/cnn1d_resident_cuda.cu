/* cnn1d_resident_cuda.cu -- see cnn1d_resident.cuh.
 *
 * A block takes a few sequences from tokens to logits.  The residual stream stays in shared memory
 * as float32, each thread's own part of it, and so does what a convolution reads, as bf16
 * (group_conv.cuh): a thread goes from the sums of a convolution to what the next one reads in its
 * registers, and only sums over channels pass between threads.  Bound by the tensor cores.
 */
#include "cnn1d_resident.cuh"

#include "group_conv.cuh"

struct resident_call {
    kac_query q;
    kac_cuda_resident net;
    int32_t sequences; /* of a block */
};

/* The shared memory of a block. */
template <int C> struct resident_memory : group_input<C> {
    static constexpr int SUMS = group_part<C>::SUMS;
    static constexpr int WARPS = C / 16; /* that have channels of the same rows */
    static constexpr int PITCH = C + 4;
    float4 feat[SUMS / 4][GROUP_THREADS];
    float2 norm[WARPS / 2][GROUP_ROWS]; /* sums over channels, then what to multiply and add */

    /* [GROUP_ROWS][PITCH] in the place of h. */
    __device__ float *rows()
    {
        static_assert(sizeof(float) * GROUP_ROWS * PITCH <= sizeof this->h, "in its place");
        return reinterpret_cast<float *>(this->h);
    }
};

/* A thread's part of the rows: what it has at 4 j + 2 k + i is of row row + 8 j + i and channel
 * channel + 8 k, as group_accumulate gives it. */
struct resident_part {
    int row, channel;
};
template <int C> static __device__ resident_part part_of(const group_part<C> *p)
{
    const int lane = (int)threadIdx.x % KAC_WARP;
    return {p->begin + lane % 4 * 2, p->channel + lane / 4};
}

/* rows = relu(bias + weights of the tokens). */
template <int C> static __device__ void embed(const resident_call *a, resident_memory<C> *m)
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
        *reinterpret_cast<float4 *>(m->rows() + row * m->PITCH + 4 * c) = {
            kac_relu(sum.x), kac_relu(sum.y), kac_relu(sum.z), kac_relu(sum.w)};
    }
}

/* Sums of x[r] over the eight lanes of equal lane % 4, that of x[r] in those with lane / 4 = r.
 * With each exchange a lane gives away the half of its sums that others go on with. */
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
    return x[0];
}

/* norm[0] of each row = 1 / deviation of feat + shift over the channels, - mean / deviation.  By
 * the block; with sums of squares, since what is normalised has bf16's 8 bits in the end. */
template <int C>
static __device__ void find_norms(resident_memory<C> *m, const resident_part *on,
                                  const float *feat, const float *shift)
{
    constexpr int TILES = m->SUMS / 4, AT_ONCE = 4, HALF = m->WARPS / 2;
    const int lane = (int)threadIdx.x % KAC_WARP, warp = on->channel / 16;
    float2 mine[(TILES + AT_ONCE - 1) / AT_ONCE]; /* sums over the warp's channels */
    KAC_UNROLL
    for (int t = 0; t < TILES; t += AT_ONCE) {
        float sum[2 * AT_ONCE], square[2 * AT_ONCE];
        KAC_UNROLL
        for (int r = 0; r < 2 * AT_ONCE; r++) {
            const int j = t + r / 2;
            sum[r] = square[r] = 0;
            if (j >= TILES) continue;
            const float x = feat[4 * j + r % 2] + shift[0],
                        y = feat[4 * j + 2 + r % 2] + shift[1];
            sum[r] = x + y;
            square[r] = fmaf(x, x, y * y);
        }
        mine[t / AT_ONCE] = {sum_eight(sum), sum_eight(square)};
    }
    const int first = on->row + lane / 8 * 8 + lane / 4 % 2;
    auto each = [&](auto &&keep) {
        KAC_UNROLL
        for (int t = 0; t < TILES; t += AT_ONCE)
            if (t + lane / 8 < TILES)
                keep(m->norm[warp % HALF][first + 8 * t], mine[t / AT_ONCE]);
    };
    if (warp < HALF) each([](float2 &to, float2 x) { to = x; });
    __syncthreads();
    if (warp >= HALF) each([](float2 &to, float2 x) { to = {to.x + x.x, to.y + x.y}; });
    __syncthreads();
    for (int row = (int)threadIdx.x; row < GROUP_ROWS; row += GROUP_THREADS) {
        float2 all = {0, 0};
        KAC_UNROLL
        for (int w = 0; w < HALF; w++)
            all = {all.x + m->norm[w][row].x, all.y + m->norm[w][row].y};
        const float mean = all.x * (1.0f / C), variance = fmaf(all.y, 1.0f / C, -mean * mean);
        const float scale = kac_rsqrt(kac_relu(variance) + 1e-5f);
        m->norm[0][row] = {scale, -mean * scale};
    }
    __syncthreads();
}

/* Halves of a pair of rows of which only the first `left` are there, the others 0. */
static __device__ uint32_t first_of(uint32_t pair, int left)
{
    return left > 1 ? pair : left == 1 ? pair & 0xffff : 0;
}

/* h = value(feat, its place) in the rows that are there, else 0. */
template <int C, class Value>
static __device__ void spread(group_input<C> *m, const resident_part *on, int rows,
                              const float *feat, Value value)
{
    constexpr int TILES = group_part<C>::SUMS / 4;
    const int lane = (int)threadIdx.x % KAC_WARP;
    uint16_t *to = group_at(m, on->row - lane % 4 * 2 + lane / 16 * 8 + lane % 8,
                            on->channel - lane / 4 + lane / 8 % 2 * 8);
    KAC_UNROLL
    for (int j = 0; j < TILES; j += 2) {
        uint32_t pair[4];
        KAC_UNROLL
        for (int t = 0; t < 2; t++) {
            if (j + t >= TILES) continue;
            float x[4];
            value(j + t, feat + 4 * (j + t), x);
            pair[2 * t] = kac_bf16_pair(x[0], x[1]);
            pair[2 * t + 1] = kac_bf16_pair(x[2], x[3]);
            const int left = rows - on->row - 8 * (j + t);
            if (left >= 2) continue;
            pair[2 * t] = first_of(pair[2 * t], left);
            pair[2 * t + 1] = first_of(pair[2 * t + 1], left);
        }
        if (j + 1 < TILES)
            kac_store_columns<4>(to + 8 * j * 8, pair);
        else
            kac_store_columns<2>(to + 8 * j * 8, pair);
    }
}

/* h = LayerNorm(feat + shift) of a layer; before final0 h = feat.  By the block. */
template <int C>
static __device__ void normalise(const resident_call *a, resident_memory<C> *m,
                                 const resident_part *on, const float *feat, int layer)
{
    const int rows = a->sequences * a->q.length;
    if (layer == a->net.layers) {
        __syncthreads(); /* h is no longer read */
        spread<C>(m, on, rows, feat, [](int, const float *from, float *x) {
            KAC_UNROLL
            for (int i = 0; i < 4; i++)
                x[i] = from[i];
        });
        return;
    }
    float shift[2], gamma[2], beta[2];
    KAC_UNROLL
    for (int k = 0; k < 2; k++) {
        const int c = layer * C + on->channel + 8 * k;
        shift[k] = a->net.shift[c];
        gamma[k] = a->net.norm[c];
        beta[k] = a->net.norm_bias[c];
    }
    find_norms<C>(m, on, feat, shift);
    const float2 *norm = m->norm[0] + on->row;
    spread<C>(m, on, rows, feat, [&](int j, const float *from, float *x) {
        const float4 of = *reinterpret_cast<const float4 *>(norm + 8 * j);
        KAC_UNROLL
        for (int k = 0; k < 2; k++) {
            const float y = from[2 * k] + shift[k], z = from[2 * k + 1] + shift[k];
            x[2 * k] = fmaf(fmaf(y, of.x, of.y), gamma[k], beta[k]);
            x[2 * k + 1] = fmaf(fmaf(z, of.z, of.w), gamma[k], beta[k]);
        }
    });
}

/* Of layer `layers`: final0. */
static __device__ group_layer layer_of(const resident_call *a, int layer)
{
    const bool last = layer == a->net.layers;
    const int64_t step = last ? 0 : (int64_t)a->net.dilation[layer] * a->sequences;
    return {a->net.weight[layer],       a->net.bias[layer],          last ? 1 : a->net.kernel,
            a->sequences * a->q.length, -(a->net.kernel / 2) * step, step};
}

/* sum = relu(sum), and with `adds` feat += that. */
template <int C> static __device__ void settle(resident_memory<C> *m, float *sum, bool adds)
{
    KAC_UNROLL
    for (int j = 0; j < m->SUMS / 4; j++) {
        float4 *feat = &m->feat[j][threadIdx.x], old = {};
        float *x = sum + 4 * j;
        if (adds) old = *feat;
        x[0] = kac_relu(x[0]) + old.x;
        x[1] = kac_relu(x[1]) + old.y;
        x[2] = kac_relu(x[2]) + old.z;
        x[3] = kac_relu(x[3]) + old.w;
        if (adds) *feat = {x[0], x[1], x[2], x[3]};
    }
}

/* each(row of rows, what the thread has of it) for all that it has. */
template <int C, class Each>
static __device__ void with_rows(resident_memory<C> *m, const resident_part *on, float *feat,
                                 Each each)
{
    float *at = m->rows() + on->row * m->PITCH + on->channel;
    KAC_UNROLL
    for (int i = 0; i < m->SUMS; i++)
        each(at[(i / 4 * 8 + i % 2) * m->PITCH + i / 2 % 2 * 8], feat[i]);
}

/* The logits of rows. */
template <int C> static __device__ void answer(const resident_call *a, resident_memory<C> *m)
{
    const int first = (int)blockIdx.x * a->sequences, states = a->net.states;
    const int step = a->net.final2.step, left = kac_query_rows(&a->q) - first;
    for (int row = (int)threadIdx.x; row < a->sequences * a->q.length; row += GROUP_THREADS) {
        const int l = row / a->sequences, b = row % a->sequences;
        const float *x = m->rows() + row * m->PITCH;
        if (b >= left) continue;
        float *out = kac_query_out(&a->q, first + b) + l * states;
        for (int s = 0; s < states; s += 4) {
            float4 y = *reinterpret_cast<const float4 *>(a->net.final2.bias + s);
            for (int c = 0; c < C; c += 4) {
                const float4 of = *reinterpret_cast<const float4 *>(x + c);
                const float four[4] = {of.x, of.y, of.z, of.w};
                KAC_UNROLL
                for (int i = 0; i < 4; i++) {
                    const float4 w = *reinterpret_cast<const float4 *>(a->net.final2.weight +
                                                                       (c + i) * step + s);
                    y = {fmaf(four[i], w.x, y.x), fmaf(four[i], w.y, y.y),
                         fmaf(four[i], w.z, y.z), fmaf(four[i], w.w, y.w)};
                }
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
    KAC_DYNAMIC_SHARED(resident_memory<C>, m);
    if ((int)blockIdx.x * a.sequences >= kac_query_rows(&a.q)) return;
    group_layer it = layer_of(&a, 0);
    group_part<C> part = group_open<C>(&it);
    const resident_part on = part_of<C>(&part);
    float feat[group_part<C>::SUMS];
    embed<C>(&a, m);
    __syncthreads();
    with_rows<C>(m, &on, feat, [](float x, float &own) { own = x; });
    KAC_UNROLL
    for (int j = 0; j < m->SUMS / 4; j++)
        m->feat[j][threadIdx.x] = {feat[4 * j], feat[4 * j + 1], feat[4 * j + 2],
                                   feat[4 * j + 3]};
    __syncthreads();
    group_clear<C>(m);
    for (int layer = 0;; layer++) {
        normalise<C>(&a, m, &on, feat, layer);
        kac_shared_publish();
        __syncthreads();
        group_accumulate<C>(&it, m, &part, feat);
        settle<C>(m, feat, layer < a.net.layers);
        if (layer == a.net.layers) break;
        it = layer_of(&a, layer + 1);
        part = group_open<C>(&it);
    }
    __syncthreads();
    with_rows<C>(m, &on, feat, [](float &x, float own) { x = own; });
    __syncthreads();
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
    KAC_TRY(kac_allow_shared(kernel, sizeof(resident_memory<C>)));
    return KAC_LAUNCH(dev, kernel, (unsigned)blocks, GROUP_THREADS, sizeof(resident_memory<C>),
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
