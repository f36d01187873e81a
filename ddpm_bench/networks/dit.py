"""The diffusion transformer, DiT, of Peebles, Xie 2023 with adaLN-Zero: x_t in patches, the 0-based step and a class in.

Tokens with fixed 2-D sin-cos positions pass blocks of self-attention and an MLP, which c = t + y, of step and class, scales,
shifts and gates; all that does so begins with zeros, so that a new network predicts 0 and its blocks change nothing. Initial
values are those of the PyTorch release, drawn from torch's global generator.

With the twelve sizes of the paper it has the release's numbers of parameters, and its outputs equal those of diffusers'
`DiTTransformer2DModel` when weights are copied and that is told the release's frequencies of the step.
On a GPU it computes in bfloat16 by autocast, as the U-Net; weights, the last layer and predictions are float32.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_bench.config.networks import DiTSettings
from ddpm_bench.networks.blocks import linear
from ddpm_bench.networks.condition import Condition

EPS = 1e-6
"""Of every LayerNorm; none has weights of its own."""
FEATURES = 256
"""Cosines and sines of the step."""


class DiT(nn.Module):
    """epsilon_theta(x_t, t, y), or whatever the parameterization and the variance ask of it.

    Args:
        in_channels: C of x_t.
        out_channels: C, or 2 C where the variance is learned, whose channels come last.
        side: of x_t, square, in pixels; decides how many tokens there are.
        settings: depth, width, heads, patch, classes.

    Raises UserError for sizes that do not fit together.
    """

    in_bfloat16: bool | None = None
    """Whether to compute in bfloat16; None: on a GPU."""
    positions: Tensor

    def __init__(self, in_channels: int, out_channels: int, side: int, settings: DiTSettings) -> None:
        super().__init__()
        settings.check(side)
        self.patch, width = settings.patch, settings.width
        self.first = nn.Linear(in_channels * self.patch**2, width)
        nn.init.xavier_uniform_(self.first.weight)  # its bias stays as torch draws it, as in the release
        self.register_buffer("positions", positions(side // self.patch, width), persistent=False)
        self.conditioning = Conditioning(settings)
        self.blocks = nn.ModuleList(DiTBlock(settings) for _ in range(settings.depth))
        self.modulation = zero_linear(width, 2 * width)
        self.last = zero_linear(width, out_channels * self.patch**2)

    def forward(self, x_t: Tensor, step: Tensor, condition: Condition | None = None) -> Tensor:
        """Predict from `x_t` (B, in_channels, side, side), scaled to about [-1, 1], at 0-based `step` (B,) int64.

        condition: the labels of a network that has classes, and of no other. Returns (B, out_channels, side, side).
        """
        with torch.autocast(
            x_t.device.type, torch.bfloat16, enabled=x_t.is_cuda if self.in_bfloat16 is None else self.in_bfloat16
        ):
            c = self.conditioning(step, condition)
            tokens = self.first(patchify(x_t, self.patch)) + self.positions
            for block in self.blocks:
                tokens = block(tokens, c)
        with torch.autocast(x_t.device.type, enabled=False):  # the prediction is never rounded to bfloat16
            dtype = self.last.weight.dtype
            shift, scale = self.modulation(c.to(dtype))[:, None].chunk(2, dim=2)
            return unpatchify(self.last(modulated(tokens.to(dtype), shift, scale)), self.patch)


class Conditioning(nn.Module):
    """SiLU(t + y), with which every modulation begins: of the step, which need not be whole, and the class, (B, width).

    All cosines, then all sines, of frequencies 10000^(-i / 128) for i in 0..127, then two layers. Of K classes labels are 0..K-1,
    and K stands for none where there is a null class. A network without classes has no y.
    """

    frequencies: Tensor

    def __init__(self, settings: DiTSettings) -> None:
        super().__init__()
        half, width = FEATURES // 2, settings.width
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.hidden, self.out = linear(FEATURES, width), linear(width, width)
        self.labels = nn.Embedding(settings.classes + settings.null_class, width) if settings.classes else None
        for layer in (self.hidden, self.out, self.labels):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)

    def forward(self, step: Tensor, condition: Condition | None) -> Tensor:
        phase = step[:, None].float() * self.frequencies
        features = torch.cat((phase.cos(), phase.sin()), dim=1).to(self.hidden.weight.dtype)  # (B, FEATURES)
        t = self.out(F.silu(self.hidden(features)))
        labels = None if condition is None else condition.labels
        if (self.labels is None) != (labels is None):
            raise TypeError(
                f"a transformer {'without' if self.labels is None else 'with'} classes is called as if it were another"
            )
        return F.silu(t if self.labels is None or labels is None else t + self.labels(labels))


class DiTBlock(nn.Module):
    """x + g Attn(LN(x) (1 + s) + b), then the same with an MLP; b, s and g of each, in this order, are linear in `c`.

    Rows of `qkv`: q, k and v, the heads inside each.
    """

    def __init__(self, settings: DiTSettings) -> None:
        super().__init__()
        width = settings.width
        self.heads = settings.heads
        self.modulation = zero_linear(width, 6 * width)
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.hidden, self.back = linear(width, settings.hidden), linear(settings.hidden, width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        b1, s1, g1, b2, s2, g2 = self.modulation(c)[:, None].chunk(6, dim=2)  # (B, 1, width) each
        x = x + g1 * self.attended(modulated(x, b1, s1))
        return x + g2 * self.back(F.gelu(self.hidden(modulated(x, b2, s2)), approximate="tanh"))

    def attended(self, x: Tensor) -> Tensor:
        """Self-attention over all tokens, (B, tokens, width)."""
        parts = self.qkv(x).chunk(3, dim=2)
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts
        )  # (B, heads, tokens, width / heads)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LN(x) (1 + scale) + shift, for x (B, tokens, width)."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


def zero_linear(features_in: int, features_out: int) -> nn.Linear:
    layer = nn.Linear(features_in, features_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, tokens, patch^2 C): row after row of patches, in each its rows, columns and channels."""
    parts = x.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (B, C, h, p, w, q)
    return parts.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(tokens: Tensor, patch: int) -> Tensor:
    """What `patchify` makes of a square image, made undone."""
    side = math.isqrt(tokens.shape[1])
    parts = tokens.unflatten(2, (patch, patch, -1)).unflatten(1, (side, side))  # (B, h, w, p, q, C)
    return parts.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def positions(side: int, width: int) -> Tensor:
    """(side^2, width) float32, row after row: first of a token's column, then of its row, width / 4 sines and as many cosines,
    with frequencies 10000^(-i / (width / 4))."""
    quarter = width // 4
    frequencies = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    phase = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    of_each = torch.cat((phase.sin(), phase.cos()), dim=1)  # (side, width / 2)
    return torch.cat((of_each.repeat(side, 1), of_each.repeat_interleave(side, 0)), dim=1).float()
