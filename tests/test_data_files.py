"""folder:PATH, and images as files: what is read is what is stored, and everything else is refused by name."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from ddpm_bench import files
from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import image_files, load_data, read_images
from ddpm_bench.errors import UserError

RANDOM = np.random.default_rng(0)


def _pixels(*shape):
    return RANDOM.integers(0, 256, shape, np.uint8)


def _save(path, pixels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = _pixels(8, 8, 3) if pixels is None else pixels
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def _folder(path, **options):
    return load_data(DataSettings(source=f"folder:{path}", size=8, **options))


@pytest.fixture
def classes(tmp_path):
    """pets/train/{ant,bee}/0..2.png and pets/test/{ant,bee}/0.png, each image of one colour."""
    for split, count in (("train", 3), ("test", 1)):
        for label, name in enumerate(("bee", "ant")):
            for index in range(count):
                _save(
                    tmp_path / "pets" / split / name / f"{index}.png", np.full((8, 8, 3), 100 * label + index, np.uint8)
                )
    return tmp_path / "pets"


def test_class_folders_give_labels_in_sorted_order(classes):
    data = _folder(classes)
    assert data.classes == ("ant", "bee")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and data.test.labels.tolist() == [0, 1]
    assert data.train.images[:, 0, 0, 0].tolist() == [100, 101, 102, 0, 1, 2]
    assert (data.name, data.shape) == ("pets", (3, 8, 8))


def test_the_label_of_results_can_be_given(classes):
    assert _folder(classes, name="cifar10-jpeg").name == "cifar10-jpeg"


def test_folders_without_classes_have_no_labels(tmp_path):
    stored = _pixels(5, 8, 8)
    for index in range(5):
        _save(tmp_path / ("train" if index < 3 else "test") / f"{index}.png", stored[index])
    data = _folder(tmp_path)
    assert (data.train.labels, data.test.labels, data.classes, data.shape) == (None, None, (), (1, 8, 8))
    assert np.array_equal(torch.cat([data.train.images, data.test.images])[:, 0].numpy(), stored)


def test_files_are_read_in_sorted_order_whatever_order_they_were_made_in(tmp_path):
    for index in (3, 0, 2, 1):
        _save(tmp_path / f"{index}.png", np.full((8, 8), index, np.uint8))
    assert read_images(tmp_path)[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("PNG", {}), ("webp", {"lossless": True})])
def test_lossless_formats_are_read_exactly(tmp_path, suffix, options):
    stored = _pixels(8, 8, 3)
    _save(tmp_path / f"a.{suffix}", stored, **options)
    assert np.array_equal(read_images(tmp_path)[0].permute(1, 2, 0).numpy(), stored)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_lossy_formats_are_read_as_their_decoder_gives_them(tmp_path, suffix):
    path = _save(tmp_path / f"a.{suffix}", np.full((8, 8, 3), (200, 100, 50), np.uint8))
    images = read_images(tmp_path)
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))
    assert images.dtype == torch.uint8


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    stored, exif = np.zeros((4, 8), np.uint8), Image.Exif()
    stored[0] = 255
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    _save(tmp_path / "a.png", stored, exif=exif)
    images = read_images(tmp_path)
    assert images.shape == (1, 1, 8, 4)
    assert images[0, 0, :, 3].tolist() == [255] * 8


def test_files_that_are_no_images_and_hidden_ones_are_passed_over(classes):
    (classes / "train" / "README.txt").write_text("about")
    (classes / "train" / "ant" / "Thumbs.db").write_bytes(b"x")
    (classes / "train" / "ant" / "._0.png").write_bytes(b"x")
    (classes / "train" / ".cache").mkdir()
    assert len(_folder(classes).train) == 6


# What is refused: each message names the file.


def _png(width, height, colour, rows, depth=8):
    """A PNG file of these bytes of pixels, in a header of these sizes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _sixteen_bit_colour(path):
    """A 16-bit RGB PNG: Pillow cannot write one, and would read it as 8 bits without a word."""
    path.write_bytes(_png(8, 8, 2, (b"\0" + bytes(8 * 6)) * 8, depth=16))


def _colour_key(path):
    _save(path, transparency=(1, 2, 3))


def _truncated(path):
    _save(path)
    path.write_bytes(path.read_bytes()[:100])


def _corrupt(path):
    _save(path)
    content = bytearray(path.read_bytes())
    content[60] ^= 255
    path.write_bytes(content)


WRONG = {
    "16 bits grey": (lambda path: _save(path, RANDOM.integers(0, 65536, (8, 8), np.uint16)), "16 bits"),
    "16 bits colour": (_sixteen_bit_colour, "16 bits"),
    "palette": (lambda path: _save(path, Image.fromarray(_pixels(8, 8, 3)).convert("P")), "palette"),
    "alpha": (lambda path: _save(path, _pixels(8, 8, 4)), "transparency"),
    "grey and alpha": (lambda path: _save(path, Image.fromarray(_pixels(8, 8)).convert("LA")), "transparency"),
    "colour key": (_colour_key, "transparency"),
    "one bit": (lambda path: _save(path, Image.new("1", (8, 8))), "mode 1"),
    "CMYK": (lambda path: _save(path, Image.new("CMYK", (8, 8)), format="JPEG"), "mode CMYK"),
    "animated": (
        lambda path: _save(path, save_all=True, append_images=[Image.fromarray(_pixels(8, 8, 3))], format="PNG"),
        "animated",
    ),
    "empty file": (lambda path: path.write_bytes(b""), "not a PNG, JPEG or WebP"),
    "text": (lambda path: path.write_text("hello"), "not a PNG, JPEG or WebP"),
    "another format": (lambda path: _save(path, format="GIF"), "not a PNG, JPEG or WebP"),
    "a named pipe": (os.mkfifo, "no regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    "a link to nothing": (lambda path: path.symlink_to("nothing"), "cannot be read"),
    "too many pixels": (
        lambda path: path.write_bytes(_png(10_000, 8_950, 2, b"")),
        "claims to hold 268,500,000 bytes in",
    ),
    "truncated": (_truncated, "cannot be read"),
    "corrupt": (_corrupt, "cannot be read"),
    "another size": (lambda path: _save(path, _pixels(8, 9, 3)), r"colour 9x8, but '.*a\.png' is colour 8x8"),
    "grey among colour": (lambda path: _save(path, _pixels(8, 8)), r"grey 8x8, but '.*a\.png' is colour 8x8"),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_unfit_image_among_good_ones_is_named_with_the_remedy(tmp_path, what):
    make, said = WRONG[what]
    _save(tmp_path / "a.png")
    make(tmp_path / "b.png")
    _save(tmp_path / "c.png")
    with pytest.raises(UserError, match=rf"b\.png'.*{said}.*([Cc]onvert|[Rr]eplace)"):
        read_images(tmp_path)


def test_a_folder_of_images_that_unfold_beyond_measure_is_refused(tmp_path, monkeypatch):
    for name in "ab":
        _save(tmp_path / f"{name}.png", np.zeros((512, 512), np.uint8))
    monkeypatch.setattr(files, "SMALL", 2**18)
    with pytest.raises(UserError, match=r"The folder '.*' claims to hold 524,288 bytes in"):
        read_images(tmp_path)


def _read_or_refused(path, content):
    """What is read from `path` when it has this content; None if it is refused by its name, as it should be."""
    path.write_bytes(content)
    try:
        return read_images(path.parent)
    except UserError as error:
        assert path.name in str(error)
        return None


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_truncated_image_is_refused_or_whole_and_never_changed(tmp_path, suffix):
    path = _save(tmp_path / f"a.{suffix}")
    content, whole = path.read_bytes(), read_images(tmp_path)
    read = [_read_or_refused(path, content[:length]) for length in range(0, len(content), 3)]
    assert all(images is None or torch.equal(images, whole) for images in read)
    assert sum(images is None for images in read) > 0.9 * len(
        read
    )  # a PNG may miss its end mark and still have all pixels


def test_a_flipped_bit_in_a_png_is_refused_or_harmless_and_never_changes_pixels(tmp_path):
    path = _save(tmp_path / "a.png")
    content, whole = path.read_bytes(), read_images(tmp_path)
    for index in range(len(content)):
        flipped = bytearray(content)
        flipped[index] ^= 1 << index % 8
        images = _read_or_refused(path, bytes(flipped))
        assert images is None or torch.equal(images, whole)


def test_an_unreadable_text_chunk_bomb_is_an_error_too(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    _save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(UserError, match=r"a\.png' cannot be read"):
        read_images(tmp_path)


def test_colour_training_and_grey_test_images_are_refused(tmp_path):
    _save(tmp_path / "train" / "a.png")
    _save(tmp_path / "test" / "a.png", _pixels(8, 8))
    with pytest.raises(
        UserError, match=rf"{tmp_path.name}' differ: training images are colour 8x8, test images grey 8x8.*Convert"
    ):
        _folder(tmp_path)


def test_images_of_another_size_are_refused_with_their_source(tmp_path):
    for split in ("train", "test"):
        _save(tmp_path / split / "a.png", _pixels(9, 9))
    with pytest.raises(UserError, match=rf"folder:.*{tmp_path.name}.*9x9.*8x8 are wanted.*resize"):
        _folder(tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda root: (root / "test").rename(root / "val"),
            r"no folder '.*pets/test'.*holds: train, val. It needs 'train' and 'test'",
        ),
        (lambda root: root.rename(root.with_name("else")), r"no folder '.*pets'.*'train' and 'test'"),
        (lambda root: [p.unlink() for p in (root / "test").rglob("*.png")], r"pets/test' holds no images"),
        (lambda root: (root / "test" / "ant").rename(root / "test" / "cow"), r"'train/ant' but no 'test/ant'"),
        (lambda root: (root / "test" / "cow").mkdir(), r"'test/cow' but no 'train/cow'"),
        (
            lambda root: _save(root / "train" / "a.png"),
            r"pets/train' holds both images \('a\.png'\) and folders \('ant'\)",
        ),
        (lambda root: (root / "train" / "ant" / "more").mkdir(), r"train/ant' holds a folder 'more'"),
        (lambda root: _save(root / "train" / "ant" / "a.bmp"), r"ant/a\.bmp'.*format that is not read.*Convert"),
    ],
)
def test_an_unfit_folder_is_named_with_the_remedy(classes, damage, said):
    damage(classes)
    with pytest.raises(UserError, match=said):
        _folder(classes)


def test_folders_are_checked_before_any_image_is_read(classes, monkeypatch):
    (classes / "test" / "cow").mkdir()
    monkeypatch.setattr(image_files, "_read_file", lambda path: pytest.fail("an image was read"))
    with pytest.raises(UserError, match="cow"):
        _folder(classes)


def test_a_file_where_a_folder_is_due_is_refused(tmp_path):
    _save(tmp_path / "train.png")
    (tmp_path / "train").write_text("no folder")
    for source, said in (
        (f"folder:{tmp_path}", "no folder '.*train'.*holds: train, train.png"),
        (f"folder:{tmp_path / 'train.png'}", "no folder"),
    ):
        with pytest.raises(UserError, match=said):
            load_data(DataSettings(source=source))
    with pytest.raises(UserError, match=r"train\.png' is neither a folder nor"):
        read_images(tmp_path / "train.png")
    with pytest.raises(UserError, match="nothing at"):
        read_images(tmp_path / "gone")


def test_long_reads_show_progress_and_short_ones_do_not(tmp_path, monkeypatch):
    shown = []

    class Meter:
        def update(self, done):
            shown.append(done)

    class Context:
        def __init__(self, *what):
            shown.append(what)

        def __enter__(self):
            return Meter()

        def __exit__(self, *_):
            shown.append("closed")

    monkeypatch.setattr(image_files, "progress", Context)
    for index in range(3):
        _save(tmp_path / f"{index}.png")
    read_images(tmp_path)
    assert shown == []
    monkeypatch.setattr(image_files, "PATIENCE_S", -1.0)
    read_images(tmp_path)
    assert shown == [("Reading images", 3, "images", 1), 1, 2, 3, "closed"]
