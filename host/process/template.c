/* template.c -- sites that are given or restricted before the masked process begins. */
#include <string.h>

#include "iupac.h"
#include "process.h"

kac_status kac_masked_template(const char *text, const char *alphabet, uint8_t *fixed,
                               uint32_t *allowed, bool *restricts)
{
    uint8_t mask = (uint8_t)strlen(alphabet);
    uint32_t all = (uint32_t)((UINT64_C(1) << mask) - 1);
    *restricts = false;
    for (size_t l = 0; text[l] != '\0'; l++) {
        uint32_t letters = text[l] == '?' ? all : kac_iupac_letters(alphabet, text[l]);
        if (letters == 0)
            return KAC_FAIL(
                KAC_ERR_INVALID, "process.template: site %zu is `%c`; want a letter of %s, ?%s",
                l + 1, text[l], alphabet,
                kac_iupac_applies(alphabet) ? " or a IUPAC code such as N, R or Y" : "");
        bool given = text[l] != '?' && (letters & (letters - 1)) == 0;
        fixed[l] = mask;
        for (uint8_t s = 0; given && s < mask; s++)
            if (letters >> s & 1) fixed[l] = s;
        allowed[l] = letters;
        *restricts |= !given && letters != all;
    }
    return KAC_OK;
}
