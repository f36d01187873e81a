"""One owner a folder: two processes never write into one folder at a time.

The lock is the kernel's where the file system has one (filelock), on a file in the folder; another beside it says who holds it.
So it is free the moment that its process is gone, however it went, and files that a dead process left are taken over. Who owns
a folder knows that nobody writes there, and so removes what a killed process left half written.
"""

import contextlib
import json
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from errno import ENOLCK, EOPNOTSUPP
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from ddpm_bench.errors import UserError
from ddpm_bench.files import OWNER, cannot_write, make_folder, unfinished, write_json
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import say

ORPHAN_S = 15.0
"""How long a worker whose parent was killed may take to be gone, on a busy machine."""
RENDERING_S = 60.0
"""How long to wait for others to render into a folder."""

NO_LOCKS = (ENOLCK, EOPNOTSUPP)
"""What a file system without locks says; where it is ENOSYS, filelock has a lock of another kind."""

_held: set[Path] = set()
"""Locks of this process."""


@contextlib.contextmanager
def owned(folder: Path, wait_s: float = 0.0, part: str = "") -> Iterator[Path]:
    """`folder`, made where it is missing, and this process's alone while the block runs.

    part: only what goes by that name there, for folders that several processes share. A block within another of the same
    process on the same folder is let in. Waits `wait_s` seconds for another process to leave, then UserError says which it is.
    Raises Interrupted while it waits.
    """
    path = folder.resolve() / f"{OWNER}{part and '-'}{part}.lock"
    if path in _held:
        yield folder
        return
    made, lock = not folder.exists(), FileLock(path)
    try:
        _acquire(lock, folder, wait_s)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        say(f"'{folder}' is on a file system without locks: see to it that no other command writes there.")
        yield folder
        return
    ours = path.stat()
    _held.add(path)
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            write_json(_note(path), ourselves())
        if not part:
            _remove_unfinished(folder)
        yield folder
    finally:
        _held.remove(path)
        with contextlib.suppress(OSError):
            if os.path.samestat(path.stat(), ours):  # else the folder was removed, and what is there now is another's
                _note(path).unlink(missing_ok=True)
                path.unlink()  # while it is locked: whoever waits sees that it is gone, and tries again
        lock.release()
        if made:
            with contextlib.suppress(OSError):  # only where nothing was put into it
                folder.rmdir()


def _acquire(lock: BaseFileLock, folder: Path, wait_s: float) -> None:
    """Return once the lock is ours."""
    until, waiting, path = time.monotonic() + wait_s, False, Path(lock.lock_file)
    while True:
        make_folder(folder)
        try:
            lock.acquire(timeout=0)
            return
        except Timeout:
            pass
        except PermissionError as error:
            raise cannot_write(folder, error.strerror) from error
        if time.monotonic() >= until:
            raise UserError(
                f"'{folder}' is in use by {_holder(path)}. Wait until it has ended, stop it, or choose another folder."
            )
        if not waiting:
            say(f"Waiting for '{folder}', which is in use by {_holder(path)}")
            waiting = True
        check_stop()
        time.sleep(0.1)


def _note(lock: Path) -> Path:
    """The file that says who holds the lock."""
    return lock.with_suffix(".held")


def ourselves() -> dict[str, str | int]:
    """Who owns something, for others to read."""
    return {
        "process": os.getpid(),
        "machine": socket.gethostname(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _holder(lock: Path) -> str:
    """Who holds it, in words."""
    try:
        return in_words(json.loads(_note(lock).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return in_words({})


def in_words(owner: Any) -> str:
    """Who it is, of what `ourselves` wrote, or of anything else."""
    try:
        return "process {process} on '{machine}' since {since} ({command})".format_map(owner)
    except (KeyError, TypeError):
        return "another process"


# ---- what killed processes leave ------------------------------------------------------------------------------------

DEPTH = 3
"""Folders below one's own, as results/work/CELL/samples-HASH."""


def _is_lock(name: str) -> bool:
    return name.startswith(OWNER) and name.endswith(".lock")


def _abandoned(path: Path) -> bool:
    """Does nobody hold the lock? Then what its dead owner left of it is removed."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return False
    with contextlib.suppress(OSError):
        _note(path).unlink(missing_ok=True)
        path.unlink()
    lock.release()
    return True


def _remove_unfinished(folder: Path) -> None:
    """Remove what was being written when its process was killed, here and below, but not in a folder with an owner of its own."""
    removed = 0
    for here, folders, files in os.walk(folder):
        at = Path(here)
        if at != folder and not all(map(_abandoned, (at / name for name in files if _is_lock(name)))):
            folders.clear()
            continue
        for name in filter(unfinished, files):
            (at / name).unlink(missing_ok=True)
            removed += 1
        for name in filter(unfinished, [*folders]):
            shutil.rmtree(at / name, ignore_errors=True)
            folders.remove(name)
            removed += 1
        if len(at.relative_to(folder).parts) == DEPTH:
            folders.clear()
    if removed:
        say(f"Removed from '{folder}' what a killed process had begun to write: {removed} in number")
