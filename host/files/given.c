/* given.c -- whether the files that a configuration names are there, said by key. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "atomic.h"
#include "settings.h"

/* Where a path that is not absolute was looked for. */
static void say_where(const char *path, char *text, size_t size)
{
    char folder[KAC_PATH];
    text[0] = '\0';
    if (path[0] == '/') return;
    if (path[0] == '~')
        snprintf(text, size, "; ~ is not expanded, write the whole path");
    else if (getcwd(folder, sizeof folder) != NULL)
        snprintf(text, size, "; relative paths begin where kac is started, here %s", folder);
}

static kac_status check_file(const char *key, const char *path)
{
    char where[KAC_PATH + 64];
    if (path[0] == '\0' || access(path, R_OK) == 0) return KAC_OK;
    kac_status status = kac_path_status(errno);
    const char *why = strerror(errno);
    say_where(path, where, sizeof where);
    return KAC_FAIL(status, "%s: %s: cannot be read: %s%s", key, path, why, where);
}

kac_status kac_files_check(const kac_settings *settings)
{
    bool reads_value = settings->sampler.value == KAC_VALUE_LEARNED ||
                       settings->sampler.twist == KAC_TWIST_VALUE;
    KAC_TRY(check_file("model.file", settings->model.file));
    KAC_TRY(check_file("model.unconditional", settings->model.unconditional));
    for (int i = 0; i < settings->rewards; i++) {
        char key[32];
        snprintf(key, sizeof key, "reward.%d.file", i);
        KAC_TRY(check_file(key, settings->reward[i].file));
    }
    if (reads_value) KAC_TRY(check_file("sampler.value.file", settings->sampler.value_file));
    return check_file("driver.start", settings->driver.start);
}
