/* schedule.c -- noise schedules and the time grid of the masked process.
 *
 * Notation: t time, m(t) probability that a site is masked at t, sigma = -log(1 - m), e the
 * schedule's epsilon.  Level k of 0 .. T; level T is noise.  The functions are kac's own, so that
 * every machine has the same grid.
 */
#include <math.h>
#include <stdlib.h>

#include "exact.h"
#include "process.h"

/* m(t). */
static double mask_probability(kac_schedule schedule, double t, double e)
{
    double sine = 0, c = 0;
    kac_sincos_turns(t / 4, &sine, &c);
    switch (schedule) {
    case KAC_SCHEDULE_LOGLINEAR: return (1 - e) * t;
    case KAC_SCHEDULE_COSINE: return 1 - (e + (1 - e) * c);
    case KAC_SCHEDULE_COSINE2: return 1 - (e + (1 - e) * c * c);
    case KAC_SCHEDULE_LINEAR: return 1 - kac_exp(-10 * t);
    case KAC_SCHEDULE_GEOMETRIC: return 1 - kac_exp(-kac_exp((1 - t) * kac_log(1e-3)));
    case KAC_SCHEDULE_FLOW: return 1 - t;
    case KAC_SCHEDULE_AUTO:
    case KAC_SCHEDULE_VP:
    case KAC_SCHEDULE_VE:
    case KAC_SCHEDULE_EDM:
    case KAC_SCHEDULE_MODEL: break; /* not masked */
    }
    return (double)NAN;
}

kac_status kac_masked_levels(const kac_settings *settings, kac_level *levels)
{
    int64_t steps = settings->process.steps;
    kac_schedule schedule = settings->process.schedule;

    for (int64_t k = 0; k <= steps; k++) {
        double share = (double)k / (double)steps; /* 1 at the noise */
        double t = schedule == KAC_SCHEDULE_FLOW
                       ? 1 - (1 - settings->process.begin) * share
                       : settings->process.end + (1 - settings->process.end) * share;
        double m = mask_probability(schedule, t, settings->process.epsilon);
        levels[k] = (kac_level){.t = t, .mask = m, .sigma = (float)-kac_log(1 - m)};
        if (k == 0) continue;
        double stay = levels[k - 1].mask / m;
        if (!(stay >= 0 && stay <= 1))
            return KAC_FAIL(KAC_ERR_INVALID,
                            "process: level %lld of %lld has mask probability %g after %g; it "
                            "must not rise on the way to level 0",
                            (long long)k, (long long)steps, levels[k - 1].mask, m);
        levels[k].reveal = (uint64_t)llround((1 - stay) * 0x1p32);
    }
    return KAC_OK;
}

void kac_temper_levels(const kac_settings *settings, kac_level *levels)
{
    int64_t steps = settings->process.steps;
    for (int64_t k = 0; k <= steps; k++) {
        double step = (double)(steps - k); /* the step that arrives at level k */
        double lambda = 1;
        switch (settings->sampler.temper) {
        case KAC_TEMPERING_NONE: break;
        case KAC_TEMPERING_LINEAR: lambda = step / (double)steps; break;
        case KAC_TEMPERING_GEOMETRIC:
            lambda = kac_exp(step * kac_log(1 + settings->sampler.temper_gamma)) - 1;
            break;
        case KAC_TEMPERING_ESS: lambda = 0; break;
        }
        levels[k].temper = k == 0 || lambda > 1 ? 1 : lambda;
    }
}

/* Stage k of K begins on arriving at the level after k T / K steps. */
static void funnel_levels(const kac_settings *settings, kac_level *levels)
{
    const char *text = settings->sampler.funnel;
    int64_t steps = settings->process.steps;
    int64_t stages = 2;
    if (text[0] == '\0') return;
    for (const char *c = text; *c != '\0'; c++)
        stages += *c == ',';
    for (int64_t k = 1; k < stages; k++) {
        char *end = NULL;
        kac_level *level = &levels[steps - k * steps / stages];
        level->particles = (int32_t)strtol(text, &end, 10);
        level->trigger = KAC_TRIGGER_ALWAYS;
        text = end + 1;
    }
}

void kac_trigger_levels(const kac_settings *settings, kac_level *levels)
{
    int64_t steps = settings->process.steps;
    int64_t to = settings->sampler.to == 0 ? steps : settings->sampler.to;
    kac_trigger_kind kind = settings->sampler.trigger;

    for (int64_t k = 0; k < steps; k++) {
        int64_t step = steps - k; /* the step that arrives at level k */
        bool due = kind != KAC_WHEN_NEVER && settings->sampler.group_rule != KAC_RULE_NONE &&
                   step % settings->sampler.every == 0 && step >= settings->sampler.from &&
                   step <= to;
        levels[k].trigger = !due                   ? KAC_TRIGGER_NEVER
                            : kind == KAC_WHEN_ESS ? KAC_TRIGGER_ESS
                                                   : KAC_TRIGGER_ALWAYS;
    }
    /* A path is drawn from the last weights themselves, which no selection may blur. */
    if (settings->driver.kind == KAC_DRIVER_GIBBS) levels[0].trigger = KAC_TRIGGER_NEVER;
    funnel_levels(settings, levels);
}
