"""What counts as divergence: rules fixed before any training, since it is a result and not an error.

A cell has diverged when

1. the loss or the norm of the gradient (before clipping) of a training step is not finite; it is looked at in every step,
2. or a sample, or the distance of its samples to the training set, is not finite.

Nothing else is: a poor score is a score, and one no better than noise is a failure with its numbers
(`records/failure.py`). The paper left blank what was "unstable to train and generated poor samples with out-of-range
scores" (Table 2). Gradients are never repaired (no nan_to_num), which would hide the first.
"""

import math

import torch
from torch import Tensor

from ddpm_bench.records.record import Divergence


class Watch:
    """Rule 1, without waiting for the device: the first bad step is kept there and read once a tick."""

    def __init__(self, device: torch.device) -> None:
        self._step = torch.tensor(-1, device=device)
        self._loss = torch.tensor(0.0, device=device)

    def look(self, step: int, loss: Tensor, gradient_norm: Tensor) -> None:
        """Remember `step` (the first is 1) if it is the first whose loss or gradient norm, both scalars, is not finite."""
        first = (self._step < 0) & ~(loss.isfinite() & gradient_norm.isfinite())
        self._step = torch.where(first, step, self._step)
        self._loss = torch.where(first, loss.float(), self._loss)

    def read(self) -> Divergence | None:
        """The divergence seen so far, if any. Waits for the device."""
        step, loss = int(self._step), float(self._loss)
        if step < 0:
            return None
        if math.isfinite(loss):
            return Divergence(step=step, reason="the gradient is not finite")
        return Divergence(step=step, reason=f"the loss is not finite ({loss})")


def no_distance(fd: float, step: int) -> Divergence | None:
    """Rule 2, for the distance `fd` of samples after `step` training steps."""
    if math.isfinite(fd):
        return None
    return Divergence(step=step, reason=f"the distance of its samples to the training set is not finite ({fd})")
