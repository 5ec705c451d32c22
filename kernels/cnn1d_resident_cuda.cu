/* cnn1d_resident_cuda.cu -- see cnn1d_resident.cuh.
 *
 * A block takes a few sequences from tokens to logits.  Each thread keeps its own part of the
 * residual stream as float32, in registers and in shared memory, where what a convolution reads
 * lies as bf16 (group_conv.cuh).  From the sums of a convolution to what the next one reads a
 * thread goes in its registers; only sums over channels pass between threads.  Bound by the
 * tensor cores.
 */
#include "cnn1d_resident.cuh"

#include "group_conv.cuh"

struct resident_call {
    kac_query q;
    int32_t sequences; /* of a block */
    int32_t blocks;    /* that the device has at once */
    int32_t states, kernel, layers;
    kac_cuda_conv linear, final2;
    const float *norm, *norm_bias, *shift;       /* [layers][C] */
    group_layer layer[KAC_CNN1D_MAX_LAYERS + 1]; /* the last is final0 */
};

/* The shared memory of a block. */
template <int C, int ROWS> struct resident_memory : group_input<C, ROWS> {
    using shape = group_shape<C, ROWS>;
    static constexpr int WARPS = C / (16 * shape::PARTS); /* that share rows */
    /* Of a thread's SUMS / 4 float4 of the residual stream so many are in its registers. */
    static constexpr int KEPT = C == 64 && ROWS == KAC_GROUP_COLS ? 0
                                : shape::PARTS == 2               ? 8
                                                                  : 16;
    float4 feat[shape::SUMS / 4 - KEPT][shape::THREADS];
    float2 norm[WARPS / 2][ROWS]; /* sums over channels, then what to multiply and add */

    /* [ROWS][PITCH] in the place of h. */
    __device__ float *rows()
    {
        static_assert(sizeof(float) * ROWS * shape::PITCH <= sizeof this->h, "in its place");
        return reinterpret_cast<float *>(this->h);
    }
};

/* Weights, or where they fit their copy in the place of feat, which is there after a
 * barrier. */
template <int C, int ROWS>
static __device__ const float4 *near(resident_memory<C, ROWS> *m, const float *weight,
                                     int count)
{
    const float4 *from = reinterpret_cast<const float4 *>(weight);
    if (count > (int)(sizeof m->feat / sizeof(float))) return from;
    for (int i = (int)threadIdx.x; i < count / 4; i += m->THREADS)
        (&m->feat[0][0])[i] = from[i];
    return &m->feat[0][0];
}

/* rows = relu(bias + weights of the tokens). */
template <int C, int ROWS>
static __device__ void embed(const resident_call *a, resident_memory<C, ROWS> *m)
{
    uint8_t *token = reinterpret_cast<uint8_t *>(m->norm);
    const int first = (int)blockIdx.x * a->sequences, last = kac_query_rows(&a->q) - 1;
    const int rows = a->sequences * a->q.length, tokens = a->states + 1, half = a->kernel / 2;
    const int c = (int)threadIdx.x % (C / 4);
    const float4 *weight = near(m, a->linear.weight, a->kernel * tokens * C) + c;
    const float4 bias = reinterpret_cast<const float4 *>(a->linear.bias)[c];
    for (int row = (int)threadIdx.x; row < rows; row += m->THREADS) {
        const int b = first + row % a->sequences;
        token[row] = kac_query_tokens(&a->q, b < last ? b : last)[row / a->sequences];
    }
    __syncthreads();
    for (int row = (int)threadIdx.x / (C / 4); row < rows; row += m->THREADS / (C / 4)) {
        const int l = row / a->sequences - half, first_tap = l < 0 ? -l : 0;
        const int end = a->q.length - l < a->kernel ? a->q.length - l : a->kernel;
        const uint8_t *x = token + row + (first_tap - half) * a->sequences;
        const float4 *of = weight + first_tap * tokens * (C / 4);
        float4 sum = bias;
        for (int k = first_tap; k < end; k++) {
            const float4 y = of[*x * (C / 4)];
            sum = {sum.x + y.x, sum.y + y.y, sum.z + y.z, sum.w + y.w};
            x += a->sequences;
            of += tokens * (C / 4);
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

/* norm[0] of each row = 1 / deviation of x over the channels, - mean / deviation.  By the
 * block; with sums of squares, of which bf16's 8 bits are right up to means of 100
 * deviations. */
template <int C, int ROWS>
static __device__ void find_norms(resident_memory<C, ROWS> *m, const group_part<C, ROWS> *p,
                                  const float *x)
{
    constexpr int TILES = m->TILES, AT_ONCE = 4, HALF = m->WARPS / 2;
    const int lane = (int)threadIdx.x % KAC_WARP, warp = (int)threadIdx.x / KAC_WARP;
    float2 mine[(TILES + AT_ONCE - 1) / AT_ONCE]; /* sums over the warp's channels */
    KAC_UNROLL
    for (int t = 0; t < TILES; t += AT_ONCE) {
        float sum[2 * AT_ONCE] = {}, square[2 * AT_ONCE] = {};
        KAC_UNROLL
        for (int r = 0; r < 2 * AT_ONCE * m->PARTS; r++) {
            const int i = r % (2 * AT_ONCE), j = r / (2 * AT_ONCE) * TILES + t + i / 2;
            if (t + i / 2 >= TILES) continue;
            const float one = x[4 * j + i % 2], two = x[4 * j + 2 + i % 2];
            sum[i] += one + two;
            square[i] = fmaf(one, one, fmaf(two, two, square[i]));
        }
        mine[t / AT_ONCE] = {sum_eight(sum), sum_eight(square)};
    }
    float2 *to = &m->norm[warp % HALF][p->row + lane / 8 * 8 + lane / 4 % 2];
    auto each = [&](auto &&keep) {
        KAC_UNROLL
        for (int t = 0; t < TILES; t += AT_ONCE)
            if (t + lane / 8 < TILES) keep(to[8 * t], mine[t / AT_ONCE]);
    };
    if (warp < HALF) each([](float2 &all, float2 own) { all = own; });
    __syncthreads();
    if (warp >= HALF)
        each([](float2 &all, float2 own) { all = {all.x + own.x, all.y + own.y}; });
    __syncthreads();
    for (int row = (int)threadIdx.x; row < ROWS; row += m->THREADS) {
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

/* norm[0] of each row = 1, 0.  By the block. */
template <int C, int ROWS> static __device__ void pass_norms(resident_memory<C, ROWS> *m)
{
    __syncthreads(); /* the last layer's are no longer read, and neither is h */
    for (int row = (int)threadIdx.x; row < ROWS; row += m->THREADS)
        m->norm[0][row] = {1, 0};
    __syncthreads();
}

/* h = gamma (x norm + what to add) + beta, in rows that are not there 0. */
template <int C, int ROWS>
static __device__ void spread(resident_memory<C, ROWS> *m, const group_part<C, ROWS> *p,
                              int rows, const float *x, const float *gamma, const float *beta)
{
    constexpr int TILES = m->TILES;
    const int lane = (int)threadIdx.x % KAC_WARP, channel = p->channel - lane / 4;
    const float2 *norms = m->norm[0] + p->row;
    auto norm_of = [=](int j) {
        return *reinterpret_cast<const float4 *>(norms + 8 * (j < TILES ? j : 0));
    };
    KAC_UNROLL
    for (int part = 0; part < m->PARTS; part++, x += 4 * TILES) {
        const int c = channel + part * 64;
        uint16_t *to = m->at(lane / 16 * 8 + lane % 8, c + lane / 8 % 2 * 8);
        float4 norm[2] = {norm_of(0), norm_of(1)};
        KAC_UNROLL
        for (int j = 0; j < TILES; j += 2) {
            const float4 next[2] = {norm_of(j + 2), norm_of(j + 3)}; /* before what is stored */
            uint32_t pair[4];
            KAC_UNROLL
            for (int i = 0; i < 4; i++) {
                const int t = i / 2, k = i % 2, kind = 2 * part + k;
                if (j + t >= TILES) continue;
                const float *from = x + 4 * (j + t) + 2 * k;
                const float one = fmaf(from[0], norm[t].x, norm[t].y);
                const float two = fmaf(from[1], norm[t].z, norm[t].w);
                pair[i] = kac_bf16_pair(fmaf(one, gamma[kind], beta[kind]),
                                        fmaf(two, gamma[kind], beta[kind]));
            }
            if (j + 1 < TILES)
                kac_store_columns<4>(to + 8 * j * 8, pair);
            else
                kac_store_columns<2>(to + 8 * j * 8, pair);
            norm[0] = next[0];
            norm[1] = next[1];
        }
        __syncwarp();
        for (int i = lane; i < 2 * (ROWS - rows); i += KAC_WARP)
            *reinterpret_cast<uint4 *>(m->at(rows + i / 2, c + i % 2 * 8)) = {};
    }
}

/* h = LayerNorm(x + shift) of a layer, before final0 h = x; x is lost.  By the block. */
template <int C, int ROWS>
static __device__ void normalise(const resident_call *a, resident_memory<C, ROWS> *m,
                                 const group_part<C, ROWS> *p, float *x, int layer)
{
    constexpr int KINDS = 2 * m->PARTS;
    float gamma[KINDS], beta[KINDS];
    KAC_UNROLL
    for (int k = 0; k < KINDS; k++) {
        gamma[k] = 1;
        beta[k] = 0;
    }
    if (layer == a->layers) {
        pass_norms<C, ROWS>(m);
    } else {
        float shift[KINDS];
        KAC_UNROLL
        for (int k = 0; k < KINDS; k++) {
            const int c = layer * C + p->channel + k % 2 * 8 + k / 2 * 64;
            shift[k] = a->shift[c];
            gamma[k] = a->norm[c];
            beta[k] = a->norm_bias[c];
        }
        KAC_UNROLL
        for (int i = 0; i < m->SUMS; i++)
            x[i] += shift[i / (m->SUMS / m->PARTS) * 2 + i / 2 % 2];
        find_norms<C, ROWS>(m, p, x);
    }
    spread<C, ROWS>(m, p, a->sequences * a->q.length, x, gamma, beta);
}

/* x = the residual stream += relu(x). */
template <int C, int ROWS>
static __device__ void settle(resident_memory<C, ROWS> *m, float4 *kept, float *x)
{
    KAC_UNROLL
    for (int j = 0; j < m->SUMS / 4; j++, x += 4) {
        float4 *feat = j < m->KEPT ? &kept[j] : &m->feat[j - m->KEPT][threadIdx.x];
        const float4 old = *feat;
        x[0] = kac_relu(x[0]) + old.x;
        x[1] = kac_relu(x[1]) + old.y;
        x[2] = kac_relu(x[2]) + old.z;
        x[3] = kac_relu(x[3]) + old.w;
        *feat = {x[0], x[1], x[2], x[3]};
    }
}

/* The logits of rows, by final2's weights [C][step]. */
template <int C, int ROWS>
static __device__ void answer(const resident_call *a, resident_memory<C, ROWS> *m,
                              const float4 *weight)
{
    const int first = (int)blockIdx.x * a->sequences, states = a->states;
    const int step = a->final2.step / 4, left = kac_query_rows(&a->q) - first;
    for (int row = (int)threadIdx.x; row < a->sequences * a->q.length; row += m->THREADS) {
        const int l = row / a->sequences, b = row % a->sequences;
        const float *x = m->rows() + row * m->PITCH;
        if (b >= left) continue;
        float *out = kac_query_out(&a->q, first + b) + l * states;
        for (int s = 0; s < step; s++) {
            float4 y = reinterpret_cast<const float4 *>(a->final2.bias)[s];
            for (int c = 0; c < C; c += 4) {
                const float4 of = *reinterpret_cast<const float4 *>(x + c);
                const float four[4] = {of.x, of.y, of.z, of.w};
                KAC_UNROLL
                for (int i = 0; i < 4; i++) {
                    const float4 w = weight[(c + i) * step + s];
                    y = {fmaf(four[i], w.x, y.x), fmaf(four[i], w.y, y.y),
                         fmaf(four[i], w.z, y.z), fmaf(four[i], w.w, y.w)};
                }
            }
            const float z[4] = {y.x, y.y, y.z, y.w};
            KAC_UNROLL
            for (int i = 0; i < 4; i++)
                if (4 * s + i < states) out[4 * s + i] = z[i];
        }
    }
}

/* Of the blocks that the device has at first, which share multiprocessors, each waits until its
 * neighbours before it have multiplied once, so that they do not all normalise together. */
template <int C, int ROWS> static __device__ void stagger(const resident_call *a)
{
    constexpr int CYCLES = C * C * ROWS / 2048; /* of a tap */
    const int32_t block = (int32_t)blockIdx.x;
    if (block < a->blocks)
        KAC_PAUSE(block / (a->blocks / group_shape<C, ROWS>::BLOCKS) * a->layer[0].taps *
                  CYCLES);
}

template <int C, int ROWS>
KAC_KERNEL __launch_bounds__(group_shape<C, ROWS>::THREADS, group_shape<C, ROWS>::BLOCKS)
    reside(KAC_ARGS resident_call a)
{
    using memory = resident_memory<C, ROWS>;
    KAC_DYNAMIC_SHARED(memory, m);
    if ((int)blockIdx.x * a.sequences >= kac_query_rows(&a.q)) return;
    stagger<C, ROWS>(&a);
    group_part<C, ROWS> part = group_open<C, ROWS>(&a.layer[0]);
    float x[memory::SUMS];
    float4 kept[memory::KEPT + 1];
    embed<C, ROWS>(&a, m);
    __syncthreads();
    group_each<C, ROWS>(&part, x, [=](int row, int channel, float &own) {
        own = m->rows()[row * m->PITCH + channel];
    });
    KAC_UNROLL
    for (int j = 0; j < m->SUMS / 4; j++)
        (j < m->KEPT ? kept[j] : m->feat[j - m->KEPT][threadIdx.x]) = {
            x[4 * j], x[4 * j + 1], x[4 * j + 2], x[4 * j + 3]};
    __syncthreads();
    m->clear();
    for (int layer = 0;; layer++) {
        const group_layer *it = &a.layer[layer];
        const bool last = layer == a.layers;
        part.fetch_bias(it);
        normalise<C, ROWS>(&a, m, &part, x, layer);
        kac_shared_publish();
        __syncthreads();
        group_accumulate<C, ROWS>(it, last ? it : it + 1, m, &part, x);
        if (last) break;
        settle<C, ROWS>(m, kept, x);
    }
    __syncthreads();
    group_each<C, ROWS>(&part, x, [=](int row, int channel, float own) {
        m->rows()[row * m->PITCH + channel] = kac_relu(own);
    });
    const float4 *weight = near(m, a.final2.weight, C * a.final2.step);
    __syncthreads();
    answer<C, ROWS>(&a, m, weight);
}

/* ---- run ---------------------------------------------------------------------------------- */

bool kac_cuda_resident_fits(const kac_cuda_resident *net, int32_t length)
{
    for (int32_t i = 0; i <= net->layers; i++)
        if (net->weight[i] == NULL) return false;
    return length <= GROUP_MOST_ROWS;
}

template <int C, int ROWS>
static kac_status launch(kac_device *dev, const kac_cuda_resident *net, const kac_query *q)
{
    using memory = resident_memory<C, ROWS>;
    const int32_t sequences = group_sequences<C, ROWS>(dev, q->length, q->capacity);
    resident_call a = {*q,
                       sequences,
                       group_blocks<C, ROWS>(dev),
                       net->states,
                       net->kernel,
                       net->layers,
                       net->linear,
                       net->final2,
                       net->norm,
                       net->norm_bias,
                       net->shift,
                       {}};
    for (int32_t i = 0; i <= net->layers; i++) {
        const int32_t taps = i == net->layers ? 1 : net->kernel;
        const int64_t step = i == net->layers ? 0 : (int64_t)net->dilation[i] * sequences;
        a.layer[i] = group_layer_of(net->weight[i], net->bias[i], C, sequences * q->length,
                                    taps, -(net->kernel / 2) * step, step);
    }
    auto *kernel = reside<C, ROWS>;
    const int32_t blocks = (q->capacity + sequences - 1) / sequences;
    KAC_TRY(kac_allow_shared(kernel, sizeof(memory)));
    return KAC_LAUNCH(dev, kernel, (unsigned)blocks, (unsigned)memory::THREADS, sizeof(memory),
                      a);
}

kac_status kac_cuda_resident_run(kac_device *dev, const kac_cuda_resident *net,
                                 const kac_query *q)
{
    if (q->capacity < 1) return KAC_OK;
    return group_choose(net->hidden, q->length,
                        [&]<int C, int ROWS>() { return launch<C, ROWS>(dev, net, q); });
}
