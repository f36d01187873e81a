"""The variational bound on -log p(x_0), in bits per dimension (eq. 5)

    L_T     = KL(q(x_T | x_0) || N(0, 1))                   the prior: does not depend on the network
    L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)),  t = 2..T
    L_0     = -log p(x_0 | x_1)                             the discretized decoder, at t = 1

Each is a mean over the C * H * W dimensions divided by ln 2; the bound is their sum over all t. Training and scoring
share them; `ddpm_bench/likelihood` adds them up.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_bench.diffusion.decoder import DECODERS, Decoder
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.process import posterior, precise, q_sample
from ddpm_bench.diffusion.reverse import ReverseStep
from ddpm_bench.diffusion.schedule import Schedule
from ddpm_bench.errors import UserError, near_miss


@dataclass(frozen=True)
class Term:
    """One term of the bound, in float64 where the device has it.

    bits: (B,), L_{t-1} of each image in bits/dim. x0: (B, C, H, W), the image predicted at t, clipped if that was asked for.
    """

    bits: Tensor
    x0: Tensor


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


def bound_term(denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, decoder: str = "exact") -> Term:
    """L_{t-1}, with x_t = q_sample(x0, t, eps); where t = 1 the decoder term L_0.

    x0, eps: (B, C, H, W), images on the 256 levels of [-1, 1] and a draw of N(0, 1); t: int64 (B,) in 1..T.
    One term of the sum over t, so not times T. Makes no host synchronisation.
    """
    decode, first = decoder_called(decoder), t == 1
    x_t = q_sample(denoiser.schedule, x0, t, eps)
    step = denoiser(x_t, t)
    bits = _kl(denoiser.schedule, x0, x_t, t, step)
    if first.is_cpu:  # picking rows is free here, where log_ndtr is dear; elsewhere it would wait for the device
        bits = bits.index_put((first,), _decoding(decode, x0[first], step.mean[first], step.log_variance[first]))
    else:
        bits = torch.where(first, _decoding(decode, x0, step.mean, step.log_variance), bits)
    return Term(bits, step.x0)


def _kl(schedule: Schedule, x0: Tensor, x_t: Tensor, t: Tensor, step: ReverseStep) -> Tensor:
    """L_{t-1} in bits/dim, (B,), for t > 1."""
    truth = posterior(schedule, precise(x0), precise(x_t), t)
    return _bits_per_dim(gaussian_kl(truth.mean, truth.log_variance, step.mean, step.log_variance))


def _decoding(decode: Decoder, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """L_0 in bits/dim, (B,)."""
    return _bits_per_dim(-decode(x0, mean, log_variance))


def _bits_per_dim(nats: Tensor) -> Tensor:
    """(B, C, H, W) in nats -> (B,) in bits/dim."""
    return nats.flatten(1).mean(1) / math.log(2)


def decoder_called(name: str) -> Decoder:
    """The decoder of that name; UserError for an unknown one."""
    if name not in DECODERS:
        raise UserError(f"There is no decoder '{name}'{near_miss(name, DECODERS)}")
    return DECODERS[name]
