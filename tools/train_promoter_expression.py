"""Train a promoter expression regressor and write its card.

--role guide: models/promoter_expression.safetensors, the reward that steers.
--role judge: models/promoter_expression_eval.safetensors, another network, trained on other clusters, that only judges.
Both learn the expression measured in complex medium (output 0 of the shipped file); the other medium is an auxiliary
output during training and is dropped. With --other, the card also reports how far the two agree.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from kac_io import ConvRegressor, load_module, one_hot, save
from promoter_data import ALPHABET, KINDS, LENGTH, MAX_DISTANCE, MEDIA, SHARED_KMER, SPLIT_SEED, Promoters, describe_split
from promoter_data import load_promoters, pearson, spearman
from torch import Tensor


@dataclass
class Role:
    """What differs between the guide and the judge."""

    file: str
    part: str
    seed: int
    layers: str
    widths: list[int]
    taps: list[int]
    card: str


ROLES = {
    "guide": Role(
        "promoter_expression.safetensors",
        "guide",
        11,
        "conv,pad=same,act=relu;conv,pad=same,act=relu;maxpool,size=2;conv,pad=same,act=relu;maxpool,size=2;"
        "conv,pad=same,act=relu;maxpool,size=2;flatten;dense,act=relu;dense",
        [64, 64, 64, 64, 64, len(MEDIA)],
        [13, 7, 7, 5],
        "Expression of an 80-bp yeast promoter in complex medium (0 to 17); guides. Data Vaishnav et al. 2022 (MIT).",
    ),
    "judge": Role(
        "promoter_expression_eval.safetensors",
        "judge",
        23,
        "conv,pad=valid,act=elu;avgpool,size=3;conv,pad=same,act=elu;conv,pad=same,dilation=2,act=elu;"
        "conv,pad=same,dilation=4,act=elu;avgpool,size=4;flatten;dense,act=elu;dense",
        [96, 64, 64, 64, 48, len(MEDIA)],
        [9, 5, 5, 5],
        "Expression of an 80-bp yeast promoter in complex medium (0 to 17); judges. Data Vaishnav et al. 2022 (MIT).",
    ),
}


def rows_of(tokens: np.ndarray) -> Tensor:
    """Tokens [B,80] -> one-hot rows [B,80,4]."""
    return one_hot(torch.from_numpy(tokens), len(ALPHABET))


@torch.no_grad()
def predict(net: ConvRegressor, tokens: np.ndarray) -> np.ndarray:
    """Predicted expression in complex medium [B]."""
    net.eval()
    return torch.cat([net(rows_of(part))[:, 0] for part in np.array_split(tokens, -(-len(tokens) // 1024))]).numpy()


def fit(args: argparse.Namespace, role: Role, data: Promoters) -> tuple[ConvRegressor, int, float]:
    """Train on the role's part; returns the moving average chosen on valid, its step and its valid Pearson r."""
    torch.manual_seed(role.seed)
    draw = np.random.default_rng(role.seed)
    train, valid = data.rows(role.part), data.rows("valid")
    valid = valid[np.isfinite(data.expression[valid, 0])]
    mean = np.nanmean(data.expression[train], 0)
    deviation = np.nanstd(data.expression[train], 0)
    target = torch.from_numpy((data.expression - mean) / deviation)
    # A cluster of n near-copies counts as n**0.5 sequences.
    _, inverse, count = np.unique(data.cluster[train], return_inverse=True, return_counts=True)
    weight = count[inverse] ** -0.5
    weight /= weight.sum()

    net = ConvRegressor(
        role.layers, ALPHABET, LENGTH, role.widths, role.taps, batchnorm=True, dropout=args.dropout
    )
    ema = copy.deepcopy(net)
    best, best_step, best_state = -math.inf, 0, ema.state_dict()
    optimiser = torch.optim.AdamW(net.parameters(), args.lr, weight_decay=args.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda k: min(1, (k + 1) / 100) * 0.5 * (1 + math.cos(math.pi * k / args.steps))
    )
    began = time.monotonic()
    for step in range(1, args.steps + 1):
        net.train()
        rows = draw.choice(train, args.batch, p=weight)
        y = target[rows]
        known = y.isfinite()
        loss = ((net(rows_of(data.tokens[rows])) - y.nan_to_num()) ** 2 * known).sum() / known.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            keep = min(args.ema, step / (step + 10))
            for average, value in zip(ema.state_dict().values(), net.state_dict().values()):
                average.lerp_(value, 1 - keep) if average.is_floating_point() else average.copy_(value)
        if step % args.check_every == 0 or step == args.steps:
            guess = predict(ema, data.tokens[valid])
            r = by_kind(data, valid, guess, pearson)
            score = float(np.mean([r[kind] for kind in KINDS]))
            if score > best:
                best, best_step, best_state = score, step, copy.deepcopy(ema.state_dict())
            text = " ".join(f"{name} {value:.3f}" for name, value in r.items())
            print(f"step {step} loss {loss.item():.3f} valid r {text} ({time.monotonic() - began:.0f} s)", flush=True)
    ema.load_state_dict(best_state)
    ema.fold()
    return first_output(ema, role, float(mean[0]), float(deviation[0])), best_step, best


@torch.no_grad()
def first_output(net: ConvRegressor, role: Role, mean: float, deviation: float) -> ConvRegressor:
    """The folded net with output 0 alone, in measured units (kac.scale and kac.offset are not needed)."""
    last = str(len(net.layers) - 1)
    small = ConvRegressor(role.layers, ALPHABET, LENGTH, [*role.widths[:-1], 1], role.taps)
    for i in net.kernels:
        small.kernels[i].copy_(net.kernels[i] if i != last else net.kernels[i][:, :1] * deviation)
        small.biases[i].copy_(net.biases[i] if i != last else net.biases[i][:1] * deviation + mean)
    return small.eval()


def by_kind(data: Promoters, rows: np.ndarray, guess: np.ndarray, statistic) -> dict[str, float]:
    """A correlation of guess with the measured complex-medium expression, for each kind and for all."""
    truth = data.expression[rows, 0]
    result = {kind: statistic(guess[data.kind[rows] == k], truth[data.kind[rows] == k]) for k, kind in enumerate(KINDS)}
    return result | {"all": statistic(guess, truth)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="yeast_promoter_80.tsv.gz")
    parser.add_argument("--role", choices=ROLES, required=True)
    parser.add_argument("--out", type=Path, help="default: models/ and the role's file name")
    parser.add_argument("--other", type=Path, help="the other regressor's file, to report agreement")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--ema", type=float, default=0.99)
    parser.add_argument("--check-every", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--card-only", action="store_true", help="measure the file at --out again and rewrite its card")
    args = parser.parse_args()
    if not args.data.is_file():
        parser.error(f"--data: {args.data} is not a file")
    if args.other and not args.other.is_file():
        parser.error(f"--other: {args.other} is not a file")
    role = ROLES[args.role]
    out = args.out or Path("models") / role.file
    if args.card_only and not out.is_file():
        parser.error(f"--card-only: {out} is not a file")

    torch.set_num_threads(args.threads)
    data = load_promoters(args.data)
    if not args.card_only:
        began = time.monotonic()
        net, step, best = fit(args, role, data)
        extra = {
            "kac.card": role.card,
            "kac.licence": "Apache-2.0",
            "train.step": step,
            "train.valid_r": f"{best:.4f}",
            "train.seconds": f"{time.monotonic() - began:.0f}",
            "train.torch": torch.__version__,
            "train.options": " ".join(
                f"--{name.replace('_', '-')} {getattr(args, name)}"
                for name in ("steps", "batch", "lr", "weight_decay", "dropout", "ema", "check_every")
            ),
            "train.threads": args.threads,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        save(out, net.tensors(), net.metadata() | extra)
    net, meta = load_module(out)
    card = write_card(args.role, role, net, meta, data, out, load_module(args.other)[0] if args.other else None)
    out.with_suffix(".md").write_text(card)
    print(card)
    return 0


def write_card(
    name: str,
    role: Role,
    net: ConvRegressor,
    meta: dict[str, str],
    data: Promoters,
    out: Path,
    other: ConvRegressor | None,
) -> str:
    test = data.rows("test")
    test = test[np.isfinite(data.expression[test, 0])]
    guess = predict(net, data.tokens[test])
    r, rho = (by_kind(data, test, guess, statistic) for statistic in (pearson, spearman))
    count = {kind: int((data.kind[test] == k).sum()) for k, kind in enumerate(KINDS)} | {"all": len(test)}
    clusters = {kind: len(np.unique(data.cluster[test[data.kind[test] == k]])) for k, kind in enumerate(KINDS)}
    clusters["all"] = len(np.unique(data.cluster[test]))
    measured = ["| | " + " | ".join(r) + " |", "|---" * (len(r) + 1) + "|"]
    measured.append("| sequences / clusters | " + " | ".join(f"{count[k]} / {clusters[k]}" for k in r) + " |")
    measured.append("| Pearson r | " + " | ".join(f"{v:.3f}" for v in r.values()) + " |")
    measured.append("| Spearman | " + " | ".join(f"{v:.3f}" for v in rho.values()) + " |")
    rms = math.sqrt(float(np.mean((guess - data.expression[test, 0]) ** 2)))
    agreement = ""
    if other is not None:
        random = np.random.default_rng(99).integers(0, 4, (5000, LENGTH)).astype(np.uint8)
        second, mine, theirs = predict(other, data.tokens[test]), predict(net, random), predict(other, random)
        error = pearson(guess - data.expression[test, 0], second - data.expression[test, 0])
        agreement = f"""
Agreement of the two regressors (guide and judge): Pearson r {pearson(guess, second):.3f} on the test sequences,
{pearson(mine, theirs):.3f} on 5,000 uniformly random sequences, where this one predicts mean {mine.mean():.2f}, standard deviation {mine.std():.2f},
90 % quantile {np.quantile(mine, 0.9):.2f}. Their errors on the test sequences correlate with r {error:.3f}: that part is measurement noise and what
neither network can know.
"""
    use = {
        "guide": "It steers sampling. Judge what it steered with `promoter_expression_eval`, never with itself.",
        "judge": "It judges what `promoter_expression` steered. Do not steer with it and judge with it in the same study.",
    }[name]
    parameters = sum(p.numel() for p in net.parameters())
    return f"""# {out.stem}

Predicts the expression of a yeast promoter (80 letters over ACGT, between the constant flanks of the measured library) in
complex medium (YPD), on the scale of the measurement (0 to 17, mean bin of sorted cells). {use}

* File: `{out.name}`, {out.stat().st_size:,} bytes, {parameters:,} parameters, float32. Licence Apache-2.0.
* Architecture `conv_regressor`: `{meta["kac.layers"]}`, kernel sizes {", ".join(map(str, role.taps))}, widths {", ".join(map(str, [*role.widths[:-1], 1]))}.
  No reverse complement: a promoter has a strand.
* Training: squared error on standardised expression, AdamW, cosine rate, BatchNorm folded into the kernels, dropout before the
  dense layers, moving average of the weights, taken at step {meta["train.step"]}, where the mean over kinds of Pearson r on the valid part was
  highest ({float(meta["train.valid_r"]):.3f}). The defined medium was an auxiliary output, dropped from the file. A cluster of n near-copies counts
  as n^0.5 sequences.

## Data

Vaishnav et al., "The evolution, evolvability and engineering of gene regulatory DNA", Nature 603:455 (2022); the test sets of
1edv/evolution (MIT licence). {int(np.isfinite(data.expression[:, 0]).sum()):,} sequences have a measurement in complex medium, {int(np.isfinite(data.expression[:, 1]).sum()):,} in defined medium: complex was chosen.

**Split.** Single linkage over all kinds: two sequences are in one cluster when they differ in at most {MAX_DISTANCE} of 80 letters, or share a
{SHARED_KMER}-mer at any offset. Each whole cluster goes to one part (split seed {SPLIT_SEED}); no cluster spans parts. This model was trained on
`{role.part}` alone; guide and judge share no cluster. The step was chosen on `valid`, which both use. Sequences / clusters:

{describe_split(data)}

## Held-out accuracy

On `test`, clusters that neither regressor has seen, measured expression in complex medium:

{chr(10).join(measured)}

Root mean squared error {rms:.2f}.
{agreement}
## Limits

Trained on {int(np.isfinite(data.expression[data.rows(role.part), 0]).sum()):,} measurements, where the published networks had tens of millions: it is a small model for demonstrations and tests, not
the state of the art. `native` and `drift` vary little within a cluster, so their clusters are few. Steered sequences leave the data: there its
predictions are extrapolations, and so are the other regressor's. 80 letters, one strain, one medium, a plasmid library.

## Retrain

    python tools/train_promoter_expression.py --data yeast_promoter_80.tsv.gz --role {name} {meta["train.options"]}

and, once both exist, again with `--card-only --other FILE` for the agreement. Seed {role.seed}, split seed {SPLIT_SEED}. Made with torch {meta["train.torch"]},
{meta["train.threads"]} CPU thread(s) of a shared machine: {meta["train.seconds"]} s. Another version or thread count gives slightly different weights.
"""


if __name__ == "__main__":
    sys.exit(main())
