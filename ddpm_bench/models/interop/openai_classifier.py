"""The classifiers of OpenAI's guided-diffusion: a .pt file that is the state dict of their `EncoderUNetModel`, pooled by attention.

Its widths and the places of attention are told from shapes; a block that halves the side looks like any other, so the side of x_t
tells how many levels there are. Nothing in the file tells the noise, which is that of the model that it was trained to guide. Heads
have 64 channels, as their `create_classifier` has it.
"""

from collections.abc import Mapping
from math import isqrt
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from ddpm_bench.config.classifiers import ClassifierSettings
from ddpm_bench.config.settings import NoiseSettings
from ddpm_bench.errors import UserError
from ddpm_bench.models.classifiers import Classified
from ddpm_bench.models.interop.convert import (
    Modules,
    block,
    convert,
    cosines_first,
    doubled,
    shape_of,
    stored,
    time_columns,
)
from ddpm_bench.models.interop.given import Given, check_filled, tensors
from ddpm_bench.models.interop.openai import ATTENTION, BLOCK, parts_first
from ddpm_bench.models.interop.user_says import UserSays, reasons
from ddpm_bench.models.interop.wrapped import taken
from ddpm_bench.networks import weights
from ddpm_bench.networks.classifier import NoisyClassifier

POSITIONS = "out.2.positional_embedding"
CAUSES = (doubled(r"\.emb_layers\.", "its blocks are without --classifier_use_scale_shift_norm"),)


def read_classifier(
    path: Path, noise: NoiseSettings, side: int
) -> tuple[Classified, dict[str, Tensor], tuple[str, ...]]:
    """What the weights are of, the weights, and remarks on what was taken or assumed.

    noise, side: of the x_t that it was trained on. Classes are called by their numbers. UserError for what is no such classifier.
    """
    wrapped = taken(Given(str(path)).content, POSITIONS, UserSays(), f"'{path}'")
    where, theirs = wrapped.where, dict(tensors(wrapped.state, wrapped.where))
    if POSITIONS not in theirs:
        raise UserError(
            f"{where} has no {POSITIONS}: it is no classifier of guided-diffusion with --classifier_pool attention. Models go through "
            "`ddpm-bench import`."
        )
    try:
        of = _told(theirs, noise, side, where)
    except ValidationError as error:
        raise UserError(f"{where} has what ddpm-bench's classifier cannot express: {reasons(error)}.") from error
    with weights.outline():
        network = of.outline()
    remarks = (*wrapped.remarks, *stored(theirs))  # before a tensor is made another
    theirs["out.2.positions"] = theirs.pop(POSITIONS).t()

    def arrange(name: str, tensor: Tensor) -> Tensor:
        if name == "time.hidden.weight":
            return time_columns(tensor, cosines_first(of.network.base))
        return parts_first(tensor, of.network.in_blocks) if ".attention.qkv." in name else tensor

    state = convert(theirs, _modules(network), network, where, CAUSES, arrange)
    check_filled(state.values(), where)
    return of, state, remarks


def _told(theirs: Mapping[str, Tensor], noise: NoiseSettings, side: int, where: str) -> Classified:
    """By shapes."""
    channels = shape_of(theirs, "input_blocks.0.0.weight", 4, where)[1]
    classes = shape_of(theirs, "out.2.c_proj.weight", 3, where)[0]
    return Classified(
        shape=(channels, side, side), classes=tuple(map(str, range(classes))), noise=noise,
        network=_architecture(theirs, side, where),
    )  # fmt: skip


def _architecture(theirs: Mapping[str, Tensor], side: int, where: str) -> ClassifierSettings:
    """UserError where a side is not halved to that of the pooled positions by as many blocks a level."""
    _, positions = shape_of(theirs, POSITIONS, 2, where)
    pooled = isqrt(positions - 1)
    layers = len({name.split(".")[1] for name in theirs if name.startswith("input_blocks.")})
    levels = (side // pooled).bit_length() if pooled else 0
    if not levels or pooled << (levels - 1) != side or layers % levels or layers == levels:
        raise UserError(
            f"{where} pools {positions - 1} positions after {layers} blocks, which x_t of side {side} does not become by halving it. Give "
            "the side of its images: --size, or --like with the model that it guides."
        )
    starts = range(1, layers, layers // levels)
    base = shape_of(theirs, "time_embed.0.weight", 2, where)[1]
    widths = [shape_of(theirs, f"input_blocks.{start}.0.out_layers.3.weight", 4, where)[0] for start in starts]
    attended = (f"input_blocks.{start}.1.qkv.weight" in theirs for start in starts)
    settings = ClassifierSettings(
        base=base, multipliers=tuple(width / base for width in widths), blocks=layers // levels - 1,
        attention=tuple(side >> level for level, there in enumerate(attended) if there),
    )  # fmt: skip
    settings.check(side)
    return settings


def _modules(network: NoisyClassifier) -> Modules:
    """Theirs count a block and its attention as one; input block 0 is the first layer."""
    found: Modules = {
        "time.hidden": ("time_embed.0",), "time.out": ("time_embed.2",), "first": ("input_blocks.0.0",), "norm": ("out.0",),
        "pool": ("out.2",), "pool.qkv": ("out.2.qkv_proj",), "pool.out": ("out.2.c_proj",),
    }  # fmt: skip
    for position in range(len(network.down)):
        layer = f"input_blocks.{position + 1}"
        found |= block(f"down.{position}", f"{layer}.0", f"{layer}.1", BLOCK, ATTENTION)
    for position in range(len(network.middle)):  # the attention between them is the first one's
        found |= block(f"middle.{position}", f"middle_block.{2 * position}", "middle_block.1", BLOCK, ATTENTION)
    return found
