/* worker.h -- numbers of objects from copies of any program (docs/workers.md has the protocol).
 *
 * A copy gets a line with a count and then that many objects, a line each, and answers as many
 * lines of numbers.  A copy that ends or falls silent is killed and started again, and what it
 * had not answered is asked again, in halves, until the object that it fails on is alone.  What
 * is asked decides the answers' places, so they depend neither on the copies nor on who failed.
 */
#ifndef KAC_WORKER_H
#define KAC_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base.h"

enum { KAC_WORKER_COLUMNS = 4096 }; /* numbers of a line that can be read */

typedef struct kac_worker kac_worker;

typedef struct kac_worker_spec {
    int term;            /* reward.N, for messages */
    const char *command; /* as kac_command_words reads it */
    int32_t processes;   /* copies, at most KAC_KEPT */
    int32_t batch;       /* objects that a copy gets at a time, at most */
    double timeout;      /* seconds without a line after which a copy is hung */
    int32_t attempts;    /* failures on one object alone, after which it is given up */
    int32_t columns;     /* numbers of a line that are read; a line may have more */
    bool gives_up;       /* an object that is given up is NaN, not an error */
} kac_worker_spec;

/* What has happened so far. */
typedef struct kac_worker_counts {
    int64_t answered; /* objects */
    int64_t failures; /* copies that ended or hung before they had answered all */
    int64_t given_up; /* objects */
} kac_worker_counts;

/* Starts the copies.  The thread that starts a copy, here or in kac_worker_ask, must live as long
 * as it.  Errors: INVALID (there is no such program), WORKER, NOMEM. */
kac_status kac_worker_open(const kac_worker_spec *spec, kac_worker **out);
void kac_worker_close(kac_worker *worker); /* accepts NULL */

/* Row i of out, `stride` floats apart, = the numbers of object i, text at objects + i * size;
 * waits for all n.  A copy has one batch in hand at a time.
 * Errors: WORKER (it keeps failing, or answers what is no answer), INVALID, NOMEM. */
kac_status kac_worker_ask(kac_worker *worker, const char *objects, size_t size, int32_t n,
                          float *out, int32_t stride);

/* Belongs to the worker, and may be set: a run that is resumed goes on counting. */
kac_worker_counts *kac_worker_counted(kac_worker *worker);

/* Its command in backquotes, shortened. */
const char *kac_worker_name(const kac_worker *worker);

/* Reads `columns` numbers and checks the rest of a line that ends with a zero: numbers with
 * blanks, tabs or commas between them; nan, inf and -inf are numbers.  False where it is none. */
bool kac_worker_reads(const char *line, int32_t columns, float *out);

#endif /* KAC_WORKER_H */
