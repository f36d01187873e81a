"""Records: one typed JSON file a cell and seed, written atomically. Imports no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ddpm_bench.config.limits import NAME
from ddpm_bench.config.metrics import DISTANCE, SCORE
from ddpm_bench.config.settings import CellSettings, as_written
from ddpm_bench.config.values import Count, Seed
from ddpm_bench.errors import UserError
from ddpm_bench.files import write_json
from ddpm_bench.records.classes import ClassScores
from ddpm_bench.records.fields import (
    Distances,
    Hardware,
    Intervals,
    Numbers,
    PictureName,
    PictureNames,
    Scale,
    Seconds,
    Shape,
    Spaces,
    Step,
)
from ddpm_bench.records.likelihoods import Bounds, BoundTerms, OdeLikelihood
from ddpm_bench.records.part import Part, read_once
from ddpm_bench.records.reading import OwnFiles, read_part

SCHEMA = 2
"""Version of the record's layout. A reader refuses a newer one."""
TABLE2_AXES = ("diffusion.parameterization", "diffusion.objective", "diffusion.variance")
"""The axes of the grids whose records do not name them."""


class DataInfo(Part):
    """What was trained on: `sha256` is over the prepared uint8 pixels of both splits, `notes` what was said of preparing
    them: how they were resized, what was not used."""

    name: str
    sha256: str
    train_images: Count
    test_images: Count
    shape: Shape
    notes: tuple[str, ...] = ()


class ExtractorInfo(Part):
    """What produced the features. `verified`: the weights' hash is the one that published numbers rest on, or that of their own card.

    classes: that its logits tell apart, the most that the score can be; None in older files, 0 where there are none, and so
    no score. `input`: what is done to images first, where neither the name nor the images' own size says it.
    """

    name: str
    sha256: str
    verified: bool
    labels: tuple[
        str, str
    ]  # column headings of the distance and of the score, such as ("FD (embedded)", "IS (embedded)")
    feature_dim: Count
    classes: Count | None = None
    input: str | None = None


class Divergence(Part):
    """Which of the rules in `training/divergence.py` was met, and when."""

    step: Count
    reason: str


class Checkpoint(Part):
    """The scores of the EMA weights after `step` training steps. Keys of `metrics` are those of `config/metrics.py`.

    quantiles: by metric, what a bootstrap over samples or images puts at QUANTILES (`metrics/uncertainty.py`). It says
    how sure the number is for these weights; how it varies between training runs only several seeds show.
    """

    step: Count
    metrics: Numbers
    quantiles: Intervals = {}

    @model_validator(mode="after")
    def _scored(self) -> "Checkpoint":
        for key in (SCORE, DISTANCE):
            if key not in self.metrics:
                raise ValueError(f"metrics: '{key}' is missing")
        return self


class LogPoint(Part):
    """One tick of training: means over the steps since the last tick."""

    step: Step
    loss: float
    gradient_norm: float


class Neighbours(Part):
    """Distances to the nearest training image: of generated samples and, as a scale, of as many held-out test images.

    Root mean square over pixels in [0, 1], or over features. Samples much nearer than test images are copies.
    """

    samples: Distances
    test: Distances


class Measurement(Part):
    """A model, measured: what came out, and with what. Keys of `metrics` are those of `config/metrics.py`."""

    metrics: Numbers
    quantiles: Intervals = {}
    bounds: Bounds = ()
    terms: BoundTerms | None = None  # every term, of fewer test images, where the bounds are estimates
    ode: OdeLikelihood | None = None  # of test images
    classes: tuple[ClassScores, ...] = ()  # of samples that were asked to be of some
    anchors: Scale = {}
    sample_grid: PictureName  # PNG beside the record
    pictures: PictureNames = {}  # PNGs beside the record
    neighbours: Annotated[dict[str, Neighbours], Spaces] = {}
    wall_time_s: Seconds = {}
    versions: dict[str, str]
    git_commit: str | None  # that finished the measurement
    hardware: Hardware
    created: str  # ISO 8601, UTC


def with_network_calls(value: Any) -> Any:
    """JSON values of a chain, with the network calls that older versions do not say: one a step."""
    if isinstance(value, dict) and "sampling_steps" in value and "network_calls" not in value:
        return value | {"network_calls": value["sampling_steps"]}
    return value


class Record(Part):
    """A measurement with its cell, seed and training: what it was, where and with what it ran, and what came out.

    axes: the settings that tell the cells of its grid apart, as `diffusion.objective`. trained_with: the cell whose training it
    shares, where several cells of a seed differ in no setting of training; None where it was trained for itself.
    Where the run diverged before it could be measured, the fields of a `Measurement` are empty.
    """

    schema_version: int = SCHEMA
    grid: Annotated[str, Field(pattern=NAME)]
    preset: str
    cell: Annotated[str, Field(pattern=NAME)]
    label: str
    axes: tuple[str, ...] = TABLE2_AXES
    seed: Seed
    outcome: Literal["done", "diverged"]
    divergence: Divergence | None = None
    settings: Annotated[CellSettings, read_once(CellSettings, as_written)]
    data: Annotated[DataInfo, read_once(DataInfo)]
    extractor: Annotated[ExtractorInfo, read_once(ExtractorInfo)]
    parameters: Count
    images_seen: Count
    samples: Count
    sampling_steps: Count  # that were made
    network_calls: Count  # for an image
    sampling_remarks: tuple[str, ...] = ()  # what the sampler does not use, or does otherwise than its source
    checkpoints: tuple[Checkpoint, ...] = ()
    bounds: Bounds = ()
    terms: BoundTerms | None = None  # every term, of fewer test images, where the bounds are estimates
    ode: OdeLikelihood | None = None  # of test images
    classes: tuple[ClassScores, ...] = ()  # of samples that were asked to be of some
    anchors: Scale = {}
    training_log: tuple[LogPoint, ...] = ()
    trained_with: str | None = None
    sample_grid: PictureName | None = None  # PNG beside the record
    pictures: PictureNames = {}  # PNGs beside the record
    neighbours: Annotated[dict[str, Neighbours], Spaces] = {}
    wall_time_s: Seconds = {}
    versions: dict[str, str]
    git_commit: str | None  # that finished the record
    training_commits: tuple[str, ...] = ()  # that trained the weights, in order
    hardware: Hardware
    created: str  # ISO 8601, UTC

    @model_validator(mode="before")
    @classmethod
    def _one_call_a_step(cls, value: Any) -> Any:
        return with_network_calls(value)

    @model_validator(mode="before")
    @classmethod
    def _noise_is_no_divergence(cls, value: Any) -> Any:
        """Older versions took samples that score worse than noise for a divergence, and kept their numbers."""
        if not isinstance(value, dict) or not value.get("checkpoints"):
            return value
        found = value.get("divergence")
        told = str(found.get("reason", "")) if isinstance(found, dict) else ""
        by_noise = told.startswith("its samples score worse than uniform noise")
        return value | {"outcome": "done", "divergence": None} if by_noise else value

    @model_validator(mode="after")
    def _of_one_run(self) -> "Record":
        if self.outcome == "done" and self.divergence:
            raise ValueError("divergence: the run is done, and so did not diverge")
        if self.outcome == "done" and not self.checkpoints:
            raise ValueError("checkpoints: a run that is done has one")
        for bound in filter(None, (*self.bounds, self.terms)):
            T = bound.steps or self.settings.diffusion.T
            if bound.evals > T or (bound.method == "exact" and bound.evals != T):
                raise ValueError(f"a bound of {bound.evals} network calls an image, {bound.method}, where T = {T}")
        return self

    @property
    def name(self) -> str:
        """Of its file, and of the job that it is of."""
        return record_path(Path(), self.cell, self.seed).stem

    @property
    def every_term(self) -> BoundTerms | None:
        """The bound of test images with L_{t-1} and the error of x_0 for every t, where that was measured."""
        return self.terms or next((b for b in self.bounds if b.split == "test" and b.mse and not b.steps), None)

    @property
    def last(self) -> Checkpoint | None:
        """The checkpoint at the end of training."""
        return self.checkpoints[-1] if self.checkpoints else None

    @property
    def final(self) -> Checkpoint:
        """`last` of a run that is known to have finished, and so to have one."""
        return self.checkpoints[-1]

    @property
    def best(self) -> Checkpoint | None:
        """The checkpoint of the lowest distance to the training set: what the paper reports. Never mixed with `last`."""
        return min(self.checkpoints, key=lambda c: c.metrics["fd_train"]) if self.checkpoints else None


def common_settings(settings: CellSettings, axes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What is left for all cells of a grid to share, as JSON values: all but the axes, and the autoencoder of a codec that is one.

    Where kinds of network are an axis, none of the network: each kind has settings of its own.
    """
    values = settings.model_dump(mode="json")
    for axis in axes:
        section, _, name = axis.partition(".")
        values.get(section, {}).pop(name, None)
    if "network.kind" in axes:
        values["network"] = {}
    if "codec" not in values["diffusion"] or not settings.diffusion.autoencoder:
        values["diffusion"].pop("autoencoder", None)
    return values


PICTURES = (None, "progressive", "neighbours-pixel", "neighbours-feature")
"""Every picture beside a record: that of the samples, and the names in `Measurement.pictures`."""


def picture_path(record: Path, name: str | None = None) -> Path:
    """Where a picture lies, beside its record: one of PICTURES."""
    return record.with_name(f"{record.stem}-{name}.png") if name else record.with_suffix(".png")


def record_path(folder: Path, cell: str, seed: int) -> Path:
    return folder / f"{cell}-seed{seed}.json"


def write_record(folder: Path, record: Record) -> Path:
    """Write `record` atomically and return its path."""
    path = record_path(folder, record.cell, record.seed)
    write_json(path, record.as_json())
    return path


def read_record(path: Path) -> Record:
    """Read one record. UserError for a file that is none, is truncated, or has a newer schema."""
    return read_part(path, Record, SCHEMA, "record", "Measure the cell again or remove the file.")


_NAMES = rf"{NAME[1:-1]}-seed\d+"
RECORDS = OwnFiles(
    pattern="*-seed*",
    names=_NAMES,
    pictures=rf"{_NAMES}(-({'|'.join(filter(None, PICTURES))}))?",
    read=read_record,
    name=lambda record: record.name,
)
"""The records of a folder: `<cell>-seed<n>.json`."""


def check_found(folder: Path, records: Mapping[Path, Record]) -> None:
    """UserError where `records`, those of the folder, are none."""
    if not folder.is_dir():
        raise UserError(f"There is no results folder '{folder}'. Make one with `ddpm-bench ablate --results {folder}`.")
    if not records:
        raise UserError(
            f"The folder '{folder}' holds no records (<cell>-seed<n>.json). Make some with `ddpm-bench ablate`."
        )


def read_records(folder: Path) -> list[Record]:
    """All records of a folder, in order of file name. UserError when it does not exist or has none, or for a broken one."""
    records = RECORDS.all(folder)
    check_found(folder, records)
    return list(records.values())
