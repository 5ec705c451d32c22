/* checks.c -- the ladder of `kac validate`, a line a check.
 *
 * Small groups show what large ones hide (a wrong uniform, a wrong ancestor), larger ones with an
 * idle trigger what small ones hide (dropped weights), so every rule is tried at both.
 */
#include "validate.h"

#define SMC    "sampler.algorithm=smc "
#define NESTED "sampler.algorithm=nested "
#define POOL   "sampler.algorithm=smc sampler.select.parent.rule=none "
#define ALWAYS "sampler.select.group.trigger.kind=every "
#define ESS(share)                                                                             \
    "sampler.select.group.trigger.kind=ess sampler.select.group.trigger.below=" share " "
#define NEVER           "sampler.select.group.trigger.kind=never "
#define SCHEME(name)    "sampler.select.group.scheme=" name " "
#define POTENTIAL(name) "sampler.potential=" name " "
#define SOFT            "sampler.value.estimate=soft "
#define SAMPLE          "sampler.value.estimate=sample sampler.value.samples=2 "
#define REVIVE          "sampler.on_dead=revive "
#define TEMPER(kind)    "sampler.temper.kind=" kind " "

#define SAME(name, first, second)                                                              \
    {                                                                                          \
        1, name, KAC_CHECK_SAME, KAC_MODEL_TABLE, 50, 4, {0}, first, second                    \
    }
#define CONSTANT(name, settings)                                                               \
    {                                                                                          \
        2, name, KAC_CHECK_CONSTANT, KAC_MODEL_TABLE, 20, 4, {0}, settings, NULL               \
    }
#define COUNTS(rung, name, model, rule, children, settings)                                    \
    {                                                                                          \
        rung, name, KAC_CHECK_COUNTS, model, 1000, 100, {rule, children, 0.5}, settings, NULL  \
    }
#define WEIGHTED(rung, name, model, groups, particles, settings)                               \
    {                                                                                          \
        rung, name, KAC_CHECK_WEIGHTED, model, groups, particles, {0}, settings, NULL          \
    }
#define FAULT(name, settings, says)                                                            \
    {                                                                                          \
        11, name, KAC_CHECK_FAULT, KAC_MODEL_BAD, 200, 2, {0}, settings, says                  \
    }

const kac_check kac_checks[] = {
    SAME("any batch", SMC ALWAYS, SMC ALWAYS "device.batch=7"),
    SAME("any number of threads", NESTED "sampler.children=3",
         NESTED "sampler.children=3 device.threads=2"),
    SAME("with and without reuse", SMC ESS("0.7"), SMC ESS("0.7") "sampler.reuse=off"),
    SAME("reward and alpha doubled", SMC ALWAYS,
         SMC ALWAYS "reward.0.weight=2 sampler.alpha=1.4"),

    CONSTANT("smc", SMC ALWAYS),
    CONSTANT("nested", NESTED "sampler.children=3 " ESS("0.7")),
    CONSTANT("das", "sampler.algorithm=das " ALWAYS TEMPER("linear")),
    CONSTANT("funnel", SMC ESS("0.7") "sampler.funnel=2"),
    CONSTANT("tries of the last levels", SMC ALWAYS REVIVE "sampler.revive.levels=2"),
    CONSTANT("max potential", SMC ALWAYS POTENTIAL("max")),

    COUNTS(3, "pretrained", KAC_MODEL_TABLE, CHAIN_FIRST, 1, "sampler.algorithm=pretrained"),
    COUNTS(3, "pretrained, more steps than sites", KAC_MODEL_MANY, CHAIN_FIRST, 1,
           "sampler.algorithm=pretrained"),
    COUNTS(3, "pretrained, markov", KAC_MODEL_MARKOV, CHAIN_FIRST, 1,
           "sampler.algorithm=pretrained"),
    COUNTS(3, "pretrained, temperature 0.4, flow", KAC_MODEL_SHARP, CHAIN_FIRST, 1,
           "sampler.algorithm=pretrained"),

    WEIGHTED(4, "tournament", KAC_MODEL_TABLE, 8192, 2, SMC ALWAYS SCHEME("tournament")),
    WEIGHTED(4, "systematic", KAC_MODEL_TABLE, 8192, 2, SMC ALWAYS SCHEME("systematic")),
    WEIGHTED(4, "stratified", KAC_MODEL_TABLE, 8192, 2, SMC ALWAYS SCHEME("stratified")),
    WEIGHTED(4, "residual", KAC_MODEL_TABLE, 8192, 2, SMC ALWAYS SCHEME("residual")),
    WEIGHTED(4, "multinomial", KAC_MODEL_TABLE, 8192, 2, SMC ALWAYS SCHEME("multinomial")),
    WEIGHTED(4, "killing", KAC_MODEL_TABLE, 8192, 2, SMC ALWAYS SCHEME("killing")),
    WEIGHTED(4, "tournament of 7", KAC_MODEL_TABLE, 4096, 7, SMC ALWAYS SCHEME("tournament")),
    WEIGHTED(4, "systematic of 5", KAC_MODEL_TABLE, 4096, 5, SMC ALWAYS SCHEME("systematic")),
    WEIGHTED(4, "stratified of 5", KAC_MODEL_TABLE, 4096, 5, SMC ALWAYS SCHEME("stratified")),
    WEIGHTED(4, "residual of 5", KAC_MODEL_TABLE, 4096, 5, SMC ALWAYS SCHEME("residual")),
    WEIGHTED(4, "multinomial of 5", KAC_MODEL_TABLE, 4096, 5, SMC ALWAYS SCHEME("multinomial")),
    WEIGHTED(4, "killing of 5", KAC_MODEL_TABLE, 4096, 5, SMC ALWAYS SCHEME("killing")),

    WEIGHTED(5, "pretrained", KAC_MODEL_TABLE, 8192, 4, "sampler.algorithm=pretrained"),
    WEIGHTED(5, "smc, difference", KAC_MODEL_TABLE, 4096, 4, SMC ESS("0.7")),
    WEIGHTED(5, "smc, max", KAC_MODEL_TABLE, 8192, 4, SMC ALWAYS POTENTIAL("max")),
    WEIGHTED(5, "smc, sum", KAC_MODEL_TABLE, 8192, 4, SMC ESS("0.7") POTENTIAL("sum")),
    WEIGHTED(5, "smc, terminal", KAC_MODEL_TABLE, 4096, 4,
             SMC ALWAYS POTENTIAL("terminal") "sampler.value.kind=none"),
    WEIGHTED(5, "smc, soft values", KAC_MODEL_TABLE, 4096, 4, SMC ESS("0.7") SOFT),
    WEIGHTED(5, "smc, drawn values", KAC_MODEL_TABLE, 4096, 4, SMC ESS("0.7") SAMPLE),
    WEIGHTED(5, "smc, a learned value", KAC_MODEL_TABLE, 4096, 4,
             SMC ESS("0.7") "sampler.value.kind=learned"),
    WEIGHTED(5, "smc of 16, idle trigger", KAC_MODEL_TABLE, 4096, 16, SMC ESS("0.9")),
    WEIGHTED(5, "smc of 16, always", KAC_MODEL_TABLE, 4096, 16, SMC ALWAYS),
    WEIGHTED(5, "smc, never selecting", KAC_MODEL_TABLE, 8192, 2, SMC NEVER),
    WEIGHTED(5, "smc, window", KAC_MODEL_TABLE, 4096, 4,
             SMC "sampler.select.group.trigger.kind=window "
                 "sampler.select.group.trigger.from=2 sampler.select.group.trigger.to=2"),
    WEIGHTED(5, "smc, more steps than sites", KAC_MODEL_MANY, 4096, 4, SMC ESS("0.7")),
    WEIGHTED(5, "smc, markov", KAC_MODEL_MARKOV, 4096, 4, SMC ESS("0.7")),
    WEIGHTED(5, "smc, temperature 0.4, flow", KAC_MODEL_SHARP, 4096, 4, SMC ESS("0.7")),
    WEIGHTED(5, "smc, drawn by weight", KAC_MODEL_TABLE, 8192, 4,
             SMC ESS("0.7") "sampler.final.kind=categorical sampler.final.keep=1"),
    WEIGHTED(5, "fk_steering", KAC_MODEL_TABLE, 4096, 4, "sampler.algorithm=fk_steering"),
    WEIGHTED(5, "fk_steering, max", KAC_MODEL_TABLE, 8192, 4,
             "sampler.algorithm=fk_steering " POTENTIAL("max")),
    WEIGHTED(5, "nested", KAC_MODEL_TABLE, 4096, 2, NESTED "sampler.children=4 " ESS("0.7")),
    WEIGHTED(5, "nested, one particle", KAC_MODEL_TABLE, 4096, 1, NESTED "sampler.children=3"),
    WEIGHTED(5, "nested, always", KAC_MODEL_TABLE, 4096, 4,
             NESTED "sampler.children=2 " ALWAYS SCHEME("killing")),
    WEIGHTED(5, "children in one pool", KAC_MODEL_TABLE, 4096, 2,
             POOL "sampler.children=4 " ALWAYS),
    WEIGHTED(5, "das, linear", KAC_MODEL_TABLE, 4096, 4,
             "sampler.algorithm=das " ALWAYS TEMPER("linear")),
    WEIGHTED(5, "das, solved from the ESS", KAC_MODEL_TABLE, 8192, 2,
             "sampler.algorithm=das " ALWAYS TEMPER("ess") "sampler.temper.ess=0.9"),
    WEIGHTED(5, "tds", KAC_MODEL_TABLE, 4096, 4, "sampler.algorithm=tds " ESS("0.7")),
    WEIGHTED(5, "tds, always", KAC_MODEL_TABLE, 8192, 2, "sampler.algorithm=tds " ALWAYS),
    WEIGHTED(5, "tds, markov", KAC_MODEL_MARKOV, 4096, 4, "sampler.algorithm=tds " ESS("0.7")),
    WEIGHTED(5, "funnel", KAC_MODEL_TABLE, 4096, 6, SMC ALWAYS "sampler.funnel=4,2"),

    COUNTS(7, "svdd_pm, argmax of 3", KAC_MODEL_TABLE, CHAIN_ARGMAX, 3,
           "sampler.algorithm=svdd_pm sampler.select.parent.rule=argmax sampler.children=3"),
    COUNTS(7, "svdd_pm, one of 2 by weight", KAC_MODEL_TABLE, CHAIN_CATEGORICAL, 2,
           "sampler.algorithm=svdd_pm sampler.children=2"),
    {7,
     "best_of_n",
     KAC_CHECK_BEST,
     KAC_MODEL_TABLE,
     40000,
     5,
     {0},
     "sampler.algorithm=best_of_n",
     NULL},

    WEIGHTED(8, "particle_gibbs", KAC_MODEL_TABLE, 8192, 2,
             "sampler.algorithm=particle_gibbs driver.sweeps=2 " ALWAYS),
    WEIGHTED(8, "particle_gibbs, killing, by ESS", KAC_MODEL_TABLE, 8192, 3,
             "sampler.algorithm=particle_gibbs driver.sweeps=2 " ESS("0.7") SCHEME("killing")),

    {9,
     "standard errors cover",
     KAC_CHECK_COVERAGE,
     KAC_MODEL_TABLE,
     16,
     8,
     {0},
     SMC ESS("0.8"),
     NULL},
    {10,
     "200 sites in closed form",
     KAC_CHECK_LONG,
     KAC_MODEL_TABLE,
     64,
     64,
     {0},
     SMC ESS("0.5"),
     NULL},

    WEIGHTED(11, "forbidden objects", KAC_MODEL_BAD, 8192, 3, SMC ALWAYS),
    WEIGHTED(11, "forbidden objects, drawn values", KAC_MODEL_BAD, 8192, 3,
             SMC ESS("0.6") SAMPLE),
    WEIGHTED(11, "forbidden objects, no values", KAC_MODEL_BAD, 8192, 3,
             SMC ALWAYS POTENTIAL("terminal") "sampler.value.kind=none"),
    WEIGHTED(11, "forbidden objects, tried again", KAC_MODEL_BAD, 8192, 3,
             SMC ALWAYS REVIVE "sampler.revive.levels=2"),
    WEIGHTED(11, "forbidden objects, few rounds", KAC_MODEL_BAD, 8192, 3,
             SMC ESS("0.6") REVIVE "sampler.revive.levels=1 sampler.revive.rounds=2"),
    WEIGHTED(11, "forbidden objects, one particle", KAC_MODEL_BAD, 8192, 1,
             SMC ALWAYS REVIVE "sampler.revive.levels=2"),
    FAULT("an infinite reward", SMC, "gave NaN or infinity"),
    FAULT("a dead group", SMC "sampler.on_invalid=worst sampler.on_dead=error",
          "every weight of group"),

    {0},
};
