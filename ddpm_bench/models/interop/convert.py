"""A state dict of theirs into one of ours, by a table of names.

A format maps each module of our network to a module of theirs, or to several whose rows are joined (q, k, v). Everything
else is checked here: each tensor of theirs is used once, each of ours is filled, and shapes agree.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpm_bench.config.networks import NetworkSettings, UNetSettings
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import ProcessSettings
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


@dataclass(frozen=True)
class Found:
    """What a format read. file: the file of the weights. state: the state dict of our network.

    remarks: what was taken of several, assumed or not used, in words that are printed and kept in the card.
    sampling: how it says that it is sampled.
    """

    file: Path
    shape: tuple[int, int, int]
    process: ProcessSettings
    network: NetworkSettings
    weights: Kind
    step: int | None
    state: dict[str, Tensor]
    remarks: tuple[str, ...] = ()
    sampling: SamplingSettings = field(default_factory=SamplingSettings)


@dataclass(frozen=True)
class Problem:
    """A tensor of theirs that does not fit, or several that are joined.

    found: its shape, or theirs; empty where it is missing. expected: None where it has no place.
    """

    name: str
    found: tuple[Sequence[int], ...]
    expected: Sequence[int] | None

    def __str__(self) -> str:
        if self.expected is None:
            return f"{self.name} is not expected"
        if not self.found:
            return f"{self.name} is missing"
        return f"{self.name} is {' + '.join(str(list(each)) for each in self.found)} where {list(self.expected)} is expected"


Cause = tuple[Callable[[Problem], bool], str]
"""Which problems it alone explains, and what it is."""


def unexpected(pattern: str, told: str) -> Cause:
    """The cause of tensors that have no place and whose names are such."""
    return lambda problem: problem.expected is None and bool(re.search(pattern, problem.name)), told


def doubled(pattern: str, told: str) -> Cause:
    """The cause of tensors that have twice or half the rows that are expected, and whose names are such."""

    def explains(problem: Problem) -> bool:
        if len(problem.found) != 1 or not problem.expected or not re.search(pattern, problem.name):
            return False
        (rows, *rest), (due, *others) = problem.found[0], problem.expected
        return rest == others and (rows == 2 * due or due == 2 * rows)

    return explains, told


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
    theirs: Mapping[str, Tensor], modules: Modules, network: nn.Module, where: str, causes: Sequence[Cause],
    arrange: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """The state dict of `network` in float32, made of `theirs`. UserError naming the first tensors that do not fit.

    arrange: our name and a tensor of our shape -> the same with rows or columns in our order.
    """
    ours, origins, problems = {}, {}, []
    for name, wanted in network.state_dict().items():
        module, _, kind = name.rpartition(".")
        origins[name] = sources = [f"{their}.{kind}" for their in modules[module]]
        missing = [source for source in sources if source not in theirs]
        problems += [Problem(source, (), wanted.shape) for source in missing]
        if not missing:
            parts = [theirs[source] for source in sources]
            if _joined(parts, wanted.ndim) == list(wanted.shape):
                whole = torch.cat([part.float() for part in parts]).reshape(wanted.shape)
                ours[name] = arrange(name, whole).clone(memory_format=torch.contiguous_format)
            else:
                problems.append(Problem(" + ".join(sources), tuple(part.shape for part in parts), wanted.shape))
    used = {source for sources in origins.values() for source in sources}
    problems += [Problem(name, (theirs[name].shape,), None) for name in theirs if name not in used]
    if problems:
        raise misfit(where, problems, causes)
    if found := weights.not_finite({" + ".join(origins[name]): tensor for name, tensor in ours.items()}):
        raise UserError(f"{where}: {found}. Its training diverged, or the file is damaged; take an earlier one.")
    return ours


def _joined(parts: Sequence[Tensor], rank: int) -> list[int] | None:
    """The shape of `parts` joined by rows, a 1x1 convolution taken as the matrix that it is; None where they cannot be."""
    rows, rest = [part.shape[:1] for part in parts], {part.shape[1:] for part in parts}
    if not all(rows) or len(rest) != 1:
        return None
    [columns] = rest
    shape = [sum(count for (count,) in rows), *columns]
    return [shape[0], math.prod(columns)] if len(shape) > rank == 2 else shape


def misfit(where: str, problems: Sequence[Problem], causes: Sequence[Cause] = ()) -> UserError:
    """The first few problems, and what they tell."""
    more = f", and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    likely = [told for explains, told in causes if any(map(explains, problems))]
    whole = all(each.found for each in problems)
    other = "It is another architecture" if whole else "It is not whole, or another architecture"
    told = f"Likely cause: {'; '.join(likely)}" if likely else other
    return UserError(f"{where} does not fit the network: {'; '.join(map(str, problems[:SHOWN]))}{more}. {told}.")


def shape_of(theirs: Mapping[str, Tensor], name: str, rank: int, where: str) -> Sequence[int]:
    """The shape of one of their tensors, from which sizes are told; UserError where it is missing or tells none."""
    if name not in theirs:
        raise misfit(where, [Problem(name, (), ())])
    shape = theirs[name].shape
    if len(shape) != rank or not all(shape):
        raise UserError(f"{where} does not fit the network: {name} is {list(shape)}, where {rank} sizes are expected.")
    return shape


def stored(theirs: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A remark where weights are not stored as the float32 that they become."""
    others = sorted({str(each.dtype).removeprefix("torch.") for each in theirs.values()} - {"float32"})
    return (f"weights are stored as {', '.join(others)}, and computed with as float32",) if others else ()


def check_channels(channels: int, where: str) -> None:
    """UserError for a network that takes anything else than a noisy image."""
    if channels not in (1, 3):
        raise UserError(f"{where} takes {channels} channels: it is an upsampler or another conditional model (the image and "
                        "what it is told), or of codes, not of images of 1 or 3 channels; ddpm-bench scores "
                        "unconditional models of images only.")  # fmt: skip


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
