/* sequences.c -- sequences from a text file. */
#include "sequences.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "atomic.h"

typedef struct reader {
    const char *path;
    const kac_sequence_form *form;
    int64_t line;
    int64_t begun;  /* line at which the present sequence began */
    int32_t filled; /* its letters so far, -1: between two */
    int64_t count, capacity;
    uint8_t *rows;
} reader;

static kac_status begin(reader *r)
{
    size_t stride = (size_t)r->form->stride;
    if (r->count == r->capacity) {
        int64_t capacity = 2 * r->capacity + 16;
        uint8_t *rows = realloc(r->rows, (size_t)capacity * stride);
        if (rows == NULL)
            return KAC_FAIL(KAC_ERR_NOMEM, "%s: no memory for %lld sequences", r->path,
                            (long long)capacity);
        r->rows = rows;
        r->capacity = capacity;
    }
    memset(r->rows + (size_t)r->count * stride, 0, stride);
    r->begun = r->line;
    r->filled = 0;
    return KAC_OK;
}

static kac_status end(reader *r)
{
    if (r->filled < 0) return KAC_OK;
    if (r->filled != r->form->length)
        return KAC_FAIL(KAC_ERR_INVALID, "%s:%lld: a sequence of %d letters; want %d", r->path,
                        (long long)r->begun, r->filled, r->form->length);
    r->filled = -1;
    r->count++;
    return KAC_OK;
}

/* Where a letter is in the alphabet.  FASTA has lower-case letters too, often for what is masked
 * elsewhere, so one that the alphabet has in upper case only is that. */
static const char *find_letter(const char *alphabet, char letter)
{
    const char *at = strchr(alphabet, letter);
    bool lower = letter >= 'a' && letter <= 'z';
    return at == NULL && lower ? strchr(alphabet, letter - 'a' + 'A') : at;
}

static kac_status add_letters(reader *r, const char *text)
{
    uint8_t *row = r->rows + (size_t)r->count * (size_t)r->form->stride;
    for (; *text != '\0'; text++) {
        const char *at = find_letter(r->form->alphabet, *text);
        if (at == NULL)
            return KAC_FAIL(KAC_ERR_INVALID, "%s:%lld: `%c` is no letter of %s", r->path,
                            (long long)r->line, *text, r->form->alphabet);
        if (r->filled == r->form->length)
            return KAC_FAIL(KAC_ERR_INVALID,
                            "%s:%lld: a sequence of more than %d letters; want %d", r->path,
                            (long long)r->line, r->filled, r->form->length);
        row[r->filled++] = (uint8_t)(at - r->form->alphabet);
    }
    return KAC_OK;
}

static kac_status read_line(reader *r, char *text, bool *fasta)
{
    r->line++;
    text[strcspn(text, "\r\n")] = '\0';
    text += strspn(text, " \t");
    for (size_t n = strlen(text); n > 0 && strchr(" \t", text[n - 1]) != NULL; n--)
        text[n - 1] = '\0';
    if (*text == '>') {
        *fasta = true;
        KAC_TRY(end(r));
        return begin(r);
    }
    if (*text == '\0') return KAC_OK;
    if (*fasta) return add_letters(r, text);
    KAC_TRY(begin(r));
    KAC_TRY(add_letters(r, text));
    return end(r);
}

kac_status kac_sequences_read(const char *path, const kac_sequence_form *form, uint8_t **out,
                              int64_t *count)
{
    kac_status status = KAC_OK;
    reader r = {.path = path, .form = form, .filled = -1};
    char *text = NULL;
    size_t size = 0;
    bool fasta = false;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return KAC_FAIL(kac_path_status(errno), "%s: cannot open: %s", path, strerror(errno));
    for (ssize_t length; (length = getline(&text, &size, file)) >= 0;) {
        if (strlen(text) != (size_t)length) {
            status = KAC_FAIL(KAC_ERR_INVALID, "%s:%lld: a zero byte, so it is no text", path,
                              (long long)r.line + 1);
            goto done;
        }
        KAC_TRY_DONE(read_line(&r, text, &fasta));
    }
    if (ferror(file)) {
        status = KAC_FAIL(kac_path_status(errno), "%s: cannot read: %s", path, strerror(errno));
        goto done;
    }
    KAC_TRY_DONE(end(&r));
    if (r.count == 0) {
        status = KAC_FAIL(KAC_ERR_INVALID, "%s: no sequence in it", path);
        goto done;
    }
    *out = r.rows;
    *count = r.count;
    r.rows = NULL;
done:
    fclose(file);
    free(text);
    free(r.rows);
    return status;
}
