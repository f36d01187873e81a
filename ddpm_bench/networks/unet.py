"""The U-Net of Ho, Jain, Abbeel 2020 (appendix B): x_t, the 0-based step, perhaps a class and a small image in, one map
a predicted quantity out.

Two residual blocks a level (at the paper's size), GroupNorm and SiLU before each convolution, the time embedding added
between the two, one-head self-attention where the level's side is listed and, unless it is switched off, in the middle,
skips from every step down to the blocks up. With the defaults of `UNetSettings` and 3 channels it has the paper's 35.7 M
parameters, and its outputs equal those of diffusers' `UNet2DModel` in the google/ddpm-cifar10-32 configuration when
weights are copied. Other settings make it the networks of other releases, for `ddpm_bench/models/interop`.

Written for two cores: channels-last memory, one product for q, k and v, and upsampling as one transposed convolution.
On a GPU it computes in bfloat16 by autocast, in training, sampling and bounds; weights and predictions are float32.
"""

import torch
from torch import Tensor, nn

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.networks.blocks import (
    Block,
    TimeEmbedding,
    conv,
    downsample,
    enlarged,
    norm,
    resamples,
    upsample,
)
from ddpm_bench.networks.condition import Condition
from ddpm_bench.networks.fast import last_conv, norm_silu


class UNet(nn.Module):
    """epsilon_theta(x_t, t), or whatever the parameterization and the variance ask of it.

    Args:
        in_channels: C of the images.
        out_channels: C, or 2 C where the variance is learned.
        size: side of the square images in pixels; decides at which levels there is attention.
        settings: widths, depth, groups, dropout, and the dialect.

    Initial values are drawn from torch's global generator. Raises UserError for sizes that do not fit together.
    """

    in_bfloat16: bool | None = None
    """Whether to compute in bfloat16; None: on a GPU."""

    def __init__(self, in_channels: int, out_channels: int, size: int, settings: UNetSettings) -> None:
        super().__init__()
        settings.check(size)
        self.classes, self.small, self.augmentation = settings.classes, settings.small, settings.augmentation
        base, time, last = settings.base, 4 * settings.base, len(settings.multipliers) - 1
        self.time = TimeEmbedding(base, settings.time_shift)
        self.first = conv(in_channels if settings.small is None else 2 * in_channels, base)

        channels, skips = base, [base]
        self.down = nn.ModuleList()
        for level, multiplier in enumerate(settings.multipliers):
            attention = size >> level in settings.attention
            for _ in range(settings.blocks):
                self.down.append(Block(channels, base * multiplier, time, settings, attention))
                channels = base * multiplier
                skips.append(channels)
            if level < last:
                self.down.append(downsample(channels, time, settings))
                skips.append(channels)

        attended = (settings.middle_attention, False)
        self.middle = nn.ModuleList(Block(channels, channels, time, settings, attention) for attention in attended)

        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(settings.multipliers))):
            attention = size >> level in settings.attention
            for _ in range(settings.blocks + 1):
                self.up.append(Block(channels + skips.pop(), base * multiplier, time, settings, attention))
                channels = base * multiplier
            if level > 0:
                self.up.append(upsample(channels, time, settings))

        self.norm = norm(channels, settings)
        self.last = conv(channels, out_channels, scale=1e-10)
        if settings.classes:  # last, so that all else begins as without
            self.label = nn.Embedding(settings.classes + settings.null_class, time)
        if settings.augmentation:
            self.level = TimeEmbedding(base, settings.time_shift)
        self.to(memory_format=torch.channels_last)

    def forward(self, x_t: Tensor, step: Tensor, condition: Condition | None = None) -> Tensor:
        """Predict from `x_t` (B, in_channels, size, size), scaled to about [-1, 1], at 0-based `step` (B,) int64.

        condition: the labels of a network that has classes, the small image of one that enlarges it, and nothing else.

        Returns (B, out_channels, size, size).
        """
        with torch.autocast(
            x_t.device.type, torch.bfloat16, enabled=x_t.is_cuda if self.in_bfloat16 is None else self.in_bfloat16
        ):
            h = self._features(x_t, step, condition)
        with torch.autocast(x_t.device.type, enabled=False):  # the prediction is never rounded to bfloat16
            return last_conv(self.last, norm_silu(self.norm, h.float() if h.dtype == torch.bfloat16 else h))

    def _features(self, x_t: Tensor, step: Tensor, condition: Condition | None) -> Tensor:
        """What the last norm gets, (B, base, size, size)."""
        condition = Condition() if condition is None else condition
        time = self.time(step, self._embedded(condition))
        h = self.first(self._beside_small(x_t, condition).contiguous(memory_format=torch.channels_last))
        skips = [h]
        for layer in self.down:
            h = layer(h, time)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, time)
        for layer in self.up:
            h = layer(h if resamples(layer) else torch.cat((h, skips.pop()), dim=1), time)
        return h

    def _embedded(self, condition: Condition) -> Tensor | None:
        """What is added to the time embedding: of the class, as improved-diffusion's `label_emb`, and of the small image's
        level of noise, (B, 4 base); None where there is neither."""
        if (self.classes > 0) != (condition.labels is not None):
            raise TypeError(
                f"a network of {self.classes} classes is called {'without' if self.classes else 'with'} labels"
            )
        label = None if condition.labels is None else self.label(condition.labels)
        if (self.augmentation > 0) != (condition.level is not None):
            raise TypeError(
                f"a network of {self.augmentation} levels of noise is called {'without' if self.augmentation else 'with'} one"
            )
        if condition.level is None:
            return label
        level = self.level.embedded(condition.level)
        return level if label is None else label + level

    def _beside_small(self, x_t: Tensor, condition: Condition) -> Tensor:
        """x_t and, on channels of its own, the small image at its side."""
        if (self.small is None) != (condition.small is None):
            raise TypeError(
                f"a network {'that enlarges none is called with' if self.small is None else 'is called without'} a small image"
            )
        return x_t if condition.small is None else torch.cat((x_t, enlarged(condition.small, x_t.shape[-1])), dim=1)
