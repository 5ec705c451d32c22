"""Properties of molecules by RDKit, as a worker of kac: SMILES in, a line of numbers out (docs/workers.md).

    rdkit_properties.py [NAME ...]      which, in this order; without names qed sa logp weight valid

    qed     drug-likeness, 0 to 1 (Bickerton et al. 2012)
    sa      synthetic accessibility, 1 (easy) to 10 (hard) (Ertl and Schuffenhauer 2009)
    ease    (10 - sa) / 9, 0 (hard) to 1 (easy), as published comparisons of generators have it
    logp    the logarithm of the octanol-water partition coefficient (Wildman and Crippen 1999)
    weight  in daltons
    valid   1, or 0 for a SMILES that RDKit cannot read or that has no atom; the others are nan then
"""

import importlib.util
import os
import sys

if "--help" in sys.argv:
    sys.exit(print(__doc__))
try:
    from rdkit import Chem, RDConfig, RDLogger
    from rdkit.Chem import QED, Crippen, Descriptors
except ImportError as error:
    how = "apt-get install python3-rdkit, or pip install rdkit in a virtual environment that is active here"
    sys.exit(f"rdkit_properties.py needs RDKit: {how} ({error})")


def load_sascorer():
    """The published scorer, which RDKit ships beside its modules."""
    path = os.path.join(RDConfig.RDContribDir, "SA_Score", "sascorer.py")
    spec = importlib.util.spec_from_file_location("sascorer", path)
    if spec is None or not os.path.exists(path):
        sys.exit(f"rdkit_properties.py: this RDKit comes without {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def properties():
    """Every property by its name; the scorer is read where it is wanted."""
    scorer = []

    def accessibility(molecule):
        if not scorer:
            scorer.append(load_sascorer())
        return scorer[0].calculateScore(molecule)

    return {
        "qed": QED.qed,
        "sa": accessibility,
        "ease": lambda molecule: (10 - accessibility(molecule)) / 9,
        "logp": Crippen.MolLogP,
        "weight": Descriptors.MolWt,
        "valid": lambda molecule: 1,
    }


def numbers(smiles, functions):
    molecule = Chem.MolFromSmiles(smiles) if smiles else None
    if molecule is None or molecule.GetNumAtoms() == 0:
        return [0.0 if name == "valid" else float("nan") for name, _ in functions]
    return [float(function(molecule)) for _, function in functions]


def main():
    known = properties()
    names = sys.argv[1:] or ["qed", "sa", "logp", "weight", "valid"]
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"rdkit_properties.py: no property {unknown[0]}; there are {', '.join(known)}")
    functions = [(name, known[name]) for name in names]
    RDLogger.DisableLog("rdApp.*")
    while count := sys.stdin.readline():
        for _ in range(int(count)):
            print(*map(repr, numbers(sys.stdin.readline().strip(), functions)), flush=True)


if __name__ == "__main__":
    main()
