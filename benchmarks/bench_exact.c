/* bench_exact.c -- how exact: the tables of docs/exactness.md, on the landscapes of
 * tests/landscape.h whose answers are enumerated.  Prints Markdown; says so where the data are
 * absent. */
#include <stdio.h>

#include "landscape.h"

/* Particles of every run of a row, so that marginals of all have the same noise. */
enum { PARTICLES = 262144, SVDD_SAMPLES = 65536 };

/* A landscape ready to run. */
typedef struct bench {
    const landscape_source *source;
    landscape s;
    double *data; /* the denoiser's own law */
    double *law;  /* the chain's, with as many steps as sites */
    double *work; /* [3][objects] */
    char dir[256];
} bench;

static kac_status open_bench(const landscape_source *source, bench *b)
{
    *b = (bench){.source = source};
    KAC_TRY(landscape_open(source, &b->s));
    b->data = calloc((size_t)b->s.objects, sizeof *b->data);
    b->law = calloc((size_t)b->s.objects, sizeof *b->law);
    b->work = calloc((size_t)b->s.objects * 3, sizeof *b->work);
    if (b->data == NULL || b->law == NULL || b->work == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "no memory for %s", source->name);
    landscape_data_law(&b->s, b->data);
    KAC_TRY(landscape_chain_law(&b->s, source->length, b->law));
    if (!table_folder(b->dir)) return KAC_FAIL(KAC_ERR_IO, "no folder for models");
    return landscape_write_run(&b->s, b->dir);
}

static void close_bench(bench *b)
{
    if (b->dir[0] != '\0') table_folder_remove(b->dir);
    landscape_free(&b->s);
    free(b->data);
    free(b->law);
    free(b->work);
}

/* ---- the chain's law and the data's -------------------------------------------------------- */

static kac_status print_gaps(bench *b)
{
    double *q = b->work, *tilted = q + b->s.objects, *wanted = tilted + b->s.objects;
    const double *alpha = b->source->alpha;
    double z[2], distance[2];
    printf(
        "\n### %s\n\n| steps | TV of q | TV of p*, α = %g | log Z, α = %g | TV of p*, α = %g | "
        "log Z, α = %g |\n|---:|---:|---:|---:|---:|---:|\n",
        b->source->name, alpha[0], alpha[0], alpha[1], alpha[1]);
    for (int steps = 1; steps <= 128; steps *= 2) {
        KAC_TRY(landscape_chain_law(&b->s, steps, q));
        for (int k = 0; k < 2; k++) {
            z[k] = landscape_tilt(&b->s, q, alpha[k], tilted);
            landscape_tilt(&b->s, b->data, alpha[k], wanted);
            distance[k] = landscape_distance(tilted, wanted, b->s.objects);
        }
        printf("| %d | %.4f | %.4f | %.4f | %.4f | %.4f |\n", steps,
               landscape_distance(q, b->data, b->s.objects), distance[0], log(z[0]),
               distance[1], log(z[1]));
        fflush(stdout);
    }
    for (int k = 0; k < 2; k++)
        z[k] = landscape_tilt(&b->s, b->data, alpha[k], wanted);
    printf("| data | 0 | 0 | %.4f | 0 | %.4f |\n", log(z[0]), log(z[1]));
    return KAC_OK;
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* Variance of exp(r / alpha) / Z of one plain draw. */
static double plain_variance(const bench *b, const landscape_target *t)
{
    double square = 0;
    for (int o = 0; o < b->s.objects; o++)
        square += b->law[o] * exp(2 * (double)b->s.reward[o] / t->alpha);
    return square / (t->z * t->z) - 1;
}

/* A line of the table: the row `name` with `settings` in `groups` groups of `particles`. */
typedef struct line {
    const char *name, *label, *settings;
    int particles, groups;
} line;

static kac_status print_line(const bench *b, const landscape_target *t, const line *x)
{
    landscape_sums sums = {0};
    table_run run = {0};
    char text[512];
    int which = 0;
    snprintf(text, sizeof text,
             "sampler.algorithm=%s process.steps=%d sampler.particles=%d sampler.groups=%d %s",
             x->name, b->source->length, x->particles, x->groups, x->settings);
    KAC_TRY(landscape_sample(t, b->dir, text, &run));
    landscape_count(t, &run, &sums);
    double n = sums.groups, mean = sums.gain / n, sd = mean * landscape_spread(&sums);
    printf("| %s | %d | %d | ", x->label, x->particles, x->groups);
    if (isnan(run.log_evidence))
        printf("none | | | | ");
    else
        printf("%.4f ± %.4f | %.3f | %.2f | %.2f | ", mean, sd / sqrt(n), sd,
               plain_variance(b, t) / x->particles / (sd * sd), run.ess);
    printf("%.4f | %.1f | %.4f | %.0f |\n", landscape_marginal_distance(t, &sums),
           landscape_worst_z(t, &sums, &which), sums.weight[t->functions - 1] / sums.gain,
           (double)run.asked / (double)run.n);
    fflush(stdout);
    table_run_free(&run);
    return KAC_OK;
}

static kac_status print_rows(const bench *b)
{
#define LINE(row, settings) {#row, #row, settings, 0, 0},
    line lines[] = {LANDSCAPE_ROWS(LINE)};
    line improper[] = {
        {"svdd_pm", "svdd_pm, 10 children", "sampler.children=10", 1, SVDD_SAMPLES},
        {"svdd_pm", "svdd_pm, 40 children", "sampler.children=40", 1, SVDD_SAMPLES},
    };
    static landscape_target t;
    KAC_TRY(landscape_aim(&b->s, b->law, b->source->alpha[1], &t));
    printf("\n### %s, α = %g\n\nlog Z = %.4f; the ten best have %.4f of p*; the sd of "
           "exp(r/α) / Z under q is %.2f.\n\n",
           b->source->name, t.alpha, log(t.z), t.mean[t.functions - 1],
           sqrt(plain_variance(b, &t)));
    printf("| row | N | groups | mean of Z_g / Z | sd | worth | least ESS | TV of marginals | "
           "largest error in se | ten best | calls |\n|---|---:|---:|---:|---:|---:|---:|---:|"
           "---:|---:|---:|\n");
    for (size_t k = 0; k < sizeof lines / sizeof *lines; k++)
        for (int particles = 16; particles <= 256; particles *= 4) {
            lines[k].particles = particles;
            lines[k].groups = PARTICLES / particles;
            KAC_TRY(print_line(b, &t, &lines[k]));
        }
    for (size_t k = 0; k < sizeof improper / sizeof *improper; k++)
        KAC_TRY(print_line(b, &t, &improper[k]));
    return KAC_OK;
}

/* ---- the error of the evidence ------------------------------------------------------------- */

/* A run of `batch` groups, many times over: what log_evidence and its error would say. */
typedef struct batches {
    int n;
    double bias, error, covered, doubtful, largest;
} batches;

static void add_batch(const double *gain, int groups, batches *sum)
{
    double mean = 0, square = 0, largest = 0;
    for (int g = 0; g < groups; g++) {
        mean += gain[g] / groups;
        largest = gain[g] > largest ? gain[g] : largest;
    }
    for (int g = 0; g < groups; g++)
        square += pow(gain[g] / mean - 1, 2);
    double error = sqrt(square / (groups - 1) / groups);
    sum->n++;
    sum->bias += log(mean);
    sum->error += error;
    sum->covered += fabs(log(mean)) < 1.96 * error;
    sum->doubtful += error > 0.3;
    sum->largest += largest / groups / mean;
}

static kac_status print_errors(const bench *b, double alpha)
{
    enum { GROUPS = 64, BATCHES = 400, PARTICLES_EACH = 16 };
    static const char *const rows[] = {"pretrained", "smc", "nested"};
    static landscape_target t;
    KAC_TRY(landscape_aim(&b->s, b->law, alpha, &t));
    for (int k = 0; k < 3; k++) {
        table_run run = {0};
        batches sum = {0};
        double gain[GROUPS];
        char text[256];
        snprintf(text, sizeof text,
                 "sampler.algorithm=%s process.steps=%d sampler.particles=%d "
                 "sampler.groups=%d",
                 rows[k], b->source->length, PARTICLES_EACH, GROUPS * BATCHES);
        KAC_TRY(landscape_sample(&t, b->dir, text, &run));
        for (int g = 0; g < GROUPS * BATCHES; g++) {
            gain[g % GROUPS] = 0;
            for (int i = g * PARTICLES_EACH; i < (g + 1) * PARTICLES_EACH; i++)
                gain[g % GROUPS] += exp(run.log_weight[i]) / t.z / PARTICLES_EACH;
            if (g % GROUPS == GROUPS - 1) add_batch(gain, GROUPS, &sum);
        }
        printf("| %g | %s | %.3f | %+.3f | %+.3f | %.0f %% | %.0f %% | %.2f |\n", alpha,
               rows[k], sum.error / sum.n, sum.bias / sum.n, -0.5 * pow(sum.error / sum.n, 2),
               100 * sum.covered / sum.n, 100 * sum.doubtful / sum.n, sum.largest / sum.n);
        fflush(stdout);
        table_run_free(&run);
    }
    return KAC_OK;
}

static kac_status print_error_table(const bench *b)
{
    printf("\n### %s: 400 runs of 64 groups of 16 particles\n\n| α | row | error reported | "
           "mean of log Ẑ - log Z | -error² / 2 | within 1.96 errors | error above 0.3 | "
           "share of the largest group |\n|---:|---|---:|---:|---:|---:|---:|---:|\n",
           b->source->name);
    for (int k = 0; k < 4; k++)
        KAC_TRY(print_errors(b, b->source->alpha[0] / (1 << k)));
    return KAC_OK;
}

static kac_status print_all(const landscape_source *source)
{
    bench b = {0};
    kac_status status = KAC_OK;
    KAC_TRY_DONE(open_bench(source, &b));
    KAC_TRY_DONE(print_gaps(&b));
    KAC_TRY_DONE(print_rows(&b));
    KAC_TRY_DONE(print_error_table(&b));
done:
    close_bench(&b);
    return status;
}

int main(void)
{
    const landscape_source *const sources[] = {&landscape_tis, &landscape_gb1};
    for (int k = 0; k < 2; k++) {
        if (!landscape_here(sources[k])) {
            printf("%s is absent\n", sources[k]->path);
            continue;
        }
        if (print_all(sources[k]) != KAC_OK) {
            fprintf(stderr, "bench_exact: %s\n", kac_last_error());
            return 1;
        }
    }
    return 0;
}
