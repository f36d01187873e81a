"""The shipped extractor, and training one's own."""

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_bench.config.settings import DataSettings, ScoringSettings
from ddpm_bench.data import load_data
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.metrics import extractors
from ddpm_bench.metrics.embedded import ExtractorTraining, train_extractor
from ddpm_bench.metrics.extractors import SHIPPED_SHA256, load_extractor
from ddpm_bench.metrics.fidelity import score
from ddpm_bench.metrics.small_cnn import SHIPPED, Card, card_path, read_card
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.runtime import Runtime

# --- the shipped one --------------------------------------------------------------------------------------------------


def test_the_shipped_card_reports_the_required_accuracies_of_fashion_mnists_ten_classes():
    card = read_card(SHIPPED)
    assert card.sizes == (16, 32) and card.channels == 1 and len(card.classes) == 10
    assert card.test_accuracy[32] >= 0.92 and card.test_accuracy[16] >= 0.88
    assert (card.name, card.data_name, card.train_images, card.test_images) == (
        "fashion-mnist",
        "fashion-mnist",
        60_000,
        10_000,
    )
    assert SHIPPED.stat().st_size <= 2_000_000
    assert card.sha256 == SHIPPED_SHA256 == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()


@pytest.mark.parametrize("size", [16, 32])
def test_the_shipped_extractor_is_as_accurate_on_the_embedded_test_images_as_its_card_says(size, tmp_path):
    test = load_data(DataSettings(size=size, resize="average")).test
    network = load_extractor("embedded", size=size, cache=tmp_path).network
    with torch.no_grad():
        features, logits = network(test.images)
    right = (logits.argmax(1) == test.labels).double().mean().item()
    assert right == pytest.approx(
        read_card(SHIPPED).test_accuracy[size], abs=0.02
    )  # 3.3 standard errors of 2,000 images
    assert torch.equal(logits, network.classify(features)) and network.classify.bias is None  # trap 7: unbiased logits
    assert np.linalg.matrix_rank(np.cov(features[:512].double().numpy(), rowvar=False)) == 64


def test_the_shipped_extractors_numbers_are_never_called_fid_or_is(tmp_path):
    info = load_extractor("embedded", size=32, cache=tmp_path).info
    assert info.labels == ("FD (embedded)", "IS (embedded)")
    assert (info.name, info.verified, info.feature_dim, info.sha256) == ("embedded", True, 64, SHIPPED_SHA256)


def test_a_size_that_it_was_not_made_for_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"'embedded' was made for images of 16 or 32 pixels a side, not for 28x28.*--sizes 28"
    ):
        load_extractor("embedded", size=28, cache=tmp_path)


class Placed(torch.nn.Module):
    """A network that knows where it is, wherever that would be."""

    place = "cuda:1"

    def to(self, place: str) -> "Placed":
        self.place = place
        return self


def test_for_another_process_which_may_see_other_gpus_the_network_is_on_the_cpu(tmp_path):
    given = replace(load_extractor("embedded", cache=tmp_path), network=Placed())
    sent = pickle.loads(pickle.dumps(given))
    assert sent.network.place == "cpu" and sent.info == given.info


def test_a_damaged_installation_is_noticed(tmp_path, monkeypatch):
    copy = tmp_path / "extractor.safetensors"
    content = bytearray(SHIPPED.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    copy.with_suffix(".json").write_bytes(SHIPPED.with_suffix(".json").read_bytes())
    monkeypatch.setattr(extractors, "SHIPPED", copy)
    with pytest.raises(UserError, match=r"is damaged.*Install ddpm-bench again"):
        load_extractor("embedded", cache=tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_card_with_a_byte_order_mark_is_read(tmp_path, encoding):
    copy = tmp_path / SHIPPED.name
    card_path(copy).write_text(card_path(SHIPPED).read_text(encoding="utf-8"), encoding=encoding)
    assert read_card(copy) == read_card(SHIPPED)
    card_path(copy).write_bytes(b"\xff{}")
    with pytest.raises(UserError, match="not the card of an extractor"):
        read_card(copy)


# --- one's own --------------------------------------------------------------------------------------------------------


def stripes(n: int, seed: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Noise with bright rows (class 0) or bright columns (class 1), uint8 (n, channels, 12, 12), and labels."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 120, (n, channels, 12, 12), dtype=np.uint8)
    labels = np.arange(n) % 2
    pixels[labels == 0, :, ::4] += 100
    pixels[labels == 1, :, :, ::4] += 100
    return pixels, labels


def save_set(
    path: Path, *, channels: int = 3, labelled: bool = True, test_seed: int = 1, test_labels: np.ndarray | None = None
) -> str:
    """An npz data set of stripes; returns its name as a source."""
    (train, of_train), (test, of_test) = stripes(96, 0, channels), stripes(40, test_seed, channels)
    of_test = of_test if test_labels is None else test_labels
    labels = {"train_labels": of_train, "test_labels": of_test, "classes": np.array(["rows", "columns"])}
    np.savez(path, train=train, test=test, **(labels if labelled else {}))
    return f"npz:{path}"


def train(source: str, out: Path, **training) -> Card:
    return train_extractor(source, out, ExtractorTraining(**training), Runtime())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extractor")
    out = folder / "stripes.safetensors"
    card = train(
        save_set(folder / "stripes.npz"),
        out,
        name="stripes",
        sizes=(12, 16),
        resize="pad",
        epochs=12,
        batch=16,
        seed=3,
    )
    return out, card


def test_training_learns_colour_images_at_every_size_and_writes_a_card(trained):
    out, card = trained
    assert card.test_accuracy == {12: 1.0, 16: 1.0}
    assert read_card(out) == card
    assert (card.name, card.channels, card.sizes, card.seed) == ("stripes", 3, (12, 16), 3)
    assert card.classes == ("rows", "columns")
    assert (card.train_images, card.test_images, card.steps) == (96, 40, 72)
    source = f"npz:{out.with_suffix('.npz')}"
    assert card.data_sha256 == {
        size: load_data(DataSettings(source=source, size=size, resize="pad")).sha256 for size in (12, 16)
    }


def test_a_trained_extractor_scores_under_its_own_name_and_hash(trained, tmp_path):
    out, card = trained
    extractor = load_extractor(str(out), size=16, cache=tmp_path)
    assert extractor.info.labels == ("FD (stripes)", "IS (stripes)")
    assert extractor.info.sha256 == hashlib.sha256(out.read_bytes()).hexdigest() == card.sha256
    data = load_data(DataSettings(source=f"npz:{out.with_suffix('.npz')}", size=16, resize="pad"))
    found = score(data.test.images, data.train.images, extractor, ScoringSettings(), Runtime())
    noise = torch.randint(0, 256, data.test.images.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    of_noise = score(noise, data.train.images, extractor, ScoringSettings(), Runtime())
    assert found["fd_train"] < of_noise["fd_train"]
    assert found["is_mean"] > 1.5  # of two classes
    with pytest.raises(UserError, match=r"12 or 16 pixels"):
        load_extractor(str(out), size=32, cache=tmp_path)


def test_training_repeats_exactly_and_depends_on_the_seed_but_not_on_the_test_images(tmp_path):
    def weights(number: int, seed: int, **test) -> bytes:
        source = save_set(tmp_path / f"{number}.npz", channels=1, **test)
        out = tmp_path / f"{number}.safetensors"
        train(source, out, name="x", sizes=(12,), epochs=1, batch=32, seed=seed)
        return out.read_bytes()

    random_state = torch.get_rng_state()
    first = weights(0, 5)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert weights(1, 5, test_seed=9, test_labels=np.zeros(40, dtype=np.int64)) == first
    assert weights(2, 6) != first


def test_training_refuses_what_it_cannot_learn_from(tmp_path):
    out = tmp_path / "x.safetensors"
    with pytest.raises(UserError, match=r"has no labels.*one folder for each class"):
        train(save_set(tmp_path / "plain.npz", labelled=False), out, name="x", sizes=(12,))
    with pytest.raises(UserError, match=r".safetensors file, not"):
        train("embedded", tmp_path / "x.pt", name="x")
    with pytest.raises(UserError, match=r"from 8 to 1024 pixels"):
        train("embedded", out, name="x", sizes=(4,))
    for name in ("inception", "efficientnet-lite0", "embedded", " "):
        with pytest.raises(UserError, match=f"cannot have the name '{name}'"):
            train(save_set(tmp_path / "named.npz"), out, name=name, sizes=(12,))
    one = tmp_path / "one.npz"
    pixels = stripes(12, 0)[0]
    np.savez(one, train=pixels, test=pixels, train_labels=np.zeros(12, int), test_labels=np.zeros(12, int))
    with pytest.raises(UserError, match=r"one class only"):
        train(f"npz:{one}", out, name="x", sizes=(12,))
    assert not out.exists()


def test_an_interrupted_training_leaves_the_extractor_that_was_there(tmp_path):
    out = tmp_path / "x.safetensors"
    out.write_bytes(b"before")
    source = save_set(tmp_path / "set.npz")
    with Stop() as stop:
        stop.requested = True
        with pytest.raises(Interrupted):
            train(source, out, name="x", sizes=(12,))
    assert out.read_bytes() == b"before" and sorted(p.name for p in tmp_path.iterdir()) == ["set.npz", "x.safetensors"]


def copied(trained, folder: Path, **changes) -> tuple[Path, dict]:
    """The trained extractor once more, its card changed."""
    out = folder / "copy.safetensors"
    out.write_bytes(trained[0].read_bytes())
    card = json.loads(trained[0].with_suffix(".json").read_text()) | changes
    out.with_suffix(".json").write_text(json.dumps(card))
    return out, card


def test_weights_that_are_not_those_of_the_card_are_refused(trained, tmp_path):
    out, _ = copied(trained, tmp_path)
    out.write_bytes(out.read_bytes() + b"?")
    with pytest.raises(UserError, match=r"SHA-256.*expected"):
        load_extractor(str(out), cache=tmp_path)
    out, _ = copied(trained, tmp_path, channels=1)
    with pytest.raises(UserError, match=r"do not fit its card"):
        load_extractor(str(out), cache=tmp_path)
    other = b"not safetensors"
    out, _ = copied(trained, tmp_path, sha256=hashlib.sha256(other).hexdigest())
    out.write_bytes(other)
    with pytest.raises(UserError, match=r"do not fit its card"):
        load_extractor(str(out), cache=tmp_path)


@pytest.mark.parametrize(
    "changes", [{"sizes": [12, 16] * 500}, {"sizes": [0]}, {"feature_dim": 65}, {"classes": ["a"] * 9}]
)
def test_a_card_of_another_network_than_its_weights_is_refused(trained, tmp_path, changes):
    out, _ = copied(trained, tmp_path, **changes)
    with pytest.raises(UserError, match=r"not the card of an extractor|do not fit its card"):
        load_extractor(str(out), cache=tmp_path)


@pytest.mark.parametrize("name", ["inception", "efficientnet-lite0", "embedded"])
def test_nobody_elses_extractor_goes_by_a_name_of_the_package(trained, tmp_path, name):
    out, _ = copied(trained, tmp_path, name=name)
    with pytest.raises(UserError, match=rf"calls itself '{name}'"):
        load_extractor(str(out), cache=tmp_path)


def test_a_missing_or_foreign_extractor_is_named(trained, tmp_path):
    with pytest.raises(UserError, match=r"no extractor at '.*none.safetensors'"):
        load_extractor(str(tmp_path / "none.safetensors"), cache=tmp_path)
    with pytest.raises(UserError, match=r"Unknown extractor 'incepton'.*did you mean 'inception'"):
        load_extractor("incepton", cache=tmp_path)
    out, _ = copied(trained, tmp_path, format="something else")
    with pytest.raises(UserError, match=r"not the card of an extractor"):
        load_extractor(str(out), cache=tmp_path)
