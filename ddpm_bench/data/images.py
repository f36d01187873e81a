"""Images as they are kept and as the model sees them; the only place that knows uint8 <-> [-1, 1].

Kept: uint8 levels 0..255, (N, C, H, W). For the model: x = level / 127.5 - 1 in [-1, 1] (Ho et al. 2020, section 3.3).
Back: level = round((x + 1) * 127.5) clamped to 0..255. Rounding down instead would darken every image by half a level.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ddpm_bench.errors import UserError

BLOCK = 2048
"""Images handled at once where a copy wider than uint8 is needed."""


@dataclass(frozen=True)
class Split:
    """One half of a data set: `images` uint8 (N, C, H, W) and, where known, `labels` int64 (N,)."""

    images: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class ImageData:
    """A data set, prepared for a model: both splits have the same (C, H, W).

    `name` is the label that results carry; `classes[label]` are the names of the classes, () where there are none.
    """

    name: str
    train: Split
    test: Split
    sha256: str
    classes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def content_hash(*sets: Tensor) -> str:
    """Hexadecimal SHA-256 over shapes and pixels of all `sets` (both splits), uint8 (N, C, H, W), whatever they are called."""
    digest = hashlib.sha256()
    for images in sets:
        digest.update(f"uint8 {tuple(images.shape)}\n".encode())
        for block in images.split(BLOCK):
            digest.update(block.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def to_model(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 levels of any shape -> values in [-1, 1] in `dtype`, on the same device."""
    return images.to(dtype) / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Values on the model's [-1, 1] scale, of any shape -> the nearest uint8 levels; what lies outside is clamped."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def fit_to(images: Tensor, size: int) -> Tensor:
    """uint8 (N, C, H, W) -> uint8 (N, C, size, size): averaged down by a whole factor, then zero-padded around.

    The factor f is the smallest with ceil(max(H, W) / f) <= size; f x f pixels become their mean, rounded half up.
    Padding is centred; an odd row or column more goes to the bottom or right.
    28 -> 32 pads by 2; 28 -> 16 averages 2x2, then pads by 1.
    Raises UserError when f does not divide both sides.
    """
    height, width = images.shape[2:]
    factor = _factor(height, width, size)
    if factor is None:
        larger = next(side for side in range(size + 1, max(height, width) + 1) if _factor(height, width, side))
        raise UserError(
            f"Images of {width}x{height} pixels cannot be averaged down to data.size = {size} in whole blocks. "
            f"The next larger data.size that fits is {larger}; or resize the images beforehand."
        )
    if factor > 1:
        images = torch.cat([_average_down(block, factor) for block in images.split(BLOCK)])
    down, right = size - images.shape[2], size - images.shape[3]
    if not (down or right):
        return images
    return functional.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))


def _factor(height: int, width: int, size: int) -> int | None:
    """The smallest f with ceil(max(height, width) / f) <= size, or None where f does not divide both sides."""
    factor = -(-max(height, width) // size)
    return None if height % factor or width % factor else factor


def _average_down(images: Tensor, factor: int) -> Tensor:
    """Means of factor x factor blocks of uint8 (N, C, H, W), rounded half up in integers."""
    blocks = images.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))  # (N, C, H/f, f, W/f, f)
    total = blocks.sum(dim=(3, 5), dtype=torch.int64)
    return ((2 * total + factor**2) // (2 * factor**2)).to(torch.uint8)
