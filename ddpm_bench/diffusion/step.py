"""One step of a chain, from x_t to x_{t-1}: what a sampler is, and what it makes of a network's prediction."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.parameterization import Eps, Mu
from ddpm_bench.diffusion.process import precise, predicted_eps
from ddpm_bench.diffusion.reverse import Diffusion, all_at
from ddpm_bench.errors import UserError


class Denoised(NamedTuple):
    """Step `t` of a chain, done: `x0` (B, C, H, W) is what x_t is predicted to become (eq. 15), `x` is x_{t-1}."""

    t: int
    x0: Tensor
    x: Tensor


@dataclass(frozen=True)
class Sampler(ABC):
    """One step of a chain. More steps than one network call, other noise or none: all of it is here.

    The fields of a sampler are its options, by the names that `SamplingSettings` has for them.
    name: as in settings, checkpoints and records. clips: whether its source clips the predicted x_0. uses_variance:
    whether it draws by the variance of the diffusion; if not, by one of its own. takes_mean: whether it takes the mean of
    p(x_{t-1} | x_t) from the denoiser; if not, x_0 and eps by `predict`.
    """

    name: ClassVar[str]
    clips: ClassVar[bool] = False
    uses_variance: ClassVar[bool] = False
    takes_mean: ClassVar[bool] = False

    @property
    def calls(self) -> int:
        """Network calls a step."""
        return 1

    def network_calls(self, T: int) -> int:
        """Network calls of a whole chain of T steps."""
        return T * self.calls

    def begin(self, denoiser: Denoiser, x_T: Tensor) -> Tensor:
        """What a sample starts from, for a draw x_T (B, C, H, W) of N(0, 1)."""
        return x_T

    @property
    def draws(self) -> bool:
        """Whether images depend on more noise than x_T."""
        return True

    def check(self, diffusion: Diffusion) -> None:
        """UserError for a diffusion that it cannot sample: unless it says otherwise, one whose x_0 is for display alone."""
        if isinstance(diffusion.parameterization, Mu):
            raise UserError(
                f"The sampler '{self.name}' takes x_0 and eps from the network, and one that predicts the mean of x_{{t-1}} "
                "(mu) gives them with its error divided by about 1e-4 at t = T. Use 'ancestral' or 'sigma-hat'."
            )

    def remarks(self, diffusion: Diffusion, clip_x0: bool) -> tuple[str, ...]:
        """What is not used of the diffusion, and what is otherwise than in the sampler's source."""
        said = []
        if diffusion.variance.outputs > 1 and not self.uses_variance:
            said.append(
                f"The sampler '{self.name}' has a variance of its own: the one that the network learned is not used."
            )
        if clip_x0 and not self.clips:
            said.append(
                f"The predicted x_0 is clipped, and eps derived from it again; the source of '{self.name}' does not."
            )
        if self.clips and not clip_x0:
            said.append(f"The predicted x_0 is not clipped; the source of '{self.name}' does that.")
        return tuple(said)

    @abstractmethod
    def step(self, denoiser: Denoiser, x_t: Tensor, t: int, noise: BlockNoise) -> Denoised:
        """From x_t (B, C, H, W) to x_{t-1}. `noise.draw()` gives one draw of N(0, 1), like x_t, as often as asked.

        The denoiser is best told an int, as t is: of two networks for different steps it then calls one.
        """


def predict(denoiser: Denoiser, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """x_0 as predicted from x_t (B, C, H, W), and the eps that x_t then holds; in float64 where the device has it.

    Where x_0 is clipped, eps is derived from the clipped one, so that x_t still consists of the two. So it does where a classifier
    guides them: x_0 is then derived from the guided eps, and not clipped again.
    """
    schedule, steps = denoiser.schedule, all_at(t, len(x_t), x_t.device)
    x0 = denoiser.by_network(x_t, t).x0
    eps = predicted_eps(schedule, x0, precise(x_t), steps)
    if denoiser.classifier is None:
        return x0, eps
    eps = denoiser.classifier.eps(schedule, eps, x_t, steps)
    return Eps().x0(schedule, eps, precise(x_t), steps), eps
