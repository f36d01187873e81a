"""Contenders side by side: each round times every contender once, so that what slows the machine slows all of them."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from torch.utils.flop_counter import FlopCounterMode

from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress, say
from ddpm_bench.runtime.timing import seconds_of
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.machine import memory_of
from ddpm_bench.speed.result import Ratio, Timing, Work
from ddpm_bench.speed.work import Call, Contender
from ddpm_bench.text import brief

WARM_UP = 2
SHORTEST = 0.2
"""Seconds that a timing lasts at least, by repeating the call."""
CONFIDENCE = 0.95


@dataclass
class Entrant:
    """A contender at one kind of work, warmed up."""

    contender: Contender
    call: Call
    flops: float
    memory: int | None
    compile_seconds: float | None
    seconds: list[float]


def race(work: Work, contenders: Sequence[Contender], case: Case, repeats: int) -> list[Timing]:
    """`repeats` interleaved rounds. Ratios are to the first contender, which is ours."""
    with tempfile.TemporaryDirectory() as folder, progress(f"{work} steps", repeats + 1, "rounds") as meter:
        entrants = list(_entrants(work, contenders, case, Path(folder)))
        meter.update(1)
        calls = max(1, math.ceil(SHORTEST / min(_quick(entrant, case) for entrant in entrants)))
        for number in range(repeats):
            for entrant in _rotated(entrants, number):
                check_stop()
                entrant.seconds.append(seconds_of(entrant.call, case.device, calls))
            meter.update(number + 2)
    ours = entrants[0]
    return [
        Timing(
            work=work, contender=each.contender.name, equal_work=each.contender.peer.equal_work,
            precision=each.contender.precision, batch=case.batch_of(work), seconds=tuple(each.seconds),
            flops=each.flops / case.batch_of(work), memory=each.memory, compile_seconds=each.compile_seconds,
            ours=None if each is ours else ratio(ours.seconds, each.seconds),
        )
        for each in entrants
    ]  # fmt: skip


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """How many times as fast ours is, from the times of the same rounds.

    The interval is that of the sign test: between the k-th smallest and the k-th largest ratio, for the largest k that
    covers the true median with CONFIDENCE; fewer than six rounds cannot, and then it is all of them.
    """
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    n, k, outside = len(ratios), 1, 2 * 0.5 ** len(ratios)
    while 2 * (k + 1) <= n and (more := outside + 2 * math.comb(n, k) * 0.5**n) <= 1 - CONFIDENCE:
        k, outside = k + 1, more
    return Ratio(median=median(ratios), low=ratios[k - 1], high=ratios[n - k], coverage=max(0.0, 1 - outside))


def _entrants(work: Work, contenders: Sequence[Contender], case: Case, folder: Path) -> Iterator[Entrant]:
    """Those that can do it: what a compiler or a package cannot do here is said, and the others go on. Ours must."""
    for number, contender in enumerate(contenders):
        check_stop()
        try:
            yield _warmed_up(work, contender, case, folder / str(number))
        except RuntimeError as error:  # of torch.compile, too
            if not number:
                raise
            why = brief(" ".join(str(error).split()))
            say(f"{work}: {contender.name} in {contender.precision} does not run here and was not timed ({why}).")


def _warmed_up(work: Work, contender: Contender, case: Case, folder: Path) -> Entrant:
    compiled = contender.way == "compiled"
    eager = (replace(contender, way=None) if compiled else contender).call(work, case, folder / "eager")
    with FlopCounterMode(display=False) as counter:  # of the first call, since a GPU records the second one
        eager()
    memory = None if compiled else memory_of(eager, case.device)
    call, compile_seconds = eager, None
    if compiled:
        call = contender.call(work, case, folder / "compiled")
        compile_seconds = seconds_of(call, case.device)  # the first call compiles
        memory = memory_of(call, case.device)
    for _ in range(WARM_UP):
        call()
    return Entrant(contender, call, counter.get_total_flops(), memory, compile_seconds, [])


def _quick(entrant: Entrant, case: Case) -> float:
    return seconds_of(entrant.call, case.device)


def _rotated(entrants: Sequence[Entrant], number: int) -> list[Entrant]:
    """Another one begins each round: who comes first finds other caches than who comes last."""
    first = number % len(entrants)
    return [*entrants[first:], *entrants[:first]]
