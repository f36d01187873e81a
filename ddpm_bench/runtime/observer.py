"""Who watches a run: messages, progress, scores. Ambient, as logging is, and silent unless somebody was put in place.

A loop tells its `Meter` how far it is, and the meter tells the observer: plain lines or a bar (`terminal.py`), a row of
the live table, event files (`tensorboard.py`) or, in a worker process, the wire to its parent. Messages go through the
logger `ddpm_bench`.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

logger = logging.getLogger("ddpm_bench")


@dataclass(frozen=True)
class Reading:
    """One look at a running loop. `rate` is in units of `done` a second; `speed` is for people, in any unit."""

    title: str
    done: int
    total: int
    rate: float = 0.0
    speed: str = ""
    loss: float | None = None

    @property
    def eta(self) -> float | None:
        """Seconds to the end of this loop at the rate so far; None before there is one."""
        return (self.total - self.done) / self.rate if self.rate else None

    @property
    def note(self) -> str:
        return "" if self.loss is None else f"loss {self.loss:.4f}"


class Observer:
    """Hears what a run does. This one shows nothing."""

    every = math.inf
    """Seconds between two readings of a loop: it costs nothing to look less often."""

    def show(self, reading: Reading) -> None:
        """How far a loop is."""

    def phase(self, name: str) -> None:
        """What a cell does from now on, such as `sampling`."""

    def tick(self, line: Mapping[str, float]) -> None:
        """A line of the training log."""

    def scores(self, step: int, metrics: Mapping[str, float]) -> None:
        """Scores of the weights after `step` training steps, by their key in `config/metrics.py`."""

    @contextlib.contextmanager
    def following(self, first: Reading) -> Iterator[Callable[[Reading], None]]:
        """What takes the readings of one loop, whose start is `first`."""
        yield self.show


_present = Observer()
_subject = ""
_once: set[str] = set()
_heard: tuple[list[str], ...] = ()


def observer() -> Observer:
    """Whoever watches now."""
    return _present


@contextlib.contextmanager
def observed_by(chosen: Observer) -> Iterator[None]:
    """Everything that the block does is told to `chosen`."""
    global _present, _once
    before, _present, _once = (_present, _once), chosen, set()
    try:
        yield
    finally:
        _present, _once = before


@contextlib.contextmanager
def about(subject: str) -> Iterator[None]:
    """Messages and progress of the block begin with `subject`, as a cell's name."""
    global _subject
    before, _subject = _subject, f"{_subject}{subject}: "
    try:
        yield
    finally:
        _subject = before


@contextlib.contextmanager
def noting() -> Iterator[list[str]]:
    """What is said in the block, for the record of what it makes."""
    global _heard
    before, notes = _heard, list[str]()
    _heard = (*before, notes)
    try:
        yield notes
    finally:
        _heard = before


def say(message: str) -> None:
    """One message for people. The command line shows it; a library user sees it by configuring `logging`."""
    for notes in _heard:
        notes.append(message)
    logger.info("%s%s", _subject, message)


def say_once(message: str) -> None:
    """As `say`, but not again in the same command, which may come upon the same thing in several places."""
    if message not in _once:
        _once.add(message)
        say(message)


class Meter:
    """The handle that `progress` yields: how far, how fast, and the loss where there is one."""

    def __init__(self, first: Reading, unit: str, every: float, show: Callable[[Reading], None]) -> None:
        self.first, self.unit, self.every, self.show = first, unit, every, show
        self.began = self.shown = time.monotonic()

    def update(self, done: int, loss: float | None = None, per_unit: int = 1) -> None:
        """Show `done` of total; `per_unit` scales the speed (64 images a step: speed in images/s)."""
        now = time.monotonic()
        if now - self.shown < self.every:
            return
        self.shown = now
        rate = (done - self.first.done) / max(now - self.began, 1e-9)
        speed = f"{rate * per_unit:,.0f} {self.unit}/s"
        self.show(Reading(self.first.title, done, self.first.total, rate, speed, loss))


@contextlib.contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Meter]:
    """Progress with speed and ETA while the block runs, shown by whoever watches."""
    chosen, first = observer(), Reading(_subject + title, done, total)
    with chosen.following(first) as show:
        yield Meter(first, unit, chosen.every, show)
