/* main.c -- the program kac: finds the command and hands over. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

typedef struct command {
    const char *name;
    cli_command_fn *call;
    const char *usage;   /* what follows the name */
    const char *summary; /* one line */
    const char *details; /* whole lines, or "" */
} command;

static cli_command_fn help, version;

static const command commands[] = {
    {"run", cli_run,
     "CONFIG.yaml [--set KEY=VALUE]... [--out DIR]\n"
     "        [--record DIR [--record-every K]] [--ranks KIND] [--force] [--dry-run] [--quiet]",
     "sample as a configuration says",
     "  --set KEY=VALUE  set a key of the configuration, such as sampler.alpha=0.2; "
     "repeatable\n"
     "  --out DIR        the folder to make, instead of output.dir\n"
     "  --record DIR     another folder, for the trajectories of all particles; "
     "docs/files.md\n"
     "  --record-every K keep the states after every K-th step only\n"
     "  --ranks KIND     who shares the run: mpi, the processes of this MPI job; self, this "
     "process\n"
     "                   alone; auto, unless given, what mpirun or srun says; docs/ranks.md\n"
     "  --force          replace these folders where they hold an earlier run\n"
     "  --dry-run        check the configuration, open the models and say what would be run;\n"
     "                   nothing is written\n"
     "  --quiet          no progress and no summary\n"
     "The folder appears when the run is complete, or with its first checkpoint (kac explain\n"
     "checkpoint); SIGINT and SIGTERM leave one and stop, SIGUSR1 one more.  The environment "
     "variables\n"
     "KAC_DEVICE (cpu, cuda:0) and KAC_ISA (portable, avx2, avx512) stand for device.name "
     "auto\n"
     "and for device.isa, where no --set gives it.\n"},
    {"resume", cli_resume,
     "DIR [--set KEY=VALUE]... [--record DIR] [--ranks KIND] [--force] [--quiet]",
     "go on with a run that was stopped",
     "  DIR              the folder of the run, with its checkpoints\n"
     "  --set KEY=VALUE  device.name, threads and isa, checkpoint, and sampler.on_dead\n"
     "                   error or freeze, only; repeatable\n"
     "  --record DIR     where the run was started with it: the folder for the trajectories\n"
     "  --ranks KIND     as kac run has it: any number of ranks, whatever it was\n"
     "  --force          replace that folder where it holds an earlier run\n"
     "  --quiet          no progress and no summary\n"
     "Relative paths of the run begin where it was started, whatever folder this is.\n"
     "The results are those of a run that was never stopped.  Exit code 0 also where the\n"
     "run was complete already; 2 where no checkpoint can be used.\n"},
    {"sweep", cli_sweep,
     "CONFIG.yaml --vary KEY=VALUE,... [--vary ...] --out DIR [--set KEY=VALUE]... "
     "[--no-baseline] [--quiet]",
     "sample at every point of a grid",
     "  --vary KEY=V,V,..  values that a key takes; repeatable, the last varies fastest; a "
     "value\n"
     "                     cannot hold a comma\n"
     "  --out DIR          the folder of the sweep; what is complete in it is not run again\n"
     "  --set KEY=VALUE    set a key at every point; repeatable\n"
     "  --no-baseline      without best_of_n at the denoiser calls of each point\n"
     "  --quiet            no progress and no table\n"
     "Every point is a run in DIR/point_NNN with the same random numbers, and a line of\n"
     "DIR/sweep.csv.  A run that fails has a line with its reason, and the others go on.\n"},
    {"inspect", cli_inspect, "FILE.safetensors", "list metadata and tensors of a file", ""},
    {"explain", cli_explain, "[KEY | --all]", "say what a key of the configuration means",
     "KEY is a key (sampler.alpha), a section (sampler), an algorithm (smc), a word that is\n"
     "the value of some keys (gc, ess) or \"algorithms\"; without it, all keys are written as\n"
     "Markdown.\n"},
    {"devices", cli_devices, "", "list the devices that a run can use here", ""},
    {"verify", cli_verify, "MODEL RECORDING [--tolerance X] [--device NAME]",
     "compare a network with recorded outputs",
     "  --tolerance X  largest allowed max|a - b| / max|b|; unless given 1e-4, and 2e-3\n"
     "                 for states of a trajectory\n"
     "  --device NAME  as device.name, auto unless given\n"
     "Exit code 0 where every tensor is within it, 2 where not.\n"},
    {"validate", cli_validate,
     "[--level quick|full] [--device NAME] [--seed N] [--only TEXT] [--json FILE]",
     "check the sampler against exact laws on this machine",
     "  --level quick  4,096 replicates or more a check, seconds; full: 16 times as many\n"
     "  --device NAME  as device.name, auto unless given\n"
     "  --seed N       of the random numbers, 1 unless given\n"
     "  --only TEXT    only the checks whose names hold TEXT\n"
     "  --json FILE    the same as JSON\n"
     "Exit code 0 where every check holds, 2 where not.\n"},
    {"compare", cli_compare, "DIR...", "print a table of runs, a row each", ""},
    {"help", help, "[COMMAND]", "say how a command is used", ""},
    {"version", version, "", "print the version", ""},
    {NULL, NULL, NULL, NULL, NULL},
};

static const command *find(const char *name)
{
    for (const command *c = commands; c->name != NULL; c++)
        if (strcmp(c->name, name) == 0) return c;
    return NULL;
}

static cli_exit unknown(const char *name)
{
    const char *near = cli_nearest(name, commands, sizeof *commands);
    if (near != NULL)
        return cli_fail(CLI_MISTAKE, "unknown command %s; did you mean %s?", name, near);
    return cli_fail(CLI_MISTAKE, "unknown command %s; kac help lists them", name);
}

static cli_exit version(int argc, char **argv)
{
    if (!cli_operands(argv[0], argc - 1, 0, 0)) return CLI_MISTAKE;
    printf("kac %s\n", kac_version());
    return CLI_DONE;
}

static cli_exit help(int argc, char **argv)
{
    if (!cli_operands(argv[0], argc - 1, 0, 1)) return CLI_MISTAKE;
    if (argc > 1) {
        const command *c = find(argv[1]);
        if (c == NULL) return unknown(argv[1]);
        printf("kac %s%s%s\n%s.\n%s", c->name, *c->usage != '\0' ? " " : "", c->usage,
               c->summary, c->details);
        return CLI_DONE;
    }
    puts("kac samples from a diffusion model tilted by a reward.\n");
    for (const command *c = commands; c->name != NULL; c++)
        printf("  kac %-9s %s\n", c->name, c->summary);
    puts("\nkac help COMMAND says more; kac explain KEY explains a configuration's key.\n"
         "Exit codes: 0 done; 2 what was given is wrong; 3 the machine failed or the run was\n"
         "stopped; 1 a bug in kac.");
    return CLI_DONE;
}

/* --help anywhere before "--" asks for help and nothing else. */
static int asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return 1;
    return 0;
}

static cli_exit dispatch(int argc, char **argv)
{
    if (argc < 2) return cli_fail(CLI_MISTAKE, "give a command; kac help lists them");
    if (strcmp(argv[1], "--version") == 0) return version(argc - 1, argv + 1);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return help(argc - 1, argv + 1);

    const command *c = find(argv[1]);
    if (c == NULL) return unknown(argv[1]);
    if (asks_for_help(argc - 1, argv + 1)) {
        char *of_command[] = {argv[0], argv[1], NULL};
        return help(2, of_command);
    }
    return c->call(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    cli_exit code = dispatch(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout))
        code =
            cli_fail(CLI_MACHINE, "cannot write to the standard output: %s", strerror(errno));
    return (int)code;
}
