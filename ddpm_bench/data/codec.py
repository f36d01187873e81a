"""What a model works on: how images become x_0, and what comes out of a chain becomes images again.

The only place that a network of latents needs beside its own file: one class here, one entry in CODECS, and
`diffusion.codec` names it.
"""

from typing import Protocol

from torch import Tensor

from ddpm_bench.data.images import to_model, to_uint8
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

    def shape(self, images: Shape) -> Shape:
        """Of x_0, for images of (C, H, W). UserError for images that it does not take."""

    def encode(self, images: Tensor) -> Tensor:
        """Images -> x_0, on the same device."""

    def decode(self, x: Tensor) -> Tensor:
        """What a chain ends with -> images, on the same device; what lies out of range is clamped."""


def check_lossless(codec: Codec) -> None:
    """UserError where a bound in bits/dim is not defined."""
    if not codec.lossless:
        raise UserError(
            f"A bound in bits/dim is one of pixels: it is not defined for the codec '{codec.name}', which loses some of the "
            "image. Measure a model of pixels, or leave the bound out: scoring.bound_images=0, --bound-images 0."
        )


class Pixels:
    """The pixels themselves, their 256 levels spread evenly over [-1, 1] (section 3.3)."""

    name = "pixels"
    lossless = True

    def shape(self, images: Shape) -> Shape:
        return images

    def encode(self, images: Tensor) -> Tensor:
        return to_model(images)

    def decode(self, x: Tensor) -> Tensor:
        return to_uint8(x)


PIXELS = Pixels()
CODECS: dict[str, Codec] = {codec.name: codec for codec in (PIXELS,)}
