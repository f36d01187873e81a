"""The discretized decoder: 256 bins that sum to 1, right in both tails, at any width."""

import math

import mpmath
import pytest
import torch

from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import load_data
from ddpm_bench.data.images import to_model
from ddpm_bench.diffusion.decoder import discretized_log_likelihood, log_ndtr, paper_log_likelihood

ALL_LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1
MEANS = (-1000.0, -3.0, -1.0, -0.5, 0.01, 1.0, 1.5, 10.0)
LOG_VARIANCES = (-30.0, -9.8, -5.0, 0.0, 6.0, 7.3, 7.4, 20.0, 70.0)


def exact(level: int, mean: float, log_variance: float) -> mpmath.mpf:
    """Equation 13 in 60 digits."""
    with mpmath.workdps(60):
        x, half = mpmath.mpf(2 * level) / 255 - 1, mpmath.mpf(1) / 255
        std = mpmath.exp(mpmath.mpf(log_variance) / 2)
        lower = -mpmath.inf if level == 0 else (x - half - mean) / std
        upper = mpmath.inf if level == 255 else (x + half - mean) / std
        if lower + upper > 0:  # 60 digits are not enough to subtract from 1 what is 1e-1000
            lower, upper = -upper, -lower
        return mpmath.log((mpmath.erfc(-upper / mpmath.sqrt(2)) - mpmath.erfc(-lower / mpmath.sqrt(2))) / 2)


@pytest.mark.parametrize("log_variance", [-12.0, -9.8, -4.0, 0.0, 5.0, 12.0])
@pytest.mark.parametrize("mean", [-1.2, -1.0, 0.123, 1.0])
@pytest.mark.parametrize("decoder", [discretized_log_likelihood, paper_log_likelihood])
def test_the_256_bins_sum_to_one(mean: float, log_variance: float, decoder) -> None:
    log_p = decoder(ALL_LEVELS, torch.full_like(ALL_LEVELS, mean), torch.tensor(log_variance))
    floors = 256e-12 if decoder is paper_log_likelihood else 0
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-11 + floors)


@pytest.mark.parametrize("log_variance", LOG_VARIANCES)
def test_the_exact_decoder_agrees_with_60_digits_everywhere(log_variance: float) -> None:
    for mean in MEANS:
        for level in (0, 1, 127, 128, 254, 255):
            arguments = (torch.tensor(value, dtype=torch.float64) for value in (mean, log_variance))
            found = discretized_log_likelihood(ALL_LEVELS[level], *arguments)
            expected = exact(level, mean, log_variance)
            assert found.item() == pytest.approx(float(expected), rel=1e-8, abs=1e-12), (level, mean)


@pytest.mark.parametrize("log_variance", [-9.8, 0.0, 7.5])
def test_float32_arguments_lose_nothing_of_their_own(log_variance: float) -> None:
    x0, mean = ALL_LEVELS.float(), torch.linspace(-1.2, 1.2, 256)
    single = discretized_log_likelihood(x0, mean, torch.tensor(log_variance))
    double = discretized_log_likelihood(x0.double(), mean.double(), torch.tensor(log_variance, dtype=torch.float64))
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("log_variance", [-9.8, -3.0, 2.0, 9.0])
def test_gradients_are_those_of_finite_differences(log_variance: float) -> None:
    x0 = ALL_LEVELS[[0, 1, 100, 200, 255]]
    mean = torch.tensor([-0.99, -0.7, 0.2, 0.5, 0.98], dtype=torch.float64, requires_grad=True)
    log_v = torch.full((5,), log_variance, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, v: discretized_log_likelihood(x0, m, v), (mean, log_v), rtol=1e-5)


@pytest.mark.parametrize("out", [1e2, 1e5, 1e8, 1e14, 1e30])
def test_far_out_means_keep_a_gradient_that_points_back(out: float) -> None:
    x0 = ALL_LEVELS[[1, 100, 254]]
    for sign in (-1, 1):
        mean = torch.full((3,), sign * out, dtype=torch.float64, requires_grad=True)
        log_v = torch.full((3,), -9.0, dtype=torch.float64, requires_grad=True)
        value = discretized_log_likelihood(x0, mean, log_v)
        value.sum().backward()
        # far out it is a Gaussian tail: d/dmean log p = (x - mean) / variance
        expected = (x0 - mean.detach()) * math.exp(9)
        assert value.isfinite().all()
        torch.testing.assert_close(mean.grad, expected, rtol=1e-2, atol=0)
        assert log_v.grad.isfinite().all()


def test_the_outer_bins_are_open() -> None:
    beyond = discretized_log_likelihood(ALL_LEVELS[[0, 255]], torch.tensor([-50.0, 50.0]), torch.tensor(-9.8))
    assert beyond.tolist() == [0, 0]


def test_log_ndtr_has_the_exact_hazard_as_its_gradient() -> None:
    x = torch.tensor([-1e12, -1e3, -5.0, 0.0, 3.0, 100.0], dtype=torch.float64, requires_grad=True)
    log_ndtr(x).sum().backward()
    for value, gradient in zip(x.tolist(), x.grad.tolist(), strict=True):
        with mpmath.workdps(50):
            hazard = mpmath.npdf(value) / mpmath.ncdf(value) if value > -1e6 else mpmath.mpf(-value)
        assert gradient == pytest.approx(float(hazard), rel=1e-12, abs=1e-300)


def test_the_paper_decoder_is_the_release_formula() -> None:
    def cdf(z: float) -> float:
        return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

    for level in (0, 1, 90, 254, 255):
        for mean, log_scale in ((-0.97, -4.9), (0.2, -1.0), (0.9, -4.9)):
            x = level / 127.5 - 1
            upper, lower = (cdf((x + side / 255 - mean) / math.exp(log_scale)) for side in (1, -1))
            probability = upper if level == 0 else 1 - lower if level == 255 else upper - lower
            expected = math.log(max(probability, 1e-12))
            arguments = (torch.tensor(v, dtype=torch.float64) for v in (x, mean, 2 * log_scale))
            assert paper_log_likelihood(*arguments).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_only_the_paper_decoder_has_a_floor() -> None:
    arguments = (ALL_LEVELS[:3], torch.tensor([0.5, 0.5, 0.5]), torch.tensor(-9.8))
    assert paper_log_likelihood(*arguments).tolist() == pytest.approx([math.log(1e-12)] * 3)
    assert discretized_log_likelihood(*arguments).max() < -1000


def release(x0: torch.Tensor, mean: torch.Tensor, log_scales: torch.Tensor) -> torch.Tensor:
    """The original release's decoder, line by line, in the precision of its arguments."""

    def cdf(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    centred, inv_stdv = x0 - mean, torch.exp(-log_scales)
    cdf_plus, cdf_min = cdf(inv_stdv * (centred + 1 / 255)), cdf(inv_stdv * (centred - 1 / 255))
    first, last, between = (p.clamp(min=1e-12).log() for p in (cdf_plus, 1 - cdf_min, cdf_plus - cdf_min))
    return torch.where(x0 < -0.999, first, torch.where(x0 > 0.999, last, between))


def test_the_release_in_float32_gives_its_floor_where_the_paper_decoder_keeps_a_mass() -> None:
    mean, log_scale = torch.tensor(0.0), torch.tensor(0.01).log()
    for x0, mass in ((torch.tensor(0.054), 4.33e-8), (torch.tensor(0.06), 4.45e-10), (torch.tensor(-0.06), 4.45e-10)):
        assert release(x0, mean, log_scale).exp().item() == pytest.approx(1e-12, rel=1e-5)
        kept = paper_log_likelihood(x0, mean, 2 * log_scale)
        assert kept.exp().item() == pytest.approx(mass, rel=0.01)
        assert release(x0.double(), mean.double(), log_scale.double()).item() == pytest.approx(kept.item(), rel=1e-6)


def test_what_float32_adds_to_the_bits_of_a_mean_of_zero() -> None:
    """Of the embedded test images, at beta_1 = 1e-4; of a mean that is right to a few levels, nothing."""
    x0 = to_model(load_data(DataSettings(size=16, resize="average")).test.images)
    variance, log_scale = torch.tensor(1e-4).log(), torch.tensor(1e-2).log()

    def bits(mean: torch.Tensor) -> tuple[float, ...]:
        both = (release(x0, mean, log_scale), paper_log_likelihood(x0, mean, variance))
        return tuple(-found.double().mean().item() / math.log(2) for found in both)

    assert bits(torch.zeros_like(x0)) == pytest.approx((39.142, 39.108), abs=1e-3)
    in_float32, in_float64 = bits(x0 + 0.01)
    assert in_float32 == pytest.approx(in_float64, abs=1e-4)
