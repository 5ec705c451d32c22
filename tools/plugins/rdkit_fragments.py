"""The fragments that RDKit's scorer of synthetic accessibility knows, as a plain file for rdkit_sa.h.

    rdkit_fragments.py RDKIT/Contrib/SA_Score/fpscores.pkl.gz OUT
"""

import gzip
import pickle
import struct
import sys


def main():
    if "--help" in sys.argv:
        sys.exit(print(__doc__))
    source, out = sys.argv[1:]
    with gzip.open(source) as file:
        rows = pickle.load(file)  # each a score, and the fragments that have it
    scores = {}
    for score, *fragments in rows:
        scores.update(dict.fromkeys(fragments, float(score)))
    numbers = sorted(scores)
    with open(out, "wb") as file:
        file.write(struct.pack(f"={len(numbers)}I", *numbers))
        file.write(struct.pack(f"={len(numbers)}d", *(scores[number] for number in numbers)))


if __name__ == "__main__":
    main()
