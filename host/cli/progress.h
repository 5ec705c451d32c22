/* progress.h -- how far a run is, on stderr. */
#ifndef KAC_PROGRESS_H
#define KAC_PROGRESS_H

#include <stdbool.h>

#include "kac.h"

typedef struct progress {
    bool quiet;
    bool terminal;    /* one line redrawn, else a plain line now and then */
    bool pilot;       /* its steps, in which nothing is valued */
    int64_t steps;    /* T */
    double particles; /* in the population */
    int64_t tenth;    /* plain lines: tenths of the run already told */
    double told;      /* plain lines: seconds of the run at the latest */
    bool drawn;       /* a line stands on the terminal without its newline */
} progress;

progress progress_begin(bool quiet, bool pilot, int64_t steps, double particles);
void progress_show(progress *p, const kac_progress *now);
void progress_end(progress *p); /* leaves the terminal at the start of a line */

#endif /* KAC_PROGRESS_H */
