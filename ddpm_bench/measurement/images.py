"""`ddpm-bench evaluate --samples`: anyone's images, scored beside anchors that give each distance a scale."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from torch import Tensor

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.settings import ScoringSettings
from ddpm_bench.data import ImageData
from ddpm_bench.errors import UserError
from ddpm_bench.measurement.measure import data_info
from ddpm_bench.metrics.anchors import anchors
from ddpm_bench.metrics.extractors import Extractor
from ddpm_bench.metrics.fidelity import scores
from ddpm_bench.records.record import DataInfo, ExtractorInfo
from ddpm_bench.runtime.runtime import Runtime


@dataclass(frozen=True)
class Evaluation:
    """The scores of a set of images, with what they depend on."""

    samples: str
    images: int
    data: DataInfo
    extractor: ExtractorInfo
    neighborhood: int
    metrics: dict[str, float]
    anchors: dict[str, dict[str, float]]
    notes: tuple[str, ...]  # what was said as the images were read; of the reference's in `data`

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"data": self.data.model_dump(), "extractor": self.extractor.model_dump()}


def evaluate_images(
    label: str, images: Tensor, data: ImageData, extractor: Extractor, scoring: ScoringSettings, runtime: Runtime,
    notes: Sequence[str] = (),
) -> Evaluation:  # fmt: skip
    """Score `images`, uint8 (N, C, H, W), against a data set. UserError when shapes do not match.

    notes: what was said as the images were read.
    """
    reference = data.test.images if scoring.test_reference else None
    found = scores(images, data.train.images, extractor, scoring, runtime, test_reference=reference)
    scale = anchors(data, extractor, len(images), scoring, runtime)
    return Evaluation(
        label, len(images), data_info(data), extractor.info, scoring.neighborhood, found.metrics, scale, tuple(notes)
    )


def check_sizes(label: str, images: Tensor, data: ImageData) -> None:
    """UserError when shapes do not match: images are never resized behind the user's back."""
    if tuple(images.shape[1:]) != data.shape:
        raise UserError(
            f"'{label}' holds images of (C, H, W) = {tuple(images.shape[1:])} and the reference '{data.name}' of "
            f"{data.shape}. Convert the samples, or choose another --data or --size."
        )


def evaluation_table(result: Evaluation) -> Table:
    """A row for the samples and one for each anchor."""
    info = result.extractor
    mark = "" if info.verified else "; UNVERIFIED extractor weights"
    against = f"{result.data.name} ({result.data.train_images:,} training images)"
    incomparable = [] if info.name == "inception" and info.verified else ["Not comparable with published FID and IS."]
    table = Table(
        title=f"{result.images:,} images against {against}{mark}",
        caption="\n".join([*incomparable, *result.data.notes, *result.notes]) or None,
    )
    keys = [key for key in METRICS if key in result.metrics]
    table.add_column("")
    for key in keys:
        table.add_column(METRICS[key].heading(info.labels), justify="right")
    for label, values in {result.samples: result.metrics, **result.anchors}.items():
        table.add_row(label, *(f"{values[key]:.{METRICS[key].digits}f}" if key in values else "" for key in keys))
    return table
