"""The variational bound on -log p(x_0), in bits per dimension (eq. 5)

    L_T     = KL(q(x_T | x_0) || N(0, 1))                   the prior: does not depend on the network
    L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)),  t = 2..T
    L_0     = -log p(x_0 | x_1)                             the discretized decoder, at t = 1

Each is a mean over the C * H * W dimensions divided by ln 2; the bound is their sum over all t. Training and scoring
share them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_bench.console import progress
from ddpm_bench.data.images import to_model
from ddpm_bench.diffusion.decoder import DECODERS, Decoder
from ddpm_bench.diffusion.noise import BOUND, BlockNoise, batches
from ddpm_bench.diffusion.process import posterior, precise, q_sample
from ddpm_bench.diffusion.reverse import Diffusion, Network, ReverseStep, all_at, evaluating
from ddpm_bench.diffusion.schedule import Schedule
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.interrupt import NEVER, Stop


@dataclass(frozen=True)
class Bound:
    """In bits/dim, float64, on the CPU.

    total: (N,), the whole bound of each image, prior included. prior: (N,), L_T of each image.
    terms: (T,), the mean over the images of L_{t-1} at index t - 1. So total.mean() = prior.mean() + terms.sum().
    """

    total: Tensor
    prior: Tensor
    terms: Tensor


def gaussian_kl(mean_q: Tensor, log_variance_q: Tensor, mean_p: Tensor, log_variance_p: Tensor) -> Tensor:
    """KL(N(mean_q, exp(log_variance_q)) || N(mean_p, exp(log_variance_p))) in nats, element by element.

    Arguments broadcast against each other; log variances are natural logarithms.
    """
    ratio = log_variance_p - log_variance_q
    # expm1: with variances that nearly agree, ratio - 1 + exp(-ratio) would lose its digits.
    return 0.5 * (ratio + torch.expm1(-ratio) + (mean_q - mean_p).square() * torch.exp(-log_variance_p))


def prior_bits_per_dim(schedule: Schedule, x0: Tensor) -> Tensor:
    """L_T of images x0 (B, C, H, W) in [-1, 1]: (B,), about 1e-5 bits/dim for the paper's schedule."""
    x0 = precise(x0)
    alpha_bar = float(schedule.alpha_bar[-1])
    kl = 0.5 * (alpha_bar * x0.square() - alpha_bar - math.log1p(-alpha_bar))
    return _bits_per_dim(kl)


def bound_term(
    diffusion: Diffusion, network: Network, x0: Tensor, t: Tensor, eps: Tensor, clip_x0: bool, decoder: str = "exact"
) -> Tensor:
    """L_{t-1} in bits/dim, (B,), with x_t = q_sample(x0, t, eps); where t = 1 the decoder term L_0.

    x0, eps: (B, C, H, W), images on the 256 levels of [-1, 1] and a draw of N(0, 1); t: int64 (B,) in 1..T.
    One term of the sum over t, so not times T. Float64 where the device has it. Makes no host synchronisation.
    """
    decode = _decoder(decoder)
    x_t = q_sample(diffusion.schedule, x0, t, eps)
    step = diffusion.reverse(network, x_t, t, clip_x0)
    kl = _kl(diffusion, x0, x_t, t, step)
    first = t == 1
    if not first.is_cpu:
        return torch.where(first, _decoding(decode, x0, step.mean, step.log_variance), kl)
    # Picking rows is free on the CPU, where log_ndtr is dear; elsewhere it would wait for the device.
    return kl.index_put((first,), _decoding(decode, x0[first], step.mean[first], step.log_variance[first]))


def bits_per_dim(
    diffusion: Diffusion,
    network: Network,
    images: Tensor,
    *,
    seed: int,
    batch: int,
    device: torch.device | str,
    clip_x0: bool = True,
    decoder: str = "exact",
    stop: Stop = NEVER,
    title: str = "bound",
) -> Bound:
    """The whole bound of `images`, uint8 (N, C, H, W): every t, one draw of noise for each image and t.

    The draw depends on `seed` and the image's index only, not on `batch`. Modules are scored in evaluation mode and put
    back as they were. Raises UserError for images that are not uint8, or none; Interrupted when `stop` is set.
    """
    if images.dtype != torch.uint8 or len(images) == 0:
        raise UserError(
            f"A bound is measured on uint8 images, at least one, not on {images.dtype} of shape {tuple(images.shape)}. "
            "Values in [-1, 1] become uint8 with `ddpm_bench.data.images.to_uint8`."
        )
    decode, schedule = _decoder(decoder), diffusion.schedule
    terms = precise(torch.zeros(schedule.T, device=device))
    totals, priors = [], []
    bar = progress(title, len(images) * schedule.T, "evaluations")
    with torch.inference_mode(), evaluating(network), bar as meter:
        for start, size in batches(len(images), batch):
            x0 = to_model(images[start : start + size].to(device))
            noise = BlockNoise(seed, start, size, tuple(x0.shape[1:]), device, stream=BOUND)
            prior = prior_bits_per_dim(schedule, x0)
            total = prior.clone()
            for t in range(schedule.T, 0, -1):
                stop.check()
                steps = all_at(t, size, x0.device)
                x_t = q_sample(schedule, x0, steps, noise.draw())
                step = diffusion.reverse(network, x_t, steps, clip_x0)
                if t == 1:
                    term = _decoding(decode, x0, step.mean, step.log_variance)
                else:
                    term = _kl(diffusion, x0, x_t, steps, step)
                total += term
                terms[t - 1] += term.sum()
                meter.update(start * schedule.T + size * (schedule.T + 1 - t))
            totals.append(total.cpu())
            priors.append(prior.cpu())
    return Bound(torch.cat(totals).double(), torch.cat(priors).double(), terms.cpu().double() / len(images))


def _kl(diffusion: Diffusion, x0: Tensor, x_t: Tensor, t: Tensor, step: ReverseStep) -> Tensor:
    """L_{t-1} in bits/dim, (B,), for t > 1."""
    truth = posterior(diffusion.schedule, precise(x0), precise(x_t), t)
    return _bits_per_dim(gaussian_kl(truth.mean, truth.log_variance, step.mean, step.log_variance))


def _decoding(decode: Decoder, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """L_0 in bits/dim, (B,)."""
    return _bits_per_dim(-decode(x0, mean, log_variance))


def _bits_per_dim(nats: Tensor) -> Tensor:
    """(B, C, H, W) in nats -> (B,) in bits/dim."""
    return nats.flatten(1).mean(1) / math.log(2)


def _decoder(name: str) -> Decoder:
    if name not in DECODERS:
        raise UserError(f"There is no decoder '{name}'{near_miss(name, DECODERS)}")
    return DECODERS[name]
