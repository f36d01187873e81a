"""The order in which small networks see their training images."""

from collections.abc import Iterator

import torch
from torch import Tensor


def shuffled(count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """The images of each step, int64 (batch,), or of all where there are fewer: an endless row of permutations of 0..count-1, of
    which what is less than a batch is left out."""
    generator, batch = torch.Generator().manual_seed(seed), min(batch, count)
    while True:
        yield from (part for part in torch.randperm(count, generator=generator).split(batch) if len(part) == batch)
