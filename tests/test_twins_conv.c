/* test_twins_conv.c -- cnn1d, conv_regressor and convgru on the build's device: the bytes of the
 * CPU's, forwards and backwards.  Where the device is the CPU that says nothing. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "on_device.h"

TestSuite(twins_conv, .timeout = 300);

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

/* out and grad, whatever the query leaves as it was included; they begin as -1. */
static void run(kac_device *d, const subject *s, const ask *a, const inputs *in, float *out,
                float *grad)
{
    const size_t n_out = (size_t)a->capacity * (size_t)(s->outputs + SPARE) * sizeof *out;
    const size_t n_grad = (size_t)a->capacity * (size_t)(a->length * s->channels) * sizeof *out;
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
                 upload(d, grad, n_grad)};
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
    cr_assert(s->vjp(d->ops)(d, net, &q, p[7], p[9]) == KAC_OK, "%s", kac_last_error());
    download(d, out, p[8], n_out);
    download(d, grad, p[9], n_grad);
    s->drop(d->ops)(d, net);
    for (size_t i = 0; i < sizeof p / sizeof *p; i++)
        d->ops->memory.release(d, p[i]);
}

static void expect_bytes(const float *got, const float *want, size_t n, const char *what,
                         int number)
{
    for (size_t i = 0; i < n; i++)
        cr_assert(memcmp(&got[i], &want[i], sizeof *got) == 0 ||
                      (isnan(got[i]) && isnan(want[i])), /* processors differ in their bits */
                  "case %d, %s: value %zu is %a, want %a", number, what, i, (double)got[i],
                  (double)want[i]);
}

static void check(const subject *s, const ask *a, int number)
{
    static kac_device *cpu;
    if (cpu == NULL) cr_assert(kac_device_open("cpu", -1, &cpu) == KAC_OK);
    const inputs in = random_inputs(s, a);
    const size_t n_out = (size_t)a->capacity * (size_t)(s->outputs + SPARE);
    const size_t n_grad = (size_t)a->capacity * (size_t)(a->length * s->channels);
    float *out[2] = {make(n_out * sizeof **out), make(n_out * sizeof **out)};
    float *grad[2] = {make(n_grad * sizeof **grad), make(n_grad * sizeof **grad)};
    run(cpu, s, a, &in, out[0], grad[0]);
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
        {{4, 1, 1, 1, {1}, 0, 0}, {1, 1, 1, 0, false, false}},
        {{4, 6, 5, 3, {1, 4, 16}, 0, 0}, {31, 3, 3, 0, false, false}},
        {{1, 3, 3, 2, {1, 2}, 0, 0}, {5, 33, 33, 0, false, true}},
        {{5, 17, 3, 2, {1, 2147483647}, 0, 0}, {19, 4, 4, 0, false, false}},
        {{4, 24, 15, 2, {7, 3}, 1, 0}, {23, 5, 9, 6, false, false}},
        {{20, 34, 5, 2, {1, 3}, 1, 1}, {20, 31, 1000, 0, false, true}},
        {{4, 2, 5, 4, {1, 1, 2, 30}, 1, 1}, {33, 257, 100, 0, false, true}},
        {{4, 8, 3, 1, {1}, 1, 1}, {9, 5, 3, 3, false, false}}, /* no rows */
        {{4, 36, 3, 1, {2}, 0, 0}, {50, 257, 257, 0, false, false}},
        {{4, 72, 3, 2, {1, 16}, 0, 0}, {49, 257, 300, 8, false, true}},
        {{4, 12, 3, 1, {19}, 0, 0, true}, {20, 3, 3, 0, false, false}},
        {{4, 12, 3, 1, {20}, 0, 0, true}, {20, 3, 3, 0, false, false}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        seed = i;
        check_cnn1d(&cases[i].sizes, &cases[i].ask, (int)i);
    }
}
