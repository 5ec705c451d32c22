/* filter.h -- what letters say of an object without a network: the scalar maths.
 *
 * A set of letters is a mask of bits, bit s for letter s.  A mask token is in no set, so it
 * counts as neither G nor C, ends a run, and fits no motif.
 */
#ifndef KAC_FILTER_H
#define KAC_FILTER_H

#include "hd.h"
#include "networks.h"

/* Whether token is a letter of the set. */
KAC_HD static inline int kac_is_in(uint32_t set, uint8_t token, int32_t states)
{
    return token < states && (set >> token & 1) != 0;
}

/* Share of sites whose letter is in the set. */
KAC_HD static inline float kac_share_in(uint32_t set, const uint8_t *x, int32_t length,
                                        int32_t states)
{
    int64_t count = 0;
    for (int32_t l = 0; l < length; l++)
        count += kac_is_in(set, x[l], states);
    return (float)((double)count / (double)length);
}

/* Its expectation at probabilities soft [length][states], one sum in order. */
KAC_HD static inline float kac_share_in_soft(uint32_t set, const float *soft, int32_t length,
                                             int32_t states)
{
    double sum = 0;
    for (int32_t l = 0; l < length; l++)
        for (int32_t s = 0; s < states; s++)
            if (set >> s & 1) sum += (double)soft[(int64_t)l * states + s];
    return (float)(sum / (double)length);
}

/* Length of the longest run of one letter. */
KAC_HD static inline float kac_longest_run(const uint8_t *x, int32_t length, int32_t states)
{
    int32_t longest = 0, run = 0;
    for (int32_t l = 0; l < length; l++) {
        run = x[l] >= states ? 0 : l > 0 && x[l] == x[l - 1] ? run + 1 : 1;
        if (run > longest) longest = run;
    }
    return (float)longest;
}

/* Sites at which a motif of sets begins, overlapping ones too. */
KAC_HD static inline int64_t kac_occurrences(const uint32_t *sets, int32_t width,
                                             const uint8_t *x, int32_t length, int32_t states)
{
    int64_t count = 0;
    for (int32_t l = 0; l + width <= length; l++) {
        int32_t fits = 0;
        while (fits < width && kac_is_in(sets[fits], x[l + fits], states))
            fits++;
        count += fits == width;
    }
    return count;
}

#endif /* KAC_FILTER_H */
