"""Annealed Langevin dynamics (Song, Ermon 2019, Algorithm 1): some steps at each noise level, the largest first.

    x <- x + e s(x) + sqrt(2 e) z,    e = step_size (sigma_t / sigma_1)^2,    `level_steps` times at each t = T..1

for the score s = -eps / sigma_t of x = x_0 + sigma_t z. It is run in these coordinates, which all levels share, whatever
schedule the network was trained on: x = x_t / sqrt(alpha_bar_t). The paper writes alpha_i / 2 and sqrt(alpha_i): its alpha_i is
twice the e here, which is that of its release; both quote 2e-5.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.process import precise
from ddpm_bench.diffusion.step import Denoised, Sampler, predict
from ddpm_bench.runtime.interrupt import check_stop


@dataclass(frozen=True)
class AnnealedLangevin(Sampler):
    """The defaults are NCSN's. NCSNv2 (Song, Ermon 2020) takes more levels with 5 steps each, 6.2e-6, and `final_denoising`.

    level_steps: network calls a level. step_size: e at the least noise, in units of x_0 squared; both releases have images in
    [0, 1], where it is a quarter of what it would be in [-1, 1]. final_denoising: x + sigma_1^2 s(x) at the end, one call more.
    start: at the largest level, uniform over the range of x_0 as in both releases, or x_T ~ N(0, 1) as in other samplers.
    """

    name: ClassVar[str] = "annealed-langevin"
    level_steps: int = 100
    step_size: float = 2e-5
    final_denoising: bool = False
    start: Literal["uniform", "normal"] = "uniform"

    @property
    def calls(self) -> int:
        return self.level_steps

    def network_calls(self, T: int) -> int:
        return T * self.level_steps + self.final_denoising

    def begin(self, denoiser: Denoiser, x_T: Tensor) -> Tensor:
        if self.start == "normal":
            return x_T
        low, high = denoiser.x0_range
        return (low + (high - low) * torch.special.ndtr(x_T)) * float(denoiser.schedule.sqrt_alpha_bar[-1])

    def step(self, denoiser: Denoiser, x_t: Tensor, t: int, noise: BlockNoise) -> Denoised:
        """One level. From x_t to x_{t-1} nothing happens but that x is written in the coordinates of t - 1."""
        schedule = denoiser.schedule
        signal, sigma = float(schedule.sqrt_alpha_bar[t - 1]), float(schedule.sigma[t - 1])
        e = self.step_size * (sigma / float(schedule.sigma[0])) ** 2
        x, x0 = precise(x_t) / signal, x_t
        for _ in range(self.level_steps):
            check_stop()
            x0, eps = predict(denoiser, (x * signal).to(x_t.dtype), t)
            x = x - e / sigma * eps + (2 * e) ** 0.5 * noise.draw()
        if t == 1 and self.final_denoising:
            x0, eps = predict(denoiser, (x * signal).to(x_t.dtype), t)
            x = x - sigma * eps
        return Denoised(t, x0, (x * float(schedule.alpha_bar_prev[t - 1]) ** 0.5).to(x_t.dtype))
