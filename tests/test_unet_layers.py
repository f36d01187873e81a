"""The network's layers: embedding of the step, attention, dropout, norms, convolutions, up- and downsampling."""

import math

import pytest
import torch
from test_unet import SMALL, shaken
from torch import nn

from ddpm_bench.networks.blocks import Attention, Downsample, TimeEmbedding, Upsample, conv
from ddpm_bench.networks.fast import Dropout, GroupNorm, _conv_by_products, _GroupNorm, norm_silu


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


def test_heads_are_as_many_as_asked_for_or_as_wide() -> None:
    torch.manual_seed(0)
    by_number, by_width = (
        Attention(16, SMALL.model_copy(update=update)) for update in ({"heads": 4}, {"heads": 3, "head_channels": 4})
    )
    by_width.load_state_dict(by_number.state_dict())
    x = torch.randn(2, 16, 4, 4)
    assert by_number.heads == by_width.heads == 4
    assert torch.equal(by_number(x), by_width(x))


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
