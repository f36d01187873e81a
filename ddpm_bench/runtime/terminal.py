"""What a person sees at the command line: always on stderr, so that stdout stays for results."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment

from ddpm_bench.runtime.observer import Observer, Reading, logger, observed_by
from ddpm_bench.text import visible


class PlainConsole(Console):
    """A console that spells out whatever in a text its terminal would obey: file names and records come from anyone."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


stderr = PlainConsole(stderr=True, highlight=False)


class Lines(Observer):
    """A plain line now and then, where nothing can be drawn over."""

    every = 15.0

    def show(self, reading: Reading) -> None:
        eta = "" if reading.eta is None else f"ETA {reading.eta:.0f} s"
        parts = (f"{reading.title}: {reading.done}/{reading.total}", reading.speed, eta, reading.note)
        _print("  ".join(part for part in parts if part))


class Bars(Observer):
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


class _Messages(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _print(record.getMessage())


def can_draw() -> bool:
    """Is there a terminal that can draw over what it has shown?"""
    return stderr.is_terminal and not stderr.is_dumb_terminal


@contextlib.contextmanager
def at_the_terminal() -> Iterator[None]:
    """Messages and progress of the block appear on stderr: bars at a terminal, lines where there is none."""
    handler, level = _Messages(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with observed_by(Bars() if can_draw() else Lines()):
            yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def _print(message: str) -> None:
    """Square brackets are printed as they are."""
    stderr.print(message, markup=False, soft_wrap=True)
