/* exact_chain.h -- masked chains small enough to enumerate, and the exact laws of what is
 * sampled from them.
 *
 * A row is a state: a number in base S + 1, first position most significant, digit S a mask.
 * An object is a finished state: a number in base S.  The laws are sums over all successors of
 * all rows, so they hold for the chain that is run: finite steps, sites drawn independently.
 */
#ifndef KAC_EXACT_CHAIN_H
#define KAC_EXACT_CHAIN_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CHAIN_LENGTH = 5, CHAIN_STATES = 3, CHAIN_ROWS = 1024, CHAIN_OBJECTS = 243 };

typedef struct chain {
    int states;  /* S */
    int length;  /* L */
    int rows;    /* (S + 1)^L */
    int objects; /* S^L */
    bool markov; /* the denoiser file is `markov`, else `table` */
    float initial[CHAIN_STATES];
    float transition[CHAIN_STATES * CHAIN_STATES];
    float logits[CHAIN_ROWS * CHAIN_LENGTH * CHAIN_STATES]; /* [rows][L][S] */
    double p[CHAIN_ROWS][CHAIN_LENGTH][CHAIN_STATES];       /* tempered softmax */
    int filled[CHAIN_ROWS];                                 /* object of the argmax fill */
    float reward[CHAIN_OBJECTS];
    float weight[CHAIN_LENGTH * CHAIN_STATES]; /* [L][S] of the learned value, a pwm */
    float learned[CHAIN_ROWS];                 /* what it says of each row */
    const float *value; /* [rows] values of unfinished states; NULL: of their argmax fill */
} chain;

/* How the time grid is cut. */
typedef struct chain_grid {
    int steps; /* T */
    bool flow; /* else loglinear */
} chain_grid;

/* What one step keeps of the M children of a particle. */
typedef enum chain_rule { CHAIN_FIRST, CHAIN_ARGMAX, CHAIN_CATEGORICAL } chain_rule;

typedef struct chain_choice {
    chain_rule rule;
    int children;
    double alpha;
} chain_choice;

/* Successors of a row: at most (S + 1)^L. */
typedef struct chain_successors {
    int n;
    int row[CHAIN_ROWS];
    double p[CHAIN_ROWS];
} chain_successors;

static inline int chain_power(int base, int exponent)
{
    int x = 1;
    while (exponent-- > 0)
        x *= base;
    return x;
}

/* The letter (or S) at site l of a row. */
static inline int chain_site(const chain *c, int row, int l)
{
    return row / chain_power(c->states + 1, c->length - 1 - l) % (c->states + 1);
}

static inline int chain_letter(const chain *c, int object, int l)
{
    return object / chain_power(c->states, c->length - 1 - l) % c->states;
}

/* Uniform in (-1, 1): splitmix64, so that the models do not hang on the generator under test.
 */
static inline double chain_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (double)(int64_t)(z ^ z >> 31) / 9223372036854775808.0;
}

/* Joint probability of an object under the Markov chain. */
static inline double chain_markov_joint(const chain *c, int object)
{
    int before = chain_letter(c, object, 0);
    double p = (double)c->initial[before];
    for (int l = 1; l < c->length; l++) {
        int here = chain_letter(c, object, l);
        p *= (double)c->transition[before * c->states + here];
        before = here;
    }
    return p;
}

static inline bool chain_consistent(const chain *c, int row, int object)
{
    for (int l = 0; l < c->length; l++) {
        int token = chain_site(c, row, l);
        if (token != c->states && token != chain_letter(c, object, l)) return false;
    }
    return true;
}

/* One-site posteriors given the revealed sites, by summing over all objects. */
static inline void chain_markov_posterior(chain *c, int row)
{
    memset(c->p[row], 0, sizeof c->p[row]);
    for (int object = 0; object < c->objects; object++) {
        if (!chain_consistent(c, row, object)) continue;
        for (int l = 0; l < c->length; l++)
            c->p[row][l][chain_letter(c, object, l)] += chain_markov_joint(c, object);
    }
}

/* p and filled at a temperature, from the logits or the Markov chain. */
static inline void chain_temper(chain *c, double temperature)
{
    for (int row = 0; row < c->rows; row++) {
        if (c->markov) chain_markov_posterior(c, row);
        c->filled[row] = 0;
        for (int l = 0; l < c->length; l++) {
            double *p = c->p[row][l], top = -HUGE_VAL, sum = 0;
            int best = 0, token = chain_site(c, row, l);
            for (int v = 0; v < c->states; v++) {
                if (c->markov)
                    p[v] = log(p[v]);
                else
                    p[v] = (double)c->logits[(row * c->length + l) * c->states + v];
                if (p[v] > top) top = p[best = v];
            }
            for (int v = 0; v < c->states; v++)
                sum += p[v] = exp((p[v] - top) / temperature);
            for (int v = 0; v < c->states; v++)
                p[v] /= sum;
            c->filled[row] = c->filled[row] * c->states + (token < c->states ? token : best);
        }
    }
}

/* A random model: logits in (-1.5, 1.5) at revealed sites too (they must be ignored), rewards
 * in (-spread, spread), neither symmetric nor additive. */
static inline void chain_make(chain *c, int states, int length, bool markov, double spread)
{
    uint64_t random = (uint64_t)states * 100 + (uint64_t)length * 10 + markov;
    *c = (chain){.states = states, .length = length, .markov = markov};
    c->rows = chain_power(states + 1, length);
    c->objects = chain_power(states, length);
    for (int i = 0; i < c->rows * length * states; i++)
        c->logits[i] = (float)(1.5 * chain_random(&random));
    for (int from = -1; from < states; from++) {
        float *out = from < 0 ? c->initial : c->transition + (ptrdiff_t)from * states;
        double w[CHAIN_STATES], sum = 0;
        for (int v = 0; v < states; v++)
            sum += w[v] = exp(1.2 * chain_random(&random));
        for (int v = 0; v < states; v++)
            out[v] = (float)(w[v] / sum);
    }
    for (int o = 0; o < c->objects; o++)
        c->reward[o] = (float)(spread * chain_random(&random));
    for (int i = 0; i < length * states; i++) /* quarters: sums are exact, and few differ */
        c->weight[i] = (float)(round(3 * spread * chain_random(&random)) / 4);
    for (int row = 0; row < c->rows; row++)
        for (int l = 0; l < length; l++)
            if (chain_site(c, row, l) < states)
                c->learned[row] += c->weight[l * states + chain_site(c, row, l)];
    chain_temper(c, 1);
}

/* Probability that a masked site stays masked in the move from `level` to level - 1. */
static inline double chain_stay(chain_grid grid, int level)
{
    double step = (grid.flow ? 1 - 0.01 : 1 - 1e-5) / grid.steps;
    double from = step * level,
           to = step * (level - 1); /* mask probabilities, up to a factor */
    if (!grid.flow) {
        from += 1e-5;
        to += 1e-5;
    }
    return to / from;
}

/* Every row that `row` may become. */
static inline void chain_move(const chain *c, double stay, int row, chain_successors *out)
{
    int base = c->states + 1;
    out->n = 1;
    out->row[0] = 0;
    out->p[0] = 1;
    for (int l = 0; l < c->length; l++) {
        int token = chain_site(c, row, l), n = out->n;
        for (int i = 0; i < n; i++) {
            int prefix = out->row[i] * base;
            double p = out->p[i];
            if (token < c->states) {
                out->row[i] = prefix + token;
                continue;
            }
            out->row[i] = prefix + c->states;
            out->p[i] = p * stay;
            for (int v = 0; v < c->states; v++) {
                out->row[out->n] = prefix + v;
                out->p[out->n++] = p * (1 - stay) * c->p[row][l][v];
            }
        }
    }
}

/* P(best of M) for each candidate: [Q(v <= v_y)^M - Q(v < v_y)^M] q(y) / Q(v = v_y); equal
 * values are taken in the order of the draws, which is blind to which one they are. */
static inline void chain_best(const float *value, int n, int draws, double *p)
{
    double out[CHAIN_ROWS];
    for (int i = 0; i < n; i++) {
        double below = 0, equal = 0;
        for (int k = 0; k < n; k++) {
            if (value[k] < value[i]) below += p[k];
            if (value[k] == value[i]) equal += p[k];
        }
        out[i] = p[i] * (pow(below + equal, draws) - pow(below, draws)) / equal;
    }
    memcpy(p, out, (size_t)n * sizeof *p);
}

/* Expected share of a candidate of weight w among itself and `others` more draws, `sum` being
 * the weights of those drawn already. */
static inline double chain_share(double w, double sum, int others, const double *weight,
                                 const double *p, int n)
{
    double share = 0;
    if (others == 0) return w / (w + sum);
    for (int k = 0; k < n; k++)
        share += p[k] * chain_share(w, sum + weight[k], others - 1, weight, p, n);
    return share;
}

/* P(chosen) for each candidate when one of M draws is kept with probability in proportion to
 * exp(value / alpha).  Candidates are pooled by value first: few values, many rows. */
static inline void chain_soft(const float *value, int n, chain_choice choice, double *p)
{
    float kinds[CHAIN_OBJECTS];
    double weight[CHAIN_OBJECTS], mass[CHAIN_OBJECTS], factor[CHAIN_OBJECTS];
    int count = 0, kind[CHAIN_ROWS];
    for (int i = 0; i < n; i++) {
        kind[i] = 0;
        while (kind[i] < count && kinds[kind[i]] != value[i])
            kind[i]++;
        if (kind[i] == count) {
            kinds[count] = value[i];
            weight[count] = exp((double)value[i] / choice.alpha);
            mass[count++] = 0;
        }
        mass[kind[i]] += p[i];
    }
    for (int k = 0; k < count; k++)
        factor[k] = choice.children *
                    chain_share(weight[k], 0, choice.children - 1, weight, mass, count);
    for (int i = 0; i < n; i++)
        p[i] *= factor[kind[i]];
}

/* The law of the finished objects when every step from row `start` keeps one of M children, whose
 * values are the rewards of their argmax completions or, before the last level, c->value; the
 * masks that are left at the end are filled by argmax. */
static inline void chain_law_from(const chain *c, chain_grid grid, chain_choice choice,
                                  int start, double *law)
{
    double now[CHAIN_ROWS], next[CHAIN_ROWS];
    chain_successors y;
    float value[CHAIN_ROWS];

    memset(now, 0, sizeof now);
    now[start] = 1;
    for (int level = grid.steps; level > 0; level--) {
        memset(next, 0, sizeof next);
        for (int row = 0; row < c->rows; row++) {
            if (now[row] <= 0) continue;
            chain_move(c, chain_stay(grid, level), row, &y);
            for (int i = 0; i < y.n; i++)
                value[i] = c->value != NULL && level > 1 ? c->value[y.row[i]]
                                                         : c->reward[c->filled[y.row[i]]];
            if (choice.rule == CHAIN_ARGMAX) chain_best(value, y.n, choice.children, y.p);
            if (choice.rule == CHAIN_CATEGORICAL) chain_soft(value, y.n, choice, y.p);
            for (int i = 0; i < y.n; i++)
                next[y.row[i]] += now[row] * y.p[i];
        }
        memcpy(now, next, sizeof now);
    }
    memset(law, 0, (size_t)c->objects * sizeof *law);
    for (int row = 0; row < c->rows; row++)
        law[c->filled[row]] += now[row];
}

/* The same from pure noise. */
static inline void chain_law(const chain *c, chain_grid grid, chain_choice choice, double *law)
{
    chain_law_from(c, grid, choice, c->rows - 1, law);
}

/* The law of the chain itself. */
static inline void chain_forward(const chain *c, chain_grid grid, double *law)
{
    chain_law(c, grid, (chain_choice){CHAIN_FIRST, 1, 1}, law);
}

/* ---- paths under p* --------------------------------------------------------------------- */

enum { CHAIN_LEVELS = 8 };

/* What a row at a level is worth: h = E_q[exp(r / alpha) | row]; and how probable it is under p*:
 * f h / Z, f its probability under q. */
typedef struct chain_paths {
    chain_grid grid;
    double worth[CHAIN_LEVELS + 1][CHAIN_ROWS];
    double law[CHAIN_LEVELS + 1][CHAIN_ROWS];
} chain_paths;

static inline void chain_find_paths(const chain *c, chain_grid grid, double alpha,
                                    chain_paths *out)
{
    chain_successors y;
    memset(out, 0, sizeof *out);
    out->grid = grid;
    for (int row = 0; row < c->rows; row++)
        out->worth[0][row] = exp((double)c->reward[c->filled[row]] / alpha);
    for (int level = 1; level <= grid.steps; level++)
        for (int row = 0; row < c->rows; row++) {
            chain_move(c, chain_stay(grid, level), row, &y);
            for (int i = 0; i < y.n; i++)
                out->worth[level][row] += y.p[i] * out->worth[level - 1][y.row[i]];
        }
    out->law[grid.steps][c->rows - 1] = 1;
    for (int level = grid.steps; level > 0; level--)
        for (int row = 0; row < c->rows; row++) {
            double p = out->law[level][row] / out->worth[level][row];
            if (!(p > 0)) continue;
            chain_move(c, chain_stay(grid, level), row, &y);
            for (int i = 0; i < y.n; i++)
                out->law[level - 1][y.row[i]] += p * y.p[i] * out->worth[level - 1][y.row[i]];
        }
}

/* The successor of a row at `level`, drawn from the law of paths under p*. */
static inline int chain_next(const chain *c, const chain_paths *paths, int level, int row,
                             uint64_t *random)
{
    chain_successors y;
    double u = (chain_random(random) + 1) / 2 * paths->worth[level][row];
    int i = 0;
    chain_move(c, chain_stay(paths->grid, level), row, &y);
    for (; i < y.n - 1; i++) {
        u -= y.p[i] * paths->worth[level - 1][y.row[i]];
        if (u < 0) break;
    }
    return y.row[i];
}

/* ---- test functions --------------------------------------------------------------------- */

enum { CHAIN_FUNCTIONS = 3 + CHAIN_LENGTH * (CHAIN_STATES - 1) + CHAIN_LENGTH - 1 };

/* 1, r, r^2, letters at sites, equal neighbours; returns how many. */
static inline int chain_functions(const chain *c, int object, double *phi)
{
    double r = (double)c->reward[object];
    int n = 0;
    phi[n++] = 1;
    phi[n++] = r;
    phi[n++] = r * r;
    for (int l = 0; l < c->length; l++)
        for (int v = 1; v < c->states; v++)
            phi[n++] = chain_letter(c, object, l) == v;
    for (int l = 1; l < c->length; l++)
        phi[n++] = chain_letter(c, object, l) == chain_letter(c, object, l - 1);
    return n;
}

/* E_q[exp(r / alpha) phi] for each test function; the first is Z. */
static inline int chain_tilted(const chain *c, chain_grid grid, double alpha, double *out)
{
    double law[CHAIN_OBJECTS];
    double phi[CHAIN_FUNCTIONS];
    int n = 0;
    chain_forward(c, grid, law);
    memset(out, 0, CHAIN_FUNCTIONS * sizeof *out);
    for (int object = 0; object < c->objects; object++) {
        double w = law[object] * exp((double)c->reward[object] / alpha);
        if (w <= 0) continue; /* rewards of -infinity have no moments */
        n = chain_functions(c, object, phi);
        for (int j = 0; j < n; j++)
            out[j] += w * phi[j];
    }
    return n;
}

/* ---- tests ------------------------------------------------------------------------------ */

/* Chi-square of counts against a law divided by its 1 - 1e-6 quantile (Wilson and Hilferty's
 * approximation): below 1 passes.  Cells that expect fewer than 8 are one cell. */
static inline double chain_chi_square(const double *law, const double *counts, int n)
{
    double total = 0, sum = 0, rest_p = 0, rest_count = 0;
    int cells = 0;
    for (int i = 0; i < n; i++)
        total += counts[i];
    for (int i = 0; i < n; i++) {
        double expected = total * law[i];
        if (law[i] <= 0 && counts[i] > 0) return HUGE_VAL;
        if (expected < 8) {
            rest_p += law[i];
            rest_count += counts[i];
            continue;
        }
        sum += (counts[i] - expected) * (counts[i] - expected) / expected;
        cells++;
    }
    if (rest_p * total >= 8) {
        sum += pow(rest_count - rest_p * total, 2) / (rest_p * total);
        cells++;
    } else if (rest_count > 40) {
        return HUGE_VAL;
    }
    double df = cells - 1, h = 2 / (9 * df);
    return sum / (df * pow(1 - h + 4.753424 * sqrt(h), 3));
}

#endif /* KAC_EXACT_CHAIN_H */
