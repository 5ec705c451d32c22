/* fuzz_config.c -- libFuzzer: the YAML reader survives any bytes; what it accepts reads back
 * from its own JSON to the same settings. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "settings.h"

/* libFuzzer calls it by this name.  NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* All values in force, as text that the caller frees. */
static char *echo(const kac_config *config)
{
    json_t *json = NULL;
    if (kac_config_json(config, &json) != KAC_OK) abort();
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (text == NULL) abort();
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kac_config *config = NULL;
    kac_config *again = NULL;
    kac_settings settings;
    if (kac_config_create(&config) != KAC_OK || kac_config_create(&again) != KAC_OK) abort();
    if (kac_config_parse(config, "fuzz", data, size) == KAC_OK) {
        char *once = echo(config);
        if (kac_config_parse(again, "echo", once, strlen(once)) != KAC_OK) abort();
        char *twice = echo(again);
        if (strcmp(once, twice) != 0) abort();
        if (kac_config_settings(config, &settings) != kac_config_settings(again, &settings))
            abort();
        free(once);
        free(twice);
    }
    kac_config_destroy(config);
    kac_config_destroy(again);
    return 0;
}
