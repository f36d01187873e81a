"""What an extractor is, and the images that it may be given: uint8, of its size and colour, a batch at a time."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ddpm_bench.errors import UserError
from ddpm_bench.records.record import ExtractorInfo
from ddpm_bench.runtime.batch import fitting

GPU_MOST = 2048
BLOCK = 4096
"""Images looked at together where all of them are gone through."""


@dataclass(frozen=True, eq=False)
class SpatialLayer:
    """The layer of an extractor whose map tells where in an image something is: its first `channels`, at side x side places."""

    layer: nn.Module
    channels: int
    side: int

    def features(self, output: Tensor) -> Tensor:
        """Of the layer's output (B, C, h, w): rectified, averaged to side x side, (B, side * side * channels).

        Channels last, as TensorFlow has them.
        """
        kept = functional.adaptive_avg_pool2d(functional.relu(output[:, : self.channels]), self.side)
        return kept.permute(0, 2, 3, 1).flatten(1)


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that measures images, and what it may be given.

    `network`: uint8 (B, channels, H, W) -> features (B, info.feature_dim) and logits without bias (B, classes); none of
    these, (B, 0), where it tells no classes apart, so that there is no score. `spatial`: where features with a place are.
    `sizes`: the sides in pixels that it was made for; None when it takes any. `batch`: images at once on a CPU;
    `image_bytes`: what an image needs on a GPU, generously. `packages`: whose versions its numbers depend on, beside those
    of every extractor's. `class_names`: of its logits, in order, where they are known.
    """

    info: ExtractorInfo
    network: nn.Module
    channels: int
    sizes: tuple[int, ...] | None
    batch: int
    image_bytes: int
    packages: tuple[str, ...] = ()
    spatial: SpatialLayer | None = None
    class_names: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which may see other GPUs than this one: the network goes there by way of the CPU."""
        self.network.to("cpu")
        return dict(self.__dict__)

    def batch_on(self, device: torch.device) -> int:
        """Images at once: on a GPU the most that fit."""
        return fitting(device, self.image_bytes, GPU_MOST) if device.type == "cuda" else self.batch

    def check_size(self, height: int, width: int) -> None:
        """UserError when it was not made for images of this size."""
        if self.sizes is not None and (height != width or height not in self.sizes):
            own = f"Train one with `ddpm-bench extractor train --sizes {height}`, or use" if height == width else "Use"
            raise UserError(
                f"The extractor '{self.info.name}' was made for images of {' or '.join(map(str, self.sizes))} pixels "
                f"a side, not for {width}x{height}. {own} --extractor efficientnet-lite0, which takes any."
            )


class MeasuredImages:
    """uint8 (N, 1 or 3, H, W) as `extractor` takes them: grey repeated for one that wants colour, grey RGB made grey.

    Shares the memory of `images`, which may be a memory map; only the batch in hand is copied. UserError for anything
    but uint8, and for images that the extractor was not made for. `title` names them in messages.
    """

    def __init__(self, title: str, images: Tensor | np.ndarray, extractor: Extractor) -> None:
        if images.dtype not in (torch.uint8, np.uint8):
            raise UserError(
                f"The {title} are {images.dtype}; scores are defined on uint8 levels. Round them with "
                "ddpm_bench.data.to_uint8."
            )
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise UserError(f"The {title} have the shape {tuple(images.shape)}; expected (N, 1, H, W) or (N, 3, H, W).")
        extractor.check_size(*images.shape[2:])
        self.title, self.channels = title, extractor.channels
        self.images = images.cpu().numpy() if isinstance(images, Tensor) else images
        if self.channels == 1 and not is_grey(self.images):
            raise UserError(
                f"The extractor '{extractor.info.name}' measures grey images, and the {title} are in colour. "
                "Use --extractor efficientnet-lite0 or inception, or train one on colour images with "
                "`ddpm-bench extractor train`."
            )

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int) -> Iterator[Tensor]:
        """All images in order, uint8 (`size` or fewer, channels, H, W)."""
        for block in self._blocks(size):
            batch = torch.from_numpy(block.copy())
            yield batch if batch.shape[1] == self.channels else batch[:, :1].repeat(1, self.channels, 1, 1)

    def sha256(self) -> str:
        """Hash of shape and pixels."""
        digest = hashlib.sha256(f"uint8 {self.images.shape}".encode())
        for block in self._blocks(BLOCK):
            digest.update(np.ascontiguousarray(block).data)
        return digest.hexdigest()

    def _blocks(self, size: int) -> Iterator[np.ndarray]:
        return _blocks(self.images, size)


def is_grey(images: np.ndarray) -> bool:
    """Are these (N, C, H, W) grey, with one channel or with channels that are all the same?"""
    return images.shape[1] == 1 or all((block[:, :1] == block).all() for block in _blocks(images, BLOCK))


def _blocks(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (images[start : start + size] for start in range(0, len(images), size))
