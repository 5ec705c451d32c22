/* settings.h -- a resolved configuration, as the engine reads it.
 *
 * kac_config (kac.h) keeps what was given; kac_config_settings resolves it: defaults, then the
 * algorithm's row, then what was given.  keys.c has the one table that names every field.
 */
#ifndef KAC_SETTINGS_H
#define KAC_SETTINGS_H

#include <stdbool.h>
#include <stdio.h>

#include "base.h"
#include "types.h"

enum {
    KAC_PATH = 1024,
    KAC_NAME = 64,
    KAC_TEMPLATE = 8192,
    KAC_COMMAND = 4096,
    KAC_COUNTS = 4096
};

typedef enum kac_process_kind {
    KAC_PROCESS_MASKED,
    KAC_PROCESS_GAUSSIAN,
    KAC_PROCESS_GRAPH
} kac_process_kind;
typedef enum kac_predictor {
    KAC_PREDICTOR_REVERSE,
    KAC_PREDICTOR_EULER,
    KAC_PREDICTOR_S4
} kac_predictor;
typedef enum kac_corrector { KAC_CORRECTOR_NONE, KAC_CORRECTOR_LANGEVIN } kac_corrector;

typedef enum kac_schedule {
    KAC_SCHEDULE_AUTO, /* loglinear, vp or model; never in settings that are resolved */
    KAC_SCHEDULE_LOGLINEAR,
    KAC_SCHEDULE_COSINE,
    KAC_SCHEDULE_COSINE2,
    KAC_SCHEDULE_LINEAR,
    KAC_SCHEDULE_GEOMETRIC,
    KAC_SCHEDULE_FLOW,
    KAC_SCHEDULE_VP, /* from here on gaussian */
    KAC_SCHEDULE_VE,
    KAC_SCHEDULE_EDM,
    KAC_SCHEDULE_MODEL, /* graph: as the model's file says */
} kac_schedule;

typedef enum kac_reward_kind {
    KAC_REWARD_NETWORK,
    KAC_REWARD_PWM,
    KAC_REWARD_TABLE,
    KAC_REWARD_QUADRATIC,
    KAC_REWARD_WORKER,
    KAC_REWARD_PLUGIN,
    KAC_REWARD_GC, /* from here on without a file: filters */
    KAC_REWARD_HOMOPOLYMER,
    KAC_REWARD_MOTIF
} kac_reward_kind;

typedef struct kac_reward_settings {
    char name[KAC_NAME]; /* column of samples.csv; "" = made from the file's name */
    kac_reward_kind kind;
    char file[KAC_PATH];
    int64_t output; /* head of the network, or number of what a worker or plug-in says */
    char command[KAC_COMMAND]; /* worker: a program with its arguments (kac_command_words) */
    int64_t processes, batch;  /* worker: copies of it, and objects that one gets at a time */
    double timeout;            /* worker: seconds without a line after which it is hung */
    int64_t attempts; /* worker: failures on one object alone, after which it is given up */
    char options[KAC_PATH];   /* plugin: what it is told */
    char motifs[KAC_PATH];    /* motif: "GAATTC,GGATCC" */
    bool both_strands;        /* motif */
    double weight;            /* 0 and nothing of what follows: recorded, never guides */
    char weights[KAC_PATH];   /* group by group: "0,0.5,1", or "0:1" evenly; "" = weight */
    double low, high;         /* desirability 0 and 1; NaN = off */
    double at_least, at_most; /* hard bounds; NaN = off */
} kac_reward_settings;

typedef enum kac_value {
    KAC_VALUE_NONE,
    KAC_VALUE_POSTERIOR_MEAN,
    KAC_VALUE_LEARNED,
    KAC_VALUE_STATE
} kac_value;
typedef enum kac_on_dead { KAC_DEAD_FREEZE, KAC_DEAD_ERROR, KAC_DEAD_REVIVE } kac_on_dead;
typedef enum kac_estimate {
    KAC_ESTIMATE_ARGMAX,
    KAC_ESTIMATE_SOFT,
    KAC_ESTIMATE_SAMPLE
} kac_estimate;
typedef enum kac_tempering {
    KAC_TEMPERING_NONE,
    KAC_TEMPERING_LINEAR,
    KAC_TEMPERING_GEOMETRIC,
    KAC_TEMPERING_ESS
} kac_tempering;
typedef enum kac_twist_kind {
    KAC_TWIST_NONE,
    KAC_TWIST_POSTERIOR_MEAN,
    KAC_TWIST_VALUE
} kac_twist_kind;
typedef enum kac_twist_path {
    KAC_TWIST_BOTH,
    KAC_TWIST_DIRECT,
    KAC_TWIST_DENOISER
} kac_twist_path;
typedef enum kac_trigger_kind {
    KAC_WHEN_EVERY,
    KAC_WHEN_ESS,
    KAC_WHEN_WINDOW,
    KAC_WHEN_NEVER
} kac_trigger_kind;
typedef enum kac_driver {
    KAC_DRIVER_NONE,
    KAC_DRIVER_SEARCH,
    KAC_DRIVER_REFINE,
    KAC_DRIVER_GIBBS
} kac_driver;
typedef enum kac_search_kind {
    KAC_SEARCH_DDBFS,
    KAC_SEARCH_MCTS,
    KAC_SEARCH_DTS
} kac_search_kind;
typedef enum kac_searched {
    KAC_SEARCHED_ALL,
    KAC_SEARCHED_LINEAR,
    KAC_SEARCHED_EXPONENTIAL
} kac_searched;
typedef enum kac_drop {
    KAC_DROP_NONE,
    KAC_DROP_EXPONENTIAL,
    KAC_DROP_QUADRATIC,
    KAC_DROP_LINEAR,
    KAC_DROP_SIGMOID
} kac_drop;
typedef enum kac_final {
    KAC_FINAL_WEIGHTED,
    KAC_FINAL_CATEGORICAL,
    KAC_FINAL_ARGMAX,
    KAC_FINAL_TOP_K
} kac_final;

typedef struct kac_settings {
    struct {
        bool plugin; /* kind: network | plugin */
        char file[KAC_PATH];
        char options[KAC_PATH];       /* plugin */
        char unconditional[KAC_PATH]; /* the second denoiser */
        double guidance;              /* w */
    } model;
    struct {
        kac_process_kind kind;
        int64_t steps; /* T, 1 .. 2^20 - 1 */
        kac_schedule schedule;
        int64_t length;                   /* L; 0 = auto, the model's */
        double temperature;               /* of the denoiser's probabilities, > 0 */
        double epsilon;                   /* schedule: m(1) = 1 - epsilon (loglinear, cosine) */
        double end;                       /* time of level 0, loglinear .. geometric */
        double begin;                     /* flow: time of level T */
        double beta_min, beta_max;        /* vp */
        double sigma_min, sigma_max, rho; /* ve, edm */
        double eta;              /* gaussian: root of the share of fresh noise, 0 .. 4 */
        double anneal;           /* gaussian: B, sum of the denoisers' exponents */
        int64_t order;           /* gaussian: 1, or 2 where moves look back */
        double sigma_data;       /* gaussian: deviation of drawn completions */
        kac_predictor predictor; /* graph, and so on */
        kac_corrector corrector;
        bool langevin_together; /* langevin: particle | batch */
        double snr, scale_eps;
        char nodes[KAC_COUNTS]; /* weights of numbers of nodes; "" = the model's */
        char atoms[KAC_NAME];   /* elements that features are; "" = the model's */
        bool corrects;          /* correction: none | valence */
        char template
            [KAC_TEMPLATE]; /* letters that are given, ? or a code where free; "" = none */
    } process;
    int rewards;
    kac_reward_settings reward[KAC_MAX_TERMS];
    struct {
        kac_combine combine;
        double kappa; /* lower_bound */
    } objective;
    struct {
        char algorithm[KAC_NAME];
        double alpha;   /* NaN: auto, until a pilot has found it */
        bool pilot_ess; /* pilot.target: kl | ess */
        double pilot_kl, pilot_share;
        int64_t pilot; /* samples */
        int64_t groups, particles, children;
        char funnel[256]; /* numbers of particles that follow, "32,8" */
        kac_value value;
        char value_file[KAC_PATH]; /* learned */
        kac_estimate estimate;
        int64_t samples; /* J */
        kac_twist_kind twist;
        kac_twist_path twist_path;
        double twist_scale;
        bool twist_weighs; /* twist.weights: ignore | correct */
        kac_tempering temper;
        double temper_gamma; /* geometric */
        double temper_ess;   /* ess: share of the candidates' number */
        kac_potential potential;
        kac_rule parent_rule;
        bool keep_normaliser;
        int64_t parent_keep; /* top_k: K */
        kac_rule group_rule;
        kac_scheme scheme;
        bool global; /* select.group.scope: group | global */
        kac_weights weights;
        double fraction; /* rule replace */
        kac_trigger_kind trigger;
        double below;
        int64_t every, from, to; /* steps counted 1 .. T; to 0 = T */
        kac_final final;
        int64_t keep;    /* for each group; 0 = all */
        bool final_pool; /* final.scope: group | all: keep x groups of all particles */
        kac_on_dead on_dead;
        int64_t revive_levels; /* that a try goes down; 0 = auto, an eighth of the steps */
        int64_t revive_rounds;
        bool invalid_is_worst; /* on_invalid: error | worst */
        bool reuse;
    } sampler;
    struct {
        kac_driver kind;
        int64_t iterations;   /* refine: passes after the first */
        double fraction;      /* of the free sites that each masks again */
        double strength;      /* objects go on in proportion to exp(strength r / alpha) */
        bool elite;           /* the best so far stay */
        char start[KAC_PATH]; /* file of sequences to start from; "" = noise */
        int64_t sweeps;       /* gibbs: passes after the first */
        int64_t burn_in;      /* the first of them whose objects are samples; 0 = the last */
    } driver;
    struct {
        kac_search_kind kind;
        int64_t depth; /* ddbfs: levels of a block */
        kac_searched searched;
        kac_drop drop;
        double oversample;
        int64_t stages; /* mcts, dts: depths of a tree */
        int64_t rollouts;
        int64_t expansions;
        kac_policy policy;
        kac_backup backup;
        double explore, widening;
        int64_t memory; /* MiB */
    } search;
    struct {
        int64_t denoiser, reward; /* calls, 0 = none */
    } budget;
    uint64_t seed;
    struct {
        char name[KAC_NAME];
        int precision;   /* kac_precision */
        int64_t batch;   /* rows a network call; 0 = auto */
        int64_t cache;   /* MiB of logits kept between evaluations */
        int64_t threads; /* 0 = auto */
        int isa;         /* -1 = auto, else kac_isa */
    } device;
    struct {
        double patience; /* seconds that ranks wait for each other */
        int transport;   /* kac_link */
    } job;
    struct {
        char dir[KAC_PATH];
        bool trace;
        bool likelihood; /* estimate log-likelihoods of the samples */
    } output;
    struct {
        double seconds; /* between two checkpoints; NaN: none */
        int64_t keep;
    } checkpoint;
} kac_settings;

struct kac_config;
struct json_t;

/* Defaults, then the algorithm's row, then what was given; then what follows from it:
 *   group_rule none     trigger is never
 *   potential terminal  value is none
 *   estimate            samples is 1 unless it is sample, of value posterior_mean
 *   final argmax        keep is 1 where it is all
 *   search.stages       is no more than process.steps
 *   revive.levels       is an eighth of process.steps where it is auto, one at least, and two
 *                       where the last move draws nothing (gaussian, graph)
 *   alpha 0             is 1, because only rules that ignore alpha may have it
 * Errors: INVALID (settings that contradict each other, a missing required key). */
kac_status kac_config_settings(const struct kac_config *config, kac_settings *out);

/* Whether the files that are named are there and can be read; the sentence says which key names
 * the first that is not.  Errors: INVALID, IO, NOMEM. */
kac_status kac_files_check(const kac_settings *settings);

/* Whether every stage keeps the weights proper, so that the evidence means something: no
 * argmax, no top_k, no discarded normaliser. */
bool kac_properly_weighted(const kac_settings *settings);

/* Whether alpha changes the samples or their weights. */
bool kac_reads_alpha(const kac_settings *settings);

/* Whether the settings could have on_dead revive. */
bool kac_can_revive(const kac_settings *settings);

/* ---- reward terms: terms.c ------------------------------------------------------------------
 */

/* Whether a term is part of the reward: it has a weight in some group, or bounds. */
bool kac_reward_guides(const kac_reward_settings *reward);

/* Whether it counts letters and has no file. */
bool kac_reward_is_filter(const kac_reward_settings *reward);

/* What it is read from, for messages: the file, or the command of a worker in backquotes. */
void kac_reward_source(const kac_reward_settings *reward, char *text, size_t size);

/* Whether two terms are numbers of one worker's lines. */
bool kac_reward_shares_worker(const kac_reward_settings *a, const kac_reward_settings *b);

/* The words of reward.N.command ("" has none), a JSON array of strings: the text is one itself, or words
 * separated by blanks.  NULL where it is neither, or memory ran out; the caller owns it. */
struct json_t *kac_command_words(const char *text);
bool kac_command_reads(const char *text);

/* The words in backquotes, the last ones left out where there is no room for them. */
void kac_command_name(const char *command, char *text, size_t size);

/* Writes a word as a shell reads it, in quotes where it needs them. */
void kac_word_write(const char *word, FILE *out);

/* The largest size of its weights. */
double kac_reward_steepest(const kac_reward_settings *reward);

/* What weight auto is: 0 of a term that only has bounds, else 1. */
double kac_reward_weight_auto(const kac_reward_settings *reward);

/* Its weight in group g of `groups`. */
double kac_reward_weight(const kac_reward_settings *reward, int64_t g, int64_t groups);

/* Whether `text` can be reward.N.weights, or reward.N.motifs; "" can. */
bool kac_reward_reads_weights(const char *text);
bool kac_reward_reads_motifs(const char *text);

/* Errors: INVALID (terms that contradict themselves or the objective). */
kac_status kac_rewards_check(const kac_settings *settings);

/* Whether each number of reward.N.weights has one of `groups` groups.  Errors: INVALID. */
kac_status kac_weights_check(const kac_settings *settings, int64_t groups);

/* Whether objects of that length (0: not known yet) can meet the bounds and desirabilities of terms
 * that count letters.  Errors: INVALID. */
kac_status kac_rewards_reach(const kac_settings *settings, int64_t length);

/* The objective of the settings; term k is reward.k, and its column k. */
kac_objective kac_objective_of(const kac_settings *settings);

kac_status kac_config_clone(const struct kac_config *config, struct kac_config **out);

enum { KAC_PLACE = KAC_PATH + 32 };

/* " (my.yaml:5)", where the value of a key was given, for messages; "" where no file gave it. */
void kac_config_place(const struct kac_config *config, const char *key, char text[KAC_PLACE]);

/* The same model, process, rewards and device, sampled from the denoiser alone: `samples` objects,
 * each its own group, with random numbers that no run of the configuration draws; terms that have
 * weights group by group have weight 1.
 * Errors: NOMEM, and those of kac_config_set. */
kac_status kac_config_pilot(const struct kac_config *config, int64_t samples,
                            struct kac_config **out);

/* kac_config_read from memory; `path` names it in messages. */
kac_status kac_config_parse(struct kac_config *config, const char *path, const void *bytes,
                            size_t size);

/* All keys with the values in force, as nested JSON objects that kac_config_read takes back.
 * Errors: NOMEM. */
kac_status kac_config_json(const struct kac_config *config, struct json_t **out);

/* The same without what may be another where a run goes on: output.dir, checkpoint, job, and
 * device.name, threads and isa.  on_dead error counts as freeze, as both compute the same for as
 * long as there is something to go on with.  Errors: NOMEM. */
kac_status kac_config_identity(const struct kac_config *config, struct json_t **out);

/* Makes that of what kac_config_json wrote. */
void kac_config_identify(struct json_t *config);

/* Whether two of these are equal; else appends to `key` the first that differs, or that one of
 * them lacks. */
bool kac_config_agrees(struct json_t *a, struct json_t *b, char *key, size_t size);

/* A row of the table of algorithms (step/algorithms.c): settings under a name. */
typedef struct kac_algorithm {
    const char *name;
    const char *summary; /* one sentence */
    const char *law;     /* what its samples follow, one sentence */
    const char *source;  /* paper */
    struct {
        const char *key, *value;
    } set[16]; /* ends with a NULL key */
} kac_algorithm;

extern const kac_algorithm kac_algorithms[]; /* ends with a NULL name */

#endif /* KAC_SETTINGS_H */
