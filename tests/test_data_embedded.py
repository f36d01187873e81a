"""The data set inside the package: what it is, that it is not changed, and that its script repeats itself."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import load_data, npz
from ddpm_bench.data.embedded import make_fashion_mnist as script
from ddpm_bench.errors import UserError


@pytest.fixture(scope="module")
def data():
    return load_data(DataSettings(source="embedded", size=28))


def test_it_has_a_thousand_training_and_two_hundred_test_images_of_each_class(data):
    assert data.train.labels.bincount().tolist() == [1000] * 10
    assert data.test.labels.bincount().tolist() == [200] * 10
    assert data.shape == (1, 28, 28)
    assert data.train.images.dtype == torch.uint8 and data.train.labels.dtype == torch.int64


def test_it_keeps_the_official_order_and_class_names(data):
    # The first labels of the official files are known.
    assert data.train.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert data.test.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert len(data.classes) == 10 and (data.classes[0], data.classes[9]) == ("T-shirt/top", "Ankle boot")


def test_its_label_says_that_it_is_a_subset_and_its_pixels_never_change(data):
    assert data.name == "fashion-mnist-10k"
    assert data.sha256 == "6281e9e6c935703db8974c975db5a09b007a2b6dce9d3d1ff7157d3004e5ba41"


def test_training_and_test_images_are_different_ones(data):
    train, test = ({image.numpy().tobytes() for image in split.images} for split in (data.train, data.test))
    assert len(train) == 10_000 and len(test) == 2_000 and not train & test


def test_the_file_is_at_most_six_megabytes_and_its_card_states_hash_and_licence():
    assert npz.EMBEDDED.stat().st_size <= 6_000_000
    card = npz.EMBEDDED.with_name("README.md").read_text(encoding="utf-8")
    for said in (npz.EMBEDDED_SHA256, npz.EMBEDDED.name, "MIT License", "Zalando", "arXiv:1708.07747"):
        assert said in card


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:999] + bytes([b[999] ^ 1]) + b[1000:], lambda b: b""]
)
def test_a_changed_file_is_refused_by_name(tmp_path, monkeypatch, damage):
    changed = tmp_path / "fashion.npz"
    changed.write_bytes(damage(npz.EMBEDDED.read_bytes()))
    monkeypatch.setattr(npz, "EMBEDDED", changed)
    with pytest.raises(UserError, match=r"fashion\.npz' is damaged.*SHA-256.*Install"):
        load_data(DataSettings())


def test_a_missing_file_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "EMBEDDED", tmp_path / "gone.npz")
    with pytest.raises(UserError, match=r"gone\.npz' cannot be read.*Install"):
        load_data(DataSettings())


# The script, on tiny official-looking files.


def _write_official(folder, per_class=3):
    """Four idx files of 2x2 images: class c's k-th image has the level 10 c + k; returns their content hashes."""
    sha256 = {}
    for prefix in ("train", "t10k"):
        labels = np.array([k % 10 for k in range(10 * per_class)], np.uint8)[::-1]
        images = np.array([np.full((2, 2), 10 * label + k // 10) for k, label in enumerate(labels)], np.uint8)
        files = {
            f"{prefix}-images-idx3-ubyte": b"\0\0\x08\x03" + struct.pack(">3I", *images.shape) + images.tobytes(),
            f"{prefix}-labels-idx1-ubyte": b"\0\0\x08\x01" + struct.pack(">I", len(labels)) + labels.tobytes(),
        }
        for name, content in files.items():
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            sha256[name] = hashlib.sha256(content).hexdigest()
    return sha256


def test_the_script_takes_the_first_images_of_each_class_in_their_order(tmp_path):
    official = script.read_official(tmp_path, _write_official(tmp_path))
    arrays = script.subset(official, 2, 1)
    assert arrays["train_labels"].tolist() == list(range(9, -1, -1)) * 2
    assert arrays["test_labels"].tolist() == list(range(9, -1, -1))
    assert arrays["train"][:, 0, 0].tolist() == [10 * c for c in range(9, -1, -1)] + [
        10 * c + 1 for c in range(9, -1, -1)
    ]


def test_packing_gives_the_same_bytes_each_time_and_what_the_npz_source_reads(tmp_path):
    arrays = script.subset(script.read_official(tmp_path, _write_official(tmp_path)), 2, 1)
    packed = script.pack(arrays)
    assert script.pack({name: array.copy(order="F") for name, array in arrays.items()}) == packed
    assert hashlib.sha256(packed).hexdigest() == "2640f648fe7c0b6b142929e091a6b3f15dbdb779760419bea05908d7d1f7f98c"
    (tmp_path / "small.npz").write_bytes(packed)
    loaded = npz.load_npz(tmp_path / "small.npz")
    assert np.array_equal(loaded.train.images[:, 0].numpy(), arrays["train"])
    assert loaded.classes == script.CLASSES


def test_the_script_refuses_files_that_are_not_the_official_ones(tmp_path, capsys):
    _write_official(tmp_path)
    assert script.main([str(tmp_path), str(tmp_path / "out.npz")]) == 1
    assert "not the official" in capsys.readouterr().err
    assert script.main([str(tmp_path / "nowhere"), str(tmp_path / "out.npz")]) == 1
    assert not (tmp_path / "out.npz").exists()
    assert script.main([]) == 2


def test_an_idx_file_of_another_type_is_refused():
    with pytest.raises(ValueError, match="idx"):
        script.read_idx(b"\0\0\x0d\x01" + bytes(8))
