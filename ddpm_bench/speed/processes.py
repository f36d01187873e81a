"""Several processes side by side on one device: do they make more images a second than one alone?

A small network on a GPU is bound by how fast it is fed, which several hosts do faster than one. All processes are begun and
warmed up once; then, in rounds, the first one works alone, the first two together, and so on.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack

from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.entrant import Elsewhere
from ddpm_bench.speed.result import Together, Work
from ddpm_bench.speed.work import Contender

WINDOW_S, ROUNDS = 1.5, 3
"""How long, and how often, so many processes work together."""


def race_together(work: Work, contender: Contender, case: Case, counts: Sequence[int]) -> list[Together]:
    """Images a second of 1 process and of each of `counts`, all of them together. RuntimeError when one dies."""
    counts = sorted({1, *counts})
    found: dict[int, list[float]] = {count: [] for count in counts}
    with ExitStack() as stack, progress(f"{work} in several processes", ROUNDS, "rounds") as meter:
        workers = [Elsewhere(work, contender, case) for _ in range(counts[-1])]
        for worker in workers:
            stack.callback(worker.end)
        for worker in workers:
            worker.facts()
        for number in range(ROUNDS):
            for count in counts:
                check_stop()
                found[count].append(sum(_window(workers[:count])) * case.batch_of(work))
            meter.update(number + 1)
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


def _window(workers: Sequence[Elsewhere]) -> list[float]:
    """Calls a second of each of them, all at once."""
    for worker in workers:
        worker.work_for(WINDOW_S, _threads(len(workers)))
    return [worker.rate() for worker in workers]
