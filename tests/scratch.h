/* scratch.h -- a folder of its own for a test that writes files. */
#ifndef KAC_SCRATCH_H
#define KAC_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>

/* Makes an empty folder under TMPDIR; the test removes what it puts there. */
static inline void scratch_create(char *path, size_t size)
{
    const char *base = getenv("TMPDIR");
    snprintf(path, size, "%s/kac-test-XXXXXX", base != NULL ? base : P_tmpdir);
    if (mkdtemp(path) == NULL) abort();
}

#endif /* KAC_SCRATCH_H */
