"""Where faults are tried: an undisturbed grid, states of it on the way, and what comes of a try."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random

from fault_runs import Grid, Words


@dataclass(frozen=True)
class Tried:
    """What came of one try. `seconds`: how long what was waited for took. `note`: what else is worth telling."""

    held: bool
    why: str = ""
    seconds: float | None = None
    note: str = ""
    commit: str | None = None


class Home:
    """Where tries are made, of a grid like which, and what they are compared with."""

    def __init__(self, like: Grid) -> None:
        self.folder, self.like = like.folder, like

    def grid(self, folder: Path, workers: int = 2, cells: int | None = None, more: Words | None = None) -> Grid:
        """The first so many cells, or all, in a folder of their own."""
        like = self.like
        return replace(like, folder=folder, workers=workers, cells=like.cells[:cells], more=more or like.more)

    @cached_property
    def undisturbed(self) -> tuple[Grid, float]:
        """The grid without any fault, and its seconds."""
        grid = self.grid(self.folder / "reference")
        said = grid.start().wait()
        said.must_end(0, "without any fault")
        return grid, said.seconds

    @cached_property
    def reference(self) -> dict[str, str]:
        return self.undisturbed[0].content()

    @property
    def seconds(self) -> float:
        return self.undisturbed[1]

    @cached_property
    def training(self) -> Grid:
        """Stopped within the training of the first cell, after some snapshots."""
        grid = self.grid(self.folder / "training", 1, 1)
        stopped_while_training(grid, lines=8)
        return grid

    @cached_property
    def measured(self) -> Grid:
        """Two cells as if killed just before their records were written."""
        whole = self.undisturbed[0].copied(self.folder / "measured")
        grid = self.grid(whole.folder, self.like.workers, 2)
        for path in [*grid.results.glob("*-seed0*"), *grid.results.glob("work/*-seed0")]:
            if path.name.split("-seed0")[0] not in grid.cells:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            elif path.suffix == ".json":
                path.unlink()
        return grid


Try = Callable[[Home, Random, Path], Tried]
"""Made in an empty folder. Raises Fell where what was promised does not hold."""


def stopped_while_training(grid: Grid, lines: int) -> None:
    running = grid.start()
    running.until(lambda: grid.logs() >= lines)
    os.kill(running.pid, signal.SIGINT)
    running.wait().must_end(130, "when it was stopped")
