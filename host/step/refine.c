/* refine.c -- iterative refinement: objects are masked in part and finished again.
 *
 *     finish a pass; the best so far may stay      driver.elite
 *     each slot goes on from an object of its group, with probability ~ exp(strength r / alpha)
 *     mask some of its sites, chosen uniformly     driver.fraction
 *     guided steps from the level that has this share of masks
 *
 * Uehara et al., "Reward-guided iterative refinement in diffusion models at test-time with
 * applications to protein and DNA design", ICML 2025, and its published code.  An optimiser: the
 * law of the objects is not p*.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"
#include "sequences.h"

void kac_refine_plan(kac_run *r, const kac_level *levels)
{
    int32_t sites = (int32_t)(r->set.driver.fraction * r->free_sites);
    sites = sites > 1 ? sites : 1;
    double share = (double)sites / (r->free_sites > 0 ? r->free_sites : 1);
    r->refine.sites = sites;
    r->back = 1;
    for (int32_t k = 2; k <= r->steps; k++)
        if (fabs(levels[k].mask - share) < fabs(levels[r->back].mask - share)) r->back = k;
}

/* Puts the sequences of driver.start into the particles' places.  Sequence s is of group s mod G;
 * a group shares its own out among its particles in turn. */
static kac_status place_sequences(kac_run *r)
{
    size_t stride = (size_t)r->shape.stride;
    int64_t count = 0;
    uint8_t *given = NULL, *fixed = NULL, *x = NULL;
    kac_status status = KAC_OK;
    kac_sequence_form form = {.alphabet = r->denoiser->alphabet,
                              .length = r->shape.length,
                              .stride = r->shape.stride};

    KAC_TRY_DONE(kac_sequences_read(r->set.driver.start, &form, &given, &count));
    int32_t each = r->n / r->groups;
    if (count > (int64_t)r->all_groups * each) {
        status = KAC_FAIL(KAC_ERR_INVALID,
                          "driver.start: %lld sequences in %s for %d groups of %d particles",
                          (long long)count, r->set.driver.start, r->all_groups, each);
        goto done;
    }
    x = calloc((size_t)r->n, stride);
    fixed = calloc(1, stride);
    if (x == NULL || fixed == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "run: no memory for %d sequences", r->n);
        goto done;
    }
    if (r->fixed != NULL)
        KAC_TRY_DONE(r->dev->ops->memory.download(r->dev, fixed, r->fixed, stride));
    for (int64_t s = 0; s < count && r->fixed != NULL; s++)
        for (int32_t l = 0; l < r->shape.length; l++) {
            if (fixed[l] == r->shape.states ||
                fixed[l] == given[(size_t)s * stride + (size_t)l])
                continue;
            status = KAC_FAIL(KAC_ERR_INVALID,
                              "driver.start: sequence %lld of %s has another letter at site %d "
                              "than process.template",
                              (long long)s + 1, r->set.driver.start, l + 1);
            goto done;
        }
    for (int32_t i = 0; i < r->n; i++) {
        int32_t g = r->first + i / each, all = r->all_groups;
        int64_t own = g < count ? (count - g - 1) / all + 1 : 0; /* sequences of g */
        int64_t s = own > 0 ? g + (i % each) % own * all : g % count;
        memcpy(x + (size_t)i * stride, given + (size_t)s * stride, stride);
    }
    KAC_TRY_DONE(r->dev->ops->memory.upload(r->dev, r->x.x, x, (size_t)r->n * stride));
    status = kac_reset(r, 0, true);
done:
    free(given);
    free(fixed);
    free(x);
    return status;
}

static void *take_past(kac_run *r, const char *name, size_t size, const int32_t *through)
{
    return kac_part_take(r, "past", name,
                         (kac_part){.count = r->n,
                                    .size = size,
                                    .share = KAC_PART_GROUPS,
                                    .in_use = &r->refine.past.n,
                                    .through = through});
}

kac_status kac_refine_open(kac_run *r)
{
    if (r->set.driver.elite) {
        kac_particles *past = &r->refine.past;
        past->stride = r->shape.stride;
        past->x = take_past(r, "x", (size_t)past->stride, NULL);
        past->value = take_past(r, "value", sizeof *past->value, NULL);
        past->eve = take_past(r, "eve", sizeof *past->eve, &r->trace.eves_below);
        kac_part_add(r, "past", "n",
                     (kac_part){.data = &past->n,
                                .count = 1,
                                .size = sizeof past->n,
                                .on_host = true,
                                .share = KAC_PART_EXTENT});
        r->refine.value = kac_take(r, 2 * (int64_t)r->n, sizeof(double));
        r->refine.order = kac_take(r, 2 * (int64_t)r->n, sizeof(int32_t));
    }
    if (r->short_of_memory) return KAC_ERR_NOMEM; /* alloc left the sentence */
    return r->set.driver.start[0] != '\0' ? place_sequences(r) : KAC_OK;
}

/* Rewards of the sequences given, as values of the particles. */
static kac_status value_sequences(kac_run *r)
{
    kac_rows rows = {r->x.x, NULL, 0, r->n};
    r->calls.reward_asked += (int64_t)r->n * kac_rewards_networks(r->guide);
    KAC_TRY(kac_rewards_score(r->guide, &rows, r->terms, &r->made[1]));
    return kac_value_children(r, &r->x, 1, &r->x);
}

/* Copies states, values and eves of n particles. */
static kac_status copy_objects(kac_run *r, const kac_particles *from, kac_particles *to)
{
    const kac_memory_ops *op = &r->dev->ops->memory;
    size_t n = (size_t)r->n;
    KAC_TRY(op->copy(r->dev, to->x, from->x, n * (size_t)r->shape.stride));
    KAC_TRY(op->copy(r->dev, to->value, from->value, n * sizeof *to->value));
    return op->copy(r->dev, to->eve, from->eve, n * sizeof *to->eve);
}

/* The population at the end of a pass: its own objects, or with the elite the best of them and
 * those before. */
static kac_status elect(kac_run *r)
{
    kac_elect_args a = {.groups = r->group,
                        .n_groups = r->groups,
                        .past = &r->refine.past,
                        .now = &r->y,
                        .value = r->refine.value,
                        .order = r->refine.order,
                        .x = &r->x};
    if (!r->set.driver.elite) return KAC_OK;
    KAC_TRY(copy_objects(r, &r->x, &r->y)); /* the children are done with */
    KAC_TRY(r->dev->ops->particles.elect(r->dev, &a));
    r->refine.past.n = r->n;
    return copy_objects(r, &r->x, &r->refine.past);
}

/* From level 0 back to where the next pass begins. */
static kac_status go_back(kac_run *r)
{
    const kac_particle_ops *op = &r->dev->ops->particles;
    kac_renew_args renew = {.clock = r->clock,
                            .groups = r->group,
                            .n_groups = r->groups,
                            .seed = r->set.seed,
                            .strength = r->set.driver.strength,
                            .x = &r->x,
                            .weight = r->select.weight,
                            .chosen = r->select.chosen};
    kac_remask_args remask = {.shape = r->shape,
                              .clock = r->clock,
                              .groups = r->group,
                              .group = r->x.group,
                              .fixed = r->fixed,
                              .seed = r->set.seed,
                              .n = r->n,
                              .sites = r->refine.sites};
    r->pass++;
    KAC_TRY(op->renew(r->dev, &renew));
    KAC_TRY(copy_objects(r, &r->x, &r->y));
    KAC_TRY(op->survive(r->dev, &r->y, 1, r->select.chosen, &r->x, r->scratch));
    KAC_TRY(r->process->remask(r->dev, &remask, r->x.x));
    return kac_reset(r, r->back, false);
}

kac_status kac_refine_step(kac_run *r)
{
    if (r->step == 0 && r->level == 0) {
        KAC_TRY(value_sequences(r));
        KAC_TRY(elect(r));
    }
    if (r->level == 0) KAC_TRY(go_back(r));
    KAC_TRY(kac_guided_step(r));
    return r->level == 0 ? elect(r) : KAC_OK;
}
