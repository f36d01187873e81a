"""The training images nearest to samples, in pixels and in features: does the model make images, or copies?

Distances of held-out test images to the same training images are the scale: samples no nearer than these are no copies.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddpm_bench.data.pictures import write_labelled_grid
from ddpm_bench.metrics.extractor import Extractor
from ddpm_bench.metrics.fidelity import features_of
from ddpm_bench.records.record import Neighbours
from ddpm_bench.runtime.interrupt import NEVER, Stop

SHOWN = 7
"""Nearest training images of a sample in the picture."""
BLOCK = 1024
"""Training images compared at once."""


@dataclass(frozen=True)
class Nearest:
    """Of each query, nearest first: distances (Q, k), root mean square over the dimensions, and rows, int64 (Q, k)."""

    distances: Tensor
    rows: Tensor


def nearest(queries: Tensor, reference: Iterable[Tensor], k: int) -> Nearest:
    """The `k` rows of `reference` nearest to each of `queries` (Q, d), or all where there are fewer.

    `reference` comes in blocks (B, d), of which one at a time is held. Of equal distances the first row counts. An
    exact copy has a distance of exactly 0: differences are taken, not products.
    """
    queries = queries.double()
    best = Nearest(queries.new_empty((len(queries), 0)), torch.empty((len(queries), 0), dtype=torch.int64))
    start = 0
    for block in reference:
        away = torch.cdist(queries, block.double(), compute_mode="donot_use_mm_for_euclid_dist")
        rows = torch.arange(start, start + len(block)).expand(len(queries), -1)
        start += len(block)
        distances = torch.cat([best.distances, away / queries.shape[1] ** 0.5], 1)
        order = distances.argsort(dim=1, stable=True)[:, :k]
        best = Nearest(distances.gather(1, order), torch.cat([best.rows, rows], 1).gather(1, order))
    return best


def find_neighbours(
    samples: Tensor, test: Tensor, train: Tensor, extractor: Extractor, *, picture: Callable[[str], Path],
    device: torch.device | str = "cpu", cache: Path | None = None, stop: Stop = NEVER,
) -> dict[str, Neighbours]:  # fmt: skip
    """Distances of `samples` and of `test` images to the nearest of `train`, all uint8 (N, C, H, W).

    Returned by space: "pixel" (levels in [0, 1]) and "feature" (of `extractor`). A picture of each is written to
    `picture(space)`: a row a sample, and after it its nearest training images. `cache` as of `fidelity.scores`.
    """
    both = torch.cat([samples, test])
    features = features_of(both, extractor, device=device, stop=stop)
    of_train = features_of(train, extractor, device=device, cache=cache, stop=stop)
    spaces = {
        "pixel": (_pixels(both), map(_pixels, _blocks(train, stop))),
        "feature": (features, _blocks(of_train, stop)),
    }
    found = {}
    for space, (queries, reference) in spaces.items():
        near = nearest(queries, reference, SHOWN)
        first = near.distances[:, 0].split([len(samples), len(test)])
        found[space] = Neighbours(samples=tuple(first[0].tolist()), test=tuple(first[1].tolist()))
        shown = torch.cat([samples[:, None], train[near.rows[: len(samples)]]], 1)  # (N, 1 + k, C, H, W)
        heads = ["sample", "nearest", *map(str, range(2, shown.shape[1]))]
        about = {"shown": f"samples and their nearest training images by {space} distance"}
        write_labelled_grid(picture(space), shown, heads, [str(row) for row in range(len(samples))], about)
    return found


def _pixels(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) -> levels in [0, 1], float64 (N, C * H * W)."""
    return images.flatten(1).double() / 255


def _blocks(rows: Tensor, stop: Stop) -> Iterator[Tensor]:
    for block in rows.split(BLOCK):
        stop.check()
        yield block
