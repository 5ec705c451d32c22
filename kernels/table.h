/* table.h -- denoiser and reward that look every answer up: packing, and one row. */
#ifndef KAC_TABLE_H
#define KAC_TABLE_H

#include <math.h>
#include <stdlib.h>

#include "exact.h"
#include "pack.h"
#include "query.h"
#include "team.h"

struct kac_net {
    int32_t states; /* S */
    int32_t length; /* L */
    int64_t rows;
    float *values;
    int64_t objects; /* S^L */
    double *law;     /* denoiser: [objects], what the rows are posteriors of */
};

static inline void kac_table_drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->values);
    dev->ops->memory.release(dev, net->law);
    free(net);
}

/* ---- the law, in the host's memory ------------------------------------------------------- */

/* p = softmax of the logits of one site; zeros where all are -INFINITY. */
static inline void kac_table_softmax(const float *logits, int32_t states, double *p)
{
    double most = -(double)INFINITY;
    double sum = 0;
    for (int32_t v = 0; v < states; v++)
        most = (double)logits[v] > most ? (double)logits[v] : most;
    for (int32_t v = 0; v < states; v++) {
        p[v] = most > -(double)INFINITY ? kac_exp((double)logits[v] - most) : 0;
        sum += p[v];
    }
    for (int32_t v = 0; v < states && sum > 0; v++)
        p[v] /= sum;
}

/* law(x), a product over sites from the first to the last: site l is drawn given x_0 .. x_{l-1}
 * with all else masked.  The prefixes of l + 1 letters take the place of those of l letters,
 * from the last one down. */
static inline void kac_table_read_law(const kac_table_weights *w, double *law)
{
    const int32_t s = w->states;
    int64_t prefixes = 1;
    law[0] = 1;
    for (int32_t l = 0; l < w->length; l++, prefixes *= s)
        for (int64_t i = prefixes - 1; i >= 0; i--) {
            double p[KAC_MAX_STATES];
            double weight = law[i];
            int64_t row = 0;
            int64_t place = 1;
            for (int32_t m = w->length - 1; m > l - 1; m--, place *= s + 1)
                row += s * place;
            for (int64_t digits = i; place < w->rows; digits /= s, place *= s + 1)
                row += digits % s * place;
            kac_table_softmax(w->values + (row * w->length + l) * s, s, p);
            for (int32_t v = 0; v < s; v++)
                law[i * s + v] = weight * p[v];
        }
}

/* A network of `width` values a row, and of the law where the table is a denoiser's. */
static inline kac_status kac_table_pack(kac_device *dev, const kac_table_weights *host_weights,
                                        int64_t width, bool denoiser, kac_net **out)
{
    const kac_table_weights *w = host_weights;
    const size_t bytes = (size_t)(w->rows * width) * sizeof(float);
    double *law = NULL;
    kac_status status = KAC_OK;
    kac_net *net = kac_net_new(sizeof *net);
    if (net == NULL) return KAC_ERR_NOMEM;
    net->states = w->states;
    net->length = w->length;
    net->rows = w->rows;
    net->objects = 1;
    for (int32_t l = 0; l < w->length; l++)
        net->objects *= w->states;
    KAC_TRY_DONE(KAC_PACK(dev, net->values, w->values, bytes));
    if (denoiser) {
        law = (double *)malloc((size_t)net->objects * sizeof *law);
        KAC_TRY_DONE(law != NULL ? KAC_OK : KAC_ERR_NOMEM);
        kac_table_read_law(w, law);
        KAC_TRY_DONE(KAC_PACK(dev, net->law, law, (size_t)net->objects * sizeof *law));
    }
    *out = net;
    net = NULL;
done:
    free(law);
    kac_table_drop(dev, net);
    return status;
}

/* The number of a state in base `base`, first position most significant. */
KAC_HD static inline int64_t kac_table_row(const uint8_t *tokens, int32_t length, int32_t base)
{
    int64_t row = 0;
    for (int32_t l = 0; l < length; l++)
        row = row * base + tokens[l];
    return row;
}

/* Whether site l is this thread's. */
KAC_HD static inline bool kac_table_mine(kac_team t, int64_t l)
{
    return l % t.size == t.rank;
}

/* ---- denoiser --------------------------------------------------------------------------- */

/* The row of row j's state; a part is a logit. */
KAC_HD static inline void kac_table_logits(const kac_net *net, kac_team t,
                                           const uint8_t *tokens, float *out)
{
    const int64_t width = (int64_t)net->length * net->states;
    const float *row =
        net->values + kac_table_row(tokens, net->length, net->states + 1) * width;
    KAC_PARTS(i, t, width)
    out[i] = row[i];
}

/* Sites of object x (its number in base S) that a revealed token contradicts; the last of them
 * is *where. */
KAC_HD static inline int32_t kac_table_contradictions(const kac_net *net, const uint8_t *tokens,
                                                      int64_t x, int32_t *where)
{
    int32_t n = 0;
    for (int32_t l = net->length - 1; l >= 0; l--, x /= net->states)
        if (tokens[l] != net->states && tokens[l] != x % net->states) {
            *where = l;
            n++;
        }
    return n;
}

/* The letter of site l of object x; `place` is S^(L - 1 - l). */
KAC_HD static inline int64_t kac_table_letter(const kac_net *net, int64_t x, int64_t place)
{
    return x / place % net->states;
}

/* From the weights q[v] of the objects that agree with the state and have letter v at a site,
 * to cotangent / posterior, minus the site's sum of cotangents (networks.h). */
KAC_HD static inline void kac_table_centre(int32_t states, double total, const float *cotangent,
                                           double *q)
{
    double sum = 0;
    for (int32_t v = 0; v < states; v++)
        if (q[v] > 0) sum += (double)cotangent[v];
    for (int32_t v = 0; v < states; v++)
        q[v] = (q[v] > 0 ? (double)cotangent[v] / (q[v] / total) : 0) - sum;
}

/* Fills q [L][S]; returns the weight of the objects that agree with the state. */
KAC_HD static inline double kac_table_posterior(const kac_net *net, kac_team t,
                                                const uint8_t *tokens, const float *cotangent,
                                                double *q)
{
    const int32_t s = net->states;
    double total = 0;
    int32_t where = 0;
    for (int64_t x = 0; x < net->objects; x++) {
        if (net->law[x] == 0 || kac_table_contradictions(net, tokens, x, &where) > 0) continue;
        total += net->law[x];
        for (int64_t l = net->length - 1, place = 1; l >= 0; l--, place *= s)
            if (kac_table_mine(t, l)) q[l * s + kac_table_letter(net, x, place)] += net->law[x];
    }
    KAC_PARTS(l, t, total > 0 ? net->length : 0)
    kac_table_centre(s, total, cotangent + l * s, q + l * s);
    return total;
}

/* The gradient of one row; a part is a site.  q, d: [L][S].  An object that agrees with the
 * state counts for each of its letters; one that a single revealed site contradicts, for that
 * site's. */
KAC_HD static inline void kac_table_pull(const kac_net *net, kac_team t, const uint8_t *tokens,
                                         const float *cotangent, double *q, double *d,
                                         float *grad)
{
    const int32_t s = net->states;
    int32_t where = 0;
    KAC_PARTS(l, t, net->length)
    for (int32_t v = 0; v < s; v++)
        q[l * s + v] = d[l * s + v] = 0;
    double total = kac_table_posterior(net, t, tokens, cotangent, q);
    kac_meet(t);
    for (int64_t x = 0; x < net->objects && total > 0; x++) {
        int32_t wrong = net->law[x] == 0 ? 2 : kac_table_contradictions(net, tokens, x, &where);
        if (wrong > 1) continue;
        double sum = 0;
        for (int64_t l = net->length - 1, place = 1; l >= 0; l--, place *= s)
            sum += q[l * s + kac_table_letter(net, x, place)];
        sum *= net->law[x] / total;
        for (int64_t l = net->length - 1, place = 1; l >= 0; l--, place *= s)
            if (kac_table_mine(t, l) && (wrong == 0 || l == where))
                d[l * s + kac_table_letter(net, x, place)] += sum;
    }
    KAC_PARTS(l, t, net->length)
    {
        double mask = 0;
        for (int32_t k = 0; k < s; k++) {
            grad[l * (s + 1) + k] = (float)d[l * s + k];
            mask += d[l * s + k];
        }
        grad[l * (s + 1) + s] = (float)mask;
    }
}

/* ---- reward ----------------------------------------------------------------------------- */

/* The entry of a state. */
KAC_HD static inline float kac_table_entry(const kac_net *net, const uint8_t *tokens)
{
    for (int32_t l = 0; l < net->length; l++)
        if (tokens[l] == net->states) return 0;
    return net->values[kac_table_row(tokens, net->length, net->states)];
}

/* What the chains over the rows of the table have come to. */
typedef struct kac_table_sums {
    double sum;            /* probability times value, of values above -INFINITY */
    double found, missing; /* probability of those, and of the others */
} kac_table_sums;

KAC_HD static inline void kac_table_add(kac_table_sums *sums, double probability, float value)
{
    if (value == -INFINITY) {
        sums->missing += probability;
        return;
    }
    sums->found += probability;
    sums->sum = fma(probability, (double)value, sums->sum);
}

/* Probability of a row of the table under independent sites. */
KAC_HD static inline double kac_table_probability(const kac_net *net, const float *soft,
                                                  int64_t row)
{
    double probability = 1;
    for (int32_t l = net->length - 1; l >= 0; l--) {
        probability *= (double)soft[(int64_t)l * net->states + row % net->states];
        row /= net->states;
    }
    return probability;
}

/* The expected entry.  A part is a row's probability; the chains over the rows come after, as
 * many rows at a time as the team has threads.  work: [threads]. */
KAC_HD static inline float kac_table_expectation(const kac_net *net, kac_team t,
                                                 const float *soft, double *work)
{
    kac_table_sums sums = {0, 0, 0};
    for (int64_t first = 0; first < net->rows; first += t.size) {
        const int64_t left = net->rows - first, n = left < t.size ? left : t.size;
        if (t.rank < n) work[t.rank] = kac_table_probability(net, soft, first + t.rank);
        kac_meet(t);
        for (int64_t i = 0; i < n; i++)
            kac_table_add(&sums, work[i], net->values[first + i]);
        kac_meet(t);
    }
    if (sums.missing > 0) return sums.found > 0 ? (float)(sums.sum / sums.found) : -INFINITY;
    return (float)sums.sum;
}

/* Bytes of a row's working memory for gradients by `threads` threads: d and e [L][S], and for
 * each thread what kac_table_weigh leaves. */
static inline size_t kac_table_slope_bytes(const kac_net *net, int32_t threads)
{
    const size_t length = (size_t)net->length;
    return (2 * length * (size_t)net->states + (size_t)threads * (2 * length + 1)) *
           sizeof(double);
}

/* Of a row of the table: part[0], its probability; for each site l, part[1 + 2 l], the product
 * of the other sites' probabilities, and part[2 + 2 l], where its letter is in [L][S]. */
KAC_HD static inline void kac_table_weigh(const kac_net *net, const float *soft, int64_t row,
                                          double *part)
{
    const int64_t s = net->states;
    int64_t place = net->rows;
    double left = 1, right = 1;
    for (int64_t l = 0; l < net->length; l++) {
        place /= s;
        int64_t at = l * s + row / place % s;
        part[1 + 2 * l] = left;
        part[2 + 2 * l] = (double)at;
        left *= (double)soft[at];
    }
    part[0] = left;
    for (int64_t l = net->length - 1; l >= 0; l--) {
        part[1 + 2 * l] *= right;
        right *= (double)soft[(int64_t)part[2 + 2 * l]];
    }
}

/* The gradient at a soft input, in d; d and e [L][S] are zeros.  A row of the table counts for
 * each of its letters with the product of the other sites' probabilities, in d times its value,
 * in e alone.  A part is a row of the table, then a site; `work` as kac_table_slope_bytes. */
KAC_HD static inline void kac_table_soft_slope(const kac_net *net, kac_team t,
                                               const float *soft, double *d, double *e,
                                               double *work)
{
    const int64_t s = net->states, size = 2 * (int64_t)net->length + 1;
    kac_table_sums sums = {0, 0, 0};
    for (int64_t first = 0; first < net->rows; first += t.size) {
        const int64_t left = net->rows - first, n = left < t.size ? left : t.size;
        if (t.rank < n) kac_table_weigh(net, soft, first + t.rank, work + t.rank * size);
        kac_meet(t);
        for (int64_t i = 0; i < n; i++) {
            const float value = net->values[first + i];
            const double *part = work + i * size;
            kac_table_add(&sums, part[0], value);
            KAC_PARTS(l, t, value == -INFINITY ? 0 : net->length)
            {
                int64_t at = (int64_t)part[2 + 2 * l];
                d[at] = fma(part[1 + 2 * l], (double)value, d[at]);
                e[at] += part[1 + 2 * l];
            }
        }
        kac_meet(t);
    }
    if (!(sums.missing > 0)) return;
    KAC_PARTS(l, t, net->length)
    for (int64_t i = l * s; i < (l + 1) * s; i++)
        d[i] = sums.found > 0 ? fma(-(sums.sum / sums.found), e[i], d[i]) / sums.found : 0;
}

/* The same at a state: the table's values where one letter is put in place of another.  All
 * are 0 where two sites are masked, and those of other sites where one is.  A part is a site. */
KAC_HD static inline void kac_table_token_slope(const kac_net *net, kac_team t,
                                                const uint8_t *tokens, double *d)
{
    const int64_t s = net->states;
    int64_t number = 0;
    int32_t masked = -1;
    for (int32_t l = 0; l < net->length; l++) {
        if (tokens[l] == s && masked >= 0) return;
        if (tokens[l] == s) masked = l;
        number = number * s + (tokens[l] == s ? 0 : tokens[l]);
    }
    if (masked < 0 && net->values[number] == -INFINITY) return;
    int64_t place = 1;
    for (int32_t l = net->length - 1; l >= 0; l--, place *= s) {
        if (!kac_table_mine(t, l) || (masked >= 0 && l != masked)) continue;
        int64_t first = number - (tokens[l] == s ? 0 : tokens[l]) * place;
        for (int64_t k = 0; k < s; k++) {
            float value = net->values[first + k * place];
            d[l * s + k] = value == -INFINITY ? 0 : (double)value;
        }
    }
}

/* The gradient of row j. */
KAC_HD static inline void kac_table_slope(const kac_net *net, kac_team t, const kac_query *q,
                                          int32_t j, float cotangent, double *work, float *grad)
{
    const int64_t s = net->states, n = net->length * s;
    double *d = work, *e = work + n;
    KAC_PARTS(l, t, net->length)
    for (int64_t i = l * s; i < (l + 1) * s; i++)
        d[i] = e[i] = 0;
    if (q->soft != NULL)
        kac_table_soft_slope(net, t, kac_query_soft(q, j, net->states), d, e, work + 2 * n);
    else
        kac_table_token_slope(net, t, kac_query_tokens(q, j), d);
    KAC_PARTS(l, t, net->length)
    for (int64_t i = l * s; i < (l + 1) * s; i++)
        grad[i] = (float)((double)cotangent * d[i]);
}

#endif /* KAC_TABLE_H */
