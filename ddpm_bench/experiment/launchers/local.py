"""On this machine: one job after the other in this process, or several at a time in processes of their own.

A small network does not fill two cores: two cells side by side, one thread each, take about four fifths of the time
that they take one after the other with two threads.
"""

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import ClassVar

import torch

from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.experiment.job import Bench, Job
from ddpm_bench.experiment.launchers.launcher import Ended, ObserverOf, measure_job
from ddpm_bench.experiment.launchers.wire import hear
from ddpm_bench.experiment.launchers.worker import VISIBLE, Worker
from ddpm_bench.records.record import Record
from ddpm_bench.runtime.interrupt import check_stop, stop_requested
from ddpm_bench.runtime.observer import Observer, observed_by


@dataclass(frozen=True)
class Inline:
    """One after the other in this process, with the threads that it has."""

    elsewhere: ClassVar[bool] = False
    workers: int = 1

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    def run(self, jobs: Sequence[Job], bench: Bench, observer_of: ObserverOf) -> Iterator[Ended]:
        for job in jobs:
            with observed_by(observer_of(job)):
                result = measure_job(job, bench)
            yield job, result


@dataclass(frozen=True)
class Processes:
    """`workers` at a time, each in a process of its own. One that dies costs its job alone; another takes its place.

    devices: GPUs by their number, each worker sees one of them alone, in turn. cpus_per_cell: threads of each worker; by default its
    share of the cores.
    """

    elsewhere: ClassVar[bool] = False
    workers: int
    devices: tuple[int, ...] = ()
    cpus_per_cell: int | None = None

    @property
    def threads(self) -> int:
        return self.cpus_per_cell or max(1, (os.cpu_count() or 1) // self.workers)

    def run(self, jobs: Sequence[Job], bench: Bench, observer_of: ObserverOf) -> Iterator[Ended]:
        crew = _Crew(self, jobs, bench, {job.name: observer_of(job) for job in jobs})
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


def check_devices(devices: Sequence[int], workers: int | None, device: torch.device) -> None:
    """UserError for `--devices` that cannot be: GPUs that are not there, one twice, or more than workers."""
    said = f"--devices {','.join(map(str, devices))}"
    if device.type != "cuda":
        raise UserError(f"{said} pins cells to GPUs, and they are to run on '{device.type}'. Leave it out.")
    there = torch.cuda.device_count()
    for number in devices:
        if not 0 <= number < there:
            raise UserError(f"{said}: there is no GPU {number}; torch sees {there}, from 0 to {there - 1}.")
    if workers is not None and workers < len(devices):
        raise UserError(f"{said} are {len(devices)} GPUs for --workers {workers}. Name as many workers, or fewer GPUs.")


def cuda_names(devices: Sequence[int]) -> list[str]:
    """GPUs by the numbers that torch gives them, as CUDA_VISIBLE_DEVICES names them: that of this process may leave some out."""
    visible = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return [visible[number] if visible else str(number) for number in devices]


class _Crew:
    """The workers of a run, and the jobs that wait for one."""

    def __init__(self, local: Processes, jobs: Sequence[Job], bench: Bench, observers: dict[str, Observer]) -> None:
        self.size, self.threads, self.bench, self.observers = local.workers, local.threads, bench, observers
        self.devices = cuda_names(local.devices)
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
                self.workers.append(Worker(job, self.bench, self.threads, self.every, self._device()))
            except OSError as error:
                yield job, f"its process could not begin: {error}"

    def _device(self) -> str | None:
        """The GPU that the fewest workers have."""
        taken = Counter(worker.device for worker in self.workers)
        return min(self.devices, key=lambda device: taken[device], default=None)

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
        elif what == "raised":
            worker.job = None
            if not self.stopping:  # else the first error is on its way, and the others save meanwhile
                raise values[0]
        elif what == "ended":
            yield from self._settle(worker, *values)
        else:
            hear(what, values, self.observers[worker.job.name] if worker.job else Observer())

    def _settle(self, worker: Worker, result: Record | str | None) -> Iterator[Ended]:
        """The worker has ended its job and takes the next. Without a result it was interrupted."""
        job, worker.job = worker.job, None
        if self.waiting:
            worker.take(self.waiting.popleft())
        else:
            worker.stop()
        if job and result is not None:
            yield job, result
