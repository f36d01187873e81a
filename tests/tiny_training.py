"""One small training run: its network, images, batches and trainer, and losses that fail where they are told to."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import TrainingSettings
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import LSimple
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.times import LossSecondMoment, TimeSampler, Uniform
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.networks.unet import UNet
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.batches import Batches
from ddpm_bench.training.trainer import Trainer, Training

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(
    steps=100,
    batch=4,
    learning_rate=1e-2,
    warmup=5,
    clip=0.05,
    ema_decay=0.9,
    ema_ramp=True,
    checkpoint_every=4,
    log_every=3,
)
NETWORK = UNetSettings(base=8, multipliers=(1,), blocks=1, attention=(), groups=4, dropout=0.2)


class Loss(LSimple):
    """L_simple that can be made to fail, in value or in gradient, at one call (the first is 1), or to do something there."""

    def __init__(self, nan_at: int = 0, steep_at: int = 0, signal_at: int = 0) -> None:
        self.calls, self.nan_at, self.steep_at, self.signal_at = 0, nan_at, steep_at, signal_at

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        self.calls += 1
        loss = super().__call__(denoiser, x0, t, eps)
        if self.calls == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.calls == self.nan_at:
            return loss * float("nan")
        return loss + (loss * 0).sqrt() if self.calls == self.steep_at else loss  # d sqrt(u) at 0 is infinite


class Sized:
    """Draws t in proportion to 0.1 + its latest loss, and weighs the losses so that their mean stays what it estimates.

    It holds nothing before it has learned.
    """

    def __init__(self, T: int) -> None:
        self.T = T
        self.sizes: Tensor | None = None

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        sizes = torch.ones(self.T) if self.sizes is None else 0.1 + self.sizes
        share = sizes / sizes.sum()
        index = torch.multinomial(share, count, replacement=True, generator=generator)
        return index + 1, 1 / (self.T * share[index])

    def learn(self, t: Tensor, losses: Tensor) -> None:
        assert not losses.requires_grad
        sizes = torch.ones(self.T) if self.sizes is None else self.sizes
        self.sizes = sizes.scatter_reduce(0, t - 1, losses, "amax", include_self=False)

    def state(self) -> dict[str, Tensor]:
        return {} if self.sizes is None else {"sizes": self.sizes}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.sizes = state["sizes"]


class SizedLoss(Loss):
    """Trained at the t that `Sized` draws."""

    def times(self, T: int) -> TimeSampler:
        return Sized(T)


class SquaresLoss(Loss):
    """Trained at the t that improved DDPM's sampler draws."""

    def times(self, T: int) -> TimeSampler:
        return LossSecondMoment(T)


def images(count: int = 10) -> Tensor:
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def trainer(folder: Path, *, settings: TrainingSettings = SETTINGS, loss: LSimple | None = None, seed: int = 3,
            identity: dict[str, object] | None = None, keep: int = 1, network: nn.Module | None = None,
            sampling: SamplingSettings | None = None) -> Trainer:  # fmt: skip
    torch.manual_seed(0)
    network = network or UNet(1, 1, 8, NETWORK)
    diffusion = Diffusion(linear(10, 1e-2, 0.9), Eps(), FixedBeta())
    training = Training(
        Denoiser(diffusion, network, (1, 8, 8), clip_x0=False), loss or LSimple(), images(), settings, seed,
        identity or {"base": 8}, sampling=sampling or SamplingSettings(),
    )  # fmt: skip
    return Trainer(training, folder, Runtime(keep=keep))


def batches(
    given: Tensor | None = None, size: int = 4, flips: bool = False, seed: int = 3, times: TimeSampler | None = None
) -> Batches:
    """Those of `trainer`, unless told otherwise."""
    given = images() if given is None else given
    return Batches(given, size, flips=flips, seed=seed, times=times or Uniform(10), device=CPU)


def resumed(folder: Path, **changed: object) -> Trainer:
    again = trainer(folder, **changed)
    again.resume()
    return again


def assert_same(a: Trainer, b: Trainer) -> None:
    """Bitwise: weights, average, moments, log, and what was learned of t."""
    assert a.step == b.step and a.log == b.log
    assert a.times.state().keys() == b.times.state().keys()
    assert all(torch.equal(held, b.times.state()[name]) for name, held in a.times.state().items())
    for (name, p), q in zip(a.network.named_parameters(), b.network.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert torch.equal(a.ema.weights[name], b.ema.weights[name]), name
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(a.optimizer.state[p][moment], b.optimizer.state[q][moment]), (name, moment)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
