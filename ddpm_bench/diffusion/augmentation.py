"""What is done to the small image that a super-resolution model is told, so that it stands what a model below it draws.

    Gaussian noise   z_s ~ q(z_s | z_0), in training with s uniform in 0..S, in sampling with one s; z_0 itself at s = 0
    blur             3x3, sigma ~ U(.4, .6), of half of the images: in training alone

"Cascaded Diffusion Models for High Fidelity Image Generation" (Ho et al. 2021), section 3. In sampling it is the non-truncated
form: the chain below is finished, and noise is added to its z_0. The truncated one stops that chain at s; for a chain whose
marginals are q's the two are alike in distribution. s is a step of the super-resolution model's own schedule.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_bench.diffusion.process import q_sample
from ddpm_bench.diffusion.schedule import Schedule

SIGMAS = (0.4, 0.6)
"""Between these lies the standard deviation of the blur, in pixels of the small image."""
BLURRED = 0.5
"""This share of the images is blurred."""


def noised(schedule: Schedule, z0: Tensor, level: Tensor, eps: Tensor) -> Tensor:
    """z_s of z_0 (B, C, h, w) at the levels s, int64 (B,) in 0..T; where s = 0 it is z_0 bit for bit. eps ~ N(0, 1), like z0."""
    z_s = q_sample(schedule, z0, level.clamp(min=1), eps)
    return torch.where(level.reshape(-1, 1, 1, 1) > 0, z_s, z0)


def blurred(z: Tensor, sigma: Tensor) -> Tensor:
    """z (B, C, h, w) under a 3x3 Gaussian of the standard deviation sigma (B,), in pixels; borders are reflected."""
    side = torch.exp(-0.5 / sigma.square()).reshape(-1, 1, 1, 1)
    for dim, padding in ((2, (0, 0, 1, 1)), (3, (1, 1, 0, 0))):
        size, padded = z.shape[dim], F.pad(z, padding, mode="reflect")
        before, after = padded.narrow(dim, 0, size), padded.narrow(dim, 2, size)
        z = (z + side * (before + after)) / (1 + 2 * side)
    return z
