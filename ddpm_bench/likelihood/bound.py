"""What a measurement of the bound comes to, and what both ways of measuring it share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_bench.data.codec import Codec, check_lossless
from ddpm_bench.diffusion.bound import Term, bound_term, prior_bits_per_dim
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import BlockNoise, batches
from ddpm_bench.diffusion.samplers import Chain
from ddpm_bench.diffusion.schedule import Schedule
from ddpm_bench.errors import UserError
from ddpm_bench.networks.condition import Condition
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.runtime import Runtime


@dataclass(frozen=True)
class Bound:
    """In bits/dim, float64, on the CPU; one entry an image, (N,), unless said otherwise.

    total = prior + middle + first: L_T, L_1 + ... + L_{T-1}, and L_0, the decoder's.
    variance: of `total` where it is an estimate, given the image; 0 where every t was evaluated.
    noise: of an estimate, the variance that an exact measurement's `total` has by its one draw of noise at every t. An
        image's own entry is a rough guess without bias: only their sum is of use. 0 where every t was evaluated.
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
    def own_error(self) -> float:
        """The part of `standard_error` that an estimate's own draws make; 0 where every t was evaluated."""
        return float(self.variance.sum().sqrt() / len(self.prior))

    @property
    def estimate_error(self) -> float:
        """Standard error of `total.mean()` against an exact measurement of the same images: both draw noise."""
        return float((self.variance + self.noise).sum().sqrt() / len(self.prior))

    @property
    def standard_error(self) -> float:
        """Of `total.mean()`, the images taken as a sample of the data; an estimate's own variance is part of the spread."""
        return float(self.total.std() / len(self.prior) ** 0.5)


def check_bounded(schedule: Schedule, codec: Codec) -> None:
    """UserError where the bound is not defined."""
    if schedule.exploding:
        raise UserError(
            "A model of a geometric schedule has no variational bound: score matching trains no p(x_{t-1} | x_t), nor a decoder. "
            "Measure its likelihood by the ODE, `ddpm-bench nll --ode`, and leave the bound out: scoring.bound_images=0, "
            "--bound-images 0."
        )
    check_lossless(codec)


@dataclass(frozen=True)
class Subject:
    """What is measured, and how: the same for every image. condition: what the network is told of the images, where it is told
    anything."""

    chain: Chain
    images: Tensor
    seed: int
    decoder: str
    runtime: Runtime
    condition: Condition | None = None

    def __post_init__(self) -> None:
        next(batches(1, self.batch))  # a batch below 1 is refused before anything else
        if self.images.dtype != torch.uint8 or len(self.images) == 0:
            raise UserError(
                f"A bound is measured on uint8 images, at least one, not on {self.images.dtype} of shape "
                f"{tuple(self.images.shape)}. Values in [-1, 1] become uint8 with `ddpm_bench.data.images.to_uint8`."
            )
        check_bounded(self.chain.denoiser.schedule, self.chain.codec)

    @property
    def batch(self) -> int:
        """Images a network call."""
        most = self.runtime.network_batch(self.chain.denoiser.shape[1])
        return ranks.batch_for(len(self.images), most)

    def x0(self, start: int, end: int) -> Tensor:
        """Images start..end on the device, as the model sees them."""
        return self.chain.codec.encode(self.images[start:end].to(self.runtime.device))

    def noise(self, x0: Tensor, start: int, stream: int) -> BlockNoise:
        """Draws like x0, whose first image is number `start`."""
        return BlockNoise(self.seed, start, len(x0), tuple(x0.shape[1:]), self.runtime.device, stream=stream)

    def denoiser(self, start: int, end: int) -> Denoiser:
        """That of images start..end, of which it is told what there is to tell."""
        told = self.condition and self.condition[start:end].each(lambda each: each.to(self.runtime.device))
        return self.chain.denoiser.given(told)

    def term(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Term:
        """L_{t-1} of each image at its t, (B,)."""
        return bound_term(denoiser, x0, t, eps, self.decoder)

    def prior(self, x0: Tensor) -> Tensor:
        """L_T of each image, (B,)."""
        return prior_bits_per_dim(self.chain.denoiser.schedule, x0)
