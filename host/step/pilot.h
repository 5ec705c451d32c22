/* pilot.h -- alpha auto: the temperature at which p* is as far from q as asked. */
#ifndef KAC_PILOT_H
#define KAC_PILOT_H

#include "run.h"

/* Sets settings->sampler.alpha, which was NaN, from sampler.pilot samples of the denoiser alone,
 * while the watch of `piloted` looks on; *calls are what they cost.  Errors: those of a run;
 * INVALID (too few samples for the target, no alpha takes p* so far), NUMERIC (none is valid). */
kac_status kac_pilot(const kac_config *config, const kac_piloted *piloted,
                     kac_settings *settings, kac_calls *calls);

#endif /* KAC_PILOT_H */
