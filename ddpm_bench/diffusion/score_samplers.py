"""Any network that predicts eps as a score: the samplers of "Score-Based Generative Modeling through Stochastic
Differential Equations" (Song et al. 2021) for the variance-preserving chain.

    s = -eps / sqrt(1 - alpha_bar_t)                        the score of q(x_t)

    ancestral-sde        x_{t-1} = (x_t + beta_t s) / sqrt(1 - beta_t) + sqrt(beta_t) z                        (eq. 4)
    reverse-diffusion    x_{t-1} = (2 - sqrt(1 - beta_t)) x_t + beta_t s + sqrt(beta_t) z                (Algorithm 3)
    probability-flow     x_{t-1} = (2 - sqrt(1 - beta_t)) x_t + beta_t s / 2
    langevin             no predictor: Langevin steps alone

Before each predictor, as in their release, there may be `corrector_steps` Langevin steps at the same t (Algorithm 5):

    x <- x + e s + sqrt(2 e) z,    e = 2 (1 - beta_t) (snr |z| / |s|)^2

The last predictor adds no noise. `langevin` has none, and what it returns holds the noise of its last step, as in their
release. A strided chain has its own beta_t. Of the release this differs in two ways: the network is told the whole t, of
which the release's discrete grid is up to 0.999 above; and |.| is the norm of each image unless `corrector_norm = batch`,
its mean over the batch, as released: then an image depends on those that it is sampled with.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.process import precise
from ddpm_bench.diffusion.reverse import Diffusion, all_at
from ddpm_bench.diffusion.step import Denoised, Sampler, predict
from ddpm_bench.errors import UserError

SNR = 0.16
"""Of the corrector on CIFAR-10, in their release. For DDPM's network and 1,000 steps the paper's search found 0.01, with the
probability flow 0.04, and 0.27 for `langevin` with two steps at each t (Table 5)."""


@dataclass(frozen=True)
class ScoreSampler(Sampler):
    """What all have in common: the corrector. `snr` and `corrector_norm` are of its steps, None where there are none."""

    corrector_steps: int = 0
    snr: float | None = None
    corrector_norm: Literal["image", "batch"] | None = None

    def __post_init__(self) -> None:
        for name, usual in (("snr", SNR), ("corrector_norm", "image")):
            value = getattr(self, name)
            if value is not None and not self.corrector_steps:
                raise UserError(
                    f"{name} = {value} is of the Langevin corrector, and corrector_steps is 0. Ask for 1 or more, or leave it out."
                )
            if value is None and self.corrector_steps:
                object.__setattr__(self, name, usual)

    def remarks(self, diffusion: Diffusion, clip_x0: bool) -> tuple[str, ...]:
        by_batch = "The corrector's norms are means over the batch: an image depends on those that it is sampled with."
        return super().remarks(diffusion, clip_x0) + ((by_batch,) if self.corrector_norm == "batch" else ())

    def correct(self, denoiser: Denoiser, x_t: Tensor, t: int, noise: BlockNoise) -> Denoised:
        """x_t after the corrector; `x0` as predicted before its last step, or x_t itself where there is none."""
        x, x0 = x_t, x_t
        for _ in range(self.corrector_steps):
            z = noise.draw()
            x0, score = _score(denoiser, x, t)
            assert self.snr is not None  # it is where there are steps
            alpha = denoiser.schedule.at("alpha", all_at(t, len(x), x.device), score)
            step = 2 * alpha * (self.snr * self._norm(precise(z)) / self._norm(score)).square()
            x = (precise(x) + step * score + (2 * step).sqrt() * z).to(x_t.dtype)
        return Denoised(t, x0, x)

    def _norm(self, x: Tensor) -> Tensor:
        """L2, (B, 1, 1, 1): of each image, or the mean over the batch."""
        norms = x.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        return norms.mean(0, keepdim=True) if self.corrector_norm == "batch" else norms


def _score(denoiser: Denoiser, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """x_0 as predicted, and the score, like x_t (B, C, H, W)."""
    x0, eps = predict(denoiser, x_t, t)
    return x0, eps / -denoiser.schedule.at("sqrt_one_minus_alpha_bar", all_at(t, len(x_t), x_t.device), eps)


@dataclass(frozen=True)
class Predictor(ScoreSampler):
    """A step along the reverse process after those of the corrector. noisy: whether it draws noise."""

    noisy: ClassVar[bool] = True

    @property
    def calls(self) -> int:
        return 1 + self.corrector_steps

    @property
    def draws(self) -> bool:
        return self.noisy or self.corrector_steps > 0

    def step(self, denoiser: Denoiser, x_t: Tensor, t: int, noise: BlockNoise) -> Denoised:
        x = self.correct(denoiser, x_t, t, noise).x
        x0, score = _score(denoiser, x, t)
        beta = denoiser.schedule.at("betas", all_at(t, len(x), x.device), score)
        found = self.mean(precise(x), score, beta)
        if self.noisy and t > 1:
            found = found + beta.sqrt() * noise.draw()
        return Denoised(t, x0, found.to(x_t.dtype))

    @abstractmethod
    def mean(self, x: Tensor, score: Tensor, beta: Tensor) -> Tensor:
        """x_{t-1} without its noise, like x (B, C, H, W); beta is (B, 1, 1, 1)."""


@dataclass(frozen=True)
class AncestralSDE(Predictor):
    """DDPM's mean with the variance beta_t."""

    name: ClassVar[str] = "ancestral-sde"

    def mean(self, x: Tensor, score: Tensor, beta: Tensor) -> Tensor:
        return (x + beta * score) / (1 - beta).sqrt()


@dataclass(frozen=True)
class ReverseDiffusion(Predictor):
    """The reverse-time SDE, made discrete as the forward process is."""

    name: ClassVar[str] = "reverse-diffusion"

    def mean(self, x: Tensor, score: Tensor, beta: Tensor) -> Tensor:
        return (2 - (1 - beta).sqrt()) * x + beta * score


@dataclass(frozen=True)
class ProbabilityFlow(Predictor):
    """The same of the ODE with the same marginals."""

    name: ClassVar[str] = "probability-flow"
    noisy: ClassVar[bool] = False

    def mean(self, x: Tensor, score: Tensor, beta: Tensor) -> Tensor:
        return (2 - (1 - beta).sqrt()) * x + beta / 2 * score


@dataclass(frozen=True)
class Langevin(ScoreSampler):
    """The corrector alone, at every t."""

    name: ClassVar[str] = "langevin"
    corrector_steps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.corrector_steps:
            raise UserError(
                f"The sampler '{self.name}' is its corrector alone: corrector_steps must be 1 or more, not 0."
            )

    @property
    def calls(self) -> int:
        return self.corrector_steps

    def step(self, denoiser: Denoiser, x_t: Tensor, t: int, noise: BlockNoise) -> Denoised:
        return self.correct(denoiser, x_t, t, noise)
