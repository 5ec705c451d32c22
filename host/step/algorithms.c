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
#define KEEP        "sampler.final.keep"
#define WEIGHTS     "sampler.select.group.weights"
#define TEMPER      "sampler.temper.kind"
#define TWIST       "sampler.twist.kind"

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
    {
        .name = "svdd_r",
        .summary = "The best child of each particle, then groups resample at every step by "
                   "exp(value / largest |value|), as the published code does.",
        .law = "Not p*: an optimiser that keeps some diversity.",
        .source =
            "Uehara et al., Inference-time alignment in diffusion models, arXiv 2501.09685, "
            "2025 (sample_controlled_NestedIS of its code)",
        .set = {{PARTICLES, "16"},
                {CHILDREN, "20"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "argmax"},
                {POTENTIAL, "difference"},
                {PARENT_RULE, "argmax"},
                {GROUP_RULE, "categorical"},
                {SCHEME, "multinomial"},
                {WEIGHTS, "scaled"},
                {TRIGGER, "every"},
                {FINAL, "top_k"}},
    },
    {
        .name = "svdd_r_replace",
        .summary =
            "As svdd_pm with many particles, whose worst few are replaced at every step by "
            "copies of the others drawn by exp(value / alpha).",
        .law = "Not p*: an optimiser that keeps some diversity.",
        .source =
            "Li et al., Derivative-free guidance in continuous and discrete diffusion models "
            "with soft value-based decoding, arXiv 2408.08252, 2024 (SVDD-R, its Algorithm 2 "
            "and Appendix G)",
        .set = {{PARTICLES, "32"},
                {CHILDREN, "10"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "argmax"},
                {POTENTIAL, "difference"},
                {PARENT_RULE, "categorical"},
                {NORMALISER, "discard"},
                {GROUP_RULE, "replace"},
                {"sampler.select.group.fraction", "0.04"},
                {WEIGHTS, "value"},
                {TRIGGER, "every"},
                {FINAL, "top_k"}},
    },
    {
        .name = "beam",
        .summary = "Keeps the N best of all children of a group at every step.",
        .law = "An optimiser: no law.",
        .source =
            "Uehara et al., Inference-time alignment in diffusion models, arXiv 2501.09685, "
            "2025 (beam search over noisy states)",
        .set = {{PARTICLES, "8"},
                {CHILDREN, "8"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "argmax"},
                {POTENTIAL, "difference"},
                {PARENT_RULE, "none"},
                {GROUP_RULE, "top_k"},
                {TRIGGER, "every"},
                {FINAL, "top_k"},
                {KEEP, "1"}},
    },
    {
        .name = "funnel",
        .summary =
            "smc with many particles at first and few at the end, where steps decide less.",
        .law = "p* as N grows; weighted means and the evidence are unbiased at every N.",
        .source =
            "Feynman-Kac models with a number of particles that varies: Lee and Whiteley, "
            "Variance estimation in the particle filter, Biometrika 105(3), 2018",
        .set = {{PARTICLES, "64"},
                {"sampler.funnel", "32,16,8"},
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
        .name = "das",
        .summary =
            "smc whose values count in part at first: the exponent rises with the steps, or "
            "as far as the ESS allows (sampler.temper).",
        .law =
            "p* as N grows; weighted means and the evidence are unbiased at every N, for every "
            "schedule of exponents, the one that is solved from the ESS too.",
        .source = "Kim et al., Test-time alignment of diffusion models without reward "
                  "over-optimization, ICLR 2025",
        .set = {{PARTICLES, "16"},
                {CHILDREN, "1"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "argmax"},
                {POTENTIAL, "difference"},
                {TEMPER, "geometric"},
                {PARENT_RULE, "none"},
                {GROUP_RULE, "categorical"},
                {SCHEME, "systematic"},
                {TRIGGER, "ess"},
                {BELOW, "0.5"},
                {FINAL, "weighted"}},
    },
    {
        .name = "ddbfs",
        .summary = "Depth-limited search: every particle's descendants over a block of steps, "
                   "all kept, "
                   "and it goes on as the leaf with the best sum of values.",
        .law = "An optimiser, not p*: larger values on the way than svdd_pm with rule argmax, "
               "which it is at depth 1. Ignores alpha where value.samples is 1.",
        .source =
            "Li et al., Dynamic search for inference-time alignment in diffusion models, arXiv "
            "2503.02039, 2025",
        .set = {{"driver.kind", "search"},
                {"search.kind", "ddbfs"},
                {"search.depth", "3"},
                {"search.search_schedule", "exponential"},
                {"search.drop_schedule", "exponential"},
                {"search.oversample", "2"},
                {PARTICLES, "4"},
                {CHILDREN, "3"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "argmax"},
                {PARENT_RULE, "argmax"},
                {GROUP_RULE, "none"},
                {FINAL, "weighted"}},
    },
    {
        .name = "mcts",
        .summary =
            "Monte Carlo tree search over stages of the chain, a tree for each group, by "
            "upper confidence bounds on mean values.",
        .law = "An optimiser, not p*: an object down the most visited path. Ignores alpha "
               "where value.samples is 1.",
        .source = "Kocsis and Szepesvari, Bandit based Monte-Carlo planning, ECML 2006; over "
                  "diffusion: Yoon et al., Monte Carlo tree diffusion, arXiv 2502.07202, 2025",
        .set = {{"driver.kind", "search"},
                {"search.kind", "mcts"},
                {"search.stages", "16"},
                {"search.policy", "uct"},
                {"search.backup", "mean"},
                {"search.expansions", "8"},
                {PARTICLES, "1"},
                {CHILDREN, "8"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "argmax"},
                {PARENT_RULE, "argmax"},
                {GROUP_RULE, "none"},
                {FINAL, "weighted"}},
    },
    {
        .name = "dts",
        .summary =
            "Diffusion tree sampling: simulations run to the end, soft values go up, and "
            "objects are drawn down the tree by them.",
        .law =
            "p* as the simulations grow without end. After any number of them a sample is one "
            "of the objects seen, good ones somewhat too seldom, and the samples of a group "
            "share their tree.",
        .source =
            "Jain et al., Diffusion tree sampling, arXiv 2506.20701, 2025 (the numbers of "
            "children are kac's own)",
        .set = {{"driver.kind", "search"},
                {"search.kind", "dts"},
                {"search.policy", "soft"},
                {"search.backup", "soft"},
                {"search.expansions", "1"},
                {"search.widening", "0.8"},
                {"search.rollouts", "256"},
                {PARTICLES, "1"},
                {CHILDREN, "2"},
                {VALUE, "none"},
                {POTENTIAL, "terminal"},
                {PARENT_RULE, "argmax"},
                {GROUP_RULE, "none"},
                {FINAL, "weighted"}},
    },
    {
        .name = "rerd",
        .summary =
            "svdd_pm by argmax, then again and again: a tenth of the sites of the better "
            "objects is masked and finished anew.",
        .law = "An optimiser, not p*.",
        .source = "Uehara et al., Reward-guided iterative refinement in diffusion models at "
                  "test-time with applications to protein and DNA design, ICML 2025",
        .set = {{PARTICLES, "10"},
                {CHILDREN, "20"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "argmax"},
                {POTENTIAL, "difference"},
                {PARENT_RULE, "argmax"},
                {GROUP_RULE, "none"},
                {"driver.kind", "refine"},
                {"driver.iterations", "49"},
                {"driver.fraction", "0.1"},
                {"driver.strength", "5"},
                {FINAL, "weighted"}},
    },
    {
        .name = "particle_gibbs",
        .summary = "smc in sweeps: each is given one path of the sweep before, so that what a "
                   "small group cannot do at once it does in time.",
        .law =
            "p* as the sweeps grow, for any number of particles from two on; with log_weight, "
            "unbiased after any number of sweeps.",
        .source = "Andrieu, Doucet and Holenstein, Particle Markov chain Monte Carlo methods, "
                  "J. R. Stat. Soc. B 72(3), 2010",
        .set = {{PARTICLES, "16"},
                {CHILDREN, "1"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "argmax"},
                {POTENTIAL, "difference"},
                {PARENT_RULE, "none"},
                {GROUP_RULE, "categorical"},
                {SCHEME, "multinomial"},
                {TRIGGER, "ess"},
                {BELOW, "0.5"},
                {"driver.kind", "gibbs"},
                {"driver.sweeps", "10"},
                {FINAL, "categorical"},
                {KEEP, "1"}},
    },
    {
        .name = "tds",
        .summary = "smc whose moves are drawn from a law tilted by the gradient of the reward "
                   "through the denoiser; the weights take in the exact ratio.",
        .law =
            "p* as N grows; weighted means and the evidence are unbiased at every N and every "
            "scale.",
        .source =
            "Wu et al., Practical and asymptotically exact conditional sampling in diffusion "
            "models, NeurIPS 2023; for letters as in Nisonoff et al., Unlocking guidance for "
            "discrete state-space diffusion and flow models, ICLR 2025",
        .set = {{PARTICLES, "16"},
                {CHILDREN, "1"},
                {VALUE, "posterior_mean"},
                {ESTIMATE, "argmax"},
                {POTENTIAL, "difference"},
                {TWIST, "posterior_mean"},
                {"sampler.twist.path", "both"},
                {"sampler.twist.weights", "correct"},
                {PARENT_RULE, "none"},
                {GROUP_RULE, "categorical"},
                {SCHEME, "tournament"},
                {TRIGGER, "ess"},
                {BELOW, "0.5"},
                {FINAL, "weighted"}},
    },
    {
        .name = "dps",
        .summary = "One particle, its letters tilted by the gradient of the reward through the "
                   "denoiser; nothing is weighed.",
        .law = "Not p*: a heuristic whose strength is sampler.twist.scale.",
        .source =
            "Chung et al., Diffusion posterior sampling for general noisy inverse problems, "
            "ICLR 2023; for letters as the DPS baseline of Li et al., arXiv 2408.08252, 2024",
        .set = {{PARTICLES, "1"},
                {CHILDREN, "1"},
                {VALUE, "none"},
                {POTENTIAL, "terminal"},
                {TWIST, "posterior_mean"},
                {"sampler.twist.path", "denoiser"},
                {"sampler.twist.weights", "ignore"},
                {PARENT_RULE, "none"},
                {GROUP_RULE, "none"},
                {FINAL, "weighted"}},
    },
    {
        .name = "classifier_guidance",
        .summary = "One particle, its letters tilted by the gradient of a network at the noisy "
                   "state (sampler.value.file); nothing is weighed.",
        .law = "Not p*: a heuristic whose strength is sampler.twist.scale.",
        .source =
            "Dhariwal and Nichol, Diffusion models beat GANs on image synthesis, NeurIPS 2021; "
            "for letters the classifier guidance of Li et al., arXiv 2408.08252, 2024",
        .set = {{PARTICLES, "1"},
                {CHILDREN, "1"},
                {VALUE, "none"},
                {POTENTIAL, "terminal"},
                {TWIST, "value"},
                {"sampler.twist.weights", "ignore"},
                {PARENT_RULE, "none"},
                {GROUP_RULE, "none"},
                {FINAL, "weighted"}},
    },
    {.name = NULL},
};
