/* molecules.c -- graphs of a file as molecules, for test_molecules.sh:
 *
 *     molecules FILE ATOMS none|valence smiles|sdf
 *
 * FILE has the atoms of graphs by their place in ATOMS, one more where there is none, as `atom`
 * U8 [n][N], and orders of bonds as `bond_triu` U8 [n][N(N-1)/2], pairs (0, 1), (0, 2), ..
 * Writes a SMILES a line, or records of an SDF file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "molecule.h"
#include "safetensors.h"

/* The row of a graph (graph.h). */
static void fill_row(const kac_shape *shape, const uint8_t *atom, const uint8_t *bond,
                     float *row)
{
    int32_t pairs = shape->nodes * (shape->nodes - 1) / 2;
    row[0] = (float)shape->nodes;
    for (int32_t i = 0; i < shape->nodes; i++)
        for (int32_t f = 0; f < shape->features; f++)
            row[1 + i * shape->features + f] = atom[i] == f ? 1.0F : 0.0F;
    for (int32_t p = 0; p < pairs; p++)
        row[1 + shape->nodes * shape->features + p] = bond[p];
}

static kac_status convert(const kac_tensor *atom, const kac_tensor *bond,
                          const kac_chemistry *chemistry, bool sdf)
{
    kac_status status = KAC_OK;
    kac_shape shape = {.nodes = (int32_t)atom->shape[1], .features = chemistry->atoms};
    size_t pairs = (size_t)bond->shape[1];
    char *text = malloc(kac_smiles_size(shape.nodes));
    float *row = calloc(1 + (size_t)shape.nodes * (size_t)shape.features + pairs, sizeof *row);
    kac_molecule *m = NULL;
    KAC_TRY_DONE(kac_molecule_create(chemistry, shape.nodes, &m));
    for (int64_t i = 0; i < atom->shape[0]; i++) {
        fill_row(&shape, (const uint8_t *)atom->data + i * shape.nodes,
                 (const uint8_t *)bond->data + (size_t)i * pairs, row);
        kac_molecule_read(m, &shape, row);
        kac_smiles_write(m, text);
        if (!sdf)
            puts(text);
        else if (kac_sdf_write(m, text, stdout))
            puts("$$$$");
    }
done:
    kac_molecule_destroy(m);
    free(row);
    free(text);
    return status;
}

int main(int argc, char **argv)
{
    kac_tensors *file = NULL;
    kac_chemistry chemistry = {0};
    if (argc != 5 || !kac_chemistry_reads(argv[2])) {
        fputs("usage: molecules FILE ATOMS none|valence smiles|sdf\n", stderr);
        return 2;
    }
    kac_chemistry_read(argv[2], &chemistry);
    chemistry.corrects = strcmp(argv[3], "valence") == 0;
    kac_status status = kac_tensors_open(argv[1], &file);
    if (status == KAC_OK)
        status = convert(kac_tensors_find(file, "atom"), kac_tensors_find(file, "bond_triu"),
                         &chemistry, strcmp(argv[4], "sdf") == 0);
    if (status != KAC_OK) fprintf(stderr, "molecules: %s\n", kac_last_error());
    kac_tensors_close(file);
    return status != KAC_OK;
}
