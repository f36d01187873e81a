"""What a network is told beside x_t and the step: it is called as network(x_t, step, condition) where it has a condition."""

from dataclasses import dataclass

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
        return Condition(self.labels[rows])
