/* gaussian.c -- the time grids of Gaussian diffusion, and the coefficients of its moves
 * (gaussian.h has the formulas).
 *
 * Levels T .. 1 are the grid of the schedule, level 0 is free of noise:
 *
 *     vp    time t_k = k / T, beta(t) linear from beta_min to beta_max, scale^2 = exp(- integral
 *           of beta from 0 to t_k), noise^2 = 1 - scale^2 (Ho et al. 2020; Song et al.,
 *           "Score-based generative modeling through stochastic differential equations", ICLR
 *           2021, section 3.4)
 *     ve    scale 1, noise geometric from sigma_max to sigma_min (the same section)
 *     edm   scale 1, noise^(1/rho) linear from sigma_max to sigma_min (Karras et al.,
 *           "Elucidating the design space of diffusion-based generative models", NeurIPS 2022,
 *           equation 5)
 *
 * Powers and exponentials are kac's own, so that every machine has the same grid.
 */
#include <math.h>

#include "exact.h"
#include "process.h"

/* x^p for x > 0. */
static double power(double x, double p)
{
    return kac_exp(p * kac_log(x));
}

/* Scale, noise and t of level k >= 1. */
static void place(const kac_settings *s, int64_t k, kac_level *level)
{
    double steps = (double)s->process.steps;
    double low = s->process.sigma_min, high = s->process.sigma_max, rho = s->process.rho;
    double share = steps > 1 ? (double)(k - 1) / (steps - 1) : 1; /* 1 at the noise */
    double t = (double)k / steps;
    double slope = s->process.beta_max - s->process.beta_min;
    kac_gaussian_level *g = &level->gaussian;
    g->scale = 1;
    switch (s->process.schedule) {
    case KAC_SCHEDULE_VP: {
        double integral = t * (s->process.beta_min + t * slope / 2);
        g->scale = kac_exp(-integral / 2);
        g->noise = sqrt(1 - kac_exp(-integral));
        level->t = t;
        return;
    }
    case KAC_SCHEDULE_VE: g->noise = high * kac_exp((1 - share) * kac_log(low / high)); break;
    case KAC_SCHEDULE_EDM:
        g->noise = power(
            power(low, 1 / rho) + share * (power(high, 1 / rho) - power(low, 1 / rho)), rho);
        break;
    default: break; /* of the masked process */
    }
    level->t = g->noise;
}

/* What is left of noise / scale on the way from a level to the one below, `to`. */
static double left_of(const kac_gaussian_level *from, const kac_gaussian_level *to)
{
    return from->scale * to->noise / (to->scale * from->noise);
}

/* (1 - rho^p) / p, also where p is near 0. */
static double share(double rho, double p)
{
    double log_rho = kac_log(rho);
    return fabs(p) < 1e-6 ? -log_rho : (1 - kac_exp(p * log_rho)) / p;
}

/* The move from `from` to the level below, `to`; `before` the level above, NULL where the move
 * does not look back. */
static void set_move(const kac_settings *s, const kac_gaussian_level *to,
                     const kac_gaussian_level *before, kac_gaussian_level *from)
{
    double left = left_of(from, to), rho = left * left, anneal = s->process.anneal;
    double eta = s->process.eta * s->process.eta;
    double drawn = eta * (1 - rho), kept = 1 - drawn; /* squares, in units of to->noise */
    if (rho > 0 && (anneal != 1 || eta > 1)) {
        double p = (1 + eta) * anneal - 1;
        drawn = eta * share(rho, p);
        kept = power(rho, p);
    } else if (rho == 0) {
        drawn = kept = 0; /* to->noise is 0 */
    }
    from->spread = to->noise * sqrt(drawn);
    from->keep = to->noise * sqrt(kept) / from->noise;
    from->pull = fma(-from->keep, from->scale, to->scale);
    if (before == NULL) return;
    from->extrapolate = kac_log(left) / (2 * kac_log(left_of(before, from)));
}

/* How level k of T weighs: half of its steps of log tau up and down, and at level 1 the integral
 * down to 0; at level T the log of the integral of a power of its noise. */
static void set_weight(double anneal, int64_t k, int64_t steps, kac_level *levels)
{
    kac_gaussian_level *level = &levels[k].gaussian;
    double ratio = level->noise / level->scale, tau = ratio * ratio;
    double integral = k > 1 ? -kac_log(left_of(level, &levels[k - 1].gaussian)) : 1;
    if (k < steps) integral -= kac_log(left_of(&levels[k + 1].gaussian, level));
    level->weigh = integral / (2 * tau);
    if (k < steps || anneal == 1) return;
    double turn = 6.283185307179586; /* 2 pi */
    level->offset = ((1 - anneal) * kac_log(turn * tau) - kac_log(anneal)) / 2;
}

kac_status kac_gaussian_levels(const kac_settings *settings, kac_level *levels)
{
    int64_t steps = settings->process.steps;
    double data = settings->process.sigma_data * settings->process.sigma_data;

    levels[0] = (kac_level){.gaussian = {.scale = 1}};
    for (int64_t k = 1; k <= steps; k++) {
        levels[k] = (kac_level){0};
        place(settings, k, &levels[k]);
        kac_gaussian_level *g = &levels[k].gaussian;
        const kac_gaussian_level *below = &levels[k - 1].gaussian;
        levels[k].sigma = (float)(g->noise / g->scale);
        if (!(g->scale > 0) || !(g->noise * below->scale > below->noise * g->scale))
            return KAC_FAIL(KAC_ERR_INVALID,
                            "process: level %lld of %lld has noise %g and scale %g after %g "
                            "and %g; their ratio must fall on the way to level 0",
                            (long long)k, (long long)steps, g->noise, g->scale, below->noise,
                            below->scale);
        double noise = g->noise * g->noise;
        g->anneal = settings->process.anneal;
        g->guess = sqrt(data * noise / fma(data, g->scale * g->scale, noise));
    }
    for (int64_t k = 1; k <= steps; k++) {
        bool looks_back = settings->process.order == 2 && k > 1 && k < steps;
        set_move(settings, &levels[k - 1].gaussian, looks_back ? &levels[k + 1].gaussian : NULL,
                 &levels[k].gaussian);
        set_weight(settings->process.anneal, k, steps, levels);
    }
    return KAC_OK;
}
