"""OpenAI's improved-diffusion and guided-diffusion: a .pt file that is the state dict of their `UNetModel`.

Against the paper's network: the time embedding has cosines first and frequencies 10000^(-i/half); it scales and shifts
the second norm (--use_scale_shift_norm) or is added; downsampling pads on both sides or is a residual block
(--resblock_updown); attention has heads, and its q, k, v are stored head by head unless --use_new_attention_order.
Widths, depth, places of attention and most choices are told from names and shapes, the rest from the flags.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.errors import UserError
from ddpm_bench.models.interop.convert import (
    Found,
    Modules,
    block,
    check_channels,
    check_outputs,
    convert,
    cosines_first,
    doubled,
    outline,
    places,
    shape_of,
    stored,
    time_columns,
)  # fmt: skip
from ddpm_bench.models.interop.given import Given, tensors
from ddpm_bench.models.interop.openai_flags import MULTIPLIERS, Flags, not_used, process, read_flags, weights_and_step
from ddpm_bench.models.interop.user_says import UserSays, settle_process, settle_size, settle_weights
from ddpm_bench.models.interop.wrapped import networks, taken
from ddpm_bench.networks.unet import UNet

BLOCK = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time": "emb_layers.1", "norm2": "out_layers.0",
         "conv2": "out_layers.3", "shortcut": "skip_connection"}  # fmt: skip
ATTENTION = {"norm": ("norm",), "qkv": ("qkv",), "out": ("proj_out",)}
TELLING, LABELS = "time_embed.0.weight", "label_emb.weight"
CAUSES = (doubled(r"\.emb_layers\.", "the blocks differ in --use_scale_shift_norm, which doubles emb_layers"),)


def recognises(source: Given) -> bool:
    return bool(networks(source.content, TELLING))


def read(source: Given, asked: UserSays) -> Found:
    """The network, whose flags are given, or published for the file's name."""
    file = f"'{source.given}'"
    wrapped = taken(source.content, TELLING, asked, file)
    where = wrapped.where
    theirs = tensors(wrapped.state, where)
    channels, outputs = _channels(theirs, where)
    flags = read_flags(asked.flags, source.path.name, where)
    known, step = weights_and_step(source.path.name)
    kind, teller = (known, f"the name of {file}") if wrapped.kind == "unknown" else (wrapped.kind, where)
    kind = settle_weights(kind, asked, teller)
    settings = _architecture(theirs, flags, where)
    _check_flags(flags, settings, outputs > channels, where)
    said = process(flags, outputs > channels, settings.resample == "block")
    told = "--flags" if asked.flags is not None else f"the published {file}"
    settled, size = settle_process(said, asked, {}, told), settle_size(flags.image_size, asked, told)
    check_outputs(settled, channels, outputs, where)
    network = outline(settings, channels, outputs, size)

    def arrange(name: str, tensor: Tensor) -> Tensor:
        if name == "time.hidden.weight":
            return time_columns(tensor, cosines_first(settings.base))
        if ".attention.qkv." in name and not flags.use_new_attention_order:
            return parts_first(tensor, settings)
        return tensor

    state = convert(theirs, _modules(network, settings), network, where, CAUSES, arrange)
    remarks = (*wrapped.remarks, *not_used(asked.flags or ""), *stored(theirs))
    known_step = wrapped.step if wrapped.step is not None else step
    spaced = SamplingSettings(spacing="openai")  # fewer steps are visited as by --timestep_respacing
    return Found(source.path, (channels, size, size), settled, settings, kind, known_step, state, remarks, spaced)


def _channels(theirs: Mapping[str, Tensor], where: str) -> tuple[int, int]:
    """Channels in and out. UserError for a network that takes more than the noisy image."""
    if not any(name.startswith("output_blocks.") for name in theirs):
        raise UserError(
            f"{where} has no output_blocks: it is a classifier, which `ddpm-bench classifier import` takes, or it is not whole."
        )
    channels = shape_of(theirs, "input_blocks.0.0.weight", 4, where)[1]
    outputs = shape_of(theirs, "out.2.weight", 4, where)[0]
    check_channels(channels, where)
    return channels, outputs


def _architecture(theirs: Mapping[str, Tensor], flags: Flags, where: str) -> UNetSettings:
    """Widths, depth, places of attention and dialect, from names and shapes; heads and side from the flags."""

    def shape(name: str, rank: int) -> Sequence[int]:
        return shape_of(theirs, name, rank, where)

    base, first = shape("time_embed.0.weight", 2)[1], shape("input_blocks.0.0.weight", 4)[0]
    if first != base:
        raise UserError(f"{where} begins with {first} channels for a base of {base}, a first multiplier "
                        f"of {first / base:g}, as guided-diffusion has at 512x512; it is not supported.")  # fmt: skip
    layers = len({name.split(".")[1] for name in theirs if name.startswith("output_blocks.")})
    ups = [name for name in theirs if name.startswith("output_blocks.") and _upsamples(name)]
    levels = len(ups) + 1
    if layers % levels or layers == levels:
        raise UserError(f"{where} has {layers} output blocks, of which {len(ups)} upsample: these are not {levels} "
                        "levels of as many blocks each, so it is not whole, or another architecture.")  # fmt: skip
    blocks = layers // levels - 1
    starts = [1 + level * (blocks + 1) for level in range(levels)]
    widths = [shape(f"input_blocks.{start}.0.out_layers.3.weight", 4)[0] for start in starts]
    if any(width % base for width in widths):
        raise UserError(f"The widths {widths} of {where} are no multiples of its base of {base} channels.")
    attended = [f"input_blocks.{start}.1.qkv.weight" in theirs for start in starts]
    return UNetSettings(
        base=base, multipliers=tuple(width // base for width in widths), blocks=blocks, dropout=0.0,
        attention=tuple(flags.image_size >> level for level, there in enumerate(attended) if there),
        heads=flags.num_heads, head_channels=flags.num_head_channels if flags.num_head_channels != -1 else None,
        time_shift=0, scale_shift=shape("input_blocks.1.0.emb_layers.1.weight", 2)[0] == 2 * widths[0],
        classes=shape(LABELS, 2)[0] if LABELS in theirs else 0,
        padding="both", resample="block" if any("in_layers" in name for name in ups) else "conv", eps=1e-5,
    )  # fmt: skip


def _upsamples(name: str) -> bool:
    """Whether a tensor of output_blocks is that by which an upsampling at the end of its block is known."""
    layer = ".".join(name.split(".")[2:])
    return layer in ("1.conv.weight", "2.conv.weight", "1.in_layers.0.weight", "2.in_layers.0.weight")


def _check_flags(flags: Flags, settings: UNetSettings, learned: bool, where: str) -> None:
    """UserError naming both where a flag says something else than the tensors."""
    size, multipliers = flags.image_size, ",".join(map(str, settings.multipliers))
    told = {
        "num_channels": settings.base, "num_res_blocks": settings.blocks, "channel_mult": multipliers,
        "learn_sigma": learned, "use_scale_shift_norm": settings.scale_shift,
        "resblock_updown": settings.resample == "block", "class_cond": bool(settings.classes),
    }  # fmt: skip
    for name, found in told.items():
        said = getattr(flags, name)
        if said not in (None, "", found):  # --channel_mult "" is their way of leaving it to the size
            raise UserError(f"--{name} {said} contradicts the tensors of {where}, which say {found}; correct --flags.")
    if not flags.channel_mult and MULTIPLIERS.get(size, multipliers) != multipliers:
        raise UserError(f"--image_size {size} means --channel_mult {MULTIPLIERS[size]}, but the tensors of {where} say "
                        f"{multipliers}; correct --image_size, or add --channel_mult {multipliers}.")  # fmt: skip
    if (given := flags.attention_resolutions) is not None:
        try:
            factors = {size // int(side) for side in given.split(",")}
        except (ValueError, ZeroDivisionError) as error:
            raise UserError(f"--attention_resolutions {given} must be sides such as 16,8.") from error
        said = tuple(size >> level for level in range(len(settings.multipliers)) if 2**level in factors)
        if said != settings.attention:
            raise UserError(f"--attention_resolutions {given} puts attention at sides {list(said)}, but the tensors of "
                            f"{where} at {list(settings.attention)}; correct --flags.")  # fmt: skip


def parts_first(tensor: Tensor, settings: UNetSettings) -> Tensor:
    """Rows of q, k, v of head 1, then of head 2, ... -> all of q, all of k, all of v, each head by head."""
    channels = len(tensor) // 3
    width = settings.head_channels or channels // settings.heads
    return tensor.unflatten(0, (-1, 3, width)).transpose(0, 1).flatten(0, 2)


def _modules(network: UNet, settings: UNetSettings) -> Modules:
    """Theirs count a block, its attention and the upsampling after it as one; input block 0 is the first layer."""
    found: Modules = {
        "time.hidden": ("time_embed.0",), "time.out": ("time_embed.2",), "first": ("input_blocks.0.0",),
        "norm": ("out.0",), "last": ("out.2",), "label": ("label_emb",),
    }  # fmt: skip
    for place in places(network):
        if place.side == "down":
            layer, sub = f"input_blocks.{place.position + 1}", 0
        else:
            number = place.stage * (settings.blocks + 1) + place.index - place.resamples
            layer, sub = f"output_blocks.{number}", place.resamples + (place.resamples and place.attention)
        if place.resamples and settings.resample == "conv":
            found[f"{place.ours}.conv"] = (f"{layer}.{sub}.{'op' if place.side == 'down' else 'conv'}",)
        else:
            found |= block(place.ours, f"{layer}.{sub}", f"{layer}.1", BLOCK, ATTENTION)
    found |= block("middle.0", "middle_block.0", "middle_block.1", BLOCK, ATTENTION)
    return found | block("middle.1", "middle_block.2", "", BLOCK, ATTENTION)
