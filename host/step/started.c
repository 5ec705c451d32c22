/* started.c -- when, where and by which command a run was started. */
#include "started.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "settings.h"

enum { COMMAND_MOST = 1 << 16 };

/* The command of this process, to be freed; NULL where it cannot be had. */
static char *command_line(void)
{
    char *words = calloc(COMMAND_MOST + 1, 1), *text = NULL;
    size_t size = 0;
    FILE *in = fopen("/proc/self/cmdline", "rbe"), *out = NULL;
    if (words != NULL && in != NULL) {
        size_t length = fread(words, 1, COMMAND_MOST, in);
        out = open_memstream(&text, &size);
        for (size_t at = 0; out != NULL && at < length; at += strlen(words + at) + 1) {
            if (at > 0) fputc(' ', out);
            kac_word_write(words + at, out);
        }
    }
    if (out != NULL) (void)fclose(out);
    if (in != NULL) (void)fclose(in);
    free(words);
    return text;
}

static json_t *text_or_null(const char *text)
{
    json_t *json = text != NULL ? json_string(text) : NULL;
    return json != NULL ? json : json_null();
}

kac_status kac_started_now(json_t **out)
{
    char date[32] = "", folder[PATH_MAX];
    time_t now = time(NULL);
    struct tm utc;
    char *command = command_line();
    if (gmtime_r(&now, &utc) != NULL)
        (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    *out = json_pack("{sssoso}", "date", date, "folder",
                     text_or_null(getcwd(folder, sizeof folder)), "command",
                     text_or_null(command));
    free(command);
    return *out != NULL ? KAC_OK : KAC_FAIL(KAC_ERR_NOMEM, "run: no memory");
}
