"""A process that measures PyTorch for measure_gpu.py: a line of JSON in, a line of JSON out.

One process makes all measurements, since importing PyTorch and waking a GPU take seconds. A request names what is to be
done (`do`: models, ceilings, eager, best, forward) and its arguments; the answer has what was found, or `error`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent / "tools")]
import best_torch  # noqa: E402
import peer_torch  # noqa: E402
from kac_io import load_module  # noqa: E402
from make_models import write_denoiser, write_reward  # noqa: E402


def models(out: str, lengths: list[int]) -> dict[str, object]:
    """The random networks of the published size."""
    for length in lengths:
        torch.manual_seed(length)
        write_denoiser(Path(out) / f"denoiser_{length}.safetensors", length)
        write_reward(Path(out) / f"reward_{length}.safetensors", length)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "gpu": gpu}


def ceilings(device: str) -> dict[str, object]:
    """What the GPU itself reaches: a bfloat16 product of 8192 cubed on random numbers, and a large copy."""
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    x = torch.randn(1 << 28, device=device)
    y = torch.empty_like(x)
    found = {}
    for name, work, unit in (
        ("bf16_tflops", lambda: torch.mm(a, b), 2 * 8192**3 * 1e-12),
        ("copy_gbytes", lambda: y.copy_(x), 2 * x.nbytes * 1e-9),
    ):
        for _ in range(3):
            work()
        began = peer_torch.clock(torch.device(device))
        for _ in range(20):
            work()
        found[name] = 20 * unit / (peer_torch.clock(torch.device(device)) - began)
    return found


@torch.no_grad()
def forward(denoiser: str, rows: int, precision: str, seconds: float, device: str) -> dict[str, object]:
    """The module as it is, eagerly, float32 or tf32: rows a second."""
    peer_torch.allow_tf32(precision != "float32", precision != "float32")
    torch.backends.cudnn.benchmark = True
    place = torch.device(device)
    net, meta = load_module(denoiser)
    net.to(place)
    states = torch.randint(0, len(meta["kac.alphabet"]) + 1, (rows, int(meta["kac.length"])), device=place)
    x = F.one_hot(states, len(meta["kac.alphabet"]) + 1).float()
    net(x)
    began = peer_torch.clock(place)
    done = 0
    while done == 0 or peer_torch.clock(place) - began < seconds:
        net(x)
        done += 1
    return {"rate": rows * done / (peer_torch.clock(place) - began)}


def answer(request: dict[str, Any]) -> dict[str, object]:
    """Settings that a measurement changes are put back, so that their order does not matter."""
    do = request.pop("do")
    torch.backends.cudnn.benchmark = False
    if do == "models":
        return models(**request)
    if do == "ceilings":
        return ceilings(**request)
    if do == "forward":
        return forward(**request)
    module = {"eager": peer_torch, "best": best_torch}[do]
    options = [f"--{key}={value}" for key, value in request.items() if value is not True]
    options += [f"--{key}" for key, value in request.items() if value is True]
    return module.measure(module.parse(options))


def main() -> int:
    replies = os.fdopen(os.dup(1), "w")  # what libraries print must not come between
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:
            reply = {"error": best_torch.reason(error)}
        print(json.dumps(reply), file=replies, flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
