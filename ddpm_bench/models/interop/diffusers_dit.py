"""diffusers' `DiTPipeline`: the release's transformer as `DiTTransformer2DModel`, of latents or of pixels.

There every block has embeddings of step and class of its own, which are equal in what was converted from the release and cannot be
expressed here where they are not. What is equal is the release's network, and is read as that: diffusers' own code computes it with
other frequencies of the step, 10000^(-i / 127) for the release's 10000^(-i / 128), and by default with another eps in one norm.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from ddpm_bench.config.networks import DiTSettings, Settings
from ddpm_bench.errors import UserError
from ddpm_bench.models.interop.autoencoder_kl import read_latents
from ddpm_bench.models.interop.convert import Found, Modules, check_outputs, convert, stored
from ddpm_bench.models.interop.diffusers_folder import Files, expressed, weights_file
from ddpm_bench.models.interop.diffusers_scheduler import read_scheduler
from ddpm_bench.models.interop.dit import patches_in_our_order
from ddpm_bench.models.interop.given import Given, load_file, load_json, tensors
from ddpm_bench.models.interop.user_says import (
    UserSays,
    assumed,
    average_by_name,
    settle_process,
    settle_size,
    settle_weights,
)
from ddpm_bench.networks import weights
from ddpm_bench.networks.dit import DiT

BLOCK = {
    "modulation": ("norm1.linear",), "qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"), "out": ("attn1.to_out.0",),
    "hidden": ("ff.net.0.proj",), "back": ("ff.net.2",),
}  # fmt: skip
EMBEDDING = "norm1.emb."
THE_RELEASES = (
    "computed as in the release that it was converted from, with frequencies 10000^(-i / 128) of the step and eps 1e-6; diffusers' "
    "DiTTransformer2DModel has 10000^(-i / 127), and a norm with eps = {eps:g}"
)


class TransformerConfig(Settings):
    """config.json of a DiTTransformer2DModel: every key with diffusers' default, and the values that our network can express.

    norm_num_groups, upcast_attention: of what this transformer has not, and of half precision.
    """

    num_attention_heads: PositiveInt = 16
    attention_head_dim: PositiveInt = 72
    in_channels: PositiveInt = 4
    out_channels: PositiveInt | None = None
    num_layers: PositiveInt = 28
    dropout: float = 0.0
    norm_num_groups: int = 32
    attention_bias: Literal[True] = True
    sample_size: PositiveInt = 32
    patch_size: PositiveInt = 2
    activation_fn: Literal["gelu-approximate"] = "gelu-approximate"
    num_embeds_ada_norm: PositiveInt = 1000
    upcast_attention: bool = False
    norm_type: Literal["ada_norm_zero"] = "ada_norm_zero"
    norm_elementwise_affine: Literal[False] = False
    norm_eps: float = 1e-5
    # Of Transformer2DModel alone.
    cross_attention_dim: None = None
    num_vector_embeds: None = None
    use_linear_projection: Literal[False] = False
    only_cross_attention: Literal[False] = False
    double_self_attention: Literal[False] = False
    attention_type: Literal["default"] = "default"
    caption_channels: None = None
    interpolation_scale: None = None
    use_additional_conditions: Literal[False] | None = None


DEFAULTS = {
    "attention_head_dim": 88, "in_channels": None, "num_layers": 1, "attention_bias": False, "sample_size": None, "patch_size": None,
    "activation_fn": "geglu", "num_embeds_ada_norm": None, "norm_type": "layer_norm", "norm_elementwise_affine": True,
}  # fmt: skip
"""Those of Transformer2DModel that are other than DiTTransformer2DModel's."""


def read_transformer(files: Files, source: Given, asked: UserSays) -> Found:
    """The network of the files. UserError for one that ddpm-bench cannot express."""
    where = f"'{source.given}'"
    config = _config(files.config)
    kind = settle_weights(average_by_name(source.name), asked, where)
    scheduler = read_scheduler(files.scheduler)
    channels, outputs = config.in_channels, config.out_channels or config.in_channels
    said = "variance" in scheduler.process
    assumptions = {"variance": "learned-range"} if outputs == 2 * channels and not said else {}
    process = settle_process(scheduler.process, asked, assumptions, where)
    latents = read_latents(files.autoencoder, channels, scheduler.sampling.clip_x0, where)
    check_outputs(process, channels, outputs, where)
    settings = DiTSettings(
        depth=config.num_layers, width=config.num_attention_heads * config.attention_head_dim, heads=config.num_attention_heads,
        patch=config.patch_size, classes=config.num_embeds_ada_norm, null_class=True,
    )  # fmt: skip
    with weights.outline():
        network = DiT(channels, outputs, config.sample_size, settings)
    file, which = weights_file(files.config.parent)
    inside = f"'{file.name}' of {where}"
    theirs = _with_one_embedding(tensors(load_file(file), inside), inside)

    def arrange(name: str, tensor: Tensor) -> Tensor:
        return patches_in_our_order(tensor, channels) if name == "first.weight" else tensor

    state = convert(theirs, _modules(settings), network, inside, (), arrange)
    size = settle_size(config.sample_size * (latents.factor if latents else 1), asked, f"sample_size of {where}")
    remarks = (*files.remarks, *which, *scheduler.remarks, *assumed(process, assumptions, asked), *stored(theirs))
    remarks = (*remarks, THE_RELEASES.format(eps=config.norm_eps))
    if config.dropout:
        remarks = (*remarks, f"dropout = {config.dropout:g} of {files.config.name} is of training alone")
    if latents:
        process, remarks = process.model_copy(update=latents.keep()), (*remarks, latents.remark)
    shape = (latents.image_channels if latents else channels, size, size)
    return Found(file, shape, process, settings, kind, None, state, remarks, scheduler.sampling)


def _config(file: Path) -> TransformerConfig:
    """UserError naming keys and values that our network cannot express."""
    content = load_json(file)
    defaults = DEFAULTS if content.get("_class_name") == "Transformer2DModel" else {}
    return expressed(TransformerConfig, defaults | content, f"'{file.parent.name}/{file.name}'", "transformer")


def _with_one_embedding(theirs: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors, of the embeddings in blocks the first alone. UserError where another is not equal to it."""
    kept = dict(theirs)
    for name, tensor in theirs.items():
        block, dot, of_it = name.partition(f".{EMBEDDING}")
        first = f"transformer_blocks.0.{EMBEDDING}{of_it}"
        if dot and name != first and first in theirs:
            if not torch.equal(tensor, theirs[first]):
                raise UserError(
                    f"{where} does not fit the network: {name} is not equal to that of the first block, so {block} is told step and class "
                    "by an embedding of its own, as diffusers trains it; in DiT's release, and here, all blocks share one."
                )
            del kept[name]
    return kept


def _modules(settings: DiTSettings) -> Modules:
    embedding = f"transformer_blocks.0.{EMBEDDING}"
    found: Modules = {
        "first": ("pos_embed.proj",), "modulation": ("proj_out_1",), "last": ("proj_out_2",),
        "conditioning.hidden": (f"{embedding}timestep_embedder.linear_1",),
        "conditioning.out": (f"{embedding}timestep_embedder.linear_2",),
        "conditioning.labels": (f"{embedding}class_embedder.embedding_table",),
    }  # fmt: skip
    for number in range(settings.depth):
        for our, their in BLOCK.items():
            found[f"blocks.{number}.{our}"] = tuple(f"transformer_blocks.{number}.{each}" for each in their)
    return found
