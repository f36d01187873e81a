"""diffusers' `AutoencoderKL`, the folder of its config.json and weights, as an autoencoder of ours.

Its `scaling_factor` is the scale of latents. What ours cannot express is refused by name and value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ddpm_bench.config.autoencoders import AutoencoderSettings
from ddpm_bench.config.networks import Settings
from ddpm_bench.data.autoencoders import keep, keep_file, packed
from ddpm_bench.errors import UserError
from ddpm_bench.models.build import AUTOENCODER
from ddpm_bench.models.interop.convert import Modules, convert
from ddpm_bench.models.interop.diffusers_folder import expressed, weights_file
from ddpm_bench.models.interop.given import load_file, load_json, tensors
from ddpm_bench.networks.autoencoder import Autoencoder, TimelessBlock, with_weights
from ddpm_bench.networks.weights import outline

BLOCK = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "shortcut": "conv_shortcut"}
ATTENTION = {"norm": ("group_norm",), "qkv": ("to_q", "to_k", "to_v"), "out": ("to_out.0",)}
OLD_ATTENTION = {"norm": ("group_norm",), "qkv": ("query", "key", "value"), "out": ("proj_attn",)}
"""Of diffusers before 0.15."""


class AutoencoderConfig(Settings):
    """config.json of an AutoencoderKL: every key with diffusers' default, and the values that our autoencoder can express.

    sample_size, force_upcast: of its use there, where half precision and tiles are, and not of its function.
    """

    in_channels: Literal[1, 3] = 3
    out_channels: Literal[1, 3] = 3
    down_block_types: tuple[Literal["DownEncoderBlock2D"], ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[Literal["UpDecoderBlock2D"], ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[PositiveInt, ...] = Field((64,), min_length=1)
    layers_per_block: int = 1
    act_fn: Literal["silu", "swish"] = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int | tuple[int, int] = 32
    scaling_factor: float = Field(0.18215, gt=0)
    shift_factor: None = None
    latents_mean: None = None
    latents_std: None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True


def keep_given(path: Path) -> str:
    """The SHA-256 under which an autoencoder lies in the store from now on: of the file of `autoencoder train`, or of diffusers' folder.

    UserError where it cannot be read, or expressed.
    """
    if not path.is_dir():
        return keep_file(path)
    network, scale = read_autoencoder(path)
    return keep(packed(network, scale))


def given_codec(codec: str) -> dict[str, str]:
    """The settings of the process that a codec stands for, as a person gives it: of `autoencoder:PATH` the hash of what lies there.

    UserError as of `keep_given`, and where the path is missing.
    """
    word, colon, path = codec.partition(":")
    if word != AUTOENCODER or not colon:
        return {"codec": codec}
    if not path:
        raise UserError(f"The codec '{codec}' names no file: write {AUTOENCODER}:PATH.")
    return {"codec": AUTOENCODER, "autoencoder": keep_given(Path(path).expanduser())}


@dataclass(frozen=True)
class LatentsOf:
    """The autoencoder of a pipeline, from its folder."""

    network: Autoencoder
    scale: float
    folder: Path

    @property
    def factor(self) -> int:
        return self.network.settings.factor

    @property
    def image_channels(self) -> int:
        return self.network.image_channels

    @property
    def remark(self) -> str:
        return f"of latents of {self.folder.name}/, f = {self.factor}, scaling_factor = {self.scale:g}"

    def keep(self) -> dict[str, str]:
        """The fields of ProcessSettings that say so, once it lies in the store."""
        return {"codec": AUTOENCODER, "autoencoder": keep(packed(self.network, self.scale))}


def read_latents(folder: Path | None, channels: int, clips: bool, where: str) -> LatentsOf | None:
    """What a network of `channels` works on; None where it is of pixels, and there is no folder of an autoencoder.

    UserError where it can be of neither, and where latents would be clipped as pixels are.
    """
    if folder is None:
        if channels not in (1, 3):
            raise UserError(
                f"{where} has in_channels = {channels}: images have 1 or 3. A network of latents is imported with its autoencoder: give "
                "the folder of its whole pipeline."
            )
        return None
    network, scale = read_autoencoder(folder)
    if network.settings.channels != channels:
        raise UserError(
            f"{where} has a network of {channels} channels, and its {folder.name} makes latents of {network.settings.channels}: they do "
            "not belong together."
        )
    if clips:
        raise UserError(
            f"The scheduler of {where} has clip_sample = True, which would clip latents as pixels; set it to false in a copy of its file."
        )
    return LatentsOf(network, scale, folder)


def read_autoencoder(folder: Path) -> tuple[Autoencoder, float]:
    """The network of the folder in evaluation mode, and its scaling_factor."""
    file, where = folder / "config.json", f"'{folder}'"
    if not file.exists():
        raise UserError(f"{where} has no config.json: give the folder of an AutoencoderKL, such as vae/ of a pipeline.")
    content = load_json(file)
    if (name := content.get("_class_name", "AutoencoderKL")) != "AutoencoderKL":
        why = ": its codebook is in the decoder, and latents are those before it" if name == "VQModel" else ""
        raise UserError(f"{where} holds a {name}{why}; only an AutoencoderKL can be a codec here.")
    config = expressed(AutoencoderConfig, content, where, "autoencoder")
    settings = _settings(config, where)
    weights, _ = weights_file(folder)
    inside = f"'{weights.name}' of {where}"
    theirs = tensors(load_file(weights), inside)
    with outline():
        drawn = Autoencoder(config.in_channels, settings)
    state = convert(theirs, _modules(drawn, settings, theirs), drawn, inside, ())
    return with_weights(config.in_channels, settings, state), config.scaling_factor


def _settings(config: AutoencoderConfig, where: str) -> AutoencoderSettings:
    """UserError for combinations of keys that our autoencoder cannot express."""
    widths = config.block_out_channels
    base = widths[0]
    rules = {
        "out_channels": config.out_channels == config.in_channels,
        "down_block_types": len(config.down_block_types) == len(widths),
        "up_block_types": len(config.up_block_types) == len(widths),
        "block_out_channels": not any(width % base for width in widths),
        "use_post_quant_conv": config.use_post_quant_conv == config.use_quant_conv,
    }
    if wrong := [key for key, fits in rules.items() if not fits]:
        raise UserError(
            f"{where} has what ddpm-bench's autoencoder cannot express: {wrong[0]} = {getattr(config, wrong[0])}. It has the image's "
            "channels, one block a width, widths that are multiples of the first, and 1x1 convolutions on both sides or none."
        )
    return AutoencoderSettings(
        channels=config.latent_channels, base=base, multipliers=tuple(width // base for width in widths),
        blocks=config.layers_per_block, groups=config.norm_num_groups, middle_attention=config.mid_block_add_attention,
        quant=config.use_quant_conv,
    )  # fmt: skip


def _modules(network: Autoencoder, settings: AutoencoderSettings, theirs: Mapping[str, Tensor]) -> Modules:
    found: Modules = {"quant": ("quant_conv",), "post_quant": ("post_quant_conv",)}
    attention = OLD_ATTENTION if any(name.endswith(".query.weight") for name in theirs) else ATTENTION
    for part, way, layers in (
        ("encoder", "down", network.encoder.down),
        ("decoder", "up", network.decoder.up),
    ):
        found |= {f"{part}.{ours}": (f"{part}.{its}",) for ours, its in
                  (("first", "conv_in"), ("norm", "conv_norm_out"), ("last", "conv_out"))}  # fmt: skip
        found |= _in_stages(f"{part}.{way}", f"{part}.{way}_blocks", way, layers)
        for number in (0, 2):
            found |= _named(f"{part}.middle.{number}", f"{part}.mid_block.resnets.{number // 2}")
        for our, its in attention.items():
            found[f"{part}.middle.1.{our}"] = tuple(f"{part}.mid_block.attentions.0.{each}" for each in its)
    return found


def _in_stages(ours: str, theirs: str, way: str, layers: nn.ModuleList) -> Modules:
    """Layers on the way, which are numbered in a row here, and by level there."""
    found: Modules = {}
    level = index = 0
    for number, layer in enumerate(layers):
        if isinstance(layer, TimelessBlock):
            found |= _named(f"{ours}.{number}", f"{theirs}.{level}.resnets.{index}")
            index += 1
        else:
            found[f"{ours}.{number}.conv"] = (f"{theirs}.{level}.{way}samplers.0.conv",)
            level, index = level + 1, 0
    return found


def _named(ours: str, theirs: str) -> Modules:
    return {f"{ours}.{our}": (f"{theirs}.{its}",) for our, its in BLOCK.items()}
