"""What kac makes of graphs, beside RDKit and the published procedure: python tests/molecules.py PROGRAM WORK

PROGRAM is build/.../tests/molecules, WORK an empty folder. The procedure is that of GDSS (Jo, Lee and Hwang, ICML 2022)
as its code runs it: RDKit says which atom is beyond its valence.
"""

import csv
import gzip
import json
import random
import re
import subprocess
import sys
from pathlib import Path

from rdkit import Chem, RDLogger

ORDERS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
VALENCE = {7: 3, 8: 2, 16: 2}
ATOMS = {"qm9": "C,N,O,F", "zinc250k": "C,N,O,F,P,S,Cl,Br,I", "zinc250k_v2": "C,N,O,F,P,S,Cl,Br,I"}
SAMPLES = Path("../shared/data/gdss_samples")
NUMBER = Chem.GetPeriodicTable().GetAtomicNumber


def fault(molecule):
    """Index and valence of the first atom beyond its valence, or None."""
    try:
        Chem.SanitizeMol(molecule, sanitizeOps=Chem.SanitizeFlags.SANITIZE_PROPERTIES)
    except ValueError as error:
        text = str(error)
        return [int(number) for number in re.findall(r"\d+", text[text.find("#") :])]
    return None


def build(symbols, atoms, bonds):
    """The molecule of a graph, atoms beyond the symbols left out; bonds are orders of pairs (0, 1), (0, 2), .."""
    molecule = Chem.RWMol()
    nodes = len(atoms)
    place = [molecule.AddAtom(Chem.Atom(NUMBER(symbols[a]))) if a < len(symbols) else None for a in atoms]
    for i in range(nodes):
        for j in range(i):
            order = bonds[j * (2 * nodes - j - 1) // 2 + i - j - 1]
            if order == 0 or place[i] is None or place[j] is None:
                continue
            molecule.AddBond(place[i], place[j], ORDERS[order])
            found = fault(molecule)
            atom = molecule.GetAtomWithIdx(found[0]) if found else None
            if found and found[1] - VALENCE.get(atom.GetAtomicNum(), 100) == 1:
                atom.SetFormalCharge(1)
    return molecule


def correct(molecule):
    while found := fault(molecule):
        bonds = molecule.GetAtomWithIdx(found[0]).GetBonds()
        worst = max(bonds, key=lambda bond: int(bond.GetBondType()))
        a, b, order = worst.GetBeginAtomIdx(), worst.GetEndAtomIdx(), int(worst.GetBondType())
        molecule.RemoveBond(a, b)
        if order > 1:
            molecule.AddBond(a, b, ORDERS[order - 1])
    return molecule


def canonical(smiles):
    """Of the Kekule form, valences right or not; RDKit's aromatic form depends on the order of atoms."""
    molecule = Chem.MolFromSmiles(smiles, sanitize=False)
    molecule.UpdatePropertyCache(False)
    return Chem.MolToSmiles(molecule)


def ask(program, path, symbols, correction, form):
    command = [program, str(path), symbols, correction, form]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def write_graphs(path, graphs):
    """A safetensors file of atoms and bonds."""
    parts = [bytes(x for graph in graphs for x in graph[part]) for part in (0, 1)]
    header = {}
    at = 0
    for name, part in zip(("atom", "bond_triu"), parts, strict=True):
        shape = [len(graphs), len(part) // len(graphs)]
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [at, at + len(part)]}
        at += len(part)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def random_graphs(count, nodes, symbols, share):
    draw = random.Random(nodes)
    pairs = nodes * (nodes - 1) // 2
    return [
        (
            [draw.randrange(len(symbols) + 1) for _ in range(nodes)],
            [draw.randrange(1, 4) if draw.random() < share else 0 for _ in range(pairs)],
        )
        for _ in range(count)
    ]


def check_random(program, work):
    """Random graphs, most of them beyond valences: built, corrected, and as SDF."""
    for name, nodes, share in (("qm9", 9, 0.25), ("zinc250k", 20, 0.1), ("zinc250k", 38, 0.3)):
        symbols = ATOMS[name].split(",")
        graphs = random_graphs(200, nodes, symbols, share)
        path = work / "graphs.safetensors"
        write_graphs(path, graphs)
        raw = ask(program, path, ATOMS[name], "none", "smiles").splitlines()
        corrected = ask(program, path, ATOMS[name], "valence", "smiles").splitlines()
        records = ask(program, path, ATOMS[name], "valence", "sdf").split("$$$$\n")[:-1]
        assert len(raw) == len(corrected) == len(records) == 200
        ties = 0
        for graph, mine, better, record in zip(graphs, raw, corrected, records, strict=True):
            theirs = build(symbols, *graph)
            assert canonical(mine) == Chem.MolToSmiles(theirs), (mine, Chem.MolToSmiles(theirs))
            fragments = Chem.MolToSmiles(correct(theirs)).split(".")
            assert canonical(better) in fragments, (better, fragments)
            ties += len(canonical(better)) < max(map(len, fragments))
            block = Chem.MolFromMolBlock(record, sanitize=False)
            block.UpdatePropertyCache(False)
            assert Chem.MolToSmiles(block) == canonical(better), (record, better)
            assert better == "" or Chem.MolFromSmiles(better) is not None, better
        assert ties == 0, f"{ties} of 200 are not the longest fragment"
        print(f"random {name}, {nodes} nodes: 200 graphs")


def check_recorded(program, name):
    """Molecules of the published sampler, as its own code recorded them."""
    path = SAMPLES / f"{name}_graphs.safetensors"
    with gzip.open(SAMPLES / f"{name}_samples.tsv.gz", "rt") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    raw = ask(program, path, ATOMS[name], "none", "smiles").splitlines()
    corrected = ask(program, path, ATOMS[name], "valence", "smiles").splitlines()
    for row, mine, better in zip(rows, raw, corrected, strict=True):
        assert canonical(mine) == row["raw_smiles"], (mine, row["raw_smiles"])
        valid = Chem.MolFromSmiles(mine) is not None
        assert valid == (row["valid_without_correction"] == "1"), mine
        assert Chem.CanonSmiles(canonical(better)) == row["smiles"], (better, row["smiles"])
    print(f"recorded {name}: {len(rows)} molecules")


def main():
    RDLogger.DisableLog("rdApp.*")
    program, work = sys.argv[1], Path(sys.argv[2])
    check_random(program, work)
    for name in ATOMS:
        if SAMPLES.exists():
            check_recorded(program, name)
        else:
            print(f"recorded {name}: {SAMPLES} is absent")


if __name__ == "__main__":
    main()
