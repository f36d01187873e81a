"""Files gone wrong: what is right is damaged, kind by kind, from a source of randomness that a seed repeats.

An input is a folder as a mapping of relative paths to what lies there: the content of a file, or one of `NO_FILES`.
"""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random

from fuzz_binary import changed_bytes, changed_npz, changed_png, changed_pt, changed_safetensors
from fuzz_text import changed_json, changed_toml

Content = bytes | str
Folder = dict[str, Content]
Change = Callable[[Random, bytes], bytes]

NO_FILES = ("a folder", "a named pipe", "a socket", "a link to itself", "a link to nothing", "a link to /dev/zero")
"""What may lie where a file is due."""


def write(folder: Path, content: Folder) -> None:
    """Make what `content` says below `folder`."""
    for name, each in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(each, bytes):
            path.write_bytes(each)
        elif each == "a folder":
            path.mkdir()
        elif each == "a named pipe":
            os.mkfifo(path)
        elif each == "a socket":
            with socket.socket(socket.AF_UNIX) as bound:  # names of sockets are short, so it is bound by a relative one
                here = os.getcwd()
                os.chdir(path.parent)
                try:
                    bound.bind(path.name)
                finally:
                    os.chdir(here)
        else:
            target = {"a link to itself": path.name, "a link to /dev/zero": "/dev/zero"}.get(each, "nothing")
            path.symlink_to(target)


def read(folder: Path) -> Folder:
    """The files below `folder`."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def made(folder: Path, make: Callable[[Path], object]) -> Folder:
    """The files that `make` leaves in the new folder `folder`, which is removed."""
    folder.mkdir()
    make(folder)
    content = read(folder)
    shutil.rmtree(folder)
    return content


def changed(random: Random, content: Folder) -> Folder:
    """The folder with one to three changes, most of them inside one file."""
    content = dict(content)
    for _ in range(random.choice((1, 1, 2, 3))):
        files = [name for name, each in content.items() if isinstance(each, bytes)]
        if not files:
            break
        name = random.choice(files)
        old = content[name]
        assert isinstance(old, bytes)
        what = random.randrange(20)
        if what == 0:
            content[name] = random.choice(NO_FILES)
        elif what == 1:
            del content[name]
        elif what == 2:
            content[name] = content[random.choice(files)]
        else:
            content[name] = change(random, name, old)
    return content


def change(random: Random, name: str, content: bytes) -> bytes:
    """A file gone wrong in a way of its kind, or in its bytes where it has become no file of its kind."""
    of_kind = CHANGES.get(Path(name).suffix, changed_bytes)
    try:
        return of_kind(random, content) if random.randrange(4) else changed_bytes(random, content)
    except Exception:  # what is damaged already may be no file of its kind, in ways without bounds
        return changed_bytes(random, content)


CHANGES: dict[str, Change] = {
    ".json": changed_json,
    ".toml": changed_toml,
    ".safetensors": changed_safetensors,
    ".png": changed_png,
    ".npz": changed_npz,
    ".pt": changed_pt,
    ".pth": changed_pt,
}
