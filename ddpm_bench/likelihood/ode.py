"""-log p(x_0) by the probability flow ODE, in bits per dimension (Song et al. 2021, app. D.2)

    -log P(level) <= -E_u log p(x + (u - 1/2) w) - D log w         u uniform in [0, 1), w the width of a level
    log p(x) = log N(x_T; 0, 1) + integral of div (dx/dl) over l + D/2 log alpha_bar_1

The density is that of x_1 / sqrt(alpha_bar_1), the image with the noise of the first step of the chain: below it no network
was trained. So the number is the model's own up to the tolerance of RK45, to the draws of u, and to those of the probe of
the divergence, both of which are unbiased. It is no variational bound: neither of the chain's p(x_{t-1} | x_t), nor of its
decoder. Each draw has a u and a probe of its own, which depend on the seed, the image's index and the draw's number.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.data.codec import Codec, dequantised
from ddpm_bench.diffusion.noise import ODE, block_uniforms
from ddpm_bench.diffusion.ode import FlowODE, OnTime, Tolerance, check_flow
from ddpm_bench.diffusion.process import precise
from ddpm_bench.diffusion.samplers import Chain
from ddpm_bench.errors import UserError
from ddpm_bench.likelihood.pieces import Pieces
from ddpm_bench.runtime.observer import Meter, progress
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.sealed import Arrays

Dequantisation = Literal["level", "released"]


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
        """What the draws of u and of the probe make of it; None where there is but one of each image."""
        if self.total.shape[1] < 2:
            return None
        return float((self.total.var(1) / self.total.shape[1]).sum().sqrt() / len(self.total))


def check_likelihood(chain: Chain) -> None:
    """UserError for a model whose likelihood by the ODE is not defined."""
    variance, codec = chain.denoiser.diffusion.variance, chain.codec
    if variance.outputs != 1:
        raise UserError(
            f"The variance '{variance.name}' is learned for the variational bound, and the ODE has no use of it: it would measure "
            "the mean alone, which is another model. Measure the bound: `ddpm-bench nll` without --ode, scoring.ode_images=0."
        )
    if not codec.bin:
        raise UserError(f"A likelihood in bits/dim is one of pixels: it is not defined for the codec '{codec.name}'.")
    check_flow(chain.denoiser)


def ode_bits_per_dim(
    chain: Chain,
    images: Tensor,
    *,
    draws: int,
    seed: int,
    dequantisation: Dequantisation = "level",
    tolerance: Tolerance = Tolerance(),
    runtime: Runtime | None = None,
    pieces: Pieces | None = None,
) -> Likelihood:
    """The likelihood of `images`, uint8 (N, C, H, W), by `draws` solutions of the ODE an image; x_0 is not clipped.

    The draws do not depend on the batch; step sizes do, so an image's number does within the tolerance. dequantisation:
    "level", over the width that levels have where the model was trained; "released", x = 2 (level + u) / 256 - 1, the data of
    Song et al., by up to half a level off from what a DDPM was trained on. What `pieces` holds is not measured again. Raises UserError for what has no such likelihood,
    Interrupted when a stop was asked for, and NotFinite where the ODE cannot be followed.
    """
    check_likelihood(chain)
    if images.dtype != torch.uint8 or len(images) == 0 or draws < 1:
        raise UserError(f"A likelihood is measured on uint8 images, at least one, in at least one draw, not on {len(images)} of "
                        f"{images.dtype} in {draws}.")  # fmt: skip
    runtime, pieces, count = runtime or Runtime(), pieces or Pieces(), len(images)
    flow, shape, device = FlowODE(chain.denoiser), chain.denoiser.shape, runtime.device
    batch = runtime.network_batch(shape[1])
    with chain.denoiser.evaluating(), progress("likelihood by the ODE", count * draws, "images") as meter:
        for draw in range(draws):
            for start, end, held in pieces.ranges(f"draw{draw}", count, batch):
                if not held:
                    u, probe = np.moveaxis(block_uniforms(seed, start, end - start, (2, *shape), ODE + draw), 1, 0)
                    x0, width = spread(chain.codec, images[start:end].to(device), _to(u, device), dequantisation)
                    probes = torch.where(_to(probe, device) < 0.5, -1.0, 1.0)[None]
                    watch = partial(_tell, meter, draw * count + start, end - start)
                    pieces.save(f"draw{draw}", start, end, _solved(flow, x0, width, probes, tolerance, watch))
    joined = [pieces.join(f"draw{draw}") for draw in range(draws)]
    prior, rest = (torch.from_numpy(np.stack([part[name] for part in joined], 1)) for name in ("prior", "flow"))
    return Likelihood(prior, rest, float(np.mean([part["calls"] for part in joined])))


def spread(codec: Codec, images: Tensor, u: Tensor, how: Dequantisation) -> tuple[Tensor, float]:
    """x_0 of images, uint8 (B, C, H, W), with u in [0, 1) of its shape, and the width of a level there."""
    if how == "level":
        return dequantised(codec, images, u), codec.bin
    low, high = codec.range
    levels = (codec.encode(images) - codec.encode(torch.zeros_like(images))).to(u.dtype) / codec.bin
    return low + (high - low) * (levels + u) / 256, (high - low) / 256


def _solved(flow: FlowODE, x0: Tensor, width: float, probes: Tensor, tolerance: Tolerance, watch: OnTime) -> Arrays:
    """prior, flow and calls of x_0 (B, C, H, W), (B,) each."""
    first, last = flow.levels[0], flow.levels[-1]
    dims, alpha_bar = x0[0].numel(), float(flow.denoiser.schedule.alpha_bar[0])
    end = flow.carry(x0 * alpha_bar**0.5, first, last, tolerance, probes, watch)
    log_normal = -0.5 * (end.x.square() + math.log(2 * math.pi)).flatten(1).sum(1)
    rest = end.divergence + dims * (0.5 * math.log(alpha_bar) + math.log(width))
    bits = {"prior": log_normal, "flow": rest}
    found = {name: -nats.cpu().double().numpy() / (dims * math.log(2)) for name, nats in bits.items()}
    return found | {"calls": np.full(len(x0), end.calls)}


def _to(numbers: np.ndarray, device: torch.device) -> Tensor:
    """Numbers of float64 on the device, as precisely as it has them."""
    return precise(torch.from_numpy(numbers.astype(np.float32 if device.type == "mps" else np.float64)).to(device))


def _tell(meter: Meter, first: int, size: int, share: float) -> None:
    meter.update(first + int(share * size))
