/* complete.h -- which rows a batch of completions holds, for every process. */
#ifndef KAC_COMPLETE_H
#define KAC_COMPLETE_H

#include <assert.h>

#include "fault.h"
#include "hd.h"
#include "particles.h"
#include "types.h"

/* What the denoiser said of an entry whose evaluation is at hand, [memo->slot_floats]. */
KAC_HD static inline const float *kac_logits_of(const kac_memo *memo, int32_t entry)
{
    assert(entry >= 0 && memo->slot[entry] >= 0);
    return memo->logits + (int64_t)memo->slot[entry] * memo->slot_floats;
}

/* One past the last fresh entry of this batch. */
KAC_HD static inline int32_t kac_window_end(const kac_complete_args *a)
{
    int32_t count = *a->fresh->count;
    return count < a->first + a->batch ? count : a->first + a->batch;
}

/* Whether the logits of row i are at hand in this batch. */
KAC_HD static inline int kac_at_hand(const kac_complete_args *a, int32_t i)
{
    int32_t q = a->memo->order[a->entry[i]];
    return q < 0 ? a->first == 0 : q >= a->first && q < a->first + a->batch;
}

/* Whether this batch holds nothing, so that no row needs to be looked at. */
KAC_HD static inline int kac_window_is_empty(const kac_complete_args *a)
{
    return a->first > 0 && a->first >= *a->fresh->count;
}

/* Rows of what complete gives that may be in use. */
KAC_HD static inline int32_t kac_rows_of_result(const kac_complete_args *a)
{
    return a->every_row ? kac_live(a->live, a->n) : a->batch;
}

/* The row of x that row r of what complete gives is of, -1: of none in this batch. */
KAC_HD static inline int32_t kac_row_of_result(const kac_complete_args *a, int32_t r)
{
    if (a->every_row) return !kac_window_is_empty(a) && kac_at_hand(a, r) ? r : -1;
    return a->first + r < kac_window_end(a) ? a->fresh->src[a->first + r] : -1;
}

/* That the denoiser gave NaN for row i of x. */
KAC_HD static inline kac_trouble kac_nan_at(const kac_complete_args *a, int32_t i)
{
    kac_trouble t = {KAC_FAULT_NAN, i / a->children, a->clock->move, -1};
    return t;
}

#endif /* KAC_COMPLETE_H */
