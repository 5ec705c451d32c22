/* gaussian_run.h -- one Gaussian, a quadratic reward, and the exact law of the chain that
 * samples from it; runs of the public API on their files. */
#ifndef KAC_GAUSSIAN_RUN_H
#define KAC_GAUSSIAN_RUN_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net_file.h"
#include "table_run.h"

enum { VEC = 3, VEC_ROWS = 2, VEC_FUNCTIONS = 1 + VEC + VEC * (VEC + 1) / 2 };

/* Data N(mean, diagonal variance); r(x) = linear x - 1/2 sum ((A x - b) / s)^2. */
typedef struct vec_model {
    double mean[VEC], variance[VEC];
    double matrix[VEC_ROWS][VEC], target[VEC_ROWS], deviation[VEC_ROWS], linear[VEC];
} vec_model;

static const vec_model vec_gaussian = {
    .mean = {0.75, -1.25, 0.25},
    .variance = {0.5, 1.5, 0.875},
    .matrix = {{1, -0.5, 0.25}, {0, 1, 1}},
    .target = {1.5, -0.25},
    .deviation = {1, 2},
    .linear = {0.25, -0.125, 0},
};

/* ---- the chain -------------------------------------------------------------------------- */

typedef struct vec_grid {
    const char *schedule; /* vp, ve, edm; with the defaults of the keys */
    int steps;
    double eta;
    int order;
} vec_grid;

/* Scale and noise of level k, in plain arithmetic. */
static inline void vec_level(const vec_grid *grid, int k, double *scale, double *noise)
{
    double n = grid->steps, t = k / n;
    *scale = 1;
    if (k == 0) {
        *noise = 0;
    } else if (strcmp(grid->schedule, "vp") == 0) {
        double abar = exp(-(0.1 * t + 0.5 * (20 - 0.1) * t * t));
        *scale = sqrt(abar);
        *noise = sqrt(1 - abar);
    } else if (strcmp(grid->schedule, "ve") == 0) {
        *noise = 0.002 * pow(80 / 0.002, (k - 1) / (n - 1));
    } else {
        double a = pow(80, 1 / 7.0), b = pow(0.002, 1 / 7.0);
        *noise = pow(a + (n - k) / (n - 1) * (b - a), 7);
    }
}

/* Law of the chain's x_0, number by number: the pair (x_k, estimate of level k + 1) is Gaussian
 * at every level, with mean m and covariance c. */
static inline void vec_chain(const vec_model *model, const vec_grid *grid, double *mean,
                             double *variance)
{
    for (int l = 0; l < VEC; l++) {
        double a = 0, b = 0, last_ratio = 0;
        vec_level(grid, grid->steps, &a, &b);
        double m[2] = {0, 0}, c[2][2] = {{b * b, 0}, {0, 0}};
        for (int k = grid->steps; k > 0; k--) {
            double s = 0, n = 0, data = model->variance[l];
            vec_level(grid, k, &a, &b);
            vec_level(grid, k - 1, &s, &n);
            /* D = gain x + rest; E = (1 + e) D - e D_above; x' = f (x - a E) + s E + noise. */
            double gain = data * a / (a * a * data + b * b);
            double rest = model->mean[l] * (1 - gain * a);
            double ratio = log(s * b / (a * n)), e = 0; /* infinite at the last */
            if (grid->order == 2 && k < grid->steps && k > 1) e = ratio / (2 * last_ratio);
            double v = grid->eta * grid->eta * n * n * (1 - a * a * n * n / (s * s * b * b));
            double f = sqrt(n * n - v) / b, p = s - f * a;
            double g[2][2] = {{f + p * (1 + e) * gain, -p * e}, {gain, 0}};
            double d[2] = {p * (1 + e) * rest, rest}, next[2], out[2][2];
            for (int i = 0; i < 2; i++) {
                next[i] = d[i] + g[i][0] * m[0] + g[i][1] * m[1];
                for (int j = 0; j < 2; j++) {
                    out[i][j] = i == 0 && j == 0 ? v : 0;
                    for (int u = 0; u < 2; u++)
                        for (int w = 0; w < 2; w++)
                            out[i][j] += g[i][u] * c[u][w] * g[j][w];
                }
            }
            memcpy(m, next, sizeof m);
            memcpy(c, out, sizeof c);
            last_ratio = ratio;
        }
        mean[l] = m[0];
        variance[l] = c[0][0];
    }
}

/* E of exp(r / alpha) phi under N(mean, diagonal variance), phi = 1, x_l, x_l x_j: the linear
 * part shifts the mean, and each measurement is a Kalman update. */
static inline void vec_tilted(const vec_model *model, const double *mean,
                              const double *variance, double alpha, double *exact)
{
    double m[VEC], c[VEC][VEC] = {{0}}, log_z = 0;
    for (int l = 0; l < VEC; l++) {
        double push = model->linear[l] / alpha;
        c[l][l] = variance[l];
        m[l] = mean[l] + variance[l] * push;
        log_z += push * mean[l] + push * push * variance[l] / 2;
    }
    for (int i = 0; i < VEC_ROWS; i++) {
        const double *a = model->matrix[i];
        double noise = model->deviation[i] * model->deviation[i] * alpha, y = 0, spread = 0;
        double cov[VEC] = {0};
        for (int l = 0; l < VEC; l++) {
            y += a[l] * m[l];
            for (int j = 0; j < VEC; j++)
                cov[l] += c[l][j] * a[j];
            spread += a[l] * cov[l];
        }
        double e = model->target[i] - y, total = spread + noise;
        log_z += 0.5 * log(noise / total) - 0.5 * e * e / total;
        for (int l = 0; l < VEC; l++) {
            m[l] += cov[l] * e / total;
            for (int j = 0; j < VEC; j++)
                c[l][j] -= cov[l] * cov[j] / total;
        }
    }
    int at = 0;
    exact[at++] = exp(log_z);
    for (int l = 0; l < VEC; l++)
        exact[at++] = exp(log_z) * m[l];
    for (int l = 0; l < VEC; l++)
        for (int j = l; j < VEC; j++)
            exact[at++] = exp(log_z) * (c[l][j] + m[l] * m[j]);
}

static inline void vec_functions(const double *x, double *phi)
{
    int at = 0;
    phi[at++] = 1;
    for (int l = 0; l < VEC; l++)
        phi[at++] = x[l];
    for (int l = 0; l < VEC; l++)
        for (int j = l; j < VEC; j++)
            phi[at++] = x[l] * x[j];
}

/* ---- files and runs --------------------------------------------------------------------- */

typedef struct vec_files {
    net_file model, reward;
} vec_files;

static inline void vec_fill(net_file *f, const char *name, const double *from, int rows,
                            int columns)
{
    float *to = rows > 0 ? net_file_add(f, KAC_F32, name, 2, rows, columns)
                         : net_file_add(f, KAC_F32, name, 1, columns);
    for (int i = 0; i < (rows > 0 ? rows : 1) * columns; i++)
        to[i] = (float)from[i];
}

static inline void vec_write(const vec_model *model, vec_files *files)
{
    *files = (vec_files){0};
    net_file_meta(&files->model, "kac.arch", "gmm");
    vec_fill(&files->model, "means", model->mean, 1, VEC);
    vec_fill(&files->model, "variances", model->variance, 1, VEC);
    vec_fill(&files->model, "weights", (double[]){1}, 0, 1);
    net_file_write(&files->model);
    net_file_meta(&files->reward, "kac.arch", "quadratic");
    vec_fill(&files->reward, "matrix", model->matrix[0], VEC_ROWS, VEC);
    vec_fill(&files->reward, "target", model->target, 0, VEC_ROWS);
    vec_fill(&files->reward, "deviation", model->deviation, 0, VEC_ROWS);
    vec_fill(&files->reward, "linear", model->linear, 0, VEC);
    net_file_write(&files->reward);
}

static inline void vec_remove(vec_files *files)
{
    net_file_remove(&files->model);
    net_file_remove(&files->reward);
}

/* A configuration of the files; the caller destroys it, whatever comes back. */
static inline kac_status vec_config(const vec_files *files, const char *settings,
                                    kac_config **out)
{
    KAC_TRY(kac_config_create(out));
    KAC_TRY(kac_config_set(*out, "process.kind", "gaussian"));
    KAC_TRY(kac_config_set(*out, "model.file", files->model.path));
    KAC_TRY(kac_config_set(*out, "reward.0.file", files->reward.path));
    KAC_TRY(kac_config_set(*out, "reward.0.kind", "quadratic"));
    return table_configure(*out, settings);
}

/* Opens and finishes a run on the files; the caller destroys it. */
static inline kac_status vec_run(const vec_files *files, const char *settings, kac_run **out)
{
    kac_config *config = NULL;
    kac_run *run = NULL;
    kac_status status = vec_config(files, settings, &config);
    if (status == KAC_OK) status = kac_run_create(config, &run);
    for (int64_t i = 0; status == KAC_OK && i < kac_run_steps(run); i++)
        status = kac_run_step(run);
    if (status == KAC_OK) status = kac_run_finish(run);
    kac_config_destroy(config);
    if (status == KAC_OK)
        *out = run;
    else
        kac_run_destroy(run);
    return status;
}

/* The numbers of an object. */
static inline void vec_parse(const char *text, int n, double *x)
{
    char *end = NULL;
    for (int l = 0; l < n; l++, text = end) {
        x[l] = strtod(text, &end);
        cr_assert(end != text && (*end == (l + 1 < n ? ' ' : '\0')), "%s", text);
    }
}

#endif /* KAC_GAUSSIAN_RUN_H */
