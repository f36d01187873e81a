"""The variance of p(x_{t-1} | x_t): one of the two fixed choices of section 3.2, or learned for each dimension.

fixed-beta         sigma_t^2 = beta_t, optimal for x_0 ~ N(0, 1); the original experiments' default
fixed-beta-tilde   sigma_t^2 = beta_tilde_t, optimal for x_0 set to one point
learned            log sigma_t^2 is the second half of the network's output channels ("learned diagonal")
learned-range      the second half, v, lies between the two: improved DDPM (Nichol, Dhariwal 2021, eq. 15)
"""

from typing import Protocol

from torch import Tensor

from ddpm_bench.diffusion.schedule import Schedule


class Variance(Protocol):
    """Says how many output channels a network needs for each image channel, and reads log variances from them."""

    @property
    def name(self) -> str:
        """As in grids, presets and records."""

    @property
    def outputs(self) -> int:
        """Output channels for each image channel: 1, or 2 where the network predicts the variance."""

    def log_variance(self, schedule: Schedule, raw: Tensor | None, t: Tensor, like: Tensor) -> Tensor:
        """log sigma_t^2, natural log, broadcasting against like (B, C, H, W).

        raw: the second half of the output channels, (B, C, H, W); None where `outputs` is 1. t: int64 (B,) in 1..T.
        """


class FixedBeta:
    """beta_t, except beta_tilde_2 at t = 1 (see `Schedule.log_beta`)."""

    name = "fixed-beta"
    outputs = 1

    def log_variance(self, schedule: Schedule, raw: Tensor | None, t: Tensor, like: Tensor) -> Tensor:
        return schedule.at("log_beta", t, like)


class FixedBetaTilde:
    """beta_tilde_t, except beta_tilde_2 at t = 1, where it would be 0."""

    name = "fixed-beta-tilde"
    outputs = 1

    def log_variance(self, schedule: Schedule, raw: Tensor | None, t: Tensor, like: Tensor) -> Tensor:
        return schedule.at("log_beta_tilde", t, like)


class LearnedDiagonal:
    """The raw output is the log variance; neither bounded nor scaled, as in the original experiments."""

    name = "learned"
    outputs = 2

    def log_variance(self, schedule: Schedule, raw: Tensor | None, t: Tensor, like: Tensor) -> Tensor:
        if raw is None:
            raise ValueError("A learned variance needs the second half of the network's output channels.")
        return raw.to(like.dtype)


class LearnedRange:
    """w log beta_t + (1 - w) log beta_tilde_t with w = (raw + 1) / 2, raw about in [-1, 1] and not clipped.

    At t = 1 the upper end is the true log beta_1, not the log beta_tilde_2 of `FixedBeta`, as in the release.
    """

    name = "learned-range"
    outputs = 2

    def log_variance(self, schedule: Schedule, raw: Tensor | None, t: Tensor, like: Tensor) -> Tensor:
        if raw is None:
            raise ValueError("A learned variance needs the second half of the network's output channels.")
        w = (raw.to(like.dtype) + 1) / 2
        return w * schedule.at("true_log_beta", t, like) + (1 - w) * schedule.at("log_beta_tilde", t, like)


VARIANCES: dict[str, Variance] = {v.name: v for v in (FixedBeta(), FixedBetaTilde(), LearnedDiagonal(), LearnedRange())}
