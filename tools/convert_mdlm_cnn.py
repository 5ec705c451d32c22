"""Convert a published DNA or RNA CNN checkpoint (MDLM training code) to a cnn1d file of kac.

Reads a PyTorch checkpoint (its `state_dict`, or a bare state dict) or safetensors. Only tensors and dictionaries are
built from a checkpoint; whatever else is pickled in it is neither imported nor run. Sizes are read from the tensors;
the dilations are not in them and come from the published construction (each of 1, 1, 4, 16, 64 several times in a
row) or from --dilations. The raw weights are taken, as the published samplers do, not the average under `ema`.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from unittest import mock

from needs import need

need("numpy", "torch", "safetensors")
import torch
from torch import Tensor

from kac_io import Cnn1d, load, save

TEMPLATE = (1, 1, 4, 16, 64)


class Inert:
    """Stands for any object of a checkpoint that is not a tensor: it takes everything and does nothing."""

    def __init__(self, *args: object, **kwargs: object):
        pass

    def __call__(self, *args: object, **kwargs: object) -> Inert:
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass


class InertUnpickler(pickle.Unpickler):
    """Builds tensors and dictionaries; every other class (a training config, say) becomes Inert and is not imported."""

    ALLOWED = frozenset(
        {
            ("collections", "OrderedDict"),
            ("torch._utils", "_rebuild_tensor_v2"),
            ("torch._utils", "_rebuild_parameter"),
        }
    )

    def find_class(self, module: str, name: str) -> object:
        return super().find_class(module, name) if (module, name) in self.ALLOWED else Inert


def load_inert(path: Path, unpickler: type[InertUnpickler]) -> object:
    """torch.load with this unpickler; PyTorch 1.13 takes that of its own `pickle`, whatever it is given."""
    module = ModuleType("inert_pickle")
    module.__dict__.update(vars(pickle))
    module.Unpickler = unpickler
    module.load = lambda file, **options: unpickler(file, **options).load()
    with mock.patch.object(torch.serialization, "pickle", module):
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=module)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name."""
    if path.suffix == ".safetensors":
        return load(path)[0]
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: neither a PyTorch checkpoint (zip) nor *.safetensors")
    checkpoint = load_inert(path, InertUnpickler)
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: no state dict in it")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def convert(
    state: dict[str, Tensor], alphabet: str, length: int, dilations: list[int] | None, time: bool
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """State dict -> tensors and metadata of our file."""
    prefixes = {name[: -len("linear.weight")] for name in state if name.endswith("linear.weight")}
    prefix = "backbone." if "backbone." in prefixes else ""
    own = {name.removeprefix(prefix): value.float() for name, value in state.items() if name.startswith(prefix)}
    if "linear.weight" not in own:
        raise ValueError("no backbone.linear.weight: not a CNN checkpoint")
    hidden, channels, kernel = own["linear.weight"].shape
    if channels != len(alphabet) + 1:
        raise ValueError(f"the network has {channels} input channels, not {len(alphabet)} letters and a mask")
    layers = sum(name.startswith("convs.") and name.endswith(".bias") for name in own)
    if dilations is None:
        if layers % len(TEMPLATE):
            raise ValueError(f"{layers} layers: the published dilations do not fit, give --dilations")
        dilations = [d for d in TEMPLATE for _ in range(layers // len(TEMPLATE))]
    if len(dilations) != layers:
        raise ValueError(f"{len(dilations)} dilations for {layers} layers")
    net = Cnn1d(len(alphabet), hidden, kernel, dilations, "time_embedder.0.W" in own, time)
    wanted = net.state_dict()
    missing = sorted(set(wanted) - set(own))
    if missing:
        raise ValueError(f"tensors are missing: {', '.join(missing)}")
    for name, value in wanted.items():
        if own[name].shape != value.shape:
            raise ValueError(f"{name} has shape {list(own[name].shape)}, not {list(value.shape)}")
    for name in sorted(set(own) - set(wanted)):
        print(f"left out: {name} {list(own[name].shape)}", file=sys.stderr)
    return {name: own[name] for name in wanted}, net.metadata(alphabet, length)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="checkpoint (.ckpt, .pt) or .safetensors")
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--alphabet", default="ACGT", help="letters in the order of their indices, without the mask")
    parser.add_argument("--length", type=int, default=200, help="default length (DNA 200, RNA 50)")
    parser.add_argument("--dilations", help="one for each layer, separated by commas")
    parser.add_argument("--time", action="store_true", help="the network reads t (time conditioning was on)")
    args = parser.parse_args()
    try:
        dilations = [int(d) for d in args.dilations.split(",")] if args.dilations else None
        tensors, meta = convert(read_state(args.source), args.alphabet, args.length, dilations, args.time)
        save(args.target, tensors, meta | {"kac.card": f"converted from {args.source.name}"})
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{args.target}: {args.target.stat().st_size} bytes, dilations {meta['kac.dilations']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
