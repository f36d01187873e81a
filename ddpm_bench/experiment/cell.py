"""One cell from start to finish: train, then measure the snapshot as anyone would. Everything interruptible, everything resumable."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ddpm_bench.config.settings import CellSettings
from ddpm_bench.data import ImageData, small_data
from ddpm_bench.data.labels import labels_for, labels_sha256
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.errors import NotFinite
from ddpm_bench.experiment.classifiers import train_if_missing
from ddpm_bench.experiment.job import Bench, Job, training_identity
from ddpm_bench.measurement.kept import Clock, mention_older, work_beside
from ddpm_bench.measurement.measure import data_info, kept_scores, measure, score
from ddpm_bench.models.build import build_codec, build_diffusion, build_network, build_objective, build_small
from ddpm_bench.models.build_sampling import network_calls, sampling_remarks, steps_made
from ddpm_bench.models.cascade import stacked
from ddpm_bench.models.model import Model, function_of, load_model
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.records.record import (
    Checkpoint,
    Divergence,
    Measurement,
    Record,
    picture_path,
)  # fmt: skip
from ddpm_bench.runtime.batch import training_batch
from ddpm_bench.runtime.observer import about, observer, say
from ddpm_bench.runtime.owner import ORPHAN_S, owned
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.runtime.tensorboard import event_files
from ddpm_bench.training.batches import Labels
from ddpm_bench.training.divergence import no_distance
from ddpm_bench.training.trainer import Trainer, Training


def make_trainer(job: Job, data: ImageData, runtime: Runtime, folder: Path) -> Trainer:
    """The job's trainer at the newest snapshot in `folder`, or at step 0."""
    settings = job.settings
    diffusion, codec = build_diffusion(settings.diffusion), build_codec(settings.diffusion)
    shape, told = codec.shape(data.shape), labels_for(settings.network.told_classes, data, "train")
    network = build_network(settings.network, shape, diffusion, job.seed)
    training = Training(
        Denoiser(diffusion, network, shape, clip_x0=False),
        build_objective(settings.diffusion),
        data.train.images,
        settings.training,
        job.seed,
        training_identity(settings)
        | {"seed": job.seed, "data_sha256": data.sha256, "channels": data.shape[0], **labels_sha256(told)},
        codec,
        settings.sampling,
        None if told is None else Labels(told, settings.training.label_dropout, settings.network.no_class),
        build_small(settings.network, diffusion, settings.training.blur),
    )
    trainer = Trainer(training, folder, runtime)
    if step := trainer.resume():
        steps = settings.training.steps
        say(f"going on at step {step} of {steps}" if step < steps else f"trained already, to step {step}")
    return trainer


def run_cell(job: Job, bench: Bench) -> Record:
    """Measure one cell. A rerun after an interruption goes on where it stopped and gives the same record.

    Raises Interrupted after saving, when a stop was asked for.
    """
    work, curves = work_beside(bench.record(job)), bench.tensorboard and bench.tensorboard / job.name
    with about(job.name), owned(work, ORPHAN_S), bench.mirrored(work), event_files(curves):
        record = _run_cell(job, bench)
        bench.send_pictures(job)
        return record


def _run_cell(job: Job, bench: Bench) -> Record:
    work = work_beside(bench.record(job))
    mention_older(work)
    clock, sampling = Clock(work), job.settings.sampling
    if sampling.by_classifier:
        with clock("classifier"):
            train_if_missing(sampling, job.settings.diffusion, bench.data, bench.runtime)
    trainer = _shared_training(job, bench, clock) if job.shares else _trainer(job, job, bench)
    snapshots: list[Checkpoint] = []
    measurement: Measurement | None = None
    below, divergence = _trained_below(job, bench, clock)
    for step in () if divergence else scoring_steps(job.settings, shared=job.shares is not None):
        with clock("training"), training_batch(job.settings.training.batch):
            divergence = trainer.run(step)
        if divergence:
            break
        try:
            if step < job.settings.training.steps:
                snapshots += _scored_snapshot(job, bench, trainer, step)
            else:
                model = load_model(trainer.folder)
                model = stacked([*below, model]) if below else model
                measurement = measure(model, bench.task(job), bench.runtime, bench.record(job))
        except NotFinite as error:
            divergence = Divergence(step=step, reason=str(error))
            break
    if measurement:
        snapshots.append(Checkpoint(step=trainer.step, metrics=measurement.metrics, quantiles=measurement.quantiles))
        divergence = no_distance(measurement.metrics["fd_train"], trainer.step)
    return _record(job, bench, trainer, below, tuple(snapshots), measurement, divergence)


def _trainer(job: Job, as_of: Job, bench: Bench) -> Trainer:
    return make_trainer(as_of, bench.data, bench.runtime, bench.results / "work" / job.trained_in)


def _shared_training(job: Job, bench: Bench, clock: Clock) -> Trainer:
    """The finished training of the jobs that share it: whoever comes first trains, and the others wait."""
    folder = bench.results / "work" / job.trained_in
    with owned(folder, math.inf), bench.mirrored(folder), clock("training"):
        trainer = _trainer(job, job.shares or job, bench)
        with training_batch(job.settings.training.batch):
            trainer.run(job.settings.training.steps)
    return trainer


def _trained_below(job: Job, bench: Bench, clock: Clock) -> tuple[list[Model], Divergence | None]:
    """The models below a cascade's own, the lowest first: whoever needs one first trains it. None after one that diverged."""
    found: list[Model] = []
    for stage in job.stages:
        side, folder = stage.settings.data.size, bench.results / "work" / stage.trained_as_stage_in
        with about(f"{side}x{side}"), owned(folder, math.inf), bench.mirrored(folder), clock("training"):
            trainer = make_trainer(stage, small_data(bench.data, side), bench.runtime, folder)
            with training_batch(stage.settings.training.batch):
                divergence = trainer.run(stage.settings.training.steps)
            if divergence:
                said = f"the model of {side}x{side} pixels: {divergence.reason}"
                return found, divergence.model_copy(update={"reason": said})
            found.append(replace(load_model(trainer.folder), sampling=stage.settings.sampling))
    return found, None


def _scored_snapshot(job: Job, bench: Bench, trainer: Trainer, step: int) -> list[Checkpoint]:
    """The scores of the averaged weights after `step` steps, before the end of training; none where they are lost."""
    task, record = bench.task(job), bench.record(job)
    if trainer.step == step:
        found = score(load_model(work_beside(record)), task, bench.runtime, record)
    else:  # scored before an interruption; the weights are gone, their hash is known
        sha256 = trainer.weights.get(str(step), "")
        function = function_of(sha256, job.settings.diffusion, job.settings.network, bench.data.shape)
        kept = kept_scores(function, task, bench.runtime, record).read()
        if kept is None:
            say(f"The scores at step {step} are not there any more, nor are its weights; the record goes without.")
            return []
        found = kept
        observer().scores(step, found.metrics)
    return [Checkpoint(step=step, metrics=found.metrics, quantiles=found.quantiles)]


def scoring_steps(settings: CellSettings, shared: bool = False) -> list[int]:
    """Training steps after which the EMA weights are scored: every snapshot, and the end; of a shared training, and of a cascade,
    the end alone."""
    steps = settings.training.steps
    every = None if shared or settings.cascade.below else settings.training.snapshot_every
    return sorted({*(range(every, steps, every) if every else ()), steps})


def _record(
    job: Job,
    bench: Bench,
    trainer: Trainer,
    below: Sequence[Model],
    checkpoints: tuple[Checkpoint, ...],
    measurement: Measurement | None,
    divergence: Divergence | None,
) -> Record:
    if measurement:
        shared = Measurement.model_fields.keys() & Record.model_fields.keys()
        measured = {name: getattr(measurement, name) for name in shared}
    else:
        measured = _unmeasured(job, bench, scored=bool(checkpoints))
    sampling, T = job.settings.sampling, job.settings.diffusion.T
    of_stages = [(each.sampling, each.diffusion.T) for each in (*job.settings.stages, job.settings)]
    return Record(
        grid=job.grid,
        preset=job.preset,
        cell=job.cell.name,
        label=job.cell.label,
        axes=job.axes,
        seed=job.seed,
        outcome="diverged" if divergence else "done",
        divergence=divergence,
        settings=job.settings,
        data=data_info(bench.data),
        extractor=bench.extractor.info,
        parameters=sum(p.numel() for p in trainer.network.parameters()) + sum(model.parameters for model in below),
        images_seen=trainer.step * job.settings.training.batch,
        samples=sampling.samples,
        sampling_steps=steps_made(sampling, T),
        network_calls=sum(network_calls(*each) for each in of_stages),
        sampling_remarks=sampling_remarks(sampling, job.settings.network, build_diffusion(job.settings.diffusion)),
        checkpoints=checkpoints,
        training_log=tuple(trainer.log),
        trained_with=job.shares.cell.name if job.shares else None,
        training_commits=tuple(trainer.commits),
        **measured,
    )


def _unmeasured(job: Job, bench: Bench, scored: bool) -> dict[str, Any]:
    """What a record says of a run that diverged before it could be measured."""
    record = bench.record(job)
    return {
        "anchors": bench.task(job).anchors(bench.runtime),
        "sample_grid": picture_path(record).name if scored else None,
        "wall_time_s": Clock(work_beside(record)).seconds,
        "versions": versions(*bench.extractor.packages),
        "git_commit": git_commit(),
        "hardware": hardware(bench.runtime.device, bench.runtime.compiled, bench.runtime.precision),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
