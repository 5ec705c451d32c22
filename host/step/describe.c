/* describe.c -- what a run would be, as text for people: kac run --dry-run. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "budget.h"
#include "device.h"
#include "pilot.h"
#include "run.h"

static const char *several(int64_t count, const char *one, const char *more)
{
    return count == 1 ? one : more;
}

/* The row, and the keys that it sets with the values that are in force. */
static void describe_algorithm(const kac_run *r, FILE *out)
{
    const kac_algorithm *row = kac_algorithms;
    while (row->name != NULL && strcmp(row->name, r->set.sampler.algorithm) != 0)
        row++;
    if (row->name == NULL) return;
    fprintf(out, "algorithm   %s: %s\n", row->name, row->summary);
    for (int i = 0; row->set[i].key != NULL; i++) {
        char text[KAC_PATH] = "";
        bool other = kac_config_get(r->config, row->set[i].key, text, sizeof text) == KAC_OK &&
                     strcmp(text, row->set[i].value) != 0;
        fprintf(out, "            %s %s", row->set[i].key, text);
        if (other) fprintf(out, " (the row's own: %s)", row->set[i].value);
        fputc('\n', out);
    }
}

static void describe_alpha(const kac_run *r, FILE *out)
{
    char text[64] = "";
    (void)kac_config_get(r->config, "sampler.alpha", text, sizeof text);
    fprintf(out, "alpha       %s", text);
    if (strcmp(text, "auto") == 0)
        fprintf(out, ": a pilot of %" PRId64 " unguided samples finds it first",
                r->set.sampler.pilot);
    fputc('\n', out);
}

static void describe_population(const kac_run *r, FILE *out)
{
    const kac_settings *s = &r->set;
    int64_t particles = s->sampler.particles, children = s->sampler.children;
    fprintf(out, "population  %d %s x %" PRId64 " %s x %" PRId64 " %s", (int)r->all_groups,
            several(r->all_groups, "group", "groups"), particles,
            several(particles, "particle", "particles"), children,
            several(children, "child", "children"));
    if (r->all_groups < s->sampler.groups)
        fprintf(out, " (the budget leaves no more of %" PRId64 " groups)", s->sampler.groups);
    fprintf(out, "\nsteps       %d", (int)r->moves);
    if (r->passes > 1) fprintf(out, " in %d passes", (int)r->passes);
    fprintf(out, "\nobjects     ");
    if (r->shape.nodes > 0)
        fprintf(out, "graphs of at most %d nodes\n", (int)r->shape.nodes);
    else if (r->vectors)
        fprintf(out, "vectors of %d numbers\n", (int)r->shape.length);
    else
        fprintf(out, "%d sites of %s\n", (int)r->shape.length, r->denoiser->alphabet);
}

static void describe_models(const kac_run *r, FILE *out)
{
    const kac_settings *s = &r->set;
    fprintf(out, "denoiser    %s\n", s->model.file);
    if (s->model.unconditional[0] != '\0')
        fprintf(out, "            %s, the second\n", s->model.unconditional);
    if (r->value != NULL) fprintf(out, "value       %s\n", s->sampler.value_file);
    for (int i = 0; i < s->rewards; i++) {
        const kac_reward_settings *term = &s->reward[i];
        char name[KAC_NAME];
        kac_term_name(term, name, sizeof name);
        fprintf(out, "reward %-4d %s: ", i, name);
        if (!kac_reward_guides(term))
            fprintf(out, "only recorded");
        else if (term->weights[0] != '\0')
            fprintf(out, "weights %s", term->weights);
        else
            fprintf(out, "weight %g", term->weight);
        if (!isnan(term->at_least)) fprintf(out, ", at least %g", term->at_least);
        if (!isnan(term->at_most)) fprintf(out, ", at most %g", term->at_most);
        fputc('\n', out);
    }
}

static kac_status describe(const kac_run *r, bool pilot, FILE *out)
{
    int64_t denoiser = 0, reward = 0;
    int ranks = kac_ranks_size(r->ranks);
    KAC_TRY(kac_most_calls(r, &denoiser, &reward));
    describe_algorithm(r, out);
    describe_alpha(r, out);
    describe_population(r, out);
    describe_models(r, out);
    fprintf(out,
            "calls       at most %" PRId64 " of the denoiser, %" PRId64
            " of reward networks%s%s\n",
            denoiser, reward, pilot ? "; the pilot's come on top, and budgets count them" : "",
            r->set.output.likelihood ? "; likelihoods take more, uncounted" : "");
    fprintf(out, "device      %s, %s", r->dev->ops->name, kac_isa_names[r->dev->isa]);
    if (ranks > 1) fprintf(out, ", %d ranks", ranks);
    fprintf(out, "\nfiles       samples.csv%s%s%s, run.json\n",
            !r->vectors ? ", samples.fasta" : "",
            r->form.molecule != NULL ? ", samples.smi, samples.sdf" : "",
            r->set.output.trace ? ", trace.jsonl" : "");
    return ferror(out) ? KAC_FAIL(KAC_ERR_IO, "cannot write the plan of the run") : KAC_OK;
}

kac_status kac_run_plan(kac_ranks *ranks, const kac_config *config, FILE *out)
{
    KAC_REQUIRE(config != NULL && out != NULL);
    kac_run *r = NULL;
    kac_settings settings;
    KAC_TRY(kac_ranks_agree(ranks, kac_config_settings(config, &settings), NULL, 0));
    bool found = isnan(settings.sampler.alpha); /* by a pilot, whatever it will be */
    kac_piloted any = {.known = true, .alpha = found ? 1 : settings.sampler.alpha};
    KAC_TRY(kac_run_open(ranks, config, &any, &r));
    kac_status status = kac_ranks_rank(ranks) == 0 ? describe(r, found, out) : KAC_OK;
    kac_run_destroy(r);
    return status;
}
