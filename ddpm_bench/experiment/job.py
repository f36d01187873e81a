"""What is to be measured, and with what: a job of a grid, and the bench that all jobs of a command share."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddpm_bench.config.grid import Cell
from ddpm_bench.config.settings import CellSettings
from ddpm_bench.data import ImageData
from ddpm_bench.errors import UserError
from ddpm_bench.measurement.measure import Task
from ddpm_bench.metrics.extractors import Extractor
from ddpm_bench.records.protocol import has_score
from ddpm_bench.records.record import PICTURES, TABLE2_AXES, Record, picture_path, record_path
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.storage.lease import Lease
from ddpm_bench.storage.store import Mirror

TRAINED = {"data", "diffusion", "network", "training"}
"""The sections that weights depend on."""


@dataclass(frozen=True)
class Job:
    """One cell and seed of a grid, resolved.

    axes: the settings that tell the grid's cells apart. shares: the first of the jobs that differ in no setting of training,
    where there are several: they are trained once, as it says.
    """

    grid: str
    preset: str
    cell: Cell
    settings: CellSettings
    seed: int
    axes: tuple[str, ...] = TABLE2_AXES
    shares: "Job | None" = None

    @property
    def name(self) -> str:
        return f"{self.cell.name}-seed{self.seed}"

    @property
    def trained_in(self) -> Path:
        """The folder of its snapshots, below that of all work."""
        return Path("trained", self.shares.name) if self.shares else Path(self.name)

    def with_settings(self, changed: Callable[[CellSettings], CellSettings]) -> "Job":
        """The job with its settings changed so, and alike those of the job that it shares its training with."""
        return replace(self, settings=changed(self.settings), shares=self.shares and self.shares.with_settings(changed))

    @property
    def stages(self) -> "tuple[Job, ...]":
        """The trainings of the models below a cascade's own, the lowest first; jobs that agree in all that one depends on share it,
        for the name of its folder is the hash of that."""
        return tuple(replace(self, settings=each, shares=None) for each in self.settings.stages)

    @property
    def trained_as_stage_in(self) -> Path:
        """The folder of its snapshots where it is a model below others. Settings that have their defaults are left out of its hash,
        so that it is found again by versions with more of them."""
        settings = self.settings
        named = settings.model_dump(mode="json", include=TRAINED, exclude_defaults=True)
        of = json.dumps({**named, "kind": settings.network.kind}, sort_keys=True)
        return Path(
            "trained", f"side{self.settings.data.size}-{hashlib.sha256(of.encode()).hexdigest()[:12]}-seed{self.seed}"
        )


@dataclass(frozen=True)
class Bench:
    """Shared by all jobs of one command. `results` receives records; snapshots and samples lie in its folder `work`.

    tensorboard: folder of event files, where those are wanted. lease: of the place that `results` is kept in step with, where
    that lies elsewhere. UserError for an extractor without a score.
    """

    results: Path
    data: ImageData
    extractor: Extractor
    runtime: Runtime
    tensorboard: Path | None = None
    lease: Lease | None = None

    def __post_init__(self) -> None:
        if not has_score(self.extractor.info):
            raise UserError(
                f"The cells of a grid are scored, and the extractor '{self.extractor.info.name}' tells no classes apart, so that "
                "there is no score. Measure their checkpoints with it: `ddpm-bench evaluate --ckpt`."
            )

    def mirrored(self, folder: Path) -> AbstractContextManager[object]:
        """`folder`, of `results`, as the place elsewhere has it, and in step with that while the block runs."""
        if self.lease is None:
            return contextlib.nullcontext()
        return Mirror(self.lease.store / folder.relative_to(self.results), folder, self.lease.check)

    def send_pictures(self, job: Job) -> None:
        """Those beside the job's record, to the place elsewhere: whoever writes the record may be on another machine."""
        if self.lease:
            for path in (picture_path(self.record(job), name) for name in PICTURES):
                if path.exists():
                    self.lease.store.put(path, path.name)

    def fetch_pictures(self, record: Record) -> None:
        """Those of a record that are not here but at the place elsewhere."""
        if self.lease:
            for name in filter(None, (record.sample_grid, *record.pictures.values())):
                if not (self.results / name).exists():
                    self.lease.store.get(name, self.results / name)

    def record(self, job: Job) -> Path:
        return record_path(self.results, job.cell.name, job.seed)

    def task(self, job: Job) -> Task:
        return Task(self.data, self.extractor, job.settings.sampling, job.settings.scoring, job.seed)


def training_identity(settings: CellSettings) -> dict[str, Any]:
    """All settings that the weights depend on, as JSON values."""
    return settings.model_dump(mode="json", include=TRAINED)
