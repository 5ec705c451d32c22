/* rank_threads.h -- ranks that are threads of one process: the transport for tests.
 *
 * Each rank writes down which operation it has begun; whoever is the last to come, of all or of its
 * team, does it for them.
 */
#ifndef RANK_THREADS_H
#define RANK_THREADS_H

#include <pthread.h>
#include <string.h>

#include "ranks.h"

enum { MOST_RANKS = 8 };

typedef enum deed {
    DEED_NONE,
    DEED_MAX,
    DEED_SUM,
    DEED_BROADCAST,
    DEED_GATHER,
    DEED_ALL_GATHER,
    DEED_EXCHANGE,
} deed;

typedef struct seat {
    struct board *board;
    int rank;
    int first, members; /* its team */
    deed deed;          /* in progress */
    int64_t *x;
    int count;
    void *bytes; /* broadcast */
    const void *mine;
    size_t size;
    int from;
    void *const *into;
    const size_t *sizes;
    void *all; /* all_gather; exchange: `in` */
    const size_t *in_sizes;
    int64_t note[MOST_RANKS]; /* by whom, 0: none */
} seat;

typedef struct board {
    pthread_mutex_t lock;
    int ranks;
    bool closed[MOST_RANKS];
    seat seat[MOST_RANKS];
} board;

static inline void board_open(board *b, int ranks)
{
    memset(b, 0, sizeof *b);
    pthread_mutex_init(&b->lock, NULL);
    b->ranks = ranks;
    for (int q = 0; q < ranks; q++) {
        b->seat[q].board = b;
        b->seat[q].rank = q;
        b->seat[q].first = q;
        b->seat[q].members = 1;
    }
}

/* What all who take part have begun, for all of them. */
static inline void board_do(board *b, const bool *part)
{
    seat *first = &b->seat[0];
    for (int q = 1; q < b->ranks; q++) {
        seat *s = &b->seat[q];
        if (!part[q]) continue;
        for (int i = 0; i < s->count && s->deed == DEED_MAX; i++)
            if (s->x[i] > first->x[i]) first->x[i] = s->x[i];
        for (int i = 0; i < s->count && s->deed == DEED_SUM; i++)
            first->x[i] += s->x[i];
    }
    for (int q = 0; q < b->ranks; q++) {
        seat *s = &b->seat[q];
        seat *from = &b->seat[s->from];
        if (!part[q]) continue;
        if (s->deed == DEED_MAX || s->deed == DEED_SUM)
            memcpy(s->x, first->x, (size_t)s->count * sizeof *s->x);
        if (s->deed == DEED_BROADCAST && s != from) memcpy(s->bytes, from->bytes, s->size);
        if (s->deed == DEED_GATHER && s->size > 0) memmove(first->into[q], s->mine, s->size);
    }
}

static inline size_t seat_before(const size_t *sizes, int q)
{
    size_t before = 0;
    while (q-- > 0)
        before += sizes[q];
    return before;
}

/* What member q of the team whose first is `first` has for all of it. */
static inline void team_do(seat *first, int q)
{
    seat *from = first + q;
    for (int k = 0; k < first->members; k++) {
        seat *to = first + k;
        bool gather = from->deed == DEED_ALL_GATHER;
        const size_t *in = gather ? from->sizes : to->in_sizes;
        size_t some = from->sizes[gather ? q : k];
        const char *mine = from->mine;
        if (!gather) mine += seat_before(from->sizes, k);
        if (some > 0) memmove((char *)to->all + seat_before(in, q), mine, some);
    }
}

/* Whether rank q takes part in what `s` has begun: in what a team does its members, and in gathering
 * rank 0 and who has something for it. */
static inline bool takes_part(const seat *s, int q)
{
    const seat *root = &s->board->seat[0];
    if (s->deed == DEED_ALL_GATHER || s->deed == DEED_EXCHANGE)
        return q >= s->first && q < s->first + s->members;
    return s->deed != DEED_GATHER || q == 0 || root->deed != DEED_GATHER || root->sizes[q] > 0;
}

static inline void seat_begin(seat *s, deed what)
{
    board *b = s->board;
    bool in_team = what == DEED_ALL_GATHER || what == DEED_EXCHANGE, all = true;
    bool part[MOST_RANKS];
    pthread_mutex_lock(&b->lock);
    s->deed = what;
    for (int q = 0; q < b->ranks; q++) {
        part[q] = takes_part(s, q);
        all = all && (!part[q] || b->seat[q].deed == what);
    }
    if (all && !in_team) board_do(b, part);
    for (int q = 0; q < s->members && all && in_team; q++)
        team_do(&b->seat[s->first], q);
    for (int q = 0; q < b->ranks && all; q++)
        if (part[q]) b->seat[q].deed = DEED_NONE;
    pthread_mutex_unlock(&b->lock);
}

static inline void seat_combine(seat *s, deed what, int64_t *x, int count)
{
    s->x = x;
    s->count = count;
    seat_begin(s, what);
}

static inline void seat_max(void *state, int64_t *x, int count)
{
    seat_combine(state, DEED_MAX, x, count);
}

static inline void seat_sum(void *state, int64_t *x, int count)
{
    seat_combine(state, DEED_SUM, x, count);
}

static inline void seat_broadcast(void *state, void *bytes, size_t size, int from)
{
    seat *s = state;
    s->bytes = bytes;
    s->size = size;
    s->from = from;
    seat_begin(s, DEED_BROADCAST);
}

static inline void seat_gather(void *state, const void *mine, size_t size, void *const *into,
                               const size_t *sizes)
{
    seat *s = state;
    s->mine = mine;
    s->size = size;
    s->from = 0;
    s->into = into;
    s->sizes = sizes;
    seat_begin(s, DEED_GATHER);
}

static inline void seat_team(void *state, int first, int size)
{
    seat *s = state;
    s->first = first;
    s->members = size;
}

static inline void seat_all_gather(void *state, const void *mine, void *all,
                                   const size_t *sizes)
{
    seat *s = state;
    s->mine = mine;
    s->all = all;
    s->sizes = sizes;
    seat_begin(s, DEED_ALL_GATHER);
}

static inline void seat_exchange(void *state, const void *out, const size_t *out_sizes,
                                 void *in, const size_t *in_sizes)
{
    seat *s = state;
    s->mine = out;
    s->sizes = out_sizes;
    s->all = in;
    s->in_sizes = in_sizes;
    seat_begin(s, DEED_EXCHANGE);
}

static inline bool seat_done(void *state)
{
    seat *s = state;
    pthread_mutex_lock(&s->board->lock);
    bool done = s->deed == DEED_NONE;
    pthread_mutex_unlock(&s->board->lock);
    return done;
}

static inline void seat_tell(void *state, int to, int64_t number)
{
    seat *s = state;
    pthread_mutex_lock(&s->board->lock);
    s->board->seat[to].note[s->rank] = number;
    pthread_mutex_unlock(&s->board->lock);
}

static inline bool seat_told(void *state, int *from, int64_t *number)
{
    seat *s = state;
    bool told = false;
    pthread_mutex_lock(&s->board->lock);
    for (int q = 0; q < s->board->ranks && !told; q++)
        if (s->note[q] > 0) {
            *from = q;
            *number = s->note[q];
            s->note[q] = 0;
            told = true;
        }
    pthread_mutex_unlock(&s->board->lock);
    return told;
}

static inline void seat_close(void *state)
{
    seat *s = state;
    s->board->closed[s->rank] = true;
}

/* A process would end here. */
static inline void seat_abort(void *state, int code)
{
    (void)state, (void)code;
}

static inline kac_transport seat_transport(board *b, int rank)
{
    return (kac_transport){.name = "threads",
                           .rank = rank,
                           .size = b->ranks,
                           .local = rank,
                           .state = &b->seat[rank],
                           .max = seat_max,
                           .sum = seat_sum,
                           .broadcast = seat_broadcast,
                           .gather = seat_gather,
                           .team = seat_team,
                           .all_gather = seat_all_gather,
                           .exchange = seat_exchange,
                           .done = seat_done,
                           .tell = seat_tell,
                           .told = seat_told,
                           .close = seat_close,
                           .abort = seat_abort};
}

/* What a rank was told: of what it did, and of what came after that. */
typedef struct verdict {
    kac_status status, later;
    char text[128], again[128];
} verdict;

/* Runs `work` on each of the board's ranks, in a thread each. */
typedef struct rank_task {
    kac_ranks *ranks;
    void *context;
    void (*work)(kac_ranks *ranks, void *context);
} rank_task;

static inline void *rank_start(void *task)
{
    const rank_task *t = task;
    t->work(t->ranks, t->context);
    return NULL;
}

static inline void on_ranks(int ranks, void (*work)(kac_ranks *ranks, void *context),
                            void *context)
{
    board b;
    pthread_t thread[MOST_RANKS];
    rank_task task[MOST_RANKS];
    board_open(&b, ranks);
    for (int q = 0; q < ranks; q++) {
        kac_transport transport = seat_transport(&b, q);
        task[q] = (rank_task){.context = context, .work = work};
        if (kac_ranks_over(&transport, &task[q].ranks) != KAC_OK) abort();
        if (pthread_create(&thread[q], NULL, rank_start, &task[q]) != 0) abort();
    }
    for (int q = 0; q < ranks; q++) {
        pthread_join(thread[q], NULL);
        kac_ranks_close(task[q].ranks);
    }
    pthread_mutex_destroy(&b.lock);
}

#endif /* RANK_THREADS_H */
