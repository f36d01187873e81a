"""ermongroup/ddim and pesser/pytorch_diffusion, whose files are Ho et al.'s own weights converted from TensorFlow.

The network is the paper's to the letter. A file is the state dict of their `Model`, or the list that ddim's training saves.
It says neither the images' side nor the process. Those of the published files are known by name; of others their
configurations are assumed (attention at side 16; linear from 1e-4 to 0.02, T = 1000, epsilon; fixedsmall at side 256,
fixedlarge below), and the options may say otherwise.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.settings import ProcessSettings
from ddpm_bench.errors import UserError
from ddpm_bench.models.interop.convert import (
    Found,
    Modules,
    block,
    check_channels,
    check_outputs,
    convert,
    outline,
    places,
    shape_of,
    stored,
    unexpected,
)  # fmt: skip
from ddpm_bench.models.interop.given import Given, tensors
from ddpm_bench.models.interop.user_says import (
    UserSays,
    assumed,
    average_by_name,
    settle_process,
    settle_size,
    settle_weights,
)
from ddpm_bench.models.interop.wrapped import networks, taken
from ddpm_bench.models.model import Kind
from ddpm_bench.networks.unet import UNet

TELLING = "temb.dense.0.weight"
ATTENDED = 16
"""The side at which all their configurations have attention."""
LARGE = 256
"""The side of the images of which they take the smaller variance."""
CIFAR10, LSUN = (32, (1, 2, 2, 2)), (LARGE, (1, 1, 2, 2, 4, 4))
PUBLISHED = {"cifar10": CIFAR10, "lsun_bedroom": LSUN, "lsun_cat": LSUN, "lsun_church": LSUN}
"""Side and multipliers of the published weights, by the data set in their files' names."""
BLOCK = {"norm1": "norm1", "conv1": "conv1", "time": "temb_proj", "norm2": "norm2", "conv2": "conv2",
         "shortcut": "nin_shortcut"}  # fmt: skip
ATTENTION = {"norm": ("norm",), "qkv": ("q", "k", "v"), "out": ("proj_out",)}
CAUSES = (
    unexpected(r"^logvar$", "model.type is bayesian, whose logvar ddpm-bench's network does not have"),
    unexpected(r"\.conv_shortcut\.", "shortcuts are 3x3 convolutions, ddpm-bench's are of size 1"),
)


def recognises(source: Given) -> bool:
    return bool(networks(source.content, TELLING))


def read(source: Given, asked: UserSays) -> Found:
    """The moving average, or the raw weights where asked for."""
    asked.no_flags("ddim")
    wrapped = taken(source.content, TELLING, asked, f"'{source.given}'")
    where = wrapped.where
    theirs = tensors(wrapped.state, where)
    data, by_name, step = told_by_name(f"{source.path.resolve().parent.name}/{source.path.name}")
    kind = settle_weights(wrapped.kind if wrapped.kind != "unknown" else by_name, asked, where)
    base, channels = shape_of(theirs, "conv_in.weight", 4, where)[:2]
    outputs = shape_of(theirs, "conv_out.weight", 4, where)[0]
    check_channels(channels, where)
    widths, blocks, attended = _levels(theirs, where)
    if any(width % base for width in widths):
        raise UserError(f"The widths {widths} of {where} are no multiples of its base of {base} channels.")
    multipliers = tuple(width // base for width in widths)
    size, process, guesses = _settled(data, multipliers, attended, asked, where)
    check_outputs(process, channels, outputs, where)
    settings = UNetSettings(
        base=base, multipliers=multipliers, blocks=blocks, dropout=0.0,
        attention=tuple(size >> level for level in attended),
    )  # fmt: skip
    network = outline(settings, channels, outputs, size)
    state = convert(theirs, _modules(network, len(widths)), network, where, CAUSES)
    remarks = (*wrapped.remarks, *guesses, *stored(theirs))
    known_step = wrapped.step if wrapped.step is not None else step
    return Found(source.path, (channels, size, size), process, settings, kind, known_step, state, remarks)


def told_by_name(path: str) -> tuple[str | None, Kind, int | None]:
    """The data set, where it is of the published files, what weights, and the step.

    As pesser/pytorch_diffusion keeps them, ema_diffusion_cifar10_model/model-790000.ckpt, or with - for the /; else, as
    ddim's training saves them, ckpt_5000.pth.
    """
    if published := re.search(rf"(?:^|/)(ema_)?diffusion_({'|'.join(PUBLISHED)})_model(?:/model)?-(\d+)\.\w+$", path):
        return published[2], "ema" if published[1] else "raw", int(published[3])
    name = path.rpartition("/")[2]
    step = re.search(r"(?:model|ckpt)[-_](\d+)\.\w+$", name)
    return None, average_by_name(name), int(step[1]) if step else None


def _settled(
    data: str | None, multipliers: tuple[int, ...], attended: list[int], asked: UserSays, where: str
) -> tuple[int, ProcessSettings, tuple[str, ...]]:
    """The images' side and the process: known for the published weights of `data`, else asked for or assumed, with remarks."""
    if data:
        side, published = PUBLISHED[data]
        if multipliers != published:
            raise UserError(f"{where} has the name of the published weights of {data}, with multipliers {list(published)}, "
                            f"but its tensors have {list(multipliers)}; rename it.")  # fmt: skip
        named = f"the name of {where}"
        return settle_size(side, asked, named), settle_process(_usual(side), asked, {}, named), ()
    size = asked.size or _side(attended, where)
    process = settle_process({}, asked, _usual(size), where)
    told = (f"assumed, since the file does not say: --size {size}, at which attention is at side {ATTENDED}",)
    return size, process, (*assumed(process, _usual(size), asked), *(() if asked.size else told))


def _usual(size: int) -> dict[str, Any]:
    """The process of all their configurations."""
    return {
        "schedule": "linear", "T": 1000, "beta_1": 1e-4, "beta_T": 0.02, "parameterization": "eps",
        "variance": "fixed-beta-tilde" if size >= LARGE else "fixed-beta",
    }  # fmt: skip


def _levels(theirs: Mapping[str, Tensor], where: str) -> tuple[list[int], int, list[int]]:
    """Of each level the channels, the number of blocks, and which have attention; from names and shapes."""
    count = len({name.split(".")[1] for name in theirs if name.startswith("down.")})
    blocks = len({name.split(".")[3] for name in theirs if re.match(r"down\.0\.block\.\d+\.", name)})
    if not blocks:
        raise UserError(f"{where} has no down.0.block.0: it is not whole, or another architecture.")
    if count > 1 and not any(re.match(r"(down|up)\.\d+\.(down|up)sample\.conv\.", name) for name in theirs):
        raise UserError(f"{where} changes the side without convolutions (resamp_with_conv False), which ddpm-bench's network "
                        "does not.")  # fmt: skip
    widths = [shape_of(theirs, f"down.{i}.block.{blocks - 1}.conv2.weight", 4, where)[0] for i in range(count)]
    return widths, blocks, [level for level in range(count) if f"down.{level}.attn.0.q.weight" in theirs]


def _side(attended: list[int], where: str) -> int:
    """The side at which the one level with attention has the usual side."""
    if len(attended) != 1:
        raise UserError(f"{where} has attention at {len(attended)} levels, all their configurations at one, of side {ATTENDED}: "
                        "the images' side cannot be told. Give --size.")  # fmt: skip
    return ATTENDED << attended[0]


def _modules(network: UNet, levels: int) -> Modules:
    """Theirs number the levels of the way up as those of the way down."""
    found: Modules = {
        "time.hidden": ("temb.dense.0",), "time.out": ("temb.dense.1",), "first": ("conv_in",), "norm": ("norm_out",),
        "last": ("conv_out",),
    }  # fmt: skip
    for place in places(network):
        level = f"{place.side}.{place.stage if place.side == 'down' else levels - 1 - place.stage}"
        if place.resamples:
            found[f"{place.ours}.conv"] = (f"{level}.{place.side}sample.conv",)
        else:
            found |= block(place.ours, f"{level}.block.{place.index}", f"{level}.attn.{place.index}", BLOCK, ATTENTION)
    found |= block("middle.0", "mid.block_1", "mid.attn_1", BLOCK, ATTENTION)
    return found | block("middle.1", "mid.block_2", "", BLOCK, ATTENTION)
