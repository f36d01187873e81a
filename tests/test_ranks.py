"""Two ranks on the CPU do what one process does: training, samples, bounds, likelihoods, features; and end together."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.settings import SamplingSettings, TrainingSettings
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import OBJECTIVES, LSimple, Objective
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.errors import Interrupted, NotFinite, RankLost, UserError
from ddpm_bench.networks.unet import UNet
from ddpm_bench.runtime import orders, ranks
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.trainer import Trainer, Training

DIFFUSION = Diffusion(linear(10, 1e-2, 0.9), Eps(), FixedBeta())
SETTINGS = TrainingSettings(
    steps=100, batch=4, learning_rate=1e-3, warmup=5, clip=0.5, ema_decay=0.9, ema_ramp=True, checkpoint_every=4, log_every=3
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def two() -> Iterator[None]:
    """This process and another, for all tests here."""
    with ranks.started(2):
        yield


@contextmanager
def alone() -> Iterator[None]:
    """As if this process were the only one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orders, "present", None)
        yield


def trainer(folder: Path, loss: Objective | None = None, dropout: float = 0.0, batch: int = 4) -> Trainer:
    torch.manual_seed(0)
    network = UNet(1, 1, 8, UNetSettings(base=8, multipliers=(1,), blocks=1, attention=(), groups=4, dropout=dropout))
    images = torch.randint(0, 256, (10, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    settings = SETTINGS.model_copy(update={"batch": batch})
    denoiser = Denoiser(DIFFUSION, network, (1, 8, 8), clip_x0=False)
    made = Trainer(Training(denoiser, loss or LSimple(), images, settings, 3, {"base": 8}), folder)
    made.resume()
    return made


# ---- training -------------------------------------------------------------------------------------------------------------


def assert_close(a: Trainer, b: Trainer) -> None:
    """Up to float rounding: log, weights, average, moments, and what was learned of t."""
    assert a.step == b.step and [point.step for point in a.log] == [point.step for point in b.log]
    for p, q in zip(a.log, b.log, strict=True):
        assert p.loss == pytest.approx(q.loss, rel=1e-5) and p.gradient_norm == pytest.approx(q.gradient_norm, rel=1e-4)
    for name, held in a.times.state().items():
        torch.testing.assert_close(held, b.times.state()[name], rtol=1e-4, atol=1e-6)
    for (name, p), q in zip(a.network.named_parameters(), b.network.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-4, msg=name)
        torch.testing.assert_close(a.ema.weights[name], b.ema.weights[name], rtol=0, atol=1e-4, msg=name)


@pytest.mark.parametrize("objective", ["L_simple", "L_vlb"])
def test_two_ranks_train_as_one_up_to_rounding(tmp_path: Path, objective: str) -> None:
    """L_vlb draws t by the losses of all ranks, in the order of one device's; 10 of each t are heard by step 40."""
    both, one = (trainer(tmp_path / name, OBJECTIVES[objective]) for name in ("both", "one"))
    both.run(60)
    with alone():
        one.run(60)
    assert_close(both, one)
    state = both.times.state()
    if state: print((state["heard"][1:] >= 10).all(), state["heard"])
    else: print(both.log[-1], one.log[-1], max((p-q).abs().max() for p, q in zip(both.network.parameters(), one.network.parameters())))
