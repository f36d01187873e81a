"""Where jobs run: in this process, or several at a time in processes of their own with their share of the cores.

A small network does not fill two cores: two cells side by side, one thread each, take about four fifths of the time
that they take one after the other with two threads.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Protocol

import torch

from ddpm_bench.errors import Interrupted, UserError, near_miss
from ddpm_bench.experiment.cell import Bench, Job
from ddpm_bench.experiment.worker import Worker, measure_job
from ddpm_bench.records.record import Record
from ddpm_bench.runtime.interrupt import check_stop, stop_requested
from ddpm_bench.runtime.observer import Observer, logger, observed_by

ObserverOf = Callable[[Job], Observer]
"""Who watches a job."""
Ended = tuple[Job, Record | str]
"""A job with its record, or with what it failed of."""


class Launcher(Protocol):
    """Runs jobs somewhere. A job's record is the same bit for bit wherever it ran on the same kind of device."""

    def run(self, jobs: Sequence[Job], bench: Bench, observer_of: ObserverOf) -> Iterator[Ended]:
        """Each job as it ends. Raises Interrupted when a stop was asked for and all have saved."""


class Inline:
    """One after the other in this process."""

    def run(self, jobs: Sequence[Job], bench: Bench, observer_of: ObserverOf) -> Iterator[Ended]:
        for job in jobs:
            with observed_by(observer_of(job)):
                result = measure_job(job, bench)
            yield job, result


class Processes:
    """`workers` at a time, each in a process of its own. One that dies costs its job alone; another takes its place."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    @property
    def threads(self) -> int:
        """Of each worker: its share of the cores."""
        return max(1, (os.cpu_count() or 1) // self.workers)

    def run(self, jobs: Sequence[Job], bench: Bench, observer_of: ObserverOf) -> Iterator[Ended]:
        crew = _Crew(self.workers, self.threads, jobs, bench, {job.name: observer_of(job) for job in jobs})
        try:
            yield from crew.work()
            check_stop()
        except Interrupted:  # asked for twice, where work is left
            raise
        except BaseException:  # a full disk, say, or the caller lost interest
            crew.stop()
            deque(crew.work(), maxlen=0)
            raise
        finally:
            crew.kill()


LAUNCHERS: dict[str, Callable[[int], Launcher]] = {"inline": lambda workers: Inline(), "processes": Processes}
"""Each made from the number of jobs that it may run at a time."""


def choose_launcher(name: str | None, wanted: int | None, jobs: int, device: torch.device) -> Launcher:
    """The launcher of that name for so many jobs, `wanted` at a time; without a name by how many that are.

    By default as many jobs as cores on the CPU, and one at a time on a GPU; never more than there are jobs. UserError for an unknown
    name.
    """
    default = (os.cpu_count() or 1) if device.type == "cpu" else 1
    workers = max(1, min(wanted or default, jobs))
    if name and name not in LAUNCHERS:
        raise UserError(f"There is no launcher '{name}'{near_miss(name, LAUNCHERS)}")
    if name == "inline" and (wanted or 1) > 1:
        raise UserError(f"--workers {wanted} does not go with --launcher inline, which runs one job at a time.")
    return LAUNCHERS[name or ("inline" if workers == 1 else "processes")](workers)


def side_by_side(launcher: Launcher) -> tuple[int, int]:
    """How many jobs it runs at a time, and threads of each."""
    if isinstance(launcher, Processes):
        return launcher.workers, launcher.threads
    return 1, torch.get_num_threads()


class _Crew:
    """The workers of a run, and the jobs that wait for one."""

    def __init__(
        self, size: int, threads: int, jobs: Sequence[Job], bench: Bench, observers: dict[str, Observer]
    ) -> None:
        self.size, self.threads, self.bench, self.observers = size, threads, bench, observers
        self.waiting, self.workers, self.stopping = deque(jobs), list[Worker](), False
        self.every = min(each.every for each in observers.values())

    def work(self) -> Iterator[Ended]:
        """Each job as it ends, until all have or have saved."""
        while self.waiting or self.workers:
            if stop_requested():
                self.stop()
            yield from self._begin()
            told = wait([worker.news for worker in self.workers], timeout=0.2)
            for worker in [each for each in self.workers if each.news in told]:
                yield from self._hear(worker)

    def stop(self) -> None:
        """Let each worker save and end; jobs that wait are not begun."""
        if not self.stopping:
            self.stopping = True
            self.waiting.clear()
            for worker in self.workers:
                worker.stop()

    def kill(self) -> None:
        """Nothing runs any more."""
        for worker in self.workers:
            worker.kill()

    def _begin(self) -> Iterator[Ended]:
        """A job for each place that is free."""
        while self.waiting and len(self.workers) < self.size:
            job = self.waiting.popleft()
            try:
                self.workers.append(Worker(job, self.bench, self.threads, self.every))
            except OSError as error:
                yield job, f"its process could not begin: {error}"

    def _hear(self, worker: Worker) -> Iterator[Ended]:
        """The next that a worker tells, or that it is gone."""
        try:
            what, values = worker.news.recv()
        except (EOFError, OSError):
            self.workers.remove(worker)
            death = worker.death()
            if worker.job and not self.stopping:
                yield worker.job, death
            return
        if what == "ready":
            worker.ready = True
        elif what == "log":
            logger.handle(*values)
        elif what == "raised":
            worker.job = None
            if not self.stopping:  # else the first error is on its way, and the others save meanwhile
                raise values[0]
        elif what == "ended":
            yield from self._settle(worker, *values)
        elif worker.job:
            getattr(self.observers[worker.job.name], what)(*values)

    def _settle(self, worker: Worker, result: Record | str | None) -> Iterator[Ended]:
        """The worker has ended its job and takes the next. Without a result it was interrupted."""
        job, worker.job = worker.job, None
        if self.waiting:
            worker.take(self.waiting.popleft())
        else:
            worker.stop()
        if job and result is not None:
            yield job, result
