/* bench_exact.c -- how exact: the tables of docs/exactness.md, on the landscapes of
 * tests/landscape.h whose answers are enumerated.  Prints Markdown; says so where the data are
 * absent. */
#include <stdio.h>

#include "landscape.h"
#include "run.h"

/* Particles of a run of a row that is exact, so that marginals of all have the same noise; groups
 * of one that is not. */
enum { PARTICLES = 262144, OTHERS = 65536 };

/* A landscape ready to run. */
typedef struct bench {
    const landscape_source *source;
    landscape s;
    double *data; /* the denoiser's own law */
    double *law;  /* the chain's, with as many steps as sites */
    double *work; /* [3][objects] */
    char dir[256];
} bench;

/* Writes a value for svdd_mc: the sum over the letters that are there of E_q[r | letter] - E_q[r],
 * over the objects that were measured. */
static kac_status write_value(const bench *b)
{
    const landscape *s = &b->s;
    const char *const metadata[][2] = {{"kac.arch", "pwm"}, {"kac.alphabet", s->alphabet}};
    double mass[LANDSCAPE_SITES][LANDSCAPE_LETTERS] = {{0}}, all = 0, mean = 0;
    double sum[LANDSCAPE_SITES][LANDSCAPE_LETTERS] = {{0}};
    float weight[LANDSCAPE_SITES * LANDSCAPE_LETTERS] = {0};
    int letter[LANDSCAPE_SITES] = {0};
    for (int o = 0; o < s->objects; o++) {
        if (!isfinite(s->reward[o])) continue;
        landscape_digits(o, s->states, s->length, letter);
        all += b->law[o];
        mean += b->law[o] * (double)s->reward[o];
        for (int l = 0; l < s->length; l++) {
            mass[l][letter[l]] += b->law[o];
            sum[l][letter[l]] += b->law[o] * (double)s->reward[o];
        }
    }
    for (int l = 0; l < s->length; l++)
        for (int v = 0; v < s->states; v++)
            weight[l * s->states + v] = (float)(sum[l][v] / mass[l][v] - mean / all);
    kac_tensor pwm = table_tensor("weight", weight, 2, (int64_t[]){s->length, s->states});
    return kac_tensors_write(table_path(b->dir, "value").path, metadata, 2, &pwm, 1);
}

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
    KAC_TRY(landscape_write_run(&b->s, b->dir));
    return write_value(b);
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
           (double)run.asked / ((double)x->particles * x->groups));
    fflush(stdout);
    table_run_free(&run);
    return KAC_OK;
}

static kac_status print_rows(const bench *b)
{
#define LINE(row, settings) {#row, #row, settings, 0, 0},
    line lines[] = {LANDSCAPE_ROWS(LINE)};
    const line others[] = {
        {"particle_gibbs", "particle_gibbs, 10 sweeps", "driver.sweeps=10", 4, 16384},
        {"svdd_pm", "svdd_pm, 10 children", "sampler.children=10", 1, OTHERS},
        {"svdd_pm", "svdd_pm, 40 children", "sampler.children=40", 1, OTHERS},
        {"svdd_mc", "svdd_mc, 10 children", "sampler.children=10", 1, OTHERS},
        {"svdd_r", "svdd_r, 10 children", "sampler.children=10", 16, OTHERS / 16},
        {"beam", "beam, 4 children", "sampler.children=4", 4, OTHERS / 4},
    };
    static landscape_target t;
    char funnel[64];
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
            if (strcmp(lines[k].name, "funnel") == 0) {
                snprintf(funnel, sizeof funnel, "sampler.funnel=%d", particles * 3 / 4);
                lines[k].settings = funnel;
            }
            KAC_TRY(print_line(b, &t, &lines[k]));
        }
    for (size_t k = 0; k < sizeof others / sizeof *others; k++)
        KAC_TRY(print_line(b, &t, &others[k]));
    return KAC_OK;
}

/* ---- the error of the evidence ------------------------------------------------------------- */

enum { GROUPS = 64, BATCHES = 400, PARTICLES_EACH = 16, SIZES = 5, BINS = 5 };

/* A row at one alpha: log Z^ - log Z of `groups` groups, many times over. */
typedef struct batches {
    int n, held, reliable, reliable_held;
    double bias, error, largest;
} batches;

/* Of all rows and alphas, by the number of groups and the error that they report. */
typedef struct trust {
    int n, held, far; /* far: by more than 0.3 */
} trust;
static const int sizes[SIZES] = {4, 8, 16, 64, 256};
static const double edges[BINS] = {0.05, 0.1, 0.2, 0.3, HUGE_VAL};
static trust trusted[SIZES][BINS];

/* What the groups gain[0 .. groups - 1] report. */
static void estimate(const double *gain, int groups, double *off, double *error,
                     double *largest)
{
    double mean = 0, square = 0;
    *largest = 0;
    for (int g = 0; g < groups; g++) {
        mean += gain[g] / groups;
        *largest = gain[g] > *largest ? gain[g] : *largest;
    }
    for (int g = 0; g < groups; g++)
        square += pow(gain[g] / mean - 1, 2);
    *off = log(mean);
    *error = sqrt(square / (groups - 1) / groups);
    *largest /= groups * mean;
}

static batches count_batches(const double *gain)
{
    batches sum = {0};
    for (int first = 0; first < GROUPS * BATCHES; first += GROUPS) {
        double off = 0, error = 0, largest = 0;
        estimate(gain + first, GROUPS, &off, &error, &largest);
        bool held = fabs(off) < 1.96 * error;
        bool reliable = kac_evidence_is_reliable(error, GROUPS);
        sum.n++;
        sum.bias += off;
        sum.error += error;
        sum.largest += largest;
        sum.held += held;
        sum.reliable += reliable;
        sum.reliable_held += reliable && held;
    }
    return sum;
}

static void count_trust(const double *gain)
{
    for (int k = 0; k < SIZES; k++)
        for (int first = 0; first < GROUPS * BATCHES; first += sizes[k]) {
            double off = 0, error = 0, largest = 0;
            int bin = 0;
            estimate(gain + first, sizes[k], &off, &error, &largest);
            while (bin < BINS - 1 && !(error <= edges[bin]))
                bin++;
            trust *t = &trusted[k][bin];
            t->n++;
            t->held += fabs(off) < 1.96 * error;
            t->far += !(fabs(off) <= 0.3);
        }
}

/* gain[g] = Z_g / Z; a group may have fewer samples than particles. */
static void group_gains(const landscape_target *t, const table_run *run, double *gain)
{
    static int count[GROUPS * BATCHES];
    for (int g = 0; g < GROUPS * BATCHES; g++)
        count[g] = 0, gain[g] = 0;
    for (int64_t i = 0; i < run->n; i++) {
        count[run->group[i]]++;
        gain[run->group[i]] += exp(run->log_weight[i]) / t->z;
    }
    for (int g = 0; g < GROUPS * BATCHES; g++)
        gain[g] /= count[g] > 0 ? count[g] : 1;
}

static void print_batches(double alpha, const char *row, const batches *sum)
{
    printf("| %g | %s | %.3f | %+.3f | %+.3f | %.0f %% | %.2f | %.0f %% | ", alpha, row,
           sum->error / sum->n, sum->bias / sum->n, -0.5 * pow(sum->error / sum->n, 2),
           100.0 * sum->held / sum->n, sum->largest / sum->n, 100.0 * sum->reliable / sum->n);
    if (sum->reliable > 0) printf("%.0f %% ", 100.0 * sum->reliable_held / sum->reliable);
    printf("|\n");
    fflush(stdout);
}

static kac_status print_errors(const bench *b, double alpha)
{
    static const char *const rows[] = {"pretrained", "smc", "nested"};
    static landscape_target t;
    static double gain[GROUPS * BATCHES];
    KAC_TRY(landscape_aim(&b->s, b->law, alpha, &t));
    for (int k = 0; k < 3; k++) {
        table_run run = {0};
        char text[256];
        snprintf(text, sizeof text,
                 "sampler.algorithm=%s process.steps=%d sampler.particles=%d "
                 "sampler.groups=%d",
                 rows[k], b->source->length, PARTICLES_EACH, GROUPS * BATCHES);
        KAC_TRY(landscape_sample(&t, b->dir, text, &run));
        group_gains(&t, &run, gain);
        table_run_free(&run);
        batches sum = count_batches(gain);
        count_trust(gain);
        print_batches(alpha, rows[k], &sum);
    }
    return KAC_OK;
}

static void print_trust(void)
{
    printf("\n### All of these, by the groups and the error that they report\n\n| groups |");
    for (int bin = 0; bin < BINS - 1; bin++)
        printf(" error to %g |", edges[bin]);
    printf(" above |\n|---:|---:|---:|---:|---:|---:|\n");
    for (int k = 0; k < SIZES; k++) {
        printf("| %d |", sizes[k]);
        for (int bin = 0; bin < BINS; bin++) {
            const trust *t = &trusted[k][bin];
            printf(" %.0f %%, %.1f %% of %d |", 100.0 * t->held / t->n, 100.0 * t->far / t->n,
                   t->n);
        }
        printf("\n");
    }
}

static kac_status print_error_table(const bench *b)
{
    printf(
        "\n### %s: 400 runs of 64 groups of 16 particles\n\n| α | row | error reported | "
        "mean of log Ẑ - log Z | -error² / 2 | within 1.96 errors | share of the largest "
        "group | reliable | of these within |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|\n",
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
    int sources_here = 0;
    for (int k = 0; k < 2; k++) {
        if (!landscape_here(sources[k])) {
            printf("%s is absent\n", sources[k]->path);
            continue;
        }
        if (print_all(sources[k]) != KAC_OK) {
            fprintf(stderr, "bench_exact: %s\n", kac_last_error());
            return 1;
        }
        sources_here++;
    }
    if (sources_here > 0) print_trust();
    return 0;
}
