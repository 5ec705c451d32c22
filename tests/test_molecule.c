/* test_molecule.c -- graphs to molecules: valences, charges, correction, SMILES, SDF; what the
 * published code made of recorded graphs is in shared/data/gdss_golden. */
#include <criterion/criterion.h>
#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph.h"
#include "molecule.h"
#include "safetensors.h"

#define GOLDEN "../shared/data/gdss_golden/zinc250k_traj.safetensors"
#define ZINC   "C,N,O,F,P,S,Cl,Br,I"

enum { MOST = 40, FLOATS = 1 + MOST * KAC_ELEMENTS + MOST * (MOST - 1) / 2 };

/* A graph under construction, of `n` nodes of at most as many. */
typedef struct graph {
    kac_shape shape;
    kac_molecule *molecule;
    float row[FLOATS];
} graph;

static graph *graph_of(const char *elements, int32_t n, bool corrects)
{
    graph *g = calloc(1, sizeof *g);
    kac_chemistry chemistry = {.corrects = corrects};
    cr_assert(kac_chemistry_reads(elements) && n <= MOST);
    kac_chemistry_read(elements, &chemistry);
    g->shape = (kac_shape){.nodes = n, .features = chemistry.atoms};
    g->row[0] = (float)n;
    cr_assert_eq(kac_molecule_create(&chemistry, n, &g->molecule), KAC_OK);
    return g;
}

static void drop(graph *g)
{
    kac_molecule_destroy(g->molecule);
    free(g);
}

static void set_atom(graph *g, int32_t i, const char *symbol)
{
    const kac_chemistry *chemistry = &g->molecule->chemistry;
    for (int32_t f = 0; f < chemistry->atoms; f++)
        if (strcmp(chemistry->element[f]->symbol, symbol) == 0)
            g->row[1 + i * chemistry->atoms + f] = 1;
}

static void set_bond(graph *g, int32_t i, int32_t j, int32_t order)
{
    int32_t low = i < j ? i : j, high = i < j ? j : i;
    g->row[kac_graph_run_at(&g->shape, g->shape.nodes, low + 1).first + high - low - 1] =
        (float)order;
}

/* Atoms are letters of C, N, O, F, P, S and - for none; bonds three characters each, nodes and
 * order, with blanks between them: "012 121". */
static void smiles_of(const char *atoms, const char *bonds, bool corrects, char *text)
{
    graph *g = graph_of(ZINC, (int32_t)strlen(atoms), corrects);
    for (int32_t i = 0; atoms[i] != '\0'; i++)
        set_atom(g, i, (char[2]){atoms[i], '\0'});
    for (const char *b = bonds; *b != '\0'; b += b[3] == ' ' ? 4 : 3)
        set_bond(g, b[0] - '0', b[1] - '0', b[2] - '0');
    kac_molecule_read(g->molecule, &g->shape, g->row);
    kac_smiles_write(g->molecule, text);
    drop(g);
}

static void expect(const char *atoms, const char *bonds, bool corrects, const char *smiles)
{
    char *text = malloc(kac_smiles_size(MOST));
    smiles_of(atoms, bonds, corrects, text);
    cr_expect_str_eq(text, smiles, "%s with %s%s is %s, not %s", atoms, bonds,
                     corrects ? ", corrected" : "", text, smiles);
    free(text);
}

Test(molecule, elements_are_read_or_refused)
{
    static const char *const good[] = {"", "none", "C", "C,N,O,F", ZINC, "B,Br,C,Cl"};
    static const char *const bad[] = {"c", "C,", ",C", "C,,N", "C N", "C,C", "Xx", "None"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_expect(kac_chemistry_reads(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_not(kac_chemistry_reads(bad[i]), "%s", bad[i]);
    kac_chemistry chemistry = {0};
    kac_chemistry_read("C,Cl,N", &chemistry);
    cr_expect_eq(chemistry.atoms, 3);
    cr_expect_str_eq(chemistry.element[1]->symbol, "Cl");
}

Test(molecule, smiles_have_rings_branches_and_fragments)
{
    expect("", "", false, "");
    expect("-", "", false, "");
    expect("C", "", false, "C");
    expect("CCO", "011 121", false, "CCO");
    expect("CNC", "012 121", false, "C=NC");
    expect("CN", "013", false, "C#N");
    expect("CCCC", "011 121 231 031", false, "C1CCC1");
    expect("CCCC", "012 121 232 031", false, "C1=CC=C1");
    expect("CCOC", "011 122 131", false, "CC(=O)C");
    expect("COCN", "011 231", false, "CO.CN");
    expect("OCCCC", "011 121 231 341 411", false, "OC1CCC1");
    /* two rings that share an atom have the same number */
    expect("CCCCC", "011 121 021 231 341 241", false, "C1CC11CC1");
    expect("PSC", "011 121", false, "PSC");
}

/* Atom 1 is none: its bonds go with it, and the later atoms keep theirs. */
Test(molecule, nodes_without_an_atom_are_left_out)
{
    expect("C-CO", "011 022 121 231 131", false, "C=CO");
    expect("--N", "011 121", false, "N");
}

Test(molecule, one_bond_too_many_charges_nitrogen_and_oxygen)
{
    expect("NCCCC", "011 021 031 041", false, "C[N+](C)(C)C");
    expect("NCC", "012 022", false, "C=[N+]=C");
    expect("OCCC", "011 021 031", false, "C[O+](C)C");
    expect("OC", "013", false, "[O+]#C");
    /* neither two bonds too many, nor fluorine, nor sulfur, which may have six */
    expect("NCCCCC", "011 021 031 041 051", false, "C[N+](C)(C)(C)C");
    expect("FCC", "011 021", false, "CFC");
    expect("SCCC", "011 021 031", false, "C[SH](C)C");
    expect("PCCCC", "011 021 031 041", false, "C[PH](C)(C)C");
    expect("SCC", "012 022", false, "C=S=C");
    /* two at once are no single bond too many */
    expect("NCC", "013 022", false, "C#N=C");
}

/* Carbon 0 is beyond its valence before nitrogen 2 is, so nobody looks at the nitrogen. */
Test(molecule, an_earlier_fault_hides_a_later_one)
{
    expect("CCNCCC", "013 022 231 241 251", false, "C#C=N(C)(C)C");
    expect("NCCCCC", "151 141 131 121 013", false, "N#C(C)(C)(C)C");
}

/* Of the first atom at fault the first bond of the highest order loses one, again and again. */
Test(molecule, correction_lowers_bonds)
{
    expect("CCCC", "013 021 031", true, "C=C(C)C");
    expect("CCCC", "012 022 031", true, "CC(=C)C");
    expect("CCCCCC", "011 021 031 041 051", true, "CC(C)(C)C");
    expect("FCC", "011 021", true, "FC");
    /* 0 hid nitrogen 2, which has no charge and may have three: its bond to 0 goes to the end
     * of the order, so that to 3 is the next to go */
    expect("CCNCCC", "013 022 231 241 251", true, "C=CN(C)C");
    /* a charge stays, with a hydrogen where the bond was: 1 is beyond its valence */
    expect("NCCCCC", "012 021 031 141 151", true, "C[N+](=C(C)C)C");
    expect("NCFC", "022 011 031", true, "C[NH+](C)F");
    expect("NFFFF", "011 021 121 031 041 341", true, "[NH4+]");
}

Test(molecule, the_fragment_with_the_longest_smiles_stays)
{
    expect("CCCCCCCCC", "011 121 231 341 561 671 781 581", true, "C1CCC1");
    expect("CCCCCCCCC", "011 121 231 341 561 671 781 581", false, "CCCCC.C1CCC1");
    /* of two as long the first by alphabet, wherever it stands */
    expect("NNNCCC", "011 121 341 451", true, "CCC");
    expect("CCCNNN", "011 121 341 451", true, "CCC");
    expect("CCCCOC", "011 121 231 451", true, "CCCC");
}

/* ---- random graphs ----------------------------------------------------------------------- */

/* What a SMILES says, whatever the order of its atoms. */
typedef struct census {
    int32_t atoms, bonds, charges, fragments;
    int32_t elements[26];         /* by the first letter */
    int32_t valences[26][8 * 40]; /* how many atoms of this letter have so many bonds */
} census;

typedef struct parsed {
    char letter[MOST];
    int32_t valence[MOST];
    census sums;
} parsed;

static void join(parsed *p, int32_t a, int32_t b, int32_t order)
{
    p->valence[a] += order;
    p->valence[b] += order;
    p->sums.bonds++;
}

/* The number of a ring, 1, %12 or %(123), at *text, which moves on; -1: there is none. */
static int32_t ring_number(const char **text)
{
    char digits[8] = "", *end = NULL;
    bool wide = strncmp(*text, "%(", 2) == 0, two = !wide && **text == '%';
    const char *from = *text + (wide ? 2 : two);
    memcpy(digits, from, strnlen(from, wide ? 7 : two ? 2 : 1));
    if (digits[0] < '0' || digits[0] > '9') return -1;
    int32_t number = (int32_t)strtol(digits, &end, 10);
    *text = from + (end - digits) + wide;
    return number;
}

/* A reader of the SMILES that are written here, lower-case atoms too. */
static void read_smiles(const char *text, parsed *p)
{
    int32_t before = -1, order = 1, depth = 0, stack[MOST], rings[1024], ring_order[1024];
    memset(p, 0, sizeof *p);
    for (int r = 0; r < 1024; r++)
        rings[r] = -1;
    p->sums.fragments = text[0] != '\0';
    while (*text != '\0') {
        int32_t used = 1, number = ring_number(&text);
        bool bracket = *text == '[';
        if (number >= 0) {
            used = 0;
            if (rings[number] < 0) {
                rings[number] = before;
                ring_order[number] = order;
            } else {
                join(p, before, rings[number],
                     order > ring_order[number] ? order : ring_order[number]);
                rings[number] = -1;
            }
            order = 1;
        } else if (*text == '(') {
            stack[depth++] = before;
        } else if (*text == ')') {
            before = stack[--depth];
        } else if (*text == '=' || *text == '#') {
            order = *text == '=' ? 2 : 3;
        } else if (*text == '.') {
            before = -1;
            p->sums.fragments++;
        } else {
            char letter = text[bracket];
            p->letter[p->sums.atoms] = (char)toupper(letter);
            if (before >= 0) join(p, before, p->sums.atoms, order);
            before = p->sums.atoms++;
            order = 1;
            if (bracket) {
                used = (int32_t)strcspn(text, "]") + 1;
                p->sums.charges += text[used - 2] == '+';
            } else if (strncmp(text, "Cl", 2) == 0 || strncmp(text, "Br", 2) == 0) {
                used = 2;
            }
        }
        text += used;
    }
    for (int32_t i = 0; i < p->sums.atoms; i++) {
        p->sums.elements[p->letter[i] - 'A']++;
        p->sums.valences[p->letter[i] - 'A'][p->valence[i]]++;
    }
    for (int r = 0; r < 1024; r++)
        cr_expect_eq(rings[r], -1, "ring %d stays open", r);
}

/* The same of a molecule. */
static void count(const kac_molecule *m, census *c)
{
    memset(c, 0, sizeof *c);
    c->atoms = m->atoms;
    c->bonds = m->bonds;
    for (int32_t i = 0; i < m->atoms; i++) {
        int letter = m->atom[i].element->symbol[0] - 'A';
        c->charges += m->atom[i].charge;
        c->elements[letter]++;
        c->valences[letter][m->atom[i].valence]++;
    }
}

static uint32_t random_below(uint64_t *state, uint32_t n)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33) % n;
}

/* About `percent` of the pairs get a bond. */
static graph *random_graph(uint64_t *random, int32_t n, uint32_t percent, bool corrects)
{
    graph *g = graph_of(ZINC, n, corrects);
    for (int32_t i = 0; i < n; i++) {
        uint32_t f = random_below(random, 11);
        if (f < 9) g->row[1 + i * 9 + (int32_t)f] = 1;
        for (int32_t j = 0; j < i; j++)
            if (random_below(random, 100) < percent)
                set_bond(g, i, j, 1 + (int32_t)random_below(random, 3));
    }
    return g;
}

Test(molecule, smiles_say_what_the_molecule_is)
{
    static parsed read;
    static census sums;
    uint64_t random = 3;
    int32_t charges = 0, rings = 0;
    char *text = malloc(kac_smiles_size(MOST));
    for (int32_t trial = 0; trial < 400; trial++) {
        uint32_t percent = trial % 4 == 0 ? 60 : trial % 4 == 1 ? 20 : 6;
        graph *g = random_graph(&random, 2 + trial % (MOST - 1), percent, false);
        kac_molecule_read(g->molecule, &g->shape, g->row);
        kac_smiles_write(g->molecule, text);
        cr_assert_lt(strlen(text), kac_smiles_size(g->shape.nodes));
        read_smiles(text, &read);
        count(g->molecule, &sums);
        sums.fragments = read.sums.fragments;
        cr_assert_eq(memcmp(&sums, &read.sums, sizeof sums), 0, "trial %d: %s", trial, text);
        charges += sums.charges;
        rings += strstr(text, "%(100)") != NULL;
        drop(g);
    }
    cr_expect_gt(charges, 50);
    cr_expect_gt(rings, 5);
    free(text);
}

Test(molecule, corrected_ones_are_valid_and_in_one_piece)
{
    static parsed read;
    static census sums;
    static const int32_t most[26] = {['C' - 'A'] = 4, ['N' - 'A'] = 4, ['O' - 'A'] = 3,
                                     ['F' - 'A'] = 1, ['P' - 'A'] = 7, ['S' - 'A'] = 6,
                                     ['B' - 'A'] = 1, ['I' - 'A'] = 5};
    uint64_t random = 4;
    char *text = malloc(kac_smiles_size(MOST));
    for (int32_t trial = 0; trial < 400; trial++) {
        graph *g = random_graph(&random, 2 + trial % (MOST - 1), trial % 2 ? 20 : 6, true);
        kac_molecule_read(g->molecule, &g->shape, g->row);
        cr_assert_eq(kac_molecule_fault(g->molecule), -1);
        count(g->molecule, &sums);
        for (int letter = 0; letter < 26; letter++)
            for (int v = most[letter] + 1; v < 8 * 40; v++)
                cr_assert_eq(sums.valences[letter][v], 0, "%c with %d", 'A' + letter, v);
        kac_smiles_write(g->molecule, text);
        read_smiles(text, &read);
        cr_assert_leq(read.sums.fragments, 1, "%s", text);
        sums.fragments = read.sums.fragments;
        cr_assert_eq(memcmp(&sums, &read.sums, sizeof sums), 0, "%s", text);
        drop(g);
    }
    free(text);
}

/* ---- SDF --------------------------------------------------------------------------------- */

static char *sdf_of(graph *g, const char *title, bool *fits)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    kac_molecule_read(g->molecule, &g->shape, g->row);
    *fits = kac_sdf_write(g->molecule, title, out);
    fclose(out);
    return text;
}

Test(molecule, sdf_has_the_columns_of_v2000)
{
    bool fits = false;
    graph *g = graph_of(ZINC, 4, false);
    set_atom(g, 0, "Cl");
    set_atom(g, 1, "C");
    set_atom(g, 2, "N");
    set_atom(g, 3, "C");
    set_bond(g, 0, 1, 1);
    set_bond(g, 1, 2, 3);
    set_bond(g, 2, 3, 1);
    char *text = sdf_of(g, "chloro", &fits);
    cr_expect(fits);
    cr_expect_str_eq(text,
                     "chloro\n  kac\n\n"
                     "  4  3  0  0  0  0  0  0  0  0999 V2000\n"
                     "    0.0000    0.0000    0.0000 Cl  0  0  0  0  0  0  0  0  0  0  0  0\n"
                     "    0.0000    0.0000    0.0000 C   0  0  0  0  0  0  0  0  0  0  0  0\n"
                     "    0.0000    0.0000    0.0000 N   0  0  0  0  0  0  0  0  0  0  0  0\n"
                     "    0.0000    0.0000    0.0000 C   0  0  0  0  0  0  0  0  0  0  0  0\n"
                     "  1  2  1  0\n"
                     "  2  3  3  0\n"
                     "  3  4  1  0\n"
                     "M  CHG  1   3   1\n"
                     "M  END\n");
    free(text);
    drop(g);
}

/* Ten ammonium ions: eight charges on a line, two on the next. */
Test(molecule, sdf_has_eight_charges_a_line)
{
    bool fits = false;
    graph *g = graph_of(ZINC, 40, false);
    for (int32_t i = 0; i < 40; i++)
        set_atom(g, i, i % 4 == 0 ? "O" : "F");
    for (int32_t i = 0; i < 40; i += 4)
        for (int32_t j = 1; j < 4; j++)
            set_bond(g, i, i + j, 1);
    char *text = sdf_of(g, "", &fits);
    const char *line = strstr(text, "M  CHG");
    cr_assert(fits && line != NULL);
    cr_expect_str_eq(line, "M  CHG  8   1   1   5   1   9   1  13   1  17   1  21   1  25   1  "
                           "29   1\n"
                           "M  CHG  2  33   1  37   1\n"
                           "M  END\n");
    free(text);
    drop(g);
}

/* ---- recorded ---------------------------------------------------------------------------- */

/* The published code's molecules: what it built, and after its correction. */
Test(molecule, recorded_graphs_are_the_published_molecules)
{
    static parsed mine, theirs;
    kac_tensors *file = NULL;
    if (access(GOLDEN, R_OK) != 0) cr_skip_test("%s is absent", GOLDEN);
    cr_assert_eq(kac_tensors_open(GOLDEN, &file), KAC_OK);
    json_t *molecules = json_loads(kac_tensors_metadata(file, "mols"), 0, NULL);
    const int8_t *atoms = kac_tensors_find(file, "quant.x_onehot")->data;
    const int8_t *bonds = kac_tensors_find(file, "quant.adj")->data;
    char *text = malloc(kac_smiles_size(38));
    cr_assert_eq(json_array_size(molecules), 8);
    for (int32_t k = 0; k < 8; k++) {
        const json_t *recorded = json_array_get(molecules, (size_t)k);
        for (int corrects = 0; corrects < 2; corrects++) {
            graph *g = graph_of(ZINC, 38, corrects);
            for (int32_t i = 0; i < 38; i++) {
                for (int32_t f = 0; f < 9; f++)
                    g->row[1 + i * 9 + f] = (float)atoms[(k * 38 + i) * 10 + f];
                for (int32_t j = 0; j < i; j++)
                    set_bond(g, i, j, bonds[(k * 38 + i) * 38 + j]);
            }
            kac_molecule_read(g->molecule, &g->shape, g->row);
            kac_smiles_write(g->molecule, text);
            read_smiles(text, &mine);
            read_smiles(json_string_value(
                            json_object_get(recorded, corrects ? "smiles" : "raw_smiles")),
                        &theirs);
            if (!corrects) {
                cr_expect_eq(
                    kac_molecule_fault(g->molecule) < 0,
                    json_is_true(json_object_get(recorded, "valid_without_correction")),
                    "molecule %d", k);
                cr_expect_eq(memcmp(&mine.sums, &theirs.sums, sizeof mine.sums), 0, "%s", text);
            }
            /* bonds of aromatic atoms have no order */
            cr_expect_eq(mine.sums.bonds, theirs.sums.bonds, "%s", text);
            cr_expect_eq(mine.sums.charges, theirs.sums.charges, "%s", text);
            cr_expect_eq(
                memcmp(mine.sums.elements, theirs.sums.elements, sizeof mine.sums.elements), 0,
                "%s", text);
            drop(g);
        }
    }
    free(text);
    json_decref(molecules);
    kac_tensors_close(file);
}
