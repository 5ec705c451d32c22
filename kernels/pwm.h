/* pwm.h -- reward of a position weight matrix: packing, and one row. */
#ifndef KAC_PWM_H
#define KAC_PWM_H

#include <math.h>
#include <stdlib.h>

#include "pack.h"
#include "query.h"

struct kac_net {
    int32_t states; /* S */
    int32_t length; /* L */
    float *weight;  /* [L][S] */
};

static inline void kac_pwm_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->weight);
    free(net);
}

static inline kac_status kac_pwm_pack(kac_device *dev, const kac_pwm_weights *host_weights,
                                      kac_net **out)
{
    size_t bytes = (size_t)host_weights->length * (size_t)host_weights->states * sizeof(float);
    kac_status status = KAC_OK;
    kac_net *net = kac_net_new(sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->states = host_weights->states;
    net->length = host_weights->length;
    KAC_TRY_DONE(KAC_PACK(dev, net->weight, host_weights->weight, bytes));
    *out = net;
    net = NULL;
done:
    kac_pwm_drop(dev, net);
    return status;
}

/* The reward of row j.  Adding w is fma(1, w, sum), so tokens and their one-hot rows give the
 * same bits. */
KAC_HD static inline float kac_pwm_score(const kac_net *net, const kac_query *q, int32_t j)
{
    float sum = 0;
    if (q->soft != NULL) {
        const float *soft = kac_query_soft(q, j, net->states);
        for (int64_t i = 0; i < (int64_t)net->length * net->states; i++)
            sum = fmaf(soft[i], net->weight[i], sum);
        return sum;
    }
    const uint8_t *tokens = kac_query_tokens(q, j);
    for (int32_t l = 0; l < net->length; l++)
        if (tokens[l] < net->states) sum += net->weight[(int64_t)l * net->states + tokens[l]];
    return sum;
}

#endif /* KAC_PWM_H */
