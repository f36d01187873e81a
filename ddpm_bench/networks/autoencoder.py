"""The autoencoder of latent diffusion (Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"; its
KL first stage): encoder and decoder of the U-Net's blocks without time, attention in the middle alone.

Its outputs equal those of diffusers' `AutoencoderKL` when weights are copied. It computes in float32 everywhere.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ddpm_bench.config.autoencoders import AutoencoderSettings
from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.networks.blocks import Attention, Downsample, Upsample, conv, norm
from ddpm_bench.networks.fast import norm_silu

LOG_VARIANCE = (-30.0, 20.0)
"""What the encoder's log variance is clamped to, as in the release."""


class TimelessBlock(nn.Module):
    """A residual block that is told no time."""

    def __init__(self, channels_in: int, channels_out: int, settings: UNetSettings) -> None:
        super().__init__()
        self.norm1 = norm(channels_in, settings)
        self.conv1 = conv(channels_in, channels_out)
        self.norm2 = norm(channels_out, settings)
        self.conv2 = conv(channels_out, channels_out, scale=1e-10)
        self.shortcut = nn.Identity() if channels_in == channels_out else conv(channels_in, channels_out, size=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(norm_silu(self.norm1, x))
        return self.shortcut(x) + self.conv2(norm_silu(self.norm2, h))


def middle(channels: int, settings: UNetSettings) -> nn.Sequential:
    """Two blocks, and between them attention where asked for."""
    attention = Attention(channels, settings) if settings.middle_attention else nn.Identity()
    return nn.Sequential(
        TimelessBlock(channels, channels, settings), attention, TimelessBlock(channels, channels, settings)
    )


class Encoder(nn.Module):
    """(B, channels, side, side) -> (B, outputs, side / f, side / f)."""

    def __init__(self, channels: int, outputs: int, settings: UNetSettings) -> None:
        super().__init__()
        width, last = settings.base, len(settings.multipliers) - 1
        self.first = conv(channels, width)
        self.down = nn.ModuleList()
        for level, multiplier in enumerate(settings.multipliers):
            for _ in range(settings.blocks):
                self.down.append(TimelessBlock(width, settings.base * multiplier, settings))
                width = settings.base * multiplier
            if level < last:
                self.down.append(Downsample(width))
        self.middle = middle(width, settings)
        self.norm = norm(width, settings)
        self.last = conv(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for layer in self.down:
            h = layer(h)
        return self.last(norm_silu(self.norm, self.middle(h)))


class Decoder(nn.Module):
    """(B, channels, side / f, side / f) -> (B, outputs, side, side)."""

    def __init__(self, channels: int, outputs: int, settings: UNetSettings) -> None:
        super().__init__()
        width = settings.base * settings.multipliers[-1]
        self.first = conv(channels, width)
        self.middle = middle(width, settings)
        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(settings.multipliers))):
            for _ in range(settings.blocks + 1):
                self.up.append(TimelessBlock(width, settings.base * multiplier, settings))
                width = settings.base * multiplier
            if level:
                self.up.append(Upsample(width))
        self.norm = norm(width, settings)
        self.last = conv(width, outputs)

    def forward(self, z: Tensor) -> Tensor:
        h = self.middle(self.first(z))
        for layer in self.up:
            h = layer(h)
        return self.last(norm_silu(self.norm, h))


class Autoencoder(nn.Module):
    """q(z|x) and x of z, for images (B, image_channels, side, side) in [-1, 1], the side a multiple of `settings.factor`.

    Initial values are drawn from torch's global generator. UserError where groups do not divide the widths.
    """

    def __init__(self, image_channels: int, settings: AutoencoderSettings) -> None:
        super().__init__()
        settings.check()
        self.image_channels, self.settings = image_channels, settings
        blocks, latents = settings.in_blocks, settings.channels
        self.encoder = Encoder(image_channels, 2 * latents, blocks)
        self.decoder = Decoder(latents, image_channels, blocks)
        self.quant = conv(2 * latents, 2 * latents, size=1) if settings.quant else nn.Identity()
        self.post_quant = conv(latents, latents, size=1) if settings.quant else nn.Identity()
        self.to(memory_format=torch.channels_last)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), (B, channels, side / f, side / f) each."""
        h = self.quant(self.encoder(x.contiguous(memory_format=torch.channels_last)))
        mean, log_variance = h.chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def decode(self, z: Tensor) -> Tensor:
        """The image of latents that are not scaled; its pixels may leave [-1, 1]."""
        return self.decoder(self.post_quant(z.contiguous(memory_format=torch.channels_last)))


def with_weights(image_channels: int, settings: AutoencoderSettings, weights: Mapping[str, Tensor]) -> Autoencoder:
    """An autoencoder with these weights, which fit it, to be used and not trained. The caller's generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        network = Autoencoder(image_channels, settings)
    network.load_state_dict(weights)
    return network.requires_grad_(False).eval()


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) in nats, summed over each image's latents, (B,)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
