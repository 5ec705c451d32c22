/* bench_gdss.c -- speed of the networks of a gdss file on graphs of real sizes.
 *
 *     bench_gdss MODEL [DEVICE] [NODES] [ROWS]...
 *
 * DEVICE as in device.name (cpu); NODES the mean number of live nodes (0.61 of the most, as the
 * molecules of ZINC250k have), with a deviation of a fifth of it; ROWS the graphs of a call (64, 2560
 * and 20480).  One line a number of rows: the time of a call by the device's own clock (mean of
 * calls that are queued without waiting), graphs a second, the FLOPs of its products (two a fma, of
 * what is really computed: pairs i < j of live nodes, channels that have scores) and their rate;
 * then the same time and rate of the vector-Jacobian product, and how many forwards it takes.
 * Threads of the CPU by OMP_NUM_THREADS.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "exact.h"
#include "network.h"

static kac_device *dev;

static void must(kac_status status)
{
    if (status == KAC_OK) return;
    fprintf(stderr, "bench_gdss: %s\n", kac_last_error());
    exit(1);
}

static void *put(const void *host, size_t bytes)
{
    void *ptr = dev->ops->memory.alloc(dev, bytes);
    if (ptr == NULL) must(KAC_ERR_NOMEM);
    if (host != NULL) must(dev->ops->memory.upload(dev, ptr, host, bytes));
    return ptr;
}

/* ---- FLOPs -------------------------------------------------------------------------------- */

/* What a network's products take for n nodes and p pairs: the sum of these times n, n^2 and p. */
typedef struct work {
    double nodes, squares, pairs;
} work;

static bool has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

static bool is_zero(const kac_tensor *x)
{
    const float *value = x->data;
    for (size_t i = 0; i < x->bytes / sizeof *value; i++)
        if (kac_absf(value[i]) >= 0x1p-64f) return false;
    return true;
}

/* Whether the convolution of this weight has features of 0 alone. */
static bool is_silent(const kac_tensors *file, const char *weight)
{
    char name[256];
    snprintf(name, sizeof name, "%.*s.bias", (int)(strlen(weight) - strlen(".weight")), weight);
    const kac_tensor *w = kac_tensors_find(file, weight), *b = kac_tensors_find(file, name);
    return w != NULL && b != NULL && is_zero(w) && is_zero(b);
}

/* Whether the channel of this query or key has scores. */
static bool has_scores(const kac_tensors *file, const char *weight)
{
    char name[256];
    snprintf(name, sizeof name, "%s", weight);
    char *part = strstr(name, ".gnn_");
    if (part == NULL) return false;
    part[strlen(".gnn_")] = 'q';
    if (is_silent(file, name)) return false;
    part[strlen(".gnn_")] = 'k';
    return !is_silent(file, name);
}

/* Whether a layer is the last of its network. */
static bool is_last(const kac_tensors *file, const char *network, int layer)
{
    char name[256];
    snprintf(name, sizeof name, "%s.layers.%d.attn.0.gnn_q.weight", network, layer + 1);
    return kac_tensors_find(file, name) == NULL;
}

static void add_tensor(const kac_tensors *file, const kac_tensor *x, work *sum)
{
    char *end = NULL;
    const char *name = x->name, *layers = strstr(name, ".layers.");
    const bool of_nodes = strncmp(name, "x.", 2) == 0;
    if (x->rank != 2 || !has(name, ".weight")) return;
    const double size = 2 * (double)(x->shape[0] * x->shape[1]);
    const double spread = 2 * (double)x->shape[1];
    const bool last =
        layers != NULL && is_last(file, of_nodes ? "x" : "adj",
                                  (int)strtol(layers + strlen(".layers."), &end, 10));
    if (has(name, ".final.")) {
        *(of_nodes ? &sum->nodes : &sum->pairs) += size;
    } else if (has(name, ".multi_channel.")) {
        if (of_nodes || !last) sum->nodes += size;
    } else if (has(name, ".mlp.")) {
        if (!of_nodes || !last) sum->pairs += size;
    } else if (has(name, ".gnn_q") || has(name, ".gnn_k")) {
        if ((of_nodes && last) || !has_scores(file, name)) return;
        sum->nodes += size;
        sum->squares += spread;
        sum->pairs += spread; /* half of a dot product, both ways */
    } else if (!has(name, ".gnn_v") || of_nodes || !last) {
        sum->nodes += size;
        sum->squares += spread;
    }
}

static work count_work(const char *path)
{
    work sum = {0};
    kac_tensors *file = NULL;
    must(kac_tensors_open(path, &file));
    for (int i = 0; i < kac_tensors_count(file); i++)
        add_tensor(file, kac_tensors_at(file, i), &sum);
    kac_tensors_close(file);
    return sum;
}

static double flops_of(const work *w, double n)
{
    const double pairs = n * (n - 1) / 2;
    return w->nodes * n + w->squares * n * n + (w->pairs + 2 * n) * pairs;
}

/* ---- rows --------------------------------------------------------------------------------- */

/* Uniform on [0, 1). */
static double uniform(void)
{
    static uint64_t state = 88172645463325252;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(state >> 11) * 0x1p-53;
}

static int live_nodes(const kac_graph_model *g, double mean)
{
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += uniform();
    const double n = floor(mean + mean / 5 * (sum - 6) + 0.5);
    return n < 1 ? 1 : n > g->nodes ? g->nodes : (int)n;
}

/* Noised graphs, [rows][length]; *flops = of all. */
static float *make_rows(const kac_graph_model *g, int rows, double mean, const work *w,
                        double *flops)
{
    float *all = calloc((size_t)rows * (size_t)g->length, sizeof *all);
    if (all == NULL) must(KAC_ERR_NOMEM);
    *flops = 0;
    for (int r = 0; r < rows; r++) {
        const int n = live_nodes(g, mean);
        float *row = all + (size_t)r * (size_t)g->length;
        float *pair = row + 1 + (ptrdiff_t)g->nodes * g->features;
        *flops += flops_of(w, n);
        row[0] = (float)n;
        for (int i = 0; i < n * g->features; i++)
            row[1 + i] = (float)(2 * uniform() - 1);
        for (int i = 0; i < g->nodes; i++)
            for (int j = i + 1; j < g->nodes; j++, pair++)
                if (j < n) *pair = (float)(2 * uniform() - 1);
    }
    return all;
}

/* ---- time --------------------------------------------------------------------------------- */

typedef struct asking {
    const kac_network *net;
    kac_query q;
    const float *cotangent; /* NULL: forward */
    float *grad;
} asking;

static kac_status ask(const asking *a)
{
    return a->cotangent == NULL ? a->net->forward(dev, a->net->net, &a->q)
                                : a->net->vjp(dev, a->net->net, &a->q, a->cotangent, a->grad);
}

static double seconds_of(const asking *a, int repeats)
{
    static int64_t *stamp;
    int64_t at[2];
    if (stamp == NULL) stamp = put(NULL, 2 * sizeof *stamp);
    must(dev->ops->particles.stamp(dev, &stamp[0]));
    for (int i = 0; i < repeats; i++)
        must(ask(a));
    must(dev->ops->particles.stamp(dev, &stamp[1]));
    must(dev->ops->memory.download(dev, at, stamp, sizeof at));
    return 1e-9 * (double)(at[1] - at[0]) / repeats;
}

/* Mean seconds of a call over about half a second, after one that warms. */
static double measure(const asking *a)
{
    (void)seconds_of(a, 1);
    const double once = seconds_of(a, 1), repeats = once > 0 ? 0.5 / once : 1000;
    return seconds_of(a, repeats < 1 ? 1 : repeats > 1000 ? 1000 : (int)repeats);
}

static void run_case(const kac_network *net, const work *w, double mean, int rows)
{
    const kac_graph_model *g = &net->graph;
    const size_t bytes = (size_t)rows * (size_t)g->length * sizeof(float);
    double flops = 0;
    float *host = make_rows(g, rows, mean, w, &flops);
    float *out = put(NULL, bytes), *grad = put(NULL, bytes);
    void *given = put(host, bytes);
    asking a = {.net = net,
                .q = {.tokens = given,
                      .stride = g->length * (int32_t)sizeof(float),
                      .length = g->length,
                      .capacity = rows,
                      .out = out,
                      .out_stride = g->length},
                .grad = grad};
    const double forward = measure(&a);
    a.cotangent = out; /* any numbers of that size */
    const double back = measure(&a);
    printf("%8d %12.3f %12.0f %12.2f %10.1f %12.3f %12.0f %8.2f\n", rows, 1e3 * forward,
           rows / forward, 1e-6 * flops / rows, 1e-9 * flops / forward, 1e3 * back, rows / back,
           back / forward);
    (void)fflush(stdout);
    dev->ops->memory.release(dev, given);
    dev->ops->memory.release(dev, out);
    dev->ops->memory.release(dev, grad);
    free(host);
}

int main(int argc, char **argv)
{
    static const int usual[] = {64, 2560, 20480};
    kac_network *net = NULL;
    char text[256];
    if (argc < 2) {
        fprintf(stderr, "bench_gdss MODEL [DEVICE] [NODES] [ROWS]...: nothing to measure\n");
        return 0;
    }
    must(kac_device_open(argc > 2 ? argv[2] : "cpu", -1, &dev));
    must(kac_network_open(dev, argv[1], KAC_ROLE_DENOISER, &net));
    must(dev->ops->memory.describe(dev->ordinal, text, sizeof text));
    const work w = count_work(argv[1]);
    const double mean = argc > 3 ? strtod(argv[3], NULL) : 0.61 * net->graph.nodes;
    printf("%s: %s; %s, %.1f nodes of %d\n%8s %12s %12s %12s %10s %12s %12s %8s\n",
           argc > 2 ? argv[2] : "cpu", text, argv[1], mean, net->graph.nodes, "graphs",
           "forward, ms", "graphs/s", "MFLOP/graph", "GFLOP/s", "vjp, ms", "graphs/s",
           "forwards");
    const int cases = argc > 4 ? argc - 4 : 3;
    for (int i = 0; i < cases; i++) {
        const long rows = argc > 4 ? strtol(argv[4 + i], NULL, 10) : usual[i];
        if (rows < 1 || rows > 1 << 20) {
            fprintf(stderr, "bench_gdss: ROWS %ld: want 1 to %d\n", rows, 1 << 20);
            return 2;
        }
        run_case(net, &w, mean, (int)rows);
    }
    kac_network_close(net);
    kac_device_close(dev);
    return 0;
}
