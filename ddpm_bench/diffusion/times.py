"""Which t a training step draws, and with what weight its loss counts.

    Uniform            t ~ U{1, ..., T}, weight 1                                                          (Algorithm 1)
    LossSecondMoment   p_t ~ sqrt(E[L_t^2]), weight 1 / (T p_t)                        (Nichol, Dhariwal 2021, section 3.3)

A time sampler may learn from the losses that it hears of; what it has learned goes into the training snapshot, so that a
run that stopped goes on as if it had not.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from ddpm_bench.diffusion.process import precise

REMEMBERED = 10
"""So many of the latest losses of each t are known."""
EXPLORED = 0.001
"""This share of the draws is uniform, so that no t is forgotten."""


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


class LossSecondMoment:
    """p_t ~ sqrt(mean of the squares of the last 10 losses of t), mixed with 0.1% of the uniform distribution.

    The weight 1 / (T p_t) makes the expected loss that of uniform t, whatever was learned. Until every t has 10 losses all t are
    alike, and all weights 1. As improved-diffusion's: losses are heard of one after the other, so that of more than 10 of
    one t in a batch the last 10 count.
    """

    def __init__(self, T: int) -> None:
        self.T = T
        # Row t is a ring, for its loss number n stands in column n % 10. Row 0 takes what is not remembered.
        self.losses = torch.zeros(T + 1, REMEMBERED)
        self.heard = torch.zeros(T + 1, dtype=torch.int64)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        p = self.probabilities(generator.device)
        below = p.cumsum(0)
        u = torch.rand(count, generator=generator, device=p.device, dtype=p.dtype) * below[-1]
        index = torch.searchsorted(below, u, right=True).clamp(max=self.T - 1)
        return index + 1, (1 / (self.T * p[index])).float()

    def probabilities(self, device: torch.device) -> Tensor:
        """p_1..p_T, (T,) on the device, in float64 where it has it."""
        self._move(device)
        roots = precise(self.losses[1:]).square().mean(1).sqrt()
        shares = (1 - EXPLORED) * roots / roots.sum() + EXPLORED / self.T
        known = (self.heard[1:] >= REMEMBERED).all()
        return torch.where(known, shares, 1 / self.T)

    def learn(self, t: Tensor, losses: Tensor) -> None:
        self._move(t.device)
        t, order = t.sort(stable=True)
        first, end = (torch.searchsorted(t, t, right=side) for side in (False, True))
        number = torch.arange(len(t), device=t.device) - first  # among the batch's losses of the same t
        kept = number >= end - first - REMEMBERED
        row, column = torch.where(kept, t, 0), (self.heard[t] + number) % REMEMBERED
        self.losses[row, torch.where(kept, column, 0)] = torch.where(kept, losses[order].float(), 0)
        self.heard.scatter_add_(0, t, torch.ones_like(t))

    def state(self) -> Mapping[str, Tensor]:
        return {"losses": self.losses, "heard": self.heard}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.losses, self.heard = state["losses"], state["heard"]

    def _move(self, device: torch.device) -> None:
        self.losses, self.heard = self.losses.to(device), self.heard.to(device)
