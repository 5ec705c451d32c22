"""Time kac on a GPU beside PyTorch; started by benchmarks/run-gpu, explained in benchmarks/cuda.md.

Each measurement is printed as a line of JSON as soon as it is made, and a table at the end. What is left of `--limit`
bounds every one, so that what takes too long costs no more than itself. Needs no module but Python's own: PyTorch runs
in worker.py.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHILDREN = 10
SET = {
    "svdd_pm": {"select.parent.rule": "argmax", "children": CHILDREN, "particles": 1},
    "smc": {"select.group.trigger.kind": "every", "select.group.scheme": "multinomial", "groups": 1},
}
# (L, algorithm): particles, so that the denoiser is asked 512,000 sites at a time
PARTICLES = {(200, "svdd_pm"): 256, (200, "smc"): 2560, (50, "svdd_pm"): 1024, (50, "smc"): 10240}
FLIP_ROWS = {200: 512, 50: 1024}
MODES = ("default", "max-autotune-no-cudagraphs")
Result = dict[str, Any]


class Worker:
    """worker.py, started anew where it had to be stopped."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, request: Result, seconds: float) -> Result:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            ready, _, _ = select.select([self.process.stdout], [], [], seconds)
            line = self.process.stdout.readline() if ready else ""
        except BrokenPipeError:
            ready, line = [self.process.stdout], ""
        if line:
            return json.loads(line)
        self.stop()
        return {"error": "PyTorch's process ended" if ready else f"not done in {seconds:.0f} s"}

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)  # and the compilers that it started
            self.process.wait()
            self.process = None


class Bench:
    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args, self.folder, self.worker = args, folder, Worker()
        self.end = time.monotonic() + args.limit
        self.results: list[Result] = []
        self.environment = dict(os.environ)
        if args.libraries:  # for kac alone; PyTorch has its own
            self.environment["LD_LIBRARY_PATH"] = args.libraries

    def left(self) -> float:
        return self.end - time.monotonic()

    def note(self, result: Result) -> Result:
        self.results.append(result)
        print(json.dumps(result), flush=True)
        return result

    def model(self, kind: str, length: int) -> str:
        return str(self.folder / f"{kind}_{length}.safetensors")

    def spawn(self, command: list[str]) -> str:
        """Its output; raises with its last line of complaint."""
        try:
            left = max(1.0, self.left())
            done = subprocess.run(command, capture_output=True, text=True, timeout=left, env=self.environment)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError("not done in the time left") from error
        if done.returncode != 0:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        return done.stdout

    def flips(self, length: int) -> None:
        rows = self.args.particles or FLIP_ROWS[length]
        try:
            steps = str(self.args.steps)
            text = self.spawn([self.args.flips, self.args.device, self.model("denoiser", length), str(rows), steps])
            for line in text.splitlines():
                self.note(json.loads(line))
        except RuntimeError as error:
            self.note({"measure": "flips", "length": length, "error": str(error)})

    def kac(self, length: int, algorithm: str, particles: int, precision: str) -> None:
        """A whole chain; seconds of its steps but the first, in which models and kernels are loaded."""
        head: Result = {"measure": "kac", "length": length, "algorithm": algorithm, "particles": particles}
        head["precision"] = precision
        config, out = self.folder / "config.yaml", self.folder / "run"
        denoiser, reward = self.model("denoiser", length), self.model("reward", length)
        config.write_text(f"model: {{file: {denoiser}}}\nreward:\n  - {{file: {reward}}}\n")
        keys: Result = {"sampler.algorithm": algorithm, "sampler.alpha": 1}
        keys |= {f"sampler.{key}": value for key, value in SET[algorithm].items()}
        keys["sampler.groups" if algorithm == "svdd_pm" else "sampler.particles"] = particles
        keys |= {"process.steps": self.args.steps, "device.name": self.args.device, "device.precision": precision}
        keys["device.batch"] = self.args.batch
        command = [self.args.kac, "run", str(config), "--quiet", "--force", "--out", str(out)]
        for key, value in keys.items():
            command += ["--set", f"{key}={value}"]
        try:
            self.spawn(command)
        except RuntimeError as error:
            self.note(head | {"error": str(error)})
            return
        laps = [json.loads(line)["seconds"] for line in (out / "trace.jsonl").read_text().splitlines()][1:]
        run = json.loads((out / "run.json").read_text())
        work = particles * self.args.steps
        calls = {name: run["evaluations"][name] / work for name in ("denoiser", "reward")}
        done = {"rate": particles * len(laps) / sum(laps), "steps": len(laps), "seconds": sum(laps)}
        self.note(head | done | calls | {"total_seconds": run["seconds"]["total"], "batch": self.args.batch})

    def torch(self, do: str, length: int, algorithm: str, particles: int, **more: Any) -> Result:
        head = {"measure": do, "length": length, "algorithm": algorithm, "particles": particles} | more
        request: Result = {"do": do, "denoiser": self.model("denoiser", length), "reward": self.model("reward", length)}
        request |= {"algorithm": algorithm, "particles": particles, "children": CHILDREN, "steps": self.args.steps}
        request |= {"seconds": self.args.seconds_each, "device": self.args.device} | more
        result = self.note(head | self.worker.ask(request, max(1.0, self.left())))
        if "error" in result:
            self.worker.stop()  # a GPU that has failed in a process may fail on
        return result

    def forward(self, length: int, precision: str) -> None:
        rows = self.args.particles or FLIP_ROWS[length]
        request = {"do": "forward", "denoiser": self.model("denoiser", length), "rows": rows, "precision": precision}
        request |= {"seconds": self.args.seconds_each / 4, "device": self.args.device}
        head = {"measure": "forward", "length": length, "rows": rows, "precision": precision}
        self.note(head | self.worker.ask(request, max(1.0, self.left())))

    def run(self) -> None:
        gpu = self.args.device != "cpu"
        lengths = list(dict.fromkeys(length for length, _ in PARTICLES))
        head = {"measure": "models", "device": self.args.device}
        made = self.note(
            head | self.worker.ask({"do": "models", "out": str(self.folder), "lengths": lengths}, self.left())
        )
        if "error" in made:
            return
        if gpu:
            asked = self.worker.ask({"do": "ceilings", "device": self.args.device}, self.left())
            self.note({"measure": "ceilings"} | asked)
        cases = [(length, algorithm, self.args.particles or n) for (length, algorithm), n in PARTICLES.items()]
        for case in cases:
            for precision in ("bf16", "tf32", "exact") if gpu else ("exact",):
                self.kac(*case, precision)
            self.torch("best", *case, precision="bfloat16")
            self.torch("eager", *case)  # tf32 convolutions on a GPU, as published
        for length in lengths:
            self.flips(length)
            for precision in ("float32", "tf32") if gpu else ("float32",):
                self.forward(length, precision)
        for mode in MODES if self.args.compile else ():
            for case in cases:
                if self.left() > 5:
                    self.torch("best", *case, precision="bfloat16", compile=mode)
        for case in cases if gpu else ():  # true float32 may choose algorithms that take a second a step
            if self.left() > 5:
                self.torch("best", *case, precision="tf32")
                self.torch("eager", *case, float32=True)

    def rate(self, length: int, algorithm: str, measure: str, **more: Any) -> float | None:
        """The highest of these measurements."""
        want = {"length": length, "algorithm": algorithm, "measure": measure} | more
        rates = [r["rate"] for r in self.results if "rate" in r and all(r.get(k) == v for k, v in want.items())]
        return max(rates, default=None)

    def table(self) -> str:
        columns = ["L", "algorithm", "particles", "program", "particle steps/s", "calls", "/ eager", "/ best bf16"]
        lines = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
        for r in self.results:
            if r["measure"] not in ("kac", "eager", "best"):
                continue
            case = (r["length"], r["algorithm"])
            name = {"kac": "kac", "eager": "eager", "best": "best"}[r["measure"]]
            name += f" {r.get('precision') or ('float32' if r.get('float32') else 'tf32, the default')}"
            name += f", compile {r['compile']}" if r.get("compile") else ""
            if "rate" not in r:
                lines.append(f"| {case[0]} | {case[1]} | {r['particles']} | {name} | {r['error']} | | | |")
                continue
            against = [self.rate(*case, "eager", float32=None), self.rate(*case, "best", precision="bfloat16")]
            ratios = [f"{r['rate'] / x:.2f}" if x else "" for x in against]
            cells = [*map(str, case), str(r["particles"]), name, f"{r['rate']:,.0f}", f"{r['denoiser']:.2f}", *ratios]
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", "| L | forward | rows/s |", "| --- | --- | --- |"]
        for r in self.results:
            if r["measure"] == "forward" and "rate" in r:
                lines.append(f"| {r['length']} | eager {r['precision']} | {r['rate']:,.0f} |")
            elif r["measure"] == "flips" and "error" not in r:
                lines.append(f"| {r['length']} | kac {r['precision']} | {r['rows_per_second']:,.0f} |")
        lines += ["", "| L | precision | reveals | flips expected | seen |", "| --- " * 5 + "|"]
        for r in self.results:
            if r["measure"] == "flips" and "error" not in r:
                expected = f"{r['expected_flips']:.1f} ± {r['expected_se']:.1f}"
                lines.append(f"| {r['length']} | {r['precision']} | {r['reveals']} | {expected} | {r['flips']} |")
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kac", required=True, help="the program")
    parser.add_argument("--flips", required=True, help="bench_flips")
    parser.add_argument("--libraries", default="", help="folder of those of kac")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--limit", type=float, default=150, help="seconds of everything")
    parser.add_argument("--seconds-each", type=float, default=2, help="of a measurement of PyTorch")
    parser.add_argument("--steps", type=int, default=128, help="of a chain")
    parser.add_argument("--batch", type=int, default=4096, help="device.batch of kac")
    parser.add_argument("--particles", type=int, default=0, help="instead of those that fill a GPU")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="without torch.compile")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        try:
            bench.run()
        finally:
            bench.worker.stop()
            print("\n" + bench.table(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
