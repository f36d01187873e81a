"""The traps that made published reproductions wrong, as far as the mathematics goes."""

import math

import pytest
import torch
from diffusion_cases import SHORT, all_steps, chain_of, levels, normals, some_network
from torch import Tensor, nn

from ddpm_bench.data.images import to_model
from ddpm_bench.diffusion.bound import bound_term
from ddpm_bench.diffusion.noise import SAMPLING, BlockNoise
from ddpm_bench.diffusion.objective import L, LSimple
from ddpm_bench.diffusion.parameterization import PARAMETERIZATIONS, Eps, Mu
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import sample
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.spacing import kept_steps
from ddpm_bench.diffusion.variance import FixedBeta, FixedBetaTilde, LearnedDiagonal
from ddpm_bench.likelihood import Bound, bits_per_dim
from ddpm_bench.runtime.runtime import Runtime

CPU = torch.device("cpu")
T_ALL = all_steps(SHORT)


class Recorder:
    """A network that writes down which steps it was told."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def __call__(self, x: Tensor, step: Tensor) -> Tensor:
        assert step.dtype == torch.int64
        self.steps.append(int(step[0]))
        return 0.1 * x


def sampled(
    diffusion: Diffusion,
    network,
    count: int = 2,
    *,
    shape: tuple[int, int, int] = (1, 2, 2),
    seed: int = 0,
    batch: int | None = None,
    clip_x0: bool = True,
) -> Tensor:
    chain, runtime = chain_of(diffusion, network, shape, clip_x0), Runtime(batch=batch or count)
    return torch.cat([images for _, images in sample(chain, count=count, seed=seed, runtime=runtime)])


def scored(diffusion: Diffusion, network, images: Tensor) -> Bound:
    return bits_per_dim(chain_of(diffusion, network, tuple(images.shape[1:])), images, seed=0)


def test_trap_01_the_network_is_told_the_step_from_0_in_training_sampling_and_scoring() -> None:
    diffusion, x0 = Diffusion(SHORT, Eps(), FixedBeta()), levels(1, 1, 2, 2)
    for objective in (L(), LSimple()):
        for t in (1, 20):
            network = Recorder()
            objective(chain_of(diffusion, network).denoiser, x0, torch.tensor([t]), torch.zeros_like(x0))
            assert network.steps == [t - 1]
    network = Recorder()
    sampled(diffusion, network)
    assert network.steps == list(range(19, -1, -1))
    network = Recorder()
    scored(diffusion, network, torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
    assert sorted(network.steps) == list(range(20))


def test_trap_01_a_strided_chain_tells_the_steps_of_the_chain_that_was_trained() -> None:
    network = Recorder()
    sampled(Diffusion(linear(1000), Eps(), FixedBeta()).respaced(kept_steps(1000, 4)), network)
    assert network.steps == [999, 666, 333, 0]


def test_trap_01_there_is_no_step_0_in_the_paper() -> None:
    assert SHORT.at("sqrt_alpha_bar", torch.tensor([0]), torch.zeros(1)).isnan().all()
    with pytest.raises(IndexError):
        SHORT.at("sqrt_alpha_bar", torch.tensor([21]), torch.zeros(1))


@pytest.mark.parametrize("variance", [FixedBeta(), FixedBetaTilde()])
def test_trap_02_the_decoder_uses_beta_tilde_of_the_second_step(variance: FixedBeta | FixedBetaTilde) -> None:
    schedule = linear(1000)
    one = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    alpha_bar_1, beta_1, beta_2 = 1 - 1e-4, 1e-4, schedule.betas[1].item()
    beta_tilde_2 = beta_2 * beta_1 / (1 - alpha_bar_1 * (1 - beta_2))
    found = variance.log_variance(schedule, None, torch.tensor([1]), one).item()
    assert found == pytest.approx(math.log(beta_tilde_2), rel=1e-10)


@pytest.mark.parametrize("name", ["eps", "x0"])
def test_trap_03_x0_is_clipped_before_the_mean_is_taken(name: str) -> None:
    diffusion = Diffusion(SHORT, PARAMETERIZATIONS[name], FixedBeta())
    x_t = 2 * normals(SHORT.T, 1, 3, 3)
    reverse = diffusion.reverse(some_network(), x_t, T_ALL, clip_x0=True)
    output = some_network()(x_t, T_ALL - 1)
    a, before, beta = (x.reshape(-1, 1, 1, 1) for x in (SHORT.alpha_bar, SHORT.alpha_bar_prev, SHORT.betas))
    x0 = (output if name == "x0" else (x_t - (1 - a).sqrt() * output) / a.sqrt()).clamp(-1, 1)
    mean = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x_t) / (1 - a)
    torch.testing.assert_close(reverse.mean, mean, rtol=1e-10, atol=1e-12)
    assert reverse.mean.abs().max() > 1  # a mean may well lie outside of [-1, 1]


def test_trap_03_clipping_never_touches_a_mean_that_the_network_predicts() -> None:
    diffusion = Diffusion(SHORT, Mu(), FixedBeta())
    x_t = 3 * normals(SHORT.T, 1, 3, 3)
    clipped = diffusion.reverse(some_network(), x_t, T_ALL, clip_x0=True)
    assert torch.equal(clipped.mean, some_network()(x_t, T_ALL - 1))
    assert clipped.mean.abs().max() > 1


class WithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        return 0.5 * self.dropout(x)


def test_trap_04_dropout_is_off_in_sampling_and_scoring_and_on_again_afterwards() -> None:
    diffusion, network = Diffusion(SHORT, Eps(), FixedBeta()), WithDropout()
    images = to_model(torch.arange(8, dtype=torch.uint8).reshape(2, 1, 2, 2))
    assert torch.equal(sampled(diffusion, network), sampled(diffusion, lambda x, s: 0.5 * x))
    assert network.training
    assert network.dropout.training
    uint8 = ((images + 1) * 127.5).to(torch.uint8)
    first, plain = (scored(diffusion, f, uint8) for f in (network, lambda x, s: 0.5 * x))
    assert torch.equal(first.total, plain.total)
    assert network.dropout.training


def test_trap_04_training_losses_leave_dropout_on() -> None:
    x0 = levels(1, 1, 32, 32, dtype=torch.float32)
    diffusion, network = Diffusion(SHORT, Eps(), FixedBeta()), WithDropout()
    denoiser = chain_of(diffusion, network).denoiser
    losses = {LSimple()(denoiser, x0, torch.tensor([5]), torch.ones_like(x0)).item() for _ in range(3)}
    assert len(losses) == 3


def test_trap_05_samples_are_rounded_to_the_nearest_level_not_down() -> None:
    levels_ = torch.tensor([10.4, 10.6, 254.9, 300.0, -7.0])
    means = (levels_ / 127.5 - 1).reshape(1, 1, 1, 5)
    diffusion = Diffusion(linear(2, 0.1, 0.2), Mu(), FixedBeta())
    images = sampled(diffusion, lambda x, s: means.expand_as(x), count=1, shape=(1, 1, 5))
    assert images.flatten().tolist() == [10, 11, 255, 255, 0]


def test_trap_08_the_bound_is_in_bits_a_mean_over_dimensions_and_a_sum_over_steps() -> None:
    diffusion = Diffusion(SHORT, Eps(), FixedBeta())
    x0, eps = levels(1, 3, 4, 4), normals(1, 3, 4, 4)
    denoiser = chain_of(diffusion, some_network(), clip_x0=False).denoiser
    found = bound_term(denoiser, x0, torch.tensor([7]), eps).bits.item()
    i = 6
    a, before, beta, beta_tilde = (
        float(x[i]) for x in (SHORT.alpha_bar, SHORT.alpha_bar_prev, SHORT.betas, SHORT.beta_tilde)
    )
    x_t = a**0.5 * x0 + (1 - a) ** 0.5 * eps
    x0_hat = (x_t - (1 - a) ** 0.5 * some_network()(x_t, torch.tensor([6]))) / a**0.5
    shift = before**0.5 * beta / (1 - a) * (x0 - x0_hat)
    nats = sum(0.5 * (math.log(beta / beta_tilde) - 1 + (beta_tilde + d * d) / beta) for d in shift.flatten().tolist())
    assert found == pytest.approx(nats / 48 / math.log(2), rel=1e-10)

    uint8 = torch.randint(0, 256, (3, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    bound = scored(diffusion, some_network(), uint8)
    assert bound.total.mean().item() == pytest.approx(bound.prior.mean().item() + bound.terms.sum().item(), rel=1e-12)


def test_trap_08_a_decoder_that_knows_nothing_costs_8_bits() -> None:
    """x_0 in the middle, a mean there and a variance for which the bin holds 1/256 of the mass: 8 bits/dim."""
    schedule = linear(2, 0.1, 0.2)
    std = 1 / 255 / (math.sqrt(2) * torch.special.erfinv(torch.tensor(1 / 256, dtype=torch.float64)).item())
    x0 = torch.full((1, 1, 2, 2), 129 / 127.5 - 1, dtype=torch.float64)
    network = lambda x, s: torch.cat([x0, torch.full_like(x0, 2 * math.log(std))], 1)  # noqa: E731
    denoiser = chain_of(Diffusion(schedule, Mu(), LearnedDiagonal()), network).denoiser
    term = bound_term(denoiser, x0, torch.tensor([1]), torch.zeros_like(x0))
    assert term.bits.item() == pytest.approx(8, rel=1e-10)


def test_trap_13_samples_do_not_change_with_the_batch_size() -> None:
    diffusion = Diffusion(linear(6, 1e-2, 0.5), Eps(), FixedBeta())
    torch.manual_seed(0)
    network = nn.Conv2d(1, 1, 3, padding=1)
    reference = sampled(diffusion, lambda x, s: network(x), 70, shape=(1, 4, 4), batch=70).int()
    for batch in (5, 50, 64):
        others = sampled(diffusion, lambda x, s: network(x), 70, shape=(1, 4, 4), batch=batch).int()
        assert (others - reference).abs().max() <= 1  # a float rounding may tip a level
        assert (others != reference).float().mean() < 1e-2


def test_trap_13_the_global_generator_plays_no_part() -> None:
    diffusion = Diffusion(SHORT, Eps(), FixedBeta())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sampled(diffusion, some_network())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(sampled(diffusion, some_network()), first)


def test_trap_16_a_strided_chain_derives_its_variances_anew() -> None:
    schedule = linear(1000)
    like = torch.zeros(10, 1, 1, 1, dtype=torch.float64)
    strided = Diffusion(schedule, Eps(), FixedBeta()).respaced(kept_steps(1000, 10)).schedule
    kept = strided.network_steps
    a = schedule.alpha_bar[kept]
    before = torch.cat([torch.ones(1, dtype=torch.float64), a[:-1]])
    beta = 1 - a / before
    beta_tilde = beta * (1 - before) / (1 - a)
    t = all_steps(strided)
    large = FixedBeta().log_variance(strided, None, t, like).exp().flatten()
    small = FixedBetaTilde().log_variance(strided, None, t, like).exp().flatten()
    torch.testing.assert_close(large[1:], beta[1:], rtol=1e-10, atol=0)
    torch.testing.assert_close(small[1:], beta_tilde[1:], rtol=1e-10, atol=0)
    assert large[0] == small[0] == small[1]  # trap 2 holds for the strided chain's own second step
    assert (beta > 5 * schedule.betas[kept])[1:].all()


def test_trap_16_the_full_chain_is_the_strided_chain_of_all_steps() -> None:
    diffusion = Diffusion(SHORT, Eps(), FixedBeta())
    full, strided = (
        sampled(d, some_network(), count=8) for d in (diffusion, diffusion.respaced(range(1, SHORT.T + 1)))
    )
    assert torch.equal(full, strided)


def test_sampling_is_algorithm_2() -> None:
    diffusion = Diffusion(SHORT, Eps(), FixedBeta())
    noise = BlockNoise(4, 0, 3, (1, 2, 2), CPU, stream=SAMPLING)
    x = noise.draw().double()
    for t in range(SHORT.T, 0, -1):
        z = noise.draw().double() if t > 1 else torch.zeros_like(x)
        a, alpha, beta = (float(table[t - 1]) for table in (SHORT.alpha_bar, SHORT.alpha, SHORT.betas))
        eps = some_network()(x, torch.full((3,), t - 1))
        x = (x - (1 - alpha) / (1 - a) ** 0.5 * eps) / alpha**0.5 + beta**0.5 * z
    expected = ((x + 1) * 127.5).round().clamp(0, 255)
    found = sampled(diffusion, some_network(), count=3, seed=4, clip_x0=False)
    assert (found.double() - expected).abs().max() <= 1
    assert (found.double() != expected).double().mean() < 0.1 and ((expected > 0) & (expected < 255)).sum() > 6
