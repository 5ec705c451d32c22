/* verify.h -- what the parts of kac_verify share: a recording that is replayed, and its report. */
#ifndef KAC_VERIFY_H
#define KAC_VERIFY_H

#include <stdio.h>

#include "device.h"
#include "network.h"

/* What is open while a recording is replayed. */
typedef struct kac_replay {
    kac_device *dev;
    kac_network *net;
    kac_tensors *recording;
    FILE *out;
    double worst; /* of all that was compared */
    double tolerance;
} kac_replay;

/* A tensor of the recording; sizes < 0 are free.  Errors: INVALID (it is missing or another). */
kac_status kac_replay_find(const kac_replay *r, const char *name, kac_dtype dtype, int rank,
                           const int64_t *shape, const kac_tensor **out);

/* Answers a query of the network in host memory: rows 0 .. capacity - 1 without lists, at level
 * clock->level of levels[0 .. clock->level]. */
kac_status kac_replay_ask(const kac_replay *r, const kac_query *host_query);

/* Compares a with a recorded tensor, rows of `width` of the b_width values that the tensor has,
 * max|a - b| / max|b|, and writes the tensor's line.  A NaN of either is no agreement. */
kac_status kac_replay_compare(kac_replay *r, const float *a, const kac_tensor *recorded,
                              int64_t rows, int64_t width, int64_t b_width);

/* ---- graphs ----------------------------------------------------------------------------- */

/* Graphs of a recording. */
typedef struct kac_replay_graphs {
    int32_t rows;
    const kac_tensor *x, *adj, *flags; /* [rows][N][F], [rows][N][N], [rows][N] */
} kac_replay_graphs;

/* A tensor [rows][N][F], or for pairs [rows][N][N]; rows < 0 are free. */
kac_status kac_replay_find_part(const kac_replay *r, const char *name, bool pairs, int64_t rows,
                                const kac_tensor **out);

/* Rows of graph.h, `stride` floats apart.  Errors: INVALID (live nodes do not come first, or the
 * adjacency is not symmetric). */
kac_status kac_replay_rows(const kac_replay *r, const kac_replay_graphs *g, int64_t stride,
                           float *out);

/* Numbers of graph i of x [..][N][F] and adj [..][N][N] as a row that does not say its nodes. */
void kac_replay_pack(const kac_graph_model *graph, const float *x, const float *adj, int64_t i,
                     float *row);

/* The nodes [rows][N][F] or the pairs [rows][N][N] of rows, whole and with zeros at the dead;
 * with t [rows] the rows are answers, and what comes out scores, those of vp divided by minus the
 * deviation at t. */
void kac_replay_spread(const kac_replay *r, const float *row, int64_t stride, int32_t rows,
                       bool pairs, const float *t, float *out);

/* Floats that kac_replay_spread writes at most for a row. */
int64_t kac_replay_widest(const kac_replay *r);

/* Sets of graphs with the network's answers, NAME.net_x. */
bool kac_replay_has_sets(const kac_replay *r);
kac_status kac_replay_sets(kac_replay *r);

/* The published sampler: its noise, single steps or a trajectory. */
bool kac_replay_has_sampler(const kac_replay *r);
kac_status kac_replay_sampler(kac_replay *r);

#endif /* KAC_VERIFY_H */
