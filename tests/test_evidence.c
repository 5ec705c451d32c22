/* test_evidence.c -- when an evidence is called reliable.  That it is right is tested with the laws
 * (test_laws.c, test_landscape.c). */
#include <criterion/criterion.h>
#include <math.h>

#include "run.h"
#include "table_run.h"

TestSuite(evidence, .timeout = 60);

Test(evidence, the_rule)
{
    cr_expect(kac_evidence_is_reliable(0, 16) && kac_evidence_is_reliable(0.1, 64));
    cr_expect(!kac_evidence_is_reliable(0.1001, 1000), "a large error");
    cr_expect(!kac_evidence_is_reliable(0, 15), "few groups agree by chance");
    cr_expect(!kac_evidence_is_reliable((double)NAN, 1000), "no error");
}

/* What the rule bounds: the share of the largest group, whatever the groups are. */
Test(evidence, a_reliable_one_rests_on_no_single_group)
{
    uint64_t state = 1;
    int reliable = 0;
    for (int trial = 0; trial < 2000; trial++) {
        enum { G = 40 };
        double z[G], mean = 0, square = 0, largest = 0;
        double spread = 0.3 * chain_random(&state);
        for (int g = 0; g < G; g++) {
            z[g] = exp(spread * chain_random(&state) / chain_random(&state));
            mean += z[g] / G;
            largest = z[g] > largest ? z[g] : largest;
        }
        for (int g = 0; g < G; g++)
            square += pow(z[g] / mean - 1, 2);
        if (!kac_evidence_is_reliable(sqrt(square / (G - 1) / G), G)) continue;
        reliable++;
        cr_expect_lt(largest / (G * mean), sqrt(0.01 + 1.0 / G));
    }
    cr_expect(reliable > 100 && reliable < 1900, "%d", reliable);
}

/* With a constant reward every group says the same; only their number counts. */
Test(evidence, groups_of_a_target_count)
{
    static const struct {
        const char *settings;
        int targets;
        bool reliable;
    } runs[] = {
        {"sampler.algorithm=smc sampler.groups=16", 1, true},
        {"sampler.algorithm=smc sampler.groups=15", 1, false},
        {"sampler.algorithm=smc sampler.groups=32 reward.0.weights=1,2", 2, true},
        {"sampler.algorithm=smc sampler.groups=30 reward.0.weights=1,2", 2, false},
        {"sampler.algorithm=smc sampler.groups=16 sampler.select.group.scope=global", 1, false},
        {"sampler.algorithm=svdd_pm sampler.groups=16", 1, false},
    };
    chain c;
    char dir[256];
    chain_make(&c, 3, 4, false, 1);
    for (int o = 0; o < c.objects; o++)
        c.reward[o] = 0.75f;
    cr_assert(table_folder(dir));
    cr_assert_eq(table_write(&c, dir), KAC_OK, "%s", kac_last_error());
    for (size_t k = 0; k < sizeof runs / sizeof *runs; k++) {
        table_run run = {0};
        char text[256];
        snprintf(text, sizeof text, "%s process.steps=4 sampler.particles=4", runs[k].settings);
        cr_assert_eq(table_sample(&c, dir, text, &run), KAC_OK, "%s", kac_last_error());
        cr_assert_eq(run.targets, runs[k].targets, "%s", text);
        for (int t = 0; t < runs[k].targets; t++)
            cr_expect_eq(run.reliable[t], runs[k].reliable, "%s: target %d", text, t);
        cr_expect(!run.reliable[runs[k].targets], "there is no such target");
        table_run_free(&run);
    }
    table_folder_remove(dir);
}
