/* filter.h -- what letters say of an object without a network: packing, and one row.
 *
 * A set of letters is a mask of bits, bit s for letter s.  A mask token is in no set, so it
 * counts as neither G nor C, ends a run, and fits no motif.
 */
#ifndef KAC_FILTER_H
#define KAC_FILTER_H

#include <stdlib.h>

#include "pack.h"
#include "query.h"
#include "team.h"

/* Whether token is a letter of the set. */
KAC_HD static inline int kac_is_in(uint32_t set, uint8_t token, int32_t states)
{
    return token < states && (set >> token & 1) != 0;
}

/* Share of sites whose letter is in the set. */
KAC_HD static inline float kac_share_in(kac_team t, uint32_t set, const uint8_t *x,
                                        int32_t length, int32_t states)
{
    int32_t count = 0;
    KAC_PARTS(l, t, length)
    count += kac_is_in(set, x[l], states);
    return (float)((double)kac_team_sum(t, count) / (double)length);
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

/* Length of the longest run of one letter; a part is a site where a run may begin. */
KAC_HD static inline float kac_longest_run(kac_team t, const uint8_t *x, int32_t length,
                                           int32_t states)
{
    int32_t longest = 0;
    KAC_PARTS(l, t, length)
    {
        if (x[l] >= states || (l > 0 && x[l] == x[l - 1])) continue;
        int32_t end = (int32_t)l + 1;
        while (end < length && x[end] == x[l])
            end++;
        if (end - (int32_t)l > longest) longest = end - (int32_t)l;
    }
    return (float)kac_team_max(t, longest);
}

/* Sites at which a motif of sets begins, overlapping ones too: this thread's part. */
KAC_HD static inline int32_t kac_occurrences(kac_team t, const uint32_t *sets, int32_t width,
                                             const uint8_t *x, int32_t length, int32_t states)
{
    int32_t count = 0;
    KAC_PARTS(l, t, length - width + 1)
    {
        int32_t fits = 0;
        while (fits < width && kac_is_in(sets[fits], x[l + fits], states))
            fits++;
        count += fits == width;
    }
    return count;
}

/* ---- the network ------------------------------------------------------------------------ */

struct kac_net {
    kac_filter_kind kind;
    int32_t states; /* S */
    int32_t motifs;
    uint32_t set;
    int32_t *width; /* [motifs] */
    uint32_t *sets; /* the motifs' sets, one after the other */
};

static inline void kac_filter_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->width);
    dev->ops->memory.release(dev, net->sets);
    free(net);
}

static inline kac_status kac_filter_pack(kac_device *dev,
                                         const kac_filter_weights *host_weights, kac_net **out)
{
    int64_t sites = 0;
    kac_status status = KAC_OK;
    for (int32_t m = 0; m < host_weights->motifs; m++)
        sites += host_weights->width[m];
    const size_t widths = (size_t)host_weights->motifs * sizeof(int32_t);
    const size_t sets = (size_t)sites * sizeof(uint32_t);
    kac_net *net = kac_net_new(sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->kind = host_weights->kind;
    net->states = host_weights->states;
    net->motifs = host_weights->motifs;
    net->set = host_weights->set;
    KAC_TRY_DONE(KAC_PACK(dev, net->width, host_weights->width, widths));
    KAC_TRY_DONE(KAC_PACK(dev, net->sets, host_weights->sets, sets));
    *out = net;
    net = NULL;
done:
    kac_filter_drop(dev, net);
    return status;
}

/* The reward of row j. */
KAC_HD static inline float kac_filter_score(const kac_net *net, kac_team t, const kac_query *q,
                                            int32_t j)
{
    if (q->soft != NULL)
        return kac_share_in_soft(net->set, kac_query_soft(q, j, net->states), q->length,
                                 net->states);
    const uint8_t *x = kac_query_tokens(q, j);
    if (net->kind == KAC_FILTER_SHARE)
        return kac_share_in(t, net->set, x, q->length, net->states);
    if (net->kind == KAC_FILTER_RUN) return kac_longest_run(t, x, q->length, net->states);
    const uint32_t *sets = net->sets;
    int32_t count = 0;
    for (int32_t m = 0; m < net->motifs; sets += net->width[m++])
        count += kac_occurrences(t, sets, net->width[m], x, q->length, net->states);
    return (float)kac_team_sum(t, count);
}

#endif /* KAC_FILTER_H */
