"""Images as they are kept and as the model sees them; the only place that knows uint8 <-> [-1, 1].

Kept: uint8 levels 0..255, (N, C, H, W). For the model: x = level / 127.5 - 1 in [-1, 1] (Ho et al. 2020, section 3.3).
Back: level = round((x + 1) * 127.5) clamped to 0..255. Rounding down instead would darken every image by half a level.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_bench.runtime.observer import say

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

    `name` is the label that results carry; `classes[label]` are the names of the classes, () where there are none;
    `notes` are what was said as they were prepared: how they were resized, what was not used.
    """

    name: str
    train: Split
    test: Split
    sha256: str
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def content_hash(*sets: Tensor) -> str:
    """Hexadecimal SHA-256 over shapes and pixels of all `sets` (both splits), uint8 (N, C, H, W), whatever they are called."""
    return blocks_hash((tuple(images.shape), images.split(BLOCK)) for images in sets)


def blocks_hash(sets: Iterable[tuple[tuple[int, ...], Iterable[Tensor]]]) -> str:
    """`content_hash` of sets that come in blocks: the shape of each, and its images, some at a time."""
    digest = hashlib.sha256()
    for shape, blocks in sets:
        digest.update(f"uint8 {shape}\n".encode())
        for block in blocks:
            digest.update(block.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def to_model(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 levels of any shape -> values in [-1, 1] in `dtype`, on the same device."""
    return images.to(dtype) / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Values on the model's [-1, 1] scale, of any shape -> the nearest uint8 levels; what lies outside is clamped."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def check_levels(images: Tensor, what: str) -> None:
    """Say it of images, uint8, that look like values in [0, 1] which nobody scaled: they would be scored as black ones."""
    if told := unscaled(images, what):
        say(told)


def unscaled(images: Tensor, what: str) -> str:
    """What to say of such images; nothing of others."""
    if not images.numel() or any(block.max() > 1 for block in images.split(BLOCK)):
        return ""
    return (
        f"{what} hold no level above 1: they look like values in [0, 1] that were not scaled to 0..255. If so, save "
        "them again as numpy.clip(numpy.rint(x * 255), 0, 255).astype('uint8')."
    )
