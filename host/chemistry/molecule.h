/* molecule.h -- what a graph of atoms and bonds is to a chemist: elements, charges, valences,
 * SMILES and SDF.
 *
 * A molecule has atoms without their hydrogens, and bonds of order 1 to 3 between them, in the
 * Kekule form: nothing is aromatic.  It is made as published with GDSS (Jo, Lee and Hwang, ICML
 * 2022): bonds are added atom by atom, and where one leaves an atom beyond its valence, and that
 * is a nitrogen or oxygen with one bond too many, it is charged +1.  The valence of an atom is
 * the sum of the orders of its bonds; what it may be is as in RDKit 2022.09.
 */
#ifndef KAC_MOLECULE_H
#define KAC_MOLECULE_H

#include <stdbool.h>
#include <stdio.h>

#include "base.h"
#include "types.h"

/* The elements that a SMILES may write without brackets. */
typedef struct kac_element {
    char symbol[3];
    int32_t valence[3]; /* that hydrogens fill up to, rising, 0 where there are fewer */
    bool charged;       /* +1 lets it have one bond more */
} kac_element;

enum { KAC_ELEMENTS = 10 };

/* What the features of a graph's nodes stand for, in their order. */
typedef struct kac_chemistry {
    int32_t atoms; /* elements; 0: graphs are no molecules */
    const kac_element *element[KAC_ELEMENTS];
    bool corrects; /* bonds beyond valences are taken away, and the largest fragment kept */
} kac_chemistry;

/* Reads symbols with commas between them, "C,N,O,F", no two of them equal; "" and "none" are no
 * elements.  False where it is none of this. */
bool kac_chemistry_reads(const char *text);
void kac_chemistry_read(const char *text, kac_chemistry *out);

typedef struct kac_atom {
    const kac_element *element;
    int32_t charge;  /* 0 or 1 */
    int32_t valence; /* sum of the orders of its bonds */
} kac_atom;

typedef struct kac_bond {
    int32_t a, b; /* atoms, a > b */
    int32_t order;
} kac_bond;

typedef struct kac_molecule {
    kac_chemistry chemistry;
    int32_t atoms, bonds;
    kac_atom *atom;
    kac_bond *bond; /* in the order in which they were added */
    /* scratch */
    int32_t *first; /* [atoms + 1] where the bonds of each atom begin in `edge` */
    int32_t *edge;  /* bonds, each with both of its atoms */
    int32_t *label; /* [atoms] */
    int32_t *mark;  /* [bonds] */
    bool *open;     /* [bonds + 2] numbers of rings; false when not in use */
    char *text[2];  /* SMILES */
} kac_molecule;

/* Room for one of at most `most` atoms.  Errors: NOMEM. */
kac_status kac_molecule_create(const kac_chemistry *chemistry, int32_t most,
                               kac_molecule **out);
void kac_molecule_destroy(kac_molecule *molecule); /* accepts NULL */

/* Becomes the molecule of a graph (graph.h), an object: nodes without an atom are left out.
 * Corrected where the chemistry says so. */
void kac_molecule_read(kac_molecule *molecule, const kac_shape *shape, const float *row);

/* The first atom beyond its valence, or -1. */
int32_t kac_molecule_fault(const kac_molecule *molecule);

/* While an atom is beyond its valence: the first such atom's first bond of the highest order
 * loses one, and goes to the end of the order.  Then only the fragment with the longest SMILES
 * stays (kac_smiles_longest). */
void kac_molecule_correct(kac_molecule *molecule);

/* Hydrogens that fill the atom's valence. */
int32_t kac_atom_hydrogens(const kac_atom *atom);

/* ---- smiles.c --------------------------------------------------------------------------- */

/* Bytes of the SMILES of any molecule of at most `most` atoms, with the final zero. */
size_t kac_smiles_size(int32_t most);

/* A SMILES, its fragments with dots between them: valid where no atom is beyond its valence, but
 * not canonical.  text [kac_smiles_size]. */
void kac_smiles_write(kac_molecule *molecule, char *text);

/* Finds the fragments, label[i] = 1, 2, .. of each atom in the order of their first atoms, and
 * returns that with the longest SMILES, of several the first by alphabet; 0: there is no atom. */
int32_t kac_smiles_longest(kac_molecule *molecule);

/* ---- sdf.c ------------------------------------------------------------------------------ */

/* The title, the atoms and bonds of a record of an SDF file (MDL's V2000; BIOVIA, CTfile
 * formats, 2020), up to `M  END`; coordinates are 0.  False, and nothing written, where the
 * molecule has more than 999 atoms or bonds, which the format cannot hold. */
bool kac_sdf_write(const kac_molecule *molecule, const char *title, FILE *out);

#endif /* KAC_MOLECULE_H */
