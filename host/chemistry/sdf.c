/* sdf.c -- molecules as records of an SDF file. */
#include "molecule.h"

enum { MOST = 999, CHARGES_A_LINE = 8 };

static void write_charges(const kac_molecule *m, FILE *out)
{
    int32_t charged = 0, written = 0;
    for (int32_t i = 0; i < m->atoms; i++)
        charged += m->atom[i].charge != 0;
    for (int32_t i = 0; i < m->atoms; i++) {
        if (m->atom[i].charge == 0) continue;
        if (written % CHARGES_A_LINE == 0) {
            int32_t left = charged - written;
            fprintf(out, "%sM  CHG%3d", written > 0 ? "\n" : "",
                    (int)(left < CHARGES_A_LINE ? left : CHARGES_A_LINE));
        }
        fprintf(out, " %3d %3d", (int)i + 1, (int)m->atom[i].charge);
        written++;
    }
    if (written > 0) fputc('\n', out);
}

bool kac_sdf_write(const kac_molecule *m, const char *title, FILE *out)
{
    if (m->atoms > MOST || m->bonds > MOST) return false;
    fprintf(out, "%s\n  kac\n\n%3d%3d  0  0  0  0  0  0  0  0999 V2000\n", title, (int)m->atoms,
            (int)m->bonds);
    for (int32_t i = 0; i < m->atoms; i++)
        fprintf(out, "    0.0000    0.0000    0.0000 %-3s 0  0  0  0  0  0  0  0  0  0  0  0\n",
                m->atom[i].element->symbol);
    for (int32_t k = 0; k < m->bonds; k++)
        fprintf(out, "%3d%3d%3d  0\n", (int)m->bond[k].b + 1, (int)m->bond[k].a + 1,
                (int)m->bond[k].order);
    write_charges(m, out);
    fputs("M  END\n", out);
    return true;
}
