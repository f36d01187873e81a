"""What the network's mean head predicts, and the mean of p(x_{t-1} | x_t) that follows.

    eps:  x_0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t),  mean = mu_tilde_t(x_t, x_0)           (eq. 11)
    x0:   x_0 is the output,                                            mean = mu_tilde_t(x_t, x_0)
    mu:   the output is the mean; its target is mu_tilde_t(x_t, x_0)                                            (eq. 8)
    score: the output is the score of x_0 + sigma_t z = x_t / sqrt(alpha_bar_t),  x_0 = x_t / sqrt(alpha_bar_t) + sigma_t^2 s
           (NCSN; Song, Ermon 2019, eq. 5). NCSNv2's network divides its output by sigma_t: that is `eps`, up to the sign.

Each converts to x_0 only, and the mean is taken from an x_0 that may have been clipped. `mu` keeps its own mean:
clipping x_0 must not touch it, and mu_tilde -> x_0 divides by about 1e-4 at t = T.
"""

from typing import Protocol

from torch import Tensor

from ddpm_bench.diffusion.process import posterior_mean
from ddpm_bench.diffusion.schedule import Schedule


class Parameterization(Protocol):
    """Tensors are (B, C, H, W), t is int64 (B,) in 1..T."""

    @property
    def name(self) -> str:
        """As in grids, presets and records."""

    def target(self, schedule: Schedule, x0: Tensor, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the output should be where x_t = q_sample(x0, t, eps)."""

    def x0(self, schedule: Schedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The x_0, not clipped, that an output stands for."""

    def mean(self, schedule: Schedule, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The mean of p(x_{t-1} | x_t), given an output and the x_0 it stands for, clipped or not."""


class Eps:
    """The noise that was added: the paper's own choice."""

    name = "eps"

    def target(self, schedule: Schedule, x0: Tensor, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return eps

    def x0(self, schedule: Schedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        noise = schedule.at("sqrt_one_minus_alpha_bar", t, x_t) * output
        return (x_t - noise) / schedule.at("sqrt_alpha_bar", t, x_t)

    def mean(self, schedule: Schedule, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return posterior_mean(schedule, x0, x_t, t)


class X0:
    """The clean image."""

    name = "x0"

    def target(self, schedule: Schedule, x0: Tensor, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return x0

    def x0(self, schedule: Schedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return output

    def mean(self, schedule: Schedule, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return posterior_mean(schedule, x0, x_t, t)


class Mu:
    """The posterior mean mu_tilde: the paper's baseline. Its target is mu_tilde(x_t, x_0), not a sampled x_{t-1}."""

    name = "mu"

    def target(self, schedule: Schedule, x0: Tensor, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return posterior_mean(schedule, x0, x_t, t)

    def x0(self, schedule: Schedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """For display: nothing else is computed from it."""
        return (output - schedule.at("posterior_xt", t, x_t) * x_t) / schedule.at("posterior_x0", t, x_t)

    def mean(self, schedule: Schedule, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return output


class Score:
    """grad log q(x_0 + sigma_t z): the score where noise is added and the image not shrunk, as NCSN predicts it."""

    name = "score"

    def target(self, schedule: Schedule, x0: Tensor, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return -eps / schedule.at("sigma", t, x_t)

    def x0(self, schedule: Schedule, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return x_t / schedule.at("sqrt_alpha_bar", t, x_t) + schedule.at("sigma", t, x_t).square() * output

    def mean(self, schedule: Schedule, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return posterior_mean(schedule, x0, x_t, t)


PARAMETERIZATIONS: dict[str, Parameterization] = {p.name: p for p in (Mu(), Eps(), X0(), Score())}
