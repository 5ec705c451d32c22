/* rng.h -- Philox4x32-10, a counter-based generator, and what its counters mean.
 *
 * A draw is a function of (seed, purpose, move, group, particle, child, position): there is no
 * state, so results do not depend on threads, batches, ranks or a restart.
 * Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 */
#ifndef KAC_RNG_H
#define KAC_RNG_H

#include <stdint.h>

#include "hd.h"
#include "types.h"

typedef struct kac_u32x4 {
    uint32_t v[4];
} kac_u32x4;

KAC_HD static inline kac_u32x4 kac_philox(kac_u32x4 c, uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        uint64_t a = kac_wide(0xD2511F53u, c.v[0]);
        uint64_t b = kac_wide(0xCD9E8D57u, c.v[2]);
        c.v[0] = (uint32_t)(b >> 32) ^ c.v[1] ^ k0;
        c.v[1] = (uint32_t)b;
        c.v[2] = (uint32_t)(a >> 32) ^ c.v[3] ^ k1;
        c.v[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

/* What a draw is for; two purposes never share a number. */
typedef enum kac_purpose {
    KAC_DRAW_PROPOSE = 1, /* reveal and token of one position of one child; a pair of numbers */
    KAC_DRAW_COMPLETE = 2, /* token of one position, or a pair, of one sampled completion */
    KAC_DRAW_PARENT = 3,   /* choice among the children of a particle */
    KAC_DRAW_GROUP = 4,    /* choice among the particles of a group */
    KAC_DRAW_FINAL = 5,    /* final selection */
    KAC_DRAW_RENOISE = 6,  /* masks of the likelihood estimate */
    KAC_DRAW_RENEW = 7,    /* choice among the objects that a pass of refine goes on from */
    KAC_DRAW_REMASK = 8,   /* sites that it masks again */
    KAC_DRAW_RETAIN = 9,   /* the path that particle Gibbs retains */
    KAC_DRAW_TREE = 10,    /* choice among the children of a node of a tree */
    KAC_DRAW_SEARCH = 11,  /* whether a block of levels is searched */
    KAC_DRAW_START = 12,   /* a pair of numbers of the first state of a vector */
    KAC_DRAW_REVIVE = 13,  /* the particle that a try of the last levels begins as */
    KAC_DRAW_CORRECT = 14, /* a pair of numbers of a corrector's noise */
} kac_purpose;

/* Who draws.  `move` never repeats in a run. */
typedef struct kac_key {
    uint64_t seed;
    uint32_t move;     /* < 2^20 */
    uint32_t group;    /* global index of the group */
    uint32_t particle; /* index in its group */
    uint32_t child;    /* < 2^12 */
} kac_key;

/* The particle in slot i of a group, at this move. */
KAC_HD static inline kac_key kac_key_of(uint64_t seed, const kac_clock *clock,
                                        const kac_group *group, int32_t i)
{
    kac_key key = {.seed = seed,
                   .move = (uint32_t)clock->move,
                   .group = (uint32_t)group->id,
                   .particle = (uint32_t)(i - group->offset)};
    return key;
}

/* Four random words for `position` (< 2^24).
 * Counter: position 24 | purpose 8, move 20 | child 12, particle 32, group 32. */
KAC_HD static inline kac_u32x4 kac_draw(kac_key k, kac_purpose purpose, uint32_t position)
{
    kac_u32x4 c = {
        {position | (uint32_t)purpose << 24, k.move | k.child << 20, k.particle, k.group}};
    return kac_philox(c, (uint32_t)k.seed, (uint32_t)(k.seed >> 32));
}

/* High 64 bits of a * b. */
KAC_HD static inline uint64_t kac_mulhi64(uint64_t a, uint64_t b)
{
    return (uint64_t)(((unsigned __int128)a * b) >> 64);
}

/* Words 2i and 2i + 1 of a draw, as one number. */
KAC_HD static inline uint64_t kac_pair_of(kac_u32x4 draw, int64_t i)
{
    return (uint64_t)draw.v[2 * i] << 32 | draw.v[2 * i + 1];
}

/* Uniform on {0, .., n - 1} from them; bias below n / 2^64. */
KAC_HD static inline uint64_t kac_below(kac_u32x4 draw, int64_t i, uint64_t n)
{
    return kac_mulhi64(kac_pair_of(draw, i), n);
}

#endif /* KAC_RNG_H */
