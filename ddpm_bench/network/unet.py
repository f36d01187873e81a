"""The U-Net of Ho, Jain, Abbeel 2020 (appendix B): x_t and the 0-based step in, one map a predicted quantity out.

Two residual blocks a level (at the paper's size), GroupNorm and SiLU before each convolution, the time embedding added
between the two, one-head self-attention where the level's side is listed and in the middle, skips from every step down to
the blocks up. With the defaults of `NetworkSettings` and 3 channels it has the paper's 35.7 M parameters, and its outputs
equal those of diffusers' `UNet2DModel` in the google/ddpm-cifar10-32 configuration when weights are copied.

Written for two cores: channels-last memory, one product for q, k and v, and upsampling as one transposed convolution.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_bench.errors import UserError
from ddpm_bench.network.cpu import Dropout, GroupNorm
from ddpm_bench.settings import NetworkSettings

EPS = 1e-6  # of GroupNorm: the release's value, not PyTorch's 1e-5


def initialise(layer: nn.Conv2d | nn.Linear, scale: float = 1.0) -> None:
    """Uniform weights of variance scale / fan-average, zero biases. The release takes scale 1e-10 for last layers."""
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(scale))
    nn.init.zeros_(layer.bias)


def conv(channels_in: int, channels_out: int, scale: float = 1.0, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution with the release's initial values; stride 1 keeps the side, stride 2 leaves padding to the caller."""
    layer = nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2 if stride == 1 else 0)
    initialise(layer, scale)
    return layer


def linear(features_in: int, features_out: int, scale: float = 1.0) -> nn.Linear:
    layer = nn.Linear(features_in, features_out)
    initialise(layer, scale)
    return layer


class TimeEmbedding(nn.Module):
    """Sinusoids of the 0-based integer step: all sines, then all cosines, frequencies 10000^(-i/(half-1)); two layers.

    Float32 in the release's order of operations: near step 1000 another order moves the phases by 1e-4.
    """

    def __init__(self, base: int) -> None:
        super().__init__()
        half = base // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32) / max(half - 1, 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.odd = base % 2
        self.hidden = linear(base, 4 * base)
        self.out = linear(4 * base, 4 * base)

    def forward(self, step: Tensor) -> Tensor:
        phase = step[:, None].float() * self.frequencies
        embedding = F.pad(torch.cat((phase.sin(), phase.cos()), dim=1), (0, self.odd))  # (B, base)
        embedding = embedding.to(self.hidden.weight.dtype)
        return F.silu(self.out(F.silu(self.hidden(embedding))))  # (B, 4 base); every block begins with this SiLU


class Attention(nn.Module):
    """Self-attention with one head over all pixels, added to its input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, EPS)
        self.qkv = nn.Linear(channels, 3 * channels)
        for part in self.qkv.weight.chunk(3):  # three square matrices, each with its own fan
            nn.init.xavier_uniform_(part)
        nn.init.zeros_(self.qkv.bias)
        self.out = linear(channels, channels, scale=1e-10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        q, k, v = self.qkv(tokens)[:, None].chunk(3, dim=-1)  # (B, 1, HW, C) each
        attended = self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return x + attended.transpose(1, 2).unflatten(2, x.shape[2:])


class Block(nn.Module):
    """A residual block, followed by attention where asked for."""

    def __init__(self, channels_in: int, channels_out: int, time: int, settings: NetworkSettings, attention: bool) -> None:
        super().__init__()
        self.norm1 = GroupNorm(settings.groups, channels_in, EPS)
        self.conv1 = conv(channels_in, channels_out)
        self.time = linear(time, channels_out)
        self.norm2 = GroupNorm(settings.groups, channels_out, EPS)
        self.dropout = Dropout(settings.dropout)
        self.conv2 = conv(channels_out, channels_out, scale=1e-10)
        self.shortcut = nn.Identity() if channels_in == channels_out else conv(channels_in, channels_out, size=1)
        self.attention = Attention(channels_out, settings.groups) if attention else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(time)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.attention(self.shortcut(x) + h)


class Downsample(nn.Module):
    """Stride-2 convolution, padded right and bottom only, as the release does (TensorFlow's 'SAME')."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels, stride=2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution, as one transposed convolution of the small image.

    Doubling is itself a transposed convolution with a 2x2 kernel of ones; the two kernels compose to one of 4x4, which
    costs 4 products a pixel and channel pair where the plain form costs 9. The parameters stay those of the 3x3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        w = F.pad(self.conv.weight.transpose(0, 1).flip(2, 3), (1, 1, 1, 1))  # (in, out, 5, 5)
        w = w[:, :, 1:, 1:] + w[:, :, 1:, :-1] + w[:, :, :-1, 1:] + w[:, :, :-1, :-1]  # with ones(2, 2): (in, out, 4, 4)
        return F.conv_transpose2d(x, w, self.conv.bias, stride=2, padding=1)


class UNet(nn.Module):
    """epsilon_theta(x_t, t), or whatever the parameterization and the variance ask of it.

    Args:
        in_channels: C of the images.
        out_channels: C, or 2 C where the variance is learned.
        size: side of the square images in pixels; decides at which levels there is attention.
        settings: widths, depth, groups, dropout.

    Initial values are drawn from torch's global generator. Raises UserError for sizes that do not fit together.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int, settings: NetworkSettings) -> None:
        super().__init__()
        check(size, settings)
        base, time, last = settings.base, 4 * settings.base, len(settings.multipliers) - 1
        self.time = TimeEmbedding(base)
        self.first = conv(in_channels, base)

        channels, skips = base, [base]
        self.down = nn.ModuleList()
        for level, multiplier in enumerate(settings.multipliers):
            attention = size >> level in settings.attention
            for _ in range(settings.blocks):
                self.down.append(Block(channels, base * multiplier, time, settings, attention))
                channels = base * multiplier
                skips.append(channels)
            if level < last:
                self.down.append(Downsample(channels))
                skips.append(channels)

        self.middle = nn.ModuleList(Block(channels, channels, time, settings, attention) for attention in (True, False))

        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(settings.multipliers))):
            attention = size >> level in settings.attention
            for _ in range(settings.blocks + 1):
                self.up.append(Block(channels + skips.pop(), base * multiplier, time, settings, attention))
                channels = base * multiplier
            if level > 0:
                self.up.append(Upsample(channels))

        self.norm = GroupNorm(settings.groups, channels, EPS)
        self.last = conv(channels, out_channels, scale=1e-10)
        self.to(memory_format=torch.channels_last)

    def forward(self, x_t: Tensor, step: Tensor) -> Tensor:
        """Predict from `x_t` (B, in_channels, size, size), scaled to about [-1, 1], at 0-based `step` (B,) int64.

        Returns (B, out_channels, size, size).
        """
        time = self.time(step)
        h = self.first(x_t.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for layer in self.down:
            h = layer(h, time)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, time)
        for layer in self.up:
            h = layer(torch.cat((h, skips.pop()), dim=1) if isinstance(layer, Block) else h, time)
        with torch.autocast(h.device.type, enabled=False):  # under autocast too, the prediction is not rounded to bfloat16
            return self.last(F.silu(self.norm(h.float() if h.dtype == torch.bfloat16 else h)))


def check(size: int, settings: NetworkSettings) -> None:
    """UserError where the side cannot be halved often enough, groups do not divide, or no level has an attention size."""
    levels = len(settings.multipliers)
    if not levels or min(settings.multipliers) < 1:
        raise UserError(f"multipliers {list(settings.multipliers)} must be one positive number a level, such as [1, 2, 2, 2].")
    if size % 2 ** (levels - 1):
        raise UserError(f"Images of side {size} cannot be halved {levels - 1} times for multipliers "
                        f"{list(settings.multipliers)}; use a multiple of {2 ** (levels - 1)} or fewer multipliers.")
    if settings.base % settings.groups:
        raise UserError(f"groups = {settings.groups} does not divide base = {settings.base}; choose a divisor of it.")
    sides = [size >> level for level in range(levels)]
    for side in settings.attention:
        if side not in sides:
            raise UserError(f"attention at side {side}: the levels of this network have sides {sides}; choose among these.")
