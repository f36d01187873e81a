"""Sealed files: JSON objects and named arrays that carry the SHA-256 of their own content from the moment they are written.

Everything that is kept on the way to a record is sealed, so that a flipped bit, a truncated file or one that was swapped
with another is found when it is read, and never counted. What is damaged can be made again; so readers say it, and give
None.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from ddpm_bench.files import read_json, regular, replacing, write_json
from ddpm_bench.runtime.observer import say

SEAL = "seal"
"""The key of the SHA-256: beside those of a JSON object, and in the metadata of a safetensors file."""

Arrays = dict[str, np.ndarray]


def seal(value: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """JSON values with the hash of what they say, and of `place`, which tells files apart that must not be swapped."""
    as_read = json.loads(json.dumps(value))
    return {**as_read, SEAL: _json_sha256(as_read, place)}


def is_whole(sealed: Mapping[str, Any], place: str = "") -> bool:
    """Does a JSON object say what it said when it was sealed?"""
    return sealed.get(SEAL) == _json_sha256(sealed, place)


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its seal, atomically."""
    write_json(path, seal(value, _place(path)))


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What `write_sealed` wrote; None where there is nothing or, which is said, a damaged file."""
    if not path.exists():
        return None
    try:
        value = read_json(path)
        if isinstance(value, dict) and is_whole(value, _place(path)):
            del value[SEAL]
            return value
    except (OSError, ValueError):
        pass
    say_again(path)
    return None


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write named arrays of numbers as safetensors with their seal, atomically."""
    held = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    told = {SEAL: _arrays_sha256(held, _place(path))}
    with replacing(path) as temporary:
        try:
            save_file(held, temporary, told)
        except SafetensorError:  # which hides why, such as a full disk; Python says it
            temporary.write_bytes(save(held, told))


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """What `write_arrays` wrote; None where there is nothing or, which is said, a damaged file."""
    if not path.exists():
        return None
    try:
        with safe_open(regular(path), "np") as file:
            arrays, told = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        if told.get(SEAL) == _arrays_sha256(arrays, _place(path)):
            return arrays
    except (OSError, SafetensorError, ValueError, TypeError):
        pass
    say_again(path)
    return None


def say_again(path: Path, why: str = "its hash is not that of its content") -> None:
    """Say that the work in `path` is done again."""
    say(f"Making '{path}' again: {why}.")


def _place(path: Path) -> str:
    """A file's name and its folder's, which holds a hash of what the file is of: see `files.keyed_folder`."""
    return f"{path.parent.name}/{path.name}"


def _json_sha256(value: Mapping[str, Any], place: str) -> str:
    content = {key: held for key, held in value.items() if key != SEAL}
    return hashlib.sha256(json.dumps([place, content], sort_keys=True).encode()).hexdigest()


def _arrays_sha256(arrays: Arrays, place: str) -> str:
    digest = hashlib.sha256(place.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
