/* letter_conv_cuda.cu -- first layers of networks that read letters: sums of columns of weights in
 * place of products with zeros and ones.
 *
 * A letter at a tap takes the chain of fmas through all channels of that tap, in which one factor
 * is 1 and the others are 0.  From any sum but -0 that is one addition; the signs of zeros of the
 * chain are those of adding the same chain begun at -0, which is the letter's column.  So in exact
 * precision every output has the bits of kac_cuda_conv_run; in others the factors are rounded alike.
 */
#include "letter_conv.cuh"

enum { ROWS = 64, MOST_TAPS = 192 }; /* of a block; whose columns fit 48 KB of shared memory */

/* ---- pack --------------------------------------------------------------------------------- */

/* A factor as products of the precision take it. */
static __device__ float rounded(kac_precision precision, float x)
{
    if (precision == KAC_PRECISION_TF32) return kac_from_bits(kac_tf32(x) & 0xffffe000u);
    if (precision == KAC_PRECISION_BF16) return kac_from_bits(kac_bf16_pair(0, x));
    return x;
}

/* columns [taps][in + 1][step], the last of a tap a mask's, and behind them one that changes
 * nothing: -0. */
KAC_KERNEL make_columns(KAC_ARGS kac_cuda_conv conv, float *columns)
{
    const int32_t letters = conv.in + 1;
    KAC_EACH (i, (int64_t)letter_columns(&conv) * conv.step) {
        const int64_t column = i / conv.step, k = column / letters;
        float x = -0.0f;
        for (int32_t c = 0; k < conv.taps && c < conv.in; c++)
            x = fmaf(c == column % letters ? 1.0f : 0.0f,
                     rounded(conv.precision,
                             conv.weight[(k * conv.in + c) * conv.step + i % conv.step]),
                     x);
        columns[i] = x;
    }
}

kac_status kac_cuda_conv_letters(kac_device *dev, kac_cuda_conv *conv)
{
    if (conv->taps > MOST_TAPS || conv->bias == NULL) return KAC_OK;
    const int64_t floats = (int64_t)letter_columns(conv) * conv->step;
    conv->columns = kac_cuda_floats(dev, NULL, 0, floats);
    if (conv->columns == NULL) return KAC_ERR_NOMEM;
    return KAC_LAUNCH(dev, make_columns, kac_blocks(floats), KAC_THREADS, 0, *conv,
                      conv->columns);
}

/* ---- run ---------------------------------------------------------------------------------- */

struct letters_call {
    conv_call of;
    kac_cuda_frame frame;
    int32_t chunks; /* of ROWS sequences, at each position */
};

static __device__ void end_with(const conv_call *a, int64_t at, float4 x)
{
    const kac_activation act = a->end.act;
    if (act == KAC_ACT_LINEAR || act == KAC_ACT_RELU) {
        finish(a, at, x);
        return;
    }
    if (a->end.before != NULL) store4(a->end.before + at, x);
    store4(a->out + at, {kac_activate(act, x.x), kac_activate(act, x.y), kac_activate(act, x.z),
                         kac_activate(act, x.w)});
}

/* A block has ROWS sequences at one position.  Their columns' places go through shared memory,
 * [ROWS][taps rounded up to 4]; then a thread adds up four channels of a row, whose columns lie in
 * the nearest cache.  Bound by that cache, which gives 16 bytes of a column for each tap of four
 * outputs, and then by writing. */
KAC_KERNEL add_columns(KAC_ARGS letters_call a)
{
    KAC_DYNAMIC_SHARED(int32_t, places);
    const int32_t batch = kac_query_rows(&a.of.q), taps = a.of.conv.taps;
    const int32_t letters = a.of.conv.in + 1, parts = a.of.conv.step / 4;
    const int32_t l = (int32_t)blockIdx.x / a.chunks, step = kac_cuda_step(taps);
    const int32_t first = (int32_t)blockIdx.x % a.chunks * ROWS;
    const int32_t rows = batch - first < ROWS ? batch - first : ROWS;
    if (rows <= 0) return;
    for (int32_t i = (int32_t)threadIdx.x; i < rows * taps; i += (int32_t)blockDim.x) {
        const int32_t row = i / taps, k = i % taps;
        const int64_t from = l + shift_of(&a.of.shape, k);
        int32_t column = taps * letters; /* outside the sequence */
        if (from >= 0 && from < a.of.shape.in_length)
            column = k * letters +
                     column_of(&a.of.conv, letter_at(&a.of.q, &a.frame, first + row, from));
        places[row * step + k] = column * parts;
    }
    __syncthreads();
    const float4 *columns = reinterpret_cast<const float4 *>(a.of.conv.columns);
    for (int32_t i = (int32_t)threadIdx.x; i < rows * parts; i += (int32_t)blockDim.x) {
        const int32_t row = i / parts, part = i % parts;
        const int32_t *place = places + row * step;
        float4 x = load4(a.of.conv.bias + part * 4);
        int32_t k = 0;
        for (; k < taps - 3; k += 4) {
            const int4 four = *reinterpret_cast<const int4 *>(place + k);
            const float4 y[4] = {columns[four.x + part], columns[four.y + part],
                                 columns[four.z + part], columns[four.w + part]};
            KAC_UNROLL
            for (int j = 0; j < 4; j++)
                x = plus(x, y[j]);
        }
        for (; k < taps; k++)
            x = plus(x, columns[place[k] + part]);
        end_with(&a.of, ((int64_t)l * batch + first + row) * a.of.conv.step + part * 4, x);
    }
}

kac_status kac_cuda_first_run(kac_device *dev, const kac_query *q, const kac_cuda_frame *frame,
                              const kac_cuda_conv *conv, const kac_cuda_shape *shape,
                              const kac_cuda_ending *ending, float *x, float *out)
{
    if (q->soft != NULL || conv->columns == NULL) {
        KAC_TRY(kac_cuda_input(dev, q, frame, conv->in, x));
        return kac_cuda_conv_run(dev, q, conv, shape, ending, x, out);
    }
    if (q->capacity < 1) return KAC_OK;
    const int32_t chunks = (q->capacity - 1) / ROWS + 1;
    const letters_call a = {{*q, *conv, *shape, *ending, NULL, out, 0}, *frame, chunks};
    return KAC_LAUNCH(dev, add_columns, (unsigned)(chunks * shape->out_length), KAC_THREADS,
                      ROWS * (size_t)kac_cuda_step(conv->taps) * sizeof(int32_t), a);
}
