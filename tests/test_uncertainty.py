"""Intervals and the extrapolated distance against closed forms and simulations in float64."""

import functools

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ddpm_bench.config.settings import ScoringSettings
from ddpm_bench.metrics import uncertainty
from ddpm_bench.metrics.uncertainty import (
    FEWEST,
    Frechet,
    frechet,
    mean_quantiles,
    quantiles,
    replicates_for,
    score_quantiles,
)
from ddpm_bench.records.fields import QUANTILES
from ddpm_bench.runtime.observer import Observer, observed_by

D = 4
RNG = np.random.default_rng(0)
COVARIANCE = np.cov(RNG.normal(size=(D, 40)))
OTHER = np.cov(RNG.normal(size=(D, 40)))
MEAN, SHIFT = RNG.normal(size=D), np.array([0.6, -0.3, 0.0, 0.2])


def draws(n: int, seed: int, mean: np.ndarray = MEAN + SHIFT, covariance: np.ndarray = OTHER) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).multivariate_normal(mean, covariance, size=n))


def closed_form(mean: np.ndarray, covariance: np.ndarray) -> float:
    root = sqrtm(covariance @ COVARIANCE).real
    return float(((mean - MEAN) ** 2).sum() + np.trace(covariance + COVARIANCE - 2 * root))


TRUE = closed_form(MEAN + SHIFT, OTHER)


def test_the_distance_is_that_of_the_samples_moments_for_every_subset():
    x = draws(61, 0)  # parts of unequal size
    found = Frechet(x, MEAN, COVARIANCE).distances(torch.arange(61))
    parts = x.tensor_split(6)
    for left_out, distance in zip(uncertainty.SUBSETS, found, strict=True):
        kept = torch.cat([part for i, part in enumerate(parts) if i not in left_out]).numpy()
        assert distance == pytest.approx(closed_form(kept.mean(0), np.cov(kept, rowvar=False)), rel=1e-9)


def test_features_that_never_vary_and_fewer_samples_than_features_have_a_distance():
    flat = np.diag([1.0, 1.0, 0.0, 0.0])
    x = draws(3, 0, MEAN, flat)
    moments = x.numpy().mean(0), np.cov(x.numpy(), rowvar=False)
    root = np.sqrt(np.linalg.eigvals(moments[1] @ flat).astype(complex)).real.sum()
    expected = ((moments[0] - MEAN) ** 2).sum() + np.trace(moments[1] + flat) - 2 * root
    found = frechet(x, MEAN, flat, replicates=0, seed=0)
    assert found.value == pytest.approx(expected, rel=1e-7)
    assert found.infinity is None and found.quantiles == found.infinity_quantiles == ()


def test_the_line_through_1_over_n_is_extrapolated_exactly():
    of = Frechet(draws(60, 0), MEAN, COVARIANCE)
    n = np.array([60, 30, 30, 40, 40, 40])
    assert of.extrapolated(2.5 + 30 / n) == pytest.approx(2.5, abs=1e-12)
    two = np.stack([2.5 + 30 / n, 1 - 8 / n])
    assert of.extrapolated(two) == pytest.approx([2.5, 1], abs=1e-12)


@functools.cache
def simulated() -> list[tuple[uncertainty.Distance, tuple[float, tuple[float, ...]]]]:
    """120 samples of 40 from known Gaussians: distance and mean, with intervals of 45 replicates."""
    found = []
    for seed in range(120):
        x = draws(40, 100 + seed)
        distance = frechet(x, MEAN, COVARIANCE, replicates=45, seed=seed)
        found.append((distance, (float(x[:, 0].mean()), mean_quantiles(x[:, 0], 45, seed))))
    return found


def test_the_bias_of_the_distance_falls_as_1_over_n_and_the_extrapolated_one_has_next_to_none():
    def bias(n: int) -> float:
        return np.mean([frechet(draws(n, s), MEAN, COVARIANCE, replicates=0, seed=s).value for s in range(400)]) - TRUE

    small, large = bias(30), bias(120)
    assert 0.1 < small < 0.4 and small / large == pytest.approx(4, rel=0.4)
    infinite = np.array([distance.infinity for distance, _ in simulated()])
    error = infinite.std() / len(infinite) ** 0.5
    at_40 = np.mean([distance.value for distance, _ in simulated()]) - TRUE
    assert abs(infinite.mean() - TRUE) < 3 * error < at_40


@pytest.mark.parametrize(("samples_a_feature", "share"), [(4, -0.09), (8, -0.04)])
def test_the_extrapolated_distance_of_a_perfect_model_is_too_low_and_often_below_zero(samples_a_feature, share):
    d, rng = 32, np.random.default_rng(0)
    found = [
        frechet(torch.from_numpy(x), np.zeros(d), np.eye(d), replicates=0, seed=0)
        for x in rng.normal(size=(400, samples_a_feature * d, d))
    ]
    bias = np.mean([distance.value for distance in found])  # the true distance is 0
    infinite = np.array([distance.infinity for distance in found])
    assert infinite.std() / len(found) ** 0.5 < 0.005 * bias
    assert infinite.mean() / bias == pytest.approx(share, abs=0.015)
    assert 0.5 < (infinite < 0).mean() < 0.95


def covered(intervals: list[tuple[float, ...]], target: float, low: int = 0, high: int = 4) -> float:
    return float(np.mean([interval[low] <= target <= interval[high] for interval in intervals]))


def test_intervals_cover_what_they_are_for():
    distances, means = zip(*simulated(), strict=True)
    at_40 = np.mean([distance.value for distance in distances])
    for intervals, target in (
        ([distance.quantiles for distance in distances], at_40),
        ([distance.infinity_quantiles for distance in distances], TRUE),
        ([interval for _, interval in means], MEAN[0] + SHIFT[0]),
    ):
        assert 0.9 <= covered(intervals, target) <= 1
        assert 0.57 <= covered(intervals, target, 1, 3) <= 0.8
    # Uncorrected, resampling would add its own bias to that of the samples; the median stays at what was measured.
    assert all(abs(d.quantiles[2] - d.value) < 0.3 * (d.quantiles[4] - d.quantiles[0]) for d in distances)
    assert np.mean([d.quantiles[2] - d.value for d in distances]) == pytest.approx(0, abs=0.03)


def test_the_interval_of_the_score_covers_its_mean():
    found = []
    for seed in range(150):
        logits = torch.from_numpy(3 * np.random.default_rng(seed).normal(size=(120, 5)))
        found.append(score_quantiles(logits, 4, 60, seed))
    mean = np.mean([value for value, _ in found])
    assert 0.9 <= covered([interval for _, interval in found], mean) <= 1
    assert 0.57 <= covered([interval for _, interval in found], mean, 1, 3) <= 0.8


def test_the_score_weights_each_sample_by_its_count():
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 3)))
    p = logits.softmax(1)
    part = uncertainty.ScorePart(p, (p * p.log()).sum(1))
    drawn = [0, 0, 3, 5, 5, 5, 6]
    counts = torch.bincount(torch.tensor(drawn), minlength=7).double()[None]
    q = p[drawn]
    expected = (q * (q / q.mean(0)).log()).sum(1).mean().exp()
    assert part.scores(counts)[0] == pytest.approx(float(expected), rel=1e-12)


def test_a_class_that_no_sample_has_does_not_spoil_the_score():
    logits = torch.full((20, 3), -2000.0, dtype=torch.float64)
    logits[:10, 0] = logits[10:, 1] = 0.0
    value, interval = score_quantiles(logits[torch.randperm(20, generator=torch.Generator().manual_seed(0))], 1, 50, 0)
    assert value == pytest.approx(2, rel=1e-9) and np.isfinite(interval).all()


def test_quantiles_are_the_deviations_of_the_replicates_around_the_value():
    replicates = np.random.default_rng(0).permutation(np.arange(199.0))
    assert quantiles(7.0, replicates) == pytest.approx([7 + 200 * q - 100 for q in QUANTILES])


def test_intervals_repeat_with_the_seed_and_change_with_it():
    x = draws(40, 0)
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 5)))

    def measured(seed):
        distance = frechet(x, MEAN, COVARIANCE, replicates=50, seed=seed)
        return (
            distance.quantiles,
            distance.infinity_quantiles,
            score_quantiles(logits, 4, 50, seed)[1],
            mean_quantiles(x[:, 0], 50, seed),
        )

    first, again, other = measured(1), measured(1), measured(2)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_every_replicate_is_told():
    class Hearing(Observer):
        every, heard = 0.0, []

        def show(self, reading):
            self.heard.append((reading.done, reading.total))

    with observed_by(Hearing()):
        frechet(draws(40, 0), MEAN, COVARIANCE, replicates=0, seed=0)
        frechet(draws(40, 0), MEAN, COVARIANCE, replicates=45, seed=0)
    assert Hearing.heard == [(done, 45) for done in range(1, 46)]


@pytest.mark.parametrize(
    ("bootstrap", "features", "expected"), [(200, 64, 200), (200, 2048, 48), (0, 64, 0), (400, 9000, 40)]
)
def test_distances_of_many_features_have_fewer_replicates_and_always_enough(bootstrap, features, expected):
    assert replicates_for(bootstrap, features) == expected


def test_fewer_replicates_than_have_a_quantile_are_refused_as_a_setting():
    assert ScoringSettings(bootstrap=FEWEST).bootstrap == FEWEST and ScoringSettings(bootstrap=0).bootstrap == 0
    with pytest.raises(ValueError, match="no quantile at"):
        ScoringSettings(bootstrap=FEWEST - 1)
