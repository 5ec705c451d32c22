/* child.h -- a program beside kac that reads from one pipe and writes to two.
 *
 * It is run without a shell, in a process group of its own, so that signals of the terminal do
 * not reach it and whatever it starts can be killed with it.  Nothing outlives kac, however that
 * ends: the kernel kills a child when the thread that started it dies (PR_SET_PDEATHSIG), and a
 * keeper, a process that only waits for kac to be gone, kills the groups that are left.
 */
#ifndef KAC_CHILD_H
#define KAC_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#include "base.h"

/* The keeper of some children, at most KAC_KEPT at one time. */
enum { KAC_KEPT = 1024 };

typedef struct kac_keeper {
    pid_t pid;
    int read, write; /* the pipe that it reads; it ends when kac does */
} kac_keeper;

typedef struct kac_child {
    pid_t pid;   /* also of its process group; 0: there is none */
    int in, out; /* its standard input and output, for poll: they never block */
    int err;     /* its standard error, in the same way */
    int open;    /* the other end of `in`: while it is open, writing raises no SIGPIPE */
} kac_child;

/* Errors: WORKER (the machine has no more processes or files). */
kac_status kac_keeper_open(kac_keeper *keeper);
void kac_keeper_close(kac_keeper *keeper); /* after its children; accepts a zeroed one */

/* Starts argv[0], sought in PATH.  Errors: INVALID (it cannot be run), WORKER. */
kac_status kac_child_start(const kac_keeper *keeper, char *const argv[], kac_child *out);

/* Whether it has ended, or does so within `seconds`. */
bool kac_child_ends(const kac_child *child, double seconds);

/* Kills it with all that it has started.  What waitpid said of it, -1 where nothing is known. */
int kac_child_kill(const kac_keeper *keeper, kac_child *child);

/* Closes its input, which asks it to end, and kills what is left after `seconds`. */
void kac_child_end(const kac_keeper *keeper, kac_child *child, double seconds);

#endif /* KAC_CHILD_H */
