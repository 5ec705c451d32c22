"""A PyTorch program that samples molecules as the published GDSS does, to be timed beside kac.

Jo, Lee and Hwang, "Score-based generative modeling of graphs via the system of stochastic differential equations", ICML
2022, written anew from the formulas of the networks and of its predictor-corrector sampler (reverse diffusion and
Langevin dynamics): graphs are padded to the most nodes that the model has, both networks are asked twice a step, and
every channel of an attention layer has graph convolutions of its own, in a Python loop.

    peer_gdss.py --model M --batch 64 --seconds 10                     as many steps as that takes
    peer_gdss.py --model M --batch 64 --device cuda                    on a GPU
    peer_gdss.py --model M --batch 64 --device cuda --graph            a step captured in a CUDA graph and replayed
    peer_gdss.py --model M --batch 64 --device cuda --compile default  both networks through torch.compile
    peer_gdss.py --model M --flush                                     subnormal numbers as 0: weight decay left some
    peer_gdss.py --model M --recording R                               largest relative difference from recorded scores

`--sizes 9:5,8:1` draws numbers of nodes by these weights; without it all are the most. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent.parent / "tools")]
from kac_io import load  # noqa: E402
from peer_torch import clock  # noqa: E402

POINTS, END = 1000, 1e-4
SNR, HEAT = 0.2, {"VP": 0.9, "VE": 0.7}  # by the noise of the nodes: ZINC250k, QM9


class Gcn(nn.Module):
    """A dense graph convolution with the diagonal at 1 and the degree clamped at 1."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        adj = adj.clone()
        adj.diagonal(dim1=-2, dim2=-1).fill_(1)  # an index would copy the 1 to a GPU, which no CUDA graph may do
        out = torch.matmul(x, self.weight)
        degree = adj.sum(-1).clamp(min=1).pow(-0.5)
        adj = degree.unsqueeze(-1) * adj * degree.unsqueeze(-2)
        return torch.matmul(adj, out) + self.bias


class Mlp(nn.Module):
    def __init__(self, layers: list[tuple[Tensor, Tensor]]):
        super().__init__()
        self.linears = nn.ModuleList()
        for weight, bias in layers:
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
            self.linears.append(linear)

    def forward(self, x: Tensor) -> Tensor:
        for linear in self.linears[:-1]:
            x = F.elu(linear(x))
        return self.linears[-1](x)


class Attention(nn.Module):
    """Multi-head attention of every adjacency channel; new features of the nodes and new channels."""

    def __init__(self, channels: list[tuple[Gcn, Gcn, Gcn]], nodes: Mlp, pairs: Mlp, heads: int):
        super().__init__()
        self.channels = nn.ModuleList(nn.ModuleList(three) for three in channels)
        self.nodes, self.pairs, self.heads = nodes, pairs, heads

    def forward(self, x: Tensor, adj: Tensor, flags: Tensor) -> tuple[Tensor, Tensor]:
        values, scores = [], []
        for c, (query, key, value) in enumerate(self.channels):
            a = adj[:, c]
            q, k, v = query(x, a), key(x, a), value(x, a)
            width = q.shape[-1] // self.heads
            q, k = torch.cat(q.split(width, 2), 0), torch.cat(k.split(width, 2), 0)
            s = torch.tanh(q.bmm(k.transpose(1, 2)) / v.shape[-1] ** 0.5)
            s = s.view(-1, *a.shape).mean(0)
            values.append(v)
            scores.append((s + s.transpose(-1, -2)) / 2)
        x = torch.tanh(self.nodes(torch.cat(values, -1)) * flags[:, :, None])
        out = self.pairs(torch.cat([torch.stack(scores, 1), adj], 1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x, mask_pairs(out + out.transpose(-1, -2), flags)


def mask_pairs(adj: Tensor, flags: Tensor) -> Tensor:
    """adj is [B,N,N] or [B,C,N,N]."""
    if adj.dim() == 4:
        flags = flags.unsqueeze(1)
    return adj * flags.unsqueeze(-1) * flags.unsqueeze(-2)


class Network(nn.Module):
    """ScoreNetworkX, ScoreNetworkX_GMH or ScoreNetworkA from the tensors whose names begin with `prefix`."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str, params: dict):
        super().__init__()
        self.of_pairs = params["model_type"] == "ScoreNetworkA"
        self.twice = params["model_type"] == "ScoreNetworkX_GMH"
        self.attends = self.of_pairs or self.twice

        def gcn(name: str) -> Gcn:
            return Gcn(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

        def mlp(name: str) -> Mlp:
            layers = []
            while f"{name}.linears.{len(layers)}.weight" in tensors:
                at = f"{name}.linears.{len(layers)}"
                layers.append((tensors[f"{at}.weight"], tensors[f"{at}.bias"]))
            return Mlp(layers)

        self.layers = nn.ModuleList()
        while any(name.startswith(f"{prefix}.layers.{len(self.layers)}.") for name in tensors):
            at = f"{prefix}.layers.{len(self.layers)}"
            if not self.attends:
                self.layers.append(gcn(at))
                continue
            channels: list[tuple[Gcn, Gcn, Gcn]] = []
            while f"{at}.attn.{len(channels)}.gnn_q.weight" in tensors:
                one = f"{at}.attn.{len(channels)}.gnn"
                channels.append((gcn(f"{one}_q"), gcn(f"{one}_k"), gcn(f"{one}_v")))
            pairs, nodes = mlp(f"{at}.mlp"), mlp(f"{at}.multi_channel")
            self.layers.append(Attention(channels, nodes, pairs, params["num_heads"]))
        self.final = mlp(f"{prefix}.final")

    def forward(self, x: Tensor, adj: Tensor, flags: Tensor) -> Tensor:
        features = [x]
        channels = torch.stack([adj, torch.bmm(adj, adj)], 1) if self.attends else adj
        all_channels = [channels]
        for layer in self.layers:
            if self.attends:
                x, channels = layer(x, channels, flags)
                x = torch.tanh(x) if self.twice else x
                all_channels.append(channels)
            else:
                x = torch.tanh(layer(x, adj))
            features.append(x)
        if not self.of_pairs:
            return self.final(torch.cat(features, -1)) * flags[:, :, None]
        out = self.final(torch.cat(all_channels, 1).permute(0, 2, 3, 1)).squeeze(-1)
        return mask_pairs(out * (1 - torch.eye(out.shape[-1], device=out.device)), flags)


class Model:
    """Both networks and the tables of their noise."""

    def __init__(self, path: Path, device: torch.device, compile_mode: str = ""):
        tensors, meta = load(path)
        self.nodes, self.features = int(meta["max_node_num"]), int(meta["max_feat_num"])
        self.networks: list[Callable[[Tensor, Tensor, Tensor], Tensor]] = []
        self.noise = [json.loads(meta[f"sde_{part}"]) for part in ("x", "adj")]
        self.tables = []
        for part, params in (("x", "params_x"), ("adj", "params_adj")):
            network = Network(tensors, part, json.loads(meta[params])).eval().to(device)
            self.networks.append(torch.compile(network, mode=compile_mode) if compile_mode else network)
        for noise in self.noise:
            self.tables.append(table_of(noise).to(device))
        self.heat = HEAT[self.noise[0]["type"]]


def table_of(noise: dict) -> Tensor:
    """Rows of the steps: factor of the answer, alpha, and of the predictor keep, push and spread."""
    low, high = noise["beta_min"], noise["beta_max"]
    rows = torch.empty(POINTS, 5)
    if noise["type"] == "VP":
        t = torch.linspace(1, END, POINTS)
        beta = torch.linspace(low / POINTS, high / POINTS, POINTS).flip(0)
        deviation = torch.sqrt(1 - torch.exp(2 * (-0.25 * t**2 * (high - low) - 0.5 * t * low)))
        rows[:, 0], rows[:, 1], rows[:, 2] = -1 / deviation, 1 - beta, 2 - torch.sqrt(1 - beta)
        rows[:, 3] = beta
    else:
        sigma = torch.exp(torch.linspace(torch.tensor(low).log(), torch.tensor(high).log(), POINTS))
        below = torch.cat([torch.zeros(1), sigma[:-1]])
        rows[:, :3] = 1
        rows[:, 3] = (sigma**2 - below**2).flip(0)
    rows[:, 4] = rows[:, 3].sqrt()
    return rows


class Sampler:
    def __init__(self, model: Model, sizes: Tensor, device: torch.device):
        self.model, self.step_number = model, torch.zeros(1, dtype=torch.long, device=device)
        self.flags = (torch.arange(model.nodes)[None] < sizes[:, None]).float().to(device)
        self.x, self.adj = self.draw()

    def draw(self) -> tuple[Tensor, Tensor]:
        batch, nodes = self.flags.shape
        x = torch.randn(batch, nodes, self.model.features, device=self.flags.device) * self.flags[:, :, None]
        adj = torch.randn(batch, nodes, nodes, device=self.flags.device).triu(1)
        return x, mask_pairs(adj + adj.transpose(-1, -2), self.flags)

    def answers(self, rows: list[Tensor], x: Tensor, adj: Tensor) -> list[Tensor]:
        return [row[0] * network(x, adj, self.flags) for row, network in zip(rows, self.model.networks, strict=True)]

    def step(self) -> None:
        """One step of the corrector and the predictor, into self.x and self.adj."""
        rows = [table.index_select(0, self.step_number)[0] for table in self.model.tables]  # nothing waits for the GPU
        state = [self.x, self.adj]
        for predicts in (False, True):
            scores, moved = self.answers(rows, *state), []
            for row, value, score, z in zip(rows, state, scores, self.draw(), strict=True):
                if predicts:
                    moved.append(row[2] * value + row[3] * score + row[4] * z)
                    continue
                norms = [torch.norm(v.reshape(v.shape[0], -1), dim=-1).mean() for v in (z, score)]
                size = 2 * row[1] * (SNR * norms[0] / norms[1]) ** 2
                moved.append(value + size * score + torch.sqrt(2 * size) * z * self.model.heat)
            state = moved
        self.x, self.adj = state


def capture(sampler: Sampler) -> Callable[[], None]:
    """A step as a CUDA graph that reads and writes the same memory."""
    x, adj = sampler.x.clone(), sampler.adj.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            sampler.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sampler.x, sampler.adj = x, adj
        sampler.step()
        x.copy_(sampler.x)
        adj.copy_(sampler.adj)
    return graph.replay


def draw_sizes(text: str, batch: int, nodes: int) -> Tensor:
    if not text:
        return torch.full((batch,), nodes)
    pairs = [entry.split(":") for entry in text.split(",")]
    weights = torch.tensor([float(weight) for _, weight in pairs])
    return torch.tensor([int(n) for n, _ in pairs])[torch.multinomial(weights, batch, replacement=True)]


@torch.no_grad()
def compare(model: Model, recording: Path) -> float:
    """max |a - b| / max |b| over the recorded answers of the networks."""
    tensors, _ = load(recording)
    worst = 0.0
    for name in tensors:
        if not name.endswith(".net_x"):
            continue
        prefix = name.removesuffix(".net_x")
        x, adj, flags = (tensors[f"{prefix}.{part}"] for part in ("X", "A", "flags"))
        for network, part in zip(model.networks, ("net_x", "net_adj"), strict=True):
            wanted = tensors[f"{prefix}.{part}"]
            worst = max(worst, float((network(x, adj, flags) - wanted).abs().max() / wanted.abs().max()))
    return worst


@torch.no_grad()
def measure(args: argparse.Namespace) -> dict[str, object]:
    """Molecule steps a second."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(args.flush)
    device = torch.device(args.device)
    began = clock(device)
    model = Model(args.model, device, args.compile)
    if args.recording:
        return {"worst": compare(model, args.recording)}
    sampler = Sampler(model, draw_sizes(args.sizes, args.batch, model.nodes), device)
    step = sampler.step
    if args.graph:
        step = capture(sampler)
    step()
    ready = clock(device)
    done = 0
    while done < args.steps or (args.steps == 0 and (done == 0 or clock(device) - ready < args.seconds)):
        sampler.step_number.fill_(done % POINTS)
        step()
        done += 1
    seconds = clock(device) - ready
    finite = bool(torch.isfinite(sampler.x).all() and torch.isfinite(sampler.adj).all())
    return {
        "rate": args.batch * done / seconds,
        "steps": done,
        "seconds": seconds,
        "setup": ready - began,
        "finite": finite,
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a gdss file")
    parser.add_argument("--batch", type=int, default=64, help="molecules")
    parser.add_argument("--sizes", default="", help="weights of numbers of nodes, 9:5,8:1")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=0, help="instead of --seconds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--graph", action="store_true", help="capture a step in a CUDA graph")
    parser.add_argument("--compile", default="", help="a mode of torch.compile")
    parser.add_argument("--flush", action="store_true", help="numbers below the normal ones become 0")
    parser.add_argument("--recording", type=Path, help="compare with its scores instead")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    print(json.dumps(measure(parse())))
