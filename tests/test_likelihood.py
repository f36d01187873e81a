"""The bound of a data set: exact, estimated, interrupted, and against answers that are known."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_cases import SHORT, chain_of, gaussian_eps, some_network
from torch import Tensor

from ddpm_bench.data.codec import Pixels
from ddpm_bench.data.images import to_model
from ddpm_bench.diffusion.bound import bound_term, prior_bits_per_dim
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.diffusion.samplers import Chain
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.likelihood import Bound, bits_per_dim, estimate_bits_per_dim
from ddpm_bench.likelihood.estimate import Budget, proposal
from ddpm_bench.likelihood.pieces import Pieces
from ddpm_bench.records.likelihoods import BoundTerms
from ddpm_bench.runtime import interrupt
from ddpm_bench.runtime.runtime import Runtime

DIFFUSION = Diffusion(linear(60, 1e-3, 0.15), Eps(), FixedBeta())
OPTIMAL = gaussian_eps(DIFFUSION.schedule, 0.0, 0.25)


def images(count: int, *shape: int, seed: int = 3) -> Tensor:
    """About N(0, 0.25) in [-1, 1], as uint8."""
    generator = torch.Generator().manual_seed(seed)
    return (127.5 + 63.75 * torch.randn((count, *shape), generator=generator)).round().clamp(0, 255).to(torch.uint8)


def chain(pixels: Tensor, network: Network = OPTIMAL) -> Chain:
    return chain_of(DIFFUSION, network, tuple(pixels.shape[1:]), clip_x0=False)


def exactly(pixels: Tensor, seed: int, network: Network = OPTIMAL, batch: int = 64, **more) -> Bound:
    return bits_per_dim(chain(pixels, network), pixels, seed=seed, runtime=Runtime(batch=batch), **more)


def over_the_noise(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of an exact measurement of each image, (N,) each, by Gauss-Hermite quadrature at every t.

    The network treats each dimension by itself, so that a term is a mean of independent ones.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    z, w = torch.from_numpy(nodes).reshape(1, -1), torch.from_numpy(weights / weights.sum())
    x0 = to_model(pixels, torch.float64).reshape(-1, 1, 1, 1)
    mean, variance = prior_bits_per_dim(DIFFUSION.schedule, x0), torch.zeros(len(x0), dtype=torch.float64)
    grid = x0.repeat_interleave(z.shape[1], 0)
    eps, denoiser = z.expand(len(x0), -1).reshape(-1, 1, 1, 1), chain(pixels).denoiser
    for t in range(1, DIFFUSION.schedule.T + 1):
        bits = bound_term(denoiser, grid, torch.full((len(grid),), t), eps).bits.reshape(len(x0), -1)
        mean, variance = mean + bits @ w, variance + bits.square() @ w - (bits @ w).square()
    dimensions = pixels[0].numel()
    return mean.reshape(-1, dimensions).mean(1), variance.reshape(-1, dimensions).mean(1) / dimensions


def estimate(pixels: Tensor, seed: int, evals: int = 10, network: Network = OPTIMAL, batch: int = 64, **more) -> Bound:
    runtime = Runtime(batch=batch)
    return estimate_bits_per_dim(chain(pixels, network), pixels, evals=evals, seed=seed, runtime=runtime, **more)


class StopAfter:
    """A stop that is requested once it was looked at so often."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def requested(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def interrupted(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object], looks: int) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(interrupt, "_taken", StopAfter(looks))
        run()


@pytest.mark.parametrize("evals", [5, 10])
def test_the_estimate_is_unbiased_and_its_interval_covers_at_the_stated_rate(evals: int) -> None:
    """One pixel: the noisiest case. Known: the mean over the noise of each of these images."""
    pixels, seeds = images(64, 1, 1, 1), 200
    known = over_the_noise(pixels)[0].mean().item()
    found = [estimate(pixels, seed, evals) for seed in range(seeds)]
    errors = np.array([bound.total.mean().item() - known for bound in found])
    stated = np.array([(bound.variance.sum().sqrt() / 64).item() for bound in found])
    assert abs(errors.mean()) < 4 * errors.std() / math.sqrt(seeds)
    assert stated.mean() == pytest.approx(errors.std(), rel=0.25)  # 4 sigma of a standard deviation of 200
    covered = (np.abs(errors) < 1.96 * stated).sum()
    assert (
        abs(covered - 0.95 * seeds) < 4 * math.sqrt(seeds * 0.95 * 0.05) + 0.02 * seeds
    )  # the error is estimated, too


def test_the_estimates_interval_covers_an_exact_measurement_of_the_same_images() -> None:
    pixels, seeds = images(24, 1, 6, 6), 60
    z = []
    for seed in range(seeds):
        exact = exactly(pixels, seed)
        found = estimate(pixels, seed)
        z.append((found.total.mean() - exact.total.mean()).item() / found.estimate_error)
    assert abs(np.mean(z)) < 4 / math.sqrt(seeds)
    assert 0.6 < np.std(z) < 1.4
    assert found.standard_error == pytest.approx(found.total.std().item() / math.sqrt(24))


def test_the_errors_of_an_estimate_are_told_apart() -> None:
    """Known: the noise of an exact measurement of these images, and how their bounds differ from each other."""
    greys = torch.linspace(0, 255, 64).reshape(-1, 1, 1, 1)
    pixels, seeds = (greys + 0.3 * (images(64, 1, 4, 4) - 127.5)).round().clamp(0, 255).to(torch.uint8), 120
    mean, noise = over_the_noise(pixels)
    found = [estimate(pixels, seed, evals=9) for seed in range(seeds)]
    of_exact, images_alone = noise.sum().item() / 64**2, mean.var().item() / 64
    stated = np.array([bound.estimate_error**2 - bound.own_error**2 for bound in found])
    assert abs(stated.mean() - of_exact) < 4 * stated.std() / math.sqrt(seeds) < 0.08 * of_exact
    # The images' own spread is found again once that of the estimate, and nothing else, is taken off.
    alone = np.array([terms(bound).sampling_error ** 2 for bound in found])
    assert abs(alone.mean() - images_alone) < 4 * alone.std() / math.sqrt(seeds) < 0.2 * images_alone


def test_what_an_older_record_says_of_its_images_alone_is_an_upper_end() -> None:
    now = terms(estimate(images(48, 1, 4, 4), 0))
    older = {name: value for name, value in now.as_json().items() if name != "own_error"}
    assert now.sampling_error < BoundTerms.model_validate(older).sampling_error < now.standard_error
    exact = older | {"method": "exact", "estimate_error": 0.0}
    assert BoundTerms.model_validate(exact).sampling_error == now.standard_error


def terms(bound: Bound) -> BoundTerms:
    parts = {name: getattr(bound, name).mean().item() for name in ("total", "prior", "middle", "first")}
    errors = {name: getattr(bound, name) for name in ("standard_error", "estimate_error", "own_error")}
    return BoundTerms(split="test", images=len(bound.prior), method="estimate", evals=10, **parts, **errors)


def test_the_parts_of_an_estimate_are_those_of_the_bound() -> None:
    pixels = images(200, 1, 4, 4)
    exact = exactly(pixels, 0, batch=200)
    found = estimate(pixels, 1, batch=77)
    assert torch.equal(found.prior, exact.prior)
    for part in ("first", "middle"):
        difference = (getattr(found, part) - getattr(exact, part)).mean().item()
        assert abs(difference) < 4 * found.estimate_error
    assert exact.terms[1:].sum().item() == pytest.approx(exact.middle.mean().item(), rel=1e-9)
    assert exact.estimate_error == 0
    assert found.terms is None


@pytest.mark.parametrize("evals", [5, 6, 9, 10, 31])
def test_a_budget_is_spent_to_the_last_call_and_not_beyond(evals: int) -> None:
    rows = 0

    def counted(x: Tensor, step: Tensor) -> Tensor:
        nonlocal rows
        rows += len(x)
        return OPTIMAL(x, step)

    estimate(images(10, 1, 2, 2), 0, evals, network=counted, batch=4)
    assert rows == 10 * evals
    assert 2 + Budget.of(evals).pilot + 2 * Budget.of(evals).strata == evals


def test_an_estimate_does_not_depend_on_the_batch() -> None:
    pixels = images(150, 1, 2, 2)
    whole, parts = estimate(pixels, 5, batch=150), estimate(pixels, 5, batch=33)
    torch.testing.assert_close(whole.total, parts.total, rtol=1e-9, atol=0)
    assert not torch.allclose(whole.middle, estimate(pixels, 6).middle)


def test_the_pilot_puts_probability_where_the_terms_are() -> None:
    T, rng = 1000, np.random.default_rng(0)
    t = rng.integers(2, T + 1, 4000)
    p = proposal(T, t, 3 / t)
    assert p.sum() == pytest.approx(1)
    wanted = (1 / np.arange(2, T + 1)) / (1 / np.arange(2, T + 1)).sum()
    np.testing.assert_allclose(p[8:], 0.95 * wanted[8:] + 0.05 / (T - 1), rtol=0.15)
    assert p.min() >= 0.05 / (T - 1)


@pytest.mark.parametrize("bits", [np.zeros(5), np.full(5, np.nan), np.full(5, np.inf)])
def test_a_pilot_that_teaches_nothing_leaves_t_uniform(bits: np.ndarray) -> None:
    np.testing.assert_allclose(proposal(20, np.arange(3, 8), bits), 1 / 19)


@pytest.mark.parametrize("looks", [0, 7, 80])
def test_an_exact_measurement_goes_on_where_it_stopped(tmp_path: Path, monkeypatch, looks: int) -> None:
    pixels, network = images(70, 1, 4, 4), some_network()

    def run(network: Network = network, batch: int = 40) -> Bound:
        return exactly(pixels, 0, network, batch, pieces=Pieces(tmp_path))

    interrupted(monkeypatch, run, looks)
    found, whole = run(batch=64), exactly(pixels, 0, network, batch=40)
    for name in ("total", "first", "prior", "terms", "mse"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-6, atol=1e-9)
    assert torch.equal(run(_no_calls, batch=9).total, found.total)


@pytest.mark.parametrize("looks", [0, 5, 11, 16])
def test_an_estimate_goes_on_where_it_stopped(tmp_path: Path, monkeypatch, looks: int) -> None:
    pixels = images(70, 1, 4, 4)

    def run(network: Network = OPTIMAL, batch: int = 40) -> Bound:
        return estimate(pixels, 0, network=network, batch=batch, pieces=Pieces(tmp_path))

    interrupted(monkeypatch, run, looks)
    found, whole = run(batch=30), estimate(pixels, 0)
    torch.testing.assert_close(found.total, whole.total, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.noise, whole.noise, rtol=1e-4, atol=0)
    assert torch.equal(run(_no_calls).total, found.total)


def _no_calls(x: Tensor, step: Tensor) -> Tensor:
    raise AssertionError("measured again")


def test_overlapping_pieces_are_not_counted_twice(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    for start, end in ((0, 4), (0, 8), (4, 6), (6, 10), (8, 10)):
        pieces.save("exact", start, end, {"x": np.arange(start, end)})
    assert pieces.join("exact")["x"].tolist() == list(range(10))


def test_the_error_of_x0_is_that_of_its_prediction() -> None:
    """A network that always predicts eps = x_t / sqrt(1 - alpha_bar) predicts x_0 = 0: its squared error is that of the image."""
    network = lambda x, step: x / (1 - SHORT.alpha_bar[step]).sqrt().reshape(-1, 1, 1, 1)  # noqa: E731
    pixels = images(5, 1, 2, 2)
    bound = bits_per_dim(chain_of(Diffusion(SHORT, Eps(), FixedBeta()), network, (1, 2, 2)), pixels, seed=0)
    expected = to_model(pixels, torch.float64).square().mean().item()
    np.testing.assert_allclose(bound.mse.numpy(), expected, rtol=1e-5)


class Lossy(Pixels):
    name = "lossy"
    lossless = False


def test_bad_requests_are_refused() -> None:
    pixels = images(3, 1, 2, 2)
    with pytest.raises(UserError, match="at least 5 network calls an image, not 4"):
        estimate(pixels, 0, evals=4)
    with pytest.raises(UserError, match="uint8"):
        estimate(pixels.float(), 0)
    with pytest.raises(UserError, match="at least one image, not 0"):
        estimate(pixels, 0, batch=0)
    with pytest.raises(UserError, match="one step"):
        short = chain_of(Diffusion(linear(1), Eps(), FixedBeta()), OPTIMAL, (1, 2, 2))
        estimate_bits_per_dim(short, pixels, evals=9, seed=0)
    for measured in (bits_per_dim, lambda *a, **k: estimate_bits_per_dim(*a, evals=5, **k)):
        with pytest.raises(UserError, match="not defined for the codec 'lossy'"):
            measured(Chain(chain(pixels).denoiser, codec=Lossy()), pixels, seed=0)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "swapped"])
@pytest.mark.parametrize("measured", [exactly, estimate])
def test_a_damaged_piece_is_said_and_measured_again(measured, damage, tmp_path, caplog) -> None:
    pixels = images(24, 1, 4, 4)
    whole = measured(pixels, 0, batch=8, pieces=Pieces(tmp_path))
    before, piece = sorted(tmp_path.glob("*.safetensors"))[:2]
    content = bytearray(piece.read_bytes())
    content[-3] ^= 1
    piece.write_bytes({"truncated": content[:100], "flipped": content, "swapped": before.read_bytes()}[damage])
    with caplog.at_level("INFO", "ddpm_bench"):
        again = measured(pixels, 0, batch=8, pieces=Pieces(tmp_path))
    assert torch.equal(again.total, whole.total) and len(again.total) == 24
    assert "its hash is not that" in caplog.text and piece.name in caplog.text
