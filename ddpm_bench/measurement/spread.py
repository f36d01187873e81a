"""Mean and scatter of vectors too long to hold more than one of: gradients, for one.

They are kept on the way, so that an interrupted measurement goes on and comes to the same numbers, bit for bit.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.diffusion.process import precise
from ddpm_bench.errors import Interrupted
from ddpm_bench.runtime.interrupt import stop_requested
from ddpm_bench.sealed import Arrays, read_arrays, write_arrays

KEEP_S = 60.0
"""A spread is kept as often."""


@dataclass
class Spread:
    """Of vectors that come one by one, each in parts; only their mean is held. scatter: sum |g_i - mean|^2, a 0-d tensor."""

    count: int
    mean: list[Tensor]
    scatter: Tensor

    @classmethod
    def of(cls, vector: Sequence[Tensor]) -> "Spread":
        """Of one vector. Its parts lie in memory in one order, on which the last digits of sums depend."""
        return cls(1, [part.contiguous() for part in vector], precise(torch.zeros((), device=vector[0].device)))

    def __add__(self, other: "Spread") -> "Spread":
        """Of the vectors of both (Chan, Golub, LeVeque 1983)."""
        total = self.count + other.count
        apart = [b - a for a, b in zip(self.mean, other.mean, strict=True)]
        mean = [a + d * (other.count / total) for a, d in zip(self.mean, apart, strict=True)]
        scatter = self.scatter + other.scatter + _squared(apart) * (self.count * other.count / total)
        return Spread(total, mean, scatter)

    def noise(self, batch: int) -> tuple[float, float]:
        """tr(cov) of one image's gradient and |mean gradient|^2, of two or more gradients of `batch` images each."""
        trace = float(self.scatter) / (self.count - 1)
        return batch * trace, float(_squared(self.mean)) - trace / self.count

    def arrays(self) -> Arrays:
        """As they are kept."""
        mean = {f"mean.{i}": part.cpu().numpy() for i, part in enumerate(self.mean)}
        return {"count": np.array(self.count), "scatter": self.scatter.cpu().numpy(), **mean}

    @classmethod
    def from_arrays(cls, arrays: Arrays, device: torch.device) -> "Spread":
        held = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        count, scatter = int(held.pop("count")), held.pop("scatter")
        return cls(count, [held[f"mean.{i}"] for i in range(len(held))], scatter)


def _squared(vector: Sequence[Tensor]) -> Tensor:
    """|v|^2, 0-d, in float64 where the device has it."""
    return torch.stack([precise(part.square().sum()) for part in vector]).sum()


def spread_of(
    gradient: Callable[[int], Sequence[Tensor]],
    numbers: range,
    kept: Path | None = None,
    device: torch.device | None = None,
) -> Spread:
    """Of the gradients of those numbers, one of which is in memory at a time.

    kept: the file of what is finished, from which an interrupted call goes on, on `device`. Raises Interrupted, after saving, when a stop
    was asked for.
    """
    held = read_arrays(kept) if kept else None
    spread = Spread.from_arrays(held, device or torch.device("cpu")) if held else None
    saved = time.monotonic()
    for number in numbers[spread.count if spread else 0 :]:
        one = Spread.of(gradient(number))
        spread = one if spread is None else spread + one
        stopping, last = stop_requested(), number == numbers[-1]
        if kept and (stopping or last or time.monotonic() > saved + KEEP_S):
            write_arrays(kept, spread.arrays())
            saved = time.monotonic()
        if stopping and not last:
            raise Interrupted
    assert spread is not None  # numbers are not empty
    return spread
