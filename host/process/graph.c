/* graph.c -- the time grid of graph diffusion, and the coefficients of its moves (kernels/graph.h
 * has the formulas).
 *
 * The grid has S points n = S - 1 .. 0 at times t from 1 to 1e-4.  Where there is a corrector
 * before a reverse or Euler predictor, levels 2 n + 2 and 2 n + 1 lie at point n, T = 2 S: the
 * corrector moves from the first to the second, the predictor from there to point n - 1.  Else
 * level n + 1 lies at point n.  The last move is the mean of the predictor's, and level 0 is free
 * of noise.  With the numbers low and
 * high of the model's file, for each part:
 *
 *     vp    beta_n = (low + n / (S - 1) (high - low)) / S, b(t) = low + t (high - low);
 *           a^2 = exp(- t^2 (high - low) / 2 - t low), b^2 = 1 - a^2
 *     ve    sigma_n = low (high / low)^(n / (S - 1)), sigma_-1 = 0; a = 1, b = sigma_n
 *
 *     reverse, vp   y = (2 - sqrt(1 - beta_n)) x + beta_n s + sqrt(beta_n) z
 *     reverse, ve   y = x + G^2 s + G z, G^2 = sigma_n^2 - sigma_(n-1)^2
 *     euler, vp     y = x + (b(t) x / 2 + b(t) s) / S + sqrt(b(t) / S) z
 *     euler, ve     y = x + g^2 s / S + g z / sqrt(S), g = sigma(t) sqrt(2 log(high / low))
 *     s4            correction and prediction by one score, in one move: x + h s + heat sqrt(2 h) z
 *                   first, then the forward kernel over half of 1 / S, + g^2 s / S (g^2 = b(t) for
 *                   vp), and the kernel over the other half, of which the last move takes the mean.
 *                   The kernel over half h from t: vp, mean exp(c) x and variance 1 - exp(- 2 c),
 *                   c = h (2 low + (2 t - h) (high - low)) / 4; ve, x and sigma(t)^2 -
 *                   sigma(t - h)^2
 *
 * as published with Jo, Lee and Hwang, ICML 2022, after Song et al., "Score-based generative
 * modeling through stochastic differential equations", ICLR 2021, appendices E and G.
 * Exponentials are kac's own, so that every machine has the same grid.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exact.h"
#include "process.h"

static const double t_last = 1e-4;

/* A point of the grid: its number, as a share of the way to noise, and its time. */
typedef struct point {
    int64_t n, count;
    double share, t;
} point;

static point point_at(int64_t n, int64_t count)
{
    double share = count > 1 ? (double)n / (double)(count - 1) : 1;
    return (point){n, count, share, fma(share, 1 - t_last, t_last)};
}

static double sigma_at(const kac_noise *noise, double share)
{
    return noise->low * kac_exp(share * kac_log(noise->high / noise->low));
}

/* beta_n of vp. */
static double beta_at(const kac_noise *noise, const point *p)
{
    return fma(p->share, noise->high - noise->low, noise->low) / (double)p->count;
}

/* Scale, noise and score of a part. */
static void place(const kac_noise *noise, const point *p, bool scores, kac_graph_part *part)
{
    part->scale = part->of_answer = 1;
    part->noise = part->start = 0;
    if (noise->kind == KAC_NOISE_VP) {
        double rate = noise->low + p->t * (noise->high - noise->low) / 2;
        double square = kac_exp(-p->t * rate);
        part->scale = sqrt(square);
        part->noise = sqrt(1 - square);
        part->start = 1;
        part->of_answer = -1 / part->noise;
    } else {
        part->noise = sigma_at(noise, p->share);
        part->start = noise->high;
    }
    if (scores) return;
    double square = part->noise * part->noise; /* the answer is the estimate */
    part->of_answer = part->scale / square;
    part->of_state = -1 / square;
}

/* 2 alpha snr^2 of a correction at a point. */
static double pace_at(const kac_noise *noise, const point *p, double snr)
{
    double alpha = noise->kind == KAC_NOISE_VP ? 1 - beta_at(noise, p) : 1;
    return 2 * alpha * snr * snr;
}

/* g^2 at time t. */
static double rate_at(const kac_noise *noise, double t)
{
    if (noise->kind == KAC_NOISE_VP) return fma(t, noise->high - noise->low, noise->low);
    double sigma = sigma_at(noise, t);
    return 2 * sigma * sigma * kac_log(noise->high / noise->low);
}

/* The forward kernel of a part over a time h that ends at t: factor of the mean, and variance. */
static void forward(const kac_noise *noise, double t, double h, double *factor,
                    double *variance)
{
    *factor = 1;
    if (noise->kind == KAC_NOISE_VP) {
        double c = h * (2 * noise->low + (2 * t - h) * (noise->high - noise->low)) / 4;
        *factor = kac_exp(c);
        *variance = 1 - kac_exp(-2 * c);
    } else {
        double high = sigma_at(noise, t), low = sigma_at(noise, t - h);
        *variance = high * high - low * low;
    }
}

/* The move of s4 from a point, without its correction. */
static void set_s4(const kac_noise *noise, const point *p, kac_graph_part *part)
{
    double h = 1 / (2 * (double)p->count), first = 0, second = 0, variance[2] = {0, 0};
    forward(noise, p->t, h, &first, &variance[0]);
    forward(noise, p->t - h, h, &second, &variance[1]);
    part->keep = first * second;
    part->push = second * rate_at(noise, p->t) / (double)p->count;
    part->spread = sqrt(second * second * variance[0] + (p->n > 0 ? variance[1] : 0));
}

/* The predictor's move from a point. */
static void set_predictor(const kac_noise *noise, const point *p, kac_predictor kind,
                          kac_graph_part *part)
{
    double count = (double)p->count;
    bool vp = noise->kind == KAC_NOISE_VP;
    part->keep = 1;
    if (kind == KAC_PREDICTOR_S4) {
        set_s4(noise, p, part);
        return;
    }
    if (kind == KAC_PREDICTOR_EULER) {
        part->push = rate_at(noise, p->t) / count;
        if (vp) part->keep += part->push / 2;
    } else if (vp) {
        part->push = beta_at(noise, p);
        part->keep = 2 - sqrt(1 - part->push);
    } else {
        point next = point_at(p->n - 1, p->count);
        double low = p->n > 0 ? sigma_at(noise, next.share) : 0;
        double high = sigma_at(noise, p->share);
        part->push = high * high - low * low;
    }
    part->spread = p->n > 0 ? sqrt(part->push) : 0; /* the last move is a mean */
}

/* Whether the noise can be that of `count` points. */
static kac_status check_noise(const kac_noise *noise, int64_t count)
{
    if (noise->kind == KAC_NOISE_VP && noise->high > (double)count)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "process.steps: %lld points of time are too few for the model's noise, "
                        "vp %g %g; want %g or more",
                        (long long)count, noise->low, noise->high, ceil(noise->high));
    return KAC_OK;
}

bool kac_graph_alternates(const kac_settings *settings)
{
    return settings->process.corrector == KAC_CORRECTOR_LANGEVIN &&
           settings->process.predictor != KAC_PREDICTOR_S4;
}

/* Both parts at a level that lies at this point: what it corrects, and what it predicts. */
static void fill_level(const kac_settings *s, const kac_graph_model *model, const point *at,
                       bool predicts, kac_graph_level *level)
{
    level->heat = s->process.scale_eps;
    for (int p = 0; p < 2; p++) {
        const kac_noise *noise = &model->noise[p];
        kac_graph_part *part = &level->part[p];
        place(noise, at, model->scores, part);
        part->keep = 1;
        if (predicts) set_predictor(noise, at, s->process.predictor, part);
        if (level->corrects) part->pace = pace_at(noise, at, s->process.snr);
    }
}

kac_status kac_graph_levels(const kac_settings *settings, const kac_graph_model *model,
                            kac_level *levels)
{
    bool alternates = kac_graph_alternates(settings);
    bool corrects = settings->process.corrector == KAC_CORRECTOR_LANGEVIN;
    int64_t steps = settings->process.steps;
    int64_t count = alternates ? steps / 2 : steps;
    for (int p = 0; p < 2; p++)
        KAC_TRY(check_noise(&model->noise[p], count));

    levels[0] = (kac_level){.graph.part = {{.scale = 1}, {.scale = 1}}};
    for (int64_t k = 1; k <= steps; k++) {
        point at = point_at(alternates ? (k - 1) / 2 : k - 1, count);
        bool predicts = !alternates || k % 2 != 0;
        levels[k] = (kac_level){.t = at.t};
        levels[k].graph.corrects = corrects && (!alternates || !predicts);
        fill_level(settings, model, &at, predicts, &levels[k].graph);
        const kac_graph_part *nodes = &levels[k].graph.part[0];
        levels[k].gaussian.scale = nodes->scale; /* for denoisers that read them */
        levels[k].gaussian.noise = nodes->noise;
        levels[k].sigma = (float)(nodes->noise / nodes->scale);
    }
    return KAC_OK;
}

/* ---- numbers of nodes ------------------------------------------------------------------- */

/* One "nodes:weight", or "nodes" alone, at *text, which moves on past a comma.  Returns whether
 * it is one. */
static bool read_count(const char **text, int64_t *nodes, double *weight)
{
    char *end = NULL;
    if (**text < '0' || **text > '9') return false;
    *nodes = strtoll(*text, &end, 10);
    *weight = 1;
    if (*end == ':') {
        *text = end + 1;
        if ((**text < '0' || **text > '9') && **text != '.') return false;
        *weight = strtod(*text, &end);
    }
    if (*end == ',' && end[1] != '\0') end++;
    *text = end;
    return *nodes >= 1 && *weight >= 0 && *weight <= 1e30 && (*end == '\0' || end[-1] == ',');
}

bool kac_graph_reads_counts(const char *text)
{
    int64_t nodes = 0;
    double weight = 0, sum = 0;
    if (*text == '\0') return true;
    while (*text != '\0') {
        if (!read_count(&text, &nodes, &weight)) return false;
        sum += weight;
    }
    return sum > 0;
}

kac_status kac_graph_counts(const char *text, int32_t most, uint64_t *law)
{
    int64_t nodes = 0;
    double weight = 0, sum = 0, below = 0;
    double *weights = calloc((size_t)most, sizeof *weights);
    if (weights == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "no memory for %d nodes", most);
    while (*text != '\0' && read_count(&text, &nodes, &weight)) {
        if (nodes > most) {
            free(weights);
            return KAC_FAIL(KAC_ERR_INVALID,
                            "process.nodes: graphs of %lld nodes; the model's have at most %d",
                            (long long)nodes, (int)most);
        }
        weights[nodes - 1] += weight;
        sum += weight;
    }
    for (int32_t n = 1; n <= most; n++) {
        below += weights[n - 1];
        law[n - 1] = below >= sum ? (uint64_t)1 << 32 : (uint64_t)(below / sum * 0x1p32);
    }
    free(weights);
    return KAC_OK;
}
