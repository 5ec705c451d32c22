/* filter.c -- rewards that count letters: from settings to sets of letters. */
#include "network.h"

#include <stdlib.h>
#include <string.h>

#include "iupac.h"

/* No file has these architectures. */
static const kac_arch archs[] = {
    [KAC_FILTER_SHARE] = {.name = "gc", .role = KAC_ROLE_REWARD},
    [KAC_FILTER_RUN] = {.name = "homopolymer", .role = KAC_ROLE_REWARD},
    [KAC_FILTER_MOTIF] = {.name = "motif", .role = KAC_ROLE_REWARD},
};

/* ---- motifs ------------------------------------------------------------------------------- */

/* The set of the letters that pair with those of `set`. */
static uint32_t paired(const char *alphabet, uint32_t set)
{
    static const char from[] = "ACGT", to[] = "TGCA";
    uint32_t out = 0;
    for (int i = 0; i < 4; i++)
        if (set & kac_iupac_letters(alphabet, from[i]))
            out |= kac_iupac_letters(alphabet, to[i]);
    return out;
}

/* Motifs in the making. */
typedef struct motif_list {
    int32_t motifs;
    int32_t *width; /* [motifs] */
    uint32_t *sets; /* one after the other */
    size_t sites;   /* sets in all */
} motif_list;

/* Counts the motif that has been written at the end of the list, unless it is there already. */
static void add(motif_list *list, int32_t width)
{
    const uint32_t *here = list->sets + list->sites;
    const uint32_t *other = list->sets;
    for (int32_t m = 0; m < list->motifs; other += list->width[m], m++)
        if (list->width[m] == width && memcmp(other, here, (size_t)width * sizeof *here) == 0)
            return;
    list->width[list->motifs++] = width;
    list->sites += (size_t)width;
}

/* Reads the list of motifs; there is room for every letter twice. */
static kac_status read_motifs(const kac_filter_spec *spec, const char *alphabet,
                              motif_list *list)
{
    for (const char *text = spec->motifs; *text != '\0';) {
        int32_t width = (int32_t)strcspn(text, ",");
        uint32_t *sets = list->sets + list->sites;
        for (int32_t i = 0; i < width; i++) {
            sets[i] = kac_iupac_letters(alphabet, text[i]);
            if (sets[i] == 0)
                return KAC_FAIL(KAC_ERR_INVALID,
                                "reward.%d.motifs: `%c` in %.*s is not a letter of %s%s",
                                spec->term, text[i], (int)width, text, alphabet,
                                kac_iupac_applies(alphabet) ? ", nor a IUPAC code" : "");
        }
        add(list, width);
        if (spec->both_strands) {
            uint32_t *reverse = list->sets + list->sites;
            for (int32_t i = 0; i < width; i++)
                reverse[i] = paired(alphabet, kac_iupac_letters(alphabet, text[width - 1 - i]));
            add(list, width);
        }
        text += width + (text[width] == ',');
    }
    return KAC_OK;
}

/* Whether the filter means something for these letters. */
static kac_status check_alphabet(const kac_filter_spec *spec, const char *alphabet)
{
    if (spec->kind == KAC_FILTER_SHARE &&
        !(kac_iupac_letters(alphabet, 'G') && kac_iupac_letters(alphabet, 'C')))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "reward.%d.kind: gc needs the letters G and C, and the model has %s",
                        spec->term, alphabet);
    if (spec->kind == KAC_FILTER_MOTIF && spec->both_strands && !kac_iupac_applies(alphabet))
        return KAC_FAIL(KAC_ERR_INVALID,
                        "reward.%d.strands: both is for the letters A, C, G and T or U, and "
                        "the model has %s",
                        spec->term, alphabet);
    return KAC_OK;
}

static kac_status pack(kac_device *dev, const kac_filter_spec *spec, motif_list *list,
                       kac_network *network)
{
    const kac_filter_ops *op = &dev->ops->networks.filter;
    if (spec->kind == KAC_FILTER_MOTIF) KAC_TRY(read_motifs(spec, network->alphabet, list));
    kac_filter_weights weights = {
        .kind = spec->kind,
        .states = network->states,
        .set = kac_iupac_letters(network->alphabet, 'G') |
               kac_iupac_letters(network->alphabet, 'C'),
        .motifs = list->motifs,
        .width = list->width,
        .sets = list->sets,
    };
    network->forward = op->forward;
    network->drop = op->drop;
    return op->pack(dev, &weights, &network->net);
}

kac_status kac_filter_open(kac_device *dev, const kac_filter_spec *spec, const char *alphabet,
                           kac_network **out)
{
    KAC_REQUIRE(dev != NULL && spec != NULL && alphabet != NULL && out != NULL);
    KAC_REQUIRE(spec->kind != KAC_FILTER_MOTIF || spec->motifs != NULL);
    KAC_TRY(check_alphabet(spec, alphabet));
    size_t letters = spec->kind == KAC_FILTER_MOTIF ? 2 * strlen(spec->motifs) + 2 : 1;
    kac_network *network = calloc(1, sizeof *network);
    motif_list list = {.width = calloc(letters, sizeof *list.width),
                       .sets = calloc(letters, sizeof *list.sets)};
    kac_status status = KAC_OK;
    if (network == NULL || list.width == NULL || list.sets == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "reward.%d: out of memory", spec->term);
        goto done;
    }
    network->dev = dev;
    network->arch = &archs[spec->kind];
    network->states = (int32_t)strlen(alphabet);
    network->outputs = 1;
    network->takes_soft = spec->kind == KAC_FILTER_SHARE;
    snprintf(network->path, sizeof network->path, "reward.%d (%s)", spec->term,
             network->arch->name);
    snprintf(network->alphabet, sizeof network->alphabet, "%s", alphabet);
    KAC_TRY_DONE(pack(dev, spec, &list, network));
    *out = network;
    network = NULL;
done:
    kac_network_close(network);
    free(list.width);
    free(list.sets);
    return status;
}
