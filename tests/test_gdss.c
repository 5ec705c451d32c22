/* test_gdss.c -- the networks of GDSS: against the recordings of the original program, against a
 * plain implementation in double with all nodes and whole matrices, the gradient against its
 * differences, and the same bits for any threads, instruction set, device, batch and list. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "each_device.h"
#include "exact.h"
#include "net_file.h"
#include "network.h"

TestSuite(gdss, .timeout = 120);

#define GDSS_DATA "../shared/data"

/* ---- a small model ---------------------------------------------------------------------- */

enum {
    N = 6,
    F = 3,
    WIDTH = 4, /* features of a layer, queries and keys too */
    HEADS = 2,
    HIDDEN = 5,
    LAYERS = 2, /* of either network */
    CHANNELS = 3,
    PAIRS = N * (N - 1) / 2,
    D = 1 + N * F + PAIRS,
    ROWS = 7
};

static const char *const channels_of = "\"conv\": \"GCN\", \"c_init\": 2, \"num_heads\": 2}";

static void add_linear(net_file *f, const char *name, int rows, int columns, int outputs)
{
    char full[128];
    snprintf(full, sizeof full, "%s.weight", name);
    net_file_fill(f, net_file_add(f, KAC_F32, full, 2, rows, columns), 0.8f);
    snprintf(full, sizeof full, "%s.bias", name);
    net_file_fill(f, net_file_add(f, KAC_F32, full, 1, outputs), 0.4f);
}

static void add_mlp(net_file *f, const char *name, int in, int out)
{
    char full[96];
    snprintf(full, sizeof full, "%s.linears.0", name);
    add_linear(f, full, HIDDEN, in, HIDDEN);
    snprintf(full, sizeof full, "%s.linears.1", name);
    add_linear(f, full, out, HIDDEN, out);
}

/* Attention layer i of a network, from `channels` to `channels_out` channels. */
static void add_attention(net_file *f, const char *network, int i, int channels,
                          int channels_out)
{
    static const char *const parts[] = {"gnn_q", "gnn_k", "gnn_v"};
    char name[64];
    for (int c = 0; c < channels; c++)
        for (int p = 0; p < 3; p++) {
            snprintf(name, sizeof name, "%s.layers.%d.attn.%d.%s", network, i, c, parts[p]);
            add_linear(f, name, i == 0 ? F : WIDTH, WIDTH, WIDTH);
        }
    snprintf(name, sizeof name, "%s.layers.%d.multi_channel", network, i);
    add_mlp(f, name, channels * WIDTH, WIDTH);
    snprintf(name, sizeof name, "%s.layers.%d.mlp", network, i);
    add_mlp(f, name, 2 * channels, channels_out);
}

/* Metadata as the published files have it; `gmh`: the nodes' network attends. */
static void add_metadata(net_file *f, bool gmh)
{
    static char x[128], adj[128];
    snprintf(x, sizeof x, "{\"model_type\": \"ScoreNetworkX%s\"%s%s", gmh ? "_GMH" : "",
             gmh ? ", " : "}", gmh ? channels_of : "");
    snprintf(adj, sizeof adj, "{\"model_type\": \"ScoreNetworkA\", %s", channels_of);
    net_file_meta(f, "max_node_num", "6");
    net_file_meta(f, "max_feat_num", "3");
    net_file_meta(f, "params_x", x);
    net_file_meta(f, "params_adj", adj);
    net_file_meta(f, "sde_x",
                  "{\"type\": \"VP\", \"beta_min\": 0.1, \"beta_max\": 1.0, "
                  "\"num_scales\": 1000}");
    net_file_meta(f, "sde_adj",
                  "{\"type\": \"VE\", \"beta_min\": 0.2, \"beta_max\": 1.0, "
                  "\"num_scales\": 1000}");
}

/* A file with random weights. */
static void make_model(net_file *f, bool gmh)
{
    f->seed = gmh ? 11 : 5;
    add_metadata(f, gmh);
    for (int i = 0; i < LAYERS; i++) {
        char name[64];
        snprintf(name, sizeof name, "x.layers.%d", i);
        if (gmh)
            add_attention(f, "x", i, i == 0 ? 2 : CHANNELS, CHANNELS);
        else
            add_linear(f, name, i == 0 ? F : WIDTH, WIDTH, WIDTH);
        add_attention(f, "adj", i, i == 0 ? 2 : CHANNELS, CHANNELS);
    }
    add_mlp(f, "x.final", F + LAYERS * WIDTH, F);
    add_mlp(f, "adj.final", 2 + LAYERS * CHANNELS, 1);
}

/* ---- the definition ---------------------------------------------------------------------- */

/* Everything of one graph with all its N nodes, as GDSS's README and code have it. */
typedef struct plain {
    const kac_tensors *file;
    double flags[N];
} plain;

static const kac_tensor *tensor(const plain *p, const char *name, const char *part)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", name, part);
    const kac_tensor *x = kac_tensors_find(p->file, full);
    cr_assert(x != NULL, "%s", full);
    return x;
}

/* y[rows][out] of x [rows][in]; linear layers, ELU between. */
static void plain_mlp(const plain *p, const char *name, int rows, int in, const double *x,
                      double *y)
{
    for (int r = 0; r < rows; r++) {
        double v[64];
        memcpy(v, x + (size_t)r * (size_t)in, (size_t)in * sizeof *v);
        int width = in;
        for (int i = 0; i < 2; i++) {
            char full[80];
            double u[64];
            snprintf(full, sizeof full, "%s.linears.%d", name, i);
            const kac_tensor *w = tensor(p, full, "weight");
            const float *weight = w->data, *bias = tensor(p, full, "bias")->data;
            cr_assert(w->shape[1] == width);
            const int out = (int)w->shape[0];
            for (int o = 0; o < out; o++) {
                u[o] = (double)bias[o];
                for (int k = 0; k < width; k++)
                    u[o] += (double)weight[o * width + k] * v[k];
                if (i == 0 && u[o] < 0) u[o] = expm1(u[o]);
            }
            width = out;
            memcpy(v, u, sizeof v);
        }
        memcpy(y + (size_t)r * (size_t)width, v, (size_t)width * sizeof *v);
    }
}

/* y [N][WIDTH] = D^-1/2 A D^-1/2 (x W) + b, the diagonal of A set to 1. */
static void plain_conv(const plain *p, const char *name, int in, const double *x,
                       const double *adj, double *y)
{
    const float *weight = tensor(p, name, "weight")->data,
                *bias = tensor(p, name, "bias")->data;
    double a[N][N], d[N];
    for (int i = 0; i < N; i++) {
        double sum = 0;
        for (int j = 0; j < N; j++)
            sum += a[i][j] = i == j ? 1 : adj[i * N + j];
        d[i] = 1 / sqrt(sum > 1 ? sum : 1);
    }
    for (int i = 0; i < N; i++)
        for (int o = 0; o < WIDTH; o++) {
            double sum = (double)bias[o];
            for (int j = 0; j < N; j++)
                for (int k = 0; k < in; k++)
                    sum +=
                        d[i] * a[i][j] * d[j] * x[j * in + k] * (double)weight[k * WIDTH + o];
            y[i * WIDTH + o] = sum;
        }
}

/* An attention layer; x [N][in] becomes x_out [N][WIDTH], adj [C][N][N] adj_out. */
static void plain_attention(const plain *p, const char *name, int in, int channels,
                            const double *x, const double *adj, double *x_out, double *adj_out)
{
    enum { C = CHANNELS };
    double values[N * C * WIDTH], edge[N * N][2 * C], y[N * N * C];
    for (int c = 0; c < channels; c++) {
        double part[3][N * WIDTH];
        double s[N][N] = {{0}};
        for (int i = 0; i < 3; i++) {
            char full[48];
            snprintf(full, sizeof full, "%s.attn.%d.gnn_%c", name, c, "qkv"[i]);
            plain_conv(p, full, in, x, adj + c * N * N, part[i]);
        }
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++)
                for (int h = 0; h < HEADS; h++) {
                    double dot = 0;
                    for (int k = h * WIDTH / HEADS; k < (h + 1) * WIDTH / HEADS; k++)
                        dot += part[0][i * WIDTH + k] * part[1][j * WIDTH + k];
                    s[i][j] += tanh(dot / sqrt(WIDTH)) / HEADS;
                }
        for (int i = 0; i < N; i++) {
            memcpy(values + (i * channels + c) * WIDTH, part[2] + i * WIDTH,
                   WIDTH * sizeof *values);
            for (int j = 0; j < N; j++) {
                double *e = &edge[0][0] + (i * N + j) * 2 * channels;
                e[c] = (s[i][j] + s[j][i]) / 2;
                e[channels + c] = adj[(c * N + i) * N + j];
            }
        }
    }
    char full[48];
    snprintf(full, sizeof full, "%s.multi_channel", name);
    plain_mlp(p, full, N, channels * WIDTH, values, x_out);
    for (int i = 0; i < N * WIDTH; i++)
        x_out[i] = tanh(p->flags[i / WIDTH] * x_out[i]);
    snprintf(full, sizeof full, "%s.mlp", name);
    plain_mlp(p, full, N * N, 2 * channels, &edge[0][0], y);
    for (int c = 0; c < C; c++)
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++)
                adj_out[(c * N + i) * N + j] =
                    (y[(i * N + j) * C + c] + y[(j * N + i) * C + c]) * p->flags[i] *
                    p->flags[j];
}

/* All layers of a network, then what its end reads: of the nodes [N][F + LAYERS WIDTH], of the
 * pairs [N][N][2 + LAYERS CHANNELS]. */
static void plain_network(const plain *p, const char *network, bool attends, const double *x,
                          const double *adj, double *nodes, double *pairs)
{
    enum { ALL = F + LAYERS * WIDTH, CHANNELS_ALL = 2 + LAYERS * CHANNELS };
    double feature[N * WIDTH], channel[CHANNELS * N * N] = {0};
    for (int i = 0; i < N * F; i++)
        nodes[i / F * ALL + i % F] = x[i];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            channel[i * N + j] = adj[i * N + j];
            for (int k = 0; k < N; k++)
                channel[(N + i) * N + j] += adj[i * N + k] * adj[k * N + j];
        }
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < N * N; i++)
            pairs[i * CHANNELS_ALL + c] = channel[c * N * N + i];
    for (int l = 0; l < LAYERS; l++) {
        const double *in = l == 0 ? x : feature;
        const int width = l == 0 ? F : WIDTH;
        double next[N * WIDTH], channels_next[CHANNELS * N * N] = {0};
        char name[24];
        snprintf(name, sizeof name, "%s.layers.%d", network, l);
        if (attends)
            plain_attention(p, name, width, l == 0 ? 2 : CHANNELS, in, channel, next,
                            channels_next);
        else
            plain_conv(p, name, width, in, adj, next);
        for (int i = 0; i < N * WIDTH; i++) {
            feature[i] = network[0] == 'x' ? tanh(next[i]) : next[i];
            nodes[i / WIDTH * ALL + F + l * WIDTH + i % WIDTH] = feature[i];
        }
        memcpy(channel, channels_next, sizeof channel);
        for (int c = 0; c < CHANNELS; c++)
            for (int i = 0; i < N * N; i++)
                pairs[i * CHANNELS_ALL + 2 + l * CHANNELS + c] = channel[c * N * N + i];
    }
}

/* out [D] of row [D] (networks.h). */
static void plain_row(const kac_tensors *file, bool gmh, const double *row, double *out)
{
    enum { ALL = F + LAYERS * WIDTH, CHANNELS_ALL = 2 + LAYERS * CHANNELS };
    plain p = {.file = file};
    double adj[N * N] = {0}, nodes[N * ALL], pairs[N * N * CHANNELS_ALL];
    double of_nodes[N * F], of_pairs[N * N];
    const double *pair = row + 1 + N * F;
    for (int i = 0; i < N; i++) {
        p.flags[i] = i < row[0];
        for (int j = i + 1; j < N; j++)
            adj[i * N + j] = adj[j * N + i] = *pair++;
    }
    plain_network(&p, "x", gmh, row + 1, adj, nodes, pairs);
    plain_mlp(&p, "x.final", N, ALL, nodes, of_nodes);
    plain_network(&p, "adj", true, row + 1, adj, nodes, pairs);
    plain_mlp(&p, "adj.final", N * N, CHANNELS_ALL, pairs, of_pairs);
    *out++ = 0;
    for (int i = 0; i < N * F; i++)
        *out++ = p.flags[i / F] * of_nodes[i];
    for (int i = 0; i < N; i++)
        for (int j = i + 1; j < N; j++)
            *out++ = p.flags[i] * p.flags[j] * of_pairs[i * N + j];
}

/* ---- the rows of the tests ---------------------------------------------------------------- */

/* Graphs of N, .., 1 and again some nodes. */
static void make_rows(float *rows)
{
    uint64_t seed = 3;
    memset(rows, 0, ROWS * D * sizeof *rows);
    for (int r = 0; r < ROWS; r++) {
        float *row = rows + r * D, *pair = row + 1 + N * F;
        const int n = r < N ? N - r : 4;
        row[0] = (float)n;
        for (int i = 0; i < n * F; i++)
            row[1 + i] = 1.5f * net_file_random(&seed);
        for (int i = 0; i < N; i++)
            for (int j = i + 1; j < N; j++, pair++)
                if (j < n) *pair = 1.5f * net_file_random(&seed);
    }
}

static kac_query query_of(const float *rows, float *out)
{
    return (kac_query){.tokens = (const uint8_t *)rows,
                       .stride = D * (int32_t)sizeof *rows,
                       .length = D,
                       .capacity = ROWS,
                       .out = out,
                       .out_stride = D};
}

static void expect_close(const float *got, const double *want, int n, const char *what)
{
    double most = 0;
    for (int i = 0; i < n; i++)
        most = fabs(want[i]) > most ? fabs(want[i]) : most;
    cr_assert(most > 0 && isfinite(most), "%s: %g", what, most);
    for (int i = 0; i < n; i++)
        cr_assert(fabs((double)got[i] - want[i]) <= 1e-5 * most,
                  "%s: value %d is %g, want %g (largest %g)", what, i, (double)got[i], want[i],
                  most);
}

static void expect_bits(const float *got, const float *want, int n, const char *what)
{
    for (int i = 0; i < n; i++)
        cr_assert(kac_bits(got[i]) == kac_bits(want[i]), "%s: value %d is %a, want %a", what, i,
                  (double)got[i], (double)want[i]);
}

static kac_network *open_model(kac_device *device, const char *path)
{
    kac_network *net = NULL;
    cr_assert(kac_network_open(device, path, KAC_ROLE_DENOISER, &net) == KAC_OK, "%s",
              kac_last_error());
    return net;
}

/* The derivative of cotangent . plain_row in every direction but that of n. */
static void differences(const kac_tensors *file, bool gmh, const float *row,
                        const float *cotangent, double *grad)
{
    const double step = 1e-6;
    double x[D], out[D];
    for (int i = 0; i < D; i++)
        x[i] = (double)row[i];
    grad[0] = 0;
    for (int i = 1; i < D; i++) {
        const double value = x[i];
        double sum = 0;
        for (int sign = -1; sign <= 1; sign += 2) {
            x[i] = value + sign * step;
            plain_row(file, gmh, x, out);
            for (int o = 0; o < D; o++)
                sum += sign * (double)cotangent[o] * out[o];
        }
        x[i] = value;
        grad[i] = sum / (2 * step);
    }
}

/* Whether number i of a row is that of a live node or pair. */
static bool is_live(const float *row, int i)
{
    if (i == 0) return false;
    const int n = (int)row[0];
    if (i <= N * F) return (i - 1) / F < n;
    i -= 1 + N * F;
    for (int j = 0; j < N; j++)
        for (int k = j + 1; k < N; k++)
            if (i-- == 0) return k < n;
    return false;
}

Test(gdss, forward_and_gradient_are_those_of_the_definition)
{
    for (int gmh = 0; gmh <= 1; gmh++) {
        net_file f = {0};
        float rows[ROWS * D], out[ROWS * D], grad[ROWS * D], cotangent[ROWS * D];
        kac_tensors *file = NULL;
        uint64_t seed = 9;
        make_model(&f, gmh);
        make_rows(rows);
        kac_device *device = open_own();
        kac_network *net = open_model(device, net_file_write(&f));
        cr_assert(net->graph.nodes == N && net->graph.features == F && net->length == D);
        cr_assert(net->graph.noise[0].kind == KAC_NOISE_VP &&
                  net->graph.noise[1].kind == KAC_NOISE_VE);
        cr_assert_eq(kac_tensors_open(f.path, &file), KAC_OK);
        for (int i = 0; i < ROWS * D; i++)
            cotangent[i] = net_file_random(&seed);
        const kac_query q = query_of(rows, out);
        cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
        cr_assert_eq(kac_network_vjp(net, &q, cotangent, grad), KAC_OK);
        for (int r = 0; r < ROWS; r++) {
            double row[D], want[D];
            for (int i = 0; i < D; i++)
                row[i] = (double)rows[r * D + i];
            plain_row(file, gmh, row, want);
            expect_close(out + r * D, want, D, "forward");
            differences(file, gmh, rows + r * D, cotangent + r * D, want);
            for (int i = 0; i < D; i++)
                if (!is_live(rows + r * D, i)) want[i] = 0;
            expect_close(grad + r * D, want, D, "gradient");
        }
        kac_tensors_close(file);
        kac_network_close(net);
        kac_device_close(device);
        net_file_remove(&f);
    }
}

/* Threads, rows one by one, a list with a count, another instruction set or device, and what is
 * in dead nodes: the same bits. */
static void expect_same(const kac_network *net, const float *rows, const float *cotangent,
                        const float *want_out, const float *want_grad)
{
    float out[(ROWS + 1) * D], grad[ROWS * D], turned[ROWS * D], dead[ROWS * D];
    int32_t src[ROWS], dst[ROWS];
    const int32_t count = ROWS - 1;
    for (int threads = 1; threads <= 3; threads += 2) {
        set_threads(threads);
        kac_query q = query_of(rows, out);
        cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
        cr_assert_eq(kac_network_vjp(net, &q, cotangent, grad), KAC_OK);
        expect_bits(out, want_out, ROWS * D, "threads");
        expect_bits(grad, want_grad, ROWS * D, "threads");
    }
    for (int32_t i = 0; i < ROWS; i++) {
        src[i] = ROWS - 1 - i;
        dst[i] = i + 1;
        memcpy(turned + i * D, cotangent + src[i] * D, D * sizeof *turned);
        for (int j = 0; j < D; j++)
            dead[i * D + j] = j == 0 || is_live(rows + i * D, j) ? rows[i * D + j] : NAN;
    }
    kac_query q = query_of(dead, out);
    q.src = src;
    q.dst = dst;
    q.count = &count;
    memset(out, 0, sizeof out);
    memset(grad, 0, sizeof grad);
    cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
    cr_assert_eq(kac_network_vjp(net, &q, turned, grad), KAC_OK);
    for (int i = 0; i < count; i++) {
        expect_bits(out + (i + 1) * D, want_out + src[i] * D, D, "list");
        expect_bits(grad + i * D, want_grad + src[i] * D, D, "list");
    }
    for (int i = 0; i < D; i++)
        cr_assert(out[i] == 0 && out[ROWS * D + i] == 0 && grad[count * D + i] == 0);
    for (int32_t i = 0; i < ROWS; i++) {
        q = query_of(rows, out);
        q.src = &i;
        q.capacity = 1;
        cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
        expect_bits(out, want_out + i * D, D, "one row");
    }
}

Test(gdss, same_bits_for_threads_batches_lists_and_instruction_sets)
{
    for (int gmh = 0; gmh <= 1; gmh++) {
        net_file f = {0};
        float rows[ROWS * D], out[ROWS * D], grad[ROWS * D], cotangent[ROWS * D];
        uint64_t seed = 17;
        make_model(&f, gmh);
        make_rows(rows);
        net_file_write(&f);
        for (int i = 0; i < ROWS * D; i++)
            cotangent[i] = net_file_random(&seed);
        for (int isa = 0; isa <= (int)OWN_DEVICE; isa++) {
            kac_device *device = open_device(isa);
            if (device == NULL) continue;
            kac_network *net = open_model(device, f.path);
            if (isa == 0) {
                const kac_query q = query_of(rows, out);
                cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
                cr_assert_eq(kac_network_vjp(net, &q, cotangent, grad), KAC_OK);
            }
            expect_same(net, rows, cotangent, out, grad);
            kac_network_close(net);
            kac_device_close(device);
        }
        net_file_remove(&f);
    }
}

/* A count of nodes outside of 0 .. N counts as the nearest, and without nodes there is nothing. */
Test(gdss, counts_of_nodes_stay_in_range)
{
    const float counts[] = {N + 5, INFINITY, -3, NAN, 0.5f, 0};
    net_file f = {0};
    float rows[ROWS * D], out[ROWS * D], full[D];
    make_model(&f, false);
    make_rows(rows);
    kac_device *device = open_own();
    kac_network *net = open_model(device, net_file_write(&f));
    kac_query q = query_of(rows, out);
    cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
    memcpy(full, out, sizeof full);
    q.capacity = 1;
    for (int i = 0; i < 6; i++) {
        rows[0] = counts[i];
        cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
        if (i > 1) memset(full, 0, sizeof full);
        expect_bits(out, full, D, "count");
    }
    kac_network_close(net);
    kac_device_close(device);
    net_file_remove(&f);
}

/* Channels of which queries or keys are 0 have scores of 0, and weights of dead units that no
 * sum can tell from 0 change nothing. */
Test(gdss, dead_units_are_left_out_exactly)
{
    net_file f = {0};
    float rows[ROWS * D], out[3][ROWS * D], grad[3][ROWS * D], cotangent[ROWS * D];
    const float sizes[] = {0, 1e-39f, 1e-22f};
    uint64_t seed = 23;
    make_model(&f, false);
    make_rows(rows);
    for (int i = 0; i < ROWS * D; i++)
        cotangent[i] = net_file_random(&seed);
    for (int k = 0; k < 3; k++) {
        kac_tensors *file = NULL;
        for (int i = 0; i < f.tensors; i++)
            if (strstr(f.name[i], "adj.layers.1.attn.1.gnn_k") != NULL)
                for (size_t j = 0; j < f.tensor[i].bytes / sizeof(float); j++)
                    ((float *)f.data[i])[j] = sizes[k];
        kac_device *device = open_own();
        kac_network *net = open_model(device, net_file_write(&f));
        const kac_query q = query_of(rows, out[k]);
        cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
        cr_assert_eq(kac_network_vjp(net, &q, cotangent, grad[k]), KAC_OK);
        expect_bits(out[k], out[0], ROWS * D, "forward");
        expect_bits(grad[k], grad[0], ROWS * D, "gradient");
        cr_assert_eq(kac_tensors_open(f.path, &file), KAC_OK);
        for (int r = 0; r < ROWS; r++) {
            double row[D], want[D];
            for (int i = 0; i < D; i++)
                row[i] = (double)rows[r * D + i];
            plain_row(file, false, row, want);
            expect_close(out[k] + r * D, want, D, "forward");
            differences(file, false, rows + r * D, cotangent + r * D, want);
            for (int i = 0; i < D; i++)
                if (!is_live(rows + r * D, i)) want[i] = 0;
            expect_close(grad[k] + r * D, want, D, "gradient");
        }
        kac_tensors_close(file);
        kac_network_close(net);
        kac_device_close(device);
    }
    net_file_remove(&f);
}

/* ---- files ------------------------------------------------------------------------------ */

static void expect_refusal(net_file *f, const char *says)
{
    kac_device *device = open_device(-1);
    kac_network *net = NULL;
    cr_assert(kac_network_open(device, net_file_write(f), KAC_ROLE_DENOISER, &net) ==
                  KAC_ERR_INVALID,
              "want a refusal that says: %s", says);
    cr_assert(strstr(kac_last_error(), says) != NULL, "\"%s\" does not say \"%s\"",
              kac_last_error(), says);
    kac_device_close(device);
}

static net_file *tensor_called(net_file *f, const char *name, int *at)
{
    for (*at = 0; *at < f->tensors; ++*at)
        if (strcmp(f->name[*at], name) == 0) return f;
    cr_assert_fail("%s", name);
    return NULL;
}

Test(gdss, says_what_is_wrong_with_a_file)
{
    static const char *const wrong[][3] = {
        {"params_x", "[1]", "metadata `params_x` is not a JSON object"},
        {"params_x", "{\"model_type\": \"ScoreNetworkY\"}",
         "`model_type` is `ScoreNetworkY`, want ScoreNetworkX or ScoreNetworkX_GMH"},
        {"params_adj",
         "{\"model_type\": \"ScoreNetworkA\", \"conv\": \"MLP\", \"c_init\": 2, "
         "\"num_heads\": 2}",
         "`conv` is `MLP`, want GCN"},
        {"params_adj",
         "{\"model_type\": \"ScoreNetworkA\", \"conv\": \"GCN\", \"c_init\": 3, "
         "\"num_heads\": 2}",
         "`c_init` is not a whole number in [2, 2]"},
        {"params_adj",
         "{\"model_type\": \"ScoreNetworkA\", \"conv\": \"GCN\", \"c_init\": 2, "
         "\"num_heads\": 3}",
         "a multiple of the 3 heads"},
        {"sde_x",
         "{\"type\": \"subVP\", \"beta_min\": 0.1, \"beta_max\": 1, \"num_scales\": 9}",
         "`type` is `subVP`, want VP or VE"},
        {"sde_x", "{\"type\": \"VP\", \"beta_min\": 0, \"beta_max\": 1, \"num_scales\": 9}",
         "`beta_min` is not a number above 0"},
        {"sde_adj", NULL, "metadata `sde_adj` is missing"},
        {"max_node_num", "100000", "max_node_num"},
        {"max_feat_num", "4", "x.layers.0.weight"},
    };
    net_file f = {0};
    int at = 0;
    make_model(&f, false);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        net_file_meta(&f, wrong[i][0], wrong[i][1]);
        expect_refusal(&f, wrong[i][2]);
        add_metadata(&f, false);
    }
    tensor_called(&f, "adj.layers.1.attn.2.gnn_v.bias", &at)->name[at][0] = 'b';
    expect_refusal(&f, "adj.layers.1.attn.2.gnn_v.bias");
    f.name[at][0] = 'a';
    tensor_called(&f, "adj.final.linears.1.weight", &at)->name[at][0] = 'b';
    expect_refusal(&f, "`adj.final` has 5 outputs, want 1");
    net_file_remove(&f);
}

/* ---- recordings -------------------------------------------------------------------------- */

static kac_status verify(const char *model, const char *recording, char *text, size_t size,
                         double *worst)
{
    FILE *out = fmemopen(text, size, "w");
    cr_assert_not_null(out);
    double tolerance = 0;
    kac_status status =
        kac_verify(model, recording, device_name(), "auto", out, worst, &tolerance);
    cr_assert(fclose(out) == 0);
    return status;
}

/* The original program's scores, of noised molecules of 10 to 36 atoms and of noise on 1 to 38. */
Test(gdss, agrees_with_the_original)
{
    static const char *const names[] = {"qm9", "zinc250k", "zinc250k_v2"};
    int compared = 0;
    for (int i = 0; i < 3; i++) {
        char model[128], recording[128], text[2048] = "";
        double worst = 1;
        snprintf(model, sizeof model, GDSS_DATA "/gdss/gdss_%s.safetensors", names[i]);
        snprintf(recording, sizeof recording, GDSS_DATA "/gdss_golden/%s_scores.safetensors",
                 names[i]);
        if (access(model, R_OK) != 0 || access(recording, R_OK) != 0) continue;
        cr_assert_eq(verify(model, recording, text, sizeof text, &worst), KAC_OK, "%s",
                     kac_last_error());
        cr_assert(worst < 1e-4, "%s: %g\n%s", names[i], worst, text);
        cr_assert(strstr(text, "real.score_adj [") != NULL, "%s", text);
        compared++;
    }
    if (compared == 0) cr_skip_test("no recordings of the original in " GDSS_DATA);
}

/* A recording of what the definition gives for the rows, with noise VP and VE. */
static void make_recording(net_file *recording, const net_file *model)
{
    float rows[ROWS * D];
    kac_tensors *file = NULL;
    cr_assert_eq(kac_tensors_open(model->path, &file), KAC_OK);
    make_rows(rows);
    float *x = net_file_add(recording, KAC_F32, "set.X", 3, ROWS, N, F);
    float *adj = net_file_add(recording, KAC_F32, "set.A", 3, ROWS, N, N);
    float *flags = net_file_add(recording, KAC_F32, "set.flags", 2, ROWS, N);
    float *t = net_file_add(recording, KAC_F32, "set.t", 1, ROWS);
    float *net_x = net_file_add(recording, KAC_F32, "set.net_x", 3, ROWS, N, F);
    float *net_adj = net_file_add(recording, KAC_F32, "set.net_adj", 3, ROWS, N, N);
    float *score_x = net_file_add(recording, KAC_F32, "set.score_x", 3, ROWS, N, F);
    float *score_adj = net_file_add(recording, KAC_F32, "set.score_adj", 3, ROWS, N, N);
    for (int r = 0; r < ROWS; r++) {
        double row[D], out[D];
        t[r] = (float)(r + 1) / ROWS;
        for (int i = 0; i < D; i++)
            row[i] = (double)rows[r * D + i];
        plain_row(file, false, row, out);
        const double at = (double)t[r];
        const double deviation = sqrt(-expm1(-0.5 * at * at * 0.9 - 0.1 * at));
        for (int i = 0; i < N * F; i++) {
            x[r * N * F + i] = (float)row[1 + i];
            net_x[r * N * F + i] = (float)out[1 + i];
            score_x[r * N * F + i] = (float)(-out[1 + i] / deviation);
        }
        int at_pair = 1 + N * F;
        for (int i = 0; i < N; i++) {
            flags[r * N + i] = i < row[0] ? 1 : 0;
            for (int j = i + 1; j < N; j++, at_pair++) {
                const int here = (r * N + i) * N + j, there = (r * N + j) * N + i;
                adj[here] = adj[there] = (float)row[at_pair];
                net_adj[here] = net_adj[there] = (float)out[at_pair];
                score_adj[here] = score_adj[there] = (float)out[at_pair];
            }
        }
    }
    kac_tensors_close(file);
}

Test(gdss, verify_replays_sets_of_graphs)
{
    net_file model = {0}, recording = {0};
    char text[1024] = "";
    double worst = 1;
    make_model(&model, false);
    net_file_write(&model);
    make_recording(&recording, &model);
    net_file_write(&recording);
    cr_assert_eq(verify(model.path, recording.path, text, sizeof text, &worst), KAC_OK, "%s",
                 kac_last_error());
    cr_assert(worst < 1e-5, "%g\n%s", worst, text);
    cr_assert(strstr(text, "set.net_x [7, 6, 3] ") != NULL &&
                  strstr(text, "set.score_adj [7, 6, 6] ") != NULL,
              "%s", text);
    for (int i = 4; i < 8; i++) { /* each of the outputs counts */
        float *value = recording.data[i];
        const float kept = value[1];
        value[1] += 0.5f;
        net_file_write(&recording);
        cr_assert_eq(verify(model.path, recording.path, text, sizeof text, &worst), KAC_OK);
        cr_assert(worst > 1e-3, "%s: %g", recording.name[i], worst);
        value[1] = kept;
    }

    float *adj = recording.data[1], *flags = recording.data[2];
    adj[1] += 1;
    net_file_write(&recording);
    cr_assert_eq(verify(model.path, recording.path, text, sizeof text, &worst),
                 KAC_ERR_INVALID);
    cr_assert(strstr(kac_last_error(), "graph 0 is not symmetric at 0, 1") != NULL);
    adj[1] -= 1;
    adj[N] = adj[1];
    flags[N] = 0; /* of the second graph, the first node */
    net_file_write(&recording);
    cr_assert_eq(verify(model.path, recording.path, text, sizeof text, &worst),
                 KAC_ERR_INVALID);
    cr_assert(strstr(kac_last_error(), "row 1 is not ones and then zeros") != NULL);
    snprintf(recording.name[0], sizeof recording.name[0], "set.Y");
    net_file_write(&recording);
    cr_assert_eq(verify(model.path, recording.path, text, sizeof text, &worst),
                 KAC_ERR_INVALID);
    cr_assert(strstr(kac_last_error(), "tensor `set.X` is missing") != NULL);
    net_file_remove(&model);
    net_file_remove(&recording);
}
