/* worker.c -- batches to the copies of a program and their answers back, whatever they do. */
#include "worker.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "settings.h"

enum { LINE = 4096, SAID = 1500, TOLD = 20, SHOWN = 100, NAME = 200, TRIED = 1800 };

/* How long an idle copy may take to end once its input is closed, and one that has closed its
 * output to be seen ending. */
static const double grace = 2;

/* Objects first .. first + count - 1 of a call. */
typedef struct span {
    int32_t first, count;
} span;

typedef struct copy {
    kac_child child;
    span batch;     /* in hand; count 0: idle */
    int32_t answer; /* objects of it that have been answered */
    bool served;    /* it has answered a batch since its start */
    char *text;     /* the request */
    size_t size, sent;
    size_t capacity;
    double heard;    /* when it got its batch, or sent its latest line */
    char line[LINE]; /* what has come of a line without its end */
    size_t held;
    char said[SAID + 1]; /* the end of its standard error */
    size_t said_size;
} copy;

struct kac_worker {
    kac_worker_spec spec;
    json_t *words;
    char **argv; /* of `words` */
    char name[NAME];
    kac_keeper keeper;
    copy *copies; /* [processes] */
    struct pollfd *polled;
    bool answers;     /* a copy has answered a batch since the start */
    int64_t in_a_row; /* failures since one did */
    kac_worker_counts counts;

    /* of the call */
    const char *objects;
    size_t object_size;
    float *out;
    int32_t stride;
    int32_t share;   /* objects of a batch, at most */
    int32_t done;    /* objects that are answered or given up */
    span *waiting;   /* a stack: the last is next */
    int32_t *failed; /* [n] failures of each object alone */
    int32_t waits, room;
};

/* ---- messages ----------------------------------------------------------------------------- */

/* Text that may go to a terminal. */
static void make_plain(char *text)
{
    for (char *t = text; *t != '\0'; t++)
        if ((*t < ' ' && *t != '\n') || *t > '~') *t = *t == '\t' ? ' ' : '?';
}

/* The end of its standard error, TOLD lines at most, below a sentence and indented. */
static void last_lines(const copy *c, char *text, size_t size)
{
    size_t end = c->said_size, used = 0;
    while (end > 0 && (unsigned char)c->said[end - 1] <= ' ')
        end--;
    size_t begin = end;
    for (int lines = 0; begin > 0 && (c->said[begin - 1] != '\n' || ++lines < TOLD);)
        begin--;
    text[0] = '\0';
    if (begin < end) used = (size_t)snprintf(text, size, "; the end of its standard error:");
    while (begin < end && used < size) {
        const char *line = c->said + begin;
        const char *newline = memchr(line, '\n', end - begin);
        size_t length = newline != NULL ? (size_t)(newline - line) : end - begin;
        used += (size_t)snprintf(text + used, size - used, "\n    %.*s", (int)length, line);
        begin += length + 1;
    }
    make_plain(text);
}

/* How to ask the program about an object by hand, as a line below a sentence; none where that
 * would be long. */
static void by_hand(const kac_worker *w, const char *object, char *text, size_t size)
{
    char *line = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&line, &length);
    text[0] = '\0';
    if (out == NULL) return;
    fputs("\ntry it: printf '%s\\n' 1 ", out);
    kac_word_write(object, out);
    fputs(" |", out);
    for (char **word = w->argv; *word != NULL; word++) {
        fputc(' ', out);
        kac_word_write(*word, out);
    }
    if (fclose(out) == 0 && length < size && strpbrk(line + 1, "\n\r") == NULL)
        memcpy(text, line, length + 1);
    free(line);
}

/* A line or an object as far as a sentence has room for it. */
static void shorten(const char *text, size_t length, char *out, size_t size)
{
    bool cut = length > SHOWN;
    snprintf(out, size, "%.*s%s", cut ? SHOWN : (int)length, text, cut ? "..." : "");
    make_plain(out);
}

/* ---- starting and reading ------------------------------------------------------------------
 */

static kac_status start(kac_worker *w, copy *c)
{
    c->held = c->said_size = 0;
    c->served = false;
    kac_status status = kac_child_start(&w->keeper, w->argv, &c->child);
    if (status == KAC_OK) return status;
    char why[300];
    snprintf(why, sizeof why, "%s", kac_last_error());
    return KAC_FAIL(status, "reward.%d.command: %s", w->spec.term, why);
}

static void close_copies(kac_worker *w)
{
    for (int32_t i = 0; i < w->spec.processes; i++)
        (void)kac_child_kill(&w->keeper, &w->copies[i].child);
}

/* Keeps the end of what it says.  Of one that never stops, some now and more at the next look. */
static void listen(copy *c)
{
    enum { LOOKS = 64 };
    char more[1024];
    ssize_t n = 0;
    for (int k = 0; k < LOOKS && (n = read(c->child.err, more, sizeof more)) > 0; k++) {
        size_t from = n > SAID ? (size_t)n - SAID : 0;
        size_t length = (size_t)n - from;
        size_t kept = c->said_size + length > SAID ? SAID - length : c->said_size;
        memmove(c->said, c->said + c->said_size - kept, kept);
        memcpy(c->said + kept, more + from, length);
        c->said_size = kept + length;
    }
}

static bool is_number(const char *text, size_t length, float *out)
{
    char word[64], *end = NULL;
    if (length == 0 || length >= sizeof word) return false;
    memcpy(word, text, length);
    word[length] = '\0';
    const char *name = word + (word[0] == '-' || word[0] == '+');
    bool named = strcasecmp(name, "nan") == 0 || strcasecmp(name, "inf") == 0;
    if (!named && word[strspn(word, "+-.0123456789eE")] != '\0') return false;
    *out = strtof(word, &end);
    return *end == '\0';
}

bool kac_worker_reads(const char *line, int32_t columns, float *out)
{
    static const char between[] = " \t,\r";
    int32_t count = 0;
    for (line += strspn(line, between); *line != '\0'; line += strspn(line, between)) {
        size_t length = strcspn(line, between);
        float number = 0;
        if (!is_number(line, length, &number)) return false;
        if (count < columns) out[count] = number;
        count++;
        line += length;
    }
    return count >= columns;
}

/* A whole line that has come. */
static kac_status take_line(kac_worker *w, copy *c)
{
    float row[KAC_WORKER_COLUMNS];
    char shown[SHOWN + 8];
    c->line[c->held] = '\0';
    shorten(c->line, c->held, shown, sizeof shown);
    if (c->answer == c->batch.count)
        return KAC_FAIL(KAC_ERR_WORKER,
                        "reward.%d: %s wrote a line that nobody asked for: `%s`; want one line "
                        "for each object, and nothing else on standard output",
                        w->spec.term, w->name, shown);
    if (strlen(c->line) != c->held || !kac_worker_reads(c->line, w->spec.columns, row))
        return KAC_FAIL(KAC_ERR_WORKER, "reward.%d: %s answered `%s`; want %d number%s%s",
                        w->spec.term, w->name, shown, w->spec.columns,
                        w->spec.columns > 1 ? "s" : "",
                        " or more, with blanks or commas between them, for each object");
    memcpy(w->out + (ptrdiff_t)(c->batch.first + c->answer) * w->stride, row,
           (size_t)w->spec.columns * sizeof *row);
    c->held = 0;
    c->answer++;
    c->heard = kac_now();
    if (c->answer < c->batch.count) return KAC_OK;
    c->served = true;
    w->answers = true;
    w->in_a_row = 0;
    w->done += c->answer;
    w->counts.answered += c->answer;
    return KAC_OK;
}

/* Reads what has come; *ended: and nothing more will. */
static kac_status hear(kac_worker *w, copy *c, bool *ended)
{
    char more[4096];
    *ended = false;
    for (;;) {
        ssize_t n = read(c->child.out, more, sizeof more);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return KAC_OK;
        if (n <= 0) {
            *ended = true;
            return KAC_OK;
        }
        for (ssize_t i = 0; i < n; i++) {
            if (more[i] == '\n') {
                KAC_TRY(take_line(w, c));
            } else if (c->held == LINE - 1) {
                return KAC_FAIL(KAC_ERR_WORKER,
                                "reward.%d: %s wrote a line of more than %d characters",
                                w->spec.term, w->name, LINE - 1);
            } else {
                c->line[c->held++] = more[i];
            }
        }
    }
}

/* ---- batches ------------------------------------------------------------------------------ */

static void push(kac_worker *w, int32_t first, int32_t count)
{
    if (count > 0) w->waiting[w->waits++] = (span){first, count};
}

/* The request of a batch. */
static kac_status write_request(kac_worker *w, copy *c)
{
    size_t most = 16 + (size_t)c->batch.count * (w->object_size + 1);
    if (most > c->capacity) {
        char *text = realloc(c->text, most);
        if (text == NULL)
            return KAC_FAIL(KAC_ERR_NOMEM, "reward.%d: no memory for a batch of %d objects",
                            w->spec.term, c->batch.count);
        c->text = text;
        c->capacity = most;
    }
    c->size = (size_t)snprintf(c->text, most, "%d\n", c->batch.count);
    for (int32_t i = 0; i < c->batch.count; i++) {
        const char *object = w->objects + (size_t)(c->batch.first + i) * w->object_size;
        size_t length = strlen(object);
        memcpy(c->text + c->size, object, length);
        c->text[c->size + length] = '\n';
        c->size += length + 1;
    }
    c->sent = 0;
    return KAC_OK;
}

/* As much of the request as the pipe takes. */
static void send_more(copy *c)
{
    while (c->sent < c->size) {
        ssize_t n = write(c->child.in, c->text + c->sent, c->size - c->sent);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return; /* full; that it has ended its output will tell */
        c->sent += (size_t)n;
    }
}

/* The next batch for an idle copy: one object until the program has shown that it works, then
 * what the copies share.  A copy that has ended while it was idle is started again. */
static kac_status give(kac_worker *w, copy *c)
{
    bool ended = false;
    if (w->waits == 0) return KAC_OK;
    if (c->child.pid != 0) {
        c->batch.count = c->answer = 0;
        KAC_TRY(hear(w, c, &ended));
        if (ended) (void)kac_child_kill(&w->keeper, &c->child);
    }
    if (c->child.pid == 0) KAC_TRY(start(w, c));
    span *top = &w->waiting[w->waits - 1];
    int32_t most = w->answers ? w->share : 1;
    int32_t count = top->count < most ? top->count : most;
    c->batch = (span){top->first, count};
    top->first += count;
    top->count -= count;
    if (top->count == 0) w->waits--;
    c->answer = 0;
    c->heard = kac_now();
    KAC_TRY(write_request(w, c));
    send_more(c);
    return KAC_OK;
}

/* What a copy that has ended or hung did, as a sentence without a subject; kills it. */
static void describe_failure(kac_worker *w, copy *c, bool hung, char *text, size_t size)
{
    bool ends = hung || kac_child_ends(&c->child, grace);
    listen(c);
    int how = kac_child_kill(&w->keeper, &c->child);
    if (hung)
        snprintf(text, size, "wrote %d of %d lines and then nothing for %g s%s", c->answer,
                 c->batch.count, w->spec.timeout,
                 " (does it flush its output after each batch?)");
    else if (ends && how >= 0 && WIFEXITED(how))
        snprintf(text, size, "ended with exit code %d", WEXITSTATUS(how));
    else if (ends && how >= 0 && WIFSIGNALED(how))
        snprintf(text, size, "was ended by signal %d", WTERMSIG(how));
    else
        snprintf(text, size, "closed its output");
}

/* The sentence for a program that answers nobody, or an object that is given up; below it what
 * the program has said, and how to try it. */
static kac_status complain(const kac_worker *w, const copy *c, const char *what, int64_t times)
{
    char object[SHOWN + 8], said[SAID + 5 * TOLD + 64], hand[TRIED];
    const char *text = w->objects + (size_t)c->batch.first * w->object_size;
    shorten(text, strlen(text), object, sizeof object);
    last_lines(c, said, sizeof said);
    by_hand(w, text, hand, sizeof hand);
    if (!w->answers)
        return KAC_FAIL(KAC_ERR_WORKER,
                        "reward.%d: %s %s before it had answered anything, %lld times%s%s",
                        w->spec.term, w->name, what, (long long)times, said, hand);
    if (w->spec.gives_up)
        return KAC_FAIL(KAC_ERR_WORKER, "reward.%d: %s %s, %lld times in a row%s%s",
                        w->spec.term, w->name, what, (long long)times, said, hand);
    return KAC_FAIL(KAC_ERR_WORKER,
                    "reward.%d: %s %s, %lld times with nothing but %s to answer "
                    "(sampler.on_invalid: worst goes on without such objects)%s%s",
                    w->spec.term, w->name, what, (long long)times, object, said, hand);
}

/* A copy has ended or hung.  Its batch waits again, in halves, and what it has answered is
 * forgotten: it may have left out a line.  An object alone is given up when it has failed too
 * often.  A program that answers nobody any more is an error. */
static kac_status fail(kac_worker *w, copy *c, bool hung)
{
    char what[200];
    int32_t first = c->batch.first, count = c->batch.count;
    bool left = c->served && c->answer == 0 && !hung; /* as it may, after a batch */
    describe_failure(w, c, hung, what, sizeof what);
    if (left) {
        c->batch.count = 0;
        push(w, first, count); /* a fresh copy will tell whether it was that */
        return KAC_OK;
    }
    w->counts.failures++;
    int64_t patience = (w->answers ? 16 : 4) * ((int64_t)w->spec.attempts + w->spec.processes);
    if (++w->in_a_row >= patience) return complain(w, c, what, w->in_a_row);
    if (count > 1) {
        push(w, first + count / 2, count - count / 2);
        push(w, first, count / 2);
    } else if (++w->failed[first] < w->spec.attempts) {
        push(w, first, 1);
    } else if (w->spec.gives_up) {
        for (int32_t k = 0; k < w->spec.columns; k++)
            w->out[(ptrdiff_t)first * w->stride + k] = (float)NAN;
        w->counts.given_up++;
        w->done++;
    } else {
        return complain(w, c, what, w->failed[first]);
    }
    c->batch.count = c->answer = 0;
    return KAC_OK;
}

/* ---- a call ------------------------------------------------------------------------------- */

static bool is_busy(const copy *c)
{
    return c->answer < c->batch.count;
}

/* Waits until a copy has something to say or to take, or one has been silent for too long. */
static kac_status wait_for_any(kac_worker *w)
{
    double until = HUGE_VAL;
    for (int32_t i = 0; i < w->spec.processes; i++) {
        const copy *c = &w->copies[i];
        struct pollfd *p = &w->polled[3 * (ptrdiff_t)i];
        bool busy = is_busy(c), sends = busy && c->sent < c->size;
        p[0] = (struct pollfd){.fd = busy ? c->child.out : -1, .events = POLLIN};
        p[1] = (struct pollfd){.fd = busy ? c->child.err : -1, .events = POLLIN};
        p[2] = (struct pollfd){.fd = sends ? c->child.in : -1, .events = POLLOUT};
        if (busy && c->heard + w->spec.timeout < until) until = c->heard + w->spec.timeout;
    }
    double seconds = until - kac_now();
    int milliseconds = seconds <= 0 ? 0 : seconds > 60 ? 60000 : (int)(seconds * 1e3) + 1;
    if (poll(w->polled, 3 * (nfds_t)w->spec.processes, milliseconds) >= 0 || errno == EINTR)
        return KAC_OK;
    return KAC_FAIL(KAC_ERR_WORKER, "reward.%d: poll: %s", w->spec.term, strerror(errno));
}

/* What one copy has to say. */
static kac_status attend(kac_worker *w, copy *c, const struct pollfd *p)
{
    bool ended = false;
    if (p[1].fd >= 0 && p[1].revents != 0) {
        listen(c);
        /* A closed standard error would wake every poll. */
        if ((p[1].revents & (POLLHUP | POLLERR)) != 0 && (p[1].revents & POLLIN) == 0) {
            close(c->child.err);
            c->child.err = -1;
        }
    }
    if (p[2].fd >= 0 && p[2].revents != 0) send_more(c);
    if (p[0].fd >= 0 && p[0].revents != 0) KAC_TRY(hear(w, c, &ended));
    if (!is_busy(c)) return KAC_OK; /* what ended with its last line is started when needed */
    if (ended) return fail(w, c, false);
    return kac_now() - c->heard >= w->spec.timeout ? fail(w, c, true) : KAC_OK;
}

/* All n objects, answered or given up. */
static kac_status answer_all(kac_worker *w, int32_t n)
{
    while (w->done < n) {
        for (int32_t i = 0; i < w->spec.processes; i++)
            if (!is_busy(&w->copies[i])) KAC_TRY(give(w, &w->copies[i]));
        KAC_TRY(wait_for_any(w));
        for (int32_t i = 0; i < w->spec.processes; i++)
            if (is_busy(&w->copies[i]))
                KAC_TRY(attend(w, &w->copies[i], &w->polled[3 * (ptrdiff_t)i]));
    }
    return KAC_OK;
}

/* Spans are disjoint and not empty, so there are never more than n. */
static kac_status make_room(kac_worker *w, int32_t n)
{
    if (n <= w->room) return KAC_OK;
    span *waiting = realloc(w->waiting, (size_t)n * sizeof *waiting);
    if (waiting != NULL) w->waiting = waiting;
    int32_t *failed = realloc(w->failed, (size_t)n * sizeof *failed);
    if (failed != NULL) w->failed = failed;
    if (waiting == NULL || failed == NULL)
        return KAC_FAIL(KAC_ERR_NOMEM, "reward.%d: no memory for %d objects", w->spec.term, n);
    w->room = n;
    return KAC_OK;
}

kac_status kac_worker_ask(kac_worker *w, const char *objects, size_t size, int32_t n,
                          float *out, int32_t stride)
{
    if (n == 0) return KAC_OK;
    int32_t each = (n - 1) / w->spec.processes + 1;
    KAC_TRY(make_room(w, n));
    memset(w->failed, 0, (size_t)n * sizeof *w->failed);
    w->objects = objects;
    w->object_size = size;
    w->out = out;
    w->stride = stride;
    w->share = each < w->spec.batch ? each : w->spec.batch;
    w->done = 0;
    w->waits = 0;
    push(w, 0, n);
    for (int32_t i = 0; i < w->spec.processes; i++)
        w->copies[i].batch.count = w->copies[i].answer = 0;

    kac_status status = answer_all(w, n);
    if (status != KAC_OK) close_copies(w); /* some are in the middle of a batch */
    return status;
}

kac_worker_counts *kac_worker_counted(kac_worker *w)
{
    return &w->counts;
}

const char *kac_worker_name(const kac_worker *w)
{
    return w->name;
}

/* ---- opening and closing ------------------------------------------------------------------ */

static kac_status read_command(kac_worker *w, const char *command)
{
    w->words = kac_command_words(command);
    size_t count = json_array_size(w->words);
    KAC_REQUIRE(count > 0);
    w->argv = calloc(count + 1, sizeof *w->argv);
    if (w->argv == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "worker: no memory");
    kac_command_name(command, w->name, sizeof w->name);
    for (size_t i = 0; i < count; i++) {
        const char *word = json_string_value(json_array_get(w->words, i));
        w->argv[i] = strdup(word);
        if (w->argv[i] == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "worker: no memory");
    }
    return KAC_OK;
}

kac_status kac_worker_open(const kac_worker_spec *spec, kac_worker **out)
{
    KAC_REQUIRE(spec->processes >= 1 && spec->processes <= KAC_KEPT && spec->batch >= 1);
    KAC_REQUIRE(spec->columns >= 1 && spec->columns <= KAC_WORKER_COLUMNS);
    kac_status status = KAC_OK;
    kac_worker *w = calloc(1, sizeof *w);
    if (w == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "worker: no memory");
    w->spec = *spec;
    w->copies = calloc((size_t)spec->processes, sizeof *w->copies);
    w->polled = calloc(3 * (size_t)spec->processes, sizeof *w->polled);
    if (w->copies == NULL || w->polled == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "worker: no memory for %d copies", spec->processes);
        goto done;
    }
    KAC_TRY_DONE(read_command(w, spec->command));
    KAC_TRY_DONE(kac_keeper_open(&w->keeper));
    for (int32_t i = 0; i < spec->processes; i++)
        KAC_TRY_DONE(start(w, &w->copies[i]));
done:
    if (status != KAC_OK) {
        if (w->copies != NULL) close_copies(w);
        kac_worker_close(w);
        return status;
    }
    *out = w;
    return KAC_OK;
}

void kac_worker_close(kac_worker *w)
{
    if (w == NULL) return;
    for (int32_t i = 0; i < w->spec.processes && w->copies != NULL; i++) {
        kac_child *child = &w->copies[i].child;
        if (child->pid != 0) close(child->in); /* all are asked first, then waited for */
        child->in = -1;
    }
    double until = kac_now() + grace;
    for (int32_t i = 0; i < w->spec.processes && w->copies != NULL; i++) {
        double left = until - kac_now();
        kac_child_end(&w->keeper, &w->copies[i].child, left > 0 ? left : 0);
        free(w->copies[i].text);
    }
    kac_keeper_close(&w->keeper);
    for (char **word = w->argv; word != NULL && *word != NULL; word++)
        free(*word);
    free(w->argv);
    json_decref(w->words);
    free(w->copies);
    free(w->polled);
    free(w->waiting);
    free(w->failed);
    free(w);
}
