"""A network with all that its output means: it is called as p(x_{t-1} | x_t)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from ddpm_bench.diffusion.classifier_guidance import ClassifierGuidance
from ddpm_bench.diffusion.guidance import Guided
from ddpm_bench.diffusion.reverse import Diffusion, Network, ReverseStep, all_at
from ddpm_bench.diffusion.schedule import Schedule
from ddpm_bench.networks.condition import Condition
from ddpm_bench.networks.mixed import Mixed
from ddpm_bench.runtime.batch import Halving
from ddpm_bench.runtime.recorded import Recorded


@dataclass(frozen=True)
class Denoiser:
    """p(x_{t-1} | x_t) of a network and a diffusion: samplers, bounds and objectives ask it, never a network.

    network: see `reverse.Network`. shape: (C, H, W) of x_t. clip_x0: the predicted x_0 is clipped to `x0_range`, which is the
    codec's, before the mean is taken, as in the paper's sampling and bounds; training does not clip. condition: what the
    network is told beside, of the images that it is then called with; None for a network that has no condition. classifier:
    samples are guided by it; bounds and objectives ask a denoiser without.
    """

    diffusion: Diffusion
    network: Network
    shape: tuple[int, int, int]
    clip_x0: bool = True
    x0_range: tuple[float, float] = (-1.0, 1.0)
    condition: Condition | None = None
    classifier: ClassifierGuidance | None = None
    _halving: Halving = field(default_factory=Halving, repr=False, compare=False)
    _recorded: dict[nn.Module, Recorded] = field(default_factory=dict, repr=False, compare=False)

    @property
    def schedule(self) -> Schedule:
        return self.diffusion.schedule

    @property
    def T(self) -> int:
        """Number of steps."""
        return self.schedule.T

    @property
    def calls(self) -> int:
        """Network calls a prediction."""
        return 2 if isinstance(self.network, Guided) else 1

    def __call__(self, x_t: Tensor, t: Tensor | int, variance: Tensor | None = None) -> ReverseStep:
        """p(x_{t-1} | x_t) at x_t (B, *shape) and t in 1..T: int64 (B,), or an int where all images are at one step.

        variance: of the step that a sampler makes around the mean, where it is another than that of p: guidance moves the mean
        by it. x_0 and eps of a guided chain are those of `step.predict`.
        """
        reverse = self.by_network(x_t, t)
        if self.classifier is None:
            return reverse
        variance = reverse.log_variance.exp() if variance is None else variance
        t = all_at(t, len(x_t), x_t.device) if isinstance(t, int) else t
        return replace(reverse, mean=self.classifier.mean(self.schedule, reverse.mean, variance, x_t, t))

    def by_network(self, x_t: Tensor, t: Tensor | int) -> ReverseStep:
        """The same of the network alone.

        Of two networks for different steps, an int calls the one that it needs, and never waits for the device.

        Without gradients, as in sampling and in bounds, the network is called with fewer images at a time once memory has
        run out. With them it is training: its batch stays whole.
        """
        network = self.network
        if isinstance(t, int):
            if isinstance(network, (Mixed, Guided)):
                network = network.at(self.schedule.network_steps[t - 1].item())  # a table on the CPU
            t = all_at(t, len(x_t), x_t.device)
        called = self._told(network) if torch.is_grad_enabled() else partial(self._in_parts, network)
        return self.diffusion.reverse(called, x_t, t, self.clip_x0, self.x0_range)

    def _told(self, network: Network) -> Network:
        """The network of x_t and the step alone."""
        return network if self.condition is None else partial(network, condition=self.condition)

    def _in_parts(self, network: Network, x_t: Tensor, step: Tensor) -> Tensor:
        inputs = (x_t, step) if self.condition is None else (x_t, step, self.condition)
        first, *more = self._halving.parts(self._again(network), *inputs)
        return torch.cat([first, *more]) if more else first

    def _again(self, network: Network) -> Network:
        """The network as it is called step after step."""
        if not isinstance(network, nn.Module):
            return network
        if network not in self._recorded:
            self._recorded[network] = Recorded(network, copies=True)
        return self._recorded[network]

    def heads(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """The output for the mean, with which the parameterization's target is compared, and the raw one for the variance,
        (B, *shape) each; the latter None where the variance is fixed."""
        return self.diffusion.split(self.diffusion.output(self._told(self.network), x_t, t), x_t)

    def given(self, condition: Condition | None) -> "Denoiser":
        """p(x_{t-1} | x_t, condition)."""
        return replace(self, condition=condition)

    def toward(self, labels: Tensor) -> "Denoiser":
        """Guided to the classes `labels`, int64 (B,), where a classifier guides."""
        return self if self.classifier is None else replace(self, classifier=self.classifier.toward(labels))

    def respaced(self, kept: Sequence[int]) -> "Denoiser":
        """Of the strided chain that visits only the steps `kept`; see `Schedule.respaced`."""
        return replace(self, diffusion=self.diffusion.respaced(kept))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Dropout off while samples are drawn or scored; every module is put back as it was. Plain callables stay."""
        if not isinstance(self.network, nn.Module):
            yield
            return
        were_training = [module for module in self.network.modules() if module.training]
        self.network.eval()
        try:
            yield
        finally:
            for module in were_training:  # not network.train(), which would wake modules that were frozen
                module.training = True
