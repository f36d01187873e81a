"""Memory does not grow with samples, steps of the chain, test images or training steps: what is alive at a network call."""

import gc

import pytest
import torch
from diffusion_cases import chain_of
from torch import Tensor, nn

from ddpm_bench.config.settings import TrainingSettings
from ddpm_bench.diffusion.objective import LSimple
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import Chain, sample
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.likelihood import bits_per_dim, estimate_bits_per_dim
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.trainer import Trainer, Training

SHAPE, BATCH = (3, 16, 16), 8
RUNTIME = Runtime(batch=BATCH)
ONE_BATCH = 4 * BATCH * 3 * 16 * 16
"""Bytes of one float32 tensor of a batch: what is kept of every batch, or of every step, shows."""


def chain(network: "Watching", T: int) -> Chain:
    return chain_of(Diffusion(linear(T, 0.05, 0.5), Eps(), FixedBeta()), network, SHAPE)


class Watching(nn.Module):
    """Predicts something, and notes the most bytes of floating point tensors that were alive when it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.most = nn.Parameter(torch.ones(())), 0

    def forward(self, x_t: Tensor, step: Tensor) -> Tensor:
        alive = (each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter) and each.is_floating_point())
        self.most = max(self.most, sum(each.numel() * each.element_size() for each in alive))
        return self.scale * x_t


def images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def sampling(network: Watching, count: int, T: int) -> None:
    for _ in sample(chain(network, T), count=count, seed=0, runtime=RUNTIME):
        pass


def exact(network: Watching, count: int, T: int) -> None:
    bits_per_dim(chain(network, T), images(count), seed=0, runtime=RUNTIME)


def estimate(network: Watching, count: int, T: int) -> None:
    estimate_bits_per_dim(chain(network, T), images(count), evals=5, seed=0, runtime=RUNTIME)


def most_alive(work, count: int, T: int) -> int:
    gc.collect()
    network = Watching()
    work(network, count, T)
    return network.most


@pytest.mark.parametrize("work", [sampling, exact, estimate])
def test_memory_does_not_grow_with_images_or_steps(work) -> None:
    work(Watching(), BATCH, 4)  # tables of the schedule and the like are made once
    little, much = most_alive(work, 2 * BATCH, 4), most_alive(work, 5 * BATCH, 8)
    assert little >= ONE_BATCH and much - little < ONE_BATCH


def test_memory_does_not_grow_with_training_steps(tmp_path) -> None:
    def training(network: Watching, steps: int, T: int) -> None:
        settings = TrainingSettings(
            steps=steps, batch=BATCH, learning_rate=1e-3, checkpoint_every=steps, log_every=steps
        )  # fmt: skip
        training = Training(chain(network, T).denoiser, LSimple(), images(64), settings, seed=0, identity={})
        Trainer(training, tmp_path / str(steps)).run(steps)

    training(Watching(), 2, 4)
    assert most_alive(training, 12, 4) - most_alive(training, 3, 4) < ONE_BATCH


def test_the_watch_notices_what_is_kept() -> None:
    """The same measurement of a sampler that keeps every step."""
    kept = []

    class Keeping(Watching):
        def forward(self, x_t: Tensor, step: Tensor) -> Tensor:
            kept.append(x_t.clone())
            return super().forward(x_t, step)

    few, many = Keeping(), Keeping()
    sampling(few, BATCH, 4)
    kept.clear()
    sampling(many, BATCH, 12)
    assert many.most - few.most >= 7 * ONE_BATCH
