"""Two ranks on the CPU train as one process does, and stop and diverge after the same step."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor
from two_ranks import alone, two

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.settings import TrainingSettings
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import OBJECTIVES, LSimple, Objective
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.times import Uniform
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.networks.unet import UNet
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.training import snapshots
from ddpm_bench.training.batches import Batches
from ddpm_bench.training.trainer import Trainer, Training

__all__ = ["two"]  # a fixture

DIFFUSION = Diffusion(linear(10, 1e-2, 0.9), Eps(), FixedBeta())
SETTINGS = TrainingSettings(
    steps=100, batch=8, learning_rate=1e-3, warmup=5, clip=0.5, ema_decay=0.9, ema_ramp=True, checkpoint_every=8, log_every=3
)  # fmt: skip


class Loss(LSimple):
    """L_simple that is not a number, or asks for a stop, at one call (the first is 1) on one rank."""

    def __init__(self, rank: int, nan_at: int = -1, signal_at: int = -1) -> None:
        self.rank, self.calls, self.nan_at, self.signal_at = rank, 0, nan_at, signal_at

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        losses = super().__call__(denoiser, x0, t, eps)
        self.calls += ranks.rank() == self.rank
        if self.calls == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses * float("nan") if self.calls == self.nan_at else losses


def images(count: int = 10) -> Tensor:
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def trainer(folder: Path, loss: Objective | None = None, batch: int = 8) -> Trainer:
    torch.manual_seed(0)
    network = UNet(1, 1, 8, UNetSettings(base=4, multipliers=(1,), blocks=1, attention=(), groups=2, dropout=0.0))
    denoiser = Denoiser(DIFFUSION, network, (1, 8, 8), clip_x0=False)
    settings = SETTINGS.model_copy(update={"batch": batch})
    made = Trainer(Training(denoiser, loss or LSimple(), images(), settings, 3, {"base": 4}), folder)
    made.resume()
    return made


def trained_alone(folder: Path, until: int, loss: Objective | None = None) -> Trainer:
    with alone():
        made = trainer(folder, loss)
        made.run(until)
    return made


def assert_close(a: Trainer, b: Trainer) -> None:
    """Up to float rounding: log, weights, average, and what was learned of t."""
    assert a.step == b.step and [point.step for point in a.log] == [point.step for point in b.log]
    for p, q in zip(a.log, b.log, strict=True):
        assert p.loss == pytest.approx(q.loss, rel=1e-5) and p.gradient_norm == pytest.approx(q.gradient_norm, rel=1e-4)
    for name, held in a.times.state().items():
        torch.testing.assert_close(held, b.times.state()[name], rtol=1e-4, atol=1e-6)
    for (name, p), q in zip(a.network.named_parameters(), b.network.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-4, msg=name)
        torch.testing.assert_close(a.ema.weights[name], b.ema.weights[name], rtol=0, atol=1e-4, msg=name)


def test_the_loss_curve_of_two_ranks_is_that_of_one_device_up_to_rounding(tmp_path: Path) -> None:
    both = trainer(tmp_path / "both")
    both.run(9)
    assert_close(both, trained_alone(tmp_path / "one", 9))


def test_the_times_hear_the_losses_of_all_ranks_in_the_order_of_one_device(tmp_path: Path) -> None:
    both, loss = trainer(tmp_path / "both", OBJECTIVES["L_vlb"]), OBJECTIVES["L_vlb"]
    both.run(24)
    assert (both.batches.at(24).weight != 1).any()  # t is drawn by what was learned
    assert_close(both, trained_alone(tmp_path / "one", 24, loss))


def test_a_snapshot_of_two_ranks_is_resumed_by_one_and_back(tmp_path: Path) -> None:
    trainer(tmp_path / "both").run(8)
    assert trained_alone(tmp_path / "both", 11).step == 11
    both = trainer(tmp_path / "both")
    both.run(15)
    assert_close(both, trained_alone(tmp_path / "one", 15))


def test_a_batch_that_does_not_divide_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training.batch = 9 .* 2 ranks.* \(1, 3, 9\), or --set training.batch=10"):
        trainer(tmp_path, batch=9)


def mask(given: Tensor) -> Tensor:
    """What a step's dropout is drawn from."""
    Batches(given, 4, flips=False, seed=3, times=Uniform(10), device=torch.device("cpu")).at(5)
    return torch.rand(3)


def test_dropout_differs_from_rank_to_rank_and_is_one_process_own_on_the_first() -> None:
    first, second = ranks.together(mask, images())
    assert torch.equal(first, mask(images())) and not torch.equal(first, second)


def test_all_ranks_stop_after_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "AGREE_S", 0.05)
    stopped = trainer(tmp_path / "both", Loss(0, signal_at=4))
    with Stop(), pytest.raises(Interrupted):
        stopped.run(1000)
    assert 4 <= stopped.step < 900
    assert snapshots.snapshots(tmp_path / "both")[-1].name == f"step-{stopped.step:06d}"
    assert ranks.together(ranks.rank) == [0, 1]


def test_what_one_rank_sees_diverge_has_diverged(tmp_path: Path) -> None:
    divergence = trainer(tmp_path, Loss(1, nan_at=5)).run(15)
    assert divergence and divergence.step == 5 and divergence.reason == "the loss is not finite (nan)"
    assert trainer(tmp_path).divergence == divergence
