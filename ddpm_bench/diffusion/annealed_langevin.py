"""Annealed Langevin dynamics (Song, Ermon 2019, Algorithm 1): some steps at each noise level, the largest first.

    x += step s(x) + sqrt(2 step) z,    step = step_size (sigma_t / sigma_1)^2,    `level_steps` times at each t = T..1

for the score s = -eps / sigma_t of x = x_0 + sigma_t z. It is run in these coordinates, which all levels share, whatever
schedule the network was trained on: x = x_t / sqrt(alpha_bar_t). The paper writes alpha_i / 2 and sqrt(alpha_i): its alpha_i is
twice the step here, which is that of its release and of the numbers that both papers quote.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.process import precise
from ddpm_bench.diffusion.reverse import all_at
from ddpm_bench.diffusion.samplers import Denoised
from ddpm_bench.diffusion.score import predicted_eps

Start = Literal["uniform", "normal"]


@dataclass(frozen=True)
class AnnealedLangevin:
    """The defaults are NCSN's. NCSNv2 (Song, Ermon 2020) takes more levels with 5 steps each, 6.2e-6, and `final_denoising`.

    level_steps: network calls a level. step_size: at the least noise, in units of x_0 squared.
    final_denoising: x + sigma_1^2 s(x) at the end, one call more. start: of the largest level, uniform over the range of x_0 as
    in both releases, or the x_T ~ N(0, 1) that other samplers begin with.
    """

    level_steps: int = 100
    step_size: float = 2e-5
    final_denoising: bool = False
    start: Start = "uniform"

    name = "annealed-langevin"

    @property
    def calls(self) -> int:
        """Network calls a step of the chain; the final denoising's one more is not among them."""
        return self.level_steps

    def begin(self, denoiser: Denoiser, x_T: Tensor) -> Tensor:
        """What a chain starts from, for a draw x_T of N(0, 1)."""
        if self.start == "normal":
            return x_T
        low, high = denoiser.x0_range
        uniform = low + (high - low) * torch.special.ndtr(x_T)
        return uniform * float(denoiser.schedule.sqrt_alpha_bar[-1])

    def step(self, denoiser: Denoiser, x_t: Tensor, t: int, noise: BlockNoise) -> Denoised:
        """One level; from x_t to x_{t-1} nothing happens but that it is written in the coordinates of t - 1."""
        schedule, steps = denoiser.schedule, all_at(t, len(x_t), x_t.device)
        signal, sigma = (float(getattr(schedule, name)[t - 1]) for name in ("sqrt_alpha_bar", "sigma"))
        step = self.step_size * (sigma / float(schedule.sigma[0])) ** 2
        x = precise(x_t) / signal
        for _ in range(self.level_steps):
            x0, eps = _predicted(denoiser, (x * signal).to(x_t.dtype), steps)
            x = x - step * eps / sigma + (2 * step) ** 0.5 * noise.draw()
        if t == 1 and self.final_denoising:
            x0, eps = _predicted(denoiser, (x * signal).to(x_t.dtype), steps)
            x = x - sigma * eps
        return Denoised(t, x0, (x * float(schedule.alpha_bar_prev[t - 1]) ** 0.5).to(x_t.dtype))


def _predicted(denoiser: Denoiser, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x_0 and eps at x_t."""
    reverse = denoiser(x_t, t)
    return reverse.x0, predicted_eps(denoiser.schedule, reverse, x_t, t)
