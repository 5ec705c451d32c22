/* digest.c -- 64 bits that tell whether bytes have changed: the hash of states, and the size. */
#include "digest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "atomic.h"
#include "states.h"

uint64_t kac_digest_begin(void)
{
    return KAC_HASH_START;
}

uint64_t kac_digest_add(uint64_t digest, const void *bytes, size_t size)
{
    const unsigned char *from = bytes;
    uint64_t word = 0;
    digest = kac_hash_add(digest, size);
    for (; size >= sizeof word; size -= sizeof word, from += sizeof word) {
        memcpy(&word, from, sizeof word);
        digest = kac_hash_add(digest, word);
    }
    word = 0;
    if (size > 0) memcpy(&word, from, size);
    return kac_hash_end(kac_hash_add(digest, word));
}

kac_status kac_digest_file(const char *path, uint64_t *out)
{
    enum { AT_ONCE = 1 << 20 };
    kac_status status = KAC_OK;
    uint64_t digest = kac_digest_begin();
    char *bytes = malloc(AT_ONCE);
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        status = KAC_FAIL(kac_path_status(errno), "%s: cannot open: %s", path, strerror(errno));
        goto done;
    }
    if (bytes == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "%s: out of memory", path);
        goto done;
    }
    for (size_t n; (n = fread(bytes, 1, AT_ONCE, file)) > 0;)
        digest = kac_digest_add(digest, bytes, n);
    if (ferror(file))
        status = KAC_FAIL(KAC_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
    else
        *out = digest;
done:
    if (file != NULL) (void)fclose(file);
    free(bytes);
    return status;
}
