/* memo.h -- memory of the memos of kernels/types.h. */
#ifndef KAC_MEMO_H
#define KAC_MEMO_H

#include "ops.h"

typedef struct kac_memo_size {
    int32_t capacity;                  /* entries */
    int32_t stride;                    /* bytes of a key */
    int32_t slots, spare, slot_floats; /* 0 in a memo of rewards */
    int32_t n_terms;
    int32_t reuse;
} kac_memo_size;

/* Takes and clears the memory.  Errors: NOMEM, INVALID (too many entries). */
kac_status kac_memo_open(kac_device *dev, const kac_memo_size *size, kac_memo *memo);
void kac_memo_close(kac_device *dev, kac_memo *memo); /* accepts a zeroed memo */

kac_status kac_fresh_open(kac_device *dev, int32_t capacity, kac_fresh *fresh);
void kac_fresh_close(kac_device *dev, kac_fresh *fresh);

#endif /* KAC_MEMO_H */
