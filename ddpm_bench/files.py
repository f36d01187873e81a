"""Files: atomic writes, reading that ends, and content hashes, the one place for each."""

import codecs
import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from errno import EACCES, EDQUOT, EFBIG, ELOOP, ENAMETOOLONG, ENOSPC, EPERM, EROFS
from pathlib import Path
from typing import Any, TypeVar

from pydantic_core import from_json

from ddpm_bench.errors import UserError

Held = TypeVar("Held")
OWNER = ".owner"
"""The files by which a folder is owned (`runtime/owner.py`) begin so; they are no content of it."""
_UNFINISHED = re.compile(r"\..+\.[a-z0-9_]{8}\.part|\.step-\d+\.partial")
"""Hidden names of what is being written: by `replacing`, and a snapshot."""
FULL = (ENOSPC, EDQUOT, EFBIG)
"""What the operating system says of a full disk: that is no mistake in what was given."""
NO_PLACE = (ENAMETOOLONG, ELOOP, EACCES, EPERM, EROFS)
"""What it says of a place that nothing can be read from or written to."""

MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte order marks, which editors and shells put before a text, and the encoding that each stands for."""

UNFOLDS, SMALL = 100, 2**28
"""A file may unfold to a hundred times its bytes, or to 256 MiB: no data set is packed tighter, and every bomb is."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds, it replaces `path` in one step.

    A reader sees the old file or the new one, never half of one. When the block raises, `path` is as it was. The temporary
    name does not end as `path` does, so that no listing takes it for a file of that kind.
    """
    make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes private files; results are meant to be read by others.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def unfinished(name: str) -> bool:
    """Is that the name of something that is being written, or was when its process was killed?"""
    return _UNFINISHED.fullmatch(name) is not None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON atomically: NaN and infinity are refused, since no other reader takes them."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def regular(path: Path) -> Path:
    """`path`, where a file lies there; OSError for whatever has no end, or waits for a writer: pipes, sockets, devices."""
    if not path.is_file():
        path.stat()  # says what is wrong where there is nothing
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path


def read_text(path: Path) -> str:
    """A text in UTF-8, or as its byte order mark says. OSError where it cannot be read, ValueError where it is no text."""
    content = regular(path).read_bytes()
    return content.decode(next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8"))


def known_content(path: Path, sha256: str, noun: str, unlike: str, remedy: str) -> bytes:
    """The bytes of a file that is known by its hash, of the name `noun`. UserError, before anything of it is loaded, where it
    cannot be read or has another; `unlike`: what it then is, if it is not damaged.
    """
    content, found = given_content(path, noun, remedy)
    if found != sha256:
        raise UserError(
            f"'{path}' is damaged or {unlike}: its SHA-256 is {found}, expected {sha256}. Nothing of it was loaded. {remedy}"
        )
    return content


def given_content(path: Path, noun: str, remedy: str) -> tuple[bytes, str]:
    """The bytes of a file of the name `noun`, and their SHA-256. UserError where it cannot be read."""
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {noun} '{path}': {error.strerror}. {remedy}") from error
    return content, hashlib.sha256(content).hexdigest()


def read_json(path: Path, most: int | None = None) -> Any:
    """What a JSON file of at most `most` bytes holds: NaN and infinity are no JSON.

    OSError where it cannot be read, and ValueError where it is no JSON, too large, or nested too deeply.
    """
    size = regular(path).stat().st_size
    if most is not None and size > most:
        raise ValueError(f"it has {size:,} bytes, and may have {most:,}")
    text = read_text(path)
    try:
        return from_json(text, allow_inf_nan=False)  # three times as fast as Python's
    except ValueError:  # Python's says it in words that more people know
        pass
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def check_unfolding(unfolded: int, packed: int, what: str) -> None:
    """UserError, before any memory is taken, where `what`, `packed` bytes in files, claims to unfold beyond UNFOLDS and SMALL."""
    if unfolded > max(UNFOLDS * packed, SMALL):
        raise UserError(
            f"{what} claims to hold {unfolded:,} bytes in {packed:,}, more than {UNFOLDS} times as many: it is damaged, or made to "
            "fill the memory. Replace it, or save it less tightly packed if it is neither."
        )


def make_folder(path: Path) -> Path:
    """Create `path` with its parents; a UserError names the folder that cannot be written. A full disk stays an OSError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise cannot_write(path, error.strerror) from error
    if not os.access(path, os.W_OK):
        raise cannot_write(path, "permission denied")
    return path


def cannot_write(folder: Path, why: str | None) -> UserError:
    """What to say of a folder that the user gave and that cannot be written."""
    return UserError(f"Cannot write to the folder '{folder}': {why}. Choose another folder.")


def check_free(out: Path) -> None:
    """UserError when something is at `out` already."""
    if out.exists() and (out.is_file() or _content(out)):
        raise UserError(f"'{out}' exists already and is left as it is; choose another --out.")


def check_weights_file(out: Path, what: str) -> None:
    """UserError for a file, of a network that is called `what`, that is not called as one of weights or cannot be written."""
    if out.suffix != ".safetensors":
        raise UserError(
            f"{what} is a .safetensors file, not '{out}'. Write --out {out.parent / (out.stem or 'mine')}.safetensors."
        )
    make_folder(out.parent)


def keyed_folder(folder: Path, kind: str, of: Mapping[str, Any]) -> Path:
    """`folder/kind-HASH`, made where it is missing, for work that depends on `of`, JSON values, alone.

    `of.json` in it says what HASH stands for, so that work for one model, data set or setting is never taken for another's.
    """
    text = json.dumps(of, sort_keys=True)
    path = make_folder(folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}")
    if not (path / "of.json").exists():
        write_json(path / "of.json", of)
    return path


def in_a_row(
    ranges: Iterable[tuple[int, int]], load: Callable[[int, int], Held | None]
) -> Iterator[tuple[int, int, Held]]:
    """(start, end, what `load` gives) of kept ranges that follow each other from 0 on, without gap or overlap.

    Of ranges with one start, as other batches leave them, the longest counts; one that `load` gives None for is missing.
    """
    reached = 0
    for start, end in sorted(ranges, key=lambda each: (each[0], -each[1])):
        if start == reached and (held := load(start, end)) is not None:
            yield start, end, held
            reached = end


def move_aside(folder: Path, paths: Iterable[Path]) -> None:
    """Move those of `paths`, all in `folder`, that exist into a dated folder there: `--fresh` loses nothing.

    Of a folder what is in it moves, since whoever owns it owns it still.
    """
    stamp = datetime.now(UTC).strftime("before-%Y%m%d-%H%M%S")
    for path in paths:
        for each in _content(path) if path.is_dir() else [path]:
            if each.exists():
                target = folder / stamp / each.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                each.rename(target)


def _content(folder: Path) -> list[Path]:
    """What lies in a folder, but for who owns it."""
    return [path for path in folder.iterdir() if not path.name.startswith(OWNER)]


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with regular(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
