"""What is measured: the network of a preset at one batch, on one device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.preset import load_preset, resolve
from ddpm_bench.config.settings import CellSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import Objective
from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.errors import UserError
from ddpm_bench.models.build import build_codec, build_diffusion, build_objective
from ddpm_bench.runtime.batch import default_batch
from ddpm_bench.runtime.precision import CPU_PIXELS
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.speed.result import Work

GRID, CELL = "table2", "eps-mse-fixed"
GREY = ("embedded", "mnist", "fashion-mnist")
IMAGES = 256
"""Random training images: what is in them does not change the speed."""


@dataclass(frozen=True)
class Case:
    """The cell that predicts the noise, trained with L_simple: every other package has that one too.

    batch: images a training step. eval_batch: images a step of sampling and a term of the bound.
    """

    preset: str
    settings: CellSettings
    batch: int
    eval_batch: int
    device: torch.device

    @classmethod
    def of(cls, preset: str, batch: int | None, device: torch.device) -> "Case":
        """`batch` None: those of a cell of the preset, on a CPU with at most CPU_PIXELS."""
        loaded = load_preset(preset)
        (cell,) = load_grid(GRID).select([CELL])
        settings = resolve(cell, loaded, {})
        if settings.network.told_classes or settings.network.told_small:
            raise UserError(
                f"Preset '{loaded.name}' has a network that is told more than time; speed is measured of others."
            )
        training, evaluating = settings.training.batch, default_batch(device, settings.data.size)
        if device.type == "cpu":
            most = max(1, CPU_PIXELS // settings.data.size**2)
            training, evaluating = min(training, most), min(evaluating, most)
        return cls(loaded.name, settings, batch or training, batch or evaluating, device)

    def batch_of(self, work: Work) -> int:
        """Images a call."""
        return self.batch if work == "training" else self.eval_batch

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of x_t, of images that are grey for the grey data sets, else coloured."""
        side = self.settings.data.size
        return build_codec(self.settings.diffusion).shape((1 if self.settings.data.source in GREY else 3, side, side))

    @property
    def unet(self) -> UNetSettings:
        """What other packages' U-Nets are made after; UserError for a preset of another network."""
        network = self.settings.network
        if not isinstance(network, UNetSettings):
            raise UserError(
                f"Preset '{self.preset}' has a network of kind '{network.kind}'; other packages are timed with U-Nets."
            )
        return network

    @property
    def diffusion(self) -> Diffusion:
        return build_diffusion(self.settings.diffusion)

    @property
    def objective(self) -> Objective:
        return build_objective(self.settings.diffusion)

    @property
    def runtime(self) -> Runtime:
        return Runtime(self.device, batch=self.eval_batch)

    def denoiser(self, network: Network, clip_x0: bool = True) -> Denoiser:
        return Denoiser(self.diffusion, network, self.shape, clip_x0)

    def images(self, count: int = IMAGES) -> Tensor:
        """uint8 (count, C, H, W) on the CPU, always the same."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (count, *self.shape), dtype=torch.uint8, generator=generator)
