"""Write random networks of the published size, and what PyTorch says of them, for benchmarks/run-cpu.

For each length L: `denoiser_L.safetensors`, the CNN of the published DNA and RNA code (hidden 128, 20 layers,
kernel 9), its last layer scaled so that logits have a standard deviation of 1.5; `reward_L.safetensors`, a
convolutional regressor, scaled so that random sequences have rewards of standard deviation 1. Beside each, and for
the models named with `--also`, a recording `NAME_recording.safetensors` for `kac verify`. With `--gdss` instead
`gdss_NAME.safetensors`, networks of the published sizes of GDSS for QM9 or ZINC250k.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from kac_io import Cnn1d, ConvRegressor, load_module, one_hot, save

ALPHABET = "ACGT"
DILATIONS = [1] * 8 + [4] * 4 + [16] * 4 + [64] * 4
REWARD = (
    "conv,pad=same,act=relu;conv,pad=same,act=relu;maxpool,size=2;conv,pad=same,act=relu;maxpool,size=2;"
    "flatten;dense,act=relu;dense"
)


# of GDSS: the most nodes, features, layers of the adjacency's network, and the noise of the nodes
GDSS = {"qm9": (9, 4, 3, "VE"), "zinc250k": (38, 9, 6, "VP")}


def half_masked(count: int, length: int) -> torch.Tensor:
    """Random tokens [count,length], about half of them masks."""
    tokens = torch.randint(0, 4, (count, length))
    return torch.where(torch.rand(count, length) < 0.5, 4, tokens).to(torch.uint8)


@torch.no_grad()
def write_denoiser(path: Path, length: int) -> None:
    net = Cnn1d(4, 128, 9, DILATIONS, embedder=True).eval()
    last = net.final_conv[2]
    last.bias.zero_()
    last.weight.mul_(1.5 / net(one_hot(half_masked(32, length), 5)).std())
    save(path, net.state_dict(), net.metadata(ALPHABET, length))


@torch.no_grad()
def write_reward(path: Path, length: int) -> None:
    net = ConvRegressor(REWARD, ALPHABET, length, [64, 64, 64, 64, 1], [13, 7, 7]).eval()
    rewards = net(one_hot(torch.randint(0, 4, (512, length)), 4))
    net.scale = float(1 / rewards.std())
    net.offset = float(-rewards.mean() / rewards.std())
    save(path, net.tensors(), net.metadata())


@torch.no_grad()
def write_recording(model: Path, path: Path) -> None:
    net, meta = load_module(model)
    tokens = half_masked(8, int(meta["kac.length"]))
    if meta["kac.arch"] == "cnn1d":
        tokens[0] = 4
        answer = {"logits": net(one_hot(tokens, 5))}
    else:
        tokens %= 4
        answer = {"output": net(one_hot(tokens, 4))}
    save(path, {"tokens": tokens} | answer, {"torch": torch.__version__})


def write_gdss(path: Path, name: str) -> None:
    """Random networks; nothing is 0, so that no channel can be left out."""
    nodes, features, layers, noise = GDSS[name]
    tensors: dict[str, torch.Tensor] = {}

    def linear(at: str, into: int, out: int, convolution: bool = False) -> None:
        bound = into**-0.5
        tensors[f"{at}.weight"] = (torch.rand((into, out) if convolution else (out, into)) * 2 - 1) * bound
        tensors[f"{at}.bias"] = (torch.rand(out) * 2 - 1) * bound

    def mlp(at: str, *widths: int) -> None:
        for i, (into, out) in enumerate(itertools.pairwise(widths)):
            linear(f"{at}.linears.{i}", into, out)

    into, channels, all_channels = features, 2, 2
    for i in range(2):
        linear(f"x.layers.{i}", into, 16, convolution=True)
        into = 16
    wide = features + 32
    mlp("x.final", wide, 2 * wide, 2 * wide, features)
    into = features
    for i in range(layers):
        out = 4 if i + 1 == layers else 8
        for c in range(channels):
            for part in "qkv":
                linear(f"adj.layers.{i}.attn.{c}.gnn_{part}", into, 16, convolution=True)
        hidden = 2 * max(channels, out)
        mlp(f"adj.layers.{i}.multi_channel", 16 * channels, hidden, 16)
        mlp(f"adj.layers.{i}.mlp", 2 * channels, hidden, hidden, out)
        into, channels, all_channels = 16, out, all_channels + out
    mlp("adj.final", all_channels, 2 * all_channels, 2 * all_channels, 1)
    noises = {"x": noise, "adj": "VE"}
    low = {"x": 0.1, "adj": 0.1 if name == "qm9" else 0.2}
    meta = {"kac.arch": "gdss", "max_node_num": nodes, "max_feat_num": features}
    meta["params_x"] = json.dumps({"model_type": "ScoreNetworkX"})
    meta["params_adj"] = json.dumps({"model_type": "ScoreNetworkA", "conv": "GCN", "c_init": 2, "num_heads": 4})
    for part, kind in noises.items():
        meta[f"sde_{part}"] = json.dumps({"type": kind, "beta_min": low[part], "beta_max": 1.0})
    save(path, tensors, meta)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lengths", default="50,200")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="model files to make recordings of")
    parser.add_argument("--gdss", default="", help="instead those of GDSS: qm9,zinc250k")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in filter(None, args.gdss.split(",")):
        torch.manual_seed(len(name))
        write_gdss(args.out / f"gdss_{name}.safetensors", name)
    if args.gdss:
        return 0
    models = list(args.also)
    for length in map(int, args.lengths.split(",")):
        torch.manual_seed(length)
        models += [args.out / f"denoiser_{length}.safetensors", args.out / f"reward_{length}.safetensors"]
        write_denoiser(models[-2], length)
        write_reward(models[-1], length)
    for model in models:
        write_recording(model, args.out / f"{model.stem}_recording.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
