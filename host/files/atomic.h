/* atomic.h -- files and folders that appear complete or not at all. */
#ifndef KAC_ATOMIC_H
#define KAC_ATOMIC_H

#include <jansson.h>

#include "base.h"

/* The status of a failed system call on a path that the user gave: INVALID where the path is
 * wrong (missing, a folder, not permitted), IO where the machine failed (disk, memory). */
kac_status kac_path_status(int error);

/* A file that is being written beside `path`, under another name. */
typedef struct kac_atomic kac_atomic;

/* Errors: INVALID (the path), IO, NOMEM. */
kac_status kac_atomic_create(const char *path, kac_atomic **out);

/* What is written here becomes the file. */
FILE *kac_atomic_stream(const kac_atomic *file);

/* Writes JSON and the end of a line.  Errors: NOMEM; a write that fails leaves its mark on the
 * stream, as any does, for who closes it. */
kac_status kac_json_write(const json_t *json, size_t flags, FILE *out);

/* Puts the file at its path, in place of what was there, once all of it is on the disk.  Frees
 * `file` whatever the outcome; after an error nothing is left behind.  Errors: IO, INVALID. */
kac_status kac_atomic_commit(kac_atomic *file);

/* Removes what was written and frees `file`, which may be NULL. */
void kac_atomic_destroy(kac_atomic *file);

#endif /* KAC_ATOMIC_H */
