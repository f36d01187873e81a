"""Errors that a person can mend: one message with the value, the rule and the remedy, and no traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave. The command line prints it and exits with 2."""


class NotFinite(UserError):
    """A model whose weights or samples hold NaN or infinity. In a grid that is a result: the cell has diverged."""


class OutOfMemory(MemoryError):
    """The memory of the device or the machine does not hold what has to be in it at once. It costs a cell, not the grid; exit code 1."""


class Interrupted(Exception):
    """A safe stop after SIGINT or SIGTERM: all work so far is on the disk. Exit code 130."""


class RankLost(Exception):
    """One of the processes that share the work is gone, and so the command ends. Exit code 1."""

    def __str__(self) -> str:
        return f"{super().__str__()}. All ranks have ended; the same command goes on from what is kept."


def near_miss(value: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the closest known one, and all of them."""
    known = list(known)
    close = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    return f"{hint} Known: {', '.join(known)}."
