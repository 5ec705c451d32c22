/* process.h -- the noising processes as tables of levels. */
#ifndef KAC_PROCESS_H
#define KAC_PROCESS_H

#include "settings.h"
#include "types.h"

/* Fills levels[0 .. T] of the masked process for the schedule of `settings`: times, mask
 * probabilities, sigma and reveal thresholds.  Schedules: MDLM (Sahoo et al., NeurIPS 2024)
 * and its published code; `flow`: the masking interpolant of discrete flow matching (Campbell
 * et al., ICML 2024).  Errors: INVALID (a level where the mask probability does not fall). */
kac_status kac_masked_levels(const kac_settings *settings, kac_level *levels);

/* Fills levels[0 .. T] of the Gaussian process: schedules vp, ve and edm.  Errors: INVALID (two
 * levels with one noise). */
kac_status kac_gaussian_levels(const kac_settings *settings, kac_level *levels);

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
