"""`ddpm-bench evaluate --samples`: anyone's images, scored beside anchors that give each distance a scale.

They are compared with a data set, with images that have no splits, or with statistics of a reference's features.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch import Tensor

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.settings import ScoringSettings
from ddpm_bench.data import ImageData
from ddpm_bench.data.given import GivenImages
from ddpm_bench.data.image_files import told_passed_over
from ddpm_bench.data.images import unscaled
from ddpm_bench.errors import UserError
from ddpm_bench.measurement.measure import data_info
from ddpm_bench.metrics.anchors import anchors, noise_anchor
from ddpm_bench.metrics.extractors import Extractor
from ddpm_bench.metrics.fidelity import distance_to_statistics, scores
from ddpm_bench.metrics.statistics import GivenStatistics
from ddpm_bench.records.protocol import (
    ScoreProtocol,
    few_for_distance,
    few_images,
    has_score,
    in_words,
    protocol,
    quality_in_words,
)
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.records.record import DataInfo, ExtractorInfo
from ddpm_bench.runtime.runtime import Runtime

NO_TEST_SPLIT = (
    "Anchors: noise alone; held-out real images, and these blurred, take a test split, and the reference has none."
)
DISTANCE_ALONE = (
    "Statistics give the distance alone: kernel distance, precision and recall take the reference's images, and the "
    "score, which takes none, is given beside those."
)


@dataclass(frozen=True)
class Evaluation:
    """The scores of a set of images, with what they depend on.

    against: the reference, in words; `data` is its identity where it is a data set, `reference` where it is anything
        else. how: the protocol; None against statistics, where there is no choice.
    warnings: what the numbers are not good for. notes: what was not used, and what was not measured.
    """

    samples: GivenImages
    against: str
    data: DataInfo | None
    reference: dict[str, Any] | None
    extractor: ExtractorInfo
    how: ScoreProtocol | None
    compared_with: int
    metrics: dict[str, float]
    anchors: dict[str, dict[str, float]]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    hardware: dict[str, Any]
    versions: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples.path,
            "images": len(self.samples.images),
            "samples_info": self.samples.info,
            "data": self.data and self.data.model_dump(),
            "reference": self.reference,
            "extractor": self.extractor.model_dump(),
            "neighborhood": self.how and self.how.neighborhood,
            "protocol": (asdict(self.how) if self.how else {}) | {"extractor_input": self.extractor.input},
            "metrics": self.metrics,
            "anchors": self.anchors,
            "warnings": self.warnings,
            "notes": self.notes,
            "versions": self.versions,
            "git_commit": git_commit(),
            "hardware": self.hardware,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def evaluate_images(
    samples: GivenImages, reference: ImageData | GivenImages | GivenStatistics, extractor: Extractor,
    scoring: ScoringSettings, runtime: Runtime,
) -> Evaluation:  # fmt: skip
    """Score `samples` against the training split of a data set, against images without splits, or against statistics.

    UserError when shapes do not match, or when statistics are of another extractor. Raises Interrupted between batches.
    """
    check_alike(samples, reference)
    if isinstance(reference, GivenStatistics):
        return _against_statistics(samples, reference, extractor, runtime)
    if isinstance(reference, GivenImages):
        return _against_images(samples, reference, extractor, scoring, runtime)
    return _against_data(samples, reference, extractor, scoring, runtime)


def _against_data(
    samples: GivenImages, data: ImageData, extractor: Extractor, scoring: ScoringSettings, runtime: Runtime
) -> Evaluation:
    how = protocol(len(samples.images), len(data.train), scoring.neighborhood, scoring.density_k)
    test = data.test.images if scoring.test_reference else None
    found = scores(
        samples.images, data.train.images, extractor, scoring, runtime, test_reference=test, held_out=data.test.images
    )
    scale = anchors(data, extractor, len(samples.images), scoring, runtime)
    warnings = few_images(how, len(samples.images), len(data.train), extractor.info)
    if scoring.test_reference:
        warnings += few_for_distance(len(samples.images), len(data.test), extractor.info)
    return Evaluation(
        samples, f"{data.name} ({len(data.train):,} training images)", data_info(data), None, extractor.info, how, len(data.train),
        found.metrics, scale, _once(*warnings, *_doubts(samples, extractor.info)),
        (*data.notes, *_told(samples)),
        hardware(runtime.device), versions(*extractor.packages),
    )  # fmt: skip


def _against_images(
    samples: GivenImages, reference: GivenImages, extractor: Extractor, scoring: ScoringSettings, runtime: Runtime
) -> Evaluation:
    count, of = len(samples.images), len(reference.images)
    how = protocol(count, of, scoring.neighborhood, scoring.density_k)
    found = scores(samples.images, reference.images, extractor, scoring, runtime, distance="fd_reference")

    def compare(noise: Tensor) -> dict[str, float]:
        return scores(noise, reference.images, extractor, scoring, runtime, distance="fd_reference").metrics

    depends_on = asdict(how) | {
        "reference": reference.sha256, "extractor": extractor.info.sha256, "precision_recall": scoring.precision_recall,
        "quality": scoring.quality,
    }  # fmt: skip
    same = ["Samples and reference are the same images."] if samples.sha256 == reference.sha256 else []
    few = few_images(how, count, of, extractor.info)
    return Evaluation(
        samples, f"{reference.path} ({of:,} images)", None, reference.info, extractor.info, how, of, found.metrics,
        noise_anchor(tuple(samples.images.shape[1:]), count, compare, depends_on, runtime),
        _once(*same, *few, *_doubts(samples, extractor.info), *_doubts(reference, extractor.info)),
        (NO_TEST_SPLIT, *_told(samples), *_told(reference)), hardware(runtime.device), versions(*extractor.packages),
    )  # fmt: skip


def _against_statistics(
    samples: GivenImages, reference: GivenStatistics, extractor: Extractor, runtime: Runtime
) -> Evaluation:
    reference.check_extractor(extractor)
    statistics = {"mu": reference.mean, "sigma": reference.covariance}

    def compare(images: Tensor) -> dict[str, float]:
        return distance_to_statistics(images, statistics, extractor, runtime)

    depends_on = {"statistics": reference.sha256, "extractor": extractor.info.sha256}
    unknown = (
        f"Nothing in '{reference.path}' tells which extractor made it, nor which size and resizing its images had; "
        f"'{extractor.info.name}' is what was named."
    )
    notes = [DISTANCE_ALONE, NO_TEST_SPLIT, *_told(samples)]
    if reference.passed_over:
        notes.append(
            f"Passed over other arrays of '{reference.path}': {', '.join(reference.passed_over)}"
            + (" (mu_s and sigma_s are of sFID's features)" if "mu_s" in reference.passed_over else "")
        )
    count = len(samples.images)
    return Evaluation(
        samples, f"the statistics of {len(reference.mean):,} features in {reference.path}", None, reference.info,
        extractor.info, None, 0, compare(samples.images),
        noise_anchor(tuple(samples.images.shape[1:]), count, compare, depends_on, runtime),
        (unknown, *few_for_distance(count, None, extractor.info), *_doubts(samples, extractor.info)), tuple(notes),
        hardware(runtime.device), versions(*extractor.packages),
    )  # fmt: skip


def check_alike(samples: GivenImages, reference: ImageData | GivenImages | GivenStatistics) -> None:
    """UserError where the images differ in size, or one is in colour and the other grey."""
    if isinstance(reference, GivenStatistics):
        return
    shape: tuple[int, ...]
    if isinstance(reference, ImageData):
        name, shape, remedy = reference.name, reference.shape, "choose another --data"
    else:
        name, shape, remedy = reference.path, tuple(reference.images.shape[1:]), "convert the reference"
    if tuple(samples.images.shape[1:]) != shape:
        raise UserError(
            f"'{samples.path}' holds images of (C, H, W) = {tuple(samples.images.shape[1:])} and the reference '{name}' of "
            f"{shape}. Convert the samples, or {remedy}."
        )


def evaluation_table(result: Evaluation) -> Group:
    """A row for the samples and one for each anchor; under it how they were measured, and what that is not good for."""
    info = result.extractor
    mark = "" if info.verified else "; UNVERIFIED extractor weights"
    table = Table(title=Text(f"{len(result.samples.images):,} images against {result.against}{mark}"))
    keys = [key for key in METRICS if key in result.metrics]
    table.add_column("")
    for key in keys:
        table.add_column(METRICS[key].heading(info.labels), justify="right")
    for label, values in {result.samples.path: result.metrics, **result.anchors}.items():
        table.add_row(Text(label), *(METRICS[key].text(values[key]) if key in values else "" for key in keys))
    how = in_words(result.how, info) + " " if result.how else ""
    inside = f" ({info.input})" if info.input else ""
    lines = [f"{how}Extractor: {info.name}{inside}, SHA-256 {info.sha256}. Samples are scored at their own size."]
    if not info.verified or (info.name != "inception" and has_score(info)):
        lines.append("Not comparable with published FID and IS.")
    if result.how:
        lines += quality_in_words(
            result.metrics, info, result.how.density_neighborhood or 0, len(result.samples.images), result.compared_with
        )
    warnings = [f"Warning: {warning}" for warning in result.warnings]
    return Group(table, *map(Text, (*lines, *warnings, *result.notes)))


def _once(*lines: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))


def _doubts(given: GivenImages, info: ExtractorInfo) -> list[str]:
    """What makes images unfit for a comparison: a lossy compression, or levels that nobody scaled."""
    said = []
    if given.lossy:
        said.append(
            f"{given.lossy:,} of the {len(given.images):,} files of '{given.path}' are JPEG or lossy WebP: compression moves "
            f"{info.labels[0]}. Compare images that were saved without loss."
        )
    if told := unscaled(given.images, f"The images of '{given.path}'"):
        said.append(told)
    return said


def _told(given: GivenImages) -> list[str]:
    """What was said of images as they were read, and what beside them was not."""
    return [*given.notes, *([told_passed_over(given.path, given.passed_over)] if given.passed_over else [])]
