/* markov_cpu.c -- denoiser of a Markov chain: exact posteriors by forward-backward.
 *
 * a_l(v) is proportional to the probability of the revealed sites 0 .. l and x_l = v, b_l(v) to
 * that of the revealed sites after l given x_l = v; the posterior of site l is their product.
 *
 * The gradient (networks.h) is a sum over paths of weight(x) (q_0(x_0) + q_1(x_1) + ..), so
 * each message a goes with a second one, A, its paths' weights times their sums of q so far;
 * both take the same scale.
 */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

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

static double sum_of(const double *p, int32_t states)
{
    double sum = 0;
    for (int32_t v = 0; v < states; v++)
        sum += p[v];
    return sum;
}

/* Scales p to sum to 1; all zeros stay zeros. */
static void normalise(double *p, int32_t states)
{
    double sum = sum_of(p, states);
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

/* ---- vector-Jacobian product ------------------------------------------------------------ */

/* What a row needs, [length][states] each: a before the evidence of the site and its second
 * message; b and its second message; q. */
typedef struct tape {
    double *a, *a2, *b, *b2, *q;
} tape;

/* to = from before the site's own evidence, through the chain: [states]. */
static void push_right(const kac_net *net, const double *from, double *to)
{
    for (int32_t v = 0; v < net->states; v++) {
        to[v] = 0;
        for (int32_t u = 0; u < net->states; u++)
            to[v] = fma(from[u], net->transition[u][v], to[v]);
    }
}

static void push_left(const kac_net *net, const double *from, double *to)
{
    for (int32_t u = 0; u < net->states; u++) {
        to[u] = 0;
        for (int32_t v = 0; v < net->states; v++)
            to[u] = fma(net->transition[u][v], from[v], to[u]);
    }
}

/* The messages a to all sites, without the evidence of the site itself. */
static void fill_a(const kac_net *net, const uint8_t *tokens, int32_t length, double *a)
{
    const int32_t s = net->states;
    double with[KAC_MAX_STATES];
    memcpy(a, net->initial, (size_t)s * sizeof *a);
    for (int32_t l = 0; l + 1 < length; l++, a += s) {
        memcpy(with, a, (size_t)s * sizeof *with);
        observe(with, tokens[l], s);
        normalise(with, s);
        push_right(net, with, a + s);
    }
}

/* q of a site from its posterior, which is proportional to p; p is used up. */
static void fill_q(double *p, int32_t states, const float *cotangent, double *q)
{
    double sum = 0;
    normalise(p, states);
    for (int32_t v = 0; v < states; v++)
        if (p[v] > 0) sum += (double)cotangent[v];
    for (int32_t v = 0; v < states; v++)
        q[v] = (p[v] > 0 ? (double)cotangent[v] / p[v] : 0) - sum;
}

/* The messages b with their second ones, and q, from the last site to the first. */
static void fill_b(const kac_net *net, const uint8_t *tokens, int32_t length,
                   const float *cotangent, const tape *t)
{
    const int32_t s = net->states;
    const size_t row = (size_t)s * sizeof(double);
    double with[KAC_MAX_STATES];
    double with2[KAC_MAX_STATES];
    for (int64_t l = length - 1; l >= 0; l--) {
        double *b = t->b + l * s;
        double *b2 = t->b2 + l * s;
        double *q = t->q + l * s;
        for (int32_t v = 0; v < s && l == length - 1; v++) {
            b[v] = 1;
            b2[v] = 0;
        }
        for (int32_t v = 0; v < s; v++)
            with[v] = t->a[l * s + v] * b[v];
        observe(with, tokens[l], s);
        fill_q(with, s, cotangent + l * s, q);
        if (l == 0) return;

        memcpy(with, b, row);
        for (int32_t v = 0; v < s; v++)
            with2[v] = fma(q[v], b[v], b2[v]);
        observe(with, tokens[l], s);
        observe(with2, tokens[l], s);
        push_left(net, with, b - s);
        push_left(net, with2, b2 - s);
        double sum = sum_of(b - s, s);
        for (int32_t v = 0; v < s && sum > 0; v++) {
            b[v - s] /= sum;
            b2[v - s] /= sum;
        }
    }
}

/* The second messages of a to the site after l. */
static void step_a2(const kac_net *net, uint8_t token, int64_t l, const tape *t)
{
    const int32_t s = net->states;
    const double *a = t->a + l * s;
    double with[KAC_MAX_STATES];
    double with2[KAC_MAX_STATES];
    for (int32_t v = 0; v < s; v++) {
        with[v] = a[v];
        with2[v] = fma(t->q[l * s + v], a[v], t->a2[l * s + v]);
    }
    observe(with, token, s);
    observe(with2, token, s);
    double sum = sum_of(with, s);
    for (int32_t v = 0; v < s && sum > 0; v++)
        with2[v] /= sum;
    push_right(net, with2, t->a2 + (l + 1) * s);
}

/* The gradient of one row. */
static void differentiate(const kac_net *net, const uint8_t *tokens, int32_t length,
                          const float *cotangent, const tape *t, float *grad)
{
    const int32_t s = net->states;
    fill_a(net, tokens, length, t->a);
    fill_b(net, tokens, length, cotangent, t);
    memset(t->a2, 0, (size_t)s * sizeof *t->a2);
    for (int64_t l = 0; l < length; l++) {
        double total = 0;
        double mask = 0;
        double d[KAC_MAX_STATES];
        for (int32_t k = 0; k < s; k++) {
            int64_t i = l * s + k;
            double both = t->a[i] * t->b[i];
            d[k] = fma(t->a2[i], t->b[i], fma(t->a[i], t->b2[i], both * t->q[i]));
            if (tokens[l] == s || tokens[l] == k) total += both;
        }
        for (int32_t k = 0; k < s; k++) {
            d[k] = total > 0 ? d[k] / total : 0;
            mask += d[k];
            grad[l * (s + 1) + k] = (float)d[k];
        }
        grad[l * (s + 1) + s] = (float)mask;
        if (l + 1 < length) step_a2(net, tokens[l], l, t);
    }
}

kac_status kac_cpu_markov_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                              const float *cotangent, float *grad)
{
    (void)dev;
    const int32_t rows = kac_query_rows(q);
    const int64_t n = (int64_t)q->length * net->states;
    const size_t bytes = 5 * (size_t)n * sizeof(double);
    atomic_int failed = 0;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < rows; j++) {
        double *work = kac_cpu_scratch(bytes);
        tape t = {work, work + n, work + 2 * n, work + 3 * n, work + 4 * n};
        if (work != NULL)
            differentiate(net, kac_query_tokens(q, j), q->length, cotangent + j * n, &t,
                          grad + j * (n + q->length));
        else
            atomic_store(&failed, 1);
    }
    if (atomic_load(&failed))
        return KAC_FAIL(KAC_ERR_NOMEM, "markov: no %zu bytes for a row", bytes);
    return KAC_OK;
}
