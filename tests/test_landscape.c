/* test_landscape.c -- real cases with exact answers: every row that claims p*, on two measured
 * landscapes, against the enumerated law of the chain.
 *
 * The groups of a run are replicates.  A run passes where the evidence, each tilted marginal and
 * the mass of the ten best objects are within z_bound standard errors of the exact values: no
 * tolerance.  The bound's false-alarm rate holds while the mean over groups is nearly normal,
 * so a run must also have as many groups as their spread asks for.  Seeds are fixed.
 */
#include <criterion/criterion.h>

#include "landscape.h"

TestSuite(landscape, .timeout = 300);

/* At most 82 functions of a run and its evidence all stay below this with probability 1 - 1e-6.
 */
static const double z_bound = 5.8;

/* Steps of a chain: as many as there are sites, where revealing sites independently matters. */
static int steps_of(const landscape_source *source)
{
    return source->length;
}

/* Opens a landscape; skips the test where its data are absent. */
static void open_landscape(const landscape_source *source, landscape *s)
{
    if (!landscape_here(source)) cr_skip_test("%s is absent", source->path);
    cr_assert_eq(landscape_open(source, s), KAC_OK, "%s", kac_last_error());
}

static double *make_law(const landscape *s)
{
    double *law = calloc((size_t)s->objects, sizeof *law);
    cr_assert_not_null(law);
    return law;
}

/* ---- the enumeration itself --------------------------------------------------------------- */

/* The law of the chain is that of exact_chain.h, where both can tell. */
Test(landscape, the_law_of_the_chain_equals_the_small_enumeration)
{
    static chain c;
    static landscape s;
    double law[CHAIN_OBJECTS], small[CHAIN_OBJECTS];
    chain_make(&c, 3, 5, true, 1);
    cr_assert(landscape_create("ABC", 5, &s));
    memcpy(s.initial, c.initial, 3 * sizeof *s.initial);
    memcpy(s.transition, c.transition, 9 * sizeof *s.transition);
    landscape_prepare(&s);
    for (int steps = 1; steps <= 7; steps += 3) {
        chain_forward(&c, (chain_grid){steps, false}, small);
        cr_assert_eq(landscape_chain_law(&s, steps, law), KAC_OK);
        for (int o = 0; o < s.objects; o++)
            cr_assert_float_eq(law[o], small[o], 1e-14, "%d steps, object %d", steps, o);
    }
    landscape_data_law(&s, law);
    for (int o = 0; o < s.objects; o++)
        cr_assert_float_eq(law[o], chain_markov_joint(&c, o), 1e-6);
    landscape_free(&s);
}

/* What a template restricts has its exact weight, which is none of a twist's. */
Test(landscape, codes_are_weighed_without_a_twist)
{
    static const char *const weights[] = {"correct", "ignore"};
    landscape s;
    table_run run[2];
    char dir[256], text[256];
    cr_assert(landscape_create("ACGU", 4, &s));
    for (int o = 0; o < s.objects; o++)
        s.reward[o] = (float)(o % 7);
    landscape_fit(&s);
    cr_assert(table_folder(dir));
    cr_assert_eq(landscape_write_run(&s, dir), KAC_OK, "%s", kac_last_error());
    for (int k = 0; k < 2; k++) {
        snprintf(
            text, sizeof text,
            "sampler.algorithm=smc process.steps=3 process.template=RY?S sampler.groups=16 "
            "sampler.particles=8 sampler.twist.weights=%s",
            weights[k]);
        kac_status status = table_sample_letters(s.alphabet, dir, text, &run[k]);
        cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
        cr_assert_eq(run[k].n, 128);
    }
    cr_expect_eq(run[0].log_evidence, run[1].log_evidence, "%g", run[1].log_evidence);
    cr_expect_arr_eq(run[0].log_weight, run[1].log_weight, 128 * sizeof(double));
    for (int k = 0; k < 2; k++)
        table_run_free(&run[k]);
    table_folder_remove(dir);
    landscape_free(&s);
}

/* The share of G and C takes probabilities, but no step shall be needed to learn that it has no slope. */
Test(landscape, a_filter_has_no_gradient)
{
    landscape s;
    table_run run = {0};
    char dir[256];
    cr_assert(landscape_create("ACGU", 4, &s));
    landscape_fit(&s);
    cr_assert(table_folder(dir));
    cr_assert_eq(landscape_write_run(&s, dir), KAC_OK, "%s", kac_last_error());
    kac_status status = table_sample_letters(
        s.alphabet, dir, "sampler.algorithm=tds process.steps=3 reward.1.kind=gc", &run);
    cr_expect_eq(status, KAC_ERR_INVALID);
    cr_expect_str_eq(
        kac_last_error(),
        "sampler.twist.kind: reward.1 (gc) has no gradient; use kind none, or leave "
        "this reward without weight and bounds");
    table_folder_remove(dir);
    landscape_free(&s);
}

/* Unguided runs follow the chain's law, not the denoiser's own: the letters of the last sites
 * are counted. */
static void check_pretrained(const landscape_source *source, int cells)
{
    static landscape s;
    char dir[256], text[256];
    table_run run = {0};
    open_landscape(source, &s);
    double *law = make_law(&s), *data = make_law(&s), *counts = make_law(&s);
    cr_assert_eq(landscape_chain_law(&s, 3, law), KAC_OK);
    landscape_data_law(&s, data);
    cr_assert(table_folder(dir));
    cr_assert_eq(landscape_write_run(&s, dir), KAC_OK, "%s", kac_last_error());
    snprintf(text, sizeof text,
             "sampler.algorithm=pretrained process.steps=3 sampler.groups=200000 "
             "sampler.alpha=1 sampler.on_dead=freeze");
    kac_status status = table_sample_letters(s.alphabet, dir, text, &run);
    cr_assert_eq(status, KAC_OK, "%s", kac_last_error());
    for (int64_t i = 0; i < run.n; i++)
        counts[run.object[i] % cells]++;
    for (int o = cells; o < s.objects; o++) {
        law[o % cells] += law[o];
        data[o % cells] += data[o];
    }
    double chain_share = chain_chi_square(law, counts, cells);
    double data_share = chain_chi_square(data, counts, cells);
    cr_expect(chain_share < 1, "%s: chi-square is %.2f of its bound", source->name,
              chain_share);
    cr_expect(data_share > 1, "%s: and %.2f of it for the data's law", source->name,
              data_share);
    table_run_free(&run);
    table_folder_remove(dir);
    free(law);
    free(data);
    free(counts);
    landscape_free(&s);
}

Test(landscape, pretrained_follows_the_chain_on_tis)
{
    check_pretrained(&landscape_tis, 4096);
}

Test(landscape, pretrained_follows_the_chain_on_gb1)
{
    check_pretrained(&landscape_gb1, 8000);
}

/* ---- every row that claims p* ------------------------------------------------------------- */

/* A landscape, the law of its chain, and its files; ready to run. */
typedef struct fixture {
    landscape s;
    double *law;
    char dir[256];
} fixture;

static void open_fixture(const landscape_source *source, fixture *f)
{
    open_landscape(source, &f->s);
    f->law = make_law(&f->s);
    cr_assert_eq(landscape_chain_law(&f->s, steps_of(source), f->law), KAC_OK, "%s",
                 kac_last_error());
    cr_assert(table_folder(f->dir));
    cr_assert_eq(landscape_write_run(&f->s, f->dir), KAC_OK, "%s", kac_last_error());
}

static void close_fixture(fixture *f)
{
    table_folder_remove(f->dir);
    free(f->law);
    landscape_free(&f->s);
}

/* Compares one run, of 16 particles a group, with a target. */
static void check_run(const fixture *f, const landscape_source *source, double alpha,
                      int groups, const char *row, const char *settings)
{
    static landscape_target t;
    landscape_sums sums = {0};
    table_run run = {0};
    char text[512];
    int which = 0;

    groups *= table_scale();
    cr_assert_eq(landscape_aim(&f->s, f->law, alpha, &t), KAC_OK, "%s", kac_last_error());
    snprintf(text, sizeof text,
             "sampler.algorithm=%s process.steps=%d sampler.groups=%d sampler.particles=16 %s",
             row, steps_of(source), groups, settings);
    kac_status status = landscape_sample(&t, f->dir, text, &run);
    cr_assert_eq(status, KAC_OK, "%s: %s", text, kac_last_error());
    landscape_count(&t, &run, &sums);
    cr_assert_eq(sums.groups, groups, "%s: a group has no sample", text);

    double cv = landscape_spread(&sums), z = landscape_evidence_z(&sums);
    cr_expect(groups > 4096 * pow(cv / 0.65, 2),
              "%s, alpha %g: groups spread by %.2f; too few for the bound to hold", text, alpha,
              cv);
    cr_expect(z < z_bound, "%s, alpha %g: evidence is %.1f standard errors off (%.4f of Z)",
              text, alpha, z, sums.gain / groups);
    cr_expect(fabs(run.log_evidence - log(t.z)) < z_bound * run.standard_error,
              "%s, alpha %g: log evidence %.4f +- %.4f, exact %.4f", text, alpha,
              run.log_evidence, run.standard_error, log(t.z));
    z = landscape_worst_z(&t, &sums, &which);
    cr_expect(z < z_bound,
              "%s, alpha %g: function %d of site %d is %.1f standard errors off (%.4f for "
              "%.4f)",
              text, alpha, which, t.site[which], z, sums.weight[which] / sums.gain,
              t.mean[which]);
    table_run_free(&run);
}

/* A row at a mild and at a hard alpha; the harder, the more groups it takes. */
static void check_row(const landscape_source *source, const char *row, const char *settings)
{
    static fixture f;
    open_fixture(source, &f);
    check_run(&f, source, source->alpha[0], 8192, row, settings);
    check_run(&f, source, source->alpha[1], 24576, row, settings);
    close_fixture(&f);
}

#define ROW_TESTS(row, settings)                                                               \
    Test(landscape, tis_##row)                                                                 \
    {                                                                                          \
        check_row(&landscape_tis, #row, settings);                                             \
    }                                                                                          \
    Test(landscape, gb1_##row)                                                                 \
    {                                                                                          \
        check_row(&landscape_gb1, #row, settings);                                             \
    }
LANDSCAPE_ROWS(ROW_TESTS)

/* ---- and one that does not ---------------------------------------------------------------- */

/* The samples of a row that follows another law are found out by the same functions. */
static void check_found_out(const landscape_source *source)
{
    static fixture f;
    static landscape_target t;
    landscape_sums sums = {0};
    table_run run = {0};
    char text[256];
    int which = 0;

    open_fixture(source, &f);
    cr_assert_eq(landscape_aim(&f.s, f.law, source->alpha[1], &t), KAC_OK);
    snprintf(text, sizeof text,
             "sampler.algorithm=svdd_pm process.steps=%d sampler.groups=16384",
             steps_of(source));
    cr_assert_eq(landscape_sample(&t, f.dir, text, &run), KAC_OK, "%s", kac_last_error());
    landscape_count(&t, &run, &sums);
    double z = landscape_worst_z(&t, &sums, &which);
    cr_expect(z > 2 * z_bound, "%s: svdd_pm is %.1f standard errors off only", source->name, z);
    table_run_free(&run);
    close_fixture(&f);
}

Test(landscape, svdd_pm_is_found_out_on_tis)
{
    check_found_out(&landscape_tis);
}

Test(landscape, svdd_pm_is_found_out_on_gb1)
{
    check_found_out(&landscape_gb1);
}
