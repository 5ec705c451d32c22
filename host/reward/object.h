/* object.h -- objects as text, in samples.csv and for workers. */
#ifndef KAC_OBJECT_H
#define KAC_OBJECT_H

#include <stddef.h>

#include "molecule.h"

typedef struct kac_object_form {
    kac_shape shape;
    const char *alphabet;   /* of sequences; of vectors "" */
    kac_molecule *molecule; /* where graphs are molecules: where they are made; else NULL */
} kac_object_form;

/* Bytes of an object as text with its final zero: letters, a SMILES, or numbers with a blank
 * after each. */
size_t kac_object_size(const kac_object_form *form);

/* The row x as text [kac_object_size]; a float has all its digits. */
void kac_object_write(const kac_object_form *form, const uint8_t *x, char *text);

#endif /* KAC_OBJECT_H */
