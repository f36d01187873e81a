"""Density, coverage, copies, spatial and kernel distances: against brute force in numpy, and where the answer is known."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.settings import DataSettings, ScoringSettings
from ddpm_bench.data import load_data
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.metrics import copies, fidelity, products
from ddpm_bench.metrics.copies import calibrated_distances, find_copies
from ddpm_bench.metrics.density import density_and_coverage
from ddpm_bench.metrics.extractor import Extractor, MeasuredImages, SpatialLayer
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.metrics.features import outputs_of
from ddpm_bench.metrics.mmd import scaled_mmd
from ddpm_bench.metrics.uncertainty import frechet
from ddpm_bench.records.protocol import expected_coverage
from ddpm_bench.records.record import ExtractorInfo
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.runtime import Runtime

ALL = ("density", "copies", "spatial", "mmd")
KEYS = {
    "density": {"density", "coverage"}, "copies": {"copies", "copy_distance"}, "spatial": {"sfd_train"}, "mmd": {"mmd_train"},
}  # fmt: skip


def normal(count: int, seed: int, dim: int = 5, shift: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, size=(count, dim)))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(products, "AT_ONCE", 200)
    monkeypatch.setattr(copies, "QUERIES", 5)
    monkeypatch.setattr(copies, "REFERENCE", 7)


# ---- density and coverage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_density_and_coverage_are_those_of_the_definition(k, shift, small_blocks):
    x, y = normal(60, 0).numpy(), normal(41, 1, shift=shift).numpy()
    away = np.linalg.norm(x[:, None] - x[None], axis=2)
    radii = np.sort(away, axis=1)[:, k]  # the first is the image itself
    inside = np.linalg.norm(y[:, None] - x[None], axis=2) < radii[None]  # (M, N)
    found = density_and_coverage(torch.from_numpy(y), torch.from_numpy(x), k)
    assert found.density == pytest.approx(inside.sum() / (k * 41), abs=1e-12)
    assert found.coverage == pytest.approx(inside.any(0).mean(), abs=1e-12)
    assert found.densities.numpy() == pytest.approx(inside.sum(1) / k)


@pytest.mark.parametrize("k", [1, 5])
def test_identical_sets_without_ties_have_a_density_and_a_coverage_of_one(k):
    found = density_and_coverage(normal(200, 3, dim=64), normal(200, 3, dim=64), k)
    assert (found.density, found.coverage) == (1, 1)


def test_density_exceeds_one_where_all_samples_lie_amid_the_real_images():
    found = density_and_coverage(torch.zeros(30, 5, dtype=torch.float64), normal(50, 0), 5)
    assert found.density > 2 and found.coverage < 1


def test_a_sample_on_the_surface_of_a_ball_is_outside():
    real = torch.tensor([[0.0], [3.0], [100.0]], dtype=torch.float64)  # radii 3, 3, 97 for k = 1
    found = density_and_coverage(torch.tensor([[-3.0], [1.0]], dtype=torch.float64), real, 1)
    assert found.densities.tolist() == [0, 2] and found.covered.tolist() == [True, True, False]


def test_new_real_images_have_a_density_of_one_and_the_coverage_that_is_expected_of_so_many():
    found = [density_and_coverage(normal(10, 2 * i), normal(24, 2 * i + 1), 3) for i in range(400)]
    assert np.mean([each.density for each in found]) == pytest.approx(1, abs=0.05)
    expected = expected_coverage(10, 24, 3)
    assert expected == pytest.approx(1 - 23 * 22 * 21 / (33 * 32 * 31))
    assert np.mean([each.coverage for each in found]) == pytest.approx(expected, abs=0.02)


# ---- MMD ------------------------------------------------------------------------------------------------------------


def test_the_kernel_distance_is_a_thousand_times_the_biased_mmd_of_unit_features(small_blocks):
    x, y = normal(33, 0).numpy(), normal(27, 1, shift=0.5).numpy()
    u, v = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (x, y))

    def mean(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(2) / (2 * 10**2)).mean()

    expected = 1000 * (mean(u, u) + mean(v, v) - 2 * mean(u, v))
    assert scaled_mmd(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, rel=1e-9)
    assert scaled_mmd(torch.from_numpy(7 * x), torch.from_numpy(y)) == pytest.approx(expected, rel=1e-9)


def test_the_kernel_distance_of_equal_sets_is_zero_and_of_two_points_known():
    assert scaled_mmd(normal(40, 0), normal(40, 0)) == 0
    east, north = torch.tensor([[2.0, 0.0]] * 3).double(), torch.tensor([[0.0, 5.0]] * 4).double()
    assert scaled_mmd(east, north) == pytest.approx(2000 * -np.expm1(-2 / 200), rel=1e-12)


# ---- copies ---------------------------------------------------------------------------------------------------------


class Sums(nn.Module):
    """Features and logits of images of 4x4: means over channels, columns and rows; a map for a spatial distance."""

    def __init__(self):
        super().__init__()
        self.map = nn.Identity()

    def forward(self, images):
        x = self.map(images.float() / 64 - 1)
        features = torch.cat([x.mean((1, 2)), x.mean((1, 3))], 1)
        return features, features[:, :3]


def sums(channels: int = 1, spatial: bool = True) -> Extractor:
    info = ExtractorInfo(name="sums", sha256="5" * 64, verified=True, labels=("FD (sums)", "IS (sums)"), feature_dim=8)
    network = Sums()
    return Extractor(
        info, network, channels, sizes=None, batch=9, image_bytes=1,
        spatial=SpatialLayer(network.map, 1, 2) if spatial else None,
    )  # fmt: skip


def pixels(count: int, seed: int, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, 4, 4), dtype=torch.uint8, generator=generator)


def measured(images: torch.Tensor) -> MeasuredImages:
    return MeasuredImages("images", images, sums(images.shape[1]))


def calibrated(images: torch.Tensor, train: torch.Tensor) -> np.ndarray:
    return calibrated_distances(measured(images), measured(train), Runtime()).numpy()


@pytest.mark.parametrize("train_count, channels", [(90, 1), (90, 3), (20, 1)])
def test_the_calibrated_distance_is_that_of_brute_force_to_the_50_nearest_or_all(train_count, channels, small_blocks):
    images, train = pixels(12, 0, channels), pixels(train_count, 1, channels)
    x, y = (each.flatten(1).double().numpy() for each in (images, train))
    nearest = np.sort(np.linalg.norm(x[:, None] - y[None], axis=2), axis=1)[:, :50]
    assert calibrated(images, train) == pytest.approx(nearest[:, 0] / (0.5 * nearest.mean(1)), rel=1e-12)


def test_copies_of_training_images_are_at_zero_and_an_image_as_far_from_all_is_at_two():
    train = pixels(80, 1)
    train[60:] = train[60]
    assert calibrated(train[[3, 77]], train).tolist() == [0, 0]
    assert calibrated(train[60:61], train[60:]).tolist() == [0]  # all that are near are the image itself
    corners = torch.zeros(16, 1, 4, 4, dtype=torch.uint8)
    corners.view(16, 16).fill_diagonal_(9)
    assert calibrated(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), corners).tolist() == [2]


def test_a_sample_counts_as_a_copy_where_it_is_nearer_than_all_but_one_per_cent_of_test_images(tmp_path):
    train, test, new = pixels(200, 1), pixels(300, 2), pixels(100, 3)
    samples = torch.cat([train[:30], new])
    runtime = Runtime(cache=tmp_path)
    found = find_copies(measured(samples), measured(train), measured(test), runtime)
    threshold = np.quantile(calibrated(test, train), 0.01)
    assert found.threshold == pytest.approx(threshold) and found.found[:30].all()
    assert found.found.tolist() == (calibrated(samples, train) < threshold).tolist()
    assert found.median == pytest.approx(np.median(calibrated(samples, train)))
    assert len(list((tmp_path / "copies").glob("*.json"))) == 1
    again = find_copies(measured(new), measured(train), measured(test), runtime)
    assert again.threshold == found.threshold and again.found.double().mean() <= 0.05
    assert find_copies(measured(new), measured(train), None, runtime).found is None


def test_looking_for_copies_can_be_interrupted(small_blocks):
    with Stop() as stop, pytest.raises(Interrupted):
        stop.requested = True
        calibrated(pixels(4, 0), pixels(9, 1))


# ---- together, and the spatial distance -------------------------------------------------------------------------------


SAMPLES, TRAIN, TEST = pixels(60, 1), pixels(70, 2), pixels(50, 3)


def scored(*names: str, extractor: Extractor | None = None, cache=None, bootstrap: int = 0, held_out=TEST):
    how = ScoringSettings(quality=names, bootstrap=bootstrap)
    return fidelity.scores(SAMPLES, TRAIN, extractor or sums(), how, Runtime(cache=cache), held_out=held_out)


@pytest.mark.parametrize("name", ALL)
def test_what_is_asked_for_comes_beside_the_usual_numbers_and_changes_none(name):
    usual = scored().metrics
    found = scored(name).metrics
    assert set(found) - set(usual) == KEYS[name] and usual.items() <= found.items()


def test_means_and_distances_have_intervals_around_them():
    found = scored(*ALL, bootstrap=60)
    assert {"density", "copies", "sfd_train"} <= set(found.quantiles)
    for key in ("density", "sfd_train"):
        low, *_, high = found.quantiles[key]
        assert low < found.metrics[key] < high


def test_without_test_images_no_sample_is_called_a_copy():
    assert set(scored("copies", held_out=None).metrics) - set(scored().metrics) == {"copy_distance"}


def test_the_spatial_distance_is_that_of_the_layers_first_channels_at_a_few_places(tmp_path):
    def places(images):  # 2x2 means of what is positive, row by row
        x = (images.double() / 64 - 1).clamp(min=0)[:, 0]
        return torch.stack([x[:, r : r + 2, c : c + 2].mean((1, 2)) for r in (0, 2) for c in (0, 2)], 1)

    of = places(TRAIN).numpy()
    expected = frechet(places(SAMPLES), of.mean(0), np.cov(of, rowvar=False), replicates=0, seed=0).value
    for cache in (tmp_path, tmp_path, None):  # made, read, made without
        assert scored("spatial", cache=cache).metrics["sfd_train"] == pytest.approx(expected, rel=1e-5)
    assert len(list((tmp_path / "features").glob("*-spatial.safetensors"))) == 1


def test_the_embedded_extractor_has_as_many_spatial_features_as_others_and_leaves_no_hook(tmp_path):
    extractor = load_extractor("embedded", cache=tmp_path)
    images = load_data(DataSettings(size=16, resize="average")).test.images[:20]
    found = outputs_of(MeasuredImages("images", images, extractor), extractor, Runtime(), spatial=True)
    network = extractor.network
    with torch.no_grad():
        x = (images.float() / 255 - network.pixel_mean) / network.pixel_std
        x = network.low(functional.relu(network.stem(x, 16)), 16)
        x = network.widen(network.middle(functional.relu(network.down(x, 16)), 16), 16).relu()
    assert found.spatial.shape == found.features.shape == (20, 64)
    assert torch.allclose(found.spatial, x[:, :4].permute(0, 2, 3, 1).flatten(1).double(), atol=1e-5)
    assert not network.widen._forward_hooks
    assert outputs_of(MeasuredImages("images", images, extractor), extractor, Runtime()).spatial is None


def test_a_spatial_distance_of_an_extractor_without_places_is_refused_before_anything_is_measured():
    with pytest.raises(UserError, match=r"none are known of the extractor 'sums'.*leave 'spatial' out"):
        scored("spatial", extractor=sums(spatial=False))


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "distance, spatial, mmd",
    [
        ("FID", "sFID", "MMD (inception)"),
        ("FID (unverified)", "sFD (inception, unverified)", "MMD (inception, unverified)"),
        ("FD (embedded)", "sFD (embedded)", "MMD (embedded)"),
        ("FD-DINOv2", "sFD (dinov2)", "MMD (dinov2)"),
        ("FD (clip)", "sFD (clip)", "CMMD"),
        ("FD (clip, unverified)", "sFD (clip, unverified)", "MMD (clip, unverified)"),
    ],
)
def test_only_the_published_weights_give_sfid_and_cmmd(distance, spatial, mmd):
    labels = distance, "IS"
    assert METRICS["sfd_train"].heading(labels) == spatial and METRICS["mmd_train"].heading(labels) == mmd


def test_names_are_taken_once_and_in_one_order_and_unknown_ones_refused():
    assert ScoringSettings(quality=("mmd", "density", "mmd")).quality == ("density", "mmd")
    assert ScoringSettings().quality == () and ScoringSettings().density_k is None
    with pytest.raises(ValueError, match="quality"):
        ScoringSettings(quality=("fls",))
