"""Model files of kac, seen from Python: reader, writer and PyTorch reference networks.

A model file is safetensors with float32 tensors; its `__metadata__` names the architecture. The modules here
are the only PyTorch definition of each architecture: training, converters and goldens use them. Positions are
the last but one axis of every input and output; inputs are one-hot or probability rows, or rows of graphs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from needs import need

need("numpy", "torch", "safetensors")
import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

ALIGN = 64  # byte boundary on which the data section starts
_DTYPES = {"float64": "F64", "float32": "F32", "int64": "I64", "int32": "I32", "uint8": "U8"}
_ACTIVATIONS = {"linear": lambda x: x, "relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh, "elu": F.elu}


# ---------------------------------------------------------------- files


def save(path: str | Path, tensors: Mapping[str, Tensor | np.ndarray], metadata: Mapping[str, object]) -> None:
    """Write safetensors whose data section starts on a 64-byte boundary.

    Tensors of a whole number of 64-byte lines come first, so that most of them are aligned too.
    """
    arrays = {name: np.ascontiguousarray(torch.as_tensor(t).detach().cpu().numpy()) for name, t in tensors.items()}
    order = sorted(arrays, key=lambda n: (arrays[n].nbytes % ALIGN != 0, -arrays[n].itemsize))
    header: dict[str, object] = {"__metadata__": {key: str(value) for key, value in metadata.items()}}
    offset = 0
    for name in order:
        array = arrays[name]
        if array.dtype.name not in _DTYPES:
            raise ValueError(f"{name}: dtype {array.dtype} is not one of {', '.join(_DTYPES)}")
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGN)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            file.write(arrays[name].tobytes())


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors by name, metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path}: {error}") from error


def encode(sequences: Sequence[str], alphabet: str) -> np.ndarray:
    """Sequences of one length -> tokens uint8 [B,L], indices into the alphabet."""
    table = np.full(256, 255, np.uint8)
    table[np.frombuffer(alphabet.encode(), np.uint8)] = np.arange(len(alphabet), dtype=np.uint8)
    tokens = table[np.frombuffer("".join(sequences).encode(), np.uint8)].reshape(len(sequences), -1)
    if (tokens == 255).any():
        row, column = np.argwhere(tokens == 255)[0]
        raise ValueError(f"sequence {row}: {sequences[row][column]!r} at position {column} is not in {alphabet}")
    return tokens


def one_hot(tokens: Tensor, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Tokens [B,L] -> one-hot rows [B,L,size]; a token >= size is an all-zero row."""
    rows = torch.cat([torch.eye(size, dtype=dtype), torch.zeros(1, size, dtype=dtype)])
    return rows[tokens.long().clamp(max=size)]


# ---------------------------------------------------------------- cnn1d (denoiser)


class Cnn1d(nn.Module):
    """Residual dilated CNN denoiser: one-hot [B,L,S+1] (mask is index S) -> logits [B,L,S+1].

    With `time_embedder`, every layer adds a bias that depends on sigma; a net with `time=False` reads sigma = 0.
    """

    def __init__(
        self,
        symbols: int,
        hidden: int,
        kernel: int,
        dilations: Sequence[int],
        embedder: bool = False,
        time: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"cnn1d: the kernel must be odd, not {kernel}")
        if time and not embedder:
            raise ValueError("cnn1d: a net that reads t needs a time embedder")
        self.symbols, self.hidden, self.kernel = symbols, hidden, kernel
        self.dilations, self.time, self.dropout = list(dilations), time, dropout
        self.linear = nn.Conv1d(symbols + 1, hidden, kernel, padding=kernel // 2)
        self.convs = nn.ModuleList(
            nn.Conv1d(hidden, hidden, kernel, dilation=d, padding=d * (kernel // 2)) for d in dilations
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in dilations)
        self.final_conv = nn.Sequential(nn.Conv1d(hidden, hidden, 1), nn.ReLU(), nn.Conv1d(hidden, symbols + 1, 1))
        if embedder:
            features = nn.Module()
            features.register_parameter("W", nn.Parameter(torch.randn(hidden // 2), requires_grad=False))
            self.time_embedder = nn.ModuleList([features, nn.Linear(hidden, hidden)])
            self.time_layers = nn.ModuleList(nn.ModuleDict({"dense": nn.Linear(hidden, hidden)}) for _ in dilations)
        else:
            self.time_embedder = None

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """x [B,L,S+1], sigma [B] or None -> logits [B,L,S+1]."""
        feat = F.relu(self.linear(x.transpose(1, 2)))
        cond = None
        if self.time_embedder is not None:
            if not self.time or sigma is None:
                sigma = x.new_zeros(len(x))
            angle = 2 * math.pi * sigma[:, None] * self.time_embedder[0].W
            cond = F.relu(self.time_embedder[1](torch.cat([angle.sin(), angle.cos()], dim=1)))
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            h = F.dropout(feat, self.dropout, self.training)
            if cond is not None:
                h = h + self.time_layers[i]["dense"](cond)[:, :, None]
            h = norm(h.transpose(1, 2)).transpose(1, 2)
            feat = feat + F.relu(conv(h))
        return self.final_conv(feat).transpose(1, 2)

    def metadata(self, alphabet: str, length: int) -> dict[str, str]:
        return {
            "kac.arch": "cnn1d",
            "kac.process": "masked",
            "kac.alphabet": alphabet,
            "kac.hidden": str(self.hidden),
            "kac.kernel": str(self.kernel),
            "kac.dilations": ",".join(map(str, self.dilations)),
            "kac.length": str(length),
            "kac.time": str(int(self.time)),
        }


def subs(logits: Tensor, tokens: Tensor) -> Tensor:
    """SUBS parameterisation: logits [B,L,S+1], tokens [B,L] -> log p(x0) over the S letters [B,L,S].

    The mask gets no probability; a revealed position keeps its letter.
    """
    size = logits.shape[-1] - 1
    held = torch.where(one_hot(tokens, size, logits.dtype) > 0, 0.0, -1e6)
    return torch.where((tokens == size)[..., None], logits[..., :size].log_softmax(-1), held)


# ---------------------------------------------------------------- convgru (reward)


class ConvGru(nn.Module):
    """Convolutions, a bidirectional GRU (directions summed), a feed-forward block, a head, a mean over positions.

    Rows [B,L,S] -> output [B,tasks].
    """

    def __init__(
        self, symbols: int, channels: int, tasks: int = 1, blocks: int = 5, norm: bool = False, residual: bool = False
    ):
        super().__init__()
        self.residual = residual
        self.stem = nn.Conv1d(symbols, channels, 15, padding=7)
        self.blocks = nn.ModuleList()
        for _ in range(blocks):
            block = nn.ModuleDict({"conv": nn.Conv1d(channels, channels, 5, padding=2)})
            if norm:
                block["norm"] = nn.BatchNorm1d(channels)
            self.blocks.append(block)
        self.gru = nn.GRU(channels, channels, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(channels)
        self.ffn = nn.ModuleList([nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)])
        self.head = nn.Conv1d(channels, tasks, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.stem(x.transpose(1, 2)))
        for block in self.blocks:
            y = block["conv"](h)
            if "norm" in block:
                y = block["norm"](y)
            h = F.relu(y + h if self.residual else y)
        both, _ = self.gru(h.transpose(1, 2))
        forward, backward = both.chunk(2, dim=-1)
        h = self.ffn[1](F.relu(self.ffn[0](self.norm(forward + backward))))
        return self.head(h.transpose(1, 2)).mean(-1)

    def metadata(self, alphabet: str) -> dict[str, str]:
        return {"kac.arch": "convgru", "kac.alphabet": alphabet, "kac.residual": str(int(self.residual))}

    def tensors(self) -> dict[str, Tensor]:
        """The state dict without BatchNorm's step counters."""
        return {name: t for name, t in self.state_dict().items() if not name.endswith("num_batches_tracked")}


# ---------------------------------------------------------------- conv_regressor (reward)


class ConvRegressor(nn.Module):
    """A stack of convolutions, pools and dense layers: rows [B,L,S] -> output [B,tasks].

    `layers` is the text of kac.layers, for example
    "conv,pad=same,act=relu;maxpool,size=2;flatten;dense,act=relu;dense". Layer i holds `i.kernel`
    ([tap,in,out] or [in,out]) and `i.bias`; `widths` gives the outputs of the convolutions and dense layers in order,
    `taps` the kernel sizes of the convolutions. `batchnorm` puts a BatchNorm before each activation but the last
    during training; `fold()` merges it into the kernels, and only then does the module equal its file.
    """

    def __init__(
        self,
        layers: str,
        alphabet: str,
        length: int,
        widths: Sequence[int],
        taps: Sequence[int] = (),
        prefix: str = "",
        suffix: str = "",
        scale: float = 1.0,
        offset: float = 0.0,
        batchnorm: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.text, self.alphabet, self.length = layers, alphabet, length
        self.prefix, self.suffix, self.scale, self.offset, self.dropout = prefix, suffix, scale, offset, dropout
        self.layers = [_parse_layer(part) for part in layers.split(";")]
        self.kernels, self.biases, self.bns = nn.ParameterDict(), nn.ParameterDict(), nn.ModuleDict()
        width, taps_left = iter(widths), iter(taps)
        time: int | None = length + len(prefix) + len(suffix)
        channels = len(alphabet)
        for i, layer in enumerate(self.layers):
            kind = layer["kind"]
            if kind == "conv" and time is not None:
                k, out = next(taps_left), next(width)
                shape = (k, channels, out)
                time -= 0 if layer["pad"] == "same" else (k - 1) * layer["dilation"]
                channels = out
            elif kind in ("maxpool", "avgpool") and time is not None:
                time //= layer["size"]
            elif kind in ("globalmax", "globalavg") and time is not None:
                time = None
            elif kind == "flatten" and time is not None:
                channels, time = channels * time, None
            elif kind == "dense" and time is None:
                shape = (channels, next(width))
                channels = shape[1]
            else:
                raise ValueError(f"conv_regressor: layer {i} ({kind}) can not follow what is before it")
            if time is not None and time < 1:
                raise ValueError(f"conv_regressor: nothing is left of the sequence after layer {i}")
            if kind in ("conv", "dense"):
                fan_in = math.prod(shape[:-1])
                self.kernels[str(i)] = nn.Parameter(torch.randn(shape) * math.sqrt(2 / fan_in))
                self.biases[str(i)] = nn.Parameter(torch.zeros(shape[-1]))
                if batchnorm and i + 1 < len(self.layers):
                    self.bns[str(i)] = nn.BatchNorm1d(shape[-1])
        self.tasks = channels

    def constant(self, text: str, like: Tensor) -> Tensor:
        """Constant letters -> one-hot rows [B,len,S]."""
        tokens = torch.from_numpy(encode([text], self.alphabet).copy())
        return one_hot(tokens, len(self.alphabet), like.dtype).expand(len(like), -1, -1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.constant(self.prefix, x)] if self.prefix else []
        parts.append(x)
        if self.suffix:
            parts.append(self.constant(self.suffix, x))
        h = torch.cat(parts, dim=1).transpose(1, 2)
        for i, layer in enumerate(self.layers):
            kind, key = layer["kind"], str(i)
            if kind == "conv":
                kernel, dilation = self.kernels[key], layer["dilation"]
                if layer["pad"] == "same":
                    total = (len(kernel) - 1) * dilation
                    h = F.pad(h, (total // 2, total - total // 2))
                h = F.conv1d(h, kernel.permute(2, 1, 0), self.biases[key], dilation=dilation)
            elif kind == "dense":
                h = F.dropout(h, self.dropout, self.training)
                h = h @ self.kernels[key] + self.biases[key]
            elif kind == "maxpool":
                h = F.max_pool1d(h, layer["size"])
            elif kind == "avgpool":
                h = F.avg_pool1d(h, layer["size"])
            elif kind == "globalmax":
                h = h.amax(-1)
            elif kind == "globalavg":
                h = h.mean(-1)
            else:
                h = h.transpose(1, 2).flatten(1)
            if kind in ("conv", "dense"):
                if key in self.bns:
                    h = self.bns[key](h)
                h = _ACTIVATIONS[layer["act"]](h)
        return self.scale * h + self.offset

    @torch.no_grad()
    def fold(self) -> None:
        """Merge each BatchNorm into the kernel and bias before it."""
        for key, bn in self.bns.items():
            gain = bn.weight / (bn.running_var + bn.eps).sqrt()
            self.kernels[key].mul_(gain)
            self.biases[key].sub_(bn.running_mean).mul_(gain).add_(bn.bias)
        self.bns = nn.ModuleDict()

    def tensors(self) -> dict[str, Tensor]:
        if self.bns:
            raise ValueError("conv_regressor: fold() the BatchNorms before writing")
        kernels = {f"{i}.kernel": t for i, t in self.kernels.items()}
        return kernels | {f"{i}.bias": t for i, t in self.biases.items()}

    def metadata(self) -> dict[str, str]:
        meta = {
            "kac.arch": "conv_regressor",
            "kac.alphabet": self.alphabet,
            "kac.length": str(self.length),
            "kac.layers": self.text,
        }
        if self.prefix:
            meta["kac.prefix"] = self.prefix
        if self.suffix:
            meta["kac.suffix"] = self.suffix
        if self.scale != 1.0 or self.offset != 0.0:
            meta |= {"kac.scale": repr(self.scale), "kac.offset": repr(self.offset)}
        return meta


def _parse_layer(text: str) -> dict:
    """One item of kac.layers -> {kind, pad, dilation, size, act}."""
    kind, *options = text.split(",")
    allowed = {
        "conv": {"pad": "valid", "dilation": 1, "act": "linear"},
        "dense": {"act": "linear"},
        "maxpool": {"size": 2},
        "avgpool": {"size": 2},
        "globalmax": {},
        "globalavg": {},
        "flatten": {},
    }
    if kind not in allowed:
        raise ValueError(f"kac.layers: {kind!r} is not one of {', '.join(allowed)}")
    layer: dict = dict(allowed[kind])
    for option in options:
        key, _, value = option.partition("=")
        if key not in layer:
            raise ValueError(f"kac.layers: {kind} has no option {key!r}")
        layer[key] = int(value) if isinstance(layer[key], int) else value
    if layer.get("act", "linear") not in _ACTIVATIONS:
        raise ValueError(f"kac.layers: act={layer['act']} is not one of {', '.join(_ACTIVATIONS)}")
    if layer.get("pad", "same") not in ("same", "valid"):
        raise ValueError(f"kac.layers: pad={layer['pad']} is neither same nor valid")
    return {"kind": kind} | layer


# ---------------------------------------------------------------- gin (reward of graphs)


class Gin(nn.Module):
    """Graph isomorphism network, all live nodes joined: rows of graphs [B,1+NF+N(N-1)/2] -> output [B,outputs].

    A row is the count of live nodes, their features, and an adjacency that is not looked at. `widths` are the inner
    and outer width of each layer.
    """

    def __init__(
        self, nodes: int, features: int, widths: Sequence[tuple[int, int]], outputs: int = 1, dropout: float = 0.0
    ):
        super().__init__()
        self.nodes, self.features, self.dropout = nodes, features, dropout
        self.convs, self.batch_norms = nn.ModuleList(), nn.ModuleList()
        size = features
        for hidden, out in widths:
            conv = nn.Module()
            conv.nn = nn.Sequential(nn.Linear(size, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out))
            self.convs.append(conv)
            self.batch_norms.append(nn.BatchNorm1d(out))
            size = out
        self.lin = nn.Linear(size, outputs)

    def forward(self, rows: Tensor) -> Tensor:
        live = (torch.arange(self.nodes) < rows[:, :1])[..., None]
        x = rows[:, 1 : 1 + self.nodes * self.features].reshape(len(rows), self.nodes, self.features) * live
        for conv, norm in zip(self.convs, self.batch_norms, strict=True):
            x = torch.where(live, (x * live).sum(1, keepdim=True), x)
            x = norm(conv.nn(x.flatten(0, 1))).reshape(len(rows), self.nodes, -1)
            if conv is not self.convs[-1]:
                x = F.relu(x)
            x = F.dropout(x, self.dropout, self.training)
        return self.lin(x.mean(1))

    def metadata(self) -> dict[str, str]:
        sizes = {"kac.nodes": str(self.nodes), "kac.features": str(self.features)}
        return {"kac.arch": "gin", "kac.edges": "complete"} | sizes

    def tensors(self) -> dict[str, Tensor]:
        """The state dict without BatchNorm's step counters."""
        return {name: t for name, t in self.state_dict().items() if not name.endswith("num_batches_tracked")}


# ---------------------------------------------------------------- any architecture


def load_module(path: str | Path) -> tuple[nn.Module, dict[str, str]]:
    """Read a model file into its PyTorch module, in evaluation mode; returns it with the metadata."""
    tensors, meta = load(path)
    arch = meta.get("kac.arch")
    if arch == "cnn1d":
        net: nn.Module = Cnn1d(
            len(meta["kac.alphabet"]),
            int(meta["kac.hidden"]),
            int(meta["kac.kernel"]),
            [int(d) for d in meta["kac.dilations"].split(",")],
            "time_embedder.0.W" in tensors,
            meta["kac.time"] == "1",
        )
    elif arch == "convgru":
        net = ConvGru(
            len(meta["kac.alphabet"]),
            len(tensors["stem.bias"]),
            len(tensors["head.bias"]),
            sum(name.endswith(".conv.bias") for name in tensors),
            "blocks.0.norm.weight" in tensors,
            meta["kac.residual"] == "1",
        )
    elif arch == "conv_regressor":
        named = {tuple(name.split(".", 1)): t for name, t in tensors.items()}
        kernels = [t for (i, kind), t in sorted(named.items(), key=lambda item: int(item[0][0])) if kind == "kernel"]
        net = ConvRegressor(
            meta["kac.layers"],
            meta["kac.alphabet"],
            int(meta["kac.length"]),
            [k.shape[-1] for k in kernels],
            [k.shape[0] for k in kernels if k.ndim == 3],
            meta.get("kac.prefix", ""),
            meta.get("kac.suffix", ""),
            float(meta.get("kac.scale", 1)),
            float(meta.get("kac.offset", 0)),
        )
        tensors = {f"{'kernels' if kind == 'kernel' else 'biases'}.{i}": t for (i, kind), t in named.items()}
    elif arch == "gin":
        layers = range(sum(name.endswith(".nn.0.bias") for name in tensors))
        net = Gin(
            int(meta["kac.nodes"]),
            int(meta["kac.features"]),
            [(len(tensors[f"convs.{i}.nn.0.bias"]), len(tensors[f"convs.{i}.nn.3.bias"])) for i in layers],
            len(tensors["lin.bias"]),
        )
    else:
        raise ValueError(f"{path}: kac.arch is {arch!r}, not cnn1d, convgru, conv_regressor or gin")
    missing, unexpected = net.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"{path}: missing tensors {missing}, unexpected tensors {list(unexpected)}")
    return net.eval(), meta
