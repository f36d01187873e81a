"""The forward process, and its reverse where x_0 is known.

q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, 1 - alpha_bar_t)                                                  (eq. 4)
q(x_{t-1} | x_t, x_0) = N(mu_tilde_t(x_t, x_0), beta_tilde_t)                                             (eq. 6, 7)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_bench.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Gaussian:
    """Independent normals: `mean` (B, C, H, W) and `log_variance` (natural log), which broadcasts against it."""

    mean: Tensor
    log_variance: Tensor


def precise(x: Tensor) -> Tensor:
    """`x` in float64 where its device has it (mps has not): means that nearly agree lose digits in float32."""
    return x if x.device.type == "mps" else x.to(torch.float64)


def q_sample(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, like x0.

    x0: (B, C, H, W) in [-1, 1]; t: int64 (B,) in 1..T; eps: a draw of N(0, 1), like x0.
    """
    return schedule.at("sqrt_alpha_bar", t, x0) * x0 + schedule.at("sqrt_one_minus_alpha_bar", t, x0) * eps


def predicted_eps(schedule: Schedule, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The eps with which x_t = q_sample(x0, t, eps), like x_t (B, C, H, W)."""
    return (x_t - schedule.at("sqrt_alpha_bar", t, x_t) * x0) / schedule.at("sqrt_one_minus_alpha_bar", t, x_t)


def posterior_mean(schedule: Schedule, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """mu_tilde_t(x_t, x_0), like x_t (B, C, H, W); x_0 itself at t = 1."""
    return schedule.at("posterior_x0", t, x_t) * x0 + schedule.at("posterior_xt", t, x_t) * x_t


def posterior(schedule: Schedule, x0: Tensor, x_t: Tensor, t: Tensor) -> Gaussian:
    """q(x_{t-1} | x_t, x_0) for x0, x_t (B, C, H, W) and t int64 (B,); its log variance is (B, 1, 1, 1).

    At t = 1 the true variance is 0; the log variance there is that of t = 2 (see `Schedule.log_beta_tilde`).
    """
    return Gaussian(posterior_mean(schedule, x0, x_t, t), schedule.at("log_beta_tilde", t, x_t))
