/* template.c -- sites that are given or restricted before the masked process begins. */
#include <string.h>

#include "process.h"

/* The letters that each code stands for; T is U in RNA. */
static const char *const codes[] = {"RAG",  "YCT",  "SCG",  "WAT",  "KGT",  "MAC",
                                    "BCGT", "DAGT", "HACT", "VACG", "NACGT"};

static uint32_t bit_of(const char *alphabet, char letter)
{
    const char *at = letter != '\0' ? strchr(alphabet, letter) : NULL;
    return at != NULL ? UINT32_C(1) << (at - alphabet) : 0;
}

static bool is_nucleic(const char *alphabet)
{
    return strlen(alphabet) == 4 && bit_of(alphabet, 'A') && bit_of(alphabet, 'C') &&
           bit_of(alphabet, 'G') && (bit_of(alphabet, 'T') || bit_of(alphabet, 'U'));
}

/* The letters that a code stands for, 0 where it is none. */
static uint32_t letters_of_code(char code, const char *alphabet)
{
    uint32_t letters = 0;
    if (!is_nucleic(alphabet)) return 0;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        for (const char *c = codes[i] + 1; codes[i][0] == code && *c != '\0'; c++)
            letters |= bit_of(alphabet, *c) | (*c == 'T' ? bit_of(alphabet, 'U') : 0);
    return letters;
}

kac_status kac_masked_template(const char *text, const char *alphabet, uint8_t *fixed,
                               uint32_t *allowed, bool *restricts)
{
    size_t states = strlen(alphabet);
    uint32_t all = (uint32_t)((UINT64_C(1) << states) - 1);
    *restricts = false;
    for (size_t l = 0; text[l] != '\0'; l++) {
        uint32_t letter = bit_of(alphabet, text[l]);
        uint32_t letters = letter | letters_of_code(text[l], alphabet);
        if (text[l] == '?') letters = all;
        if (letters == 0)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "process.template: site %zu is `%c`; want a letter of %s, ?%s",
                            l + 1, text[l], alphabet,
                            is_nucleic(alphabet) ? " or a IUPAC code such as N, R or Y" : "");
        allowed[l] = letter != 0 ? letter : letters;
        fixed[l] =
            (uint8_t)(letter != 0 ? (size_t)(strchr(alphabet, text[l]) - alphabet) : states);
        *restricts |= letter == 0 && letters != all;
    }
    return KAC_OK;
}
