"""A model is measured: samples -> scores -> pictures -> bounds. The only pipeline; everything that measures goes through it.

What is finished is kept beside the record that it leads to, each piece in a folder or file named by the hash of all that
it depends on, the hash of the weights first: an interrupted measurement goes on, and work of other weights, data or
settings is never taken for this one's.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ddpm_bench.config.metrics import BOUNDS, LIKELIHOOD, OF_DATA_SETS, SplitName
from ddpm_bench.config.networks import network_settings
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import ScoringSettings
from ddpm_bench.data import ImageData
from ddpm_bench.data.labels import check_labels, class_count
from ddpm_bench.data.pictures import write_image_grid
from ddpm_bench.diffusion.sample_labels import SampleLabels
from ddpm_bench.files import keyed_folder, sha256_file
from ddpm_bench.likelihood.bound import check_bounded
from ddpm_bench.likelihood.ode import Solving, check_likelihood
from ddpm_bench.measurement.bounds import BoundMethod, check_no_cascade, measure_bound, spread_over
from ddpm_bench.measurement.kept import Clock, Kept, work_beside
from ddpm_bench.measurement.likelihood import LikelihoodMethod, measure_likelihood
from ddpm_bench.measurement.pictures import draw_neighbours, draw_progressive
from ddpm_bench.measurement.samples import draw_samples, samples_depend_on
from ddpm_bench.metrics.anchors import anchors
from ddpm_bench.metrics.class_wise import Classes
from ddpm_bench.metrics.extractors import Extractor
from ddpm_bench.metrics.fidelity import scores
from ddpm_bench.metrics.neighbours import find_neighbours
from ddpm_bench.metrics.quality import check_quality
from ddpm_bench.models.build_sampling import build_sample_labels
from ddpm_bench.models.model import Model
from ddpm_bench.records.classes import ClassScores
from ddpm_bench.records.likelihoods import BoundTerms
from ddpm_bench.records.part import Part
from ddpm_bench.records.protocol import protocol
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.records.record import DataInfo, Measurement, Neighbours, picture_path
from ddpm_bench.runtime.observer import observer
from ddpm_bench.runtime.runtime import Runtime

PICTURED = 64
"""Samples shown in a picture, the same noise for every model."""
PROGRESSIVE = 8
"""Samples whose way through the chain is shown."""


@dataclass(frozen=True)
class Task:
    """What a model is measured on, and how: all that a measurement depends on beside the model."""

    data: ImageData
    extractor: Extractor
    sampling: SamplingSettings
    scoring: ScoringSettings
    seed: int
    bound_splits: tuple[SplitName, ...] = ("test", "train")

    def bound_method(self, model: Model) -> BoundMethod:
        scoring = self.scoring
        kept = model.kept_steps(self.sampling) if scoring.bound_of == "sampled chain" else None
        return BoundMethod(
            scoring.bound_images,
            scoring.bound_evals,
            self.seed,
            self.sampling.clip_x0,
            scoring.decoder,
            scoring.bootstrap,
            tuple(kept) if kept else None,
        )

    @property
    def likelihood_method(self) -> LikelihoodMethod:
        scoring = self.scoring
        return LikelihoodMethod(scoring.ode_images, self.seed, Solving(scoring.ode_draws), scoring.bootstrap)

    @property
    def info(self) -> DataInfo:
        return data_info(self.data)

    def anchors(self, runtime: Runtime) -> dict[str, dict[str, float]]:
        """What real, blurred and random images score in the same way; kept in the cache, where cells share them."""
        return anchors(self.data, self.extractor, self.sampling.samples, self.scoring, runtime)


class Scored(Part):
    """Scores of samples, by metric, the intervals of some, and scores by class."""

    metrics: dict[str, float]
    quantiles: dict[str, tuple[float, ...]]
    classes: tuple[ClassScores, ...] = ()


class Shown(Part):
    """Pictures beside the record, by name, and the distances to the nearest training images."""

    pictures: dict[str, str]
    sha256: dict[str, str]  # of each picture's file
    neighbours: dict[str, Neighbours]

    def lies_beside(self, record: Path) -> bool:
        """Are these pictures there, and not others of the same name?"""
        files = {name: record.with_name(file) for name, file in self.pictures.items()}
        return all(path.exists() and sha256_file(path) == self.sha256[name] for name, path in files.items())


def measure(model: Model, task: Task, runtime: Runtime, record: Path, bounds_in: Path | None = None) -> Measurement:
    """The whole measurement of `model`. `record`: the file that it will stand in; pictures and kept work lie beside it.

    bounds_in: where its bounds and likelihoods are kept instead, and found if they were measured for another record.
    Raises NotFinite for samples that are no images, Interrupted after saving when a stop was asked for, and UserError for
    what cannot be measured, before anything long.
    """
    clock, bounds_in = Clock(work_beside(record)), bounds_in or work_beside(record)
    check_task(model, task)
    with clock("anchors"):  # first, since they refuse a data set without enough test images
        scale = task.anchors(runtime)
    found = score(model, task, runtime, record)
    with clock("pictures"):
        shown = _show(model, task, runtime, record)
    with clock("bound"):
        bounds, terms = _bounds(model, task, runtime, bounds_in)
    ode = None
    if task.scoring.ode_images:
        with clock("likelihood"):
            ode = measure_likelihood(model, task.data, "test", task.likelihood_method, runtime, bounds_in)
    measured = {BOUNDS[bound.split]: bound for bound in bounds} | ({LIKELIHOOD: ode} if ode else {})
    totals = {key: one.total for key, one in measured.items()}
    observer().scores(model.step or 0, totals)
    return Measurement(
        metrics=found.metrics | totals,
        quantiles=found.quantiles | {key: one.quantiles for key, one in measured.items() if one.quantiles},
        bounds=bounds,
        terms=terms,
        ode=ode,
        classes=found.classes,
        anchors=scale,
        sample_grid=picture_path(record).name,
        pictures=shown.pictures,
        neighbours=shown.neighbours,
        wall_time_s=clock.seconds,
        versions=versions(*task.extractor.packages),
        git_commit=git_commit(),
        hardware=hardware(runtime.device, runtime.compiled, runtime.precision),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def check_task(model: Model, task: Task) -> None:
    """UserError for what cannot be measured of this model."""
    chain = model.chain(task.sampling)
    check_quality(task.scoring, task.extractor)
    if task.scoring.bound_images:
        check_bounded(chain.denoiser.schedule, chain.codec)
    if task.scoring.ode_images:
        check_likelihood(model.diffusion, chain.codec)
    if task.scoring.bound_images or task.scoring.ode_images:
        check_no_cascade(model)
        check_labels(model.network_settings.told_classes, task.data)


def score(model: Model, task: Task, runtime: Runtime, record: Path) -> Scored:
    """Sample, draw the picture of the first samples, and score. Raises NotFinite for samples that are no images."""
    clock = Clock(work_beside(record))
    with clock("sampling"):
        samples = draw_samples(model, task.sampling, task.seed, runtime, work_beside(record))
    write_image_grid(picture_path(record), samples[:PICTURED])
    kept, data = kept_scores(model.function, task, runtime, record), task.data
    if not (found := kept.read()):
        test = data.test.images if task.scoring.test_reference else None
        with clock("scoring"):
            made = scores(
                samples, data.train.images, task.extractor, task.scoring, runtime,
                seed=task.seed, test_reference=test, held_out=data.test.images,
                classes=_classes(model.function, task),
            )  # fmt: skip
        found = kept.write(Scored(metrics=made.metrics, quantiles=made.quantiles, classes=made.classes))
    observer().scores(model.step or 0, found.metrics)
    return found


def classes_asked(function: Mapping[str, Any], task: Task) -> SampleLabels | None:
    """Which classes samples are asked to be of, where the data have labels of as many; else None."""
    asked = build_sample_labels(task.sampling, network_settings(function["network"]))
    return asked if asked and asked.classes == class_count(task.data) else None


def classes_checked(function: Mapping[str, Any], task: Task) -> SampleLabels | None:
    """`classes_asked` where the extractor knows the classes of the data; else None."""
    known = task.data.classes and task.data.classes == task.extractor.class_names
    return classes_asked(function, task) if known else None


def _classes(function: Mapping[str, Any], task: Task) -> Classes | None:
    """Those of the samples and of the training images, where samples are asked to be of some of the data's."""
    asked, data = classes_asked(function, task), task.data
    if asked is None or data.train.labels is None:
        return None
    names = data.classes or tuple(map(str, range(asked.classes)))
    known = classes_checked(function, task) is not None
    return Classes(asked.at(0, task.sampling.samples), data.train.labels, names, known)


def kept_scores(function: dict[str, Any], task: Task, runtime: Runtime, record: Path) -> "Kept[Scored]":
    """Where the scores of a model are kept that computes `function` (`Model.function`)."""
    scoring = ("test_reference", "precision_recall", "neighborhood", "bootstrap", "quality")
    of = samples_depend_on(function, task.sampling, task.seed, runtime) | {
        "samples": task.sampling.samples,
        "data_sha256": task.data.sha256,
        "extractor_sha256": task.extractor.info.sha256,
        "scoring": task.scoring.model_dump(mode="json", include=set(scoring)),
        "protocol": asdict(
            protocol(task.sampling.samples, len(task.data.train), task.scoring.neighborhood, task.scoring.density_k)
        ),
        "keys": list(OF_DATA_SETS),
    }
    if classes_checked(function, task) is not None:
        of["classes_checked"] = list(task.data.classes)
    return Kept(Scored, keyed_folder(work_beside(record), "scores", of))


def _show(model: Model, task: Task, runtime: Runtime, record: Path) -> Shown:
    """The first samples on their way through the chain, and beside the training images nearest to them."""
    of = samples_depend_on(model.function, task.sampling, task.seed, runtime) | {
        "data_sha256": task.data.sha256,
        "extractor_sha256": task.extractor.info.sha256,
        "neighbours": min(task.scoring.neighbours, task.sampling.samples),
    }
    kept = Kept(Shown, keyed_folder(work_beside(record), "pictures", of))
    found = kept.read()
    if found and found.lies_beside(record):
        return found
    drawn = {"progressive": picture_path(record, "progressive")}
    draw_progressive(drawn["progressive"], model, task.sampling, PROGRESSIVE, task.seed, runtime)
    neighbours: dict[str, Neighbours] = {}
    if count := task.scoring.neighbours:
        samples = draw_samples(model, task.sampling, task.seed, runtime, work_beside(record))[:count]
        train, test = task.data.train.images, spread_over(task.data.test.images, len(samples))
        for space, near in find_neighbours(samples, test, train, task.extractor, runtime).items():
            drawn[f"neighbours-{space}"] = picture_path(record, f"neighbours-{space}")
            draw_neighbours(drawn[f"neighbours-{space}"], samples, train, near, space)
            neighbours[space] = Neighbours(samples=near.samples, test=near.test)
    return kept.write(
        Shown(
            pictures={name: path.name for name, path in drawn.items()},
            sha256={name: sha256_file(path) for name, path in drawn.items()},
            neighbours=neighbours,
        )
    )


def _bounds(
    model: Model, task: Task, runtime: Runtime, folder: Path
) -> tuple[tuple[BoundTerms, ...], BoundTerms | None]:
    """The bound of each split; and, where that is an estimate, every term of it for some test images."""
    method = task.bound_method(model)
    splits = task.bound_splits if method.images else ()
    bounds = tuple(measure_bound(model, task.data, split, method, runtime, folder) for split in splits)
    if not (bounds and task.scoring.terms_images) or method.evals_for(model) is None:
        return bounds, None
    every_t = replace(method, images=task.scoring.terms_images, evals=None)
    return bounds, measure_bound(model, task.data, "test", every_t, runtime, folder)


def data_info(data: ImageData) -> DataInfo:
    return DataInfo(
        name=data.name,
        sha256=data.sha256,
        train_images=len(data.train),
        test_images=len(data.test),
        shape=data.shape,
        notes=data.notes,
    )
