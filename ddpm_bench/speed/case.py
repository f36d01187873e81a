"""What is measured: the network of a preset at one batch, on one device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_bench.build import build_diffusion, build_objective
from ddpm_bench.diffusion.objective import Objective
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.grid import load_grid, load_preset, resolve
from ddpm_bench.settings import CellSettings

GRID, CELL = "table2", "eps-mse-fixed"
GREY = ("embedded", "mnist", "fashion-mnist")
CPU_PIXELS = 16 * 32 * 32
"""Pixels a batch on a CPU unless told otherwise: 16 images of 32x32, 64 of 16x16."""
IMAGES = 256
"""Random training images: what is in them does not change the speed."""


@dataclass(frozen=True)
class Case:
    """The cell that predicts the noise, trained with L_simple: every other package has that one too."""

    preset: str
    settings: CellSettings
    batch: int
    device: torch.device

    @classmethod
    def of(cls, preset: str, batch: int | None, device: torch.device) -> "Case":
        """`batch` None: the preset's own for training, on a CPU at most CPU_PIXELS."""
        loaded = load_preset(preset)
        (cell,) = load_grid(GRID).select([CELL])
        settings = resolve(cell, loaded, {})
        most = CPU_PIXELS // settings.data.size**2 if device.type == "cpu" else settings.training.batch
        return cls(loaded.name, settings, batch or max(1, min(settings.training.batch, most)), device)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W): grey for the grey data sets, else colour."""
        side = self.settings.data.size
        return (1 if self.settings.data.source in GREY else 3), side, side

    @property
    def diffusion(self) -> Diffusion:
        return build_diffusion(self.settings.diffusion)

    @property
    def objective(self) -> Objective:
        return build_objective(self.settings.diffusion)

    def images(self, count: int = IMAGES) -> Tensor:
        """uint8 (count, C, H, W) on the CPU, always the same."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (count, *self.shape), dtype=torch.uint8, generator=generator)
