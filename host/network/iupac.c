/* iupac.c -- letters of nucleic acids that stand for several.
 *
 * Nomenclature Committee of the International Union of Biochemistry, "Nomenclature for
 * incompletely specified bases in nucleic acid sequences", 1984 (Cornish-Bowden, Nucleic Acids
 * Res. 13, 1985).
 */
#include "iupac.h"

#include <stddef.h>
#include <string.h>

/* A code and the letters that it stands for, T for T or U. */
static const char *const codes[] = {"RAG",  "YCT",  "SCG",  "WAT",   "KGT", "MAC", "BCGT",
                                    "DAGT", "HACT", "VACG", "NACGT", "TT",  "UT"};

static uint32_t bit_of(const char *alphabet, char letter)
{
    const char *at = letter != '\0' ? strchr(alphabet, letter) : NULL;
    return at != NULL ? UINT32_C(1) << (at - alphabet) : 0;
}

static uint32_t bit_of_base(const char *alphabet, char base)
{
    return bit_of(alphabet, base) | (base == 'T' ? bit_of(alphabet, 'U') : 0);
}

bool kac_iupac_applies(const char *alphabet)
{
    return strlen(alphabet) == 4 && bit_of(alphabet, 'A') && bit_of(alphabet, 'C') &&
           bit_of(alphabet, 'G') && bit_of_base(alphabet, 'T');
}

uint32_t kac_iupac_letters(const char *alphabet, char letter)
{
    bool lower = letter >= 'a' && letter <= 'z' && bit_of(alphabet, letter) == 0;
    if (lower) letter = (char)(letter - 'a' + 'A');
    uint32_t letters = bit_of(alphabet, letter);
    if (letters != 0 || !kac_iupac_applies(alphabet)) return letters;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        for (const char *base = codes[i] + 1; codes[i][0] == letter && *base != '\0'; base++)
            letters |= bit_of_base(alphabet, *base);
    return letters;
}
