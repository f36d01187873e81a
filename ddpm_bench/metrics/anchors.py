"""Images of known quality, scored as samples are: they give every distance a scale.

    held-out real   test images: the least that a distance to the training set can be for so many images
    blurred         the same images under a Gaussian blur with a standard deviation of 1/16 of their side
    uniform noise   every level of every pixel equally likely: a cell that is no better has failed

A reference without a test split has noise alone: images that it holds itself, real or blurred, are nearer than any held out.

Distances are biased upwards for few images, so anchors have as many images as the samples, or all test images where
there are fewer; their names then say how many.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ddpm_bench.config.metrics import METRICS, OF_DATA_SETS
from ddpm_bench.config.settings import ScoringSettings
from ddpm_bench.data import ImageData
from ddpm_bench.errors import UserError
from ddpm_bench.metrics.cached import cached
from ddpm_bench.metrics.extractor import Extractor
from ddpm_bench.metrics.fidelity import score
from ddpm_bench.metrics.products import rows_at_once
from ddpm_bench.records.failure import NOISE
from ddpm_bench.records.protocol import images_needed, protocol
from ddpm_bench.runtime.runtime import Runtime

REAL, BLURRED = "held-out real", "blurred"
BLUR = 1 / 16  # standard deviation, in sides of the image


def anchor_images(data: ImageData, n: int) -> dict[str, Tensor]:
    """The anchors' images by name, uint8 (n or fewer, C, H, W): always the same ones for the same data and n."""
    generator = torch.Generator().manual_seed(0)
    real = data.test.images[torch.randperm(len(data.test), generator=generator)[:n]]
    noise = torch.randint(0, 256, (n, *data.shape), dtype=torch.uint8, generator=generator)
    told = f" ({len(real):,} images)" if len(real) < n else ""
    return {REAL + told: real, BLURRED + told: _blurred(real), NOISE: noise}


def anchors(
    data: ImageData, extractor: Extractor, n: int, scoring: ScoringSettings, runtime: Runtime
) -> dict[str, dict[str, float]]:
    """The anchors' scores (keys of `config.metrics.METRICS`) for `n` samples of `data`, without intervals.

    Kept in the runtime's cache under a hash of all that they depend on, so that the cells of a grid share them.
    UserError for too few images, of the test set too.
    """
    identity = _identity(data, extractor, n, scoring, runtime)
    return cached("anchors", identity, runtime, lambda: _measured(data, extractor, n, scoring, runtime))


def noise_anchor(
    shape: tuple[int, ...],
    n: int,
    compare: Callable[[Tensor], dict[str, float]],
    depends_on: dict[str, Any],
    runtime: Runtime,
) -> dict[str, dict[str, float]]:
    """The only anchor of a reference without a test split: what `compare` makes of noise, uint8 (n, *shape).

    Kept as `anchors` are; `depends_on`: all that `compare` depends on.
    """
    identity = depends_on | {"shape": shape, "n": n, "device": runtime.device.type, "keys": sorted(METRICS)}

    def make() -> dict[str, dict[str, float]]:
        noise = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return {NOISE: compare(noise)}

    return cached("anchors", identity, runtime, make)


def _measured(
    data: ImageData, extractor: Extractor, n: int, scoring: ScoringSettings, runtime: Runtime
) -> dict[str, dict[str, float]]:
    """`anchors`, whatever is kept."""
    if len(data.test) < (needed := images_needed(scoring.neighborhood, scoring.density_k)):
        raise UserError(
            f"The anchors of '{data.name}' are test images, of which it has {len(data.test)}; "
            f"{needed} or more are needed."
        )
    found = {}
    for name, images in anchor_images(data, n).items():
        # Test images are no match for themselves.
        test = data.test.images if scoring.test_reference and not name.startswith(REAL) else None
        found[name] = score(
            images, data.train.images, extractor, scoring, runtime, test_reference=test, held_out=data.test.images
        )
    return found


def _identity(
    data: ImageData, extractor: Extractor, n: int, scoring: ScoringSettings, runtime: Runtime
) -> dict[str, Any]:
    """All that the anchors' scores depend on."""
    return asdict(protocol(n, len(data.train), scoring.neighborhood, scoring.density_k)) | {
        "data": data.sha256, "extractor": extractor.info.sha256, "n": n, "blur": BLUR, "device": runtime.device.type,
        "precision_recall": scoring.precision_recall, "quality": scoring.quality, "test": scoring.test_reference,
        "keys": list(OF_DATA_SETS),
    }  # fmt: skip


def _blurred(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) under the Gaussian blur, rounded to levels."""
    sigma = min(images.shape[-2:]) * BLUR
    side = 2 * round(3 * sigma) + 1
    at_once = rows_at_once(len(images), images[0].numel())
    return torch.cat([gaussian_blur(block, [side, side], [sigma, sigma]) for block in images.split(at_once)])
