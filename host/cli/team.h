/* team.h -- the ranks that a run of the program is shared by, and how they end alike. */
#ifndef KAC_TEAM_H
#define KAC_TEAM_H

#include "cli.h"

/* How many processes the launcher says that it has started; 1 where none says anything. */
int team_launched(void);

/* Joins the ranks that --ranks names: "auto" is what the launcher says, "self", "mpi".  From then
 * on rank 0 complains for all. */
cli_exit team_join(const char *name, kac_ranks **out);

/* What all ranks make of what each has met: rank 0 complains of what the lowest of them met. */
cli_exit team_status(kac_ranks *ranks, kac_status status);

/* The same of a status that all ranks have got already. */
cli_exit team_told(kac_status status);

/* The same where rank 0 alone can fail, and has complained. */
cli_exit team_code(kac_ranks *ranks, cli_exit code);

#endif /* KAC_TEAM_H */
