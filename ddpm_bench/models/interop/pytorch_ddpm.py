"""w86763777/pytorch-ddpm: a .pt file with the dictionary net_model, ema_model, sched, optim, step, x_T.

The network is the paper's but for the downsampling's padding (both sides), GroupNorm's eps (PyTorch's 1e-5) and the
time embedding, a stored table of interleaved sines and cosines with frequencies 10000^(-2i/base). Attention is made of
1x1 convolutions. The file does not say the process: the defaults of their `main.py` are assumed (linear from 1e-4 to
0.02, epsilon, fixedlarge), and the options may say otherwise.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.errors import UserError
from ddpm_bench.models.interop.convert import (
    Found,
    Modules,
    block,
    check_channels,
    check_outputs,
    convert,
    interleaved,
    outline,
    places,
    shape_of,
    stored,
    time_columns,
    unexpected,
)  # fmt: skip
from ddpm_bench.models.interop.given import Given, tensors
from ddpm_bench.models.interop.user_says import UserSays, assumed, settle_process, settle_size, settle_weights
from ddpm_bench.models.interop.wrapped import networks, taken
from ddpm_bench.networks.unet import UNet

TABLE = "time_embedding.timembedding.0.weight"
ASSUMED = {"beta_1": 1e-4, "beta_T": 0.02, "parameterization": "eps", "variance": "fixed-beta"}
SIZE = 32  # their training script reads CIFAR-10 alone
BLOCK = {"norm1": "block1.0", "conv1": "block1.2", "time": "temb_proj.1", "norm2": "block2.0", "conv2": "block2.3",
         "shortcut": "shortcut"}  # fmt: skip
ATTENTION = {"norm": ("group_norm",), "qkv": ("proj_q", "proj_k", "proj_v"), "out": ("proj",)}
CAUSES = (unexpected(r"(^|[._])(label|class|cond)_?(emb|proj)", "class-conditional, which ddpm-bench does not score"),)


def recognises(source: Given) -> bool:
    return bool(networks(source.content, TABLE))


def read(source: Given, asked: UserSays) -> Found:
    """The moving average, or the raw weights where asked for."""
    asked.no_flags("pytorch-ddpm")
    wrapped = taken(source.content, TABLE, asked, f"'{source.given}'", also=("x_T",))
    where = wrapped.where
    kind = settle_weights(wrapped.kind, asked, where)
    theirs = dict(tensors(wrapped.state, where))
    base, channels = shape_of(theirs, "head.weight", 4, where)[:2]
    check_channels(channels, where)
    T = shape_of(theirs, TABLE, 2, where)[0]
    _check_table(theirs.pop(TABLE), base, where)
    process = settle_process({"schedule": "linear", "T": T}, asked, ASSUMED, where)
    remarks = (*wrapped.remarks, *assumed(process, ASSUMED, asked), *stored(theirs))
    size = _side(source.content, f"'{source.given}'")
    if size is None and asked.size is None:
        remarks += (f"assumed, since the file does not say: --size {SIZE}",)
    size = settle_size(size, asked, f"x_T of '{source.given}'") if size else asked.size or SIZE
    outputs = shape_of(theirs, "tail.2.weight", 4, where)[0]
    check_outputs(process, channels, outputs, where)
    settings = _architecture(theirs, base, size, where)
    network = outline(settings, channels, outputs, size)

    def arrange(name: str, tensor: Tensor) -> Tensor:
        return time_columns(tensor, interleaved(base)) if name == "time.hidden.weight" else tensor

    state = convert(theirs, _modules(network), network, where, CAUSES, arrange)
    return Found(source.path, (channels, size, size), process, settings, kind, wrapped.step, state, remarks)


def _side(content: Mapping[str, Any], where: str) -> int | None:
    """The images' side, which only the noise kept for sample sheets, x_T (B, C, H, W), tells."""
    noise = content.get("x_T")
    if not isinstance(noise, Tensor):
        return None
    if noise.ndim != 4 or noise.shape[2] != noise.shape[3]:
        raise UserError(f"x_T of {where} is {list(noise.shape)}; square images are expected, such as [64, 3, 32, 32].")
    return noise.shape[3]


def _check_table(table: Tensor, base: int, where: str) -> None:
    """UserError unless the stored time embedding (T, base) is the one that the network computes."""
    if table.ndim != 2 or table.shape[1] != base or base % 2:
        raise UserError(f"{TABLE} of {where} is {list(table.shape)}; (T, {base}) with an even width is expected.")
    frequencies = torch.exp(-math.log(10_000) * torch.arange(0, base, 2, dtype=torch.float64) / base)
    phase = torch.arange(len(table), dtype=torch.float64)[:, None] * frequencies
    expected = torch.stack((phase.sin(), phase.cos()), dim=2).flatten(1)
    # Float32 phases of up to T radians are off by up to T * 2^-23, and the frequencies' own rounding by a few of these.
    worst = (table.double() - expected).abs().max().item()
    if not worst < max(1e-3, 1e-6 * len(table)):
        raise UserError(f"{TABLE} of {where} is not their table of interleaved sines and cosines (off by {worst:.2g}): "
                        "the embedding was trained or changed, which ddpm-bench cannot express.")  # fmt: skip


def _architecture(theirs: Mapping[str, Tensor], base: int, size: int, where: str) -> UNetSettings:
    """Widths, depth and places of attention, from names and shapes."""
    levels: list[list[int]] = [[]]  # of each level, the positions of its blocks
    count = len({name.split(".")[1] for name in theirs if name.startswith("downblocks.")})
    for position in range(count):
        if f"downblocks.{position}.main.weight" in theirs:
            levels.append([])
        else:
            levels[-1].append(position)
    if not all(len(level) == len(levels[0]) > 0 for level in levels):
        raise UserError(f"{where} does not have as many blocks at each level: {list(map(len, levels))}.")
    widths = [shape_of(theirs, f"downblocks.{level[-1]}.block2.3.weight", 4, where)[0] for level in levels]
    if any(width % base for width in widths):
        raise UserError(f"The widths {widths} of {where} are no multiples of its first layer's {base} channels.")
    attended = [f"downblocks.{level[0]}.attn.proj.weight" in theirs for level in levels]
    return UNetSettings(
        base=base, multipliers=tuple(width // base for width in widths), blocks=len(levels[0]), dropout=0.0,
        attention=tuple(size >> i for i, there in enumerate(attended) if there),
        time_shift=0, padding="both", eps=1e-5,
    )  # fmt: skip


def _modules(network: UNet) -> Modules:
    """Their lists of layers are ours, one for one."""
    found: Modules = {
        "time.hidden": ("time_embedding.timembedding.1",), "time.out": ("time_embedding.timembedding.3",),
        "first": ("head",), "norm": ("tail.0",), "last": ("tail.2",),
    }  # fmt: skip
    for place in places(network):
        theirs = f"{place.side}blocks.{place.position}"
        if place.resamples:
            found[f"{place.ours}.conv"] = (f"{theirs}.main",)
        else:
            found |= block(place.ours, theirs, f"{theirs}.attn", BLOCK, ATTENTION)
    for i in (0, 1):
        found |= block(f"middle.{i}", f"middleblocks.{i}", f"middleblocks.{i}.attn", BLOCK, ATTENTION)
    return found
