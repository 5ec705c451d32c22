"""Convert an Optimus 5-prime model (Keras weights in safetensors) to a conv_regressor file of kac.

The source file holds one tensor `LAYER.kernel` and `LAYER.bias` for each Keras layer, and the Keras model as JSON under
`keras_model_config` in the metadata. Keras's own file (HDF5) has the same: the model's JSON in its attribute
`model_config`, the kernels and biases under `model_weights`; h5py reads both. Weights keep their own licence, which is copied from the source's metadata where it is stated.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from needs import need

need("numpy", "torch", "safetensors")
import torch

from kac_io import encode, load, load_module, one_hot, save

ALPHABET, UTR, SUFFIX = "ACGT", 50, "ATGG"


def layers_of(config: dict) -> list[dict]:
    """The Keras layers, with a separate Activation merged into the layer before it and Dropout left out."""
    entries = config["config"] if isinstance(config["config"], list) else config["config"]["layers"]
    layers: list[dict] = []
    for entry in entries:
        kind, options = entry["class_name"], entry["config"]
        if kind in ("Conv1D", "Convolution1D"):
            if set(options.get("strides", [1])) | {options.get("subsample_length", 1)} != {1}:
                raise ValueError(f"{options['name']}: only stride 1 is supported")
            layers.append(
                {
                    "name": options["name"],
                    "kind": "conv",
                    "pad": options.get("padding", options.get("border_mode")),
                    "dilation": options.get("dilation_rate", [1])[0],
                    "act": options["activation"],
                }
            )
        elif kind == "Dense":
            layers.append({"name": options["name"], "kind": "dense", "act": options["activation"]})
        elif kind == "Activation":
            if layers[-1].get("act") != "linear":
                raise ValueError(f"{options['name']}: two activations in a row")
            layers[-1]["act"] = options["activation"]
        elif kind == "Flatten":
            layers.append({"name": options["name"], "kind": "flatten"})
        elif kind not in ("Dropout", "InputLayer"):
            raise ValueError(f"{options.get('name')}: layer {kind} is not supported")
    return layers


def text_of(layer: dict) -> str:
    """One item of kac.layers; defaults are left out."""
    options = ["conv" if layer["kind"] == "conv" else layer["kind"]]
    if layer["kind"] == "conv":
        options.append(f"pad={layer['pad']}")
        if layer["dilation"] != 1:
            options.append(f"dilation={layer['dilation']}")
    if layer.get("act", "linear") != "linear":
        options.append(f"act={layer['act']}")
    return ",".join(options)


def convert(source: Path, target: Path, rescale: bool) -> None:
    tensors, meta = load(source)
    if "keras_model_config" not in meta:
        raise ValueError(f"{source}: no keras_model_config in the metadata")
    config = json.loads(meta["keras_model_config"])
    entries = config["config"] if isinstance(config["config"], list) else config["config"]["layers"]
    length = entries[0]["config"]["batch_input_shape"][1]
    if length not in (UTR, UTR + len(SUFFIX)):
        raise ValueError(f"{source}: input of {length} letters, not {UTR} or {UTR + len(SUFFIX)}")
    layers = layers_of(config)
    renamed = {}
    for i, layer in enumerate(layers):
        if layer["kind"] != "flatten":
            for part in ("kernel", "bias"):
                renamed[f"{i}.{part}"] = tensors[f"{layer['name']}.{part}"].float()
    out = {
        "kac.arch": "conv_regressor",
        "kac.alphabet": ALPHABET,
        "kac.length": UTR,
        "kac.layers": ";".join(map(text_of, layers)),
        "kac.card": f"Optimus 5-prime, mean ribosome load of a 5'UTR; converted from {source.name}",
    }
    if length > UTR:
        out["kac.suffix"] = SUFFIX
    if rescale and "fitted_rescale" in meta:
        fit = json.loads(meta["fitted_rescale"])
        out |= {"kac.scale": repr(fit["slope"]), "kac.offset": repr(fit["intercept"])}
    origin = ("source_repo", "source_commit", "source_license", "paper")
    out |= {f"source.{key.removeprefix('source_')}": meta[key] for key in origin if key in meta}
    save(target, renamed, out)


def write_recording(source: Path, golden: Path, target: Path, path: Path) -> float:
    """Golden outputs in our form; returns the largest relative difference of our PyTorch module from them."""
    tensors, meta = load(golden)
    name = source.stem.removeprefix("optimus5p_").removeprefix("optimus_")
    if f"{name}.out_f64" not in tensors:
        raise ValueError(f"{golden}: no {name}.out_f64 for {source.name}")
    sequences = json.loads(meta["sequences"])
    plain = [i for i, sequence in enumerate(sequences) if set(sequence) <= set(ALPHABET)]
    net, model_meta = load_module(target)
    scale, offset = float(model_meta.get("kac.scale", 1)), float(model_meta.get("kac.offset", 0))
    tokens = encode([sequences[i] for i in plain], ALPHABET)
    output = tensors[f"{name}.out_f64"][plain].reshape(len(plain), -1) * scale + offset
    recording = {"tokens": tokens, "output": output.float()}
    note = {"model": target.name, "made_by": "tools/convert_optimus5p.py", "source": golden.name}
    save(path, recording, note | {"arithmetic": "float64 outputs of the source file, stored as float32"})
    with torch.no_grad():
        ours = net.double()(one_hot(torch.from_numpy(tokens), len(ALPHABET), torch.float64))
    return float((ours - output).abs().max() / output.abs().max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the Optimus 5-prime safetensors")
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--no-rescale", action="store_true", help="leave out the fitted slope and intercept, if any")
    parser.add_argument("--recording", type=Path, metavar="GOLDEN", help="golden_optimus.safetensors")
    parser.add_argument("--recording-out", type=Path, help="default: TARGET with _recording before the suffix")
    args = parser.parse_args()
    try:
        convert(args.source, args.target, not args.no_rescale)
        print(f"{args.target}: {args.target.stat().st_size} bytes")
        if args.recording:
            path = args.recording_out or args.target.with_name(f"{args.target.stem}_recording.safetensors")
            difference = write_recording(args.source, args.recording, args.target, path)
            print(f"{path}: PyTorch differs from it by at most {difference:.2e} (relative)")
    except (OSError, KeyError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
