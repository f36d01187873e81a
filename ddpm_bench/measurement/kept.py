"""What is kept on the way to a record: where it lies, and results that an interrupted measurement finds again."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from ddpm_bench.records.part import Part
from ddpm_bench.runtime.observer import observer, say
from ddpm_bench.sealed import read_sealed, say_again, write_sealed

Found = TypeVar("Found", bound=Part)


def work_beside(record: Path) -> Path:
    """The folder of what is kept on the way to a record."""
    return record.parent / "work" / record.stem


OLDER = ("scores.json", "samples", "samples-????????", "samples-*/*.npy", "bound-*/*.npz")
"""What was kept before files were named by the hash of their weights, and before they were sealed."""


def mention_older(work: Path) -> None:
    """Say so when `work` holds samples, scores or pieces of bounds that an older version kept."""
    if any(path for name in OLDER for path in work.glob(name)):
        say(f"Samples and scores in '{work}' were kept by an older ddpm-bench, without the hash of their weights or of "
            "their content. They are left there and made again.")  # fmt: skip


class Kept(Generic[Found]):
    """One result as a file in a folder made by `keyed_folder`."""

    def __init__(self, kind: type[Found], folder: Path) -> None:
        self._kind, self._path = kind, folder / "found.json"

    def read(self) -> Found | None:
        """What is kept, if anything. A damaged file is said, and counts as nothing."""
        if (found := read_sealed(self._path)) is None:
            return None
        try:
            return self._kind.model_validate(found)
        except ValidationError:
            say_again(self._path, "another version of ddpm-bench kept it")
            return None

    def write(self, found: Found) -> Found:
        write_sealed(self._path, found.as_json())
        return found


class Clock:
    """Wall time by phase in seconds, summed over interruptions by way of a small file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "wall-time.json"

    @property
    def seconds(self) -> dict[str, float]:
        return read_sealed(self.path) or {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        observer().phase(phase)
        try:
            yield
        finally:
            seconds = self.seconds
            write_sealed(self.path, seconds | {phase: round(seconds.get(phase, 0.0) + time.monotonic() - began, 3)})
