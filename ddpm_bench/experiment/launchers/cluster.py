"""Jobs as the tasks of a cluster, whichever it is: tasks that die are begun again, and go on from their last snapshot.

Machines come and go there, so a death costs time alone. Deaths are counted as long as nothing new is kept of the job: after so many
in a row it has failed.
"""

import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from ddpm_bench import __version__
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.experiment.job import Bench, Job
from ddpm_bench.experiment.launchers.launcher import Ended, measure_job, outcome
from ddpm_bench.experiment.launchers.wire import Wire, hear, told_by
from ddpm_bench.measurement.kept import work_beside
from ddpm_bench.records.record import Record
from ddpm_bench.runtime.device import cpu_threads, set_up
from ddpm_bench.runtime.interrupt import check_stop, stop_requested
from ddpm_bench.runtime.observer import Observer, say
from ddpm_bench.runtime.owner import owned

DEATHS = 4
"""After how many deaths in a row, with nothing new kept between them, a job has failed."""
LEASE_S = 300.0
"""How long a shared file system may take to notice that a machine which held a lock is gone."""


@dataclass(frozen=True)
class Death:
    """A task that is gone without having ended its job: how, and whether it is worth another try."""

    how: str
    again: bool = True


class Cluster(Protocol):
    """Tasks, one a job, by the names of the jobs. It is asked every `poll_s` seconds."""

    poll_s: float

    def begin(self, jobs: Sequence[Job]) -> None:
        """A task for each; it may wait for its place."""

    def gone(self) -> Mapping[str, Death]:
        """The tasks that are no more: those that have ended their job, too."""

    def news(self) -> Sequence[tuple[str, str, tuple[Any, ...]]]:
        """What the tasks have told since the last call, in the words of `wire.py`."""

    def stop(self) -> Sequence[str]:
        """Have the tasks save and end; returns those that nobody need wait for."""


class Tasks:
    """The jobs of a run: those that wait, and those whose tasks have begun."""

    def __init__(
        self, cluster: Cluster, jobs: Sequence[Job], bench: Bench, observers: Mapping[str, Observer], most: int
    ) -> None:
        """most: tasks at a time."""
        self.cluster, self.bench, self.observers, self.most = cluster, bench, observers, most
        self.waiting, self.begun, self.stopping = list(jobs), dict[str, Job](), False
        self.gone = dict[str, Death]()
        self.trained, self.deaths = set[Path](), dict[str, tuple[int, frozenset[str]]]()

    def run(self) -> Iterator[Ended]:
        """Each job as it ends. Raises Interrupted when a stop was asked for and all have saved."""
        try:
            yield from self._work()
            check_stop()
        except Interrupted:
            raise
        except BaseException:  # a full disk, say, or the caller lost interest
            self._stop()
            deque(self._work(), maxlen=0)
            raise

    def _work(self) -> Iterator[Ended]:
        while self.waiting or self.begun:
            if stop_requested():
                self._stop()
            if ready := self._ready():
                self.cluster.begin(ready)
                self.begun |= {job.name: job for job in ready}
            self.gone |= self.cluster.gone()  # before the news, in which those that ended well have said so
            for name, what, values in self.cluster.news():
                yield from self._hear(name, what, values)
            while self.gone:
                yield from self._bury(*self.gone.popitem())
            time.sleep(self.cluster.poll_s)

    def _stop(self) -> None:
        if not self.stopping:
            self.stopping = True
            self.waiting.clear()
            for name in self.cluster.stop():
                self.begun.pop(name, None)

    def _ready(self) -> list[Job]:
        """Jobs for the places that are free. Of those that share a training, one begins, and the others when it has ended:
        they would hold a place each, and wait for it there."""
        busy, found = {job.trained_in for job in self.begun.values()} - self.trained, list[Job]()
        for job in self.waiting:
            if len(self.begun) + len(found) < self.most and job.trained_in not in busy:
                found.append(job)
                busy |= {job.trained_in} - self.trained
        self.waiting = [job for job in self.waiting if job not in found]
        return found

    def _hear(self, name: str, what: str, values: tuple[Any, ...]) -> Iterator[Ended]:
        if what == "raised" and not self.stopping:  # else the first error is on its way, and the others save meanwhile
            raise values[0]
        if what not in ("ended", "raised"):
            hear(what, values, self.observers[name])
        elif job := self.begun.pop(name, None):
            (result,) = values
            if isinstance(result, Record):
                self.trained.add(job.trained_in)
            if isinstance(result, Record | str):
                yield job, result

    def _bury(self, name: str, death: Death) -> Iterator[Ended]:
        """Begin it again, where it had not ended its job and that is worth it."""
        job = self.begun.pop(name, None)
        if job is None or self.stopping:
            return
        kept = _kept(job, self.bench)
        before, had = self.deaths.get(name, (0, frozenset()))
        count = before + 1 if kept == had else 1
        self.deaths[name] = count, kept
        if not death.again or count == DEATHS:
            how = f"{death.how}, {DEATHS} times without getting on" if death.again else death.how
            yield job, f"{how}. The same command goes on from its last snapshot"
            return
        said = f", for the {count}. time in a row without getting on" if count > 1 else ""
        say(f"{name}: {death.how}{said}. It is begun again, and goes on from its last snapshot")
        self.waiting.insert(0, job)


def _kept(job: Job, bench: Bench) -> frozenset[str]:
    """The names of all that is kept of a job: snapshots, samples and pieces of bounds have their numbers in theirs."""
    parts = {Path("work") / job.name, Path("work") / job.trained_in}
    if bench.lease:
        return frozenset(f"{part}/{name}" for part in parts for name in (bench.lease.store / part).names())
    folders = {bench.results / part for part in parts}
    paths = [path for folder in folders for path in folder.rglob("*") if not path.name.startswith(".")]
    return frozenset(str(path.relative_to(bench.results)) for path in paths)


# ---- for the commands and their tasks ---------------------------------------------------------------------------------


def anywhere(bench: Bench) -> Bench:
    """The same with paths that mean the same in whichever folder a task begins."""
    cache, tensorboard = bench.runtime.cache, bench.tensorboard
    return replace(
        bench,
        results=bench.results.absolute(),
        runtime=replace(bench.runtime, cache=cache and cache.absolute()),
        tensorboard=tensorboard and tensorboard.absolute(),
    )


def task(job: Job, bench: Bench, threads: int, wire: Wire) -> bool:
    """Measure a job in this process, which a cluster has begun, and tell it. False where it has saved, to go on later.

    Waits for the lock of a task before it whose machine is gone.
    """
    with told_by(wire), cpu_threads(threads):
        wire.send("ready")
        what, result = outcome(partial(_measured, job, bench))
        if result is not None:
            wire.send(what, result)
        return result is not None


def _measured(job: Job, bench: Bench) -> Record | str:
    """As `measure_job`, on a machine that another has chosen."""
    device = bench.runtime.device
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"{job.name} was begun on '{socket.gethostname()}', where torch {torch.__version__} finds no GPU. Without "
            "--gpus-per-cell cells run on a CPU."
        )
    set_up(device)
    with owned(work_beside(bench.record(job)), LEASE_S):
        return measure_job(job, bench)


def check_version(wanted: str) -> None:
    """UserError on a machine with another version of the package than the command that began the task."""
    if wanted != __version__:
        raise UserError(
            f"'{socket.gethostname()}' has ddpm-bench {__version__}, and the command that began this is {wanted}. Install the same there."
        )


def needs(extra: str, error: ImportError) -> UserError:
    """What to say where the package of a launcher is not installed."""
    return UserError(
        f"--launcher {extra} needs the package {error.name}, which is not installed: pip install 'ddpm-bench[{extra}]'."
    )
