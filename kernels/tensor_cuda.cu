/* tensor_cuda.cu -- convolutions on the GPU's tensor cores, with rounded factors. */
#include "conv_cuda.cuh"

/* Bound by shared memory.  As convolve in layer_cuda.cu: a block computes 128 rows by 128
 * channels, slices of a tap go through two buffers, and rows of neighbouring positions follow
 * each other.  A slice is 8 words deep: 8 channels in tf32, 16 in pairs of bf16.  A warp has 32
 * rows and 64 channels, 2 x 8 products of a tensor core.  Rows whose tap lies outside the
 * sequence are zeros.  Strides of 8 more than a tile keep the lanes' banks apart. */
enum { TILE = 128, DEEP = 8, TILE_STRIDE = TILE + 8 };

/* Two values of a lane's column pair, or zeros beyond the row. */
static __device__ float2 bias_of(const conv_call *a, int o)
{
    if (a->conv.bias == NULL || o >= a->conv.step) return {};
    return {a->conv.bias[o], a->conv.bias[o + 1]};
}

template <bool PAIRS>
KAC_KERNEL __launch_bounds__(KAC_THREADS, 2) multiply(KAC_ARGS conv_call a)
{
    constexpr int CHANNELS = PAIRS ? 2 * DEEP : DEEP; /* of a slice */
    constexpr int LOADS = CHANNELS / 8;               /* float4 a thread, of each factor */
    constexpr int ROW_PARTS = CHANNELS / 4;           /* float4 of a row of a slice */
    KAC_SHARED(uint32_t, in_slice, 2 * DEEP * TILE_STRIDE);
    KAC_SHARED(uint32_t, w_slice, 2 * DEEP * TILE_STRIDE);
    KAC_SHARED(int32_t, position, TILE);

    const int32_t batch = kac_query_rows(&a.q), channels = a.conv.in;
    const int64_t rows = (int64_t)a.shape.out_length * batch, row = (int64_t)blockIdx.x * TILE;
    const int col = (int)blockIdx.y * TILE, me = (int)threadIdx.x;
    if (row >= rows) return;
    const int64_t first = row / batch; /* positions of the tile */
    const int64_t last = (row + TILE < rows ? row + TILE - 1 : rows - 1) / batch;
    if (me < TILE) position[me] = (int32_t)((row + me < rows ? row + me : rows - 1) / batch);

    const int lane = me % KAC_WARP, g = lane / 4, t = lane % 4;
    const int my_row = me / KAC_WARP / 2 * 32, my_col = me / KAC_WARP % 2 * 64;
    float sum[2][8][4];
    KAC_UNROLL
    for (int n = 0; n < 8; n++) {
        const float2 bias = bias_of(&a, col + my_col + n * 8 + 2 * t);
        KAC_UNROLL
        for (int m = 0; m < 2; m++) {
            sum[m][n][0] = sum[m][n][2] = bias.x;
            sum[m][n][1] = sum[m][n][3] = bias.y;
        }
    }
    __syncthreads();

    /* What is fetched next: channels c .. c + CHANNELS - 1 of a tap. */
    int32_t tap = -1, c = channels;
    float4 next_in[LOADS], next_w[LOADS];
    auto advance = [&]() {
        c += CHANNELS;
        if (c < channels) return true;
        c = 0;
        tap = live_tap(&a, tap + 1, first, last);
        return tap < a.conv.taps;
    };
    auto fetch = [&]() {
        const int32_t shift = (int32_t)shift_of(&a.shape, tap); /* some position + it is one */
        const int o = col + me % 32 * 4;
        KAC_UNROLL
        for (int n = 0; n < LOADS; n++) {
            const int r = (n * KAC_THREADS + me) / ROW_PARTS;
            const int from_c = c + me % ROW_PARTS * 4, w_c = c + me / 32 * LOADS + n;
            const int64_t at = (row + r < rows ? row + r : rows - 1) + (int64_t)shift * batch;
            const bool live = (uint32_t)(position[r] + shift) < (uint32_t)a.shape.in_length;
            next_in[n] = next_w[n] = {};
            if (live && from_c < channels) {
                next_in[n] = load4(a.in + at * a.in_step + from_c);
                if (from_c + 1 >= channels) next_in[n].y = 0; /* what fills up the row */
                if (from_c + 2 >= channels) next_in[n].z = 0;
                if (from_c + 3 >= channels) next_in[n].w = 0;
            }
            if (w_c < channels && o < a.conv.step)
                next_w[n] =
                    load4(a.conv.weight + ((int64_t)tap * channels + w_c) * a.conv.step + o);
        }
    };
    auto put = [&](int buffer) {
        uint32_t *in = in_slice + buffer * DEEP * TILE_STRIDE;
        uint32_t *w =
            w_slice + buffer * DEEP * TILE_STRIDE + me / 32 * TILE_STRIDE + me % 32 * 4;
        KAC_UNROLL
        for (int n = 0; n < LOADS; n++) {
            const float4 x = next_in[n];
            const int r = (n * KAC_THREADS + me) / ROW_PARTS, part = me % ROW_PARTS;
            if (PAIRS) {
                in[2 * part * TILE_STRIDE + r] = kac_bf16_pair(x.x, x.y);
                in[(2 * part + 1) * TILE_STRIDE + r] = kac_bf16_pair(x.z, x.w);
            } else {
                in[4 * part * TILE_STRIDE + r] = kac_tf32(x.x);
                in[(4 * part + 1) * TILE_STRIDE + r] = kac_tf32(x.y);
                in[(4 * part + 2) * TILE_STRIDE + r] = kac_tf32(x.z);
                in[(4 * part + 3) * TILE_STRIDE + r] = kac_tf32(x.w);
            }
        }
        const float4 x = next_w[0], y = next_w[LOADS - 1];
        w[0] = PAIRS ? kac_bf16_pair(x.x, y.x) : kac_tf32(x.x);
        w[1] = PAIRS ? kac_bf16_pair(x.y, y.y) : kac_tf32(x.y);
        w[2] = PAIRS ? kac_bf16_pair(x.z, y.z) : kac_tf32(x.z);
        w[3] = PAIRS ? kac_bf16_pair(x.w, y.w) : kac_tf32(x.w);
    };

    bool more = advance();
    if (more) {
        fetch();
        put(0);
    }
    __syncthreads();
    for (int buffer = 0; more; buffer ^= 1) {
        const uint32_t *in = in_slice + buffer * DEEP * TILE_STRIDE + t * TILE_STRIDE + g;
        const uint32_t *w = w_slice + buffer * DEEP * TILE_STRIDE + t * TILE_STRIDE + g;
        more = advance();
        if (more) fetch();
        uint32_t x[2][4];
        KAC_UNROLL
        for (int m = 0; m < 2; m++) {
            KAC_UNROLL
            for (int i = 0; i < 4; i++)
                x[m][i] = in[i / 2 * 4 * TILE_STRIDE + my_row + 16 * m + i % 2 * 8];
        }
        KAC_UNROLL
        for (int n = 0; n < 8; n++) {
            const uint32_t y[2] = {w[my_col + 8 * n], w[4 * TILE_STRIDE + my_col + 8 * n]};
            KAC_UNROLL
            for (int m = 0; m < 2; m++) {
                if (PAIRS)
                    kac_mma_bf16(sum[m][n], x[m], y);
                else
                    kac_mma_tf32(sum[m][n], x[m], y);
            }
        }
        if (more) put(buffer ^ 1);
        __syncthreads();
    }

    KAC_UNROLL
    for (int m = 0; m < 2; m++) {
        KAC_UNROLL
        for (int n = 0; n < 8; n++) {
            const int64_t r = row + my_row + 16 * m + g;
            const int o = col + my_col + 8 * n + 2 * t;
            const float *x = sum[m][n];
            if (o >= a.conv.step) continue;
            if (r < rows) finish(&a, r * a.conv.step + o, float2{x[0], x[1]});
            if (r + 8 < rows) finish(&a, (r + 8) * a.conv.step + o, float2{x[2], x[3]});
        }
    }
}

kac_status kac_cuda_conv_multiply(kac_device *dev, const conv_call *a)
{
    const int64_t rows = (int64_t)a->shape.out_length * a->q.capacity;
    const dim3 blocks((unsigned)((rows + TILE - 1) / TILE),
                      (unsigned)((a->conv.step + TILE - 1) / TILE));
    auto *products = a->conv.precision == KAC_PRECISION_BF16 ? multiply<true> : multiply<false>;
    return KAC_LAUNCH(dev, products, blocks, KAC_THREADS, 0, *a);
}
