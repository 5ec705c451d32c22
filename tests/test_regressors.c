/* test_regressors.c -- conv_regressor and convgru: against plain arithmetic, and the same bits
 * for any batch, threads, instruction set and window; what their loaders refuse. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ask_network.h"

/* ---- conv_regressor ---------------------------------------------------------------------- */

/* A sequence of vectors on the way through plain arithmetic: x[l * channels + c]. */
typedef struct track {
    int length, channels;
    float *x;
} track;

static track track_make(int length, int channels)
{
    track t = {length, channels, calloc((size_t)(length * channels), sizeof(float))};
    cr_assert_not_null(t.x);
    return t;
}

/* The contract: one fma chain from the bias, taps outer, channels inner, dead taps skipped. */
static track plain_conv(track in, const float *kernel, const float *bias, int taps, int out,
                        int dilation, bool same)
{
    int margin = (taps - 1) * dilation;
    int pad = same ? margin / 2 : 0;
    track y = track_make(same ? in.length : in.length - margin, out);
    for (int l = 0; l < y.length; l++)
        for (int o = 0; o < out; o++) {
            float sum = bias[o];
            for (int k = 0; k < taps; k++) {
                int p = l - pad + k * dilation;
                if (p < 0 || p >= in.length) continue;
                for (int c = 0; c < in.channels; c++)
                    sum = fmaf(in.x[p * in.channels + c],
                               kernel[(k * in.channels + c) * out + o], sum);
            }
            y.x[l * out + o] = sum;
        }
    free(in.x);
    return y;
}

typedef enum plain_act { LINEAR, RELU, GELU, TANH, ELU } plain_act;

static track plain_act_on(track t, plain_act act)
{
    for (int i = 0; i < t.length * t.channels; i++) {
        float x = t.x[i];
        if (act == RELU) x = x < 0 ? 0 : x;
        if (act == GELU) x = kac_geluf(x);
        if (act == TANH) x = kac_tanhf(x);
        if (act == ELU) x = x > 0 ? x : kac_expf(x) - 1;
        t.x[i] = x;
    }
    return t;
}

static track plain_pool(track in, int size, bool largest)
{
    track y = track_make(in.length / size, in.channels);
    float *window = malloc((size_t)size * sizeof *window);
    cr_assert_not_null(window);
    for (int l = 0; l < y.length; l++)
        for (int c = 0; c < in.channels; c++) {
            float most = -INFINITY;
            for (int i = 0; i < size; i++) {
                window[i] = in.x[(l * size + i) * in.channels + c];
                most = window[i] > most ? window[i] : most;
            }
            y.x[l * in.channels + c] = largest ? most : kac_sum(window, size) / (float)size;
        }
    free(window);
    free(in.x);
    return y;
}

/* prefix + row + suffix as a track. */
static track plain_input(const float *soft, int length, int states, const char *prefix,
                         const char *suffix, const char *alphabet)
{
    int before = (int)strlen(prefix);
    int after = (int)strlen(suffix);
    track t = track_make(before + length + after, states);
    for (int i = 0; i < before; i++)
        t.x[i * states + (int)(strchr(alphabet, prefix[i]) - alphabet)] = 1;
    memcpy(t.x + before * states, soft, (size_t)(length * states) * sizeof(float));
    for (int i = 0; i < after; i++)
        t.x[(before + length + i) * states + (int)(strchr(alphabet, suffix[i]) - alphabet)] = 1;
    return t;
}

/* Adds tensors i.kernel and i.bias with about unit gain. */
static void add_layer(net_file *f, int i, int taps, int in, int out, const float **kernel,
                      const float **bias)
{
    char name[32];
    float scale = 2 / sqrtf((float)((taps > 0 ? taps : 1) * in));
    snprintf(name, sizeof name, "%d.kernel", i);
    *kernel = net_file_fill(f,
                            taps > 0 ? net_file_add(f, KAC_F32, name, 3, taps, in, out)
                                     : net_file_add(f, KAC_F32, name, 2, in, out),
                            scale);
    snprintf(name, sizeof name, "%d.bias", i);
    *bias = net_file_fill(f, net_file_add(f, KAC_F32, name, 1, out), 0.5f);
}

Test(networks, conv_regressor_equals_plain_arithmetic)
{
    /* Odd sizes: widths that fill no block, an even kernel, pools that drop a remainder, and a
     * dilation that leaves some positions with one live tap. */
    enum { L = 37, S = 4, ROWS = 16 };
    net_file f = {.seed = 6};
    const float *w[9];
    const float *b[9];
    net_file_meta(&f, "kac.arch", "conv_regressor");
    net_file_meta(&f, "kac.alphabet", "ACGT");
    net_file_meta(&f, "kac.length", "37");
    net_file_meta(&f, "kac.prefix", "GA");
    net_file_meta(&f, "kac.suffix", "ATG");
    net_file_meta(&f, "kac.scale", "1.5");
    net_file_meta(&f, "kac.offset", "-0.25");
    net_file_meta(&f, "kac.layers",
                  "conv,pad=same,act=gelu;conv,pad=same,dilation=11,act=relu;maxpool,size=2;"
                  "conv,dilation=2,act=tanh;avgpool,size=3;conv,act=elu,pad=same;flatten;"
                  "dense,act=relu;dense");
    add_layer(&f, 0, 7, S, 19, &w[0], &b[0]);
    add_layer(&f, 1, 5, 19, 33, &w[1], &b[1]);
    add_layer(&f, 3, 4, 33, 17, &w[3], &b[3]);
    add_layer(&f, 5, 4, 17, 9, &w[5], &b[5]);
    add_layer(&f, 7, 0, 45, 12, &w[7], &b[7]); /* (42 / 2 - 6) / 3 = 5 positions of 9 */
    add_layer(&f, 8, 0, 12, 3, &w[8], &b[8]);
    kac_device *dev = open_own();
    kac_network *net = open_network(dev, &f, KAC_ROLE_REWARD);
    cr_assert(net->fixed_length && net->length == L && net->outputs == 3 && net->takes_soft);

    float *soft = random_soft(ROWS * L, S);
    uint8_t *tokens = random_tokens(ROWS * L, S, 9);
    float *hot = one_hot(tokens, ROWS * L, S);
    float out[ROWS][3];
    float want[2][ROWS][3];
    for (int i = 0; i < 2 * ROWS; i++) {
        const float *row = (i < ROWS ? soft : hot) + i % ROWS * L * S;
        track t = plain_input(row, L, S, "GA", "ATG", "ACGT");
        t = plain_act_on(plain_conv(t, w[0], b[0], 7, 19, 1, true), GELU);
        t = plain_act_on(plain_conv(t, w[1], b[1], 5, 33, 11, true), RELU);
        t = plain_pool(t, 2, true);
        t = plain_act_on(plain_conv(t, w[3], b[3], 4, 17, 2, false), TANH);
        t = plain_pool(t, 3, false);
        t = plain_act_on(plain_conv(t, w[5], b[5], 4, 9, 1, true), ELU);
        t.channels *= t.length;
        t.length = 1;
        t = plain_act_on(plain_conv(t, w[7], b[7], 1, 12, 1, false), RELU);
        t = plain_conv(t, w[8], b[8], 1, 3, 1, false);
        for (int o = 0; o < 3; o++)
            want[i / ROWS][i % ROWS][o] = fmaf(1.5f, t.x[o], -0.25f);
        free(t.x);
    }
    ask(net, ROWS, L, NULL, soft, 3, out[0]);
    expect_bits(out[0], want[0][0], ROWS * 3, "soft");
    ask(net, ROWS, L, tokens, NULL, 3, out[0]);
    expect_bits(out[0], want[1][0], ROWS * 3, "tokens");
    expect_soft_is_tokens(net, ROWS, L, tokens, want[1][0]);
    expect_invariance(&f, KAC_ROLE_REWARD, ROWS, L, tokens, 3, want[1][0]);
    free(soft);
    free(tokens);
    free(hot);
    kac_network_close(net);
    kac_device_close(dev);
    net_file_remove(&f);
}

Test(networks, conv_regressor_global_pools_and_short_sequences)
{
    /* A kernel longer than the sequence; then globalmax, or globalavg over more than 16. */
    enum { S = 3, ROWS = 5 };
    for (int kind = 0; kind < 2; kind++) {
        int length = kind == 0 ? 4 : 40;
        net_file f = {.seed = 7};
        const float *w;
        const float *b;
        net_file_meta(&f, "kac.arch", "conv_regressor");
        net_file_meta(&f, "kac.alphabet", "abc");
        net_file_meta(&f, "kac.length", kind == 0 ? "4" : "40");
        net_file_meta(&f, "kac.layers",
                      kind == 0 ? "conv,pad=same,dilation=2;globalmax"
                                : "conv,pad=same,dilation=2;globalavg");
        add_layer(&f, 0, 9, S, 6, &w, &b);
        kac_device *dev = open_own();
        kac_network *net = open_network(dev, &f, KAC_ROLE_REWARD);
        cr_assert(net->outputs == 6);
        float *soft = random_soft(ROWS * length, S);
        uint8_t *tokens = random_tokens(ROWS * length, S, 0);
        float out[ROWS][6];
        ask(net, ROWS, length, NULL, soft, 6, out[0]);
        for (int i = 0; i < ROWS; i++) {
            track t = plain_input(soft + i * length * S, length, S, "", "", "abc");
            t = plain_conv(t, w, b, 9, 6, 2, true);
            t = plain_pool(t, length, kind == 0);
            expect_bits(out[i], t.x, 6, "global");
            free(t.x);
        }
        ask(net, ROWS, length, tokens, NULL, 6, out[0]);
        expect_invariance(&f, KAC_ROLE_REWARD, ROWS, length, tokens, 6, out[0]);
        free(soft);
        free(tokens);
        kac_network_close(net);
        kac_device_close(dev);
        net_file_remove(&f);
    }
}

/* ---- convgru ----------------------------------------------------------------------------- */

enum { GRU_S = 4, GRU_C = 18, GRU_BLOCKS = 2, GRU_TASKS = 3, GRU_ROWS = 7, GRU_L = 17 };

/* The tensors of a convgru in PyTorch's shapes; index 1: the reverse direction. */
typedef struct gru_weights {
    float *stem, *stem_bias, *conv[GRU_BLOCKS], *conv_bias[GRU_BLOCKS];
    float *input[2], *hidden[2], *input_bias[2], *hidden_bias[2];
    float *norm, *norm_bias, *ffn[2], *ffn_bias[2], *head, *head_bias;
} gru_weights;

static void gru_file(net_file *f, gru_weights *w, bool residual)
{
    enum { C = GRU_C };
    net_file_meta(f, "kac.arch", "convgru");
    net_file_meta(f, "kac.alphabet", "ACGU");
    net_file_meta(f, "kac.residual", residual ? "1" : "0");
    w->stem = net_file_fill(f, net_file_add(f, KAC_F32, "stem.weight", 3, C, GRU_S, 15), 0.3f);
    w->stem_bias = net_file_fill(f, net_file_add(f, KAC_F32, "stem.bias", 1, C), 0.3f);
    for (int i = 0; i < GRU_BLOCKS; i++) {
        char name[64];
        snprintf(name, sizeof name, "blocks.%d.conv.weight", i);
        w->conv[i] = net_file_fill(f, net_file_add(f, KAC_F32, name, 3, C, C, 5), 0.2f);
        snprintf(name, sizeof name, "blocks.%d.conv.bias", i);
        w->conv_bias[i] = net_file_fill(f, net_file_add(f, KAC_F32, name, 1, C), 0.3f);
    }
    for (int d = 0; d < 2; d++) {
        char name[64];
        const char *end = d == 0 ? "" : "_reverse";
        snprintf(name, sizeof name, "gru.weight_ih_l0%s", end);
        w->input[d] = net_file_fill(f, net_file_add(f, KAC_F32, name, 2, 3 * C, C), 0.3f);
        snprintf(name, sizeof name, "gru.weight_hh_l0%s", end);
        w->hidden[d] = net_file_fill(f, net_file_add(f, KAC_F32, name, 2, 3 * C, C), 0.3f);
        snprintf(name, sizeof name, "gru.bias_ih_l0%s", end);
        w->input_bias[d] = net_file_fill(f, net_file_add(f, KAC_F32, name, 1, 3 * C), 0.3f);
        snprintf(name, sizeof name, "gru.bias_hh_l0%s", end);
        w->hidden_bias[d] = net_file_fill(f, net_file_add(f, KAC_F32, name, 1, 3 * C), 0.3f);
    }
    w->norm = net_file_fill(f, net_file_add(f, KAC_F32, "norm.weight", 1, C), 1);
    w->norm_bias = net_file_fill(f, net_file_add(f, KAC_F32, "norm.bias", 1, C), 1);
    w->ffn[0] = net_file_fill(f, net_file_add(f, KAC_F32, "ffn.0.weight", 2, 2 * C, C), 0.4f);
    w->ffn_bias[0] = net_file_fill(f, net_file_add(f, KAC_F32, "ffn.0.bias", 1, 2 * C), 0.4f);
    w->ffn[1] = net_file_fill(f, net_file_add(f, KAC_F32, "ffn.1.weight", 2, C, 2 * C), 0.3f);
    w->ffn_bias[1] = net_file_fill(f, net_file_add(f, KAC_F32, "ffn.1.bias", 1, C), 0.3f);
    w->head =
        net_file_fill(f, net_file_add(f, KAC_F32, "head.weight", 3, GRU_TASKS, C, 1), 0.5f);
    w->head_bias = net_file_fill(f, net_file_add(f, KAC_F32, "head.bias", 1, GRU_TASKS), 0.5f);
}

/* PyTorch's [out][in][taps] as [taps][in][out]; the caller frees it. */
static float *turned(const float *weight, int out, int in, int taps)
{
    float *kernel = malloc((size_t)(out * in * taps) * sizeof *kernel);
    cr_assert_not_null(kernel);
    for (int o = 0; o < out; o++)
        for (int c = 0; c < in; c++)
            for (int k = 0; k < taps; k++)
                kernel[(k * in + c) * out + o] = weight[(o * in + c) * taps + k];
    return kernel;
}

static track plain_torch(track in, const float *weight, const float *bias, int out, int taps)
{
    float *kernel = turned(weight, out, in.channels, taps);
    track y = plain_conv(in, kernel, bias, taps, out, 1, true);
    free(kernel);
    return y;
}

static track track_copy(track t)
{
    track y = track_make(t.length, t.channels);
    memcpy(y.x, t.x, (size_t)(t.length * t.channels) * sizeof(float));
    return y;
}

/* sum += the states of one direction. */
static void plain_gru(const gru_weights *w, int d, track x, float *sum)
{
    track h = track_make(1, GRU_C);
    track input = plain_torch(track_copy(x), w->input[d], w->input_bias[d], 3 * GRU_C, 1);
    for (int i = 0; i < x.length; i++) {
        int t = d == 0 ? i : x.length - 1 - i;
        track hidden =
            plain_torch(track_copy(h), w->hidden[d], w->hidden_bias[d], 3 * GRU_C, 1);
        const float *a = input.x + t * 3 * GRU_C;
        for (int c = 0; c < GRU_C; c++) {
            float r = kac_sigmoidf(a[c] + hidden.x[c]);
            float z = kac_sigmoidf(a[GRU_C + c] + hidden.x[GRU_C + c]);
            float n = kac_tanhf(fmaf(r, hidden.x[2 * GRU_C + c], a[2 * GRU_C + c]));
            h.x[c] = fmaf(z, h.x[c] - n, n);
            sum[t * GRU_C + c] += h.x[c];
        }
        free(hidden.x);
    }
    free(h.x);
    free(input.x);
}

static void plain_convgru(const gru_weights *w, bool residual, const float *soft, float *out)
{
    track x = plain_input(soft, GRU_L, GRU_S, "", "", "ACGU");
    x = plain_act_on(plain_torch(x, w->stem, w->stem_bias, GRU_C, 15), RELU);
    for (int i = 0; i < GRU_BLOCKS; i++) {
        track before = track_copy(x);
        x = plain_torch(x, w->conv[i], w->conv_bias[i], GRU_C, 5);
        for (int j = 0; residual && j < x.length * x.channels; j++)
            x.x[j] += before.x[j];
        x = plain_act_on(x, RELU);
        free(before.x);
    }
    track sum = track_make(GRU_L, GRU_C);
    plain_gru(w, 0, x, sum.x);
    plain_gru(w, 1, x, sum.x);
    free(x.x);
    for (int l = 0; l < GRU_L; l++) {
        float *row = sum.x + l * GRU_C;
        float mean = kac_sum(row, GRU_C) / (float)GRU_C;
        float var = kac_sum_squares(row, mean, GRU_C) / (float)GRU_C;
        float scale = 1.0f / sqrtf(var + 1e-5f);
        for (int c = 0; c < GRU_C; c++)
            row[c] = fmaf((row[c] - mean) * scale, w->norm[c], w->norm_bias[c]);
    }
    x = plain_act_on(plain_torch(sum, w->ffn[0], w->ffn_bias[0], 2 * GRU_C, 1), RELU);
    x = plain_torch(x, w->ffn[1], w->ffn_bias[1], GRU_C, 1);
    x = plain_pool(x, GRU_L, false);
    x = plain_torch(x, w->head, w->head_bias, GRU_TASKS, 1);
    memcpy(out, x.x, GRU_TASKS * sizeof *out);
    free(x.x);
}

Test(networks, convgru_equals_plain_arithmetic)
{
    for (int residual = 0; residual < 2; residual++) {
        net_file f = {.seed = 8};
        gru_weights w;
        gru_file(&f, &w, residual == 1);
        kac_device *dev = open_own();
        kac_network *net = open_network(dev, &f, KAC_ROLE_REWARD);
        cr_assert(!net->fixed_length && net->outputs == GRU_TASKS && net->takes_soft);

        float *soft = random_soft(GRU_ROWS * GRU_L, GRU_S);
        uint8_t *tokens = random_tokens(GRU_ROWS * GRU_L, GRU_S, 9);
        float *hot = one_hot(tokens, GRU_ROWS * GRU_L, GRU_S);
        float out[GRU_ROWS][GRU_TASKS];
        float want[GRU_ROWS][GRU_TASKS];
        ask(net, GRU_ROWS, GRU_L, NULL, soft, GRU_TASKS, out[0]);
        for (int i = 0; i < GRU_ROWS; i++) {
            plain_convgru(&w, residual == 1, soft + i * GRU_L * GRU_S, want[i]);
            expect_bits(out[i], want[i], GRU_TASKS, "soft");
        }
        ask(net, GRU_ROWS, GRU_L, tokens, NULL, GRU_TASKS, out[0]);
        for (int i = 0; i < GRU_ROWS; i++)
            plain_convgru(&w, residual == 1, hot + i * GRU_L * GRU_S, want[i]);
        expect_bits(out[0], want[0], GRU_ROWS * GRU_TASKS, "tokens");
        expect_soft_is_tokens(net, GRU_ROWS, GRU_L, tokens, want[0]);
        expect_invariance(&f, KAC_ROLE_REWARD, GRU_ROWS, GRU_L, tokens, GRU_TASKS, want[0]);
        ask(net, 3, 1, tokens, NULL, GRU_TASKS, out[0]); /* one site */
        cr_assert(isfinite(out[0][0]));
        free(soft);
        free(tokens);
        free(hot);
        kac_network_close(net);
        kac_device_close(dev);
        net_file_remove(&f);
    }
}

Test(networks, nan_comes_through)
{
    /* A NaN in one row's probabilities is a NaN in that row's output, through relu, pools and
     * gates, and in no other. */
    net_file f = {.seed = 8};
    gru_weights w;
    gru_file(&f, &w, true);
    kac_device *dev = open_own();
    kac_network *net = open_network(dev, &f, KAC_ROLE_REWARD);
    float *soft = random_soft(3 * GRU_L, GRU_S);
    float out[3][GRU_TASKS];
    soft[GRU_L * GRU_S + 5] = NAN;
    ask(net, 3, GRU_L, NULL, soft, GRU_TASKS, out[0]);
    cr_assert(isfinite(out[0][0]) && isnan(out[1][0]) && isfinite(out[2][0]));
    kac_network_close(net);
    kac_device_close(dev);
    net_file_remove(&f);

    const float *kernel;
    const float *bias;
    f.seed = 9;
    net_file_meta(&f, "kac.arch", "conv_regressor");
    net_file_meta(&f, "kac.alphabet", "ACGT");
    net_file_meta(&f, "kac.length", "17");
    net_file_meta(&f, "kac.layers", "conv,act=elu;maxpool,size=3;globalmax");
    add_layer(&f, 0, 3, 4, 2, &kernel, &bias);
    dev = open_own();
    net = open_network(dev, &f, KAC_ROLE_REWARD);
    ask(net, 3, GRU_L, NULL, soft, GRU_TASKS, out[0]);
    cr_assert(isfinite(out[0][0]) && isnan(out[1][0]) && isfinite(out[2][0]));
    free(soft);
    kac_network_close(net);
    kac_device_close(dev);
    net_file_remove(&f);
}

/* ---- loaders ----------------------------------------------------------------------------- */

Test(networks, conv_regressor_says_what_is_wrong)
{
    const char *const cases[][2] = {
        {"conv;lstm", "layer 1 is `lstm`, want conv"},
        {"", "layer 0 is ``"},
        {"conv,act=swish", "act is `swish`"},
        {"conv,pad=full", "conv does not take `pad=full`"},
        {"conv,dilation=0", "conv does not take `dilation=0`"},
        {"conv,dilation=2x", "`dilation=2x`"},
        {"conv,same", "conv does not take `same`"},
        {"conv;flatten,act=relu", "flatten does not take `act=relu`"},
        {"dense", "layer 0 (dense) can not follow"},
        {"conv;flatten;maxpool", "layer 2 (maxpool) can not follow"},
        {"conv", "leaves a sequence"},
        {"conv;maxpool,size=9;flatten", "nothing is left of the sequence after layer 1"},
        {"conv,dilation=8;flatten", "nothing is left of the sequence after layer 0"},
        {"conv;flatten;dense", "tensor `2.kernel` is missing"},
        {"conv;globalmax;conv", "layer 2 (conv) can not follow"},
    };
    net_file f = {.seed = 1};
    const float *kernel;
    const float *bias;
    net_file_meta(&f, "kac.arch", "conv_regressor");
    net_file_meta(&f, "kac.alphabet", "ab");
    add_layer(&f, 0, 2, 2, 3, &kernel, &bias);
    expect_refusal(&f, KAC_ROLE_REWARD, "`kac.layers` is missing");
    net_file_meta(&f, "kac.layers", "conv;flatten");
    expect_refusal(&f, KAC_ROLE_REWARD, "`kac.length` is missing");
    net_file_meta(&f, "kac.length", "8");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        net_file_meta(&f, "kac.layers", cases[i][0]);
        expect_refusal(&f, KAC_ROLE_REWARD, cases[i][1]);
    }
    net_file_meta(&f, "kac.layers", "conv;flatten");
    net_file_meta(&f, "kac.prefix", "abx");
    expect_refusal(&f, KAC_ROLE_REWARD, "`kac.prefix`: the letter x is not in the alphabet ab");
    net_file_meta(&f, "kac.prefix", NULL);
    net_file_meta(&f, "kac.scale", "1e");
    expect_refusal(&f, KAC_ROLE_REWARD, "`kac.scale` is `1e`, want a finite number");
    net_file_remove(&f);
}

/* The latest allocation that succeeds; counts down. */
static int allocations_left;

static void *scarce_alloc(kac_device *dev, size_t bytes)
{
    if (allocations_left-- > 0) return kac_cpu_ops.memory.alloc(dev, bytes);
    kac_note("no memory is left");
    return NULL;
}

Test(networks, memory_that_runs_out_leaves_nothing)
{
    net_file f = {.seed = 8};
    gru_weights w;
    gru_file(&f, &w, true);
    kac_ops ops = kac_cpu_ops;
    ops.memory.alloc = scarce_alloc;
    kac_device dev = {.ops = &ops};
    const char *path = net_file_write(&f);
    int failed = 0;
    kac_network *net = NULL;
    for (;; failed++) {
        allocations_left = failed;
        kac_status status = kac_network_open(&dev, path, KAC_ROLE_REWARD, &net);
        if (status == KAC_OK) break;
        cr_assert(status == KAC_ERR_NOMEM && net == NULL);
    }
    cr_assert(failed > 10); /* a leak on the way is the sanitizers' to find */
    kac_network_close(net);
    net_file_remove(&f);
}
