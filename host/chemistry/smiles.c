/* smiles.c -- molecules as SMILES (Weininger, J. Chem. Inf. Comput. Sci. 28, 1988). */
#include <string.h>

#include "molecule.h"

/* What a bond is on the walk along a fragment: one to a new atom, or one that closes a ring; as it
 * is written, the number of a ring that is open, > 0; and then done. */
enum { UNSEEN = 0, TREE = -1, RING = -2, DONE = -3 };

typedef struct writer {
    kac_molecule *m;
    char *text;
    size_t used; /* bytes of it */
} writer;

static void put(writer *w, const char *text)
{
    size_t length = strlen(text);
    memcpy(w->text + w->used, text, length + 1);
    w->used += length;
}

/* ---- the walk --------------------------------------------------------------------------- */

/* Bonds of each atom, in the order of the bonds. */
static void index_bonds(kac_molecule *m)
{
    memset(m->first, 0, ((size_t)m->atoms + 1) * sizeof *m->first);
    for (int32_t k = 0; k < m->bonds; k++) {
        m->first[m->bond[k].a + 1]++;
        m->first[m->bond[k].b + 1]++;
    }
    for (int32_t i = 0; i < m->atoms; i++)
        m->first[i + 1] += m->first[i];
    for (int32_t k = m->bonds - 1; k >= 0; k--) {
        m->edge[--m->first[m->bond[k].a + 1]] = k;
        m->edge[--m->first[m->bond[k].b + 1]] = k;
    }
    /* what was counted at i + 1 now begins there, one atom too far */
    memmove(m->first, m->first + 1, (size_t)m->atoms * sizeof *m->first);
    m->first[m->atoms] = 2 * m->bonds;
}

static int32_t other(const kac_bond *bond, int32_t atom)
{
    return bond->a == atom ? bond->b : bond->a;
}

/* Walks from an atom, depth first, to all that have no such label yet; marks their bonds. */
static void walk(kac_molecule *m, int32_t atom, int32_t label)
{
    m->label[atom] = label;
    for (int32_t e = m->first[atom]; e < m->first[atom + 1]; e++) {
        int32_t k = m->edge[e], next = other(&m->bond[k], atom);
        if (m->mark[k] != UNSEEN) continue;
        m->mark[k] = m->label[next] == label ? RING : TREE;
        if (m->mark[k] == TREE) walk(m, next, label);
    }
}

/* The atom of this label at which the SMILES begins: the first of those with the fewest bonds. */
static int32_t root_of(const kac_molecule *m, int32_t label)
{
    int32_t root = -1, fewest = INT32_MAX;
    for (int32_t i = 0; i < m->atoms; i++) {
        int32_t bonds = m->first[i + 1] - m->first[i];
        if (m->label[i] != label || bonds >= fewest) continue;
        root = i;
        fewest = bonds;
    }
    return root;
}

/* ---- writing ---------------------------------------------------------------------------- */

/* Without brackets a reader adds hydrogens up to the lowest valence, and no two readers agree on
 * those beyond it. */
static void put_atom(writer *w, const kac_atom *atom)
{
    char text[32], count[16] = "";
    int32_t hydrogens = kac_atom_hydrogens(atom);
    if (atom->charge == 0 && (hydrogens == 0 || atom->valence <= atom->element->valence[0])) {
        put(w, atom->element->symbol);
        return;
    }
    if (hydrogens > 1) snprintf(count, sizeof count, "%d", (int)hydrogens);
    snprintf(text, sizeof text, "[%s%s%s%s]", atom->element->symbol, hydrogens > 0 ? "H" : "",
             count, atom->charge > 0 ? "+" : "");
    put(w, text);
}

static void put_bond(writer *w, int32_t order)
{
    put(w, order == 2 ? "=" : order == 3 ? "#" : "");
}

static void put_ring(writer *w, int32_t number)
{
    char text[16];
    snprintf(text, sizeof text,
             number < 10    ? "%d"
             : number < 100 ? "%%%d"
                            : "%%(%d)",
             (int)number);
    put(w, text);
}

/* Rings that close at an atom, then those that open there, with the lowest numbers that are free. */
static void put_rings(writer *w, int32_t atom)
{
    kac_molecule *m = w->m;
    for (int32_t e = m->first[atom]; e < m->first[atom + 1]; e++) {
        int32_t *mark = &m->mark[m->edge[e]];
        if (*mark <= 0) continue;
        put_ring(w, *mark);
        m->open[*mark] = false;
        *mark = DONE;
    }
    for (int32_t e = m->first[atom]; e < m->first[atom + 1]; e++) {
        int32_t k = m->edge[e], number = 1;
        if (m->mark[k] != RING) continue;
        while (m->open[number])
            number++;
        m->open[number] = true;
        m->mark[k] = number;
        put_bond(w, m->bond[k].order);
        put_ring(w, number);
    }
}

/* An atom and all that the walk went to from it; branches but the last in parentheses. */
static void put_branch(writer *w, int32_t atom)
{
    kac_molecule *m = w->m;
    int32_t branches = 0;
    put_atom(w, &m->atom[atom]);
    put_rings(w, atom);
    for (int32_t e = m->first[atom]; e < m->first[atom + 1]; e++)
        branches += m->mark[m->edge[e]] == TREE;
    for (int32_t e = m->first[atom]; branches > 0; e++) {
        int32_t k = m->edge[e];
        if (m->mark[k] != TREE) continue;
        m->mark[k] = DONE;
        put(w, branches > 1 ? "(" : "");
        put_bond(w, m->bond[k].order);
        put_branch(w, other(&m->bond[k], atom));
        put(w, branches-- > 1 ? ")" : "");
    }
}

/* The fragment that an atom belongs to, whose atoms get the label. */
static void put_fragment(writer *w, int32_t atom, int32_t label)
{
    kac_molecule *m = w->m;
    walk(m, atom, -label);
    int32_t root = root_of(m, -label);
    for (int32_t k = 0; k < m->bonds; k++)
        if (m->label[m->bond[k].a] == -label) m->mark[k] = UNSEEN;
    walk(m, root, label);
    put_branch(w, root);
}

static void begin(kac_molecule *m)
{
    index_bonds(m);
    memset(m->label, 0, (size_t)m->atoms * sizeof *m->label);
    memset(m->mark, 0, (size_t)m->bonds * sizeof *m->mark);
}

/* A bond costs its symbol and two numbers, "(123456)" with a sign before it, in parentheses; an
 * atom "[NH4+]" and a dot. */
size_t kac_smiles_size(int32_t most)
{
    size_t atoms = (size_t)most;
    return atoms * sizeof "([NH4+])=." + atoms * (atoms - 1) / 2 * (1 + 2 * sizeof "%(123456)");
}

void kac_smiles_write(kac_molecule *m, char *text)
{
    writer w = {.m = m, .text = text};
    int32_t fragments = 0;
    text[0] = '\0';
    begin(m);
    for (int32_t i = 0; i < m->atoms; i++) {
        if (m->label[i] != 0) continue;
        put(&w, fragments > 0 ? "." : "");
        put_fragment(&w, i, ++fragments);
    }
}

int32_t kac_smiles_longest(kac_molecule *m)
{
    int32_t fragments = 0, best = 0;
    size_t longest = 0;
    begin(m);
    for (int32_t i = 0; i < m->atoms; i++) {
        writer w = {.m = m, .text = m->text[0]};
        if (m->label[i] != 0) continue;
        put_fragment(&w, i, ++fragments);
        if (w.used < longest || (w.used == longest && strcmp(m->text[0], m->text[1]) >= 0))
            continue;
        longest = w.used;
        best = fragments;
        char *shorter = m->text[1];
        m->text[1] = m->text[0];
        m->text[0] = shorter;
    }
    return best;
}
