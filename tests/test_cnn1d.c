/* test_cnn1d.c -- the cnn1d forward against a plain scalar one, bit for bit. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "each_device.h"
#include "exact.h"
#include "network.h"
#include "scratch.h"

/* ---- networks with random weights ------------------------------------------------------- */

typedef struct sizes {
    int32_t states, hidden, kernel, layers;
    int32_t dilation[4];
    int has_time, reads_time;
} sizes;

/* Where the weights of the latest network are. */
static float pool[1 << 18];
static int64_t pool_used;

/* n floats in +-size. */
static const float *random_floats(int64_t n, float size)
{
    float *x = pool + pool_used;
    pool_used += n;
    if (pool_used > (int64_t)(sizeof pool / sizeof *pool)) abort();
    for (int64_t i = 0; i < n; i++)
        x[i] = size * (float)(2 * drand48() - 1);
    return x;
}

static kac_cnn1d_weights random_weights(const sizes *s)
{
    int64_t h = s->hidden;
    float scale = 1 / sqrtf((float)h);
    pool_used = 0;
    kac_cnn1d_weights w = {.states = s->states,
                           .hidden = s->hidden,
                           .kernel = s->kernel,
                           .layers = s->layers,
                           .reads_time = s->reads_time};
    w.linear = random_floats(h * (s->states + 1) * s->kernel, 1);
    w.linear_bias = random_floats(h, 1);
    for (int32_t i = 0; i < s->layers; i++) {
        w.dilation[i] = s->dilation[i];
        w.conv[i] = random_floats(h * h * s->kernel, scale);
        w.conv_bias[i] = random_floats(h, 1);
        w.norm[i] = random_floats(h, 2);
        w.norm_bias[i] = random_floats(h, 1);
        if (s->has_time) {
            w.time[i] = random_floats(h * h, scale);
            w.time_bias[i] = random_floats(h, 1);
        }
    }
    if (s->has_time) {
        w.fourier = random_floats(h / 2, 30);
        w.embed = random_floats(h * h, scale);
        w.embed_bias = random_floats(h, 1);
    }
    w.final0 = random_floats(h * h, scale);
    w.final0_bias = random_floats(h, 1);
    w.final2 = random_floats((s->states + 1) * h, scale);
    w.final2_bias = random_floats(s->states + 1, 1);
    return w;
}

/* ---- the plain forward ------------------------------------------------------------------ */

static float relu(float x)
{
    return x < 0 ? 0 : x;
}

/* out[o] = bias[o] + weight[o] . in, one fma chain. */
static void dense(int32_t rows, int32_t columns, const float *weight, const float *bias,
                  const float *in, float *out)
{
    for (int32_t o = 0; o < rows; o++) {
        out[o] = bias[o];
        for (int32_t c = 0; c < columns; c++)
            out[o] = fmaf(in[c], weight[(int64_t)o * columns + c], out[o]);
    }
}

enum { MAX_HIDDEN = 128, MAX_LENGTH = 64 };

static void time_shift(const kac_cnn1d_weights *w, int32_t layer, float sigma, float *shift)
{
    float features[MAX_HIDDEN] = {0};
    float embedded[MAX_HIDDEN] = {0};
    int32_t half = w->hidden / 2;
    memset(shift, 0, (size_t)w->hidden * sizeof *shift);
    if (w->fourier == NULL) return;
    for (int32_t i = 0; i < half; i++) {
        double sine = 0;
        double cosine = 0;
        kac_sincos_turns((double)sigma * (double)w->fourier[i], &sine, &cosine);
        features[i] = (float)sine;
        features[half + i] = (float)cosine;
    }
    dense(w->hidden, w->hidden, w->embed, w->embed_bias, features, embedded);
    for (int32_t c = 0; c < w->hidden; c++)
        embedded[c] = relu(embedded[c]);
    dense(w->hidden, w->hidden, w->time[layer], w->time_bias[layer], embedded, shift);
}

static void plain_layer(const kac_cnn1d_weights *w, int32_t layer, int32_t length, float sigma,
                        float (*feat)[MAX_HIDDEN])
{
    static float h[MAX_LENGTH][MAX_HIDDEN];
    const int32_t n = w->hidden;
    float shift[MAX_HIDDEN];
    time_shift(w, layer, sigma, shift);
    for (int32_t l = 0; l < length; l++) {
        float x[MAX_HIDDEN];
        for (int32_t c = 0; c < n; c++)
            x[c] = feat[l][c] + shift[c];
        float mean = kac_sum(x, n) / (float)n;
        float scale = 1 / sqrtf(kac_sum_squares(x, mean, n) / (float)n + 1e-5f);
        for (int32_t c = 0; c < n; c++)
            h[l][c] = fmaf((x[c] - mean) * scale, w->norm[layer][c], w->norm_bias[layer][c]);
    }
    for (int32_t l = 0; l < length; l++) {
        for (int32_t o = 0; o < n; o++) {
            float x = w->conv_bias[layer][o];
            for (int32_t k = 0; k < w->kernel; k++) {
                int64_t from = l + (int64_t)(k - w->kernel / 2) * w->dilation[layer];
                if (from < 0 || from >= length) continue;
                for (int32_t c = 0; c < n; c++)
                    x = fmaf(h[from][c], w->conv[layer][((int64_t)o * n + c) * w->kernel + k],
                             x);
            }
            feat[l][o] += relu(x);
        }
    }
}

/* out: [length][S]. */
static void plain_forward(const kac_cnn1d_weights *w, const uint8_t *tokens, int32_t length,
                          float sigma, float *out)
{
    static float feat[MAX_LENGTH][MAX_HIDDEN];
    for (int32_t l = 0; l < length; l++) {
        for (int32_t o = 0; o < w->hidden; o++) {
            float x = w->linear_bias[o];
            for (int32_t k = 0; k < w->kernel; k++) {
                int32_t from = l + k - w->kernel / 2;
                if (from < 0 || from >= length) continue;
                x += w->linear[((int64_t)o * (w->states + 1) + tokens[from]) * w->kernel + k];
            }
            feat[l][o] = relu(x);
        }
    }
    for (int32_t i = 0; i < w->layers; i++)
        plain_layer(w, i, length, sigma, feat);
    for (int32_t l = 0; l < length; l++) {
        float x[MAX_HIDDEN];
        dense(w->hidden, w->hidden, w->final0, w->final0_bias, feat[l], x);
        for (int32_t c = 0; c < w->hidden; c++)
            x[c] = relu(x[c]);
        dense(w->states, w->hidden, w->final2, w->final2_bias, x, out + l * w->states);
    }
}

/* ---- asking the network ----------------------------------------------------------------- */

enum { STRIDE = MAX_LENGTH, MAX_ROWS = 40, MAX_STATES = 20, OUT = MAX_LENGTH * MAX_STATES };

typedef struct states {
    uint8_t tokens[MAX_ROWS][STRIDE];
    kac_level levels[2];
    kac_clock clock;
    float out[MAX_ROWS][OUT];
} states;

/* Rows from all masked to all revealed; the padding holds what no one may read as a token. */
static void random_states(states *s, int32_t rows, int32_t length, int32_t mask)
{
    memset(s->tokens, 255, sizeof s->tokens);
    for (int32_t i = 0; i < rows; i++)
        for (int32_t l = 0; l < length; l++)
            s->tokens[i][l] = (uint8_t)(drand48() * rows < i ? lrand48() % mask : mask);
    s->levels[1].sigma = 0.73f;
    s->clock.level = 1;
}

static kac_query query_of(states *s, int32_t rows, int32_t length)
{
    return (kac_query){.tokens = s->tokens[0],
                       .stride = STRIDE,
                       .length = length,
                       .capacity = rows,
                       .levels = s->levels,
                       .clock = &s->clock,
                       .out = s->out[0],
                       .out_stride = OUT};
}

static kac_net *pack(kac_device *dev, const kac_cnn1d_weights *w)
{
    kac_net *net = NULL;
    cr_assert_eq(dev->ops->networks.cnn1d.pack(dev, w, &net), KAC_OK, "%s", kac_last_error());
    return net;
}

static void forward(kac_device *dev, const kac_net *net, const kac_query *q)
{
    cr_assert_eq(dev->ops->networks.cnn1d.forward(dev, net, q), KAC_OK, "%s", kac_last_error());
}

static void check(const sizes *s, int32_t length, int32_t rows)
{
    static states x;
    static float expected[MAX_ROWS][OUT];
    kac_cnn1d_weights w = random_weights(s);
    random_states(&x, rows, length, s->states);
    for (int32_t i = 0; i < rows; i++)
        plain_forward(&w, x.tokens[i], length, s->reads_time ? x.levels[1].sigma : 0,
                      expected[i]);
    for (int which = 0; which <= OWN_DEVICE; which++) {
        kac_device *dev = open_device(which);
        if (dev == NULL) continue;
        kac_net *net = pack(dev, &w);
        kac_query q = query_of(&x, rows, length);
        memset(x.out, 0, sizeof x.out);
        forward(dev, net, &q);
        for (int32_t i = 0; i < rows; i++) {
            size_t bytes = (size_t)length * (size_t)s->states * sizeof(float);
            cr_assert_arr_eq(x.out[i], expected[i], bytes,
                             "device %d, row %d of %d, L %d, H %d, K %d, S %d", which, i, rows,
                             length, s->hidden, s->kernel, s->states);
            cr_assert_eq(x.out[i][length * s->states], 0, "wrote behind the row");
        }
        dev->ops->networks.cnn1d.drop(dev, net);
        kac_device_close(dev);
    }
}

/* ---- tests ------------------------------------------------------------------------------ */

Test(cnn1d, equals_the_plain_forward_for_every_length)
{
    static const sizes s = {4, 6, 5, 3, {1, 4, 16}, 0, 0};
    srand48(1);
    for (int32_t length = 1; length < MAX_LENGTH; length++)
        check(&s, length, 1 + length % 3);
}

Test(cnn1d, equals_the_plain_forward_for_odd_shapes)
{
    static const sizes shapes[] = {
        {4, 1, 1, 1, {1}, 0, 0},       /* the smallest */
        {1, 3, 3, 2, {1, 2}, 0, 0},    /* one letter */
        {4, 16, 9, 2, {7, 100}, 0, 0}, /* a dilation beyond the sequence */
        {5, 17, 3, 2, {1, 2147483647}, 0, 0},
        {20, 33, 5, 2, {1, 3}, 0, 0}, /* more logits than a block */
        {4, 40, 15, 1, {2}, 0, 0},
        {4, 64, 3, 2, {1, 4}, 0, 0},
        {4, 100, 3, 1, {1}, 0, 0},
        {20, 8, 3, 2, {1, 2}, 0, 0}, /* wider logits than channels */
        {4, 24, 5, 2, {1, 4}, 1, 0}, /* time folded */
        {4, 24, 5, 2, {1, 4}, 1, 1}, /* time read */
        {4, 2, 5, 4, {1, 1, 2, 30}, 1, 1},
    };
    srand48(2);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check(&shapes[i], 19 + (int32_t)i, 2);
}

Test(cnn1d, equals_the_plain_forward_for_every_batch)
{
    static const sizes s = {4, 6, 3, 2, {1, 3}, 0, 0};
    srand48(3);
    for (int32_t rows = 1; rows <= MAX_ROWS; rows += rows < 8 ? 1 : 5)
        check(&s, 11, rows);
}

/* The same rows in one query, in windows of all sizes, and in scattered places. */
Test(cnn1d, windows_lists_and_counts)
{
    static const sizes s = {4, 12, 3, 2, {1, 3}, 0, 0};
    enum { LENGTH = 13, ROWS = 37, FLOATS = LENGTH * 4 };
    static states x;
    static float expected[MAX_ROWS][OUT];
    srand48(4);
    kac_cnn1d_weights w = random_weights(&s);
    random_states(&x, ROWS, LENGTH, s.states);
    kac_device *dev = open_own();
    kac_net *net = pack(dev, &w);
    kac_query q = query_of(&x, ROWS, LENGTH);
    forward(dev, net, &q);
    memcpy(expected, x.out, sizeof expected);

    int32_t src[MAX_ROWS];
    int32_t dst[MAX_ROWS];
    for (int32_t i = 0; i < ROWS; i++) {
        src[i] = 5 * i % ROWS;
        dst[i] = 7 * i % ROWS;
    }
    for (int32_t window = 1; window <= ROWS; window += 6) {
        int32_t count = ROWS - 2; /* rows 35 and 36 are not asked for */
        memset(x.out, 0, sizeof x.out);
        for (int32_t first = 0; first < MAX_ROWS + window; first += window) {
            q.first = first;
            q.capacity = window;
            q.count = &count;
            q.src = first < ROWS ? src + first : src;
            q.dst = first < ROWS ? dst + first : dst;
            forward(dev, net, &q);
        }
        for (int32_t i = 0; i < ROWS; i++) {
            if (i < count)
                cr_assert_arr_eq(x.out[dst[i]], expected[src[i]], FLOATS * sizeof(float),
                                 "window %d, row %d", window, i);
            else
                cr_assert_eq(x.out[dst[i]][0], 0, "window %d wrote row %d", window, i);
        }
    }
    dev->ops->networks.cnn1d.drop(dev, net);
    kac_device_close(dev);
}

Test(cnn1d, threads_do_not_matter)
{
#ifdef _OPENMP
    static const sizes s = {4, 20, 5, 3, {1, 4, 9}, 1, 1};
    enum { LENGTH = 40, ROWS = 33 };
    static states x;
    static float expected[MAX_ROWS][OUT];
    srand48(5);
    kac_cnn1d_weights w = random_weights(&s);
    random_states(&x, ROWS, LENGTH, s.states);
    kac_device *dev = open_own();
    set_threads(1);
    kac_net *net = pack(dev, &w);
    kac_query q = query_of(&x, ROWS, LENGTH);
    forward(dev, net, &q);
    memcpy(expected, x.out, sizeof expected);
    for (int threads = 2; threads <= 5; threads++) { /* more than there were at pack */
        set_threads(threads);
        memset(x.out, 0, sizeof x.out);
        forward(dev, net, &q);
        cr_assert_arr_eq(x.out, expected, sizeof expected, "%d threads", threads);
    }
    dev->ops->networks.cnn1d.drop(dev, net);
    kac_device_close(dev);
#else
    cr_skip_test("built without OpenMP");
#endif
}

/* A NaN must reach the logits of every position that sees it, and no other row. */
Test(cnn1d, nan_comes_through)
{
    static const sizes s = {4, 9, 3, 2, {1, 1}, 0, 0};
    enum { LENGTH = 16, FLOATS = LENGTH * 4 };
    static states x;
    srand48(6);
    kac_cnn1d_weights w = random_weights(&s);
    float linear[9 * 5 * 3];
    memcpy(linear, w.linear, sizeof linear);
    for (int o = 0; o < 9; o++)
        linear[(o * 5 + 2) * 3 + 1] = NAN; /* letter 2 at the middle tap */
    w.linear = linear;
    memset(x.tokens, 0, sizeof x.tokens);
    x.tokens[1][8] = 2;
    for (int which = 0; which <= OWN_DEVICE; which++) {
        kac_device *dev = open_device(which);
        if (dev == NULL) continue;
        kac_net *net = pack(dev, &w);
        kac_query q = query_of(&x, 3, LENGTH);
        forward(dev, net, &q);
        for (int i = 0; i < 3; i++)
            for (int l = 0; l < LENGTH; l++)
                for (int k = 0; k < 4; k++)
                    cr_assert_eq((bool)isnan(x.out[i][l * 4 + k]), i == 1 && abs(l - 8) <= 2,
                                 "device %d, row %d, site %d", which, i, l);
        dev->ops->networks.cnn1d.drop(dev, net);
        kac_device_close(dev);
    }
}

static int allocations_left;

static void *alloc_until(kac_device *dev, size_t bytes)
{
    return allocations_left-- > 0 ? kac_cpu_ops.memory.alloc(dev, bytes) : NULL;
}

Test(cnn1d, pack_refuses_and_fails_cleanly)
{
    static const sizes s = {4, 10, 3, 1, {1}, 0, 0};
    srand48(7);
    const kac_cnn1d_weights good = random_weights(&s);
    kac_ops ops = kac_cpu_ops;
    ops.memory.alloc = alloc_until;
    kac_device dev = {.ops = &ops};
    kac_net *net = NULL;

    for (int allowed = 0; allowed < 2; allowed++) {
        allocations_left = allowed;
        cr_assert_eq(kac_cpu_cnn1d_pack(&dev, &good, &net), KAC_ERR_NOMEM);
        cr_assert_null(net);
    }
    allocations_left = 2;
    cr_assert_eq(kac_cpu_cnn1d_pack(&dev, &good, &net), KAC_OK);
    kac_cpu_cnn1d_drop(&dev, net);
    kac_cpu_cnn1d_drop(&dev, NULL);

    allocations_left = 100;
    for (int wrong = 0; wrong < 7; wrong++) {
        kac_cnn1d_weights w = good;
        if (wrong == 0) w.hidden = 0;
        if (wrong == 1) w.hidden = KAC_CNN1D_MAX_HIDDEN + 1;
        if (wrong == 2) w.kernel = 4;
        if (wrong == 3) w.layers = KAC_CNN1D_MAX_LAYERS + 1;
        if (wrong == 4) w.dilation[0] = 0;
        if (wrong == 5) w.reads_time = 1; /* without time features */
        if (wrong == 6) w.states = 0;
        net = NULL;
        cr_assert_eq(kac_cpu_cnn1d_pack(&dev, &w, &net), KAC_ERR_INVALID, "case %d", wrong);
        cr_assert_null(net);
    }
}

/* ---- model files ------------------------------------------------------------------------ */

/* What a case changes in a good file. */
typedef struct change {
    const char *key, *value; /* of the metadata; value NULL: left out */
    const char *left_out;    /* a tensor */
    const char *message;     /* what the error must say; NULL: the file is good */
} change;

enum { PAIRS = 8, MAX_TENSORS = 40 };

typedef struct file_contents {
    char names[MAX_TENSORS][40];
    kac_tensor tensors[MAX_TENSORS];
    int count;
} file_contents;

static void add_tensor(file_contents *f, const char *name, const float *data, int rank,
                       const int64_t *shape)
{
    kac_tensor *t = &f->tensors[f->count];
    *t = (kac_tensor){.name = f->names[f->count], .dtype = KAC_F32, .rank = rank, .data = data};
    t->bytes = sizeof(float);
    for (int i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        t->bytes *= (size_t)shape[i];
    }
    (void)snprintf(f->names[f->count++], sizeof f->names[0], "%s", name);
}

/* The tensors NAME.weight of the given shape and NAME.bias. */
static void add_pair(file_contents *f, const char *name, const float *weight, const float *bias,
                     int rank, const int64_t *shape)
{
    char full[40];
    (void)snprintf(full, sizeof full, "%s.weight", name);
    add_tensor(f, full, weight, rank, shape);
    (void)snprintf(full, sizeof full, "%s.bias", name);
    add_tensor(f, full, bias, 1, shape);
}

static void write_model(const kac_cnn1d_weights *w, const char *path, const change *c)
{
    static file_contents f;
    const int64_t h = w->hidden;
    char name[32];
    f.count = 0;
    add_pair(&f, "linear", w->linear, w->linear_bias, 3,
             (int64_t[]){h, w->states + 1, w->kernel});
    for (int i = 0; i < w->layers; i++) {
        (void)snprintf(name, sizeof name, "convs.%d", i);
        add_pair(&f, name, w->conv[i], w->conv_bias[i], 3, (int64_t[]){h, h, w->kernel});
        (void)snprintf(name, sizeof name, "norms.%d", i);
        add_pair(&f, name, w->norm[i], w->norm_bias[i], 1, &h);
        (void)snprintf(name, sizeof name, "time_layers.%d.dense", i);
        add_pair(&f, name, w->time[i], w->time_bias[i], 2, (int64_t[]){h, h});
    }
    add_tensor(&f, "time_embedder.0.W", w->fourier, 1, (int64_t[]){h / 2});
    add_pair(&f, "time_embedder.1", w->embed, w->embed_bias, 2, (int64_t[]){h, h});
    add_pair(&f, "final_conv.0", w->final0, w->final0_bias, 3, (int64_t[]){h, h, 1});
    add_pair(&f, "final_conv.2", w->final2, w->final2_bias, 3,
             (int64_t[]){w->states + 1, h, 1});

    const char *metadata[PAIRS][2] = {{"kac.arch", "cnn1d"},    {"kac.process", "masked"},
                                      {"kac.alphabet", "ACGT"}, {"kac.hidden", "6"},
                                      {"kac.kernel", "3"},      {"kac.dilations", "1,4"},
                                      {"kac.length", "9"},      {"kac.time", "1"}};
    int pairs = PAIRS;
    for (int i = 0; c->key != NULL && i < pairs; i++)
        if (strcmp(metadata[i][0], c->key) == 0) metadata[i][1] = c->value;
    for (int i = 0; i < pairs; i++)
        if (metadata[i][1] == NULL) {
            pairs--;
            memcpy(metadata[i], metadata[pairs], sizeof metadata[i]);
        }
    for (int i = 0; c->left_out != NULL && i < f.count; i++)
        if (strcmp(f.names[i], c->left_out) == 0) {
            f.tensors[i] = f.tensors[--f.count];
            break;
        }
    cr_assert_eq(kac_tensors_write(path, metadata, pairs, f.tensors, f.count), KAC_OK, "%s",
                 kac_last_error());
}

Test(cnn1d, model_files)
{
    static const change cases[] = {
        {NULL, NULL, NULL, NULL},
        {"kac.time", "0", NULL, NULL},
        {"kac.time", "2", NULL, "kac.time"},
        {"kac.time", NULL, NULL, "kac.time"},
        {"kac.process", "gaussian", NULL, "kac.process"},
        {"kac.hidden", "8", NULL, "linear.weight"},
        {"kac.kernel", "2", NULL, "kac.kernel"},
        {"kac.kernel", "5", NULL, "linear.weight"},
        {"kac.dilations", NULL, NULL, "kac.dilations"},
        {"kac.dilations", "", NULL, "kac.dilations"},
        {"kac.dilations", "1,", NULL, "kac.dilations"},
        {"kac.dilations", "1, 4", NULL, "kac.dilations"},
        {"kac.dilations", "0,4", NULL, "kac.dilations"},
        {"kac.dilations", "1,99999999999999999999", NULL, "kac.dilations"},
        {"kac.dilations", "1,4,4", NULL, "convs.2.weight"},
        {"kac.dilations", "1", NULL, NULL}, /* fewer layers than tensors */
        {NULL, NULL, "norms.1.bias", "norms.1.bias"},
        {NULL, NULL, "final_conv.2.weight", "final_conv.2.weight"},
        {NULL, NULL, "time_embedder.0.W", "time_embedder.0.W"},
        {NULL, NULL, "time_layers.1.dense.bias", "time_layers.1.dense.bias"},
    };
    static const sizes s = {4, 6, 3, 2, {1, 4}, 1, 1};
    static states x;
    char folder[512];
    char path[600];
    float expected[OUT];
    srand48(8);
    kac_cnn1d_weights w = random_weights(&s);
    random_states(&x, 1, 9, 4);
    scratch_create(folder, sizeof folder);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
    kac_device *dev = open_own();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_model(&w, path, &cases[i]);
        kac_network *network = NULL;
        kac_status status = kac_network_open(dev, path, KAC_ROLE_DENOISER, &network);
        if (cases[i].message != NULL) {
            cr_assert_eq(status, KAC_ERR_INVALID, "case %zu", i);
            cr_assert(strstr(kac_last_error(), cases[i].message) != NULL, "case %zu: %s", i,
                      kac_last_error());
            continue;
        }
        cr_assert_eq(status, KAC_OK, "case %zu: %s", i, kac_last_error());
        if (i < 2) {
            kac_query q = query_of(&x, 1, 9);
            cr_assert_eq(network->reads_time, i == 0);
            cr_assert_eq(kac_network_ask(network, &q), KAC_OK);
            plain_forward(&w, x.tokens[0], 9, i == 0 ? x.levels[1].sigma : 0, expected);
            cr_assert_arr_eq(x.out[0], expected, 9 * 4 * sizeof(float), "case %zu", i);
        }
        kac_network_close(network);
    }
    kac_device_close(dev);
    (void)unlink(path);
    (void)rmdir(folder);
}
