"""Reading records and rows: files that may come from anywhere, refused with the reason before anything rests on them.

Of a folder's files those count that lie under the name that is written here. Whatever keeps folders in step on several
machines leaves others: `NAME (1).json`, `NAME - Copy.json`, `NAME.sync-conflict-DATE.json`, which may have been edited.
"""

import gc
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from ddpm_bench.config.values import first_fault
from ddpm_bench.errors import UserError
from ddpm_bench.files import read_json
from ddpm_bench.runtime.observer import say_once

Read = TypeVar("Read", bound=BaseModel)

MOST_BYTES = 2**28
"""Of a record; one with the longest chain has a tenth of it."""


def read_part(path: Path, kind: type[Read], newest: int, noun: str, remedy: str) -> Read:
    """The file's JSON as `kind`, `noun` in words; UserError naming file and field for another, or of a newer schema."""
    try:
        content = read_json(path, MOST_BYTES)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if not (isinstance(version, int) and version > newest):
            return kind.model_validate(content)
        problem, remedy = (
            f"it has schema {version}, and this ddpm-bench reads up to {newest}",
            "Install a newer ddpm-bench.",
        )
    except FileNotFoundError:
        raise UserError(f"There is no {noun} at '{path}'.") from None
    except ValidationError as error:
        problem = first_fault(error)
    except (OSError, ValueError) as error:
        problem = str(error)
    raise UserError(f"'{path}' is not a {noun} of ddpm-bench: {problem}. {remedy}")


@dataclass(frozen=True)
class OwnFiles(Generic[Read]):
    """Which JSON files of a folder count, and how each is read.

    pattern: what finds them, and the pictures beside them. name: under which a content is written. names and pictures:
    what such names, and those of pictures, look like. All of them without the ending.
    """

    pattern: str
    names: str
    pictures: str
    read: Callable[[Path], Read]
    name: Callable[[Read], str]

    def paths(self, folder: Path) -> list[Path]:
        """What may be one, in order of file name."""
        return sorted(folder.glob(f"{self.pattern}.json"))

    def own(self, path: Path) -> Read | None:
        """What the file holds; None, and said, where that is written under another name. UserError for a broken one."""
        try:
            found = self.read(path)
        except UserError:
            if re.fullmatch(self.names, path.stem):
                raise
            say_once(f"'{path}' is left out: it cannot be read, and nothing is written here under such a name.")
            return None
        own = path.with_name(f"{self.name(found)}.json")
        if own.name == path.name:
            return found
        if own.exists():
            remedy = "Remove it, or put it in place of that one if it is the right one."
        else:
            remedy = "That is not there: rename it if it is the right one."
        say_once(
            f"'{path}' is left out: what it holds is written as '{own.name}', and counts under that name alone. {remedy}"
        )
        return None

    def all(self, folder: Path, broken: Callable[[UserError], object] | None = None) -> dict[Path, Read]:
        """All that count, in order of file name. `broken` hears of each that cannot be read; without it, UserError."""
        found: dict[Path, Read] = {}
        with _all_kept():
            for path in self.paths(folder):
                try:
                    content = self.own(path)
                except UserError as error:
                    if broken is None:
                        raise
                    broken(error)
                else:
                    found |= {path: content} if content else {}
        self._say_odd_pictures(folder)
        return found

    def _say_odd_pictures(self, folder: Path) -> None:
        found = folder.glob(f"{self.pattern}.png")
        if odd := sorted(f"'{path.name}'" for path in found if not re.fullmatch(self.pictures, path.stem)):
            say_once(f"'{folder}': left out are pictures under names that none is written under: {', '.join(odd)}.")


@contextmanager
def _all_kept() -> Iterator[None]:
    """Python does not look for garbage meanwhile: there is none, and of thousands of records it would look through all, often."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
