#!/usr/bin/env python3
"""Makes models/gmm_ring.safetensors, gmm_east.safetensors and gmm_measurement.safetensors: denoisers and a reward in closed form.

The ring is a mixture of eight Gaussians in the plane, of radius 4 and deviation 0.3, the one in the east of double
weight. The measurement says that the first coordinate is 2.8, give or take 0.4: r(x) = -((x0 - 2.8) / 0.4)^2 / 2, so that
p* at alpha 1 is the posterior. The east is one Gaussian about (3, 0) of deviation 2, to take products with. Needs
Python alone.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
from pathlib import Path


def save(path: Path, tensors: dict[str, tuple[list[int], list[float]]], metadata: dict[str, str]) -> None:
    """Write float32 tensors (shape, numbers) as safetensors whose data start at a multiple of 64 bytes."""
    header: dict[str, object] = {"__metadata__": metadata}
    data = b""
    for name, (shape, numbers) in tensors.items():
        begin = len(data)
        data += struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder to write into (models)")
    out = parser.parse_args().out
    means = [4 * f(math.pi * k / 4) for k in range(8) for f in (math.cos, math.sin)]
    save(
        out / "gmm_ring.safetensors",
        {"means": ([8, 2], means), "variances": ([8], [0.09] * 8), "weights": ([8], [2.0] + [1.0] * 7)},
        {"kac.arch": "gmm", "kac.role": "denoiser"},
    )
    save(
        out / "gmm_east.safetensors",
        {"means": ([1, 2], [3.0, 0.0]), "variances": ([1], [4.0]), "weights": ([1], [1.0])},
        {"kac.arch": "gmm", "kac.role": "denoiser"},
    )
    save(
        out / "gmm_measurement.safetensors",
        {"matrix": ([1, 2], [1.0, 0.0]), "target": ([1], [2.8]), "deviation": ([1], [0.4])},
        {"kac.arch": "quadratic", "kac.role": "reward"},
    )


if __name__ == "__main__":
    main()
