"""Ctrl-C and SIGTERM, made safe: the first asks loops to save and stop, the second stops at once.

Signals belong to the process, and so does the wish to stop: loops ask `stop_requested` or call `check_stop` where
everything so far is saved. In library use nobody has taken the signals, so nothing is ever asked for.
"""

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import ClassVar

from ddpm_bench.errors import Interrupted


class Stop:
    """Takes the signals of this process while the block runs; use it in the main thread.

    Without signals it is for whoever sets `requested`, as a worker does when its parent says so.
    """

    echo_s: ClassVar[float] = 0.0
    """A signal that follows another so soon is the same wish: torchrun passes on what its ranks have had from the terminal."""

    def __init__(self, signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)) -> None:
        self.requested = False
        self._asked = -math.inf  # when the last signal came
        self._signals = signals

    def __enter__(self) -> "Stop":
        global _taken
        self._outer, _taken = _taken, self
        self._before = {number: signal.signal(number, self._on_signal) for number in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        global _taken
        _taken = self._outer
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        before, self._asked = self._asked, time.monotonic()
        if self.requested and self._asked - before > self.echo_s:
            raise Interrupted
        self.requested = True


_taken: Stop | None = None
"""Who has the signals now."""


def stop_requested() -> bool:
    """Has the user asked to stop?"""
    return _taken is not None and _taken.requested


def ask_to_stop() -> None:
    """As a signal does: loops save and stop."""
    if _taken is not None:
        _taken.requested = True


def check_stop() -> None:
    """Raise Interrupted if a stop was asked for."""
    if stop_requested():
        raise Interrupted


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """The signals wait while the block runs; processes that begin in it have them waiting too, until they unblock them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
