/* settings.h -- a resolved configuration, as the engine reads it.
 *
 * kac_config (kac.h) keeps what was given; kac_config_settings resolves it: defaults, then the
 * algorithm's row, then what was given.  keys.c has the one table that names every field.
 */
#ifndef KAC_SETTINGS_H
#define KAC_SETTINGS_H

#include <stdbool.h>

#include "base.h"
#include "types.h"

enum { KAC_PATH = 1024, KAC_NAME = 64, KAC_TEMPLATE = 8192 };

typedef enum kac_process_kind { KAC_PROCESS_MASKED, KAC_PROCESS_GAUSSIAN } kac_process_kind;

typedef enum kac_schedule {
    KAC_SCHEDULE_AUTO, /* loglinear or vp; never in settings that are resolved */
    KAC_SCHEDULE_LOGLINEAR,
    KAC_SCHEDULE_COSINE,
    KAC_SCHEDULE_COSINE2,
    KAC_SCHEDULE_LINEAR,
    KAC_SCHEDULE_GEOMETRIC,
    KAC_SCHEDULE_FLOW,
    KAC_SCHEDULE_VP, /* from here on gaussian */
    KAC_SCHEDULE_VE,
    KAC_SCHEDULE_EDM,
} kac_schedule;

typedef enum kac_reward_kind {
    KAC_REWARD_NETWORK,
    KAC_REWARD_PWM,
    KAC_REWARD_TABLE,
    KAC_REWARD_QUADRATIC
} kac_reward_kind;

typedef struct kac_reward_settings {
    char name[KAC_NAME]; /* column of samples.csv; "" = made from the file's name */
    kac_reward_kind kind;
    char file[KAC_PATH];
    int64_t output; /* head of the network */
    double weight;  /* 0: recorded for the final samples, never guides */
} kac_reward_settings;

typedef enum kac_value { KAC_VALUE_NONE, KAC_VALUE_POSTERIOR_MEAN } kac_value;
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
typedef enum kac_twist_kind { KAC_TWIST_NONE, KAC_TWIST_POSTERIOR_MEAN } kac_twist_kind;
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
typedef enum kac_final {
    KAC_FINAL_WEIGHTED,
    KAC_FINAL_CATEGORICAL,
    KAC_FINAL_ARGMAX,
    KAC_FINAL_TOP_K
} kac_final;

typedef struct kac_settings {
    struct {
        char file[KAC_PATH];
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
        double eta;                       /* gaussian: share of fresh noise, 0 .. 1 */
        int64_t order;                    /* gaussian: 1, or 2 where moves look back */
        double sigma_data;                /* gaussian: deviation of drawn completions */
        char template
            [KAC_TEMPLATE]; /* letters that are given, ? or a code where free; "" = none */
    } process;
    int rewards;
    kac_reward_settings reward[KAC_MAX_TERMS];
    struct {
        char algorithm[KAC_NAME];
        double alpha;
        int64_t groups, particles, children;
        kac_value value;
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
        kac_trigger_kind trigger;
        double below;
        int64_t every, from, to; /* steps counted 1 .. T; to 0 = T */
        kac_final final;
        int64_t keep;          /* for each group; 0 = all */
        bool final_pool;       /* final.scope: group | all: keep x groups of all particles */
        bool dead_is_error;    /* on_dead: error | freeze */
        bool invalid_is_worst; /* on_invalid: error | worst */
        bool reuse;
    } sampler;
    uint64_t seed;
    struct {
        char name[KAC_NAME];
        int precision;   /* only exact, 0 */
        int64_t batch;   /* rows a network call; 0 = auto */
        int64_t cache;   /* MiB of logits kept between evaluations */
        int64_t threads; /* 0 = auto */
        int isa;         /* -1 = auto, else kac_isa */
    } device;
    struct {
        char dir[KAC_PATH];
        bool trace;
        bool likelihood; /* estimate log-likelihoods of the samples */
    } output;
} kac_settings;

struct kac_config;
struct json_t;

/* Defaults, then the algorithm's row, then what was given; then what follows from it:
 *   group_rule none     trigger is never
 *   potential terminal  value is none
 *   estimate            samples is 1 unless it is sample
 *   final argmax        keep is 1 where it is all
 *   alpha 0             is 1, because only rules that ignore alpha may have it
 * Errors: INVALID (settings that contradict each other, a missing required key). */
kac_status kac_config_settings(const struct kac_config *config, kac_settings *out);

/* Whether every stage keeps the weights proper, so that the evidence means something: no
 * argmax, no top_k, no discarded normaliser. */
bool kac_properly_weighted(const kac_settings *settings);

kac_status kac_config_clone(const struct kac_config *config, struct kac_config **out);

/* kac_config_read from memory; `path` names it in messages. */
kac_status kac_config_parse(struct kac_config *config, const char *path, const void *bytes,
                            size_t size);

/* All keys with the values in force, as nested JSON objects that kac_config_read takes back.
 * Errors: NOMEM. */
kac_status kac_config_json(const struct kac_config *config, struct json_t **out);

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
