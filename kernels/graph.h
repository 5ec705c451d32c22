/* graph.h -- graph diffusion: where the numbers of a graph lie, and the scalar maths of a move.
 *
 * A graph of at most N nodes with F features is a vector of D = 1 + N F + N (N - 1) / 2 numbers:
 * n, the nodes that it has; X[i][f] of the nodes; A of the pairs i < j in the order (0, 1),
 * (0, 2), .., (1, 2), ..  What belongs to nodes from n on is 0, and n never moves.
 *
 * Both parts, X and A, have noise of their own, x_k = a_k x_0 + b_k e.  The denoiser's answer for
 * a number gives its score s, and the estimate of x_0 is (x_k + b_k^2 s) / a_k (Tweedie's
 * formula), whatever the noise.  A move is, for each number, with normal numbers z and z',
 *
 *     y = keep (x + h s + heat sqrt(2 h) z) + push s + spread (z' + u)
 *     h = 2 alpha (snr |z| / |s|)^2,  the norms over the part
 *
 * with u = spread scale tilt where proposals are tilted, else 0; z stays as it is, for h hangs on
 * it, so that the noise of a corrector is not normal.  Coefficients are of the level
 * (host/process/graph.c): moves of the corrector, one step of Langevin dynamics at a noise that
 * stays, have keep 1, push 0 and spread 0; those of a predictor have h 0.
 *
 * Objects have one feature of a node at 1 and the others at 0, or all at 0 where there is no
 * atom, and 0 .. 3 for a pair.  A corrector move and the predictor move after it are one step of
 * the sampler of Jo, Lee and Hwang, "Score-based generative modeling of graphs via the system of
 * stochastic differential equations", ICML 2022.
 */
#ifndef KAC_GRAPH_H
#define KAC_GRAPH_H

#include <math.h>

#include "gaussian.h"

/* Numbers first .. first + count - 1 of a row, all of one part: 0, of nodes, or 1, of pairs. */
typedef struct kac_graph_run {
    int32_t first, count, part;
} kac_graph_run;

/* Nodes of a graph; it has as many runs of numbers. */
KAC_HD static inline int32_t kac_graph_nodes(const float *row)
{
    return (int32_t)row[0];
}

/* Run r of a graph of n nodes: all nodes, then the pairs of node r - 1 with those after it. */
KAC_HD static inline kac_graph_run kac_graph_run_at(const kac_shape *shape, int32_t n,
                                                    int32_t r)
{
    kac_graph_run run = {1, n * shape->features, 0};
    if (r == 0) return run;
    run.first += shape->nodes * shape->features + (r - 1) * shape->nodes - r * (r - 1) / 2;
    run.count = n - r;
    run.part = 1;
    return run;
}

/* The part of number l, or -1 where it is none of a graph of n nodes. */
KAC_HD static inline int32_t kac_graph_part_at(const kac_shape *shape, int32_t n, int32_t l)
{
    int32_t most = shape->nodes, pair = l - 1 - most * shape->features, i = 0;
    float b = (float)(2 * most - 1);
    if (pair < 0) return l > 0 && l <= n * shape->features ? 0 : -1;
    /* The pairs of node i begin at i (2 N - 1 - i) / 2; nodes n - 1 and on have none. */
    if (pair >= (n - 1) * (2 * most - n) / 2) return -1;
    i = (int32_t)((b - sqrtf(b * b - 8 * (float)pair)) / 2); /* or one beside it */
    while (i > 0 && i * (2 * most - 1 - i) / 2 > pair)
        i--;
    while ((i + 1) * (2 * most - 2 - i) / 2 <= pair)
        i++;
    return i + 1 + pair - i * (2 * most - 1 - i) / 2 < n ? 1 : -1;
}

/* The number of nodes that this key draws. */
KAC_HD static inline int32_t kac_graph_draw_nodes(const kac_start_args *a, kac_key key)
{
    uint32_t word = kac_draw(key, KAC_DRAW_START, (uint32_t)a->shape.length).v[0];
    int32_t n = 1;
    while (n < a->shape.nodes && word >= a->nodes[n - 1])
        n++;
    return n;
}

/* Numbers z (0) or z' (1) that are given to child c instead of draws, or NULL. */
KAC_HD static inline const float *kac_graph_given(const kac_propose_args *a, int which,
                                                  int64_t c)
{
    return a->noise[which] != NULL ? a->noise[which] + c * a->shape.length : NULL;
}

/* ---- scores and moves ------------------------------------------------------------------- */

KAC_HD static inline double kac_graph_score(const kac_graph_part *part, float x, float answer)
{
    return fma(part->of_answer, (double)answer, part->of_state * (double)x);
}

KAC_HD static inline float kac_graph_estimate(const kac_graph_part *part, float x, float answer)
{
    double score = kac_graph_score(part, x, answer);
    return (float)(fma(part->noise * part->noise, score, (double)x) / part->scale);
}

/* dr / d answer of number l of part p, in row q of a batch; r of the estimate. */
KAC_HD static inline float kac_graph_slope(const kac_slope_args *a, int32_t p, int32_t q,
                                           int32_t l)
{
    const kac_graph_part *part = &a->levels[a->clock->level].graph.part[p];
    double by_answer = part->noise * part->noise * part->of_answer / part->scale;
    return (float)(by_answer * (double)a->reward[(int64_t)q * a->shape.length + l]);
}

/* dr / dx of that number: with the answer as it is, and through it; or of the state itself. */
KAC_HD static inline float kac_graph_tilt(const kac_slope_args *a, int32_t p, int32_t q,
                                          int32_t l)
{
    const kac_graph_part *part = &a->levels[a->clock->level].graph.part[p];
    int64_t at = (int64_t)q * a->shape.length + l;
    double by_state = fma(part->noise * part->noise, part->of_state, 1.0) / part->scale;
    if (a->soft == NULL) return a->reward[at];
    return (float)fma(by_state, (double)a->reward[at], (double)a->input[at]);
}

/* Sums go through lanes, in an order that any number of threads can keep: lanes hold the sums
 * of their own terms in order, then the upper half is added to the lower, until one is left.  A
 * number of a row has the lane of its pair. */
enum { KAC_GRAPH_LANES = 128 };

KAC_HD static inline double kac_graph_add_up(double *lane, int32_t lanes)
{
    for (int32_t half = lanes / 2; half > 0; half /= 2)
        for (int32_t j = 0; j < half; j++)
            lane[j] += lane[j + half];
    return lane[0];
}

/* Norm over each part of a row of the scores that these parts give it. */
KAC_HD static inline void kac_graph_norms(const kac_shape *shape, const kac_graph_part part[2],
                                          const float *x, const float *answer, double norm[2])
{
    double lane[2][KAC_GRAPH_LANES];
    int32_t n = kac_graph_nodes(x);
    for (int p = 0; p < 2; p++)
        for (int j = 0; j < KAC_GRAPH_LANES; j++)
            lane[p][j] = 0;
    for (int32_t r = 0; r < n; r++) {
        kac_graph_run run = kac_graph_run_at(shape, n, r);
        for (int32_t l = run.first; l < run.first + run.count; l++) {
            double s = kac_graph_score(&part[run.part], x[l], answer[l]);
            double *sum = &lane[run.part][l / 2 % KAC_GRAPH_LANES];
            *sum = fma(s, s, *sum);
        }
    }
    for (int p = 0; p < 2; p++)
        norm[p] = sqrt(kac_graph_add_up(lane[p], KAC_GRAPH_LANES));
}

/* Norms of the numbers z of a row. */
KAC_HD static inline void kac_graph_noise_norms(const kac_shape *shape, const float *z,
                                                double norm[2])
{
    kac_graph_part plain[2];
    for (int p = 0; p < 2; p++) {
        plain[p].of_state = 1;
        plain[p].of_answer = 0;
    }
    kac_graph_norms(shape, plain, z, z, norm);
}

/* A row's norms join those of a population, exactly, so that their order is free.  What is not
 * finite, or above 2^38, counts as 0: its row has a NaN, or will have one. */
KAC_HD static inline void kac_graph_count(kac_norms *sum, int which, const double norm[2])
{
    for (int p = 0; p < 2; p++) {
        double whole = norm[p] < 274877906944.0 ? floor(norm[p]) : 0;
        double rest = norm[p] < 274877906944.0 ? norm[p] - whole : 0;
        sum->whole[which][p] += (int64_t)whole;
        sum->part[which][p] += (int64_t)(rest * 4294967296.0);
    }
    sum->rows[which]++;
}

KAC_HD static inline void kac_graph_add_norms(const kac_norms *some, kac_norms *sum)
{
    for (int which = 0; which < 2; which++) {
        for (int p = 0; p < 2; p++) {
            sum->whole[which][p] += some->whole[which][p];
            sum->part[which][p] += some->part[which][p];
        }
        sum->rows[which] += some->rows[which];
    }
}

/* Mean norm of a part over the rows that were counted. */
KAC_HD static inline double kac_graph_mean(const kac_norms *sum, int which, int p)
{
    double total =
        (double)sum->whole[which][p] + (double)sum->part[which][p] * (1 / 4294967296.0);
    return sum->rows[which] > 0 ? total / (double)sum->rows[which] : 0;
}

/* The step size h of a part, from the norms of its noise and its score.  Without a score it
 * stays. */
KAC_HD static inline double kac_graph_step(const kac_graph_part *part, double noise,
                                           double score)
{
    double ratio = score > 0 ? noise / score : 0;
    return part->pace * ratio * ratio;
}

/* A number of part p without its z'; z is the corrector's. */
KAC_HD static inline float kac_graph_drift(const kac_graph_level *level, int32_t p, float x,
                                           float answer, double step, float z)
{
    const kac_graph_part *part = &level->part[p];
    double score = kac_graph_score(part, x, answer);
    double corrected = fma(step, score, (double)x) + level->heat * (double)z * sqrt(2 * step);
    return (float)fma(part->push, score, part->keep * corrected);
}

/* What tilts the children of a particle: a row of the tilt, or NULL. */
typedef struct kac_graph_pull {
    const float *row;
    double scale;
} kac_graph_pull;

KAC_HD static inline kac_graph_pull kac_graph_pull_of(const kac_propose_args *a,
                                                      const kac_group *group, int32_t i)
{
    kac_graph_pull pull = {NULL, 0};
    if (a->twist.tilt == NULL) return pull;
    pull.row = a->twist.tilt + (int64_t)a->twist.row[i] * a->shape.length;
    pull.scale = a->twist.scale * group->lambda / group->alpha;
    return pull;
}

/* u of number l. */
KAC_HD static inline double kac_graph_shift(const kac_graph_part *part, kac_graph_pull pull,
                                            int32_t l)
{
    double tilt = pull.row != NULL ? (double)pull.row[l] : 0;
    return tilt - tilt == 0 ? part->spread * pull.scale * tilt : 0; /* a number */
}

/* And with it. */
KAC_HD static inline float kac_graph_diffuse(const kac_graph_part *part, float drifted,
                                             double z)
{
    return (float)fma(part->spread, z, (double)drifted);
}

/* All of a row from x without z'; the child holds the corrector's noise, and then this. */
KAC_HD static inline void kac_graph_drift_row(const kac_shape *shape,
                                              const kac_graph_level *level, const float *x,
                                              const float *answer, const double step[2],
                                              float *child)
{
    int32_t n = kac_graph_nodes(x);
    for (int32_t r = 0; r < n; r++) {
        kac_graph_run run = kac_graph_run_at(shape, n, r);
        for (int32_t l = run.first; l < run.first + run.count; l++)
            child[l] =
                kac_graph_drift(level, run.part, x[l], answer[l], step[run.part], child[l]);
    }
}

/* ---- objects ---------------------------------------------------------------------------- */

/* The features of a node become those of an atom: the first one above 1/2, or none. */
KAC_HD static inline void kac_graph_round_node(float *x, int32_t features)
{
    int32_t atom = 0;
    while (atom < features && !(x[atom] > 0.5F))
        atom++;
    for (int32_t f = 0; f < features; f++)
        x[f] = f == atom ? 1.0F : 0.0F;
}

/* The order of a bond. */
KAC_HD static inline float kac_graph_round_pair(float a)
{
    return a < 0.5F ? 0.0F : a < 1.5F ? 1.0F : a < 2.5F ? 2.0F : 3.0F;
}

KAC_HD static inline void kac_graph_round_row(const kac_shape *shape, float *row)
{
    int32_t n = kac_graph_nodes(row);
    for (int32_t i = 0; i < n; i++)
        kac_graph_round_node(row + 1 + (int64_t)i * shape->features, shape->features);
    for (int32_t r = 1; r < n; r++) {
        kac_graph_run run = kac_graph_run_at(shape, n, r);
        for (int32_t l = run.first; l < run.first + run.count; l++)
            row[l] = kac_graph_round_pair(row[l]);
    }
}

/* ---- what graphs do not have ------------------------------------------------------------ */

#define KAC_GRAPH_NO_DRAWS   "graph: graphs have no drawn completions"
#define KAC_GRAPH_NO_BLEND   "graph: graphs have one denoiser"
#define KAC_GRAPH_NO_NOISE   "graph: objects are not noised again"
#define KAC_GRAPH_NO_DENSITY "graph: the last move is a function, so samples have no density"
#define KAC_GRAPH_NO_MASKS   "graph: graphs have no letters for masks"

#endif /* KAC_GRAPH_H */
