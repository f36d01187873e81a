"""Images as somebody brings them: a folder or an archive without splits, and where its pixels came from."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ddpm_bench.data.image_files import list_images, read_files, read_images
from ddpm_bench.data.images import content_hash

LOSSY = ("JPEG", "WebP")


@dataclass(frozen=True, eq=False)
class GivenImages:
    """`images` uint8 (N, C, H, W) of `path`, and the hash of their shape and pixels.

    files: how many of each format: JPEG, PNG, WebP (lossy, or not known to be lossless), WebP lossless, or npz.
    passed_over: names of what lay beside them and is no image.
    """

    path: str
    images: Tensor
    sha256: str
    files: dict[str, int]
    passed_over: tuple[str, ...] = ()

    @property
    def lossy(self) -> int:
        """How many files a lossy compression has changed."""
        return sum(self.files.get(kind, 0) for kind in LOSSY)

    @property
    def info(self) -> dict[str, Any]:
        """JSON values: all but the pixels."""
        return {
            "path": self.path, "images": len(self.images), "shape": list(self.images.shape[1:]), "sha256": self.sha256,
            "files": self.files, "lossy_files": self.lossy, "passed_over": list(self.passed_over),
        }  # fmt: skip


def read_given(path: Path, recursive: bool = False) -> GivenImages:
    """The images of a folder (its own, or in class folders; recursive: at any depth), or of an .npz archive.

    UserError as of `read_images`.
    """
    if not path.is_dir():
        images = read_images(path)
        return GivenImages(str(path), images, content_hash(images), {"npz": 1})
    listing = list_images(path, recursive)
    images = read_files(listing.paths)
    files = dict(sorted(Counter(map(_kind, listing.paths)).items()))
    return GivenImages(str(path), images, content_hash(images), files, listing.passed_over)


def _kind(path: Path) -> str:
    """The format of an image that has been read, by its content: a name may say another."""
    with path.open("rb") as stream:
        head = stream.read(16)
    if head.startswith(b"\xff\xd8"):
        return "JPEG"
    if head[8:12] == b"WEBP":
        return "WebP lossless" if head[12:16] == b"VP8L" else "WebP"
    return "PNG"
