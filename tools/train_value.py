"""Train a value network on recorded trajectories: what reward an unfinished state will come to.

RECORD is a trajectories.safetensors that `kac run --record DIR` left, best of unguided runs (algorithm pretrained).
The network reads a state with zeros for its masks, or a graph with its noise, and no time, and answers in units of the
weighted reward r:

--kind mean   V(x) = E[r(x0) | x]: least squares, the regression of the published SVDD-MC code.
--kind soft   V(x) = alpha log E[exp(r(x0) / alpha) | x], the value under which each step samples p*. With
              z = (r - V) / alpha the loss is exp(z) - z - 1 (linex, or Gumbel regression): its derivative by V
              vanishes where E exp(r / alpha) = exp(V / alpha), it is convex in V and needs no exponential of r itself.
              Beyond z = 5 it goes on as a straight line, so no gradient exceeds e^5; where rewards lie further than
              5 alpha above the value, and that is often at a small alpha, the value comes out too low.

Whole groups of particles are held out. For each noise level the tool prints how the value and the final reward
correlate there, and with --denoiser and --reward the same for the reward at the denoiser's likeliest completion
(value posterior_mean, estimate argmax, of kac).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from needs import need

need("numpy", "torch", "safetensors")
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kac_io import ConvGru, ConvRegressor, Gin, load, load_module, one_hot, save
from promoter_data import pearson

MOST_Z = 5.0  # where the soft loss becomes a straight line
BLOCKS = 3
OPTIONS = "kind alpha arch channels steps batch lr weight_decay held_out seed".split()


@dataclass
class Record:
    """x uint8 [n,levels,L], or float32 of graphs; level [levels]; reward float32 [n]; group [n]; the metadata."""

    x: np.ndarray
    level: np.ndarray
    reward: np.ndarray
    group: np.ndarray
    meta: dict[str, str]

    @property
    def letters(self) -> int:
        return len(self.meta["kac.alphabet"])


def read_records(paths: list[Path], steered: bool) -> Record:
    """Read records of one model and one reward, one after the other."""
    parts = []
    for path in paths:
        tensors, meta = load(path)
        if meta.get("kac.record") != "trajectories":
            raise ValueError(f"{path}: not a record of trajectories")
        if meta["kac.algorithm"] != "pretrained" and not steered:
            raise ValueError(
                f"{path}: these trajectories were steered by {meta['kac.algorithm']}, and a value is an expectation "
                "under the denoiser alone; record with sampler.algorithm pretrained, or say --steered"
            )
        arrays = {name: tensors[name].numpy() for name in ("x", "level", "reward", "group")}
        parts.append(Record(**arrays, meta=meta))
    first = parts[0]
    for path, part in zip(paths[1:], parts[1:], strict=True):
        for key in ("kac.model", "kac.reward", "kac.alphabet"):
            if part.meta[key] != first.meta[key]:
                raise ValueError(f"{path}: {key} is {part.meta[key]}, in {paths[0]} it is {first.meta[key]}")
        if part.x.dtype != first.x.dtype or part.x.shape[2] != first.x.shape[2]:
            raise ValueError(f"{path}: its states are others than those of {paths[0]}")
        if not np.array_equal(part.level, first.level):
            raise ValueError(f"{path}: it has other levels than {paths[0]}")
    groups = np.cumsum([0] + [part.group.max() + 1 for part in parts[:-1]])
    group = np.concatenate([part.group + base for part, base in zip(parts, groups, strict=True)])
    reward = np.concatenate([part.reward for part in parts]).astype(np.float32)
    known = np.isfinite(reward)
    x = np.concatenate([part.x for part in parts])
    return Record(x[known], first.level, reward[known], group[known], first.meta)


def hold_out(record: Record, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, and rows of whole groups held out."""
    groups = np.unique(record.group)
    count = round(share * len(groups))
    if not 2 <= count < len(groups):
        raise ValueError(f"--held-out: {share} of {len(groups)} groups is {count}, want at least 2 and not all")
    out = np.random.default_rng(seed).permutation(groups)[:count]
    held = np.isin(record.group, out)
    return np.flatnonzero(~held), np.flatnonzero(held)


def make_network(arch: str, record: Record, channels: int) -> nn.Module:
    """A small network whose output is to be scaled by the rewards' spread (`finish`)."""
    if (arch == "gin") != ("kac.nodes" in record.meta):
        raise ValueError(f"--arch {arch}: gin is for graphs, and what is for graphs is gin")
    if arch == "gin":
        nodes, features = int(record.meta["kac.nodes"]), int(record.meta["kac.features"])
        return Gin(nodes, features, [(2 * channels, channels)] * BLOCKS, dropout=0.1)
    if arch == "convgru":
        return ConvGru(record.letters, channels, blocks=BLOCKS, residual=True)
    time, layers = record.x.shape[2], []
    for _ in range(BLOCKS):
        layers.append("conv,pad=same,act=relu")
        if time >= 4:
            layers.append("maxpool,size=2")
            time //= 2
    text = ";".join([*layers, "flatten", "dense,act=relu", "dense"])
    widths = [channels] * (BLOCKS + 1) + [1]
    return ConvRegressor(
        text, record.meta["kac.alphabet"], record.x.shape[2], widths, [13, 7, 5], batchnorm=True, dropout=0.1
    )


def rows_of(states: np.ndarray, letters: int) -> Tensor:
    """States uint8 [B,L] -> rows [B,L,S], a mask a row of zeros; or graphs float32 [B,D] as they are."""
    if states.dtype == np.float32:
        return torch.from_numpy(states)
    return one_hot(torch.from_numpy(states), letters)


def value_loss(guess: Tensor, reward: Tensor, kind: str, alpha: float) -> Tensor:
    """Mean loss of guesses [B] for rewards [B], both in one unit, which is alpha's too."""
    if kind == "mean":
        return F.mse_loss(guess, reward)
    z = (reward - guess) / alpha
    below = z.clamp(max=MOST_Z)
    return 2 * alpha**2 * (below.exp() * (1 + z - below) - z - 1).mean()


def fit(record: Record, rows: np.ndarray, args: argparse.Namespace) -> nn.Module:
    """Train on states at levels drawn evenly; the network then answers in units of r."""
    torch.manual_seed(args.seed)
    draw = np.random.default_rng(args.seed)
    middle, spread = float(record.reward[rows].mean()), float(record.reward[rows].std()) or 1.0
    net = make_network(args.arch, record, args.channels)
    optimiser = torch.optim.AdamW(net.parameters(), args.lr, weight_decay=args.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda k: min(1, (k + 1) / 100) * 0.5 * (1 + math.cos(math.pi * k / args.steps))
    )
    net.train()
    began, total = time.monotonic(), 0.0
    for step in range(1, args.steps + 1):
        mine = draw.choice(rows, args.batch)
        level = draw.integers(0, len(record.level), args.batch)
        target = torch.from_numpy((record.reward[mine] - middle) / spread)
        guess = net(rows_of(record.x[mine, level], record.letters))[:, 0]
        loss = value_loss(guess, target, args.kind, (args.alpha or 1.0) / spread)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        total += loss.item()
        if step % 500 == 0:
            print(f"step {step} loss {total / 500:.4f} ({time.monotonic() - began:.0f} s)", flush=True)
            total = 0.0
    return finish(net.eval(), spread, middle)


@torch.no_grad()
def finish(net: nn.Module, spread: float, middle: float) -> nn.Module:
    """Fold BatchNorm and the unit of r into the weights."""
    if isinstance(net, ConvRegressor):
        net.fold()
        net.scale, net.offset = spread, middle
    else:
        end = net.lin if isinstance(net, Gin) else net.head
        end.weight.mul_(spread)
        end.bias.mul_(spread).add_(middle)
    return net


@torch.no_grad()
def predict(net: nn.Module, states: np.ndarray, letters: int) -> np.ndarray:
    """Values [B] of states [B,L]."""
    parts = np.array_split(states, -(-len(states) // 1024))
    return torch.cat([net(rows_of(part, letters))[:, 0] for part in parts]).numpy()


@torch.no_grad()
def complete(denoiser: nn.Module, states: np.ndarray, letters: int) -> np.ndarray:
    """States with their masks filled by the likeliest letters."""
    done = states.copy()
    for part in np.array_split(np.arange(len(states)), -(-len(states) // 1024)):
        eye = torch.eye(letters + 1)
        logits = denoiser(eye[torch.from_numpy(states[part]).long()])[..., :letters]
        likeliest = logits.argmax(-1).numpy().astype(np.uint8)
        done[part] = np.where(states[part] == letters, likeliest, states[part])
    return done


def measure(net: nn.Module, record: Record, rows: np.ndarray, args: argparse.Namespace) -> str:
    """A Markdown table, a line for about a dozen levels: how values and final rewards agree on `rows`."""
    denoiser = load_module(args.denoiser)[0] if args.denoiser else None
    reward = load_module(args.reward)[0] if args.reward else None
    soft = args.kind == "soft"
    head = ["level", "masked", "r of value", "RMSE"] + ["mean exp z"] * soft + ["r of posterior mean"] * bool(denoiser)
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    truth = record.reward[rows]
    for k in range(0, len(record.level), max(1, len(record.level) // 12)):
        states = record.x[rows, k]
        guess = predict(net, states, record.letters)
        masked = f"{(states == record.letters).mean():.2f}" if states.dtype == np.uint8 else "-"
        cells = [f"{record.level[k]}", masked, correlation(guess, truth)]
        cells.append(f"{np.sqrt(np.mean((guess - truth) ** 2)):.2f}")
        if soft:
            cells.append(f"{np.mean(np.exp((truth - guess) / args.alpha)):.2f}")
        if denoiser:
            cells.append(
                correlation(predict(reward, complete(denoiser, states, record.letters), record.letters), truth)
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def correlation(guess: np.ndarray, truth: np.ndarray) -> str:
    """Pearson r as text; a dash where one of them is constant, as at the first level."""
    return f"{pearson(guess, truth):.3f}" if guess.std() > 1e-6 * (1 + abs(guess.mean())) and truth.std() > 0 else "-"


def write(net: nn.Module, record: Record, args: argparse.Namespace, seconds: float) -> None:
    known = net.metadata(record.meta["kac.alphabet"]) if isinstance(net, ConvGru) else net.metadata()
    extra = {
        "kac.role": "reward",
        "kac.value.kind": args.kind,
        "kac.value.model": record.meta["kac.model"],
        "kac.value.reward": record.meta["kac.reward"],
        "train.trajectories": len(record.reward),
        "train.options": " ".join(
            f"--{name.replace('_', '-')} {getattr(args, name)}" for name in OPTIONS if getattr(args, name) is not None
        ),
        "train.threads": args.threads,
        "train.seconds": f"{seconds:.0f}",
        "train.torch": torch.__version__,
    }
    if args.kind == "soft":
        extra["kac.value.alpha"] = args.alpha
    if args.card:
        extra |= {"kac.card": args.card, "kac.licence": "Apache-2.0"}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save(args.out, net.tensors(), known | extra)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, nargs="+", metavar="RECORD", help="trajectories.safetensors")
    parser.add_argument("--out", type=Path, required=True, help="the value network to write")
    parser.add_argument("--kind", choices=["mean", "soft"], default="mean")
    parser.add_argument("--alpha", type=float, help="kind soft: the temperature, in units of r")
    parser.add_argument("--arch", choices=["conv_regressor", "convgru", "gin"], default="conv_regressor")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the groups that is held out")
    parser.add_argument("--denoiser", type=Path, help="with --reward: also measure the posterior mean")
    parser.add_argument("--reward", type=Path)
    parser.add_argument("--steered", action="store_true", help="take trajectories that were steered")
    parser.add_argument("--card", help="a line for the file's metadata, kac.card")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if (args.kind == "soft") != (args.alpha is not None) or (args.alpha is not None and not args.alpha > 0):
        parser.error("--alpha: kind soft needs it, above 0, and kind mean has none")
    if (args.denoiser is None) != (args.reward is None):
        parser.error("--denoiser and --reward go together")

    torch.set_num_threads(args.threads)
    try:
        record = read_records(args.record, args.steered)
        train, held = hold_out(record, args.held_out, args.seed)
        began = time.monotonic()
        net = fit(record, train, args)
        write(net, record, args, time.monotonic() - began)
        net, _ = load_module(args.out)
        print(f"{len(train)} trajectories learned from; held out, {len(held)} trajectories:\n")
        print(measure(net, record, held, args))
    except (OSError, ValueError) as error:
        print(f"train_value: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
