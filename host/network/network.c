/* network.c -- opens model files: the table of architectures. */
#include "network.h"

#include <stdlib.h>
#include <string.h>

extern const kac_arch kac_arch_cnn1d, kac_arch_table_denoiser, kac_arch_markov, kac_arch_gmm;
extern const kac_arch kac_arch_convgru, kac_arch_conv_regressor, kac_arch_pwm,
    kac_arch_table_reward, kac_arch_quadratic, kac_arch_gdss, kac_arch_gin;

static const kac_arch *const archs[] = {
    &kac_arch_cnn1d,     &kac_arch_table_denoiser, &kac_arch_markov, &kac_arch_gmm,
    &kac_arch_convgru,   &kac_arch_conv_regressor, &kac_arch_pwm,    &kac_arch_table_reward,
    &kac_arch_quadratic, &kac_arch_gdss,           &kac_arch_gin,
};
enum { ARCHS = sizeof archs / sizeof archs[0] };

static const char *role_name(kac_role role)
{
    return role == KAC_ROLE_DENOISER ? "denoiser" : "reward";
}

/* The names of a role's architectures, "a, b, c". */
static void list_archs(kac_role role, char *text, size_t size)
{
    text[0] = '\0';
    for (int i = 0; i < ARCHS; i++) {
        if (archs[i]->role != role) continue;
        size_t used = strlen(text);
        (void)snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "", archs[i]->name);
    }
}

static kac_status find_arch(const kac_tensors *file, kac_role role, const kac_arch **out)
{
    const char *path = kac_tensors_path(file);
    const char *name = kac_tensors_metadata(file, "kac.arch");
    char known[256];
    list_archs(role, known, sizeof known);
    if (name == NULL && kac_tensors_metadata(file, "params_adj") != NULL)
        name = kac_arch_gdss.name; /* a published checkpoint as it is */
    if (name == NULL)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `kac.arch` is missing, so this is not a kac model "
                        "(architectures of a %s: %s); docs/models.md has the metadata and the "
                        "converters",
                        path, role_name(role), known);

    const char *stated = kac_tensors_metadata(file, "kac.role");
    if (stated != NULL && strcmp(stated, role_name(role)) != 0)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `kac.role` is `%s`, want a %s", path,
                        stated, role_name(role));

    bool exists = false;
    for (int i = 0; i < ARCHS; i++) {
        if (strcmp(archs[i]->name, name) != 0) continue;
        exists = true;
        if (archs[i]->role != role) continue;
        *out = archs[i];
        return KAC_OK;
    }
    if (exists)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: %s is not a %s (those are: %s)", path, name,
                        role_name(role), known);
    return KAC_FAIL(KAC_ERR_INVALID,
                    "%s: metadata `kac.arch` is `%s`, want for a %s one of: %s", path, name,
                    role_name(role), known);
}

/* One printable letter a state, none twice. */
bool kac_is_letter(char c)
{
    return c > ' ' && c <= '~' && strchr(",\">?", c) == NULL;
}

static kac_status read_alphabet(const kac_tensors *file, kac_network *network)
{
    const char *path = kac_tensors_path(file);
    const char *text = kac_tensors_metadata(file, "kac.alphabet");
    if (text == NULL)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: metadata `kac.alphabet` is missing", path);
    size_t n = strlen(text);
    if (n < 1 || n > KAC_MAX_STATES)
        return KAC_FAIL(KAC_ERR_INVALID,
                        "%s: metadata `kac.alphabet` has %zu letters, want 1 to %d", path, n,
                        KAC_MAX_STATES);
    for (size_t i = 0; i < n; i++) {
        if (!kac_is_letter(text[i]))
            return KAC_FAIL(
                KAC_ERR_INVALID,
                "%s: letter %zu of metadata `kac.alphabet` is not printable ASCII, or "
                "one of , \" > ?",
                path, i + 1);
        if (strchr(text + i + 1, text[i]) != NULL)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s: metadata `kac.alphabet` (%s) has the letter %c twice", path,
                            text, text[i]);
    }
    memcpy(network->alphabet, text, n + 1);
    network->states = (int32_t)n;
    return KAC_OK;
}

static kac_status load(const kac_tensors *file, kac_role role, kac_network *network)
{
    const char *path = kac_tensors_path(file);
    if (strlen(path) >= sizeof network->path)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: the path is too long", path);
    memcpy(network->path, path, strlen(path) + 1);

    int64_t length = 0;
    KAC_TRY(find_arch(file, role, &network->arch));
    if (network->arch->vectors)
        network->states = 1;
    else
        KAC_TRY(read_alphabet(file, network));
    KAC_TRY(
        kac_tensors_integer(file, "kac.length", 1, KAC_NETWORK_MAX_LENGTH, true, 0, &length));
    network->length = (int32_t)length;
    KAC_TRY(network->arch->load(network->dev, file, network));
    return network->arch->vectors && role == KAC_ROLE_DENOISER
               ? kac_graph_model_read(file, network)
               : KAC_OK;
}

kac_status kac_network_open(kac_device *dev, const char *path, kac_role role, kac_network **out)
{
    KAC_REQUIRE(dev != NULL && path != NULL && out != NULL);
    kac_tensors *file = NULL;
    KAC_TRY(kac_tensors_open(path, &file));

    kac_status status = KAC_OK;
    kac_network *network = calloc(1, sizeof *network);
    if (network == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", path);
    } else {
        network->dev = dev;
        status = load(file, role, network);
    }
    kac_tensors_close(file);
    if (status == KAC_OK)
        *out = network;
    else
        kac_network_close(network);
    return status;
}

void kac_network_close(kac_network *network)
{
    if (network == NULL) return;
    if (network->drop != NULL) network->drop(network->dev, network->net);
    free(network);
}

kac_status kac_network_check_length(const kac_network *network, int32_t length)
{
    KAC_REQUIRE(network != NULL);
    if (network->fixed_length && length != network->length)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: works for %s of length %d only, not %d",
                        network->path, network->arch->vectors ? "vectors" : "sequences",
                        (int)network->length, (int)length);
    if (length < 1 || length > KAC_NETWORK_MAX_LENGTH)
        return KAC_FAIL(KAC_ERR_INVALID, "%s: length %d is not in [1, %d]", network->path,
                        (int)length, KAC_NETWORK_MAX_LENGTH);
    return KAC_OK;
}

static kac_status check_query(const kac_network *network, const kac_query *query)
{
    if (query->soft != NULL && !network->takes_soft)
        return KAC_FAIL(KAC_ERR_UNSUPPORTED, "%s: %s does not take probabilities",
                        network->path, network->arch->name);
    return KAC_OK;
}

kac_status kac_network_ask(const kac_network *network, const kac_query *query)
{
    KAC_REQUIRE(network != NULL && query != NULL);
    KAC_TRY(check_query(network, query));
    return network->forward(network->dev, network->net, query);
}

kac_status kac_network_vjp(const kac_network *network, const kac_query *query,
                           const float *cotangent, float *grad)
{
    KAC_REQUIRE(network != NULL && query != NULL && cotangent != NULL && grad != NULL);
    if (network->vjp == NULL)
        return KAC_FAIL(KAC_ERR_UNSUPPORTED, "%s: %s has no gradient", network->path,
                        network->arch->name);
    KAC_TRY(check_query(network, query));
    return network->vjp(network->dev, network->net, query, cotangent, grad);
}
