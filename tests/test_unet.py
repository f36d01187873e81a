"""The network and its dialects against diffusers' U-Net with copied weights, its size, and its initial values."""

import math

import diffusers
import pytest
import torch
from torch import Tensor, nn

from ddpm_bench.config.grid import Cell
from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.preset import load_preset, resolve
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.errors import UserError
from ddpm_bench.models.build import build_diffusion, build_network
from ddpm_bench.networks.blocks import Attention, Block, Downsample, TimeEmbedding, Upsample, conv
from ddpm_bench.networks.fast import Dropout, GroupNorm, _conv_by_products, _GroupNorm, norm_silu
from ddpm_bench.networks.unet import UNet
from ddpm_bench.networks.weights import outline

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


@pytest.mark.parametrize(("out_channels", "parameters"), [(3, 35_746_307), (6, 35_749_766)])
def test_paper_size_has_the_papers_number_of_parameters(out_channels: int, parameters: int) -> None:
    with torch.device("meta"):
        network = UNet(3, out_channels, 32, UNetSettings())
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("preset", "variance", "parameters"),
    [
        ("iddpm-cifar10", "fixed", 52_542_979),
        ("iddpm-cifar10", "learned-range", 52_546_438),
        ("iddpm-imagenet64", "learned-range", 121_063_942),
        ("adm-imagenet256", "learned-range", 552_814_086),  # the unconditional one
        ("cfg-imagenet64", "learned-range", 295_904_454 + 768),  # ADM's, and a row of 4 * 192 for no class
    ],
)
def test_presets_of_openais_networks_have_their_releases_numbers_of_parameters(
    preset: str, variance: str, parameters: int
) -> None:
    axes = {"parameterization": "eps", "objective": "L", "variance": variance, "published": {}}
    settings = resolve(Cell(name="cell", label="", **axes), load_preset(preset), {})
    shape, diffusion = (3, settings.data.size, settings.data.size), build_diffusion(settings.diffusion)
    with outline():
        network = build_network(settings.network, shape, diffusion)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def counted(base: int, multipliers: tuple[int, ...], blocks: int, attended: set[int], channels: int) -> int:
    """Parameters of the paper's U-Net, added up layer by layer from its description. attended: levels with self-attention."""
    time = 4 * base

    def conv(i: int, o: int, side: int) -> int:
        return i * o * side * side + o

    def block(i: int, o: int) -> int:
        return 2 * i + conv(i, o, 3) + conv(time, o, 1) + 2 * o + conv(o, o, 3) + (conv(i, o, 1) if i != o else 0)

    def attention(c: int) -> int:
        return 2 * c + 4 * conv(c, c, 1)

    widths = [base * multiplier for multiplier in multipliers]
    total, skips, c = conv(base, time, 1) + conv(time, time, 1) + conv(channels, base, 3), [base], base
    for level, width in enumerate(widths):
        for _ in range(blocks):
            total, c = total + block(c, width) + (attention(width) if level in attended else 0), width
            skips.append(c)
        if level < len(widths) - 1:
            total += conv(c, c, 3)
            skips.append(c)
    total += 2 * block(c, c) + attention(c)
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(blocks + 1):
            total, c = total + block(c + skips.pop(), width) + (attention(width) if level in attended else 0), width
        total += conv(c, c, 3) if level else 0
    return total + 2 * c + conv(c, channels, 3)


@pytest.mark.parametrize(
    ("grid", "cell", "preset", "parameters"),
    [
        ("table2", "eps-mse-fixed", "celebahq", 113_673_219),
        ("table2", "eps-mse-fixed", "lsun", 113_673_219),
        ("ddpm-lsun-bedroom", "small", "lsun", 113_673_219),
        ("ddpm-lsun-bedroom", "large", "lsun", 255_677_955),
    ],
)
def test_the_networks_at_256_pixels_have_the_papers_numbers_of_parameters(
    grid: str, cell: str, preset: str, parameters: int
) -> None:
    """Which are 114 million, and about 256 million; diffusers' google/ddpm-celebahq-256 has the first, too."""
    settings = resolve(load_grid(grid).select([cell])[0], load_preset(preset), {})
    network, size, diffusion = settings.network, settings.data.size, build_diffusion(settings.diffusion)
    assert size == 256 and network.dropout == 0
    with outline():
        ours = build_network(network, (3, size, size), diffusion)
    with torch.device("meta"):
        theirs = reference(network, 3, 3, size)
    assert {sum(p.numel() for p in model.parameters()) for model in (ours, theirs)} == {parameters}
    assert counted(network.base, (1, 1, 2, 2, 4, 4), 2, {4}, 3) == parameters  # level 4: 256 halved four times is 16
    assert [sum(isinstance(m, Attention) for m in part.modules()) for part in (ours.down, ours.middle, ours.up)] == [
        2,
        1,
        3,
    ]


def test_the_network_at_256_pixels_makes_a_step_at_a_sixteenth_of_its_width() -> None:
    settings = resolve(load_grid("table2").select(["eps-mse-fixed"])[0], load_preset("celebahq"), {})
    torch.manual_seed(0)
    network, sides = UNet(3, 3, 256, settings.network.model_copy(update={"base": 8, "groups": 4})), []
    for module in network.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
    x_t, step = inputs(1, 3, 256)
    output = network(x_t, step)
    assert output.shape == (1, 3, 256, 256) and sides == [16, 16, 8, 16, 16, 16]
    output.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


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


def test_time_embedding_is_all_sines_then_all_cosines_of_the_step() -> None:
    embedding = TimeEmbedding(8).double()
    with torch.no_grad():
        embedding.hidden.weight.copy_(torch.eye(32, 8))
        embedding.hidden.bias.fill_(100)  # SiLU is the identity there
        embedding.out.weight.copy_(torch.eye(32))
        embedding.out.bias.fill_(0)
    found = embedding(torch.tensor([7]))[0, :8] - 100
    phases = [7 * 10_000 ** (-i / 3) for i in range(4)]
    expected = torch.tensor([math.sin(p) for p in phases] + [math.cos(p) for p in phases], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


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


def test_heads_are_as_many_as_asked_for_or_as_wide() -> None:
    torch.manual_seed(0)
    by_number, by_width = (
        Attention(16, SMALL.model_copy(update=update)) for update in ({"heads": 4}, {"heads": 3, "head_channels": 4})
    )
    by_width.load_state_dict(by_number.state_dict())
    x = torch.randn(2, 16, 4, 4)
    assert by_number.heads == by_width.heads == 4
    assert torch.equal(by_number(x), by_width(x))


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


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_zeroes_a_fraction_p_and_keeps_the_mean_in_value_and_gradient(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(16, 8, 32, 32, requires_grad=True)
    y = Dropout(p)(x)
    y.sum().backward()
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=5 * (p * (1 - p) / x.numel()) ** 0.5)
    assert y.unique().tolist() == [0.0, pytest.approx(1 / (1 - p))]
    assert torch.equal(x.grad, y.detach())
    assert torch.equal(Dropout(p).eval()(x), x)


@pytest.mark.parametrize("activation", [None, nn.functional.silu], ids=["norm", "norm and SiLU"])
def test_group_norm_equals_pytorchs_in_value_and_gradient_whatever_the_memory_order(activation) -> None:
    torch.manual_seed(0)
    norm = shaken(GroupNorm(3, 12)).double()
    for memory in (torch.channels_last, torch.contiguous_format):
        x = torch.randn(4, 12, 5, 6, dtype=torch.float64).contiguous(memory_format=memory).requires_grad_()
        weight = torch.randn_like(x)
        found, expected = ((y, *torch.autograd.grad((y * weight).sum(), (x, norm.weight, norm.bias)))
                           for y in ours_and_pytorchs(norm, x, activation))  # fmt: skip
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def ours_and_pytorchs(norm: GroupNorm, x: torch.Tensor, activation) -> tuple[torch.Tensor, torch.Tensor]:
    """Ours, and PyTorch's layers one after the other."""
    expected = nn.GroupNorm.forward(norm, x)
    return (norm_silu(norm, x), activation(expected)) if activation else (norm(x), expected)


def test_the_backward_pass_keeps_nothing_between_norm_and_silu() -> None:
    norm, x, sizes = GroupNorm(2, 4), torch.randn(3, 4, 8, 8, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: sizes.append(kept.numel()) or kept, lambda kept: kept):
        norm_silu(norm, x)
    assert sizes.count(x.numel()) == 1


def test_group_norm_is_exact_far_from_zero() -> None:
    x = 100 + torch.randn(4, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    expected = nn.functional.group_norm(x.double(), 4)
    torch.testing.assert_close(GroupNorm(4, 16)(x).double(), expected, rtol=0, atol=1e-4)


def test_from_bfloat16_the_norm_of_a_gpu_computes_in_float32() -> None:
    torch.manual_seed(0)
    norm, x = shaken(GroupNorm(3, 12)), torch.randn(4, 12, 5, 6).bfloat16()
    made = []
    for given in (x, x.float()):
        given.requires_grad_()
        y = _GroupNorm.apply(given, norm.weight, norm.bias, norm.num_groups, norm.eps, True)
        y.square().sum().backward()
        made.append((y, given.grad))
    (y, gradient), (expected, expected_gradient) = made
    assert y.dtype == torch.float32 and torch.equal(y, expected) and torch.equal(gradient, expected_gradient.bfloat16())


@pytest.mark.parametrize("maps", [1, 6])
def test_a_convolution_by_products_is_one_in_value_and_gradient(maps: int) -> None:
    torch.manual_seed(0)
    layer, x = conv(5, maps).double(), torch.randn(2, 5, 4, 7, dtype=torch.float64, requires_grad=True)
    nn.init.normal_(layer.bias)
    weight = torch.randn(2, maps, 4, 7, dtype=torch.float64)
    found, expected = ((y, *torch.autograd.grad((y * weight).sum(), (x, layer.weight, layer.bias)))
                       for y in (_conv_by_products(layer, x), layer(x)))  # fmt: skip
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_upsampling_is_doubling_then_a_convolution() -> None:
    torch.manual_seed(0)
    layer, x = Upsample(3).double(), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    expected = layer.conv(nn.functional.interpolate(x, scale_factor=2.0))
    torch.testing.assert_close(layer(x, torch.empty(0)), expected)


def test_downsampling_pads_right_and_bottom_only() -> None:
    layer = Downsample(1)
    nn.init.ones_(layer.conv.weight)
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = 1
    assert layer(x, torch.empty(0))[0, 0].tolist() == [[1, 0], [0, 0]]
    x = x.flip(2, 3)  # the last pixel is seen by the last window alone
    assert layer(x, torch.empty(0))[0, 0].tolist() == [[0, 0], [0, 1]]
    x = torch.ones(1, 1, 4, 4)
    assert layer(x, torch.empty(0))[0, 0].tolist() == [[9, 6], [6, 4]]


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


def test_the_preset_of_mnist_has_the_parameters_that_its_source_states_and_no_self_attention():
    settings = resolve(load_grid("table2").select(["eps-mse-fixed"])[0], load_preset("mnist"), {})
    with outline():
        network = UNet(1, 1, settings.data.size, settings.network)
    assert sum(parameter.numel() for parameter in network.parameters()) == 7_339_297
    assert not any(isinstance(module, Attention) for module in network.modules())
    assert (settings.training.learning_rate, settings.diffusion.T, settings.diffusion.schedule) == (
        1e-4,
        1000,
        "linear",
    )


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
