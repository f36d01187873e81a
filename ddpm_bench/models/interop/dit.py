"""facebookresearch/DiT: a .pt file that is the state dict of their `DiT`, as published, or an entry of a file around it.

Sizes are told from shapes, but the number of heads: that of the paper's size of such a width, or `--flags "--num_heads 6"`.
The file does not say the process: that of their `create_diffusion` is assumed (linear from 1e-4 to 0.02, epsilon), and the
options may say otherwise. Of latents it tells only their shape: `--codec` says what makes them.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from math import isqrt

import torch
from torch import Tensor

from ddpm_bench.config.networks import DIT_SIZES, DiTSettings
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import ProcessSettings
from ddpm_bench.data.codec import Shape
from ddpm_bench.errors import UserError
from ddpm_bench.models.build import build_codec
from ddpm_bench.models.interop.convert import (
    Found,
    Modules,
    check_outputs,
    convert,
    shape_of,
    stored,
    unexpected,
)  # fmt: skip
from ddpm_bench.models.interop.given import Given, check_filled, tensors
from ddpm_bench.models.interop.user_says import UserSays, assumed, settle_process, settle_weights
from ddpm_bench.models.interop.wrapped import networks, taken
from ddpm_bench.networks import weights
from ddpm_bench.networks.dit import DiT, positions

TELLING = "x_embedder.proj.weight"
TABLE, LABELS = "pos_embed", "y_embedder.embedding_table.weight"
PUBLISHED = {"DiT-XL-2-256x256.pt", "DiT-XL-2-512x512.pt"}
"""Their files, which hold moving averages."""
ASSUMED = {"schedule": "linear", "T": 1000, "beta_1": 1e-4, "beta_T": 0.02, "parameterization": "eps"}
HEADS = {width: heads for _, width, heads in DIT_SIZES.values()}
MOST_HALVINGS = 6
BLOCK = {
    "modulation": "adaLN_modulation.1",
    "qkv": "attn.qkv",
    "out": "attn.proj",
    "hidden": "mlp.fc1",
    "back": "mlp.fc2",
}
CAUSES = (
    unexpected(r"cross_attn|y_proj|t_block|caption", "it is told texts, as PixArt is"),
    unexpected(r"[qk]_norm", "its attention has norms, as later transformers have and this has not"),
)


def recognises(source: Given) -> bool:
    return bool(networks(source.content, TELLING))


def read(source: Given, asked: UserSays) -> Found:
    """The moving average, or the raw weights where asked for."""
    file = f"'{source.given}'"
    wrapped = taken(source.content, TELLING, asked, file)
    where = wrapped.where
    named = "ema" if source.path.name in PUBLISHED and wrapped.kind == "unknown" else wrapped.kind
    kind = settle_weights(named, asked, where)
    theirs = dict(tensors(wrapped.state, where))
    width, channels, patch, _ = shape_of(theirs, TELLING, 4, where)
    grid = isqrt(shape_of(theirs, TABLE, 3, where)[1])
    _check_table(theirs.pop(TABLE), grid, width, where)
    settings = _architecture(theirs, width, patch, asked, where)
    outputs = shape_of(theirs, "final_layer.linear.weight", 2, where)[0] // patch**2
    assumptions = ASSUMED | {"variance": "learned-range" if outputs == 2 * channels else "fixed-beta"}
    process = settle_process({}, asked, assumptions, where)
    check_outputs(process, channels, outputs, where)
    images = _images(process, (channels, grid * patch, grid * patch), asked, where)
    with weights.outline():
        network = DiT(channels, outputs, grid * patch, settings)

    def arrange(name: str, tensor: Tensor) -> Tensor:
        return patches_in_our_order(tensor, channels) if name == "first.weight" else tensor

    state = convert(theirs, _modules(settings), network, where, CAUSES, arrange)
    null = (
        f"assumed, since the file does not say: the last of its {settings.classes + 1:,} labels stands for no class, as in "
        "the release"
    )
    remarks = (*wrapped.remarks, *assumed(process, assumptions, asked), null, *stored(theirs))
    sampling = SamplingSettings(clip_x0=False, spacing="openai")  # as their scripts sample
    return Found(source.path, images, process, settings, kind, wrapped.step, state, remarks, sampling)


def patches_in_our_order(first: Tensor, channels: int) -> Tensor:
    """The weight of the first layer, its columns as our patches are: rows, columns, channels."""
    return first.unflatten(1, (channels, -1)).transpose(1, 2).flatten(1)


def _check_table(table: Tensor, grid: int, width: int, where: str) -> None:
    """UserError unless the stored positions (1, tokens, width) are those that the network computes."""
    if table.shape != (1, grid**2, width) or width % 4:
        raise UserError(
            f"{TABLE} of {where} is {list(table.shape)}; (1, tokens, {width}) is expected, for a square number of tokens and a "
            "multiple of 4."
        )
    check_filled([table], where)
    worst = (table[0].float() - positions(grid, width)).abs().max().item()
    if not worst < (1e-5 if table.dtype == torch.float32 else 1e-2):
        raise UserError(
            f"{TABLE} of {where} is not their table of sines and cosines (off by {worst:.2g}): the positions were trained or "
            "changed, which ddpm-bench cannot express."
        )


def _architecture(
    theirs: Mapping[str, Tensor], width: int, patch: int, asked: UserSays, where: str
) -> DiTSettings:  # fmt: skip
    depth = len({name.split(".")[1] for name in theirs if name.startswith("blocks.")})
    hidden = shape_of(theirs, "blocks.0.mlp.fc1.weight", 2, where)[0]
    return DiTSettings(
        depth=depth, width=width, heads=_heads(width, asked, where), patch=patch, mlp_ratio=hidden / width,
        classes=shape_of(theirs, LABELS, 2, where)[0] - 1, null_class=True,
    )  # fmt: skip


def _heads(width: int, asked: UserSays, where: str) -> int:
    """Heads of attention, which no shape tells. UserError for a width that the paper has not, where no flag says them."""
    if asked.flags is not None:
        flag = re.fullmatch(r"\s*--num[_-]heads[ =]+([1-9]\d{0,3})\s*", asked.flags)
        if not flag:
            raise UserError(f"--flags '{asked.flags}': the format dit has one flag, as in --flags \"--num_heads 6\".")
        return int(flag[1])
    if width not in HEADS:
        raise UserError(
            f"{where} has a width of {width}, which none of the paper's sizes has ({', '.join(map(str, HEADS))}), and does not say "
            'how many heads its attention has: give --flags "--num_heads N".'
        )
    return HEADS[width]


def _images(process: ProcessSettings, x_t: Shape, asked: UserSays, where: str) -> Shape:
    """(C, H, W) of the images whose x_0 has the shape `x_t`. UserError where there are none."""
    codec, (channels, side, _) = build_codec(process), x_t
    if channels not in (1, 3) and codec.name == "pixels":
        raise UserError(
            f"{where} takes {channels} channels of {side}x{side}: codes of an autoencoder, not images of 1 or 3 channels, and it "
            "does not hold that autoencoder. Give --codec autoencoder:PATH with the folder of its AutoencoderKL, such as a "
            "copy of stabilityai/sd-vae-ft-ema."
        )
    sides = [asked.size] if asked.size else [side << halvings for halvings in range(MOST_HALVINGS + 1)]
    for images in ((colours, each, each) for colours in (3, 1) for each in sides):
        with suppress(UserError):  # of a codec that does not take such images
            if codec.shape(images) == x_t:
                return images
    of = f"of side {asked.size}" if asked.size else f"up to a side of {sides[-1]}"
    raise UserError(
        f"{where} takes {channels} channels of {side}x{side}, which the codec '{codec.name}' makes of no images {of}; correct "
        "--size or --codec."
    )


def _modules(settings: DiTSettings) -> Modules:
    found: Modules = {
        "first": ("x_embedder.proj",), "conditioning.hidden": ("t_embedder.mlp.0",), "conditioning.out": ("t_embedder.mlp.2",),
        "conditioning.labels": ("y_embedder.embedding_table",), "modulation": ("final_layer.adaLN_modulation.1",),
        "last": ("final_layer.linear",),
    }  # fmt: skip
    for number in range(settings.depth):
        found |= {f"blocks.{number}.{our}": (f"blocks.{number}.{their}",) for our, their in BLOCK.items()}
    return found
