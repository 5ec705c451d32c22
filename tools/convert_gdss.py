"""Convert a published GDSS checkpoint (.pth) to a gdss file of kac.

The file holds both networks, with the names of the checkpoint after `x.` and `adj.`, and what kac needs to know of them
as JSON in the metadata; the elements of the atoms, `kac.atoms`, which for QM9 and ZINC250k are those of the published
code; and with `--node-counts` how often molecules have so many atoms, `kac.node_counts`. Only tensors and dictionaries
are built from a checkpoint; whatever else is pickled in it is neither imported nor run. Weights keep their own licence;
GDSS's repository states none.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PARTS = {"x": "x_state_dict", "adj": "adj_state_dict"}
ATOMS = {"QM9": "C,N,O,F", "ZINC250k": "C,N,O,F,P,S,Cl,Br,I"}  # by the name of the data
KINDS = {"params_x": ("ScoreNetworkX", "ScoreNetworkX_GMH"), "params_adj": ("ScoreNetworkA",)}


class Dictionary(dict):
    """Stands for the dictionary with attributes that holds a checkpoint's configuration."""

    def __setstate__(self, state: object) -> None:
        pass


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What torch.save wrote, with tensors and dictionaries only."""
    from convert_mdlm_cnn import InertUnpickler, load_inert

    class Unpickler(InertUnpickler):
        def find_class(self, module: str, name: str) -> object:
            return Dictionary if (module, name) == ("easydict", "EasyDict") else super().find_class(module, name)

    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not a PyTorch checkpoint (zip)")
    checkpoint = load_inert(path, Unpickler)
    wanted = ("model_config", *KINDS, *PARTS.values())
    missing = [key for key in wanted if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(key), dict)]
    if missing:
        raise ValueError(f"{path}: not a GDSS checkpoint, {', '.join(missing)} is missing")
    return checkpoint


def convert(checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of our file."""
    config = checkpoint["model_config"]
    for key, kinds in KINDS.items():
        kind = checkpoint[key].get("model_type")
        if kind not in kinds:
            raise ValueError(f"{key}: the network is {kind}, not {' or '.join(kinds)}")
    try:
        meta = {f"sde_{part}": config["sde"][part] for part in PARTS}
        sizes = {key: str(config["data"][key]) for key in ("max_node_num", "max_feat_num")}
    except KeyError as error:
        raise ValueError(f"model_config: {error} is missing") from None
    meta |= {key: checkpoint[key] for key in KINDS} | {"model_config": config}
    text = {key: json.dumps(value, sort_keys=True) for key, value in meta.items()}
    tensors = {
        f"{part}.{name.removeprefix('module.')}": value.float()
        for part, key in PARTS.items()
        for name, value in checkpoint[key].items()
    }
    return tensors, {"kac.arch": "gdss", "kac.role": "denoiser"} | text | sizes


def find_atoms(checkpoint: dict[str, Any], atoms: str | None) -> dict[str, str]:
    """Elements of the features, as given or as the data have them."""
    data = checkpoint["model_config"]["data"]
    atoms = atoms or ATOMS.get(data.get("data"))
    if atoms is None:
        return {}
    features = int(data["max_feat_num"])
    if len(atoms.split(",")) != features or not all(name.isalpha() for name in atoms.split(",")):
        raise ValueError(f"atoms: `{atoms}` is not {features} elements, separated by commas")
    return {"kac.atoms": atoms}


def read_counts(path: Path, most: int) -> dict[str, str]:
    """A histogram of numbers of nodes, a JSON object {"9": 83366, ..}, as kac has it: 9:83366,.."""
    counts = json.loads(path.read_text())
    if not isinstance(counts, dict) or not counts:
        raise ValueError(f"{path}: not a JSON object of numbers of nodes and how often they are")
    pairs = sorted((int(nodes), float(weight)) for nodes, weight in counts.items())
    if pairs[0][0] < 1 or pairs[-1][0] > most or any(not 0 <= weight < 1e30 for _, weight in pairs):
        raise ValueError(f"{path}: numbers of nodes are 1 to {most}, and weights not negative")
    return {"kac.node_counts": ",".join(f"{nodes}:{weight:.10g}" for nodes, weight in pairs)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the checkpoint, such as gdss_zinc250k.pth")
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--node-counts", type=Path, help='JSON, {"9": 83366, "8": 13625}')
    parser.add_argument("--atoms", help="elements of the features, C,N,O,F")
    args = parser.parse_args()
    try:
        checkpoint = read_checkpoint(args.source)
        tensors, meta = convert(checkpoint)
        meta |= find_atoms(checkpoint, args.atoms)
        if args.node_counts:
            meta |= read_counts(args.node_counts, int(meta["max_node_num"]))
        from kac_io import save

        save(args.target, tensors, meta | {"kac.card": f"converted from {args.source.name}"})
    except ImportError as error:
        parser.exit(2, f"{parser.prog}: {error}; it is among tools/requirements.txt (pip install -r)\n")
    except (OSError, ValueError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{args.target}: {args.target.stat().st_size} bytes, {len(tensors)} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
