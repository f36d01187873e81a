"""`npz:PATH`: a data set in one NumPy archive, and `embedded`, which is one that the package brings.

Keys: `train` and `test`, uint8, (N, H, W) for grey or (N, H, W, C) or (N, C, H, W) with C = 1 or 3; where there are
labels, `train_labels` and `test_labels`, integers (N,) from 0; and, if they have names, `classes`, text (K,).
Other keys are ignored. Nothing in an archive is unpickled.
"""

import contextlib
import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.data.images import Split
from ddpm_bench.data.loaded import Loaded, check_alike
from ddpm_bench.errors import UserError
from ddpm_bench.files import check_unfolding

EMBEDDED = Path(__file__).with_name("embedded") / "fashion-mnist-10k.npz"
EMBEDDED_SHA256 = "b62a168cfb6cf8720e421ca1ec5a8e25c8a5808350816cac2116d75d6b6f29c9"

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
            f"The embedded data '{EMBEDDED}' cannot be read ({error.strerror}). Install ddpm-bench again."
        ) from error
    if (found := hashlib.sha256(content).hexdigest()) != EMBEDDED_SHA256:
        raise UserError(
            f"The embedded data '{EMBEDDED}' is damaged or changed: its SHA-256 is {found}, not {EMBEDDED_SHA256}. "
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


def read_npz(path: Path) -> Tensor:
    """An archive without splits -> uint8 (N, C, H, W): its array `images`, or else its first one of 3 or 4 axes."""
    with _archive(path, path) as archive:
        for name in ["images"] if "images" in archive.members else archive.members:
            array = archive.array(name)
            if name == "images" or array.ndim in (3, 4):
                return _images(array, name, path)
        raise UserError(f"'{path}' holds no array of images, uint8 (N, H, W, C); it has {archive.listing()}.")


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

    def listing(self) -> str:
        return ", ".join(f"'{name}'" for name in self.members) or "no arrays"


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
    return check_alike(Loaded(train, test, classes), f"'{path}'")


def _images(array: np.ndarray, name: str, path: Path) -> Tensor:
    if array.dtype != np.uint8:
        raise UserError(
            f"The array '{name}' of '{path}' is {array.dtype}; images are uint8 levels 0..255. "
            "Scale and round them before saving: numpy.clip(numpy.rint(x), 0, 255).astype('uint8')."
        )
    shape = array.shape
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or not array.size:
        raise UserError(
            f"The array '{name}' of '{path}' has the shape {shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W) "
            "with N, H, W of at least 1 and 1 or 3 channels."
        )
    return torch.from_numpy(np.ascontiguousarray(array))


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
