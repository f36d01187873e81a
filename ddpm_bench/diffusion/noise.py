"""Noise that belongs to an image, not to a batch: its draws do not depend on what it is computed together with."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.errors import UserError

NOISE_BLOCK = 64
"""Images that share a generator. Part of what a seed means: another value is other noise."""

SAMPLING, BOUND, PILOT, ESTIMATE = range(4)
"""Streams: samples, exact bounds and the two passes of an estimated one are independent for the same seed."""
ODE = 1000
"""The first stream of likelihoods by the ODE: draw d of an image has ODE + d."""
CASCADE = 3000
"""The first stream of chains that have chains below: the chain number n from below has CASCADE + 2 n, and the noise in the small
images that it is shown CASCADE + 2 n + 1. The lowest chain, number 0, draws what it draws alone."""


class BlockNoise:
    """Standard normal draws for the images first..first+count-1.

    A row depends only on (seed, stream, index of the image, number of the draw): there is one generator on the device
    for each block of 64 indices; a block is always drawn whole, and the rows asked for are cut out. CPU and GPU
    generators draw different numbers.

    shape: (C, H, W). Raises UserError for a negative seed or index.
    """

    def __init__(
        self,
        seed: int,
        first: int,
        count: int,
        shape: tuple[int, ...],
        device: torch.device | str,
        stream: int = SAMPLING,
    ) -> None:
        if seed < 0 or first < 0 or count < 0:
            raise UserError(f"Seeds and image numbers begin at 0, but seed = {seed}, first = {first}, count = {count}.")
        self.shape, self.device = shape, torch.device(device)
        first_block, end_block = first // NOISE_BLOCK, -(-(first + count) // NOISE_BLOCK)
        self._generators = [self._generator(seed, stream, block) for block in range(first_block, end_block)]
        self._rows = slice(first - first_block * NOISE_BLOCK, first - first_block * NOISE_BLOCK + count)

    def draw(self) -> Tensor:
        """The next draw: float32 (count, C, H, W) on the device."""
        blocks = [
            torch.randn((NOISE_BLOCK, *self.shape), generator=generator, device=self.device)
            for generator in self._generators
        ]
        return torch.cat(blocks)[self._rows]

    def _generator(self, seed: int, stream: int, block: int) -> torch.Generator:
        (state,) = np.random.SeedSequence((seed, stream, block)).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(state) >> 1)  # 63 bits fit every backend


def block_uniforms(seed: int, first: int, count: int, shape: tuple[int, ...], stream: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 (count, *shape), for the images first..first+count-1; a row depends on its image alone."""
    blocks = [
        np.random.default_rng(np.random.SeedSequence((seed, stream, block, 1))).random((NOISE_BLOCK, *shape))
        for block in range(first // NOISE_BLOCK, -(-(first + count) // NOISE_BLOCK))
    ]
    start = first % NOISE_BLOCK
    return np.concatenate(blocks)[start : start + count]


def batches(count: int, batch: int) -> Iterator[tuple[int, int]]:
    """(start, size) of each batch of at most `batch` out of `count`. UserError unless batch >= 1."""
    if batch < 1:
        raise UserError(f"A batch holds at least one image, not {batch}.")
    for start in range(0, count, batch):
        yield start, min(batch, count - start)
