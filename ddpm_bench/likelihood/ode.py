"""-log p(x_0) by the probability flow ODE, in bits per dimension (Song et al. 2021, app. D.2)

    -log P(level) <= -E_u log p(x + (u - 1/2) w) - D log w         u uniform in [0, 1), w the width of a level
    log p(x) = log N(x_T; 0, 1) + integral of div (dx/dl) over l + D/2 log a,    a = 1 / (1 + sigma_0^2)

For a geometric schedule too the prior is N(0, 1) of x_T, which is N(0, 1 + sigma_T^2) of x_0 + sigma_T z, where Song et
al. take N(0, sigma_T^2). The density is that of images with a little noise, x_0 + sigma_0 z, from where the ODE goes to
x_T. Song et al. begin at 1e-5 of their time, where their sigma is 1e-3. That is below the 0.01 of the first step of a
chain of 1,000, where the density of images is already blurred by more than a level; there the network is asked as at
the first step. The number is the model's own up to the tolerance of RK45, to the draws of u and to those of the probe
of the divergence, of which the latter are unbiased. It is no variational bound: neither of the chain's p(x_{t-1} |
x_t), nor of its decoder. Each draw has a u and a probe of its own, which depend on the seed, the image's index and the
draw's number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.data.codec import Codec, dequantised
from ddpm_bench.diffusion.noise import ODE, block_uniforms
from ddpm_bench.diffusion.ode import FlowODE, OnTime, check_flow
from ddpm_bench.diffusion.process import precise
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import Chain
from ddpm_bench.errors import UserError
from ddpm_bench.likelihood.pieces import Pieces, Range
from ddpm_bench.networks.condition import Condition
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.device import float32_as
from ddpm_bench.runtime.observer import Meter, progress
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.sealed import Arrays


@dataclass(frozen=True)
class Solving:
    """How an image's likelihood is found.

    draws: of the dequantisation and of the probe. dequantisation: "level", over the width that levels have where the model
    was trained; "released", x = 2 (level + u) / 256 - 1, the data of Song et al., by up to half a level off from a DDPM's.
    sigma_0: that of the chain's first step where it is less. rtol, atol: of RK45. UserError for values out of range.
    """

    draws: int = 2
    dequantisation: Literal["level", "released"] = "level"
    sigma_0: float = 1e-3
    rtol: float = 1e-5
    atol: float = 1e-5

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise UserError(f"A likelihood takes at least one draw an image, not {self.draws}.")
        for name in ("sigma_0", "rtol", "atol"):
            if not 1e-12 <= (value := getattr(self, name)) <= 0.1:
                raise UserError(
                    f"{name} = {value:g} of the ODE must be from 1e-12 to 0.1, such as {getattr(Solving, name):g}."
                )


AS_PUBLISHED = Solving()


@dataclass(frozen=True)
class Likelihood:
    """In bits/dim, float64, on the CPU, (N, draws). calls: network calls an image and draw, the mean.

    total = prior + flow: what log N(x_T; 0, 1) gives, and what the flow and the width of the levels add.
    """

    prior: Tensor
    flow: Tensor
    calls: float

    @property
    def total(self) -> Tensor:
        return self.prior + self.flow

    @property
    def standard_error(self) -> float:
        """Of the mean over images, these taken as a sample of the data; the draws are part of the spread."""
        return float(self.total.mean(1).std() / len(self.total) ** 0.5)

    @property
    def draw_error(self) -> float | None:
        """The part of `standard_error` that the draws make; None where there is but one of each image."""
        images, draws = self.total.shape
        return float((self.total.var(1) / draws).sum().sqrt() / images) if draws > 1 else None


def check_likelihood(diffusion: Diffusion, codec: Codec) -> None:
    """UserError for a model whose likelihood by the ODE is not defined."""
    if diffusion.variance.outputs != 1:
        raise UserError(
            f"The variance '{diffusion.variance.name}' is learned for the variational bound, and the ODE has no use of it: it "
            "would measure the mean alone, which is another model. Measure the bound: `ddpm-bench nll` without --ode, `evaluate` "
            "without --ode-images, scoring.ode_images=0."
        )
    if not codec.bin:
        raise UserError(f"A likelihood in bits/dim is one of pixels: it is not defined for the codec '{codec.name}'.")
    check_flow(diffusion)


def ode_bits_per_dim(
    chain: Chain,
    images: Tensor,
    *,
    seed: int,
    solving: Solving = AS_PUBLISHED,
    runtime: Runtime | None = None,
    pieces: Pieces | None = None,
    condition: Condition | None = None,
) -> Likelihood:
    """The likelihood of `images`, uint8 (N, C, H, W), under the chain's denoiser; x_0 is not clipped.

    The draws do not depend on the batch; step sizes do, so an image's number does within the tolerance. What `pieces` holds
    is not measured again. condition: what the network is told of the images. Raises UserError for what
    has no such likelihood, Interrupted when a stop was asked for, and NotFinite where the ODE cannot be followed.
    """
    check_likelihood(chain.denoiser.diffusion, chain.codec)
    if images.dtype != torch.uint8 or len(images) == 0:
        raise UserError(
            f"A likelihood is measured on uint8 images, at least one, not on {len(images)} of {images.dtype}."
        )
    runtime, pieces, count = runtime or Runtime(), pieces or Pieces(), len(images)
    # Fewer than a network call takes elsewhere: the product with the Jacobian holds every layer, and a stop loses a batch.
    most = runtime.batch or max(1, runtime.network_batch(chain.denoiser.shape[1]) // 4)
    for draw in range(solving.draws):
        ranges = pieces.ranges(f"draw{draw}", count, ranks.batch_for(count, most))
        missing = [(start, end) for start, end, held in ranges if not held]
        pieces.measure(f"draw{draw}", missing, _measure_all, chain, images, condition, seed, draw, solving, runtime)
    joined = [pieces.join(f"draw{draw}") for draw in range(solving.draws)]
    prior, rest = (torch.from_numpy(np.stack([part[name] for part in joined], 1)) for name in ("prior", "flow"))
    return Likelihood(prior, rest, float(np.mean([part["calls"] for part in joined])))


def _measure_all(
    pieces: Pieces, missing: Sequence[Range], chain: Chain, images: Tensor, condition: Condition | None, seed: int, draw: int,
    solving: Solving, runtime: Runtime,
) -> None:  # fmt: skip
    """This rank's ranges of a draw."""
    flow, count = FlowODE(chain.denoiser, solving.rtol, solving.atol), len(images)
    runtime.place_copy(chain.denoiser.network)
    said = progress("likelihood by the ODE", count * solving.draws, "images", draw * count)
    with float32_as("ieee"), chain.denoiser.evaluating(), said as meter:
        for start, end in ranks.mine(missing):
            x0, width, probe = _drawn(chain, images[start:end].to(runtime.device), seed, start, draw, solving)
            watch = partial(_tell, meter, draw * count + start, end - start)
            told = condition and condition[start:end].each(lambda each: each.to(runtime.device))
            pieces.save(f"draw{draw}", start, end, _solved(flow.given(told), x0, width, probe, solving.sigma_0, watch))


def spread(codec: Codec, images: Tensor, u: Tensor, how: Literal["level", "released"]) -> tuple[Tensor, float]:
    """x_0 of images, uint8 (B, C, H, W), with u in [0, 1) of its shape, and the width of a level there."""
    if how == "level":
        return dequantised(codec, images, u), codec.bin
    low, high = codec.range
    levels = (codec.encode(images) - codec.encode(torch.zeros_like(images))).to(u.dtype) / codec.bin
    return low + (high - low) * (levels + u) / 256, (high - low) / 256


def _drawn(
    chain: Chain, images: Tensor, seed: int, start: int, draw: int, solving: Solving
) -> tuple[Tensor, float, Tensor]:
    """x_0 of the images, whose first is number `start`, the width of a level, and a Rademacher probe, (B, C, H, W)."""
    precision = np.float32 if images.device.type == "mps" else np.float64
    uniforms = block_uniforms(seed, start, len(images), (2, *chain.denoiser.shape), ODE + draw).astype(precision)
    u, v = torch.from_numpy(uniforms).to(images.device).unbind(1)
    x0, width = spread(chain.codec, images, u, solving.dequantisation)
    return x0, width, torch.where(v < 0.5, -1.0, 1.0)


def _solved(flow: FlowODE, x0: Tensor, width: float, probe: Tensor, sigma_0: float, watch: OnTime) -> Arrays:
    """prior, flow and calls of x_0 (B, C, H, W), (B,) each."""
    first = min(2 * math.log(sigma_0), flow.levels[0])
    dims, alpha_bar = x0[0].numel(), 1 / (1 + math.exp(first))
    end = flow.carry(x0 * alpha_bar**0.5, first, flow.levels[-1], probe[None], watch)
    log_normal = -0.5 * (precise(end.x).square() + math.log(2 * math.pi)).flatten(1).sum(1)
    nats = {
        "prior": log_normal,
        "flow": end.divergence + dims * (0.5 * math.log(alpha_bar) + math.log(width)),
    }
    bits = {name: -found.cpu().double().numpy() / (dims * math.log(2)) for name, found in nats.items()}
    return bits | {"calls": np.full(len(x0), end.calls)}


def _tell(meter: Meter, first: int, size: int, share: float) -> None:
    meter.update(first + int(share * size))
