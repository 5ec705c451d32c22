/* fault.h -- the first thing that went wrong in the loop, as one number.
 *
 * Earlier steps come first; within a step the denoiser's NaN, then a reward's, then a dead group,
 * and of each the lowest slot.  The order is that of the number, so threads need not agree on
 * who comes first: the largest number stays.
 */
#ifndef KAC_FAULT_H
#define KAC_FAULT_H

#include "hd.h"
#include "types.h"

enum { KAC_FAULT_NONE, KAC_FAULT_NAN, KAC_FAULT_DEAD };

/* What a number says. */
typedef struct kac_trouble {
    int32_t kind; /* KAC_FAULT_... */
    int32_t slot; /* of the particle, or the first slot of a dead group */
    int32_t move; /* the step in which it happened, counted from 1 */
    int32_t term; /* reward term, -1: the denoiser */
} kac_trouble;

/* move 20 bits, dead 1, of a reward 1, slot 31, term 5; inverted, so that 0 is no fault. */
KAC_HD static inline uint64_t kac_fault_number(kac_trouble t)
{
    uint64_t dead = t.kind == KAC_FAULT_DEAD, reward = t.term >= 0;
    uint64_t number = (uint64_t)t.move << 38 | dead << 37 | reward << 36 |
                      (uint64_t)(uint32_t)t.slot << 5 | (uint64_t)(reward ? t.term : 0);
    return ~number;
}

KAC_HD static inline kac_trouble kac_fault_read(kac_fault fault)
{
    kac_trouble t = {KAC_FAULT_NONE, 0, 0, -1};
    uint64_t number = ~fault.number;
    if (fault.number == 0) return t;
    t.kind = number >> 37 & 1 ? KAC_FAULT_DEAD : KAC_FAULT_NAN;
    t.slot = (int32_t)(number >> 5 & 0x7fffffff);
    t.move = (int32_t)(number >> 38);
    if (number >> 36 & 1) t.term = (int32_t)(number & 31);
    return t;
}

#ifndef __cplusplus
/* Called by one thread at a time. */
static inline void kac_fault_note(kac_fault *fault, kac_trouble trouble)
{
    uint64_t number = kac_fault_number(trouble);
    if (number > fault->number) fault->number = number;
}
#endif

#endif /* KAC_FAULT_H */
