"""One cell from start to finish: train -> sample -> score -> bound -> record. Everything interruptible, everything resumable."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ddpm_bench.config.grid import Cell
from ddpm_bench.config.settings import CellSettings
from ddpm_bench.data.images import ImageData
from ddpm_bench.data.pictures import write_image_grid, write_labelled_grid
from ddpm_bench.diffusion.chains import progressive, stations
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.errors import NotFinite
from ddpm_bench.files import write_json
from ddpm_bench.measure.bounds import measure, spread
from ddpm_bench.measure.chain_pictures import COLUMNS
from ddpm_bench.measure.samples import generate
from ddpm_bench.metrics.extractors import Extractor
from ddpm_bench.metrics.fidelity import scores
from ddpm_bench.metrics.neighbours import find_neighbours
from ddpm_bench.models.build import build_diffusion, build_network, build_objective
from ddpm_bench.networks.compiled import compile_network
from ddpm_bench.networks.unet import UNet
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.records.record import BoundTerms, Checkpoint, DataInfo, Divergence, Neighbours, Record, record_path
from ddpm_bench.records.scored import read_scored
from ddpm_bench.runtime.batch import default_batch
from ddpm_bench.runtime.observer import progress, say, screen
from ddpm_bench.runtime.interrupt import NEVER, Stop
from ddpm_bench.runtime.tensorboard import Events, event_log
from ddpm_bench.training.divergence import worse_than_noise
from ddpm_bench.training.trainer import Trainer

PICTURED = 64
"""Samples shown in a cell's picture, the same noise for every cell."""
PROGRESSIVE = 8
"""Samples whose way through the chain is shown."""
PICTURES = ("progressive", "neighbours-pixel", "neighbours-feature")
"""Pictures of a cell beside that of its samples: the names in `Record.pictures`."""


@dataclass(frozen=True)
class Job:
    """One cell and seed of a grid, resolved."""

    grid: str
    preset: str
    cell: Cell
    settings: CellSettings
    seed: int

    @property
    def name(self) -> str:
        return f"{self.cell.name}-seed{self.seed}"


@dataclass(frozen=True)
class Bench:
    """What the cells of one command share. `results` receives records; checkpoints and samples lie in its folder `work`.

    tensorboard: folder of event files, where those are wanted.
    """

    results: Path
    device: torch.device
    data: ImageData
    extractor: Extractor
    anchors: dict[str, dict[str, float]]
    cache: Path
    keep: int = 1
    batch: int | None = None
    stop: Stop = field(default=NEVER)
    tensorboard: Path | None = None
    compiled: bool = False

    @property
    def network_batch(self) -> int:
        """Images a network call outside training."""
        return self.batch or default_batch(self.device, self.data.shape[1])

    def work(self, job: Job) -> Path:
        return self.results / "work" / job.name


def training_identity(job: Job, data: ImageData) -> dict[str, object]:
    """All that trained weights depend on: a checkpoint of anything else is not continued, sampled or scored as this."""
    settings = job.settings.model_dump(mode="json", include={"data", "diffusion", "network", "training"})
    return settings | {"seed": job.seed, "data_sha256": data.sha256, "channels": data.shape[0]}


def make_trainer(
    job: Job, data: ImageData, device: torch.device, folder: Path, keep: int, events: Events, compiled: bool = False
) -> tuple[Trainer, Diffusion]:
    """The cell's trainer at the newest checkpoint in `folder`, or at step 0."""
    diffusion, objective = build_diffusion(job.settings.diffusion), build_objective(job.settings.diffusion)
    network = build_network(job.settings.network, data.shape, diffusion, job.seed)
    if compiled:
        compile_network(network)
    trainer = Trainer(
        network, diffusion, objective, data.train.images, job.settings.training, seed=job.seed, device=device,
        folder=folder, keep=keep, identity=training_identity(job, data), title=f"{job.name}: training", on_tick=events.tick,
    )  # fmt: skip
    if step := trainer.resume():
        say(f"{job.name}: going on at step {step} of {job.settings.training.steps}")
    return trainer, diffusion


def run_cell(job: Job, bench: Bench) -> Record:
    """Measure one cell. A rerun after an interruption goes on where it stopped and gives the same record.

    Raises Interrupted after saving, when `bench.stop` is requested.
    """
    with event_log(bench.tensorboard and bench.tensorboard / job.name) as events:
        return _run_cell(job, bench, events)


def _run_cell(job: Job, bench: Bench, events: Events) -> Record:
    clock = Clock(bench.work(job) / "wall-time.json")
    trainer, diffusion = make_trainer(
        job, bench.data, bench.device, bench.work(job), bench.keep, events, bench.compiled
    )
    kept = bench.work(job) / "scores.json"
    scored = read_scored(kept, _scored_identity(job, bench))
    for checkpoint in scored.checkpoints:
        _tell(events, checkpoint.step, checkpoint.metrics)
    divergence: Divergence | None = None
    for step in scoring_steps(job.settings):
        with clock("training"):
            divergence = trainer.run(step, bench.stop)
        if divergence:
            break
        if step not in scored.steps:
            try:
                checkpoint = _score_checkpoint(job, bench, trainer, diffusion, clock)
            except NotFinite as error:
                divergence = Divergence(step=step, reason=str(error))
                break
            scored = scored.having(checkpoints=(*scored.checkpoints, checkpoint))
            scored.write(kept)
            _tell(events, step, checkpoint.metrics)
    checkpoints = scored.checkpoints
    bounds: tuple[BoundTerms, ...] = ()
    terms: BoundTerms | None = None
    if not divergence:
        if not scored.pictures:
            with clock("pictures"):
                pictures, neighbours = _show(job, bench, trainer, diffusion)
            scored = scored.having(pictures=pictures, neighbours=neighbours)
            scored.write(kept)
        with clock("bound"):
            bounds, terms = measure_bounds(job, bench, diffusion, trainer.ema_network(), trainer.step)
        last = _with_bounds(checkpoints[-1], bounds)
        checkpoints = (*checkpoints[:-1], last)
        _tell(events, last.step, {key: value for key, value in last.metrics.items() if key.startswith("bound_")})
        noise = bench.anchors["uniform noise"]["fd_train"]
        divergence = worse_than_noise(last.metrics["fd_train"], noise, last.step)
    return Record(
        grid=job.grid,
        preset=job.preset,
        cell=job.cell.name,
        label=job.cell.label,
        seed=job.seed,
        outcome="diverged" if divergence else "done",
        divergence=divergence,
        settings=job.settings,
        data=data_info(bench.data),
        extractor=bench.extractor.info,
        parameters=sum(p.numel() for p in trainer.network.parameters()),
        images_seen=trainer.step * job.settings.training.batch,
        samples=job.settings.sampling.samples,
        sampling_steps=job.settings.sampling.steps or job.settings.diffusion.T,
        checkpoints=checkpoints,
        bounds=bounds,
        terms=terms,
        anchors=bench.anchors,
        training_log=tuple(trainer.log),
        sample_grid=_picture(job, bench).name if checkpoints else None,
        pictures=scored.pictures,
        neighbours=scored.neighbours,
        wall_time_s=clock.seconds,
        versions=versions(),
        git_commit=git_commit(),
        training_commits=tuple(trainer.commits),
        hardware=hardware(bench.device, bench.compiled),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _tell(events: Events, step: int, metrics: dict[str, float]) -> None:
    """New scores, to whoever watches."""
    screen().scores(metrics)
    events.scores(step, metrics)


def scoring_steps(settings: CellSettings) -> list[int]:
    """Training steps after which the EMA weights are scored: every snapshot, and the end."""
    steps, every = settings.training.steps, settings.training.snapshot_every
    return sorted({*(range(every, steps, every) if every else ()), steps})


def _score_checkpoint(job: Job, bench: Bench, trainer: Trainer, diffusion: Diffusion, clock: "Clock") -> Checkpoint:
    """Sample, draw the picture of the first samples, and score. Raises NotFinite for samples that are no images."""
    scoring = job.settings.scoring
    with clock("sampling"):
        samples = _samples(job, bench, trainer, diffusion)
    write_image_grid(_picture(job, bench), samples[:PICTURED])
    with clock("scoring"):
        found = scores(
            samples, bench.data.train.images, bench.extractor,
            test_reference=bench.data.test.images if scoring.test_reference else None,
            precision_recall=scoring.precision_recall, neighborhood=scoring.neighborhood,
            bootstrap=scoring.bootstrap, bootstrap_seed=job.seed,
            device=bench.device, cache=bench.cache, stop=bench.stop,
        )  # fmt: skip
    return Checkpoint(step=trainer.step, metrics=found.metrics, quantiles=found.quantiles)


def _with_bounds(checkpoint: Checkpoint, bounds: tuple[BoundTerms, ...]) -> Checkpoint:
    metrics = {f"bound_{bound.split}_bits_per_dim": bound.total for bound in bounds}
    quantiles = {f"bound_{bound.split}_bits_per_dim": bound.quantiles for bound in bounds if bound.quantiles}
    return checkpoint.model_copy(
        update={"metrics": checkpoint.metrics | metrics, "quantiles": checkpoint.quantiles | quantiles}
    )


def _show(
    job: Job, bench: Bench, trainer: Trainer, diffusion: Diffusion
) -> tuple[dict[str, str], dict[str, Neighbours]]:
    """Pictures of the first samples of the last checkpoint, by their name in `Record.pictures`: on their way through
    the chain, and beside the training images nearest to them; and how far these are."""
    chain = _chain(job, diffusion)
    at = stations(chain.schedule.T, COLUMNS)
    with progress(f"{job.name}: progressive generation", PROGRESSIVE, "images") as meter:
        rows = progressive(
            chain, trainer.ema_network(), shape=bench.data.shape, count=PROGRESSIVE, at=at, seed=job.seed,
            batch=bench.network_batch, device=bench.device,
            clip_x0=job.settings.sampling.clip_x0, stop=bench.stop, on_progress=meter.update,
        )  # fmt: skip
    drawn = {"progressive": _picture(job, bench, "progressive")}
    about = {"columns": "x_0 predicted at t; the sample at t = 0", "t": at}
    write_labelled_grid(drawn["progressive"], rows, [f"t={t}" for t in at], [str(i) for i in range(len(rows))], about)
    neighbours: dict[str, Neighbours] = {}
    if count := job.settings.scoring.neighbours:
        samples = _samples(job, bench, trainer, diffusion)[:count]
        neighbours = find_neighbours(
            samples, spread(bench.data.test.images, len(samples)), bench.data.train.images, bench.extractor,
            device=bench.device, cache=bench.cache, stop=bench.stop,
            picture=lambda space: _picture(job, bench, f"neighbours-{space}"),
        )  # fmt: skip
    drawn |= {f"neighbours-{space}": _picture(job, bench, f"neighbours-{space}") for space in neighbours}
    return {name: path.name for name, path in drawn.items()}, neighbours


def picture_path(record: Path, name: str | None = None) -> Path:
    """Where a picture lies, beside its record: one of PICTURES, or that of the samples."""
    return record.with_name(f"{record.stem}-{name}.png") if name else record.with_suffix(".png")


def _picture(job: Job, bench: Bench, name: str | None = None) -> Path:
    return picture_path(record_path(bench.results, job.cell.name, job.seed), name)


def _chain(job: Job, diffusion: Diffusion) -> Diffusion:
    """The chain that samples are drawn by."""
    steps = job.settings.sampling.steps
    return diffusion.respaced(steps) if steps else diffusion


def _samples(job: Job, bench: Bench, trainer: Trainer, diffusion: Diffusion) -> Tensor:
    """The samples of the EMA weights at the trainer's step, uint8 (samples, C, H, W)."""
    sampling = job.settings.sampling
    return generate(
        _chain(job, diffusion), trainer.ema_network(), shape=bench.data.shape, count=sampling.samples, seed=job.seed,
        folder=bench.work(job) / f"samples-{trainer.step:08d}",
        identity=training_identity(job, bench.data) | {"step": trainer.step, "sampling_steps": sampling.steps},
        device=bench.device, batch=bench.batch, clip_x0=sampling.clip_x0, stop=bench.stop, title=f"{job.name}: sampling",
    )  # fmt: skip


def measure_bounds(
    job: Job, bench: Bench, diffusion: Diffusion, network: UNet, step: int
) -> tuple[tuple[BoundTerms, ...], BoundTerms | None]:
    """The variational bound of each split; and, where that is an estimate, every term of it for some test images."""
    scoring, splits = job.settings.scoring, {"test": bench.data.test, "train": bench.data.train}

    def of(split: Literal["test", "train"], count: int, evals: int | None) -> BoundTerms:
        return measure(
            network, diffusion, spread(splits[split].images, count), split=split, evals=evals, seed=job.seed,
            batch=bench.network_batch, device=bench.device, clip_x0=job.settings.sampling.clip_x0,
            decoder=scoring.decoder, folder=bench.work(job) / "bounds",
            identity=training_identity(job, bench.data) | {"step": step}, stop=bench.stop, title=f"{job.name}: bound",
            bootstrap=scoring.bootstrap,
        )  # fmt: skip

    bounds = tuple(of(split, scoring.bound_images, scoring.bound_evals) for split in splits if scoring.bound_images)
    estimated = any(bound.method == "estimate" for bound in bounds)
    return bounds, of("test", scoring.terms_images, None) if estimated and scoring.terms_images else None


def data_info(data: ImageData) -> DataInfo:
    return DataInfo(
        name=data.name, sha256=data.sha256, train_images=len(data.train), test_images=len(data.test), shape=data.shape
    )


def _scored_identity(job: Job, bench: Bench) -> dict[str, object]:
    return {"settings": job.settings.model_dump(mode="json"), "extractor": bench.extractor.info.sha256}


class Clock:
    """Wall time by phase in seconds, summed over interruptions by way of a small file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        screen().phase(phase)
        try:
            yield
        finally:
            self.seconds[phase] = round(self.seconds.get(phase, 0.0) + time.monotonic() - began, 3)
            write_json(self.path, self.seconds)
