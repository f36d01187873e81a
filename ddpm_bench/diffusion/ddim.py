"""The samplers of "Denoising Diffusion Implicit Models" (Song, Meng, Ermon 2021), on the steps that a chain visits.

    ddim        x_{t-1} = sqrt(alpha_bar_{t-1}) x_0 + sqrt(1 - alpha_bar_{t-1} - sigma_t^2) eps + sigma_t z       (eq. 12)
                sigma_t^2 = eta^2 beta_tilde_t, which is eq. 16: 0 is DDIM, 1 is DDPM with beta-tilde
    sigma-hat   the same with sigma_t^2 = beta_t for the noise and beta_tilde_t within the root                  (app. D.3):
                DDPM's mean, with the larger variance

x_0 and eps are those that the network predicts. Their release does not clip x_0 in `ddim`, and clips it in `sigma-hat`.
Clipped in `ddim`, eps is derived from the clipped x_0 again, as improved-diffusion's `ddim_sample` does it. The last step
adds no noise: it returns the predicted x_0.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.process import precise
from ddpm_bench.diffusion.reverse import Diffusion, all_at
from ddpm_bench.diffusion.step import Denoised, Sampler, predict


@dataclass(frozen=True)
class DDIM(Sampler):
    """eta: in 0..1, the share of the ancestral step's standard deviation. With 0 no noise is drawn."""

    name: ClassVar[str] = "ddim"
    eta: float = 0.0

    @property
    def draws(self) -> bool:
        return self.eta > 0

    def step(self, denoiser: Denoiser, x_t: Tensor, t: int, noise: BlockNoise) -> Denoised:
        x0, eps = predict(denoiser, x_t, t)
        steps = all_at(t, len(x_t), x_t.device)
        before, beta_tilde = (denoiser.schedule.at(name, steps, x0) for name in ("alpha_bar_prev", "beta_tilde"))
        variance = self.eta**2 * beta_tilde
        x = before.sqrt() * x0 + (1 - before - variance).sqrt() * eps
        if self.draws and t > 1:
            x = x + variance.sqrt() * noise.draw()
        return Denoised(t, x0, x.to(x_t.dtype))


@dataclass(frozen=True)
class SigmaHat(Sampler):
    """`ancestral` with beta_t of the strided chain, whatever the variance of the diffusion."""

    name: ClassVar[str] = "sigma-hat"
    clips: ClassVar[bool] = True
    takes_mean: ClassVar[bool] = True

    def check(self, diffusion: Diffusion) -> None:
        """It needs the mean alone."""

    def step(self, denoiser: Denoiser, x_t: Tensor, t: int, noise: BlockNoise) -> Denoised:
        steps = all_at(t, len(x_t), x_t.device)
        beta = denoiser.schedule.at("betas", steps, precise(x_t))
        reverse = denoiser(x_t, t, variance=beta)
        x = reverse.mean
        if t > 1:
            x = x + beta.sqrt() * noise.draw()
        return Denoised(t, reverse.x0, x.to(x_t.dtype))
