"""The network against diffusers' U-Net with copied weights, the paper's size, and its initial values."""

import diffusers
import pytest
import torch
from torch import Tensor, nn

from ddpm_bench.errors import UserError
from ddpm_bench.network.unet import Attention, Block, Downsample, UNet, Upsample
from ddpm_bench.settings import NetworkSettings

SMALL = NetworkSettings(base=16, multipliers=(1, 2), blocks=1, attention=(8,), groups=8)


def reference(settings: NetworkSettings, channels: int, out_channels: int, size: int) -> diffusers.UNet2DModel:
    """diffusers' U-Net with the choices of google/ddpm-cifar10-32."""
    attention = [size >> level in settings.attention for level in range(len(settings.multipliers))]
    return diffusers.UNet2DModel(
        sample_size=size, in_channels=channels, out_channels=out_channels, layers_per_block=settings.blocks,
        block_out_channels=tuple(settings.base * multiplier for multiplier in settings.multipliers),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        attention_head_dim=None, norm_num_groups=settings.groups, norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False,
        freq_shift=1, add_attention=True, dropout=settings.dropout, act_fn="silu", center_input_sample=False,
    )


@torch.no_grad()
def copy_weights(theirs: diffusers.UNet2DModel, ours: UNet) -> None:
    """Give `ours` the weights of `theirs`; every one of them, each once."""
    copied: set[int] = set()

    def copy(source: nn.Module, target: nn.Module) -> None:
        for name, parameter in target.named_parameters():
            parameter.copy_(source.get_parameter(name))
            copied.add(id(parameter))

    def copy_block(resnet: nn.Module, attention: nn.Module | None, target: Block) -> None:
        pairs = [(resnet.norm1, target.norm1), (resnet.conv1, target.conv1), (resnet.time_emb_proj, target.time)]
        pairs += [(resnet.norm2, target.norm2), (resnet.conv2, target.conv2)]
        if isinstance(target.shortcut, nn.Conv2d):
            pairs.append((resnet.conv_shortcut, target.shortcut))
        if isinstance(target.attention, Attention):
            pairs += [(attention.group_norm, target.attention.norm), (attention.to_out[0], target.attention.out)]
            for kind in ("weight", "bias"):
                merged = getattr(target.attention.qkv, kind)
                merged.copy_(torch.cat([getattr(part, kind) for part in (attention.to_q, attention.to_k, attention.to_v)]))
                copied.add(id(merged))
        for source, part in pairs:
            copy(source, part)

    def copy_level(level: nn.Module, targets: list[nn.Module]) -> None:
        attentions = list(getattr(level, "attentions", None) or [None] * len(level.resnets))
        for resnet, attention in zip(level.resnets, attentions, strict=False):
            copy_block(resnet, attention, targets.pop(0))
        for scaler in [*(getattr(level, "downsamplers", None) or []), *(getattr(level, "upsamplers", None) or [])]:
            copy(scaler.conv, targets.pop(0).conv)

    copy(theirs.time_embedding.linear_1, ours.time.hidden)
    copy(theirs.time_embedding.linear_2, ours.time.out)
    copy(theirs.conv_in, ours.first)
    down, up = list(ours.down), list(ours.up)
    for level in theirs.down_blocks:
        copy_level(level, down)
    for level in theirs.up_blocks:
        copy_level(level, up)
    copy_block(theirs.mid_block.resnets[0], theirs.mid_block.attentions[0], ours.middle[0])
    copy_block(theirs.mid_block.resnets[1], None, ours.middle[1])
    copy(theirs.conv_norm_out, ours.norm)
    copy(theirs.conv_out, ours.last)
    assert copied == {id(parameter) for parameter in ours.parameters()}
