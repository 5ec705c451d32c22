"""Write tests/golden: small networks with random weights, and what PyTorch computes with them.

For each NAME.safetensors there is NAME_recording.safetensors with inputs and outputs. Weights and inputs are rounded to
float32, everything is computed in float64, and the outputs are stored as float32: the recording is the exact answer.
NAME_vjp.safetensors has gradients of some of them and of the models that are shipped, with respect to the input:
cotangent . d output / d input, from float32 cotangents.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from needs import need

need("numpy", "torch", "safetensors")
import torch
from torch import Tensor, nn

from kac_io import Cnn1d, ConvGru, ConvRegressor, Gin, load_module, one_hot, save

DNA, PROTEIN = "ACGT", "ACDEFGHIKLMNPQRSTVWY"
EVERY_LAYER = (
    "conv,pad=same,act=gelu;conv,pad=valid,dilation=2,act=relu;maxpool,size=2;conv,pad=same,dilation=3,act=elu;"
    "avgpool,size=3;conv,pad=same,act=tanh;flatten;dense,act=relu;dense"
)


def randomise(net: nn.Module, gain: float) -> nn.Module:
    """Float32 weights of about this gain, with biases and norm statistics far from their defaults."""
    for name, value in net.state_dict().items():
        if not value.is_floating_point() or name.endswith(".W"):
            continue
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif value.ndim == 1:
            value.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
        else:
            inputs = value[..., 0].numel() if "kernels" in name else value[0].numel()
            value.normal_(0.0, gain / inputs**0.5)
    return net.float().eval()


def write_cnn1d(folder: Path, name: str, alphabet: str, length: int, seed: int, sigmas: list[float], **sizes) -> None:
    torch.manual_seed(seed)
    net = randomise(Cnn1d(len(alphabet), **sizes), 1.0)
    meta = net.metadata(alphabet, length) | {"kac.card": f"random weights, seed {seed}"}
    save(folder / f"{name}.safetensors", net.state_dict(), meta)
    mask = len(alphabet)
    tokens = torch.randint(0, mask, (6, length))
    share = torch.tensor([1.0, 0.9, 0.6, 0.3, 0.1, 0.0])  # from all masked to all revealed
    tokens = torch.where(torch.rand(tokens.shape) < share[:, None], mask, tokens)
    tensors: dict[str, Tensor] = {"tokens": tokens.to(torch.uint8)}
    if sigmas:
        tensors["sigma"] = torch.tensor(sigmas).repeat_interleave(6)
        tensors["tokens"] = tensors["tokens"].repeat(len(sigmas), 1)
    net, _ = load_module(folder / f"{name}.safetensors")
    net.double()
    sigma = tensors["sigma"].double() if sigmas else None
    with torch.no_grad():
        tensors["logits"] = net(one_hot(tensors["tokens"], mask + 1, torch.float64), sigma).float()
    record(folder, name, tensors, seed)


def write_reward(folder: Path, name: str, net: ConvGru | ConvRegressor, alphabet: str, length: int, seed: int) -> None:
    torch.manual_seed(seed)
    randomise(net, 1.5)
    meta = net.metadata(alphabet) if isinstance(net, ConvGru) else net.metadata()
    save(folder / f"{name}.safetensors", net.tensors(), meta | {"kac.card": f"random weights, seed {seed}"})
    tokens = torch.randint(0, len(alphabet), (8, length)).to(torch.uint8)
    tokens[0] = 0
    soft = torch.randn(4, length, len(alphabet)).mul(2).softmax(-1)
    net, _ = load_module(folder / f"{name}.safetensors")
    net.double()
    with torch.no_grad():
        tensors = {
            "tokens": tokens,
            "output": net(one_hot(tokens, len(alphabet), torch.float64)).float(),
            "probabilities": soft,
            "output_probabilities": net(soft.double()).float(),
        }
    record(folder, name, tensors, seed)


def write_gin(folder: Path, name: str, net: Gin, seed: int) -> None:
    torch.manual_seed(seed)
    randomise(net, 1.5)
    save(folder / f"{name}.safetensors", net.tensors(), net.metadata() | {"kac.card": f"random weights, seed {seed}"})
    count = torch.arange(net.nodes + 1)
    rows = torch.randn(len(count), 1 + net.nodes * net.features + net.nodes * (net.nodes - 1) // 2)
    rows[:, 0] = count
    net, _ = load_module(folder / f"{name}.safetensors")
    with torch.no_grad():
        output = net.double()(rows.double()).float()
    record(folder, name, {"vectors": rows, "output": output}, seed)


def gradient(net: nn.Module, x: Tensor, cotangent: Tensor, *others: Tensor) -> Tensor:
    """cotangent . d net(x) / d x; a cotangent may leave out the last outputs (the mask's)."""
    x = x.double().requires_grad_()
    out = net(x, *others)[..., : cotangent.shape[-1]]
    return torch.autograd.grad(out, x, cotangent.double())[0].float()


def write_vjp(folder: Path, model: Path, seed: int) -> None:
    torch.manual_seed(seed)
    net, meta = load_module(model)
    net.double()
    size, rows = len(meta["kac.alphabet"]), 4
    length = int(meta.get("kac.length", 29))
    tokens = torch.randint(0, size, (rows, length))
    share = torch.tensor([1.0, 0.6, 0.2, 0.0])  # from all masked to all revealed
    tokens = torch.where(torch.rand(tokens.shape) < share[:, None], size, tokens)
    tensors: dict[str, Tensor] = {"tokens": tokens.to(torch.uint8)}
    if isinstance(net, Cnn1d):
        cotangent = tensors["cotangent"] = torch.randn(rows, length, size)
        sigma = tensors["sigma"] = torch.tensor([3.0, 1.0, 0.3, 0.05])
        tensors["gradient"] = gradient(net, one_hot(tokens, size + 1), cotangent, sigma.double())
    else:
        # Masked letters can give a maximum to several sites at once, which then has no derivative.
        tokens = torch.where(tokens == size, torch.randint(0, size, tokens.shape), tokens)
        tensors["tokens"] = tokens.to(torch.uint8)
        soft = tensors["probabilities"] = torch.randn(rows, length, size).mul(2).softmax(-1)
        for suffix, x in (("", one_hot(tokens, size)), ("_probabilities", soft)):
            cotangent = tensors["cotangent" + suffix] = torch.randn(net(x.double()).shape)
            tensors["gradient" + suffix] = gradient(net, x, cotangent)
    record(folder, model.stem, tensors, seed, "vjp")


def record(folder: Path, name: str, tensors: dict[str, Tensor], seed: int, kind: str = "recording") -> None:
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise ValueError(f"{name}: {key} is not finite")
    meta = {
        "model": f"{name}.safetensors",
        "made_by": "tools/make_goldens.py",
        "torch": torch.__version__,
        "seed": seed,
        "arithmetic": "computed in float64 from float32 weights and inputs, stored as float32",
    }
    save(folder / f"{name}_{kind}.safetensors", tensors, meta)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tests/golden"))
    parser.add_argument("--models", type=Path, default=Path("models"), help="the shipped models")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    out = args.out

    # The time embedder at sigma = 0 is a constant, to be folded; dilation 64 has one live tap at 50 letters.
    write_cnn1d(out, "cnn1d_folded", DNA, 50, 1, [], hidden=32, kernel=9, dilations=[1, 16, 64], embedder=True)
    write_cnn1d(
        out, "cnn1d_time", DNA, 50, 2, [0.05, 1.7], hidden=32, kernel=9, dilations=[1, 4, 64], embedder=True, time=True
    )
    write_cnn1d(out, "cnn1d_protein", PROTEIN, 33, 3, [], hidden=24, kernel=5, dilations=[1, 4, 16, 64])
    write_reward(out, "convgru_plain", ConvGru(4, 16), DNA, 50, 4)
    write_reward(out, "convgru_norm", ConvGru(4, 16, tasks=3, norm=True, residual=True), DNA, 41, 5)
    write_reward(
        out,
        "conv_regressor_flatten",
        ConvRegressor(EVERY_LAYER, DNA, 47, [20, 24, 16, 16, 12, 3], [7, 4, 5, 4]),
        DNA,
        47,
        6,
    )
    write_reward(
        out,
        "conv_regressor_globalmax",
        ConvRegressor(
            "conv,pad=same,act=relu;maxpool,size=3;conv,pad=valid;globalmax;dense,act=tanh;dense",
            DNA,
            30,
            [16, 24, 8, 2],
            [8, 3],
            prefix="TTAC",
            suffix="ATGG",
            scale=1.5,
            offset=-2.25,
        ),
        DNA,
        30,
        7,
    )
    write_reward(
        out,
        "conv_regressor_globalavg",
        ConvRegressor("conv,pad=valid,act=gelu;globalavg;dense,act=elu;dense", PROTEIN, 25, [18, 7, 1], [6]),
        PROTEIN,
        25,
        8,
    )
    write_gin(out, "gin", Gin(6, 4, [(22, 13), (18, 9), (24, 12)], outputs=2), 16)
    random = ["cnn1d_time", "cnn1d_protein", "convgru_norm", "conv_regressor_flatten", "conv_regressor_globalmax"]
    shipped = ["promoter_denoiser", "promoter_expression"]
    models = [out / f"{name}.safetensors" for name in random]
    models += [args.models / f"{name}.safetensors" for name in shipped]
    for seed, model in enumerate(models, start=9):
        write_vjp(out, model, seed)
    sizes = {path.name: path.stat().st_size for path in sorted(out.glob("*.safetensors"))}
    for name, size in sizes.items():
        print(f"{size:8d} {name}")
    print(f"{sum(sizes.values()):8d} in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
