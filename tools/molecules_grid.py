"""Draw the best molecules of a run as one picture, by RDKit: RUN/samples.csv -> RUN/samples.svg."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path


def best_molecules(path: Path, most: int) -> list[tuple[object, float]]:
    """Molecules and rewards, the highest first, each molecule once."""
    from rdkit import Chem

    best: dict[str, tuple[object, float]] = {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"object", "reward"} <= rows[0].keys():
        raise ValueError(f"{path} has no columns object and reward")
    for row in sorted(rows, key=lambda row: -float(row["reward"])):
        molecule = Chem.MolFromSmiles(row["object"])
        if molecule is not None and molecule.GetNumAtoms() > 0:
            best.setdefault(Chem.MolToSmiles(molecule), (molecule, float(row["reward"])))
    if not best:
        raise ValueError(f"{path}: RDKit reads no molecule in it")
    return list(best.values())[:most]


def draw(molecules: list[tuple[object, float]], columns: int) -> str:
    from rdkit.Chem import Draw

    # not MolsToGridImage, which gives another type in a notebook
    width, height = 220, 200
    rows = -(-len(molecules) // columns)
    canvas = Draw.rdMolDraw2D.MolDraw2DSVG(columns * width, rows * height, width, height)
    canvas.DrawMolecules([molecule for molecule, _ in molecules], legends=[f"{reward:.3f}" for _, reward in molecules])
    canvas.FinishDrawing()
    return canvas.GetDrawingText()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run of molecules")
    parser.add_argument("--most", type=int, default=24, help="molecules, at most (24)")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--out", type=Path, help="the file to write (RUN/samples.svg)")
    args = parser.parse_args()
    try:
        from rdkit import RDLogger

        RDLogger.DisableLog("rdApp.*")
        molecules = best_molecules(args.run / "samples.csv", max(args.most, 1))
        target = args.out or args.run / "samples.svg"
        target.write_text(draw(molecules, max(args.columns, 1)))
    except ImportError as error:
        how = "apt-get install python3-rdkit, or pip install rdkit in a virtual environment that is active here"
        parser.exit(2, f"{parser.prog} needs RDKit: {how} ({error})\n")
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{target}: {len(molecules)} molecules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
