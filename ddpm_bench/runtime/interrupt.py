"""Ctrl-C and SIGTERM, made safe: the first asks loops to save and stop, the second stops at once."""

import signal
from types import FrameType

from ddpm_bench.errors import Interrupted


class Stop:
    """Has the user asked to stop? Long loops call `check` where everything so far is saved.

    Use as a context manager around the whole command, in the main thread.
    """

    def __init__(self, signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)) -> None:
        self.requested = False
        self._signals = signals

    def __enter__(self) -> "Stop":
        self._before = {number: signal.signal(number, self._on_signal) for number in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise Interrupted
        self.requested = True

    def check(self) -> None:
        """Raise Interrupted if a stop was asked for."""
        if self.requested:
            raise Interrupted


NEVER = Stop()
"""For library use: a stop that no signal sets."""
