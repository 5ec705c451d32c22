/* group_conv.cuh -- bf16 convolutions by warpgroups, of rows that lie in shared memory: for
 * layers of as many inputs as outputs, 64 or 128, that keep the length of sequences.
 *
 * A block takes a few whole sequences, up to ROWS rows: row l S + s is position l of sequence s
 * of S.  Rows of neighbouring positions lie a constant distance apart, so a tap is the same
 * tile some rows further on, and a tap outside the sequence is a row outside the tile: zeros.
 *
 * The product is (channels x inputs) (inputs x rows), so that any number of rows costs no more
 * than its own.  Weights go from memory to the registers of those who multiply with them, half
 * a tap ahead.  Tensor cores rest while a block does something else than products, so two
 * blocks or more share a multiprocessor where their memory allows it: short sequences take
 * blocks of few rows, in which a warpgroup has all channels.
 */
#ifndef KAC_GROUP_CONV_CUH
#define KAC_GROUP_CONV_CUH

#include "group.cuh"
#include "layer_cuda.cuh"

constexpr int GROUP_MOST_ROWS = 2 * KAC_GROUP_COLS;

/* A block of C channels, 64 or 128, and ROWS rows, KAC_GROUP_COLS or twice that. */
template <int C, int ROWS> struct group_shape {
    static constexpr int PARTS = C == 128 && ROWS == KAC_GROUP_COLS ? 2 : 1;
    static constexpr int THREADS = C / (64 * PARTS) * KAC_GROUP;
    static constexpr int BLOCKS = 128 / C * GROUP_MOST_ROWS / ROWS; /* of a multiprocessor */
    static constexpr int SUMS = PARTS * ROWS / 2;                   /* of a thread */
    static constexpr int TILES = ROWS / 8;
    static constexpr int PAD = ROWS + 1; /* zeros before a chunk of h, and behind the last */
    static constexpr int CHUNK = PAD + ROWS; /* rows: odd, so that banks differ */
    static constexpr int PITCH = C + 4;      /* floats of a row where rows lie one by one */
};

/* What a block convolves, in shared memory. */
template <int C, int ROWS> struct group_input : group_shape<C, ROWS> {
    static constexpr int H_ROWS =
        C / 8 * group_shape<C, ROWS>::CHUNK + group_shape<C, ROWS>::PAD;
    uint16_t h[H_ROWS * 8]; /* [C / 8][CHUNK][8], pads first */

    /* Where in h eight channels of a row begin, from channel c on. */
    __device__ uint16_t *at(int row, int c)
    {
        return h + ((c / 8 * this->CHUNK + this->PAD + row) * 8 + c % 8);
    }

    /* Zeros in all of it, by the block. */
    __device__ void clear()
    {
        for (int i = (int)threadIdx.x; i < H_ROWS; i += this->THREADS)
            reinterpret_cast<uint4 *>(h)[i] = {};
    }
};

/* A layer for the rows of a block: its taps but those that read rows outside for all of
 * them. */
struct group_layer {
    const uint16_t *weight;    /* of the first of them */
    const float *bias;         /* [C] */
    int32_t taps, late, early; /* first those by which only the later half of the rows reads */
    int32_t first, step;       /* rows from an output to the input of the first; between taps */
};

/* The layer of C channels that is packed as `grouped` for that many rows; all taps given. */
static inline group_layer group_layer_of(const uint16_t *grouped, const float *bias, int32_t C,
                                         int32_t rows, int32_t taps, int64_t first,
                                         int64_t step)
{
    while (taps > 1 && first <= -rows) {
        grouped += (int64_t)C * C;
        first += step;
        taps--;
    }
    while (taps > 1 && first + (taps - 1) * step >= rows)
        taps--;
    const int32_t half = KAC_GROUP_COLS;
    int32_t late = 0, early = 0;
    while (rows > half && late < taps - 1 && first + late * step <= -half)
        late++;
    while (rows > half && late + early < taps - 1 &&
           rows - (first + (taps - 1 - early) * step) <= half)
        early++;
    return {grouped, bias, taps, late, early, (int32_t)first, (int32_t)step};
}

/* A thread's part of a layer.  Its sum at 4 j + 2 k + i is of row 8 j + row + i and channel
 * channel + 8 k; where a warpgroup has two parts, those of TILES tiles j of the second, 64
 * channels on, follow. */
template <int C, int ROWS> struct group_part : group_shape<C, ROWS> {
    using shape = group_shape<C, ROWS>;
    static constexpr int CHUNKS = C / 64; /* of 16 channels, of a slice: a quarter of a tap */
    int row, channel;
    const uint4 *weight;               /* of the slice after those that are under way */
    uint4 w[4][CHUNKS * shape::PARTS]; /* slices of a tap */
    float bias[2 * shape::PARTS];      /* of channels channel + 8 k, then of the second part */

    __device__ const uint4 *weight_of(const group_layer *a) const
    {
        return reinterpret_cast<const uint4 *>(a->weight) + channel / 16 * KAC_WARP +
               threadIdx.x % KAC_WARP;
    }

    __device__ void fetch(int slice)
    {
        KAC_UNROLL
        for (int k = 0; k < CHUNKS; k++) {
            KAC_UNROLL
            for (int p = 0; p < this->PARTS; p++)
                w[slice][k * this->PARTS + p] = weight[(k * (C / 16) + 4 * p) * KAC_WARP];
        }
        weight += CHUNKS * (C / 16) * KAC_WARP;
    }

    __device__ void fetch_bias(const group_layer *a)
    {
        KAC_UNROLL
        for (int p = 0; p < 2 * this->PARTS; p++)
            bias[p] = a->bias[channel + p % 2 * 8 + p / 2 * 64];
    }
};

/* Its place, and the first weights of the layer under way. */
template <int C, int ROWS>
static __device__ group_part<C, ROWS> group_open(const group_layer *a)
{
    const int lane = (int)threadIdx.x % KAC_WARP;
    group_part<C, ROWS> p = {};
    p.row = lane % 4 * 2;
    p.channel =
        (int)threadIdx.x / KAC_GROUP * 64 + (int)threadIdx.x / KAC_WARP % 4 * 16 + lane / 4;
    p.weight = p.weight_of(a);
    p.fetch(0);
    p.fetch(1);
    return p;
}

/* sum = bias + convolution, and of some rows that are not there.  h is published.  Leaves the
 * first weights of layer `next` under way. */
template <int C, int ROWS>
static __device__ void group_accumulate(const group_layer *a, const group_layer *next,
                                        group_input<C, ROWS> *m, group_part<C, ROWS> *p,
                                        float *sum)
{
    constexpr int PARTS = p->PARTS, SUMS = p->SUMS, CHUNKS = p->CHUNKS,
                  PIECES = ROWS / KAC_GROUP_COLS;
    kac_shared_tile h = kac_tile_at(m->at(a->first, 0), p->CHUNK);
    KAC_UNROLL
    for (int i = 0; i < SUMS; i++)
        sum[i] = p->bias[i / (SUMS / PARTS) * 2 + i / 2 % 2];
    int left = a->taps;
    /* Those by which only the pieces FROM .. END - 1 of the rows read.  Pieces are of one
     * width, and sums are kept between calls, or the compiler would end each product before the
     * next. */
    auto multiply = [&]<int FROM, int END>(int taps) {
        KAC_ROLLED
        for (; taps > 0; taps--, left--, h = kac_tile_move(h, a->step)) {
            KAC_UNROLL
            for (int slice = 0; slice < 4; slice++) {
                kac_group_begin();
                KAC_UNROLL
                for (int k = 0; k < CHUNKS * PARTS; k++) {
                    const kac_shared_tile x =
                        kac_tile_move(h, 2 * (slice * CHUNKS + k / PARTS) * p->CHUNK);
                    KAC_UNROLL
                    for (int piece = FROM; piece < END; piece++)
                        kac_group_mma(sum + (k % PARTS * PIECES + piece) * (KAC_GROUP_COLS / 2),
                                      p->w[slice][k], kac_tile_move(x, piece * KAC_GROUP_COLS));
                }
                kac_group_commit();
                kac_group_wait<1>(); /* the slice before is done */
                if (slice == 0) p->fetch(2), p->fetch(3);
                if (slice == 1 && left == 1) p->weight = p->weight_of(next);
                if (slice == 1 || slice == 2) p->fetch(slice - 1);
                __syncwarp(); /* or the compiler would fetch all in the end */
            }
        }
        kac_group_wait<0>();
        kac_group_keep<SUMS>(sum);
    };
    kac_group_keep<SUMS>(sum);
    if constexpr (PIECES == 2) multiply.template operator()<1, 2>(a->late);
    multiply.template operator()<0, PIECES>(left - a->early);
    if constexpr (PIECES == 2) multiply.template operator()<0, 1>(a->early);
}

/* each(row, channel, x[i]) for all that a thread has. */
template <int C, int ROWS, class Each>
static __device__ void group_each(const group_part<C, ROWS> *p, float *x, Each each)
{
    constexpr int PART = p->SUMS / p->PARTS;
    KAC_UNROLL
    for (int i = 0; i < p->SUMS; i++)
        each(i % PART / 4 * 8 + p->row + i % 2, p->channel + i / PART * 64 + i / 2 % 2 * 8,
             x[i]);
}

/* Blocks that the device has at once. */
template <int C, int ROWS> static int32_t group_blocks(const kac_device *dev)
{
    int processors = 1;
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, dev->ordinal);
    return processors * group_shape<C, ROWS>::BLOCKS;
}

/* Sequences of a block of ROWS rows, so that all multiprocessors of the device have some. */
template <int C, int ROWS>
static int32_t group_sequences(const kac_device *dev, int32_t length, int32_t capacity)
{
    const int32_t most = ROWS / length, blocks = group_blocks<C, ROWS>(dev);
    const int32_t even = (capacity + blocks - 1) / blocks;
    return even < 1 ? 1 : even < most ? even : most;
}

/* run<C, ROWS>() with the shape for channels and length. */
template <class Run>
static kac_status group_choose(int32_t channels, int32_t length, const Run &run)
{
    constexpr int FEW = KAC_GROUP_COLS, MOST = GROUP_MOST_ROWS;
    if (channels == 64)
        return length <= FEW ? run.template operator()<64, FEW>()
                             : run.template operator()<64, MOST>();
    return length <= FEW ? run.template operator()<128, FEW>()
                         : run.template operator()<128, MOST>();
}

#endif /* KAC_GROUP_CONV_CUH */
