"""Training that stopped and went on, beside training that did not."""

from collections.abc import Callable
from pathlib import Path

import torch

from ddpm_bench.config.settings import TrainingSettings
from ddpm_bench.training.trainer import Trainer

SETTINGS = TrainingSettings(
    steps=8, batch=4, learning_rate=1e-2, warmup=2, ema_decay=0.9, checkpoint_every=3, log_every=2
)


def goes_on_bitwise_the_same(trainer: Callable[[Path], Trainer], folder: Path) -> Trainer:
    """Asserts it of 8 steps of SETTINGS that stop after 5, for weights and their average; the trainer that did not stop."""
    whole, part = trainer(folder / "whole"), trainer(folder / "part")
    whole.run(8)
    part.run(5)
    again = trainer(folder / "part")
    assert again.resume() == 5
    again.run(8)
    for (name, p), q in zip(whole.network.named_parameters(), again.network.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert torch.equal(whole.ema.weights[name], again.ema.weights[name]), name
    return whole
