/* markov_cpu.c -- denoiser of a Markov chain: exact posteriors by forward-backward.
 *
 * a_l(v) is proportional to the probability of the revealed sites 0 .. l and x_l = v, b_l(v) to
 * that of the revealed sites after l given x_l = v; the posterior of site l is their product.
 */
#include <math.h>
#include <stdatomic.h>

#include "exact.h"
#include "ops.h"
#include "query.h"
#include "scratch_cpu.h"

struct kac_net {
    int32_t states; /* S */
    double initial[KAC_MAX_STATES];
    double transition[KAC_MAX_STATES][KAC_MAX_STATES]; /* from, to */
};

kac_status kac_cpu_markov_pack(kac_device *dev, const kac_markov_weights *host_weights,
                               kac_net **out)
{
    kac_net *net = dev->ops->memory.alloc(dev, sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    int32_t s = net->states = host_weights->states;
    for (int32_t u = 0; u < s; u++) {
        net->initial[u] = (double)host_weights->initial[u];
        for (int32_t v = 0; v < s; v++)
            net->transition[u][v] = (double)host_weights->transition[u * s + v];
    }
    *out = net;
    return KAC_OK;
}

void kac_cpu_markov_drop(kac_device *dev, kac_net *net)
{
    if (net != NULL) dev->ops->memory.release(dev, net);
}

/* Scales p to sum to 1; all zeros stay zeros. */
static void normalise(double *p, int32_t states)
{
    double sum = 0;
    for (int32_t v = 0; v < states; v++)
        sum += p[v];
    if (sum > 0)
        for (int32_t v = 0; v < states; v++)
            p[v] /= sum;
}

/* p(v) = 0 for every letter that a revealed site does not have. */
static void observe(double *p, uint8_t token, int32_t states)
{
    if (token == states) return;
    for (int32_t v = 0; v < states; v++)
        if (v != token) p[v] = 0;
}

/* a_l from a_{l-1}, NULL at the first site. */
static void go_right(const kac_net *net, const double *before, uint8_t token, double *a)
{
    for (int32_t v = 0; v < net->states; v++) {
        if (before == NULL) {
            a[v] = net->initial[v];
            continue;
        }
        a[v] = 0;
        for (int32_t u = 0; u < net->states; u++)
            a[v] = fma(before[u], net->transition[u][v], a[v]);
    }
    observe(a, token, net->states);
    normalise(a, net->states);
}

/* b_{l-1} from b_l, in place; `token` is that of site l. */
static void go_left(const kac_net *net, uint8_t token, double *b)
{
    double next[KAC_MAX_STATES];
    observe(b, token, net->states);
    for (int32_t u = 0; u < net->states; u++) {
        next[u] = 0;
        for (int32_t v = 0; v < net->states; v++)
            next[u] = fma(net->transition[u][v], b[v], next[u]);
    }
    normalise(next, net->states);
    for (int32_t u = 0; u < net->states; u++)
        b[u] = next[u];
}

/* Logits of one site.  The sum is zero only if no sequence agrees with the revealed sites. */
static void write_posterior(const double *a, const double *b, uint8_t token, int32_t states,
                            float *logits)
{
    double p[KAC_MAX_STATES];
    double sum = 0;
    for (int32_t v = 0; v < states; v++) {
        p[v] = a[v] * b[v];
        sum += p[v];
    }
    for (int32_t v = 0; v < states; v++) {
        if (token < states)
            logits[v] = v == token ? 0 : -INFINITY;
        else if (!(sum > 0))
            logits[v] = 0;
        else
            logits[v] = p[v] > 0 ? (float)kac_log(p[v] / sum) : -INFINITY;
    }
}

/* a: [length][states] working memory. */
static void answer(const kac_net *net, const uint8_t *tokens, int32_t length, double *a,
                   float *logits)
{
    int32_t s = net->states;
    for (int32_t l = 0; l < length; l++)
        go_right(net, l == 0 ? NULL : a + (int64_t)(l - 1) * s, tokens[l], a + (int64_t)l * s);

    double b[KAC_MAX_STATES];
    for (int32_t v = 0; v < s; v++)
        b[v] = 1;
    for (int32_t l = length - 1; l >= 0; l--) {
        write_posterior(a + (int64_t)l * s, b, tokens[l], s, logits + (int64_t)l * s);
        go_left(net, tokens[l], b);
    }
}

kac_status kac_cpu_markov_forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    (void)dev;
    int32_t n = kac_query_rows(q);
    size_t bytes = (size_t)q->length * (size_t)net->states * sizeof(double);
    atomic_int failed = 0;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < n; j++) {
        double *a = kac_cpu_scratch(bytes);
        if (a != NULL)
            answer(net, kac_query_tokens(q, j), q->length, a, kac_query_out(q, j));
        else
            atomic_store(&failed, 1);
    }
    if (atomic_load(&failed))
        return KAC_FAIL(KAC_ERR_NOMEM, "markov: no %zu bytes for a row", bytes);
    return KAC_OK;
}
