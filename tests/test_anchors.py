"""Anchors: they are what they are called, in the right order, and measured once."""

import dataclasses

import pytest
import torch

from ddpm_bench.config.settings import DataSettings, ScoringSettings
from ddpm_bench.data import ImageData, Split, load_data
from ddpm_bench.errors import UserError
from ddpm_bench.metrics import anchors as module
from ddpm_bench.metrics.anchors import BLURRED, REAL, anchor_images
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.metrics.fidelity import score
from ddpm_bench.records import protocol
from ddpm_bench.records.failure import NOISE
from ddpm_bench.runtime.runtime import Runtime


def anchors(data, extractor, n, *, cache=None, device="cpu", **scoring) -> dict[str, dict[str, float]]:
    """`anchors.anchors`; `scoring` as in ScoringSettings."""
    return module.anchors(data, extractor, n, ScoringSettings(**scoring), Runtime(torch.device(device), cache))


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data(DataSettings(size=16, resize="average"))


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    return load_extractor("embedded", size=16, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def small(data) -> ImageData:
    """Every 20th image."""
    return dataclasses.replace(
        data, train=Split(data.train.images[::20]), test=Split(data.test.images[::20]), sha256="small"
    )


@pytest.mark.parametrize("size", [16, 32])
def test_real_is_nearer_than_blurred_and_blurred_than_noise_by_every_distance(size, tmp_path):
    whole = load_data(DataSettings(size=size, resize="average"))
    quarter = dataclasses.replace(whole, train=Split(whole.train.images[::4]))
    found = anchors(quarter, load_extractor("embedded", size=size, cache=tmp_path), 512, cache=tmp_path)
    for key in ("fd_train", "kid_mean"):
        assert 10 * found[REAL][key] < found[BLURRED][key] < 0.7 * found[NOISE][key]
    assert found[REAL]["recall"] > found[BLURRED]["recall"] > found[NOISE]["recall"]
    # Precision tells less: one stray real image has a ball that admits noise.
    assert found[REAL]["precision"] > max(found[BLURRED]["precision"], found[NOISE]["precision"])
    assert found[REAL]["is_mean"] > found[BLURRED]["is_mean"] > found[NOISE]["is_mean"]


def test_anchors_are_test_images_the_same_blurred_and_noise(data):
    found = anchor_images(data, 64)
    assert list(found) == [REAL, BLURRED, NOISE]
    assert all(images.dtype == torch.uint8 and images.shape == (64, 1, 16, 16) for images in found.values())
    test = {image.numpy().tobytes() for image in data.test.images}
    assert all(image.numpy().tobytes() in test for image in found[REAL])
    labels = [int((data.test.images == image).flatten(1).all(1).nonzero()[0]) // 200 for image in found[REAL]]
    assert len(set(labels)) > 5  # not the first images, which may be of one class
    difference = found[BLURRED].double() - found[REAL].double()
    assert abs(difference.mean()) < 2 < difference.abs().mean()
    assert abs(found[NOISE].double().mean() - 127.5) < 2
    assert all(torch.equal(images, found[name]) for name, images in anchor_images(data, 64).items())


def test_a_blurred_point_is_a_gaussian_of_a_sixteenth_of_the_side(data):
    point = torch.zeros(1, 1, 33, 33, dtype=torch.uint8)
    point[..., 16, 16] = 255
    # 48 pixels a side: a standard deviation of 3.
    found = module._blurred(torch.nn.functional.pad(point, (7, 8, 7, 8)))[0, 0].double()
    at = torch.arange(48.0) - 23
    density = torch.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 3.0**2)) / (2 * torch.pi * 3.0**2)
    assert torch.allclose(found, 255 * density.double(), atol=0.6)


def test_with_fewer_test_images_than_samples_the_names_say_how_many(small):
    found = anchor_images(small, 250)
    assert [(name, len(images)) for name, images in found.items()] == [
        (f"{REAL} (100 images)", 100), (f"{BLURRED} (100 images)", 100), (NOISE, 250),
    ]  # fmt: skip


def test_anchors_are_scored_as_samples_are(small, extractor):
    found = anchors(small, extractor, 50, neighborhood=2, test_reference=True)
    images = anchor_images(small, 50)
    again = score(
        images[NOISE],
        small.train.images,
        extractor,
        ScoringSettings(neighborhood=2, test_reference=True),
        Runtime(),
        test_reference=small.test.images,
    )
    assert found[NOISE] == again
    assert "fd_test" in found[BLURRED] and "fd_test" not in found[REAL]  # test images are no match for themselves
    assert "precision" not in anchors(small, extractor, 50, precision_recall=False)[NOISE]


def test_anchors_are_measured_once_for_all_that_they_depend_on(small, extractor, tmp_path, monkeypatch):
    first = anchors(small, extractor, 20, cache=tmp_path)
    calls = []
    monkeypatch.setattr(module, "score", lambda *a, **k: calls.append(a) or {"fd_train": 0.0})
    assert anchors(small, extractor, 20, cache=tmp_path) == first and not calls
    info = extractor.info.model_copy(update={"sha256": "0" * 64})
    for changed in (
        {"n": 21},
        {"device": "meta"},
        {"neighborhood": 2},
        {"precision_recall": False},
        {"test_reference": True},
        {"data": dataclasses.replace(small, sha256="other")},
        {"extractor": dataclasses.replace(extractor, info=info)},
    ):
        calls.clear()
        anchors(**({"data": small, "extractor": extractor, "n": 20, "cache": tmp_path} | changed))
        assert len(calls) == 3, changed
    for where, name, value in ((module, "BLUR", 1 / 8), (protocol, "SEED", 1)):
        calls.clear()
        monkeypatch.setattr(where, name, value)
        anchors(small, extractor, 20, cache=tmp_path)
        assert len(calls) == 3, name


def test_the_noise_of_a_reference_without_splits_is_measured_once_for_all_that_it_depends_on(tmp_path):
    calls = []

    def noise(n, seed=0, device="cpu", shape=(1, 4, 4)):
        def compare(images):
            calls.append(images)
            return {"fd_reference": float(images.double().mean())}

        return module.noise_anchor(shape, n, compare, {"seed": seed}, Runtime(torch.device(device), tmp_path))

    first = noise(50)
    assert list(first) == [NOISE] and noise(50) == first and len(calls) == 1
    assert calls[0].dtype == torch.uint8 and abs(first[NOISE]["fd_reference"] - 127.5) < 10
    for changed in ({"n": 51}, {"seed": 1}, {"device": "meta"}, {"shape": (3, 4, 4)}):
        noise(**({"n": 50} | changed))
    assert len(calls) == 5


def test_damaged_anchors_are_measured_again(small, extractor, tmp_path):
    first = anchors(small, extractor, 20, cache=tmp_path)
    (kept,) = (tmp_path / "anchors").iterdir()
    whole = kept.read_text()
    for damaged in (whole[:50], "", "[]", whole.replace("0.", "1.", 1)):
        kept.write_text(damaged)
        assert anchors(small, extractor, 20, cache=tmp_path) == first
        assert kept.read_text() == whole


def test_a_handful_of_test_images_is_refused_by_name(small, extractor):
    few = dataclasses.replace(small, test=Split(small.test.images[:9]))
    with pytest.raises(
        UserError, match=r"The anchors of 'fashion-mnist-10k' are test images, of which it has 9; 10 or more"
    ):
        anchors(few, extractor, 20)


@pytest.mark.parametrize("shape", [(1, 10, 80), (3, 80, 10)])
def test_wide_and_tall_images_are_blurred_by_their_smaller_side(shape):
    images = torch.randint(0, 256, (4, *shape), dtype=torch.uint8)
    blurred = module._blurred(images)
    assert blurred.shape == images.shape and blurred.double().std() < images.double().std()
