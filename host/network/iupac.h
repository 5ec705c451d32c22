/* iupac.h -- letters of nucleic acids that stand for several: the one table and its reader. */
#ifndef KAC_IUPAC_H
#define KAC_IUPAC_H

#include <stdbool.h>
#include <stdint.h>

/* Whether the letters of `alphabet` are A, C, G and T or U, so that codes mean something. */
bool kac_iupac_applies(const char *alphabet);

/* The letters of `alphabet` that `letter` stands for, bit k for alphabet[k]; 0 where it is none.
 * A letter of the alphabet stands for itself, one in lower case that it has not for that in upper
 * case.  Where codes apply, others are IUPAC codes (N, R,
 * Y, ...), and T and U are the same. */
uint32_t kac_iupac_letters(const char *alphabet, char letter);

#endif /* KAC_IUPAC_H */
