"""Where cells run: in this process, or several at a time in processes of their own with their share of the cores.

A small network does not fill two cores: two cells side by side, one thread each, take about four fifths of the time
that they take one after the other with two threads.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.synchronize import Event

import torch

from ddpm_bench.errors import Interrupted
from ddpm_bench.experiment.cell import Bench, Job, run_cell
from ddpm_bench.records.record import Record
from ddpm_bench.runtime import console
from ddpm_bench.runtime.observer import Reading, Screen
from ddpm_bench.runtime.interrupt import NEVER, Stop

ScreenOf = Callable[[str], Screen]
"""The screen of a job, by its name."""
UNREAD = 1000
"""Messages of workers that may wait to be shown; each is far below what a pipe takes in one piece."""
FAILURES = (RuntimeError, ArithmeticError, MemoryError)
"""What costs a cell but not the grid; torch raises RuntimeError, out of memory included."""


def choose_workers(wanted: int | None, jobs: int, device: torch.device) -> int:
    """`wanted`, or by default a worker a core on the CPU and one in all on a GPU; never more than there are jobs."""
    cores = os.cpu_count() or 1
    default = cores if device.type == "cpu" else 1
    return max(1, min(wanted or default, jobs))


class Wire(Screen):
    """In a worker: what a job says and how far it is, sent to its screen in the parent. Sending never waits."""

    def __init__(self, job: str, messages: multiprocessing.Queue, every: float) -> None:
        self.job, self.messages, self.every = job, messages, every

    def _send(self, what: str, value: object) -> None:
        with contextlib.suppress(queue.Full):  # the parent is gone: there is nobody to tell
            self.messages.put_nowait((self.job, what, value))

    def say(self, message: str) -> None:
        self._send("say", message)

    def show(self, reading: Reading) -> None:
        self._send("show", reading)

    def phase(self, name: str) -> None:
        self._send("phase", name)

    def scores(self, metrics: dict[str, float]) -> None:
        self._send("scores", metrics)


def _show_all(messages: multiprocessing.Queue, screen_of: ScreenOf) -> None:
    """What workers have sent so far, each on its job's screen."""
    with contextlib.suppress(queue.Empty):
        while True:
            job, what, value = messages.get_nowait()
            getattr(screen_of(job), what)(value)


def measure_each(
    jobs: Sequence[Job], bench: Bench, workers: int, screen_of: ScreenOf
) -> Iterator[tuple[Job, Record | str]]:
    """Each job with its record, or with what it failed of, as they finish. Raises Interrupted when all have saved."""
    if workers == 1:
        for job in jobs:
            with console.shown_on(screen_of(job.name)):
                result = _measure(job, bench)
            yield job, result
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    stopping, messages = context.Event(), context.Queue(UNREAD)
    shared = (threads, stopping, messages, screen_of(jobs[0].name).every)
    try:
        with ProcessPoolExecutor(workers, context, _begin, shared) as pool:
            running = {pool.submit(_measure_alone, job, replace(bench, stop=NEVER)): job for job in jobs}
            try:
                for each in _as_they_finish(running, bench.stop, stopping):
                    _show_all(messages, screen_of)
                    if each:
                        yield each
            except BaseException:  # a full disk, say, or the caller lost interest
                _tell(stopping)
                raise
    finally:
        _show_all(messages, screen_of)


def _as_they_finish(
    running: dict[Future, Job], stop: Stop, stopping: Event
) -> Iterator[tuple[Job, Record | str] | None]:
    """Each job with its result; None a few times a second."""
    left = set(running)
    while left:
        if stop.requested:
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
    stop.check()


def _tell(stopping: Event) -> None:
    """Let each worker save and stop, once: jobs that wait are not begun, and SIGTERM reaches those that run."""
    if not stopping.is_set():
        stopping.set()
        for worker in multiprocessing.active_children():
            worker.terminate()


def _begin(threads: int, stopping: Event, messages: multiprocessing.Queue, every: float) -> None:
    global _shared
    _shared = stopping, messages, every
    messages.cancel_join_thread()  # a worker ends even when nobody reads what it said last
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on as SIGTERM
    torch.set_num_threads(threads)


def _measure_alone(job: Job, bench: Bench) -> Record | str | None:
    """In a worker: None when it was interrupted and has saved, or was not begun."""
    stopping, messages, every = _shared
    try:
        with Stop((signal.SIGTERM,)) as stop, console.shown_on(Wire(job.name, messages, every)):
            return None if stopping.is_set() else _measure(job, replace(bench, stop=stop))
    except Interrupted:
        return None


def _measure(job: Job, bench: Bench) -> Record | str:
    try:
        return run_cell(job, bench)
    except FAILURES as error:
        return f"{type(error).__name__}: {error}"
