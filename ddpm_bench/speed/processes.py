"""Several processes side by side on one device: do they make more images a second than one alone?

A small network on a GPU is bound by how fast its kernels are launched, which several hosts do faster than one. All processes
are begun and warmed up once; then, in rounds, the first one works alone, the first two together, and so on.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ddpm_bench.runtime.device import set_up
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress
from ddpm_bench.runtime.timing import wait
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.measure import WARM_UP
from ddpm_bench.speed.result import Together, Work
from ddpm_bench.speed.work import Call, Contender

WINDOW_S, ROUNDS = 1.5, 3
"""How long, and how often, so many processes work together."""


def race_together(work: Work, contender: Contender, case: Case, counts: Sequence[int]) -> list[Together]:
    """Images a second of 1 process and of each of `counts`, all of them together. RuntimeError when one dies."""
    counts = sorted({1, *counts})
    found: dict[int, list[float]] = {count: [] for count in counts}
    with ExitStack() as stack, progress(f"{work} in several processes", ROUNDS, "rounds") as meter:
        workers = [stack.enter_context(_worker(work, contender, case)) for _ in range(counts[-1])]
        try:
            for worker in workers:
                worker.recv()  # warmed up
            for number in range(ROUNDS):
                for count in counts:
                    check_stop()
                    found[count].append(sum(_window(workers[:count])) * case.batch_of(work))
                meter.update(number + 1)
        except (EOFError, OSError) as error:
            raise RuntimeError(f"one of {counts[-1]} processes has died; what it said stands above") from error
    return [
        Together(
            work=work, contender=contender.name, precision=contender.precision, processes=count, threads=_threads(count),
            batch=case.batch_of(work), rates=tuple(rates),
        )
        for count, rates in found.items()
    ]  # fmt: skip


def _threads(count: int) -> int:
    """Of each of so many processes: its share of the cores, as the workers of a grid have it."""
    return max(1, (os.cpu_count() or 1) // count)


def _window(workers: Sequence[Connection]) -> list[float]:
    """Calls a second of each of them, all at once."""
    for worker in workers:
        worker.send((_threads(len(workers)), WINDOW_S))
    return [worker.recv() for worker in workers]


@contextmanager
def _worker(work: Work, contender: Contender, case: Case) -> Iterator[Connection]:
    """The pipe to a process of its own, which is gone when the block ends, or when this process is."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_work, args=(work, contender, case, its), daemon=True)
    process.start()
    its.close()
    try:
        with closing(ours):
            yield ours
    finally:
        process.kill()
        process.join()


def _work(work: Work, contender: Contender, case: Case, parent: Connection) -> None:
    """Warm up and say so; then, for so many seconds with so many threads, as often as asked, work and tell the calls a second."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one
    set_up(case.device)
    with TemporaryDirectory() as folder:
        call = contender.call(work, case, Path(folder))
        for _ in range(WARM_UP):
            call()
        wait(case.device)
        parent.send("ready")
        while True:
            try:
                threads, seconds = parent.recv()
            except EOFError:
                return
            torch.set_num_threads(threads)
            parent.send(_rate(call, case.device, seconds))


def _rate(call: Call, device: torch.device, seconds: float) -> float:
    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        call()
        calls += 1
    wait(device)
    return calls / (time.perf_counter() - began)
