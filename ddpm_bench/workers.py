"""Where cells run: in this process, or several at a time in processes of their own with their share of the cores.

A small network does not fill two cores: two cells side by side, one thread each, take about four fifths of the time that
they take one after the other with two threads.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.synchronize import Event

import torch

from ddpm_bench import console
from ddpm_bench.errors import Interrupted
from ddpm_bench.interrupt import NEVER, Stop
from ddpm_bench.run import Bench, Job, run_cell
from ddpm_bench.store import Record

FAILURES = (RuntimeError, ArithmeticError, MemoryError)
"""What costs a cell but not the grid; torch raises RuntimeError, out of memory included."""


def choose_workers(wanted: int | None, jobs: int, device: torch.device) -> int:
    """`wanted`, or by default a worker a core on the CPU and one in all on a GPU; never more than there are jobs."""
    cores = os.cpu_count() or 1
    default = cores if device.type == "cpu" else 1
    return max(1, min(wanted or default, jobs))


def measure_each(jobs: Sequence[Job], bench: Bench, workers: int) -> Iterator[tuple[Job, Record | str]]:
    """Each job with its record, or with what it failed of, as they finish. Raises Interrupted when all workers have saved."""
    if workers == 1:
        for job in jobs:
            yield job, _measure(job, bench)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    stopping = context.Event()
    with ProcessPoolExecutor(workers, context, _begin, (threads, stopping)) as pool:
        running = {pool.submit(_measure_alone, job, replace(bench, stop=NEVER)): job for job in jobs}
        try:
            yield from _as_they_finish(running, bench.stop, stopping)
        except BaseException:  # a full disk, say, or the caller lost interest
            _tell(stopping)
            raise


def _as_they_finish(running: dict[Future, Job], stop: Stop, stopping: Event) -> Iterator[tuple[Job, Record | str]]:
    left = set(running)
    while left:
        if stop.requested:
            _tell(stopping)
        done, left = wait(left, timeout=0.2, return_when=FIRST_COMPLETED)
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


def _begin(threads: int, stopping: Event) -> None:
    global _stopping
    _stopping = stopping
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on as SIGTERM
    torch.set_num_threads(threads)
    console.plain()


def _measure_alone(job: Job, bench: Bench) -> Record | str | None:
    """In a worker: None when it was interrupted and has saved, or was not begun."""
    try:
        with Stop((signal.SIGTERM,)) as stop:
            return None if _stopping.is_set() else _measure(job, replace(bench, stop=stop))
    except Interrupted:
        return None


def _measure(job: Job, bench: Bench) -> Record | str:
    try:
        return run_cell(job, bench)
    except FAILURES as error:
        return f"{type(error).__name__}: {error}"
