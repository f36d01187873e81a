"""Folders too large to hold: their images are decoded, and resized, once into a file, which is then mapped into memory.

So a data set of any size is a tensor as every other: `images[indices]` reads the pages that it touches, and these are the
system's to take back. The file lies in the cache, named by a hash of what the folder's files are and of how they were resized,
and is sealed: with each load it is read once, for the hash of its contents, and made again where that is another.
"""

import hashlib
import math
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.config.resizing import Older, Resize
from ddpm_bench.data.image_files import each_file
from ddpm_bench.data.images import BLOCK, Split, blocks_hash
from ddpm_bench.data.loaded import Loaded, Unread
from ddpm_bench.data.resize import Size, fitted
from ddpm_bench.errors import UserError
from ddpm_bench.files import make_folder, replacing
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress
from ddpm_bench.runtime.owner import owned
from ddpm_bench.sealed import read_sealed, say_again, write_sealed

AT_ONCE = 2**26
"""Bytes of images, as they are in the folder, that are decoded and resized together."""


class MappedImages(Tensor):
    """uint8 (N, C, H, W) that lie in a file and cannot be written to. Another process is sent the file's name, not its pixels.

    What is made of them is a tensor as any other.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as torch documents it
    place: tuple[str, int, tuple[int, ...]]  # the file's name, the first byte in it, and the shape

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return map_images, self.place


def map_images(path: str, start: int, shape: tuple[int, ...]) -> MappedImages:
    """The images of such a shape that begin at the byte `start` of a file. UserError where it is not seen."""
    try:
        array = np.memmap(path, np.uint8, "r", start, shape)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The images in '{path}' cannot be mapped: {error}. Give a --data-root that all processes and machines see."
        ) from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        images = torch.from_numpy(array).as_subclass(MappedImages)
    images.place = path, start, shape
    return images


def read_once(unread: Unread, to: Size, asked: Resize | Older | None, folder: Path) -> tuple[Loaded, str]:
    """Both splits at the size `to`, their images out of a file in `folder`, and the hash of their contents.

    The file is made where it is missing or damaged; of two processes that want it, one makes it. UserError for images that
    are unreadable, of another size or mode than the first, or not to be fitted as asked, and where the disk has no room for
    them. Raises Interrupted, and what was made is then lost.
    """
    key, folder = _key(unread, to, asked), folder.absolute()  # other processes are sent it
    path, seal = make_folder(folder) / f"{key}.images", folder / f"{key}.json"
    shapes = [(len(paths), unread.shape[0], *to) for paths in (unread.train, unread.test)]
    with owned(folder, math.inf, key):
        told = read_sealed(seal)
        if told is None or not _is_whole(path, shapes, told["sha256"]):
            told = {"sha256": _make(path, shapes, unread, to, asked)}
            write_sealed(seal, told)
    train, test = _both(path, shapes)
    return Loaded(Split(train, unread.labels[0]), Split(test, unread.labels[1]), unread.classes), told["sha256"]


def _key(unread: Unread, to: Size, asked: Resize | Older | None) -> str:
    """Of all that the file depends on: which files, of what sizes and times, and how they are resized."""
    digest = hashlib.sha256(f"{len(unread.train)} {unread.shape} {to} {asked}".encode())
    for path in unread.paths:
        stat = path.stat() if path.exists() else None  # what is gone is said where it is read
        digest.update(f"\n{path.absolute()} {stat and (stat.st_size, stat.st_mtime_ns)}".encode())
    return digest.hexdigest()[:32]


def _both(path: Path, shapes: Sequence[tuple[int, ...]]) -> tuple[MappedImages, MappedImages]:
    """The training and the test images, which follow each other in the file."""
    train, test = shapes
    return map_images(str(path), 0, train), map_images(str(path), math.prod(train), test)


def _is_whole(path: Path, shapes: Sequence[tuple[int, ...]], sha256: str) -> bool:
    """Does the file hold what it held when it was made? What is damaged is said."""
    if not path.exists() or path.stat().st_size != sum(map(math.prod, shapes)):
        say_again(path, "it is gone or cut short")
    elif _content(path, shapes) != sha256:
        say_again(path)
    else:
        return True
    return False


def _content(path: Path, shapes: Sequence[tuple[int, ...]]) -> str:
    """The hash of what the file holds."""
    done = 0
    with progress("checking images kept on the disk", sum(shape[0] for shape in shapes), "images") as meter:

        def seen(images: Tensor) -> Iterator[Tensor]:
            nonlocal done
            for block in images.split(BLOCK):
                check_stop()
                yield block
                meter.update(done := done + len(block))

        return blocks_hash(zip(shapes, map(seen, _both(path, shapes)), strict=True))


def _make(path: Path, shapes: Sequence[tuple[int, ...]], unread: Unread, to: Size, asked: Resize | Older | None) -> str:
    """Decode, resize and write all images; the hash of their contents."""
    _check_room(path.parent, sum(map(math.prod, shapes)), len(unread.paths))
    size, done = max(1, AT_ONCE // math.prod(unread.shape)), 0
    files = each_file(unread.paths)
    with (
        replacing(path) as temporary, temporary.open("wb") as stream,
        progress(f"reading {len(unread.paths):,} images into '{path.parent}'", len(unread.paths), "images") as meter,
    ):  # fmt: skip

        def written(count: int) -> Iterator[Tensor]:
            nonlocal done
            for start in range(0, count, size):
                check_stop()
                pixels = [next(files) for _ in range(min(size, count - start))]
                images, _ = fitted(torch.from_numpy(np.stack(pixels)), to, asked)
                stream.write(images.contiguous().numpy().data)
                meter.update(done := done + len(images))
                yield images

        return blocks_hash((shape, written(shape[0])) for shape in shapes)


def _check_room(folder: Path, wanted: int, count: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise UserError(
            f"{count:,} images are too many to hold in memory, and on the disk they take {wanted / 1e9:,.1f} GB, of which "
            f"'{folder}' has {free / 1e9:,.1f} free. Free some, or choose another place with --data-root."
        )
