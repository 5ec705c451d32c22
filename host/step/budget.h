/* budget.h -- how many groups a budget of calls allows. */
#ifndef KAC_BUDGET_H
#define KAC_BUDGET_H

#include "run.h"

/* Lowers *groups to as many as cannot take more calls than settings.budget, whatever states they
 * meet; needs the run's networks.  Errors: INVALID (not even one), NOMEM. */
kac_status kac_budget(const kac_run *run, int64_t *groups);

#endif /* KAC_BUDGET_H */
