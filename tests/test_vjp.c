/* test_vjp.c -- vector-Jacobian products of every network: against central differences of a
 * plain forward in double, against PyTorch, and the same bits for any batch, threads,
 * instruction set and list. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "each_device.h"
#include "exact.h"
#include "net_file.h"
#include "network.h"

TestSuite(vjp, .timeout = 120);

/* ---- a network and its mathematical definition ------------------------------------------ */

typedef struct subject subject;
struct subject {
    const char *name;
    const void *weights;
    int rows, length, states;
    int channels; /* of the input: S + 1 (denoiser) or S */
    int outputs;  /* of a row: length S of a denoiser, or the heads of a reward */
    kac_status (*pack)(kac_device *dev, const void *weights, kac_net **out);
    kac_net_vjp_fn *vjp;
    kac_net_drop_fn *drop;
    /* out [outputs] of the input u [length][channels]; false where it is not defined. */
    bool (*plain)(const subject *s, const double *u, double *out);
};

/* pack_ARCH, vjp_ARCH and drop_ARCH: those of the device. */
#define NETWORK(arch)                                                                          \
    static kac_status pack_##arch(kac_device *dev, const void *weights, kac_net **out)         \
    {                                                                                          \
        return dev->ops->networks.arch.pack(dev, weights, out);                                \
    }                                                                                          \
    static kac_status vjp_##arch(kac_device *dev, const kac_net *net, const kac_query *q,      \
                                 const float *cotangent, float *grad)                          \
    {                                                                                          \
        return dev->ops->networks.arch.vjp(dev, net, q, cotangent, grad);                      \
    }                                                                                          \
    static void drop_##arch(kac_device *dev, kac_net *net)                                     \
    {                                                                                          \
        dev->ops->networks.arch.drop(dev, net);                                                \
    }

static bool is_denoiser(const subject *s)
{
    return s->channels == s->states + 1;
}

static const float sigma = 0.73f;
static const kac_level level = {.sigma = 0.73f};
static const kac_clock start = {0, 0};

/* A query for `rows` rows from `tokens` or `soft`. */
static kac_query query_of(const subject *s, const uint8_t *tokens, const float *soft, int rows)
{
    return (kac_query){.tokens = tokens,
                       .soft = soft,
                       .stride = s->length,
                       .length = s->length,
                       .capacity = rows,
                       .levels = &level,
                       .clock = &start};
}

static void *make(size_t count, size_t size)
{
    void *p = calloc(count + 1, size);
    cr_assert_not_null(p);
    return p;
}

/* Uniform on [-size, size). */
static float *random_floats(uint64_t *seed, size_t n, float size)
{
    float *x = make(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = size * net_file_random(seed);
    return x;
}

/* Row `row` of tokens or soft as real numbers. */
static double *input_of(const subject *s, const uint8_t *tokens, const float *soft, int row)
{
    double *u = make((size_t)(s->length * s->channels), sizeof *u);
    for (int l = 0; l < s->length; l++) {
        int at = row * s->length + l;
        for (int k = 0; k < s->channels; k++)
            u[l * s->channels + k] =
                soft != NULL ? (double)soft[at * s->channels + k] : tokens[at] == k;
    }
    return u;
}

/* The derivative of cotangent . plain(u) in every direction, by central differences.  Outputs
 * of -INFINITY do not count. */
static void differences(const subject *s, double *u, const float *cotangent, double *grad)
{
    const double step = 1e-6;
    const int n = s->length * s->channels;
    double *out = make((size_t)s->outputs, sizeof *out);
    double *side = make((size_t)s->outputs, sizeof *side);
    bool defined = s->plain(s, u, out);
    for (int i = 0; i < n; i++) {
        double value = u[i];
        double sum = 0;
        for (int sign = -1; defined && sign <= 1; sign += 2) {
            u[i] = value + sign * step;
            cr_assert(s->plain(s, u, side));
            for (int o = 0; o < s->outputs; o++)
                if (!isinf(out[o])) sum += sign * (double)cotangent[o] * (side[o] - out[o]);
        }
        u[i] = value;
        grad[i] = sum / (2 * step);
    }
    free(out);
    free(side);
}

/* got [n] is want up to the rounding of float32 at the size of the largest. */
static void expect_close(const float *got, const double *want, int n, const char *what, int row)
{
    double most = 0;
    for (int i = 0; i < n; i++)
        most = fabs(want[i]) > most ? fabs(want[i]) : most;
    for (int i = 0; i < n; i++)
        cr_assert(fabs((double)got[i] - want[i]) <= 1e-4 * most + 1e-7,
                  "%s, row %d: value %d is %g, want %g", what, row, i, (double)got[i], want[i]);
}

static void expect_bits(const float *a, const float *b, int n, const char *name,
                        const char *what)
{
    for (int i = 0; i < n; i++)
        cr_assert(kac_bits(a[i]) == kac_bits(b[i]), "%s, %s: value %d is %a, want %a", name,
                  what, i, (double)a[i], (double)b[i]);
}

static void set_threads(int n)
{
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

static void differentiate(const subject *s, kac_device *dev, const kac_net *net,
                          const kac_query *q, const float *cotangent, float *grad)
{
    cr_assert(s->vjp(dev, net, q, cotangent, grad) == KAC_OK, "%s: %s", s->name,
              kac_last_error());
}

/* The rows again: with other threads, one by one, and through a list with a count below the
 * capacity, whose rows beyond stay as they are. */
static void expect_invariance(const subject *s, kac_device *dev, const kac_net *net,
                              const kac_query *all, const float *cotangent, const float *want)
{
    const int n = s->length * s->channels;
    float *grad = make((size_t)((s->rows + 3) * n), sizeof *grad);
    float *turned = make((size_t)((s->rows + 3) * s->outputs), sizeof *turned);
    int32_t *src = make((size_t)(s->rows + 3), sizeof *src);
    for (int threads = 1; threads <= 3; threads += 2) {
        set_threads(threads);
        memset(grad, 0xff, (size_t)(s->rows * n) * sizeof *grad);
        differentiate(s, dev, net, all, cotangent, grad);
        expect_bits(grad, want, s->rows * n, s->name, "threads");
    }
    kac_query q = *all;
    q.capacity = 1;
    for (int32_t i = 0; i < s->rows; i++) {
        q.src = &i;
        differentiate(s, dev, net, &q, cotangent + i * s->outputs, grad);
        expect_bits(grad, want + i * n, n, s->name, "alone");
    }
    for (int j = 0; j < s->rows + 3; j++) {
        src[j] = (j + 1) * 5 % s->rows;
        memcpy(turned + j * s->outputs, cotangent + src[j] * s->outputs,
               (size_t)s->outputs * sizeof *turned);
    }
    const int32_t count = s->rows + 2; /* of which the window from 3 on sees rows - 1 */
    q.src = src;
    q.first = 3;
    q.count = &count;
    q.capacity = s->rows + 3;
    memset(grad, 0, (size_t)((s->rows + 3) * n) * sizeof *grad);
    differentiate(s, dev, net, &q, turned, grad);
    for (int j = 0; j < s->rows - 1; j++)
        expect_bits(grad + j * n, want + src[j] * n, n, s->name, "list");
    for (int i = (s->rows - 1) * n; i < (s->rows + 3) * n; i++)
        cr_assert(grad[i] == 0, "%s: wrote a row beyond the count", s->name);
    free(grad);
    free(turned);
    free(src);
}

/* Everything, for tokens or for probabilities. */
static void check_input(const subject *s, const uint8_t *tokens, const float *soft)
{
    uint64_t seed = 99;
    const int n = s->length * s->channels;
    float *cotangent = random_floats(&seed, (size_t)(s->rows * s->outputs), 1);
    float *first = make((size_t)(s->rows * n), sizeof *first);
    double *want = make((size_t)n, sizeof *want);
    bool have = false;
    for (int which = 0; which <= OWN_DEVICE; which++) {
        kac_device *dev = open_device(which);
        kac_net *net = NULL;
        if (dev == NULL) continue;
        kac_query q = query_of(s, tokens, soft, s->rows);
        kac_status status = s->pack(dev, s->weights, &net);
        cr_assert(status == KAC_OK, "%s", kac_last_error());
        if (!have) {
            differentiate(s, dev, net, &q, cotangent, first);
            for (int i = 0; i < s->rows; i++) {
                double *u = input_of(s, tokens, soft, i);
                differences(s, u, cotangent + i * s->outputs, want);
                expect_close(first + i * n, want, n, s->name, i);
                free(u);
            }
        }
        have = true;
        expect_invariance(s, dev, net, &q, cotangent, first);
        s->drop(dev, net);
        kac_device_close(dev);
    }
    cr_assert(have);
    free(cotangent);
    free(first);
    free(want);
}

/* Rows from all masked to none, and, where the network takes them, probabilities. */
static void check(const subject *s)
{
    uint64_t seed = 7;
    const int n = s->rows * s->length;
    uint8_t *tokens = make((size_t)n, 1);
    for (int i = 0; i < n; i++) {
        int row = i / s->length;
        float masked = (float)(s->rows - 1 - row) / (float)(s->rows - 1);
        tokens[i] = (uint8_t)((net_file_random(&seed) + 1) / 2 * (float)s->states);
        if ((net_file_random(&seed) + 1) / 2 < masked) tokens[i] = (uint8_t)s->states;
    }
    check_input(s, tokens, NULL);
    if (!is_denoiser(s)) {
        float *soft = random_floats(&seed, (size_t)(n * s->states), 0.5f);
        for (int i = 0; i < n * s->states; i++)
            soft[i] += 0.51f; /* no need to sum to 1 */
        check_input(s, NULL, soft);
        free(soft);
    }
    free(tokens);
}

/* The weights of a case, freed at its end. */
typedef struct pool {
    uint64_t seed;
    int used;
    float *part[160];
} pool;

static float *take(pool *p, size_t n, float size)
{
    cr_assert(p->used < (int)(sizeof p->part / sizeof *p->part));
    return p->part[p->used++] = random_floats(&p->seed, n, size);
}

static void empty(pool *p)
{
    for (int i = 0; i < p->used; i++)
        free(p->part[i]);
    p->used = 0;
}

/* ---- layers in double ------------------------------------------------------------------- */

static double relu(double x)
{
    return x > 0 ? x : 0;
}

/* How a plain convolution reads its weights: weight[o * out + c * in + k * tap]. */
typedef struct filter {
    const float *weight, *bias;
    int outputs, inputs, taps, out, in, tap;
    int dilation, pad;
} filter;

/* PyTorch's [outputs][inputs][taps], "same". */
static filter torch_filter(const float *weight, const float *bias, int outputs, int inputs,
                           int taps, int dilation)
{
    return (filter){weight,        bias, outputs, inputs,   taps,
                    inputs * taps, taps, 1,       dilation, taps / 2 * dilation};
}

static void plain_conv(const filter *f, int in_length, int out_length, const double *x,
                       double *y)
{
    for (int l = 0; l < out_length; l++)
        for (int o = 0; o < f->outputs; o++) {
            double sum = (double)f->bias[o];
            for (int k = 0; k < f->taps; k++) {
                int64_t from = l - f->pad + (int64_t)k * f->dilation;
                if (from < 0 || from >= in_length) continue;
                for (int c = 0; c < f->inputs; c++)
                    sum += x[from * f->inputs + c] *
                           (double)f->weight[o * f->out + c * f->in + k * f->tap];
            }
            y[l * f->outputs + o] = sum;
        }
}

static void plain_norm(const float *gamma, const float *beta, int n, const double *x, double *y)
{
    double mean = 0;
    double square = 0;
    for (int c = 0; c < n; c++)
        mean += x[c] / n;
    for (int c = 0; c < n; c++)
        square += (x[c] - mean) * (x[c] - mean) / n;
    for (int c = 0; c < n; c++)
        y[c] = (x[c] - mean) / sqrt(square + 1e-5) * (double)gamma[c] + (double)beta[c];
}

enum { WIDE = 40 * 64 }; /* doubles of the largest activation below */

/* ---- cnn1d ------------------------------------------------------------------------------ */

NETWORK(cnn1d)

/* What layer i adds to the residual stream before its norm; zeros without time features. */
static void plain_time(const kac_cnn1d_weights *w, int i, double *shift)
{
    const int h = w->hidden;
    double features[64];
    double embedded[64];
    double s = w->reads_time ? (double)sigma : 0;
    memset(shift, 0, (size_t)h * sizeof *shift);
    if (w->fourier == NULL) return;
    for (int c = 0; c < h / 2; c++) {
        features[c] = sin(2 * M_PI * s * (double)w->fourier[c]);
        features[h / 2 + c] = cos(2 * M_PI * s * (double)w->fourier[c]);
    }
    filter embed = torch_filter(w->embed, w->embed_bias, h, h, 1, 1);
    filter time = torch_filter(w->time[i], w->time_bias[i], h, h, 1, 1);
    plain_conv(&embed, 1, 1, features, embedded);
    for (int c = 0; c < h; c++)
        embedded[c] = relu(embedded[c]);
    plain_conv(&time, 1, 1, embedded, shift);
}

static bool plain_cnn1d(const subject *s, const double *u, double *out)
{
    static double feat[WIDE];
    static double h[WIDE];
    static double y[WIDE];
    const kac_cnn1d_weights *w = s->weights;
    const int n = w->hidden;
    const int length = s->length;
    filter f = torch_filter(w->linear, w->linear_bias, n, w->states + 1, w->kernel, 1);
    plain_conv(&f, length, length, u, feat);
    for (int i = 0; i < length * n; i++)
        feat[i] = relu(feat[i]);
    for (int i = 0; i < w->layers; i++) {
        double shift[64];
        plain_time(w, i, shift);
        for (int l = 0; l < length; l++) {
            double x[64];
            for (int c = 0; c < n; c++)
                x[c] = feat[l * n + c] + shift[c];
            plain_norm(w->norm[i], w->norm_bias[i], n, x, h + l * n);
        }
        f = torch_filter(w->conv[i], w->conv_bias[i], n, n, w->kernel, w->dilation[i]);
        plain_conv(&f, length, length, h, y);
        for (int j = 0; j < length * n; j++)
            feat[j] += relu(y[j]);
    }
    f = torch_filter(w->final0, w->final0_bias, n, n, 1, 1);
    plain_conv(&f, length, length, feat, h);
    for (int i = 0; i < length * n; i++)
        h[i] = relu(h[i]);
    f = torch_filter(w->final2, w->final2_bias, w->states, n, 1, 1); /* not the mask's */
    plain_conv(&f, length, length, h, out);
    return true;
}

typedef struct cnn1d_sizes {
    int length, states, hidden, kernel, layers;
    int32_t dilation[4];
    bool has_time, reads_time;
} cnn1d_sizes;

static kac_cnn1d_weights random_cnn1d(const cnn1d_sizes *z, pool *p)
{
    const size_t h = (size_t)z->hidden;
    const size_t k = (size_t)z->kernel;
    const size_t tokens = (size_t)z->states + 1;
    const float scale = 1 / sqrtf((float)z->hidden);
    kac_cnn1d_weights w = {.states = z->states,
                           .hidden = z->hidden,
                           .kernel = z->kernel,
                           .layers = z->layers,
                           .reads_time = z->reads_time};
    w.linear = take(p, h * tokens * k, 1);
    w.linear_bias = take(p, h, 1);
    for (int i = 0; i < z->layers; i++) {
        w.dilation[i] = z->dilation[i];
        w.conv[i] = take(p, h * h * k, scale);
        w.conv_bias[i] = take(p, h, 1);
        w.norm[i] = take(p, h, 2);
        w.norm_bias[i] = take(p, h, 1);
        if (!z->has_time) continue;
        w.time[i] = take(p, h * h, scale);
        w.time_bias[i] = take(p, h, 1);
    }
    if (z->has_time) {
        w.fourier = take(p, h / 2, 3);
        w.embed = take(p, h * h, scale);
        w.embed_bias = take(p, h, 1);
    }
    w.final0 = take(p, h * h, scale);
    w.final0_bias = take(p, h, 1);
    w.final2 = take(p, tokens * h, scale);
    w.final2_bias = take(p, tokens, 1);
    return w;
}

Test(vjp, cnn1d)
{
    static const cnn1d_sizes cases[] = {
        {13, 4, 9, 5, 3, {1, 4, 16}, false, false}, /* a dilation beyond the sequence */
        {7, 1, 3, 3, 1, {1}, false, false},         {1, 4, 6, 9, 2, {1, 2}, false, false},
        {11, 20, 17, 3, 2, {2, 3}, false, false}, /* more letters than channels */
        {10, 15, 35, 3, 1, {1}, false, false},    /* S + 1 fills a block, S does not */
        {12, 4, 10, 5, 2, {1, 3}, true, false},   /* time folded */
        {12, 4, 10, 5, 2, {1, 3}, true, true},    /* time read */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const cnn1d_sizes *z = &cases[i];
        pool p = {.seed = 11 + i};
        const kac_cnn1d_weights w = random_cnn1d(z, &p);
        char name[32];
        snprintf(name, sizeof name, "cnn1d %zu", i);
        const subject s = {name,
                           &w,
                           9,
                           z->length,
                           z->states,
                           z->states + 1,
                           z->length * z->states,
                           pack_cnn1d,
                           vjp_cnn1d,
                           drop_cnn1d,
                           plain_cnn1d};
        check(&s);
        empty(&p);
    }
}

/* ---- conv_regressor --------------------------------------------------------------------- */

NETWORK(conv_regressor)

static double plain_act(kac_activation act, double x)
{
    switch (act) {
    case KAC_ACT_LINEAR: return x;
    case KAC_ACT_RELU: return relu(x);
    case KAC_ACT_GELU: return 0.5 * x * (1 + erf(x / sqrt(2)));
    case KAC_ACT_TANH: return tanh(x);
    case KAC_ACT_ELU: return x > 0 ? x : exp(x) - 1;
    }
    return (double)NAN;
}

static double plain_pool(const kac_regressor_layer *a, const double *x, int l, int c)
{
    bool largest = a->kind == KAC_LAYER_MAXPOOL || a->kind == KAC_LAYER_GLOBALMAX;
    double most = -(double)INFINITY;
    double sum = 0;
    for (int t = l * a->size; t < (l + 1) * a->size; t++) {
        double value = x[t * a->in + c];
        most = value > most ? value : most;
        sum += value;
    }
    return largest ? most : sum / a->size;
}

static bool plain_regressor(const subject *s, const double *u, double *out)
{
    static double x[WIDE];
    static double y[WIDE];
    const kac_conv_regressor_weights *w = s->weights;
    memset(x, 0, sizeof x);
    for (int i = 0; i < w->prefix_length; i++)
        x[i * s->states + w->prefix[i]] = 1;
    memcpy(x + w->prefix_length * s->states, u, (size_t)(s->length * s->states) * sizeof *x);
    for (int i = 0; i < w->suffix_length; i++)
        x[(w->prefix_length + s->length + i) * s->states + w->suffix[i]] = 1;
    for (int i = 0; i < w->layers; i++) {
        const kac_regressor_layer *a = &w->layer[i];
        if (a->kind == KAC_LAYER_FLATTEN) continue; /* [l][c] is flat */
        if (a->kind == KAC_LAYER_CONV || a->kind == KAC_LAYER_DENSE) {
            const filter f = {a->kernel, a->bias, a->out,         a->in,       a->taps,
                              1,         a->out,  a->in * a->out, a->dilation, a->pad};
            plain_conv(&f, a->in_length, a->out_length, x, y);
            for (int j = 0; j < a->out_length * a->out; j++)
                y[j] = plain_act(a->act, y[j]);
        } else {
            for (int l = 0; l < a->out_length; l++)
                for (int c = 0; c < a->in; c++)
                    y[l * a->in + c] = plain_pool(a, x, l, c);
        }
        memcpy(x, y, sizeof x);
    }
    for (int o = 0; o < w->outputs; o++)
        out[o] = (double)w->scale * x[o] + (double)w->offset;
    return true;
}

/* One layer of a case. */
typedef struct part {
    kac_layer_kind kind;
    kac_activation act;
    int out, taps, dilation, size;
    bool same;
} part;

static void add_part(kac_conv_regressor_weights *w, const part *p, int in, int in_length,
                     pool *memory)
{
    kac_regressor_layer *a = &w->layer[w->layers++];
    *a = (kac_regressor_layer){.kind = p->kind,
                               .act = p->act,
                               .in = in,
                               .out = in,
                               .in_length = in_length,
                               .out_length = in_length,
                               .taps = 1,
                               .dilation = 1,
                               .size = 1};
    switch (p->kind) {
    case KAC_LAYER_CONV:
        a->taps = p->taps;
        a->dilation = p->dilation;
        a->pad = p->same ? (p->taps - 1) * p->dilation / 2 : 0;
        if (!p->same) a->out_length -= (p->taps - 1) * p->dilation;
        a->out = p->out;
        break;
    case KAC_LAYER_DENSE: a->out = p->out; break;
    case KAC_LAYER_MAXPOOL:
    case KAC_LAYER_AVGPOOL:
        a->size = p->size;
        a->out_length = in_length / p->size;
        break;
    case KAC_LAYER_GLOBALMAX:
    case KAC_LAYER_GLOBALAVG:
        a->size = in_length;
        a->out_length = 1;
        break;
    case KAC_LAYER_FLATTEN:
        a->out = in * in_length;
        a->out_length = 1;
        break;
    }
    if (p->kind != KAC_LAYER_CONV && p->kind != KAC_LAYER_DENSE) return;
    size_t n = (size_t)a->taps * (size_t)in;
    a->kernel = take(memory, n * (size_t)a->out, 2 / sqrtf((float)n));
    a->bias = take(memory, (size_t)a->out, 0.5f);
}

static void check_regressor(const char *name, int length, int states, const char *ends,
                            const part *parts, int count)
{
    static const uint8_t letters[] = {2, 0, 1, 1, 2};
    pool p = {.seed = 21};
    kac_conv_regressor_weights w = {.states = states,
                                    .length = length,
                                    .prefix = letters,
                                    .suffix = letters + 2,
                                    .prefix_length = ends[0] - '0',
                                    .suffix_length = ends[1] - '0',
                                    .scale = 1.5f,
                                    .offset = -0.25f};
    int in = states;
    int in_length = w.prefix_length + length + w.suffix_length;
    for (int i = 0; i < count; i++) {
        add_part(&w, &parts[i], in, in_length, &p);
        in = w.layer[i].out;
        in_length = w.layer[i].out_length;
    }
    w.outputs = in;
    const subject s = {name,
                       &w,
                       9,
                       length,
                       states,
                       states,
                       w.outputs,
                       pack_conv_regressor,
                       vjp_conv_regressor,
                       drop_conv_regressor,
                       plain_regressor};
    check(&s);
    empty(&p);
}

static part conv(kac_activation act, int out, int taps, int dilation, bool same)
{
    return (part){KAC_LAYER_CONV, act, out, taps, dilation, 0, same};
}

static part dense(kac_activation act, int out)
{
    return (part){KAC_LAYER_DENSE, act, out, 1, 1, 0, false};
}

static part plain(kac_layer_kind kind, int size)
{
    return (part){kind, KAC_ACT_LINEAR, 0, 1, 1, size, false};
}

Test(vjp, conv_regressor)
{
    /* Every layer and activation: widths that fill no block, even kernels, pools that drop a
     * remainder, a dilation that leaves some positions with one live tap. */
    const part every[] = {
        conv(KAC_ACT_GELU, 9, 7, 1, true), conv(KAC_ACT_RELU, 13, 5, 11, true),
        plain(KAC_LAYER_MAXPOOL, 2),       conv(KAC_ACT_TANH, 17, 3, 2, false),
        plain(KAC_LAYER_AVGPOOL, 3),       conv(KAC_ACT_ELU, 5, 4, 1, true),
        plain(KAC_LAYER_FLATTEN, 0),       dense(KAC_ACT_RELU, 7),
        dense(KAC_ACT_LINEAR, 3)};
    check_regressor("every layer", 28, 4, "23", every, 9);
    const part longer[] = {conv(KAC_ACT_LINEAR, 6, 9, 2, true), plain(KAC_LAYER_GLOBALMAX, 0)};
    check_regressor("a kernel longer than the sequence", 4, 3, "11", longer, 2);
    const part average[] = {conv(KAC_ACT_ELU, 18, 4, 2, false), plain(KAC_LAYER_GLOBALAVG, 0),
                            dense(KAC_ACT_GELU, 5), dense(KAC_ACT_TANH, 2)};
    check_regressor("globalavg", 23, 5, "10", average, 4);
    const part pools[] = {plain(KAC_LAYER_AVGPOOL, 2), conv(KAC_ACT_TANH, 7, 2, 1, false),
                          plain(KAC_LAYER_AVGPOOL, 2), plain(KAC_LAYER_FLATTEN, 0),
                          dense(KAC_ACT_LINEAR, 1)};
    check_regressor("a pool first", 11, 3, "01", pools, 5);
    check_regressor("only an average", 3, 3, "00", average + 1, 1);
    const part flat[] = {plain(KAC_LAYER_FLATTEN, 0), dense(KAC_ACT_GELU, 9),
                         dense(KAC_ACT_ELU, 2)};
    check_regressor("dense only", 5, 3, "11", flat, 3);
}

/* Ties and zeros have no derivative; the contract says what is given. */
Test(vjp, the_first_maximum_and_relu_at_zero)
{
    /* Two letters; pairs of sites, then a dense layer: 1 for each first maximum of letter 0. */
    const float kernel[] = {1, 0, 1, 0};
    const float bias[] = {-2};
    const kac_regressor_layer pool_layer = {.kind = KAC_LAYER_MAXPOOL,
                                            .in = 2,
                                            .out = 2,
                                            .in_length = 5,
                                            .out_length = 2,
                                            .size = 2};
    const kac_regressor_layer flatten = {
        .kind = KAC_LAYER_FLATTEN, .in = 2, .out = 4, .in_length = 2, .out_length = 1};
    kac_regressor_layer last = {.kind = KAC_LAYER_DENSE,
                                .in = 4,
                                .out = 1,
                                .in_length = 1,
                                .out_length = 1,
                                .taps = 1,
                                .dilation = 1,
                                .kernel = kernel,
                                .bias = bias};
    for (int relu_at_zero = 0; relu_at_zero < 2; relu_at_zero++) {
        last.act = relu_at_zero ? KAC_ACT_RELU : KAC_ACT_LINEAR;
        const kac_conv_regressor_weights w = {.states = 2,
                                              .length = 5,
                                              .outputs = 1,
                                              .layers = 3,
                                              .layer = {pool_layer, flatten, last},
                                              .scale = 1};
        const uint8_t tokens[5] = {0, 0, 1, 0, 0}; /* the sum is 2, less 2 */
        const float one = 1;
        const float slope = relu_at_zero ? 0 : 1;
        const float want[5][2] = {{slope, 0}, {0, 0}, {0, 0}, {slope, 0}, {0, 0}};
        float grad[5][2];
        kac_device *dev = open_own();
        kac_net *net = NULL;
        cr_assert(pack_conv_regressor(dev, &w, &net) == KAC_OK);
        const kac_query q = {.tokens = tokens, .stride = 5, .length = 5, .capacity = 1};
        cr_assert(vjp_conv_regressor(dev, net, &q, &one, grad[0]) == KAC_OK);
        expect_bits(grad[0], want[0], 10, "maxpool", "ties");
        drop_conv_regressor(dev, net);
        kac_device_close(dev);
    }
}

/* ---- convgru ---------------------------------------------------------------------------- */

NETWORK(convgru)

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

/* sum[t] += the states of one direction. */
static void plain_gru(const kac_convgru_weights *w, int d, int length, const double *x,
                      double *sum)
{
    static double input[WIDE];
    const int c = w->channels;
    double hidden[192];
    double h[64] = {0};
    const filter in = torch_filter(w->gru_input[d], w->gru_input_bias[d], 3 * c, c, 1, 1);
    const filter re = torch_filter(w->gru_hidden[d], w->gru_hidden_bias[d], 3 * c, c, 1, 1);
    plain_conv(&in, length, length, x, input);
    for (int i = 0; i < length; i++) {
        int t = d == 0 ? i : length - 1 - i;
        const double *a = input + t * 3 * c;
        plain_conv(&re, 1, 1, h, hidden);
        for (int k = 0; k < c; k++) {
            double r = logistic(a[k] + hidden[k]);
            double z = logistic(a[c + k] + hidden[c + k]);
            double n = tanh(a[2 * c + k] + r * hidden[2 * c + k]);
            h[k] = (1 - z) * n + z * h[k];
            sum[t * c + k] += h[k];
        }
    }
}

/* y = relu(norm(conv(x)) (+ x)) of block i. */
static void plain_block(const kac_convgru_weights *w, int i, int length, const double *x,
                        double *y)
{
    const int c = w->channels;
    const filter f = torch_filter(w->conv[i], w->conv_bias[i], c, c, KAC_CONVGRU_TAPS, 1);
    plain_conv(&f, length, length, x, y);
    for (int j = 0; j < length * c; j++) {
        const int k = j % c;
        if (w->norm[i] != NULL)
            y[j] = (y[j] - (double)w->norm_mean[i][k]) /
                       sqrt((double)w->norm_var[i][k] + 1e-5) * (double)w->norm[i][k] +
                   (double)w->norm_bias[i][k];
        y[j] = relu(y[j] + (w->residual ? x[j] : 0));
    }
}

static bool plain_convgru(const subject *s, const double *u, double *out)
{
    static double x[WIDE];
    static double y[WIDE];
    const kac_convgru_weights *w = s->weights;
    const int c = w->channels;
    const int length = s->length;
    filter f = torch_filter(w->stem, w->stem_bias, c, s->states, KAC_CONVGRU_STEM_TAPS, 1);
    plain_conv(&f, length, length, u, x);
    for (int i = 0; i < length * c; i++)
        x[i] = relu(x[i]);
    for (int i = 0; i < w->blocks; i++) {
        plain_block(w, i, length, x, y);
        memcpy(x, y, sizeof x);
    }
    memset(y, 0, sizeof y);
    plain_gru(w, 0, length, x, y);
    plain_gru(w, 1, length, x, y);
    double mean[64] = {0};
    for (int l = 0; l < length; l++) {
        double row[64];
        double wide[128];
        plain_norm(w->layer_norm, w->layer_norm_bias, c, y + l * c, row);
        f = torch_filter(w->ffn0, w->ffn0_bias, 2 * c, c, 1, 1);
        plain_conv(&f, 1, 1, row, wide);
        for (int k = 0; k < 2 * c; k++)
            wide[k] = relu(wide[k]);
        f = torch_filter(w->ffn1, w->ffn1_bias, c, 2 * c, 1, 1);
        plain_conv(&f, 1, 1, wide, row);
        for (int k = 0; k < c; k++)
            mean[k] += row[k] / length;
    }
    f = torch_filter(w->head, w->head_bias, w->outputs, c, 1, 1);
    plain_conv(&f, 1, 1, mean, out);
    return true;
}

static kac_convgru_weights random_convgru(int states, int channels, int blocks, bool norm,
                                          pool *p)
{
    const size_t c = (size_t)channels;
    const float scale = 1 / sqrtf((float)channels);
    kac_convgru_weights w = {
        .states = states, .channels = channels, .blocks = blocks, .outputs = 3};
    w.stem = take(p, c * (size_t)states * KAC_CONVGRU_STEM_TAPS, 0.5f);
    w.stem_bias = take(p, c, 0.3f);
    for (int i = 0; i < blocks; i++) {
        w.conv[i] = take(p, c * c * KAC_CONVGRU_TAPS, scale);
        w.conv_bias[i] = take(p, c, 0.3f);
        if (!norm) continue;
        float *var = take(p, c, 0.5f);
        for (size_t k = 0; k < c; k++)
            var[k] += 1;
        w.norm[i] = take(p, c, 1.5f);
        w.norm_bias[i] = take(p, c, 0.3f);
        w.norm_mean[i] = take(p, c, 0.3f);
        w.norm_var[i] = var;
    }
    for (int d = 0; d < 2; d++) {
        w.gru_input[d] = take(p, 3 * c * c, scale);
        w.gru_input_bias[d] = take(p, 3 * c, 0.3f);
        w.gru_hidden[d] = take(p, 3 * c * c, 2 * scale);
        w.gru_hidden_bias[d] = take(p, 3 * c, 0.3f);
    }
    w.layer_norm = take(p, c, 1);
    w.layer_norm_bias = take(p, c, 1);
    w.ffn0 = take(p, 2 * c * c, scale);
    w.ffn0_bias = take(p, 2 * c, 0.4f);
    w.ffn1 = take(p, 2 * c * c, scale);
    w.ffn1_bias = take(p, c, 0.3f);
    w.head = take(p, 3 * c, 1);
    w.head_bias = take(p, 3, 0.5f);
    return w;
}

Test(vjp, convgru)
{
    static const struct {
        int length, states, channels, blocks;
        bool norm, residual;
    } cases[] = {
        {17, 4, 11, 2, true, true}, {9, 4, 18, 1, false, false},
        {6, 20, 7, 2, true, false}, /* more letters than channels */
        {1, 3, 5, 1, false, true},  {12, 4, 6, 0, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pool p = {.seed = 31 + i};
        kac_convgru_weights w = random_convgru(cases[i].states, cases[i].channels,
                                               cases[i].blocks, cases[i].norm, &p);
        w.residual = cases[i].residual;
        char name[32];
        snprintf(name, sizeof name, "convgru %zu", i);
        const subject s = {
            name, &w,           6,           cases[i].length, cases[i].states, cases[i].states,
            3,    pack_convgru, vjp_convgru, drop_convgru,    plain_convgru};
        check(&s);
        empty(&p);
    }
}

/* ---- exact models ----------------------------------------------------------------------- */

enum { LENGTH = 5, STATES = 3, OBJECTS = 243, CONTEXTS = 1024 };

static void digits_of(int number, int base, int *x)
{
    for (int l = LENGTH - 1; l >= 0; l--, number /= base)
        x[l] = number % base;
}

/* log posteriors [LENGTH][STATES] of the law [OBJECTS] under the evidence u_k + u_mask. */
static bool posterior(const double *law, const double *u, double *out)
{
    double total = 0;
    double sum[LENGTH * STATES] = {0};
    for (int o = 0; o < OBJECTS; o++) {
        int x[LENGTH];
        double weight = law[o];
        digits_of(o, STATES, x);
        for (int l = 0; l < LENGTH; l++)
            weight *= u[l * (STATES + 1) + x[l]] + u[l * (STATES + 1) + STATES];
        total += weight;
        for (int l = 0; l < LENGTH; l++)
            sum[l * STATES + x[l]] += weight;
    }
    if (total == 0) return false;
    for (int i = 0; i < LENGTH * STATES; i++)
        out[i] = sum[i] == 0 ? -(double)INFINITY : log(sum[i] / total);
    return true;
}

static const float chain_initial[3] = {0.5f, 0.3f, 0.2f};
static const float chain_transition[3][3] = {
    {0.1f, 0.6f, 0.3f}, {0.7f, 0.0f, 0.3f}, {0.25f, 0.25f, 0.5f}};

/* A law that no chain has, with impossible objects. */
static void make_law(double *law)
{
    uint64_t seed = 41;
    double total = 0;
    for (int o = 0; o < OBJECTS; o++) {
        law[o] = net_file_random(&seed) < -0.6f ? 0.0 : exp(2 * (double)net_file_random(&seed));
        total += law[o];
    }
    for (int o = 0; o < OBJECTS; o++)
        law[o] /= total;
}

static bool plain_markov(const subject *s, const double *u, double *out)
{
    static double law[OBJECTS];
    (void)s;
    for (int o = 0; o < OBJECTS; o++) {
        int x[LENGTH];
        digits_of(o, STATES, x);
        law[o] = (double)chain_initial[x[0]];
        for (int l = 1; l < LENGTH; l++)
            law[o] *= (double)chain_transition[x[l - 1]][x[l]];
    }
    return posterior(law, u, out);
}

static bool plain_law(const subject *s, const double *u, double *out)
{
    double law[OBJECTS];
    (void)s;
    make_law(law);
    return posterior(law, u, out);
}

NETWORK(markov)

NETWORK(table_denoiser)

/* All contexts at once. */
static void check_contexts(const subject *s)
{
    static uint8_t tokens[CONTEXTS][LENGTH];
    for (int i = 0; i < CONTEXTS; i++) {
        int x[LENGTH];
        digits_of(i, STATES + 1, x);
        for (int l = 0; l < LENGTH; l++)
            tokens[i][l] = (uint8_t)x[l];
    }
    check_input(s, tokens[0], NULL);
}

Test(vjp, markov)
{
    const kac_markov_weights w = {STATES, chain_initial, chain_transition[0]};
    const subject s = {"markov",   &w,          CONTEXTS,        LENGTH,
                       STATES,     STATES + 1,  LENGTH * STATES, pack_markov,
                       vjp_markov, drop_markov, plain_markov};
    check_contexts(&s);
}

Test(vjp, table_denoiser)
{
    static const float shift[LENGTH] = {0, 3, -1, 2, 5}; /* says nothing */
    static float logits[CONTEXTS][LENGTH * STATES];
    double law[OBJECTS];
    make_law(law);
    for (int i = 0; i < CONTEXTS; i++) {
        int x[LENGTH];
        double u[LENGTH * (STATES + 1)] = {0};
        double out[LENGTH * STATES] = {0};
        digits_of(i, STATES + 1, x);
        for (int l = 0; l < LENGTH; l++)
            u[l * (STATES + 1) + x[l]] = 1;
        (void)posterior(law, u, out);
        for (int j = 0; j < LENGTH * STATES; j++)
            logits[i][j] = (float)out[j] + shift[j / STATES];
    }
    const kac_table_weights w = {STATES, LENGTH, CONTEXTS, logits[0]};
    const subject s = {"table",
                       &w,
                       CONTEXTS,
                       LENGTH,
                       STATES,
                       STATES + 1,
                       LENGTH * STATES,
                       pack_table_denoiser,
                       vjp_table_denoiser,
                       drop_table_denoiser,
                       plain_law};
    check_contexts(&s);
}

NETWORK(table_reward)

static bool plain_table_reward(const subject *s, const double *u, double *out)
{
    const kac_table_weights *w = s->weights;
    double sum = 0;
    double found = 0;
    double missing = 0;
    for (int o = 0; o < OBJECTS; o++) {
        int x[LENGTH];
        double weight = 1;
        digits_of(o, STATES, x);
        for (int l = 0; l < LENGTH; l++)
            weight *= u[l * STATES + x[l]];
        if (isinf(w->values[o])) {
            missing += weight;
            continue;
        }
        found += weight;
        sum += weight * (double)w->values[o];
    }
    out[0] = missing != 0 ? sum / found : sum;
    return true;
}

Test(vjp, table_reward)
{
    pool p = {.seed = 51};
    const kac_table_weights w = {STATES, LENGTH, OBJECTS, take(&p, OBJECTS, 2)};
    const subject s = {"table",
                       &w,
                       CONTEXTS,
                       LENGTH,
                       STATES,
                       STATES,
                       1,
                       pack_table_reward,
                       vjp_table_reward,
                       drop_table_reward,
                       plain_table_reward};
    check_contexts(&s);
    check(&s);

    /* Entries of -INFINITY: the rest is an average.  At a state they give 0. */
    float *values = p.part[0];
    for (int o = 0; o < OBJECTS; o += 4)
        values[o] = -INFINITY;
    subject some = s;
    some.name = "table with impossible objects";
    some.rows = 20;
    uint64_t seed = 52;
    float *soft = random_floats(&seed, (size_t)(some.rows * LENGTH * STATES), 0.5f);
    for (int i = 0; i < some.rows * LENGTH * STATES; i++)
        soft[i] += 0.51f;
    check_input(&some, NULL, soft);
    free(soft);

    const uint8_t tokens[2][LENGTH] = {{0, 0, 0, 0, 1}, {0, 0, 0, 0, 0}};
    const float cotangent[2] = {1, 1};
    float grad[2][LENGTH][STATES];
    kac_device *dev = open_own();
    kac_net *net = NULL;
    cr_assert(pack_table_reward(dev, &w, &net) == KAC_OK);
    const kac_query q = query_of(&s, tokens[0], NULL, 2);
    differentiate(&s, dev, net, &q, cotangent, grad[0][0]);
    const float last[STATES] = {0, values[1], values[2]};
    expect_bits(grad[0][LENGTH - 1], last, STATES, "table", "beside an impossible object");
    for (int i = 0; i < LENGTH * STATES; i++)
        cr_assert(grad[1][i / STATES][i % STATES] == 0);
    drop_table_reward(dev, net);
    kac_device_close(dev);
    empty(&p);
}

NETWORK(pwm)

static bool plain_pwm(const subject *s, const double *u, double *out)
{
    const kac_pwm_weights *w = s->weights;
    out[0] = 0;
    for (int i = 0; i < s->length * s->states; i++)
        out[0] += u[i] * (double)w->weight[i];
    return true;
}

Test(vjp, pwm)
{
    pool p = {.seed = 61};
    const kac_pwm_weights w = {5, 7, take(&p, 35, 3)};
    const subject s = {"pwm", &w, 9, 7, 5, 5, 1, pack_pwm, vjp_pwm, drop_pwm, plain_pwm};
    check(&s);
    empty(&p);
}

/* ---- model files ------------------------------------------------------------------------ */

static const void *tensor(const kac_tensors *file, const char *name, int64_t *shape)
{
    const kac_tensor *x = kac_tensors_find(file, name);
    cr_assert(x != NULL, "%s: no %s", kac_tensors_path(file), name);
    if (shape != NULL) memcpy(shape, x->shape, 3 * sizeof *shape);
    return x->data;
}

static void check_recorded(const kac_network *net, const kac_query *q, const float *cotangent,
                           const float *want, int row)
{
    float *grad = make((size_t)(q->capacity * row), sizeof *grad);
    double *wanted = make((size_t)row, sizeof *wanted);
    cr_assert(kac_network_vjp(net, q, cotangent, grad) == KAC_OK, "%s", kac_last_error());
    for (int i = 0; i < q->capacity; i++) {
        for (int j = 0; j < row; j++)
            wanted[j] = (double)want[i * row + j];
        expect_close(grad + i * row, wanted, row, net->path, i);
    }
    free(grad);
    free(wanted);
}

/* tools/make_goldens.py: gradients that PyTorch computed in float64. */
static void check_golden(const char *model, const char *name, kac_role role, kac_device *dev)
{
    char path[128];
    kac_network *net = NULL;
    kac_tensors *file = NULL;
    if (dev == NULL) return;
    snprintf(path, sizeof path, "tests/golden/%s_vjp.safetensors", name);
    cr_assert(kac_tensors_open(path, &file) == KAC_OK, "%s", kac_last_error());
    cr_assert(kac_network_open(dev, model, role, &net) == KAC_OK, "%s", kac_last_error());
    int64_t shape[3];
    const uint8_t *tokens = tensor(file, "tokens", shape);
    const int rows = (int)shape[0];
    const int length = (int)shape[1];
    const float *recorded_sigma = net->reads_time ? tensor(file, "sigma", NULL) : NULL;
    const int row = length * (role == KAC_ROLE_DENOISER ? net->states + 1 : net->states);
    const int outputs = role == KAC_ROLE_DENOISER ? length * net->states : net->outputs;
    const float *cotangent = tensor(file, "cotangent", NULL);
    const float *want = tensor(file, "gradient", NULL);
    for (int i = 0; i < rows; i++) {
        const kac_level at = {.sigma = recorded_sigma != NULL ? recorded_sigma[i] : 0};
        const kac_query q = {.tokens = tokens + i * length,
                             .stride = length,
                             .length = length,
                             .capacity = 1,
                             .levels = &at,
                             .clock = &start};
        check_recorded(net, &q, cotangent + i * outputs, want + i * row, row);
    }
    if (role == KAC_ROLE_REWARD) {
        const float *soft = tensor(file, "probabilities", shape);
        const kac_query q = {.soft = soft, .length = length, .capacity = (int32_t)shape[0]};
        check_recorded(net, &q, tensor(file, "cotangent_probabilities", NULL),
                       tensor(file, "gradient_probabilities", NULL), row);
    }
    kac_network_close(net);
    kac_tensors_close(file);
    kac_device_close(dev);
}

Test(vjp, goldens_agree_with_pytorch)
{
    static const struct {
        const char *folder, *name;
        kac_role role;
    } files[] = {
        {"models", "promoter_denoiser", KAC_ROLE_DENOISER},
        {"models", "promoter_expression", KAC_ROLE_REWARD},
        {"tests/golden", "cnn1d_time", KAC_ROLE_DENOISER},
        {"tests/golden", "cnn1d_protein", KAC_ROLE_DENOISER},
        {"tests/golden", "convgru_norm", KAC_ROLE_REWARD},
        {"tests/golden", "conv_regressor_flatten", KAC_ROLE_REWARD},
        {"tests/golden", "conv_regressor_globalmax", KAC_ROLE_REWARD},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (int which = 0; which <= OWN_DEVICE; which++) {
            char model[128];
            snprintf(model, sizeof model, "%s/%s.safetensors", files[i].folder, files[i].name);
            check_golden(model, files[i].name, files[i].role, open_device(which));
        }
}

Test(vjp, refuses_what_the_forward_refuses)
{
    const float soft[4] = {1, 0, 0, 1};
    const uint8_t tokens[2] = {0, 1};
    float cotangent[4] = {0};
    float grad[6];
    net_file f = {.seed = 1};
    net_file_meta(&f, "kac.arch", "table");
    net_file_meta(&f, "kac.alphabet", "ab");
    net_file_meta(&f, "kac.length", "2");
    net_file_add(&f, KAC_F32, "logits", 3, 9, 2, 2);
    kac_device *dev = open_own();
    kac_network *net = NULL;
    cr_assert(kac_network_open(dev, net_file_write(&f), KAC_ROLE_DENOISER, &net) == KAC_OK,
              "%s", kac_last_error());
    kac_query q = {.soft = soft, .tokens = tokens, .stride = 2, .length = 2, .capacity = 1};
    cr_assert(kac_network_vjp(net, &q, cotangent, grad) == KAC_ERR_UNSUPPORTED);
    cr_assert(strstr(kac_last_error(), "table does not take probabilities") != NULL);
    q.soft = NULL;
    cr_assert(kac_network_vjp(net, &q, cotangent, grad) == KAC_OK);
    cr_assert(kac_network_vjp(net, &q, NULL, grad) == KAC_ERR_INVALID);
    kac_network_close(net);
    kac_device_close(dev);
    net_file_remove(&f);
}
