/* graph_cpu.c -- graph diffusion on the CPU: noise, moves, completions. */
#include "graph.h"

#include <stdbool.h>
#include <string.h>

#include "complete.h"
#include "ops.h"
#include "particles.h"
#include "scratch_cpu.h"

/* row[l] = f(row[l], z[l]) for the live numbers of a row, f what a part does; z is drawn, or
 * given [L]. */
typedef float use_fn(const kac_graph_part *part, float number, double z);

static void draw_numbers(const kac_shape *shape, const kac_graph_level *level, kac_key key,
                         kac_purpose purpose, const float *given, use_fn *use, float *row)
{
    int32_t n = kac_graph_nodes(row);
    for (int32_t r = 0; r < n; r++) {
        kac_graph_run run = kac_graph_run_at(shape, n, r);
        double z[2] = {0, 0};
        for (int32_t l = run.first; l < run.first + run.count; l++) {
            if (given != NULL)
                z[l % 2] = (double)given[l];
            else if (l % 2 == 0 || l == run.first)
                kac_normals(kac_draw(key, purpose, (uint32_t)(l / 2)), z);
            row[l] = use(&level->part[run.part], row[l], z[l % 2]);
        }
    }
}

/* Numbers that are given to child c instead of draws, or NULL. */
static const float *given_to(const kac_propose_args *a, int which, int64_t c)
{
    return a->noise[which] != NULL ? a->noise[which] + c * a->shape.length : NULL;
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

/* A row of n nodes and zeros. */
static void clear_row(const kac_shape *shape, int32_t n, float *row)
{
    memset(row, 0, (size_t)shape->stride);
    row[0] = (float)n;
}

/* The number of nodes that this key draws. */
static int32_t draw_nodes(const kac_start_args *a, kac_key key)
{
    uint32_t word = kac_draw(key, KAC_DRAW_START, (uint32_t)a->shape.length).v[0];
    int32_t n = 1;
    while (n < a->shape.nodes && word >= a->nodes[n - 1])
        n++;
    return n;
}

kac_status kac_cpu_graph_start(kac_device *dev, const kac_start_args *a, uint8_t *x)
{
    (void)dev;
    const kac_graph_level *level = &a->levels[a->clock->level].graph;
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < a->n; i++) {
        float *row = kac_vector_out(x, i, a->shape.stride);
        kac_key key = kac_key_of(a->seed, a->clock, &a->groups[a->group[i]], i);
        clear_row(&a->shape, draw_nodes(a, key), row);
        draw_numbers(&a->shape, level, key, KAC_DRAW_START, NULL, take_start, row);
    }
    return KAC_OK;
}

/* ---- children --------------------------------------------------------------------------- */

/* Norms over the parts, of the noise of each child and of the score of each parent. */
typedef struct norms {
    double (*noise)[2], (*score)[2];
} norms;

/* The children of particle i with their corrector's noise, if there is one.  Returns whether its
 * answer has a NaN. */
static bool begin_children(const kac_propose_args *a, const kac_graph_level *level,
                           const norms *norm, int32_t i)
{
    const float *x = kac_vector(a->x->x, i, a->shape.stride);
    const float *answer = kac_logits_of(a->memo, a->x->entry[i]);
    kac_key key = kac_key_of(a->seed, a->clock, &a->groups[a->x->group[i]], i);
    for (int32_t m = 0; m < a->children; m++) {
        int64_t c = (int64_t)i * a->children + m;
        float *child = kac_vector_out(a->y->x, c, a->shape.stride);
        key.child = (uint32_t)m;
        clear_row(&a->shape, kac_graph_nodes(x), child);
        if (level->corrects)
            draw_numbers(&a->shape, level, key, KAC_DRAW_CORRECT, given_to(a, 0, c), take_noise,
                         child);
        kac_graph_noise_norms(&a->shape, child, norm->noise[c]);
        a->y->entry[c] = -1;
        a->y->ratio[c] = 0;
    }
    kac_graph_norms(&a->shape, level->part, x, answer, norm->score[i]);
    return kac_has_nan(answer, a->shape.length);
}

/* Every row gets the mean over all, summed in their order. */
static void share_mean(double (*norm)[2], int64_t rows)
{
    double sum[2] = {0, 0};
    for (int64_t i = 0; i < rows; i++)
        for (int p = 0; p < 2; p++)
            sum[p] += norm[i][p];
    for (int64_t i = 0; i < rows; i++)
        for (int p = 0; p < 2; p++)
            norm[i][p] = sum[p] / (double)rows;
}

static void move_children(const kac_propose_args *a, const kac_graph_level *level,
                          const norms *norm, int32_t i)
{
    const float *x = kac_vector(a->x->x, i, a->shape.stride);
    const float *answer = kac_logits_of(a->memo, a->x->entry[i]);
    bool diffuses = level->part[0].spread != 0 || level->part[1].spread != 0;
    kac_key key = kac_key_of(a->seed, a->clock, &a->groups[a->x->group[i]], i);
    for (int32_t m = 0; m < a->children; m++) {
        int64_t c = (int64_t)i * a->children + m;
        float *child = kac_vector_out(a->y->x, c, a->shape.stride);
        key.child = (uint32_t)m;
        kac_graph_drift_row(&a->shape, level, x, answer, norm->noise[c], norm->score[i], child);
        if (diffuses)
            draw_numbers(&a->shape, level, key, KAC_DRAW_PROPOSE, given_to(a, 1, c),
                         kac_graph_diffuse, child);
        if (a->clock->level == 0) kac_graph_round_row(&a->shape, child);
    }
}

kac_status kac_cpu_graph_propose(kac_device *dev, const kac_propose_args *a)
{
    (void)dev;
    const kac_graph_level *level = &a->levels[a->clock->level + 1].graph;
    int32_t worst = INT32_MAX, n = kac_live(a->x->live, a->x->n);
    int64_t children = (int64_t)n * a->children;
    norms norm = {.noise = kac_cpu_scratch((size_t)(children + n + 1) * sizeof *norm.noise)};
    if (norm.noise == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "graph: no memory for the norms of %lld children",
                        (long long)children);
    norm.score = norm.noise + children;

#pragma omp parallel for schedule(static) reduction(min : worst)
    for (int32_t i = 0; i < n; i++)
        if (begin_children(a, level, &norm, i) && i < worst) worst = i;
    if (level->together) {
        share_mean(norm.noise, children);
        share_mean(norm.score, n);
    }
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < n; i++)
        move_children(a, level, &norm, i);
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

/* ---- what graphs do not have ------------------------------------------------------------ */

static kac_status refuse(const char *what)
{
    return KAC_FAIL(KAC_ERR_UNSUPPORTED, "graph: %s", what);
}

kac_status kac_cpu_graph_imagine(kac_device *dev, const kac_complete_args *a, uint8_t *out)
{
    (void)dev, (void)a, (void)out;
    return refuse("graphs have no drawn completions");
}

kac_status kac_cpu_graph_slope(kac_device *dev, const kac_slope_args *a, float *out)
{
    (void)dev, (void)a, (void)out;
    return refuse("proposals of graphs are not tilted");
}

kac_status kac_cpu_graph_tilt(kac_device *dev, const kac_slope_args *a, float *tilt)
{
    (void)dev, (void)a, (void)tilt;
    return refuse("proposals of graphs are not tilted");
}

kac_status kac_cpu_graph_blend(kac_device *dev, const kac_blend_args *a, float *logits)
{
    (void)dev, (void)a, (void)logits;
    return refuse("graphs have one denoiser");
}

kac_status kac_cpu_graph_renoise(kac_device *dev, const kac_renoise_args *a, uint8_t *x)
{
    (void)dev, (void)a, (void)x;
    return refuse("objects are not noised again");
}

kac_status kac_cpu_graph_score(kac_device *dev, const kac_renoise_args *a, const uint8_t *x,
                               const int32_t *entry, const kac_memo *memo, double *out)
{
    (void)dev, (void)a, (void)x, (void)entry, (void)memo, (void)out;
    return refuse("the last move is a function, so samples have no density");
}

kac_status kac_cpu_graph_remask(kac_device *dev, const kac_remask_args *a, uint8_t *x)
{
    (void)dev, (void)a, (void)x;
    return refuse("graphs have no letters for masks");
}
