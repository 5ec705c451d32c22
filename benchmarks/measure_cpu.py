"""Time kac and peer_torch.py in turn and print the tables of benchmarks/cpu.md; started by benchmarks/run-cpu.

Every measurement is a process of its own, so that its peak memory and its share of a core are known. Of each case and
thread count there are `--repeats` rounds (kac, kac without reuse, peer), and medians are reported.
The peer runs for `--seconds`, kac a whole chain, without reuse a shorter one: there every step costs the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CHILDREN, STEPS, STEPS_OFF = 10, 128, 16

# What the published loops run; other rows are kac alone, once, against the peer's rate for the same algorithm.
PUBLISHED = ("pretrained", "smc", "svdd_pm")
SET = {
    "pretrained": {"algorithm": "pretrained"},
    "smc": {
        "algorithm": "smc",
        "groups": 1,
        "select.group.trigger.kind": "every",
        "select.group.scheme": "multinomial",
    },
    "svdd_pm": {"algorithm": "svdd_pm", "select.parent.rule": "argmax", "children": CHILDREN},
    "svdd_pm categorical": {"algorithm": "svdd_pm", "select.parent.rule": "categorical", "children": CHILDREN},
}


@dataclass(frozen=True)
class Model:
    name: str
    denoiser: Path
    reward: Path
    particles: dict[str, int]
    aim: dict[str, float] = field(default_factory=dict, hash=False)


@dataclass
class Measurement:
    """One process: particle steps a second, calls a particle step, peak MiB, share of the cores it was given."""

    rate: float
    denoiser: float
    reward: float
    peak: float
    share: float
    detail: dict


def spawn(command: list[str], threads: int) -> tuple[str, float, float]:
    """Runs it; returns stdout, peak MiB, processor seconds over wall seconds and threads."""
    with tempfile.TemporaryFile("w+") as out:
        began = time.perf_counter()
        env = os.environ | {"OMP_NUM_THREADS": str(threads)}
        child = subprocess.Popen(command, stdout=out, cwd=ROOT, env=env)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        if child.returncode != 0:
            raise SystemExit(f"exit code {child.returncode}: {' '.join(command)}")
        out.seek(0)
        return out.read(), usage.ru_maxrss / 1024, (usage.ru_utime + usage.ru_stime) / wall / threads


class Bench:
    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args, self.folder = args, folder

    def kac(self, model: Model, algorithm: str, particles: int, threads: int, steps: int, reuse: str) -> Measurement:
        out = self.folder / "run"
        config = self.folder / "config.yaml"
        config.write_text(f"model: {{file: {model.denoiser}}}\nreward:\n  - {{file: {model.reward}}}\n")
        keys = {f"sampler.{key}": value for key, value in SET[algorithm].items()}
        keys |= {"sampler.alpha": 1, "sampler.reuse": reuse, "process.steps": steps, "device.threads": threads}
        keys["sampler.particles" if algorithm == "smc" else "sampler.groups"] = particles
        if algorithm != "smc":
            keys["sampler.particles"] = 1
        command = [self.args.kac, "run", str(config), "--quiet", "--force", "--out", str(out)]
        for key, value in keys.items():
            command += ["--set", f"{key}={value}"]
        _, peak, share = spawn(command, threads)
        run = json.loads((out / "run.json").read_text())
        work = particles * steps
        made = run["evaluations"]
        return Measurement(
            work / run["seconds"]["total"], made["denoiser"] / work, made["reward"] / work, peak, share, run
        )

    def peer(self, model: Model, algorithm: str, particles: int, threads: int, chains: int = 0) -> Measurement:
        command = [self.args.python, str(HERE / "peers" / "peer_torch.py"), "--denoiser", str(model.denoiser)]
        command += ["--reward", str(model.reward), "--algorithm", algorithm, "--particles", str(particles)]
        command += ["--children", str(CHILDREN), "--steps", str(STEPS), "--threads", str(threads)]
        command += ["--seconds", str(self.args.seconds), "--chains", str(chains)]
        text, peak, share = spawn(command, threads)
        result = json.loads(text)
        return Measurement(result["rate"], result["denoiser"], result["reward"], peak, share, result)


def median(measurements: list[Measurement], what: str) -> float:
    return statistics.median(getattr(m, what) for m in measurements)


def number(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def table(header: str, rows: list[list[str]]) -> str:
    columns = header.split(" | ")
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * 2 + " ---: |" * (len(columns) - 2)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


Results = dict[tuple[str, str, int, str], list[Measurement]]  # of (model, algorithm, threads, program)


def measure_all(bench: Bench, models: list[Model]) -> Results:
    """Rounds of all programs in turn, so that what disturbs the machine disturbs all of them."""
    results: Results = {}
    for model in models:
        for threads in (1, 2):
            for algorithm, particles in model.particles.items():
                extra = algorithm not in PUBLISHED
                if extra and threads > 1:
                    continue
                for _ in range(1 if extra else bench.args.repeats):
                    done = {"kac": bench.kac(model, algorithm, particles, threads, STEPS, "on")}
                    if threads == 1 and not extra:
                        done["off"] = bench.kac(model, algorithm, particles, threads, STEPS_OFF, "off")
                    if not extra:
                        done["peer"] = bench.peer(model, algorithm, particles, threads)
                    for program, measurement in done.items():
                        results.setdefault((model.name, algorithm, threads, program), []).append(measurement)
                        print(
                            f"{model.name}, {algorithm}, {threads} threads, {program}: "
                            f"{number(measurement.rate)} particle steps/s, {measurement.share:.0%} of the cores",
                            file=sys.stderr,
                            flush=True,
                        )
    return results


def peer_of(results: Results, model: Model, algorithm: str, threads: int) -> list[Measurement]:
    return results[model.name, algorithm.split()[0], threads, "peer"]


def speed_table(results: Results, models: list[Model]) -> str:
    rows = []
    for model in models:
        for algorithm, particles in model.particles.items():
            kac, peer = results[model.name, algorithm, 1, "kac"], peer_of(results, model, algorithm, 1)
            off = results.get((model.name, algorithm, 1, "off"))
            ratio = median(kac, "rate") / median(peer, "rate")
            fewer = median(peer, "denoiser") / median(kac, "denoiser")
            aim = model.aim.get(algorithm)
            rows.append(
                [
                    model.name,
                    algorithm,
                    str(particles),
                    number(median(kac, "rate")),
                    number(median(peer, "rate")),
                    f"**{ratio:.1f}×**",
                    f"{fewer:.2f}×",
                    f"{ratio / fewer:.2f}×",
                    f"{aim:g}×: {'met' if ratio >= aim else 'not met'}" if aim else "",
                    number(median(off, "rate")) if off else "",
                    f"{median(off, 'rate') / median(peer, 'rate'):.2f}×" if off else "",
                ]
            )
    header = "model | algorithm | particles | kac | peer | kac / peer | = fewer calls | × faster calls | aim"
    return table(header + " | kac, reuse off | reuse off / peer", rows)


def calls_table(results: Results, models: list[Model]) -> str:
    rows = []
    for model in models:
        for algorithm, particles in model.particles.items():
            kac, peer = results[model.name, algorithm, 1, "kac"], peer_of(results, model, algorithm, 1)
            off = results.get((model.name, algorithm, 1, "off"))
            per_second = [
                number(median(runs, "rate") * median(runs, "denoiser")) if runs else "" for runs in (kac, off, peer)
            ]
            distinct = statistics.median(m.detail["summary"]["distinct"] for m in kac)
            rows.append(
                [
                    model.name,
                    algorithm,
                    *(f"{median(runs, 'denoiser'):.2f}" if runs else "" for runs in (kac, off, peer)),
                    *(f"{median(runs, 'reward'):.2f}" if runs else "" for runs in (kac, off, peer)),
                    *per_second,
                    f"{distinct:g} of {particles}",
                    f"{median(kac, 'peak'):.0f}",
                    f"{median(peer, 'peak'):.0f}",
                ]
            )
    programs = ("kac", "reuse off", "peer")
    columns = ["model", "algorithm"]
    for what in ("denoiser calls", "reward calls", "denoiser calls/s"):
        columns += [f"{what}: {program}" for program in programs]
    return table(" | ".join([*columns, "distinct at the end", "MiB: kac", "MiB: peer"]), rows)


def threads_table(results: Results, models: list[Model]) -> str:
    rows = []
    for model in models:
        for algorithm in model.particles:
            if (model.name, algorithm, 2, "kac") not in results:
                continue
            one = [median(results[model.name, algorithm, 1, program], "rate") for program in ("kac", "peer")]
            two = [median(results[model.name, algorithm, 2, program], "rate") for program in ("kac", "peer")]
            rows.append([model.name, algorithm])
            for a, b in zip(one, two, strict=True):
                rows[-1] += [number(a), number(b), f"{b / a:.2f}×"]
            rows[-1].append(f"{two[0] / two[1]:.1f}×")
    header = "model | algorithm | kac, 1 | kac, 2 | gain | peer, 1 | peer, 2 | gain | kac / peer at 2"
    return table(header, rows)


def spread_table(results: Results) -> str:
    rows = []
    names = {"kac": "kac", "off": "kac, reuse off", "peer": "peer"}
    for (model, algorithm, threads, program), runs in results.items():
        rates = sorted(m.rate for m in runs)
        share = min(m.share for m in runs)
        rows.append(
            [model, algorithm, str(threads), names[program], *map(number, (rates[0], rates[-1])), f"{share:.0%}"]
        )
    return table("model | algorithm | threads | program | slowest | fastest | least share of the cores", rows)


def law_table(bench: Bench, model: Model, particles: dict[str, int]) -> str:
    """Whole chains of both programs; where particles are independent their mean rewards must agree."""
    rows = []
    for algorithm, n in particles.items():
        peer = bench.peer(model, algorithm, n, 1, chains=1).detail
        bench.kac(model, algorithm, n, 1, STEPS, "on")
        with open(bench.folder / "run" / "samples.csv") as file:
            column = file.readline().strip().split(",").index("reward")
            rewards = [float(line.split(",")[column]) for line in file]
        error = (peer["variance"] / peer["samples"] + statistics.variance(rewards) / len(rewards)) ** 0.5
        z = (statistics.mean(rewards) - peer["mean_reward"]) / error
        rows.append([model.name, algorithm, str(n), f"{statistics.mean(rewards):.3f}", f"{peer['mean_reward']:.3f}"])
        rows[-1] += [f"{error:.3f}", f"{z:+.1f}"]
        if abs(z) > 4:
            raise SystemExit(f"{algorithm}: mean reward {rows[-1][3]} (kac) and {rows[-1][4]} (peer) do not agree")
    return table("model | algorithm | samples | kac | peer | error | z", rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kac", required=True, help="the program")
    parser.add_argument("--python", required=True, help="a Python with torch, numpy and safetensors")
    parser.add_argument("--models", type=Path, required=True, help="folder of make_models.py")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement of the peer")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs, no figures")
    args = parser.parse_args()
    shipped = ROOT / "models"
    random = {
        n: (args.models / f"denoiser_{n}.safetensors", args.models / f"reward_{n}.safetensors") for n in (50, 200)
    }
    models = [
        Model(
            "shipped, L=80",
            shipped / "promoter_denoiser.safetensors",
            shipped / "promoter_expression.safetensors",
            {"pretrained": 256, "smc": 256, "svdd_pm": 32, "svdd_pm categorical": 32},
        ),
        Model(
            "published size, L=50",
            *random[50],
            {"pretrained": 128, "smc": 128, "svdd_pm": 8, "svdd_pm categorical": 8},
            {"smc": 15, "svdd_pm": 7},
        ),
        Model(
            "published size, L=200",
            *random[200],
            {"pretrained": 32, "smc": 32, "svdd_pm": 4, "svdd_pm categorical": 4},
            {"smc": 6, "svdd_pm": 2.3},
        ),
    ]
    law = {"pretrained": 256, "svdd_pm": 16}
    if args.quick:
        args.repeats, args.seconds, law = 1, 0.5, {"pretrained": 16}
        models = [Model(m.name, m.denoiser, m.reward, dict.fromkeys(m.particles, 2), m.aim) for m in models]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        print("## Law\n\nMean rewards of whole chains.\n\n" + law_table(bench, models[0], law), flush=True)
        results = measure_all(bench, models)
    for title, what, text in (
        ("One core", "Particle steps a second, medians.", speed_table(results, models)),
        (
            "Calls and memory, one core",
            "Calls for each particle step; peak resident memory.",
            calls_table(results, models),
        ),
        ("Two threads against one", "Particle steps a second, medians.", threads_table(results, models)),
        ("Spread", "Particle steps a second.", spread_table(results)),
    ):
        print(f"\n## {title}\n\n{what}\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
