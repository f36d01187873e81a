"""What a network is told beside x_t and the step: it is called as network(x_t, step, condition) where it has a condition."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """A row an image of the batch.

    labels: int64 (B,), classes 0..K-1; K stands for no class, where the network was trained with labels left out.
    """

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> "Condition":
        return self.each(lambda told: told[rows])

    def each(self, change: Callable[[Tensor], Tensor]) -> "Condition":
        """With every part changed alike, as where rows are chosen."""
        return replace(self, labels=change(self.labels))

    def unlabelled(self, no_class: int) -> "Condition":
        """The same images of no class, whose number is `no_class`."""
        return replace(self, labels=torch.full_like(self.labels, no_class))


def some_condition(classes: int, count: int, device: torch.device) -> Condition | None:
    """What a network of so many classes is told of `count` images where nothing but time counts; None where it is told nothing."""
    return Condition(torch.zeros(count, dtype=torch.int64, device=device)) if classes else None
