"""The fastest that we could write in PyTorch for smc and svdd_pm, to be timed beside kac.

The same networks and laws as peer_torch.py, without what an author can leave out in tensors of fixed shape: all
children in one call; a survivor's logits and value go on with it, so that svdd_pm calls the denoiser M times a
particle step and smc once; no logit of the mask; the time features, which read no time, once; taps that only meet
padding not at all; one uniform number a site for its draw; bfloat16; the whole step in one CUDA graph. What is left is
to compute only rows that changed, which fixed shapes do not allow.

The denoiser is written for activations [B,L,C], in several forms of the convolution, and the form that is fastest
here is taken (FORMS). `compiled` has torch.compile make the networks' code; what it could not is an error, and the
graph alone is then the answer.

    best_torch.py --denoiser D --reward R --algorithm smc --particles 256 --device cuda      a rate
    best_torch.py ... --chains 1                                                             rewards of whole chains
    best_torch.py ... --check                                                                logits against the module

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from peer_torch import END, EPSILON, allow_tf32, clock
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tools"))
from kac_io import Cnn1d, ConvRegressor, load_module

PRECISIONS = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
INPUTS = 8  # channels of the first convolution: one-hot, and zeros, since tensor cores want a multiple of 8


# ---------------------------------------------------------------- the denoiser


@dataclass
class Conv:
    """A convolution of [B,L,C] that pads to keep L; weight [out,in,1,taps], rows [taps in,out] is the same."""

    weight: Tensor
    rows: Tensor
    bias: Tensor
    dilation: int

    @property
    def padding(self) -> int:
        return self.weight.shape[3] // 2 * self.dilation


def make_conv(weight: Tensor, bias: Tensor, dilation: int, length: int, dtype: torch.dtype) -> Conv:
    """From PyTorch's weight [out,in,taps]; taps further out than the sequence is long are left out."""
    half = weight.shape[2] // 2
    reach = min(half, (length - 1) // dilation)
    weight = weight[:, :, half - reach : half + reach + 1].to(dtype)
    rows = weight.permute(2, 1, 0).reshape(-1, len(weight)).contiguous()
    return Conv(weight[:, :, None].contiguous(memory_format=torch.channels_last), rows, bias.to(dtype), dilation)


def by_cudnn(x: Tensor, conv: Conv) -> Tensor:
    """relu(conv), channels last."""
    image = x[:, None].permute(0, 3, 1, 2)
    y = F.conv2d(image, conv.weight, conv.bias, padding=(0, conv.padding), dilation=(1, conv.dilation))
    return F.relu(y.permute(0, 2, 3, 1)[:, 0])


def by_cudnn_fused(x: Tensor, conv: Conv) -> Tensor:
    """The same with bias and relu in cuDNN's kernel."""
    image = x[:, None].permute(0, 3, 1, 2)
    y = torch.cudnn_convolution_relu(image, conv.weight, conv.bias, (1, 1), (0, conv.padding), (1, conv.dilation), 1)
    return y.permute(0, 2, 3, 1)[:, 0]


def windows(x: Tensor, conv: Conv) -> Tensor:
    """What each output sees, [B L,taps C]."""
    length, taps = x.shape[1], conv.weight.shape[3]
    if taps == 1:
        return x.flatten(0, 1)
    wide = F.pad(x, (0, 0, conv.padding, conv.padding))
    parts = [wide[:, k * conv.dilation : k * conv.dilation + length] for k in range(taps)]
    return torch.cat(parts, -1).flatten(0, 1)


def by_gemm(x: Tensor, conv: Conv) -> Tensor:
    """One matrix product of the windows."""
    return F.relu(torch.addmm(conv.bias, windows(x, conv), conv.rows)).view(*x.shape[:2], -1)


def by_gemm_fused(x: Tensor, conv: Conv) -> Tensor:
    """The same with bias and relu in cuBLAS's kernel."""
    return torch._addmm_activation(conv.bias, windows(x, conv), conv.rows).view(*x.shape[:2], -1)


def reason(error: Exception) -> str:
    """Of a failure, in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]


Form = Callable[[Tensor, Conv], Tensor]
FORMS: dict[str, Form] = {
    "cudnn": by_cudnn,
    "cudnn fused": by_cudnn_fused,
    "gemm": by_gemm,
    "gemm fused": by_gemm_fused,
}


class Denoiser:
    """Cnn1d for tokens of one length: [B,L] -> logits of the letters, float32 [B,L,S]."""

    def __init__(self, net: Cnn1d, length: int, dtype: torch.dtype, device: torch.device):
        self.form = by_cudnn
        self.letters, self.dtype = net.symbols, dtype
        hidden = net.hidden

        def to(x: Tensor) -> Tensor:
            return x.detach().to(device, dtype)

        first = F.pad(net.linear.weight.detach(), (0, 0, 0, INPUTS - net.symbols - 1)).to(device)
        self.one_hot = torch.eye(INPUTS, device=device, dtype=dtype)
        self.first = make_conv(first, to(net.linear.bias), 1, length, dtype)
        self.convs = [
            make_conv(to(conv.weight), to(conv.bias), d, length, dtype)
            for conv, d in zip(net.convs, net.dilations, strict=True)
        ]
        self.norms = [(to(norm.weight), to(norm.bias)) for norm in net.norms]
        self.shifts: list[Tensor | None] = [None] * len(net.dilations)
        if net.time_embedder is not None:
            if net.time:
                raise ValueError("this denoiser reads the time; best_torch.py is for those that do not")
            half = torch.zeros(hidden // 2)  # sin and cos of 0
            embedded = F.relu(net.time_embedder[1](torch.cat([half, half + 1])))
            self.shifts = [to(layer["dense"](embedded)) for layer in net.time_layers]
        self.final0 = [to(net.final_conv[0].weight[:, :, 0]), to(net.final_conv[0].bias)]
        last = net.final_conv[2]
        self.final2 = [to(last.weight[: self.letters, :, 0]), to(last.bias[: self.letters])]

    def __call__(self, tokens: Tensor) -> Tensor:
        feat = self.form(F.embedding(tokens, self.one_hot), self.first)
        for conv, (scale, offset), shift in zip(self.convs, self.norms, self.shifts, strict=True):
            h = feat if shift is None else feat + shift
            feat = feat + self.form(F.layer_norm(h, h.shape[-1:], scale, offset), conv)
        return F.linear(F.relu(F.linear(feat, *self.final0)), *self.final2).float()

    def choose(self, tokens: Tensor) -> dict[str, float | str]:
        """Takes the form that is fastest for these tokens; seconds of each, or why there are none."""
        found: dict[str, float | str] = {}
        want = self(tokens)
        for name, form in FORMS.items():
            self.form = form
            try:
                self(tokens)
                if not (self(tokens) - want).abs().max() < 0.1 * want.abs().max():
                    raise RuntimeError("wrong logits")
                began = clock(tokens.device)
                for _ in range(3):
                    self(tokens)
                found[name] = (clock(tokens.device) - began) / 3
            except (RuntimeError, NotImplementedError) as error:
                found[name] = reason(error)
        timed = {name: t for name, t in found.items() if isinstance(t, float)}
        self.form = FORMS[min(timed, key=lambda name: timed[name])]
        return found


# ---------------------------------------------------------------- the step


class Best:
    """Particles of one algorithm on static tensors; `step` moves them on."""

    def __init__(
        self,
        denoiser: Denoiser,
        reward: ConvRegressor,
        algorithm: str,
        shape: tuple[int, int],
        children: int,
        steps: int,
        alpha: float,
        device: torch.device,
    ):
        self.particles, self.length = shape
        self.denoiser, self.reward, self.alpha, self.device = denoiser, reward, alpha, device
        self.children = children if algorithm == "svdd_pm" else 1
        self.advance = self.svdd_pm if algorithm == "svdd_pm" else self.smc
        self.ask = self.look
        self.mask, self.steps = denoiser.letters, steps
        grid = (1 - EPSILON) * torch.linspace(1, END, steps + 1, dtype=torch.float64)
        self.reveal = (1 - grid[1:] / grid[:-1]).to(device, torch.float32)  # probability at each step
        self.letters = torch.eye(self.mask, device=device)
        self.move = torch.zeros(1, dtype=torch.long, device=device)
        self.x = torch.empty(shape, dtype=torch.int32, device=device)
        self.logits = torch.empty(*shape, self.mask, device=device)
        self.value = torch.empty(shape[0], device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.restart()

    @property
    def rows(self) -> int:
        """Rows that the denoiser is asked at a time."""
        return self.particles * self.children

    def restart(self) -> None:
        self.move.zero_()
        self.x.fill_(self.mask)
        logits, value = self.look(self.x[:1])
        self.logits.copy_(logits.expand_as(self.logits))
        self.value.copy_(value.expand_as(self.value))

    def score(self, x0: Tensor) -> Tensor:
        half = self.denoiser.dtype == torch.bfloat16
        with torch.autocast(x0.device.type, torch.bfloat16, enabled=half):
            return self.reward(F.embedding(x0, self.letters))[:, 0].float()

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B,L] -> logits [B,L,S], reward of the likeliest x0 [B]."""
        logits = self.denoiser(x)
        x0 = torch.where(x == self.mask, logits.argmax(-1).to(x.dtype), x)
        return logits, self.score(x0)

    def propose(self) -> Tensor:
        """Children of each particle, [P,M,L]: one number says whether a site is revealed, and as what."""
        reveal = self.reveal.index_select(0, self.move)  # stays on the device, which self.reveal[self.move] would not
        u = torch.rand(self.particles, self.children, self.length, device=self.device)
        below = reveal * self.logits.softmax(-1).cumsum(-1)[:, None, :, :-1]  # [P,1,L,S-1]
        letter = (u[..., None] >= below).sum(-1, dtype=self.x.dtype)
        x = self.x[:, None]
        return torch.where((x == self.mask) & (u < reveal), letter, x)

    def keep(self, chosen: Tensor, x: Tensor, logits: Tensor, value: Tensor) -> None:
        for mine, theirs in ((self.x, x), (self.logits, logits), (self.value, value)):
            torch.index_select(theirs, 0, chosen, out=mine)
        self.move.add_(1).remainder_(self.steps)

    def svdd_pm(self) -> None:
        """Each particle goes on with its best child."""
        x = self.propose().flatten(0, 1)
        logits, value = self.ask(x)
        best = value.view(self.particles, self.children).argmax(1)
        first = torch.arange(0, self.rows, self.children, device=self.device)
        self.keep(first + best, x, logits, value)

    def smc(self) -> None:
        """Every particle competes with every other at every step, multinomially."""
        x = self.propose()[:, 0]
        logits, value = self.ask(x)
        sums = ((value - self.value).double() / self.alpha).softmax(0).cumsum(0)
        u = torch.rand(self.particles, dtype=torch.float64, device=self.device) * sums[-1]
        chosen = torch.searchsorted(sums, u, right=True).clamp_(max=self.particles - 1)
        self.keep(chosen, x, logits, value)

    def compiled(self, mode: str) -> None:
        """The networks by torch.compile, in the form that it can see through."""
        self.denoiser.form = by_cudnn
        self.ask = torch.compile(self.look, mode=mode, fullgraph=True, dynamic=False)

    def record(self) -> None:
        """The whole step as one CUDA graph; on the CPU nothing to do but to warm up."""
        self.graph = None
        if self.device.type != "cuda":
            return self.advance()
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self.advance()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.advance()
        self.graph = graph

    def step(self) -> None:
        if self.graph is not None:
            self.graph.replay()
        else:
            self.advance()

    def finish(self) -> Tensor:
        """What is still masked becomes its likeliest token; the rewards of the result."""
        return self.look(self.x)[1]


def rate(best: Best, seconds: float) -> tuple[int, float]:
    """Steps made in about these seconds, and the seconds; the device waits for nobody in between."""
    best.restart()
    best.step()
    began = clock(best.device)
    best.step()
    once = clock(best.device) - began
    steps = max(2, int(seconds / once))
    began = clock(best.device)
    for _ in range(steps):
        best.step()
    return steps, clock(best.device) - began


def chain_rewards(best: Best, chains: int) -> Tensor:
    rewards = []
    for _ in range(chains):
        best.restart()
        for _ in range(best.steps):
            best.step()
        rewards.append(best.finish())
    return torch.cat(rewards)


# ---------------------------------------------------------------- the program


def set_precision(precision: str) -> torch.dtype:
    """float32 is true float32; tf32 rounds factors in convolutions and products."""
    allow_tf32(precision != "float32", precision != "float32")
    torch.backends.cudnn.benchmark = True
    return PRECISIONS[precision]


def open_best(args: argparse.Namespace) -> Best:
    device = torch.device(args.device)
    net, meta = load_module(args.denoiser)
    reward, _ = load_module(args.reward)
    if not isinstance(net, Cnn1d) or not isinstance(reward, ConvRegressor):
        raise ValueError("best_torch.py is for a cnn1d denoiser and a conv_regressor reward")
    length = int(meta["kac.length"])
    denoiser = Denoiser(net, length, set_precision(args.precision), device)
    shape = (args.particles, length)
    return Best(denoiser, reward.to(device), args.algorithm, shape, args.children, args.steps, args.alpha, device)


def half_masked(best: Best) -> Tensor:
    """Random states, [rows,L]."""
    shape = (best.rows, best.length)
    letters = torch.randint(0, best.mask, shape, dtype=torch.int32, device=best.device)
    return torch.where(torch.rand(shape, device=best.device) < 0.5, best.mask, letters)


@torch.no_grad()
def check(args: argparse.Namespace) -> dict[str, object]:
    """Largest difference of the logits of each form to the module's, in units of the largest logit."""
    best = open_best(args)
    net, _ = load_module(args.denoiser)
    states = half_masked(best)
    want = net.to(best.device)(F.one_hot(states.long(), best.mask + 1).float())[..., : best.mask]
    result: dict[str, object] = {}
    for name, form in FORMS.items():
        best.denoiser.form = form
        try:
            result[name] = ((best.denoiser(states) - want).abs().max() / want.abs().max()).item()
        except (RuntimeError, NotImplementedError) as error:
            result[name] = reason(error)
    return result


@torch.no_grad()
def measure(args: argparse.Namespace) -> dict[str, object]:
    torch.manual_seed(args.seed)
    best = open_best(args)
    forms = best.denoiser.choose(half_masked(best))
    if args.compile:
        best.compiled(args.compile)
    began = time.perf_counter()
    without_graph = None
    try:
        best.record()
    except RuntimeError as error:
        if args.compile:
            raise
        without_graph = reason(error)
    result: dict[str, object] = {
        "form": next(name for name, form in FORMS.items() if form is best.denoiser.form),
        "forms": forms,
        "compile": args.compile or None,
        "without_graph": without_graph,
        "prepared": time.perf_counter() - began,
        "denoiser": best.children,
        "reward": best.children,
    }
    if args.chains:
        rewards = chain_rewards(best, args.chains).double()
        result |= {"mean_reward": rewards.mean().item(), "variance": rewards.var().item(), "samples": len(rewards)}
    else:
        steps, seconds = rate(best, args.seconds)
        result |= {"rate": best.particles * steps / seconds, "steps": steps, "seconds": seconds}
    return result


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--denoiser", type=Path, required=True)
    parser.add_argument("--reward", type=Path, required=True)
    parser.add_argument("--algorithm", choices=["smc", "svdd_pm"], default="svdd_pm")
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--children", type=int, default=10)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=128, help="of a whole chain")
    parser.add_argument("--precision", choices=list(PRECISIONS), default="bfloat16")
    parser.add_argument("--compile", default="", metavar="MODE", help="of torch.compile, such as default")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--chains", type=int, default=0, help="whole chains instead of seconds")
    parser.add_argument("--check", action="store_true", help="compare logits with the module's instead")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main() -> int:
    args = parse()
    print(json.dumps(check(args) if args.check else measure(args)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
