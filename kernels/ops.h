/* ops.h -- the contract between host/ and kernels/.
 *
 * Each operation is a comment, a function type, and one function of that type for each backend:
 * kac_cpu_<op> in <topic>_cpu.c and kac_cuda_<op> in <topic>_cuda.cu.  A backend is one
 * constant table of sub-tables: memory, states, one for each process, particles, one for each
 * network.  No slot is ever NULL.
 *
 * Pointers are memory of `dev` unless named host_*.  Calls are queued in order and may return
 * before the work is done; only download waits.  No operation allocates except alloc and pack.
 * Counts, step numbers and decisions inside the loop are values in device memory, so a step can
 * be queued, or replayed, without the host reading anything.  Inputs come first, outputs last.
 * Parents that are not in use (kac_particles.live), and their children, are left alone by
 * propose, complete, value and weigh.
 */
#ifndef KAC_OPS_H
#define KAC_OPS_H

#include "base.h"
#include "networks.h"
#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- memory ----------------------------------------------------------------------------- */

typedef kac_status kac_open_fn(kac_device *dev, int ordinal);
typedef void kac_close_fn(kac_device *dev);

/* From now on the calling thread works on this device, which it must before it calls what follows: with
 * several GPUs each thread has one at a time.  open does it too.  Errors: DEVICE. */
typedef kac_status kac_enter_fn(kac_device *dev);

/* One line about a device that may be there.  Errors: UNSUPPORTED (there is none such). */
typedef kac_status kac_describe_fn(int ordinal, char *text, size_t size);

/* Zeroed, 64-byte aligned; NULL with kac_last_error() set when memory runs out. */
typedef void *kac_alloc_fn(kac_device *dev, size_t bytes);
typedef void kac_release_fn(kac_device *dev, void *ptr); /* accepts NULL */

typedef kac_status kac_copy_fn(kac_device *dev, void *dst, const void *src, size_t bytes);
typedef kac_status kac_upload_fn(kac_device *dev, void *dst, const void *host_src,
                                 size_t bytes);
typedef kac_status kac_download_fn(kac_device *dev, void *host_dst, const void *src,
                                   size_t bytes);

/* Whether all that was queued is done.  Errors: DEVICE. */
typedef kac_status kac_ready_fn(kac_device *dev, bool *ready);

/* What no other GPU of any machine has.  Errors: DEVICE, UNSUPPORTED (there is no such thing). */
typedef kac_status kac_identify_fn(kac_device *dev, uint8_t id[16]);

/* Only where dev->records: what is queued between record and stop is not run but kept, and runs
 * each time it is played, on the same memory.  No upload or download may come in between.  Errors:
 * DEVICE. */
typedef kac_status kac_record_fn(kac_device *dev);
typedef kac_status kac_stop_fn(kac_device *dev, void **recording);
typedef kac_status kac_play_fn(kac_device *dev, void *recording);
typedef void kac_erase_fn(kac_device *dev, void *recording); /* accepts NULL */

typedef struct kac_memory_ops {
    kac_open_fn *open;
    kac_enter_fn *enter;
    kac_close_fn *close;
    kac_describe_fn *describe;
    kac_alloc_fn *alloc;
    kac_release_fn *release;
    kac_copy_fn *copy;
    kac_upload_fn *upload;
    kac_download_fn *download;
    kac_ready_fn *ready;
    kac_identify_fn *identify;
    kac_record_fn *record;
    kac_stop_fn *stop;
    kac_play_fn *play;
    kac_erase_fn *erase;
} kac_memory_ops;

/* ---- states: distinct rows of tokens and what is known of them --------------------------- */

/* Forgets every entry. */
typedef kac_status kac_clear_fn(kac_device *dev, kac_memo *memo);
kac_clear_fn kac_cpu_clear, kac_cuda_clear;

/* Forgets every entry but those named in refs[0 .. n-1] (negative ones name nothing) that have
 * a persistent slot; a ref to any other entry becomes -1.  The kept entries keep their number,
 * key, terms and slot. */
typedef kac_status kac_sweep_fn(kac_device *dev, kac_memo *memo, int32_t *refs, int32_t n);
kac_sweep_fn kac_cpu_sweep, kac_cuda_sweep;

/* entry[i] = -1 for i in 0 .. n-1: nothing is known of those rows. */
typedef kac_status kac_forget_fn(kac_device *dev, int32_t *entry, int32_t n);
kac_forget_fn kac_cpu_forget, kac_cuda_forget;

/* For each live row i of `rows` (types.h) with entry[i] < 0: entry[i] = the entry whose key
 * equals the row (hash, then comparison); where there is none, a new one.  New entries are
 * numbered by first appearance, get slot -1, and are listed: fresh->src[q] = i,
 * fresh->entry[q] = entry[i], for q in 0 .. *fresh->count - 1, in the order of i.  With
 * memo->reuse 0 every such row is new.  A memo with fewer free entries than rows->n is
 * swept first, with `entry` as refs, so its capacity must be >= rows->n plus the entries that
 * the caller refers to elsewhere. *made grows by the number of new entries; it may be NULL. */
typedef kac_status kac_find_fn(kac_device *dev, kac_memo *memo, const kac_rows *rows,
                               int32_t *entry, kac_fresh *fresh, int64_t *made);
kac_find_fn kac_cpu_find, kac_cuda_find;

/* Chooses where the results of fresh entries first .. first + batch - 1 go (those below
 * *fresh->count).  An entry whose state still has a `mask`, or any entry when memo->reuse is 0
 * or mask is negative, becomes a job: job->src[j] = fresh->src[q], job->dst[j] = slot[entry] = a
 * free slot, or where
 * no slot is free the spare slot memo->slots + (q - first); *job->count is the number of jobs.
 * Spare slots given by an earlier assign are taken back first (their entries get slot -1).
 * *made grows by the number of jobs. */
typedef kac_status kac_assign_fn(kac_device *dev, kac_memo *memo, int32_t mask,
                                 const kac_fresh *fresh, int32_t first, int32_t batch,
                                 kac_jobs *job, int64_t *made);
kac_assign_fn kac_cpu_assign, kac_cuda_assign;

/* out[i] = memo->terms[entry[i]], rows of memo->n_terms floats, i in 0 .. n-1; zeros where
 * entry[i] < 0. */
typedef kac_status kac_recall_fn(kac_device *dev, const kac_memo *memo, const int32_t *entry,
                                 int32_t n, float *out);
kac_recall_fn kac_cpu_recall, kac_cuda_recall;

/* memo->terms[fresh->entry[q]] = terms[q - first] for q in first .. first + batch - 1 below
 * *fresh->count. */
typedef kac_status kac_learn_fn(kac_device *dev, kac_memo *memo, const kac_fresh *fresh,
                                int32_t first, int32_t batch, const float *terms);
kac_learn_fn kac_cpu_learn, kac_cuda_learn;

/* to[dst[j]] = from[src[j]] for the jobs j in 0 .. *count - 1, rows of `bytes` bytes, a multiple of 4.
 * No two jobs have one dst; `from` and `to` do not overlap. */
typedef kac_status kac_carry_fn(kac_device *dev, const kac_jobs *jobs, int32_t bytes,
                                const void *from, void *to);
kac_carry_fn kac_cpu_carry, kac_cuda_carry;

typedef struct kac_states_ops {
    kac_clear_fn *clear;
    kac_sweep_fn *sweep;
    kac_forget_fn *forget;
    kac_find_fn *find;
    kac_assign_fn *assign;
    kac_recall_fn *recall;
    kac_learn_fn *learn;
    kac_carry_fn *carry;
} kac_states_ops;

/* ---- process: noise, children, completions ------------------------------------------------
 *
 * One table for each process, all of the same types; the comments say what the masked process
 * (absorbing diffusion) does, and then the Gaussian one where it is not the same in other
 * words.  Its numbers z are standard normal, number l of a vector from the draw at position
 * l / 2 (gaussian.h); it reads neither fixed, allowed nor temperature.  So with the graph process. */

/* Pure noise, level clock->level: everything masked, x[i][l] = mask for l < length, 0 in the
 * padding; with a->fixed, copies of that row.  x: [n][stride]. */
typedef kac_status kac_start_fn(kac_device *dev, const kac_start_args *a, uint8_t *x);
kac_start_fn kac_cpu_masked_start, kac_cuda_masked_start;
/* x[i][l] = noise z (purpose START), noise that of level clock->level. */
kac_start_fn kac_cpu_gaussian_start, kac_cuda_gaussian_start;
/* A number n of nodes, the first with a->nodes[n - 1] above word 0 of the draw at position L, and
 * noise of the level's `start` for the numbers of those nodes, number l from the draw at position
 * l / 2 (both purpose START). */
kac_start_fn kac_cpu_graph_start, kac_cuda_graph_start;

/* Draws `children` children of each particle for the move from level clock->level + 1 to
 * clock->level (tick comes first).  Child m of particle i is row i * children + m of y.  A
 * masked site is revealed when word 0 of its draw (purpose PROPOSE, the child, the position) is
 * below levels[clock->level + 1].reveal; its token then is the first k with
 * C_k > kac_below(draw, 1, C_S), C the running sum of kac_token_weight (masked.h) over the
 * logits of x's slot, tempered by a->temperature and twisted by a->twist.  Revealed sites are
 * copied.  y->entry[c] is x->entry[i] where the child equals its parent and a->keep_entries,
 * else -1.  y->ratio[c] is the sum over the sites revealed of log q(token) - log q'(token), both
 * normalised; 0 without a twist.
 * With a->retained, child 0 of the first slot of a group that holds a path becomes, instead of a
 * draw, the path's state at clock->level; its ratio is that of the letters it got. */
typedef kac_status kac_propose_fn(kac_device *dev, const kac_propose_args *a);
kac_propose_fn kac_cpu_masked_propose, kac_cuda_masked_propose;
/* y = keep x + pull d + spread (z + u) with the coefficients of level clock->level + 1
 * (purpose PROPOSE), u = spread scale tilt; y->entry[c] = -1.  y->ratio[c] is the log of the
 * normal density at y without u over the one with it, - sum of u z + u^2 / 2. */
kac_propose_fn kac_cpu_gaussian_propose, kac_cuda_gaussian_propose;
/* The move from level clock->level + 1 (graph.h): z (purpose CORRECT) as floats, z' (PROPOSE) to
 * floats without it, either of a->noise where that is given; at level 0 it ends in the object.
 * y->entry[c] = -1, and y->ratio[c] is as gaussian's, of z' alone.  With a->norms the corrector's norms are the means there, and
 * measure has come before. */
kac_propose_fn kac_cpu_graph_propose, kac_cuda_graph_propose;

/* For a move of all graphs together: *norms = those of the corrector's noise over all children and
 * of the score over all parents in use.  What several ranks have may be added up.  It leaves the
 * noise in y; a level without a corrector gives zeros.  Only graphs move together: UNSUPPORTED
 * of the others. */
typedef kac_status kac_measure_fn(kac_device *dev, const kac_propose_args *a, kac_norms *norms);
kac_measure_fn kac_cpu_graph_measure, kac_cuda_graph_measure;

/* out[q - first] = row fresh->src[q] of x with each masked site filled by its most likely token
 * (first on ties), q in first .. first + batch - 1 below *fresh->count; logits are those of the
 * entry's slot.  With a->every_row, instead out[i] for every row i of 0 .. a->n-1 at hand (as
 * imagine says).  out may not overlap x. */
typedef kac_status kac_complete_fn(kac_device *dev, const kac_complete_args *a, uint8_t *out);
kac_complete_fn kac_cpu_masked_complete, kac_cuda_masked_complete;
/* The estimate of x_0 that the entry's slot holds, zeros after it. */
kac_complete_fn kac_cpu_gaussian_complete, kac_cuda_gaussian_complete;
/* The estimate of x_0 (graph.h), as an object.  With a->entry NULL and a->every_row the objects
 * that rows 0 .. n-1 of x in use are nearest to, whatever has been evaluated. */
kac_complete_fn kac_cpu_graph_complete, kac_cuda_graph_complete;

/* The same with probabilities: out[q - first][l][k], shape [batch][length][S]: the denoiser's
 * tempered softmax at masked sites, one-hot at revealed ones. */
typedef kac_status kac_soften_fn(kac_device *dev, const kac_complete_args *a, float *out);
kac_soften_fn kac_cpu_masked_soften, kac_cuda_masked_soften;
/* The estimate again, [batch][length]. */
kac_soften_fn kac_cpu_gaussian_soften, kac_cuda_gaussian_soften;
/* The estimate itself, [batch][length]. */
kac_soften_fn kac_cpu_graph_soften, kac_cuda_graph_soften;

/* a->samples random completions of each row i of 0 .. a->n-1 whose logits are at hand in this
 * batch: out[i * samples + j], masked sites drawn independently (purpose COMPLETE, child
 * m * samples + j).  Rows at hand: those whose entry is fresh number first .. first+batch-1
 * (memo->order), and, when first is 0, those whose entry is not fresh. */
typedef kac_status kac_imagine_fn(kac_device *dev, const kac_complete_args *a, uint8_t *out);
kac_imagine_fn kac_cpu_masked_imagine, kac_cuda_masked_imagine;
/* Normal draws around the estimate with the level's deviation `guess`. */
kac_imagine_fn kac_cpu_gaussian_imagine, kac_cuda_gaussian_imagine;

/* out = dr / d logits through soften: p_k (g_k - sum_j p_j g_j) / temperature at masked sites,
 * where p = a->soft and g = a->reward; 0 at revealed ones.  out: [batch][L][S], row q - first. */
typedef kac_status kac_slope_fn(kac_device *dev, const kac_slope_args *a, float *out);
kac_slope_fn kac_cpu_masked_slope, kac_cuda_masked_slope;

/* tilt[fresh->entry[q]] = how r would change, to first order, if a masked site became letter k:
 * a->reward (with a->direct) + a->input at letter k, up to what all letters share; 0 at revealed
 * sites.  tilt: [..][L][S]. */
typedef kac_status kac_tilt_fn(kac_device *dev, const kac_slope_args *a, float *tilt);
kac_tilt_fn kac_cpu_masked_tilt, kac_cuda_masked_tilt;

/* x[i] = a noised copy of x0[i]: each site that a->fixed leaves free masked when word 0 of its draw
 * (purpose RENOISE, move = the level, particle = id of the row of x0) is below
 * 2^32 m(t_level). */
typedef kac_status kac_renoise_fn(kac_device *dev, const kac_renoise_args *a, uint8_t *x);
kac_renoise_fn kac_cpu_masked_renoise, kac_cuda_masked_renoise;
/* x[i] = scale x0[i] + noise z. */
kac_renoise_fn kac_cpu_gaussian_renoise, kac_cuda_gaussian_renoise;

/* out[i] = sum over sites masked in x[i] of log softmax(logits of slot[i])[x0 token], fp64 sum
 * in site order; untempered. */
typedef kac_status kac_score_fn(kac_device *dev, const kac_renoise_args *a, const uint8_t *x,
                                const int32_t *entry, const kac_memo *memo, double *out);
kac_score_fn kac_cpu_masked_score, kac_cuda_masked_score;
/* dr / d estimate: a->reward as it is. */
kac_slope_fn kac_cpu_gaussian_slope, kac_cuda_gaussian_slope;

/* tilt[fresh->entry[q]] = a->input [batch][length], the gradient through the denoiser; or where
 * a->soft is NULL a->reward, that at the state itself. */
kac_tilt_fn kac_cpu_gaussian_tilt, kac_cuda_gaussian_tilt;

/* Always UNSUPPORTED: the last move is a function, so objects have no density to bound. */
kac_score_fn kac_cpu_gaussian_score, kac_cuda_gaussian_score;

/* Classifier-free guidance: in row dst[j] of logits, for each job j,
 *   log p = (1 + w) log p_1 - w log p_2
 * site by site, where p_1, p_2 are the softmax of that row and of a->other; not normalised.  A
 * letter that p_1 excludes stays excluded, and log p_2 counts as -100 at least.
 * Ho & Salimans, "Classifier-free diffusion guidance", 2022; for discrete states Nisonoff et al.,
 * "Unlocking guidance for discrete state-space diffusion and flow models", ICLR 2025. */
typedef kac_status kac_blend_fn(kac_device *dev, const kac_blend_args *a, float *logits);
kac_blend_fn kac_cpu_masked_blend, kac_cuda_masked_blend;

/* Masks a->sites of the sites that a->fixed leaves free in each row of x, every such subset with
 * the same probability (purpose REMASK, the particle, the position).  x: [n][stride]. */
typedef kac_status kac_remask_fn(kac_device *dev, const kac_remask_args *a, uint8_t *x);
kac_remask_fn kac_cpu_masked_remask, kac_cuda_masked_remask;

/* Of vectors, in row dst[j] of logits [length + 1], for each job j, from d_1 there and d_2 in
 * a->other [jobs->capacity][length]:
 *   d = (1 + w) d_1 - w d_2, and behind it the clash B w (1 + w) |d_1 - d_2|^2 (gaussian.h). */
kac_blend_fn kac_cpu_gaussian_blend, kac_cuda_gaussian_blend;

/* Always UNSUPPORTED: vectors have no letters. */
kac_remask_fn kac_cpu_gaussian_remask, kac_cuda_gaussian_remask;

/* dr / d answer through the estimate; 0 where the state has no number. */
kac_slope_fn kac_cpu_graph_slope, kac_cuda_graph_slope;

/* dr / dx through the estimate, a->input being what comes through the answer; or where a->soft is
 * NULL a->reward; 0 where the state has no number. */
kac_tilt_fn kac_cpu_graph_tilt, kac_cuda_graph_tilt;

/* Always UNSUPPORTED: configurations that would come here with graphs are refused. */
kac_imagine_fn kac_cpu_graph_imagine, kac_cuda_graph_imagine;
kac_blend_fn kac_cpu_graph_blend, kac_cuda_graph_blend;
kac_renoise_fn kac_cpu_graph_renoise, kac_cuda_graph_renoise;
kac_score_fn kac_cpu_graph_score, kac_cuda_graph_score;
kac_remask_fn kac_cpu_graph_remask, kac_cuda_graph_remask;

typedef struct kac_process_ops {
    kac_start_fn *start;
    kac_blend_fn *blend;
    kac_measure_fn *measure;
    kac_propose_fn *propose;
    kac_complete_fn *complete;
    kac_soften_fn *soften;
    kac_imagine_fn *imagine;
    kac_slope_fn *slope;
    kac_tilt_fn *tilt;
    kac_renoise_fn *renoise;
    kac_score_fn *score;
    kac_remask_fn *remask;
} kac_process_ops;

/* ---- particles: banks, weights, selection ------------------------------------------------ */

/* The clock moves on: move += 1, level -= 1. */
typedef kac_status kac_tick_fn(kac_device *dev, kac_clock *clock);
kac_tick_fn kac_cpu_tick, kac_cuda_tick;

/* Values of the children.  For child c of a particle of group g: with J = a->samples completions
 * of terms [n * M * J][columns],
 *   r_j      = kac_objective_reward(objective, group_weight[g], terms[c * J + j], price)
 *   value[c] = r_0 for J = 1, else alpha_g log mean_j exp(r_j / alpha_g)        (reward units)
 * (objective.h), price = INFINITY at level 0 and a->price before it.
 * Without terms (a->terms NULL) it is 0.  Terms of weight zero without bounds are
 * not looked at.  A NaN term or +INFINITY sets a->fault (lowest child wins; the term is its index
 * in the objective); where a->invalid_is_worst both count as -INFINITY instead. */
typedef kac_status kac_value_fn(kac_device *dev, const kac_weigh_args *a);
kac_value_fn kac_cpu_value, kac_cuda_value;

/* dr / d columns first_column .. first_column + n - 1 of a row of terms, by the weights of the
 * row's group: out[q - first][j], from a->terms (kac_objective_gradient). */
typedef kac_status kac_cotangent_fn(kac_device *dev, const kac_slope_args *a,
                                    int32_t first_column, int32_t n, float *out);
kac_cotangent_fn kac_cpu_cotangent, kac_cuda_cotangent;

/* y[i] += a x[i], i in 0 .. n-1. */
typedef kac_status kac_axpy_fn(kac_device *dev, int64_t n, float a, const float *x, float *y);
kac_axpy_fn kac_cpu_axpy, kac_cuda_axpy;

/* The groups' tempering exponents lambda at this level: levels[clock->level].temper; or with
 * KAC_TEMPER_ESS, for each pool, the largest from its present one to 1 at which the ESS of the
 * candidates' weights is not below a->temper_below (bisection; integer weights).  At level 0
 * lambda = 1.  Nothing changes without terms. */
typedef kac_status kac_temper_fn(kac_device *dev, const kac_weigh_args *a);
kac_temper_fn kac_cpu_temper, kac_cuda_temper;

/* Banks and log-weights of the children, with v = lambda_g value[c] / alpha_g, where before level
 * 0 a value of -INFINITY is the least one above that of its siblings, less a->price:
 *   bank, stat = kac_bank(potential, v, parent's bank and stat, last level?)   (particles.h)
 *   log_w = parent's log_w + bank - parent's bank - log M (+ ratio[c] with a->use_ratio)
 * Level clock->level == 0 is the last: bank = v.  Without terms the bank stays. */
typedef kac_status kac_weigh_fn(kac_device *dev, const kac_weigh_args *a);
kac_weigh_fn kac_cpu_weigh, kac_cuda_weigh;

/* The parent stage: among the M children of each particle keeps K, written to
 * pick[i * K ..] (row of y) with log-weights log_w[i * K ..]:
 *   none:        all, K = M, log-weights as they are
 *   categorical: one with probability proportional to exp(log_w), purpose PARENT; the new
 *                log-weight is log sum exp (normaliser keep) or the parent's (discard)
 *   argmax:      the largest (first on ties); the parent's log-weight
 *   top_k:       the K largest in order (value, then index); the parent's log-weight
 * A parent whose children all have weight zero: pick is its child 0, log-weight -INFINITY.
 * categorical keeps child 0 of a retained particle (a->held). */
typedef kac_status kac_select_parent_fn(kac_device *dev, const kac_select_args *a);
kac_select_parent_fn kac_cpu_select_parent, kac_cuda_select_parent;

/* The group stage: for each pool of groups, from its C = N K candidates decides by the level's
 * trigger and the ESS (in integers) whether to select, and if so draws offspring by rule and
 * scheme (purpose GROUP).  There are as many as slots, or levels[clock->level].particles for each
 * group where that is not 0, in slots counted anew from 0; such a level must select (trigger
 * always), and the number may only fall.  chosen[slot] = row of y; log_w[slot] its
 * log-weight; the group's log_z, ess, selected, dead.  Weights: particles.h.  With a->weights
 * other than proper they are made of the candidates' values, and the groups' log_z stays.  Rule replace: the
 * floor(fraction N) of least weight, one at least, give way to draws by weight from the others.
 * A pool without trigger keeps candidate i K for slot i.  A pool whose weights are all zero: dead
 * = 1, log_z = -INFINITY, survivors as
 * without trigger; a->fault is set under on_dead error.  A group with a->held draws, by multinomial
 * or killing, from the law of that scheme given that candidate 0 goes on, and gives it the first
 * slot. */
typedef kac_status kac_select_group_fn(kac_device *dev, const kac_select_args *a);
kac_select_group_fn kac_cpu_select_group, kac_cuda_select_group;

/* The survivors become the particles: x[slot] = y[chosen[slot]], slot in 0 .. x->n-1, in every
 * array but log_w, and eve from the parent.  With stride 0 there are no states. */
typedef kac_status kac_survive_fn(kac_device *dev, const kac_particles *y, int32_t children,
                                  const int32_t *chosen, kac_particles *x,
                                  int32_t *scratch /* [n] */);
kac_survive_fn kac_cpu_survive, kac_cuda_survive;

/* The table of groups after a level at which their number of particles falls: offsets and counts
 * by levels[clock->level].particles, and group[i] of every slot i that is left. */
typedef kac_status kac_regroup_fn(kac_device *dev, const kac_level *levels,
                                  const kac_clock *clock, int32_t n_groups, kac_group *groups,
                                  int32_t *group);
kac_regroup_fn kac_cpu_regroup, kac_cuda_regroup;

/* A new start at a->level: log-weights and banks 0, stats as at the beginning, the groups' log_z
 * 0, and with a->eves everyone a first ancestor.  The clock's move stays: it never repeats. */
typedef kac_status kac_reset_fn(kac_device *dev, const kac_reset_args *a);
kac_reset_fn kac_cpu_reset, kac_cuda_reset;

/* chosen[slot] = one of the objects of its group, drawn in proportion to exp(strength r / alpha)
 * (purpose RENEW, position = the slot's index in the group), r = x->value; where all weights of a
 * group are zero, its own. */
typedef kac_status kac_renew_fn(kac_device *dev, const kac_renew_args *a);
kac_renew_fn kac_cpu_renew, kac_cuda_renew;

/* The particles of each group become the best by value of `past` and `now` together, distinct
 * ones first; on ties what was there first.  They have equal weights, but none where the value is
 * -INFINITY. */
typedef kac_status kac_elect_fn(kac_device *dev, const kac_elect_args *a);
kac_elect_fn kac_cpu_elect, kac_cuda_elect;

/* Draws one particle of each group by weight (purpose RETAIN) and retains its path: the states
 * that led to it.  A group whose weights are all zero keeps the path that it has. */
typedef kac_status kac_retrace_fn(kac_device *dev, const kac_retrace_args *a);
kac_retrace_fn kac_cpu_retrace, kac_cuda_retrace;

/* *nanoseconds = the device's clock, which runs on while nothing is queued. */
typedef kac_status kac_stamp_fn(kac_device *dev, int64_t *nanoseconds);
kac_stamp_fn kac_cpu_stamp, kac_cuda_stamp;

/* *out = the step that has just been made, in a few numbers. */
typedef kac_status kac_summarise_fn(kac_device *dev, const kac_summary_args *a,
                                    kac_summary *out);
kac_summarise_fn kac_cpu_summarise, kac_cuda_summarise;

/* A round of tries: the clock goes back to a->level, and every group that has not more than N
 * tries alive makes N more.  Each begins as a particle of the group, drawn in proportion to its
 * weight (purpose REVIVE, position = the try), with log-weight 0.  The tries are the first
 * *live rows, group by group. */
typedef kac_status kac_recruit_fn(kac_device *dev, const kac_revive_args *a);
kac_recruit_fn kac_cpu_recruit, kac_cuda_recruit;

/* Between two levels: the tries x become their only children y, with their log-weights. */
typedef kac_status kac_follow_fn(kac_device *dev, const kac_particles *y, kac_particles *x);
kac_follow_fn kac_cpu_follow, kac_cuda_follow;

/* After the last move of a round, whose objects are y: the tries of each group are counted in
 * order until N + 1 of them are alive.  The first N of those are kept; as long as there are
 * fewer, forbidden ones stand in. */
typedef kac_status kac_enlist_fn(kac_device *dev, const kac_revive_args *a,
                                 const kac_particles *y);
kac_enlist_fn kac_cpu_enlist, kac_cuda_enlist;

/* After the last round: what is kept becomes the particles, each with the log-weight of its try
 * plus log(N / K), where K is the number of tries before the one that made N + 1 alive, or of
 * all where none did; log_z takes in the weights that the tries were drawn by.  A group with no
 * try alive is dead. */
typedef kac_status kac_settle_fn(kac_device *dev, const kac_revive_args *a);
kac_settle_fn kac_cpu_settle, kac_cuda_settle;

typedef struct kac_particle_ops {
    kac_tick_fn *tick;
    kac_value_fn *value;
    kac_cotangent_fn *cotangent;
    kac_axpy_fn *axpy;
    kac_temper_fn *temper;
    kac_weigh_fn *weigh;
    kac_select_parent_fn *select_parent;
    kac_select_group_fn *select_group;
    kac_survive_fn *survive;
    kac_regroup_fn *regroup;
    kac_reset_fn *reset;
    kac_renew_fn *renew;
    kac_elect_fn *elect;
    kac_retrace_fn *retrace;
    kac_stamp_fn *stamp;
    kac_summarise_fn *summarise;
    kac_recruit_fn *recruit;
    kac_follow_fn *follow;
    kac_enlist_fn *enlist;
    kac_settle_fn *settle;
} kac_particle_ops;

/* ---- search: trees of noisy states --------------------------------------------------------
 */

/* Group g has the rows g each .. (g + 1) each - 1: offset and count of every group, and group[i]
 * of every row. */
typedef kac_status kac_spread_fn(kac_device *dev, int32_t n_groups, int32_t each,
                                 kac_group *groups, int32_t *group);
kac_spread_fn kac_cpu_spread, kac_cuda_spread;

/* y->log_w[c] = x->log_w[c / children] + y->value[c]: scores of paths, the sum of the values
 * on them.  c in 0 .. x->n * children - 1. */
typedef kac_status kac_path_fn(kac_device *dev, const kac_particles *x, int32_t children,
                               kac_particles *y);
kac_path_fn kac_cpu_path, kac_cuda_path;

/* Each root goes on with its best leaf (first on ties), and of the roots of a group the `keep`
 * with the best such leaves (lower root on ties), in the order that they had. */
typedef kac_status kac_prune_fn(kac_device *dev, const kac_prune_args *a);
kac_prune_fn kac_cpu_prune, kac_cuda_prune;

/* Every tree becomes its node 0: a copy of row g each of a->x. */
typedef kac_status kac_tree_plant_fn(kac_device *dev, const kac_tree_args *a);
kac_tree_plant_fn kac_cpu_tree_plant, kac_cuda_tree_plant;

/* From the root of each tree goes down by the policy to a node that is an object, or that has
 * fewer than children visits^widening children.  Policies:
 *   uct   the largest (value - low) / (high - low) + explore sqrt(log visits / the child's
 *         visits), first child on ties
 *   soft  a child in proportion to exp(value / alpha) (purpose TREE, position: the depth)
 * All rows of the tree become that node: x, entry, at; from = the node's level, to = the level
 * of the next depth, or with `ahead` 0.  Rows at an object are idle: from = to = 0.
 * *idle grows by what the rows will be asked about in vain from the present level down. */
typedef kac_status kac_tree_select_fn(kac_device *dev, const kac_tree_args *a);
kac_tree_select_fn kac_cpu_tree_select, kac_cuda_tree_select;

/* After tick and propose: rows with to <= level < from become their y.  Where a depth lies at
 * the level, each of them becomes a new node, a child of its latest one. */
typedef kac_status kac_tree_advance_fn(kac_device *dev, const kac_tree_args *a);
kac_tree_advance_fn kac_cpu_tree_advance, kac_cuda_tree_advance;

/* The values of the rows go up from their latest nodes to node 0, row by row: visits, sums, and
 *   mean  value = sum / visits
 *   max   value = the largest that came up
 *   soft  value = alpha log mean exp(value of child / alpha) over the children
 * Where rows are idle, one visit and the value of the object itself go up. */
typedef kac_status kac_tree_backup_fn(kac_device *dev, const kac_tree_args *a);
kac_tree_backup_fn kac_cpu_tree_backup, kac_cuda_tree_backup;

/* The root of each tree moves to its most visited child (larger value, then first on ties). */
typedef kac_status kac_tree_commit_fn(kac_device *dev, const kac_tree_args *a);
kac_tree_commit_fn kac_cpu_tree_commit, kac_cuda_tree_commit;

/* Objects of the trees: out->x and out->value of row i, n_trees each rows in all, are those of
 * the node that policy soft reaches from the root of tree i / each (particle: i % each). */
typedef kac_status kac_tree_draw_fn(kac_device *dev, const kac_tree_args *a, int32_t each,
                                    kac_particles *out);
kac_tree_draw_fn kac_cpu_tree_draw, kac_cuda_tree_draw;

typedef struct kac_search_ops {
    kac_spread_fn *spread;
    kac_path_fn *path;
    kac_prune_fn *prune;
    kac_tree_plant_fn *plant;
    kac_tree_select_fn *select;
    kac_tree_advance_fn *advance;
    kac_tree_backup_fn *backup;
    kac_tree_commit_fn *commit;
    kac_tree_draw_fn *draw;
} kac_search_ops;

/* ---- tables ------------------------------------------------------------------------------ */

typedef struct kac_ops {
    const char *name;
    kac_memory_ops memory;
    kac_states_ops states;
    kac_process_ops masked;
    kac_process_ops gaussian;
    kac_process_ops graph;
    kac_particle_ops particles;
    kac_search_ops search;
    kac_network_ops networks; /* networks.h */
} kac_ops;

extern const kac_ops kac_cpu_ops;

/* One struct for every backend. */
struct kac_device {
    const kac_ops *ops;
    int ordinal;
    kac_isa isa; /* CPU: which micro-kernels */
    /* CUDA */
    kac_precision precision; /* of the networks that are packed from now on */
    void *stream;            /* cudaStream_t */
    void *scratch; /* device memory that one operation may use until the next begins */
    size_t scratch_bytes;
    bool records;  /* a sequence of operations can be recorded */
    int64_t waits; /* times that the host has waited for the device */
};

#ifdef __cplusplus
}
#endif
#endif /* KAC_OPS_H */
