/* keys.c -- the one table of configuration keys, and how their names are found. */
#include "keys.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "molecule.h"
#include "process.h"

_Static_assert(sizeof(kac_rule) == sizeof(int), "choices are stored as int");

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})
#define FIELD(path)                                                                            \
    .offset = offsetof(kac_settings, path), .size = sizeof((kac_settings *)0)->path

#define SWITCH(path, off, on) .type = KAC_KEY_SWITCH, FIELD(path), .choices = LIST(off, on)
#define CHOICE(path, ...)     .type = KAC_KEY_CHOICE, FIELD(path), .choices = LIST(__VA_ARGS__)
#define TEXT(path)            .type = KAC_KEY_TEXT, FIELD(path)
#define WORDS(path)           .type = KAC_KEY_LIST, FIELD(path)
#define INTEGER(path, least, most)                                                             \
    .type = KAC_KEY_INTEGER, FIELD(path), .low = (least), .high = (most)
#define NUMBER(path, least, most)                                                              \
    .type = KAC_KEY_NUMBER, FIELD(path), .low = (least), .high = (most)

static bool is_device(const char *text)
{
    if (strcmp(text, "auto") == 0 || strcmp(text, "cpu") == 0) return true;
    if (strncmp(text, "cuda:", 5) != 0) return false;
    size_t digits = strspn(text + 5, "0123456789");
    return digits >= 1 && digits <= 3 && text[5 + digits] == '\0';
}

static bool is_column(const char *text)
{
    static const char *const taken[] = {"id",     "group",      "slot",          "object",
                                        "reward", "log_weight", "log_likelihood"};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (strcmp(text, taken[i]) == 0) return false;
    return text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                             "_.-")] == '\0';
}

static bool is_counts(const char *text)
{
    long before = 16777216;
    while (*text != '\0') {
        char *end = NULL;
        if (*text < '0' || *text > '9') return false;
        long count = strtol(text, &end, 10);
        if (count < 1 || count > before || (*end != ',' && *end != '\0')) return false;
        if (*end == ',' && end[1] == '\0') return false;
        before = count;
        text = *end == ',' ? end + 1 : end;
    }
    return true;
}

static bool is_template(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text <= ' ' || *text > '~') return false;
    return true;
}

/* Integers of JSON files keep all their digits up to 2^53. */
#define SEED_MOST  9007199254740991.0
#define STEPS_MOST 1048575 /* the move has 20 bits in the counter of random numbers */
#define LARGEST    1e30

static const kac_key keys[] = {
    {"model.kind", SWITCH(model.plugin, "network", "plugin"), .initial = "network",
     .help = "What model.file is: a network, or a shared object with a denoiser of your own "
             "(docs/plugins.md)."},
    {"model.file", TEXT(model.file), .initial = "",
     .help = "The denoiser: a safetensors file that names its architecture and alphabet, or a "
             "shared object. Required."},
    {"model.options", TEXT(model.options), .initial = "",
     .help = "Kind plugin: what it is told, text of its own kind."},

    {"model.unconditional", TEXT(model.unconditional), .initial = "",
     .help =
         "Classifier-free guidance: the denoiser without the condition that model.file has "
         "been trained with; log p = (1 + w) log p_file - w log p_unconditional. Or any "
         "second denoiser: of vectors with process.anneal a + b and guidance -b / (a + b) a "
         "product, p_file^a p_unconditional^b."},
    {"model.guidance", NUMBER(model.guidance, -1, 1e3), .initial = "1",
     .help = "The weight w of classifier-free guidance; -1 leaves the unconditional model, 0 "
             "the conditional one."},

    {"process.kind", CHOICE(process.kind, "masked", "gaussian", "graph"), .initial = "masked",
     .help =
         "The noising process: masked is absorbing discrete diffusion of sequences, gaussian "
         "is diffusion of vectors, graph that of nodes with features and the pairs between "
         "them (GDSS)."},
    {"process.steps", INTEGER(process.steps, 1, STEPS_MOST), .initial = "128",
     .help = "Reverse steps, T. Kind graph with a corrector: an even number, half of them the "
             "corrector's; 2000 for the 1000 times of the published sampler."},
    {"process.schedule",
     CHOICE(process.schedule, "auto", "loglinear", "cosine", "cosine2", "linear", "geometric",
            "flow", "vp", "ve", "edm", "model"),
     .initial = "auto",
     .help =
         "How the probability of a mask, or the noise (vp, ve, edm), falls on the way; take "
         "the one that the denoiser was trained with. auto is loglinear, vp where kind is "
         "gaussian, or model where it is graph, whose noise the model file names."},
    {"process.length", INTEGER(process.length, 1, 16777216), .zero = "auto", .initial = "auto",
     .help = "Sites of an object, L; auto is the length in the model file."},
    {"process.temperature", NUMBER(process.temperature, 1e-3, 1e3), .initial = "1",
     .help = "Kind masked: divides the denoiser's logits; below 1 sharpens its letters. It "
             "changes q."},
    {"process.epsilon", NUMBER(process.epsilon, 0, 0.5), .initial = "0.001",
     .help =
         "Schedules loglinear, cosine and cosine2: a site is left unmasked at the noise end "
         "with this probability."},
    {"process.end", NUMBER(process.end, 0, 0.5), .initial = "1e-5",
     .help =
         "Time of the last level (1 is noise), all schedules but flow; what is still masked "
         "there is filled in at once."},
    {"process.begin", NUMBER(process.begin, 0, 0.5), .initial = "0.01",
     .help = "Schedule flow: time of the first level (0 is noise)."},
    {"process.beta_min", NUMBER(process.beta_min, 0, 1e3), .initial = "0.1",
     .help = "Schedule vp: rate of noise at the end of the chain, where t is 0."},
    {"process.beta_max", NUMBER(process.beta_max, 1e-3, 1e3), .initial = "20",
     .help = "Schedule vp: rate of noise at its start, t = 1; linear in between."},
    {"process.sigma_min", NUMBER(process.sigma_min, 1e-6, 1e6), .initial = "0.002",
     .help = "Schedules ve and edm: deviation of the noise at the last level before 0."},
    {"process.sigma_max", NUMBER(process.sigma_max, 1e-6, 1e6), .initial = "80",
     .help = "Schedules ve and edm: deviation of the noise at the first level."},
    {"process.rho", NUMBER(process.rho, 0.1, 1e3), .initial = "7",
     .help = "Schedule edm: larger puts more of the levels at low noise."},
    {"process.eta", NUMBER(process.eta, 0, 4), .initial = "1",
     .help =
         "Kind gaussian: 1 draws from the posterior of the level below (ancestral, DDPM), 0 "
         "draws nothing (DDIM, the probability flow), and copies then stay together; above 1 "
         "draws more, and takes more of it back."},
    {"process.anneal", NUMBER(process.anneal, 0.01, 100), .initial = "1",
     .help =
         "Kind gaussian: q is the power B of what the denoiser samples; above 1 sharpens, "
         "below 1 flattens. Weights correct the way there, so it takes particles that are "
         "weighed, eta above 0 (its square best above 2 (B - 1) / B), and is exact as steps "
         "grow (order 2 soonest)."},
    {"process.order", INTEGER(process.order, 1, 2), .initial = "1",
     .help = "Kind gaussian: 2 extrapolates the denoiser's estimate from the level above "
             "(DPM-Solver++(2M); with eta 1 its SDE form), at no more calls."},
    {"process.sigma_data", NUMBER(process.sigma_data, 0, 1e6), .initial = "1",
     .help = "Kind gaussian, estimate sample: completions are drawn around the estimate with "
             "the variance that x0 would have if the data were normal with this deviation."},

    {"process.predictor", CHOICE(process.predictor, "reverse", "euler", "s4"),
     .initial = "reverse",
     .help = "Kind graph: how a move goes to less noise: by the discrete chain that the noise "
             "is (reverse), by the Euler step of its differential equation, or by the "
             "symmetric splitting of GDSS with the corrector in the same move (s4: half the "
             "calls)."},
    {"process.corrector", CHOICE(process.corrector, "none", "langevin"), .initial = "langevin",
     .help = "Kind graph: langevin puts before each of the predictor's moves one of Langevin "
             "dynamics at the noise where it begins; with reverse and euler it is a step of "
             "its own, with children, values and selection."},
    {"process.langevin", SWITCH(process.langevin_together, "particle", "batch"),
     .initial = "particle",
     .help = "Corrector langevin, what its step size is made of: the norms of each graph's own "
             "noise and score, or their means over all particles, as published, by which "
             "particles depend on each other (no proper weights)."},
    {"process.snr", NUMBER(process.snr, 0, 1e3), .initial = "0.2",
     .help =
         "Corrector langevin: its step size is 2 alpha (snr r)^2, r the norm of the noise over "
         "that of the score."},
    {"process.scale_eps", NUMBER(process.scale_eps, 0, 1e3), .initial = "0.9",
     .help = "Corrector langevin: multiplies its noise (published: ZINC250k 0.9, its second "
             "model 0.8, QM9 0.7)."},
    {"process.nodes", TEXT(process.nodes), .accepts = kac_graph_reads_counts,
     .expected = "numbers of nodes, such as 23, or with weights and commas between them, such "
                 "as 20:3,21:5",
     .initial = "",
     .help = "Kind graph: how many nodes a graph has, drawn by weight; without it, as often as "
             "the model file says, or as many as it can have."},
    {"process.atoms", TEXT(process.atoms), .accepts = kac_chemistry_reads,
     .expected = "symbols of C N O F P S Cl Br I B with commas between them, such as C,N,O,F, "
                 "or none",
     .initial = "",
     .help = "Kind graph: the elements that the features of a node stand for, in their order; "
             "objects are molecules then, and SMILES as text (docs/molecules.md). Without it, "
             "what the model file says; none leaves objects the numbers that they are."},
    {"process.correction", SWITCH(process.corrects, "none", "valence"), .initial = "valence",
     .help = "Molecules: valence takes bonds away where an atom has too many and keeps the "
             "largest fragment, as published; none leaves what the denoiser gave, valid or "
             "not."},

    {"process.template", TEXT(process.template), .accepts = is_template,
     .expected =
         "letters of the model's alphabet, ? for a free site, or for DNA and RNA a code "
         "such as N, R or Y for the letters it stands for",
     .initial = "",
     .help =
         "Sites that are given, a character for each: a letter stays as it is, ? is free, "
         "and a IUPAC code restricts the site to its letters (with the exact weight). Lower "
         "case counts as upper case."},

    {"reward.N.name", TEXT(reward[0].name), .accepts = is_column,
     .expected = "letters, digits, _ . or -, and no column of samples.csv", .initial = "",
     .help =
         "Its column in samples.csv; without it, the name of the file, or the kind, with _term "
         "after it where that is another column's."},
    {"reward.N.kind",
     CHOICE(reward[0].kind, "network", "pwm", "table", "quadratic", "worker", "plugin", "gc",
            "homopolymer", "motif"),
     .initial = "network",
     .help =
         "A network (convgru, conv_regressor, gin), a position weight matrix, a table of all "
         "objects, or a quadratic function of a vector, from a file; a program of any kind "
         "that reads objects and writes numbers (worker); a shared object (plugin); or "
         "without a file the "
         "share of G and C, the length of the "
         "longest run of one letter, or the number of places where a motif begins."},
    {"reward.N.file", TEXT(reward[0].file), .initial = "",
     .help = "A safetensors file; kind plugin: a shared object (docs/plugins.md). Required of "
             "network, pwm, table, quadratic and plugin."},
    {"reward.N.output", INTEGER(reward[0].output, 0, 4095), .initial = "0",
     .help = "Which output of the network or plug-in, or number of the worker's line, counted "
             "from 0."},
    {"reward.N.options", TEXT(reward[0].options), .initial = "",
     .help = "Kind plugin: what it is told, text of its own kind. Terms with one file and the "
             "same options share it."},
    {"reward.N.command", WORDS(reward[0].command), .accepts = kac_command_reads,
     .expected = "a program and its arguments: words with blanks between them, such as python3 "
                 "mine.py, or in a file a list such as [python3, mine.py]",
     .initial = "",
     .help =
         "Kind worker: the program, which is run as it is, without a shell; docs/workers.md "
         "says what it reads and writes. Terms with one command share its processes. "
         "Required."},
    {"reward.N.processes", INTEGER(reward[0].processes, 1, 1024), .initial = "1",
     .help = "Kind worker: copies of the program that work side by side; samples do not depend "
             "on it."},
    {"reward.N.batch", INTEGER(reward[0].batch, 1, 65536), .initial = "64",
     .help = "Kind worker: objects that a copy is given at a time, at most."},
    {"reward.N.timeout", NUMBER(reward[0].timeout, 0.01, 1e6), .initial = "300",
     .help = "Kind worker: seconds that a copy may take to its next line, its start included, "
             "before it is killed and started again."},
    {"reward.N.attempts", INTEGER(reward[0].attempts, 1, 1000), .initial = "3",
     .help =
         "Kind worker: how often the program is asked about one object alone, if it crashes or "
         "hangs each time. The object then has no reward; on_invalid says what becomes of it."},
    {"reward.N.motifs", TEXT(reward[0].motifs), .accepts = kac_reward_reads_motifs,
     .expected = "sequences with commas between them and no brackets, such as "
                 "\"GAATTC,GGNCC\" (within { } the quotes are needed)",
     .initial = "",
     .help =
         "Kind motif: what is counted, overlapping places too. Letters of the model, in lower "
         "case too; for DNA and RNA also IUPAC codes (N, R, Y, ...). Required."},
    {"reward.N.strands", SWITCH(reward[0].both_strands, "one", "both"), .initial = "one",
     .help = "Kind motif: both counts reverse complements too; a motif that is its own counts "
             "once."},
    {"reward.N.weight", NUMBER(reward[0].weight, -LARGEST, LARGEST), .absent = "auto",
     .initial = "auto",
     .help = "Its weight in the reward that guides; a term of weight 0 without bounds is only "
             "recorded for the final samples. auto is 0 for a term that has a bound and no "
             "desirability, which then only constrains, else 1."},
    {"reward.N.weights", TEXT(reward[0].weights), .accepts = kac_reward_reads_weights,
     .expected = "numbers with commas between them, such as 0,0.5,1, or two with a colon, "
                 "such as 0:1",
     .initial = "",
     .help = "Its weight group by group, in place of weight: the groups are divided evenly "
             "among the numbers of a list, or a:b goes evenly from a in the first group to b "
             "in the last. Groups with equal weights have one target, and one evidence."},
    {"reward.N.low", NUMBER(reward[0].low, -LARGEST, LARGEST), .absent = "off",
     .initial = "off",
     .help = "With high: the term enters the reward by its desirability, 0 at low, 1 at high, "
             "a straight line between them and flat outside; low may be the larger."},
    {"reward.N.high", NUMBER(reward[0].high, -LARGEST, LARGEST), .absent = "off",
     .initial = "off", .help = "Where the desirability is 1."},
    {"reward.N.at_least", NUMBER(reward[0].at_least, -LARGEST, LARGEST), .absent = "off",
     .initial = "off",
     .help =
         "An object whose term is below it is forbidden, whatever the weight: its reward is "
         "minus infinity. Only the end forbids; on the way what is outside counts less."},
    {"reward.N.at_most", NUMBER(reward[0].at_most, -LARGEST, LARGEST), .absent = "off",
     .initial = "off", .help = "An object whose term is above it is forbidden."},

    {"objective.combine", CHOICE(objective.combine, "sum", "product", "min", "lower_bound"),
     .initial = "sum",
     .help = "How the terms d with weights w become the reward: the sum of w d; the product of "
             "d^w, for which each needs low and high; the least w d; or the mean minus kappa "
             "standard deviations of the terms, an ensemble whose members have weights w."},
    {"objective.kappa", NUMBER(objective.kappa, 0, LARGEST), .initial = "1",
     .help = "Combine lower_bound: standard deviations below the mean."},

    {"sampler.algorithm", .type = KAC_KEY_ALGORITHM, FIELD(sampler.algorithm), .initial = "smc",
     .help = "A row of the table of algorithms; every key below may override it."},
    {"sampler.alpha", NUMBER(sampler.alpha, 0, LARGEST), .absent = "auto", .initial = "1",
     .help =
         "The temperature of p*(x) ~ q(x) exp(r(x) / alpha), in units of the reward; "
         "smaller steers harder. argmax and top_k ignore it, unless value.samples is more "
         "than 1; 0 is allowed only where every selection is one of them. auto finds it from "
         "pretrained samples, so that p* is as far from q as pilot says; where groups have "
         "weights of their own, that of the group furthest from q."},
    {"sampler.pilot.target", SWITCH(sampler.pilot_ess, "kl", "ess"), .initial = "kl",
     .help = "alpha auto: what is aimed at, the divergence of p* from q or the effective share "
             "of pretrained samples under p*."},
    {"sampler.pilot.kl", NUMBER(sampler.pilot_kl, 0.01, 20), .initial = "2",
     .help = "Target kl: KL(p* || q) in nats. pilot.particles must be far more than its "
             "exponential."},
    {"sampler.pilot.ess", NUMBER(sampler.pilot_share, 0.001, 0.999), .initial = "0.1",
     .help = "Target ess: effective sample size of the pilot under p*, divided by its number."},
    {"sampler.pilot.particles", INTEGER(sampler.pilot, 16, 16777216), .initial = "1024",
     .help = "alpha auto: pretrained samples that are drawn for it, with random numbers of "
             "their own; their calls count."},
    {"sampler.groups", INTEGER(sampler.groups, 1, 16777216), .initial = "16",
     .help =
         "Groups: independent replicates, within which particles compete. With svdd_pm, whose "
         "groups have one particle, the number of designs."},
    {"sampler.particles", INTEGER(sampler.particles, 1, 16777216), .initial = "64",
     .help = "Particles of a group, N."},
    {"sampler.funnel", TEXT(sampler.funnel), .accepts = is_counts,
     .expected = "numbers of particles that fall, such as 32,16,8", .initial = "",
     .help = "Numbers of particles of a group after sampler.particles, each for an equal part "
             "of the steps: many at first, few at the end. Where the number falls groups "
             "select."},
    {"sampler.children", INTEGER(sampler.children, 1, KAC_MAX_CHILDREN), .initial = "1",
     .help = "Proposals drawn from each particle in each step, M."},
    {"sampler.value.kind", CHOICE(sampler.value, "none", "posterior_mean", "learned", "state"),
     .initial = "posterior_mean",
     .help = "What a step believes of the reward to come: the reward at the denoiser's "
             "completion of the child (posterior_mean), what a network of its own says of the "
             "child (learned), the reward of the child itself with zeros for its masks "
             "(state), or nothing."},
    {"sampler.value.file", TEXT(sampler.value_file), .initial = "",
     .help = "Kind learned: a reward network with one output, trained on unfinished states, "
             "in units of the weighted reward r."},
    {"sampler.value.estimate", CHOICE(sampler.estimate, "argmax", "soft", "sample"),
     .initial = "argmax",
     .help = "Kind posterior_mean, the completion: the likeliest letters, their probabilities "
             "(where the reward can read them), or drawn letters. Of a vector: the denoiser's "
             "estimate of x0 (argmax and soft), or draws around it."},
    {"sampler.value.samples", INTEGER(sampler.samples, 1, 64), .initial = "1",
     .help = "Estimate sample: completions drawn for each child, J; the value is the "
             "log-mean-exp of their rewards."},
    {"sampler.twist.kind", CHOICE(sampler.twist, "none", "posterior_mean", "value"),
     .initial = "none",
     .help = "Tilts what is proposed by a gradient: of the reward at the denoiser's "
             "probabilities, or its estimate of a vector, as a function of the noisy state, or "
             "of the network "
             "sampler.value.file at the noisy state itself."},
    {"sampler.twist.path", CHOICE(sampler.twist_path, "both", "direct", "denoiser"),
     .initial = "both",
     .help = "Kind posterior_mean, what the gradient goes through: a site's own probabilities "
             "(direct), what its "
             "letter tells the denoiser about the others (denoiser), or both."},
    {"sampler.twist.scale", NUMBER(sampler.twist_scale, -LARGEST, LARGEST), .initial = "1",
     .help = "Multiplies the tilt, for each particle alone; 1 is the first-order guess of the "
             "best proposal."},
    {"sampler.twist.weights", SWITCH(sampler.twist_weighs, "ignore", "correct"),
     .initial = "correct",
     .help = "Whether weights take in the exact ratio of the denoiser's law to the tilted one, "
             "and what a power or product of denoisers adds; ignore gives up p*."},
    {"sampler.temper.kind", CHOICE(sampler.temper, "none", "linear", "geometric", "ess"),
     .initial = "none",
     .help = "Values count in part at first and in full at the end: their exponent rises with "
             "the steps (linear, geometric), or as far as the ESS of each pool allows (ess)."},
    {"sampler.temper.gamma", NUMBER(sampler.temper_gamma, 0, 1e3), .initial = "0.05",
     .help = "Kind geometric: the exponent at step s is (1 + gamma)^s - 1, at most 1."},
    {"sampler.temper.ess", NUMBER(sampler.temper_ess, 0, 1), .initial = "0.7",
     .help = "Kind ess: the share of the candidates that the exponent must leave effective."},
    {"sampler.potential", CHOICE(sampler.potential, "difference", "max", "sum", "terminal"),
     .initial = "difference",
     .help =
         "What weighs a particle on its way: the latest value, the largest so far, the sum "
         "so far, or nothing before the end (terminal; then no value is computed). At the end "
         "it is always r / alpha."},
    {"sampler.select.parent.rule",
     CHOICE(sampler.parent_rule, "none", "categorical", "argmax", "top_k"),
     .initial = "categorical",
     .help =
         "Selection among the children of a particle: keep all, draw one by weight, keep the "
         "best, or keep the best few."},
    {"sampler.select.parent.normaliser", SWITCH(sampler.keep_normaliser, "discard", "keep"),
     .initial = "keep",
     .help = "Whether a particle's weight takes in the mean weight of its children (rule "
             "categorical); discard gives up p*."},
    {"sampler.select.parent.keep", INTEGER(sampler.parent_keep, 1, KAC_MAX_CHILDREN),
     .initial = "1", .help = "Rule top_k: children kept of each particle."},
    {"sampler.select.group.rule",
     CHOICE(sampler.group_rule, "none", "categorical", "argmax", "top_k", "replace"),
     .initial = "categorical",
     .help =
         "Selection among the particles of a group: none, draw by weight, all copies of the "
         "best, the best as many as there are particles, or replace the worst by draws from "
         "the others."},
    {"sampler.select.group.weights", CHOICE(sampler.weights, "proper", "value", "scaled"),
     .initial = "proper",
     .help = "What groups select by: the weights; or exp(value / alpha) or exp(value / largest "
             "|value|), the published rules of SVDD-R, which give up p*."},
    {"sampler.select.group.fraction", NUMBER(sampler.fraction, 0, 1), .initial = "0.04",
     .help = "Rule replace: the fraction of the particles that is replaced, one at least."},
    {"sampler.select.group.scheme",
     CHOICE(sampler.scheme, "tournament", "systematic", "stratified", "residual", "multinomial",
            "killing"),
     .initial = "tournament",
     .help = "Rule categorical: how whole numbers of offspring are drawn from the weights."},
    {"sampler.select.group.scope", SWITCH(sampler.global, "group", "global"),
     .initial = "group",
     .help = "Particles compete within their group, or all groups of a target compete."},
    {"sampler.select.group.trigger.kind",
     CHOICE(sampler.trigger, "every", "ess", "window", "never"), .initial = "ess",
     .help = "When groups select: at each step that from, to and every admit (every, window), "
             "at those of them with a low ESS (ess), or never."},
    {"sampler.select.group.trigger.below", NUMBER(sampler.below, 0, 1), .initial = "0.5",
     .help = "Trigger ess: select when ESS divided by the number of candidates is below this."},
    {"sampler.select.group.trigger.every", INTEGER(sampler.every, 1, STEPS_MOST),
     .initial = "1", .help = "Select only at steps that are multiples of this."},
    {"sampler.select.group.trigger.from", INTEGER(sampler.from, 1, STEPS_MOST), .initial = "1",
     .help = "First step at which groups may select, counted from 1."},
    {"sampler.select.group.trigger.to", INTEGER(sampler.to, 1, STEPS_MOST), .zero = "last",
     .initial = "last", .help = "Last step at which groups may select."},
    {"sampler.final.kind", CHOICE(sampler.final, "weighted", "categorical", "argmax", "top_k"),
     .initial = "weighted",
     .help =
         "Which particles become samples: all with their weights, some drawn by weight, the "
         "best by reward, or the best few distinct ones."},
    {"sampler.final.keep", INTEGER(sampler.keep, 1, 16777216), .zero = "all", .initial = "all",
     .help = "Samples for each group (categorical, top_k)."},
    {"sampler.final.scope", SWITCH(sampler.final_pool, "group", "all"), .initial = "group",
     .help = "Kind top_k: the best of each group, or keep x groups from the whole population."},
    {"sampler.reuse", SWITCH(sampler.reuse, "off", "on"), .initial = "on",
     .help = "Evaluate equal states once; off gives the same samples and is slower."},
    {"sampler.on_dead", CHOICE(sampler.on_dead, "freeze", "error", "revive"),
     .initial = "freeze",
     .help =
         "A group whose weights are all zero, as all of its objects break a bound: it goes on "
         "with evidence 0, and what it gives has reward -inf (freeze); or the run stops "
         "(error). revive does not let it come to that: the last levels are tried for again "
         "and again, until as many objects as there are particles have a weight, and one more; "
         "the evidence stays unbiased."},
    {"sampler.revive.levels", INTEGER(sampler.revive_levels, 1, STEPS_MOST), .zero = "auto",
     .initial = "auto",
     .help =
         "on_dead revive: levels at the end that a try goes down, unguided; more of them leave "
         "more sites open, and are guided less. auto is an eighth of process.steps, and with "
         "process.kind gaussian or graph 2 at least."},
    {"sampler.revive.rounds", INTEGER(sampler.revive_rounds, 1, 65536), .initial = "16",
     .help =
         "on_dead revive: rounds, each of as many tries as a group has particles. A group that "
         "has too few objects with a weight by then goes on with those; with none it is dead."},
    {"sampler.on_invalid", SWITCH(sampler.invalid_is_worst, "error", "worst"),
     .initial = "error",
     .help =
         "A reward that is not a number, or an object on which a worker keeps failing: stop, "
         "or take it for minus infinity."},

    {"driver.kind", CHOICE(driver.kind, "none", "search", "refine", "gibbs"), .initial = "none",
     .help = "What leads the run: one pass of steps from noise to objects (none); a search "
             "through trees of noisy states; refine masks some sites of the objects again and "
             "goes on from there; gibbs repeats the pass in sweeps, each given one path of the "
             "sweep before."},
    {"driver.iterations", INTEGER(driver.iterations, 0, STEPS_MOST), .initial = "20",
     .help = "Kind refine: passes after the first."},
    {"driver.fraction", NUMBER(driver.fraction, 0, 1), .initial = "0.1",
     .help = "Kind refine: the share of the free sites that each pass masks again, rounded "
             "down, one at least."},
    {"driver.strength", NUMBER(driver.strength, 0, LARGEST), .initial = "5",
     .help = "Kind refine: a pass goes on from objects of the group drawn in proportion to "
             "exp(strength r / alpha)."},
    {"driver.elite", SWITCH(driver.elite, "off", "on"), .initial = "off",
     .help = "Kind refine: after a pass a group consists of its best distinct objects so far, "
             "else of the pass's own."},
    {"driver.start", TEXT(driver.start), .initial = "",
     .help = "Kind refine: a file of sequences to start from instead of noise, FASTA or one a "
             "line, in lower case too; they are dealt out to the groups in turn."},
    {"driver.sweeps", INTEGER(driver.sweeps, 0, STEPS_MOST), .initial = "10",
     .help = "Kind gibbs: sweeps after the first, which is plain."},
    {"driver.burn_in", INTEGER(driver.burn_in, 1, STEPS_MOST), .zero = "last",
     .initial = "last",
     .help = "Kind gibbs: the first sweep whose object is a sample of its group, as are those "
             "of all later sweeps; last takes the last sweep's only."},

    {"search.kind", CHOICE(search.kind, "ddbfs", "mcts", "dts"), .initial = "ddbfs",
     .help = "Depth-limited search of every particle's descendants (ddbfs), Monte Carlo tree "
             "search (mcts) or diffusion tree sampling (dts) in one tree for each group."},
    {"search.depth", INTEGER(search.depth, 1, 32), .initial = "3",
     .help = "Kind ddbfs: levels of a block, d; it has children^d leaves for each particle."},
    {"search.search_schedule", CHOICE(search.searched, "all", "linear", "exponential"),
     .initial = "all",
     .help =
         "Kind ddbfs: the probability that a block is searched and not gone through step by "
         "step, from step j of T on: 1, (j + 10) / T, or 1 - exp(-4 j / T)."},
    {"search.drop_schedule",
     CHOICE(search.drop, "none", "exponential", "quadratic", "linear", "sigmoid"),
     .initial = "none",
     .help = "Kind ddbfs: how the particles of a group fall from oversample x "
             "sampler.particles to sampler.particles; the best by score go on."},
    {"search.oversample", NUMBER(search.oversample, 1, 1024), .initial = "2",
     .help = "Kind ddbfs with a drop_schedule: particles at the start, as a multiple of "
             "sampler.particles."},
    {"search.stages", INTEGER(search.stages, 1, STEPS_MOST), .initial = "8",
     .help = "Kinds mcts and dts: depths of a tree, process.steps at most; between two depths "
             "the chain runs unguided for process.steps / stages steps."},
    {"search.rollouts", INTEGER(search.rollouts, 1, STEPS_MOST), .initial = "64",
     .help = "Kinds mcts and dts: simulations of each tree, each a step of the run."},
    {"search.expansions", INTEGER(search.expansions, 1, KAC_MAX_CHILDREN), .initial = "1",
     .help = "Kinds mcts and dts: children that a simulation adds to its node at once."},
    {"search.widening", NUMBER(search.widening, 0, 1), .initial = "0",
     .help = "Kinds mcts and dts: a node may have sampler.children x visits^widening children; "
             "0 is a fixed number."},
    {"search.policy", CHOICE(search.policy, "uct", "soft"), .initial = "uct",
     .help = "Kinds mcts and dts: a simulation goes to the child of the largest upper "
             "confidence bound, or draws one in proportion to exp(value / alpha)."},
    {"search.explore", NUMBER(search.explore, 0, 1e6), .initial = "1",
     .help = "Policy uct: weight of exploration, against values between 0 and 1."},
    {"search.backup", CHOICE(search.backup, "mean", "max", "soft"), .initial = "mean",
     .help = "Kinds mcts and dts: a node's value is the mean or the largest value of its "
             "simulations, or alpha log mean exp(value / alpha) of its children."},
    {"search.memory", INTEGER(search.memory, 1, 1 << 20), .initial = "4096",
     .help = "MiB that the states of a search and what is kept of them may take, beside "
             "device.cache; a search that needs more is refused."},

    {"budget.denoiser", INTEGER(budget.denoiser, 1, SEED_MOST), .zero = "none",
     .initial = "none",
     .help =
         "Denoiser calls that the run may take: as many groups run, sampler.groups at most, "
         "as are sure to stay within it. Equal states cost less, so some is left over."},
    {"budget.reward", INTEGER(budget.reward, 1, SEED_MOST), .zero = "none", .initial = "none",
     .help = "The same for rewards: evaluations of an object by a network of the reward."},

    {"seed", INTEGER(seed, 0, SEED_MOST), .initial = "1",
     .help = "Key of all random numbers; the same seed gives the same samples."},

    {"device.name", TEXT(device.name), .accepts = is_device, .expected = "auto, cpu or cuda:N",
     .initial = "auto",
     .help =
         "Where to compute; auto is the first GPU, or else the CPU, unless the environment's "
         "KAC_DEVICE names one. `kac devices` lists what is here."},
    {"device.precision", CHOICE(device.precision, "exact", "tf32", "bf16"), .initial = "exact",
     .help = "exact gives the same bits on every machine. tf32 and bf16 are for GPUs: "
             "convolutions (with bf16 also the first layer of a cnn1d's head) go to the tensor "
             "cores, with factors rounded to 10 or 7 bits after the point and sums in float32. "
             "All else stays exact."},
    {"device.batch", INTEGER(device.batch, 1, 16777216), .zero = "auto", .initial = "auto",
     .help = "States in one call of a network; it changes memory and speed, not results."},
    {"device.cache", INTEGER(device.cache, 0, 1 << 20), .initial = "1024",
     .help =
         "Memory in MiB for outputs of the denoiser that will be asked for again, beyond one "
         "for each particle; what does not fit is computed again, and counted."},
    {"device.threads", INTEGER(device.threads, 1, 4096), .zero = "auto", .initial = "auto",
     .help = "Threads of the CPU; results do not depend on them."},
    {"device.isa", CHOICE(device.isa, "auto", "portable", "avx2", "avx512"), .first = -1,
     .initial = "auto",
     .help = "Instructions of the CPU; auto takes the widest, and results do not depend on "
             "them."},

    {"job.patience", NUMBER(job.patience, 1, 1e9), .initial = "1800",
     .help =
         "Runs of several ranks: seconds that they wait for one of them in a step before the "
         "job ends and names it. More than the longest step takes."},

    {"job.transport", CHOICE(job.transport, "auto", "mpi", "nccl"), .initial = "auto",
     .help =
         "What carries states between the GPUs of ranks that share a group: nccl; mpi, through "
         "the host; auto, nccl where it is installed and each rank has a GPU of its own, else "
         "mpi. Results do not depend on it."},

    {"output.dir", TEXT(output.dir), .initial = "",
     .help = "Folder of the results, which must not exist; --out on the command line."},
    {"output.trace", SWITCH(output.trace, "off", "on"), .initial = "on",
     .help = "Write trace.jsonl, a line for each step."},
    {"output.likelihood", SWITCH(output.likelihood, "off", "on"), .initial = "off",
     .help = "Estimate the samples' log-likelihood under the denoiser; it takes T more calls "
             "for each."},

    {"checkpoint.seconds", NUMBER(checkpoint.seconds, 0.001, 1e9), .absent = "off",
     .initial = "600",
     .help =
         "Seconds from one checkpoint to the next; a signal that stops the run leaves one "
         "too. `kac resume DIR` goes on from it, and ends as the run would have. off: none."},
    {"checkpoint.keep", INTEGER(checkpoint.keep, 1, 1000), .initial = "2",
     .help = "Checkpoints that stay, the latest ones. An older one serves where a later is "
             "damaged; all are removed when the run is complete."},
};

enum { KEYS = sizeof keys / sizeof *keys };

int kac_keys_count(void)
{
    return KEYS;
}

const kac_key *kac_keys_at(int i)
{
    return &keys[i];
}

/* ---- names ------------------------------------------------------------------------------ */

/* Replaces the number in "reward.3.weight" by N; false where the name is too long. */
static bool generic_name(const char *name, char *text, size_t size, int *index)
{
    static const char prefix[] = "reward.";
    const char *digits = name + sizeof prefix - 1;
    *index = -1;
    if (strncmp(name, prefix, sizeof prefix - 1) == 0) {
        size_t n = strspn(digits, "0123456789");
        bool leading_zero = n > 1 && digits[0] == '0';
        if (n >= 1 && n <= 4 && !leading_zero && (digits[n] == '.' || digits[n] == '\0')) {
            *index = (int)strtol(digits, NULL, 10);
            return snprintf(text, size, "%sN%s", prefix, digits + n) < (int)size;
        }
    }
    return snprintf(text, size, "%s", name) < (int)size;
}

const kac_key *kac_keys_find(const char *name, int *index)
{
    char generic[KAC_NAME];
    if (!generic_name(name, generic, sizeof generic, index)) return NULL;
    for (int i = 0; i < (int)KEYS; i++)
        if (strcmp(keys[i].name, generic) == 0) return &keys[i];
    return NULL;
}

static bool begins(const kac_key *key, const char *generic)
{
    size_t length = strlen(generic);
    return strncmp(key->name, generic, length) == 0 && key->name[length] == '.';
}

bool kac_keys_in_section(const kac_key *key, const char *section)
{
    char generic[KAC_NAME];
    int index = -1;
    return generic_name(section, generic, sizeof generic, &index) && begins(key, generic);
}

bool kac_keys_is_section(const char *name)
{
    char generic[KAC_NAME];
    int index = -1;
    if (!generic_name(name, generic, sizeof generic, &index)) return false;
    for (int i = 0; i < (int)KEYS; i++)
        if (begins(&keys[i], generic)) return true;
    return false;
}

int kac_edits(const char *a, const char *b, int n)
{
    int rows[3][KAC_NAME];
    int m = (int)strlen(a);
    for (int j = 0; j <= n; j++)
        rows[0][j] = j;
    for (int i = 1; i <= m; i++) {
        int *row = rows[i % 3];
        const int *above = rows[(i + 2) % 3];
        const int *before = rows[(i + 1) % 3];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best) best = above[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[m % 3][n];
}

static const char *last_part(const char *name)
{
    const char *point = strrchr(name, '.');
    return point != NULL ? point + 1 : name;
}

/* Whether the last part of a key or section, from `name` to `end`, is `part`. */
static bool ends_with_part(const char *name, const char *end, const char *part)
{
    size_t length = strlen(part);
    if ((size_t)(end - name) < length || strncmp(end - length, part, length) != 0) return false;
    return end - length == name || end[-(ptrdiff_t)length - 1] == '.';
}

bool kac_keys_similar(const char *name, char *text, size_t size)
{
    char generic[KAC_NAME];
    int index = -1;
    const char *found = NULL;
    int found_length = 0;
    if (!generic_name(name, generic, sizeof generic, &index)) return false;
    int least = (int)strlen(last_part(generic)) / 3 + 2; /* further off is no help */
    for (int i = 0; i < (int)KEYS; i++) {
        for (const char *end = keys[i].name; *end != '\0';) { /* each section, then the key */
            end = strchrnul(end + 1, '.');
            int distance = kac_edits(generic, keys[i].name, (int)(end - keys[i].name));
            /* A right name in the wrong section is one mistake. */
            if (ends_with_part(keys[i].name, end, last_part(generic)))
                distance = distance < 1 ? distance : 1;
            if (distance >= least) continue;
            least = distance;
            found = keys[i].name;
            found_length = (int)(end - keys[i].name);
        }
    }
    if (found == NULL) return false;
    if (strncmp(found, "reward.N", 8) == 0 && found_length >= 8)
        snprintf(text, size, "reward.%d%.*s", index < 0 ? 0 : index, found_length - 8,
                 found + 8);
    else
        snprintf(text, size, "%.*s", found_length, found);
    return true;
}
