"""Makes a reward of molecules from what they should hold: r = - 1/2 sum ((count - wanted) / deviation)^2.

    python3 tools/formula_reward.py gdss_qm9.safetensors N=2,O=1 --out formula.safetensors

Counts are those of the model's elements, and `bonds`, the orders of all bonds added up. They are linear in a graph, so
that the reward has a gradient (kind quadratic). The model is a denoiser of graphs that kac
runs (convert_gdss.py makes one). Needs Python alone.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from pathlib import Path

from convert_gdss import ATOMS
from make_gmm import save


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file."""
    with path.open("rb") as file:
        head = file.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= size <= 100_000_000:
            raise ValueError(f"{path}: not a safetensors file")
        return json.loads(file.read(size)).get("__metadata__", {})


def read_wanted(text: str, known: list[str]) -> dict[str, float]:
    """`N=2,O=1` as numbers by name."""
    wanted: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name not in known or name in wanted:
            raise ValueError(f"`{part}`: want each of {', '.join(known)} at most once, as in N=2,O=1")
        try:
            wanted[name] = float(number)
        except ValueError:
            raise ValueError(f"`{part}`: want a number after =") from None
    return wanted


def row_of(name: str, atoms: list[str], nodes: int) -> list[float]:
    """What counts `name` in the numbers of a graph: n, the features of its nodes, the pairs i < j."""
    row = [0.0] + [1.0 if atom == name else 0.0 for _ in range(nodes) for atom in atoms]
    return row + [1.0 if name == "bonds" else 0.0] * (nodes * (nodes - 1) // 2)


def elements_of(meta: dict[str, str]) -> str | None:
    """As kac finds them: as the file says, or as the data have them that a GDSS model was trained with."""
    config = json.loads(meta.get("model_config", "{}"))
    data = config.get("data") if isinstance(config, dict) else None
    return meta.get("kac.atoms") or ATOMS.get(data.get("data") if isinstance(data, dict) else None)


def make(model: Path, wanted: str, deviation: float, elements: str | None, out: Path) -> None:
    meta = metadata_of(model)
    most = meta.get("kac.nodes", meta.get("max_node_num"))
    elements = elements or elements_of(meta)
    if most is None or elements is None:
        raise ValueError(f"{model}: it does not say how many nodes its graphs have, and of which elements (--atoms)")
    if not deviation > 0:
        raise ValueError(f"--deviation {deviation:g}: want more than 0")
    atoms, nodes = elements.split(","), int(most)
    numbers = read_wanted(wanted, [*atoms, "bonds"])
    matrix = [x for name in numbers for x in row_of(name, atoms, nodes)]
    count = len(numbers)
    save(
        out,
        {
            "matrix": ([count, len(matrix) // count], matrix),
            "target": ([count], list(numbers.values())),
            "deviation": ([count], [deviation] * count),
        },
        {"kac.arch": "quadratic", "kac.role": "reward"},
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="whose graphs are judged, a safetensors file")
    parser.add_argument("wanted", help="such as N=2,O=1 or O=2,bonds=10")
    parser.add_argument("--deviation", type=float, default=0.5, help="of each count (0.5)")
    parser.add_argument("--atoms", help="elements of the features, C,N,O,F; unless the model says so")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    a = parser.parse_args()
    try:
        make(a.model, a.wanted, a.deviation, a.atoms, a.out)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
