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

from ddpm_bench.build import build_diffusion, build_network, build_objective
from ddpm_bench.console import say
from ddpm_bench.data.images import ImageData
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.files import write_json
from ddpm_bench.generate import default_batch, generate
from ddpm_bench.grid import Cell
from ddpm_bench.interrupt import NEVER, Stop
from ddpm_bench.likelihood.measure import measure, spread
from ddpm_bench.metrics.extractors import Extractor
from ddpm_bench.metrics.fidelity import score
from ddpm_bench.network.unet import UNet
from ddpm_bench.pictures import write_image_grid
from ddpm_bench.provenance import git_commit, hardware, versions
from ddpm_bench.settings import CellSettings
from ddpm_bench.store import BoundTerms, Checkpoint, DataInfo, Divergence, Record, record_path
from ddpm_bench.training.divergence import worse_than_noise
from ddpm_bench.training.trainer import Trainer

PICTURED = 64
"""Samples shown in a cell's picture, the same noise for every cell."""


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
    """What the cells of one command share. `results` receives records; checkpoints and samples lie in its folder `work`."""

    results: Path
    device: torch.device
    data: ImageData
    extractor: Extractor
    anchors: dict[str, dict[str, float]]
    cache: Path
    keep: int = 1
    batch: int | None = None
    stop: Stop = field(default=NEVER)

    def work(self, job: Job) -> Path:
        return self.results / "work" / job.name


def training_identity(job: Job, data: ImageData) -> dict[str, object]:
    """All that trained weights depend on: a checkpoint of anything else is not continued, sampled or scored as this."""
    settings = job.settings.model_dump(mode="json", include={"data", "diffusion", "network", "training"})
    return settings | {"seed": job.seed, "data_sha256": data.sha256, "channels": data.shape[0]}


def make_trainer(job: Job, data: ImageData, device: torch.device, folder: Path, keep: int) -> tuple[Trainer, Diffusion]:
    """The cell's trainer at the newest checkpoint in `folder`, or at step 0."""
    diffusion, objective = build_diffusion(job.settings.diffusion), build_objective(job.settings.diffusion)
    network = build_network(job.settings.network, data.shape, diffusion, job.seed)
    trainer = Trainer(
        network, diffusion, objective, data.train.images, job.settings.training, seed=job.seed, device=device,
        folder=folder, keep=keep, identity=training_identity(job, data), title=f"{job.name}: training",
    )  # fmt: skip
    if step := trainer.resume():
        say(f"{job.name}: going on at step {step} of {job.settings.training.steps}")
    return trainer, diffusion


def run_cell(job: Job, bench: Bench) -> Record:
    """Measure one cell. A rerun after an interruption goes on where it stopped and gives the same record.

    Raises Interrupted after saving, when `bench.stop` is requested.
    """
    clock = Clock(bench.work(job) / "wall-time.json")
    trainer, diffusion = make_trainer(job, bench.data, bench.device, bench.work(job), bench.keep)
    scored = _read_scores(job, bench)
    divergence: Divergence | None = None
    for step in scoring_steps(job.settings):
        with clock("training"):
            divergence = trainer.run(step, bench.stop)
        if divergence:
            break
        if step not in scored:
            scored[step] = _score_checkpoint(job, bench, trainer, diffusion, clock)
            _write_scores(job, bench, scored)
    checkpoints = tuple(Checkpoint(step=step, metrics=metrics) for step, metrics in sorted(scored.items()))
    bounds: tuple[BoundTerms, ...] = ()
    terms: BoundTerms | None = None
    if not divergence:
        with clock("bound"):
            bounds, terms = measure_bounds(job, bench, diffusion, trainer.ema_network(), trainer.step)
        last = checkpoints[-1]
        last.metrics.update({f"bound_{b.split}_bits_per_dim": b.total for b in bounds})
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
        sample_grid=_picture(job, bench).name if scored else None,
        wall_time_s=clock.seconds,
        versions=versions(),
        git_commit=git_commit(),
        hardware=hardware(bench.device),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def scoring_steps(settings: CellSettings) -> list[int]:
    """Training steps after which the EMA weights are scored: every snapshot, and the end."""
    steps, every = settings.training.steps, settings.training.snapshot_every
    return sorted({*(range(every, steps, every) if every else ()), steps})


def _score_checkpoint(job: Job, bench: Bench, trainer: Trainer, diffusion: Diffusion, clock: "Clock") -> dict[str, float]:
    """Sample, draw the picture of the first samples, and score."""
    scoring = job.settings.scoring
    with clock("sampling"):
        samples = _samples(job, bench, trainer, diffusion)
    write_image_grid(_picture(job, bench), samples[:PICTURED])
    with clock("scoring"):
        return score(
            samples, bench.data.train.images, bench.extractor,
            test_reference=bench.data.test.images if scoring.test_reference else None,
            precision_recall=scoring.precision_recall, neighborhood=scoring.neighborhood,
            device=bench.device, cache=bench.cache, stop=bench.stop,
        )  # fmt: skip


def _picture(job: Job, bench: Bench) -> Path:
    """Where the picture of the samples lies: beside the record."""
    return record_path(bench.results, job.cell.name, job.seed).with_suffix(".png")


def _samples(job: Job, bench: Bench, trainer: Trainer, diffusion: Diffusion) -> Tensor:
    """The samples of the EMA weights at the trainer's step, uint8 (samples, C, H, W)."""
    sampling = job.settings.sampling
    chain = diffusion.respaced(sampling.steps) if sampling.steps else diffusion
    return generate(
        chain, trainer.ema_network(), shape=bench.data.shape, count=sampling.samples, seed=job.seed,
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
            batch=bench.batch or default_batch(bench.device), device=bench.device, clip_x0=job.settings.sampling.clip_x0,
            decoder=scoring.decoder, folder=bench.work(job) / "bounds",
            identity=training_identity(job, bench.data) | {"step": step}, stop=bench.stop, title=f"{job.name}: bound",
        )  # fmt: skip

    bounds = tuple(of(split, scoring.bound_images, scoring.bound_evals) for split in splits if scoring.bound_images)
    estimated = any(bound.method == "estimate" for bound in bounds)
    return bounds, of("test", scoring.terms_images, None) if estimated and scoring.terms_images else None


def data_info(data: ImageData) -> DataInfo:
    return DataInfo(
        name=data.name, sha256=data.sha256, train_images=len(data.train), test_images=len(data.test), shape=data.shape
    )


def _read_scores(job: Job, bench: Bench) -> dict[int, dict[str, float]]:
    """Metrics by step, as far as an interrupted run of the same settings and extractor got; another's are not taken for these."""
    path = bench.work(job) / "scores.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if held.get("of") != _scored_identity(job, bench):
        return {}
    return {int(step): metrics for step, metrics in held["scores"].items()}


def _write_scores(job: Job, bench: Bench, scored: dict[int, dict[str, float]]) -> None:
    write_json(bench.work(job) / "scores.json", {"of": _scored_identity(job, bench), "scores": scored})


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
        try:
            yield
        finally:
            self.seconds[phase] = round(self.seconds.get(phase, 0.0) + time.monotonic() - began, 3)
            write_json(self.path, self.seconds)
