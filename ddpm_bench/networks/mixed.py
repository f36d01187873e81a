"""Two networks as one, which of them predicts depending on the step: the combined model of improved DDPM.

Trained with L_vlb, a network is better at the first and last steps of a chain; trained with L_hybrid, between them (Nichol,
Dhariwal 2021).
"""

import torch
from torch import Tensor, nn

from ddpm_bench.config.networks import MixedSettings
from ddpm_bench.networks.built import built
from ddpm_bench.networks.condition import Condition


class Mixed(nn.Module):
    """`ends` where step < below or step >= above, else `middle`; arguments as of every network (see `NetworkSettings`)."""

    def __init__(self, in_channels: int, out_channels: int, side: int, settings: MixedSettings) -> None:
        super().__init__()
        self.below, self.above = settings.below, settings.above
        self.ends, self.middle = (built(settings.network, in_channels, out_channels, side) for _ in range(2))

    def at(self, step: float) -> nn.Module:
        """The network that predicts at a step that is known without asking the device."""
        return self.middle if self.below <= step < self.above else self.ends

    def forward(self, x_t: Tensor, step: Tensor, condition: Condition | None = None) -> Tensor:
        """Both networks are called where the batch needs both, or where it would take a host synchronisation to know.

        In training they always are, so that every parameter has a gradient, which is 0 where its network was not asked.
        """
        told = (x_t, step) if condition is None else (x_t, step, condition)
        inner = (step >= self.below) & (step < self.above)
        if step.is_cpu and not (self.training or torch.compiler.is_compiling()):
            if inner.all():
                return self.middle(*told)
            if not inner.any():
                return self.ends(*told)
        return torch.where(inner[:, None, None, None], self.middle(*told), self.ends(*told))

    @property
    def in_bfloat16(self) -> bool | None:
        """As of the two; see `UNet`."""
        return self.middle.in_bfloat16  # type: ignore[return-value]

    @in_bfloat16.setter
    def in_bfloat16(self, wanted: bool | None) -> None:
        for network in (self.ends, self.middle):
            network.in_bfloat16 = wanted  # type: ignore[assignment]
