/* table_cpu.c -- denoiser and reward that look every answer up. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "exact.h"
#include "ops.h"
#include "query.h"
#include "scratch_cpu.h"

struct kac_net {
    int32_t states; /* S */
    int32_t length; /* L */
    int64_t rows;
    float *values;
    int64_t objects; /* S^L */
    double *law;     /* denoiser: [objects], what the rows are posteriors of */
};

static void drop(kac_device *dev, kac_net *net)
{
    if (net == NULL) return;
    dev->ops->memory.release(dev, net->values);
    dev->ops->memory.release(dev, net->law);
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

/* p = softmax of the logits of one site; zeros where all are -INFINITY. */
static void softmax(const float *logits, int32_t states, double *p)
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
static void read_law(const kac_net *net, double *law)
{
    const int32_t s = net->states;
    int64_t prefixes = 1;
    law[0] = 1;
    for (int32_t l = 0; l < net->length; l++, prefixes *= s)
        for (int64_t i = prefixes - 1; i >= 0; i--) {
            double p[KAC_MAX_STATES];
            double weight = law[i];
            int64_t row = 0;
            int64_t place = 1;
            for (int32_t m = net->length - 1; m > l - 1; m--, place *= s + 1)
                row += s * place;
            for (int64_t digits = i; place < net->rows; digits /= s, place *= s + 1)
                row += digits % s * place;
            softmax(net->values + (row * net->length + l) * s, s, p);
            for (int32_t v = 0; v < s; v++)
                law[i * s + v] = weight * p[v];
        }
}

kac_status kac_cpu_table_denoiser_pack(kac_device *dev, const kac_table_weights *host_weights,
                                       kac_net **out)
{
    kac_net *net = NULL;
    KAC_TRY(
        pack(dev, host_weights, (int64_t)host_weights->length * host_weights->states, &net));
    net->objects = 1;
    for (int32_t l = 0; l < net->length; l++)
        net->objects *= net->states;
    net->law = dev->ops->memory.alloc(dev, (size_t)net->objects * sizeof *net->law);
    if (net->law == NULL) {
        drop(dev, net);
        return KAC_ERR_NOMEM;
    }
    read_law(net, net->law);
    *out = net;
    return KAC_OK;
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

/* Sites of object x (its number in base S) that a revealed token contradicts; the last of them
 * is *where. */
static int32_t contradictions(const kac_net *net, const uint8_t *tokens, int64_t x,
                              int32_t *where)
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
static int64_t letter(const kac_net *net, int64_t x, int64_t place)
{
    return x / place % net->states;
}

/* From weight[l][v], that of the objects that agree with the state and have letter v at l, to
 * q[l][v] = cotangent / posterior, minus the site's sum of cotangents (networks.h). */
static void centre(const kac_net *net, double total, const float *cotangent, double *q)
{
    const int32_t s = net->states;
    for (int32_t l = 0; l < net->length; l++, q += s, cotangent += s) {
        double sum = 0;
        for (int32_t v = 0; v < s; v++)
            if (q[v] > 0) sum += (double)cotangent[v];
        for (int32_t v = 0; v < s; v++)
            q[v] = (q[v] > 0 ? (double)cotangent[v] / (q[v] / total) : 0) - sum;
    }
}

/* The gradient of one row.  q, d: [L][S] zeros.  An object that agrees with the state counts
 * for each of its letters; one that a single revealed site contradicts, for that site's. */
static void denoiser_gradient(const kac_net *net, const uint8_t *tokens, const float *cotangent,
                              double *q, double *d, float *grad)
{
    const int32_t s = net->states;
    double total = 0;
    int32_t where = 0;
    for (int64_t x = 0; x < net->objects; x++) {
        if (net->law[x] == 0 || contradictions(net, tokens, x, &where) > 0) continue;
        total += net->law[x];
        for (int64_t l = net->length - 1, place = 1; l >= 0; l--, place *= s)
            q[l * s + letter(net, x, place)] += net->law[x];
    }
    if (total > 0) centre(net, total, cotangent, q);
    for (int64_t x = 0; x < net->objects && total > 0; x++) {
        int32_t wrong = net->law[x] == 0 ? 2 : contradictions(net, tokens, x, &where);
        if (wrong > 1) continue;
        double sum = 0;
        for (int64_t l = net->length - 1, place = 1; l >= 0; l--, place *= s)
            sum += q[l * s + letter(net, x, place)];
        sum *= net->law[x] / total;
        for (int64_t l = net->length - 1, place = 1; l >= 0; l--, place *= s)
            if (wrong == 0 || l == where) d[l * s + letter(net, x, place)] += sum;
    }
    for (int32_t l = 0; l < net->length; l++, grad += s + 1, d += s) {
        double mask = 0;
        for (int32_t k = 0; k < s; k++) {
            grad[k] = (float)d[k];
            mask += d[k];
        }
        grad[s] = (float)mask;
    }
}

kac_status kac_cpu_table_denoiser_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                                      const float *cotangent, float *grad)
{
    (void)dev;
    const int32_t rows = kac_query_rows(q);
    const int64_t n = (int64_t)net->length * net->states;
    const size_t bytes = 2 * (size_t)n * sizeof(double);
    atomic_int failed = 0;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < rows; j++) {
        double *work = kac_cpu_scratch(bytes);
        if (work == NULL) {
            atomic_store(&failed, 1);
            continue;
        }
        memset(work, 0, bytes);
        denoiser_gradient(net, kac_query_tokens(q, j), cotangent + j * n, work, work + n,
                          grad + j * (n + net->length));
    }
    if (atomic_load(&failed))
        return KAC_FAIL(KAC_ERR_NOMEM, "table: no %zu bytes for a row", bytes);
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

/* The gradient at a soft input, in d; d and e [L][S] are zeros.  A row of the table counts for
 * each of its letters with the product of the other sites' probabilities, in d times its value,
 * in e alone; left: [L + 1], that of the sites before. */
static void soft_gradient(const kac_net *net, const float *soft, double *left, double *d,
                          double *e)
{
    const int64_t s = net->states;
    double sum = 0;
    double found = 0;
    double missing = 0;
    for (int64_t row = 0; row < net->rows; row++) {
        const double value = (double)net->values[row];
        int64_t place = net->rows;
        left[0] = 1;
        for (int32_t l = 0; l < net->length; l++) {
            place /= s;
            left[l + 1] = left[l] * (double)soft[l * s + row / place % s];
        }
        if (value == -(double)INFINITY) {
            missing += left[net->length];
            continue;
        }
        found += left[net->length];
        sum = fma(left[net->length], value, sum);
        double right = 1;
        for (int32_t l = net->length - 1; l >= 0; l--, place *= s) {
            int64_t at = l * s + row / place % s;
            d[at] = fma(left[l] * right, value, d[at]);
            e[at] += left[l] * right;
            right *= (double)soft[at];
        }
    }
    if (!(missing > 0)) return;
    for (int64_t i = 0; i < net->length * s; i++)
        d[i] = found > 0 ? fma(-(sum / found), e[i], d[i]) / found : 0;
}

/* The same at a state: the table's values where one letter is put in place of another.  All
 * are 0 where two sites are masked, and those of other sites where one is. */
static void token_gradient(const kac_net *net, const uint8_t *tokens, double *d)
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
        if (masked >= 0 && l != masked) continue;
        int64_t first = number - (tokens[l] == s ? 0 : tokens[l]) * place;
        for (int64_t k = 0; k < s; k++) {
            float value = net->values[first + k * place];
            d[l * s + k] = value == -INFINITY ? 0 : (double)value;
        }
    }
}

kac_status kac_cpu_table_reward_vjp(kac_device *dev, const kac_net *net, const kac_query *q,
                                    const float *cotangent, float *grad)
{
    (void)dev;
    const int32_t rows = kac_query_rows(q);
    const int64_t n = (int64_t)net->length * net->states;
    const size_t bytes = (size_t)(2 * n + net->length + 1) * sizeof(double);
    atomic_int failed = 0;
#pragma omp parallel for schedule(static)
    for (int32_t j = 0; j < rows; j++) {
        double *d = kac_cpu_scratch(bytes);
        if (d == NULL) {
            atomic_store(&failed, 1);
            continue;
        }
        memset(d, 0, bytes);
        if (q->soft != NULL)
            soft_gradient(net, kac_query_soft(q, j, net->states), d + 2 * n, d, d + n);
        else
            token_gradient(net, kac_query_tokens(q, j), d);
        for (int64_t i = 0; i < n; i++)
            grad[j * n + i] = (float)((double)cotangent[j] * d[i]);
    }
    if (atomic_load(&failed))
        return KAC_FAIL(KAC_ERR_NOMEM, "table: no %zu bytes for a row", bytes);
    return KAC_OK;
}

void kac_cpu_table_reward_drop(kac_device *dev, kac_net *net)
{
    drop(dev, net);
}
