/* group_conv.cuh -- bf16 convolutions by warpgroups, of rows that lie in shared memory: for
 * layers of as many inputs as outputs, 64 or 128, that keep the length of sequences.
 *
 * A block takes a few whole sequences, up to 208 rows: row l S + s is position l of sequence s of
 * S.  Rows of neighbouring positions lie a constant distance apart, so a tap is the same tile some
 * rows further on, and a tap outside the sequence is a row outside the tile: zeros.
 *
 * The product is (channels x inputs) (inputs x rows), so that any number of rows costs no more
 * than its own.  One of two warpgroups has 64 channels of all rows; where there are no more, of
 * half the rows.  Weights go from memory to the registers of those who multiply with them, a
 * whole tap ahead.
 */
#ifndef KAC_GROUP_CONV_CUH
#define KAC_GROUP_CONV_CUH

#include "group.cuh"
#include "layer_cuda.cuh"

constexpr int GROUP_ROWS = 2 * KAC_GROUP_COLS;
constexpr int GROUP_THREADS = 2 * KAC_GROUP;
constexpr int GROUP_PAD = GROUP_ROWS + 1; /* zeros before a chunk of h, and behind the last */
constexpr int GROUP_CHUNK = GROUP_PAD + GROUP_ROWS; /* rows: odd, so that banks differ */

/* What a block of C channels convolves, in shared memory. */
template <int C> struct group_input {
    static constexpr int H_ROWS = C / 8 * GROUP_CHUNK + GROUP_PAD;
    uint16_t h[H_ROWS * 8]; /* [C / 8][GROUP_CHUNK][8], pads first */
};

/* All of its shared memory where rows come and go: of 128 channels one block fits into a
 * multiprocessor, of 64 two. */
template <int C> struct group_memory : group_input<C> {
    static constexpr int PITCH = C + 4;
    float feat[GROUP_ROWS * PITCH]; /* [row][PITCH] */
};
template <int C> constexpr int GROUP_BLOCKS = C == 128 ? 1 : 2;

/* Zeros in all of h, by the block. */
template <int C> static __device__ void group_clear(group_input<C> *m)
{
    uint4 *h = reinterpret_cast<uint4 *>(m->h);
    for (int i = (int)threadIdx.x; i < m->H_ROWS; i += GROUP_THREADS)
        h[i] = {};
}

/* Where in h eight channels of a row begin, from channel c on. */
template <int C> static __device__ uint16_t *group_at(group_input<C> *m, int row, int c)
{
    return m->h + ((c / 8 * GROUP_CHUNK + GROUP_PAD + row) * 8 + c % 8);
}

/* A layer for the rows of a block: its taps but those that read rows outside for all of them. */
struct group_layer {
    const uint16_t *weight; /* of the first of them */
    const float *bias;      /* [C] */
    int32_t taps, rows;
    int32_t first,
        step; /* rows between an output and the input of the first tap; between taps */
};

/* The layer of C channels that is packed as `grouped`; `first` for the first of its taps. */
static inline group_layer group_layer_of(const uint16_t *grouped, const float *bias, int32_t C,
                                         int32_t taps, int32_t rows, int64_t first,
                                         int64_t step)
{
    while (taps > 1 && first <= -rows) {
        grouped += (int64_t)C * C;
        first += step;
        taps--;
    }
    while (taps > 1 && first + (taps - 1) * step >= rows)
        taps--;
    return {grouped, bias, taps, rows, (int32_t)first, (int32_t)step};
}

/* A thread's weights of half the channels that a tap reads. */
template <int C> struct group_half {
    static constexpr int N = C / 32; /* products */
    uint4 w[N];
};

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

/* A thread's part of a layer: rows begin .. begin + COLS - 1 of 16 channels of its warp, and the
 * weights that it multiplies with, half a tap each: two are under way, one is being read. */
template <int C> struct group_part {
    static constexpr int COLS = C / 64 * KAC_GROUP_COLS, SUMS = COLS / 2;
    int begin, channel;
    const uint4 *weight; /* of the half after those that are under way */
    group_half<C> w[3];
    float bias[2];

    __device__ void fetch(group_half<C> &to)
    {
        KAC_UNROLL
        for (int k = 0; k < group_half<C>::N; k++)
            to.w[k] = weight[k * (C / 16) * KAC_WARP];
        weight += C / 32 * (C / 16) * KAC_WARP;
    }
};

/* Its rows and channels. */
template <int C> static __device__ group_part<C> group_open()
{
    const int group = (int)threadIdx.x / KAC_GROUP;
    group_part<C> p = {};
    p.begin = C == 64 ? group * p.COLS : 0;
    p.channel = (C == 64 ? 0 : group * 64) + (int)threadIdx.x / KAC_WARP % 4 * 16;
    return p;
}

/* Fetches what a layer begins with, so that it is there when h is. */
template <int C> static __device__ void group_begin(const group_layer *a, group_part<C> *p)
{
    const int lane = (int)threadIdx.x % KAC_WARP;
    p->weight = reinterpret_cast<const uint4 *>(a->weight) + p->channel / 16 * KAC_WARP + lane;
    p->bias[0] = a->bias[p->channel + lane / 4];
    p->bias[1] = a->bias[p->channel + lane / 4 + 8];
    p->fetch(p->w[0]);
    p->fetch(p->w[1]);
}

/* sum = bias + convolution: sum[4 j + 2 k + i] of row begin + 8 j + 2 (lane % 4) + i and channel
 * p->channel + lane / 4 + 8 k, and of some rows that are not there.  h is published. */
template <int C>
static __device__ void group_accumulate(const group_layer *a, group_input<C> *m,
                                        group_part<C> *p, float *sum)
{
    constexpr int COLS = group_part<C>::COLS, SUMS = group_part<C>::SUMS;
    kac_shared_tile h =
        kac_tile_move(kac_tile_at(group_at(m, p->begin, 0), GROUP_CHUNK), a->first);
    int halves = 2 * a->taps;
    KAC_UNROLL
    for (int i = 0; i < SUMS; i++)
        sum[i] = p->bias[i / 2 % 2];
    auto step = [&](const group_half<C> &now, group_half<C> &read) {
        group_multiply<C, COLS>(sum, now, h);
        kac_group_wait<1>(); /* the half before is done */
        if (halves > 2) p->fetch(read);
        /* to the other half of the channels, or from there to the next tap */
        h = kac_tile_move(h, halves % 2 == 0 ? C / 16 * GROUP_CHUNK
                                             : a->step - C / 16 * GROUP_CHUNK);
        return --halves > 0;
    };
    while (step(p->w[0], p->w[2]) && step(p->w[1], p->w[0]) && step(p->w[2], p->w[1])) {
    }
    kac_group_wait<0>();
    kac_group_keep<SUMS>(sum);
}

/* store(row, channel, bias + convolution) for every channel of every row, and of some rows that
 * are not there.  By the block, between barriers; h is published. */
template <int C, class Store>
static __device__ void group_convolve(const group_layer *a, group_input<C> *m, group_part<C> *p,
                                      Store store)
{
    const int lane = (int)threadIdx.x % KAC_WARP, mine = p->channel + lane / 4;
    float sum[group_part<C>::SUMS];
    group_accumulate<C>(a, m, p, sum);
    KAC_UNROLL
    for (int i = 0; i < p->SUMS; i++)
        store(p->begin + i / 4 * 8 + lane % 4 * 2 + i % 2, mine + i / 2 % 2 * 8, sum[i]);
}

/* Sequences of a block, so that all multiprocessors of the device have some. */
int32_t kac_cuda_group_sequences(const kac_device *dev, int32_t channels, int32_t length,
                                 int32_t capacity);

#endif /* KAC_GROUP_CONV_CUH */
