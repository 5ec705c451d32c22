/* process.h -- the noising processes as tables of levels. */
#ifndef KAC_PROCESS_H
#define KAC_PROCESS_H

#include "settings.h"
#include "types.h"

typedef enum kac_noise_kind { KAC_NOISE_VP, KAC_NOISE_VE } kac_noise_kind;

/* The noise of one part of a graph: beta (vp) or sigma (ve) at its two ends. */
typedef struct kac_noise {
    kac_noise_kind kind;
    double low, high;
} kac_noise;

/* The graphs of a denoiser, as its file says. */
typedef struct kac_graph_model {
    int32_t nodes, features; /* N at most, and F */
    int32_t length;          /* numbers of a graph */
    bool scores; /* answers are - b times the score (vp), or the score (ve); else estimates
                           of x_0 */
    kac_noise noise[2];      /* of nodes, of pairs */
    char counts[KAC_COUNTS]; /* how often it has met each number of nodes; "" = not known */
    char atoms[KAC_NAME];    /* elements that the features are; "" = it does not say */
} kac_graph_model;

/* Fills levels[0 .. T] of the masked process for the schedule of `settings`: times, mask
 * probabilities, sigma and reveal thresholds.  Schedules: MDLM (Sahoo et al., NeurIPS 2024)
 * and its published code; `flow`: the masking interpolant of discrete flow matching (Campbell
 * et al., ICML 2024).  Errors: INVALID (a level where the mask probability does not fall). */
kac_status kac_masked_levels(const kac_settings *settings, kac_level *levels);

/* Fills levels[0 .. T] of the Gaussian process: schedules vp, ve and edm.  Errors: INVALID (two
 * levels with one noise). */
kac_status kac_gaussian_levels(const kac_settings *settings, kac_level *levels);

/* Fills levels[0 .. T] of the graph process.  Errors: INVALID (too few steps for the noise). */
kac_status kac_graph_levels(const kac_settings *settings, const kac_graph_model *model,
                            kac_level *levels);

/* Whether moves of the corrector and of the predictor take turns, from an even level on down. */
bool kac_graph_alternates(const kac_settings *settings);

/* Whether `text` is numbers of nodes, each with a colon and its weight or alone with weight 1,
 * with commas between them; "" is. */
bool kac_graph_reads_counts(const char *text);

/* Their law: law[k] = 2^32 P(at most k + 1 nodes), k < most.  Errors: INVALID (one is more than
 * `most`), NOMEM. */
kac_status kac_graph_counts(const char *text, int32_t most, uint64_t *law);

/* Sets the tempering exponents that `settings` give to levels[0 .. T]; with kind ess they are
 * where the exponents start. */
void kac_temper_levels(const kac_settings *settings, kac_level *levels);

/* Marks the levels on arriving at which a group may select, and those at which the number of its
 * particles falls. */
void kac_trigger_levels(const kac_settings *settings, kac_level *levels);

/* Reads process.template for sites of `alphabet`: fixed[l] = the letter that is given or the mask
 * (token S); allowed[l] = the letters that may appear there, a bit each.  *restricts says whether
 * a site is neither given nor free.  `?` is free; all else is read as iupac.h says, so T gives U
 * where the alphabet is that of RNA.  Errors: INVALID (the site and what is allowed). */
kac_status kac_masked_template(const char *text, const char *alphabet, uint8_t *fixed,
                               uint32_t *allowed, bool *restricts);

#endif /* KAC_PROCESS_H */
