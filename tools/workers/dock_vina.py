"""How well molecules bind, by AutoDock Vina, as a worker of kac: SMILES in, a number out (docs/workers.md).

    python3 dock_vina.py RECEPTOR.pdbqt --center X Y Z --size X Y Z

The number is minus the affinity of the best pose in the box, in kcal/mol, so higher is better; nan
where a molecule gets no structure or no pose.  Open Babel makes the structures.  It draws random
numbers from the clock, so each molecule gets a clock that starts anew, by faketime, and the same
molecule the same number.  Debian and Ubuntu: apt-get install autodock-vina openbabel faketime
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

PROGRAMS = {"vina": "autodock-vina", "obabel": "openbabel", "faketime": "faketime"}
CLOCK = "@2000-01-01 00:00:00 i0.001"  # a thousandth of a second from one look to the next
PROBE = "ROOT\nATOM      1  C   LIG     1    {:8.3f}{:8.3f}{:8.3f}  0.00  0.00    +0.000 C \nENDROOT\nTORSDOF 0\n"


class Failure(Exception):
    """No number for this molecule, and why."""


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("receptor", help="the rigid receptor, PDBQT")
    parser.add_argument("--center", nargs=3, type=float, required=True, help="of the box, in angstrom")
    parser.add_argument("--size", nargs=3, type=float, required=True, help="of the box, in angstrom")
    parser.add_argument("--exhaustiveness", type=int, default=1, help="searches a molecule gets (1)")
    parser.add_argument("--seed", type=int, default=1, help="of the searches (1)")
    parser.add_argument(
        "--timeout", type=float, default=120, help="seconds for a structure, and for the docking of it (120)"
    )
    return parser.parse_args()


def call(command, text, timeout=None, env=None):
    """What a program answers to a text, or a Failure.

    The text is in a file without a name, which Vina can open twice and nobody has to delete.
    """
    with tempfile.TemporaryFile("w+") as file:
        file.write(text)
        file.seek(0)
        try:
            done = subprocess.run(
                command, stdin=file, capture_output=True, text=True, timeout=timeout, env=env, check=False
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"{command[0]} took more than {timeout:g} seconds") from None
    if done.returncode != 0:
        lines = [line for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
        said = next((line for line in lines if "rror" in line), lines[-1] if lines else "nothing")
        raise Failure(f"{command[0]} ended with {done.returncode}: {said.strip()}")
    return done.stdout


class Docking:
    def __init__(self, arguments):
        self.timeout = arguments.timeout
        faketime = ["faketime", "-f", CLOCK, "printenv", "LD_PRELOAD"]
        self.env = os.environ | {  # the structures of one molecule are not worth threads
            "OMP_NUM_THREADS": "1",
            "LD_PRELOAD": call(faketime, "").strip(),
            "FAKETIME": CLOCK,
        }
        self.vina = ["vina", "--receptor", arguments.receptor, "--ligand", "/dev/stdin"]
        self.vina += ["--out", "/dev/stdout", "--verbosity", "0", "--cpu", "1"]
        for name, numbers in (("center", arguments.center), ("size", arguments.size)):
            for axis, number in zip("xyz", numbers, strict=True):
                self.vina += [f"--{name}_{axis}", repr(number)]
        self.search = ["--seed", str(arguments.seed), "--exhaustiveness", str(arguments.exhaustiveness)]
        # what Vina thinks of the receptor, before the first molecule is asked for
        call([*self.vina, "--score_only"], PROBE.format(*arguments.center))

    def structure(self, smiles):
        pdbqt = call(["obabel", "-ismi", "-opdbqt", "--gen3d"], smiles + "\n", self.timeout, self.env)
        places = [line[30:54] for line in pdbqt.splitlines() if line.startswith(("ATOM", "HETATM"))]
        # Open Babel says of nothing that it failed: it writes no atoms, or all in one place
        if not places or len(set(places)) < len(places):
            raise Failure("obabel made no structure")
        return pdbqt

    def score(self, smiles):
        poses = call([*self.vina, *self.search], self.structure(smiles), self.timeout)
        best = re.search(r"^REMARK VINA RESULT: +(\S+)", poses, re.MULTILINE)
        if best is None:
            raise Failure("vina found no pose in the box")
        return -float(best[1])


def main():
    arguments = read_arguments()
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        sys.exit(f"dock_vina.py needs {', '.join(missing)}: apt-get install {' '.join(missing)}")
    if min(arguments.size) <= 0:
        sys.exit("dock_vina.py: --size: want three lengths above 0")
    if not os.path.exists(arguments.receptor):
        sys.exit(f"dock_vina.py: {arguments.receptor}: there is no such receptor")
    try:
        docking = Docking(arguments)
    except Failure as failure:
        sys.exit(f"dock_vina.py: {arguments.receptor}: {failure}")
    while count := sys.stdin.readline():
        for _ in range(int(count)):
            smiles = sys.stdin.readline().strip()
            try:
                number = docking.score(smiles)
            except Failure as failure:
                number = float("nan")
                print(f"dock_vina.py: {smiles}: {failure}", file=sys.stderr)
            print(repr(number), flush=True)


if __name__ == "__main__":
    main()
