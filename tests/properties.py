"""The plug-in's properties beside the worker's: python tests/properties.py PROGRAM [--time] [FILE ...]

PROGRAM is build/.../tests/properties. Without files the molecules are those below; of a file (plain or .gz) the first
column of each line is one. Skips, saying so, where Python's RDKit is another version. With --time it prints how many molecules
each does in a second of processor time, on one thread.
"""

import gzip
import importlib.util
import math
import subprocess
import sys
import time

import rdkit
from rdkit import RDLogger

NAMES = ["qed", "sa", "ease", "logp", "weight", "valid"]
# Drugs, alerts of every kind, charges, odd valences, fragments, cages, large rings, isotopes, hydrogens, and none.
SMILES = """
CC(=O)OC1=CC=CC=C1C(=O)O
CN1C=NC2=C1C(=O)N(C(=O)N2C)C
CC(C)CC1=CC=C(C=C1)C(C)C(=O)O
CN1CCC23C4C1CC5=C2C(=C(C=C5)O)OC3C(C=C4)O
CC(C)(C)NCC(O)C1=CC(CO)=C(O)C=C1
N=C(CCSCc1csc(N=C(N)N)n1)NS(N)(=O)=O
CNC(=NCCSCc1nc[nH]c1C)NC#N
CCCCCNC(=N)NN=Cc1c[nH]c2ccc(CO)cc12
C1=CC=C2C(=C1)C=CC=C2
C1=CC=NC=C1
C[N+](C)(C)CC([O-])=O
[NH3+]CC(=O)[O-]
C[N+]1=CC=CC=C1
O=[N+]([O-])C1=CC=CC=C1
CN(=O)=O
N#CC1=CC=C(F)C=C1
C=CC(=O)Cl
CS(=O)(=O)OC
FC(F)(F)S(=O)(=O)OC
C1CO1
C1=CC(=O)C=CC1=O
C1=CC=C(C=C1)N=NC2=CC=CC=C2
CCOP(=O)(OCC)OCC
C[Si](C)(C)Cl
OB(O)C1=CC=CC=C1
ClC1=CC(Cl)=CC(Cl)=C1
ICCI
BrC1=CC=CC2=CC=CC=C12
CSSC
COOC
CC(=O)NN
NN
N=C=O
C=C=C
CC#C
C1CCCCCCCCCCC1
C1CCC2(CC1)CCCC2
C1CC2CCC1C2
C1C2CC3CC1CC(C2)C3
C12C3C4C1C5C2C3C45
C1CC1C2CC2C3CC3
CCCCCCCCCCCCCCCCCC(=O)O
C(C(C(C(C(CO)O)O)O)O)O
CC(C)C1=CC2=C(C)C=CC2=C(C)C=C1
N1C2=CC=CC=C2SC3=C1C=CC4=C3C=CC=C4
OC1=C(O)C=C2C(=C1)OC3=CC(=O)C(=CC3=C2C4=CC=CC=C4)O
C.CC
CCO.Cl
[Na+].[Cl-]
F.F.F.F
OC(=O)C.OC(=O)C.OC(=O)C
C
O
[H][H]
[2H]C([2H])([2H])O
[H]OC
[13CH4]
[15NH3]
C[C@H](F)Cl
C/C=C/C
F/C=C\\F
C[S+](C)C
[O-]S(=O)(=O)C1=CC=CC=C1
CS(C)(=O)=O
FS(F)(F)(F)(F)F
ClP(Cl)(Cl)(Cl)Cl
C[Hg]C
[Fe]
*
*C1=CC=CC=C1
C[C](C)C
[CH3-]
[C-]#[O+]
C1=CC2=CC=CC3=C2C(=C1)C=C3
C.CC1=NC2=CN1N2
CC(O)NC(=O)NCC(=O)NCC1=NC2=CC=C1C(O)=N2
CCCNCC(C)CC(C)C1=CC=C2C3=NC(=NC(=N1)OC=C1N=C12)S3
CCOC(=O)C1=CC2=CC=C(C(O)=NC(C)C3=CC=C(F)C=C3)C(=O)C=CC=C1C(=O)O2
O1CCCCC1OC2CCC3CCCCC3C2
C1=CN=CN1C2=NC=NC3=C2N=CN3
SC1=NC2=CC=CC=C2S1
C(C)(C)(C)(C)C
N(C)(C)(C)C
C1CC
CC)
Xx
"""


def lines_of(path):
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
        return [line.split("\t")[0].strip() for line in file]


def worker():
    """What tools/workers/rdkit_properties.py says of a SMILES, with all digits, and its properties."""
    spec = importlib.util.spec_from_file_location("worker", "tools/workers/rdkit_properties.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def differ(mine, theirs):
    if math.isnan(mine) or math.isnan(theirs):
        return math.isnan(mine) != math.isnan(theirs)
    return abs(mine - theirs) > 1e-9 * max(abs(mine), abs(theirs))


def timed(module, names, smiles):
    functions = [(name, module.properties()[name]) for name in names]
    module.numbers("C", functions)  # the scorer reads its file
    start = time.process_time()
    rows = [module.numbers(text, functions) for text in smiles]
    return rows, time.process_time() - start


def ask(program, names, smiles):
    text = "".join(line + "\n" for line in smiles)
    out = subprocess.run([program, *names], input=text, capture_output=True, text=True, check=True)
    *rows, last = out.stdout.splitlines()
    version, seconds = last.split()
    return [[float(number) for number in row.split()] for row in rows], version, float(seconds)


def main():
    program, *paths = (word for word in sys.argv[1:] if word != "--time")
    smiles = [text for path in paths for text in lines_of(path)] or ["", *SMILES.split()]
    RDLogger.DisableLog("rdApp.*")
    mine, version, _ = ask(program, NAMES, smiles)
    if version != rdkit.__version__:
        print(f"skipped: Python has RDKit {rdkit.__version__}, the plug-in {version}")
        return
    module = worker()
    theirs, _ = timed(module, NAMES, smiles)
    assert len(mine) == len(theirs) == len(smiles)
    wrong = 0
    for text, a, b in zip(smiles, mine, theirs, strict=True):
        for name, x, y in zip(NAMES, a, b, strict=True):
            if differ(x, y):
                wrong += 1
                print(f"{text}: {name} is {x!r}, the worker's {y!r}")
    valid = sum(row[-1] == 1 for row in theirs)
    equal = sum(repr(x) == repr(y) for a, b in zip(mine, theirs, strict=True) for x, y in zip(a, b, strict=True))
    print(f"{len(smiles)} SMILES, {valid} valid: {wrong} numbers differ, {len(NAMES) * len(smiles) - equal} in any bit")
    if "--time" in sys.argv:
        for names in (["qed"], ["sa"], ["qed", "sa", "logp"]):
            worker_seconds = timed(module, names, smiles)[1]
            seconds = ask(program, names, smiles)[2]
            each = [len(smiles) / s for s in (worker_seconds, seconds)]
            ratio = f"{each[0]:.0f} a second by the worker, {each[1]:.0f} by the plug-in: {each[1] / each[0]:.1f} times"
            print(f"{' '.join(names)}: {ratio}")
    sys.exit(wrong > 0 or valid < min(len(smiles), 50))


if __name__ == "__main__":
    main()
