"""Contenders side by side: each round times every contender once, so that what slows the machine slows all of them."""

import math
from collections.abc import Iterator, Sequence
from statistics import median

from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress, say
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.entrant import Entrant, Facts
from ddpm_bench.speed.result import Ratio, Timing, Work
from ddpm_bench.text import brief

SHORTEST = 0.2
"""Seconds that a timing lasts at least, by repeating the call."""
CONFIDENCE = 0.95

Runner = tuple[Entrant, Facts, list[float]]
"""With the seconds of a call, round by round."""


def race(work: Work, entrants: Sequence[Entrant], case: Case, repeats: int) -> list[Timing]:
    """`repeats` interleaved rounds. Ratios are to the first one, which is ours."""
    with progress(f"{work} steps", len(entrants) + repeats, "warm-ups and rounds") as meter:
        running = []
        for runner in _running(work, entrants):
            running.append(runner)
            meter.update(len(running))
        calls = {entrant: max(1, math.ceil(SHORTEST / entrant.seconds(1))) for entrant, _, _ in running}
        for number in range(repeats):
            for entrant, _, seconds in _rotated(running, number):
                check_stop()
                seconds.append(entrant.seconds(calls[entrant]))
            meter.update(len(entrants) + number + 1)
    _, _, ours = running[0]
    return [
        Timing(
            work=work, contender=entrant.contender.name, equal_work=entrant.contender.peer.equal_work,
            precision=entrant.contender.precision, batch=case.batch_of(work), seconds=tuple(seconds),
            flops=facts.flops / case.batch_of(work), memory=facts.memory, compile_seconds=facts.compile_seconds,
            ours=None if seconds is ours else ratio(ours, seconds),
        )
        for entrant, facts, seconds in running
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


def _running(work: Work, entrants: Sequence[Entrant]) -> Iterator[Runner]:
    """Those that can do it: what a compiler or a package cannot do here is said, and the others go on. Ours must."""
    for number, entrant in enumerate(entrants):
        check_stop()
        try:
            yield entrant, entrant.facts(), []
        except RuntimeError as error:  # of torch.compile, too
            if not number:
                raise
            name, why = entrant.contender.name, brief(" ".join(str(error).split()))
            say(f"{work}: {name} in {entrant.contender.precision} does not run here and was not timed ({why}).")


def _rotated(running: Sequence[Runner], number: int) -> list[Runner]:
    """Another one begins each round: who comes first finds other caches than who comes last."""
    first = number % len(running)
    return [*running[first:], *running[:first]]
