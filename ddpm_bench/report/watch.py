"""`ddpm-bench report --watch`: the report again whenever records arrive. It polls, which works on every file system.

Records are written atomically, so that none is ever seen half written; one that is broken is said, and skipped until
it changes.
"""

import time
from collections.abc import Callable
from pathlib import Path

from ddpm_bench.errors import UserError
from ddpm_bench.records.record import RECORDS, Record
from ddpm_bench.records.row import ROWS
from ddpm_bench.report.checkpoint_rows import FOLDER
from ddpm_bench.runtime.interrupt import stop_requested
from ddpm_bench.runtime.observer import say

EVERY_S = 2.0
Stamp = tuple[int, int, int]


class Folder:
    """A folder of records that may grow, change and shrink, and that need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamps: dict[Path, Stamp] = {}
        self._records: dict[Path, Record] = {}

    @property
    def records(self) -> list[Record]:
        """Those that can be read, in order of file name."""
        return [self._records[path] for path in sorted(self._records)]

    def look(self) -> list[str]:
        """What has arrived, changed or gone since the last look, in words. A record that cannot be read is said."""
        paths = [*RECORDS.paths(self.path), *ROWS.paths(self.path / FOLDER)]
        now = {path: stamp for path in sorted(paths) if (stamp := _stamp(path))}
        gone = [path for path in self._stamps if path not in now]
        changed = [path for path, stamp in now.items() if stamp != self._stamps.get(path)]
        for path in gone:
            self._records.pop(path, None)
        for path in changed:
            if path.parent == self.path:
                self._read(path)
        self._stamps = now
        return [f"{path.stem}{' is gone' if path in gone else ''}" for path in (*changed, *gone)]

    def _read(self, path: Path) -> None:
        self._records.pop(path, None)
        try:
            if record := RECORDS.own(path):
                self._records[path] = record
        except UserError as error:
            say(f"{error} It is left out until it changes.")


def _stamp(path: Path) -> Stamp | None:
    """What changes whenever the file does; None when it has just gone."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def watch(results: Path, render: Callable[[list[Record]], None], every: float = EVERY_S) -> None:
    """Call `render` with the readable records of `results`, now and whenever something there changes, until a stop is asked for.

    A UserError of `render` is said, and the watch goes on.
    """
    folder = Folder(results)
    say(f"Watching '{results}' for records; Ctrl-C ends.")
    while not stop_requested():
        if arrived := folder.look():
            say(f"New: {', '.join(arrived)}")
            if folder.records:
                try:
                    render(folder.records)
                except UserError as error:
                    say(str(error))
        until = time.monotonic() + every
        while not stop_requested() and time.monotonic() < until:
            time.sleep(0.05)
