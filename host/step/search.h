/* search.h -- what the files of driver search share.
 *
 * Notation: d levels of a block, M children, S depths of a tree, E rows at work in a tree.
 */
#ifndef KAC_SEARCH_H
#define KAC_SEARCH_H

#include "run.h"

struct kac_search {
    /* ddbfs */
    int32_t *levels;     /* host, [steps of the run] levels that each goes down */
    int32_t *keep;       /* host, the same: particles of a group that go on */
    kac_particles front; /* the depths of a block alternate between this and run->y */
    int32_t *best;       /* [n] */
    int32_t *chosen;     /* [n] */

    /* mcts, dts */
    kac_trees trees;
    int32_t nodes;      /* of all trees of this rank */
    kac_particles rows; /* [G E] states at work; their entries follow those of the nodes */
    kac_tree_args args;
    int32_t *at_level; /* host, [S + 1] level of each depth */
    int32_t root;      /* depth at which simulations start */
    bool keeps;        /* evaluations of the nodes are kept */
};

/* Particles of a group that go on after `done` of `steps` steps: from `begin` to `end`. */
int64_t kac_drop_target(kac_drop drop, int64_t begin, int64_t end, int64_t done, int64_t steps);

/* Probability that the block that begins with step j of `steps`, counted from 1, is searched. */
double kac_search_share(kac_searched schedule, int64_t j, int64_t steps);

/* Whether trees are grown; not where no driver searches, whatever search.kind is. */
bool kac_searches_trees(const kac_run *run);

/* Nodes of a tree, and memory that the rows and nodes take, in bytes. */
int64_t kac_tree_nodes(const kac_settings *settings);
double kac_search_bytes(const kac_run *run);

/* ---- search_paths.c, search_trees.c --------------------------------------------------------
 */

kac_status kac_paths_open(kac_run *run);
kac_status kac_paths_step(kac_run *run);
kac_status kac_trees_open(kac_run *run);
kac_status kac_trees_step(kac_run *run);

/* Forgets what is known of all states but the nodes' and those of the rows at work. */
kac_status kac_trees_forget(kac_run *run);

#endif /* KAC_SEARCH_H */
