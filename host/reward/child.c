/* child.c -- starting programs and making sure that they end. */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- pipes -------------------------------------------------------------------------------- */

static void close_end(int *end)
{
    if (*end >= 0) close(*end);
    *end = -1;
}

static void close_pipe(int ends[2])
{
    close_end(&ends[0]);
    close_end(&ends[1]);
}

/* Children inherit no end that is not given to them. */
static bool make_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC) == 0) return true;
    ends[0] = ends[1] = -1;
    return false;
}

static bool never_block(int end)
{
    int flags = fcntl(end, F_GETFL);
    return flags >= 0 && fcntl(end, F_SETFL, flags | O_NONBLOCK) == 0;
}

static kac_status no_process(const char *what)
{
    return KAC_FAIL(KAC_ERR_WORKER, "worker: no %s: %s", what, strerror(errno));
}

/* ---- the keeper ----------------------------------------------------------------------------
 *
 * It is told the groups that exist: a number for one that begins, its negative for one that has
 * ended.  A child tells of itself before it becomes another program, so no group is missed.
 */

/* A fork without exec keeps what its parent had open; the keeper must not, least of all the
 * other end of its own pipe. */
static void close_all_but(int kept)
{
#ifdef SYS_close_range
    bool below = kept == 0 || syscall(SYS_close_range, 0U, (unsigned)kept - 1, 0U) == 0;
    if (below && syscall(SYS_close_range, (unsigned)kept + 1, ~0U, 0U) == 0) return;
#endif
    long most = sysconf(_SC_OPEN_MAX);
    for (int i = 0; i < (most > 0 && most < 1 << 20 ? (int)most : 1 << 20); i++)
        if (i != kept) close(i);
}

/* The keeper's whole life.  Only functions that are safe in a signal handler: kac may have had
 * several threads when it was forked. */
__attribute__((noreturn)) static void keep(int messages)
{
    pid_t group[KAC_KEPT] = {0};
    pid_t said = 0;
    setsid();
    close_all_but(messages);
    for (;;) {
        ssize_t n = read(messages, &said, sizeof said);
        if (n < 0 && errno == EINTR) continue;
        if (n != (ssize_t)sizeof said) break;
        int i = 0;
        while (i < KAC_KEPT && group[i] != (said > 0 ? 0 : -said))
            i++;
        if (i < KAC_KEPT) group[i] = said > 0 ? said : 0;
    }
    for (int i = 0; i < KAC_KEPT; i++)
        if (group[i] > 0) kill(-group[i], SIGKILL);
    _exit(0);
}

/* A pipe takes few bytes at once or not at all, and has room for thousands of messages. */
static void tell(const kac_keeper *keeper, pid_t group)
{
    while (write(keeper->write, &group, sizeof group) < 0 && errno == EINTR)
        continue;
}

/* fork with all signals held back, so that no handler of kac's runs in the child; *before is
 * what the parent, and a child that becomes a program, goes back to. */
static pid_t fork_held(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, before);
    pid_t pid = fork();
    int failed = errno;
    if (pid != 0) pthread_sigmask(SIG_SETMASK, before, NULL);
    errno = failed;
    return pid;
}

kac_status kac_keeper_open(kac_keeper *keeper)
{
    sigset_t before;
    int ends[2];
    *keeper = (kac_keeper){.read = -1, .write = -1};
    if (!make_pipe(ends)) return no_process("pipe");
    pid_t pid = fork_held(&before);
    if (pid < 0) {
        close_pipe(ends);
        return no_process("process");
    }
    if (pid == 0) keep(ends[0]); /* signals stay held back: it ends when kac does, not before */
    never_block(ends[1]);
    *keeper = (kac_keeper){.pid = pid, .read = ends[0], .write = ends[1]};
    return KAC_OK;
}

void kac_keeper_close(kac_keeper *keeper)
{
    if (keeper->pid == 0) return;
    kill(keeper->pid, SIGKILL);
    while (waitpid(keeper->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    close_end(&keeper->read);
    close_end(&keeper->write);
    *keeper = (kac_keeper){0};
}

/* ---- starting ------------------------------------------------------------------------------
 */

typedef struct pipes {
    int in[2], out[2], err[2];
    int failed[2]; /* errno of an exec that failed; closed by one that succeeds */
} pipes;

static void close_pipes(pipes *p)
{
    close_pipe(p->in);
    close_pipe(p->out);
    close_pipe(p->err);
    close_pipe(p->failed);
}

/* What a pipe became may be one of 0, 1 and 2, where kac itself was started without them. */
static bool place(int from[3])
{
    for (int i = 0; i < 3; i++) {
        from[i] = fcntl(from[i], F_DUPFD, 3);
        if (from[i] < 0) return false;
    }
    for (int i = 0; i < 3; i++) {
        if (dup2(from[i], i) < 0) return false;
        close(from[i]);
    }
    return true;
}

/* The child's side of a fork, until it is another program. */
__attribute__((noreturn)) static void become(const kac_keeper *keeper, char *const argv[],
                                             const pipes *p, pid_t parent)
{
    int from[3] = {p->in[0], p->out[1], p->err[1]};
    int failed = fcntl(p->failed[1], F_DUPFD_CLOEXEC, 3);
    sigset_t none;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1); /* it died before the kernel knew */
    tell(keeper, getpid());
    signal(SIGPIPE, SIG_DFL); /* which kac ignores, and a program would inherit that */
    signal(SIGXFSZ, SIG_DFL);
    sigemptyset(&none);
    if (place(from)) {
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        execvp(argv[0], argv);
    }
    int why = errno;
    while (write(failed, &why, sizeof why) < 0 && errno == EINTR)
        continue;
    _exit(127);
}

/* 0 once the child is another program, or what kept it from that. */
static int wait_for_exec(const pipes *p)
{
    int why = 0;
    ssize_t n = 0;
    do
        n = read(p->failed[0], &why, sizeof why);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof why ? why : 0;
}

kac_status kac_child_start(const kac_keeper *keeper, char *const argv[], kac_child *out)
{
    pipes p = {{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
    sigset_t before;
    if (!make_pipe(p.in) || !make_pipe(p.out) || !make_pipe(p.err) || !make_pipe(p.failed) ||
        !never_block(p.in[1]) || !never_block(p.out[0]) || !never_block(p.err[0])) {
        kac_status status = no_process("pipe");
        close_pipes(&p);
        return status;
    }
    pid_t parent = getpid();
    pid_t pid = fork_held(&before);
    if (pid == 0) become(keeper, argv, &p, parent);
    if (pid < 0) {
        kac_status status = no_process("process");
        close_pipes(&p);
        return status;
    }
    close_end(&p.out[1]);
    close_end(&p.err[1]);
    close_end(&p.failed[1]);
    kac_child child = {
        .pid = pid, .in = p.in[1], .out = p.out[0], .err = p.err[0], .open = p.in[0]};
    int why = wait_for_exec(&p);
    close_end(&p.failed[0]);
    if (why != 0) {
        kac_child_kill(keeper, &child);
        return KAC_FAIL(KAC_ERR_INVALID, "cannot run %s: %s", argv[0], strerror(why));
    }
    *out = child;
    return KAC_OK;
}

/* ---- ending --------------------------------------------------------------------------------
 */

/* Whether it has ended; it stays a zombie, so that its group's number is not given away. */
static bool has_ended(const kac_child *child)
{
    siginfo_t info = {0};
    int found = waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT);
    return found < 0 ? errno != EINTR : info.si_pid == child->pid;
}

bool kac_child_ends(const kac_child *child, double seconds)
{
    const struct timespec pause = {0, 2000000};
    for (int i = 0; i < (int)(seconds / 2e-3); i++) {
        if (has_ended(child)) return true;
        nanosleep(&pause, NULL);
    }
    return has_ended(child);
}

int kac_child_kill(const kac_keeper *keeper, kac_child *child)
{
    int how = -1;
    pid_t reaped = 0;
    if (child->pid == 0) return how;
    kill(-child->pid, SIGKILL);
    kill(child->pid, SIGKILL); /* which may have left its group */
    do
        reaped = waitpid(child->pid, &how, 0);
    while (reaped < 0 && errno == EINTR);
    tell(keeper, -child->pid);
    close_end(&child->in);
    close_end(&child->out);
    close_end(&child->err);
    close_end(&child->open);
    *child = (kac_child){0};
    return reaped < 0 ? -1 : how;
}

void kac_child_end(const kac_keeper *keeper, kac_child *child, double seconds)
{
    if (child->pid == 0) return;
    close_end(&child->in);
    (void)kac_child_ends(child, seconds);
    (void)kac_child_kill(keeper, child);
}
