"""What was given to import: a file, a folder, or a hub id. Weights are read without executing anything."""

import pickle
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ddpm_bench.errors import UserError
from ddpm_bench.files import read_json
from ddpm_bench.models.interop.wrapped import named
from ddpm_bench.networks.weights import odd, read_pickle, read_tensors

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
OURS = ("model.json", "state.json", "step-*/state.json")
FILES = {".pt", ".pth", ".ckpt", ".bin", ".safetensors"}


class Given:
    """A source by the text that was given. UserError when there is nothing there and it cannot be a hub id."""

    def __init__(self, given: str) -> None:
        self.given, self.path = given, Path(given)
        there = self.path.exists()
        self.hub_id = given if not there and HUB_ID.fullmatch(given) and self.path.suffix not in FILES else None
        if not there and not self.hub_id:
            raise UserError(f"There is no file or folder '{given}', nor is it a hub id such as google/ddpm-cifar10-32.")
        if self.path.suffix == ".json" and there:
            raise UserError(f"'{given}' is a configuration: give the folder that it lies in, '{self.path.parent}'.")
        if any(match for pattern in OURS for match in self.path.glob(pattern)):
            raise UserError(f"'{given}' is a checkpoint of ddpm-bench already: give it to --ckpt as it is.")

    @property
    def label(self) -> str:
        """What cards say: no folders of this machine."""
        return self.hub_id or self.path.resolve().name

    @property
    def name(self) -> str:
        """The model's name where none is given."""
        return self.label.rpartition("/")[2] if self.hub_id or self.path.is_dir() else self.path.stem

    @cached_property
    def content(self) -> dict[str, Any]:
        """What a file holds; empty for folders and hub ids. UserError when it is damaged, or needs to be executed."""
        return load_file(self.path) if self.path.is_file() else {}

    def summary(self) -> str:
        """What is there instead, for a message."""
        if self.path.is_dir():
            inside = sorted(path.name for path in self.path.iterdir() if path.suffix in FILES)
            files = f"; of its files ({', '.join(inside[:6])}) give one" if inside else ""
            return "the folder has no config.json, unet/config.json or model_index.json" + files
        keys = [_with_first(key, held) for key, held in self.content.items()]
        return f"the file's first keys are {', '.join(keys[:4])}" if keys else "the file is empty"


def _with_first(key: Any, held: Any) -> str:
    """A key, and where it holds a dictionary the first of those."""
    return f"{key} ({next(iter(held))}, ...)" if isinstance(held, dict) and held else str(key)


def load_file(path: Path) -> dict[str, Any]:
    """The dictionary in a .safetensors file, or in a pickle of nothing but tensors and plain containers."""
    try:
        content = read_tensors(path) if path.suffix == ".safetensors" else named(read_pickle(path))
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' holds a {type(content).__name__}, not a dictionary; save a state dict instead.")
    return content


def load_json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' is not a configuration: it holds a {type(content).__name__}.")
    return content


def tensors(content: Any, where: str) -> dict[str, Tensor]:
    """`content`, where all of it is named tensors; else a UserError."""
    if not isinstance(content, dict):
        raise UserError(f"{where} holds a {type(content).__name__}, not named tensors.")
    if others := odd(content):
        raise UserError(f"{where} should hold nothing but named tensors of numbers, but {', '.join(others[:3])}.")
    return content


def check_filled(weights: Iterable[Tensor], where: str) -> None:
    """UserError for tensors without numbers."""
    if any(tensor.is_meta for tensor in weights):
        raise UserError(f"{where} holds names and shapes alone (torch's device meta), no weights.")


def _refused(path: Path, said: str) -> UserError:
    """What torch's restricted unpickler says, without its advice to unpickle all the same."""
    if needs := re.search(r"GLOBAL (\S+)", said):
        return UserError(f"'{path}' is refused, and nothing in it was executed: it needs more than tensors and plain "
                         f"containers, {needs[1]}. If you trust it, import a file of its state dict.")  # fmt: skip
    return _unreadable(path, said.partition("WeightsUnpickler error:")[2] or "no pickle of tensors")


def _unreadable(path: Path, error: object) -> UserError:
    first = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
    return UserError(f"'{path}' cannot be read: it is damaged, cut off, or something else ({first}).")
