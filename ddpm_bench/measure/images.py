"""`ddpm-bench evaluate --samples`: anyone's images, scored beside anchors that give each distance a scale."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import load_data, read_images
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.cell import data_info
from ddpm_bench.metrics.anchors import anchors
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.metrics.fidelity import score
from ddpm_bench.records.record import DataInfo, ExtractorInfo


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

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"data": self.data.model_dump(), "extractor": self.extractor.model_dump()}


def evaluate_images(
    samples: Path, source: str, name: str | None, root: Path | None, size: int | None, extractor: str,
    inception_weights: Path | None, allow_unverified: bool, test_reference: bool, neighborhood: int,
    device: torch.device, cache: Path,
) -> Evaluation:  # fmt: skip
    """Score the images of a folder or .npz against a data set at `size` pixels (that of the samples when None).

    UserError when shapes do not match: images are never resized behind the user's back.
    """
    images = read_images(samples)
    side = images.shape[-1]
    data = load_data(DataSettings(source=source, name=name, size=size or side, root=root))
    if tuple(images.shape[1:]) != data.shape:
        raise UserError(
            f"'{samples}' holds images of (C, H, W) = {tuple(images.shape[1:])} and the reference '{data.name}' of "
            f"{data.shape}. Convert the samples, or choose another --data or --size."
        )
    features = load_extractor(
        extractor, size=side, inception_weights=inception_weights, allow_unverified=allow_unverified, cache=cache
    )
    common = {"neighborhood": neighborhood, "device": device, "cache": cache}
    reference = data.test.images if test_reference else None
    metrics = score(images, data.train.images, features, test_reference=reference, **common)
    scale = anchors(data, features, len(images), test_reference=test_reference, **common)
    return Evaluation(str(samples), len(images), data_info(data), features.info, neighborhood, metrics, scale)


def evaluation_table(result: Evaluation) -> Table:
    """A row for the samples and one for each anchor."""
    info = result.extractor
    mark = "" if info.verified else "; UNVERIFIED extractor weights"
    against = f"{result.data.name} ({result.data.train_images:,} training images)"
    table = Table(
        title=f"{result.images:,} images against {against}{mark}",
        caption=None if info.name == "inception" and info.verified else "Not comparable with published FID and IS.",
    )
    keys = list(result.metrics)
    table.add_column("")
    for key in keys:
        table.add_column(METRICS[key].heading(info.labels), justify="right")
    for label, values in {result.samples: result.metrics, **result.anchors}.items():
        table.add_row(label, *(f"{values[key]:.{METRICS[key].digits}f}" if key in values else "" for key in keys))
    return table
