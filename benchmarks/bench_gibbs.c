/* bench_gibbs.c -- how far the law of one selected sample is from p*, by sweeps.
 *
 * Total-variation distance to the enumerated p* of an object drawn by weight from a small group, and
 * of the object that particle Gibbs retains after so many sweeps.  The objects of `replicates`
 * independent groups are counted; `floor` is the distance that as many exact draws have on
 * average, sum over objects of sqrt(p (1 - p) / (2 pi replicates)).
 */
#include "table_run.h"

enum { BATCHES = 4, GROUPS = 100000, PARTICLES = 4 };

static const double alpha = 0.55;
static const chain_grid grid = {4, false};

static chain model;
static double target[CHAIN_OBJECTS];

static kac_status measure(const char *dir, const char *settings, double *distance)
{
    double counts[CHAIN_OBJECTS] = {0};
    char text[512];
    for (int batch = 0; batch < BATCHES; batch++) {
        table_run run = {0};
        snprintf(text, sizeof text,
                 "process.steps=%d sampler.alpha=%g sampler.groups=%d sampler.particles=%d "
                 "output.trace=off sampler.final.kind=categorical sampler.final.keep=1 seed=%d "
                 "%s",
                 grid.steps, alpha, GROUPS, PARTICLES, batch + 1, settings);
        kac_status status = table_sample(&model, dir, text, &run);
        for (int64_t i = 0; i < run.n; i++)
            counts[run.object[i]]++;
        table_run_free(&run);
        KAC_TRY(status);
    }
    *distance = 0;
    for (int o = 0; o < model.objects; o++)
        *distance += fabs(counts[o] / (BATCHES * (double)GROUPS) - target[o]) / 2;
    return KAC_OK;
}

static void find_target(double *floor)
{
    double z = 0;
    *floor = 0;
    chain_forward(&model, grid, target);
    for (int o = 0; o < model.objects; o++)
        z += target[o] *= exp((double)model.reward[o] / alpha);
    for (int o = 0; o < model.objects; o++) {
        target[o] /= z;
        *floor += sqrt(target[o] * (1 - target[o]) / (6.283185 * BATCHES * (double)GROUPS));
    }
}

static kac_status print_table(const char *dir)
{
    static const char *const rows[][2] = {
        {"smc", "sampler.algorithm=smc"},
        {"particle_gibbs", ""},
        {"particle_gibbs, killing", "sampler.select.group.scheme=killing"}};
    static const int sweeps[] = {0, 1, 2, 4, 8};
    printf("%-24s", "sweeps");
    for (size_t s = 0; s < sizeof sweeps / sizeof *sweeps; s++)
        printf("%9d", sweeps[s]);
    printf("\n");
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        printf("%-24s", rows[k][0]);
        for (size_t s = 0; s < sizeof sweeps / sizeof *sweeps && (s == 0 || k > 0); s++) {
            char settings[256];
            double distance = 0;
            snprintf(settings, sizeof settings,
                     "sampler.algorithm=particle_gibbs driver.sweeps=%d %s", sweeps[s],
                     rows[k][1]);
            KAC_TRY(measure(dir, k == 0 ? rows[k][1] : settings, &distance));
            printf("%9.4f", distance);
            (void)fflush(stdout);
        }
        printf("\n");
    }
    return KAC_OK;
}

int main(void)
{
    char dir[256];
    double floor = 0;
    chain_make(&model, 3, 4, false, 1);
    find_target(&floor);
    if (!table_folder(dir)) return 3;
    kac_status status = table_write(&model, dir);
    printf(
        "table model: %d letters, %d sites, T = %d, alpha = %g; groups of %d; %d replicates, "
        "floor %.4f\n",
        model.states, model.length, grid.steps, alpha, PARTICLES, BATCHES * GROUPS, floor);
    if (status == KAC_OK) status = print_table(dir);
    table_folder_remove(dir);
    if (status != KAC_OK) fprintf(stderr, "bench_gibbs: %s\n", kac_last_error());
    return status == KAC_OK ? 0 : 3;
}
