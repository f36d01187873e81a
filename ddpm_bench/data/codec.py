"""What a model works on: how images become x_0, and what comes out of a chain becomes images again.

The only place that a network of latents needs beside its own file: one class here, one entry in CODECS, and
`diffusion.codec` names it.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from ddpm_bench.data.images import to_model, to_uint8
from ddpm_bench.data.latents import UNTRAINED
from ddpm_bench.errors import UserError

Shape = tuple[int, int, int]


class Codec(Protocol):
    """Between images, uint8 (B, C, H, W), and x_0, float32 (B, *shape((C, H, W)))."""

    @property
    def name(self) -> str:
        """As in settings, checkpoints and records."""

    @property
    def lossless(self) -> bool:
        """Is x_0 the pixels on their 256 levels of [-1, 1], in some order? Only then is the bound in bits/dim one."""

    @property
    def range(self) -> tuple[float, float]:
        """What a predicted x_0 is clipped to where that is asked for; infinite where it has no bounds."""

    @property
    def bin(self) -> float:
        """How wide a level is in x_0, which is its middle; 0 where x_0 is not of pixels."""

    @property
    def dequantised(self) -> bool:
        """Is x_0 spread evenly over its level's width in training?"""

    @property
    def random(self) -> bool:
        """Is x_0 drawn of the image's `posterior` each time that training sees it?"""

    def shape(self, images: Shape) -> Shape:
        """Of x_0, for images of (C, H, W). UserError for images that it does not take."""

    def encode(self, images: Tensor) -> Tensor:
        """Images -> x_0, on the same device; its mean where it is random."""

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> mean and standard deviation of x_0, a normal one in each number."""

    def decode(self, x: Tensor) -> Tensor:
        """What a chain ends with -> images, on the same device; what lies out of range is clamped."""


def check_lossless(codec: Codec) -> None:
    """UserError where a bound in bits/dim is not defined."""
    if not codec.lossless:
        raise UserError(
            f"A bound in bits/dim is one of pixels on the 256 levels of [-1, 1]: it is not defined for the codec '{codec.name}'. "
            "Measure a model of pixels, or leave the bound out: scoring.bound_images=0, --bound-images 0."
        )


def check_clipping(codec: Codec, clip_x0: bool) -> None:
    """UserError where x_0 is to be clipped and has no bounds."""
    if clip_x0 and math.isinf(codec.range[1]):
        raise UserError(
            f"x_0 of the codec '{codec.name}' has no bounds, so that a prediction of it cannot be clipped. Leave it as it is: "
            "sampling.clip_x0=false, --no-clip."
        )


def dequantised(codec: Codec, images: Tensor, u: Tensor) -> Tensor:
    """x_0 of images, uint8 (B, C, H, W), each pixel anywhere on the width of its level: u in [0, 1) of the shape of x_0, whose
    dtype it gets."""
    return codec.encode(images).to(u.dtype) + (u - 0.5) * codec.bin


class Pixels:
    """The pixels themselves, their 256 levels spread evenly over [-1, 1] (section 3.3)."""

    name = "pixels"
    lossless = True
    range = (-1.0, 1.0)
    bin = 2 / 255
    dequantised = False
    random = False

    def shape(self, images: Shape) -> Shape:
        return images

    def encode(self, images: Tensor) -> Tensor:
        return to_model(images)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.encode(images)
        return x, torch.zeros_like(x)

    def decode(self, x: Tensor) -> Tensor:
        return to_uint8(x)


class Unit(Pixels):
    """Pixels spread over [0, 1], in training each anywhere on its level's width, (level + u) / 256: the data of NCSN (Song, Ermon
    2019), to whose scale its published sigmas and step sizes belong."""

    name = "unit"
    lossless = False
    range = (0.0, 1.0)
    bin = 1 / 256
    dequantised = True

    def encode(self, images: Tensor) -> Tensor:
        return (images.float() + 0.5) / 256

    def decode(self, x: Tensor) -> Tensor:
        return (x.float() * 256).floor().clamp(0, 255).to(torch.uint8)


PIXELS = Pixels()
CODECS: dict[str, Codec] = {PIXELS.name: PIXELS, Unit.name: Unit(), **UNTRAINED}
