/* states.h -- the hash of a state, and what an entry of the memo may be. */
#ifndef KAC_STATES_H
#define KAC_STATES_H

#include <string.h>

#include "hd.h"
#include "types.h"

/* 64 bits of a row of `stride` bytes, a multiple of 16.  Equal rows have equal hashes; the
 * converse is checked by comparing, so the hash decides about speed and never about results.
 * Each word is multiplied in and folded, the odd constants are those of splitmix64 (Steele, Lea
 * and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). */
KAC_HD static inline uint64_t kac_hash_row(const uint8_t *row, int32_t stride)
{
    uint64_t h = UINT64_C(0x9E3779B97F4A7C15);
    for (int32_t i = 0; i < stride; i += 8) {
        uint64_t word;
        memcpy(&word, row + i, sizeof word);
        h = (h ^ word) * UINT64_C(0xBF58476D1CE4E5B9);
        h ^= h >> 32;
    }
    h *= UINT64_C(0x94D049BB133111EB);
    return h ^ h >> 31;
}

#endif /* KAC_STATES_H */
