"""Train models/promoter_denoiser.safetensors: a masked diffusion model of 80-bp yeast promoters, and write its card.

MDLM with the SUBS parameterisation, log-linear schedule and continuous-time bound; the net does not read t.
The shipped weights are an exponential moving average, taken where the bound on the valid part was lowest.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from pathlib import Path

from needs import need

need("numpy", "torch", "safetensors")
import numpy as np
import torch
from torch import Tensor

from kac_io import Cnn1d, load_module, one_hot, save, subs
from promoter_data import (
    ALPHABET,
    KINDS,
    LENGTH,
    SPLIT_SEED,
    Promoters,
    describe_clusters,
    describe_split,
    load_promoters,
)

MASK = len(ALPHABET)
EPS = 1e-3  # log-linear schedule: masked with probability (1 - EPS) t
MARKOV_ORDER = 3
STEPS = 128  # of the reverse chain whose bound is reported
TRAIN = ("guide", "judge")
OPTIONS = "hidden kernel dilations dropout steps batch lr weight_decay ema check_every seed".split()


def bound_terms(net: Cnn1d, x0: Tensor, t: Tensor, weight: Tensor, rng: torch.Generator) -> Tensor:
    """x0 [B,L], mask probabilities t [B] -> weight * sum over masked positions of -log p(x0) [B], in nats."""
    hidden = torch.rand(x0.shape, generator=rng) < t[:, None]
    xt = torch.where(hidden, MASK, x0)
    log_p = subs(net(one_hot(xt, MASK + 1)), xt).gather(-1, x0[..., None])[..., 0]
    return -weight * (log_p * hidden).sum(1)


def training_loss(net: Cnn1d, x0: Tensor, rng: torch.Generator) -> Tensor:
    """Continuous-time bound per base, with stratified times."""
    t = (torch.rand(1, generator=rng) + torch.arange(len(x0)) / len(x0)) % 1
    m = (1 - EPS) * t.clamp(min=1e-3)
    return bound_terms(net, x0, m, 1 / m, rng).mean() / LENGTH


@torch.no_grad()
def discrete_bound(net: Cnn1d, x0: Tensor, steps: int, seed: int, every: int = 1, batch: int = 512) -> np.ndarray:
    """The bound of the T-step reverse chain on -log p(x0) per base, one draw of the masks per step [B].

    sum_i (m(t_i) - m(s_i)) / m(t_i) * sum over masked of -log p, with m(t) = t and t_i = i/T, so the weight is 1/i.
    With `every` > 1 only the middle of every so many steps is used, with the weight of all (quick, to choose weights).
    """
    net.eval()
    rng = torch.Generator().manual_seed(seed)
    grid = range(max(1, every // 2), steps + 1, every)
    job = [(row, i) for row in range(len(x0)) for i in grid]
    rows = torch.tensor([row for row, _ in job])
    m = torch.tensor([i / steps for _, i in job])
    weight = torch.tensor([every / i for _, i in job])
    total = torch.zeros(len(x0), dtype=torch.float64)
    for start in range(0, len(job), batch):
        part = slice(start, start + batch)
        total.index_add_(0, rows[part], bound_terms(net, x0[rows[part]], m[part], weight[part], rng).double())
    return total.numpy() / LENGTH


def markov_nll(train: np.ndarray, weight: np.ndarray, test: np.ndarray, order: int, pseudo: float = 1.0) -> np.ndarray:
    """-log p per base [len(test)] of a Markov model fitted with weighted counts.

    The first letters have models of lower order of their own. Weights are scaled so that the counts add to the
    number of training letters; `pseudo` is added to each count.
    """
    weight = weight * len(train)

    def contexts(tokens: np.ndarray, position: int) -> np.ndarray:
        code = np.zeros(len(tokens), int)
        for j in range(max(0, position - order), position):
            code = code * 4 + tokens[:, j]
        return code

    total = np.zeros(len(test))
    counts = [np.full((4 ** min(k, order), 4), pseudo) for k in range(order + 1)]
    for position in range(LENGTH):
        np.add.at(counts[min(position, order)], (contexts(train, position), train[:, position]), weight)
    for position in range(LENGTH):
        table = counts[min(position, order)]
        table = table / table.sum(1, keepdims=True)
        total -= np.log(table[contexts(test, position), test[:, position]])
    return total / LENGTH


def few_of_each_cluster(data: Promoters, rows: np.ndarray, most: int, per_kind: int, seed: int) -> np.ndarray:
    """At most `most` rows of a cluster and about `per_kind` rows of a kind (whole clusters), drawn at random."""
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for kind in range(len(KINDS)):
        mine = rows[data.kind[rows] == kind]
        count = 0
        for cluster in rng.permutation(np.unique(data.cluster[mine])):
            if count >= per_kind:
                break
            members = rng.permutation(mine[data.cluster[mine] == cluster])[:most]
            chosen.extend(members)
            count += len(members)
    return np.sort(np.array(chosen))


def law_mean(data: Promoters, rows: np.ndarray, value: np.ndarray) -> dict[str, tuple[float, float]]:
    """Mean and standard error (over clusters) of a value under the data law: for each kind, and overall ("law")."""
    result = {}
    for k, kind in enumerate(KINDS):
        mine = data.kind[rows] == k
        means = [value[mine & (data.cluster[rows] == c)].mean() for c in np.unique(data.cluster[rows[mine]])]
        result[kind] = (float(np.mean(means)), float(np.std(means, ddof=1) / math.sqrt(len(means))))
    means, errors = np.array(list(result.values())).T
    result["law"] = (float(means.mean()), float(np.sqrt((errors**2).sum()) / len(KINDS)))
    return result


def fit(args: argparse.Namespace, data: Promoters) -> tuple[Cnn1d, int, float]:
    """Train; returns the moving average chosen on the valid part, its step and its bound there."""
    torch.manual_seed(args.seed)
    draw, rng = np.random.default_rng(args.seed), torch.Generator().manual_seed(args.seed)
    tokens = torch.from_numpy(data.tokens).long()
    train = data.rows(*TRAIN)
    weight = data.weights(train)
    valid = few_of_each_cluster(data, data.rows("valid"), 4, 120, seed=0)
    net = Cnn1d(MASK, args.hidden, args.kernel, [int(d) for d in args.dilations.split(",")], dropout=args.dropout)
    ema = copy.deepcopy(net)
    best, best_step, best_state = math.inf, 0, ema.state_dict()
    optimiser = torch.optim.AdamW(net.parameters(), args.lr, weight_decay=args.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda k: min(1, (k + 1) / 100) * 0.5 * (1 + math.cos(math.pi * k / args.steps))
    )
    began = time.monotonic()
    for step in range(1, args.steps + 1):
        net.train()
        loss = training_loss(net, tokens[draw.choice(train, args.batch, p=weight)], rng)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            keep = min(args.ema, step / (step + 10))
            for average, value in zip(ema.parameters(), net.parameters(), strict=True):
                average.lerp_(value, 1 - keep)
        if step % args.check_every == 0 or step == args.steps:
            bounds = law_mean(data, valid, discrete_bound(ema, tokens[valid], STEPS, seed=0, every=8))
            if bounds["law"][0] < best:
                best, best_step, best_state = bounds["law"][0], step, copy.deepcopy(ema.state_dict())
            text = " ".join(f"{name} {mean:.4f}" for name, (mean, _) in bounds.items())
            print(f"step {step} loss {loss.item():.4f} valid {text} ({time.monotonic() - began:.0f} s)", flush=True)
    ema.load_state_dict(best_state)
    return ema, best_step, best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="yeast_promoter_80.tsv.gz")
    parser.add_argument("--out", type=Path, default=Path("models/promoter_denoiser.safetensors"))
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--kernel", type=int, default=9)
    parser.add_argument("--dilations", default="1,1,4,4,16")
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--check-every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--card-only", action="store_true", help="measure the file at --out again and rewrite its card")
    args = parser.parse_args()
    if not args.data.is_file():
        parser.error(f"--data: {args.data} is not a file")
    if args.card_only and not args.out.is_file():
        parser.error(f"--card-only: {args.out} is not a file")

    torch.set_num_threads(args.threads)
    data = load_promoters(args.data)
    if not args.card_only:
        began = time.monotonic()
        net, step, best = fit(args, data)
        extra = {
            "kac.card": "Masked diffusion model of 80-bp yeast promoter sequences; data Vaishnav et al. 2022 (MIT).",
            "kac.licence": "Apache-2.0",
            "train.step": step,
            "train.valid_bound": f"{best:.4f}",
            "train.seconds": f"{time.monotonic() - began:.0f}",
            "train.torch": torch.__version__,
            "train.threads": args.threads,
            "train.options": " ".join(f"--{name.replace('_', '-')} {getattr(args, name)}" for name in OPTIONS),
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        save(args.out, net.state_dict(), net.metadata(ALPHABET, LENGTH) | extra)
    net, meta = load_module(args.out)
    card = write_card(net, meta, data, args.out)
    args.out.with_suffix(".md").write_text(card)
    print(card)
    return 0


def measure(net: Cnn1d, data: Promoters) -> tuple[int, str]:
    """Held-out figures: the number of sequences and a Markdown table."""
    train = data.rows(*TRAIN)
    weight = data.weights(train)
    test = few_of_each_cluster(data, data.rows("test"), 4, 300, seed=0)
    markov = {k: markov_nll(data.tokens[train], weight, data.tokens[test], k) for k in (0, MARKOV_ORDER)}
    of_kind = [train[data.kind[train] == k] for k in range(len(KINDS))]
    nll = [markov_nll(data.tokens[r], data.weights(r), data.tokens[test], MARKOV_ORDER) for r in of_kind]
    mixture = -(np.logaddexp.reduce(-LENGTH * np.array(nll), axis=0) - math.log(len(KINDS))) / LENGTH
    model = discrete_bound(net, torch.from_numpy(data.tokens[test]).long(), STEPS, seed=1)
    rows = {
        "this model (bound)": model,
        "third-order Markov": markov[MARKOV_ORDER],
        "mixture of four such, one a kind": mixture,
        "composition only": markov[0],
        "gain over Markov": markov[MARKOV_ORDER] - model,
    }
    columns = ("law", *KINDS)
    table = [f"| nats per base | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, value in rows.items():
        means = law_mean(data, test, value)
        table.append(f"| {name} | " + " | ".join(f"{means[c][0]:.4f} ± {means[c][1]:.4f}" for c in columns) + " |")
    return len(test), "\n".join(table)


def write_card(net: Cnn1d, meta: dict[str, str], data: Promoters, out: Path) -> str:
    tested, table = measure(net, data)
    parameters = sum(p.numel() for p in net.parameters())
    return f"""# {out.stem}

A masked diffusion model of yeast promoter sequences, 80 letters over ACGT: what stood between the constant flanks
TGCATTTTTTTCACATC and GGTTACGGCTGTT of the measured library.

* File: `{out.name}`, {out.stat().st_size:,} bytes, {parameters:,} parameters, float32.
  Licence Apache-2.0.
* Architecture `cnn1d`: hidden {meta["kac.hidden"]}, kernel {meta["kac.kernel"]}, dilations {meta["kac.dilations"]}.
  It does not read t (`kac.time` 0, no time tensors). The mask is index {MASK}.
* Training: MDLM, SUBS parameterisation, log-linear schedule, continuous-time bound; AdamW, cosine rate, dropout.
  The weights are a moving average, taken at step {meta["train.step"]}, where the bound on the valid part was lowest
  ({meta["train.valid_bound"]} nats per base, on few sequences and a coarse grid of times).

## Data

28,037 sequences of Vaishnav et al., "The evolution, evolvability and engineering of gene regulatory DNA",
Nature 603:455 (2022): the test sets of github.com/1edv/evolution (MIT licence). Four kinds: `random`, `native`
(199 native promoters, each with about 18 single-letter mutants), `drift` (random sequences and mutants of them, three
of each) and `sswm` (441 trajectories evolved in silico for high or low expression).

**Data law.** The four kinds have equal weight; within a kind, clusters of near-duplicates have equal weight; within a
cluster, sequences have equal weight. So no promoter counts more because more mutants of it were measured, and 199
native promoters count as much as 6,121 random sequences. Half of what this model learned is thus random DNA, which is
what the library is. Expression was not a criterion.

**Split.** {describe_clusters()}
This model was trained on guide and judge together, chosen on valid, measured on test. Sequences / clusters:

{describe_split(data)}

## Held-out likelihood

On {tested} test sequences, at most four of a cluster; mean ± standard error over clusters, in nats per base
(ln 4 = {math.log(4):.4f}). The model's figure is the bound of the {STEPS}-step reverse chain: the sum over steps of
(m(t) - m(s)) / m(t) times the sum over masked positions of -log p, with m(t) = t and one draw of the masks at each
step; the true value is not larger. The Markov models were fitted to the same training sequences under the same law, with
pseudo-count 1, and their figures are exact. The mixture is told the kinds of its training sequences, this model is not.

{table}

## Limits

Most of the library has little structure beyond its composition, so the gain over a Markov model is small. Much of it
comes from recognising the kind of a sequence from its own letters, as the mixture of four Markov models also does. Of native promoters there are only 199, of
trajectories 441: trained longer, the model learns them by heart, hence the dropout and the early stop. It knows nothing
of chromatin, of what lies outside the 80 letters, or of expression.

## Retrain

    python3 tools/train_promoter_denoiser.py --data yeast_promoter_80.tsv.gz \\
        {meta["train.options"]}

Seed 1 is that of weights, batches and masks; the split has its own, {SPLIT_SEED}. Made with torch
{meta["train.torch"]}, {meta["train.threads"]} CPU thread(s) of a shared machine, in {meta["train.seconds"]} s. Another version or thread count gives
slightly different weights.
"""  # noqa: E501


if __name__ == "__main__":
    sys.exit(main())
