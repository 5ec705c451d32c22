/* team.c -- the ranks that a run of the program is shared by, and how they end alike. */
#include "team.h"

#include <stdlib.h>
#include <string.h>

#include "run.h"

int team_launched(void)
{
    /* mpirun of Open MPI; of MPICH, and srun --mpi=pmi2; srun */
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE",
                                        "SLURM_STEP_NUM_TASKS"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = getenv(names[i]);
        long size = text != NULL ? strtol(text, NULL, 10) : 0;
        if (size > 0) return size < 1 << 20 ? (int)size : 1 << 20;
    }
    return 1;
}

cli_exit team_join(const char *name, kac_ranks **out)
{
    int launched = team_launched();
    bool mpi = strcmp(name, "mpi") == 0 || (strcmp(name, "auto") == 0 && launched > 1);
    kac_status status =
        kac_ranks_open(mpi ? "mpi" : "self", mpi && launched > 1 ? launched : 0, out);
    if (status == KAC_OK) cli_mute(kac_ranks_rank(*out) > 0);
    return cli_status(status);
}

/* Rank 0 complains, and gives up first: where another rank does, it is rank 0 that is lost. */
cli_exit team_told(kac_status status)
{
    if (status == KAC_ERR_RANK && !cli_stopped()) cli_mute(false);
    return cli_status(status);
}

cli_exit team_status(kac_ranks *ranks, kac_status status)
{
    return team_told(kac_ranks_agree(ranks, status, NULL, 0));
}

cli_exit team_code(kac_ranks *ranks, cli_exit code)
{
    int64_t worst = (int64_t)code;
    kac_status status = kac_ranks_agree(ranks, KAC_OK, &worst, 1);
    return status != KAC_OK ? team_told(status) : (cli_exit)worst;
}
