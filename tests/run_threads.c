/* run_threads.c -- small runs on four threads in a plain program, for ThreadSanitizer, under
 * which Criterion does not start.  Prints the evidence of each; any failure is exit 1. */
#include "table_run.h"

int main(void)
{
    static const char *const rows[] = {
        "sampler.algorithm=smc sampler.particles=16",
        "sampler.algorithm=smc sampler.particles=16 sampler.value.estimate=soft",
        "sampler.algorithm=nested sampler.particles=8 sampler.children=3",
    };
    static chain c;
    char dir[256], settings[1024];
    kac_status status = KAC_OK;

    chain_make(&c, 3, 5, false, 1);
    if (!table_folder(dir)) return 1;
    status = table_write(&c, dir);
    for (size_t k = 0; status == KAC_OK && k < sizeof rows / sizeof *rows; k++) {
        table_run run = {0};
        snprintf(settings, sizeof settings,
                 "process.steps=6 sampler.alpha=0.5 sampler.groups=8 device.threads=4 "
                 "device.batch=5 %s",
                 rows[k]);
        status = table_sample(&c, dir, settings, &run);
        if (status == KAC_OK) printf("%a  %s\n", run.log_evidence, rows[k]);
        table_run_free(&run);
    }
    if (status != KAC_OK) fprintf(stderr, "run_threads: %s\n", kac_last_error());
    table_folder_remove(dir);
    return status == KAC_OK ? 0 : 1;
}
