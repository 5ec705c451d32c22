"""A PyTorch program that samples as the published loops do, to be timed beside kac.

It follows masked diffusion guided as in the code of SVDD (arXiv 2408.08252) and DRAKES (arXiv 2410.13643), written
anew from their formulas: batched over particles, log-linear schedule, SUBS, categorical draws by an exponential race
over all positions, a Python loop over the M children. Nothing is reused: smc calls the denoiser three times a step
(proposal, look-ahead of the child, look-ahead of the parent) and the reward twice; svdd_pm calls them 1 + M and M
times.

    peer_torch.py --denoiser D --reward R --algorithm smc --particles 256 --seconds 10    as many steps as that takes
    peer_torch.py --denoiser D --reward R --algorithm smc --particles 256 --chains 1      whole chains, their rewards
    peer_torch.py --denoiser D --reward R --algorithm smc --particles 256 --device cuda   on a GPU
    peer_torch.py --about                                                                 versions

On a GPU float32 convolutions may use TF32, which is PyTorch's default and so what the published code ran;
`--float32` forbids it. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tools"))
from kac_io import load_module

EPSILON, END = 1e-3, 1e-5


def allow_tf32(convolutions: bool, products: bool = False) -> None:
    """What a GPU may round to 10 bits; PyTorch's default is convolutions alone."""
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.backends.cuda.matmul.allow_tf32 = products


def clock(device: torch.device) -> float:
    """Seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def race(weights: Tensor) -> Tensor:
    """Categorical draws along the last axis: the smallest of exponential times with these rates."""
    times = 1e-10 - (torch.rand_like(weights) + 1e-10).log()
    return (weights / times).argmax(-1)


@dataclass
class Peer:
    denoiser: nn.Module
    reward: nn.Module
    mask: int
    length: int
    steps: int
    alpha: float
    children: int
    device: torch.device
    calls: dict[str, int] = field(default_factory=lambda: {"denoiser": 0, "reward": 0})

    def start(self, particles: int) -> Tensor:
        return torch.full((particles, self.length), self.mask, device=self.device)

    def log_p(self, x: Tensor) -> Tensor:
        """Tokens [B,L] -> log p(x0) [B,L,S+1]: no mask, and revealed positions keep their token."""
        self.calls["denoiser"] += len(x)
        logits = self.denoiser(F.one_hot(x, self.mask + 1).float())
        logits[..., self.mask] += -1e6
        logits = logits - logits.logsumexp(-1, keepdim=True)
        revealed = x != self.mask
        logits[revealed] = -1e6
        logits[revealed, x[revealed]] = 0
        return logits

    def value(self, x: Tensor) -> Tensor:
        """The reward of the likeliest x0, [B]."""
        best = self.log_p(x).argmax(-1)
        return self.score(torch.where(x != self.mask, x, best))

    def score(self, x0: Tensor) -> Tensor:
        self.calls["reward"] += len(x0)
        return self.reward(F.one_hot(x0, self.mask).float())[:, 0]

    def move_weights(self, x: Tensor, step: int) -> Tensor:
        """Unnormalised probabilities of the tokens after this step, [B,L,S+1]."""
        grid = torch.linspace(1, END, self.steps + 1, device=self.device)
        t = grid[step].expand(len(x))
        s = t - (1 - END) / self.steps
        mask_t, mask_s = ((1 - EPSILON) * u[:, None, None] for u in (t, s))
        weights = self.log_p(x).exp() * (mask_t - mask_s)
        weights[..., self.mask] = mask_s[..., 0]
        return weights

    def child(self, x: Tensor, weights: Tensor) -> Tensor:
        return torch.where(x != self.mask, x, race(weights))

    def pretrained(self, x: Tensor, step: int) -> Tensor:
        return self.child(x, self.move_weights(x, step))

    def smc(self, x: Tensor, step: int) -> Tensor:
        """Every particle competes with every other at every step."""
        y = self.child(x, self.move_weights(x, step))
        log_w = ((self.value(y) - self.value(x)) / self.alpha).double()
        return y[torch.multinomial(log_w.softmax(0), len(y), replacement=True)]

    def svdd_pm(self, x: Tensor, step: int) -> Tensor:
        """Each particle goes on with its best child."""
        weights = self.move_weights(x, step)
        children, values = [], []
        for _ in range(self.children):
            children.append(self.child(x, weights))
            values.append(self.value(children[-1]))
        best = torch.stack(values, 1).softmax(1).argmax(1)
        return torch.stack(children, 1)[torch.arange(len(x), device=self.device), best]

    def finish(self, x: Tensor) -> Tensor:
        """What is still masked becomes its likeliest token; the rewards of the result."""
        return self.score(self.log_p(x)[..., : self.mask].argmax(-1))


def peak_kib() -> int:
    """Peak resident memory of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def about() -> dict[str, str]:
    lines = [line.strip(" -") for line in torch.__config__.show().splitlines()]
    keep = [line for line in lines if line.startswith(("Intel(R)", "OpenBLAS", "CPU capability", "OpenMP"))]
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "build": "; ".join(keep),
        "onednn": str(torch.backends.mkldnn.is_available()),
        "float32 products": torch.get_float32_matmul_precision(),
    }


@torch.no_grad()
def measure(args: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    imported = peak_kib()
    allow_tf32(not args.float32)
    device = torch.device(args.device)
    denoiser, meta = load_module(args.denoiser)
    reward, _ = load_module(args.reward)
    mask, length = len(meta["kac.alphabet"]), int(meta["kac.length"])
    peer = Peer(denoiser.to(device), reward.to(device), mask, length, args.steps, args.alpha, args.children, device)
    move = getattr(peer, args.algorithm)

    move(peer.start(args.particles), 0)  # warm-up: libraries prepare themselves at the first call of a shape
    peer.calls.update(denoiser=0, reward=0)
    rewards: list[Tensor] = []
    done = 0
    x = peer.start(args.particles)
    began = clock(device)
    while len(rewards) < args.chains if args.chains else clock(device) - began < args.seconds:
        x = move(x, done % args.steps)
        done += 1
        if done % args.steps == 0:
            rewards.append(peer.finish(x))
            x = peer.start(args.particles)
    seconds = clock(device) - began
    result: dict[str, object] = {
        "seconds": seconds,
        "steps": done,
        "rate": args.particles * done / seconds,
        "denoiser": peer.calls["denoiser"] / (args.particles * done),
        "reward": peer.calls["reward"] / (args.particles * done),
        "imported_kib": imported,
    }
    if rewards:
        every = torch.cat(rewards).double()
        result |= {"mean_reward": every.mean().item(), "variance": every.var().item(), "samples": len(every)}
    return result


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--about", action="store_true")
    parser.add_argument("--denoiser", type=Path)
    parser.add_argument("--reward", type=Path)
    parser.add_argument("--algorithm", choices=["pretrained", "smc", "svdd_pm"], default="pretrained")
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--children", type=int, default=10)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=128, help="of a whole chain")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--chains", type=int, default=0, help="whole chains instead of seconds")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--float32", action="store_true", help="no TF32 in convolutions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    if not args.about and not (args.denoiser and args.reward):
        parser.error("--denoiser and --reward are needed")
    return args


def main() -> int:
    args = parse()
    print(json.dumps(about() if args.about else measure(args)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
