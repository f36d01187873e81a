"""Sampling: single steps against diffusers, whole chains against closed forms, noise that belongs to the image."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusion_cases import SHORT, Given, Heard, chain_of, finite_eps, gaussian_eps, levels, normals, some_network
from torch import Tensor

from ddpm_bench.data.images import to_uint8
from ddpm_bench.diffusion.noise import BOUND, BlockNoise, batches
from ddpm_bench.diffusion.parameterization import X0, Eps, Mu
from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.diffusion.samplers import ANCESTRAL, sample
from ddpm_bench.diffusion.schedule import Schedule, linear
from ddpm_bench.diffusion.spacing import kept_steps
from ddpm_bench.diffusion.variance import VARIANCES, FixedBeta, FixedBetaTilde
from ddpm_bench.errors import Interrupted, NotFinite, UserError
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.observer import observed_by
from ddpm_bench.runtime.runtime import Runtime

CPU = torch.device("cpu")


def step(diffusion: Diffusion, network: Network, x_t: Tensor, t: int, noise: Tensor, clip_x0: bool) -> Tensor:
    """x_{t-1} by one step of the ancestral sampler with this draw of noise."""
    chain = chain_of(diffusion, network, tuple(x_t.shape[1:]), clip_x0)
    return ANCESTRAL.step(chain.denoiser, x_t, t, Given(noise)).x


def diffusers_scheduler(schedule: Schedule, variance: str, prediction: str, clip: bool) -> DDPMScheduler:
    """Theirs, with our float64 betas in place of its float32 ones."""
    scheduler = DDPMScheduler(
        schedule.T,
        variance_type={"fixed-beta": "fixed_large", "fixed-beta-tilde": "fixed_small"}[variance],
        prediction_type={"eps": "epsilon", "x0": "sample"}[prediction],
        clip_sample=clip,
    )
    scheduler.betas, scheduler.alphas, scheduler.alphas_cumprod = schedule.betas, schedule.alpha, schedule.alpha_bar
    return scheduler


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("variance", ["fixed-beta", "fixed-beta-tilde"])
@pytest.mark.parametrize("parameterization", [Eps(), X0()], ids=["eps", "x0"])
def test_every_step_agrees_with_diffusers(parameterization: Eps | X0, variance: str, clip: bool) -> None:
    schedule = linear(1000)
    diffusion = Diffusion(schedule, parameterization, VARIANCES[variance])
    scheduler = diffusers_scheduler(schedule, variance, parameterization.name, clip)
    x_t = normals(2, 1, 4, 4)
    for t in (1, 2, 3, 50, 500, 999, 1000):
        output = some_network()(x_t, torch.full((2,), t - 1))
        noise = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        theirs = scheduler.step(output, t - 1, x_t, generator=torch.Generator().manual_seed(t)).prev_sample
        ours = step(diffusion, some_network(), x_t, t, noise, clip)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10, msg=lambda m, t=t: f"t = {t}: {m}")
        single = step(diffusion, some_network(), x_t.float(), t, noise.float(), clip)
        torch.testing.assert_close(single.double(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variance", ["fixed-beta", "fixed-beta-tilde"])
def test_a_whole_strided_chain_agrees_with_diffusers(variance: str) -> None:
    schedule = linear(1000)
    strided = Diffusion(schedule, Eps(), VARIANCES[variance]).respaced(kept_steps(1000, 10))
    scheduler = diffusers_scheduler(schedule, variance, "eps", clip=True)
    scheduler.set_timesteps(timesteps=strided.schedule.network_steps.flip(0).tolist())
    ours = theirs = normals(2, 1, 4, 4)
    for t, timestep in zip(range(10, 0, -1), scheduler.timesteps.tolist(), strict=True):
        noise = torch.randn(ours.shape, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        output = some_network()(theirs, torch.full((2,), timestep))
        theirs = scheduler.step(output, timestep, theirs, generator=torch.Generator().manual_seed(t)).prev_sample
        ours = step(strided, some_network(), ours, t, noise, clip_x0=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_a_mixed_batch_is_its_rows() -> None:
    diffusion, x_t, noise = Diffusion(SHORT, Eps(), FixedBeta()), normals(3, 1, 2, 2), normals(3, 1, 2, 2, seed=9)
    denoiser, t = chain_of(diffusion, some_network(), (1, 2, 2)).denoiser, torch.tensor([1, 20, 5])
    whole, parts = denoiser(x_t, t), [denoiser(x_t[i : i + 1], t[i : i + 1]) for i in range(3)]
    for name in ("mean", "log_variance", "x0", "output"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts])), name
    for now in (1, 20, 5):
        rows = [step(diffusion, some_network(), x_t[i : i + 1], now, noise[i : i + 1], True) for i in range(3)]
        assert torch.equal(step(diffusion, some_network(), x_t, now, noise, True), torch.cat(rows))


def test_the_last_step_is_the_mean_even_where_its_noise_would_overflow() -> None:
    diffusion = Diffusion(SHORT, Mu(), VARIANCES["learned"])
    x_1 = normals(1, 1, 2, 2)
    network = lambda x, s: torch.cat([x / 2, torch.full_like(x, 3000.0)], 1)  # noqa: E731
    assert torch.equal(step(diffusion, network, x_1, 1, torch.zeros_like(x_1), False), x_1 / 2)


@pytest.mark.parametrize("variance", ["fixed-beta", "fixed-beta-tilde"])
@pytest.mark.parametrize("steps", [20, 7])
def test_gaussian_data_with_its_optimal_network_has_the_known_sample_moments(variance: str, steps: int) -> None:
    mean, spread = 0.2, 0.15
    diffusion = Diffusion(SHORT, Eps(), VARIANCES[variance]).respaced(kept_steps(SHORT.T, steps))
    schedule = diffusion.schedule
    # The chain is linear: x_{t-1} = posterior_xt x_t + posterior_x0 E[x_0 | x_t] + sigma z.
    m, v = 0.0, 1.0
    for t in range(steps, 0, -1):
        a, before, beta = (float(x[t - 1]) for x in (schedule.alpha_bar, schedule.alpha_bar_prev, schedule.betas))
        gain = a**0.5 * spread**2 / (a * spread**2 + 1 - a)  # E[x_0 | x_t] = mean + gain (x_t - sqrt(a) mean)
        to_x0, to_xt = before**0.5 * beta / (1 - a), (1 - beta) ** 0.5 * (1 - before) / (1 - a)
        sigma2 = 0.0 if t == 1 else beta if variance == "fixed-beta" else beta * (1 - before) / (1 - a)
        m, v = to_xt * m + to_x0 * (mean + gain * (m - a**0.5 * mean)), (to_xt + to_x0 * gain) ** 2 * v + sigma2

    network = gaussian_eps(SHORT, mean, spread**2)
    batches_of = sample(chain_of(diffusion, network, (1, 16, 16)), count=128, seed=0, runtime=Runtime(batch=128))
    (_, images), *_ = batches_of
    x = images.double() / 127.5 - 1
    n = x.numel()
    rounding = (2 / 255) ** 2 / 12
    assert x.mean().item() == pytest.approx(m, abs=4 * (v / n) ** 0.5)
    assert x.var().item() == pytest.approx(v + rounding, rel=4 * (2 / n) ** 0.5)


def test_the_optimal_network_of_a_finite_data_set_samples_that_data_set() -> None:
    schedule = linear(50, 1e-4, 0.3)
    points = levels(3, 1, 4, 4)
    diffusion = Diffusion(schedule, Eps(), FixedBetaTilde())
    network = finite_eps(schedule, points)
    batches_of = sample(chain_of(diffusion, network, (1, 4, 4)), count=150, seed=0, runtime=Runtime(batch=150))
    (_, images), *_ = batches_of
    matches = (images[:, None] == to_uint8(points)).flatten(2).all(2)  # (150, 3)
    assert matches.any(1).all()
    assert (matches.sum(0) > 25).all()


def rows(seed: int, first: int, count: int, draws: int = 3, stream: int = 0) -> Tensor:
    noise = BlockNoise(seed, first, count, (1, 2, 2), CPU, stream)
    return torch.stack([noise.draw() for _ in range(draws)], dim=1)


def test_noise_belongs_to_seed_index_and_draw() -> None:
    whole = rows(5, 0, 200)
    for first, count in ((0, 1), (63, 2), (64, 64), (100, 100), (199, 1), (10, 150)):
        assert torch.equal(rows(5, first, count), whole[first : first + count])
    flat = whole.flatten()
    assert len(flat.unique()) > 0.999 * len(flat)
    assert not torch.isclose(whole, rows(6, 0, 200)).all(dim=(2, 3, 4)).any()
    assert not torch.isclose(whole, rows(5, 0, 200, stream=BOUND)).all(dim=(2, 3, 4)).any()


def test_noise_is_standard_normal() -> None:
    x = rows(0, 0, 6400).flatten()
    n = len(x)
    assert abs(x.mean()) < 4 / n**0.5
    assert abs(x.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 4 / n**0.5


def test_samples_go_on_where_they_stopped() -> None:
    short = chain_of(Diffusion(linear(5, 1e-2, 0.5), Eps(), FixedBeta()), some_network(), (1, 2, 2))
    options = {"seed": 3, "runtime": Runtime(batch=70)}
    whole = list(sample(short, count=150, **options))
    assert [(start, len(images)) for start, images in whole] == [(0, 70), (70, 70), (140, 10)]
    rest = list(sample(short, first=70, count=80, **options))
    assert [start for start, _ in rest] == [70, 140]
    for (_, ours), (_, theirs) in zip(rest, whole[1:], strict=True):
        assert ours.dtype == torch.uint8
        assert (ours.int() - theirs.int()).abs().max() <= 1


def test_samples_may_be_written_into_and_progress_is_heard() -> None:
    heard = Heard()
    short = chain_of(Diffusion(linear(4, 1e-2, 0.5), Eps(), FixedBeta()), some_network(), (1, 2, 2))
    with observed_by(heard):
        for _, images in sample(short, count=12, seed=0, runtime=Runtime(batch=8)):
            images[0] = 0
    assert heard.done == [2, 4, 6, 8, 9, 10, 11, 12]


def test_a_stop_is_heard_between_two_steps() -> None:
    calls = []

    def network(x: Tensor, s: Tensor) -> Tensor:
        calls.append(int(s[0]))
        stop.requested = len(calls) == 3
        return x

    with Stop() as stop, pytest.raises(Interrupted):
        list(
            sample(
                chain_of(Diffusion(SHORT, Eps(), FixedBeta()), network, (1, 2, 2)),
                count=4,
                seed=0,
                runtime=Runtime(batch=4),
            )
        )
    assert calls == [19, 18, 17]


def test_bad_requests_are_refused() -> None:
    with pytest.raises(UserError, match="seed = -1"):
        BlockNoise(-1, 0, 1, (1, 2, 2), CPU)
    with pytest.raises(UserError, match="at least one image, not 0"):
        list(batches(5, 0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("clip", [False, True])
def test_a_sample_that_is_not_finite_never_becomes_a_picture(value: float, clip: bool) -> None:
    def network(x_t: Tensor, t: Tensor) -> Tensor:
        spoilt = torch.zeros_like(x_t)
        spoilt[1, 0, 0, 0] = value
        return spoilt

    diffusion = Diffusion(linear(4), Eps(), FixedBeta())
    common = {"count": 3, "seed": 0, "runtime": Runtime(batch=3)}
    if clip and value == float("inf"):  # an infinite prediction is clipped to a finite x_0, as any other
        assert len(list(sample(chain_of(diffusion, network, (1, 2, 2), clip), **common))) == 1
        return
    with pytest.raises(NotFinite, match="1 of 3 samples are not finite"):
        list(sample(chain_of(diffusion, network, (1, 2, 2), clip), **common))
