"""The network and its dialects against diffusers' U-Net with copied weights, and its initial values."""

import diffusers
import pytest
import torch
from torch import Tensor, nn

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.errors import UserError
from ddpm_bench.networks.blocks import Attention, Block
from ddpm_bench.networks.unet import UNet

SMALL = UNetSettings(base=16, multipliers=(1, 2), blocks=1, attention=(8,), groups=8)


def reference(settings: UNetSettings, channels: int, out_channels: int, size: int) -> diffusers.UNet2DModel:
    """diffusers' U-Net with the choices of google/ddpm-cifar10-32, and the dialect of `settings`."""
    attention = [size >> level in settings.attention for level in range(len(settings.multipliers))]
    return diffusers.UNet2DModel(
        sample_size=size, in_channels=channels, out_channels=out_channels, layers_per_block=settings.blocks,
        block_out_channels=tuple(settings.base * multiplier for multiplier in settings.multipliers),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        attention_head_dim=settings.head_channels, norm_num_groups=settings.groups, norm_eps=settings.eps,
        attn_norm_num_groups=settings.groups, downsample_padding={"end": 0, "both": 1}[settings.padding],
        freq_shift=settings.time_shift, flip_sin_to_cos=False, add_attention=settings.middle_attention, dropout=settings.dropout,
        act_fn="silu",
        resnet_time_scale_shift="scale_shift" if settings.scale_shift else "default", center_input_sample=False,
        downsample_type={"conv": "conv", "block": "resnet"}[settings.resample],
        upsample_type={"conv": "conv", "block": "resnet"}[settings.resample],
    )  # fmt: skip


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
            parts = (attention.to_q, attention.to_k, attention.to_v)
            for kind in ("weight", "bias"):
                merged = getattr(target.attention.qkv, kind)
                merged.copy_(torch.cat([getattr(part, kind) for part in parts]))
                copied.add(id(merged))
        for source, part in pairs:
            copy(source, part)

    def copy_level(level: nn.Module, targets: list[nn.Module]) -> None:
        attentions = list(getattr(level, "attentions", None) or [None] * len(level.resnets))
        for resnet, attention in zip(level.resnets, attentions, strict=False):
            copy_block(resnet, attention, targets.pop(0))
        for scaler in [*(getattr(level, "downsamplers", None) or []), *(getattr(level, "upsamplers", None) or [])]:
            target = targets.pop(0)
            copy_block(scaler, None, target) if isinstance(target, Block) else copy(scaler.conv, target.conv)

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


@torch.no_grad()
def shaken(model: nn.Module) -> nn.Module:
    """Move scales and biases off their ones and zeros, which would hide a mistake."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def pair(settings: UNetSettings, channels: int, out_channels: int, size: int) -> tuple[diffusers.UNet2DModel, UNet]:
    torch.manual_seed(0)
    theirs = shaken(reference(settings, channels, out_channels, size)).eval()
    ours = UNet(channels, out_channels, size, settings).eval()
    copy_weights(theirs, ours)
    return theirs, ours


def inputs(batch: int, channels: int, size: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, channels, size, size), torch.tensor([0, 1, 500, 999])[-batch:]


def test_paper_size_equals_diffusers_with_copied_weights() -> None:
    theirs, ours = pair(UNetSettings(), 3, 3, 32)
    x_t, step = inputs(2, 3, 32)
    with torch.no_grad():
        expected, found = theirs(x_t, step).sample, ours(x_t, step)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "channels", "out_channels", "size"),
    [
        (SMALL, 1, 1, 16),
        (SMALL, 1, 2, 16),
        (UNetSettings(base=24, multipliers=(1, 2, 3), blocks=2, attention=(28, 7), groups=8), 3, 6, 28),
        (UNetSettings(base=8, multipliers=(1,), blocks=1, attention=(), groups=4), 3, 3, 9),
        (SMALL.model_copy(update={"eps": 0.1}), 1, 1, 16),
        (SMALL.model_copy(update={"padding": "both"}), 1, 1, 16),
        (SMALL.model_copy(update={"time_shift": 0}), 1, 1, 16),
        (SMALL.model_copy(update={"scale_shift": True}), 1, 1, 16),
        (SMALL.model_copy(update={"head_channels": 8}), 1, 1, 16),
        (SMALL.model_copy(update={"attention": (), "middle_attention": False}), 1, 1, 16),
        (SMALL.model_copy(update={"resample": "block", "attention": (16, 8)}), 1, 1, 16),
        (SMALL.model_copy(update={"resample": "block", "attention": (16, 8), "scale_shift": True}), 1, 1, 16),
    ],
)
def test_any_size_equals_diffusers_in_outputs_and_gradients(
    settings: UNetSettings, channels: int, out_channels: int, size: int
) -> None:
    theirs, ours = (model.double() for model in pair(settings, channels, out_channels, size))
    x_t, _ = inputs(3, channels, size)
    x_t, step = x_t.double(), torch.tensor([0, 1, 2])  # small ones: diffusers takes the sine in float32
    weight = torch.randn(out_channels, size, size, dtype=torch.float64)
    expected, found = theirs(x_t, step).sample, ours(x_t, step)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for output in (expected, found):
        (output * weight).sum().backward()
    # The first layer's gradient has come through every other.
    torch.testing.assert_close(ours.first.weight.grad, theirs.conv_in.weight.grad, rtol=1e-6, atol=1e-6)


def test_an_untrained_network_predicts_zero_and_its_blocks_change_nothing() -> None:
    torch.manual_seed(0)
    network = UNet(1, 1, 16, SMALL).eval()
    x_t, step = inputs(2, 1, 16)
    assert network(x_t, step).abs().max() < 1e-3
    block = network.middle[0]
    h = torch.randn(2, 32, 8, 8)
    torch.testing.assert_close(block(h, torch.randn(2, 64)), h, rtol=0, atol=1e-3)


def test_initial_weights_are_uniform_with_fan_average_variance_and_tiny_where_last() -> None:
    torch.manual_seed(0)
    network = UNet(1, 1, 16, UNetSettings(base=32, multipliers=(1, 2), blocks=1, attention=(8,), groups=8))
    block = network.middle[0]
    fans = {"conv1": 64 * 9, "time": (128 + 64) / 2, "attention.qkv": 64}
    for name, fan in fans.items():
        weight = block.get_parameter(f"{name}.weight")
        assert weight.var().item() == pytest.approx(1 / fan, rel=0.05)
        assert weight.abs().max().item() == pytest.approx((3 / fan) ** 0.5, rel=0.01)
    for last in (block.conv2, block.attention.out, network.last):
        assert 0 < last.weight.abs().max() < 1e-4
    assert all(not p.any() for name, p in network.named_parameters() if name.endswith("bias"))


def test_dialects_have_the_same_initial_values_where_they_have_the_same_parameters() -> None:
    networks = []
    for update in ({}, {"heads": 2, "time_shift": 0, "padding": "both", "eps": 1e-5}):
        torch.manual_seed(0)
        networks.append(UNet(1, 1, 16, SMALL.model_copy(update=update)).state_dict())
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[1])


def test_dropout_acts_in_training_only() -> None:
    _, network = pair(SMALL.model_copy(update={"dropout": 0.5}), 1, 1, 16)
    x_t, step = inputs(2, 1, 16)
    assert torch.equal(network(x_t, step), network(x_t, step))
    network.train()
    assert not torch.equal(network(x_t, step), network(x_t, step))


@pytest.mark.parametrize(
    ("settings", "size", "said"),
    [
        (UNetSettings(base=32, multipliers=(1, 2, 2), attention=()), 18, "multiple of 4"),
        (UNetSettings(base=24, multipliers=(1,), attention=()), 16, "groups = 32 does not divide base = 24"),
        (UNetSettings(base=32, multipliers=(1, 2), attention=(12,)), 16, r"attention at side 12.*\[16, 8\]"),
        (UNetSettings(base=32, multipliers=(), attention=()), 16, "multipliers"),
        (UNetSettings(base=32, multipliers=(1, 0), attention=()), 16, "multipliers"),
        (UNetSettings(base=32, multipliers=(1, 2), attention=(), heads=3), 16, "64 channels.*heads = 3"),
        (UNetSettings(base=32, multipliers=(3, 4), attention=(16,), head_channels=64), 16, "96 channels.* = 64"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused_with_the_remedy(settings, size: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        UNet(1, 1, size, settings)


def test_without_attention_in_the_middle_its_parameters_are_gone_and_nothing_else():
    with_it, without = (
        UNet(1, 1, 16, SMALL.model_copy(update={"middle_attention": held})).state_dict() for held in (True, False)
    )
    gone = with_it.keys() - without.keys()
    assert gone == {name for name in with_it if name.startswith("middle.0.attention.")} and gone
    assert without.keys() < with_it.keys()
    # Heads have to divide only channels that have attention.
    settings = UNetSettings(base=6, multipliers=(1,), attention=(), heads=4, groups=2, middle_attention=False)
    settings.check(8)
    with pytest.raises(UserError, match="attention heads"):
        settings.model_copy(update={"middle_attention": True}).check(8)
