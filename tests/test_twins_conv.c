/* test_twins_conv.c -- cnn1d, conv_regressor and convgru on the build's device: the bytes of the
 * CPU's, forwards and backwards.  Where the device is the CPU that says nothing. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exact.h"
#include "on_device.h"

TestSuite(twins_conv, .init = need_device, .timeout = 300);

/* ---- random weights and states ------------------------------------------------------------ */

static uint64_t seed;
static void *owned[1024];
static int n_owned;

static void *make(size_t bytes)
{
    void *p = calloc(bytes + 1, 1);
    cr_assert(p != NULL && n_owned < (int)(sizeof owned / sizeof *owned));
    return owned[n_owned++] = p;
}

static void release_all(void)
{
    while (n_owned > 0)
        free(owned[--n_owned]);
}

static uint32_t draw(uint32_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33) % below;
}

/* n floats in +-size; some are zeros of either sign. */
static float *floats(int64_t n, float size)
{
    float *x = make((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = size * ((float)draw(1 << 24) * 0x1p-23f - 1);
        if (draw(16) == 0) x[i] = copysignf(0, x[i]);
    }
    return x;
}

/* ---- a network, a query, and both devices ------------------------------------------------- */

typedef struct subject {
    const void *weights;
    int states, channels; /* of the input: S or, for a denoiser, S + 1 */
    int outputs;          /* floats of a row of the result, and of a cotangent */
    kac_status (*pack)(kac_device *dev, const void *weights, kac_net **out);
    kac_net_forward_fn *(*forward)(const kac_ops *ops);
    kac_net_vjp_fn *(*vjp)(const kac_ops *ops);
    kac_net_drop_fn *(*drop)(const kac_ops *ops);
} subject;

typedef struct ask {
    int length, capacity, count, first; /* count: of the device, capacity of the window */
    bool soft, lists;
} ask;

enum { SOURCES = 7, SPARE = 3 }; /* rows of tokens; floats between rows of results */

static void *upload(kac_device *d, const void *host, size_t bytes)
{
    void *p = d->ops->memory.alloc(d, bytes);
    cr_assert(p != NULL, "%s", kac_last_error());
    cr_assert(d->ops->memory.upload(d, p, host, bytes) == KAC_OK);
    return p;
}

static void download(kac_device *d, void *host, const void *p, size_t bytes)
{
    cr_assert(d->ops->memory.download(d, host, p, bytes) == KAC_OK, "%s", kac_last_error());
}

/* What a query reads, on the host; the same for both devices. */
typedef struct inputs {
    kac_level levels[2];
    kac_clock clock;
    int rows; /* of tokens */
    uint8_t *tokens;
    float *soft;
    int32_t *src, *dst;
    float *cotangent;
} inputs;

static inputs random_inputs(const subject *s, const ask *a)
{
    inputs in = {.rows = a->lists ? SOURCES : a->capacity};
    const int sites = in.rows * a->length;
    in.levels[1].sigma = 0.73f;
    in.clock.level = 1;
    in.tokens = make((size_t)sites);
    in.soft = floats((int64_t)sites * s->states, 1);
    for (int i = 0; i < sites; i++)
        in.tokens[i] = (uint8_t)draw((uint32_t)s->states + 1);
    in.src = make((size_t)a->capacity * sizeof *in.src);
    in.dst = make((size_t)a->capacity * sizeof *in.dst);
    for (int j = 0; j < a->capacity; j++) {
        in.src[j] = (int32_t)draw(SOURCES);
        in.dst[j] = a->capacity - 1 - j;
    }
    in.cotangent = floats((int64_t)a->capacity * s->outputs, 1);
    return in;
}

/* out and, unless it is NULL, grad, whatever the query leaves as it was included; they begin as
 * -1. */
static void run(kac_device *d, const subject *s, const ask *a, const inputs *in, float *out,
                float *grad)
{
    const size_t n_out = (size_t)a->capacity * (size_t)(s->outputs + SPARE) * sizeof *out;
    const size_t n_grad =
        grad != NULL ? (size_t)a->capacity * (size_t)(a->length * s->channels) * sizeof *out
                     : 0;
    const size_t sites = (size_t)in->rows * (size_t)a->length;
    const size_t list = (size_t)a->capacity * sizeof *in->src;
    const int32_t count = a->count;
    for (size_t i = 0; i < n_out / sizeof *out; i++)
        out[i] = -1;
    for (size_t i = 0; i < n_grad / sizeof *grad; i++)
        grad[i] = -1;
    void *p[] = {upload(d, in->tokens, sites),
                 upload(d, in->soft, sites * (size_t)s->states * sizeof *in->soft),
                 upload(d, in->src, list),
                 upload(d, in->dst, list),
                 upload(d, &count, sizeof count),
                 upload(d, in->levels, sizeof in->levels),
                 upload(d, &in->clock, sizeof in->clock),
                 upload(d, in->cotangent,
                        (size_t)a->capacity * (size_t)s->outputs * sizeof *in->cotangent),
                 upload(d, out, n_out),
                 grad != NULL ? upload(d, grad, n_grad) : NULL};
    kac_query q = {.tokens = p[0],
                   .soft = a->soft ? p[1] : NULL,
                   .stride = a->length,
                   .length = a->length,
                   .src = a->lists ? p[2] : NULL,
                   .dst = a->lists ? p[3] : NULL,
                   .count = p[4],
                   .first = a->first,
                   .capacity = a->capacity,
                   .levels = p[5],
                   .clock = p[6],
                   .out = p[8],
                   .out_stride = s->outputs + SPARE};
    kac_net *net = NULL;
    cr_assert(s->pack(d, s->weights, &net) == KAC_OK, "%s", kac_last_error());
    cr_assert(s->forward(d->ops)(d, net, &q) == KAC_OK, "%s", kac_last_error());
    if (grad != NULL)
        cr_assert(s->vjp(d->ops)(d, net, &q, p[7], p[9]) == KAC_OK, "%s", kac_last_error());
    download(d, out, p[8], n_out);
    if (grad != NULL) download(d, grad, p[9], n_grad);
    s->drop(d->ops)(d, net);
    for (size_t i = 0; i < sizeof p / sizeof *p; i++)
        d->ops->memory.release(d, p[i]);
}

static void expect_bytes(const float *got, const float *want, size_t n, const char *what,
                         int number)
{
    for (size_t i = 0; i < n; i++)
        cr_assert(kac_bits(got[i]) == kac_bits(want[i]) ||
                      (isnan(got[i]) && isnan(want[i])), /* processors differ in their bits */
                  "case %d, %s: value %zu is %a, want %a", number, what, i, (double)got[i],
                  (double)want[i]);
}

static kac_device *cpu(void)
{
    static kac_device *opened;
    if (opened == NULL) cr_assert(kac_device_open("cpu", -1, &opened) == KAC_OK);
    return opened;
}

static void check(const subject *s, const ask *a, int number)
{
    const inputs in = random_inputs(s, a);
    const size_t n_out = (size_t)a->capacity * (size_t)(s->outputs + SPARE);
    const size_t n_grad = (size_t)a->capacity * (size_t)(a->length * s->channels);
    float *out[2] = {make(n_out * sizeof **out), make(n_out * sizeof **out)};
    float *grad[2] = {make(n_grad * sizeof **grad), make(n_grad * sizeof **grad)};
    run(cpu(), s, a, &in, out[0], grad[0]);
    run(dev(), s, a, &in, out[1], grad[1]);
    expect_bytes(out[1], out[0], n_out, "forward", number);
    expect_bytes(grad[1], grad[0], n_grad, "vjp", number);
}

/* ---- cnn1d -------------------------------------------------------------------------------- */

static kac_status pack_cnn1d(kac_device *d, const void *weights, kac_net **out)
{
    return d->ops->networks.cnn1d.pack(d, weights, out);
}

static kac_net_forward_fn *forward_cnn1d(const kac_ops *o)
{
    return o->networks.cnn1d.forward;
}

static kac_net_vjp_fn *vjp_cnn1d(const kac_ops *o)
{
    return o->networks.cnn1d.vjp;
}

static kac_net_drop_fn *drop_cnn1d(const kac_ops *o)
{
    return o->networks.cnn1d.drop;
}

typedef struct cnn1d_sizes {
    int states, hidden, kernel, layers;
    int dilation[4];
    bool has_time, reads_time;
    bool infinite; /* the first tap of every layer: it must count only where it is live */
} cnn1d_sizes;

static kac_cnn1d_weights random_cnn1d(const cnn1d_sizes *s)
{
    const int64_t h = s->hidden, tokens = s->states + 1;
    const float scale = 1 / sqrtf((float)h);
    kac_cnn1d_weights w = {.states = s->states,
                           .hidden = s->hidden,
                           .kernel = s->kernel,
                           .layers = s->layers,
                           .reads_time = s->reads_time,
                           .linear = floats(h * tokens * s->kernel, 1),
                           .linear_bias = floats(h, 1),
                           .final0 = floats(h * h, scale),
                           .final0_bias = floats(h, 1),
                           .final2 = floats(tokens * h, scale),
                           .final2_bias = floats(tokens, 1)};
    for (int i = 0; i < s->layers; i++) {
        w.dilation[i] = s->dilation[i];
        float *conv = floats(h * h * s->kernel, scale);
        for (int64_t j = 0; s->infinite && j < h * h; j++)
            conv[j * s->kernel] = INFINITY;
        w.conv[i] = conv;
        w.conv_bias[i] = floats(h, 1);
        w.norm[i] = floats(h, 2);
        w.norm_bias[i] = floats(h, 1);
        w.time[i] = s->has_time ? floats(h * h, scale) : NULL;
        w.time_bias[i] = s->has_time ? floats(h, 1) : NULL;
    }
    if (s->has_time) {
        w.fourier = floats(h / 2, 30);
        w.embed = floats(h * h, scale);
        w.embed_bias = floats(h, 1);
    }
    return w;
}

static void check_cnn1d(const cnn1d_sizes *s, const ask *a, int number)
{
    const kac_cnn1d_weights w = random_cnn1d(s);
    const subject net = {&w,         s->states,     s->states + 1, a->length * s->states,
                         pack_cnn1d, forward_cnn1d, vjp_cnn1d,     drop_cnn1d};
    check(&net, a, number);
    release_all();
}

Test(twins_conv, cnn1d)
{
    static const struct {
        cnn1d_sizes sizes;
        ask ask;
    } cases[] = {
        {{4, 1, 1, 1, {1}, 0, 0, false}, {1, 1, 1, 0, false, false}},
        {{4, 6, 5, 3, {1, 4, 16}, 0, 0, false}, {31, 3, 3, 0, false, false}},
        {{1, 3, 3, 2, {1, 2}, 0, 0, false}, {5, 33, 33, 0, false, true}},
        {{5, 17, 3, 2, {1, 2147483647}, 0, 0, false}, {19, 4, 4, 0, false, false}},
        {{4, 24, 15, 2, {7, 3}, 1, 0, false}, {23, 5, 9, 6, false, false}},
        {{20, 34, 5, 2, {1, 3}, 1, 1, false}, {20, 31, 1000, 0, false, true}},
        {{4, 2, 5, 4, {1, 1, 2, 30}, 1, 1, false}, {33, 257, 100, 0, false, true}},
        {{4, 8, 3, 1, {1}, 1, 1, false}, {9, 5, 3, 3, false, false}}, /* no rows */
        {{4, 36, 3, 1, {2}, 0, 0, false}, {13, 257, 257, 0, false, false}},
        {{4, 72, 3, 2, {1, 16}, 0, 0, false}, {19, 65, 300, 8, false, true}},
        {{4, 12, 3, 1, {19}, 0, 0, true}, {20, 3, 3, 0, false, false}},
        {{4, 12, 3, 1, {20}, 0, 0, true}, {20, 3, 3, 0, false, false}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        seed = i;
        check_cnn1d(&cases[i].sizes, &cases[i].ask, (int)i);
    }
}

/* Results with rounded factors are near the exact ones, the same for any batch, and of the kind
 * that was asked for. */
static void check_rounded(const subject *net, int length, int rows, kac_precision precision,
                          double within)
{
    const ask all = {length, rows, rows, 0, false, false},
              one = {length, 1, 1, 0, false, false};
    const bool rounds = ops() != &kac_cpu_ops;
    const inputs in = random_inputs(net, &all);
    const size_t each = (size_t)net->outputs, n = (size_t)rows * (each + SPARE);
    float *exact = make(n * sizeof *exact), *got = make(n * sizeof *got);
    float *alone = make(n * sizeof *alone);
    double most = 0, off = 0;
    run(cpu(), net, &all, &in, exact, NULL);
    dev()->precision = precision;
    run(dev(), net, &all, &in, got, NULL);
    inputs row = in;
    row.rows = 1;
    run(dev(), net, &one, &row, alone, NULL);
    dev()->precision = KAC_PRECISION_EXACT;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)exact[i]));
        off = fmax(off, fabs((double)got[i] - (double)exact[i]));
    }
    cr_assert(off <= within * most, "off by %g of %g", off, most);
    cr_assert(!rounds || off >= within / 100 * most, "off by %g of %g only", off, most);
    expect_bytes(alone, got, each, "one row", (int)precision);
}

static void check_rounded_cnn1d(const cnn1d_sizes *sizes, int length, int rows,
                                kac_precision precision, double within)
{
    seed = 5;
    const kac_cnn1d_weights w = random_cnn1d(sizes);
    const subject net = {&w,         w.states,      w.states + 1, length * w.states,
                         pack_cnn1d, forward_cnn1d, vjp_cnn1d,    drop_cnn1d};
    check_rounded(&net, length, rows, precision, within);
    release_all();
}

Test(twins_conv, cnn1d_tf32)
{
    static const cnn1d_sizes sizes = {4, 138, 5, 2, {1, 3}, 1, 1, false};
    check_rounded_cnn1d(&sizes, 11, 33, KAC_PRECISION_TF32, 2e-3);
}

Test(twins_conv, cnn1d_bf16)
{
    static const cnn1d_sizes sizes = {4, 138, 5, 2, {1, 3}, 1, 1, false};
    check_rounded_cnn1d(&sizes, 11, 33, KAC_PRECISION_BF16, 2e-2);
}

/* Sizes whose forward stays on a multiprocessor: one sequence a block and several, taps that
 * reach less than half of its rows, more, and beyond the sequence; letters in fours and not. */
Test(twins_conv, cnn1d_bf16_resident)
{
    static const cnn1d_sizes wide = {4, 128, 9, 3, {1, 16, 64}, 1, 1, false};
    static const cnn1d_sizes narrow = {5, 64, 5, 3, {1, 30, 70}, 0, 0, false};
    check_rounded_cnn1d(&wide, 200, 2, KAC_PRECISION_BF16, 2e-2);
    check_rounded_cnn1d(&wide, 50, 9, KAC_PRECISION_BF16, 2e-2);
    check_rounded_cnn1d(&narrow, 208, 2, KAC_PRECISION_BF16, 2e-2);
    check_rounded_cnn1d(&narrow, 7, 40, KAC_PRECISION_BF16, 2e-2);
}

/* A NaN among the weights of a forward that stays on a multiprocessor is in every answer. */
Test(twins_conv, cnn1d_bf16_keeps_nan)
{
    static const cnn1d_sizes sizes = {5, 64, 5, 2, {1, 3}, 0, 0, false};
    static const ask all = {20, 3, 3, 0, false, false};
    enum { OUTPUTS = 20 * 5, H = 64 };
    seed = 6;
    kac_cnn1d_weights w = random_cnn1d(&sizes);
    float *conv = make((size_t)H * H * 5 * sizeof *conv);
    memcpy(conv, w.conv[0], (size_t)H * H * 5 * sizeof *conv);
    const uint32_t bits = 0x7fffffff;     /* which rounding must not make a number */
    memcpy(conv + 2, &bits, sizeof bits); /* the middle tap of the first */
    w.conv[0] = conv;
    const subject net = {&w, 5, 6, OUTPUTS, pack_cnn1d, forward_cnn1d, vjp_cnn1d, drop_cnn1d};
    const inputs in = random_inputs(&net, &all);
    float *got = make((size_t)3 * (OUTPUTS + SPARE) * sizeof *got);
    dev()->precision = KAC_PRECISION_BF16;
    run(dev(), &net, &all, &in, got, NULL);
    dev()->precision = KAC_PRECISION_EXACT;
    for (int row = 0; row < 3; row++)
        for (int i = 0; i < OUTPUTS; i++)
            cr_assert(isnan(got[row * (OUTPUTS + SPARE) + i]), "row %d, output %d", row, i);
    release_all();
}

/* ---- conv_regressor ----------------------------------------------------------------------- */

static kac_status pack_regressor(kac_device *d, const void *weights, kac_net **out)
{
    return d->ops->networks.conv_regressor.pack(d, weights, out);
}

static kac_net_forward_fn *forward_regressor(const kac_ops *o)
{
    return o->networks.conv_regressor.forward;
}

static kac_net_vjp_fn *vjp_regressor(const kac_ops *o)
{
    return o->networks.conv_regressor.vjp;
}

static kac_net_drop_fn *drop_regressor(const kac_ops *o)
{
    return o->networks.conv_regressor.drop;
}

/* The layer after `w`'s last; outputs, taps and dilation of a convolution or dense layer; taps
 * as the width of a pool. */
static void add_layer(kac_conv_regressor_weights *w, kac_layer_kind kind, kac_activation act,
                      int out, int taps, int dilation, bool same)
{
    const kac_regressor_layer *before = w->layers > 0 ? &w->layer[w->layers - 1] : NULL;
    const int in = before != NULL ? before->out : w->states;
    const int length =
        before != NULL ? before->out_length : w->prefix_length + w->length + w->suffix_length;
    kac_regressor_layer *a = &w->layer[w->layers++];
    *a = (kac_regressor_layer){.kind = kind,
                               .act = act,
                               .in = in,
                               .out = in,
                               .in_length = length,
                               .out_length = length,
                               .taps = 1,
                               .dilation = 1,
                               .size = 1};
    if (kind == KAC_LAYER_CONV || kind == KAC_LAYER_DENSE) {
        const int64_t n = (int64_t)taps * in;
        a->taps = taps;
        a->dilation = dilation;
        a->pad = same ? (taps - 1) * dilation / 2 : 0;
        a->out_length -= same ? 0 : (taps - 1) * dilation;
        a->out = out;
        a->kernel = floats(n * out, 2 / sqrtf((float)n));
        a->bias = floats(out, 0.5f);
    } else if (kind == KAC_LAYER_FLATTEN) {
        a->out = in * length;
        a->out_length = 1;
    } else {
        a->size = taps > 0 ? taps : length;
        a->out_length = length / a->size;
    }
    w->outputs = a->out;
}

static void check_regressor(const kac_conv_regressor_weights *w, const ask *a, int number)
{
    const subject net = {w,
                         w->states,
                         w->states,
                         w->outputs,
                         pack_regressor,
                         forward_regressor,
                         vjp_regressor,
                         drop_regressor};
    check(&net, a, number);
}

static kac_conv_regressor_weights framed(int states, int length, int prefix, int suffix)
{
    static const uint8_t letters[] = {2, 0, 1, 1, 2};
    return (kac_conv_regressor_weights){.states = states,
                                        .length = length,
                                        .prefix = letters,
                                        .suffix = letters + 2,
                                        .prefix_length = prefix,
                                        .suffix_length = suffix,
                                        .scale = 1.5f,
                                        .offset = -0.25f};
}

/* Every layer and activation: channels that fill no float4, even kernels, pools that drop a
 * remainder, a dilation that leaves some positions with one live tap. */
Test(twins_conv, conv_regressor_every_layer)
{
    seed = 1;
    kac_conv_regressor_weights w = framed(5, 28, 2, 3);
    add_layer(&w, KAC_LAYER_CONV, KAC_ACT_GELU, 9, 7, 1, true);
    add_layer(&w, KAC_LAYER_CONV, KAC_ACT_RELU, 13, 5, 11, true);
    add_layer(&w, KAC_LAYER_MAXPOOL, KAC_ACT_LINEAR, 0, 2, 0, false);
    add_layer(&w, KAC_LAYER_CONV, KAC_ACT_TANH, 17, 3, 2, false);
    add_layer(&w, KAC_LAYER_AVGPOOL, KAC_ACT_LINEAR, 0, 3, 0, false);
    add_layer(&w, KAC_LAYER_CONV, KAC_ACT_ELU, 5, 4, 1, true);
    add_layer(&w, KAC_LAYER_FLATTEN, KAC_ACT_LINEAR, 0, 0, 0, false);
    add_layer(&w, KAC_LAYER_DENSE, KAC_ACT_RELU, 39, 1, 1, false);
    add_layer(&w, KAC_LAYER_DENSE, KAC_ACT_LINEAR, 3, 1, 1, false);
    check_regressor(&w, &(ask){28, 1, 1, 0, false, false}, 0);
    check_regressor(&w, &(ask){28, 33, 20, 0, true, false}, 1);
    check_regressor(&w, &(ask){28, 31, 40, 9, false, true}, 2);
    check_regressor(&w, &(ask){28, 257, 1000, 0, true, true}, 3);
    release_all();
}

Test(twins_conv, conv_regressor_ends)
{
    seed = 2;
    kac_conv_regressor_weights w = framed(3, 4, 1, 1);
    add_layer(&w, KAC_LAYER_CONV, KAC_ACT_LINEAR, 6, 9, 2, true); /* longer than the sequence */
    add_layer(&w, KAC_LAYER_GLOBALMAX, KAC_ACT_LINEAR, 0, 0, 0, false);
    check_regressor(&w, &(ask){4, 5, 5, 0, false, false}, 0);
    w = framed(4, 37, 0, 1);
    add_layer(&w, KAC_LAYER_CONV, KAC_ACT_ELU, 18, 4, 2, false);
    add_layer(&w, KAC_LAYER_GLOBALAVG, KAC_ACT_LINEAR, 0, 0, 0, false);
    add_layer(&w, KAC_LAYER_DENSE, KAC_ACT_GELU, 70, 1, 1, false);
    add_layer(&w, KAC_LAYER_DENSE, KAC_ACT_TANH, 2, 1, 1, false);
    check_regressor(&w, &(ask){37, 31, 31, 0, true, false}, 1);
    release_all();
}

/* Long sums behind a flatten: of whole slices and not, of more outputs than a block has. */
Test(twins_conv, conv_regressor_flattened)
{
    static const int channels[] = {64, 21}, hidden[] = {64, 37};
    for (int i = 0; i < 2; i++) {
        seed = 60 + (uint64_t)i;
        kac_conv_regressor_weights w = framed(4, 12, 0, 0);
        add_layer(&w, KAC_LAYER_CONV, KAC_ACT_RELU, channels[i], 3, 1, true);
        add_layer(&w, KAC_LAYER_MAXPOOL, KAC_ACT_LINEAR, 0, 2, 0, false);
        add_layer(&w, KAC_LAYER_FLATTEN, KAC_ACT_LINEAR, 0, 0, 0, false);
        add_layer(&w, KAC_LAYER_DENSE, KAC_ACT_RELU, hidden[i], 1, 1, false);
        add_layer(&w, KAC_LAYER_DENSE, KAC_ACT_LINEAR, 1, 1, 1, false);
        check_regressor(&w, &(ask){12, 1, 1, 0, false, false}, 0);
        check_regressor(&w, &(ask){12, 40, 41, 0, false, true}, 1);
        check_regressor(&w, &(ask){12, 90, 83, 0, true, false}, 2);
        release_all();
    }
}

/* A first layer that reads letters and masks: every size of a row of channels, taps beyond the
 * sequence, more sequences than a block has, and sums that stay zeros, whose signs show. */
Test(twins_conv, conv_regressor_letters)
{
    static const struct {
        int states, out, taps, dilation;
        kac_activation act;
        ask ask;
    } cases[] = {
        {4, 1, 1, 1, KAC_ACT_LINEAR, {6, 1, 1, 0, false, false}},
        {4, 5, 3, 1, KAC_ACT_LINEAR, {6, 31, 31, 0, false, false}},
        {4, 64, 13, 1, KAC_ACT_RELU, {20, 33, 33, 0, false, true}},
        {5, 9, 5, 7, KAC_ACT_GELU, {11, 70, 60, 3, false, true}},
        {20, 3, 8, 2, KAC_ACT_TANH, {7, 257, 1000, 0, false, false}},
        {4, 7, 193, 1, KAC_ACT_ELU, {5, 3, 3, 0, false, false}}, /* the general way */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int n = cases[i].taps * cases[i].states * cases[i].out;
        seed = 40 + i;
        kac_conv_regressor_weights w = framed(cases[i].states, cases[i].ask.length, 2, 1);
        add_layer(&w, KAC_LAYER_CONV, cases[i].act, cases[i].out, cases[i].taps,
                  cases[i].dilation, true);
        float *weight = floats(n, 1), *bias = floats(cases[i].out, 1);
        for (int j = 0; j < n && i < 2; j++)
            weight[j] = copysignf((float)(draw(4) == 0), draw(4) == 0 ? 1.0f : -1.0f);
        for (int j = 0; j < cases[i].out && i < 2; j++)
            bias[j] = -0.0f;
        w.layer[0].kernel = weight;
        w.layer[0].bias = bias;
        w.offset = -0.0f;
        add_layer(&w, i < 2 ? KAC_LAYER_FLATTEN : KAC_LAYER_GLOBALMAX, KAC_ACT_LINEAR, 0, 0, 0,
                  false);
        check_regressor(&w, &cases[i].ask, (int)i);
        release_all();
    }
}

/* Layers that warpgroups take, and others. */
Test(twins_conv, conv_regressor_rounded)
{
    static const kac_precision precision[] = {KAC_PRECISION_TF32, KAC_PRECISION_BF16};
    for (int i = 0; i < 2; i++) {
        seed = 3;
        kac_conv_regressor_weights w = framed(4, 40, 0, 0);
        add_layer(&w, KAC_LAYER_CONV, KAC_ACT_RELU, 64, 13, 1, true);
        add_layer(&w, KAC_LAYER_CONV, KAC_ACT_GELU, 64, 7, 3, true);
        add_layer(&w, KAC_LAYER_MAXPOOL, KAC_ACT_LINEAR, 0, 2, 0, false);
        add_layer(&w, KAC_LAYER_CONV, KAC_ACT_RELU, 128, 3, 1, true);
        add_layer(&w, KAC_LAYER_CONV, KAC_ACT_RELU, 128, 5, 2, true);
        add_layer(&w, KAC_LAYER_CONV, KAC_ACT_RELU, 128, 4, 1, false);
        add_layer(&w, KAC_LAYER_GLOBALAVG, KAC_ACT_LINEAR, 0, 0, 0, false);
        add_layer(&w, KAC_LAYER_DENSE, KAC_ACT_LINEAR, 2, 1, 1, false);
        const subject net = {&w,
                             w.states,
                             w.states,
                             w.outputs,
                             pack_regressor,
                             forward_regressor,
                             vjp_regressor,
                             drop_regressor};
        check_rounded(&net, 40, 9, precision[i], i == 0 ? 2e-3 : 2e-2);
        release_all();
    }
}

/* Layers that one kernel takes in are those one after the other: pools of single positions, which
 * change nothing, keep it from them. */
Test(twins_conv, conv_regressor_fused)
{
    enum { LENGTH = 24, ROWS = 31 };
    const ask a = {LENGTH, ROWS, ROWS, 0, false, true},
              nothing = {LENGTH, ROWS, 0, 0, false, true};
    float *got[2];
    for (int apart = 0; apart < 2; apart++) {
        seed = 70;
        kac_conv_regressor_weights w = framed(4, LENGTH, 2, 1);
        add_layer(&w, KAC_LAYER_CONV, KAC_ACT_RELU, 64, 13, 1, true);
        if (apart) add_layer(&w, KAC_LAYER_MAXPOOL, KAC_ACT_LINEAR, 0, 1, 0, false);
        add_layer(&w, KAC_LAYER_CONV, KAC_ACT_RELU, 64, 7, 1, true);
        if (apart) add_layer(&w, KAC_LAYER_MAXPOOL, KAC_ACT_LINEAR, 0, 1, 0, false);
        add_layer(&w, KAC_LAYER_MAXPOOL, KAC_ACT_LINEAR, 0, 2, 0, false);
        add_layer(&w, KAC_LAYER_CONV, KAC_ACT_LINEAR, 64, 5, 2, true);
        if (apart) add_layer(&w, KAC_LAYER_MAXPOOL, KAC_ACT_LINEAR, 0, 1, 0, false);
        add_layer(&w, KAC_LAYER_MAXPOOL, KAC_ACT_LINEAR, 0, 3, 0, false);
        add_layer(&w, KAC_LAYER_FLATTEN, KAC_ACT_LINEAR, 0, 0, 0, false);
        add_layer(&w, KAC_LAYER_DENSE, KAC_ACT_RELU, 33, 1, 1, false);
        add_layer(&w, KAC_LAYER_DENSE, KAC_ACT_LINEAR, 2, 1, 1, false);
        const subject net = {&w,
                             w.states,
                             w.states,
                             w.outputs,
                             pack_regressor,
                             forward_regressor,
                             vjp_regressor,
                             drop_regressor};
        const size_t n = (size_t)ROWS * (size_t)(w.outputs + SPARE);
        const inputs in = random_inputs(&net, &a);
        got[apart] = make(n * sizeof **got);
        if (!apart) check_rounded(&net, LENGTH, ROWS, KAC_PRECISION_BF16, 3e-2);
        dev()->precision = KAC_PRECISION_BF16;
        run(dev(), &net, &nothing, &in, got[apart], NULL);
        for (size_t i = 0; i < n; i++)
            cr_assert(got[apart][i] == -1, "there is no row to answer");
        run(dev(), &net, &a, &in, got[apart], NULL);
        dev()->precision = KAC_PRECISION_EXACT;
        if (apart) expect_bytes(got[0], got[1], n, "one kernel", 0);
    }
    release_all();
}

/* ---- convgru ------------------------------------------------------------------------------ */

static kac_status pack_convgru(kac_device *d, const void *weights, kac_net **out)
{
    return d->ops->networks.convgru.pack(d, weights, out);
}

static kac_net_forward_fn *forward_convgru(const kac_ops *o)
{
    return o->networks.convgru.forward;
}

static kac_net_vjp_fn *vjp_convgru(const kac_ops *o)
{
    return o->networks.convgru.vjp;
}

static kac_net_drop_fn *drop_convgru(const kac_ops *o)
{
    return o->networks.convgru.drop;
}

static kac_convgru_weights random_convgru(int states, int channels, int blocks, bool residual,
                                          int outputs)
{
    const int64_t c = channels;
    const float scale = 1 / sqrtf((float)c);
    kac_convgru_weights w = {.states = states,
                             .channels = channels,
                             .blocks = blocks,
                             .residual = residual,
                             .outputs = outputs,
                             .stem = floats(c * states * KAC_CONVGRU_STEM_TAPS, 1),
                             .stem_bias = floats(c, 1),
                             .layer_norm = floats(c, 1),
                             .layer_norm_bias = floats(c, 1),
                             .ffn0 = floats(2 * c * c, scale),
                             .ffn0_bias = floats(2 * c, 1),
                             .ffn1 = floats(2 * c * c, scale),
                             .ffn1_bias = floats(c, 1),
                             .head = floats(outputs * c, scale),
                             .head_bias = floats(outputs, 1)};
    for (int i = 0; i < blocks; i++) {
        w.conv[i] = floats(c * c * KAC_CONVGRU_TAPS, scale);
        w.conv_bias[i] = floats(c, 1);
        if (i == 0) continue; /* without BatchNorm */
        float *var = floats(c, 1);
        for (int j = 0; j < channels; j++)
            var[j] = fabsf(var[j]) + 0.1f;
        w.norm[i] = floats(c, 1);
        w.norm_bias[i] = floats(c, 1);
        w.norm_mean[i] = floats(c, 1);
        w.norm_var[i] = var;
    }
    for (int d = 0; d < 2; d++) {
        w.gru_input[d] = floats(3 * c * c, scale);
        w.gru_input_bias[d] = floats(3 * c, 1);
        w.gru_hidden[d] = floats(3 * c * c, scale);
        w.gru_hidden_bias[d] = floats(3 * c, 1);
    }
    return w;
}

Test(twins_conv, convgru)
{
    static const struct {
        int states, channels, blocks, outputs;
        bool residual;
        ask ask;
    } cases[] = {
        {4, 1, 0, 1, false, {1, 1, 1, 0, false, false}},
        {4, 9, 1, 3, true, {17, 3, 3, 0, false, false}},
        {5, 12, 2, 41, false, {21, 31, 40, 2, true, true}},
        {20, 33, 2, 1, true, {8, 33, 1000, 0, false, true}},
        {3, 6, 2, 2, true, {31, 257, 250, 0, true, false}},
        {4, 515, 0, 1, false, {2, 3, 3, 0, false, false}}, /* few rows a block */
        /* whose way back takes more than 48 KB of shared memory */
        {4, 400, 0, 1, false, {2, 1, 1, 0, false, false}},
        {4, 1540, 0, 1, false, {1, 1, 1, 0, false, false}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        seed = i;
        const kac_convgru_weights w =
            random_convgru(cases[i].states, cases[i].channels, cases[i].blocks,
                           cases[i].residual, cases[i].outputs);
        const subject net = {&w,           w.states,        w.states,    w.outputs,
                             pack_convgru, forward_convgru, vjp_convgru, drop_convgru};
        check(&net, &cases[i].ask, (int)i);
        release_all();
    }
}
