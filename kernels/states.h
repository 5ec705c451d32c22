/* states.h -- the hash of a state, and what an entry of the memo may be. */
#ifndef KAC_STATES_H
#define KAC_STATES_H

#include <string.h>

#include "hd.h"
#include "types.h"

/* The hash of a row of `stride` bytes, a multiple of 16: kac_hash_add of each word of 8 bytes in
 * order, from KAC_HASH_START, then kac_hash_end.  Equal rows have equal hashes; the
 * converse is checked by comparing, so the hash decides about speed and never about results.
 * Each word is multiplied in and folded, the odd constants are those of splitmix64 (Steele, Lea
 * and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). */
#define KAC_HASH_START UINT64_C(0x9E3779B97F4A7C15)

KAC_HD static inline uint64_t kac_hash_add(uint64_t h, uint64_t word)
{
    h = (h ^ word) * UINT64_C(0xBF58476D1CE4E5B9);
    return h ^ h >> 32;
}

KAC_HD static inline uint64_t kac_hash_end(uint64_t h)
{
    h *= UINT64_C(0x94D049BB133111EB);
    return h ^ h >> 31;
}

static inline uint64_t kac_hash_row(const uint8_t *row, int32_t stride)
{
    uint64_t h = KAC_HASH_START;
    for (int32_t i = 0; i < stride; i += 8) {
        uint64_t word;
        memcpy(&word, row + i, sizeof word);
        h = kac_hash_add(h, word);
    }
    return kac_hash_end(h);
}

/* Rows of a window that are live. */
KAC_HD static inline int32_t kac_rows_live(const kac_rows *rows)
{
    if (rows->count == NULL) return rows->n;
    int32_t left = *rows->count - rows->first;
    return left < 0 ? 0 : left < rows->n ? left : rows->n;
}

/* The end of fresh entries first .. first + batch - 1. */
KAC_HD static inline int32_t kac_fresh_end(const kac_fresh *fresh, int32_t first, int32_t batch)
{
    return *fresh->count < first + batch ? *fresh->count : first + batch;
}

#endif /* KAC_STATES_H */
