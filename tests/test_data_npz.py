"""npz:PATH and the archives of samples: layouts, labels, and every way to be wrong."""

import zipfile

import numpy as np
import pytest
import torch

from ddpm_bench import files
from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import load_data, read_images
from ddpm_bench.errors import UserError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (4, 8, 8), np.uint8)
COLOUR = RANDOM.integers(0, 256, (4, 8, 8, 3), np.uint8)
LABELS = np.array([0, 1, 1, 0], np.uint8)


def _load(path, **arrays):
    np.savez(path / "set.npz", **arrays)
    return load_data(DataSettings(source=f"npz:{path / 'set.npz'}", size=8))


def test_grey_arrays_get_a_channel_axis(tmp_path):
    data = _load(tmp_path, train=GREY, test=GREY[:2])
    assert np.array_equal(data.train.images.numpy(), GREY[:, None])
    assert (data.shape, len(data.test), data.train.labels, data.classes) == ((1, 8, 8), 2, None, ())


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_come_last_or_first(tmp_path, channels):
    last = COLOUR[..., :channels]
    first = last.transpose(0, 3, 1, 2)
    for arrays in ((last, last), (first, first), (last, first)):
        data = _load(tmp_path, train=arrays[0], test=arrays[1])
        assert np.array_equal(data.train.images.numpy(), first) and np.array_equal(data.test.images.numpy(), first)
        assert data.train.images.is_contiguous()


def test_labels_and_class_names_come_along(tmp_path):
    data = _load(
        tmp_path, train=GREY, test=GREY, train_labels=LABELS, test_labels=LABELS, classes=np.array(["cat", "dog"])
    )
    assert data.train.labels.dtype == torch.int64 and data.test.labels.tolist() == [0, 1, 1, 0]
    assert data.classes == ("cat", "dog")


def test_the_label_of_results_is_the_file_name_unless_given(tmp_path):
    np.savez(tmp_path / "flowers.npz", train=GREY, test=GREY)
    source = f"npz:{tmp_path / 'flowers.npz'}"
    unnamed, named = load_data(DataSettings(source=source)), load_data(DataSettings(source=source, name="oxford-102"))
    assert (unnamed.name, named.name) == ("flowers", "oxford-102")
    assert unnamed.sha256 == named.sha256
    assert load_data(DataSettings(source=source, size=16)).sha256 != named.sha256


def test_other_keys_are_never_opened(tmp_path):
    data = _load(tmp_path, train=GREY, test=GREY, notes=np.array([{"a": 1}], dtype=object))
    assert len(data.train) == 4


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"train": GREY}, r"no array 'test'.*has 'train'"),
        ({"images": GREY}, r"no array 'train'.*has 'images'"),
        ({"train": GREY / 255, "test": GREY}, r"array 'train' of.*is float64.*uint8.*rint"),
        ({"train": GREY, "test": GREY.astype(np.int64)}, r"array 'test' of.*is int64"),
        ({"train": GREY.astype(np.uint16), "test": GREY}, r"array 'train' of.*is uint16"),
        ({"train": GREY[0], "test": GREY}, r"array 'train' of.*shape \(8, 8\)"),
        ({"train": GREY[..., None, None], "test": GREY}, r"array 'train' of.*shape"),
        ({"train": np.zeros((4, 8, 8, 4), np.uint8), "test": GREY}, r"array 'train' of.*1 or 3 channels"),
        ({"train": GREY, "test": GREY[:0]}, r"array 'test' of.*shape \(0, 8, 8\).*at least 1"),
        ({"train": COLOUR, "test": GREY}, r"training images are colour 8x8, test images grey 8x8.*Convert"),
        ({"train": GREY, "test": GREY[:, :4, :4]}, r"grey 8x8, test images grey 4x4"),
        ({"train": GREY, "test": GREY, "train_labels": LABELS}, r"labels for one split only.*'test_labels'"),
        (
            {"train": GREY, "test": GREY, "train_labels": LABELS[:3], "test_labels": LABELS},
            r"array 'train_labels' of.*each of the 4",
        ),
        (
            {"train": GREY, "test": GREY, "classes": np.array("cat")},
            r"array 'classes' of.*shape \(\).*a name for each class",
        ),
        ({"train": GREY, "test": GREY, "classes": np.array([1, 2])}, r"array 'classes' of.*is int64"),
        (
            {"train": GREY, "test": GREY, "train_labels": LABELS / 1, "test_labels": LABELS},
            r"array 'train_labels' of.*float64.*integers",
        ),
        (
            {"train": GREY, "test": GREY, "train_labels": LABELS > 0, "test_labels": LABELS},
            r"array 'train_labels' of.*bool",
        ),
        (
            {"train": GREY, "test": GREY, "train_labels": LABELS, "test_labels": -LABELS.astype(int)},
            r"array 'test_labels' of.*from 0",
        ),
        (
            {"train": GREY, "test": GREY, "train_labels": LABELS, "test_labels": LABELS, "classes": np.array(["cat"])},
            r"label 1 but only 1 'classes'.*every class",
        ),
        (
            {"train": np.array([GREY], dtype=object), "test": GREY},
            r"not a readable .npz archive of plain arrays.*savez",
        ),
    ],
)
def test_a_wrong_array_is_named_with_the_file(tmp_path, arrays, said):
    with pytest.raises(UserError, match=said) as raised:
        _load(tmp_path, **arrays)
    assert "set.npz'" in str(raised.value)


def _truncated(path):
    np.savez_compressed(path, train=GREY, test=GREY)
    path.write_bytes(path.read_bytes()[:-40])


def _corrupt_inside(path):
    np.savez(path, train=GREY, test=GREY)
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)


def _single_array(path):
    with path.open("wb") as stream:
        np.save(stream, GREY)


def _not_arrays(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.npy", "hello")
        archive.writestr("test.npy", "hello")


def _header(text):
    """An archive whose arrays have this header; no more is in them than a few bytes."""

    def make(path):
        member = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + b"abcd"
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("train.npy", "test.npy", "classes.npy"):
                archive.writestr(name, member)

    return make


BROKEN = [
    _header("{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 8, 8)}"),
    _header("{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 8, 8)}"),
    _header("{'descr': '<U0', 'fortran_order': False, 'shape': (1099511627776,)}"),
    _header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"),
    _header("(((" * 90),
    _header("[" * 9000),
    _truncated,
    _corrupt_inside,
    _single_array,
    _not_arrays,
    lambda p: p.write_bytes(b""),
    lambda p: p.write_text("hello"),
    lambda p: p.mkdir(),
]


@pytest.mark.parametrize("make", BROKEN)
def test_an_archive_that_cannot_be_read_is_named_with_the_remedy(tmp_path, make):
    path = tmp_path / "broken.npz"
    make(path)
    with pytest.raises(UserError, match=r"broken\.npz.*(savez|Give the path|a name for each class)"):
        load_data(DataSettings(source=f"npz:{path}"))


def test_a_bomb_is_refused_before_it_unfolds(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, train=np.zeros((2**22, 1, 1), np.uint8), test=GREY)
    monkeypatch.setattr(files, "SMALL", 2**20)
    with pytest.raises(UserError, match=r"bomb\.npz' claims to hold 4,194,4.. bytes in .*more than 100 times"):
        load_data(DataSettings(source=f"npz:{path}"))


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file '.*gone\.npz'.*'train' and 'test'"):
        load_data(DataSettings(source=f"npz:{tmp_path / 'gone.npz'}"))


# Archives of samples, without splits.


def test_samples_are_the_array_called_images_or_else_the_first_of_images(tmp_path):
    path = tmp_path / "samples.npz"
    np.savez(path, other=COLOUR[::-1], images=COLOUR)
    assert np.array_equal(read_images(path).numpy(), COLOUR.transpose(0, 3, 1, 2))
    np.savez(path, arr_0=LABELS, arr_1=COLOUR, arr_2=GREY)
    assert np.array_equal(read_images(path).numpy(), COLOUR.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [({"arr_0": LABELS}, "no array of images.*has 'arr_0'"), ({"images": COLOUR / 255}, "is float64.*rint")],
)
def test_samples_that_are_no_images_are_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "samples.npz", **arrays)
    with pytest.raises(UserError, match=said) as raised:
        read_images(tmp_path / "samples.npz")
    assert "samples.npz'" in str(raised.value)
