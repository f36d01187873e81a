"""log p(x_0 | x_1): how likely a Gaussian makes each of the 256 levels of a pixel (eq. 13)

p(x_0 | x_1) = integral of N(x; mean, sigma^2) over [x_0 - 1/255, x_0 + 1/255],
where the bin of -1 is open to -infinity and the bin of 1 to +infinity, so that the 256 bins sum to 1.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddpm_bench.diffusion.process import precise

HALF_BIN = 1 / 255
NARROW = 1e-4
"""Half-width, in standard deviations, below which a bin's mass is its width times the density, to 1e-8 of the log."""


def discretized_log_likelihood(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Exact log-probability in nats, element by element, of images whose values lie on the 256 levels of [-1, 1].

    x0, mean: (B, C, H, W); log_variance: natural log, broadcasts. The result is in float64 where the device has it;
    finite, without any floor, and with finite gradients however far out a mean is. A bin is folded into the lower tail:
    there
    log(ndtr(b) - ndtr(a)) = log_ndtr(b) + log(1 - exp(log_ndtr(a) - log_ndtr(b))) keeps its digits.
    """
    x0, mean, inverse_std = precise(x0), precise(mean), torch.exp(-0.5 * precise(log_variance))
    centre = (x0 - mean) * inverse_std
    half = (HALF_BIN * inverse_std).expand_as(centre)
    distance = centre.abs()
    bottom, top = x0 < -0.999, x0 > 0.999
    closed = ~(bottom | top)
    narrow = closed & (half < NARROW)
    folded = torch.where(bottom, centre, torch.where(top, -centre, -distance))

    log_upper = log_ndtr(folded + half)
    log_lower = log_ndtr(-distance - half)
    gap = torch.maximum(log_upper - log_lower, 2 * half * distance)  # a bound, which holds where the difference cancels
    gap = torch.where(closed & ~narrow, gap, torch.inf)  # infinite: nothing to take away
    wide = log_upper + torch.log(-torch.expm1(-gap))
    log_density = -0.5 * distance.square() - 0.5 * math.log(2 * math.pi)
    return torch.where(narrow, log_density + torch.log(2 * half), wide)


def paper_log_likelihood(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The original release's, in nats: a tanh approximation of the normal CDF and a floor of 1e-12 on probabilities.

    Arguments as in `discretized_log_likelihood`. The paper's bounds rest on this one. Beyond the floor it does not see
    how far out a mean is, and has no gradient.
    """
    x0, mean, inverse_std = precise(x0), precise(mean), torch.exp(-0.5 * precise(log_variance))
    centre = x0 - mean
    below_upper = _tanh_ndtr((centre + HALF_BIN) * inverse_std)
    below_lower = _tanh_ndtr((centre - HALF_BIN) * inverse_std)
    inside = torch.where(x0 < -0.999, below_upper, torch.where(x0 > 0.999, 1 - below_lower, below_upper - below_lower))
    return inside.clamp(min=1e-12).log()


Decoder = Callable[[Tensor, Tensor, Tensor], Tensor]
DECODERS: dict[str, Decoder] = {"exact": discretized_log_likelihood, "paper": paper_log_likelihood}


def log_ndtr(x: Tensor) -> Tensor:
    """log of the standard normal CDF, with a gradient that is right in the far tail."""
    return _LogNdtr.apply(x)


class _LogNdtr(torch.autograd.Function):
    """torch's own gradient, exp(-x^2/2 - log_ndtr(x)), has lost all digits below x = -1e8 (-1e4 in float32)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.special.log_ndtr(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * math.sqrt(2 / math.pi) / torch.special.erfcx(-x / math.sqrt(2))


def _tanh_ndtr(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
