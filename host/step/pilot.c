/* pilot.c -- alpha auto: the temperature at which p* is as far from q as asked; where groups have
 * targets of their own, at which none is further.
 *
 * The pilot's samples are independent of the run's, so alpha is a constant to the run, and what
 * it estimates stays unbiased.
 */
#include "pilot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exact.h"
#include "objective.h"

/* What is known of the pilot's samples: their terms, and what they are worth to one target. */
typedef struct pilot {
    int64_t samples;
    double *terms;  /* [samples][rewards] */
    int64_t n;      /* valid samples */
    double *reward; /* [n] */
} pilot;

/* What is asked for, and the furthest that any target can go; both as `distance` says it. */
typedef struct aim {
    bool ess;
    double asked, furthest;
} aim;

/* How far weights exp(r / alpha) are from equal: KL of the weighted samples from the unweighted
 * (nats), or minus their effective share; both fall as alpha grows. */
static double distance(const pilot *p, double alpha, bool ess)
{
    double top = -HUGE_VAL, sum = 0, square = 0, entropy = 0;
    for (int64_t i = 0; i < p->n; i++)
        top = p->reward[i] > top ? p->reward[i] : top;
    for (int64_t i = 0; i < p->n; i++) {
        double l = (p->reward[i] - top) / alpha, w = kac_exp(l);
        sum += w;
        square += w * w;
        entropy += w > 0 ? w * l : 0;
    }
    if (ess) return -sum * sum / (square * (double)p->n);
    return entropy / sum + kac_log((double)p->n / sum);
}

/* Raises *alpha, at first 0, to where p* of these rewards is no further than asked; a p* that never
 * is so far leaves it.  Bisects log alpha between a millionth and a million times the spread. */
static void raise_alpha(const pilot *p, aim *to, double *alpha)
{
    double least = HUGE_VAL, most = -HUGE_VAL;
    for (int64_t i = 0; i < p->n; i++) {
        least = p->reward[i] < least ? p->reward[i] : least;
        most = p->reward[i] > most ? p->reward[i] : most;
    }
    double spread = most > least ? most - least : 1; /* equal ones are as near everywhere */
    double furthest = distance(p, spread * 1e-6, to->ess);
    if (furthest > to->furthest) to->furthest = furthest;
    if (furthest <= to->asked) return;
    if (*alpha > 0 && distance(p, *alpha, to->ess) <= to->asked) return;
    double low = kac_log(spread * 1e-6), high = kac_log(spread * 1e6);
    for (int k = 0; k < 60; k++) {
        double middle = low + (high - low) / 2;
        if (distance(p, kac_exp(middle), to->ess) > to->asked)
            low = middle;
        else
            high = middle;
    }
    *alpha = kac_exp(high);
}

/* Rewards of the samples by the weights of a target, without those that are worth -infinity. */
static void weigh(pilot *p, const kac_settings *settings, const double *weight)
{
    kac_objective o = kac_objective_of(settings); /* columns as in p->terms */
    float row[KAC_MAX_TERMS];
    p->n = 0;
    for (int64_t i = 0; i < p->samples; i++) {
        int32_t bad = -1;
        for (int32_t term = 0; term < o.terms; term++)
            row[term] = (float)p->terms[i * o.terms + term];
        double reward = kac_objective_reward(&o, weight, row, (double)INFINITY, &bad);
        if (reward > -HUGE_VAL) p->reward[p->n++] = reward;
    }
}

/* All steps of the pilot's run; ten times a second is told how far it is. */
static kac_status take_steps(kac_run *run, const kac_piloted *piloted)
{
    double told = kac_now();
    for (int64_t k = 1; k <= kac_run_steps(run); k++) {
        kac_progress now;
        KAC_TRY(kac_run_step(run));
        if (piloted->watch == NULL || (kac_now() - told < 0.1 && k < kac_run_steps(run)))
            continue;
        KAC_TRY(kac_run_sync(run, &now));
        piloted->watch(piloted->watcher, &now, kac_run_steps(run));
        told = kac_now();
    }
    return KAC_OK;
}

static kac_status sample(const kac_config *config, const kac_piloted *piloted,
                         const kac_settings *settings, pilot *out, kac_calls *calls)
{
    kac_status status = KAC_OK;
    kac_config *alone = NULL;
    kac_run *run = NULL;
    KAC_TRY_DONE(kac_config_pilot(config, settings->sampler.pilot, &alone));
    KAC_TRY_DONE(kac_run_create(alone, &run));
    KAC_TRY_DONE(take_steps(run, piloted));
    KAC_TRY_DONE(kac_run_finish(run));
    size_t samples = (size_t)kac_run_samples(run), row = (size_t)settings->rewards;
    out->terms = calloc(samples * row + 1, sizeof *out->terms);
    out->reward = calloc(samples + 1, sizeof *out->reward);
    if (out->terms == NULL || out->reward == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "sampler.alpha: no memory for the pilot's rewards");
        goto done;
    }
    for (; out->samples < (int64_t)samples; out->samples++) {
        kac_sample s;
        KAC_TRY_DONE(kac_run_sample(run, out->samples, &s));
        memcpy(out->terms + (size_t)out->samples * row, s.terms, row * sizeof *s.terms);
    }
    *calls = run->counted;
done:
    kac_run_destroy(run);
    kac_config_destroy(alone);
    return status;
}

/* n samples know of p* while n exp(-KL) of them matter. */
static kac_status check_size(const pilot *p, const aim *to)
{
    if (!to->ess && (double)p->n * kac_exp(-to->asked) < 10)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.pilot.kl: %g nats need a pilot of %.0f valid samples, and "
                        "sampler.pilot.particles gave %lld",
                        to->asked, ceil(10 * kac_exp(to->asked)), (long long)p->n);
    if (p->n == 0)
        return KAC_FAIL(KAC_ERR_NUMERIC, "sampler.alpha: the pilot has no valid sample");
    return KAC_OK;
}

static kac_status refuse(const aim *to, int32_t targets)
{
    const char *whose = targets > 1 ? " of any target" : "";
    if (to->ess)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "sampler.pilot.ess: no alpha makes the effective share %g; the pilot's "
                        "samples have %.3g at least%s",
                        -to->asked, -to->furthest, whose);
    return KAC_FAIL(
        KAC_ERR_INVALID,
        "sampler.pilot.kl: no alpha takes p* %g nats from q; by the pilot's samples "
        "it is %.3g at most%s",
        to->asked, to->furthest, whose);
}

kac_status kac_pilot(const kac_config *config, const kac_piloted *piloted,
                     kac_settings *settings, kac_calls *calls)
{
    pilot p = {0};
    bool ess = settings->sampler.pilot_ess;
    aim to = {.ess = ess, .furthest = -HUGE_VAL};
    int32_t groups = (int32_t)settings->sampler.groups, targets = 0, seen = 0;
    double alpha = 0;
    kac_status status = KAC_OK;
    double *weight = calloc((size_t)groups * (size_t)settings->rewards + 1, sizeof *weight);
    int32_t *target = calloc((size_t)groups, sizeof *target);

    to.asked = ess ? -settings->sampler.pilot_share : settings->sampler.pilot_kl;
    if (weight == NULL || target == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "sampler.alpha: no memory for %d groups", groups);
        goto done;
    }
    KAC_TRY_DONE(kac_number_targets(settings, groups, weight, target, &targets));
    KAC_TRY_DONE(sample(config, piloted, settings, &p, calls));
    for (int32_t g = 0; g < groups; g++) {
        if (target[g] < seen) continue;
        seen++;
        weigh(&p, settings, weight + (ptrdiff_t)g * settings->rewards);
        KAC_TRY_DONE(check_size(&p, &to));
        raise_alpha(&p, &to, &alpha);
    }
    if (alpha == 0) {
        status = refuse(&to, targets);
        goto done;
    }
    settings->sampler.alpha = alpha;
done:
    free(weight);
    free(target);
    free(p.terms);
    free(p.reward);
    return status;
}
