"""The forward process's variances beta_1..beta_T, and every coefficient that follows from them, in float64.

    alpha_t = 1 - beta_t        alpha_bar_t = alpha_1 * ... * alpha_t        alpha_bar_0 = 1                    (eq. 4)
    q(x_{t-1} | x_t, x_0) = N(posterior_x0_t * x_0 + posterior_xt_t * x_t, beta_tilde_t)                 (eq. 6, 7)
        posterior_x0_t = sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t)
        posterior_xt_t = sqrt(alpha_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)
        beta_tilde_t   = (1 - alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t)

Equations are those of "Denoising Diffusion Probabilistic Models" (Ho, Jain, Abbeel 2020); t runs from 1 to T as there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from ddpm_bench.errors import UserError


@dataclass(frozen=True, eq=False)
class Schedule:
    """A chain of T noising steps. Tables are float64 on the CPU; entry t - 1 belongs to step t; `at` looks them up.

    betas: (T,) float64, each inside (0, 1).
    network_steps: (T,) int64 or float32, the 0-based step that the network is told at each t. Empty means 0..T-1; a
        strided chain keeps the steps of the chain that the network was trained on.
    exploding: the network is told x_t / sqrt(alpha_bar_t) = x_0 + sigma_t z instead of x_t: see `geometric`.
    Raises UserError for values out of range.
    """

    betas: Tensor
    network_steps: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    exploding: bool = False
    _tables: dict[tuple[str, torch.dtype, torch.device], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        betas = torch.as_tensor(self.betas, dtype=torch.float64, device="cpu")
        steps = torch.as_tensor(self.network_steps, device="cpu")
        if betas.ndim != 1 or len(betas) == 0:
            raise UserError(f"A schedule needs a list of one beta or more, not a tensor of shape {tuple(betas.shape)}.")
        wrong = [f"beta_{i + 1} = {beta:g}" for i, beta in enumerate(betas.tolist()) if not 0 < beta < 1]
        if wrong:
            raise UserError(f"Every beta must lie strictly between 0 and 1, but {wrong[0]}. Choose other values.")
        if len(steps) not in (0, len(betas)):
            raise UserError(f"{len(betas)} betas need as many network steps, not {len(steps)}.")
        object.__setattr__(self, "betas", betas)
        object.__setattr__(self, "network_steps", steps if len(steps) else torch.arange(len(betas)))

    @property
    def T(self) -> int:
        """Number of steps."""
        return len(self.betas)

    @cached_property
    def alpha(self) -> Tensor:
        return 1 - self.betas

    @cached_property
    def alpha_bar(self) -> Tensor:
        return self.alpha.cumprod(0)

    @cached_property
    def alpha_bar_prev(self) -> Tensor:
        """alpha_bar_{t-1}; 1 at t = 1."""
        return functional.pad(self.alpha_bar[:-1], (1, 0), value=1.0)

    @cached_property
    def sqrt_alpha_bar(self) -> Tensor:
        return self.alpha_bar.sqrt()

    @cached_property
    def sqrt_one_minus_alpha_bar(self) -> Tensor:
        return (1 - self.alpha_bar).sqrt()

    @cached_property
    def sigma(self) -> Tensor:
        """The noise in x_t / sqrt(alpha_bar_t) = x_0 + sigma_t z: sigma_t^2 = (1 - alpha_bar_t) / alpha_bar_t."""
        return ((1 - self.alpha_bar) / self.alpha_bar).sqrt()

    @cached_property
    def beta_tilde(self) -> Tensor:
        """Variance of q(x_{t-1} | x_t, x_0); 0 at t = 1."""
        return self.betas * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)

    @cached_property
    def log_beta_tilde(self) -> Tensor:
        """log beta_tilde_t; at t = 1, where it is -infinity, the value of t = 2 as in the original release."""
        usable = self.beta_tilde[1:] if self.T > 1 else self.betas  # a chain of one step has no t = 2
        return torch.cat([usable[:1], self.beta_tilde[1:]]).log()

    @cached_property
    def log_beta(self) -> Tensor:
        """log beta_t; at t = 1 it is log beta_tilde_2 too, which the original release chose for its better decoder."""
        return torch.cat([self.log_beta_tilde[:1], self.betas[1:].log()])

    @cached_property
    def true_log_beta(self) -> Tensor:
        """log beta_t, at t = 1 too: the upper end of improved DDPM's variance."""
        return self.betas.log()

    @cached_property
    def posterior_x0(self) -> Tensor:
        """Weight of x_0 in mu_tilde; 1 at t = 1."""
        return self.alpha_bar_prev.sqrt() * self.betas / (1 - self.alpha_bar)

    @cached_property
    def posterior_xt(self) -> Tensor:
        """Weight of x_t in mu_tilde; 0 at t = 1."""
        return self.alpha.sqrt() * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)

    def at(self, name: str, t: Tensor, like: Tensor) -> Tensor:
        """The table called `name` at steps t, int64 (B,) in 1..T.

        Returns (B, 1, ..., 1) with the dtype, device and rank of `like`. Makes no host synchronisation. At t = 0 it is
        NaN: the paper's steps begin at 1.
        """
        return self._table(name, like.dtype, like.device)[t].reshape(-1, *(1,) * (like.ndim - 1))

    def network_step(self, t: Tensor) -> Tensor:
        """The 0-based step, (B,) like `network_steps`, that a network is told at steps t, int64 (B,) in 1..T."""
        return self._table("network_steps", self.network_steps.dtype, t.device)[t]

    def network_input(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What a network is told of x_t (B, C, H, W) at steps t, int64 (B,) in 1..T."""
        return x_t / self.at("sqrt_alpha_bar", t, x_t) if self.exploding else x_t

    def rescaled(self) -> "Schedule":
        """The same chain for a network that is told t * 1000 / T, in float32, of the 0-based t (improved-diffusion)."""
        return replace(self, network_steps=self.network_steps.float() * (1000 / self.T))

    def at_level(self, log_variance: float, network_step: float) -> "Schedule":
        """A chain of one step at the noise level log sigma^2, whose network is told `network_step`: a point between two steps."""
        beta = torch.sigmoid(torch.tensor([log_variance], dtype=torch.float64))  # alpha_bar = 1 / (1 + sigma^2)
        dtype = self.network_steps.dtype if self.network_steps.is_floating_point() else torch.float32
        return Schedule(beta, torch.tensor([network_step], dtype=dtype), self.exploding)

    def respaced(self, kept: Sequence[int]) -> "Schedule":
        """The strided chain that visits only the steps `kept`, increasing and in 1..T.

        Betas are derived anew from the kept alpha_bar, beta_i = 1 - alpha_bar_i / alpha_bar_{i-1}, and everything else,
        beta_tilde too, from these (Nichol, Dhariwal 2021). The network still sees the original steps.
        """
        index = torch.tensor(kept, dtype=torch.int64) - 1
        if len(index) == 0 or index[0] < 0 or index[-1] >= self.T or (index.diff() <= 0).any():
            raise UserError(f"The kept steps must increase from at least 1 to at most {self.T}, not {list(kept)}.")
        alpha_bar = self.alpha_bar[index]
        before = functional.pad(alpha_bar[:-1], (1, 0), value=1.0)
        return Schedule(1 - alpha_bar / before, self.network_steps[index], self.exploding)

    def _table(self, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Entry t of the result belongs to step t; cast and moved once for each dtype and device."""
        key = (name, dtype, device)
        if key not in self._tables:
            no_step_zero = math.nan if dtype.is_floating_point else -1
            padded = functional.pad(getattr(self, name).to(dtype), (1, 0), value=no_step_zero)
            self._tables[key] = padded.to(device)
        return self._tables[key]


def linear(T: int, beta_1: float = 1e-4, beta_T: float = 0.02) -> Schedule:
    """beta rises linearly from beta_1 to beta_T: the paper's, with T = 1000 and the default values (section 4)."""
    return Schedule(torch.linspace(beta_1, beta_T, T, dtype=torch.float64))


def linear_openai(T: int, beta_1: float = 1e-4, beta_T: float = 0.02) -> Schedule:
    """'linear' of improved-diffusion and guided-diffusion: linear from beta_1 * 1000 / T to beta_T * 1000 / T.

    So chains of any T add about the noise of T = 1000. UserError where T is too small for beta_T.
    """
    scale = 1000 / T
    if beta_T * scale >= 1:
        raise UserError(
            f"The schedule 'linear-openai' takes beta_T * 1000 / T as its last beta, and {beta_T:g} * 1000 / {T} is not below 1. "
            "Choose a larger T, a smaller beta_T, or the schedule 'linear', whose betas are as given."
        )
    return linear(T, beta_1 * scale, beta_T * scale)


def quadratic(T: int, beta_1: float = 1e-4, beta_T: float = 0.02) -> Schedule:
    """sqrt(beta) rises linearly from sqrt(beta_1) to sqrt(beta_T): 'quad' of the original release."""
    return Schedule(torch.linspace(math.sqrt(beta_1), math.sqrt(beta_T), T, dtype=torch.float64).square())


def constant(T: int, beta_1: float = 1e-4, beta_T: float = 0.02) -> Schedule:
    """beta_t = beta_T at every step; beta_1 is not used. 'const' of the original release."""
    return Schedule(torch.full((T,), beta_T, dtype=torch.float64))


def cosine(T: int, beta_1: float = 1e-4, beta_T: float = 0.02) -> Schedule:
    """alpha_bar_t = f(t) / f(0), f(t) = cos^2(pi/2 (t/T + s) / (1 + s)), s = 0.008, beta <= 0.999.

    "Improved DDPM" (Nichol, Dhariwal 2021). T alone determines it: beta_1 and beta_T are not used.
    """
    t = torch.arange(T + 1, dtype=torch.float64)
    f = torch.cos((t / T + 0.008) / 1.008 * math.pi / 2).square()
    return Schedule((1 - f[1:] / f[:-1]).clamp(max=0.999))


def geometric(T: int, sigma_1: float = 0.01, sigma_T: float = 1.0) -> Schedule:
    """sigma_t rises geometrically from sigma_1 to sigma_T: the noise levels of NCSN (Song, Ermon 2019, section 4.1).

    NCSN adds noise without shrinking the image, x_0 + sigma_t z. That is x_t / sqrt(alpha_bar_t) of the chain with
    alpha_bar_t = 1 / (1 + sigma_t^2), so everything that works on a chain works on it, and its network is told x_0 +
    sigma_t z. The papers number levels from the largest sigma down: their level i of L is step t = L + 1 - i here, and
    the network is told t - 1, so that 0 is the least noise as in every other schedule. UserError unless 0 < sigma_1 <
    sigma_T.
    """
    if not 0 < sigma_1 < sigma_T:
        raise UserError(
            f"A geometric schedule rises from sigma_1 = {sigma_1:g} to sigma_T = {sigma_T:g}: give 0 < sigma_1 < sigma_T."
        )
    variance = torch.linspace(math.log(sigma_1), math.log(sigma_T), T, dtype=torch.float64).mul(2).exp()
    before = functional.pad(variance[:-1], (1, 0))
    return Schedule((variance - before) / (1 + variance), exploding=True)  # 1 - alpha_bar_t / alpha_bar_{t-1}


SCHEDULES: dict[str, Callable[[int, float, float], Schedule]] = {
    "linear": linear,
    "linear-openai": linear_openai,
    "quadratic": quadratic,
    "constant": constant,
    "cosine": cosine,
    "geometric": geometric,
}
"""Made by (T, first end, last end): beta_1 and beta_T, or sigma_1 and sigma_T; see `NoiseSettings.ends`."""
