/* filter_cpu.c -- rewards that count letters. */
#include "filter.h"

#include <string.h>

#include "ops.h"
#include "query.h"

struct kac_net {
    kac_filter_kind kind;
    int32_t states; /* S */
    int32_t motifs;
    uint32_t set;
    int32_t *width; /* [motifs] */
    uint32_t *sets; /* the motifs' sets, one after the other */
};

kac_status kac_cpu_filter_pack(kac_device *dev, const kac_filter_weights *host_weights,
                               kac_net **out)
{
    int64_t sites = 0;
    for (int32_t m = 0; m < host_weights->motifs; m++)
        sites += host_weights->width[m];
    size_t widths = (size_t)host_weights->motifs * sizeof(int32_t);
    size_t sets = (size_t)sites * sizeof(uint32_t);
    kac_net *net = dev->ops->memory.alloc(dev, sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->kind = host_weights->kind;
    net->states = host_weights->states;
    net->motifs = host_weights->motifs;
    net->set = host_weights->set;
    net->width = dev->ops->memory.alloc(dev, widths);
    net->sets = dev->ops->memory.alloc(dev, sets);
    if (net->width == NULL || net->sets == NULL) {
        kac_cpu_filter_drop(dev, net);
        return KAC_ERR_NOMEM;
    }
    if (sites > 0) {
        memcpy(net->width, host_weights->width, widths);
        memcpy(net->sets, host_weights->sets, sets);
    }
    *out = net;
    return KAC_OK;
}

void kac_cpu_filter_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->width);
    dev->ops->memory.release(dev, net->sets);
    dev->ops->memory.release(dev, net);
}

static float count_motifs(const kac_net *net, const uint8_t *x, int32_t length)
{
    const uint32_t *sets = net->sets;
    int64_t count = 0;
    for (int32_t m = 0; m < net->motifs; m++) {
        count += kac_occurrences(sets, net->width[m], x, length, net->states);
        sets += net->width[m];
    }
    return (float)count;
}

static float answer(const kac_net *net, const kac_query *q, int32_t j)
{
    if (q->soft != NULL)
        return kac_share_in_soft(net->set, kac_query_soft(q, j, net->states), q->length,
                                 net->states);
    const uint8_t *x = kac_query_tokens(q, j);
    if (net->kind == KAC_FILTER_SHARE) return kac_share_in(net->set, x, q->length, net->states);
    if (net->kind == KAC_FILTER_RUN) return kac_longest_run(x, q->length, net->states);
    return count_motifs(net, x, q->length);
}

kac_status kac_cpu_filter_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    KAC_REQUIRE(q->soft == NULL || net->kind == KAC_FILTER_SHARE);
    int32_t n = kac_query_rows(q);
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++)
        *kac_query_out(q, j) = answer(net, q, j);
    return KAC_OK;
}
