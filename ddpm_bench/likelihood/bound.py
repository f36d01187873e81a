"""What a measurement of the bound comes to, and what both ways of measuring it share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_bench.diffusion.noise import batches
from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.errors import UserError


@dataclass(frozen=True)
class Bound:
    """In bits/dim, float64, on the CPU; one entry an image, (N,), unless said otherwise.

    total = prior + middle + first: L_T, L_1 + ... + L_{T-1}, and L_0, the decoder's.
    variance: of `total` where it is an estimate, given the image; 0 where every t was evaluated.
    noise: variance of `first` by its one draw of noise in an exact measurement; 0 there.
    terms: (T,), the mean over the images of L_{t-1} at index t - 1. mse: (T,), the mean of the squared error of the x_0
    predicted at t, in [-1, 1]. Both None for an estimate.
    """

    prior: Tensor
    middle: Tensor
    first: Tensor
    variance: Tensor
    noise: Tensor
    terms: Tensor | None = None
    mse: Tensor | None = None

    @property
    def total(self) -> Tensor:
        return self.prior + self.middle + self.first

    @property
    def estimate_error(self) -> float:
        """Standard error of `total.mean()` against an exact measurement of the same images.

        Both draw noise. That of the exact one matters at t = 1 alone: there is one draw for a large term; the other terms
        are many and small.
        """
        return float((self.variance + self.noise).sum().sqrt() / len(self.prior))

    @property
    def standard_error(self) -> float:
        """Of `total.mean()`, the images taken as a sample of the data; an estimate's own variance is part of the spread."""
        return float(self.total.std() / len(self.prior) ** 0.5)


@dataclass(frozen=True)
class Scored:
    """What is measured, and how: the same for every image."""

    diffusion: Diffusion
    network: Network
    images: Tensor
    seed: int
    batch: int
    device: torch.device | str
    clip_x0: bool
    decoder: str

    def __post_init__(self) -> None:
        next(batches(1, self.batch))  # a batch below 1 is refused before anything else
        if self.images.dtype != torch.uint8 or len(self.images) == 0:
            raise UserError(
                f"A bound is measured on uint8 images, at least one, not on {self.images.dtype} of shape "
                f"{tuple(self.images.shape)}. Values in [-1, 1] become uint8 with `ddpm_bench.data.images.to_uint8`."
            )
