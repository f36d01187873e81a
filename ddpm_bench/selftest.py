"""`ddpm-bench selftest`: does this installation, on this machine, find the answers that are known in closed form?

Each known answer is computed here a second way: from the paper's formulas in float64 with numpy and scipy, or by
automatic differentiation; nothing of `ddpm_bench.diffusion` is used for it. Measured values are from the same calls that
score checkpoints. Where a value is an average over draws, five standard errors are allowed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from rich.table import Table
from scipy.stats import norm
from torch import Tensor

from ddpm_bench.data.images import to_model
from ddpm_bench.diffusion.decoder import discretized_log_likelihood
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.optimal import finite_eps, gaussian_eps
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import Chain, sample
from ddpm_bench.diffusion.schedule import Schedule, linear
from ddpm_bench.diffusion.variance import FixedBeta, FixedBetaTilde
from ddpm_bench.likelihood import bits_per_dim, estimate_bits_per_dim
from ddpm_bench.runtime.runtime import Runtime

T, BETA_1, BETA_T = 50, 1e-3, 0.2
MEAN, SPREAD = 0.1, 0.25
SIGMAS = 5


@dataclass(frozen=True)
class KnownAnswer:
    """`deviation` of what was measured from what is known, and how much is `allowed`."""

    name: str
    measured: float
    known: float
    deviation: float
    allowed: float

    @property
    def passed(self) -> bool:
        return bool(self.deviation <= self.allowed)  # False for NaN


def selftest(device: torch.device) -> Iterator[KnownAnswer]:
    """All checks, one after the other; a few seconds on a CPU."""
    for check in CHECKS:
        yield from check(device)


def gaussian_bound(device: torch.device) -> Iterator[KnownAnswer]:
    """x_0 ~ N(mean, spread^2) and its optimal network: each image's bound is known, and so is the samples' spread."""
    betas = np.linspace(BETA_1, BETA_T, T)
    alpha_bar = np.cumprod(1 - betas)
    diffusion = Diffusion(linear(T, BETA_1, BETA_T), Eps(), FixedBeta())
    network = gaussian_eps(diffusion.schedule, MEAN, SPREAD**2)
    chain, images = Chain(Denoiser(diffusion, network, (1, 16, 16), clip_x0=False)), _gaussian_images(1024)
    known = _gaussian_bound(to_model(images, torch.float64).numpy(), betas, alpha_bar)
    runtime = Runtime(device, batch=512)
    exact = bits_per_dim(chain, images, seed=0, runtime=runtime)
    difference = (exact.total - torch.from_numpy(known)).numpy()
    yield _average("bound of Gaussian data, every t", exact.total.mean().item(), known.mean(), difference.std() / 32)
    found = estimate_bits_per_dim(chain, images, evals=10, seed=0, runtime=runtime)
    yield _average("  the same, 10 network calls an image", found.total.mean().item(), known.mean(), found.own_error)

    variance = 1.0
    for beta, a, before in zip(betas[::-1], alpha_bar[::-1], [*alpha_bar[-2::-1], 1.0], strict=True):
        k = (1 - a) ** 0.5 / (a * SPREAD**2 + 1 - a)  # eps_hat = k (x_t - sqrt(a) mean)
        slope = (1 - beta / (1 - a) ** 0.5 * k) / (1 - beta) ** 0.5  # of the mean of x_{t-1} in x_t
        variance = slope**2 * variance + (beta if before < 1 else 0)
    samples = to_model(_samples(chain, device), torch.float64).numpy()
    error = math.sqrt(variance) / math.sqrt(2 * samples.size)
    yield _average(
        "spread of samples of Gaussian data", samples.std(), math.sqrt(variance + (2 / 255) ** 2 / 12), error
    )


def finite_data(device: torch.device) -> Iterator[KnownAnswer]:
    """x_0 one of four images: the optimal eps is a score, the bound nears the entropy, samples are the images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 1, 4, 4), dtype=torch.uint8, generator=generator)
    alpha_bar = torch.sigmoid(torch.linspace(11.5, -9, 150, dtype=torch.float64))
    schedule = Schedule(1 - alpha_bar / torch.cat([torch.ones(1), alpha_bar[:-1]]))
    points = to_model(images, torch.float64)
    network = finite_eps(schedule, points)
    chain = Chain(Denoiser(Diffusion(schedule, Eps(), FixedBetaTilde()), network, (1, 4, 4)))

    x = torch.randn(1, 1, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    a, t = float(alpha_bar[79]), torch.tensor([80])
    log_q = torch.logsumexp(-(x - a**0.5 * points).square().flatten(1).sum(1) / (2 * (1 - a)), 0)
    (score,) = torch.autograd.grad(log_q, x)
    found, known = network(x.detach(), t - 1), -((1 - a) ** 0.5) * score
    worst = (found - known).abs().max().item()
    yield KnownAnswer(
        "optimal eps of four images against the score", found.norm().item(), known.norm().item(), worst, 1e-9
    )

    bound = bits_per_dim(chain, images.repeat(16, 1, 1, 1), seed=0, runtime=Runtime(device, batch=64))
    total, entropy = bound.total.mean().item(), 2 / 16
    allowed = 0.2 * entropy + SIGMAS * bound.standard_error  # a chain of 150 steps is not yet the limit
    yield KnownAnswer(
        "bound of four images near their entropy, bits/dim", total, entropy, abs(total - entropy), allowed
    )
    hits = (_samples(chain, device)[:, None] == images[None]).flatten(2).all(2).any(1).double().mean().item()
    yield KnownAnswer("samples that are one of the four images", hits, 1.0, 1 - hits, 0.0)


def decoder(device: torch.device) -> Iterator[KnownAnswer]:
    """The 256 bins of a pixel hold all of the mass, and what scipy says that each holds."""
    x0 = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, std in ((0.3, 0.01), (-1.2, 0.5)):
        arguments = (
            each.to(device) for each in (x0, torch.full_like(x0, mean), torch.full_like(x0, 2 * math.log(std)))
        )
        log_p = discretized_log_likelihood(*arguments).cpu().double().numpy()
        edges = np.concatenate([[-np.inf], x0.numpy()[:-1] + 1 / 255, [np.inf]])
        mass = np.diff(norm.cdf(edges, mean, std))
        worst = np.abs(np.exp(log_p) - mass).max()
        yield KnownAnswer(f"256 bins of N({mean}, {std}^2) against scipy", np.exp(log_p).sum(), 1.0, worst, 1e-6)


def published(device: torch.device) -> Iterator[KnownAnswer]:
    """The paper's schedule: it says that L_T is about 1e-5 bits/dim."""
    images = _gaussian_images(64)
    alpha_bar = np.prod(1 - np.linspace(1e-4, 0.02, 1000))
    x0 = to_model(images, torch.float64).numpy()
    known = (0.5 * (alpha_bar * x0**2 - alpha_bar - math.log1p(-alpha_bar)) / math.log(2)).mean()
    diffusion = Diffusion(linear(1000), Eps(), FixedBeta())
    chain = Chain(Denoiser(diffusion, gaussian_eps(diffusion.schedule, MEAN, SPREAD**2), (1, 16, 16)))
    found = estimate_bits_per_dim(chain, images, evals=5, seed=0, runtime=Runtime(device, batch=64))
    prior = found.prior.mean().item()
    yield KnownAnswer("L_T of the paper's schedule, bits/dim", prior, known, abs(prior - known), 1e-9)


CHECKS: tuple[Callable[[torch.device], Iterator[KnownAnswer]], ...] = (gaussian_bound, finite_data, decoder, published)


def checks_table(checks: list[KnownAnswer]) -> Table:
    table = Table(title="Known answers", caption=f"Averages over draws may be {SIGMAS} standard errors off.")
    table.add_column("checked")
    for head in ("measured", "known", "deviation", "allowed", ""):
        table.add_column(head, justify="right")
    for check in checks:
        numbers = (f"{value:.6g}" for value in (check.measured, check.known))
        errors = (f"{value:.1e}" for value in (check.deviation, check.allowed))
        table.add_row(check.name, *numbers, *errors, "ok" if check.passed else "WRONG")
    return table


def _average(name: str, measured: float, known: float, standard_error: float) -> KnownAnswer:
    return KnownAnswer(name, measured, known, abs(measured - known), SIGMAS * standard_error)


def _samples(chain: Chain, device: torch.device) -> Tensor:
    return torch.cat([batch for _, batch in sample(chain, count=64, seed=0, runtime=Runtime(device, batch=64))])


def _gaussian_images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = MEAN + SPREAD * torch.randn((count, 1, 16, 16), generator=generator)
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _gaussian_bound(x0: np.ndarray, betas: np.ndarray, alpha_bar: np.ndarray) -> np.ndarray:
    """The bound of each image in bits/dim, its mean over the noise, sigma_t^2 = beta_t (beta_tilde_2 at t = 1).

    t > 1: equation 12 with the squared error of eps_hat = k (x_t - sqrt(alpha_bar_t) mean), which is quadratic in the noise.
    t = 1: equation 13, the mass of a bin by scipy, by quadrature over the noise.
    """
    x = x0.reshape(len(x0), -1)
    a_T = alpha_bar[-1]
    total = 0.5 * (a_T * x**2 - a_T - math.log1p(-a_T))
    k = np.sqrt(1 - alpha_bar) / (alpha_bar * SPREAD**2 + 1 - alpha_bar)
    for t in range(2, len(betas) + 1):
        beta, a, before = betas[t - 1], alpha_bar[t - 1], alpha_bar[t - 2]
        tilde = beta * (1 - before) / (1 - a)
        error = (1 - k[t - 1] * math.sqrt(1 - a)) ** 2 + k[t - 1] ** 2 * a * (x - MEAN) ** 2
        total += beta / (2 * (1 - beta) * (1 - a)) * error + 0.5 * (math.log(beta / tilde) - 1 + tilde / beta)
    beta, a, std = betas[0], alpha_bar[0], math.sqrt(betas[1] * (1 - alpha_bar[0]) / (1 - alpha_bar[1]))
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    for z, w in zip(nodes, weights / weights.sum(), strict=True):
        x_1 = math.sqrt(a) * x + math.sqrt(1 - a) * z
        mean = (x_1 - math.sqrt(1 - a) * k[0] * (x_1 - math.sqrt(a) * MEAN)) / math.sqrt(a)
        upper = (np.where(x > 0.999, np.inf, x + 1 / 255) - mean) / std
        lower = (np.where(x < -0.999, -np.inf, x - 1 / 255) - mean) / std
        above = lower > 0  # the upper tail, where 1 - cdf keeps its digits
        total -= w * np.log(np.where(above, norm.sf(lower) - norm.sf(upper), norm.cdf(upper) - norm.cdf(lower)))
    return total.mean(1) / math.log(2)
