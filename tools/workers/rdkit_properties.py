"""Properties of molecules by RDKit, as a worker of kac: SMILES in, a line of five numbers out (docs/workers.md).

    output 0  QED, drug-likeness from 0 to 1
    output 1  SA, synthetic accessibility from 1 (easy) to 10 (hard)
    output 2  logP, Crippen's
    output 3  weight, in daltons
    output 4  validity: 1, or 0 for a SMILES that RDKit cannot read; the others are nan then
"""

import importlib.util
import os
import sys

try:
    from rdkit import Chem, RDConfig, RDLogger
    from rdkit.Chem import QED, Crippen, Descriptors
except ImportError as error:
    sys.exit(f"rdkit_properties.py needs RDKit: python3 -m pip install rdkit ({error})")


def load_sascorer():
    """The published scorer (Ertl and Schuffenhauer 2009), which RDKit ships beside its modules."""
    path = os.path.join(RDConfig.RDContribDir, "SA_Score", "sascorer.py")
    spec = importlib.util.spec_from_file_location("sascorer", path)
    if spec is None or not os.path.exists(path):
        sys.exit(f"rdkit_properties.py: this RDKit comes without {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def properties(smiles, sascorer):
    molecule = Chem.MolFromSmiles(smiles) if smiles else None
    if molecule is None or molecule.GetNumAtoms() == 0:
        return (float("nan"),) * 4 + (0,)
    return (
        QED.qed(molecule),
        sascorer.calculateScore(molecule),
        Crippen.MolLogP(molecule),
        Descriptors.MolWt(molecule),
        1,
    )


def main():
    RDLogger.DisableLog("rdApp.*")
    sascorer = load_sascorer()
    while count := sys.stdin.readline():
        for _ in range(int(count)):
            numbers = properties(sys.stdin.readline().strip(), sascorer)
            print(*(repr(float(x)) for x in numbers), flush=True)


if __name__ == "__main__":
    main()
