/* landscape.h -- two measured landscapes, complete but for what was never seen, small enough
 * that the law of a whole run is a sum: the exact answers of real cases.
 *
 * The denoiser is a Markov chain fitted to the best tenth of the sequences.  Rows, objects and
 * digits are those of exact_chain.h; one-site posteriors are made here by forward-backward in
 * double, so that nothing of what is tested is used.  tools/landscape.py makes the same two
 * files for users; the tests need no Python.  No Criterion in here: benchmarks use it too.
 */
#ifndef KAC_LANDSCAPE_H
#define KAC_LANDSCAPE_H

#include "table_run.h"

enum { LANDSCAPE_LETTERS = 20, LANDSCAPE_SITES = 8, LANDSCAPE_TOP = 10 };

/* What is known of a landscape before its data are read. */
typedef struct landscape_source {
    const char *name, *measure; /* model files: NAME_denoiser and NAME_MEASURE */
    const char *path, *alphabet;
    int length;
    int site[LANDSCAPE_SITES]; /* where the varying letters stand in the first column */
    int value;                 /* column of the value, the first being 0 */
    double alpha[2];           /* mild and hard */
} landscape_source;

/* Efficiency of translation initiation (12 to 150) at NNNNNNAUGNN, all 65,536: Noderer et al.,
 * Mol Syst Biol 10:748, 2014.  The start codon is left out: eight sites. */
static const landscape_source landscape_tis = {
    .name = "tis",
    .measure = "efficiency",
    .path = "../shared/data/tis_efficiency/tis_aug_65536.tsv.gz",
    .alphabet = "ACGU",
    .length = 8,
    .site = {0, 1, 2, 3, 4, 5, 9, 10},
    .value = 1,
    .alpha = {20, 14},
};

/* Fitness (wild type 1, best 8.8) at four sites of protein GB1, 149,361 of 160,000: Wu et al.,
 * eLife 5:e16965, 2016. */
static const landscape_source landscape_gb1 = {
    .name = "gb1",
    .measure = "fitness",
    .path = "../shared/data/gb1_landscape/gb1_four_sites.tsv.gz",
    .alphabet = "ACDEFGHIKLMNPQRSTVWY",
    .length = 4,
    .site = {0, 1, 2, 3},
    .value = 4,
    .alpha = {2, 1.25},
};

typedef struct landscape {
    const char *alphabet;
    int states, length; /* S, L */
    int rows;           /* (S + 1)^L */
    int objects;        /* S^L */
    float initial[LANDSCAPE_LETTERS];
    float transition[LANDSCAPE_LETTERS * LANDSCAPE_LETTERS]; /* from, to */
    float *reward;                                           /* [objects]; -inf: missing */
    double *p;                                               /* [rows][L][S] */
} landscape;

static inline void landscape_free(landscape *s)
{
    free(s->reward);
    free(s->p);
    *s = (landscape){0};
}

/* Sizes, and memory for the rewards and posteriors; false where there is none. */
static inline bool landscape_create(const char *alphabet, int length, landscape *s)
{
    *s = (landscape){.alphabet = alphabet, .states = (int)strlen(alphabet), .length = length};
    s->rows = chain_power(s->states + 1, length);
    s->objects = chain_power(s->states, length);
    s->reward = calloc((size_t)s->objects, sizeof *s->reward);
    s->p = calloc((size_t)s->rows * (size_t)(length * s->states), sizeof *s->p);
    if (s->reward != NULL && s->p != NULL) return true;
    landscape_free(s);
    return false;
}

/* Letters of a number in base `base`, first position most significant. */
static inline void landscape_digits(int number, int base, int length, int *digit)
{
    for (int l = length - 1; l >= 0; l--) {
        digit[l] = number % base;
        number /= base;
    }
}

/* ---- data --------------------------------------------------------------------------------- */

static inline bool landscape_here(const landscape_source *source)
{
    return access(source->path, R_OK) == 0;
}

/* Writes the reward of one line; false where the line is not of this table. */
static inline bool landscape_line(const landscape_source *source, char *line, landscape *s)
{
    char text[LANDSCAPE_SITES + 1] = {0};
    char *field = strsep(&line, "\t\n");
    for (int l = 0; l < source->length; l++) {
        if (strlen(field) <= (size_t)source->site[l]) return false;
        text[l] = field[source->site[l]];
        if (strchr(source->alphabet, text[l]) == NULL) return false;
    }
    for (int column = 0; column < source->value; column++)
        field = strsep(&line, "\t\n");
    if (field == NULL || *field == '\0') return false;
    s->reward[table_object(source->alphabet, text)] = strtof(field, NULL);
    return true;
}

static inline kac_status landscape_read(const landscape_source *source, landscape *s)
{
    char line[256];
    int lines = 0;
    snprintf(line, sizeof line, "gzip -dc %s", source->path);
    FILE *file = popen(line, "r");
    if (file == NULL) return KAC_FAIL(KAC_ERR_IO, "can not run gzip");
    for (int o = 0; o < s->objects; o++)
        s->reward[o] = -HUGE_VALF;
    bool good = fgets(line, sizeof line, file) != NULL; /* the names of the columns */
    while (good && fgets(line, sizeof line, file) != NULL) {
        good = landscape_line(source, line, s);
        lines++;
    }
    if (pclose(file) != 0 || !good || lines == 0)
        return KAC_FAIL(KAC_ERR_IO, "%s: line %d can not be read", source->path, lines + 1);
    return KAC_OK;
}

/* ---- denoiser ----------------------------------------------------------------------------- */

static inline int landscape_ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The least value of the best tenth; -HUGE_VALF where there is no memory. */
static inline float landscape_best_tenth(const landscape *s)
{
    float *sorted = malloc((size_t)s->objects * sizeof *sorted), least = -HUGE_VALF;
    int n = 0;
    for (int o = 0; sorted != NULL && o < s->objects; o++)
        if (s->reward[o] > -HUGE_VALF) sorted[n++] = s->reward[o];
    if (n > 0) {
        qsort(sorted, (size_t)n, sizeof *sorted, landscape_ascending);
        least = sorted[(int64_t)n * 9 / 10];
    }
    free(sorted);
    return least;
}

/* The Markov chain of the best tenth: first letters and neighbours as they are counted there,
 * all sites alike, with a tenth of the mass spread evenly. */
static inline void landscape_fit(landscape *s)
{
    double first[LANDSCAPE_LETTERS] = {0}, pair[LANDSCAPE_LETTERS][LANDSCAPE_LETTERS] = {{0}};
    double n = 0, even = 1.0 / s->states;
    int letter[LANDSCAPE_SITES] = {0};
    float least = landscape_best_tenth(s);
    for (int o = 0; o < s->objects; o++) {
        if (!(s->reward[o] >= least) || s->reward[o] == -HUGE_VALF) continue;
        landscape_digits(o, s->states, s->length, letter);
        n++;
        first[letter[0]]++;
        for (int l = 1; l < s->length; l++)
            pair[letter[l - 1]][letter[l]]++;
    }
    for (int u = 0; u < s->states; u++) {
        double sum = 0;
        for (int v = 0; v < s->states; v++)
            sum += pair[u][v] = 0.9 * pair[u][v] / (n * (s->length - 1)) + 0.1 * even * even;
        for (int v = 0; v < s->states; v++)
            s->transition[u * s->states + v] = (float)(pair[u][v] / sum);
        s->initial[u] = (float)(0.9 * first[u] / n + 0.1 * even);
    }
}

/* The law of the data that the denoiser knows exactly: the Markov chain's own. */
static inline void landscape_data_law(const landscape *s, double *law)
{
    int letter[LANDSCAPE_SITES] = {0};
    double sum = 0;
    for (int o = 0; o < s->objects; o++) {
        landscape_digits(o, s->states, s->length, letter);
        law[o] = (double)s->initial[letter[0]];
        for (int l = 1; l < s->length; l++)
            law[o] *= (double)s->transition[letter[l - 1] * s->states + letter[l]];
        sum += law[o];
    }
    for (int o = 0; o < s->objects; o++)
        law[o] /= sum; /* the rows of float32 sum to 1 up to 1e-7 */
}

/* One-site posteriors of a row.  `a` and `b` are forward and backward messages. */
static inline void landscape_posterior(const landscape *s, const int *token, double *p)
{
    double a[LANDSCAPE_SITES][LANDSCAPE_LETTERS], b[LANDSCAPE_LETTERS], c[LANDSCAPE_LETTERS];
    for (int l = 0; l < s->length; l++)
        for (int v = 0; v < s->states; v++) {
            a[l][v] = l == 0 ? (double)s->initial[v] : 0;
            for (int u = 0; l > 0 && u < s->states; u++)
                a[l][v] += a[l - 1][u] * (double)s->transition[u * s->states + v];
            if (token[l] < s->states && token[l] != v) a[l][v] = 0;
        }
    for (int v = 0; v < s->states; v++)
        b[v] = 1;
    for (int l = s->length - 1; l >= 0; l--) {
        double sum = 0;
        for (int v = 0; v < s->states; v++)
            sum += p[l * s->states + v] = a[l][v] * b[v];
        for (int v = 0; v < s->states; v++) {
            p[l * s->states + v] /= sum;
            if (token[l] < s->states && token[l] != v) b[v] = 0;
            c[v] = b[v];
        }
        for (int u = 0; u < s->states; u++) {
            b[u] = 0;
            for (int v = 0; v < s->states; v++)
                b[u] += (double)s->transition[u * s->states + v] * c[v];
        }
    }
}

/* The posteriors of every row. */
static inline void landscape_prepare(landscape *s)
{
    int token[LANDSCAPE_SITES] = {0};
    for (int row = 0; row < s->rows; row++) {
        landscape_digits(row, s->states + 1, s->length, token);
        landscape_posterior(s, token, s->p + (ptrdiff_t)row * s->length * s->states);
    }
}

/* Reads, fits and prepares; the caller frees *s, on failure too. */
static inline kac_status landscape_open(const landscape_source *source, landscape *s)
{
    if (!landscape_create(source->alphabet, source->length, s))
        return KAC_FAIL(KAC_ERR_NOMEM, "no memory for %s", source->name);
    KAC_TRY(landscape_read(source, s));
    landscape_fit(s);
    landscape_prepare(s);
    return KAC_OK;
}

/* Writes the two model files. */
static inline kac_status landscape_write(const landscape *s, const char *denoiser_path,
                                         const char *reward_path)
{
    char length[8];
    snprintf(length, sizeof length, "%d", s->length);
    const char *const denoiser[][2] = {{"kac.arch", "markov"},
                                       {"kac.role", "denoiser"},
                                       {"kac.process", "masked"},
                                       {"kac.alphabet", s->alphabet},
                                       {"kac.length", length}};
    const char *const reward[][2] = {{"kac.arch", "table"},
                                     {"kac.role", "reward"},
                                     {"kac.alphabet", s->alphabet},
                                     {"kac.length", length}};
    kac_tensor markov[2] = {
        table_tensor("initial", s->initial, 1, (int64_t[]){s->states}),
        table_tensor("transition", s->transition, 2, (int64_t[]){s->states, s->states})};
    kac_tensor table = table_tensor("reward", s->reward, 1, (int64_t[]){s->objects});
    KAC_TRY(kac_tensors_write(denoiser_path, denoiser, 5, markov, 2));
    return kac_tensors_write(reward_path, reward, 4, &table, 1);
}

/* ---- exact laws --------------------------------------------------------------------------- */

/* One row of one move, while its masked sites are settled one after the other. */
typedef struct landscape_move {
    const landscape *s;
    const double *p;  /* of the row */
    const int *token; /* of the row */
    double stay;
    double *next; /* [rows] */
} landscape_move;

/* Settles the sites from l on: `row` has the digits before l, `mass` their probability. */
static inline void landscape_settle(const landscape_move *m, int l, int row, double mass)
{
    int states = m->s->states;
    for (; l < m->s->length && m->token[l] < states; l++)
        row = row * (states + 1) + m->token[l];
    if (l == m->s->length) {
        m->next[row] += mass;
        return;
    }
    row *= states + 1;
    landscape_settle(m, l + 1, row + states, mass * m->stay);
    for (int v = 0; v < states; v++)
        landscape_settle(m, l + 1, row + v, mass * (1 - m->stay) * m->p[l * states + v]);
}

/* The object that a row becomes when its masks are filled by the likeliest letters. */
static inline int landscape_filled(const landscape *s, int row)
{
    const double *p = s->p + (ptrdiff_t)row * s->length * s->states;
    int token[LANDSCAPE_SITES], object = 0;
    landscape_digits(row, s->states + 1, s->length, token);
    for (int l = 0; l < s->length; l++, p += s->states) {
        int best = token[l];
        if (best == s->states) best = 0;
        for (int v = 0; token[l] == s->states && v < s->states; v++)
            if (p[v] > p[best]) best = v;
        object = object * s->states + best;
    }
    return object;
}

/* The law of the finished objects of the chain that is run: T moves of the loglinear schedule,
 * each revealing its sites independently given the state before, and the last fill.  A move
 * is a sum over (2 S + 1)^L pairs of rows.  Errors: NOMEM. */
static inline kac_status landscape_chain_law(const landscape *s, int steps, double *law)
{
    double *now = calloc((size_t)s->rows, sizeof *now);
    double *next = calloc((size_t)s->rows, sizeof *next);
    int token[LANDSCAPE_SITES] = {0};
    kac_status status = KAC_OK;
    if (now == NULL || next == NULL) {
        status = KAC_FAIL(KAC_ERR_NOMEM, "no memory for %d rows", s->rows);
        goto done;
    }
    now[s->rows - 1] = 1;
    for (int level = steps; level > 0; level--) {
        landscape_move m = {.s = s,
                            .token = token,
                            .stay = chain_stay((chain_grid){steps, false}, level),
                            .next = next};
        memset(next, 0, (size_t)s->rows * sizeof *next);
        for (int row = 0; row < s->rows; row++) {
            if (now[row] <= 0) continue;
            m.p = s->p + (ptrdiff_t)row * s->length * s->states;
            landscape_digits(row, s->states + 1, s->length, token);
            landscape_settle(&m, 0, 0, now[row]);
        }
        double *swap = now;
        now = next;
        next = swap;
    }
    memset(law, 0, (size_t)s->objects * sizeof *law);
    for (int row = 0; row < s->rows; row++)
        if (now[row] > 0) law[landscape_filled(s, row)] += now[row];
done:
    free(now);
    free(next);
    return status;
}

/* Total variation of two laws. */
static inline double landscape_distance(const double *a, const double *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += fabs(a[i] - b[i]);
    return sum / 2;
}

/* p*, the law tilted by exp(reward / alpha), into out [objects]; returns Z. */
static inline double landscape_tilt(const landscape *s, const double *law, double alpha,
                                    double *out)
{
    double z = 0;
    for (int o = 0; o < s->objects; o++)
        z += out[o] = law[o] * exp((double)s->reward[o] / alpha);
    for (int o = 0; o < s->objects; o++)
        out[o] /= z;
    return z;
}

/* ---- what is compared --------------------------------------------------------------------- */

/* The target p* and the functions whose means under it are compared with a run's: one for each
 * letter at each site, letters below one per cent of a site together, and one for the ten
 * objects of the highest rewards. */
enum { LANDSCAPE_FUNCTIONS = LANDSCAPE_LETTERS * LANDSCAPE_SITES + 1 };

typedef struct landscape_target {
    const landscape *s;
    double alpha;
    double z;                                   /* Z, under the chain's law */
    int functions;                              /* the last is that of the top ten */
    int of[LANDSCAPE_SITES][LANDSCAPE_LETTERS]; /* function of a letter at a site */
    int site[LANDSCAPE_FUNCTIONS];              /* of a function; -1: the top ten */
    int top[LANDSCAPE_TOP];                     /* objects, the best first */
    double mean[LANDSCAPE_FUNCTIONS];           /* under p* */
} landscape_target;

/* Whether an object is among the first n of the top. */
static inline bool landscape_is_top(const landscape_target *t, int n, int object)
{
    for (int k = 0; k < n; k++)
        if (t->top[k] == object) return true;
    return false;
}

/* Numbers the functions of a site whose marginal under p* is `share`. */
static inline void landscape_number(landscape_target *t, int l, const double *share)
{
    int rare = -1;
    for (int v = 0; v < t->s->states; v++) {
        int function = share[v] < 0.01 && rare >= 0 ? rare : t->functions++;
        if (share[v] < 0.01) rare = function;
        t->of[l][v] = function;
        t->site[function] = l;
        t->mean[function] += share[v];
    }
}

/* The target for a law of the chain.  Errors: NOMEM. */
static inline kac_status landscape_aim(const landscape *s, const double *law, double alpha,
                                       landscape_target *t)
{
    double share[LANDSCAPE_SITES][LANDSCAPE_LETTERS] = {{0}};
    int letter[LANDSCAPE_SITES] = {0};
    double *tilted = calloc((size_t)s->objects, sizeof *tilted);
    if (tilted == NULL) return KAC_FAIL(KAC_ERR_NOMEM, "no memory for %d objects", s->objects);
    *t = (landscape_target){.s = s, .alpha = alpha};
    t->z = landscape_tilt(s, law, alpha, tilted);
    for (int o = 0; o < s->objects; o++) {
        landscape_digits(o, s->states, s->length, letter);
        for (int l = 0; l < s->length; l++)
            share[l][letter[l]] += tilted[o];
    }
    for (int l = 0; l < s->length; l++)
        landscape_number(t, l, share[l]);
    t->site[t->functions] = -1;
    for (int k = 0; k < LANDSCAPE_TOP; k++) {
        int best = -1;
        for (int o = 0; o < s->objects; o++)
            if (!landscape_is_top(t, k, o) && (best < 0 || s->reward[o] > s->reward[best]))
                best = o;
        t->top[k] = best;
        t->mean[t->functions] += tilted[best];
    }
    t->functions++;
    free(tilted);
    return KAC_OK;
}

/* Adds `weight` of an object to the functions that it has. */
static inline void landscape_add(const landscape_target *t, int object, double weight,
                                 double *sum)
{
    int letter[LANDSCAPE_SITES] = {0};
    landscape_digits(object, t->s->states, t->s->length, letter);
    for (int l = 0; l < t->s->length; l++)
        sum[t->of[l][letter[l]]] += weight;
    if (landscape_is_top(t, LANDSCAPE_TOP, object)) sum[t->functions - 1] += weight;
}

/* Sums over the groups of a run, which are replicates.  With g(f) the mean over a group of
 * exp(log_weight) f, g(1) / Z - 1 and (g(f) - E_p*[f] g(1)) / Z have the mean zero whatever the
 * number of particles, for the exact Z and E_p*[f]. */
typedef struct landscape_sums {
    int groups;
    double gain, gain2;                 /* sums of g(1) / Z and its square */
    double off[LANDSCAPE_FUNCTIONS];    /* sums of the second kind */
    double square[LANDSCAPE_FUNCTIONS]; /* and of their squares */
    double weight[LANDSCAPE_FUNCTIONS]; /* sums of g(f) / Z */
} landscape_sums;

/* Adds every group of a run whose samples are weighted.  Samples of a run that has no weights
 * count alike, as if Z were known: all that such a run says of p*. */
static inline void landscape_count(const landscape_target *t, const table_run *run,
                                   landscape_sums *s)
{
    for (int64_t first = 0, last; first < run->n; first = last) {
        double g = 0, f[LANDSCAPE_FUNCTIONS] = {0};
        for (last = first; last < run->n && run->group[last] == run->group[first]; last++)
            ;
        for (int64_t i = first; i < last; i++) {
            double log_w = run->log_weight[i];
            double w = isnan(log_w) ? 1 : exp(log_w) / t->z;
            w /= (double)(last - first);
            g += w;
            landscape_add(t, run->object[i], w, f);
        }
        s->groups++;
        s->gain += g;
        s->gain2 += g * g;
        for (int j = 0; j < t->functions; j++) {
            double off = f[j] - t->mean[j] * g;
            s->off[j] += off;
            s->square[j] += off * off;
            s->weight[j] += f[j];
        }
    }
}

/* Distance of a mean of n replicates from zero, in standard errors. */
static inline double landscape_z(double sum, double square, double n)
{
    double mean = sum / n;
    return fabs(mean) / sqrt((square / n - mean * mean) / n + 1e-30);
}

/* Coefficient of variation of a group's evidence. */
static inline double landscape_spread(const landscape_sums *s)
{
    double mean = s->gain / s->groups;
    return sqrt(s->gain2 / s->groups - mean * mean) / mean;
}

/* The z of the evidence. */
static inline double landscape_evidence_z(const landscape_sums *s)
{
    double n = s->groups;
    return landscape_z(s->gain - n, s->gain2 - 2 * s->gain + n, n);
}

/* The largest z of a function, and which. */
static inline double landscape_worst_z(const landscape_target *t, const landscape_sums *s,
                                       int *which)
{
    double worst = 0;
    for (int j = 0; j < t->functions; j++) {
        double z = landscape_z(s->off[j], s->square[j], s->groups);
        if (z <= worst) continue;
        worst = z;
        *which = j;
    }
    return worst;
}

/* Total variation between estimated and exact marginals, the worst site's. */
static inline double landscape_marginal_distance(const landscape_target *t,
                                                 const landscape_sums *s)
{
    double distance[LANDSCAPE_SITES] = {0}, worst = 0;
    for (int j = 0; j < t->functions - 1; j++)
        distance[t->site[j]] += fabs(s->weight[j] / s->gain - t->mean[j]) / 2;
    for (int l = 0; l < t->s->length; l++)
        worst = distance[l] > worst ? distance[l] : worst;
    return worst;
}

/* ---- rows --------------------------------------------------------------------------------- */

/* Every row of the algorithms that claims p*, and what a run of it sets besides.  The tests and
 * the table of docs/exactness.md take in a row that is added here. */
#define LANDSCAPE_ROWS(X)                                                                      \
    X(pretrained, "")                                                                          \
    X(smc, "")                                                                                 \
    X(fk_steering, "")                                                                         \
    X(nested, "sampler.children=4 ")                                                           \
    X(das, "sampler.temper.kind=ess ")                                                         \
    X(funnel, "sampler.funnel=12 ")

/* Writes the two models into `dir` under the names that table_sample_letters reads. */
static inline kac_status landscape_write_run(const landscape *s, const char *dir)
{
    char denoiser[320];
    snprintf(denoiser, sizeof denoiser, "%s", table_path(dir, "denoiser").path);
    return landscape_write(s, denoiser, table_path(dir, "reward").path);
}

/* One run for a target; a group all of whose variants were never measured is dead and counts
 * as evidence 0. */
static inline kac_status landscape_sample(const landscape_target *t, const char *dir,
                                          const char *settings, table_run *out)
{
    char text[1024];
    snprintf(text, sizeof text, "sampler.alpha=%g sampler.on_dead=freeze %s", t->alpha,
             settings);
    return table_sample_letters(t->s->alphabet, dir, text, out);
}

#endif /* KAC_LANDSCAPE_H */
