/* started.h -- when, where and by which command a run was started, for those who find its results. */
#ifndef KAC_STARTED_H
#define KAC_STARTED_H

#include <jansson.h>

#include "base.h"

/* {"date", "folder", "command"} of this process now: UTC as ISO 8601 has it, the working folder, and the
 * words of the command as a shell reads them; what cannot be known, or is not UTF-8, is null.
 * Errors: NOMEM. */
kac_status kac_started_now(json_t **out);

#endif /* KAC_STARTED_H */
