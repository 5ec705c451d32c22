"""The yeast promoter table: reading, clusters of near-duplicates, and the split that all three models share.

The table (80 bp over ACGT, measured expression in two media) holds mutational trajectories, so a split by row
would put near-copies on both sides. Clusters are single linkage over all four kinds: two sequences are linked
when they differ in at most 20 of 80 letters at the same positions (unrelated ones differ in about 60), or share
a 24-mer at any offset (overlapping genomic windows). A part is drawn for each whole cluster.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from needs import need

need("numpy", "torch", "safetensors")
import numpy as np
import torch

from kac_io import encode

ALPHABET, LENGTH = "ACGT", 80
KINDS = ("random", "native", "drift", "sswm")
MEDIA = ("complex", "defined")
MAX_DISTANCE, SHARED_KMER = 20, 24
SPLIT_SEED = 20240801
# Fractions of clusters. guide and judge train disjoint regressors, and together the denoiser.
PARTS = {"guide": 0.40, "judge": 0.40, "valid": 0.05, "test": 0.15}


@dataclass
class Promoters:
    """tokens uint8 [N,80]; kind [N], in KINDS; expression float32 [N,2], NaN where not measured; cluster, part [N]."""

    tokens: np.ndarray
    kind: np.ndarray
    expression: np.ndarray
    cluster: np.ndarray
    part: np.ndarray

    def rows(self, *parts: str) -> np.ndarray:
        """Indices of the rows of these parts."""
        return np.flatnonzero(np.isin(self.part, [list(PARTS).index(p) for p in parts]))

    def weights(self, rows: np.ndarray) -> np.ndarray:
        """The data law on these rows: kinds equal, in a kind clusters, in a cluster sequences; sums to 1."""
        weight = np.zeros(len(rows))
        for kind in range(len(KINDS)):
            mine = np.flatnonzero(self.kind[rows] == kind)
            if len(mine):
                _, inverse, count = np.unique(self.cluster[rows[mine]], return_inverse=True, return_counts=True)
                weight[mine] = 1 / (len(count) * count[inverse])
        return weight / weight.sum()


def load_promoters(path: str | Path) -> Promoters:
    """Read the table and assign clusters and parts. The first set named in `sets` is the kind."""
    with gzip.open(path, "rt") as file:
        header, *lines = (line.rstrip("\n").split("\t") for line in file)
    wanted = ["seq80", "sets", "expr_complex", "expr_defined"]
    if header[:4] != wanted:
        raise ValueError(f"{path}: the first columns must be {' '.join(wanted)}, not {' '.join(header[:4])}")
    sequences = [line[0] for line in lines]
    kind = np.array([KINDS.index(line[1].split(",")[0]) for line in lines])
    expression = np.array([[float(v) if v else np.nan for v in line[2:4]] for line in lines], np.float32)
    tokens = encode(sequences, ALPHABET)
    if tokens.shape[1] != LENGTH:
        raise ValueError(f"{path}: sequences have {tokens.shape[1]} letters, not {LENGTH}")
    cluster = single_linkage(sequences, tokens)
    return Promoters(tokens, kind, expression, cluster, assign_parts(sequences, cluster))


def single_linkage(sequences: list[str], tokens: np.ndarray) -> np.ndarray:
    """Cluster number [N]: connected components of the near-duplicate graph, numbered by their first row."""
    parent = np.arange(len(sequences))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(i: int, j: int) -> None:
        a, b = root(i), root(j)
        parent[max(a, b)] = min(a, b)

    first: dict[str, int] = {}
    for i, sequence in enumerate(sequences):
        for start in range(LENGTH - SHARED_KMER + 1):
            join(i, first.setdefault(sequence[start : start + SHARED_KMER], i))
    hot = torch.eye(4)[torch.from_numpy(tokens).long()].flatten(1)
    for start in range(0, len(hot), 1024):
        equal = hot[start : start + 1024] @ hot[start:].T
        for i, j in (equal >= LENGTH - MAX_DISTANCE).nonzero().tolist():
            if i < j:
                join(start + i, start + j)
    return np.array([root(i) for i in range(len(sequences))])


def assign_parts(sequences: list[str], cluster: np.ndarray) -> np.ndarray:
    """Part [N] (index into PARTS), a function of the smallest sequence of the cluster and SPLIT_SEED."""
    members: dict[int, list[str]] = defaultdict(list)
    for sequence, c in zip(sequences, cluster, strict=True):
        members[c].append(sequence)
    bounds = np.cumsum(list(PARTS.values()))
    part_of = {}
    for c, names in members.items():
        digest = hashlib.sha256(f"{SPLIT_SEED}:{min(names)}".encode()).digest()
        place = int(np.searchsorted(bounds, int.from_bytes(digest[:8], "big") / 2**64, "right"))
        part_of[c] = min(place, len(PARTS) - 1)
    return np.array([part_of[c] for c in cluster])


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; ties get their mean rank."""
    return pearson(_ranks(a), _ranks(b))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[inverse]


def describe_clusters() -> str:
    """What a cluster is and how it gets its part, for the cards."""
    return f"""Single linkage over all kinds: two sequences are in one cluster when they differ in at most {MAX_DISTANCE} of 80
letters, or share a {SHARED_KMER}-mer at any offset. A whole cluster goes to one part (split seed {SPLIT_SEED}): no cluster spans
two parts."""  # noqa: E501


def describe_split(data: Promoters) -> str:
    """A Markdown table: sequences and clusters of each kind in each part."""
    lines = ["| kind | " + " | ".join(PARTS) + " |", "|---" * (len(PARTS) + 1) + "|"]
    for k, kind in enumerate(KINDS):
        cells = []
        for p in range(len(PARTS)):
            rows = (data.kind == k) & (data.part == p)
            cells.append(f"{rows.sum()} / {len(np.unique(data.cluster[rows]))}")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
