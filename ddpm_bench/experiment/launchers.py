"""Where jobs run: in this process, or several at a time in processes of their own with their share of the cores.

A small network does not fill two cores: two cells side by side, one thread each, take about four fifths of the time
that they take one after the other with two threads.
"""

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Protocol

import torch

from ddpm_bench.errors import Interrupted, UserError, near_miss
from ddpm_bench.experiment.cell import Bench, Job, run_cell
from ddpm_bench.records.record import Record
from ddpm_bench.runtime.device import set_up
from ddpm_bench.runtime.interrupt import Stop, check_stop, stop_requested
from ddpm_bench.runtime.observer import Observer, Reading, logger, observed_by

ObserverOf = Callable[[Job], Observer]
"""Who watches a job."""
Ended = tuple[Job, Record | str]
"""A job with its record, or with what it failed of."""
UNREAD = 1000
"""Messages of workers that may wait to be shown; each is far below what a pipe takes in one piece."""
FAILURES = (RuntimeError, ArithmeticError, MemoryError)
"""What costs a cell but not the grid; torch raises RuntimeError, out of memory included."""


class Launcher(Protocol):
    """Runs jobs somewhere. A job's record is the same bit for bit wherever it ran on the same kind of device."""

    def run(self, jobs: Sequence[Job], bench: Bench, observer_of: ObserverOf) -> Iterator[Ended]:
        """Each job as it ends. Raises Interrupted when a stop was asked for and all have saved."""


def measure_job(job: Job, bench: Bench) -> Record | str:
    """The record of a job, or what it failed of."""
    try:
        return run_cell(job, bench)
    except FAILURES as error:
        return f"{type(error).__name__}: {error}"


class Inline:
    """One after the other in this process."""

    def run(self, jobs: Sequence[Job], bench: Bench, observer_of: ObserverOf) -> Iterator[Ended]:
        for job in jobs:
            with observed_by(observer_of(job)):
                result = measure_job(job, bench)
            yield job, result


class Processes:
    """`workers` at a time, each in a process of its own."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, jobs: Sequence[Job], bench: Bench, observer_of: ObserverOf) -> Iterator[Ended]:
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        stopping, messages = context.Event(), context.Queue(UNREAD)
        observers = {job.name: observer_of(job) for job in jobs}
        every = min(each.every for each in observers.values())
        shared = (bench.runtime.device, threads, stopping, messages, every)
        try:
            with ProcessPoolExecutor(self.workers, context, _begin, shared) as pool:
                with _blocked(signal.SIGTERM):  # a worker begins so too, and takes it up once it can save
                    running = {pool.submit(_measure_alone, job, bench): job for job in jobs}
                try:
                    for each in _as_they_end(running, stopping):
                        _show_all(messages, observers)
                        if each:
                            yield each
                except BaseException:  # a full disk, say, or the caller lost interest
                    _tell(stopping)
                    raise
        finally:
            _show_all(messages, observers)


LAUNCHERS: dict[str, Callable[[int], Launcher]] = {"inline": lambda workers: Inline(), "processes": Processes}
"""Each made from the number of jobs that it may run at a time."""


def choose_launcher(name: str | None, wanted: int | None, jobs: int, device: torch.device) -> Launcher:
    """The launcher of that name for so many jobs, `wanted` at a time; without a name by how many that are.

    By default a job a core on the CPU and one in all on a GPU; never more than there are jobs. UserError for an unknown
    name.
    """
    default = (os.cpu_count() or 1) if device.type == "cpu" else 1
    workers = max(1, min(wanted or default, jobs))
    name = name or ("inline" if workers == 1 else "processes")
    if name not in LAUNCHERS:
        raise UserError(f"There is no launcher '{name}'{near_miss(name, LAUNCHERS)}")
    if name == "inline" and (wanted or 1) > 1:
        raise UserError(f"--workers {wanted} does not go with --launcher inline, which runs one job at a time.")
    return LAUNCHERS[name](workers)


# ---- in the parent --------------------------------------------------------------------------------------------------


def _show_all(messages: multiprocessing.Queue, observers: Mapping[str, Observer]) -> None:
    """What workers have sent so far: messages to the log, the rest to whoever watches their job."""
    with contextlib.suppress(queue.Empty):
        while True:
            job, what, values = messages.get_nowait()
            if what == "log":
                logger.handle(*values)
            else:
                getattr(observers[job], what)(*values)


def _as_they_end(running: dict[Future, Job], stopping: Event) -> Iterator[Ended | None]:
    """Each job with its result; None a few times a second."""
    left = set(running)
    while left:
        if stop_requested():
            _tell(stopping)
        done, left = wait(left, timeout=0.2, return_when=FIRST_COMPLETED)
        yield None
        for future in done:
            try:
                result = future.result()
            except BrokenProcessPool as error:  # killed, by the system for want of memory perhaps
                result = f"its process died: {error}"
            if result is not None:
                yield running[future], result
    check_stop()


def _tell(stopping: Event) -> None:
    """Let each worker save and stop, once: jobs that wait are not begun, and SIGTERM reaches those that run.

    A worker that runs no job ignores the signal. Were it to die, the pool would take that for a failure and send the others
    a second one, upon which they would stop without saving.
    """
    if not stopping.is_set():
        stopping.set()
        for worker in multiprocessing.active_children():
            worker.terminate()


@contextlib.contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """The signal waits while the block runs; processes that begin in it have it waiting too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- in a worker ----------------------------------------------------------------------------------------------------


class Wire(Observer):
    """What a job does, sent to its observer in the parent. Sending never waits."""

    def __init__(self, job: str, messages: multiprocessing.Queue, every: float) -> None:
        self.job, self.messages, self.every = job, messages, every

    def send(self, what: str, *values: object) -> None:
        with contextlib.suppress(queue.Full):  # the parent is gone: there is nobody to tell
            self.messages.put_nowait((self.job, what, values))

    def show(self, reading: Reading) -> None:
        self.send("show", reading)

    def phase(self, name: str) -> None:
        self.send("phase", name)

    def scores(self, step: int, metrics: Mapping[str, float]) -> None:
        self.send("scores", step, dict(metrics))


class _ToParent(logging.Handler):
    def __init__(self, messages: multiprocessing.Queue) -> None:
        super().__init__()
        self.wire = Wire("", messages, 0)

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None
        self.wire.send("log", record)


_shared: tuple[Event, multiprocessing.Queue, float]
"""What `_begin` was given, for the jobs of the process."""


def _begin(device: torch.device, threads: int, stopping: Event, messages: multiprocessing.Queue, every: float) -> None:
    global _shared
    _shared = stopping, messages, every
    messages.cancel_join_thread()  # a worker ends even when nobody reads what it said last
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on as SIGTERM
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # between jobs: see `_tell`
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    torch.set_num_threads(threads)
    set_up(device)
    logger.addHandler(_ToParent(messages))
    logger.setLevel(logging.INFO)


def _measure_alone(job: Job, bench: Bench) -> Record | str | None:
    """None when it was interrupted and has saved, or was not begun."""
    stopping, messages, every = _shared
    try:
        with Stop((signal.SIGTERM,)), observed_by(Wire(job.name, messages, every)):
            return None if stopping.is_set() else measure_job(job, bench)
    except Interrupted:
        return None
