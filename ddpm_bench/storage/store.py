"""A place that a URL names, and folders here that are kept in step with it.

Everything works on folders here, as ever: each write is atomic, each hash is checked, each lock is the kernel's. A `Mirror` brings
here what the place holds and sends there, every few seconds and at the end, what has changed; files are sent whole. What was
sent half by a machine that died is found by its hash when it is read, as on a disk.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from ddpm_bench.errors import UserError
from ddpm_bench.files import OWNER, make_folder, replacing, unfinished
from ddpm_bench.runtime.interrupt import ask_to_stop
from ddpm_bench.runtime.observer import say

EVERY_S = 5.0
"""How often a mirror sends what has changed."""
PATIENCE_S = 300.0
"""How long it tries to send the last of it."""
EXTRAS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
"""The packages that fsspec wants for some protocols."""


def is_url(place: str | Path) -> bool:
    return "://" in str(place)


class Unreachable(UserError):
    """A place that may answer again."""


@dataclass(frozen=True)
class Store:
    """A folder of the place that `url` names. It travels to other processes as its URL."""

    url: str

    @classmethod
    def at(cls, url: str) -> "Store":
        """UserError for a place that is not known, is not there or cannot be reached."""
        store = cls(url.rstrip("/"))
        try:
            store.names()
        except FileNotFoundError as error:  # a folder may be missing, what it is to lie in may not
            raise UserError(
                f"'{url}' has no place to lie in: {error}. Make the bucket first, or correct its name."
            ) from error
        return store

    @contextlib.contextmanager
    def _place(self) -> Iterator[tuple[Any, str]]:
        """fsspec's file system and the path in it, for a block. UserError, or Unreachable, for what is wrong with the place."""
        with _told(self.url):
            yield fsspec.core.url_to_fs(self.url)

    def __truediv__(self, part: str | Path) -> "Store":
        return Store(f"{self.url}/{PurePosixPath(part)}")

    def names(self) -> list[str]:
        """Of all files below, as paths from here; none where there is nothing. UserError for one that leads elsewhere."""
        with self._place() as (system, root):
            system.invalidate_cache()
            prefix = root.rstrip("/") + "/"
            found = [str(path).removeprefix(prefix) for path in system.find(root) if str(path).startswith(prefix)]
        for name in found:
            if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
                raise UserError(f"'{self.url}' holds '{name}', which is no path below it. Remove it there.")
        return sorted(found)

    def read(self, name: str) -> bytes:
        """FileNotFoundError where there is none."""
        with self._place() as (system, root):
            return system.cat_file(f"{root}/{name}")

    def write(self, name: str, content: bytes, new: bool = False) -> None:
        """Whole or not at all. new: FileExistsError where there is one already; of two who try, one succeeds."""
        with self._place() as (system, root):
            system.makedirs(str(PurePosixPath(root, name).parent), exist_ok=True)
            system.pipe_file(f"{root}/{name}", content, mode="create" if new else "overwrite")

    def get(self, name: str, path: Path) -> None:
        """Bring a file here, atomically."""
        with replacing(path) as temporary, self._place() as (system, root):
            system.get_file(f"{root}/{name}", str(temporary))

    def put(self, path: Path, name: str) -> None:
        with self._place() as (system, root):
            system.makedirs(str(PurePosixPath(root, name).parent), exist_ok=True)
            system.put_file(str(path), f"{root}/{name}")

    def remove(self, name: str) -> None:
        with self._place() as (system, root), contextlib.suppress(FileNotFoundError):
            system.rm_file(f"{root}/{name}")


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """What is wrong with a place, as a UserError; that a file is there, or is not, stays what it is."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except ImportError as error:
        package = EXTRAS.get(url.partition("://")[0], "the package that fsspec names")
        raise UserError(f"'{url}' needs a package that is not installed ({error}): pip install {package}") from error
    except ValueError as error:
        raise UserError(f"'{url}' is no place that fsspec knows: {error}.") from error
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"'{url}' cannot be reached: {error}. Check the address, the network and the credentials."
        ) from error


def fetch(store: Store, folder: Path, without: tuple[str, ...] = ()) -> None:
    """Make `folder` what the store holds, but for what lies below the names in `without`."""
    make_folder(folder)
    held = [name for name in store.names() if _is_part(name, without)]
    for name in _files(folder, without).keys() - set(held):
        (folder / name).unlink()
    for name in held:
        store.get(name, folder / name)


class Mirror:
    """`folder`, kept in step with `store` while the block runs; what lies below the names in `without` is not part of it.

    At the beginning the folder becomes what the store holds: that is what counts, wherever work went on meanwhile. check: raises a
    UserError once the store is another's; then nothing is sent any more, the work is asked to stop, and the end of the block raises it.
    """

    def __init__(self, store: Store, folder: Path, check: Callable[[], None], without: tuple[str, ...] = ()) -> None:
        self.store, self.folder, self.check, self.without = store, folder, check, without
        self._sent: dict[str, tuple[int, int]] = {}
        self._end = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._keep_sending, daemon=True)

    def __enter__(self) -> "Mirror":
        fetch(self.store, self.folder, self.without)
        self._sent = _files(self.folder, self.without)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.send()
            except Unreachable as error:
                if time.monotonic() > until:
                    raise UserError(
                        f"{error} What was not sent lies in '{self.folder}', which the next command replaces."
                    ) from error
                say(f"{error} It is tried for {PATIENCE_S:.0f} seconds.")
                time.sleep(EVERY_S)

    def send(self) -> None:
        """Send what has changed, then remove there what is gone here."""
        with self._one_at_a_time:
            self.check()
            here = _files(self.folder, self.without)
            for name, state in here.items():
                if self._sent.get(name) != state:
                    with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                        self.store.put(self.folder / name, name)
                        self._sent[name] = state
            for name in self._sent.keys() - here.keys():
                self.store.remove(name)
                del self._sent[name]

    def _keep_sending(self) -> None:
        while not self._end.wait(EVERY_S):
            try:
                self.send()
            except Unreachable as error:
                say(f"{error} It is tried again meanwhile.")
            except UserError:  # the end of the block raises it again
                return ask_to_stop()


def _is_part(name: str, without: tuple[str, ...]) -> bool:
    parts = PurePosixPath(name).parts
    return parts[0] not in without and not any(part.startswith(OWNER) or unfinished(part) for part in parts)


def _files(folder: Path, without: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Size and time of change of each file of a mirror, by its path from there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        with contextlib.suppress(FileNotFoundError):
            if _is_part(name, without) and path.is_file():
                state = path.stat()
                found[name] = (state.st_size, state.st_mtime_ns)
    return found
