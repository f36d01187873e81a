"""The training images nearest to samples, in pixels and in features: does the model make images, or copies?

Distances of held-out test images to the same training images are the scale: samples no nearer than these are no copies.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddpm_bench.metrics.extractor import Extractor
from ddpm_bench.metrics.features import features_of
from ddpm_bench.metrics.products import rows_at_once
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.runtime import Runtime

NEAREST = 7
"""Training images found for each sample."""
BLOCK = 1024
"""Training images compared at once, at most."""


@dataclass(frozen=True)
class Nearest:
    """Of each query, nearest first: distances (Q, k), root mean square over the dimensions, and rows, int64 (Q, k)."""

    distances: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Neighbourhood:
    """Distances to the nearest training image, of each sample and of each test image, in one space.

    rows: of the training images nearest to each sample, nearest first, int64 (samples, NEAREST or fewer).
    """

    samples: tuple[float, ...]
    test: tuple[float, ...]
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
    samples: Tensor, test: Tensor, train: Tensor, extractor: Extractor, runtime: Runtime
) -> dict[str, Neighbourhood]:
    """The nearest of `train` to `samples` and to `test` images, all uint8 (N, C, H, W).

    By space: "pixel" (levels in [0, 1]) and "feature" (of `extractor`). Features of `train` are kept in the runtime's
    cache, as those of a reference. Raises Interrupted between blocks of training images.
    """
    both = torch.cat([samples, test])
    features = features_of(both, extractor, replace(runtime, cache=None))
    spaces = {
        "pixel": (_pixels(both), map(_pixels, _blocks(train))),
        "feature": (features, _blocks(features_of(train, extractor, runtime))),
    }
    found = {}
    for space, (queries, reference) in spaces.items():
        near = nearest(queries, reference, NEAREST)
        of_samples, of_test = near.distances[:, 0].split([len(samples), len(test)])
        rows = near.rows[: len(samples)]
        found[space] = Neighbourhood(tuple(of_samples.tolist()), tuple(of_test.tolist()), rows)
    return found


def _pixels(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) -> levels in [0, 1], float64 (N, C * H * W)."""
    return images.flatten(1).double() / 255


def _blocks(rows: Tensor) -> Iterator[Tensor]:
    for block in rows.split(rows_at_once(BLOCK, math.prod(rows.shape[1:]))):
        check_stop()
        yield block
