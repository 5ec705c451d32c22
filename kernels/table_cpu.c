/* table_cpu.c -- denoiser and reward that look every answer up. */
#include <math.h>
#include <string.h>

#include "ops.h"
#include "query.h"

struct kac_net {
    int32_t states; /* S */
    int32_t length; /* L */
    int64_t rows;
    float *values;
};

static void drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->values);
    dev->ops->memory.release(dev, net);
}

/* `width` values a row. */
static kac_status pack(kac_device *dev, const kac_table_weights *host_weights, int64_t width,
                       kac_net **out)
{
    size_t bytes = (size_t)(host_weights->rows * width) * sizeof(float);
    kac_net *net = dev->ops->memory.alloc(dev, sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->states = host_weights->states;
    net->length = host_weights->length;
    net->rows = host_weights->rows;
    net->values = dev->ops->memory.alloc(dev, bytes);
    if (net->values == NULL) {
        drop(dev, net);
        return KAC_ERR_NOMEM;
    }
    memcpy(net->values, host_weights->values, bytes);
    *out = net;
    return KAC_OK;
}

/* The number of a state in base `base`, first position most significant. */
static int64_t row_of(const uint8_t *tokens, int32_t length, int32_t base)
{
    int64_t row = 0;
    for (int32_t l = 0; l < length; l++)
        row = row * base + tokens[l];
    return row;
}

/* ---- denoiser --------------------------------------------------------------------------- */

kac_status kac_cpu_table_denoiser_pack(kac_device *dev, const kac_table_weights *host_weights,
                                       kac_net **out)
{
    return pack(dev, host_weights, (int64_t)host_weights->length * host_weights->states, out);
}

kac_status kac_cpu_table_denoiser_forward(kac_device *dev, const kac_net *net,
                                          const kac_query *q)
{
    (void)dev;
    int32_t n = kac_query_rows(q);
    int64_t width = (int64_t)net->length * net->states;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++) {
        int64_t row = row_of(kac_query_tokens(q, j), net->length, net->states + 1);
        memcpy(kac_query_out(q, j), net->values + row * width, (size_t)width * sizeof(float));
    }
    return KAC_OK;
}

void kac_cpu_table_denoiser_drop(kac_device *dev, kac_net *net)
{
    drop(dev, net);
}

/* ---- reward ----------------------------------------------------------------------------- */

kac_status kac_cpu_table_reward_pack(kac_device *dev, const kac_table_weights *host_weights,
                                     kac_net **out)
{
    return pack(dev, host_weights, 1, out);
}

static float expectation(const kac_net *net, const float *soft)
{
    double sum = 0;
    double found = 0;
    double missing = 0;
    for (int64_t row = 0; row < net->rows; row++) {
        double probability = 1;
        int64_t digits = row;
        for (int32_t l = net->length - 1; l >= 0; l--) {
            probability *= (double)soft[(int64_t)l * net->states + digits % net->states];
            digits /= net->states;
        }
        if (net->values[row] == -INFINITY) {
            missing += probability;
            continue;
        }
        found += probability;
        sum = fma(probability, (double)net->values[row], sum);
    }
    if (missing > 0) return found > 0 ? (float)(sum / found) : -INFINITY;
    return (float)sum;
}

static float entry(const kac_net *net, const uint8_t *tokens)
{
    if (memchr(tokens, net->states, (size_t)net->length) != NULL) return 0;
    return net->values[row_of(tokens, net->length, net->states)];
}

kac_status kac_cpu_table_reward_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    int32_t n = kac_query_rows(q);
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++)
        *kac_query_out(q, j) = q->soft != NULL
                                   ? expectation(net, kac_query_soft(q, j, net->states))
                                   : entry(net, kac_query_tokens(q, j));
    return KAC_OK;
}

void kac_cpu_table_reward_drop(kac_device *dev, kac_net *net)
{
    drop(dev, net);
}
