"""`npz:PATH`: a data set in one NumPy archive, and fashion-mnist-10k (`embedded`), which is one that the package brings.

Keys: `train` and `test`, uint8, (N, H, W) for grey or (N, H, W, C) or (N, C, H, W) with C = 1 or 3; where there are
labels, `train_labels` and `test_labels`, integers (N,) from 0; and, if they have names, `classes`, text (K,).
Other arrays are not used, which is said. Nothing in an archive is unpickled.
"""

import contextlib
import functools
import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.data.images import Split
from ddpm_bench.data.loaded import Loaded, check_alike
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.files import check_unfolding
from ddpm_bench.runtime.observer import say
from ddpm_bench.text import brief

SCALINGS = {
    (0, 1): "numpy.clip(numpy.rint(x * 255.0), 0, 255).astype('uint8')",
    (-1, 1): "numpy.clip(numpy.rint((x + 1) * 127.5), 0, 255).astype('uint8')",
    (0, 255): "numpy.clip(numpy.rint(x), 0, 255).astype('uint8')",
}
"""How values of a range become levels; the narrowest range first."""
NARROW = (1, 3, 4)
"""Channels of images that people have; images so narrow there are none."""

EMBEDDED = Path(__file__).with_name("embedded") / "fashion-mnist-10k.npz"
EMBEDDED_SHA256 = "b62a168cfb6cf8720e421ca1ec5a8e25c8a5808350816cac2116d75d6b6f29c9"

KEYS = ("train", "test", "train_labels", "test_labels", "classes")
"""Of a data set."""
LISTED = 12
"""Arrays that a message names at most."""
UNREADABLE = (
    EOFError, LZMAError, MemoryError, OSError, OverflowError, RuntimeError, SyntaxError, TokenError, TypeError, ValueError,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What damage makes of the archive's reader, its unpackers, and NumPy's, which reads a header as Python's own text."""


def load_embedded() -> Loaded:
    """The package's Fashion-MNIST subset, read only if its SHA-256 is the one pinned here; see embedded/README.md."""
    try:
        content = EMBEDDED.read_bytes()
    except OSError as error:
        raise UserError(
            f"The package's own data set '{EMBEDDED}' cannot be read ({error.strerror}). Install ddpm-bench again."
        ) from error
    if (found := hashlib.sha256(content).hexdigest()) != EMBEDDED_SHA256:
        raise UserError(
            f"The package's own data set '{EMBEDDED}' is damaged or changed: its SHA-256 is {found}, not {EMBEDDED_SHA256}. "
            "Install ddpm-bench again."
        )
    with _archive(io.BytesIO(content), EMBEDDED) as archive:
        return _data_set(archive, EMBEDDED)


def load_npz(path: Path) -> Loaded:
    """The data set in the archive `path`. UserError for anything that is not as the module's text says."""
    if not path.is_file():
        raise UserError(
            f"There is no file '{path}'. Give the path of an .npz archive with the arrays 'train' and 'test'."
        )
    with _archive(path, path) as archive:
        return _data_set(archive, path)


def read_npz(path: Path, key: str | None = None) -> Tensor:
    """The images in an archive of samples, uint8 (N, C, H, W): the array `key`, or else the only one that can be images,
    which is one of uint8 with 3 or 4 axes, or one named `images`. What is not used is said. UserError where several can be."""
    with _archive(path, path) as archive:
        chosen = _chosen(archive, key)
        images = _images(archive.array(chosen), chosen, path)
        archive.say_unused({chosen})
        return images


def _chosen(archive: "Archive", key: str | None) -> str:
    """The name of the array of images."""
    if key is not None:
        if key not in archive.members:
            raise UserError(f"'{archive.path}' has no array {brief(key)}{near_miss(key, archive.members)}")
        return key
    headers = {name: header for name, header in archive.headers.items() if header}
    candidates = [name for name, header in headers.items() if header.may_be_images or name == "images"]
    # Where no array can be, what will be said of one with as many axes helps more than that there is none.
    candidates = candidates or [name for name, header in headers.items() if len(header.shape) in (3, 4)]
    if not candidates:
        raise UserError(f"'{archive.path}' holds no array of images, uint8 (N, H, W, C); it has {archive.listing()}.")
    if len(candidates) > 1:
        raise UserError(_several(archive, candidates))
    return candidates[0]


def _several(archive: "Archive", candidates: list[str]) -> str:
    """What to say of an archive in which more than one array may be the images."""
    headers = [archive.headers[name] for name in candidates]
    alike = len({header and (header.dtype, header.shape[1:]) for header in headers}) == 1
    return (
        f"'{archive.path}' holds more than one array that may be the images: {archive.listing(candidates)}. "
        "Choose one with --key NAME (of a --reference: --reference-key NAME)"
        + (", or, if they are batches of one set, join them by numpy.concatenate and save that." if alike else ".")
    )


@dataclass(frozen=True)
class Header:
    """What an array is, as its header says."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def may_be_images(self) -> bool:
        return self.dtype == np.uint8 and len(self.shape) in (3, 4)

    def __str__(self) -> str:
        return f"{str(self.dtype)[:60]} {self.shape}"  # a structure names its fields, however many


class Archive:
    """The arrays of an .npz archive by name; each is read, and unfolds, only when it is asked for."""

    def __init__(self, opened: zipfile.ZipFile, path: Path) -> None:
        self.opened, self.path, self.unfolded = opened, path, 0
        self.members = {name.removesuffix(".npy"): name for name in opened.namelist()}

    def array(self, name: str) -> np.ndarray:
        """One array; nothing is unpickled. Of what it claims to hold no more than is there takes memory."""
        member = self.opened.getinfo(self.members[name])
        self.unfolded += member.file_size
        check_unfolding(self.unfolded, self.path.stat().st_size, f"'{self.path}'")
        with self.opened.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    @functools.cached_property
    def headers(self) -> dict[str, Header | None]:
        """What each array is; None where a member of the archive is none."""
        return {name: self._header(member) for name, member in self.members.items()}

    def _header(self, member: str) -> Header | None:
        with self.opened.open(member) as stream:
            try:
                version = np.lib.format.read_magic(stream)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
                    version
                ]
                shape, _, dtype = read(stream)
            except (*UNREADABLE, KeyError):
                return None
        return Header(shape, dtype)

    def listing(self, names: Iterable[str] | None = None) -> str:
        """The arrays, or some of them, with what they are."""
        told = [
            f"{brief(name)} {self.headers[name] or '(no array)'}" for name in (self.members if names is None else names)
        ]
        return ", ".join(told[:LISTED] + ["..."] * (len(told) > LISTED)) or "no arrays"

    def say_unused(self, used: Collection[str]) -> None:
        """Say which arrays are there beside those that are used."""
        if unused := [name for name in self.members if name not in used]:
            say(f"Not used of '{self.path}': {self.listing(unused)}")


@contextlib.contextmanager
def _archive(stream: Path | io.BytesIO, path: Path) -> Iterator[Archive]:
    """The opened archive; whatever cannot be read from it while it is open becomes a UserError."""
    try:
        with zipfile.ZipFile(stream) as opened:
            yield Archive(opened, path)
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(
            f"'{path}' is not a readable .npz archive of plain arrays: {error}. Save it again with numpy.savez."
        ) from error


def _data_set(archive: Archive, path: Path) -> Loaded:
    for name in ("train", "test"):
        if name not in archive.members:
            raise UserError(
                f"'{path}' has no array '{name}': it needs 'train' and 'test', and has {archive.listing()}."
            )
    classes = _classes(archive, path) if "classes" in archive.members else ()
    splits = []
    for name in ("train", "test"):
        images = _images(archive.array(name), name, path)
        splits.append(Split(images, _labels(archive, name, len(images), path)))
    train, test = splits
    if (train.labels is None) != (test.labels is None):
        raise UserError(
            f"'{path}' has labels for one split only. Give both 'train_labels' and 'test_labels', or neither."
        )
    if (
        classes
        and train.labels is not None
        and test.labels is not None
        and (most := int(max(train.labels.max(), test.labels.max()))) >= len(classes)
    ):
        raise UserError(f"'{path}' has the label {most} but only {len(classes)} 'classes'. Name every class, or none.")
    archive.say_unused(KEYS)
    check_alike(tuple(train.images.shape[1:]), tuple(test.images.shape[1:]), f"'{path}'")
    return Loaded(train, test, classes)


def _images(array: np.ndarray, name: str, path: Path) -> Tensor:
    if array.dtype != np.uint8:
        raise UserError(
            f"The array {brief(name)} of '{path}' is {array.dtype}; images are uint8 levels 0..255. {_scaling(array)}"
        )
    shape = array.shape
    if array.ndim == 3 and (shape[2] in NARROW or shape[0] == 3):
        raise UserError(_two_readings(shape, name, path))
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or not array.size:
        raise UserError(
            f"The array {brief(name)} of '{path}' has the shape {shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W) "
            "with N, H, W of at least 1 and 1 or 3 channels."
        )
    return torch.from_numpy(np.ascontiguousarray(array))


def _two_readings(shape: tuple[int, ...], name: str, path: Path) -> str:
    """What to say of one image where images are due, or of what can be taken for one."""
    first, height, width = shape
    if width in NARROW:
        one, many = (
            f"one image of {height}x{first} pixels and {width} channels",
            f"{first} grey ones of {width}x{height}",
        )
    else:
        one, many = f"one colour image of {width}x{height} pixels", f"{first} grey ones of that size"
    return (
        f"The array {brief(name)} of '{path}' has the shape {shape}: it is {one}, or {many}. Say which by four axes: save "
        "x[None] for the one, x[:, None] for the grey ones."
    )


def _scaling(array: np.ndarray) -> str:
    """How to make levels of an array of another type, by the range that its values are in."""
    if array.dtype.kind not in "fiub" or not array.size:
        return "It is no array of levels."
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return "Some of its values are not finite: find out why before you scale it."
    lines = [line for (least, most), line in SCALINGS.items() if least <= low and high <= most][:1]
    if not lines:
        lines = [f"{line} for values in [{least}, {most}]" for (least, most), line in SCALINGS.items()]
    return f"Its values are from {low:g} to {high:g}. Scale and round them before saving: {'; '.join(lines)}."


def _labels(archive: Archive, name: str, count: int, path: Path) -> Tensor | None:
    if f"{name}_labels" not in archive.members:
        return None
    labels = archive.array(f"{name}_labels")
    if labels.dtype.kind not in "iu" or labels.shape != (count,) or labels.min() < 0:
        raise UserError(
            f"The array '{name}_labels' of '{path}' is {labels.dtype} of shape {labels.shape}; "
            f"labels are integers from 0, one for each of the {count} images."
        )
    return torch.from_numpy(labels.astype(np.int64))


def _classes(archive: Archive, path: Path) -> tuple[str, ...]:
    names = archive.array("classes")
    if names.dtype.kind != "U" or names.ndim != 1 or not names.itemsize:
        raise UserError(
            f"The array 'classes' of '{path}' is {names.dtype} of shape {names.shape}; it is text, a name for each class: "
            "numpy.array(['cat', 'dog'])."
        )
    return tuple(map(str, names))


def read_arrays_named(path: Path, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], tuple[str, ...]] | None:
    """The arrays `names` of an archive, as they are, and the names of its others; None where it lacks one of them."""
    with _archive(path, path) as archive:
        if not set(names) <= set(archive.members):
            return None
        others = tuple(name for name in archive.members if name not in names)
        return {name: archive.array(name) for name in names}, others
