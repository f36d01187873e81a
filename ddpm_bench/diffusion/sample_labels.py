"""Which class a sample is asked to be of: a function of its index alone, so that neither batches nor ranks change it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_bench.errors import UserError


@dataclass(frozen=True)
class SampleLabels:
    """Of a model of so many classes: `only` for all samples; where it is None, index modulo `classes`, so that all are as many.

    Not drawn, as in the releases of ADM and DiT: how many there are of each class would be noise in every score. Nor by the
    frequencies of a data set, which a checkpoint does not hold.

    told: the network is told them; if not, a classifier alone guides to them.
    """

    classes: int
    only: int | None = None
    told: bool = True

    def at(self, first: int, count: int) -> Tensor:
        """Of the samples first..first+count-1: int64 (count,)."""
        index = torch.arange(first, first + count)
        return index % self.classes if self.only is None else torch.full_like(index, self.only)


def check_one_class(labels: SampleLabels | None) -> None:
    """UserError where images that have no index, as those between two others, would be of several classes."""
    if labels is not None and labels.only is None:
        raise UserError(
            f"The model is told one of {labels.classes} classes, and images that are encoded, or lie between others, have no number that "
            "it would follow from. Say which: --labels N."
        )
