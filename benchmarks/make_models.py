"""Write random networks of the published size, and what PyTorch says of them, for benchmarks/run-cpu.

For each length L: `denoiser_L.safetensors`, the CNN of the published DNA and RNA code (hidden 128, 20 layers,
kernel 9), its last layer scaled so that logits have a standard deviation of 1.5; `reward_L.safetensors`, a
convolutional regressor, scaled so that random sequences have rewards of standard deviation 1. Beside each, and for
the models named with `--also`, a recording `NAME_recording.safetensors` for `kac verify`.
"""

from __future__ import annotations

import argparse
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lengths", default="50,200")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="model files to make recordings of")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
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
