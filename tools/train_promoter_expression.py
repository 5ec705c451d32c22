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

from needs import need

need("numpy", "torch", "safetensors")
import numpy as np
import torch
from torch import Tensor

from kac_io import ConvRegressor, load_module, one_hot, save
from promoter_data import (
    ALPHABET,
    KINDS,
    LENGTH,
    MEDIA,
    SPLIT_SEED,
    Promoters,
    describe_clusters,
    describe_split,
    load_promoters,
    pearson,
    spearman,
)

# The measured scale is 0 to 17: the last layer is 9 tanh + 8.5, which leaves it by at most half a unit.
SCALE, OFFSET = 9.0, 8.5
OPTIONS = "steps batch lr weight_decay dropout letter_dropout ema check_every".split()


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
        "conv,pad=same,act=relu;maxpool,size=2;flatten;dense,act=relu;dense,act=tanh",
        [64, 64, 64, 64, 64, len(MEDIA)],
        [13, 7, 7, 5],
        "Expression of an 80-bp yeast promoter, complex medium, 0 to 17; guides. Data Vaishnav et al. 2022 (MIT).",
    ),
    "judge": Role(
        "promoter_expression_eval.safetensors",
        "judge",
        23,
        "conv,pad=same,act=elu;maxpool,size=2;conv,pad=same,act=elu;conv,pad=same,dilation=2,act=elu;"
        "conv,pad=same,dilation=4,act=elu;avgpool,size=4;flatten;dense,act=elu;dense,act=tanh",
        [96, 64, 64, 64, 48, len(MEDIA)],
        [11, 5, 5, 5],
        "Expression of an 80-bp yeast promoter, complex medium, 0 to 17; judges. Data Vaishnav et al. 2022 (MIT).",
    ),
}


def rows_of(tokens: np.ndarray) -> Tensor:
    """Tokens [B,80] -> one-hot rows [B,80,4]."""
    return one_hot(torch.from_numpy(tokens), len(ALPHABET))


def root_weights(data: Promoters, rows: np.ndarray) -> np.ndarray:
    """Weights [rows] by which a cluster of n near-copies counts as n**0.5 sequences; they sum to 1."""
    _, inverse, count = np.unique(data.cluster[rows], return_inverse=True, return_counts=True)
    weight = count[inverse] ** -0.5
    return weight / weight.sum()


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
    variance = torch.from_numpy(np.nanvar(data.expression[train], 0))
    target = torch.from_numpy(data.expression)
    weight, valid_weight = root_weights(data, train), root_weights(data, valid)
    sizes = (role.layers, ALPHABET, LENGTH, role.widths, role.taps)
    net = ConvRegressor(*sizes, scale=SCALE, offset=OFFSET, batchnorm=True, dropout=args.dropout)
    with torch.no_grad():
        net.kernels[str(len(net.layers) - 1)].mul_(0.3)  # start on the straight part of tanh
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
        x = rows_of(data.tokens[rows])
        x = x * (torch.rand(x.shape[:2]) >= args.letter_dropout)[..., None]
        y = target[rows]
        known = y.isfinite()
        loss = ((net(x) - y.nan_to_num()) ** 2 / variance * known).sum() / known.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            keep = min(args.ema, step / (step + 10))
            for average, value in zip(ema.state_dict().values(), net.state_dict().values(), strict=True):
                average.lerp_(value, 1 - keep) if average.is_floating_point() else average.copy_(value)
        if step % args.check_every == 0 or step == args.steps:
            guess = predict(ema, data.tokens[valid])
            r = by_kind(data, valid, guess, pearson)
            cov = np.cov(guess, data.expression[valid, 0], aweights=valid_weight)
            score = float(cov[0, 1] / math.sqrt(cov[0, 0] * cov[1, 1]))
            if score > best:
                best, best_step, best_state = score, step, copy.deepcopy(ema.state_dict())
            text = " ".join(f"{name} {value:.3f}" for name, value in r.items()) + f" weighted {score:.3f}"
            print(f"step {step} loss {loss.item():.3f} valid r {text} ({time.monotonic() - began:.0f} s)", flush=True)
    ema.load_state_dict(best_state)
    ema.fold()
    return first_output(ema, role), best_step, best


@torch.no_grad()
def first_output(net: ConvRegressor, role: Role) -> ConvRegressor:
    """The folded net with output 0 alone."""
    last = str(len(net.layers) - 1)
    small = ConvRegressor(role.layers, ALPHABET, LENGTH, [*role.widths[:-1], 1], role.taps, scale=SCALE, offset=OFFSET)
    for i in net.kernels:
        small.kernels[i].copy_(net.kernels[i] if i != last else net.kernels[i][:, :1])
        small.biases[i].copy_(net.biases[i] if i != last else net.biases[i][:1])
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
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.4)
    parser.add_argument("--letter-dropout", type=float, default=0.2, help="fraction of letters blanked in training")
    parser.add_argument("--ema", type=float, default=0.998)
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
            "train.options": " ".join(f"--{name.replace('_', '-')} {getattr(args, name)}" for name in OPTIONS),
            "train.threads": args.threads,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        save(out, net.tensors(), net.metadata() | extra)
    net, meta = load_module(out)
    card = write_card(args.role, role, net, meta, data, out, load_module(args.other)[0] if args.other else None)
    out.with_suffix(".md").write_text(card)
    print(card)
    return 0


def agreement(net: ConvRegressor, other: ConvRegressor, data: Promoters, test: np.ndarray) -> str:
    """How far the two regressors agree, in a sentence or two for the card."""
    random = np.random.default_rng(99).integers(0, 4, (5000, LENGTH)).astype(np.uint8)
    truth = data.expression[test, 0]
    mine, theirs = predict(net, data.tokens[test]), predict(other, data.tokens[test])
    mine_random, theirs_random = predict(net, random), predict(other, random)
    return f"""
The two regressors agree with Pearson r {pearson(mine, theirs):.3f} on these sequences and {pearson(mine_random, theirs_random):.3f} on 5,000 uniformly random ones,
where this one predicts {mine_random.mean():.2f} on average, standard deviation {mine_random.std():.2f}, 90 % quantile {np.quantile(mine_random, 0.9):.2f}.
Their errors on the test sequences correlate with r {pearson(mine - truth, theirs - truth):.3f}: noise of the measurement, and what neither network can
see.
"""  # noqa: E501


def write_card(
    name: str,
    role: Role,
    net: ConvRegressor,
    meta: dict[str, str],
    data: Promoters,
    out: Path,
    other: ConvRegressor | None,
) -> str:
    measured = np.isfinite(data.expression)
    test, train = data.rows("test"), data.rows(role.part)
    test = test[measured[test, 0]]
    guess = predict(net, data.tokens[test])
    columns = [*KINDS, "all"]
    members = [test[data.kind[test] == k] for k in range(len(KINDS))] + [test]
    sizes = [f"{len(rows)} / {len(np.unique(data.cluster[rows]))}" for rows in members]
    table = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    table.append(f"| sequences / clusters | {' | '.join(sizes)} |")
    for title, statistic in (("Pearson r", pearson), ("Spearman", spearman)):
        values = by_kind(data, test, guess, statistic)
        table.append(f"| {title} | " + " | ".join(f"{values[c]:.3f}" for c in columns) + " |")
    rms = math.sqrt(float(np.mean((guess - data.expression[test, 0]) ** 2)))
    use = {
        "guide": "It steers sampling. Judge what it steered with `promoter_expression_eval`, never with itself.",
        "judge": "It judges what `promoter_expression` steered. Do not steer and judge with it in the same study.",
    }[name]
    parameters = sum(p.numel() for p in net.parameters())
    layers = meta["kac.layers"].replace(";", "`, `")
    return f"""# {out.stem}

Predicts the expression of a yeast promoter in complex medium (YPD) from its 80 letters over ACGT, those between the
constant flanks of the measured library, on the scale of the measurement (0 to 17, the mean bin of sorted cells).
{use}

* File: `{out.name}`, {out.stat().st_size:,} bytes, {parameters:,} parameters, float32.
  Licence Apache-2.0.
* Architecture `conv_regressor`: `{layers}`.
  Kernel sizes {", ".join(map(str, role.taps))}; widths {", ".join(map(str, [*role.widths[:-1], 1]))}.
  The output is {SCALE:g} tanh + {OFFSET:g}, so that no prediction leaves the measured scale by more than half a unit.
* Training: squared error, AdamW, cosine rate, BatchNorm folded into the kernels, dropout of letters in the input and before
  the dense layers; a moving average of the weights, taken at step {meta["train.step"]}, where Pearson r on the valid part was highest
  ({meta["train.valid_r"]}). A cluster of n near-copies counts as n^0.5 sequences, in both. Expression in defined medium was an
  auxiliary output, dropped from the file. No reverse complements: a promoter has a strand.

## Data

Vaishnav et al., "The evolution, evolvability and engineering of gene regulatory DNA", Nature 603:455 (2022): the test
sets of github.com/1edv/evolution (MIT licence). {measured[:, 0].sum():,} of 28,037 sequences are measured in complex medium and
{measured[:, 1].sum():,} in defined medium: complex was chosen.

**Split.** {describe_clusters()}
This model was trained on `{role.part}` alone; guide and judge share no cluster. Both chose their step on `valid`.
Sequences / clusters:

{describe_split(data)}

## Held-out accuracy

On `test`, clusters that neither regressor has seen, against measured expression in complex medium:

{chr(10).join(table)}

Root mean squared error {rms:.2f}. A few earlier variants (dropout, shape, shares of the split) were compared with these figures in
sight, so they may be slightly too good.
{agreement(net, other, data, test) if other is not None else ""}
## Limits

It learned from {measured[train, 0].sum():,} measurements in this medium, where the published networks had tens of millions: a small model for
demonstrations and tests, not the state of the art. The native promoters of the test are few and much alike within a
cluster, so their figure is rough. Steered sequences leave the data; there its predictions are extrapolations, and so are the
other regressor's. One strain, one medium, a plasmid library.

## Retrain

    python3 tools/train_promoter_expression.py --data yeast_promoter_80.tsv.gz --role {name} \\
        {meta["train.options"]}

and, once both exist, again with `--card-only --other FILE` for the agreement. Seed {role.seed}; the split has its own,
{SPLIT_SEED}. Made with torch {meta["train.torch"]}, {meta["train.threads"]} CPU thread(s) of a shared machine, in {meta["train.seconds"]} s.
Another version or thread count gives slightly different weights.
"""  # noqa: E501


if __name__ == "__main__":
    sys.exit(main())
