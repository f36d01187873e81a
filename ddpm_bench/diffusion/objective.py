"""What training minimises: a loss for each image at the t drawn for it; the mean over a batch is the loss of a step.

    L         L_{t-1} of the variational bound, in bits/dim, NOT times T; at t = 1 the exact decoder term L_0    (eq. 5)
    L_simple  mean over dimensions of (target - output)^2, the target being the parameterization's own          (eq. 14)
    DSM       denoising score matching, weighted by sigma_t^2 and summed over dimensions: that of NCSN

and of "Improved Denoising Diffusion Probabilistic Models" (Nichol, Dhariwal 2021), which learns the variance:

    L_hybrid           L_simple + lambda L_vlb, lambda = 0.001, whose second term trains the variance alone     (eq. 16)
    L_hybrid-unscaled  L_simple + L, lambda = 1 / T: improved-diffusion without its --rescale_learned_sigmas, and the default
                       of guided-diffusion and DiT
    L_vlb              T L, t drawn by the second moment of past losses                                    (section 3.3)
    L_vlb-uniform      T L, every t alike

With `mu` L_simple is the baseline's |mu_tilde - mu|^2. As in the original experiments, x_0 is not clipped in training.

L_0 is the exact decoder of `decoder.py` wherever the bound is trained, as it is scored: the releases' tanh approximation has
a floor, beyond which a variance has no gradient. Where variances fit the errors, L_0 differs by 0.0005 bits/dim.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ddpm_bench.data.codec import Codec
from ddpm_bench.diffusion.bound import bound_term
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.process import q_sample
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.times import LossSecondMoment, TimeSampler, Uniform
from ddpm_bench.errors import UserError
from ddpm_bench.runtime.observer import say_once


class Objective(Protocol):
    """One loss for each image, and how its t is drawn.

    A GPU records a call and replays its kernels (`runtime/recorded.py`): what Python does beside tensors is done twice, and then
    no more.
    """

    @property
    def name(self) -> str:
        """As in grids, presets and records."""

    def check(self, diffusion: Diffusion) -> None:
        """Raises UserError, with the reason, for a diffusion that this objective cannot train."""

    def check_codec(self, codec: Codec) -> None:
        """Raises UserError, with the reason, for an x_0 that this objective cannot train on."""

    def times(self, T: int) -> TimeSampler:
        """A time sampler for one run over a chain of T steps."""

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """(B,) losses in the dtype of x0, for x0 and eps ~ N(0, 1), (B, C, H, W), and t int64 (B,) in 1..T."""


class L:
    """The variational bound, one term of its sum over t; trains every variance."""

    name = "L"

    def check_codec(self, codec: Codec) -> None:
        _check_lossless(self.name, codec)

    def check(self, diffusion: Diffusion) -> None:
        if diffusion.schedule.exploding:
            raise UserError(
                f"The objective '{self.name}' does not go with the schedule 'geometric': its terms are of a variational bound, and "
                f"score matching has none. Use '{DenoisingScoreMatching.name}' or 'L_simple'."
            )

    def times(self, T: int) -> TimeSampler:
        return Uniform(T)

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return bound_term(denoiser, x0, t, eps).bits.to(x0.dtype)


class LVlb(L):
    """T L_{t-1}, whose mean over t is the bound without L_T, in bits/dim; t is drawn by `LossSecondMoment`."""

    name = "L_vlb"

    def times(self, T: int) -> TimeSampler:
        return LossSecondMoment(T)

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return denoiser.T * super().__call__(denoiser, x0, t, eps)


class LVlbUniform(LVlb):
    """The same with every t alike: what the paper found too noisy to train."""

    name = "L_vlb-uniform"

    def times(self, T: int) -> TimeSampler:
        return Uniform(T)


class LSimple:
    """The unweighted squared error; says nothing about a variance, so it refuses to train one."""

    name = "L_simple"

    def check_codec(self, codec: Codec) -> None:
        """A squared error is of anything."""

    def check(self, diffusion: Diffusion) -> None:
        if diffusion.variance.outputs != 1:
            raise UserError(
                f"The objective '{self.name}' cannot train the variance '{diffusion.variance.name}': the squared error does not "
                "depend on it, and half of the network's output would stay as it began. Use objective 'L' or 'L_hybrid', "
                "or a fixed variance."
            )

    def times(self, T: int) -> TimeSampler:
        return Uniform(T)

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        self.check(denoiser.diffusion)
        x_t = q_sample(denoiser.schedule, x0, t, eps)
        return _squared_error(denoiser, denoiser.heads(x_t, t)[0], x0, x_t, t, eps)


class DenoisingScoreMatching(LSimple):
    """1/2 |s + z / sigma_t|^2 sigma_t^2, summed over dimensions, for the score s at x_0 + sigma_t z (Song, Ermon 2019, eq. 5, 6).

    A network that predicts eps has s = -eps / sigma_t, for which this is 1/2 |z - eps|^2.
    """

    name = "DSM"

    def check(self, diffusion: Diffusion) -> None:
        super().check(diffusion)
        if (predicted := diffusion.parameterization.name) not in ("score", "eps"):
            raise UserError(
                f"The objective '{self.name}' is of a score, and '{predicted}' predicts none; use 'score' or 'eps'."
            )

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        schedule, parameterization = denoiser.schedule, denoiser.diffusion.parameterization
        self.check(denoiser.diffusion)
        x_t = q_sample(schedule, x0, t, eps)
        error = parameterization.target(schedule, x0, x_t, eps, t) - denoiser.heads(x_t, t)[0]
        if parameterization.name == "score":
            error = error * schedule.at("sigma", t, x0)
        return error.square().flatten(1).sum(1) / 2


@dataclass(frozen=True)
class LHybrid:
    """L_simple, which trains the mean, + weight L_{t-1}, which trains the variance: there the mean is detached.

    lambda_: the paper's lambda, 0.001, where the weight is lambda T; None: the weight is 1, whatever T is. The network is
    called once.
    """

    name: str
    lambda_: float | None

    def check_codec(self, codec: Codec) -> None:
        if codec.random:
            say_once(
                f"The objective '{self.name}' has a decoder of pixels at t = 1, and these are latents: as in the release of DiT they "
                "are taken for pixels there, which trains the variance alone."
            )
        else:
            _check_lossless(self.name, codec)

    def check(self, diffusion: Diffusion) -> None:
        if diffusion.variance.outputs != 2:
            raise UserError(
                f"The objective '{self.name}' cannot train with the variance '{diffusion.variance.name}': its second term is there to "
                "learn a variance, and this one is fixed. Use variance 'learned-range', which is the paper's, or "
                "'learned'; or objective 'L_simple'."
            )

    def times(self, T: int) -> TimeSampler:
        return Uniform(T)

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        self.check(denoiser.diffusion)
        x_t = q_sample(denoiser.schedule, x0, t, eps)
        head, raw = denoiser.heads(x_t, t)
        assert raw is not None  # checked above
        output = torch.cat([head.detach(), raw], 1)
        bits = bound_term(replace(denoiser, network=lambda x_t, step: output, condition=None), x0, t, eps).bits.to(
            x0.dtype
        )
        weight = 1.0 if self.lambda_ is None else self.lambda_ * denoiser.T
        return _squared_error(denoiser, head, x0, x_t, t, eps) + weight * bits


def _check_lossless(objective: str, codec: Codec) -> None:
    """UserError for an x_0 of which the bound's decoder says nothing."""
    if not codec.lossless:
        raise UserError(
            f"The objective '{objective}' does not go with the codec '{codec.name}': it trains a bound, whose decoder is of "
            "pixels on the 256 levels of [-1, 1]. Use the codec 'pixels', or the objective 'L_simple'."
        )


def _squared_error(denoiser: Denoiser, head: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """(B,) mean over dimensions of (target - head)^2."""
    target = denoiser.diffusion.parameterization.target(denoiser.schedule, x0, x_t, eps, t)
    return (target - head).square().flatten(1).mean(1)


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        L(),
        LSimple(),
        DenoisingScoreMatching(),
        LHybrid("L_hybrid", 0.001),
        LHybrid("L_hybrid-unscaled", None),
        LVlb(),
        LVlbUniform(),
    )
}
