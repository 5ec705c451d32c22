/* test_rng.c -- the generator against published answers, and the layout of its counters. */
#include <criterion/criterion.h>

#include "rng.h"

/* Known answers from the Random123 distribution, tests/kat_vectors. */
Test(rng, philox_known_answers)
{
    kac_u32x4 zero = kac_philox((kac_u32x4){{0, 0, 0, 0}}, 0, 0);
    kac_u32x4 ones = kac_philox((kac_u32x4){{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u);
    kac_u32x4 pi = kac_philox((kac_u32x4){{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
                              0xa4093822, 0x299f31d0);
    const uint32_t want[3][4] = {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                 {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                 {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
    cr_expect_arr_eq(zero.v, want[0], sizeof want[0]);
    cr_expect_arr_eq(ones.v, want[1], sizeof want[1]);
    cr_expect_arr_eq(pi.v, want[2], sizeof want[2]);
}

/* Position 24 | purpose 8, move 20 | child 12, particle 32, group 32; key = seed. */
Test(rng, counter_layout)
{
    kac_key key = {.seed = UINT64_C(0x299f31d0a4093822),
                   .move = 0x308d3,
                   .group = 0x03707344,
                   .particle = 0x13198a2e,
                   .child = 0x85a};
    kac_u32x4 got = kac_draw(key, (kac_purpose)0x24, 0x3f6a88);
    kac_u32x4 want = kac_philox((kac_u32x4){{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
                                0xa4093822, 0x299f31d0);
    cr_expect_arr_eq(got.v, want.v, sizeof want.v);
}

Test(rng, every_field_changes_the_draw)
{
    kac_key base = {.seed = 1, .move = 2, .group = 3, .particle = 4, .child = 5};
    kac_key changed[6];
    kac_u32x4 was = kac_draw(base, KAC_DRAW_GROUP, 7);
    for (int i = 0; i < 6; i++)
        changed[i] = base;
    changed[0].seed += 1;
    changed[1].seed += UINT64_C(1) << 32;
    changed[2].move += 1;
    changed[3].group += 1;
    changed[4].particle += 1;
    changed[5].child += 1;
    for (int i = 0; i < 6; i++)
        cr_expect_arr_neq(kac_draw(changed[i], KAC_DRAW_GROUP, 7).v, was.v, sizeof was.v);
    cr_expect_arr_neq(kac_draw(base, KAC_DRAW_PARENT, 7).v, was.v, sizeof was.v);
    cr_expect_arr_neq(kac_draw(base, KAC_DRAW_GROUP, 8).v, was.v, sizeof was.v);
}

Test(rng, below_covers_its_range)
{
    const uint64_t sizes[] = {1, 2, 3, 1000, UINT64_C(1) << 38, UINT64_MAX};
    kac_u32x4 low = {{0, 0, 0, 0}}, high = {{~0u, ~0u, ~0u, ~0u}}, mixed = {{0, 0, ~0u, ~0u}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cr_expect_eq(kac_below(low, 0, sizes[i]), 0);
        cr_expect_eq(kac_below(high, 0, sizes[i]), sizes[i] - 1);
        cr_expect_eq(kac_below(mixed, 0, sizes[i]), 0);
        cr_expect_eq(kac_below(mixed, 1, sizes[i]), sizes[i] - 1);
    }
    cr_expect_eq(kac_below(high, 0, 0), 0);
    kac_u32x4 half = {{0x80000000u, 0, 0, 0}};
    cr_expect_eq(kac_below(half, 0, 1000), 500, "the first word is the high one");
}
