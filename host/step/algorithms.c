/* algorithms.c -- every published method as settings of the one step.
 *
 * A row sets all that makes the method what it is; a configuration may override any of it.
 */
#include "settings.h"

#define VALUE       "sampler.value.kind"
#define ESTIMATE    "sampler.value.estimate"
#define POTENTIAL   "sampler.potential"
#define PARTICLES   "sampler.particles"
#define CHILDREN    "sampler.children"
#define PARENT_RULE "sampler.select.parent.rule"
#define NORMALISER  "sampler.select.parent.normaliser"
#define GROUP_RULE  "sampler.select.group.rule"
#define SCHEME      "sampler.select.group.scheme"
#define TRIGGER     "sampler.select.group.trigger.kind"
#define BELOW       "sampler.select.group.trigger.below"
#define FINAL       "sampler.final.kind"

const kac_algorithm kac_algorithms[] = {
    {
        .name = "pretrained",
        .summary = "The denoiser alone, unguided; rewards, if any, are recorded.",
        .law =
            "q, exactly; log_weight is r / alpha, so that the weighted samples are importance "
            "samples of p*.",
        .source =
            "Sahoo et al., Simple and effective masked diffusion language models, NeurIPS "
            "2024",
        .set = {{PARTICLES, "1"},
                {CHILDREN, "1"},
                {VALUE, "none"},
                {POTENTIAL, "terminal"},
                {PARENT_RULE, "none"},
                {GROUP_RULE, "none"},
                {FINAL, "weighted"}},
    },
    {
        .name = "best_of_n",
        .summary = "Draws N objects from the denoiser for each group and keeps the best.",
        .law = "The largest reward of N draws from q: an optimiser, not p*.",
        .source = "Stiennon et al., Learning to summarize from human feedback, NeurIPS 2020",
        .set = {{PARTICLES, "10"},
                {CHILDREN, "1"},
                {VALUE, "none"},
                {POTENTIAL, "terminal"},
                {PARENT_RULE, "none"},
                {GROUP_RULE, "none"},
                {FINAL, "argmax"}},
    },
    {
        .name = "best_of_n_pool",
        .summary =
            "Draws N objects for each group and keeps the top 1/N of all groups together.",
        .law =
            "The upper 1/N of the rewards of all draws from q: an optimiser, not p*, and not "
            "best_of_n.",
        .source =
            "Li et al., Derivative-free guidance in continuous and discrete diffusion models "
            "with soft value-based decoding, arXiv 2408.08252, 2024 (its baseline)",
        .set = {{PARTICLES, "10"},
                {CHILDREN, "1"},
                {VALUE, "none"},
                {POTENTIAL, "terminal"},
                {PARENT_RULE, "none"},
                {GROUP_RULE, "none"},
                {FINAL, "top_k"},
                {"sampler.final.keep", "1"},
                {"sampler.final.scope", "all"}},
    },
    {
        .name = "smc",
        .summary = "Weighs particles by the gain of their value and resamples a group when its "
                   "weights degenerate.",
        .law = "p* as N grows; weighted means and the evidence are unbiased at every N.",
        .source =
            "Del Moral, Feynman-Kac formulae, 2004; Wu et al., Practical and asymptotically "
            "exact conditional sampling in diffusion models, NeurIPS 2023 (without its "
            "gradient)",
        .set = {{PARTICLES, "64"},
                {CHILDREN, "1"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "argmax"},
                {POTENTIAL, "difference"},
                {PARENT_RULE, "none"},
                {GROUP_RULE, "categorical"},
                {SCHEME, "tournament"},
                {TRIGGER, "ess"},
                {BELOW, "0.5"},
                {FINAL, "weighted"}},
    },
    {
        .name = "fk_steering",
        .summary = "Values from drawn completions, resampling at every step; potential may be "
                   "difference, max, sum or terminal.",
        .law = "p* as N grows; weighted means and the evidence are unbiased at every N.",
        .source =
            "Singhal et al., A general framework for inference-time scaling and steering of "
            "diffusion models, arXiv 2501.06848, 2025 (with the last correction that its "
            "code leaves out)",
        .set = {{PARTICLES, "16"},
                {CHILDREN, "1"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "sample"},
                {"sampler.value.samples", "4"},
                {POTENTIAL, "difference"},
                {PARENT_RULE, "none"},
                {GROUP_RULE, "categorical"},
                {SCHEME, "multinomial"},
                {TRIGGER, "every"},
                {FINAL, "weighted"}},
    },
    {
        .name = "svdd_pm",
        .summary =
            "Each particle goes on with one of its children, drawn by value; argmax as the "
            "published code runs it.",
        .law =
            "Not p*: the product of the locally normalised kernels, which is p* only where the "
            "value is exact and the children are many.",
        .source =
            "Li et al., Derivative-free guidance in continuous and discrete diffusion models "
            "with soft value-based decoding, arXiv 2408.08252, 2024",
        .set = {{PARTICLES, "1"},
                {CHILDREN, "10"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "argmax"},
                {POTENTIAL, "difference"},
                {PARENT_RULE, "categorical"},
                {NORMALISER, "discard"},
                {GROUP_RULE, "none"},
                {FINAL, "weighted"}},
    },
    {
        .name = "svdd_mc",
        .summary = "As svdd_pm, but a network of values, trained before on unfinished states, "
                   "says which child is promising: the denoiser is not asked of the children.",
        .law = "Not p*: as svdd_pm, with the value that was learned.",
        .source =
            "Li et al., Derivative-free guidance in continuous and discrete diffusion models "
            "with soft value-based decoding, arXiv 2408.08252, 2024",
        .set = {{PARTICLES, "1"},
                {CHILDREN, "10"},
                {VALUE, "learned"},
                {POTENTIAL, "difference"},
                {PARENT_RULE, "categorical"},
                {NORMALISER, "discard"},
                {GROUP_RULE, "none"},
                {FINAL, "weighted"}},
    },
    {
        .name = "nested",
        .summary =
            "As svdd_pm, but a particle's weight takes in the mean weight of its children, "
            "and groups resample.",
        .law =
            "p* as N grows; weighted means and the evidence are unbiased at every N and every "
            "number of children.",
        .source =
            "Naesseth et al., Nested sequential Monte Carlo methods, ICML 2015; Uehara et "
            "al., Inference-time alignment in diffusion models, arXiv 2501.09685, 2025",
        .set = {{PARTICLES, "16"},
                {CHILDREN, "5"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "argmax"},
                {POTENTIAL, "difference"},
                {PARENT_RULE, "categorical"},
                {NORMALISER, "keep"},
                {GROUP_RULE, "categorical"},
                {SCHEME, "tournament"},
                {TRIGGER, "ess"},
                {BELOW, "0.5"},
                {FINAL, "weighted"}},
    },
    {.name = NULL},
};
