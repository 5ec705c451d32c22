/* explain.c -- what keys and rows mean, as text and as the Markdown of docs/config.md. */
#include <errno.h>
#include <string.h>

#include "keys.h"

static const char *shown(const char *initial)
{
    return initial[0] != '\0' ? initial : "empty";
}

static void explain_key(const kac_key *key, FILE *out)
{
    char expected[512];
    kac_key_expected(key, expected, sizeof expected);
    fprintf(out, "%s\n  %s\n  %s; default %s\n", key->name, key->help, expected,
            shown(key->initial));
}

static void explain_algorithm(const kac_algorithm *row, FILE *out)
{
    fprintf(out, "%s\n  %s\n  samples: %s\n  source: %s\n", row->name, row->summary, row->law,
            row->source);
    for (int i = 0; row->set[i].key != NULL; i++)
        fprintf(out, "  %s: %s\n", row->set[i].key, row->set[i].value);
    fprintf(out, "  more: docs/algorithms.md#%s\n", row->name);
}

static const struct {
    const char *name, *help;
} sections[] = {
    {"model", "What is sampled from."},
    {"process", "The reverse chain that the denoiser was trained for."},
    {"reward", "What is sought: a list of terms, N = 0, 1, ..."},
    {"objective", "How the terms become one number, the reward r."},
    {"sampler", "How particles are proposed, weighed and selected."},
    {"driver", "What leads the steps."},
    {"search", "How trees of noisy states are searched, with driver.kind search."},
    {"budget", "What a run may cost."},
    {"seed", "Randomness."},
    {"device", "Where the run is computed; none of it but precision changes a result."},
    {"job", "How ranks share a run (ranks.md)."},
    {"output", "What is written."},
    {"checkpoint", "What a run that is stopped leaves to go on from."},
};

static void explain_all(FILE *out)
{
    char expected[512];
    fprintf(out,
            "# Configuration\n\nWritten by `kac explain --all`. A configuration is one YAML "
            "document. Later wins: defaults, the row of\n`sampler.algorithm`, the file, "
            "`--set KEY=VALUE`. An unknown key is an error.\n");
    for (size_t s = 0; s < sizeof sections / sizeof *sections; s++) {
        fprintf(out,
                "\n## %s\n\n%s\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
                sections[s].name, sections[s].help);
        for (int i = 0; i < kac_keys_count(); i++) {
            const kac_key *key = kac_keys_at(i);
            if (strcmp(key->name, sections[s].name) != 0 &&
                !kac_keys_in_section(key, sections[s].name))
                continue;
            kac_key_expected(key, expected, sizeof expected);
            fprintf(out, "| `%s` | %s | %s | %s |\n", key->name, expected, shown(key->initial),
                    key->help);
        }
    }
    fprintf(out,
            "\n## algorithms\n\nRows of `sampler.algorithm`; any key after it may override "
            "what a row sets.\n");
    for (const kac_algorithm *row = kac_algorithms; row->name != NULL; row++) {
        fprintf(out, "\n### %s\n\n%s\n\n* Samples: %s\n* Source: %s\n* Sets:", row->name,
                row->summary, row->law, row->source);
        for (int i = 0; row->set[i].key != NULL; i++)
            fprintf(out, "%s `%s: %s`", i > 0 ? "," : "", row->set[i].key, row->set[i].value);
        fprintf(out, "\n");
    }
}

/* Explains the keys that can have this value; false where none can. */
static bool explain_choice(const char *name, FILE *out)
{
    bool known = false;
    for (int i = 0; i < kac_keys_count(); i++) {
        const kac_key *key = kac_keys_at(i);
        if (key->choices == NULL) continue;
        for (int k = 0; key->choices[k] != NULL; k++) {
            if (strcmp(key->choices[k], name) != 0) continue;
            fprintf(out, "%s is a value of\n", name);
            explain_key(key, out);
            known = true;
        }
    }
    return known;
}

/* Explains one name; false where there is no such key, section or row. */
static bool explain_name(const char *name, FILE *out)
{
    int index = -1;
    const kac_key *found = kac_keys_find(name, &index);
    if (found != NULL) {
        explain_key(found, out);
        return true;
    }
    bool known = strcmp(name, "algorithms") == 0;
    for (const kac_algorithm *row = kac_algorithms; row->name != NULL; row++) {
        if (strcmp(name, "algorithms") != 0 && strcmp(name, row->name) != 0) continue;
        explain_algorithm(row, out);
        known = true;
    }
    for (int i = 0; i < kac_keys_count(); i++) {
        if (!kac_keys_in_section(kac_keys_at(i), name)) continue;
        explain_key(kac_keys_at(i), out);
        known = true;
    }
    return known || explain_choice(name, out);
}

kac_status kac_config_explain(const char *key, FILE *out)
{
    KAC_REQUIRE(out != NULL);
    if (key == NULL) {
        explain_all(out);
    } else if (!explain_name(key, out)) {
        kac_settings settings = {0};
        return kac_key_assign(&settings, key, ""); /* says what is wrong */
    }
    if (fflush(out) != 0 || ferror(out))
        return KAC_FAIL(KAC_ERR_IO, "cannot write: %s", strerror(errno));
    return KAC_OK;
}
