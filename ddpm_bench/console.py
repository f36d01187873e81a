"""What a person sees while something runs: always on stderr, so that stdout stays for results."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

stderr = Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """One line to the person at the terminal; square brackets are printed as they are."""
    stderr.print(message, markup=False, soft_wrap=True)


def plain() -> None:
    """Lines instead of bars from now on: for one of several processes at the same terminal."""
    global stderr
    stderr = Console(stderr=True, highlight=False, force_terminal=False)


class Meter:
    """The handle that `progress` yields: how far, how fast, and a short note such as the loss."""

    def __init__(self, title: str, total: int, unit: str, done: int, bar: Progress | None) -> None:
        self.title, self.total, self.unit, self.start = title, total, unit, done
        self.began = self.said = time.monotonic()
        self.bar = bar
        self.task = bar.add_task(title, total=total, completed=done, rate="", note="") if bar else None

    def update(self, done: int, note: str = "", per_unit: int = 1) -> None:
        """Show `done` of total; `per_unit` scales the rate (64 images a step: rate in images/s)."""
        now = time.monotonic()
        rate = (done - self.start) / max(now - self.began, 1e-9)
        speed = f"{rate * per_unit:,.0f} {self.unit}/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=done, rate=speed, note=note)
        elif now - self.said >= 15:
            self.said = now
            eta = (self.total - done) / rate if rate else float("inf")
            say(f"{self.title}: {done}/{self.total}  {speed}  ETA {eta:.0f} s  {note}".rstrip())


@contextlib.contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Meter]:
    """A progress bar with rate and ETA at a terminal; a plain line every 15 s where there is none."""
    if not stderr.is_terminal:
        yield Meter(title, total, unit, done, None)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True) as bar:
        yield Meter(title, total, unit, done, bar)
