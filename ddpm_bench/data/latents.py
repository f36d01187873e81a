"""The codec of latent diffusion (Rombach et al. 2022): x_0 = scale z with z ~ q(z|x) of an autoencoder, and images D(x_0 / scale).

z is drawn in training, as in the release; its mean stands for it wherever one encoding of an image is wanted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ddpm_bench.config.autoencoders import ON_DEMAND
from ddpm_bench.data.images import to_model, to_uint8
from ddpm_bench.errors import UserError
from ddpm_bench.runtime.batch import Halving
from ddpm_bench.runtime.device import float32_as

AT_ONCE = 2**18
"""Pixels in a call: 256 images of 32x32, 4 of 256x256."""


class Encodes(Protocol):
    """What is asked of an autoencoder."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [-1, 1] (B, C, H, W) -> mean and log variance of q(z|x)."""

    def decode(self, z: Tensor) -> Tensor:
        """z -> images on the scale of [-1, 1]."""


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents of an autoencoder, `factor` times smaller than images a side.

    network: None for one that is known by name and not trained yet: it has a shape, and encodes nothing. image_channels: those that
    it takes; None: any.
    """

    name: str
    factor: int
    channels: int
    network: Encodes | None = None
    scale: float = 1.0
    image_channels: int | None = None
    _halving: Halving = field(default_factory=Halving, init=False, repr=False)

    lossless = False
    range = (-math.inf, math.inf)
    bin = 0.0
    dequantised = False
    random = True

    def shape(self, images: tuple[int, int, int]) -> tuple[int, int, int]:
        channels, height, width = images
        if height % self.factor or width % self.factor:
            raise UserError(
                f"The codec '{self.name}' makes one latent of {self.factor}x{self.factor} pixels, and sides of {width}x{height} are no "
                f"multiples of {self.factor}: choose another data.size, or an autoencoder of another factor."
            )
        if self.image_channels not in (None, channels):
            raise UserError(
                f"The autoencoder of the codec '{self.name}' takes images of {self.image_channels} channels, and these have "
                f"{channels}. Train one on such images: `ddpm-bench autoencoder train`."
            )
        return self.channels, height // self.factor, width // self.factor

    def encode(self, images: Tensor) -> Tensor:
        return self.posterior(images)[0]

    @torch.no_grad()
    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        network = self._on(images.device)
        parts = self._parts(lambda x: network.moments(to_model(x)), images, images.shape[2] * images.shape[3])
        means, log_variances = (torch.cat(each) for each in zip(*parts, strict=True))
        return self.scale * means, self.scale * torch.exp(0.5 * log_variances)

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        network, pixels = self._on(x.device), x.shape[2] * x.shape[3] * self.factor**2
        return torch.cat(self._parts(lambda z: to_uint8(network.decode(z)), x.float() / self.scale, pixels))

    def _on(self, device: torch.device) -> Encodes:
        """The autoencoder, there."""
        if self.network is None:
            raise UserError(
                f"The autoencoder of the codec '{self.name}' is not trained yet: `ddpm-bench ablate` and `train` do."
            )
        if isinstance(self.network, nn.Module):
            self.network.to(device)
        return self.network

    def _parts(self, call: Callable[[Tensor], Any], rows: Tensor, pixels: int) -> list[Any]:
        """What `call` gives for all rows, of images with so many pixels, in as many calls as memory asks for."""
        blocks = rows.split(max(1, AT_ONCE // pixels))
        with float32_as("ieee"):
            return [part for block in blocks for part in self._halving.parts(call, block)]


UNTRAINED: dict[str, Latents] = {
    name: Latents(name, training.network.factor, training.network.channels) for name, training in ON_DEMAND.items()
}
"""The codecs whose autoencoders are trained when they are first needed."""
