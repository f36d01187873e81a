"""Are samples copies of training images? The distance to the nearest one, calibrated (Carlini et al. 2023, section 5.1).

    c(x) = d(x, x_(1)) / ( 1/2 mean_{n <= 50} d(x, x_(n)) ),    d: l2 of pixels, x_(n): the n-th nearest training image to x

A plain or dark image is near to many; a copy is nearer to one than to the others that are near. So c lies between 0 (the
very image) and 2 (all 50 equally far). With fewer than 50 training images all are taken. Where the 50 nearest are all the
image itself, c is 0.

Two numbers of all samples: the median of c; and the share of samples with a c below that of all but 1% of test images,
which is 1% for a model that draws new images as the test images were drawn, and more for one that copies. A model that
copies something else than pixels, as mirrored or shifted images, is not found so.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_bench.metrics.cached import cached
from ddpm_bench.metrics.extractor import MeasuredImages
from ddpm_bench.metrics.products import rows_at_once, squared_distances
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress
from ddpm_bench.runtime.runtime import Runtime

NEAREST = 50
HALF = 0.5
TAIL = 0.01
"""Share of test images that are as near to a training image as a sample that counts as a copy."""
QUERIES, REFERENCE = 1024, 4096
"""Images compared at once, at most: 32 MiB of distances in float64."""


@dataclass(frozen=True, eq=False)
class Copies:
    """c of each sample, float64 (M,), and the c that all but TAIL of the test images exceed; None without a test split."""

    calibrated: Tensor
    threshold: float | None

    @property
    def median(self) -> float:
        return float(self.calibrated.quantile(0.5))

    @property
    def found(self) -> Tensor | None:
        """Which samples count as copies, bool (M,)."""
        return None if self.threshold is None else self.calibrated < self.threshold


def find_copies(
    samples: MeasuredImages, training: MeasuredImages, test: MeasuredImages | None, runtime: Runtime
) -> Copies:
    """c of all samples, and of all test images as a scale, which is kept in the runtime's cache. Raises Interrupted."""
    threshold = None if test is None else _threshold(test, training, runtime)
    return Copies(calibrated_distances(samples, training, runtime), threshold)


def _threshold(test: MeasuredImages, training: MeasuredImages, runtime: Runtime) -> float:
    identity = {
        "test": test.sha256(), "train": training.sha256(), "tail": TAIL, "nearest": NEAREST, "device": runtime.device.type,
    }  # fmt: skip
    return cached(
        "copies", identity, runtime,
        lambda: {"threshold": float(calibrated_distances(test, training, runtime).quantile(TAIL))},
    )["threshold"]  # fmt: skip


def calibrated_distances(images: MeasuredImages, training: MeasuredImages, runtime: Runtime) -> Tensor:
    """c of each image, float64 (N,), on the CPU. Squared distances of levels are whole numbers, and exact.

    Raises Interrupted between blocks.
    """
    found, device, pixels = [], runtime.float64_device, math.prod(training.images.shape[1:])
    with progress(f"distances of {len(images):,} {images.title} to training images", len(images), "images") as meter:
        for queries in images.batches(rows_at_once(QUERIES, pixels)):
            x = queries.to(device).flatten(1).double()
            nearest = x.new_empty((len(x), 0))
            for block in training.batches(rows_at_once(REFERENCE, pixels)):
                check_stop()
                squared = squared_distances(x, block.to(device).flatten(1).double())
                together = torch.cat([nearest, squared], 1)
                nearest = together.topk(min(NEAREST, together.shape[1]), largest=False).values
            distances = nearest.sqrt()
            found.append((distances[:, 0] / (HALF * distances.mean(1))).nan_to_num(0.0).cpu())
            meter.update(sum(map(len, found)))
    return torch.cat(found)
