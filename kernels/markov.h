/* markov.h -- denoiser of a Markov chain, exact posteriors by forward-backward: packing, and one
 * row.  A part is a letter.
 *
 * a_l(v) is proportional to the probability of the revealed sites 0 .. l and x_l = v, b_l(v) to
 * that of the revealed sites after l given x_l = v; the posterior of site l is their product.
 *
 * The gradient (networks.h) is a sum over paths of weight(x) (q_0(x_0) + q_1(x_1) + ..), so
 * each message a goes with a second one, A, its paths' weights times their sums of q so far;
 * both take the same scale.
 */
#ifndef KAC_MARKOV_H
#define KAC_MARKOV_H

#include <math.h>
#include <stdlib.h>

#include "exact.h"
#include "pack.h"
#include "query.h"
#include "team.h"

struct kac_net {
    int32_t states;     /* S */
    double *initial;    /* [S] */
    double *transition; /* [S][S]: from, to */
};

static inline void kac_markov_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->initial);
    dev->ops->memory.release(dev, net->transition);
    free(net);
}

static inline kac_status kac_markov_pack(kac_device *dev,
                                         const kac_markov_weights *host_weights, kac_net **out)
{
    const size_t s = (size_t)host_weights->states;
    double initial[KAC_MAX_STATES], transition[KAC_MAX_STATES * KAC_MAX_STATES];
    kac_status status = KAC_OK;
    kac_net *net = kac_net_new(sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    for (size_t u = 0; u < s; u++)
        initial[u] = (double)host_weights->initial[u];
    for (size_t i = 0; i < s * s; i++)
        transition[i] = (double)host_weights->transition[i];
    net->states = host_weights->states;
    KAC_TRY_DONE(KAC_PACK(dev, net->initial, initial, s * sizeof(double)));
    KAC_TRY_DONE(KAC_PACK(dev, net->transition, transition, s * s * sizeof(double)));
    *out = net;
    net = NULL;
done:
    kac_markov_drop(dev, net);
    return status;
}

/* ---- steps ------------------------------------------------------------------------------ */

KAC_HD static inline double kac_markov_sum(const double *p, int32_t states)
{
    double sum = 0;
    for (int32_t v = 0; v < states; v++)
        sum += p[v];
    return sum;
}

/* p where the sum of all is `sum`, scaled to sum to 1; all zeros stay zeros. */
KAC_HD static inline double kac_markov_scaled(double p, double sum)
{
    return sum > 0 ? p / sum : p;
}

/* p of letter v: 0 for every letter that a revealed site does not have. */
KAC_HD static inline double kac_markov_seen(double p, int64_t v, uint8_t token, int32_t states)
{
    return token == states || v == token ? p : 0;
}

/* A message to letter v of the next site, and to letter u of the one before. */
KAC_HD static inline double kac_markov_right(const kac_net *net, const double *from, int64_t v)
{
    double sum = 0;
    for (int32_t u = 0; u < net->states; u++)
        sum = fma(from[u], net->transition[(int64_t)u * net->states + v], sum);
    return sum;
}

KAC_HD static inline double kac_markov_left(const kac_net *net, const double *from, int64_t u)
{
    double sum = 0;
    for (int32_t v = 0; v < net->states; v++)
        sum = fma(net->transition[u * net->states + v], from[v], sum);
    return sum;
}

/* ---- forward ---------------------------------------------------------------------------- */

/* Bytes of a row's working memory: a [L][S] and three sites' messages. */
static inline size_t kac_markov_bytes(const kac_net *net, int32_t length)
{
    return ((size_t)length + 3) * (size_t)net->states * sizeof(double);
}

/* Logits of one site.  The sum is zero only if no sequence agrees with the revealed sites. */
KAC_HD static inline void kac_markov_posterior(kac_team t, const double *a, const double *b,
                                               uint8_t token, int32_t states, float *logits)
{
    double sum = 0;
    for (int32_t v = 0; v < states; v++)
        sum += a[v] * b[v];
    KAC_PARTS(v, t, states)
    {
        double p = a[v] * b[v];
        if (token < states)
            logits[v] = v == token ? 0 : -INFINITY;
        else if (!(sum > 0))
            logits[v] = 0;
        else
            logits[v] = p > 0 ? (float)kac_log(p / sum) : -INFINITY;
    }
}

/* The logits of a row. */
KAC_HD static inline void kac_markov_answer(const kac_net *net, kac_team t,
                                            const uint8_t *tokens, int32_t length, double *work,
                                            float *logits)
{
    const int32_t s = net->states;
    double *raw = work, *b = raw + s, *seen = b + s, *a = seen + s;
    for (int64_t l = 0; l < length; l++) {
        KAC_PARTS(v, t, s)
        {
            double p = l == 0 ? net->initial[v] : kac_markov_right(net, a + (l - 1) * s, v);
            raw[v] = kac_markov_seen(p, v, tokens[l], s);
        }
        kac_meet(t);
        double sum = kac_markov_sum(raw, s);
        KAC_PARTS(v, t, s)
        a[l * s + v] = kac_markov_scaled(raw[v], sum);
        kac_meet(t);
    }
    KAC_PARTS(v, t, s)
    b[v] = 1;
    kac_meet(t);
    for (int64_t l = length - 1; l >= 0; l--) {
        kac_markov_posterior(t, a + l * s, b, tokens[l], s, logits + l * s);
        KAC_PARTS(v, t, s)
        seen[v] = kac_markov_seen(b[v], v, tokens[l], s);
        kac_meet(t);
        KAC_PARTS(u, t, s)
        raw[u] = kac_markov_left(net, seen, u);
        kac_meet(t);
        double sum = kac_markov_sum(raw, s);
        KAC_PARTS(u, t, s)
        b[u] = kac_markov_scaled(raw[u], sum);
        kac_meet(t);
    }
}

/* ---- vector-Jacobian product ------------------------------------------------------------ */

/* What a row needs, [L][S] each: a before the evidence of the site and its second message; b and
 * its second message; q; and four sites' messages. */
typedef struct kac_markov_tape {
    double *a, *a2, *b, *b2, *q;
    double *with[4]; /* [S] each */
} kac_markov_tape;

static inline size_t kac_markov_tape_bytes(const kac_net *net, int32_t length)
{
    return (5 * (size_t)length + 4) * (size_t)net->states * sizeof(double);
}

KAC_HD static inline kac_markov_tape kac_markov_tape_in(const kac_net *net, int32_t length,
                                                        double *memory)
{
    const int64_t s = net->states, n = length * s;
    double *with = memory + 5 * n;
    kac_markov_tape tape = {memory,         memory + n,
                            memory + 2 * n, memory + 3 * n,
                            memory + 4 * n, {with, with + s, with + 2 * s, with + 3 * s}};
    return tape;
}

/* The messages a to all sites, without the evidence of the site itself. */
KAC_HD static inline void kac_markov_fill_a(const kac_net *net, kac_team t,
                                            const uint8_t *tokens, int32_t length,
                                            const kac_markov_tape *m)
{
    const int32_t s = net->states;
    double *a = m->a, *seen = m->with[0], *with = m->with[1];
    KAC_PARTS(v, t, s)
    a[v] = net->initial[v];
    for (int32_t l = 0; l + 1 < length; l++, a += s) {
        KAC_PARTS(v, t, s)
        seen[v] = kac_markov_seen(a[v], v, tokens[l], s);
        kac_meet(t);
        double sum = kac_markov_sum(seen, s);
        KAC_PARTS(v, t, s)
        with[v] = kac_markov_scaled(seen[v], sum);
        kac_meet(t);
        KAC_PARTS(v, t, s)
        a[s + v] = kac_markov_right(net, with, v);
    }
    kac_meet(t);
}

/* q of site l from its posterior. */
KAC_HD static inline void kac_markov_fill_q(const kac_net *net, kac_team t, uint8_t token,
                                            int64_t l, const float *cotangent,
                                            const kac_markov_tape *m)
{
    const int32_t s = net->states;
    double *both = m->with[0], *p = m->with[1], sum = 0;
    KAC_PARTS(v, t, s)
    both[v] = kac_markov_seen(m->a[l * s + v] * m->b[l * s + v], v, token, s);
    kac_meet(t);
    double total = kac_markov_sum(both, s);
    KAC_PARTS(v, t, s)
    p[v] = kac_markov_scaled(both[v], total);
    kac_meet(t);
    for (int32_t v = 0; v < s; v++)
        if (p[v] > 0) sum += (double)cotangent[v];
    KAC_PARTS(v, t, s)
    m->q[l * s + v] = (p[v] > 0 ? (double)cotangent[v] / p[v] : 0) - sum;
}

/* The messages b with their second ones to the site before l. */
KAC_HD static inline void kac_markov_step_b(const kac_net *net, kac_team t, uint8_t token,
                                            int64_t l, const kac_markov_tape *m)
{
    const int32_t s = net->states;
    double *b = m->b + l * s, *b2 = m->b2 + l * s, *const *with = m->with;
    KAC_PARTS(v, t, s)
    {
        with[2][v] = kac_markov_seen(b[v], v, token, s);
        with[3][v] = kac_markov_seen(fma(m->q[l * s + v], b[v], b2[v]), v, token, s);
    }
    kac_meet(t);
    KAC_PARTS(u, t, s)
    {
        with[0][u] = kac_markov_left(net, with[2], u);
        with[1][u] = kac_markov_left(net, with[3], u);
    }
    kac_meet(t);
    double sum = kac_markov_sum(with[0], s);
    KAC_PARTS(u, t, s)
    {
        b[u - s] = kac_markov_scaled(with[0][u], sum);
        b2[u - s] = kac_markov_scaled(with[1][u], sum);
    }
    kac_meet(t);
}

/* The second messages of a to the site after l. */
KAC_HD static inline void kac_markov_step_a2(const kac_net *net, kac_team t, uint8_t token,
                                             int64_t l, const kac_markov_tape *m)
{
    const int32_t s = net->states;
    const double *a = m->a + l * s;
    double *with = m->with[2], sum = 0;
    for (int32_t v = 0; v < s; v++)
        sum += kac_markov_seen(a[v], v, token, s);
    KAC_PARTS(v, t, s)
    {
        double both = fma(m->q[l * s + v], a[v], m->a2[l * s + v]);
        with[v] = kac_markov_scaled(kac_markov_seen(both, v, token, s), sum);
    }
    kac_meet(t);
    KAC_PARTS(v, t, s)
    m->a2[(l + 1) * s + v] = kac_markov_right(net, with, v);
    kac_meet(t);
}

/* The gradient at site l, [S + 1]. */
KAC_HD static inline void kac_markov_site(const kac_net *net, kac_team t, uint8_t token,
                                          int64_t l, const kac_markov_tape *m, float *grad)
{
    const int32_t s = net->states;
    double *d = m->with[0], total = 0;
    for (int32_t k = 0; k < s; k++)
        if (token == s || token == k) total += m->a[l * s + k] * m->b[l * s + k];
    KAC_PARTS(k, t, s)
    {
        const int64_t i = l * s + k;
        double both = m->a[i] * m->b[i];
        double sum = fma(m->a2[i], m->b[i], fma(m->a[i], m->b2[i], both * m->q[i]));
        d[k] = total > 0 ? sum / total : 0;
        grad[k] = (float)d[k];
    }
    kac_meet(t);
    if (t.rank == 0) grad[s] = (float)kac_markov_sum(d, s);
}

/* The gradient of one row. */
KAC_HD static inline void kac_markov_pull(const kac_net *net, kac_team t, const uint8_t *tokens,
                                          int32_t length, const float *cotangent,
                                          const kac_markov_tape *m, float *grad)
{
    const int32_t s = net->states;
    kac_markov_fill_a(net, t, tokens, length, m);
    KAC_PARTS(v, t, s)
    {
        m->b[(length - 1) * (int64_t)s + v] = 1;
        m->b2[(length - 1) * (int64_t)s + v] = 0;
        m->a2[v] = 0;
    }
    for (int64_t l = length - 1; l >= 0; l--) {
        kac_markov_fill_q(net, t, tokens[l], l, cotangent + l * s, m);
        if (l > 0) kac_markov_step_b(net, t, tokens[l], l, m);
    }
    kac_meet(t);
    for (int64_t l = 0; l < length; l++) {
        kac_markov_site(net, t, tokens[l], l, m, grad + l * (s + 1));
        if (l + 1 < length) kac_markov_step_a2(net, t, tokens[l], l, m);
    }
}

#endif /* KAC_MARKOV_H */
