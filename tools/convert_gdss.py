"""Convert a published GDSS checkpoint (.pth) to a gdss file of kac.

The file holds both networks, with the names of the checkpoint after `x.` and `adj.`, and what kac needs to know of them
as JSON in the metadata. Only tensors and dictionaries are built from a checkpoint; whatever else is pickled in it is
neither imported nor run. Weights keep their own licence; GDSS's repository states none.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PARTS = {"x": "x_state_dict", "adj": "adj_state_dict"}
KINDS = {"params_x": ("ScoreNetworkX", "ScoreNetworkX_GMH"), "params_adj": ("ScoreNetworkA",)}


class Dictionary(dict):
    """Stands for the dictionary with attributes that holds a checkpoint's configuration."""

    def __setstate__(self, state: object) -> None:
        pass


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What torch.save wrote, with tensors and dictionaries only."""
    import torch

    from convert_mdlm_cnn import InertUnpickler

    class Unpickler(InertUnpickler):
        def find_class(self, module: str, name: str) -> object:
            return Dictionary if (module, name) == ("easydict", "EasyDict") else super().find_class(module, name)

    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not a PyTorch checkpoint (zip)")
    reader = ModuleType("inert_pickle")
    reader.Unpickler = Unpickler
    reader.load = lambda file, **options: Unpickler(file, **options).load()
    checkpoint = torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the checkpoint, such as gdss_zinc250k.pth")
    parser.add_argument("target", type=Path, help="the file to write")
    args = parser.parse_args()
    try:
        tensors, meta = convert(read_checkpoint(args.source))
        from kac_io import save

        save(args.target, tensors, meta | {"kac.card": f"converted from {args.source.name}"})
    except (OSError, ValueError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{args.target}: {args.target.stat().st_size} bytes, {len(tensors)} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
