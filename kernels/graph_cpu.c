/* graph_cpu.c -- graph diffusion on the CPU: noise, moves, completions. */
#include "graph.h"

#include <stdbool.h>
#include <string.h>

#include "complete.h"
#include "ops.h"
#include "particles.h"
#include "scratch_cpu.h"

/* row[l] = f(row[l], z[l] + u[l]) for the live numbers of a row, f what a part does; z is drawn, or
 * given [L].  Returns the log of the density of the z + u over the one that they were drawn from. */
typedef float use_fn(const kac_graph_part *part, float number, double z);

static double draw_numbers(const kac_shape *shape, const kac_graph_level *level, kac_key key,
                           kac_purpose purpose, const float *given, kac_graph_pull pull,
                           use_fn *use, float *row)
{
    int32_t n = kac_graph_nodes(row);
    double ratio = 0;
    for (int32_t r = 0; r < n; r++) {
        kac_graph_run run = kac_graph_run_at(shape, n, r);
        double z[2] = {0, 0};
        for (int32_t l = run.first; l < run.first + run.count; l++) {
            if (given != NULL)
                z[l % 2] = (double)given[l];
            else if (l % 2 == 0 || l == run.first)
                kac_normals(kac_draw(key, purpose, (uint32_t)(l / 2)), z);
            double u = kac_graph_shift(&level->part[run.part], pull, l);
            row[l] = use(&level->part[run.part], row[l], z[l % 2] + u);
            if (u != 0) ratio += kac_shift_ratio(u, z[l % 2]);
        }
    }
    return ratio;
}

static float take_noise(const kac_graph_part *part, float number, double z)
{
    (void)part, (void)number;
    return (float)z;
}

static float take_start(const kac_graph_part *part, float number, double z)
{
    (void)number;
    return (float)(part->start * z);
}

static const kac_graph_pull no_pull = {NULL, 0};

/* A row of n nodes and zeros. */
static void clear_row(const kac_shape *shape, int32_t n, float *row)
{
    memset(row, 0, (size_t)shape->stride);
    row[0] = (float)n;
}

kac_status kac_cpu_graph_start(kac_device *dev, const kac_start_args *a, uint8_t *x)
{
    (void)dev;
    const kac_graph_level *level = &a->levels[a->clock->level].graph;
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < a->n; i++) {
        float *row = kac_vector_out(x, i, a->shape.stride);
        kac_key key = kac_key_of(a->seed, a->clock, &a->groups[a->group[i]], i);
        clear_row(&a->shape, kac_graph_draw_nodes(a, key), row);
        (void)draw_numbers(&a->shape, level, key, KAC_DRAW_START, NULL, no_pull, take_start,
                           row);
    }
    return KAC_OK;
}

/* ---- children --------------------------------------------------------------------------- */

static const float *answer_of(const kac_propose_args *a, int32_t i)
{
    return kac_logits_of(a->memo, a->x->entry[i]);
}

/* Child m of particle i becomes its corrector's noise, and zeros where the level has none. */
static float *begin_child(const kac_propose_args *a, const kac_graph_level *level, kac_key key,
                          int32_t i, int32_t m)
{
    int64_t c = (int64_t)i * a->children + m;
    float *child = kac_vector_out(a->y->x, c, a->shape.stride);
    key.child = (uint32_t)m;
    clear_row(&a->shape, kac_graph_nodes(kac_vector(a->x->x, i, a->shape.stride)), child);
    if (level->corrects)
        (void)draw_numbers(&a->shape, level, key, KAC_DRAW_CORRECT, kac_graph_given(a, 0, c),
                           no_pull, take_noise, child);
    return child;
}

static kac_key key_of(const kac_propose_args *a, int32_t i)
{
    return kac_key_of(a->seed, a->clock, &a->groups[a->x->group[i]], i);
}

static void score_norms(const kac_propose_args *a, const kac_graph_level *level, int32_t i,
                        double norm[2])
{
    const float *x = kac_vector(a->x->x, i, a->shape.stride);
    kac_graph_norms(&a->shape, level->part, x, answer_of(a, i), norm);
}

kac_status kac_cpu_graph_measure(kac_device *dev, const kac_propose_args *a, kac_norms *norms)
{
    (void)dev;
    const kac_graph_level *level = &a->levels[a->clock->level + 1].graph;
    int32_t n = kac_live(a->x->live, a->x->n);
    *norms = (kac_norms){.rows = {0}};
    if (!level->corrects) return KAC_OK;
#pragma omp parallel
    {
        kac_norms own = {.rows = {0}};
#pragma omp for schedule(static)
        for (int32_t i = 0; i < n; i++) {
            double norm[2];
            for (int32_t m = 0; m < a->children; m++) {
                kac_graph_noise_norms(&a->shape, begin_child(a, level, key_of(a, i), i, m),
                                      norm);
                kac_graph_count(&own, 0, norm);
            }
            score_norms(a, level, i, norm);
            kac_graph_count(&own, 1, norm);
        }
#pragma omp critical
        kac_graph_add_norms(&own, norms);
    }
    return KAC_OK;
}

/* The children of particle i, begun already where norms are given.  Returns whether its answer
 * has a NaN. */
static bool move_children(const kac_propose_args *a, const kac_graph_level *level, int32_t i)
{
    const float *x = kac_vector(a->x->x, i, a->shape.stride);
    bool diffuses = level->part[0].spread != 0 || level->part[1].spread != 0;
    kac_key key = key_of(a, i);
    kac_graph_pull pull = kac_graph_pull_of(a, &a->groups[a->x->group[i]], i);
    bool together = a->norms != NULL && level->corrects;
    double noise[2] = {0, 0}, score[2] = {0, 0};
    for (int p = 0; p < 2 && together; p++) {
        noise[p] = kac_graph_mean(a->norms, 0, p);
        score[p] = kac_graph_mean(a->norms, 1, p);
    }
    if (level->corrects && !together) score_norms(a, level, i, score);
    for (int32_t m = 0; m < a->children; m++) {
        int64_t c = (int64_t)i * a->children + m;
        float *child = together ? kac_vector_out(a->y->x, c, a->shape.stride)
                                : begin_child(a, level, key, i, m);
        double step[2] = {0, 0};
        key.child = (uint32_t)m;
        if (level->corrects && !together) kac_graph_noise_norms(&a->shape, child, noise);
        for (int p = 0; p < 2 && level->corrects; p++)
            step[p] = kac_graph_step(&level->part[p], noise[p], score[p]);
        kac_graph_drift_row(&a->shape, level, x, answer_of(a, i), step, child);
        a->y->entry[c] = -1;
        a->y->ratio[c] = 0;
        if (diffuses)
            a->y->ratio[c] =
                draw_numbers(&a->shape, level, key, KAC_DRAW_PROPOSE, kac_graph_given(a, 1, c),
                             pull, kac_graph_diffuse, child);
        if (a->clock->level == 0) kac_graph_round_row(&a->shape, child);
    }
    return kac_has_nan(answer_of(a, i), a->shape.length);
}

kac_status kac_cpu_graph_propose(kac_device *dev, const kac_propose_args *a)
{
    (void)dev;
    const kac_graph_level *level = &a->levels[a->clock->level + 1].graph;
    int32_t worst = INT32_MAX, n = kac_live(a->x->live, a->x->n);
#pragma omp parallel for schedule(static) reduction(min : worst)
    for (int32_t i = 0; i < n; i++)
        if (move_children(a, level, i) && i < worst) worst = i;
    if (worst < INT32_MAX)
        kac_fault_note(a->fault, (kac_trouble){KAC_FAULT_NAN, worst, a->clock->move, -1});
    return KAC_OK;
}

/* ---- completions ------------------------------------------------------------------------ */

/* The estimate of row i of x.  Returns whether the answer has a NaN. */
static bool estimate_row(const kac_complete_args *a, int32_t i, float *out)
{
    const kac_graph_level *level = &a->levels[a->clock->level].graph;
    const float *x = kac_vector(a->x, i, a->shape.stride);
    const float *answer = kac_logits_of(a->memo, a->entry[i]);
    int32_t n = kac_graph_nodes(x);
    memset(out, 0, (size_t)a->shape.length * sizeof *out);
    out[0] = x[0];
    for (int32_t r = 0; r < n; r++) {
        kac_graph_run run = kac_graph_run_at(&a->shape, n, r);
        for (int32_t l = run.first; l < run.first + run.count; l++)
            out[l] = kac_graph_estimate(&level->part[run.part], x[l], answer[l]);
    }
    return kac_has_nan(answer, a->shape.length);
}

/* The object that row i of x is nearest to, or its estimate.  Returns whether there is a NaN. */
static bool complete_row(const kac_complete_args *a, int32_t i, uint8_t *out)
{
    float *row = kac_vector_out(out, 0, a->shape.stride);
    bool is_nan = false;
    memset(out, 0, (size_t)a->shape.stride);
    if (a->entry == NULL)
        memcpy(out, a->x + (int64_t)i * a->shape.stride, (size_t)a->shape.stride);
    else
        is_nan = estimate_row(a, i, row);
    kac_graph_round_row(&a->shape, row);
    return is_nan;
}

kac_status kac_cpu_graph_complete(kac_device *dev, const kac_complete_args *a, uint8_t *out)
{
    (void)dev;
    int32_t worst = INT32_MAX, rows = kac_rows_of_result(a);
    if (!a->every_row) rows = kac_window_end(a) - a->first;
#pragma omp parallel for schedule(static) reduction(min : worst)
    for (int32_t r = 0; r < rows; r++) {
        int32_t i = a->entry == NULL ? r : kac_row_of_result(a, r);
        if (i >= 0 && complete_row(a, i, out + (int64_t)r * a->shape.stride) && i < worst)
            worst = i;
    }
    if (worst < INT32_MAX) kac_fault_note(a->fault, kac_nan_at(a, worst));
    return KAC_OK;
}

kac_status kac_cpu_graph_soften(kac_device *dev, const kac_complete_args *a, float *out)
{
    (void)dev;
    int32_t worst = INT32_MAX, end = kac_window_end(a);
    int64_t length = a->shape.length;
#pragma omp parallel for schedule(static) reduction(min : worst)
    for (int32_t q = a->first; q < end; q++) {
        int32_t i = a->fresh->src[q];
        if (estimate_row(a, i, out + (q - a->first) * length) && i < worst) worst = i;
    }
    if (worst < INT32_MAX) kac_fault_note(a->fault, kac_nan_at(a, worst));
    return KAC_OK;
}

/* ---- gradients -------------------------------------------------------------------------- */

/* Number l of a row, of part p of batch row q. */
typedef float number_fn(const kac_slope_args *a, int32_t p, int32_t q, int32_t l);

/* out[l] = f(l) for the live numbers of row fresh->src[first + q], and 0 for the others. */
static void fill_row(const kac_slope_args *a, int32_t q, number_fn *f, float *out)
{
    const float *x = kac_vector(a->x, a->fresh->src[a->first + q], a->shape.stride);
    int32_t n = kac_graph_nodes(x);
    memset(out, 0, (size_t)a->shape.length * sizeof *out);
    for (int32_t r = 0; r < n; r++) {
        kac_graph_run run = kac_graph_run_at(&a->shape, n, r);
        for (int32_t l = run.first; l < run.first + run.count; l++)
            out[l] = f(a, run.part, q, l);
    }
}

/* Rows of a window that are in use. */
static int32_t rows_of(const kac_slope_args *a)
{
    int32_t rest = *a->fresh->count - a->first;
    return rest < a->batch ? rest : a->batch;
}

kac_status kac_cpu_graph_slope(kac_device *dev, const kac_slope_args *a, float *out)
{
    (void)dev;
#pragma omp parallel for schedule(static)
    for (int32_t q = 0; q < rows_of(a); q++)
        fill_row(a, q, kac_graph_slope, out + (int64_t)q * a->shape.length);
    return KAC_OK;
}

kac_status kac_cpu_graph_tilt(kac_device *dev, const kac_slope_args *a, float *tilt)
{
    (void)dev;
#pragma omp parallel for schedule(static)
    for (int32_t q = 0; q < rows_of(a); q++) {
        int32_t row = a->fresh->entry[a->first + q];
        fill_row(a, q, kac_graph_tilt, tilt + (int64_t)row * a->shape.length);
    }
    return KAC_OK;
}

/* ---- what graphs do not have ------------------------------------------------------------ */

static kac_status refuse(const char *what)
{
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "%s", what);
}

kac_status kac_cpu_graph_imagine(kac_device *dev, const kac_complete_args *a, uint8_t *out)
{
    (void)dev, (void)a, (void)out;
    return refuse(KAC_GRAPH_NO_DRAWS);
}

kac_status kac_cpu_graph_blend(kac_device *dev, const kac_blend_args *a, float *logits)
{
    (void)dev, (void)a, (void)logits;
    return refuse(KAC_GRAPH_NO_BLEND);
}

kac_status kac_cpu_graph_renoise(kac_device *dev, const kac_renoise_args *a, uint8_t *x)
{
    (void)dev, (void)a, (void)x;
    return refuse(KAC_GRAPH_NO_NOISE);
}

kac_status kac_cpu_graph_score(kac_device *dev, const kac_renoise_args *a, const uint8_t *x,
                               const int32_t *entry, const kac_memo *memo, double *out)
{
    (void)dev, (void)a, (void)x, (void)entry, (void)memo, (void)out;
    return refuse(KAC_GRAPH_NO_DENSITY);
}

kac_status kac_cpu_graph_remask(kac_device *dev, const kac_remask_args *a, uint8_t *x)
{
    (void)dev, (void)a, (void)x;
    return refuse(KAC_GRAPH_NO_MASKS);
}
