"""Time kac's sampling of molecules beside PyTorch's; started by benchmarks/molecules, explained in molecules.md.

kac and peers/peer_gdss.py run in turn, each a process of its own, and each measurement is printed as a line of JSON; at
the end comes a table of the medians, in milliseconds for a step of a molecule. Both ask both networks twice a step and
draw the numbers of nodes by the same weights. Needs no module but Python's own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
QM9 = "9:83366,8:13625,7:2404,6:475,5:91,4:25,3:7,2:5,1:2"
# of the 29,445 molecules of ZINC250k that are published as validation and test sets
ZINC = (
    "6:1,8:4,9:12,10:22,11:88,12:142,13:231,14:360,15:483,16:746,17:1054,18:1366,19:1786,20:1993,21:2372,22:2228,"
    "23:2535,24:2703,25:2679,26:2251,27:1875,28:1184,29:931,30:755,31:539,32:414,33:302,34:192,35:123,36:54,37:19,38:1"
)
MODELS = {"qm9": (QM9, 0.7), "zinc250k": (ZINC, 0.9)}  # numbers of nodes, scale_eps
# options of peer_gdss.py
CPU_PEERS = {"PyTorch": [], "PyTorch, flushed": ["--flush"]}
GPU_PEERS = {"eager": [], "CUDA graph": ["--graph"], "compile, CUDA graph": ["--compile=default", "--graph"]}
Result = dict[str, Any]


def shapes_of(model: Path) -> dict[str, list[int]]:
    with open(model, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def flops_of(shapes: dict[str, list[int]], nodes: int) -> float:
    """Two for a multiplication and an addition, of both networks for a graph of so many live nodes: convolutions with
    its whole adjacency, all else of pairs for i < j alone, every channel counted; no tanh, ELU or normalisation."""
    pairs, total = nodes * (nodes - 1) / 2, 2.0 * nodes**2 * nodes  # the square of the adjacency
    for name, shape in shapes.items():
        if not name.endswith(".weight"):
            continue
        product = 2.0 * shape[0] * shape[1]
        if ".attn." in name or (".layers." in name and ".linears." not in name):  # a convolution, [in, out]
            total += nodes * product + 2.0 * nodes**2 * shape[1]
            total += 2 * pairs * shape[1] if name.endswith("gnn_q.weight") else 0  # scores: i with j and j with i
            total += 2 * pairs * shape[1] if name.endswith("gnn_k.weight") else 0
        elif ".multi_channel." in name or name.startswith("x.final"):
            total += nodes * product
        else:
            total += pairs * product
    return total


def mean_flops(model: Path, sizes: str) -> float:
    pairs = [tuple(map(int, entry.split(":"))) for entry in sizes.split(",")]
    shapes, weight = shapes_of(model), sum(w for _, w in pairs)
    return sum(w * flops_of(shapes, n) for n, w in pairs) / weight


class Bench:
    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args, self.folder = args, folder
        self.results: list[Result] = []
        self.peers = CPU_PEERS if args.device == "cpu" else GPU_PEERS

    def spawn(self, command: Sequence[str], threads: int) -> str:
        environment = dict(os.environ) | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        if self.args.libraries and command[0] == str(self.args.kac):
            environment["LD_LIBRARY_PATH"] = self.args.libraries
        words = [*shlex.split(self.args.prefix), *command]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=self.args.limit)
        if done.returncode != 0:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        return done.stdout

    def model(self, name: str) -> Path:
        return self.args.models / f"gdss_{name}.safetensors"

    def kac(self, name: str, batch: int, threads: int) -> Result:
        """A chain of fewer points of time, whose steps cost the same; the first step is left out."""
        sizes, heat = MODELS[name]
        config, out = self.folder / "config.yaml", self.folder / "run"
        process = f"kind: graph, steps: {2 * self.args.steps}, scale_eps: {heat}, langevin: {self.args.langevin}"
        config.write_text(
            f"model: {{file: {self.model(name)}}}\n"
            f'process: {{{process}, nodes: "{sizes}"}}\n'
            f"sampler: {{algorithm: pretrained, groups: {batch}, particles: 1}}\n"
            f"device: {{name: {self.args.device}, threads: {threads}}}\n"
        )
        self.spawn([str(self.args.kac), "run", str(config), "--quiet", "--force", "--out", str(out)], threads)
        laps = [json.loads(line) for line in (out / "trace.jsonl").read_text().splitlines()][2:]
        seconds = sum(lap["seconds"] for lap in laps)
        spent = json.loads((out / "run.json").read_text())["seconds"]
        share = {part: spent[part] / spent["total"] for part in ("denoiser", "propose")}
        return {"rate": batch * len(laps) / 2 / seconds, "steps": len(laps) / 2, "seconds": seconds} | share

    def peer(self, name: str, batch: int, threads: int, *options: str) -> Result:
        command = [self.args.python, str(HERE / "peers" / "peer_gdss.py"), f"--model={self.model(name)}"]
        command += [f"--batch={batch}", f"--sizes={MODELS[name][0]}", f"--threads={threads}"]
        command += [f"--device={self.args.device}", f"--steps={max(2, self.args.molecule_steps // batch)}", *options]
        return json.loads(self.spawn(command, threads))

    def run(self) -> None:
        for name in self.args.only.split(","):
            for threads in map(int, self.args.threads.split(",")):
                for batch in map(int, self.args.batches.split(",")):
                    for _ in range(self.args.repeats):
                        self.note("kac", self.kac, name, batch, threads)
                        for peer, options in self.peers.items():
                            self.note(peer, self.peer, name, batch, threads, *options)

    def note(
        self, program: str, run: Callable[..., Result], name: str, batch: int, threads: int, *options: str
    ) -> None:
        """What fails or takes too long costs no more than itself."""
        try:
            found = run(name, batch, threads, *options)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            found = {"error": str(error)}
        self.results.append({"model": name, "threads": threads, "batch": batch, "program": program} | found)
        print(json.dumps(self.results[-1]), file=sys.stderr, flush=True)

    def median(self, key: str, **wanted: object) -> float:
        """Not a number where there is none."""
        found = [r[key] for r in self.results if key in r and all(r[k] == v for k, v in wanted.items())]
        return statistics.median(found) if found else math.nan

    def table(self) -> str:
        columns = ["model", "threads", "molecules", "kac"]
        columns += [column for peer in self.peers for column in (peer, "ratio")]
        columns += ["molecules/s of 1000 steps", "GFLOP/s", "networks", "moves"]
        lines = ["| " + " | ".join(columns) + " |", "| --- |" + " ---: |" * (len(columns) - 1)]
        for name, threads, batch in dict.fromkeys((r["model"], r["threads"], r["batch"]) for r in self.results):
            case = {"model": name, "threads": threads, "batch": batch}
            own = self.median("rate", **case, program="kac")
            cells = [name, str(threads), str(batch), f"{1e3 / own:.4g}"]
            for peer in self.peers:
                other = self.median("rate", **case, program=peer)
                cells += [f"{1e3 / other:.3g}", f"**{own / other:.1f}**"]
            cells.append(f"{own / 1000:.3g}")
            cells.append(f"{2 * own * mean_flops(self.model(name), MODELS[name][0]) * 1e-9:.0f}")
            cells += [f"{100 * self.median(part, **case, program='kac'):.0f} %" for part in ("denoiser", "propose")]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kac", required=True, type=Path, help="the program")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch, numpy and safetensors")
    parser.add_argument("--models", required=True, type=Path, help="folder of gdss_NAME.safetensors")
    parser.add_argument("--only", default="qm9,zinc250k", help="models")
    parser.add_argument("--batches", default="8,64,256", help="molecules at a time")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--langevin", default="batch", choices=["batch", "particle"])
    parser.add_argument("--steps", type=int, default=30, help="of kac's chain")
    parser.add_argument("--molecule-steps", type=int, default=128, help="of PyTorch, two steps at least")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300, help="seconds of a program")
    parser.add_argument("--libraries", default="", help="folder of those of kac")
    parser.add_argument("--prefix", default="", help="what programs are started with, such as `chrt -r 1`")
    args = parser.parse_args()
    for name in args.only.split(","):
        if name not in MODELS:
            parser.error(f"--only {name}: want {' or '.join(MODELS)}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        bench.run()
    print(bench.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
