/* budget.h -- how many groups a budget of calls allows. */
#ifndef KAC_BUDGET_H
#define KAC_BUDGET_H

#include "run.h"

/* Lowers *groups to as many as cannot take more calls than settings.budget, whatever states they
 * meet; needs the run's networks.  Errors: INVALID (not even one), NOMEM. */
kac_status kac_budget(const kac_run *run, int64_t *groups);

/* The most calls that all groups can take, a pilot's left out.  Errors: NOMEM. */
kac_status kac_most_calls(const kac_run *run, int64_t *denoiser, int64_t *reward);

#endif /* KAC_BUDGET_H */
