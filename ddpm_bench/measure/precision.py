"""`ddpm-bench precision`: what bfloat16 makes to the numbers of a checkpoint, beside float32 on the same device.

Both begin from the same noise and take the same draws, image by image, so that what differs is the rounding: the bound
is compared image by image, and the samples pixel by pixel.
"""

import math
from pathlib import Path

import torch
from rich.table import Table

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.data import ImageData
from ddpm_bench.experiment.cell import data_info
from ddpm_bench.files import make_folder
from ddpm_bench.likelihood.estimate import estimate_bits_per_dim
from ddpm_bench.likelihood.ledger import Ledger
from ddpm_bench.measure.bounds import spread
from ddpm_bench.measure.samples import generate
from ddpm_bench.metrics.extractors import Extractor
from ddpm_bench.metrics.fidelity import protocol, score
from ddpm_bench.models.model import Model
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.records.record import DataInfo, ExtractorInfo, Part
from ddpm_bench.runtime.batch import default_batch
from ddpm_bench.runtime.interrupt import Stop

PRECISIONS = {"float32": False, "bfloat16": True}
"""The network computes in it; weights, schedule and predictions are float32 in both."""
BOUND = "bound_test_bits_per_dim"


class Precisions(Part):
    """Metrics by precision, and what lies between the two.

    bound_difference: bits/dim in bfloat16 minus those in float32, the mean over test images, with its standard error.
    pixel_difference: mean absolute difference of the samples, in grey levels of 0..255.
    """

    checkpoint: str
    weights_sha256: str
    samples: int
    bound_images: int
    evals: int
    seed: int
    data: DataInfo
    extractor: ExtractorInfo
    metrics: dict[str, dict[str, float]]
    bound_difference: float
    bound_difference_error: float
    pixel_difference: float
    versions: dict[str, str]
    git_commit: str | None
    hardware: dict[str, str | int | float | bool | None]


def compare_precisions(
    model: Model, data: ImageData, extractor: Extractor, *, samples: int, bound_images: int, evals: int, seed: int,
    device: torch.device, batch: int | None, folder: Path, cache: Path, stop: Stop,
) -> Precisions:  # fmt: skip
    """`samples` samples and the bound of `bound_images` test images, by `evals` network calls each, in both precisions.

    What is finished is kept in `folder`, so that the same call goes on. UserError for too few samples; an error
    of the bound's difference needs 2 images or more.
    """
    protocol(samples, len(data.train))
    network, images = model.network.to(device), spread(data.test.images, bound_images)
    metrics, pixels, bounds = {}, {}, {}
    for precision, half in PRECISIONS.items():
        network.in_bfloat16 = half
        work, identity = make_folder(folder / "work" / precision), model.identity | {"networks": precision}
        pixels[precision] = generate(
            model.diffusion, network, shape=model.shape, count=samples, seed=seed, folder=work / "samples",
            identity=identity, device=device, batch=batch, stop=stop, title=f"{precision}: sampling",
        )  # fmt: skip
        metrics[precision] = score(
            pixels[precision], data.train.images, extractor, device=device, cache=cache, stop=stop
        )
        of = identity | {"data_sha256": data.sha256, "images": bound_images, "evals": evals, "seed": seed}
        bounds[precision] = estimate_bits_per_dim(
            model.diffusion, network, images, evals=evals, seed=seed, batch=batch or default_batch(device, model.shape[1]),
            device=device, ledger=Ledger(work / "bound", of), stop=stop, title=f"{precision}: bound",
        ).total  # fmt: skip
        metrics[precision][BOUND] = float(bounds[precision].mean())
    change = bounds["bfloat16"] - bounds["float32"]
    return Precisions(
        checkpoint=model.name,
        weights_sha256=model.identity["weights_sha256"],
        samples=samples,
        bound_images=len(images),
        evals=evals,
        seed=seed,
        data=data_info(data),
        extractor=extractor.info,
        metrics=metrics,
        bound_difference=float(change.mean()),
        bound_difference_error=float(change.std()) / math.sqrt(len(change)),
        pixel_difference=_mean_distance(pixels["float32"], pixels["bfloat16"]),
        versions=versions(),
        git_commit=git_commit(),
        hardware=hardware(device) | {"networks": "float32 and bfloat16"},
    )


def _mean_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean |a - b| of two sets of uint8 images, (N, C, H, W) each, a block at a time: memory does not grow with N."""
    sums = (
        (x.short() - y.short()).abs().sum(dtype=torch.float64)
        for x, y in zip(a.split(1024), b.split(1024), strict=True)
    )
    return float(sum(sums)) / a.numel()


def precision_table(result: Precisions) -> Table:
    """A row a metric: both precisions, and the difference."""
    caption = (
        f"{result.samples:,} samples from the same noise, which differ by {result.pixel_difference:.2f} of 255 grey levels in the "
        f"mean; bound of {result.bound_images:,} test images by {result.evals} network calls each. ± is the standard error of the "
        "mean difference over images. A distance has no error here: it is over one set of samples."
    )
    device = result.hardware.get("gpu") or result.hardware["device"]
    table = Table(
        title=f"{result.checkpoint} on {result.data.name}, networks in two precisions on {device}", caption=caption
    )
    table.add_column("")
    for head in (*PRECISIONS, "difference"):
        table.add_column(head, justify="right")
    for key, exact in result.metrics["float32"].items():
        metric, rounded = METRICS[key], result.metrics["bfloat16"][key]
        digits = 5 if key == BOUND else metric.digits + 1
        change = f"{rounded - exact:+.{digits}f}"
        if key == BOUND:
            change += f" ± {result.bound_difference_error:.{digits}f}"
        table.add_row(
            metric.heading(result.extractor.labels), f"{exact:.{digits}f}", f"{rounded:.{digits}f}", change
        )  # fmt: skip
    return table
