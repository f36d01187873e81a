"""Samplers of the score: predictors and the Langevin corrector against their release's formulas and closed forms."""

import numpy as np
import pytest
import torch
from diffusion_cases import SHORT, Given, gaussian_eps, normals, some_network
from torch import Tensor

from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.parameterization import Eps, Mu
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import ANCESTRAL, SAMPLERS, Chain, sample
from ddpm_bench.diffusion.schedule import Schedule, linear
from ddpm_bench.diffusion.score_samplers import AncestralSDE, Langevin, Predictor, ProbabilityFlow, ReverseDiffusion
from ddpm_bench.diffusion.step import Sampler
from ddpm_bench.diffusion.variance import FixedBeta, FixedBetaTilde
from ddpm_bench.errors import UserError
from ddpm_bench.runtime.runtime import Runtime

LONG = linear(1000)
KEPT = [1, 40, 333, 1000]
PREDICTORS = [AncestralSDE, ReverseDiffusion, ProbabilityFlow]


def denoiser_of(schedule: Schedule = LONG, network=None, kept=None, clip_x0=False, shape=(1, 4, 4)) -> Denoiser:
    denoiser = Denoiser(Diffusion(schedule, Eps(), FixedBetaTilde()), network or some_network(), shape, clip_x0)
    return denoiser.respaced(kept) if kept else denoiser


def betas_and_bars(kept: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of a strided chain, by t = 0..len(kept)."""
    bars = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[np.array(kept) - 1]])
    return np.concatenate([[0.0], 1 - bars[1:] / bars[:-1]]), bars


def score(x: Tensor, t: int, bars: np.ndarray, kept: list[int]) -> np.ndarray:
    return -some_network()(x, torch.full((len(x),), kept[t - 1] - 1)).numpy() / (1 - bars[t]) ** 0.5


@pytest.mark.parametrize("kept", [list(range(1, 1001)), KEPT], ids=["whole", "strided"])
@pytest.mark.parametrize("kind", PREDICTORS)
def test_predictors_are_those_of_the_release(kind: type[Predictor], kept: list[int]) -> None:
    betas, bars = betas_and_bars(kept)
    x, z = normals(2, 1, 4, 4), normals(2, 1, 4, 4, seed=3)
    for t in (1, 2, 3, len(kept)):
        b, s, at = betas[t], score(x, t, bars, kept), x.numpy()
        expected = {
            "ancestral-sde": (at + b * s) / (1 - b) ** 0.5,
            "reverse-diffusion": at - ((1 - b) ** 0.5 * at - at - b * s),  # x - f + G^2 s, the SDE's discretize
            "probability-flow": at - ((1 - b) ** 0.5 * at - at - b * s * 0.5),
        }[kind.name]
        if t > 1 and kind is not ProbabilityFlow:
            expected = expected + b**0.5 * z.numpy()
        found = kind().step(denoiser_of(kept=kept), x, t, Given(z)).x
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("clip", [False, True])
def test_ancestral_sde_is_ddpms_mean_with_the_variance_beta(clip: bool) -> None:
    x, z = normals(2, 1, 4, 4), Given(normals(2, 1, 4, 4, seed=3))
    ancestral = Denoiser(Diffusion(LONG, Eps(), FixedBeta()), some_network(), (1, 4, 4), clip)
    for t in (1, 2, 500, 1000):
        expected = ANCESTRAL.step(ancestral, x, t, z).x
        torch.testing.assert_close(AncestralSDE().step(denoiser_of(clip_x0=clip), x, t, z).x, expected)


@pytest.mark.parametrize("norm", ["image", "batch"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_corrector_is_that_of_the_release(norm: str, steps: int) -> None:
    betas, bars = betas_and_bars(KEPT)
    x, z = normals(3, 1, 4, 4) * torch.tensor([1.0, 2.0, 0.3]).reshape(3, 1, 1, 1), normals(3, 1, 4, 4, seed=3)
    for t in (1, 3, 4):
        expected = x.numpy()
        for _ in range(steps):
            grad = score(torch.from_numpy(expected), t, bars, KEPT)
            grad_norm, noise_norm = (np.linalg.norm(v.reshape(3, -1), axis=-1) for v in (grad, z.numpy()))
            if norm == "batch":
                grad_norm, noise_norm = grad_norm.mean(), noise_norm.mean()
            step = (0.2 * noise_norm / grad_norm) ** 2 * 2 * (1 - betas[t])
            step = np.reshape(step, (-1, 1, 1, 1))
            expected = expected + step * grad + (step * 2) ** 0.5 * z.numpy()
        sampler = Langevin(corrector_steps=steps, snr=0.2, corrector_norm=norm)
        found = sampler.step(denoiser_of(kept=KEPT), x, t, Given(z)).x
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)
        # before a predictor, at the same t
        pc = ReverseDiffusion(corrector_steps=steps, snr=0.2, corrector_norm=norm)
        then = ReverseDiffusion().step(denoiser_of(kept=KEPT), found, t, Given(z)).x
        torch.testing.assert_close(pc.step(denoiser_of(kept=KEPT), x, t, Given(z)).x, then)


@pytest.mark.parametrize("kind", PREDICTORS)
def test_the_last_predictor_returns_its_mean(kind: type[Predictor]) -> None:
    x = normals(2, 1, 4, 4)
    found = kind().step(denoiser_of(), x, 1, Given(torch.full_like(x, float("nan")))).x
    assert found.isfinite().all()


def test_by_image_a_sample_does_not_depend_on_the_batch_and_by_batch_it_does() -> None:
    found = {}
    for norm in ("image", "batch"):
        chain = Chain(denoiser_of(SHORT), ReverseDiffusion(1, 0.3, norm))
        for batch in (6, 4):
            parts = sample(chain, count=6, seed=0, runtime=Runtime(batch=batch))
            found[norm, batch] = torch.cat([images for _, images in parts]).int()
    assert (found["image", 6] - found["image", 4]).abs().max() <= 1
    assert (found["batch", 6] - found["batch", 4]).abs().max() > 1


def test_the_corrector_keeps_a_gaussian_as_the_snr_goes_to_0() -> None:
    """With the true score of N(0, v), one step multiplies x by 1 - e / v and adds 2 e: v becomes v + e^2 / v."""
    variance, t, excess = 0.04, 300, []
    a = float(LONG.alpha_bar[t - 1])
    v = a * variance + 1 - a
    denoiser = denoiser_of(network=gaussian_eps(LONG, 0.0, variance), shape=(1, 64, 64))
    for snr in (0.4, 0.2, 0.1):
        x, z = v**0.5 * normals(64, 1, 64, 64), normals(64, 1, 64, 64, seed=2)
        found = Langevin(1, snr).step(denoiser, x, t, Given(z)).x
        e = 2 * float(LONG.alpha[t - 1]) * snr**2 * v  # |z| / |s| is sqrt(v) but for the draw
        assert float(found.var()) == pytest.approx(v + e**2 / v, rel=4 * (2 / x.numel()) ** 0.5 + 2e-3)
        excess.append(e**2 / v / v)
    assert excess[0] > 10 * excess[1] > 100 * excess[2]


@pytest.mark.parametrize("kind", [AncestralSDE, ReverseDiffusion])
def test_gaussian_data_are_sampled_with_the_known_moments(kind: type[Predictor]) -> None:
    variance = 0.0225
    denoiser, shape = denoiser_of(SHORT, gaussian_eps(SHORT, 0.0, variance), shape=(1, 16, 16)), (1, 16, 16)
    v = 1.0
    for t in range(SHORT.T, 0, -1):  # the chain is linear in x
        a, b = float(SHORT.alpha_bar[t - 1]), float(SHORT.betas[t - 1])
        slope = -1 / (a * variance + 1 - a)
        gain = (1 + b * slope) / (1 - b) ** 0.5 if kind is AncestralSDE else 2 - (1 - b) ** 0.5 + b * slope
        v = gain**2 * v + (b if t > 1 else 0)
    noise = BlockNoise(0, 0, 256, shape, "cpu")
    *_, last = Chain(denoiser, kind()).denoise(noise.draw(), SHORT.T, noise)
    assert float(last.x.var()) == pytest.approx(v, rel=4 * (2 / last.x.numel()) ** 0.5)


def test_the_probability_flow_of_gaussian_data_tends_to_the_solution_of_its_ode() -> None:
    """x_0 / x_T = sqrt(v / (alpha_bar_T v + 1 - alpha_bar_T)), to first order in the size of a step."""
    x, variance, errors = normals(1, 1, 4, 4), 0.09, []
    for T in (250, 500, 1000):
        schedule = linear(T, 0.1 / T, 20 / T)
        denoiser, a = denoiser_of(schedule, gaussian_eps(schedule, 0.0, variance)), float(schedule.alpha_bar[-1])
        *_, last = Chain(denoiser, ProbabilityFlow()).denoise(x, T, Given(x))
        ratio = last.x / x
        torch.testing.assert_close(ratio, ratio[0, 0, 0, 0].expand_as(ratio))
        errors.append(float(ratio[0, 0, 0, 0]) / (variance / (a * variance + 1 - a)) ** 0.5 - 1)
    assert abs(errors[2]) < 0.03
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1) and errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_every_sampler_makes_the_network_calls_that_it_says() -> None:
    calls = []

    def network(x: Tensor, step: Tensor) -> Tensor:
        calls.append(int(step[0]))
        return some_network()(x, step)

    samplers: list[Sampler] = [kind() for kind in SAMPLERS.values()]
    for sampler in [*samplers, AncestralSDE(2), ProbabilityFlow(1), Langevin(3)]:
        calls.clear()
        chain = Chain(denoiser_of(SHORT, network), sampler)
        *_, last = chain.denoise(normals(1, 1, 4, 4), SHORT.T, Given(normals(1, 1, 4, 4)))
        assert len(calls) == chain.network_calls == SHORT.T * sampler.calls and last.x.isfinite().all()
        assert calls == sorted(calls, reverse=True)


def test_noise_is_drawn_by_those_that_say_so_alone() -> None:
    for sampler in [*(kind() for kind in SAMPLERS.values()), ProbabilityFlow(1)]:
        draws = []
        noise = Given(normals(1, 1, 4, 4))
        counted = type(
            "Counted", (), {"draw": lambda self, noise=noise, draws=draws: draws.append(1) or noise.draw()}
        )()
        list(Chain(denoiser_of(SHORT), sampler).denoise(noise.z, SHORT.T, counted))
        assert bool(draws) == sampler.draws, sampler


def test_options_of_the_corrector_without_one_are_refused() -> None:
    with pytest.raises(UserError, match=r"snr = 0.2 is of the Langevin corrector, and corrector_steps is 0"):
        ReverseDiffusion(snr=0.2)
    with pytest.raises(UserError, match="corrector_norm = batch is of the Langevin corrector"):
        AncestralSDE(corrector_norm="batch")
    with pytest.raises(UserError, match="corrector_steps must be 1 or more, not 0"):
        Langevin(corrector_steps=0)
    with pytest.raises(UserError, match="takes x_0 and eps"):
        ReverseDiffusion().check(Diffusion(SHORT, Mu(), FixedBeta()))
    assert (ReverseDiffusion(1).snr, ReverseDiffusion(1).corrector_norm, ReverseDiffusion().snr) == (
        0.16,
        "image",
        None,
    )
