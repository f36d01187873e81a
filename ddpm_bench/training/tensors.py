"""What a run holds in tensors: weights, their average, Adam's moments, and what the time sampler has learned."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_bench.diffusion.times import TimeSampler
from ddpm_bench.errors import UserError
from ddpm_bench.training import snapshots
from ddpm_bench.training.ema import Ema

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's names of the running means of the gradient and of its square."""


@dataclass(frozen=True)
class RunTensors:
    """Those of a run, by the files of its snapshots. device: where they are."""

    network: nn.Module
    ema: Ema
    optimizer: torch.optim.Adam
    times: TimeSampler
    device: torch.device

    def held(self) -> dict[str, Mapping[str, Tensor]]:
        """As a snapshot is given them; moments are named as the parameter that they are of."""
        moments = {
            f"{moment}.{name}": self.optimizer.state[parameter][moment]
            for name, parameter in self.network.named_parameters() if parameter in self.optimizer.state
            for moment in MOMENTS
        }  # fmt: skip
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": moments,
            "times": self.times.state(),
        }

    @torch.no_grad()
    def load(self, path: Path, state: Mapping[str, Any]) -> None:
        """Those of the snapshot `path`, whose state this is. UserError for another network, Damaged for moments that lack; then
        nothing was loaded."""
        raw, average, moments, times = (
            snapshots.load_tensors(path, stem, state) for stem in ("network", "ema", "optimizer", "times")
        )
        own, named = self.network.state_dict(), dict(self.network.named_parameters())
        if any(_shapes(part) != _shapes(own) for part in (raw, average)):
            raise UserError(
                f"'{path}' holds the weights of another network. Use another folder, or start afresh (`ablate --fresh`)."
            )
        expected = {f"{moment}.{name}": weight for name, weight in named.items() for moment in MOMENTS}
        if "files" not in state and _shapes(moments) != _shapes(expected):  # no hash would tell
            raise snapshots.Damaged(path / "optimizer.safetensors", "it lacks moments of the network's parameters")
        if times or self.times.state():
            self.times.load_state({name: held.to(self.device) for name, held in times.items()})
        self.network.load_state_dict(raw)
        for name, weight in self.ema.weights.items():
            weight.copy_(average[name])
        for name, parameter in named.items():
            if f"exp_avg.{name}" in moments:
                # Moments lie in memory as their parameter does: the fused kernel walks over both at once.
                step = torch.tensor(float(state["step"]), device=self.device)
                self.optimizer.state[parameter] = {"step": step} | {
                    moment: torch.empty_like(parameter).copy_(moments[f"{moment}.{name}"]) for moment in MOMENTS
                }


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
