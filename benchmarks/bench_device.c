/* bench_device.c -- what the operations of a device take, beside what it copies and multiplies.
 *
 *     bench_device [DEVICE] [LOG2] [ONLY]
 *
 * DEVICE as in device.name, LOG2 the largest number of particles (24 on a GPU, 16 elsewhere), ONLY a
 * part of the names of the operations to measure, at that number alone.  One line an operation and size: the bytes that it must read and write at least (or the useful FLOPs of
 * a network), the time of one call by the device's own clock (mean over repeats that are queued
 * without waiting), the rate, and for bytes its share of the rate of a large copy.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

enum { LENGTH = 200, STATES = 4, STRIDE = 208, CHILDREN = 10 };

static kac_device *dev;
static double copy_rate;      /* bytes a second */
static const char *only = ""; /* part of the names that are wanted */

static bool wanted(const char *name)
{
    return strstr(name, only) != NULL;
}

static void must(kac_status status)
{
    if (status == KAC_OK) return;
    fprintf(stderr, "bench_device: %s\n", kac_last_error());
    exit(1);
}

static void *take(int64_t count, size_t size)
{
    void *ptr = dev->ops->memory.alloc(dev, (size_t)count * size);
    if (ptr == NULL) must(KAC_ERR_NOMEM);
    return ptr;
}

static void *put(const void *host, int64_t count, size_t size)
{
    void *ptr = take(count, size);
    must(dev->ops->memory.upload(dev, ptr, host, (size_t)count * size));
    return ptr;
}

static void drop(void *ptr)
{
    dev->ops->memory.release(dev, ptr);
}

/* ---- time ------------------------------------------------------------------------------- */

typedef kac_status call_fn(void *argument);

static double seconds_of(call_fn *call, void *argument, int repeats)
{
    static int64_t *stamp;
    int64_t at[2];
    if (stamp == NULL) stamp = take(2, sizeof *stamp);
    must(dev->ops->particles.stamp(dev, &stamp[0]));
    for (int i = 0; i < repeats; i++)
        must(call(argument));
    must(dev->ops->particles.stamp(dev, &stamp[1]));
    must(dev->ops->memory.download(dev, at, stamp, sizeof at));
    return 1e-9 * (double)(at[1] - at[0]) / repeats;
}

/* Mean seconds of a call over about a fifth of a second. */
static double measure(call_fn *call, void *argument)
{
    (void)seconds_of(call, argument, 2); /* warm */
    double once = seconds_of(call, argument, 1);
    double repeats = once > 0 ? 0.2 / once : 1000;
    return seconds_of(call, argument, repeats < 1 ? 1 : repeats > 1000 ? 1000 : (int)repeats);
}

static void report_bytes(const char *name, int64_t n, double bytes, double seconds)
{
    double rate = bytes / seconds;
    printf("%-28s %10lld %14.0f %12.1f %10.1f GB/s %7.1f%%\n", name, (long long)n, bytes,
           1e6 * seconds, 1e-9 * rate, copy_rate > 0 ? 100 * rate / copy_rate : 100);
    (void)fflush(stdout);
}

static void report_flops(const char *name, int64_t n, double flops, double seconds)
{
    printf("%-28s %10lld %14.3g %12.1f %10.3f TFLOP/s %8.0f rows/s\n", name, (long long)n,
           flops, 1e6 * seconds, 1e-12 * flops / seconds, (double)n / seconds);
    (void)fflush(stdout);
}

/* ---- copy ------------------------------------------------------------------------------- */

typedef struct copying {
    void *to, *from;
    size_t bytes;
} copying;

static kac_status copy(void *argument)
{
    const copying *c = argument;
    return dev->ops->memory.copy(dev, c->to, c->from, c->bytes);
}

static void bench_copy(long most)
{
    int64_t bytes = INT64_C(1) << (most + 6);
    copying c = {take(bytes, 1), take(bytes, 1), (size_t)bytes};
    double seconds = measure(copy, &c);
    copy_rate = 2.0 * (double)bytes / seconds;
    report_bytes("copy", bytes, 2.0 * (double)bytes, seconds);
    drop(c.to);
    drop(c.from);
}

/* ---- particles: one group of n, one child each ------------------------------------------- */

typedef struct population {
    kac_particles x, y;
    kac_weigh_args weigh;
    kac_select_args select;
    int32_t *chosen, *scratch;
    void *all[48];
    int count;
} population;

static void *own(population *p, void *ptr)
{
    if (p->count == (int)(sizeof p->all / sizeof *p->all)) must(KAC_ERR_INTERNAL);
    return p->all[p->count++] = ptr;
}

static kac_particles particles_of(population *p, int32_t n, bool tokens)
{
    size_t d = sizeof(double);
    return (kac_particles){
        .n = n,
        .stride = STRIDE,
        .x = tokens ? own(p, take(n, STRIDE)) : NULL,
        .log_w = own(p, take(n, d)),
        .bank = own(p, take(n, d)),
        .stat = own(p, take(n, d)),
        .value = own(p, take(n, d)),
        .ratio = own(p, take(n, d)),
        .entry = own(p, take(n, sizeof(int32_t))),
        .eve = own(p, take(n, sizeof(int32_t))),
        .group = own(p, take(n, sizeof(int32_t))),
    };
}

static void open_population(population *p, int32_t n, bool tokens)
{
    static const kac_level level[2] = {{.trigger = KAC_TRIGGER_ALWAYS, .temper = 1},
                                       {.trigger = KAC_TRIGGER_ALWAYS, .temper = 1}};
    const kac_clock clock = {1, 3};
    const kac_group group = {.count = n, .alpha = 0.2, .lambda = 1};
    const int32_t pool[2] = {0, 1};
    const double weight = 1;
    float *terms = malloc((size_t)n * sizeof *terms);
    if (terms == NULL) must(KAC_ERR_NOMEM);
    for (int32_t i = 0; i < n; i++) /* spread as rewards are: some particles count much more */
        terms[i] = 2 * sinf((float)i * 12.9898f) * cosf((float)i * 0.37f);

    *p = (population){.count = 0};
    p->x = particles_of(p, n, tokens);
    p->y = particles_of(p, n, tokens);
    p->chosen = own(p, take(n, sizeof(int32_t)));
    p->scratch = own(p, take(n, sizeof(int32_t)));
    p->weigh = (kac_weigh_args){
        .clock = own(p, put(&clock, 1, sizeof clock)),
        .levels = own(p, put(level, 2, sizeof level[0])),
        .groups = own(p, put(&group, 1, sizeof group)),
        .pool_first = own(p, put(pool, 2, sizeof pool[0])),
        .pools = 1,
        .objective = {.combine = KAC_COMBINE_SUM,
                      .terms = 1,
                      .term = {{.column = 0,
                                .low = (double)NAN,
                                .high = (double)NAN,
                                .at_least = (double)NAN,
                                .at_most = (double)NAN}}},
        .group_weight = own(p, put(&weight, 1, sizeof weight)),
        .x = &p->x,
        .terms = own(p, put(terms, n, sizeof *terms)),
        .columns = 1,
        .children = 1,
        .samples = 1,
        .potential = KAC_POTENTIAL_DIFFERENCE,
        .fault = own(p, take(1, sizeof(kac_fault))),
        .y = &p->y,
    };
    p->select = (kac_select_args){
        .clock = p->weigh.clock,
        .levels = p->weigh.levels,
        .groups = p->weigh.groups,
        .pool_first = p->weigh.pool_first,
        .pools = 1,
        .seed = 7,
        .x = &p->x,
        .y = &p->y,
        .children = 1,
        .parent_rule = KAC_RULE_NONE,
        .keep = 1,
        .group_rule = KAC_RULE_CATEGORICAL,
        .below = 1 << 15,
        .fault = p->weigh.fault,
        .pick = own(p, take(n, sizeof(int32_t))),
        .pick_w = own(p, take(n, sizeof(double))),
        .weight = own(p, take(n, sizeof(uint64_t))),
        .offspring = own(p, take(n, sizeof(int32_t))),
        .chosen = p->chosen,
        .log_w = p->x.log_w,
    };
    free(terms);
}

static void close_population(population *p)
{
    for (int i = 0; i < p->count; i++)
        drop(p->all[i]);
}

static kac_status value(void *p)
{
    return dev->ops->particles.value(dev, &((population *)p)->weigh);
}
static kac_status weigh(void *p)
{
    return dev->ops->particles.weigh(dev, &((population *)p)->weigh);
}
static kac_status select_parent(void *p)
{
    return dev->ops->particles.select_parent(dev, &((population *)p)->select);
}
static kac_status select_group(void *p)
{
    return dev->ops->particles.select_group(dev, &((population *)p)->select);
}
static kac_status survive(void *argument)
{
    population *p = argument;
    return dev->ops->particles.survive(dev, &p->y, 1, p->chosen, &p->x, p->scratch);
}

static void bench_particles(int32_t n)
{
    static const char *const scheme[] = {"tournament", "systematic",  "stratified",
                                         "residual",   "multinomial", "killing"};
    population p;
    char name[64];
    bool tokens = (int64_t)n * STRIDE * 2 < INT64_C(16) << 30;
    open_population(&p, n, tokens);
    must(value(&p)); /* what is selected by, also where only that is measured */
    must(weigh(&p));
    must(select_parent(&p));
    if (wanted("value")) report_bytes("value", n, 16.0 * n, measure(value, &p));
    if (wanted("weigh")) report_bytes("weigh", n, 60.0 * n, measure(weigh, &p));
    if (wanted("select_parent, none"))
        report_bytes("select_parent, none", n, 20.0 * n, measure(select_parent, &p));
    for (int k = 0; k <= KAC_SCHEME_KILLING; k++) {
        p.select.scheme = (kac_scheme)k;
        snprintf(name, sizeof name, "select_group, %s", scheme[k]);
        if (wanted(name)) report_bytes(name, n, 36.0 * n, measure(select_group, &p));
    }
    if (tokens && wanted("survive"))
        report_bytes("survive", n, (2.0 * STRIDE + 2 * 28 + 12) * n, measure(survive, &p));
    close_population(&p);
}

/* ---- a step of the masked process ----------------------------------------------------------- */

static kac_status propose(void *a)
{
    return dev->ops->masked.propose(dev, a);
}

static void bench_propose(int32_t n)
{
    static const char *const name = "masked propose, 10 children";
    if (!wanted(name)) return;
    population p;
    uint8_t *rows = malloc((size_t)n * STRIDE);
    int32_t *entry = malloc((size_t)n * sizeof *entry);
    const kac_level level[3] = {{.reveal = 0}, {.reveal = 0}, {.reveal = UINT64_C(1) << 26}};
    kac_particles children = {.n = n * CHILDREN, .stride = STRIDE};
    if (rows == NULL || entry == NULL) must(KAC_ERR_NOMEM);
    for (int32_t i = 0; i < n; i++) {
        entry[i] = i;
        for (int32_t l = 0; l < STRIDE; l++) {
            int32_t letter = (i * 7 + l * 3) % 5 < 3 ? STATES : (i + l) % STATES;
            rows[(size_t)i * STRIDE + (size_t)l] = (uint8_t)(l < LENGTH ? letter : 0);
        }
    }
    open_population(&p, n, true);
    must(dev->ops->memory.upload(dev, p.x.x, rows, (size_t)n * STRIDE));
    must(dev->ops->memory.upload(dev, p.x.entry, entry, (size_t)n * sizeof *entry));
    children.x = own(&p, take((int64_t)n * CHILDREN, STRIDE));
    children.entry = own(&p, take((int64_t)n * CHILDREN, sizeof(int32_t)));
    children.ratio = own(&p, take((int64_t)n * CHILDREN, sizeof(double)));
    kac_memo memo = {.capacity = n,
                     .slots = n,
                     .slot_floats = LENGTH * STATES,
                     .slot = own(&p, put(entry, n, sizeof *entry)),
                     .logits = own(&p, take((int64_t)n * LENGTH * STATES, sizeof(float)))};
    kac_propose_args a = {.shape = {LENGTH, STATES, STRIDE, 0, 0},
                          .levels = own(&p, put(level, 3, sizeof level[0])),
                          .clock = p.weigh.clock,
                          .groups = p.weigh.groups,
                          .x = &p.x,
                          .memo = &memo,
                          .seed = 5,
                          .children = CHILDREN,
                          .temperature = 1,
                          .keep_entries = 1,
                          .fault = p.weigh.fault,
                          .y = &children};
    report_bytes(name, n, (double)n * (STRIDE + CHILDREN * (STRIDE + 12)),
                 measure(propose, &a));
    close_population(&p);
    free(rows);
    free(entry);
}

/* ---- networks of the published sizes --------------------------------------------------------- */

enum { HIDDEN = 128, LAYERS = 20, KERNEL = 9 }; /* cnn1d */
enum { CHANNELS = 64, STEM = 13, TAPS = 7 };    /* conv_regressor, as of make_models.py */

typedef struct asking {
    kac_net *net;
    kac_query query;
} asking;

static kac_status forward(void *argument)
{
    const asking *a = argument;
    return dev->ops->networks.cnn1d.forward(dev, a->net, &a->query);
}

static kac_status reward(void *argument)
{
    const asking *a = argument;
    return dev->ops->networks.conv_regressor.forward(dev, a->net, &a->query);
}

static float *random_floats(int64_t n, float scale)
{
    static uint64_t state = 88172645463325252;
    float *x = malloc((size_t)n * sizeof *x);
    if (x == NULL) must(KAC_ERR_NOMEM);
    for (int64_t i = 0; i < n; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        x[i] = scale * ((float)(state >> 40) * 0x1p-23f - 1);
    }
    return x;
}

static double useful_flops(const kac_cnn1d_weights *w, int32_t length)
{
    double pairs = 0;
    for (int32_t i = 0; i < w->layers; i++)
        for (int32_t k = -(KERNEL / 2); k <= KERNEL / 2; k++)
            if (abs(k) * w->dilation[i] < length) pairs += length - abs(k) * w->dilation[i];
    return 2.0 * HIDDEN * (HIDDEN * (pairs + length) + length * STATES);
}

static void bench_cnn1d(kac_precision precision, const char *name, int32_t length, int32_t rows)
{
    kac_cnn1d_weights w = {
        .states = STATES, .hidden = HIDDEN, .kernel = KERNEL, .layers = LAYERS};
    float *linear = random_floats((int64_t)HIDDEN * (STATES + 1) * KERNEL, 0.3f);
    float *conv = random_floats((int64_t)HIDDEN * HIDDEN * KERNEL, 0.05f);
    float *dense = random_floats((int64_t)HIDDEN * HIDDEN, 0.1f),
          *bias = random_floats(HIDDEN, 0.1f);
    uint8_t *tokens = calloc((size_t)rows, STRIDE);
    asking a = {0};
    char text[64];
    snprintf(text, sizeof text, "cnn1d, L %d, %s", length, name);
    if (tokens == NULL) must(KAC_ERR_NOMEM);
    for (int32_t i = 0; i < LAYERS; i++) {
        w.dilation[i] = i < 8 ? 1 : i < 12 ? 4 : i < 16 ? 16 : 64;
        w.conv[i] = conv;
        w.conv_bias[i] = w.norm[i] = w.norm_bias[i] = bias;
    }
    w.linear = linear;
    w.final0 = w.final2 = dense;
    w.linear_bias = w.final0_bias = w.final2_bias = bias;
    for (int32_t i = 0; i < rows; i++)
        for (int32_t l = 0; l < length; l++)
            tokens[(size_t)i * STRIDE + (size_t)l] = (uint8_t)((i * 5 + l * 3) % (STATES + 1));
    if (wanted(text) && kac_device_set_precision(dev, precision) == KAC_OK) {
        must(dev->ops->networks.cnn1d.pack(dev, &w, &a.net));
        void *states = put(tokens, rows, STRIDE);
        a.query = (kac_query){.tokens = states,
                              .stride = STRIDE,
                              .length = length,
                              .capacity = rows,
                              .out = take((int64_t)rows * length * STATES, sizeof(float)),
                              .out_stride = length * STATES};
        report_flops(text, rows, rows * useful_flops(&w, length), measure(forward, &a));
        drop(states);
        drop(a.query.out);
        dev->ops->networks.cnn1d.drop(dev, a.net);
    }
    must(kac_device_set_precision(dev, KAC_PRECISION_EXACT));
    free(linear);
    free(conv);
    free(dense);
    free(bias);
    free(tokens);
}

/* Appends a layer and returns the FLOPs of a row. */
static double add_layer(kac_conv_regressor_weights *w, kac_layer_kind kind, int32_t out,
                        int32_t taps, const float *kernel, const float *bias)
{
    const kac_regressor_layer *last = w->layers > 0 ? &w->layer[w->layers - 1] : NULL;
    kac_regressor_layer *l = &w->layer[w->layers++];
    double pairs = 0;
    *l = (kac_regressor_layer){.kind = kind,
                               .act = kernel != NULL ? KAC_ACT_RELU : KAC_ACT_LINEAR,
                               .in = last != NULL ? last->out : STATES,
                               .in_length = last != NULL ? last->out_length : w->length,
                               .taps = taps,
                               .dilation = 1,
                               .pad = (taps - 1) / 2,
                               .size = kind == KAC_LAYER_MAXPOOL ? 2 : 1,
                               .kernel = kernel,
                               .bias = bias};
    l->out = kind == KAC_LAYER_FLATTEN ? l->in * l->in_length : out > 0 ? out : l->in;
    l->out_length = kind == KAC_LAYER_FLATTEN ? 1 : l->in_length / l->size;
    for (int32_t k = 0; k < taps && kernel != NULL; k++)
        pairs += l->in_length - abs(k - l->pad);
    return 2 * pairs * l->in * l->out;
}

static void bench_conv_regressor(kac_precision precision, const char *name, int32_t length,
                                 int32_t rows)
{
    const int32_t flat = length / 4 * CHANNELS;
    kac_conv_regressor_weights w = {
        .states = STATES, .length = length, .outputs = 1, .scale = 1};
    float *stem = random_floats((int64_t)STEM * STATES * CHANNELS, 0.2f);
    float *conv = random_floats((int64_t)TAPS * CHANNELS * CHANNELS, 0.06f);
    float *dense = random_floats((int64_t)flat * CHANNELS, 0.02f);
    float *bias = random_floats(CHANNELS, 0.1f);
    uint8_t *tokens = calloc((size_t)rows, STRIDE);
    asking a = {0};
    char text[64];
    snprintf(text, sizeof text, "conv_regressor, L %d, %s", length, name);
    if (tokens == NULL) must(KAC_ERR_NOMEM);
    double flops = add_layer(&w, KAC_LAYER_CONV, CHANNELS, STEM, stem, bias);
    flops += add_layer(&w, KAC_LAYER_CONV, CHANNELS, TAPS, conv, bias);
    flops += add_layer(&w, KAC_LAYER_MAXPOOL, 0, 1, NULL, NULL);
    flops += add_layer(&w, KAC_LAYER_CONV, CHANNELS, TAPS, conv, bias);
    flops += add_layer(&w, KAC_LAYER_MAXPOOL, 0, 1, NULL, NULL);
    flops += add_layer(&w, KAC_LAYER_FLATTEN, 0, 1, NULL, NULL);
    flops += add_layer(&w, KAC_LAYER_DENSE, CHANNELS, 1, dense, bias);
    flops += add_layer(&w, KAC_LAYER_DENSE, 1, 1, dense, bias);
    for (int32_t i = 0; i < rows; i++)
        for (int32_t l = 0; l < length; l++)
            tokens[(size_t)i * STRIDE + (size_t)l] = (uint8_t)((i * 5 + l * 3) % STATES);
    if (wanted(text) && kac_device_set_precision(dev, precision) == KAC_OK) {
        must(dev->ops->networks.conv_regressor.pack(dev, &w, &a.net));
        void *states = put(tokens, rows, STRIDE);
        a.query = (kac_query){.tokens = states,
                              .stride = STRIDE,
                              .length = length,
                              .capacity = rows,
                              .out = take(rows, sizeof(float)),
                              .out_stride = 1};
        report_flops(text, rows, rows * flops, measure(reward, &a));
        drop(states);
        drop(a.query.out);
        dev->ops->networks.conv_regressor.drop(dev, a.net);
    }
    must(kac_device_set_precision(dev, KAC_PRECISION_EXACT));
    free(stem);
    free(conv);
    free(dense);
    free(bias);
    free(tokens);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "cpu";
    char text[256];
    must(kac_device_open(name, -1, &dev));
    bool gpu = strncmp(name, "cuda", 4) == 0;
    if (argc > 3) only = argv[3];
    long most = argc > 2 ? strtol(argv[2], NULL, 10) : gpu ? 24 : 16;
    if (most < 6 || most > 24) {
        fprintf(stderr, "bench_device: LOG2 %ld: want 6 to 24\n", most);
        return 2;
    }
    must(dev->ops->memory.describe(dev->ordinal, text, sizeof text));
    printf("%s: %s\n%-28s %10s %14s %12s\n", name, text, "operation", "rows", "bytes, FLOPs",
           "microseconds");
    bench_copy(most);
    for (long k = 10; k < most && *only == '\0'; k += 4)
        bench_particles(1 << k);
    bench_particles(1 << most);
    bench_propose(1 << (most > 16 ? 16 : most));
    int32_t rows = gpu ? most >= 20 ? 4096 : 8 : 56;
    for (int32_t length = 50; length <= 200; length += 150) {
        bench_cnn1d(KAC_PRECISION_EXACT, "exact", length, rows);
        bench_cnn1d(KAC_PRECISION_TF32, "tf32", length, rows);
        bench_cnn1d(KAC_PRECISION_BF16, "bf16", length, rows);
        bench_conv_regressor(KAC_PRECISION_EXACT, "exact", length, rows);
        bench_conv_regressor(KAC_PRECISION_TF32, "tf32", length, rows);
        bench_conv_regressor(KAC_PRECISION_BF16, "bf16", length, rows);
    }
    kac_device_close(dev);
    return 0;
}
