"""NCSN as a process: its noise levels, its data, its loss and its sampler, against the releases' formulas in numpy."""

import numpy as np
import pytest
import torch
from diffusion_cases import Given, levels, normals

from ddpm_bench.config.settings import DiffusionSettings, ProcessSettings
from ddpm_bench.data.codec import PIXELS, Unit, dequantised
from ddpm_bench.diffusion.annealed_langevin import AnnealedLangevin
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import DenoisingScoreMatching
from ddpm_bench.diffusion.optimal import gaussian_eps
from ddpm_bench.diffusion.parameterization import Eps, Parameterization, Score
from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.diffusion.samplers import Chain, sample
from ddpm_bench.diffusion.schedule import Schedule, geometric, linear
from ddpm_bench.diffusion.times import Uniform
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.errors import UserError
from ddpm_bench.models.build import build_diffusion, build_objective
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.batches import Batches

NCSN = geometric(10, 0.01, 1.0)
SIGMAS = np.exp(np.linspace(np.log(1.0), np.log(0.01), 10))  # the releases' order: the largest first
LEVEL = 0.5
"""Standard deviation of Gaussian data."""


def denoiser(schedule: Schedule, network: Network, parameterization: Parameterization | None = None) -> Denoiser:
    diffusion = Diffusion(schedule, parameterization or Eps(), FixedBeta())
    return Denoiser(diffusion, network, (1, 2, 2), clip_x0=False, x0_range=(0.0, 1.0))


def test_the_noise_levels_are_the_releases_with_the_least_first() -> None:
    np.testing.assert_allclose(NCSN.sigma.flip(0), SIGMAS, rtol=1e-11)
    np.testing.assert_allclose(geometric(232, 0.01, 50).sigma[[0, -1]], [0.01, 50], rtol=1e-11)
    x_t, t = normals(10, 1, 2, 2), torch.arange(1, 11)
    x0, z = normals(10, 1, 2, 2, seed=5), normals(10, 1, 2, 2, seed=6)
    x_t = NCSN.at("sqrt_alpha_bar", t, x0) * x0 + NCSN.at("sqrt_one_minus_alpha_bar", t, x0) * z
    told = NCSN.network_input(x_t, t)
    np.testing.assert_allclose(told, x0 + z * torch.tensor(SIGMAS[::-1].copy()).reshape(-1, 1, 1, 1), rtol=1e-11)
    assert NCSN.network_step(t).tolist() == list(range(10))
    strided = NCSN.respaced([2, 5, 10])
    assert strided.exploding and NCSN.rescaled().exploding
    np.testing.assert_allclose(strided.sigma, NCSN.sigma[[1, 4, 9]], rtol=1e-11)


def score_network(x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Some function of x_0 + sigma z and of the 0-based level."""
    return torch.sin(3 * x) - 0.2 * step.reshape(-1, 1, 1, 1).to(x.dtype) * x


def test_the_loss_is_annealed_denoising_score_matching_as_released() -> None:
    x0, z = (levels(10, 1, 2, 2) + 1) / 2, normals(10, 1, 2, 2)
    t = torch.arange(1, 11)
    found = DenoisingScoreMatching()(denoiser(NCSN, score_network, Score()), x0, t, z)
    as_eps = DenoisingScoreMatching()(denoiser(NCSN, score_network), x0, t, z)
    for i in range(10):
        sigma = SIGMAS[9 - i]
        perturbed = x0[i].numpy() + z[i].numpy() * sigma
        target = -1 / sigma**2 * (perturbed - x0[i].numpy())
        output = np.sin(3 * perturbed) - 0.2 * i * perturbed
        assert found[i].item() == pytest.approx(0.5 * ((output - target) ** 2).sum() * sigma**2, rel=1e-10)
        v2 = -output / sigma  # NCSNv2 divides the network's output by sigma; here up to the sign
        assert as_eps[i].item() == pytest.approx(0.5 * ((v2 - target) ** 2).sum() * sigma**2, rel=1e-10)


def test_data_lie_in_the_unit_interval_anywhere_on_their_level_in_training_alone() -> None:
    codec, images = Unit(), torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    for u in (0.0, 0.25, 0.999):
        x = dequantised(codec, images, torch.full((256, 1, 1, 1), u, dtype=torch.float64))
        np.testing.assert_allclose(x.flatten(), (np.arange(256) + u) / 256, atol=1e-9)
        assert torch.equal(codec.decode(x), images)
    assert torch.equal(codec.decode(codec.encode(images)), images)
    drawn = Batches(images, 256, flips=False, seed=0, times=Uniform(10), codec=codec, device=torch.device("cpu")).at(0)
    within = (drawn.x0 - codec.encode(codec.decode(drawn.x0))) * 256  # of a level's width
    assert within.abs().max() <= 0.5 and within.std().item() == pytest.approx(12**-0.5, rel=0.1)
    assert (codec.decode(drawn.x0).flatten().sort().values == images.flatten()).all()
    plain = Batches(images, 256, flips=False, seed=0, times=Uniform(10), device=torch.device("cpu")).at(0)
    assert torch.equal(plain.x0, PIXELS.encode(PIXELS.decode(plain.x0)))


@pytest.mark.parametrize("schedule", [NCSN, linear(10, 1e-3, 0.3)])
def test_a_level_is_the_releases_langevin_loop(schedule: Schedule) -> None:
    x, z, t = normals(3, 1, 2, 2), normals(3, 1, 2, 2, seed=9), 4
    sampler = AnnealedLangevin(level_steps=7, step_size=3e-4)
    signal, before = schedule.sqrt_alpha_bar[t - 1].item(), schedule.sqrt_alpha_bar[t - 2].item()

    def network(x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        x_t = x * schedule.at("sqrt_alpha_bar", step + 1, x) if schedule.exploding else x
        return gaussian_eps(schedule, 0.3, LEVEL**2)(x_t, step)

    found = sampler.step(denoiser(schedule, network), x * signal, t, Given(z)).x
    sigma, expected = schedule.sigma[t - 1].item(), x.numpy().copy()
    step = 3e-4 * (sigma / schedule.sigma[0].item()) ** 2
    for _ in range(7):
        grad = -(expected - 0.3) / (LEVEL**2 + sigma**2)
        expected = expected + step * grad + np.sqrt(step * 2) * z.numpy()
    np.testing.assert_allclose(found / before, expected, rtol=1e-10)


def test_the_last_level_may_end_with_the_denoised_image() -> None:
    x, z = normals(3, 1, 2, 2), normals(3, 1, 2, 2, seed=9)
    signal, sigma = NCSN.sqrt_alpha_bar[0].item(), 0.01
    one = denoiser(NCSN, score_network, Score())
    plain, denoised = (
        AnnealedLangevin(level_steps=2, final_denoising=last).step(one, x * signal, 1, Given(z)).x
        for last in (False, True)
    )
    expected = plain + sigma**2 * score_network(plain, torch.zeros(3))
    torch.testing.assert_close(denoised, expected, rtol=1e-10, atol=1e-12)
    assert [AnnealedLangevin(5, final_denoising=last).network_calls(10) for last in (False, True)] == [50, 51]


def test_the_start_is_uniform_over_the_range_of_the_data_or_normal() -> None:
    x_T = normals(2000, 1, 2, 2)
    one = denoiser(NCSN, score_network)
    uniform = AnnealedLangevin().begin(one, x_T) / NCSN.sqrt_alpha_bar[-1]
    assert 0 < uniform.min() < 0.01 and 0.99 < uniform.max() < 1
    counts = torch.histc(uniform, bins=10, min=0, max=1)
    assert (counts - 800).abs().max() < 5 * 800**0.5
    assert torch.equal(AnnealedLangevin(start="normal").begin(one, x_T), x_T)


def test_with_the_true_score_the_spread_of_a_gaussian_is_the_recursions() -> None:
    """x <- (1 - e / (s^2 + sigma^2)) x + sqrt(2 e) z from a uniform start, level after level; e is coarse on purpose."""
    schedule = geometric(6, 0.1, 1.0)

    def network(x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        sigma = schedule.at("sigma", step + 1, x)
        return sigma * (x - 0.5) / (LEVEL**2 + sigma**2)

    sampler = AnnealedLangevin(level_steps=4, step_size=4e-3)
    chain = Chain(denoiser(schedule, network), sampler, Float())
    found = torch.cat([x for _, x in sample(chain, count=4096, seed=0, runtime=Runtime(batch=1024))]).double()
    variance = spread_after(schedule, sampler)
    assert found.mean().item() == pytest.approx(0.5, abs=5 * (variance / found.numel()) ** 0.5)
    assert found.var().item() == pytest.approx(variance, rel=5 * (2 / found.numel()) ** 0.5)
    fine = spread_after(schedule, AnnealedLangevin(level_steps=2000, step_size=4e-4))
    assert fine == pytest.approx(LEVEL**2 + 0.1**2, rel=2e-3)  # of x_0 + sigma_1 z


def spread_after(schedule: Schedule, sampler: AnnealedLangevin) -> float:
    """The variance of a sample of N(0.5, LEVEL^2) data, of which the uniform start has 1/12."""
    variance = 1 / 12
    for sigma in schedule.sigma.flip(0).tolist():
        e = sampler.step_size * (sigma / schedule.sigma[0].item()) ** 2
        for _ in range(sampler.level_steps):
            variance = (1 - e / (LEVEL**2 + sigma**2)) ** 2 * variance + 2 * e
    return variance


class Float(Unit):
    """Leaves what a chain ends with as it is."""

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return x


def settings(**changes: object) -> DiffusionSettings:
    usual = {"schedule": "geometric", "T": 10, "parameterization": "score", "variance": "fixed", "objective": "DSM"}
    return DiffusionSettings.model_validate(usual | changes)


def test_a_process_is_chosen_by_its_settings_and_older_ones_have_none_of_them() -> None:
    built = build_diffusion(settings(sigma_1=0.02, sigma_T=3.0)).schedule
    np.testing.assert_allclose(built.sigma[[0, -1]], [0.02, 3.0], rtol=1e-11)
    np.testing.assert_allclose(build_diffusion(settings()).schedule.sigma, NCSN.sigma)
    older = ProcessSettings.model_validate({"parameterization": "eps", "variance": "fixed", "beta_T": 0.03})
    assert (older.sigma_1, older.sigma_T, older.ends) == (None, None, (1e-4, 0.03))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variance": "learned"}, "variance 'learned' does not go with the schedule 'geometric'"),
        ({"variance": "learned-range"}, "variance 'learned-range' does not go"),
        ({"objective": "L"}, "objective 'L' does not go with the schedule 'geometric'"),
        ({"parameterization": "mu"}, "'DSM' is of a score, and 'mu' predicts none"),
        ({"sigma_1": 2.0}, "give 0 < sigma_1 < sigma_T"),
        (
            {"schedule": "linear", "parameterization": "eps", "objective": "L", "codec": "unit"},
            "codec 'unit'.*256 levels",
        ),
    ],
)
def test_what_means_nothing_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_objective(settings(**changes))


def test_ends_that_the_schedule_does_not_use_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"beta_T = 0\.5 is not used by the schedule 'geometric'; give sigma_1 and sigma_T"
    ):
        settings(beta_T=0.5)
    with pytest.raises(ValueError, match=r"sigma_1 = 0\.1 is not used by the schedule 'linear'; give beta_1"):
        settings(schedule="linear", sigma_1=0.1)
