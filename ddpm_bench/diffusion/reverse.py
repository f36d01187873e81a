"""From a network's output to p(x_{t-1} | x_t) = N(mean, sigma^2) (eq. 1, 11)

The one place where the paper's t = 1..T becomes the 0-based step that the network is told, where output channels are
split into mean head and raw log variance, and where x_0 is clipped: before the mean is taken, never after.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_bench.diffusion.parameterization import Parameterization
from ddpm_bench.diffusion.process import precise
from ddpm_bench.diffusion.schedule import Schedule
from ddpm_bench.diffusion.variance import Variance
from ddpm_bench.errors import UserError

Network = Callable[..., Tensor]
"""network(x_t, step) -> (B, outputs * C, H, W), for x_t (B, C, H, W), or what `Schedule.network_input` makes of it, and the
0-based step (B,): int64, or float32 between two steps. One with a condition is called as network(x_t, step, condition)."""


@dataclass(frozen=True)
class ReverseStep:
    """p(x_{t-1} | x_t) as a network sees it, in float64 where the device has it.

    mean: (B, C, H, W). log_variance: natural log, broadcasts against mean. x0: the image it predicts, (B, C, H, W),
    clipped if that was asked for. output: the network's channels as they came, (B, outputs * C, H, W).
    """

    mean: Tensor
    log_variance: Tensor
    x0: Tensor
    output: Tensor


@dataclass(frozen=True)
class Diffusion:
    """The forward process and two of Table 2's axes; sampling does not depend on the third, the objective."""

    schedule: Schedule
    parameterization: Parameterization
    variance: Variance

    def split(self, output: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean head and raw log variance (None if fixed), each of the shape of x_t, (B, C, H, W).

        Raises UserError when the output has not the (B, outputs * C, H, W) that the variance asks for.
        """
        batch, channels, height, width = x_t.shape
        expected = (batch, self.variance.outputs * channels, height, width)
        if tuple(output.shape) != expected:
            raise UserError(
                f"The network returned {tuple(output.shape)}; the variance '{self.variance.name}' needs {expected}: "
                f"{self.variance.outputs} output channel(s) for each of the {channels} image channel(s). "
                "Use a network with that many, or another variance."
            )
        if self.variance.outputs == 1:
            return output, None
        head, raw = output.split(channels, dim=1)
        return head, raw

    def output(self, network: Network, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's channels at x_t (B, C, H, W) and t int64 (B,) in 1..T, told of both as it was trained."""
        return network(self.schedule.network_input(x_t, t), self.schedule.network_step(t))

    def reverse(
        self, network: Network, x_t: Tensor, t: Tensor, clip_x0: bool, x0_range: tuple[float, float] = (-1.0, 1.0)
    ) -> ReverseStep:
        """p(x_{t-1} | x_t) at x_t (B, C, H, W) and t int64 (B,) in 1..T; x_0 clipped to `x0_range` if asked for.

        The network gets x_t as it is; what follows is computed in float64 where the device has it.
        """
        output = self.output(network, x_t, t)
        head, raw = self.split(output, x_t)
        x_t = precise(x_t)
        head = head.to(x_t.dtype)
        x0 = self.parameterization.x0(self.schedule, head, x_t, t)
        if clip_x0:
            x0 = x0.clamp(*x0_range)
        mean = self.parameterization.mean(self.schedule, head, x0, x_t, t)
        return ReverseStep(mean, self.variance.log_variance(self.schedule, raw, t, x_t), x0, output)

    def respaced(self, kept: Sequence[int]) -> "Diffusion":
        """The strided chain that visits only the steps `kept`; see `Schedule.respaced`."""
        return Diffusion(self.schedule.respaced(kept), self.parameterization, self.variance)


def all_at(t: int, batch: int, device: torch.device) -> Tensor:
    """One step for a whole batch: int64 (batch,)."""
    return torch.full((batch,), t, dtype=torch.int64, device=device)
