"""What the U-Net is made of. Initial values are those of the release, drawn from torch's global generator.

The choices between dialects are those of `UNetSettings`; the defaults are the paper's.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.networks.fast import Dropout, GroupNorm, norm_silu

PADDING = {"end": (0, 1, 0, 1), "both": (1, 1, 1, 1)}
"""Zeros left, right, above and below an image before a stride-2 convolution; "end" is TensorFlow's 'SAME'."""


def initialise(layer: nn.Conv2d | nn.Linear, scale: float = 1.0) -> None:
    """Uniform weights of variance scale / fan-average, zero biases. The release takes scale 1e-10 for last layers."""
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(scale))
    assert layer.bias is not None  # every layer here has one
    nn.init.zeros_(layer.bias)


def conv(channels_in: int, channels_out: int, scale: float = 1.0, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution with initial values; stride 1 keeps the side, stride 2 leaves padding to the caller."""
    layer = nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2 if stride == 1 else 0)
    initialise(layer, scale)
    return layer


def linear(features_in: int, features_out: int, scale: float = 1.0) -> nn.Linear:
    layer = nn.Linear(features_in, features_out)
    initialise(layer, scale)
    return layer


def norm(channels: int, settings: UNetSettings) -> GroupNorm:
    return GroupNorm(settings.groups, channels, settings.eps)


class TimeEmbedding(nn.Module):
    """Sinusoids of the 0-based step, which need not be whole, then two layers.

    All sines, then all cosines, frequencies 10000^(-i / (half - shift)) for i in 0..half-1. Float32 in the release's
    order of operations: near step 1000 another order moves the phases by 1e-4.
    """

    frequencies: Tensor

    def __init__(self, base: int, shift: int = 1) -> None:
        super().__init__()
        half = base // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32) / max(half - shift, 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.odd = base % 2
        self.hidden = linear(base, 4 * base)
        self.out = linear(4 * base, 4 * base)

    def forward(self, step: Tensor, told: Tensor | None = None) -> Tensor:
        """(B, 4 base) of the step (B,); `told` (B, 4 base), of what is told beside, is added."""
        embedding = self.embedded(step)
        return F.silu(embedding if told is None else embedding + told)  # every block begins with this SiLU

    def embedded(self, step: Tensor) -> Tensor:
        """The same before its last SiLU, where others may be added."""
        phase = step[:, None].float() * self.frequencies
        embedding = F.pad(torch.cat((phase.sin(), phase.cos()), dim=1), (0, self.odd))  # (B, base)
        embedding = embedding.to(self.hidden.weight.dtype)
        return self.out(F.silu(self.hidden(embedding)))


def heads(channels: int, settings: UNetSettings) -> int:
    """Attention heads of a layer with `channels` channels."""
    return channels // settings.head_channels if settings.head_channels else settings.heads


class Attention(nn.Module):
    """Self-attention over all pixels, added to its input. Rows of `qkv`: q, k and v, the heads inside each."""

    def __init__(self, channels: int, settings: UNetSettings) -> None:
        super().__init__()
        self.heads = heads(channels, settings)
        self.norm = norm(channels, settings)
        self.qkv = nn.Linear(channels, 3 * channels)
        for part in self.qkv.weight.chunk(3):  # three square matrices, each with its own fan
            nn.init.xavier_uniform_(part)
        nn.init.zeros_(self.qkv.bias)
        self.out = linear(channels, channels, scale=1e-10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        parts = self.qkv(tokens).chunk(3, dim=-1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)  # (B, heads, HW, C / heads)
        attended = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + attended.transpose(1, 2).unflatten(2, x.shape[2:])


class Block(nn.Module):
    """A residual block, followed by attention where asked for.

    resize: what changes the side, before the first convolution and in the shortcut, where a block is a resampling.
    """

    def __init__(
        self, channels_in: int, channels_out: int, time: int, settings: UNetSettings, attention: bool = False,
        resize: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1 = norm(channels_in, settings)
        self.conv1 = conv(channels_in, channels_out)
        self.time = linear(time, 2 * channels_out if settings.scale_shift else channels_out)
        self.norm2 = norm(channels_out, settings)
        self.dropout = Dropout(settings.dropout)
        self.conv2 = conv(channels_out, channels_out, scale=1e-10)
        self.shortcut = nn.Identity() if channels_in == channels_out else conv(channels_in, channels_out, size=1)
        self.attention = Attention(channels_out, settings) if attention else nn.Identity()
        self.resize = resize or nn.Identity()
        self.scale_shift = settings.scale_shift

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(self.resize(norm_silu(self.norm1, x)))
        h = self.conv2(self.dropout(self.conditioned(h, self.time(time)[:, :, None, None])))
        return self.attention(self.shortcut(self.resize(x)) + h)

    def conditioned(self, h: Tensor, time: Tensor) -> Tensor:
        """The second norm and its SiLU, told the time, (B, C or 2 C, 1, 1)."""
        if not self.scale_shift:
            return norm_silu(self.norm2, h + time)
        scale, shift = time.chunk(2, dim=1)
        return F.silu(self.norm2(h) * (1 + scale) + shift)


class Downsample(nn.Module):
    """Stride-2 convolution; the release pads right and bottom only."""

    def __init__(self, channels: int, padding: str = "end") -> None:
        super().__init__()
        self.conv = conv(channels, channels, stride=2)
        self.padding = PADDING[padding]

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        return self.conv(F.pad(x, self.padding))


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution, as one transposed convolution of the small image.

    Doubling is itself a transposed convolution with a 2x2 kernel of ones; the two kernels compose to one of 4x4, which
    costs 4 products a pixel and channel pair where the plain form costs 9. The parameters stay those of the 3x3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        w = F.pad(self.conv.weight.transpose(0, 1).flip(2, 3), (1, 1, 1, 1))  # (in, out, 5, 5)
        w = w[:, :, 1:, 1:] + w[:, :, 1:, :-1] + w[:, :, :-1, 1:] + w[:, :, :-1, :-1]  # (in, out, 4, 4)
        return F.conv_transpose2d(x, w, self.conv.bias, stride=2, padding=1)


def downsample(channels: int, time: int, settings: UNetSettings) -> Downsample | Block:
    """Halves the side."""
    if settings.resample == "conv":
        return Downsample(channels, settings.padding)
    return Block(channels, channels, time, settings, resize=nn.AvgPool2d(2))


def upsample(channels: int, time: int, settings: UNetSettings) -> Upsample | Block:
    """Doubles the side."""
    if settings.resample == "conv":
        return Upsample(channels)
    return Block(channels, channels, time, settings, resize=nn.UpsamplingNearest2d(scale_factor=2))


def enlarged(small: Tensor, side: int) -> Tensor:
    """(B, C, h, w) -> (B, C, side, side), bilinear between the centres of pixels, as improved-diffusion's `SuperResModel`."""
    return F.interpolate(small, (side, side), mode="bilinear", align_corners=False)


def resamples(layer: nn.Module) -> bool:
    """Whether a layer of the U-Net changes the side; all others on the way up take a skip."""
    return not isinstance(layer, Block) or not isinstance(layer.resize, nn.Identity)
