"""The table of docs/algorithms.md: every row on the promoter model, at equal calls and at equal seconds.

Each row runs its own configuration of configs/ for 64 designs.  What sets its size (particles, children, rollouts, ...)
is scaled until the run takes the denoiser calls, or the seconds, that best_of_n takes with 10 draws a design.

    python3 tools/algorithm_table.py --kac build/kac --out runs/table >table.md
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Row:
    """A line of the table: a configuration, and the key that sets what it costs."""

    name: str
    config: str
    size: str
    first: int
    least: int = 1
    more: list[str] = field(default_factory=list)
    calls: bool = True  # whether its size changes its denoiser calls


DESIGNS = 64
ONE = ["sampler.final.kind=categorical", "sampler.final.keep=1"]
ROWS = [
    Row("pretrained", "promoter_pretrained", "", 1, more=["sampler.groups=64"]),
    Row("best_of_n", "promoter_best_of_n", "sampler.particles", 10),
    Row("best_of_n_pool", "promoter_best_of_n_pool", "sampler.particles", 10),
    Row("smc", "promoter_smc", "sampler.particles", 5),
    Row("fk_steering", "promoter_fk_steering", "sampler.particles", 5, more=["sampler.alpha=0.2"]),
    Row("das", "promoter_das", "sampler.particles", 5),
    Row("nested", "promoter_nested", "sampler.particles", 2),
    Row("svdd_pm", "quickstart", "sampler.children", 9),
    Row("svdd_pm, argmax", "promoter_svdd", "sampler.children", 9),
    Row("svdd_r", "promoter_svdd_r", "sampler.children", 9, least=2),
    Row("svdd_r_replace", "promoter_svdd_r_replace", "sampler.children", 9, least=2),
    Row("beam", "promoter_beam", "sampler.children", 4, least=2),
    Row("funnel", "promoter_funnel", "sampler.particles", 9, least=2),
    Row("tds", "promoter_tds", "sampler.particles", 5),
    Row("dps", "promoter_dps", "", 1),
    Row("classifier_guidance", "promoter_classifier_guidance", "", 1),
    Row("svdd_mc", "promoter_svdd_mc", "sampler.children", 9, calls=False),
    Row(
        "rerd",
        "promoter_rerd",
        "driver.iterations",
        10,
        more=["sampler.alpha=0.2", "sampler.children=3", "sampler.final.keep=4"],
    ),
    Row("particle_gibbs", "promoter_particle_gibbs", "driver.sweeps", 4, more=["sampler.alpha=0.2", "sampler.groups=64", "sampler.particles=2"]),
    Row(
        "ddbfs",
        "promoter_ddbfs",
        "sampler.children",
        4,
        least=2,
        more=["sampler.groups=64", "sampler.particles=1", "search.drop_schedule=none"],
    ),
    Row("mcts", "promoter_mcts", "search.rollouts", 16, least=8, more=["sampler.groups=64", "search.stages=8"]),
    Row("dts", "promoter_dts", "search.rollouts", 16, least=4, more=["sampler.alpha=0.2", "sampler.groups=64", "sampler.particles=1"]),
]


@dataclass
class Result:
    """What a run was like."""

    size: int
    calls: int
    asked: int
    gradients: int
    seconds: float
    guide: tuple[float, float]
    judge: tuple[float, float]
    distinct: int
    samples: int
    distance: float
    likelihood: float


def run(kac: str, row: Row, size: int, out: Path) -> Result:
    """Runs a row at a size; its cost is that of the sampling, without the likelihoods of the designs."""
    command = [kac, "run", f"configs/{row.config}.yaml", "--out", str(out), "--force", "--quiet"]
    keys = row.more + ([f"{row.size}={size}"] if row.size else [])
    if row.size == "sampler.particles" and row.name == "funnel":
        keys.append(f"sampler.funnel={max(1, size // 2)},{max(1, size // 4)}")
    for key in keys:
        command += ["--set", key]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    data = json.loads((out / "run.json").read_text())
    trace = [json.loads(line) for line in (out / "trace.jsonl").read_text().splitlines()]
    summary, calls = data["summary"], data["evaluations"]
    terms = [term["value"] for term in summary["terms"]]
    return Result(
        size,
        calls["denoiser"],
        calls["denoiser"] + calls["denoiser_saved"],
        calls.get("gradients", 0),
        sum(line["seconds"] for line in trace),
        (terms[0]["median"], terms[0]["q90"]),
        (terms[1]["median"], terms[1]["q90"]),
        summary["distinct"],
        data["samples"],
        summary["pairwise_distance"],
        summary["log_likelihood"]["median"],
    )


def cost(result: Result, equal: str) -> float:
    """What is held equal; a backward pass counts as two calls."""
    return result.seconds if equal == "seconds" else result.calls + 2 * result.gradients


def scale(kac: str, row: Row, equal: str, target: float, out: Path) -> Result:
    """Runs a row at the size whose cost is nearest to the target: costs are nearly linear in size."""
    result = run(kac, row, row.first, out)
    if not row.size or (equal == "calls" and not row.calls):
        return result
    tried = {result.size: result}
    for _ in range(3):
        size = max(row.least, round(result.size * target / cost(result, equal)))
        if size in tried:
            break
        result = tried[size] = run(kac, row, size, out)
    return min(tried.values(), key=lambda r: abs(cost(r, equal) / target - 1))


def table(kac: str, rows: list[Row], equal: str, out: Path) -> None:
    """Prints one of the two tables."""
    base = run(kac, next(row for row in ROWS if row.name == "best_of_n"), 10, out / "best_of_n")
    target = cost(base, equal)
    print(f"\nAt equal {equal}: {target:.1f} seconds.\n" if equal == "seconds" else f"\nAt equal calls: {target:,.0f}.\n")
    print("| row | size | calls | seconds | guiding, median | 90 % | independent, median | 90 % | distinct | distance | log likelihood |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        r = scale(kac, row, equal, target, out / row.name.replace(", ", "_"))
        size = f"{row.size.split('.')[-1]} {r.size}" if row.size else ""
        backward = f" + {r.gradients:,} backward" if r.gradients else ""
        print(
            f"| {row.name} | {size} | {r.calls:,}{backward} | {r.seconds:.1f} | {r.guide[0]:.2f} | {r.guide[1]:.2f} "
            f"| {r.judge[0]:.2f} | {r.judge[1]:.2f} | {r.distinct} of {r.samples} | {r.distance:.2f} | {r.likelihood:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kac", default="build/kac", help="the program")
    parser.add_argument("--out", type=Path, default=Path("runs/table"), help="folder for the runs")
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--equal", choices=["calls", "seconds", "both"], default="both", help="which of the two tables")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [row for row in ROWS if not args.only or row.name in args.only]
    for equal in ("calls", "seconds") if args.equal == "both" else (args.equal,):
        table(args.kac, rows, equal, args.out)


if __name__ == "__main__":
    main()
