/* dense_cuda.cu -- dense layers of few rows or few outputs, such as those behind a flatten, as
 * exact chains. */
#include "conv_cuda.cuh"

/* A chain takes its products one after the other, and where rows are few so are chains: 4 warps
 * a multiprocessor, one for each of its schedulers.  To keep them busy a thread has 5 x 2
 * chains, and memory is read three slices of 32 channels ahead, past the registers. */
enum {
    THREADS = 128,
    ACROSS = 16,                    /* threads side by side */
    TALL = 5,                       /* rows of a thread; of channels it has 2 */
    ROWS = THREADS / ACROSS * TALL, /* of a block */
    COLS = ACROSS * 2,
    DEEP = 32,
    AHEAD = 3,
    PITCH = DEEP + 4 /* so that banks differ */
};

struct __align__(16) slice
{
    float in[ROWS * PITCH], w[DEEP * COLS]; /* [ROWS][PITCH], [DEEP][COLS] */
};

KAC_KERNEL __launch_bounds__(THREADS) multiply_rows(KAC_ARGS conv_call a)
{
    KAC_SHARED(slice, slices, AHEAD + 1);
    const int64_t rows = (int64_t)a.shape.out_length * kac_query_rows(&a.q);
    const int64_t row = (int64_t)blockIdx.x * ROWS;
    const int32_t channels = a.conv.in, step = a.conv.step, me = (int32_t)threadIdx.x;
    const int32_t col = (int32_t)blockIdx.y * COLS;
    const int32_t my_row = me / ACROSS * TALL, my_col = me % ACROSS * 2;
    if (row >= rows) return;

    /* Begins to read the slice from channel c on, or nothing; rows that are not there are taken
     * for the last one.  A thread has 4 channels of every 16th row, 4 outputs of every 16th
     * channel. */
    constexpr int PARTS = DEEP / 4, LINES = THREADS / PARTS;
    static_assert(DEEP == COLS, "lines are as long in both");
    const int32_t line = me / PARTS, part = me % PARTS * 4;
    const float *from_in[(ROWS + LINES - 1) / LINES];
    KAC_UNROLL
    for (int32_t r = line, n = 0; n < (ROWS + LINES - 1) / LINES; n++, r += LINES)
        from_in[n] = a.in + (row + r < rows ? row + r : rows - 1) * a.in_step + part;
    auto fetch = [&](int32_t c) {
        slice *to = slices + c / DEEP % (AHEAD + 1);
        KAC_UNROLL
        for (int32_t r = line, n = 0; n < (ROWS + LINES - 1) / LINES; n++, r += LINES)
            if (r < ROWS && c + part < channels)
                kac_copy16(to->in + r * PITCH + part, from_in[n] + c);
        KAC_UNROLL
        for (int32_t k = line; k < line + DEEP; k += LINES)
            if (c + k < channels && col + part < step)
                kac_copy16(to->w + k * COLS + part,
                           a.conv.weight + (int64_t)(c + k) * step + col + part);
        kac_copy_commit();
    };

    float sum[TALL][2] = {};
    if (a.conv.bias != NULL && col + my_col < step) {
        KAC_UNROLL
        for (int i = 0; i < TALL; i++) {
            sum[i][0] = a.conv.bias[col + my_col];
            sum[i][1] = a.conv.bias[col + my_col + 1];
        }
    }
    auto take = [&](int i, float x, float2 w) {
        sum[i][0] = fmaf(x, w.x, sum[i][0]);
        sum[i][1] = fmaf(x, w.y, sum[i][1]);
    };

    for (int32_t s = 0; s < AHEAD; s++)
        fetch(s * DEEP);
    for (int32_t c = 0; c < channels; c += DEEP) {
        const slice *here = slices + c / DEEP % (AHEAD + 1);
        const float *in = here->in + my_row * PITCH, *w = here->w + my_col;
        kac_copy_wait<AHEAD - 1>();
        __syncthreads(); /* the slice is there for all, and all are done with the one before */
        fetch(c + AHEAD * DEEP);
        if (channels - c >= DEEP) {
            KAC_UNROLL
            for (int k = 0; k < DEEP; k += 4) {
                float2 y[4];
                KAC_UNROLL
                for (int j = 0; j < 4; j++)
                    y[j] = *reinterpret_cast<const float2 *>(w + (k + j) * COLS);
                KAC_UNROLL
                for (int i = 0; i < TALL; i++) {
                    const float4 x = load4(in + i * PITCH + k);
                    take(i, x.x, y[0]);
                    take(i, x.y, y[1]);
                    take(i, x.z, y[2]);
                    take(i, x.w, y[3]);
                }
            }
        } else {
            for (int k = 0; k < channels - c; k++) {
                const float2 y = *reinterpret_cast<const float2 *>(w + k * COLS);
                KAC_UNROLL
                for (int i = 0; i < TALL; i++)
                    take(i, in[i * PITCH + k], y);
            }
        }
    }

    KAC_UNROLL
    for (int i = 0; i < TALL; i++) {
        const int64_t r = row + my_row + i;
        if (r < rows && col + my_col < step)
            finish(&a, r * step + col + my_col, float2{sum[i][0], sum[i][1]});
    }
}

kac_status kac_cuda_dense_by_rows(kac_device *dev, const conv_call *a)
{
    const int64_t rows = (int64_t)a->shape.out_length * a->q.capacity;
    const dim3 blocks((unsigned)((rows + ROWS - 1) / ROWS),
                      (unsigned)((a->conv.step + COLS - 1) / COLS));
    return KAC_LAUNCH(dev, multiply_rows, blocks, THREADS, 0, *a);
}
