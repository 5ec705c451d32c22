"""Turn a measured landscape into models of kac: its table as a reward, and a Markov chain as the denoiser.

    python3 tools/landscape.py tis tis_aug_65536.tsv.gz .
    python3 tools/landscape.py gb1 gb1_four_sites.tsv.gz .

tis: efficiency of translation initiation (12 to 150) at NNNNNNAUGNN, all 65,536 sequences; Noderer et al., Mol Syst
Biol 10:748, 2014. The start codon is the same in all and is left out: an object is the six letters before it and the
two after. Columns `sequence`, `efficiency`.

gb1: fitness (wild type 1, best 8.76) at sites 39, 40, 41 and 54 of protein GB1, 149,361 of the 160,000 variants; Wu et
al., eLife 5:e16965, 2016. Columns `variant`, `fitness`. A variant that was not measured has the reward -inf.

The denoiser is a Markov chain, the same at all sites, fitted to the best tenth of the sequences, each counted once:
nine tenths of its mass are the letters and neighbours counted there, one tenth is spread evenly. It stands in for a
pretrained model: it knows roughly what good sequences are made of, and its letters depend on each other.

The tables keep their own licences; they are not part of the project.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

from needs import need

need("numpy")
import numpy as np

from make_gmm import save


@dataclass(frozen=True)
class Landscape:
    alphabet: str
    sites: tuple[int, ...]  # where the varying letters stand in a sequence
    columns: tuple[str, str]  # sequence, value


LANDSCAPES = {
    "tis": Landscape("ACGU", (0, 1, 2, 3, 4, 5, 9, 10), ("sequence", "efficiency")),
    "gb1": Landscape("ACDEFGHIKLMNPQRSTVWY", (0, 1, 2, 3), ("variant", "fitness")),
}


def read(kind: Landscape, path: str | Path) -> np.ndarray:
    """The values as float32 [S] * L, -inf where there is none."""
    size, length = len(kind.alphabet), len(kind.sites)
    values = np.full((size,) * length, -np.inf, np.float32)
    with gzip.open(path, "rt") as file:
        for line, row in enumerate(csv.DictReader(file, delimiter="\t"), 2):
            try:
                letters = [kind.alphabet.index(row[kind.columns[0]][site]) for site in kind.sites]
                value = float(row[kind.columns[1]])
            except (KeyError, IndexError, TypeError, ValueError) as error:
                want = f"columns {' and '.join(kind.columns)}, letters of {kind.alphabet}"
                raise ValueError(f"{path}: line {line} is not of this table ({want})") from error
            if not np.isfinite(value):
                raise ValueError(f"{path}: line {line}: {kind.columns[1]} is {value}")
            values[tuple(letters)] = value
    return values


def fit(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Markov chain of the best tenth: initial [S], transition [S,S], float32."""
    size, length = values.shape[0], values.ndim
    finite = np.sort(values[np.isfinite(values)])
    if len(finite) == 0:
        raise ValueError("the table is empty")
    best = (values >= finite[len(finite) * 9 // 10]) & np.isfinite(values)
    count = float(best.sum())
    first = best.sum(axis=tuple(range(1, length)))
    pair = np.zeros((size, size))
    for left in range(length - 1):
        pair += best.sum(axis=tuple(axis for axis in range(length) if axis not in (left, left + 1)))
    even = 1.0 / size
    initial = 0.9 * first / count + 0.1 * even
    pair = 0.9 * pair / (count * (length - 1)) + 0.1 * even * even
    return initial.astype(np.float32), (pair / pair.sum(1, keepdims=True)).astype(np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=LANDSCAPES)
    parser.add_argument("source", type=Path, help="the table, tab-separated, gzip")
    parser.add_argument("folder", type=Path, help="where KIND_denoiser.safetensors and KIND_VALUE.safetensors go")
    args = parser.parse_args()
    kind = LANDSCAPES[args.kind]
    try:
        values = read(kind, args.source)
        initial, transition = fit(values)
    except (OSError, ValueError) as error:
        print(f"landscape.py: {error}", file=sys.stderr)
        return 2
    meta = {"kac.alphabet": kind.alphabet, "kac.length": str(len(kind.sites))}
    reward = args.folder / f"{args.kind}_{kind.columns[1]}.safetensors"
    denoiser = args.folder / f"{args.kind}_denoiser.safetensors"
    table = {"kac.arch": "table", "kac.role": "reward"} | meta
    save(reward, {"reward": ([values.size], values.reshape(-1).tolist())}, table)
    markov = {"kac.arch": "markov", "kac.role": "denoiser", "kac.process": "masked"} | meta
    tensors = {"initial": initial, "transition": transition}
    save(denoiser, {name: (list(t.shape), t.reshape(-1).tolist()) for name, t in tensors.items()}, markov)
    found = int(np.isfinite(values).sum())
    print(f"{reward}: {found:,} of {values.size:,} sequences have a value\n{denoiser}: {args.kind}'s Markov chain")
    return 0


if __name__ == "__main__":
    sys.exit(main())
