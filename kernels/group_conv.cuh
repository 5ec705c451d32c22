/* group_conv.cuh -- bf16 convolutions by warpgroups, of rows that lie in shared memory: for
 * layers of as many inputs as outputs, 64 or 128, that keep the length of sequences.
 *
 * A block takes a few whole sequences, up to 208 rows: row l S + s is position l of sequence s of
 * S.  Rows of neighbouring positions lie a constant distance apart, so a tap is the same tile some
 * rows further on, and a tap outside the sequence is a row outside the tile: zeros.
 *
 * The product is (channels x inputs) (inputs x rows), so that any number of rows costs no more
 * than its own.  One of two warpgroups has 64 channels of all rows; where there are no more, of
 * half the rows.  Weights go from memory to the registers of those who multiply with them, half a
 * tap ahead.
 */
#ifndef KAC_GROUP_CONV_CUH
#define KAC_GROUP_CONV_CUH

#include "group.cuh"
#include "layer_cuda.cuh"

constexpr int GROUP_ROWS = 2 * KAC_GROUP_COLS;
constexpr int GROUP_THREADS = 2 * KAC_GROUP;
constexpr int GROUP_PAD = GROUP_ROWS + 1; /* zeros before a chunk of h, and behind the last */
constexpr int GROUP_CHUNK = GROUP_PAD + GROUP_ROWS; /* rows: odd, so that banks differ */

/* The shared memory of a block of C channels: of 128 one fits into a multiprocessor, of 64 two. */
template <int C> struct group_memory {
    static constexpr int PITCH = C + 4;
    static constexpr int H_ROWS = C / 8 * GROUP_CHUNK + GROUP_PAD;
    float feat[GROUP_ROWS * PITCH]; /* [row][PITCH] */
    uint16_t h[H_ROWS * 8];         /* what is convolved: [C / 8][GROUP_CHUNK][8], pads first */
};
template <int C> constexpr int GROUP_BLOCKS = C == 128 ? 1 : 2;

/* Zeros in all of h, by the block. */
template <int C> static __device__ void group_clear(group_memory<C> *m)
{
    uint4 *h = reinterpret_cast<uint4 *>(m->h);
    for (int i = (int)threadIdx.x; i < m->H_ROWS; i += GROUP_THREADS)
        h[i] = {};
}

/* Where in h eight channels of a row begin, from channel c on. */
template <int C> static __device__ uint16_t *group_at(group_memory<C> *m, int row, int c)
{
    return m->h + ((c / 8 * GROUP_CHUNK + GROUP_PAD + row) * 8 + c % 8);
}

/* A layer for the rows of a block. */
struct group_layer {
    const uint16_t *weight; /* kac_cuda_conv.grouped */
    const float *bias;      /* [C] */
    int32_t taps, rows;
    int64_t first, step; /* rows between an output and the input of tap 0; between taps */
};

/* The first tap from `tap` on that reads some row for rows begin .. end - 1, or how many there
 * are. */
static __device__ inline int group_next_tap(const group_layer *a, int tap, int begin, int end)
{
    const int last = end < a->rows ? end : a->rows;
    for (; tap < a->taps; tap++) {
        const int64_t shift = a->first + tap * a->step;
        if (begin < last && begin + shift < a->rows && last + shift > 0) break;
    }
    return tap;
}

/* A thread's weights of half the channels that a tap reads. */
template <int C> struct group_half {
    static constexpr int N = C / 32; /* products */
    uint4 w[N];
};

/* Those from channel half C / 2 on, for the 16 output channels of a warp from `channel` on. */
template <int C>
static __device__ group_half<C> group_weights(const group_layer *a, int tap, int half,
                                              int channel)
{
    const uint4 *from =
        reinterpret_cast<const uint4 *>(a->weight) + threadIdx.x % KAC_WARP +
        ((tap * (C / 16) + half * (C / 32)) * (C / 16) + channel / 16) * KAC_WARP;
    group_half<C> to;
    KAC_UNROLL
    for (int k = 0; k < group_half<C>::N; k++)
        to.w[k] = from[k * (C / 16) * KAC_WARP];
    return to;
}

/* Starts sum += weights of half a tap times h. */
template <int C, int COLS>
static __device__ void group_multiply(float *sum, const group_half<C> &w, kac_shared_tile h)
{
    kac_group_begin();
    KAC_UNROLL
    for (int k = 0; k < group_half<C>::N; k++)
        kac_group_mma<COLS>(sum, w.w[k], kac_tile_move(h, 2 * k * GROUP_CHUNK));
    kac_group_commit();
}

/* A thread's part of a layer: rows begin .. end - 1 of 16 channels of its warp, and what it
 * multiplies with first. */
template <int C> struct group_part {
    static constexpr int COLS = C / 64 * KAC_GROUP_COLS;
    int begin, channel, tap;
    group_half<C> low;
};

/* Fetches that, so that it is there when h is. */
template <int C> static __device__ group_part<C> group_open(const group_layer *a)
{
    const int group = (int)threadIdx.x / KAC_GROUP;
    group_part<C> p = {};
    p.begin = C == 64 ? group * p.COLS : 0;
    p.channel = (C == 64 ? 0 : group * 64) + (int)threadIdx.x / KAC_WARP % 4 * 16;
    p.tap = group_next_tap(a, 0, p.begin, p.begin + p.COLS);
    if (p.tap < a->taps) p.low = group_weights<C>(a, p.tap, 0, p.channel);
    return p;
}

/* store(row, channel, bias + convolution) for every channel of every row, and of some rows that
 * are not there.  By the block, between barriers; h is published. */
template <int C, class Store>
static __device__ void group_convolve(const group_layer *a, group_memory<C> *m,
                                      group_part<C> *p, Store store)
{
    constexpr int COLS = group_part<C>::COLS, SUMS = COLS / 2;
    const int lane = (int)threadIdx.x % KAC_WARP, mine = p->channel + lane / 4;
    const float bias[2] = {a->bias[mine], a->bias[mine + 8]};
    const kac_shared_tile h = kac_tile_at(group_at(m, p->begin, 0), GROUP_CHUNK);
    float sum[SUMS];
    KAC_UNROLL
    for (int i = 0; i < SUMS; i++)
        sum[i] = bias[i / 2 % 2];

    int tap = p->tap;
    if (tap == a->taps) return; /* no row of this warpgroup's is there */
    while (true) {
        const kac_shared_tile x = kac_tile_move(h, (int)(a->first + tap * a->step));
        group_multiply<C, COLS>(sum, p->low, x);
        kac_group_wait<1>(); /* what was read from high */
        const group_half<C> high = group_weights<C>(a, tap, 1, p->channel);
        group_multiply<C, COLS>(sum, high, kac_tile_move(x, C / 16 * GROUP_CHUNK));
        tap = group_next_tap(a, tap + 1, p->begin, p->begin + COLS);
        if (tap == a->taps) break;
        kac_group_wait<1>(); /* from low */
        p->low = group_weights<C>(a, tap, 0, p->channel);
    }
    kac_group_wait<0>();
    kac_group_keep<SUMS>(sum);

    KAC_UNROLL
    for (int i = 0; i < SUMS; i++)
        store(p->begin + i / 4 * 8 + lane % 4 * 2 + i % 2, mine + i / 2 % 2 * 8, sum[i]);
}

/* Sequences of a block, so that all multiprocessors of the device have some. */
int32_t kac_cuda_group_sequences(const kac_device *dev, int32_t channels, int32_t length,
                                 int32_t capacity);

#endif /* KAC_GROUP_CONV_CUH */
