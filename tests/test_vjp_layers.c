/* test_vjp_layers.c -- vector-Jacobian products of networks of layers: cnn1d, conv_regressor
 * and convgru. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "differences.h"

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
