"""What is kept on the way to a record: where it lies, and results that an interrupted measurement finds again."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from ddpm_bench.files import write_json
from ddpm_bench.records.record import Part
from ddpm_bench.runtime.observer import observer, say

Found = TypeVar("Found", bound=Part)


def work_beside(record: Path) -> Path:
    """The folder of what is kept on the way to a record."""
    return record.parent / "work" / record.stem


def mention_older(work: Path) -> None:
    """Say so when `work` holds samples or scores that were kept before they were named by the hash of their weights."""
    older = [path for name in ("scores.json", "samples", "samples-????????") for path in work.glob(name)]
    if older:
        say(f"Samples and scores in '{work}' were kept by an older ddpm-bench, not by the hash of their weights. They are "
            "left there and made again.")  # fmt: skip


class Kept(Generic[Found]):
    """One result as a file in a folder made by `keyed_folder`."""

    def __init__(self, kind: type[Found], folder: Path) -> None:
        self._kind, self._path = kind, folder / "found.json"

    def read(self) -> Found | None:
        """What is kept, if anything. A damaged file is said, and counts as nothing."""
        if not self._path.exists():
            return None
        try:
            return self._kind.model_validate_json(self._path.read_bytes())
        except ValidationError:
            say(f"Making '{self._path}' again: it was damaged.")
            return None

    def write(self, found: Found) -> Found:
        write_json(self._path, found.as_json())
        return found


class Clock:
    """Wall time by phase in seconds, summed over interruptions by way of a small file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "wall-time.json"

    @property
    def seconds(self) -> dict[str, float]:
        try:
            return json.loads(self.path.read_text()) if self.path.exists() else {}
        except ValueError:
            say(f"'{self.path}' was damaged; wall times count from here.")
            return {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        observer().phase(phase)
        try:
            yield
        finally:
            seconds = self.seconds
            write_json(self.path, seconds | {phase: round(seconds.get(phase, 0.0) + time.monotonic() - began, 3)})
