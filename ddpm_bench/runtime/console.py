"""What a person sees while something runs: always on stderr, so that stdout stays for results.

A loop tells its `Meter` how far it is, and the meter tells the screen: plain lines, a bar, a row of the live table
(`live.py`) or, in a worker process, the wire to the screen of its parent (`workers.py`).
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

stderr = Console(stderr=True, highlight=False)


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


class Screen:
    """Where messages and progress appear. This one prints plain lines."""

    every = 15.0
    """Seconds between two readings of a loop: it costs nothing to look less often."""

    def say(self, message: str) -> None:
        stderr.print(message, markup=False, soft_wrap=True)

    def show(self, reading: Reading) -> None:
        eta = "" if reading.eta is None else f"ETA {reading.eta:.0f} s"
        parts = (f"{reading.title}: {reading.done}/{reading.total}", reading.speed, eta, reading.note)
        self.say("  ".join(part for part in parts if part))

    def phase(self, name: str) -> None:
        """What a cell does from now on, such as `sampling`."""

    def scores(self, metrics: dict[str, float]) -> None:
        """The newest scores of a cell that still runs, by their key in `metrics/registry.py`."""

    @contextlib.contextmanager
    def following(self, first: Reading) -> Iterator[Callable[[Reading], None]]:
        """What takes the readings of one loop, whose start is `first`."""
        yield self.show


class Bars(Screen):
    """A bar a loop, gone when the loop ends."""

    every = 0.1

    @contextlib.contextmanager
    def following(self, first: Reading) -> Iterator[Callable[[Reading], None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=stderr, transient=True, refresh_per_second=4) as bar:
            task = bar.add_task(first.title, total=first.total, completed=first.done, rate="", note="")
            yield lambda now: bar.update(task, completed=now.done, rate=now.speed, note=now.note)


_chosen: Screen | None = None


def live() -> bool:
    """Is there a terminal that can draw over what it has shown?"""
    return stderr.is_terminal and not stderr.is_dumb_terminal


def screen() -> Screen:
    """Where things appear now: on what `shown_on` chose, else bars at a terminal and lines where there is none."""
    return _chosen or (Bars() if live() else Screen())


@contextlib.contextmanager
def shown_on(chosen: Screen) -> Iterator[None]:
    """Everything that the block says and does appears on `chosen`."""
    global _chosen
    before, _chosen = _chosen, chosen
    try:
        yield
    finally:
        _chosen = before


def say(message: str) -> None:
    """One line to the person at the terminal; square brackets are printed as they are."""
    screen().say(message)


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
    """Progress with speed and ETA on the screen while the block runs."""
    chosen, first = screen(), Reading(title, done, total)
    with chosen.following(first) as show:
        yield Meter(first, unit, chosen.every, show)
