/* types.h -- the data that operations share.  Pointers are device memory. */
#ifndef KAC_TYPES_H
#define KAC_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kac_device kac_device;

/* CPU instruction sets with their own micro-kernels; all give the same bits. */
typedef enum kac_isa { KAC_ISA_PORTABLE, KAC_ISA_AVX2, KAC_ISA_AVX512 } kac_isa;

/* How a GPU multiplies in convolutions.  Exact: the bits of the CPU.  Else factors are rounded
 * to 10 (tf32) or 7 (bf16) bits after the point, for the tensor cores; sums are float32. */
typedef enum kac_precision {
    KAC_PRECISION_EXACT,
    KAC_PRECISION_TF32,
    KAC_PRECISION_BF16,
} kac_precision;

enum { KAC_MAX_STATES = 32, KAC_MAX_CHILDREN = 4096, KAC_MAX_TERMS = 16 };

/* ---- process ---------------------------------------------------------------------------- */

/* What the rows of states look like.  Masked process: a byte, the token, for each site.
 * Gaussian process: L floats, the vector x; where moves look back (order 2), L more, the
 * denoiser's estimate one level up.  Objects have the same rows, with zeros there.  Graph
 * process: L floats as graph.h says. */
typedef struct kac_shape {
    int32_t length;          /* L, sites; numbers of a vector */
    int32_t states;          /* S, letters; token S is the mask.  Vectors: 1 */
    int32_t stride;          /* bytes of a row, rounded up to 16; padding is 0 */
    int32_t nodes, features; /* graphs: N and F; else 0 */
} kac_shape;

/* A level k of the Gaussian process, x_k = scale x_0 + noise e with e standard normal, and the
 * move from it to level k - 1 (gaussian.h). */
typedef struct kac_gaussian_level {
    double scale, noise; /* level 0: 1 and 0 */
    double keep, pull;   /* the move: mean = keep x_k + pull d, d the estimate of x_0 */
    double spread;       /* and standard deviation; 0: the move is a function */
    double extrapolate;  /* d = d_k + extrapolate (d_k - d_{k+1}); 0 in order 1 */
    double guess;        /* standard deviation of drawn completions around d_k */
    double anneal;       /* B: what is sampled is a power of the denoiser's law (gaussian.h) */
    double weigh;        /* the move's increment of the log-weight */
    double offset;       /* is more by this for each number of the vector */
} kac_gaussian_level;

/* One part of a graph, its nodes or its pairs, at a level, x_k = scale x_0 + noise e, and its
 * move from there to the level below (graph.h). */
typedef struct kac_graph_part {
    double scale, noise;
    double start;               /* deviation of what chains start from */
    double of_state, of_answer; /* the score is of_state x + of_answer times the answer */
    double pace;                /* corrector: 2 alpha snr^2; 0: none */
    double keep, push, spread;  /* and then keep x + push score + spread z */
} kac_graph_part;

typedef struct kac_graph_level {
    int32_t corrects;       /* pace is above 0 */
    double heat;            /* of the corrector's noise */
    kac_graph_part part[2]; /* nodes, pairs */
} kac_graph_level;

/* One level of the time grid; level T is noise, level 0 the end. */
typedef struct kac_level {
    double t;          /* time, as the schedule counts it */
    double mask;       /* m(t): probability that a site is masked */
    float sigma;       /* what a denoiser that reads t is fed */
    int32_t trigger;   /* group selection on arriving here: KAC_TRIGGER_... */
    int32_t particles; /* of each group from here on; 0: as many as before */
    double
        temper; /* tempering exponent of the values at this level, 0 .. 1; at level 0 it is 1 */
    uint64_t reveal; /* the move from here to the next lower level reveals a masked site when
                        its 32-bit word is below this; 0 .. 2^32 */
    kac_gaussian_level gaussian;
    kac_graph_level graph;
} kac_level;

typedef enum kac_trigger { KAC_TRIGGER_NEVER, KAC_TRIGGER_ALWAYS, KAC_TRIGGER_ESS } kac_trigger;

/* Where the run is: level of the particles, and the number of moves made so far. */
typedef struct kac_clock {
    int32_t level;
    int32_t move;
} kac_clock;

/* Norms of the rows of a population, added up exactly: whole / 1 + part / 2^32 of each of a graph's
 * parts (graph.h). */
typedef struct kac_norms {
    int64_t whole[2][2], part[2][2]; /* of the corrector's noise, of the score; nodes, pairs */
    int64_t rows[2];                 /* children, parents */
} kac_norms;

/* ---- objective -------------------------------------------------------------------------- */

typedef enum kac_combine {
    KAC_COMBINE_SUM,
    KAC_COMBINE_PRODUCT,
    KAC_COMBINE_MIN,
    KAC_COMBINE_LOWER_BOUND,
} kac_combine;

/* How a reward term enters the reward; NaN where something is not given. */
typedef struct kac_term {
    int32_t column;           /* in a row of terms; -1: recorded elsewhere, never looked at */
    double low, high;         /* desirability 0 and 1 */
    double at_least, at_most; /* outside, the object is forbidden */
} kac_term;

/* The reward as a function of a row of terms: objective.h. */
typedef struct kac_objective {
    kac_combine combine;
    double kappa; /* lower_bound */
    int32_t terms;
    kac_term term[KAC_MAX_TERMS];
} kac_objective;

/* ---- population ------------------------------------------------------------------------- */

/* A set of particles that compete with each other. */
typedef struct kac_group {
    int32_t offset; /* first slot */
    int32_t count;  /* particles */
    int32_t id;     /* global index: keys the random numbers */
    int32_t target; /* groups with one target are replicates */
    double alpha;
    /* what the run writes */
    double lambda;    /* tempering exponent in force: values count lambda r / alpha */
    double log_z;     /* log of the weight cashed in so far */
    double ess;       /* of the candidates at the latest group stage / their number */
    int32_t selected; /* the latest group stage drew survivors */
    int32_t dead;     /* every weight is zero */
    int32_t tries;    /* on_dead revive: tries so far, up to the one that was enough */
    int32_t alive;    /* those of them with a weight; more than `count` are enough */
} kac_group;

/* Particles or children: parallel arrays of n rows. */
typedef struct kac_particles {
    int32_t n;
    int32_t stride; /* bytes of a row of x; 0: the states are elsewhere */
    uint8_t *x;     /* [n][stride] tokens */
    double *log_w;  /* [n] log-weight since the group last cashed in */
    double *bank;   /* [n] log of the product of all potentials so far */
    double *stat;   /* [n] running max or sum of values, units of r / alpha */
    double *value;  /* [n] latest value, units of r */
    double *ratio; /* [n] log of the denoiser's kernel over the one drawn from; children only */
    int32_t *entry;      /* [n] entry of the memo of evaluations that holds x, or -1 */
    int32_t *eve;        /* [n] slot of the first ancestor; unused in children */
    int32_t *group;      /* [n] index in the table of groups; unused in children */
    const int32_t *live; /* device scalar: parents in use, the first ones; NULL: all n */
} kac_particles;

/* Particle Gibbs: a path for each group, which the particle in the group's first slot follows. */
typedef struct kac_retained {
    int32_t levels; /* T */
    uint8_t *path;  /* [G][T][stride] row k: its state at level k, nothing filled in yet */
    int32_t *held;  /* [G] 1: the group has one */
} kac_retained;

/* The first thing that went wrong in the loop (fault.h); 0: nothing has. */
typedef struct kac_fault {
    uint64_t number;
} kac_fault;

/* A window of rows of tokens: rows 0 .. min(*count - first, n) - 1 of x are live. */
typedef struct kac_rows {
    const uint8_t *x;     /* [n][stride] */
    const int32_t *count; /* device scalar, or NULL: all n */
    int32_t first;
    int32_t n;
} kac_rows;

/* ---- memo: distinct states and their results --------------------------------------------- */

/* Entries are distinct states; an entry has a key, terms (a few floats), and where the denoiser
 * was run on it a slot: a row of logits.  Two memos exist: evaluations (logits and the terms of
 * the completion) and rewards (terms only, slots = 0). */
typedef struct kac_memo {
    int32_t capacity;    /* entries */
    int32_t buckets;     /* power of two >= 2 capacity */
    int32_t stride;      /* bytes of a key */
    int32_t slots;       /* rows of logits that persist; `spare` more follow them */
    int32_t spare;       /* rows that live until the next assign */
    int32_t slot_floats; /* floats of a row of logits, L S; vectors of two denoisers: L + 1 */
    int32_t n_terms;
    int32_t reuse;         /* 0: every row asked for is a new entry */
    uint8_t *keys;         /* [capacity][stride] */
    uint64_t *hash;        /* [capacity] */
    int32_t *table;        /* [buckets] entry or -1 */
    int32_t *live;         /* [capacity] 1: in use */
    int32_t *free_entries; /* [capacity] stack of free entries, popped from the end */
    int32_t *free_slots;   /* [slots] stack of free slots, popped from the end */
    int32_t *slot;         /* [capacity] row of logits, or -1 */
    int32_t *order;        /* [capacity] number in the latest fresh list, or -1 */
    int32_t *spare_owner;  /* [spare] entry that holds spare row i, or -1 */
    int32_t *counts;       /* [2] free entries, free slots */
    float *terms;          /* [capacity][n_terms] */
    float *logits;         /* [slots + spare][slot_floats] */
} kac_memo;

/* Entries made by the latest find, in order. */
typedef struct kac_fresh {
    int32_t *src;   /* [capacity] row asked for */
    int32_t *entry; /* [capacity] */
    int32_t *count; /* device scalar */
    int32_t capacity;
} kac_fresh;

/* Rows for a network to run. */
typedef struct kac_jobs {
    int32_t *src;   /* [capacity] row of the states */
    int32_t *dst;   /* [capacity] row of the result */
    int32_t *count; /* device scalar */
    int32_t capacity;
} kac_jobs;

/* ---- arguments of more than eight ---------------------------------------------------------
 */

typedef struct kac_start_args {
    kac_shape shape;
    const kac_level *levels; /* [T + 1] */
    const kac_clock *clock;
    const kac_group *groups;
    const int32_t *group;  /* [n] index of the particle's group */
    const uint8_t *fixed;  /* [stride] a row to start from, masks where free; or NULL */
    const uint64_t *nodes; /* graphs: [N] 2^32 P(at most k + 1 nodes); else NULL */
    uint64_t seed;
    int32_t n;
} kac_start_args;

/* How the letters of a masked site are drawn instead of from the denoiser's law q alone: from
 * q' ~ q exp(scale tilt) over the letters allowed.  tilt [rows][L][S], units of r; what is not
 * a number counts as 0.  A vector's tilt is the gradient of r; the normal density of the move
 * times exp(scale tilt y) is one whose mean is shifted by scale spread^2 tilt. */
typedef struct kac_twist {
    const float *tilt;       /* or NULL: none */
    const int32_t *row;      /* [n] row of each parent */
    const uint32_t *allowed; /* [L] bit k: letter k may appear at the site; or NULL: all may */
    double scale;            /* divided by the group's alpha and times its lambda */
} kac_twist;

typedef struct kac_propose_args {
    kac_shape shape;
    const kac_level *levels; /* [T + 1] */
    const kac_clock *clock;
    const kac_group *groups;
    const kac_particles *x; /* parents (host struct of device arrays) */
    const kac_memo *memo;   /* holds the parents' logits */
    uint64_t seed;
    int32_t children;
    float temperature;
    int32_t keep_entries;   /* an unchanged child keeps its parent's entry */
    int32_t look_back;      /* vectors: rows hold the estimate one level up */
    const kac_norms *norms; /* graphs: what measure gave, device; NULL: each has its own */
    kac_twist twist;
    const kac_retained *retained; /* host struct, or NULL: nobody follows a path */
    const float *noise[2];        /* graphs: [n children][L] numbers z and z' instead of draws;
                                   * NULL: they are drawn */
    kac_fault *fault;             /* a NaN logit that is used sets it, term -1 */
    kac_particles *y;             /* out: tokens, entries and ratios */
} kac_propose_args;

typedef struct kac_complete_args {
    kac_shape shape;
    const kac_clock *clock;
    const kac_group *groups;
    const kac_level *levels; /* [T + 1] */
    const uint8_t *x;        /* [n][stride] */
    const int32_t *entry;    /* [n]; NULL, graphs with every_row: what x itself is nearest to */
    const int32_t *group;    /* imagine: [n / children] index of the parent's group */
    const kac_memo *memo;
    const kac_fresh *fresh;
    kac_fault *fault; /* complete: a NaN logit at a masked site sets it, term -1 */
    uint64_t seed;
    int32_t n;
    const int32_t *live; /* every_row: rows in use as in kac_particles, one child each */
    int32_t first;
    int32_t batch;
    int32_t children;        /* row i is child i % children of slot i / children */
    int32_t samples;         /* imagine */
    int32_t every_row;       /* complete: rows of x rather than fresh entries */
    const uint32_t *allowed; /* as in kac_twist */
    float temperature;
} kac_complete_args;

/* Rows of logits that two networks gave for the same jobs. */
typedef struct kac_blend_args {
    const kac_jobs *jobs;
    int32_t length, states;
    double guidance; /* w */
    double anneal;   /* vectors: B */
    const float
        *other; /* [jobs->capacity][L][S] log-odds of the second network, row j for job j */
} kac_blend_args;

typedef struct kac_renoise_args {
    kac_shape shape;
    const kac_level *levels; /* [T + 1] */
    const uint8_t *fixed;    /* as in kac_start_args: its letters are never masked */
    const uint8_t *x0;       /* [n][stride] */
    const int32_t *id;       /* [n] identity that keys the draws of row i of x0 */
    uint64_t seed;
    int32_t n;     /* rows of x0 */
    int32_t level; /* of the noise, 0 .. T */
} kac_renoise_args;

/* Gradients at fresh rows first .. first + batch - 1 of x, row q - first of each array. */
typedef struct kac_slope_args {
    kac_shape shape;
    const kac_level *levels; /* [T + 1] */
    const kac_clock *clock;
    const kac_group *groups;
    const int32_t *group; /* of each row of x */
    kac_objective objective;
    const double *group_weight; /* [groups][objective.terms] */
    const float *terms; /* [batch][columns] at a->soft; NULL: one column, and r is linear */
    int32_t columns;
    const uint8_t *x; /* [n][stride] */
    const kac_fresh *fresh;
    int32_t first;
    int32_t batch;
    float temperature;
    const float *soft;   /* [batch][L][S] what soften gives; NULL: r is one of the state */
    const float *reward; /* [batch][L][S] dr / d soft */
    const float *input;  /* [batch][L][S + 1] dr / d input of the denoiser, or NULL: left out */
    int32_t direct;      /* tilt: dr / d soft counts */
} kac_slope_args;

typedef enum kac_potential {
    KAC_POTENTIAL_DIFFERENCE,
    KAC_POTENTIAL_MAX,
    KAC_POTENTIAL_SUM,
    KAC_POTENTIAL_TERMINAL,
} kac_potential;

typedef enum kac_temper { KAC_TEMPER_LEVEL, KAC_TEMPER_ESS } kac_temper;

/* From terms to values, to tempering exponents, to log-weights. */
typedef struct kac_weigh_args {
    const kac_clock *clock;
    const kac_level *levels;   /* [T + 1] */
    kac_group *groups;         /* lambda out */
    const int32_t *pool_first; /* [pools + 1] as in kac_select_args */
    int32_t pools;
    kac_objective objective;
    const double *group_weight; /* [groups][objective.terms] weights of the reward terms */
    const kac_particles *x;     /* parents */
    const float *terms;         /* [n M samples][columns], or NULL: no value at this level */
    int32_t columns;
    int32_t children; /* M */
    int32_t samples;  /* J */
    kac_potential potential;
    double price; /* of being outside of bounds before level 0 (objective.h), units of r */
    int32_t invalid_is_worst;
    int32_t use_ratio; /* 1: log-weights take in y->ratio */
    kac_temper temper;
    int32_t temper_below; /* ess: solved for ESS = below / 2^16 of the candidates' number */
    kac_fault *fault;
    kac_particles *y; /* value, then log_w, bank, stat out */
} kac_weigh_args;

typedef enum kac_rule {
    KAC_RULE_NONE,
    KAC_RULE_CATEGORICAL,
    KAC_RULE_ARGMAX,
    KAC_RULE_TOP_K,
    KAC_RULE_REPLACE, /* groups only: the worst give way to copies of the others */
} kac_rule;

typedef enum kac_scheme {
    KAC_SCHEME_TOURNAMENT,
    KAC_SCHEME_SYSTEMATIC,
    KAC_SCHEME_STRATIFIED,
    KAC_SCHEME_RESIDUAL,
    KAC_SCHEME_MULTINOMIAL,
    KAC_SCHEME_KILLING, /* needs one candidate a particle */
} kac_scheme;

/* What a group selects by. */
typedef enum kac_weights {
    KAC_WEIGHTS_PROPER, /* its weights */
    KAC_WEIGHTS_VALUE,  /* exp(value / alpha) */
    KAC_WEIGHTS_SCALED, /* exp(value / the pool's largest |value|) */
} kac_weights;

/* Both stages of selection.  A pool is a group, or with scope `global` all groups of a target:
 * pool p holds the slots of groups pool_first[p] .. pool_first[p + 1] - 1, which are
 * consecutive; its draws are keyed by the id of its first group, the position says which draw.
 */
typedef struct kac_select_args {
    const kac_clock *clock;
    const kac_level *levels;
    kac_group *groups;         /* log_z, ess, selected, dead out (same for all of a pool) */
    const int32_t *pool_first; /* [pools + 1] */
    int32_t pools;
    uint64_t seed;
    const kac_particles *x; /* parents */
    const kac_particles *y; /* children with their log_w */
    int32_t children;       /* M */
    kac_rule parent_rule;
    int32_t keep_normaliser;
    int32_t keep; /* K candidates a particle after the parent stage */
    kac_rule group_rule;
    kac_scheme scheme;
    kac_weights weights;
    double fraction; /* replace: of the pool's slots */
    int32_t below;   /* select when ESS < below / 2^16 of the candidates' number */
    int32_t dead_is_error;
    const int32_t *held; /* [groups] as in kac_retained, or NULL: conditional selection */
    kac_fault *fault;
    int32_t *pick;      /* [n K] between the stages: rows of y */
    double *pick_w;     /* [n K] their log-weights */
    uint64_t *weight;   /* [n K] scratch */
    int32_t *offspring; /* [n K] scratch */
    int32_t *chosen;    /* [survivors] out: rows of y */
    double *log_w;      /* [survivors] out: may be x->log_w */
} kac_select_args;

/* A step in a few numbers. */
typedef struct kac_summary {
    double t;              /* of the level */
    double value[3];       /* 10 %, 50 %, 90 % quantiles of the particles' values */
    double ess, ess_least; /* mean and least of the groups */
    int32_t selected;      /* groups that selected */
    int32_t eves;          /* distinct first ancestors */
    int32_t distinct;      /* distinct states */
    int64_t tries;         /* on_dead revive, of all groups so far */
    int64_t made[4];       /* evaluations so far, as the run counts them */
    int64_t idle[2];       /* rows asked about while idle, so far: see who counts them */
    int64_t nanoseconds;   /* when, by the device's clock */
} kac_summary;

typedef struct kac_summary_args {
    const kac_level *levels; /* [T + 1] */
    int32_t level;           /* where the particles are */
    const kac_group *groups;
    int32_t n_groups;
    const kac_particles *x;
    int32_t eves_below;      /* every eve is */
    const int32_t *distinct; /* device scalar */
    const int64_t *made;     /* [4] */
    const int64_t *idle;     /* [2], or NULL */
    double *sorted;          /* [n] scratch */
    int32_t *mark;           /* [eves_below] scratch */
} kac_summary_args;

/* ---- revival -----------------------------------------------------------------------------
 */

/* Tries of the last levels.  Between recruit and settle the table of groups describes the
 * tries, rows offset .. offset + count - 1 of group g; its particles are the slots
 * g each .. (g + 1) each - 1 throughout. */
typedef struct kac_revive_args {
    kac_clock *clock;
    int32_t level; /* of the particles: where every try begins */
    int32_t each;  /* N, particles of a group */
    int32_t n_groups;
    kac_group *groups;
    uint64_t seed;
    kac_particles *x;     /* [n] the particles */
    kac_particles *tries; /* [n] eve: slot of the particle that the try begins as */
    kac_particles *kept;  /* [n] what the particles become: x, log_w, value, and eve as above */
    int32_t *live;        /* tries->live */
    int64_t *idle;        /* [2] counts what is asked about tries that nobody makes: of the
                           * denoiser, of the reward */
    int32_t asked;        /* states of a try that the denoiser is asked about */
    uint64_t *weight;     /* [n] scratch */
    int32_t children;     /* M */
    int32_t *chosen;      /* [n] out: M times the slot that each particle descends from */
    int32_t *scratch;     /* [n] */
} kac_revive_args;

/* ---- search ------------------------------------------------------------------------------
 */

/* Trees of noisy states, one for each group.  Node v of tree g is row g capacity + v of every
 * array; node 0 is the start.  Nodes refer to each other by row, -1: none. */
typedef struct kac_trees {
    int32_t n;
    int32_t capacity; /* nodes of a tree */
    int32_t stride;
    uint8_t *x;        /* [rows][stride] */
    int32_t *parent;   /* [rows] */
    int32_t *child;    /* [rows] the latest child */
    int32_t *sibling;  /* [rows] the child of the same parent before this one */
    int32_t *children; /* [rows] how many */
    int32_t *depth;    /* [rows] */
    int32_t *visits;   /* [rows] simulations that went through */
    int32_t *allowed;  /* [rows] those whose value is finite */
    double *sum;       /* [rows] of the values that these backed up, units of r */
    double *value;     /* [rows] what is believed of the node, units of r */
    int32_t *entry;    /* [rows] of the memo of evaluations, or -1 */
    int32_t *count;    /* [n] nodes in use */
    int32_t *root;     /* [n] row at which simulations start */
    double *low;       /* [n] least finite value that was backed up */
    double *high;      /* [n] largest */
} kac_trees;

typedef enum kac_policy { KAC_POLICY_UCT, KAC_POLICY_SOFT } kac_policy;
typedef enum kac_backup { KAC_BACKUP_MEAN, KAC_BACKUP_MAX, KAC_BACKUP_SOFT } kac_backup;

/* A wave: one simulation of every tree.  Each tree has `each` rows at work, which start at the
 * chosen node and move down the chain side by side; a row moves on the levels below from[i] and
 * down to to[i], and is idle on all others. */
typedef struct kac_tree_args {
    const kac_clock *clock;
    const kac_group *groups; /* group g has tree g, and rows g each .. of x */
    const int32_t *level;    /* [stages + 1] at which each depth lies; level[stages] = 0 */
    const int32_t *depth;    /* [T + 1] that lies at each level, or -1 */
    int32_t stages;          /* depth of an object */
    kac_policy policy;
    kac_backup backup;
    double explore;  /* uct: weight of what has been visited little */
    double widening; /* a node may have children visits^widening children */
    int32_t children;
    int32_t each;         /* rows of a tree: children that a wave adds to the node */
    int32_t ahead;        /* rows go on to level 0; else to the next depth */
    int32_t keep_entries; /* nodes keep the entries of their evaluations */
    uint64_t seed;
    kac_trees *trees;
    kac_particles *x;       /* [n each] states at work, with entries and values */
    const kac_particles *y; /* [n each] where propose would take them */
    int32_t *at;            /* [n each] the row's latest node */
    int32_t *from, *to;     /* [n each] */
    int64_t *idle; /* [2] counts rows that were asked about while idle: of the denoiser,
                               of the reward */
} kac_tree_args;

/* Paths that grew from the roots of each group: root j of group g has the leaves
 * (g roots + j) leaves .. of score. */
typedef struct kac_prune_args {
    int32_t groups, roots, leaves;
    int32_t keep;        /* roots of a group that go on */
    const double *score; /* [groups roots leaves] of each path */
    int32_t *best;       /* [groups roots] scratch */
    int32_t *chosen;     /* [groups keep] out: rows of the leaves that go on */
} kac_prune_args;
/* ---- passes: what happens between one arrival at level 0 and the next start ---------------- */

typedef struct kac_reset_args {
    kac_clock *clock;
    int32_t level; /* where the particles are now */
    int32_t n_groups;
    kac_group *groups;
    double lambda; /* tempering exponent to begin with */
    kac_potential potential;
    int32_t eves; /* 1: everyone is a first ancestor */
    kac_particles *x;
} kac_reset_args;

/* Which objects a pass of refine goes on from. */
typedef struct kac_renew_args {
    const kac_clock *clock;
    const kac_group *groups;
    int32_t n_groups;
    uint64_t seed;
    double strength;        /* weights are exp(strength r / alpha) */
    const kac_particles *x; /* finished objects with their values */
    uint64_t *weight;       /* [n] scratch */
    int32_t *chosen;        /* [n] out: rows of x */
} kac_renew_args;

typedef struct kac_remask_args {
    kac_shape shape;
    const kac_clock *clock;
    const kac_group *groups;
    const int32_t *group; /* [n] index of the particle's group */
    const uint8_t *fixed; /* as in kac_start_args */
    uint64_t seed;
    int32_t n;
    int32_t sites; /* to mask in each row */
} kac_remask_args;

/* The best of what was and what is. */
typedef struct kac_elect_args {
    const kac_group *groups;
    int32_t n_groups;
    const kac_particles *past; /* n objects with values and eves; n = 0: none yet */
    const kac_particles *now;  /* the same */
    double *value;             /* [2 n] scratch */
    int32_t *order;            /* [2 n] scratch */
    kac_particles *x;          /* out: states, values, eves, log-weights; overlaps neither */
} kac_elect_args;

/* What a sweep of particle Gibbs leaves to the next. */
typedef struct kac_retrace_args {
    const kac_clock *clock;
    const kac_group *groups;
    int32_t n_groups;
    uint64_t seed;
    const kac_particles *x;  /* at level 0 */
    const uint8_t *children; /* [T][n M][stride] the children that arrived at each level */
    const int32_t *chosen;   /* [T][n] and the rows of them that survived */
    int32_t n_children;      /* M */
    kac_retained *retained;  /* out, host struct */
    uint8_t *object;         /* out: [G][stride] the end of the path, filled in; or NULL */
    double *log_z;           /* out: [G] log evidence of the sweep; or NULL */
} kac_retrace_args;

#endif /* KAC_TYPES_H */
