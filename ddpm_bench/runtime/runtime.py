"""Where things run: one object instead of a device, a batch, a cache and switches in every signature."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from ddpm_bench.errors import UserError
from ddpm_bench.networks.compiled import compile_network, is_compiled
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.batch import default_batch
from ddpm_bench.runtime.device import computed_in

Network = TypeVar("Network", bound=nn.Module)


@runtime_checkable
class Lowers(Protocol):
    """A network that can compute in bfloat16; None leaves it to the device."""

    in_bfloat16: bool | None


@dataclass(frozen=True)
class Runtime:
    """Where and how things run. Nothing here changes a result beyond rounding, but that a CPU and a GPU draw other noise.

    cache: folder of reference features and anchors, which commands share; None: these are made anew by each call.
    batch: images a network call outside training; None: as many as pay and fit.
    precision: what networks compute in; None: bfloat16 on a GPU, float32 elsewhere. Weights, schedule, loss and
        predictions are float32 in both.
    compiled: networks go through `torch.compile`.
    keep: how many training snapshots stay on the disk: with two, a damaged one costs what came after the one before.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    cache: Path | None = None
    batch: int | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    compiled: bool = False
    keep: int = 2

    def network_batch(self, side: int) -> int:
        """Images of `side` pixels a network call outside training."""
        return default_batch(self.device, side) if self.batch is None else self.batch

    @property
    def arithmetic(self) -> dict[str, str | bool]:
        """JSON values: what the last digits depend on, and a GPU's draws; kept work is never mixed over it."""
        lowered = computed_in(self.device.type, self.precision)
        return {"device": self.device.type, "precision": lowered, "compiled": self.compiled}

    @property
    def float64_device(self) -> torch.device:
        """Where numbers are taken of features: the device, unless that has no float64, as MPS."""
        return self.device if self.device.type == "cuda" else torch.device("cpu")

    def place(self, network: Network) -> Network:
        """The network, moved to the device in place and made ready to compute there as asked."""
        network.to(self.device)
        if isinstance(network, Lowers):
            network.in_bfloat16 = None if self.precision is None else self.precision == "bfloat16"
        elif self.precision == "bfloat16":
            raise UserError(f"{type(network).__name__} does not say how it computes in bfloat16; use float32.")
        if self.compiled and not is_compiled(network):
            compile_network(network)
        return network

    def place_copy(self, network: object) -> None:
        """Of a network that another rank has placed and sent, what is lost on the way: it is compiled here, too."""
        if ranks.rank() and isinstance(network, nn.Module):
            self.place(network)
