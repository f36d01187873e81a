"""Images of known quality, scored as samples are: they give every distance a scale.

    held-out real   test images: the least that a distance to the training set can be for so many images
    blurred         the same images under a Gaussian blur with a standard deviation of 1/16 of their side
    uniform noise   every level of every pixel equally likely: what a diverged model is compared with

Distances are biased upwards for few images, so anchors have as many images as the samples, or all test images where
there are fewer; their names then say how many.
"""

import contextlib
import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.data import ImageData
from ddpm_bench.errors import UserError
from ddpm_bench.files import write_json
from ddpm_bench.metrics.extractor import Extractor
from ddpm_bench.metrics.fidelity import protocol, score
from ddpm_bench.runtime.interrupt import NEVER, Stop

REAL, BLURRED, NOISE = "held-out real", "blurred", "uniform noise"
BLUR = 1 / 16  # standard deviation, in sides of the image


def anchor_images(data: ImageData, n: int) -> dict[str, Tensor]:
    """The anchors' images by name, uint8 (n or fewer, C, H, W): always the same ones for the same data and n."""
    generator = torch.Generator().manual_seed(0)
    real = data.test.images[torch.randperm(len(data.test), generator=generator)[:n]]
    noise = torch.randint(0, 256, (n, *data.shape), dtype=torch.uint8, generator=generator)
    told = f" ({len(real):,} images)" if len(real) < n else ""
    return {REAL + told: real, BLURRED + told: _blurred(real), NOISE: noise}


def anchors(
    data: ImageData, extractor: Extractor, n: int, *, test_reference: bool = False, precision_recall: bool = True,
    neighborhood: int = 3, seed: int = 0, device: torch.device | str = "cpu", cache: Path | None = None,
    stop: Stop = NEVER,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """The anchors' scores (keys of `registry.METRICS`) for `n` samples of `data`; arguments as of `fidelity.score`.

    Kept in `cache` under a hash of all that they depend on, so that the cells of a grid share them.
    """
    settings = protocol(n, len(data.train), neighborhood=neighborhood, seed=seed)
    identity = settings | {
        "data": data.sha256, "extractor": extractor.info.sha256, "n": n, "precision_recall": precision_recall,
        "test": test_reference, "keys": sorted(METRICS),
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    kept = cache and cache / f"anchors-{key}.json"
    if kept and kept.is_file():
        with contextlib.suppress(ValueError):  # damaged: measured again
            return json.loads(kept.read_text(encoding="utf-8"))
    needed = max(settings["isc_splits"], neighborhood + 1)
    if len(data.test) < needed:
        raise UserError(
            f"The anchors of '{data.name}' are test images, of which it has {len(data.test)}; "
            f"{needed} or more are needed."
        )
    scores = {}
    for name, images in anchor_images(data, n).items():
        # Test images are no match for themselves.
        compared_with_test = test_reference and not name.startswith(REAL)
        scores[name] = score(
            images, data.train.images, extractor, test_reference=data.test.images if compared_with_test else None,
            precision_recall=precision_recall, neighborhood=neighborhood, seed=seed, device=device, cache=cache,
            stop=stop,
        )  # fmt: skip
    if kept:
        write_json(kept, scores)
    return scores


def _blurred(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) under the Gaussian blur, rounded to levels."""
    sigma = images.shape[-1] * BLUR
    side = 2 * round(3 * sigma) + 1
    return gaussian_blur(images, [side, side], [sigma, sigma])
