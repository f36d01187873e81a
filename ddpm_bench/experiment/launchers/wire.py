"""What a job tells whoever watches it: one vocabulary, whether a pipe carries it, an actor of Ray, or a file.

ready                       it has begun
log      level, text        a message for people
show, phase, scores         what an `Observer` hears
ended    Record, str, None  its record; what it failed of; nothing where it was interrupted and has saved
raised   error              a UserError or an OSError, which ends the grid
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ddpm_bench.runtime.observer import Observer, Reading, logger, observed_by

HEARD = ("show", "phase", "scores")
"""What an `Observer` hears by the same name."""


class Wire(Observer):
    """Tells what a job does to `carry`, one thing at a time. Readings of a loop are `every` seconds apart."""

    def __init__(self, carry: Callable[[str, tuple[Any, ...]], None], every: float) -> None:
        self._carry, self.every = carry, every
        self._one_at_a_time = threading.Lock()

    def send(self, what: str, *values: Any) -> None:
        with self._one_at_a_time:
            self._carry(what, values)

    def show(self, reading: Reading) -> None:
        self.send("show", reading)

    def phase(self, name: str) -> None:
        self.send("phase", name)

    def scores(self, step: int, metrics: Mapping[str, float]) -> None:
        self.send("scores", step, dict(metrics))


class _ToWire(logging.Handler):
    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.wire = wire

    def emit(self, record: logging.LogRecord) -> None:
        self.wire.send("log", record.levelno, record.getMessage())


@contextlib.contextmanager
def told_by(wire: Wire) -> Iterator[None]:
    """Whatever the block does and says goes over the wire."""
    handler, level = _ToWire(wire), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with observed_by(wire):
            yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def hear(what: str, values: tuple[Any, ...], watcher: Observer) -> None:
    """What is for people alone: messages, and what `watcher` hears."""
    if what == "log":
        logger.log(*values)
    elif what in HEARD:
        getattr(watcher, what)(*values)
