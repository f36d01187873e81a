"""Squared distances between the rows of two tables by matrix products, a block at a time: memory does not grow with N x M."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ddpm_bench.runtime.interrupt import check_stop

AT_ONCE = 2**22
"""float64: 32 MiB a block of distances; all of them between twice 50,000 rows would be 20 GB."""


def rows_at_once(most: int, width: int) -> int:
    """How many rows of `width` numbers are held together: `most`, or as many as come to 8 * AT_ONCE numbers, 256 MiB in float64."""
    return max(1, min(most, 8 * AT_ONCE // width))


def blocks(rows: Tensor, width: int) -> Iterator[Tensor]:
    """`rows` (N, d) in blocks whose distances to `width` others fit AT_ONCE. Raises Interrupted between them."""
    for block in rows.split(max(1, AT_ONCE // width)):
        check_stop()
        yield block


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 = |x_i|^2 + |y_j|^2 - 2 x_i . y_j, (n, m), in the rows' own precision; 0 where rounding leaves less.

    Exact for whole numbers in float64 as long as the sums stay below 2^53, so that levels of pixels lose nothing.
    """
    found = torch.addmm(y.square().sum(1)[None], x, y.T, alpha=-2)
    return found.add_(x.square().sum(1)[:, None]).clamp_(min=0)
