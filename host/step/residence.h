/* residence.h -- which member of a team holds each slot of a pool, and what travels when slots get
 * new states.  Host memory throughout.
 *
 * Of n slots each member holds n / P, and the first n mod P of them one more, so that with fewer slots
 * nobody holds more; row i is its i-th lowest.  All members work out the same, from the same.
 */
#ifndef KAC_RESIDENCE_H
#define KAC_RESIDENCE_H

#include "base.h"

/* A state that goes from one member to another, there to fill one slot or several. */
typedef struct kac_sending {
    int32_t child;         /* the state: slot M + m before */
    int32_t from, to;      /* members */
    int32_t first, copies; /* the slots: order[first .. first + copies - 1] */
    int32_t round;         /* in which it goes */
} kac_sending;

/* The copies of one state. */
typedef struct kac_copies {
    int32_t first, copies; /* the slots: order[first .. first + copies - 1] */
    int32_t member;        /* that has the state */
    int32_t leave;         /* of the copies */
} kac_copies;

typedef struct kac_residence {
    int32_t members;             /* P */
    int32_t n, children;         /* slots, M */
    int32_t a_round;             /* most states that a member sends, or gets, in one round */
    int32_t *home;               /* [n] member that holds each slot */
    int32_t *row;                /* [n] and its row there */
    int32_t *old_home, *old_row; /* [n before] as it was */
    int32_t *order;              /* [n] the slots, those with one state side by side */
    kac_sending *sending;        /* [sendings] in the order of their rounds */
    int32_t sendings, rounds;
    int32_t least;       /* no placement of these states takes fewer sendings */
    kac_copies *copies;  /* [n] scratch */
    int32_t *excess;     /* [P] scratch: slots too many, or where negative free */
    int32_t *sent, *got; /* [P] scratch: of a round */
} kac_residence;

/* Rows of member q of P, of n slots. */
int32_t kac_residence_quota(int32_t n, int32_t members, int32_t q);

/* n slots at the start: members hold them in their order.  Errors: NOMEM. */
kac_status kac_residence_open(int32_t members, int32_t n, int32_t children, int32_t a_round,
                              kac_residence *out);

/* The same of n slots, at most as many as it was opened with. */
void kac_residence_start(kac_residence *residence, int32_t n);
void kac_residence_close(kac_residence *residence); /* accepts what was never opened */

/* Slot i takes the state of child chosen[i], i in 0 .. n - 1, n at most as before.  Where a member
 * has room its own states stay; of what is too many, those with most copies leave first. */
void kac_residence_settle(kac_residence *residence, const int32_t *chosen, int32_t n);

#endif /* KAC_RESIDENCE_H */
