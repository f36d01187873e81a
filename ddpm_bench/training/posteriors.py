"""What training draws random x_0 of: of every image once, since an encoder may cost more than a step of the network."""

import torch
from torch import Tensor

from ddpm_bench.data.codec import Codec
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress, say_once

MOST = 2**31
"""Bytes that are kept; what would take more is encoded batch by batch, as the release does."""
BLOCK = 256
"""Images encoded at once."""


class Posteriors:
    """Mean and standard deviation of x_0 of `images`, uint8 (N, C, H, W), and where they are flipped of their mirror images too;
    on `device`, wherever the images are."""

    def __init__(self, codec: Codec, images: Tensor, flips: bool, device: torch.device) -> None:
        self._codec, self._images, self._flips, self._device = codec, images, flips, device
        self._kept: Tensor | None = None  # (2 of mean and deviation, 1 or 2 of mirrored or not, N, *shape)
        channels, height, width = codec.shape((images.shape[1], images.shape[2], images.shape[3]))
        self._of_all = (2, 1 + flips, len(images), channels, height, width)

    def of(self, images: Tensor, indices: Tensor, flipped: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of a batch: `images` (B, C, H, W) are those of `indices` (B,), mirrored where `flipped` (B, 1, 1, 1)."""
        if not self._fit:
            say_once(
                "The latents of all images take more memory than is kept for them: each batch is encoded as it comes."
            )
            return self._codec.posterior(images)
        if self._kept is None:
            self._kept = self._encoded()
        mirrored = torch.zeros_like(indices) if flipped is None else flipped.flatten().long()
        mean, deviation = self._kept[:, mirrored.to(self._device), indices.to(self._device)]
        return mean, deviation

    @property
    def _fit(self) -> bool:
        return 4 * torch.Size(self._of_all).numel() <= MOST

    def _encoded(self) -> Tensor:
        """Of all images, in blocks. Raises Interrupted between them: whatever runs again encodes again."""
        made = torch.empty(self._of_all, device=self._device)
        with progress("encoding", len(self._images), "images") as meter:
            for start in range(0, len(self._images), BLOCK):
                check_stop()
                block = self._images[start : start + BLOCK].to(self._device)
                for way, seen in enumerate((block, block.flip(3))[: 1 + self._flips]):
                    made[:, way, start : start + BLOCK] = torch.stack(self._codec.posterior(seen))
                meter.update(start + len(block))
        return made
