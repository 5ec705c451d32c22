/* test_verify_graph.c -- kac_verify on recordings of the published sampler of graphs: of a plain
 * one written here, and of the original (shared/data/gdss_golden). */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "net_file.h"
#include "network.h"
#include "on_device.h"

TestSuite(verify_graph, .timeout = 300);

#define DATA "../shared/data/"

static double tolerance; /* of the latest replay */

static kac_status verify(const char *model, const char *recording, char *text, size_t size,
                         double *worst)
{
    FILE *out = fmemopen(text, size, "w");
    cr_assert_not_null(out);
    kac_status status =
        kac_verify(model, recording, device_name(), "auto", out, worst, &tolerance);
    cr_assert(fclose(out) == 0);
    return status;
}

/* ---- a small model ------------------------------------------------------------------------ */

enum { N = 4, F = 2, B = 3, POINTS = 6, PAIRS = N * (N - 1) / 2, D = 1 + N * F + PAIRS };
static const int sizes[B] = {4, 3, 2};
static const double snr = 0.2, heat = 0.7;

static void add_linear(net_file *f, const char *name, int rows, int columns, int outputs)
{
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    net_file_fill(f, net_file_add(f, KAC_F32, full, 2, rows, columns), 0.8f);
    snprintf(full, sizeof full, "%s.bias", name);
    net_file_fill(f, net_file_add(f, KAC_F32, full, 1, outputs), 0.4f);
}

static void make_model(net_file *f)
{
    f->seed = 3;
    net_file_meta(f, "max_node_num", "4");
    net_file_meta(f, "max_feat_num", "2");
    net_file_meta(f, "params_x", "{\"model_type\": \"ScoreNetworkX\"}");
    net_file_meta(f, "params_adj",
                  "{\"model_type\": \"ScoreNetworkA\", \"conv\": \"GCN\", \"c_init\": 2, "
                  "\"num_heads\": 1}");
    net_file_meta(f, "sde_x", "{\"type\": \"VP\", \"beta_min\": 0.1, \"beta_max\": 1.0}");
    net_file_meta(f, "sde_adj", "{\"type\": \"VE\", \"beta_min\": 0.2, \"beta_max\": 1.0}");
    add_linear(f, "x.layers.0", F, 3, 3);
    add_linear(f, "x.final.linears.0", F, F + 3, F);
    for (int c = 0; c < 2; c++)
        for (int p = 0; p < 3; p++) {
            char name[64];
            snprintf(name, sizeof name, "adj.layers.0.attn.%d.gnn_%c", c, "qkv"[p]);
            add_linear(f, name, F, 2, 2);
        }
    add_linear(f, "adj.layers.0.multi_channel.linears.0", 2, 4, 2);
    add_linear(f, "adj.layers.0.mlp.linears.0", 3, 4, 3);
    add_linear(f, "adj.final.linears.0", 1, 5, 1);
    net_file_write(f);
}

/* ---- a plain sampler ---------------------------------------------------------------------- */

/* A batch, [B][N][F] and [B][N][N]: zeros at the dead. */
typedef struct batch {
    float x[B * N * F], adj[B * N * N];
} batch;

static int at(int b, int i, int j) /* a pair in `adj` */
{
    return (b * N + i) * N + j;
}

/* What the networks answer for a state. */
static batch answers(const char *model, const batch *s)
{
    kac_device *dev = NULL;
    kac_network *net = NULL;
    float row[B][D] = {{0}}, out[B][D];
    batch a = {0};
    cr_assert_eq(kac_device_open("cpu", -1, &dev), KAC_OK);
    cr_assert_eq(kac_network_open(dev, model, KAC_ROLE_DENOISER, &net), KAC_OK, "%s",
                 kac_last_error());
    for (int b = 0; b < B; b++) {
        float *to = row[b];
        *to++ = (float)sizes[b];
        memcpy(to, s->x + (ptrdiff_t)b * N * F, N * F * sizeof *to);
        to += N * F;
        for (int i = 0; i < N; i++)
            for (int j = i + 1; j < N; j++)
                *to++ = s->adj[at(b, i, j)];
    }
    kac_query q = {.tokens = (const uint8_t *)row,
                   .stride = sizeof row[0],
                   .length = D,
                   .capacity = B,
                   .out = out[0],
                   .out_stride = D};
    cr_assert_eq(kac_network_ask(net, &q), KAC_OK, "%s", kac_last_error());
    for (int b = 0; b < B; b++) {
        const float *from = out[b] + 1;
        memcpy(a.x + (ptrdiff_t)b * N * F, from, N * F * sizeof *from);
        from += N * F;
        for (int i = 0; i < N; i++)
            for (int j = i + 1; j < N; j++)
                a.adj[at(b, i, j)] = a.adj[at(b, j, i)] = *from++;
    }
    kac_network_close(net);
    kac_device_close(dev);
    return a;
}

static double time_of(int step)
{
    return 1 + step * (1e-4 - 1) / (POINTS - 1);
}

static double deviation_of(int step) /* of the nodes, vp 0.1 1 */
{
    double t = time_of(step);
    return sqrt(1 - exp(-0.5 * t * t * 0.9 - t * 0.1));
}

/* In floats, as the original has it: coarse at the last step. */
static double recorded_deviation_of(int step)
{
    float t = (float)time_of(step);
    return (double)sqrtf(1 - expf(2 * (-0.25F * (t * t) * 0.9F - 0.5F * t * 0.1F)));
}

static double beta_of(int step)
{
    return (0.1 + (POINTS - 1 - step) * 0.9 / (POINTS - 1)) / POINTS;
}

static double sigma_of(int step)
{
    return step < POINTS ? 0.2 * pow(5, (POINTS - 1.0 - step) / (POINTS - 1)) : 0;
}

/* The scores that answers stand for; the deviation is that of the nodes. */
static batch scores_of(batch a, double deviation)
{
    for (int k = 0; k < B * N * F; k++)
        a.x[k] = (float)(-(double)a.x[k] / deviation);
    return a;
}

/* Zeros at the dead, and the upper triangle on both sides. */
static batch masked(const batch *raw)
{
    batch z = {0};
    for (int b = 0; b < B; b++)
        for (int i = 0; i < sizes[b]; i++) {
            for (int f = 0; f < F; f++)
                z.x[(b * N + i) * F + f] = raw->x[(b * N + i) * F + f];
            for (int j = i + 1; j < sizes[b]; j++)
                z.adj[at(b, i, j)] = z.adj[at(b, j, i)] = raw->adj[at(b, i, j)];
        }
    return z;
}

/* Mean over the batch of the norms of a part. */
static double mean_norm(const float *v, int each)
{
    double mean = 0;
    for (int b = 0; b < B; b++) {
        double sum = 0;
        for (int k = 0; k < each; k++)
            sum += (double)v[b * each + k] * (double)v[b * each + k];
        mean += sqrt(sum) / B;
    }
    return mean;
}

/* One part of a corrector's move: x + h s + sqrt(2 h) z heat. */
static void correct(float *x, const float *s, const float *z, int each, double alpha)
{
    double h = 2 * alpha * pow(snr * mean_norm(z, each) / mean_norm(s, each), 2);
    for (int k = 0; k < B * each; k++)
        x[k] = (float)((double)x[k] + h * (double)s[k] + sqrt(2 * h) * heat * (double)z[k]);
}

/* And of a predictor's, with noise or without. */
static void predict(float *x, const float *s, const float *z, int each, const double c[3])
{
    for (int k = 0; k < B * each; k++)
        x[k] = (float)(c[0] * (double)x[k] + c[1] * (double)s[k] + c[2] * (double)z[k]);
}

static batch corrected(batch x, const batch *s, const batch *raw, int step)
{
    batch z = masked(raw);
    correct(x.x, s->x, z.x, N * F, 1 - beta_of(step));
    correct(x.adj, s->adj, z.adj, N * N, 1);
    return x;
}

static batch predicted(batch x, const batch *s, const batch *raw, int step)
{
    batch z = masked(raw);
    double beta = beta_of(step), noise = step < POINTS - 1;
    double square = pow(sigma_of(step), 2) - pow(sigma_of(step + 1), 2);
    const double of_nodes[3] = {2 - sqrt(1 - beta), beta, noise * sqrt(beta)};
    const double of_pairs[3] = {1, square, noise * sqrt(square)};
    predict(x.x, s->x, z.x, N * F, of_nodes);
    predict(x.adj, s->adj, z.adj, N * N, of_pairs);
    return x;
}

/* ---- its noise ---------------------------------------------------------------------------- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static void counter_noise(uint64_t seed, int step, int stream, float *out, int count)
{
    const uint64_t g = UINT64_C(0x9E3779B97F4A7C15);
    uint64_t s = mix(seed * g + (uint64_t)step * 8 + (uint64_t)stream), word = 0;
    for (int k = 0; k < count; k++) {
        double sum = 0;
        for (int piece = 0; piece < 12; piece++) {
            if (piece % 4 == 0) word = mix(s + (uint64_t)(3 * k + piece / 4 + 1) * g);
            sum += (double)(word >> 16 * (piece % 4) & 0xFFFF);
        }
        out[k] = (float)((sum - 393210) / 65536);
    }
}

/* The noise of the recordings is the one that their README tells (noise_vectors.json). */
Test(verify_graph, the_noise_here_is_the_documented_one)
{
    float z[4];
    counter_noise(42, 0, 2, z, 4);
    cr_assert(z[0] == -0.241973876953125F && z[1] == -0.42718505859375F &&
              z[2] == -0.7885284423828125F && z[3] == 0.4227294921875F);
    counter_noise(42, 999, 5, z, 4);
    cr_assert(z[0] == 1.3591766357421875F && z[3] == 0.75390625F);
}

static batch noise_at(uint64_t seed, int step, int move)
{
    batch z;
    counter_noise(seed, step, 2 + 2 * move, z.x, B * N * F);
    counter_noise(seed, step, 3 + 2 * move, z.adj, B * N * N);
    return z;
}

/* ---- recordings --------------------------------------------------------------------------- */

static void add_batch(net_file *f, const batch *s, const char *x, const char *adj)
{
    memcpy(net_file_add(f, KAC_F32, x, 3, B, N, F), s->x, sizeof s->x);
    memcpy(net_file_add(f, KAC_F32, adj, 3, B, N, N), s->adj, sizeof s->adj);
}

static void add_flags(net_file *f)
{
    float *flags = net_file_add(f, KAC_F32, "flags", 2, B, N);
    for (int b = 0; b < B; b++)
        for (int i = 0; i < sizes[b]; i++)
            flags[b * N + i] = 1;
    net_file_meta(f, "sampler",
                  "{\"corrector\": \"Langevin\", \"eps\": 0.0001, \"n_steps\": 1, "
                  "\"predictor\": \"Reverse\", \"scale_eps\": 0.7, \"snr\": 0.2}");
}

static void named(net_file *f, const batch *s, int step, const char *x, const char *adj)
{
    char names[2][64];
    snprintf(names[0], sizeof names[0], "s%04d.%s", step, x);
    snprintf(names[1], sizeof names[1], "s%04d.%s", step, adj);
    add_batch(f, s, names[0], names[1]);
}

static batch some_state(void)
{
    batch raw = noise_at(9, 0, 0);
    return masked(&raw);
}

static void record_step(net_file *f, const char *model, int step)
{
    char name[64];
    batch x = some_state(), z[2] = {noise_at(1, step, 0), noise_at(1, step, 1)};
    snprintf(name, sizeof name, "s%04d.t", step);
    float *t = net_file_add(f, KAC_F32, name, 1, B);
    for (int b = 0; b < B; b++)
        t[b] = (float)time_of(step);
    named(f, &x, step, "in.x", "in.adj");
    named(f, &z[0], step, "z_raw.corr_x", "z_raw.corr_adj");
    named(f, &z[1], step, "z_raw.pred_x", "z_raw.pred_adj");
    for (int move = 0; move < 2; move++) {
        static const char *const names[2][4] = {
            {"corr.score_x", "corr.score_adj", "corr.x", "corr.adj"},
            {"pred.score_x", "pred.score_adj", "pred.x", "pred.adj"}};
        batch a = answers(model, &x), s = scores_of(a, recorded_deviation_of(step));
        named(f, &s, step, names[move][0], names[move][1]);
        s = scores_of(a, deviation_of(step));
        x = (move == 0 ? corrected : predicted)(x, &s, &z[move], step);
        if (move == 1 && step == POINTS - 1)
            named(f, &x, step, "pred.x_mean", "pred.adj_mean");
        else
            named(f, &x, step, names[move][2], names[move][3]);
    }
}

static batch whole_step(const char *model, batch x, int step)
{
    for (int move = 0; move < 2; move++) {
        batch s = scores_of(answers(model, &x), deviation_of(step));
        batch z = noise_at(7, step, move);
        x = (move == 0 ? corrected : predicted)(x, &s, &z, step);
    }
    return x;
}

static void record_objects(net_file *f, const batch *x)
{
    int8_t *atom = net_file_add(f, KAC_I8, "quant.x_onehot", 3, B, N, F + 1);
    int8_t *bond = net_file_add(f, KAC_I8, "quant.adj", 3, B, N, N);
    for (int k = 0; k < B * N; k++) {
        const float *of = x->x + (ptrdiff_t)k * F;
        atom[k * (F + 1) + (of[0] > 0.5F ? 0 : of[1] > 0.5F ? 1 : 2)] = 1;
        for (int j = 0; j < N; j++) {
            float a = x->adj[k * N + j];
            bond[k * N + j] = (int8_t)(a < 0.5F ? 0 : a < 1.5F ? 1 : a < 2.5F ? 2 : 3);
        }
    }
}

/* States before steps 0, 1, 3 and 5, the end, and the object. */
static void record_trajectory(net_file *f, const char *model)
{
    batch x = some_state();
    float *t = net_file_add(f, KAC_F32, "t", 1, POINTS);
    net_file_meta(f, "noise", "counter hash, seed 7, see README");
    for (int step = 0; step < POINTS; step++) {
        char names[2][64];
        t[step] = (float)time_of(step);
        snprintf(names[0], sizeof names[0], "state.%04d.x", step);
        snprintf(names[1], sizeof names[1], "state.%04d.adj", step);
        if (step == 0 || step % 2 == 1) add_batch(f, &x, names[0], names[1]);
        x = whole_step(model, x, step);
    }
    add_batch(f, &x, "final.x_mean", "final.adj_mean");
    record_objects(f, &x);
}

static void record_schedule(net_file *f)
{
    float *t = net_file_add(f, KAC_F32, "t", 1, POINTS);
    float *x_g = net_file_add(f, KAC_F32, "x.G", 1, POINTS);
    float *x_f = net_file_add(f, KAC_F32, "x.f_factor", 1, POINTS);
    float *x_alpha = net_file_add(f, KAC_F32, "x.alpha", 1, POINTS);
    float *x_std = net_file_add(f, KAC_F32, "x.std", 1, POINTS);
    float *a_g = net_file_add(f, KAC_F32, "adj.G", 1, POINTS);
    float *a_sigma = net_file_add(f, KAC_F32, "adj.sigma", 1, POINTS);
    for (int i = 0; i < POINTS; i++) {
        t[i] = (float)time_of(i);
        x_g[i] = (float)sqrt(beta_of(i));
        x_f[i] = (float)(sqrt(1 - beta_of(i)) - 1);
        x_alpha[i] = (float)(1 - beta_of(i));
        x_std[i] = (float)deviation_of(i);
        a_g[i] = (float)sqrt(pow(sigma_of(i), 2) - pow(sigma_of(i + 1), 2));
        a_sigma[i] = (float)sigma_of(i);
    }
}

/* ---- replays ------------------------------------------------------------------------------ */

static double replay(const net_file *model, net_file *recording, char *text, size_t size)
{
    double worst = -1;
    kac_status status = verify(model->path, net_file_write(recording), text, size, &worst);
    cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
    return worst;
}

/* Every tensor that is compared counts, at each of its last live numbers. */
static void check_that_each_counts(const net_file *model, net_file *recording,
                                   const char *const *names, int count)
{
    char text[8192];
    for (int i = 0; i < count; i++) {
        int k = 0;
        while (k < recording->tensors && strcmp(recording->name[k], names[i]) != 0)
            k++;
        cr_assert(k < recording->tensors, "%s", names[i]);
        float *value = (float *)recording->data[k] + 1, kept = *value;
        *value += 0.01F;
        cr_expect_gt(replay(model, recording, text, sizeof text), 1e-4, "%s", names[i]);
        *value = kept;
    }
}

static void begin_recording(net_file *f, net_file *model)
{
    make_model(model);
    add_flags(f);
}

Test(verify_graph, single_steps_are_replayed)
{
    static const char *const compared[] = {
        "s0002.corr.score_x", "s0002.corr.score_adj", "s0002.corr.x",
        "s0002.corr.adj",     "s0002.pred.score_x",   "s0002.pred.score_adj",
        "s0002.pred.x",       "s0005.pred.x_mean",    "s0005.pred.adj_mean",
    };
    net_file model = {0}, recording = {0};
    char text[8192] = "";
    begin_recording(&recording, &model);
    record_step(&recording, model.path, 0);
    record_step(&recording, model.path, 2);
    record_step(&recording, model.path, 5);
    double worst = replay(&model, &recording, text, sizeof text);
    cr_assert(worst >= 0 && worst < 1e-5, "%g\n%s", worst, text);
    cr_expect_eq(tolerance, 1e-4);
    cr_expect(strstr(text, "s0000.corr.score_x [3, 4, 2] ") == text, "%s", text);
    check_that_each_counts(&model, &recording, compared, sizeof compared / sizeof *compared);
    net_file_remove(&recording);
    net_file_remove(&model);
}

/* The difference that the line of `name` says. */
static double line_of(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    cr_assert_not_null(at, "no line of %s in\n%s", name, text);
    at = strchr(at, ']');
    cr_assert_not_null(at);
    return strtod(at + 1, NULL);
}

Test(verify_graph, trajectories_are_replayed_from_each_stored_state)
{
    net_file model = {0}, recording = {0};
    char text[8192] = "";
    begin_recording(&recording, &model);
    record_trajectory(&recording, model.path);
    double worst = replay(&model, &recording, text, sizeof text);
    cr_assert(worst >= 0 && worst < 1e-5, "%g\n%s", worst, text);
    cr_expect_eq(tolerance, 2e-3);
    cr_expect(strstr(text, "state.0001.x [3, 4, 2] ") == text, "%s", text);
    cr_expect(line_of(text, "quant.x_onehot") == 0 && line_of(text, "quant.adj") == 0);

    float *state = recording.data[4]; /* flags, t, state 0, then .x of state 1 */
    cr_assert_str_eq(recording.name[4], "state.0001.x");
    state[0] += 0.1F;
    replay(&model, &recording, text, sizeof text);
    cr_expect_gt(line_of(text, "state.0001.x"), 1e-3);
    cr_expect_gt(line_of(text, "state.0003.x"), 1e-3);
    cr_expect_lt(line_of(text, "state.0005.x"), 1e-5);
    state[0] -= 0.1F;

    int8_t *atom = recording.data[recording.tensors - 2];
    atom[0] ^= 1;
    replay(&model, &recording, text, sizeof text);
    cr_expect_eq(line_of(text, "quant.x_onehot"), 1);
    net_file_remove(&recording);
    net_file_remove(&model);
}

Test(verify_graph, coefficients_are_compared)
{
    static const char *const compared[] = {"x.G",   "x.f_factor", "x.alpha",
                                           "x.std", "adj.G",      "adj.sigma"};
    net_file model = {0}, recording = {0};
    char text[1024] = "";
    begin_recording(&recording, &model);
    record_schedule(&recording);
    double worst = replay(&model, &recording, text, sizeof text);
    cr_assert(worst >= 0 && worst < 1e-5, "%g\n%s", worst, text);
    check_that_each_counts(&model, &recording, compared, sizeof compared / sizeof *compared);
    net_file_remove(&recording);
    net_file_remove(&model);
}

static void expect_refusal(const net_file *model, net_file *recording, const char *says)
{
    char text[8192];
    double worst = 42;
    kac_status status =
        verify(model->path, net_file_write(recording), text, sizeof text, &worst);
    cr_assert(status == KAC_ERR_INVALID && worst == 42, "want a refusal that says: %s", says);
    cr_assert(strstr(kac_last_error(), says) != NULL, "\"%s\" does not say \"%s\"",
              kac_last_error(), says);
}

Test(verify_graph, says_what_is_wrong_with_a_recording)
{
    net_file model = {0}, recording = {0};
    begin_recording(&recording, &model);
    record_step(&recording, model.path, 2);
    float *t = recording.data[1];
    t[1] = 0.7F;
    expect_refusal(&model, &recording, "tensor `s0002.t` is 0.7, want 0.60004, of 6 points");
    t[1] = t[0];
    t[0] = 1;
    expect_refusal(&model, &recording, "tensor `s0002.t` does not give 2 to 262144 points");
    t[0] = t[1];
    float *in = recording.data[3];
    in[1] += 1;
    expect_refusal(&model, &recording, "graph 0 is not symmetric at 0, 1");
    in[1] -= 1;
    snprintf(recording.name[4], sizeof recording.name[4], "z");
    expect_refusal(&model, &recording, "tensor `s0002.z_raw.corr_x` is missing");
    net_file_meta(&recording, "sampler", "{\"corrector\": \"None\"}");
    expect_refusal(&model, &recording, "metadata `sampler`: want JSON with predictor Reverse");
    net_file_remove(&recording);

    add_flags(&recording);
    record_trajectory(&recording, model.path);
    net_file_meta(&recording, "noise", "seed unknown");
    expect_refusal(&model, &recording, "metadata `noise`: want the seed");
    net_file_remove(&recording);
    net_file_remove(&model);
}

/* ---- the original ------------------------------------------------------------------------- */

static const char *const originals[] = {"qm9", "zinc250k", "zinc250k_v2"};

enum { ORIGINALS = sizeof originals / sizeof *originals };

/* Recordings `kind` of the first models that there are, each within the tolerance of its kind. */
static void replay_original(const char *kind, int models)
{
    int found = 0;
    for (int i = 0; i < models; i++) {
        char model[128], recording[128], text[16384] = "";
        double worst = -1;
        snprintf(model, sizeof model, DATA "gdss/gdss_%s.safetensors", originals[i]);
        snprintf(recording, sizeof recording, DATA "gdss_golden/%s_%s.safetensors",
                 originals[i], kind);
        if (access(model, R_OK) != 0 || access(recording, R_OK) != 0) continue;
        found++;
        cr_assert_eq(verify(model, recording, text, sizeof text, &worst), KAC_OK, "%s",
                     kac_last_error());
        cr_assert(worst >= 0 && worst < tolerance, "%s: %g\n%s", recording, worst, text);
    }
    if (found == 0) cr_skip_test("no recording " DATA "gdss_golden/*_%s is there", kind);
}

Test(verify_graph, single_steps_of_the_original)
{
    replay_original("steps", ORIGINALS);
}

/* Under AddressSanitizer, where those of ZINC250k take minutes, that of QM9. */
Test(verify_graph, trajectory_of_the_original)
{
    if (strcmp(device_name(), "cpu") != 0) cr_skip_test("16,000 graphs take too long here");
#ifdef __SANITIZE_ADDRESS__
    replay_original("traj", 1);
#else
    replay_original("traj", ORIGINALS);
#endif
}

Test(verify_graph, coefficients_of_the_original)
{
    replay_original("schedule", ORIGINALS);
}
