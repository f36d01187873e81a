"""The traps that made published reproductions wrong, as far as scoring goes."""

import numpy as np
import pytest
import torch
import torch_fidelity.feature_extractor_vgg16 as vgg16
from test_fidelity import REFERENCE, SAMPLES, features_of, images, plain, projection, score

from ddpm_bench.data import read_images, write_images
from ddpm_bench.errors import UserError
from ddpm_bench.metrics import fidelity
from ddpm_bench.records.protocol import protocol


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16, torch.bool])
def test_trap_05_only_uint8_is_scored(dtype):
    with pytest.raises(UserError, match=r"samples are .*uint8"):
        score(SAMPLES.to(dtype), REFERENCE, projection())
    with pytest.raises(UserError, match=r"reference images are .*uint8"):
        score(SAMPLES, (REFERENCE.double() / 127.5 - 1).numpy(), projection())


def test_trap_06_the_whole_reference_counts_down_to_a_partial_last_batch():
    extractor = projection(batch=16)
    assert len(REFERENCE) % 16
    score(SAMPLES, REFERENCE, extractor)
    # Each image once, as it is: not flipped.
    assert torch.equal(torch.cat(extractor.network.shown), torch.cat([SAMPLES, REFERENCE]))
    changed = REFERENCE.clone()
    changed[-1] = 255 - changed[-1]
    assert score(SAMPLES, changed, projection())["fd_train"] != plain()["fd_train"]


def test_trap_06_training_and_test_reference_are_apart():
    test = images(50, 7, low=100)
    found = score(SAMPLES, REFERENCE, projection(), test_reference=test, precision_recall=False)
    assert found["fd_test"] == pytest.approx(score(SAMPLES, test, projection())["fd_train"], rel=1e-12)
    assert found["fd_train"] == plain()["fd_train"]


def test_trap_07_samples_sorted_by_class_score_as_shuffled_ones():
    extractor = projection()
    order = np.argsort(features_of(extractor, SAMPLES)[1].argmax(1))
    by_class, mixed = (score(part, REFERENCE, extractor)["is_mean"] for part in (SAMPLES[order], SAMPLES))
    parts = np.array_split(features_of(extractor, SAMPLES[order])[1], 10)
    p = [np.exp(part) / np.exp(part).sum(1, keepdims=True) for part in parts]
    unshuffled = np.mean([np.exp((q * np.log(q / q.mean(0))).sum(1).mean()) for q in p])
    assert abs(by_class - mixed) < 0.3 * abs(unshuffled - mixed)


@pytest.mark.parametrize("counts", [(9, 85), (70, 9)])
def test_trap_07_too_few_images_for_ten_parts_are_refused(counts):
    with pytest.raises(UserError, match=r"need 10 images or more"):
        score(SAMPLES[: counts[0]], REFERENCE[: counts[1]], projection())


def test_trap_10_two_sets_of_samples_in_one_folder_score_differently(tmp_path):
    found = []
    for seed in (1, 2):
        write_images(tmp_path / "samples", images(24, seed))
        found.append(score(read_images(tmp_path / "samples"), REFERENCE, projection(), cache=tmp_path / "cache"))
    assert found[0] != found[1]
    assert found == [score(images(24, seed), REFERENCE, projection()) for seed in (1, 2)]


def test_trap_10_references_are_kept_by_content_and_weights_and_samples_not_at_all(tmp_path):
    cache, features = tmp_path / "cache", tmp_path / "cache" / "features"
    assert score(SAMPLES, REFERENCE, projection(), cache=cache) == plain()
    kept = sorted(features.iterdir())
    again = projection()
    assert score(SAMPLES, REFERENCE, again, cache=cache) == plain()
    assert again.network.count == len(SAMPLES)  # the reference came from the cache
    assert sorted(features.iterdir()) == kept
    other = projection(seed=1)  # the same name, other weights
    assert score(SAMPLES, REFERENCE, other, cache=cache) == score(SAMPLES, REFERENCE, projection(seed=1)) != plain()
    assert other.network.count == len(SAMPLES) + len(REFERENCE)
    half = projection()
    assert score(SAMPLES, REFERENCE[:40], half, cache=cache) == score(SAMPLES, REFERENCE[:40], projection())
    assert half.network.count == len(SAMPLES) + 40


def test_trap_15_statistics_are_taken_in_float64(monkeypatch):
    seen = {}
    for name in ("isc_features", "fid_features", "kid_features", "prc_features"):
        name = name + ("_to_statistics" if name == "fid_features" else "_to_metric")
        real = getattr(fidelity, name)

        def heard(*given, name=name, real=real, **how):
            seen[name] = {each.dtype for each in given if isinstance(each, torch.Tensor)}
            return real(*given, **how)

        monkeypatch.setattr(fidelity, name, heard)
    score(SAMPLES, REFERENCE, projection())
    assert len(seen) == 4 and all(dtypes == {torch.float64} for dtypes in seen.values())


def test_trap_15_precision_and_recall_never_use_vgg(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("VGG16 was asked for")

    monkeypatch.setattr(vgg16.FeatureExtractorVGG16, "__init__", refuse)
    assert 0 <= score(SAMPLES, REFERENCE, projection())["precision"] <= 1


def test_trap_15_distances_are_made_in_bounded_blocks_and_never_held_together(monkeypatch):
    expected = plain()
    monkeypatch.setattr(fidelity, "DISTANCES_AT_ONCE", 1000)
    rows, held, cdist, kthvalue = [], [], torch.cdist, torch.Tensor.kthvalue
    monkeypatch.setattr(torch, "cdist", lambda a, b: rows.append(len(a)) or cdist(a, b))
    monkeypatch.setattr(torch.Tensor, "kthvalue", lambda all, k: held.append(all.numel()) or kthvalue(all, k))
    assert score(SAMPLES, REFERENCE, projection()) == expected
    assert 0 < max(rows) * max(len(SAMPLES), len(REFERENCE)) <= 1000
    assert 0 < max(held) <= 1000


@pytest.mark.parametrize("n, size", [(10, 5), (512, 256), (2000, 1000), (50_000, 1000)])
def test_trap_15_kernel_distance_has_a_subset_size_for_every_count(n, size):
    assert protocol(n, 50_000).kid_subset_size == size
    assert protocol(50_000, n).kid_subset_size == size
