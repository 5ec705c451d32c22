/* sequences.h -- sequences from a text file. */
#ifndef KAC_SEQUENCES_H
#define KAC_SEQUENCES_H

#include <stdint.h>

#include "base.h"

/* What each sequence must look like. */
typedef struct kac_sequence_form {
    const char *alphabet;
    int32_t length;
    int32_t stride; /* bytes of a row of tokens */
} kac_sequence_form;

/* Reads FASTA (records that begin with a line ">...") or one sequence a line; blank lines do not
 * count.  *out is [*count][stride], letters by their place in the alphabet, the padding 0; the
 * caller frees it.  Errors: IO, INVALID (a letter or a length that does not fit, or none at
 * all; the message names the line), NOMEM. */
kac_status kac_sequences_read(const char *path, const kac_sequence_form *form, uint8_t **out,
                              int64_t *count);

#endif /* KAC_SEQUENCES_H */
