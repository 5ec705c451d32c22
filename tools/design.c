/* design.c -- a run of kac from a program of your own: reads a configuration, samples, prints the
 * best design of each group.
 *
 *     cc -o design design.c $(pkg-config --cflags --libs kac)
 *     ./design CONFIG.yaml [KEY=VALUE]...
 */
#include <stdio.h>
#include <string.h>

#include <kac.h>

/* `key=value` as kac run --set has it. */
static kac_status set(kac_config *config, const char *setting)
{
    char key[256];
    size_t length = strcspn(setting, "=");
    snprintf(key, sizeof key, "%.*s", (int)length, setting);
    return kac_config_set(config, key, setting + length + (setting[length] == '='));
}

static kac_status read_arguments(kac_config *config, int argc, char **argv)
{
    kac_status status = kac_config_read(config, argv[1]);
    for (int i = 2; i < argc && status == KAC_OK; i++)
        status = set(config, argv[i]);
    return status;
}

/* All steps, with a line every 32nd, and what comes after them. */
static kac_status sample(kac_run *run)
{
    kac_status status = KAC_OK;
    for (int64_t i = 1; i <= kac_run_steps(run) && status == KAC_OK; i++) {
        kac_progress progress;
        status = kac_run_step(run);
        if (status != KAC_OK || i % 32 != 0) continue;
        status = kac_run_sync(run, &progress);
        if (status == KAC_OK)
            fprintf(stderr, "step %lld: median value %.3f\n", (long long)progress.step,
                    progress.value[1]);
    }
    return status == KAC_OK ? kac_run_finish(run) : status;
}

/* The sample with the highest reward of each group; samples come group by group. */
static kac_status print_best(const kac_run *run)
{
    int64_t count = kac_run_samples(run);
    kac_sample best = {0}, now;
    for (int64_t i = 0; i < count; i++) {
        kac_status status = kac_run_sample(run, i, &now);
        if (status != KAC_OK) return status;
        if (i > 0 && now.group != best.group) printf("%.4f\t%s\n", best.reward, best.object);
        if (i == 0 || now.group != best.group || now.reward > best.reward) best = now;
    }
    if (count > 0) printf("%.4f\t%s\n", best.reward, best.object);
    return KAC_OK;
}

int main(int argc, char **argv)
{
    kac_config *config = NULL;
    kac_run *run = NULL;
    if (argc < 2) {
        fprintf(stderr, "usage: %s CONFIG.yaml [KEY=VALUE]...\n", argv[0]);
        return 2;
    }
    kac_status status = kac_config_create(&config);
    if (status == KAC_OK) status = read_arguments(config, argc, argv);
    if (status == KAC_OK) status = kac_run_create(config, &run);
    if (status == KAC_OK) status = sample(run);
    if (status == KAC_OK) status = print_best(run);
    if (status != KAC_OK)
        fprintf(stderr, "%s: %s: %s\n", argv[0], kac_status_string(status), kac_last_error());
    kac_run_destroy(run);
    kac_config_destroy(config);
    return status == KAC_OK ? 0 : 1;
}
