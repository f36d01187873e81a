"""Which t a training step draws, and with what weight its loss counts.

    uniform   t ~ U{1, ..., T}, weight 1                                                                   (Algorithm 1)

A time sampler may learn from the losses that it hears of; what it has learned goes into the training snapshot, so that a
run that stopped goes on as if it had not.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class TimeSampler(Protocol):
    """Of one run. Nothing here may wait for the device."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """t, int64 (count,) in 1..T on the generator's device, and the weight of each loss, (count,); None: all 1."""

    def learn(self, t: Tensor, losses: Tensor) -> None:
        """The losses, (B,) and not weighted, that came of t."""

    def state(self) -> Mapping[str, Tensor]:
        """What was learned, by name; empty where there is nothing."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave; tensors are on the device."""


class Uniform:
    """Every t alike; learns nothing."""

    def __init__(self, T: int) -> None:
        self.T = T

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        return torch.randint(1, self.T + 1, (count,), generator=generator, device=generator.device), None

    def learn(self, t: Tensor, losses: Tensor) -> None:
        """Nothing."""

    def state(self) -> Mapping[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Nothing."""
