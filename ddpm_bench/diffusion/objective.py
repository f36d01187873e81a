"""What training minimises: a loss for each image at the t drawn for it; the mean over a batch is the loss of a step.

    L         L_{t-1} of the variational bound, in bits/dim, NOT times T; at t = 1 the exact decoder term L_0    (eq. 5)
    L_simple  mean over dimensions of (target - output)^2, the target being the parameterization's own          (eq. 14)
    DSM       denoising score matching, weighted by sigma_t^2 and summed over dimensions: that of NCSN

With `mu` L_simple is the baseline's |mu_tilde - mu|^2. As in the original experiments, x_0 is not clipped in training.
"""

from typing import Protocol

from torch import Tensor

from ddpm_bench.diffusion.bound import bound_term
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.process import q_sample
from ddpm_bench.diffusion.times import TimeSampler, Uniform
from ddpm_bench.diffusion.variance import Variance
from ddpm_bench.errors import UserError


class Objective(Protocol):
    """One loss for each image, and how its t is drawn."""

    @property
    def name(self) -> str:
        """As in grids, presets and records."""

    def check(self, variance: Variance) -> None:
        """Raises UserError, with the reason, for a variance that this objective cannot train."""

    def times(self, T: int) -> TimeSampler:
        """A time sampler for one run over a chain of T steps."""

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """(B,) losses in the dtype of x0, for x0 and eps ~ N(0, 1), (B, C, H, W), and t int64 (B,) in 1..T."""


class L:
    """The variational bound, one term of its sum over t; trains every variance."""

    name = "L"

    def check(self, variance: Variance) -> None:
        """Nothing to refuse."""

    def times(self, T: int) -> TimeSampler:
        return Uniform(T)

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return bound_term(denoiser, x0, t, eps).bits.to(x0.dtype)


class LSimple:
    """The unweighted squared error; says nothing about a variance, so it refuses to train one."""

    name = "L_simple"

    def check(self, variance: Variance) -> None:
        if variance.outputs != 1:
            raise UserError(
                f"The objective '{self.name}' cannot train the variance '{variance.name}': the squared error does not "
                "depend on it, and half of the network's output would stay as it began. Use objective 'L', or a fixed "
                "variance."
            )

    def times(self, T: int) -> TimeSampler:
        return Uniform(T)

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        diffusion = denoiser.diffusion
        self.check(diffusion.variance)
        x_t = q_sample(diffusion.schedule, x0, t, eps)
        target = diffusion.parameterization.target(diffusion.schedule, x0, x_t, eps, t)
        return (target - denoiser.head(x_t, t)).square().flatten(1).mean(1)


class DenoisingScoreMatching(LSimple):
    """1/2 |s + z / sigma_t|^2 sigma_t^2, summed over dimensions, for the score s at x_0 + sigma_t z (Song, Ermon 2019, eq. 5, 6).

    A network that predicts eps has s = -eps / sigma_t, for which this is 1/2 |z - eps|^2.
    """

    name = "DSM"

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        diffusion = denoiser.diffusion
        self.check(diffusion.variance)
        x_t = q_sample(diffusion.schedule, x0, t, eps)
        error = diffusion.parameterization.target(diffusion.schedule, x0, x_t, eps, t) - denoiser.head(x_t, t)
        if diffusion.parameterization.name == "score":
            error = error * diffusion.schedule.at("sigma", t, x0)
        return error.square().flatten(1).sum(1) / 2


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective for objective in (L(), LSimple(), DenoisingScoreMatching())
}
