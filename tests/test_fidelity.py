"""Scores against independent computations in float64, and images that can be scored."""

import functools

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.settings import ScoringSettings
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.metrics import fidelity
from ddpm_bench.metrics.extractor import Extractor
from ddpm_bench.metrics.fidelity import Scores
from ddpm_bench.metrics.uncertainty import frechet as frechet_distance
from ddpm_bench.metrics.uncertainty import score_quantiles
from ddpm_bench.records import protocol as score_protocol
from ddpm_bench.records.record import ExtractorInfo
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.runtime import Runtime

CLASSES = 5


class Projection(nn.Module):
    """Fixed random projections of the pixels; counts what it is shown."""

    def __init__(self, channels: int, side: int, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("to_features", torch.randn(channels * side**2, dim, generator=generator) / side)
        self.register_buffer("to_logits", torch.randn(dim, CLASSES, generator=generator))
        self.shown: list[torch.Tensor] = []

    def forward(self, images):
        self.shown.append(images.clone())
        features = torch.relu(images.float().flatten(1) / 64 @ self.to_features)
        return features, features @ self.to_logits

    @property
    def count(self) -> int:
        return sum(map(len, self.shown))


def projection(channels: int = 1, side: int = 4, dim: int = 6, seed: int = 0, batch: int = 16, sizes=(4,)) -> Extractor:
    info = ExtractorInfo(
        name="tiny", sha256=f"{seed:064x}", verified=True, labels=("FD (tiny)", "IS (tiny)"), feature_dim=dim
    )
    return Extractor(info, Projection(channels, side, dim, seed), channels, sizes, batch, image_bytes=2**20)


def images(n: int, seed: int, low: int = 0, high: int = 256, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (n, channels, 4, 4), dtype=torch.uint8, generator=generator)


def features_of(extractor: Extractor, pixels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits in float64, all images in one batch."""
    with torch.no_grad():
        features, logits = Projection.forward(extractor.network, pixels)
    extractor.network.shown.pop()
    return features.double().numpy(), logits.double().numpy()


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Heusel et al. 2017, eq. 6, with scipy's matrix square root."""
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(s @ t).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * root))


def scores(samples, reference, extractor, *, cache=None, seed=0, test_reference=None, **scoring) -> Scores:
    """`fidelity.scores` on the CPU; `scoring` as in ScoringSettings, without intervals unless they are asked for."""
    how = ScoringSettings(**({"bootstrap": 0} | scoring))
    return fidelity.scores(
        samples, reference, extractor, how, Runtime(cache=cache), seed=seed, test_reference=test_reference
    )


def score(samples, reference, extractor, **how) -> dict[str, float]:
    return scores(samples, reference, extractor, **how).metrics


SAMPLES, REFERENCE = images(70, 1, high=200), images(85, 2)


@functools.cache
def plain() -> dict[str, float]:
    """The scores of SAMPLES against REFERENCE, without a cache."""
    return score(SAMPLES, REFERENCE, projection())


def test_frechet_distance_is_scipys_in_float64():
    extractor = projection()
    expected = frechet(features_of(extractor, SAMPLES)[0], features_of(extractor, REFERENCE)[0])
    assert plain()["fd_train"] == pytest.approx(expected, rel=1e-6)


def test_inception_score_is_the_exponential_of_the_mean_divergence_over_ten_shuffled_parts(monkeypatch):
    monkeypatch.setattr(score_protocol, "SEED", 3)
    extractor = projection()
    logits = features_of(extractor, SAMPLES)[1][np.random.RandomState(3).permutation(70)]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    parts = [p[7 * i : 7 * i + 7] for i in range(10)]
    scores = [np.exp(np.mean([(row * np.log(row / part.mean(0))).sum() for row in part])) for part in parts]
    found = score(SAMPLES, REFERENCE, extractor)
    assert found["is_mean"] == pytest.approx(np.mean(scores), rel=1e-9)
    assert found["is_std"] == pytest.approx(np.std(scores), rel=1e-7)


def test_kernel_distance_is_the_unbiased_mmd_over_random_subsets_of_half_the_samples():
    extractor = projection()
    x, y = (features_of(extractor, each)[0] for each in (SAMPLES, REFERENCE))
    random, size, found = np.random.RandomState(0), 35, []
    for _ in range(100):
        a, b = x[random.choice(70, size, replace=False)], y[random.choice(85, size, replace=False)]
        within = sum(((m @ m.T / 6 + 1) ** 3)[~np.eye(size, dtype=bool)].mean() for m in (a, b))
        found.append(within - 2 * ((a @ b.T / 6 + 1) ** 3).mean())
    scores = plain()
    assert scores["kid_mean"] == pytest.approx(np.mean(found), rel=1e-9)
    assert scores["kid_std"] == pytest.approx(np.std(found), rel=1e-9)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_agree_with_brute_force(k):
    extractor = projection()
    x, y = (features_of(extractor, each)[0] for each in (SAMPLES, REFERENCE))

    def covered(points, others):
        balls = [sorted(np.linalg.norm(others - other, axis=1))[k] for other in others]  # [0] is the point itself
        return np.mean([any(np.linalg.norm(others - point, axis=1) <= balls) for point in points])

    found = score(SAMPLES, REFERENCE, extractor, neighborhood=k)
    assert found["precision"] == pytest.approx(covered(x, y), abs=1e-6)
    assert found["recall"] == pytest.approx(covered(y, x), abs=1e-6)
    assert found["precision"] != found["recall"]


def test_scores_are_those_of_the_registry_and_repeat_exactly(monkeypatch):
    both = score(SAMPLES, REFERENCE, projection(), test_reference=images(40, 9))
    asked_for = {"density", "coverage", "copies", "copy_distance", "sfd_train", "mmd_train", "class_agreement"}
    assert (
        set(both)
        == {key for key in METRICS if not key.startswith("bound")}
        - {"fd_reference", "ode_test_bits_per_dim"}
        - asked_for
    )
    assert {key: value for key, value in both.items() if key != "fd_test"} == plain()
    monkeypatch.setattr(score_protocol, "SEED", 1)
    other = score(SAMPLES, REFERENCE, projection(), precision_recall=False)
    assert other["is_std"] != both["is_std"]
    assert set(both) - set(other) == {"precision", "recall", "fd_test"}


def test_intervals_are_of_the_numbers_that_torch_fidelity_gives():
    extractor = projection()
    (x, logits), (y, _) = (features_of(extractor, each) for each in (SAMPLES, REFERENCE))
    found = scores(SAMPLES, REFERENCE, projection(), test_reference=images(40, 9), bootstrap=50, seed=7)
    assert found.metrics == score(SAMPLES, REFERENCE, projection(), test_reference=images(40, 9))
    distance = frechet_distance(torch.from_numpy(x), y.mean(0), np.cov(y, rowvar=False), replicates=50, seed=7)
    assert distance.value == pytest.approx(found.metrics["fd_train"], rel=1e-9)
    assert distance.infinity == pytest.approx(found.metrics["fd_infinity"], rel=1e-9)
    shuffled = torch.from_numpy(logits)[np.random.RandomState(0).permutation(70)]
    value, interval = score_quantiles(shuffled, 10, 50, 7)
    assert value == pytest.approx(found.metrics["is_mean"], rel=1e-9)
    assert set(found.quantiles) == {"is_mean", "fd_train", "fd_test", "fd_infinity"}
    assert found.quantiles["is_mean"] == pytest.approx(interval, rel=1e-9)
    assert found.quantiles["fd_train"] == pytest.approx(distance.quantiles, rel=1e-9)
    assert found.quantiles["fd_infinity"] == pytest.approx(distance.infinity_quantiles, rel=1e-9)
    for key, interval in found.quantiles.items():
        assert interval[0] < found.metrics[key] < interval[-1] and list(interval) == sorted(interval)


def test_too_few_samples_for_the_number_of_features_have_no_distance_at_infinity():
    enough, too_few = (scores(SAMPLES[:n], REFERENCE, projection(), bootstrap=50) for n in (24, 23))
    assert "fd_infinity" in enough.metrics and "fd_infinity" in enough.quantiles
    assert "fd_infinity" not in too_few.metrics and set(too_few.quantiles) == {"is_mean", "fd_train"}


def test_the_metrics_alone_are_those_of_the_scores_and_need_no_replicates(monkeypatch):
    found = fidelity.score(SAMPLES, REFERENCE, projection(), ScoringSettings(bootstrap=50, neighborhood=2), Runtime())
    assert found == scores(SAMPLES, REFERENCE, projection(), neighborhood=2).metrics


def test_intervals_can_be_interrupted(monkeypatch):
    real = fidelity.frechet

    def ask(*args, **how):
        stop.requested = True
        return real(*args, **how)

    monkeypatch.setattr(fidelity, "frechet", ask)
    with Stop() as stop, pytest.raises(Interrupted):
        scores(SAMPLES, REFERENCE, projection(), bootstrap=50)


def test_scoring_prints_nothing_on_stdout(capfd):
    score(SAMPLES, REFERENCE, projection())
    assert capfd.readouterr().out == ""


def test_more_neighbours_than_images_are_refused():
    with pytest.raises(UserError, match=r"need 71 images or more"):
        score(SAMPLES, REFERENCE, projection(), neighborhood=70)


def test_grey_images_are_repeated_for_a_colour_extractor():
    colour = projection(channels=3)
    repeated = score(SAMPLES.repeat(1, 3, 1, 1), REFERENCE.repeat(1, 3, 1, 1), colour)
    assert score(SAMPLES, REFERENCE, colour) == repeated


def test_a_grey_extractor_takes_grey_rgb_and_refuses_colour():
    grey = projection()
    assert score(SAMPLES.repeat(1, 3, 1, 1), REFERENCE.repeat(1, 3, 1, 1), grey) == plain()
    with pytest.raises(UserError, match=r"measures grey images, and the samples are in colour"):
        score(images(70, 1, channels=3), REFERENCE.repeat(1, 3, 1, 1), grey)


def test_unequal_sizes_and_foreign_sizes_are_refused():
    with pytest.raises(UserError, match=r"cannot be compared.*\(1, 3, 4\)"):
        score(SAMPLES[:, :, 1:], REFERENCE, projection())
    with pytest.raises(UserError, match=r"made for images of 8 or 16 pixels a side, not for 4x4.*--sizes 4"):
        score(SAMPLES, REFERENCE, projection(sizes=(8, 16)))
    with pytest.raises(UserError, match=r"expected"):
        score(SAMPLES[:, 0], REFERENCE[:, 0], projection())


def test_arrays_and_memory_maps_score_as_tensors(tmp_path):
    np.save(tmp_path / "samples.npy", SAMPLES.numpy())
    mapped = np.load(tmp_path / "samples.npy", mmap_mode="r")
    assert score(mapped, REFERENCE.numpy(), projection()) == plain()


def test_scoring_stops_between_batches_when_asked_to():
    extractor = projection(batch=16)
    forward = extractor.network.forward

    def ask(batch):
        stop.requested = True
        return forward(batch)

    extractor.network.forward = ask
    with Stop() as stop, pytest.raises(Interrupted):
        score(SAMPLES, REFERENCE, extractor)
    assert extractor.network.count == 16


def test_only_inceptions_numbers_are_called_fid_is_and_kid():
    inception = [metric.heading(("FID", "IS")) for metric in METRICS.values()]
    assert inception[:8] == [
        "IS", "IS, std", "FID", "FID, test set", "FID", "FID, infinite samples", "KID", "KID, std"
    ]  # fmt: skip
    own = [metric.heading(("FD (embedded)", "IS (embedded)")) for metric in METRICS.values()]
    assert own[:8] == [
        "IS (embedded)", "IS (embedded), std", "FD (embedded)", "FD (embedded), test set",
        "FD (embedded)", "FD (embedded), infinite samples", "KD (embedded)", "KD (embedded), std",
    ]  # fmt: skip
    assert METRICS["kid_mean"].heading(("FID (unverified)", "IS (unverified)")) == "KID (unverified)"
    assert all(key == metric.key for key, metric in METRICS.items())
