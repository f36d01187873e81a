"""Pictures of what a measurement found."""

from pathlib import Path

import torch
from torch import Tensor

from ddpm_bench.data.pictures import write_labelled_grid
from ddpm_bench.metrics.neighbours import Neighbourhood


def draw_neighbours(path: Path, samples: Tensor, train: Tensor, found: Neighbourhood, space: str) -> None:
    """Write a row a sample, and after it its nearest training images in this space; both uint8 (N, C, H, W)."""
    shown = torch.cat([samples[:, None], train[found.rows]], 1)  # (N, 1 + k, C, H, W)
    heads = ["sample", "nearest", *map(str, range(2, shown.shape[1]))]
    about = {"shown": f"samples and their nearest training images by {space} distance"}
    write_labelled_grid(path, shown, heads, [str(row) for row in range(len(samples))], about)
