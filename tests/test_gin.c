/* test_gin.c -- the graph isomorphism network, against message passing between all nodes in
 * double precision, BatchNorm and all, and against finite differences of that. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "each_device.h"
#include "exact.h"
#include "net_file.h"
#include "network.h"

TestSuite(gin, .timeout = 120);

enum { N = 7, F = 3, LAYERS = 3, OUTPUTS = 2, ROWS = 2 * (N + 1), MOST = 37 };
enum { D = 1 + N * F + N * (N - 1) / 2 };

static const int hidden_of[LAYERS] = {37, 26, 16}, out_of[LAYERS] = {19, 17, 33};

/* ---- a model ---------------------------------------------------------------------------- */

typedef struct norm {
    const float *weight, *bias, *mean, *var; /* NULL: none */
} norm;

/* The tensors of a file, as PyTorch has them. */
typedef struct model {
    net_file f;
    const float *weight[LAYERS][2], *bias[LAYERS][2], *end, *end_bias;
    norm inner[LAYERS], outer[LAYERS];
} model;

static float *add(net_file *f, const char *name, int rows, int columns, float scale)
{
    void *x = columns > 0 ? net_file_add(f, KAC_F32, name, 2, rows, columns)
                          : net_file_add(f, KAC_F32, name, 1, rows);
    return net_file_fill(f, x, scale);
}

static void add_linear(net_file *f, const char *name, int in, int out, const float **weight,
                       const float **bias)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    *weight = add(f, full, out, in, 2 / sqrtf((float)in));
    snprintf(full, sizeof full, "%s.bias", name);
    *bias = add(f, full, out, 0, 0.5f);
}

static void add_norm(net_file *f, const char *name, int size, norm *n)
{
    char full[64];
    float *var;
    snprintf(full, sizeof full, "%s.weight", name);
    n->weight = add(f, full, size, 0, 1);
    snprintf(full, sizeof full, "%s.bias", name);
    n->bias = add(f, full, size, 0, 0.5f);
    snprintf(full, sizeof full, "%s.running_mean", name);
    n->mean = add(f, full, size, 0, 0.5f);
    snprintf(full, sizeof full, "%s.running_var", name);
    n->var = var = add(f, full, size, 0, 0.6f);
    for (int i = 0; i < size; i++)
        var[i] += 0.7f;
}

/* The middle layer's inner BatchNorm and the last layer's outer one are left out. */
static void make_model(model *m)
{
    *m = (model){.f.seed = 7};
    net_file_meta(&m->f, "kac.arch", "gin");
    net_file_meta(&m->f, "kac.nodes", "7");
    net_file_meta(&m->f, "kac.features", "3");
    net_file_meta(&m->f, "kac.edges", "complete");
    for (int i = 0, in = F; i < LAYERS; in = out_of[i++]) {
        char name[64];
        snprintf(name, sizeof name, "convs.%d.nn.0", i);
        add_linear(&m->f, name, in, hidden_of[i], &m->weight[i][0], &m->bias[i][0]);
        snprintf(name, sizeof name, "convs.%d.nn.1", i);
        if (i != 1) add_norm(&m->f, name, hidden_of[i], &m->inner[i]);
        snprintf(name, sizeof name, "convs.%d.nn.3", i);
        add_linear(&m->f, name, hidden_of[i], out_of[i], &m->weight[i][1], &m->bias[i][1]);
        snprintf(name, sizeof name, "batch_norms.%d", i);
        if (i != 2) add_norm(&m->f, name, out_of[i], &m->outer[i]);
    }
    add_linear(&m->f, "lin", out_of[LAYERS - 1], OUTPUTS, &m->end, &m->end_bias);
    net_file_write(&m->f);
}

static kac_network *open_model(kac_device *device, const char *path)
{
    kac_network *net = NULL;
    cr_assert_eq(kac_network_open(device, path, KAC_ROLE_REWARD, &net), KAC_OK, "%s",
                 kac_last_error());
    return net;
}

/* Graphs of 0 .. N nodes, twice; what belongs to dead nodes is 0. */
static void make_rows(float *rows)
{
    uint64_t seed = 11;
    for (int i = 0; i < ROWS; i++) {
        float *row = rows + i * D;
        int n = i % (N + 1), l = 1 + N * F;
        memset(row, 0, D * sizeof *row);
        row[0] = (float)n;
        for (int k = 0; k < n * F; k++)
            row[1 + k] = 2 * net_file_random(&seed);
        for (int a = 0; a < N; a++)
            for (int b = a + 1; b < N; b++, l++)
                if (b < n) row[l] = net_file_random(&seed);
    }
}

/* ---- plain arithmetic ------------------------------------------------------------------- */

static double normed(const norm *n, int c, double x)
{
    if (n->weight == NULL) return x;
    return (x - (double)n->mean[c]) / sqrt((double)n->var[c] + 1e-5) * (double)n->weight[c] +
           (double)n->bias[c];
}

static double dense(const float *weight, const float *bias, int in, int o, const double *x)
{
    double sum = (double)bias[o];
    for (int c = 0; c < in; c++)
        sum += (double)weight[o * in + c] * x[c];
    return sum;
}

/* The numbers of a row as doubles; an edge where a pair's number is not 0. */
static void plain(const model *m, const double *row, double *out)
{
    double x[N][MOST] = {0}, mean[MOST] = {0};
    bool joined[N][N] = {0};
    for (int a = 0, l = 1 + N * F; a < N; a++)
        for (int b = a + 1; b < N; b++)
            joined[a][b] = joined[b][a] = row[l++] != 0;
    for (int i = 0; i < N; i++)
        for (int f = 0; f < F; f++)
            x[i][f] = row[1 + i * F + f];
    for (int k = 0, in = F; k < LAYERS; in = out_of[k++]) {
        double y[N][MOST] = {0}, hidden[MOST];
        for (int i = 0; i < N; i++)
            for (int c = 0; c < in; c++) {
                y[i][c] = x[i][c];
                for (int j = 0; j < N; j++)
                    if (joined[i][j]) y[i][c] += x[j][c];
            }
        for (int i = 0; i < N; i++) {
            for (int h = 0; h < hidden_of[k]; h++)
                hidden[h] = fmax(0, normed(&m->inner[k], h,
                                           dense(m->weight[k][0], m->bias[k][0], in, h, y[i])));
            for (int c = 0; c < out_of[k]; c++) {
                double z =
                    normed(&m->outer[k], c,
                           dense(m->weight[k][1], m->bias[k][1], hidden_of[k], c, hidden));
                x[i][c] = k + 1 < LAYERS ? fmax(0, z) : z;
            }
        }
    }
    for (int c = 0; c < out_of[LAYERS - 1]; c++)
        for (int i = 0; i < N; i++)
            mean[c] += x[i][c] / N;
    for (int o = 0; o < OUTPUTS; o++)
        out[o] = dense(m->end, m->end_bias, out_of[LAYERS - 1], o, mean);
}

static void to_doubles(const float *row, double *out)
{
    for (int l = 0; l < D; l++)
        out[l] = (double)row[l];
}

static kac_query query_of(const float *rows, float *out)
{
    return (kac_query){.tokens = (const uint8_t *)rows,
                       .stride = D * sizeof(float),
                       .length = D,
                       .capacity = ROWS,
                       .out = out,
                       .out_stride = OUTPUTS};
}

static void expect_bits(const float *got, const float *want, int n, const char *what)
{
    for (int i = 0; i < n; i++)
        cr_assert(kac_bits(got[i]) == kac_bits(want[i]), "%s: number %d is %a, want %a", what,
                  i, (double)got[i], (double)want[i]);
}

Test(gin, forward_is_message_passing_between_all_nodes)
{
    model m;
    float rows[ROWS * D], out[ROWS * OUTPUTS] = {0}, first[ROWS * OUTPUTS] = {0};
    make_model(&m);
    make_rows(rows);
    for (int isa = 0; isa <= (int)KAC_ISA_AVX512; isa++) {
        kac_device *device = open_device(isa);
        if (device == NULL) continue;
        kac_network *net = open_model(device, m.f.path);
        kac_query q = query_of(rows, out);
        cr_assert_eq(net->outputs, OUTPUTS);
        cr_assert_eq(net->length, D);
        cr_assert_eq(kac_network_ask(net, &q), KAC_OK, "%s", kac_last_error());
        for (int i = 0; i < ROWS && isa == 0; i++) {
            double row[D], want[OUTPUTS];
            to_doubles(rows + i * D, row);
            plain(&m, row, want);
            for (int o = 0; o < OUTPUTS; o++)
                cr_expect_float_eq((double)out[i * OUTPUTS + o], want[o],
                                   2e-6 * (1 + fabs(want[o])), "row %d: %g, want %g", i,
                                   (double)out[i * OUTPUTS + o], want[o]);
        }
        if (isa == 0) memcpy(first, out, sizeof out);
        expect_bits(out, first, ROWS * OUTPUTS, "instruction sets");
        q.capacity = 1;
        for (int i = 0; i < ROWS; i++) {
            q.tokens = (const uint8_t *)(rows + i * D);
            cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
            expect_bits(out, first + i * OUTPUTS, OUTPUTS, "alone");
        }
        kac_network_close(net);
        kac_device_close(device);
    }
    net_file_remove(&m.f);
}

Test(gin, gradient_is_the_slope)
{
    model m;
    float rows[ROWS * D], grad[ROWS * D] = {0}, first[ROWS * D] = {0};
    float cotangent[ROWS * OUTPUTS];
    uint64_t seed = 3;
    make_model(&m);
    make_rows(rows);
    for (int i = 0; i < ROWS * OUTPUTS; i++)
        cotangent[i] = net_file_random(&seed);
    for (int isa = 0; isa <= (int)KAC_ISA_AVX512; isa++) {
        kac_device *device = open_device(isa);
        if (device == NULL) continue;
        kac_network *net = open_model(device, m.f.path);
        const kac_query q = query_of(rows, NULL);
        cr_assert_eq(kac_network_vjp(net, &q, cotangent, grad), KAC_OK, "%s", kac_last_error());
        if (isa == 0) memcpy(first, grad, sizeof grad);
        expect_bits(grad, first, ROWS * D, "instruction sets");
        kac_network_close(net);
        kac_device_close(device);
    }
    for (int i = 0; i < ROWS; i++) {
        const float *got = first + i * D;
        const int n = i % (N + 1);
        double row[D], most = 0, want[D] = {0};
        to_doubles(rows + i * D, row);
        for (int l = 1; l < 1 + n * F; l++) {
            double at = row[l], up[OUTPUTS], down[OUTPUTS];
            row[l] = at + 1e-6;
            plain(&m, row, up);
            row[l] = at - 1e-6;
            plain(&m, row, down);
            row[l] = at;
            for (int o = 0; o < OUTPUTS; o++)
                want[l] += (double)cotangent[i * OUTPUTS + o] * (up[o] - down[o]) / 2e-6;
            most = fmax(most, fabs(want[l]));
        }
        for (int l = 0; l < D; l++)
            cr_expect_float_eq((double)got[l], want[l], 1e-4 * most, "row %d, %d: %g, want %g",
                               i, l, (double)got[l], want[l]);
        if (n > 0) cr_expect_gt(most, 1e-2);
    }
    net_file_remove(&m.f);
}

/* A count outside of 0 .. N counts as the nearest; adjacency and dead nodes are not read. */
Test(gin, only_counts_and_live_features_are_read)
{
    const float counts[] = {N + 5, INFINITY, -3, NAN, 0.5f, 2.75f};
    const int as[] = {N, N, 0, 0, 0, 2};
    model m;
    float rows[ROWS * D], out[ROWS * OUTPUTS] = {0}, want[(N + 1) * OUTPUTS] = {0};
    make_model(&m);
    make_rows(rows);
    kac_device *device = open_device(-1);
    kac_network *net = open_model(device, m.f.path);
    kac_query q = query_of(rows, out);
    float *row = rows + N * D;
    q.tokens = (const uint8_t *)row;
    q.capacity = 1;
    for (int n = 0; n <= N; n++) {
        row[0] = (float)n;
        cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
        memcpy(want + n * OUTPUTS, out, OUTPUTS * sizeof *out);
    }
    for (int i = 0; i < 6; i++) {
        row[0] = counts[i];
        cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
        expect_bits(out, want + as[i] * OUTPUTS, OUTPUTS, "count");
    }
    row[0] = 2;
    for (int l = 1 + 2 * F; l < D; l++)
        row[l] = NAN;
    cr_assert_eq(kac_network_ask(net, &q), KAC_OK);
    expect_bits(out, want + 2 * OUTPUTS, OUTPUTS, "the rest");
    kac_network_close(net);
    kac_device_close(device);
    net_file_remove(&m.f);
}

/* ---- files that are none ----------------------------------------------------------------- */

static void expect_refusal(net_file *f, const char *sentence)
{
    kac_device *device = open_device(-1);
    kac_network *net = NULL;
    net_file_write(f);
    cr_expect_eq(kac_network_open(device, f->path, KAC_ROLE_REWARD, &net), KAC_ERR_INVALID);
    cr_expect_neq(strstr(kac_last_error(), sentence), NULL, "%s", kac_last_error());
    kac_device_close(device);
}

Test(gin, says_what_is_wrong_with_a_file)
{
    model m;
    make_model(&m);
    net_file_meta(&m.f, "kac.edges", "bonds");
    expect_refusal(&m.f, "metadata `kac.edges` is `bonds`, want `complete`");
    net_file_meta(&m.f, "kac.edges", "complete");
    net_file_meta(&m.f, "kac.features", "4");
    expect_refusal(&m.f, "tensor `convs.0.nn.0.weight`");
    net_file_meta(&m.f, "kac.features", "3");
    net_file_meta(&m.f, "kac.nodes", "0");
    expect_refusal(&m.f, "kac.nodes");
    net_file_meta(&m.f, "kac.nodes", "7");
    ((float *)m.f.data[5])[1] = -1; /* of convs.0.nn.1 */
    expect_refusal(&m.f, "tensor `convs.0.nn.1.running_var`: element 1 is -1, want a variance");
    m.f.tensors--; /* the last is lin.bias */
    ((float *)m.f.data[5])[1] = 1;
    expect_refusal(&m.f, "lin.bias");
    m.f.tensors++;
    net_file_remove(&m.f);
}
