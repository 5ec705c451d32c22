/* molecule.c -- graphs to molecules, and the published correction of valences. */
#include "molecule.h"

#include <stdlib.h>
#include <string.h>

#include "graph.h"

static const kac_element elements[KAC_ELEMENTS] = {
    {"C", {4}, false},       {"N", {3}, true},        {"O", {2}, true},
    {"F", {1}, false},       {"P", {3, 5, 7}, false}, {"S", {2, 4, 6}, false},
    {"I", {1, 3, 5}, false}, {"Cl", {1}, false},      {"Br", {1}, false},
    {"B", {3}, false},
};

/* ---- chemistry -------------------------------------------------------------------------- */

static const kac_element *find_element(const char *symbol, size_t length)
{
    for (int i = 0; i < KAC_ELEMENTS; i++)
        if (strlen(elements[i].symbol) == length &&
            strncmp(elements[i].symbol, symbol, length) == 0)
            return &elements[i];
    return NULL;
}

static bool read_elements(const char *text, kac_chemistry *out)
{
    out->atoms = 0;
    if (*text == '\0' || strcmp(text, "none") == 0) return true;
    for (;;) {
        size_t length = strcspn(text, ",");
        const kac_element *element = find_element(text, length);
        if (element == NULL) return false;
        for (int32_t i = 0; i < out->atoms; i++)
            if (out->element[i] == element) return false;
        out->element[out->atoms++] = element;
        if (text[length] == '\0') return true;
        text += length + 1;
    }
}

bool kac_chemistry_reads(const char *text)
{
    kac_chemistry chemistry;
    return read_elements(text, &chemistry);
}

void kac_chemistry_read(const char *text, kac_chemistry *out)
{
    if (!read_elements(text, out)) out->atoms = 0;
}

/* ---- memory ----------------------------------------------------------------------------- */

kac_status kac_molecule_create(const kac_chemistry *chemistry, int32_t most, kac_molecule **out)
{
    size_t atoms = (size_t)most, bonds = atoms * (atoms - 1) / 2 + 1;
    kac_molecule *m = calloc(1, sizeof *m);
    if (m == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "no memory for a molecule");
    m->chemistry = *chemistry;
    m->atom = calloc(atoms, sizeof *m->atom);
    m->bond = calloc(bonds, sizeof *m->bond);
    m->first = calloc(atoms + 1, sizeof *m->first);
    m->edge = calloc(2 * bonds, sizeof *m->edge);
    m->label = calloc(atoms, sizeof *m->label);
    m->mark = calloc(bonds, sizeof *m->mark);
    m->open = calloc(bonds + 2, sizeof *m->open);
    m->text[0] = calloc(kac_smiles_size(most), 1);
    m->text[1] = calloc(kac_smiles_size(most), 1);
    if (!m->atom || !m->bond || !m->first || !m->edge || !m->label || !m->mark || !m->open ||
        !m->text[0] || !m->text[1]) {
        kac_molecule_destroy(m);
        return KAC_FAIL(KAC_ERR_NOMEM, "no memory for a molecule of %d atoms", (int)most);
    }
    *out = m;
    return KAC_OK;
}

void kac_molecule_destroy(kac_molecule *m)
{
    if (m == NULL) return;
    free(m->atom);
    free(m->bond);
    free(m->first);
    free(m->edge);
    free(m->label);
    free(m->mark);
    free(m->open);
    free(m->text[0]);
    free(m->text[1]);
    free(m);
}

/* ---- valences --------------------------------------------------------------------------- */

static int32_t most_valence(const kac_atom *atom)
{
    int32_t most = 0;
    for (int i = 0; i < 3 && atom->element->valence[i] > 0; i++)
        most = atom->element->valence[i];
    return most + atom->charge;
}

int32_t kac_molecule_fault(const kac_molecule *m)
{
    for (int32_t i = 0; i < m->atoms; i++)
        if (m->atom[i].valence > most_valence(&m->atom[i])) return i;
    return -1;
}

int32_t kac_atom_hydrogens(const kac_atom *atom)
{
    for (int i = 0; i < 3 && atom->element->valence[i] > 0; i++)
        if (atom->element->valence[i] + atom->charge >= atom->valence)
            return atom->element->valence[i] + atom->charge - atom->valence;
    return 0;
}

static void add_bond(kac_molecule *m, int32_t a, int32_t b, int32_t order)
{
    m->bond[m->bonds++] = (kac_bond){a, b, order};
    m->atom[a].valence += order;
    m->atom[b].valence += order;
}

/* Charges the first atom beyond its valence where one bond too many is all that is wrong.  One
 * that is beyond its valence for good hides those after it, as published. */
static void charge(kac_molecule *m)
{
    int32_t i = kac_molecule_fault(m);
    if (i < 0) return;
    kac_atom *atom = &m->atom[i];
    if (atom->element->charged && atom->valence == atom->element->valence[0] + 1)
        atom->charge = 1;
}

/* ---- correction ------------------------------------------------------------------------- */

static bool has(const kac_bond *bond, int32_t atom)
{
    return bond->a == atom || bond->b == atom;
}

/* Lowers the atom's first bond of the highest order. */
static void lower_bond(kac_molecule *m, int32_t atom)
{
    int32_t worst = -1;
    for (int32_t k = 0; k < m->bonds; k++)
        if (has(&m->bond[k], atom) && (worst < 0 || m->bond[k].order > m->bond[worst].order))
            worst = k;
    kac_bond bond = m->bond[worst];
    m->bonds--;
    memmove(m->bond + worst, m->bond + worst + 1, (size_t)(m->bonds - worst) * sizeof *m->bond);
    m->atom[bond.a].valence -= bond.order;
    m->atom[bond.b].valence -= bond.order;
    if (bond.order > 1) add_bond(m, bond.a, bond.b, bond.order - 1);
}

/* Keeps the atoms with this label, and their bonds. */
static void keep_labelled(kac_molecule *m, int32_t label)
{
    int32_t *place = m->first, atoms = 0, bonds = 0;
    for (int32_t i = 0; i < m->atoms; i++) {
        place[i] = atoms;
        if (m->label[i] == label) m->atom[atoms++] = m->atom[i];
    }
    for (int32_t k = 0; k < m->bonds; k++) {
        kac_bond bond = m->bond[k];
        if (m->label[bond.a] != label) continue;
        m->bond[bonds++] = (kac_bond){place[bond.a], place[bond.b], bond.order};
    }
    m->atoms = atoms;
    m->bonds = bonds;
}

void kac_molecule_correct(kac_molecule *m)
{
    for (int32_t i = kac_molecule_fault(m); i >= 0; i = kac_molecule_fault(m))
        lower_bond(m, i);
    keep_labelled(m, kac_smiles_longest(m));
}

/* ---- graphs ----------------------------------------------------------------------------- */

/* The element of a node, NULL where no atom is. */
static const kac_element *element_of(const kac_chemistry *chemistry, const float *features)
{
    for (int32_t f = 0; f < chemistry->atoms; f++)
        if (features[f] > 0.5F) return chemistry->element[f];
    return NULL;
}

void kac_molecule_read(kac_molecule *m, const kac_shape *shape, const float *row)
{
    int32_t n = kac_graph_nodes(row), *place = m->label;
    m->atoms = m->bonds = 0;
    for (int32_t i = 0; i < n; i++) {
        const kac_element *element =
            element_of(&m->chemistry, row + 1 + (ptrdiff_t)i * shape->features);
        place[i] = element != NULL ? m->atoms : -1;
        if (element != NULL) m->atom[m->atoms++] = (kac_atom){element, 0, 0};
    }
    for (int32_t i = 1; i < n; i++)
        for (int32_t j = 0; j < i && place[i] >= 0; j++) {
            int32_t order = (int32_t)row[kac_graph_run_at(shape, n, j + 1).first + i - j - 1];
            if (order == 0 || place[j] < 0) continue;
            add_bond(m, place[i], place[j], order);
            charge(m);
        }
    if (m->chemistry.corrects) kac_molecule_correct(m);
}
