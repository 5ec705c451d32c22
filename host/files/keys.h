/* keys.h -- the one table of configuration keys: names, types, ranges, defaults, help. */
#ifndef KAC_KEYS_H
#define KAC_KEYS_H

#include "settings.h"

typedef enum kac_key_type {
    KAC_KEY_SWITCH,    /* bool; choices[0] is false, choices[1] is true */
    KAC_KEY_INTEGER,   /* int64_t or uint64_t */
    KAC_KEY_NUMBER,    /* double */
    KAC_KEY_CHOICE,    /* an enum or int: `first` and up, in the order of choices */
    KAC_KEY_ALGORITHM, /* text, the name of a row of kac_algorithms */
    KAC_KEY_TEXT,      /* char [size] */
    KAC_KEY_LIST,      /* text that kac_command_words reads; in YAML a list of words */
} kac_key_type;

typedef struct kac_key {
    const char *name; /* "sampler.alpha"; "reward.N.weight" for each reward N = 0, 1, ... */
    kac_key_type type;
    int first;     /* value of the first choice */
    size_t offset; /* in kac_settings; of reward[0] for a key of a reward */
    size_t size;   /* of the field */
    double low, high;
    const char *zero;   /* integers: how 0 is written where it is not in the range, or NULL */
    const char *absent; /* numbers: a word that is stored as NaN, or NULL */
    const char *const *choices;    /* ends with NULL */
    const char *expected;          /* texts: what is allowed, or NULL: anything that fits */
    bool (*accepts)(const char *); /* goes with `expected` */
    const char *initial;           /* default */
    const char *help;
} kac_key;

enum { KAC_KEY_TEXT_SIZE = KAC_TEMPLATE + 16 }; /* of any value as text */

int kac_keys_count(void);
const kac_key *kac_keys_at(int i); /* in the order of the manual */

/* The key called `name`, or NULL.  "reward.3.weight" finds reward.N.weight and 3; *index is -1
 * where the name holds no number. */
const kac_key *kac_keys_find(const char *name, int *index);

/* Whether the name of `key` begins with `section` ("sampler", "reward.3") and a point; whether
 * it does so for any key. */
bool kac_keys_in_section(const kac_key *key, const char *section);
bool kac_keys_is_section(const char *name);

/* The existing key or section that looks most like `name`, with a number in place of N; false
 * where none looks like it. */
bool kac_keys_similar(const char *name, char *text, size_t size);

/* Letters to insert, delete, change or swap with a neighbour to turn a into b (Damerau 1964, no
 * substring edited twice).  Both are shorter than KAC_NAME; `n` letters of b count. */
int kac_edits(const char *a, const char *b, int n);

/* "a number from 0 to 1". */
void kac_key_expected(const kac_key *key, char *text, size_t size);

/* Sets the field that `name` names from text; the first reward that does not exist is appended.
 * Errors: INVALID, a sentence that begins with the name and says what is allowed. */
kac_status kac_key_assign(kac_settings *settings, const char *name, const char *text);

/* The value of a key (of reward `index`) as text, which kac_key_assign takes back. */
void kac_key_text(const kac_settings *settings, const kac_key *key, int index, char *text,
                  size_t size);

#endif /* KAC_KEYS_H */
