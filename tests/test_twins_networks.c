/* test_twins_networks.c -- the exact and small networks of the build's own device against the
 * CPU's, byte for byte, at sizes that fill no team and no block. */
#include <math.h>
#include <stdlib.h>

#include "each_device.h"
#include "exact.h"
#include "net_file.h"

TestSuite(twins_networks, .init = need_device, .timeout = 600);

enum { MOST_ROWS = 1000 };

/* What a device does for an architecture. */
typedef struct functions {
    kac_net_forward_fn *forward;
    kac_net_vjp_fn *vjp; /* NULL: none */
    kac_net_drop_fn *drop;
    kac_net *net;
} functions;

typedef kac_status open_fn(kac_device *dev, const void *weights, functions *f);

#define OPENER(arch, vjp_)                                                                     \
    static kac_status open_##arch(kac_device *dev, const void *weights, functions *f)          \
    {                                                                                          \
        const kac_network_ops *all = &dev->ops->networks;                                      \
        *f = (functions){all->arch.forward, vjp_, all->arch.drop, NULL};                       \
        return all->arch.pack(dev, weights, &f->net);                                          \
    }
OPENER(table_denoiser, all->table_denoiser.vjp)
OPENER(table_reward, all->table_reward.vjp)
OPENER(markov, all->markov.vjp)
OPENER(pwm, all->pwm.vjp)
OPENER(filter, NULL)
OPENER(gmm, all->gmm.vjp)
OPENER(quadratic, all->quadratic.vjp)
OPENER(gin, all->gin.vjp)

/* A network and its queries. */
typedef struct subject {
    const char *name;
    open_fn *open;
    const void *weights;
    int states, length;
    int outputs;  /* floats of an answer */
    int channels; /* floats of a gradient, for each site */
    bool tokens, soft, vectors;
    int nodes; /* of graphs: a vector begins with a count of up to so many */
} subject;

/* ---- inputs, in the host's memory --------------------------------------------------------- */

typedef struct inputs {
    int rows, stride;
    uint8_t *tokens;
    float *soft, *cotangent;
    int32_t *src, *dst;
    int32_t count;
} inputs;

static void *make(size_t bytes)
{
    void *p = calloc(1, bytes + 1);
    cr_assert_not_null(p);
    return p;
}

static float *random_floats(uint64_t *seed, size_t n, float scale)
{
    float *x = make(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = scale * net_file_random(seed);
    return x;
}

/* Rows that a window from 3 on reads and writes in other orders, all but the last. */
static inputs random_inputs(const subject *s, int rows)
{
    uint64_t seed = 17 + (uint64_t)rows;
    size_t n = (size_t)rows;
    inputs in = {.rows = rows, .stride = s->vectors ? 4 * s->length + 12 : s->length + 3};
    in.tokens = make(n * (size_t)in.stride);
    in.soft = random_floats(&seed, n * (size_t)(s->length * s->states), 0.5f);
    in.cotangent = random_floats(&seed, n * (size_t)s->outputs, 1);
    in.src = make(n * sizeof *in.src);
    in.dst = make(n * sizeof *in.dst);
    in.count = 3 + rows - (rows > 1);
    for (int i = 0; i < rows * s->length * s->states; i++)
        if (!s->vectors) in.soft[i] += 0.5f;
    for (int i = 0; i < rows; i++) {
        uint8_t *row = in.tokens + (ptrdiff_t)i * in.stride;
        in.src[i] = (i + 1) * 7 % rows;
        in.dst[i] = rows - 1 - i;
        if (s->nodes > 0) in.soft[i * s->length] = (float)(i * 5 % (s->nodes + 3)) - 1;
        if (s->vectors) memcpy(row, in.soft + (ptrdiff_t)i * s->length, 4 * (size_t)s->length);
        for (int l = 0; l < s->length && !s->vectors; l++) {
            row[l] = (uint8_t)((net_file_random(&seed) + 1) / 2 * (float)s->states);
            if (net_file_random(&seed) > 0.9f - 0.5f * (float)(i % 4))
                row[l] = (uint8_t)s->states;
            if (l > 0 && i % 3 == 0 && net_file_random(&seed) > -0.5f) row[l] = row[l - 1];
        }
    }
    return in;
}

static void free_inputs(inputs *in)
{
    free(in->tokens);
    free(in->soft);
    free(in->cotangent);
    free(in->src);
    free(in->dst);
}

/* ---- one device --------------------------------------------------------------------------- */

/* Device memory with a copy of `bytes` of the host's. */
static void *sent(kac_device *dev, const void *host, size_t bytes)
{
    void *p = dev->ops->memory.alloc(dev, bytes);
    cr_assert_not_null(p);
    cr_assert_eq(dev->ops->memory.upload(dev, p, host, bytes), KAC_OK, "%s", kac_last_error());
    return p;
}

/* Brings `bytes` back and releases them. */
static void fetch(kac_device *dev, void *host, void *p, size_t bytes)
{
    cr_assert_eq(dev->ops->memory.download(dev, host, p, bytes), KAC_OK, "%s",
                 kac_last_error());
    dev->ops->memory.release(dev, p);
}

static size_t answer_bytes(const subject *s, int rows)
{
    return (size_t)(rows * s->outputs) * sizeof(float);
}

static size_t gradient_bytes(const subject *s, int rows)
{
    return (size_t)(rows * s->length * s->channels) * sizeof(float);
}

/* Answers and gradients of `in`, as one block: of tokens, or of soft inputs. */
static float *compute(kac_device *dev, const subject *s, const inputs *in, bool soft)
{
    static const kac_level level = {.gaussian = {.scale = 0.7, .noise = 0.4}};
    static const kac_clock clock = {0, 0};
    size_t n = (size_t)in->rows, out = answer_bytes(s, in->rows);
    size_t grad = gradient_bytes(s, in->rows), soft_bytes = n * (size_t)(s->length * s->states);
    float *host = make(out + grad);
    functions f;
    cr_assert_eq(s->open(dev, s->weights, &f), KAC_OK, "%s: %s", s->name, kac_last_error());
    memset(host, 0xee, out + grad);
    uint8_t *tokens = sent(dev, in->tokens, n * (size_t)in->stride);
    float *given = sent(dev, in->soft, soft_bytes * sizeof(float));
    float *cotangent = sent(dev, in->cotangent, out);
    int32_t *src = sent(dev, in->src, n * sizeof *src),
            *dst = sent(dev, in->dst, n * sizeof *dst);
    int32_t *count = sent(dev, &in->count, sizeof *count);
    kac_level *levels = sent(dev, &level, sizeof level);
    kac_clock *at = sent(dev, &clock, sizeof clock);
    float *answers = sent(dev, host, out), *gradients = sent(dev, host, grad);
    kac_query q = {.tokens = tokens,
                   .soft = soft ? given : NULL,
                   .stride = in->stride,
                   .length = s->length,
                   .src = src,
                   .dst = dst,
                   .count = count,
                   .first = 3,
                   .capacity = in->rows,
                   .levels = levels,
                   .clock = at,
                   .out = answers,
                   .out_stride = s->outputs};
    cr_assert_eq(f.forward(dev, f.net, &q), KAC_OK, "%s: %s", s->name, kac_last_error());
    if (f.vjp != NULL) cr_assert_eq(f.vjp(dev, f.net, &q, cotangent, gradients), KAC_OK);
    fetch(dev, host, answers, out);
    fetch(dev, (char *)host + out, gradients, grad);
    void *used[] = {tokens, given, cotangent, src, dst, count, levels, at};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        dev->ops->memory.release(dev, used[i]);
    f.drop(dev, f.net);
    f.drop(dev, NULL);
    return host;
}

/* ---- both ---------------------------------------------------------------------------------- */

static void compare(const subject *s)
{
    static const int sizes[] = {1, 31, 33, 257, MOST_ROWS};
    kac_device *cpu = open_device(-1), *own = open_own();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        inputs in = random_inputs(s, sizes[i]);
        size_t bytes = answer_bytes(s, sizes[i]) + gradient_bytes(s, sizes[i]);
        for (int soft = 0; soft < 2; soft++) {
            if (soft ? !s->soft : !s->tokens) continue;
            float *want = compute(cpu, s, &in, soft), *got = compute(own, s, &in, soft);
            for (size_t k = 0; k < bytes / sizeof *want; k++)
                cr_assert(kac_bits(want[k]) == kac_bits(got[k]),
                          "%s, %d rows, soft %d: float %zu of %zu is %a, want %a", s->name,
                          sizes[i], soft, k, bytes / sizeof *want, (double)got[k],
                          (double)want[k]);
            free(want);
            free(got);
        }
        free_inputs(&in);
    }
    kac_device_close(cpu);
    kac_device_close(own);
}

static int power(int base, int exponent)
{
    int n = 1;
    while (exponent-- > 0)
        n *= base;
    return n;
}

Test(twins_networks, tables)
{
    static const int shapes[][2] = {{1, 1}, {3, 4}, {20, 2}, {2, 7}};
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int s = shapes[i][0], length = shapes[i][1], rows = power(s + 1, length);
        kac_table_weights w = {s, length, rows, NULL};
        float *values = random_floats(&seed, (size_t)(rows * length * s), 3);
        for (int k = 0; k < rows * length * s; k += 11)
            values[k] = -INFINITY;
        w.values = values;
        compare(&(subject){"table_denoiser", open_table_denoiser, &w, s, length, length * s,
                           s + 1, true, false, false, 0});
        w.rows = power(s, length);
        compare(&(subject){"table_reward with gaps", open_table_reward, &w, s, length, 1, s,
                           true, true, false, 0});
        for (int k = 0; k < rows; k += 11)
            values[k] = 0.25f;
        compare(&(subject){"table_reward", open_table_reward, &w, s, length, 1, s, true, true,
                           false, 0});
        free(values);
    }
}

Test(twins_networks, markov)
{
    static const int shapes[][2] = {{1, 3}, {2, 1}, {4, 37}, {20, 11}, {32, 5}};
    uint64_t seed = 2;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int s = shapes[i][0], length = shapes[i][1];
        float *p = random_floats(&seed, (size_t)(s * (s + 1)), 1);
        for (int k = 0; k < s * (s + 1); k++)
            p[k] = p[k] < -0.8f && s > 1 ? 0 : p[k] + 1.5f; /* some steps are impossible */
        for (int u = 0; u <= s; u++) {
            float sum = 0;
            for (int v = 0; v < s; v++)
                sum += p[u * s + v];
            for (int v = 0; v < s; v++)
                p[u * s + v] /= sum;
        }
        kac_markov_weights w = {s, p, p + s};
        compare(&(subject){"markov", open_markov, &w, s, length, length * s, s + 1, true, false,
                           false, 0});
        free(p);
    }
}

Test(twins_networks, pwm)
{
    static const int shapes[][2] = {{1, 1}, {5, 9}, {4, 200}};
    uint64_t seed = 3;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int s = shapes[i][0], length = shapes[i][1];
        float *weight = random_floats(&seed, (size_t)(s * length), 2);
        kac_pwm_weights w = {s, length, weight};
        compare(&(subject){"pwm", open_pwm, &w, s, length, 1, s, true, true, false, 0});
        free(weight);
    }
}

Test(twins_networks, filters)
{
    static const int32_t width[] = {2, 3, 1, 50};
    uint32_t sets[56];
    for (int i = 0; i < 56; i++)
        sets[i] = 0xfU & ~(1U << i % 5);
    for (int length = 1; length < 200; length += 36)
        for (int kind = KAC_FILTER_SHARE; kind <= KAC_FILTER_MOTIF; kind++) {
            kac_filter_weights w = {(kac_filter_kind)kind, 4, 0x6, 4, width, sets};
            compare(&(subject){"filter", open_filter, &w, 4, length, 1, 0, true,
                               kind == KAC_FILTER_SHARE, false, 0});
        }
}

Test(twins_networks, gmm)
{
    static const int shapes[][2] = {{1, 1}, {3, 2}, {40, 7}, {5, 70}};
    uint64_t seed = 4;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int k = shapes[i][0], d = shapes[i][1];
        float *means = random_floats(&seed, (size_t)(k * d), 2);
        float *variances = random_floats(&seed, (size_t)(k * d), 0.5f);
        float *weights = random_floats(&seed, (size_t)k, 0.5f);
        for (int j = 0; j < k * d; j++)
            variances[j] += 0.5f;
        for (int j = 0; j < k; j++)
            weights[j] += 0.6f;
        for (int round = 0; round < 2; round++) {
            kac_gmm_weights w = {d, k, weights, means, variances, round};
            compare(&(subject){"gmm", open_gmm, &w, 1, d, d, 1, true, false, true, 0});
        }
        free(means);
        free(variances);
        free(weights);
    }
}

Test(twins_networks, quadratic)
{
    static const int shapes[][2] = {{1, 1}, {2, 3}, {40, 65}, {100, 2}};
    uint64_t seed = 5;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int m = shapes[i][0], d = shapes[i][1];
        float *matrix = random_floats(&seed, (size_t)(m * d), 1);
        float *target = random_floats(&seed, (size_t)m, 1);
        float *deviation = random_floats(&seed, (size_t)m, 0.5f);
        float *linear = random_floats(&seed, (size_t)d, 1);
        for (int j = 0; j < m; j++)
            deviation[j] += 0.75f;
        for (int k = 0; k < 2; k++) {
            kac_quadratic_weights w = {d, m, matrix, target, deviation, k ? linear : NULL};
            compare(
                &(subject){"quadratic", open_quadratic, &w, 1, d, 1, 1, true, true, true, 0});
        }
        free(matrix);
        free(target);
        free(deviation);
        free(linear);
    }
}

/* Sizes that fill no vector, and more than a chunk. */
Test(twins_networks, gin)
{
    static const int shapes[][5] = {
        {1, 1, 1, 1, 1}, {3, 2, 2, 5, 9}, {9, 4, 3, 33, 17}, {38, 9, 5, 70, 41}};
    uint64_t seed = 6;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int *shape = shapes[i], outputs = (int)i + 1;
        kac_gin_weights w = {shape[0], shape[1], shape[2], outputs, {{0}}, NULL, NULL};
        float *made[4 * KAC_GIN_MAX_LAYERS + 2];
        int count = 0, in = shape[1];
        for (int k = 0; k < w.layers; k++) {
            kac_gin_layer *layer = &w.layer[k];
            *layer = (kac_gin_layer){.in = in, .hidden = shape[3] + k, .out = shape[4] + k};
            const int sizes[2][2] = {{in, layer->hidden}, {layer->hidden, layer->out}};
            for (int h = 0; h < 2; h++) {
                size_t n = (size_t)(sizes[h][0] * sizes[h][1]);
                float scale = 1 / sqrtf((float)sizes[h][0]);
                layer->weight[h] = made[count++] = random_floats(&seed, n, scale);
                layer->bias[h] = made[count++] =
                    random_floats(&seed, (size_t)sizes[h][1], 0.5f);
            }
            in = layer->out;
        }
        w.weight = made[count++] = random_floats(&seed, (size_t)(in * outputs), 0.5f);
        w.bias = made[count++] = random_floats(&seed, (size_t)outputs, 0.5f);
        const int d = 1 + w.nodes * w.features + w.nodes * (w.nodes - 1) / 2;
        compare(&(subject){"gin", open_gin, &w, 1, d, outputs, 1, true, true, true, w.nodes});
        while (count > 0)
            free(made[--count]);
    }
}
