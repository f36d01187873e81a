"""npz:PATH and the archives of samples: layouts, labels, and every way to be wrong."""

import zipfile

import numpy as np
import pytest
import torch

from ddpm_bench import files
from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import load_data, read_images
from ddpm_bench.errors import UserError
from ddpm_bench.runtime.observer import noting

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
    unnamed, named = (load_data(DataSettings(source=source, size=8, name=name)) for name in (None, "oxford-102"))
    assert (unnamed.name, named.name) == ("flowers", "oxford-102")
    assert unnamed.sha256 == named.sha256
    assert load_data(DataSettings(source=source, size=16, resize="pad")).sha256 != named.sha256


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
        ({"train": GREY, "test": GREY[:, :5, :5]}, r"grey 8x8, test images grey 5x5"),
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


def _samples(path, **arrays):
    np.savez(path / "samples.npz", **arrays)
    return path / "samples.npz"


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({}, None),
        ({"labels": LABELS, "y": 3}, "'labels' uint8 (4,), 'y' int64 ()"),
        ({"latents": COLOUR / 255}, "'latents' float64 (4, 8, 8, 3)"),
        (
            {"odd\nname": LABELS, "pickled": np.array([{}], dtype=object)},
            r"'odd\nname' uint8 (4,), 'pickled' object (1,)",
        ),
    ],
)
@pytest.mark.parametrize("name", ["images", "arr_0", "samples"])
def test_samples_are_the_only_array_that_can_be_and_what_is_not_used_is_told(tmp_path, name, beside, said):
    path = _samples(tmp_path, **beside, **{name: COLOUR})
    with noting() as notes:
        assert np.array_equal(read_images(path).numpy(), COLOUR.transpose(0, 3, 1, 2))
    assert notes == ([] if said is None else [f"Not used of '{path}': {said}"])


def test_of_two_arrays_that_can_be_images_the_user_chooses(tmp_path):
    path = _samples(tmp_path, real=COLOUR, samples=COLOUR[::-1], labels=LABELS)
    with pytest.raises(
        UserError, match=r"'real' uint8 \(4, 8, 8, 3\), 'samples' uint8 .*--key NAME .*, or.*concatenate"
    ):
        read_images(path)
    with noting() as notes:
        assert np.array_equal(read_images(path, "samples").numpy(), COLOUR[::-1].transpose(0, 3, 1, 2))
    assert "'real'" in notes[0] and "'labels'" in notes[0] and "'samples'" not in notes[0]
    with pytest.raises(UserError, match=r"no array 'sample'; did you mean 'samples'\?"):
        read_images(path, "sample")
    with pytest.raises(UserError, match="names an array of an"):
        read_images(tmp_path, "samples")


@pytest.mark.parametrize("other", [COLOUR[::-1], COLOUR[:, :, :, 0], COLOUR[:, :5, :5]])
def test_the_name_images_is_no_choice_where_another_array_can_be(tmp_path, other):
    with pytest.raises(UserError, match=r"'other' .*'images' .*--key NAME") as raised:
        read_images(_samples(tmp_path, other=other, images=COLOUR))
    assert ("concatenate" in str(raised.value)) is (other.shape == COLOUR.shape)
    with pytest.raises(UserError, match=r"'images' float64.*--key NAME"):
        read_images(_samples(tmp_path, other=other, images=COLOUR / 255))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((20, 30, 3), np.uint8), r"one image of 30x20 pixels and 3 channels, or 20 grey ones of 3x30"),
        (np.zeros((20, 30, 4), np.uint8), r"one image of 30x20 pixels and 4 channels"),
        (np.zeros((3, 20, 30), np.uint8), r"one colour image of 30x20 pixels, or 3 grey ones of that size"),
    ],
)
def test_one_image_is_told_from_many_by_the_user(tmp_path, image, said):
    with pytest.raises(UserError, match=said + r".*x\[None\].*x\[:, None\]"):
        read_images(_samples(tmp_path, image=image))
    assert read_images(_samples(tmp_path, image=image[:, None])).shape[1] == 1


@pytest.mark.parametrize("made_by", ["x / 255", "x / 127.5 - 1", "x.astype(float)", "x.astype('int64')", "x > 127"])
def test_the_hint_pasted_gives_the_levels_of_whatever_was_saved(tmp_path, made_by):
    levels = COLOUR.copy()
    levels.flat[:2] = 0, 255
    given = eval(made_by, {"x": levels})
    with pytest.raises(UserError, match="Scale and round") as raised:
        read_images(_samples(tmp_path, images=given))
    hint = str(raised.value).partition("before saving: ")[2].rstrip(".")
    made = eval(hint, {"x": given, "numpy": np})
    assert made.dtype == np.uint8
    assert np.array_equal(made, levels if made_by != "x > 127" else 255 * (levels > 127))


def test_the_hint_names_every_range_where_none_is_clear_and_what_is_no_level(tmp_path):
    with pytest.raises(UserError, match=r"from -1\.25 to 2") as raised:
        read_images(_samples(tmp_path, images=np.linspace(-1.25, 2, 4 * 8 * 8).reshape(4, 8, 8)))
    for said in ("255.0), 0, 255).astype('uint8') for values in [0, 1]", "for values in [-1, 1]"):
        assert said in str(raised.value)
    with pytest.raises(UserError, match="not finite"):
        read_images(_samples(tmp_path, images=np.full((4, 8, 8), np.nan)))


def test_arrays_of_a_data_set_that_are_not_used_are_told(tmp_path):
    data = _load(tmp_path, train=GREY, test=GREY, val=GREY, latents=COLOUR / 1)
    assert data.notes == (
        f"Not used of '{tmp_path / 'set.npz'}': 'val' uint8 (4, 8, 8), 'latents' float64 (4, 8, 8, 3)",
    )


def test_what_is_no_array_is_passed_over_and_told(tmp_path):
    path = _samples(tmp_path, images=COLOUR)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "hello")
    with noting() as notes:
        assert len(read_images(path)) == 4
    assert notes == [f"Not used of '{path}': 'README.txt' (no array)"]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [({"arr_0": LABELS}, "no array of images.*has 'arr_0'"), ({"images": COLOUR / 255}, "is float64.*rint")],
)
def test_samples_that_are_no_images_are_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "samples.npz", **arrays)
    with pytest.raises(UserError, match=said) as raised:
        read_images(tmp_path / "samples.npz")
    assert "samples.npz'" in str(raised.value)
