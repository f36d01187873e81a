"""News by way of a file of a shared folder, a line of JSON each: its one writer appends, and whoever watches reads on."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ddpm_bench.errors import UserError
from ddpm_bench.records.record import Record
from ddpm_bench.runtime.observer import Reading

News = tuple[str, tuple[Any, ...]]


class NewsFile:
    """The news of one job, in the words of `wire.py`."""

    def __init__(self, path: Path) -> None:
        self.path, self._read = path, 0

    def append(self, what: str, values: tuple[Any, ...]) -> None:
        """A line of its own, even after one that a killed process left without its end."""
        line = json.dumps([what, *map(_plain, values)])
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}\n")

    def read(self) -> Iterator[News]:
        """The whole lines since the last call."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._read)
                whole, end, _ = stream.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        self._read += len(whole + end)
        for line in whole.splitlines():
            try:
                what, *values = json.loads(line)
                yield what, tuple(map(_given, values))
            except ValueError:  # the half line of a killed process, or an empty one
                continue

    def skip_to_last(self) -> News | None:
        """Read on from the last line, which is returned: what was told before was told to another command."""
        self._read = 0
        told = [*self.read()]
        if not told:
            return None
        self._read = self.path.read_bytes()[: self._read].rstrip(b"\n").rfind(b"\n") + 1
        return told[-1]

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._read = 0


def _plain(value: Any) -> Any:
    """As JSON values: objects of ours by what they are."""
    if isinstance(value, Reading):
        return {"reading": asdict(value)}
    if isinstance(value, Record):
        return {"record": value.as_json()}
    if isinstance(value, OSError):
        return {"os": [value.errno, value.strerror, value.filename and str(value.filename)]}
    if isinstance(value, UserError):
        return {"mistake": str(value)}
    return value


def _given(value: Any) -> Any:
    match value:
        case {"reading": dict(fields)}:
            return Reading(**fields)
        case {"record": record}:
            return Record.model_validate(record)
        case {"os": [number, text, name]}:
            return OSError(number, text, name)
        case {"mistake": str(text)}:
            return UserError(text)
    return value
