/* digest.h -- 64 bits that tell whether bytes have changed; no defence against those who mean to
 * deceive. */
#ifndef KAC_DIGEST_H
#define KAC_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "base.h"

/* Of nothing yet; and with `size` more bytes.  Any change within 8 bytes changes it. */
uint64_t kac_digest_begin(void);
uint64_t kac_digest_add(uint64_t digest, const void *bytes, size_t size);

/* Of a whole file.  Errors: INVALID (the path), IO, NOMEM. */
kac_status kac_digest_file(const char *path, uint64_t *out);

#endif /* KAC_DIGEST_H */
