"""An exponential moving average of the weights: what is sampled and scored.

    average <- d average + (1 - d) weights,   d = ema_decay, or with the ramp min(ema_decay, (1 + step) / (10 + step))

The paper's d = 0.9999 forgets the random initial weights after some 50,000 steps. In a short run they would be most of the
average, and its samples noise; the ramp (that of TensorFlow's ExponentialMovingAverage) forgets them within a few steps.

The arithmetic is torch's own. Its `AveragedModel` does not serve here: it begins with the weights after the first step instead
of the initial ones, counts steps for itself though the ramp needs the run's, and sends its counter to the device every step.
"""

import copy
import math

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ddpm_bench.networks.compiled import compile_network, is_compiled


class Ema:
    """The average of a network's parameters. `weights` has their names, shapes and device."""

    def __init__(self, network: nn.Module, decay: float, ramp: bool) -> None:
        """Start from the network as it is. `decay` in [0, 1)."""
        self._network = network
        self.decay, self.ramp = decay, ramp
        self.weights = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}

    def update(self, step: int) -> None:
        """Take in the weights after training step `step`, counted from 0."""
        current = [parameter.detach() for parameter in self._network.parameters()]
        get_ema_multi_avg_fn(decay_at(step, self.decay, self.ramp))(list(self.weights.values()), current, step)

    def network(self) -> nn.Module:
        """A copy of the network with the averaged weights, in evaluation mode: no dropout, no gradients."""
        averaged = copy.deepcopy(self._network).eval().requires_grad_(False)
        averaged.load_state_dict(self.state_dict())
        if is_compiled(self._network):  # a copy is not
            compile_network(averaged)
        return averaged

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The network's state with averaged parameters; buffers are the network's own."""
        return self._network.state_dict() | self.weights


def decay_at(step: int, decay: float, ramp: bool) -> float:
    """d after training step `step`, counted from 0."""
    return min(decay, (1 + step) / (10 + step)) if ramp else decay


def initial_share(steps: int, decay: float, ramp: bool) -> float:
    """The weight, 0 to 1, that the random initial parameters still have in the average after `steps` steps."""
    if not ramp:
        return decay**steps
    ramped = min(
        steps, math.ceil((10 * decay - 1) / (1 - decay)) if decay > 0.1 else 0
    )  # steps before `decay` is reached
    return math.prod((1 + step) / (10 + step) for step in range(ramped)) * decay ** (steps - ramped)
