"""`ddpm-bench precision`: what bfloat16 makes to the numbers of a checkpoint, beside float32 on the same device.

Both begin from the same noise and take the same draws, image by image, so that what differs is the rounding: the bound
is compared image by image, and the samples pixel by pixel.
"""

import math
from dataclasses import replace
from pathlib import Path

import torch
from rich.table import Table

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.measurement.bounds import bound_of
from ddpm_bench.measurement.kept import work_beside
from ddpm_bench.measurement.measure import Task, measure
from ddpm_bench.measurement.samples import draw_samples
from ddpm_bench.models.model import Model
from ddpm_bench.records.part import Part
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.records.record import DataInfo, ExtractorInfo
from ddpm_bench.runtime.observer import about
from ddpm_bench.runtime.precision import PRECISIONS
from ddpm_bench.runtime.runtime import Runtime

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


def compare_precisions(model: Model, task: Task, runtime: Runtime, folder: Path) -> Precisions:
    """The model measured in both precisions: its samples, and the bound of test images.

    What is finished is kept in `folder`, so that the same call goes on. UserError for too few samples; an error
    of the bound's difference needs 2 images or more.
    """
    metrics, pixels, bounds = {}, {}, {}
    for precision in PRECISIONS:
        record, at = folder / f"{precision}.json", replace(runtime, precision=precision)
        with about(precision):
            metrics[precision] = measure(model, task, at, record).metrics
            # Both are kept by now, so that they are read and not made again.
            pixels[precision] = draw_samples(model, task.sampling, task.seed, at, work_beside(record))
            kept = bound_of(model, task.data, "test", task.bound_method(model), at, work_beside(record))
            bounds[precision] = kept.total
    change = bounds["bfloat16"] - bounds["float32"]
    evals = task.bound_method(model).evals_for(model) or model.T
    return Precisions(
        checkpoint=model.name,
        weights_sha256=model.weights_sha256,
        samples=task.sampling.samples,
        bound_images=len(change),
        evals=evals,
        seed=task.seed,
        data=task.info,
        extractor=task.extractor.info,
        metrics=metrics,
        bound_difference=float(change.mean()),
        bound_difference_error=float(change.std()) / math.sqrt(len(change)),
        pixel_difference=_mean_distance(pixels["float32"], pixels["bfloat16"]),
        versions=versions(*task.extractor.packages),
        git_commit=git_commit(),
        hardware=hardware(runtime.device, runtime.compiled) | {"networks": "float32 and bfloat16"},
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
    for key in (key for key in METRICS if key in result.metrics["float32"]):
        metric, exact, rounded = METRICS[key], *(result.metrics[name][key] for name in PRECISIONS)
        digits = 5 if key == BOUND else metric.digits + 1
        change = f"{rounded - exact:+.{digits}f}"
        if key == BOUND:
            change += f" ± {result.bound_difference_error:.{digits}f}"
        table.add_row(
            metric.heading(result.extractor.labels), f"{exact:z.{digits}f}", f"{rounded:z.{digits}f}", change
        )  # fmt: skip
    return table
