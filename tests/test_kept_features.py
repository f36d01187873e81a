"""Features that are kept in the cache: what is taken from there, and what is made again."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_fidelity import REFERENCE, SAMPLES, features_of, images, plain, projection, score

from ddpm_bench.metrics import features
from ddpm_bench.metrics.features import features_of as measured_features
from ddpm_bench.runtime.runtime import Runtime


@pytest.mark.parametrize("with_cache", [False, True])
def test_features_alone_are_those_that_scores_rest_on_and_come_from_its_cache(tmp_path, with_cache):
    cache, extractor = tmp_path if with_cache else None, projection()
    score(SAMPLES, REFERENCE, projection(), cache=cache)
    found = measured_features(REFERENCE, extractor, Runtime(cache=cache))
    assert extractor.network.count == (0 if with_cache else len(REFERENCE))
    assert found.dtype == torch.float64
    assert found.numpy() == pytest.approx(features_of(extractor, REFERENCE)[0], rel=1e-6)


@pytest.mark.parametrize("with_cache", [False, True])
def test_samples_are_measured_once_for_both_references_and_leave_nothing_behind(tmp_path, with_cache):
    extractor, cache = projection(), tmp_path / "cache" if with_cache else None
    score(SAMPLES, REFERENCE, extractor, test_reference=images(30, 4), cache=cache)
    assert extractor.network.count == len(SAMPLES) + len(REFERENCE) + 30
    assert not list(tmp_path.rglob("samples*"))


def only_entry(cache: Path) -> Path:
    (path,) = (cache / "features").iterdir()
    return path


def one_number_off(path: Path) -> None:
    """Another reference's features under the hash of these, as a fault of the disk might leave them."""
    with safe_open(path, "pt") as file:
        written = file.metadata()
    kept = load_file(path)
    kept["features"][3, 2] += 1e-6
    save_file(kept, path, written)


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "one number": one_number_off,
    "no hash": lambda path: save_file(load_file(path), path),
    "other tensors": lambda path: save_file({"x": torch.zeros(3)}, path, {"sha256": "0" * 64}),
    "a pickle": lambda path: torch.save({"features": torch.zeros(85, 6)}, path),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_cache_entry_is_said_and_made_again(tmp_path, damage, caplog):
    caplog.set_level(logging.INFO, "ddpm_bench")
    score(SAMPLES, REFERENCE, projection(), cache=tmp_path)
    path = only_entry(tmp_path)
    whole = path.read_bytes()
    DAMAGES[damage](path)
    again = projection()
    assert not caplog.messages
    assert score(SAMPLES, REFERENCE, again, cache=tmp_path) == plain()
    assert again.network.count == len(SAMPLES) + len(REFERENCE)
    assert caplog.messages == [f"Making '{path}' again: its hash is not that of its content."]
    assert path.read_bytes() == whole


def test_features_made_on_another_kind_of_device_are_not_taken(tmp_path, monkeypatch):
    made, real = [], features.outputs_of

    def on_the_cpu(images, extractor, runtime, spatial):
        made.append(runtime.device.type)
        return real(images, extractor, Runtime(), spatial)

    monkeypatch.setattr(features, "outputs_of", on_the_cpu)
    for device in ("cpu", "cuda", "cpu", "cuda"):
        measured_features(REFERENCE, projection(), Runtime(torch.device(device), tmp_path))
    assert made == ["cpu", "cuda"]


def test_without_room_in_the_cache_scoring_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert score(SAMPLES, REFERENCE, projection(), cache=tmp_path) == plain()
    assert not list((tmp_path / "features").iterdir())
