"""The classifier of noised images by which samples are guided (Dhariwal, Nichol 2021, section 4; guided-diffusion's
`EncoderUNetModel`): the U-Net's way down and its middle, then attention pooling.

It is made of the U-Net's blocks, and so are its initial values, where the release has PyTorch's own. It computes in float32 on every
device: its gradient is what it is for.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_bench.config.classifiers import ClassifierSettings
from ddpm_bench.networks.blocks import Block, TimeEmbedding, conv, downsample, linear, norm
from ddpm_bench.networks.fast import norm_silu


class AttentionPool(nn.Module):
    """What the mean of all positions attends to, among the mean and the positions (CLIP's pooling; Radford et al. 2021)."""

    def __init__(self, side: int, channels: int, out: int, head_channels: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.positions = nn.Parameter(torch.empty(side**2 + 1, channels).normal_(std=channels**-0.5))
        self.qkv = linear(channels, 3 * channels)
        self.out = linear(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, side, side) -> (B, out)."""
        tokens = x.flatten(2).transpose(1, 2)  # (B, side^2, C)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.positions
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(tokens).chunk(3, dim=-1))
        attended = F.scaled_dot_product_attention(q[:, :, :1], k, v)  # (B, heads, 1, C / heads): nothing else is used
        return self.out(attended.transpose(1, 2).flatten(1))


class NoisyClassifier(nn.Module):
    """log p(y | x_t), up to a number that all classes share.

    Args:
        in_channels: C of x_t.
        classes: so many logits.
        side: of x_t.
        settings: widths, depth, attention.

    Initial values are drawn from torch's global generator. Raises UserError for sizes that do not fit together.
    """

    def __init__(self, in_channels: int, classes: int, side: int, settings: ClassifierSettings) -> None:
        super().__init__()
        settings.check(side)
        dialect, time, last = settings.in_blocks, 4 * settings.base, len(settings.multipliers) - 1
        self.time = TimeEmbedding(settings.base, dialect.time_shift)
        channels = settings.widths[0]
        self.first = conv(in_channels, channels)
        self.down = nn.ModuleList()
        for level, width in enumerate(settings.widths):
            attention = side >> level in settings.attention
            for _ in range(settings.blocks):
                self.down.append(Block(channels, width, time, dialect, attention))
                channels = width
            if level < last:
                self.down.append(downsample(channels, time, dialect))
        self.middle = nn.ModuleList(Block(channels, channels, time, dialect, attention) for attention in (True, False))
        self.norm = norm(channels, dialect)
        self.pool = AttentionPool(side >> last, channels, classes, settings.head_channels)
        self.to(memory_format=torch.channels_last)

    def forward(self, x_t: Tensor, step: Tensor) -> Tensor:
        """Logits (B, classes) of `x_t` (B, in_channels, side, side) at the 0-based `step` (B,), as a denoiser's network is told
        both."""
        with torch.autocast(x_t.device.type, enabled=False):
            time = self.time(step)
            h = self.first(x_t.contiguous(memory_format=torch.channels_last))
            for layer in (*self.down, *self.middle):
                h = layer(h, time)
            return self.pool(norm_silu(self.norm, h))
