"""A state dict of theirs into one of ours, by a table of names.

A format maps each module of our U-Net to a module of theirs, or to several whose rows are joined (q, k, v). Everything
else is checked here: each tensor of theirs is used once, each of ours is filled, and shapes agree.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.settings import ProcessSettings, SamplingSettings
from ddpm_bench.errors import UserError
from ddpm_bench.models.build import build_diffusion
from ddpm_bench.models.model import Kind
from ddpm_bench.networks import weights
from ddpm_bench.networks.blocks import Attention, resamples
from ddpm_bench.networks.unet import UNet

SHOWN = 3
"""How many of the tensors that do not fit a message names."""

Modules = dict[str, tuple[str, ...]]
"""Our module -> theirs. Modules that a network does not have are passed over."""
Causes = Sequence[tuple[str, str]]
"""Patterns of tensors that do not fit, and what they tell."""


@dataclass(frozen=True)
class Found:
    """What a format read. file: the file of the weights. state: the state dict of our U-Net.

    sampling: how it says that it is sampled. unused: what it says beside that, and is not used.
    """

    file: Path
    shape: tuple[int, int, int]
    process: ProcessSettings
    network: UNetSettings
    weights: Kind
    step: int | None
    state: dict[str, Tensor]
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    unused: str = ""


@dataclass(frozen=True)
class Place:
    """A layer on the way down or up.

    stage: how many resamplings came before. index: its number among its stage's blocks. resamples: it changes the side,
    after the blocks of its stage. attention: its stage has attention.
    """

    ours: str
    side: str
    position: int
    stage: int
    index: int
    resamples: bool
    attention: bool


def outline(settings: UNetSettings, channels: int, outputs: int, size: int) -> UNet:
    """A U-Net without memory: names and shapes alone. UserError for sizes that do not fit together."""
    with weights.outline():
        return UNet(channels, outputs, size, settings)


def places(network: UNet) -> Iterator[Place]:
    """Every layer between the first and the last convolution, but the middle."""
    for side in ("down", "up"):
        stage = index = 0
        attention = False
        for position, layer in enumerate(getattr(network, side)):
            between = resamples(layer)
            attention = attention if between else isinstance(layer.attention, Attention)
            yield Place(f"{side}.{position}", side, position, stage, index, between, attention)
            stage, index = (stage + 1, 0) if between else (stage, index + 1)


def block(
    ours: str, theirs: str, attention: str, names: Mapping[str, str], parts: Mapping[str, Sequence[str]]
) -> Modules:  # fmt: skip
    """Entries for one block: `names` are those under their block, `parts` those under their attention."""
    found: Modules = {f"{ours}.{our}": (f"{theirs}.{their}",) for our, their in names.items()}
    return found | {f"{ours}.attention.{our}": tuple(f"{attention}.{p}" for p in their) for our, their in parts.items()}


def convert(
    theirs: Mapping[str, Tensor], modules: Modules, network: UNet, where: str, causes: Causes,
    arrange: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """The state dict of `network` in float32, made of `theirs`. UserError naming the first tensors that do not fit.

    arrange: our name and a tensor of our shape -> the same with rows or columns in our order.
    """
    ours, used, problems = {}, set(), []
    for name, wanted in network.state_dict().items():
        module, _, kind = name.rpartition(".")
        sources = [f"{their}.{kind}" for their in modules[module]]
        used.update(sources)
        missing = [source for source in sources if source not in theirs]
        problems += [f"{source} is missing" for source in missing]
        if not missing:
            parts = [theirs[source] for source in sources]
            if _joined(parts, wanted.ndim) == list(wanted.shape):
                whole = torch.cat([part.float() for part in parts]).reshape(wanted.shape)
                ours[name] = arrange(name, whole).clone(memory_format=torch.contiguous_format)
            else:
                found = " + ".join(str(list(part.shape)) for part in parts)
                problems.append(f"{' + '.join(sources)} is {found} where {list(wanted.shape)} is expected")
    problems += [f"{name} is not expected" for name in theirs if name not in used]
    if problems:
        raise misfit(where, problems, causes)
    return ours


def _joined(parts: Sequence[Tensor], rank: int) -> list[int] | None:
    """The shape of `parts` joined by rows, a 1x1 convolution taken as the matrix that it is; None where they cannot be."""
    rows, rest = [part.shape[:1] for part in parts], {part.shape[1:] for part in parts}
    if not all(rows) or len(rest) != 1:
        return None
    [columns] = rest
    shape = [sum(count for (count,) in rows), *columns]
    return [shape[0], math.prod(columns)] if len(shape) > rank == 2 else shape


def misfit(where: str, problems: Sequence[str], causes: Causes, evidence: Iterable[str] = ()) -> UserError:
    """The first few problems, and what they and the names in `evidence` tell."""
    more = f", and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    known = [*problems, *evidence]
    likely = [cause for pattern, cause in causes if any(re.search(pattern, text) for text in known)]
    told = f"Likely cause: {'; '.join(likely)}" if likely else "It is not whole, or another architecture"
    return UserError(f"{where} does not fit the network: {'; '.join(problems[:SHOWN])}{more}. {told}.")


def shape_of(theirs: Mapping[str, Tensor], name: str, rank: int, where: str, causes: Causes) -> Sequence[int]:
    """The shape of one of their tensors, from which sizes are told; UserError where it is missing or tells none."""
    if name not in theirs:
        raise misfit(where, [f"{name} is missing"], causes, theirs)
    shape = theirs[name].shape
    if len(shape) != rank or not all(shape):
        raise misfit(where, [f"{name} is {list(shape)}, where {rank} sizes are expected"], causes)
    return shape


def check_outputs(process: ProcessSettings, channels: int, outputs: int, where: str) -> None:
    """UserError unless the network has the output channels that its variance asks for."""
    needed = channels * build_diffusion(process).variance.outputs
    if outputs != needed:
        raise UserError(f"{where} gives {outputs} channels for images of {channels}, but variance {process.variance} "
                        f"takes {needed}; twice as many as the image has are for a learned variance.")  # fmt: skip


def time_columns(weight: Tensor, order: Iterable[int]) -> Tensor:
    """The first time layer's weight (4 base, base), columns taken in `order`: all sines, then all cosines."""
    return weight[:, torch.tensor(list(order))]


def cosines_first(base: int) -> list[int]:
    """Where our columns are in [cos, sin], of `base` columns, the last of an odd number being zeros."""
    half = base // 2
    return [*range(half, 2 * half), *range(half), *range(2 * half, base)]


def interleaved(base: int) -> list[int]:
    """Where our columns are in [sin, cos, sin, cos, ...], of `base`, even."""
    return [*range(0, base, 2), *range(1, base, 2)]
