"""Messages go through the logger `ddpm_bench`: silent in library use, heard by whoever configures `logging`."""

import subprocess
import sys

import pytest

TRAIN = """
import tempfile
from pathlib import Path
import torch
from ddpm_bench.config.settings import TrainingSettings
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import LSimple
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import Chain, sample
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.training.trainer import Trainer, Training

class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
    def forward(self, x_t, step):
        return self.scale * x_t

denoiser = Denoiser(Diffusion(linear(4, 0.05, 0.5), Eps(), FixedBeta()), Scaled(), (1, 4, 4))
settings = TrainingSettings(steps=2, batch=2, checkpoint_every=1, log_every=1)
with tempfile.TemporaryDirectory() as folder:
    training = Training(denoiser, LSimple(), torch.zeros((8, 1, 4, 4), dtype=torch.uint8), settings, 0, {})
    Trainer(training, Path(folder)).run(2)
print(sum(len(images) for _, images in sample(Chain(denoiser), count=3, seed=0)))
"""
"""A training that has something to say (most of its average are initial weights), then sampling with its progress."""


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("before", "heard"),
    [
        ("", False),
        ("import logging; logging.basicConfig(level=logging.INFO)", True),
    ],
    ids=["not configured", "configured"],
)
def test_a_library_user_hears_messages_only_after_configuring_logging(before: str, heard: bool) -> None:
    done = python(before + "\n" + TRAIN)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    if heard:
        assert "INFO:ddpm_bench:After 2 steps the averaged weights will still be" in done.stderr
    else:
        assert done.stderr == ""


def test_at_the_terminal_messages_appear_on_stderr_as_they_are_and_not_after() -> None:
    code = (
        "from ddpm_bench.runtime.observer import say\n"
        "from ddpm_bench.runtime.terminal import at_the_terminal\n"
        "with at_the_terminal(): say('[once]')\n"
        "say('[never]')\n"
    )
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "[once]\n")
