"""diffusers: the folder of an unconditional pipeline or of a bare `UNet2DModel`, or the id of one on the hub.

A pipeline whose network is a transformer is read by diffusers_dit.py.

    unet/config.json, unet/diffusion_pytorch_model.safetensors     the network; or both at the top
    scheduler/scheduler_config.json                                the process; or at the top, or none
    vqvae/config.json and weights, of an AutoencoderKL             what its latents are of, where it is an LDM pipeline

Keys that a configuration leaves out take diffusers' defaults. What our network cannot express is refused by name and
value.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt
from torch import Tensor

from ddpm_bench.config.networks import Settings, UNetSettings
from ddpm_bench.errors import UserError
from ddpm_bench.models.interop.autoencoder_kl import read_latents
from ddpm_bench.models.interop.convert import (
    Found,
    Modules,
    block,
    check_outputs,
    convert,
    cosines_first,
    doubled,
    outline,
    places,
    stored,
    time_columns,
    unexpected,
)  # fmt: skip
from ddpm_bench.models.interop.diffusers_dit import read_transformer
from ddpm_bench.models.interop.diffusers_folder import INDEX, NETWORKS, expressed, pipeline_files, weights_file
from ddpm_bench.models.interop.diffusers_scheduler import read_scheduler
from ddpm_bench.models.interop.given import Given, load_file, load_json, tensors
from ddpm_bench.models.interop.user_says import (
    UserSays,
    average_by_name,
    settle_process,
    settle_size,
    settle_weights,
)
from ddpm_bench.networks.unet import UNet

BLOCK = {"norm1": "norm1", "conv1": "conv1", "time": "time_emb_proj", "norm2": "norm2", "conv2": "conv2",
         "shortcut": "conv_shortcut"}  # fmt: skip
ATTENTION = {"norm": ("group_norm",), "qkv": ("to_q", "to_k", "to_v"), "out": ("to_out.0",)}
OLD_ATTENTION = {"norm": ("group_norm",), "qkv": ("query", "key", "value"), "out": ("proj_attn",)}
"""Of diffusers before 0.15, as many published files have it."""
CAUSES = (
    unexpected(r"^class_embedding\.", "class-conditional, which ddpm-bench does not score"),
    unexpected(r"lora", "LoRA weights beside the network's: fuse them first"),
    doubled(r"\.time_emb_proj\.", "config.json says another resnet_time_scale_shift than the weights have"),
)

Down = Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]
Up = Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]


class UNetConfig(Settings):
    """config.json of a UNet2DModel: every key with diffusers' default, and the values that our network can express."""

    sample_size: int | tuple[int, int]
    in_channels: PositiveInt = 3
    out_channels: int = Field(3, ge=1)
    center_input_sample: Literal[False] = False
    time_embedding_type: Literal["positional"] = "positional"
    time_embedding_dim: int | None = None
    freq_shift: Literal[0, 1] = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[Down, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: Literal["UNetMidBlock2D"] = "UNetMidBlock2D"
    up_block_types: tuple[Up, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple[PositiveInt, ...] = Field((224, 448, 672, 896), min_length=1)
    layers_per_block: int = 2
    mid_block_scale_factor: Literal[1] = 1
    downsample_padding: Literal[0, 1] = 1
    downsample_type: Literal["conv", "resnet"] = "conv"
    upsample_type: Literal["conv", "resnet"] = "conv"
    dropout: float = 0.0
    act_fn: Literal["silu", "swish"] = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    add_attention: Literal[True] = True
    class_embed_type: None = None
    num_class_embeds: None = None
    num_train_timesteps: int | None = None
    # What EMAModel adds where it saves a moving average.
    decay: float | None = None
    min_decay: float | None = None
    optimization_step: int | None = None
    update_after_step: int | None = None
    use_ema_warmup: bool | None = None
    inv_gamma: float | None = None
    power: float | None = None


def recognises(source: Given) -> bool:
    files = (INDEX, "config.json", *(f"{name}/config.json" for name in NETWORKS))
    return bool(source.hub_id) or any((source.path / file).exists() for file in files)


def read(source: Given, asked: UserSays) -> Found:
    """The network in a folder, or of a hub id, which is fetched."""
    asked.no_flags("diffusers")
    asked.no_key("diffusers")
    folder = _fetched(source.hub_id) if source.hub_id else source.path
    where = f"'{source.given}'"
    files = pipeline_files(folder, where)
    if load_json(files.config).get("_class_name") in NETWORKS["transformer"]:
        return read_transformer(files, source, asked)
    config = _config(files.config)
    kind = settle_weights("ema" if config.decay is not None else average_by_name(source.name), asked, where)
    scheduler = read_scheduler(files.scheduler)
    process = settle_process(scheduler.process, asked, {}, where)
    latents = read_latents(files.autoencoder, config.in_channels, scheduler.sampling.clip_x0, where)
    check_outputs(process, config.in_channels, config.out_channels, where)
    side = _side(config, files.config)
    settings = _architecture(config, files.config)
    network = outline(settings, config.in_channels, config.out_channels, side)
    weights, which = weights_file(files.config.parent)
    inside = f"'{weights.name}' of {where}"
    theirs = tensors(load_file(weights), inside)

    def arrange(name: str, tensor: Tensor) -> Tensor:
        flipped = name == "time.hidden.weight" and config.flip_sin_to_cos
        return time_columns(tensor, cosines_first(settings.base)) if flipped else tensor

    state = convert(theirs, _modules(network, settings, theirs), network, inside, CAUSES, arrange)
    size = settle_size(side * (latents.factor if latents else 1), asked, f"sample_size of {where}")
    channels = latents.image_channels if latents else config.in_channels
    dropout = (f"dropout = {config.dropout:g} of {files.config.name} is of training alone",) if config.dropout else ()
    remarks = (*files.remarks, *which, *scheduler.remarks, *dropout, *stored(theirs))
    if latents:
        process, remarks = process.model_copy(update=latents.keep()), (*remarks, latents.remark)
    step = config.optimization_step
    return Found(weights, (channels, size, size), process, settings, kind, step, state, remarks, scheduler.sampling)


def _fetched(hub_id: str) -> Path:
    """The folder of a repository of the hub in huggingface_hub's cache; only JSON and safetensors are fetched."""
    by_hand = f"Download its *.json and *.safetensors files by hand, and give their folder instead of '{hub_id}'."
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UserError(f"'{hub_id}' is no file or folder here; to fetch it from the Hugging Face hub, "
                        f"`pip install huggingface_hub`. {by_hand}") from error  # fmt: skip
    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # httpx's, huggingface_hub's and the system's: all mean that it is not there
        reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
        raise UserError(f"'{hub_id}' is no file or folder here, and the Hugging Face hub does not give it ({reason}). "
                        + by_hand) from error  # fmt: skip


def _config(file: Path) -> UNetConfig:
    """UserError naming keys and values that our network cannot express."""
    content = load_json(file)
    if (name := content.get("_class_name", "UNet2DModel")) != "UNet2DModel":
        raise UserError(f"'{file.name}' is of a {name}; only an unconditional UNet2DModel can be converted.")
    return expressed(UNetConfig, content, f"'{file.parent.name}/{file.name}'", "network")


def _side(config: UNetConfig, file: Path) -> int:
    height, width = (config.sample_size,) * 2 if isinstance(config.sample_size, int) else config.sample_size
    if height != width:
        raise UserError(f"sample_size {height}x{width} in '{file.name}': ddpm-bench's images are square.")
    return height


def _architecture(config: UNetConfig, file: Path) -> UNetSettings:
    """UserError for combinations of keys that our network cannot express."""

    def refuse(key: str, why: str) -> UserError:
        return UserError(f"{key} = {getattr(config, key)} in '{file.parent.name}/{file.name}': {why}")

    widths, downs, ups = config.block_out_channels, config.down_block_types, config.up_block_types
    base, size = widths[0], _side(config, file)
    attention = [name.startswith("Attn") for name in downs]
    if len(downs) != len(widths) or attention != [name.startswith("Attn") for name in reversed(ups)]:
        raise refuse("up_block_types", f"they must mirror down_block_types = {downs}, one a width.")
    if any(width % base for width in widths):
        raise refuse("block_out_channels", "they must be multiples of the first.")
    if config.time_embedding_dim not in (None, 4 * base):
        raise refuse("time_embedding_dim", f"it must be four times the first width, {4 * base}.")
    # In the middle diffusers leaves the attention's norm out with scale_shift, unless it is given a number of groups.
    groups = config.norm_num_groups if config.resnet_time_scale_shift == "default" else None
    if (config.attn_norm_num_groups or groups) != config.norm_num_groups:
        raise refuse("attn_norm_num_groups", f"it must be norm_num_groups, {config.norm_num_groups}, with "
                     f"resnet_time_scale_shift = {config.resnet_time_scale_shift}.")  # fmt: skip
    return UNetSettings(
        base=base, multipliers=tuple(width // base for width in widths), blocks=config.layers_per_block, dropout=0.0,
        attention=tuple(size >> level for level, there in enumerate(attention) if there),
        groups=config.norm_num_groups, head_channels=config.attention_head_dim, time_shift=config.freq_shift,
        scale_shift=config.resnet_time_scale_shift == "scale_shift",
        padding="both" if config.downsample_padding else "end",
        resample=_resampling(config, refuse), eps=config.norm_eps,
    )  # fmt: skip


def _resampling(config: UNetConfig, refuse: Callable[[str, str], UserError]) -> Literal["conv", "block"]:
    """How levels are joined: their blocks' types say it, or for those with attention a key of its own."""

    def way(name: str, key: str) -> Literal["conv", "block"]:
        return "block" if name.startswith("Resnet") or (name.startswith("Attn") and key == "resnet") else "conv"

    between = [way(name, config.downsample_type) for name in config.down_block_types[:-1]]
    between += [way(name, config.upsample_type) for name in config.up_block_types[:-1]]
    if len(set(between)) > 1:
        raise refuse("downsample_type", f"with these blocks, levels are joined in two ways ({', '.join(between)}); "
                     "ddpm-bench's network has one.")  # fmt: skip
    return between[0] if between else "conv"


def _modules(network: UNet, settings: UNetSettings, theirs: Mapping[str, Tensor]) -> Modules:
    parts = OLD_ATTENTION if any(name.endswith(".query.weight") for name in theirs) else ATTENTION
    found: Modules = {
        "time.hidden": ("time_embedding.linear_1",), "time.out": ("time_embedding.linear_2",), "first": ("conv_in",),
        "norm": ("conv_norm_out",), "last": ("conv_out",),
    }  # fmt: skip
    for place in places(network):
        level = f"{place.side}_blocks.{place.stage}"
        between = f"{level}.{place.side}samplers.0"
        if place.resamples and settings.resample == "conv":
            found[f"{place.ours}.conv"] = (f"{between}.conv",)
        else:
            theirs_block = between if place.resamples else f"{level}.resnets.{place.index}"
            found |= block(place.ours, theirs_block, f"{level}.attentions.{place.index}", BLOCK, parts)
    for i in (0, 1):
        found |= block(f"middle.{i}", f"mid_block.resnets.{i}", f"mid_block.attentions.{i}", BLOCK, parts)
    return found
