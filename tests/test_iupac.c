/* test_iupac.c -- letters that stand for several, and the templates that have them. */
#include <criterion/criterion.h>
#include <string.h>

#include "iupac.h"
#include "network.h"
#include "process.h"

TestSuite(iupac, .timeout = 60);

/* Each code names its letters in words of its own, so the table is not compared with itself. */
Test(iupac, codes_stand_for_their_letters)
{
    enum { A = 1, C = 2, G = 4, T = 8 };
    static const struct {
        char code;
        uint32_t letters;
    } wanted[] = {
        {'A', A},         {'C', C},         {'G', G},         {'T', T},
        {'U', T},         {'R', A | G},     {'Y', C | T},     {'S', C | G},
        {'W', A | T},     {'K', G | T},     {'M', A | C},     {'B', C | G | T},
        {'D', A | G | T}, {'H', A | C | T}, {'V', A | C | G}, {'N', A | C | G | T},
    };
    int known = 0;
    for (size_t k = 0; k < sizeof wanted / sizeof *wanted; k++) {
        cr_expect_eq(kac_iupac_letters("ACGT", wanted[k].code), wanted[k].letters, "%c",
                     wanted[k].code);
        cr_expect_eq(kac_iupac_letters("ACGU", wanted[k].code), wanted[k].letters, "%c in RNA",
                     wanted[k].code);
    }
    for (int letter = 0; letter < 128; letter++)
        known += kac_iupac_letters("ACGT", (char)letter) != 0;
    cr_expect_eq(known, 32, "nothing else is a code");
    for (int letter = 'a'; letter <= 'z'; letter++)
        cr_expect_eq(kac_iupac_letters("ACGT", (char)letter),
                     kac_iupac_letters("ACGT", (char)(letter - 'a' + 'A')), "%c", letter);
    cr_expect_eq(kac_iupac_letters("aA", 'a'), 1, "unless the alphabet has both");
    cr_expect_eq(kac_iupac_letters("TGCA", 'R'), 8 | 2, "bits follow the alphabet");
}

Test(iupac, only_nucleic_acids_have_codes)
{
    cr_expect(kac_iupac_applies("UGCA") && kac_iupac_applies("ACGT"));
    cr_expect(!kac_iupac_applies("ACG") && !kac_iupac_applies("ACGTN") &&
              !kac_iupac_applies("DNRS"));
    cr_expect_eq(kac_iupac_letters("DNRS", 'R'), 4, "a letter is itself");
    cr_expect_eq(kac_iupac_letters("DNRS", 'Y'), 0);
    cr_expect_eq(kac_iupac_letters("ABU", 'T'), 0);
}

/* samples.csv separates and quotes by them, FASTA begins a name, a template leaves a site free. */
Test(iupac, letters_of_an_alphabet)
{
    int letters = 0;
    for (int c = 0; c < 256; c++)
        letters += kac_is_letter((char)c);
    cr_expect_eq(letters, '~' - '!' + 1 - 4);
    for (const char *c = ",\">? \t\n\x7f"; *c != '\0'; c++)
        cr_expect(!kac_is_letter(*c), "%d", *c);
}

Test(iupac, templates_give_restrict_and_free)
{
    static const struct {
        const char *text, *alphabet;
        uint8_t fixed[3];
        uint32_t allowed[3];
        bool restricts;
    } wanted[] = {
        {"A?C", "ACGT", {0, 4, 1}, {1, 15, 2}, false},
        {"N?G", "ACGT", {4, 4, 2}, {15, 15, 4}, false},
        {"TR?", "ACGT", {3, 4, 4}, {8, 5, 15}, true},
        {"TUY", "ACGU", {3, 3, 4}, {8, 8, 10}, true}, /* T is U there, given as well */
        {"???", "A", {1, 1, 1}, {1, 1, 1}, false},
    };
    for (size_t k = 0; k < sizeof wanted / sizeof *wanted; k++) {
        uint8_t fixed[3];
        uint32_t allowed[3];
        bool restricts = false;
        cr_assert_eq(
            kac_masked_template(wanted[k].text, wanted[k].alphabet, fixed, allowed, &restricts),
            KAC_OK, "%s", kac_last_error());
        cr_expect_arr_eq(fixed, wanted[k].fixed, sizeof fixed, "%s", wanted[k].text);
        cr_expect_arr_eq(allowed, wanted[k].allowed, sizeof allowed, "%s", wanted[k].text);
        cr_expect_eq(restricts, wanted[k].restricts, "%s", wanted[k].text);
    }
}

Test(iupac, templates_refuse_what_is_no_letter)
{
    uint8_t fixed[3];
    uint32_t allowed[3];
    bool restricts = false;
    cr_expect_eq(kac_masked_template("AX?", "ACGT", fixed, allowed, &restricts),
                 KAC_ERR_INVALID);
    cr_expect_str_eq(kac_last_error(), "process.template: site 2 is `X`; want a letter of "
                                       "ACGT, ? or a IUPAC code such as N, R or Y");
    cr_expect_eq(kac_masked_template("Y", "DNRS", fixed, allowed, &restricts), KAC_ERR_INVALID);
    cr_expect_str_eq(kac_last_error(),
                     "process.template: site 1 is `Y`; want a letter of DNRS, ?");
}
