"""Compare the molecules of a kac run with a recorded sample of another program, by two-sample tests.

    kac run configs/qm9_pretrained.yaml --set process.correction=none --out runs/qm9
    molecule_report.py runs/qm9 --reference qm9_samples.tsv.gz

A run is its folder; its molecules are the objects of samples.csv, SMILES of graphs as they came out
(`process.correction: none`), or with `--atoms` the numbers that they are (`process.atoms: none`). The reference is a
table (tab-separated, may be gzipped) with the columns valid_without_correction, raw_smiles, smiles, qed and sa.
Molecules are completed as published (Jo, Lee and Hwang 2022): where there are numbers, an atom for each node with a
feature above 1/2, bonds in the order of the rows, a charge of +1 where N, O or S exceeds its valence by one; then,
while a valence is not allowed, the highest bond of that atom loses an order; and of several pieces the one with the
longest SMILES is kept. QED and SA are of that piece.

Prints a table in Markdown. Validity and several pieces are compared by Fisher's exact test, QED and SA by that of
Kolmogorov and Smirnov; p is the probability of such a difference, or a larger one, between two samples of one law.
Needs RDKit (Debian: python3-rdkit).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from needs import need

need("rdkit")
from rdkit import Chem, RDLogger
from rdkit.Chem import QED, RDConfig

RDLogger.DisableLog("rdApp.*")
ORDERS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
VALENCES = {"N": 3, "O": 2, "S": 2}  # atoms that may carry a charge
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def load_sascorer():
    """The published scorer (Ertl and Schuffenhauer 2009), which RDKit ships beside its modules."""
    path = os.path.join(RDConfig.RDContribDir, "SA_Score", "sascorer.py")
    spec = importlib.util.spec_from_file_location("sascorer", path)
    if spec is None or not os.path.exists(path):
        sys.exit(f"molecule_report.py: this RDKit comes without {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- molecules


def build(row: Sequence[float], nodes: int, atoms: Sequence[str]) -> Chem.RWMol:
    """The molecule of a graph as it is, charges set, valences not looked at otherwise."""
    molecule, index = Chem.RWMol(), {}
    for i in range(int(row[0])):
        for atom, feature in zip(atoms, row[1 + i * len(atoms) : 1 + (i + 1) * len(atoms)], strict=True):
            if feature > 0.5:
                index[i] = molecule.AddAtom(Chem.Atom(atom))
                break
    first = 1 + nodes * len(atoms)
    at = {(i, j): first + i * nodes - i * (i + 1) // 2 + j - i - 1 for i in range(nodes) for j in range(i + 1, nodes)}
    for i in sorted(index):  # the published order: by the later atom of a bond
        for j in sorted(j for j in index if j < i):
            order = round(row[at[j, i]])
            if order > 0:
                molecule.AddBond(index[i], index[j], ORDERS[order])
                charge(molecule)
    return molecule


def excess(molecule: Chem.RWMol) -> tuple[int, int] | None:
    """An atom with too many bonds, and its valence; None: there is no such."""
    try:
        Chem.SanitizeMol(molecule, sanitizeOps=Chem.SanitizeFlags.SANITIZE_PROPERTIES)
    except Chem.AtomValenceException as error:
        words = str(error).replace(",", " ").split()
        numbers = [int(word) for word in words if word.isdigit()]
        return numbers[0], numbers[1]
    return None


def charge(molecule: Chem.RWMol) -> None:
    found = excess(molecule)
    if found is None:
        return
    atom = molecule.GetAtomWithIdx(found[0])
    if found[1] - VALENCES.get(atom.GetSymbol(), found[1]) == 1:
        atom.SetFormalCharge(1)


def correct(molecule: Chem.RWMol) -> Chem.RWMol:
    """Bonds lowered until every valence is allowed."""
    molecule = Chem.RWMol(molecule)
    while (found := excess(molecule)) is not None:
        bonds = [(int(bond.GetBondType()), bond) for bond in molecule.GetAtomWithIdx(found[0]).GetBonds()]
        if not bonds:
            break
        order, bond = max(bonds, key=lambda pair: pair[0])
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        molecule.RemoveBond(*ends)
        if order > 1:
            molecule.AddBond(*ends, ORDERS[order - 1])
    return molecule


def describe(molecule: Chem.RWMol, sascorer) -> dict[str, object]:
    valid = excess(molecule) is None
    pieces = Chem.MolToSmiles(correct(molecule)).split(".")
    kept = Chem.MolFromSmiles(max(pieces, key=len))
    if kept is None or kept.GetNumAtoms() == 0:
        return {"valid": valid, "smiles": "", "pieces": len(pieces)}
    smiles = Chem.MolToSmiles(kept)
    return {
        "valid": valid,
        "smiles": smiles,
        "pieces": len(pieces),
        "qed": QED.qed(kept),
        "sa": sascorer.calculateScore(kept),
    }


def nodes_of(numbers: int, features: int) -> int:
    """N of rows of 1 + N F + N (N - 1) / 2 numbers."""
    nodes = 1
    while 1 + nodes * features + nodes * (nodes - 1) // 2 < numbers:
        nodes += 1
    if 1 + nodes * features + nodes * (nodes - 1) // 2 != numbers:
        raise ValueError(f"rows of {numbers} numbers are no graphs of {features} features")
    return nodes


def read_run(folder: Path, atoms: Sequence[str] | None) -> list[dict[str, object]]:
    sascorer = load_sascorer()
    with open(folder / "samples.csv", newline="") as file:
        objects = [entry["object"] for entry in csv.DictReader(file)]
    if atoms is None:
        molecules = [Chem.MolFromSmiles(text, sanitize=False) for text in objects]
        if None in molecules:
            raise ValueError(f"{folder}: `{objects[molecules.index(None)]:.60}` is no SMILES; numbers want --atoms")
        return [describe(Chem.RWMol(molecule), sascorer) for molecule in molecules]
    rows = [[float(x) for x in text.split()] for text in objects]
    nodes = nodes_of(len(rows[0]), len(atoms))
    return [describe(build(row, nodes, atoms), sascorer) for row in rows]


def read_reference(path: Path) -> list[dict[str, object]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        return [
            {
                "valid": entry["valid_without_correction"] == "1",
                "smiles": entry["smiles"],
                "pieces": 1 + entry["raw_smiles"].count("."),
                "qed": float(entry["qed"]),
                "sa": float(entry["sa"]),
            }
            for entry in csv.DictReader(file, delimiter="\t")
        ]


# ---------------------------------------------------------------- tests


def fisher(a: int, n: int, b: int, m: int) -> float:
    """Two-sided: tables with the same margins that are no more likely than a of n beside b of m."""

    def log_weight(k: int) -> float:
        return log_choose(n, k) + log_choose(m, a + b - k)

    own = log_weight(a)
    all_logs = [log_weight(k) for k in range(max(0, a + b - m), min(n, a + b) + 1)]
    top = max(all_logs)
    total = sum(math.exp(x - top) for x in all_logs)
    return min(1.0, sum(math.exp(x - top) for x in all_logs if x <= own + 1e-9) / total)


def log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def smirnov(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The largest distance of the two distribution functions, and its asymptotic p."""
    a, b = sorted(a), sorted(b)
    i = j = 0
    distance = 0.0
    while i < len(a) and j < len(b):
        x = min(a[i], b[j])
        while i < len(a) and a[i] == x:
            i += 1
        while j < len(b) and b[j] == x:
            j += 1
        distance = max(distance, abs(i / len(a) - j / len(b)))
    root = math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    scaled = (root + 0.12 + 0.11 / root) * distance  # Stephens 1970
    if scaled < 0.2:
        return distance, 1.0
    series = sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return distance, min(1.0, max(0.0, 2 * series))


def quantiles(values: Sequence[float], digits: int) -> str:
    """Linear between order statistics."""
    ordered, out = sorted(values), []
    for level in LEVELS:
        at = level * (len(ordered) - 1)
        low = int(at)
        high = min(low + 1, len(ordered) - 1)
        out.append(f"{ordered[low] + (at - low) * (ordered[high] - ordered[low]):.{digits}f}")
    return ", ".join(out)


def share(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %"


def report(runs: dict[str, list[dict[str, object]]], reference: list[dict[str, object]]) -> str:
    """A column for the reference, two for each run."""
    names = list(runs)
    head = ["", "reference"] + [column for name in names for column in (name, "p")]
    rows = [["molecules", str(len(reference))]]
    rows += [["valid without correction", share(sum(bool(x["valid"]) for x in reference), len(reference))]]
    rows += [["in several pieces", share(sum(x["pieces"] > 1 for x in reference), len(reference))]]
    rows += [["unique", share(len({x["smiles"] for x in reference}), len(reference))]]
    rows += [[f"QED: {', '.join(f'{100 * q:g}' for q in LEVELS)} %", quantiles([x["qed"] for x in reference], 3)]]
    rows += [["SA (1 to 10), the same", quantiles([x["sa"] for x in reference], 2)]]
    for run in runs.values():
        kept = [x for x in run if "qed" in x]
        rows[0] += [str(len(run)), ""]
        for row, what in ((rows[1], lambda x: bool(x["valid"])), (rows[2], lambda x: x["pieces"] > 1)):
            own, other = sum(map(what, run)), sum(map(what, reference))
            row += [share(own, len(run)), f"{fisher(own, len(run), other, len(reference)):.2g}"]
        rows[3] += [share(len({x["smiles"] for x in kept}), len(run)), ""]
        for row, key, digits in ((rows[4], "qed", 3), (rows[5], "sa", 2)):
            values = [x[key] for x in kept]
            distance, p = smirnov(values, [x[key] for x in reference])
            row += [quantiles(values, digits), f"{p:.2g} (distance {distance:.3f})"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs of kac")
    parser.add_argument("--atoms", help="objects are numbers: elements of the features, C,N,O,F")
    parser.add_argument("--reference", type=Path, required=True, help="samples.tsv or .tsv.gz")
    args = parser.parse_args()
    try:
        runs = {folder.name: read_run(folder, args.atoms.split(",") if args.atoms else None) for folder in args.runs}
        print(report(runs, read_reference(args.reference)))
    except (OSError, KeyError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
