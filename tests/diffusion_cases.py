"""Small problems whose answers are known, for the tests of `ddpm_bench.diffusion`."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.optimal import finite_eps, gaussian_eps  # noqa: F401
from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.diffusion.samplers import Chain
from ddpm_bench.diffusion.schedule import Schedule, linear
from ddpm_bench.runtime.observer import Observer, Reading

SHORT = linear(20, 1e-3, 0.3)
"""A chain short enough to go through step by step; alpha_bar_T is about 0.03."""


def chain_of(
    diffusion: Diffusion, network: Network, shape: tuple[int, int, int] = (1, 4, 4), clip_x0: bool = True
) -> Chain:
    """Ancestral sampling of pixels."""
    return Chain(Denoiser(diffusion, network, shape, clip_x0))


def all_steps(schedule: Schedule) -> Tensor:
    return torch.arange(1, schedule.T + 1)


def levels(count: int, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """`count` random images of the given shape on the 256 levels, -1 and 1 among them."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *shape), generator=generator)
    images.view(-1)[:2] = torch.tensor([0, 255])
    return images.to(dtype) / 127.5 - 1


def normals(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def some_network(outputs: int = 1) -> Callable[[Tensor, Tensor], Tensor]:
    """A smooth function of x_t and of the step, without parameters."""

    def network(x: Tensor, step: Tensor) -> Tensor:
        s = step.reshape(-1, 1, 1, 1).to(x.dtype)
        head = 0.5 * x + torch.sin(2 * x + 0.1 * s)
        return head if outputs == 1 else torch.cat([head, -4 + torch.cos(x + s)], dim=1)

    return network


@dataclass(frozen=True)
class Given:
    """Noise for a sampler's step whose every draw is the same, known tensor."""

    z: Tensor

    def draw(self) -> Tensor:
        return self.z


@dataclass
class Heard(Observer):
    """An observer that misses nothing of a loop: how far it was, each time."""

    done: list[int] = field(default_factory=list)
    every = 0.0

    def show(self, reading: Reading) -> None:
        self.done.append(reading.done)
