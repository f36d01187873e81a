"""What a network is told beside x_t and the step: it is called as network(x_t, step, condition) where it has a condition."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ddpm_bench.config.networks import NetworkSettings


@dataclass(frozen=True)
class Condition:
    """A row an image of the batch; None what the network is not told.

    labels: int64 (B,), classes 0..K-1; K stands for no class, where the network was trained with labels left out.
    small: (B, C, h, w), the image that a super-resolution network enlarges, on the scale of x_0. level: int64 (B,), the step s
    of the diffusion that added noise to it, 0 where it is clean; a network that knows clean ones alone is not told it.
    """

    labels: Tensor | None = None
    small: Tensor | None = None
    level: Tensor | None = None

    def __len__(self) -> int:
        return next(len(told) for told in self.told.values())

    def __getitem__(self, rows: slice) -> "Condition":
        return self.each(lambda told: told[rows])

    def each(self, change: Callable[[Tensor], Tensor]) -> "Condition":
        """With every part changed alike, as where rows are chosen."""
        changed: dict[str, Any] = {name: change(told) for name, told in self.told.items()}
        return replace(self, **changed)

    def unlabelled(self, no_class: int) -> "Condition":
        """The same images of no class, whose number is `no_class`."""
        if self.labels is None:
            raise TypeError("nothing is told of a class that could be left out")
        return replace(self, labels=torch.full_like(self.labels, no_class))

    @property
    def told(self) -> dict[str, Tensor]:
        """The parts that are there, by name."""
        parts = {"labels": self.labels, "small": self.small, "level": self.level}
        return {name: told for name, told in parts.items() if told is not None}


def some_condition(settings: NetworkSettings, channels: int, count: int, device: torch.device) -> Condition | None:
    """What a network is told of `count` images of so many channels where nothing but time counts; None where it is told nothing."""
    zeros = torch.zeros(count, dtype=torch.int64, device=device)
    labels, small = (zeros if settings.told_classes else None), None
    if side := settings.told_small:
        small = torch.zeros(count, channels, side, side, device=device)
    level = zeros if settings.told_levels else None
    return None if labels is None and small is None else Condition(labels, small, level)
