"""Images brought to another size: only when that is asked for, in the way that is asked for, and told.

    pad                 zeros around, centred; an odd row or column more goes to the bottom or right
    average             f x f pixels become their mean, rounded half up, with the smallest whole f that makes the images
                        small enough; then pad. 28 -> 16 averages 2x2, then pads by 1. Not for images that fit already
    bicubic-antialias   Pillow's bicubic filter, widened where images shrink, on each channel in float32: what clean-fid
                        does (Parmar et al. 2022) on the way to Inception's 299x299. There values stay floats; here they
                        are rounded and clipped to uint8, since images are kept so
    older               what versions without the setting did: average, or pad where images fit already

The one exception is named: 28x28 images, as MNIST's are, become 32x32 by pad, as everyone takes them.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ddpm_bench.config.resizing import Older, Resize
from ddpm_bench.data.images import BLOCK
from ddpm_bench.errors import UserError

Size = tuple[int, int]
"""(H, W)"""
MNIST, MNIST_PADDED = (28, 28), (32, 32)


def fitted(images: Tensor, to: Size, asked: Resize | Older | None = None) -> tuple[Tensor, str]:
    """uint8 (N, C, H, W) at the size `to`, and in words what was done to them; nothing is done where they are of that size.

    UserError with both sizes where another size was not asked for, or cannot be had in the way asked for.
    """
    size = (images.shape[2], images.shape[3])
    if size == to:
        return images, ""
    way = "pad" if asked in (None, "average") and (size, to) == (MNIST, MNIST_PADDED) else asked
    if way is None:
        raise UserError(_unasked(size, to))
    made, words = WAYS[way](images, to)
    return made, f"resized from {in_words(size)} to {in_words(to)} pixels by {words}"


def averaged(images: Tensor, side: int) -> Tensor:
    """Square images, uint8 (N, C, H, H), at a side that divides theirs: means of blocks, rounded half up. What a
    super-resolution model is told, and what a cascade's lower models learn."""
    return torch.cat([_average_down(block, images.shape[-1] // side) for block in images.split(BLOCK)])


def in_words(size: Size) -> str:
    """(H, W) -> 'WxH'"""
    return f"{size[1]}x{size[0]}"


def _unasked(size: Size, to: Size) -> str:
    """What to say of images of another size, with the ways that would do."""
    smaller = _fits(size, to)
    possible = {"pad": smaller, "average": not smaller and _factor(size, to) is not None, "bicubic-antialias": True}
    ways = " or ".join(f"--resize {way}" for way, does in possible.items() if does)
    square = "" if size[0] == size[1] or to[0] != to[1] else " What a model is trained on is square."
    return (
        f"The images are of {in_words(size)} pixels, and {in_words(to)} are wanted; none are resized unasked. "
        f"Ask for it with {ways}, or bring them to one size beforehand.{square}"
    )


def _pad(images: Tensor, to: Size) -> tuple[Tensor, str]:
    size = (images.shape[2], images.shape[3])
    if not _fits(size, to):
        raise UserError(
            f"Images of {in_words(size)} pixels cannot be padded to {in_words(to)}, which is smaller. "
            "Choose --resize average or bicubic-antialias."
        )
    down, right = to[0] - size[0], to[1] - size[1]
    return functional.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2)), "pad"


def _average(images: Tensor, to: Size) -> tuple[Tensor, str]:
    size = (images.shape[2], images.shape[3])
    if _fits(size, to):
        raise UserError(
            f"Images of {in_words(size)} pixels are no larger than {in_words(to)}: there is nothing to average. "
            "Choose --resize pad, which puts zeros around them, or bicubic-antialias, which enlarges them."
        )
    factor = _factor(size, to)
    if factor is None:
        larger = next((side for side in range(max(to) + 1, max(size) + 1) if _factor(size, (side, side))), max(size))
        raise UserError(
            f"Images of {in_words(size)} pixels cannot be averaged down to {in_words(to)} in whole blocks; {larger} is the next "
            "larger side that can be had. Choose --resize bicubic-antialias."
        )
    small = torch.cat([_average_down(block, factor) for block in images.split(BLOCK)])
    made, words = small, f"average ({factor}x{factor})"
    if small.shape[2:] != to:
        made, words = _pad(small, to)[0], f"{words}, then pad"
    return made, words


def _bicubic(images: Tensor, to: Size) -> tuple[Tensor, str]:
    made = np.empty((len(images), images.shape[1], *to), np.uint8)
    for index, image in enumerate(images.numpy()):
        for channel, levels in enumerate(image):
            resized = Image.fromarray(levels.astype(np.float32)).resize((to[1], to[0]), Image.Resampling.BICUBIC)
            made[index, channel] = np.rint(np.asarray(resized)).clip(0, 255)
    return torch.from_numpy(made), "bicubic-antialias"


def _older(images: Tensor, to: Size) -> tuple[Tensor, str]:
    return (_pad if _fits((images.shape[2], images.shape[3]), to) else _average)(images, to)


WAYS: dict[str, Callable[[Tensor, Size], tuple[Tensor, str]]] = {
    "pad": _pad,
    "average": _average,
    "bicubic-antialias": _bicubic,
    "older": _older,
}


def _fits(size: Size, to: Size) -> bool:
    return size[0] <= to[0] and size[1] <= to[1]


def _factor(size: Size, to: Size) -> int | None:
    """The smallest f by which images of `size` are no larger than `to`, or None where f does not divide both sides."""
    factor = max(-(-size[0] // to[0]), -(-size[1] // to[1]))
    return None if size[0] % factor or size[1] % factor else factor


def _average_down(images: Tensor, factor: int) -> Tensor:
    """Means of factor x factor blocks of uint8 (N, C, H, W), rounded half up in integers."""
    blocks = images.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))  # (N, C, H/f, f, W/f, f)
    total = blocks.sum(dim=(3, 5), dtype=torch.int64)
    return ((2 * total + factor**2) // (2 * factor**2)).to(torch.uint8)
