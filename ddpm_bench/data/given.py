"""Images as somebody brings them: a folder or an archive without splits, and where its pixels came from."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ddpm_bench.config.resizing import Older, Resize
from ddpm_bench.data.image_files import list_images, read_files, read_images
from ddpm_bench.data.images import content_hash
from ddpm_bench.data.resize import Size, fitted
from ddpm_bench.errors import UserError
from ddpm_bench.runtime.observer import noting, say

LOSSY = ("JPEG", "WebP")


@dataclass(frozen=True, eq=False)
class GivenImages:
    """`images` uint8 (N, C, H, W) of `path`, and the hash of their shape and pixels.

    files: how many of each format: JPEG, PNG, WebP (lossy, or not known to be lossless), WebP lossless, or npz.
    passed_over: names of what lay beside them and is no image. notes: what was said as they were read and fitted.
    """

    path: str
    images: Tensor
    sha256: str
    files: dict[str, int]
    passed_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        return self.images.shape[2], self.images.shape[3]

    @property
    def lossy(self) -> int:
        """How many files a lossy compression has changed."""
        return sum(self.files.get(kind, 0) for kind in LOSSY)

    @property
    def info(self) -> dict[str, Any]:
        """JSON values: all but the pixels."""
        return {
            "path": self.path, "images": len(self.images), "shape": list(self.images.shape[1:]), "sha256": self.sha256,
            "files": self.files, "lossy_files": self.lossy, "passed_over": list(self.passed_over), "notes": list(self.notes),
        }  # fmt: skip

    def fitted(self, to: Size, asked: Resize | Older | None) -> "GivenImages":
        """At the size `to`; UserError where that is another one and no way was asked for."""
        try:
            images, done = fitted(self.images, to, asked)
        except UserError as error:
            raise UserError(f"'{self.path}': {error}") from error
        if not done:
            return self
        say(note := f"The images of '{self.path}' are {done}")
        return replace(self, images=images, sha256=content_hash(images), notes=(*self.notes, note))


def read_given(path: Path, recursive: bool = False, key: str | None = None) -> GivenImages:
    """The images of a folder (its own, or in class folders; recursive: at any depth), or the array `key` of an .npz archive.

    UserError as of `read_images`.
    """
    passed_over: tuple[str, ...] = ()
    with noting() as notes:
        if not path.is_dir() or key is not None:
            images, files = read_images(path, key), {"npz": 1}
        else:
            listing = list_images(path, recursive)
            images, passed_over = read_files(listing.paths), listing.passed_over
            files = dict(sorted(Counter(map(_kind, listing.paths)).items()))
    return GivenImages(str(path), images, content_hash(images), files, passed_over, tuple(notes))


def _kind(path: Path) -> str:
    """The format of an image that has been read, by its content: a name may say another."""
    with path.open("rb") as stream:
        head = stream.read(16)
    if head.startswith(b"\xff\xd8"):
        return "JPEG"
    if head[8:12] == b"WEBP":
        return "WebP lossless" if head[12:16] == b"VP8L" else "WebP"
    return "PNG"
