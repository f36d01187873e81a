"""One owner a folder: two processes never write into one folder at a time.

The lock is the kernel's, on a file in the folder that says who holds it. So it is free the moment that its process is gone,
however it went; a file that a dead process left is taken over. Who owns a folder knows that nobody writes there, and so removes
what a killed process left half written.
"""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from errno import ENOLCK, ENOSYS, EOPNOTSUPP
from pathlib import Path

from ddpm_bench.errors import UserError
from ddpm_bench.files import OWNER, make_folder, unfinished
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import say

ORPHAN_S = 15.0
"""How long a worker whose parent was killed may take to be gone, on a busy machine."""
RENDERING_S = 60.0
"""How long to wait for others to render into a folder."""

NO_LOCKS = (ENOSYS, ENOLCK, EOPNOTSUPP)

_held: set[Path] = set()
"""Locks of this process."""


@contextlib.contextmanager
def owned(folder: Path, wait_s: float = 0.0, part: str = "") -> Iterator[Path]:
    """`folder`, made where it is missing, and this process's alone while the block runs.

    part: only what goes by that name there, for folders that several processes share. A block within another of the same
    process on the same folder is let in. Waits `wait_s` seconds for another process to leave, then UserError says which it is.
    Raises Interrupted while it waits.
    """
    lock = folder.resolve() / f"{OWNER}{part and '-'}{part}.lock"
    if lock in _held:
        yield folder
        return
    made = not folder.exists()
    descriptor = _acquired(lock, folder, wait_s)
    if descriptor is None:
        yield folder
        return
    _held.add(lock)
    try:
        if not part:
            _remove_unfinished(folder)
        yield folder
    finally:
        _held.remove(lock)
        _release(descriptor, lock)
        if made:
            with contextlib.suppress(OSError):  # only where nothing was put into it
                folder.rmdir()


def _acquired(lock: Path, folder: Path, wait_s: float) -> int | None:
    """The lock's descriptor, once it is ours; None where the file system has no locks, which is said."""
    try:
        return _once_free(lock, folder, wait_s)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        say(f"'{folder}' is on a file system without locks: see to it that no other command writes there.")
        return None


def _once_free(lock: Path, folder: Path, wait_s: float) -> int:
    until, waiting = time.monotonic() + wait_s, False
    while (descriptor := _try(lock, folder)) is None:
        if time.monotonic() >= until:
            raise UserError(
                f"'{folder}' is in use by {_holder(lock)}. Wait until it has ended, stop it, or choose another folder."
            )
        if not waiting:
            say(f"Waiting for '{folder}', which is in use by {_holder(lock)}")
            waiting = True
        check_stop()
        time.sleep(0.1)
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps(_ourselves()).encode())
    return descriptor


def _try(lock: Path, folder: Path) -> int | None:
    """The descriptor of the file, locked; None where another process holds it, or has just removed it."""
    make_folder(folder)
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise UserError(f"Cannot write to the folder '{folder}': {error.strerror}. Choose another folder.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except BlockingIOError:
        pass
    except OSError:
        lock.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _release(descriptor: int, lock: Path) -> None:
    """Remove the file while it is locked, so that whoever opened it sees that it is gone and tries again."""
    with contextlib.suppress(OSError):
        if os.fstat(descriptor).st_nlink:  # else the folder was removed, and what is there now is not ours
            lock.unlink()
    os.close(descriptor)


def _ourselves() -> dict[str, str | int]:
    return {
        "process": os.getpid(),
        "machine": socket.gethostname(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _holder(lock: Path) -> str:
    """Who holds it, in words."""
    try:
        found = json.loads(lock.read_text(encoding="utf-8"))
        return "process {process} on '{machine}' since {since} ({command})".format_map(found)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


# ---- what killed processes leave ------------------------------------------------------------------------------------

DEPTH = 3
"""Folders below one's own, as results/work/CELL/samples-HASH."""


def _remove_unfinished(folder: Path) -> None:
    """Remove what was being written when its process was killed, here and below, but not in a folder with an owner of its own."""
    removed = 0
    for here, folders, files in os.walk(folder):
        at = Path(here)
        if at != folder and any(name.startswith(OWNER) for name in files):
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
