"""The bound of a data set: exact, estimated, interrupted, and against answers that are known."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusion_cases import SHORT, gaussian_eps, some_network
from torch import Tensor

from ddpm_bench.data.images import to_model
from ddpm_bench.diffusion.bound import bound_term, prior_bits_per_dim
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.variance import FixedBeta, LearnedDiagonal
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.files import write_json
from ddpm_bench.likelihood import bits_per_dim, estimate_bits_per_dim
from ddpm_bench.likelihood.estimate import Budget, proposal
from ddpm_bench.likelihood.ledger import Ledger
from ddpm_bench.measurement.bounds import measure, spread

CPU = torch.device("cpu")
CHAIN = Diffusion(linear(60, 1e-3, 0.15), Eps(), FixedBeta())
OPTIMAL = gaussian_eps(CHAIN.schedule, 0.0, 0.25)


def images(count: int, *shape: int, seed: int = 3) -> Tensor:
    """About N(0, 0.25) in [-1, 1], as uint8."""
    generator = torch.Generator().manual_seed(seed)
    return (127.5 + 63.75 * torch.randn((count, *shape), generator=generator)).round().clamp(0, 255).to(torch.uint8)


def expected_bound(pixels: Tensor) -> Tensor:
    """The bound of images of one pixel, (N,), its mean over the noise taken by Gauss-Hermite quadrature at every t."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    z, w = torch.from_numpy(nodes).reshape(1, -1), torch.from_numpy(weights / weights.sum())
    x0 = to_model(pixels, torch.float64)
    total = prior_bits_per_dim(CHAIN.schedule, x0)
    grid = x0.repeat_interleave(z.shape[1], 0)
    eps = z.expand(len(x0), -1).reshape(-1, 1, 1, 1)
    for t in range(1, CHAIN.schedule.T + 1):
        bits = bound_term(CHAIN, OPTIMAL, grid, torch.full((len(grid),), t), eps, clip_x0=False).bits
        total = total + bits.reshape(len(x0), -1) @ w
    return total


def estimate(pixels: Tensor, seed: int, evals: int = 10, **more) -> "Bound":  # noqa: F821
    settings = {"network": OPTIMAL, "batch": 64, "device": CPU, "clip_x0": False} | more
    return estimate_bits_per_dim(CHAIN, settings.pop("network"), pixels, evals=evals, seed=seed, **settings)


class StopAfter:
    """A stop that is requested once it was looked at so often."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def requested(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def check(self) -> None:
        if self.requested:
            raise Interrupted


def interrupted(run: Callable[..., object], looks: int) -> None:
    with pytest.raises(Interrupted):
        run(stop=StopAfter(looks))


@pytest.mark.parametrize("evals", [5, 10])
def test_the_estimate_is_unbiased_and_its_interval_covers_at_the_stated_rate(evals: int) -> None:
    """One pixel: the noisiest case. Known: the mean over the noise of each of these images."""
    pixels, seeds = images(64, 1, 1, 1), 200
    known = expected_bound(pixels).mean().item()
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
        exact = bits_per_dim(CHAIN, OPTIMAL, pixels, seed=seed, batch=24, device=CPU, clip_x0=False)
        found = estimate(pixels, seed)
        z.append((found.total.mean() - exact.total.mean()).item() / found.estimate_error)
    assert abs(np.mean(z)) < 4 / math.sqrt(seeds)
    assert 0.6 < np.std(z) < 1.4
    assert found.standard_error == pytest.approx(found.total.std().item() / math.sqrt(24))


def test_the_parts_of_an_estimate_are_those_of_the_bound() -> None:
    pixels = images(200, 1, 4, 4)
    exact = bits_per_dim(CHAIN, OPTIMAL, pixels, seed=0, batch=200, device=CPU, clip_x0=False)
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
def test_an_exact_measurement_goes_on_where_it_stopped(tmp_path, looks: int) -> None:
    pixels, network = images(70, 1, 4, 4), some_network()

    def run(batch: int = 40, **more):
        return bits_per_dim(
            CHAIN, network, pixels, seed=0, batch=batch, device=CPU, ledger=Ledger(tmp_path, {"of": 1}), **more
        )

    interrupted(run, looks)
    found, whole = run(batch=64), bits_per_dim(CHAIN, network, pixels, seed=0, batch=40, device=CPU)
    for name in ("total", "first", "prior", "terms", "mse"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-6, atol=1e-9)
    again = bits_per_dim(CHAIN, _no_calls, pixels, seed=0, batch=9, device=CPU, ledger=Ledger(tmp_path, {"of": 1}))
    assert torch.equal(again.total, found.total)


@pytest.mark.parametrize("looks", [0, 5, 11, 16])
def test_an_estimate_goes_on_where_it_stopped(tmp_path, looks: int) -> None:
    pixels = images(70, 1, 4, 4)
    interrupted(lambda stop: estimate(pixels, 0, batch=40, ledger=Ledger(tmp_path, {}), stop=stop), looks)
    found = estimate(pixels, 0, batch=30, ledger=Ledger(tmp_path, {}))
    torch.testing.assert_close(found.total, estimate(pixels, 0).total, rtol=1e-6, atol=0)
    assert torch.equal(estimate(pixels, 0, network=_no_calls, ledger=Ledger(tmp_path, {})).total, found.total)


def _no_calls(x: Tensor, step: Tensor) -> Tensor:
    raise AssertionError("measured again")


def test_a_ledger_never_hands_out_another_models_pieces(tmp_path) -> None:
    """Trap 10: what is kept is found again by everything that it depends on, not by a name."""
    Ledger(tmp_path, {"weights": "a"}).save("exact", 0, 2, {"x": np.ones(2)})
    assert list(Ledger(tmp_path, {"weights": "b"}).read("exact")) == []
    [(start, end, arrays)] = Ledger(tmp_path, {"weights": "a"}).read("exact")
    assert (start, end, arrays["x"].tolist()) == (0, 2, [1, 1])


def test_overlapping_pieces_are_not_counted_twice(tmp_path) -> None:
    ledger = Ledger(tmp_path, {})
    for start, end in ((0, 4), (0, 8), (4, 6), (6, 10), (8, 10)):
        ledger.save("exact", start, end, {"x": np.arange(start, end)})
    assert ledger.join("exact")["x"].tolist() == list(range(10))


def test_no_more_calls_than_steps() -> None:
    """Where the chain is no longer than the budget, every t is evaluated, and the result says so."""
    common = {"seed": 0, "batch": 8, "device": CPU, "clip_x0": True, "decoder": "paper", "folder": None, "identity": {}}
    short = Diffusion(SHORT, Eps(), FixedBeta())
    pixels = images(6, 1, 2, 2)
    found = measure(some_network(), short, pixels, split="test", evals=20, **common)
    assert (found.method, found.evals, found.images, found.decoder) == ("exact", 20, 6, "paper")
    assert found.total == pytest.approx(found.prior + found.middle + found.first, rel=1e-12)
    assert found.first == found.terms[0]
    assert len(found.mse) == SHORT.T
    few = measure(some_network(), short, pixels, split="train", evals=19, **common)
    assert (few.method, few.evals, few.terms) == ("estimate", 19, ())
    assert few.standard_error > 0 < few.estimate_error
    low, high = few.interval
    assert high - low == pytest.approx(2 * 1.959964 * few.standard_error)


def test_the_error_of_x0_is_that_of_its_prediction() -> None:
    """A network that always predicts eps = x_t / sqrt(1 - alpha_bar) predicts x_0 = 0: its squared error is that of the image."""
    network = lambda x, step: x / (1 - SHORT.alpha_bar[step]).sqrt().reshape(-1, 1, 1, 1)  # noqa: E731
    pixels = images(5, 1, 2, 2)
    bound = bits_per_dim(Diffusion(SHORT, Eps(), FixedBeta()), network, pixels, seed=0, batch=5, device=CPU)
    expected = to_model(pixels, torch.float64).square().mean().item()
    np.testing.assert_allclose(bound.mse.numpy(), expected, rtol=1e-5)


def test_a_bound_that_is_not_finite_is_a_result(tmp_path) -> None:
    """A learned variance of 0 makes the bound infinite; the record says so in strict JSON."""
    network = lambda x, step: torch.cat([x, torch.full_like(x, -3000.0)], 1)  # noqa: E731
    found = measure(
        network, Diffusion(SHORT, Eps(), LearnedDiagonal()), images(4, 1, 2, 2), split="test", evals=10, seed=0, batch=4,
        device=CPU, clip_x0=True, decoder="exact", folder=None, identity={},
    )  # fmt: skip
    assert not math.isfinite(found.total)
    write_json(tmp_path / "bound.json", found.as_json())
    held = type(found).model_validate(json.loads((tmp_path / "bound.json").read_text()))
    assert repr(held) == repr(found)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(UserError, match="at least 5 network calls an image, not 4"):
        estimate(images(3, 1, 2, 2), 0, evals=4)
    with pytest.raises(UserError, match="uint8"):
        estimate(images(3, 1, 2, 2).float(), 0)
    with pytest.raises(UserError, match="at least one image, not 0"):
        estimate(images(3, 1, 2, 2), 0, batch=0)
    with pytest.raises(UserError, match="one step"):
        estimate_bits_per_dim(
            Diffusion(linear(1), Eps(), FixedBeta()), OPTIMAL, images(3, 1, 2, 2), evals=9, seed=0, batch=3, device=CPU
        )


def test_a_part_of_a_split_is_spread_over_it() -> None:
    assert spread(torch.arange(10), 5).tolist() == [0, 2, 4, 6, 8]
    assert spread(torch.arange(3), 5).tolist() == [0, 1, 2]
