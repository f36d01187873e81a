"""Pieces of a long measurement over images, kept where a stopped one finds them again."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_bench.files import in_a_row, make_folder
from ddpm_bench.runtime import ranks
from ddpm_bench.sealed import Arrays, read_arrays, write_arrays

Range = tuple[int, int]
"""(start, end) of images."""


class Pieces:
    """Named arrays for consecutive ranges of images, on the disk or, without a folder, in memory.

    Several ranks share the work on those on the disk, each measuring every N-th range.

    folder: of one measurement alone, since nothing else tells its pieces from another's: see `files.keyed_folder`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._memory: dict[tuple[str, int, int], Arrays] = {}
        self._folder = None if folder is None else make_folder(folder)

    def ranges(self, kind: str, count: int, batch: int) -> Iterator[tuple[int, int, Arrays]]:
        """(start, end, arrays so far) of ranges that cover 0..count: those that are there, then new ones of `batch` images."""
        start, known = 0, {begin: (end, arrays) for begin, end, arrays in self.read(kind)}
        while start < count:
            end, arrays = known.get(start, (min(start + batch, count), {}))
            yield start, end, arrays
            start = end

    def measure(self, kind: str, missing: Sequence[Range], work: Callable[..., None], *arguments: Any) -> None:
        """`work(self, missing, *arguments)`, which saves the ranges of `ranks.mine(missing)`."""
        if self._folder is None:
            work(self, missing, *arguments)
        elif missing:
            ranks.together(work, self, missing, *arguments)
            ranks.check_seen(_path(self._folder, kind, start, end) for start, end in missing)

    def save(self, kind: str, start: int, end: int, arrays: Arrays) -> None:
        """Keep the arrays of a range; what was there for it is replaced."""
        if self._folder is None:
            self._memory[kind, start, end] = arrays
            return
        write_arrays(_path(self._folder, kind, start, end), arrays)

    def read(self, kind: str) -> Iterator[tuple[int, int, Arrays]]:
        """(start, end, arrays) of what is there, in order and without gap or overlap from image 0 on."""
        yield from in_a_row(self._kept(kind), lambda start, end: self._load(kind, start, end))

    def join(self, kind: str) -> Arrays:
        """All ranges put end to end; arrays without one row for each image are left to the caller."""
        parts = [arrays for _, _, arrays in self.read(kind)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _kept(self, kind: str) -> list[Range]:
        if self._folder is None:
            return [(start, end) for of, start, end in self._memory if of == kind]
        stems = (path.stem for path in self._folder.glob(f"{kind}-????????-????????.safetensors"))
        return [(int(stem.split("-")[1]), int(stem.split("-")[2])) for stem in stems]

    def held(self, kind: str, start: int, end: int) -> Arrays:
        """What there is so far of a range; nothing where it was not begun."""
        return self._load(kind, start, end) or {}

    def _load(self, kind: str, start: int, end: int) -> Arrays | None:
        """The arrays of a range; none where they are damaged, which is said."""
        if self._folder is None:
            return self._memory.get((kind, start, end))
        return read_arrays(_path(self._folder, kind, start, end))


def _path(folder: Path, kind: str, start: int, end: int) -> Path:
    return folder / f"{kind}-{start:08d}-{end:08d}.safetensors"
