/* validate.h -- the checks of `kac validate`. */
#ifndef KAC_VALIDATE_H
#define KAC_VALIDATE_H

#include "laws.h"

/* How a check decides. */
typedef enum kac_check_kind {
    KAC_CHECK_SAME,     /* two settings give the same samples, bit for bit */
    KAC_CHECK_CONSTANT, /* a constant reward: every log-weight is r / alpha */
    KAC_CHECK_COUNTS,   /* counts of objects against an enumerated law: chi-square */
    KAC_CHECK_BEST,     /* the same, the best of N */
    KAC_CHECK_WEIGHTED, /* weighted means against enumeration: largest |z| */
    KAC_CHECK_COVERAGE, /* 1.96 standard errors cover the evidence as often as they say */
    KAC_CHECK_LONG,     /* evidence of a long factorised chain, in closed form: |z| */
    KAC_CHECK_FAULT,    /* a run that must fail, and says why */
} kac_check_kind;

/* One line of the ladder. */
typedef struct kac_check {
    int rung;
    const char *name;
    kac_check_kind kind;
    int model; /* KAC_MODEL_... */
    int groups, particles;
    chain_choice choice;  /* counts */
    const char *settings; /* key=value ... */
    const char *other;    /* same: the second run; fault: what its message must hold */
} kac_check;

enum {
    KAC_MODEL_TABLE,  /* 3 letters, 4 sites, a table of logits, 3 steps */
    KAC_MODEL_MANY,   /* the same with 9 steps: more than sites */
    KAC_MODEL_MARKOV, /* 3 letters, 5 sites, a Markov chain's exact posteriors, 3 steps */
    KAC_MODEL_SHARP,  /* as TABLE at temperature 0.4, schedule flow */
    KAC_MODEL_BAD,    /* as TABLE, with objects whose reward is infinite, of either sign */
    KAC_MODELS
};

extern const kac_check kac_checks[]; /* ends with a NULL name */

#endif /* KAC_VALIDATE_H */
