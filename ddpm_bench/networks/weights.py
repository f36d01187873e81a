"""Weights from files of whoever made them: read without executing anything, and known to fit before a network is built.

Damage is told in one way, as a ValueError; nothing takes more memory than a few times what the file holds.
"""

import argparse
import contextlib
import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ddpm_bench.files import check_unfolding, regular

NO_TENSORS = (SafetensorError, RuntimeError, TypeError, LookupError, MemoryError)
"""What safetensors and torch raise for headers that promise what torch has not: types, ranks, sizes."""
NO_PICKLE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, RuntimeError,
    TypeError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What damage makes of torch's unpickler, beside ValueError and UnpicklingError."""
NUMBERS = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
}  # fmt: skip
"""What becomes float32 without loss of meaning."""


def read_tensors(source: Path | bytes) -> dict[str, Tensor]:
    """The named tensors of a safetensors file. OSError where it cannot be read, ValueError where it is none."""
    try:
        return (
            safetensors.torch.load(source)
            if isinstance(source, bytes)
            else safetensors.torch.load_file(regular(source))
        )
    except NO_TENSORS as error:
        raise ValueError(_first_line(error)) from error


def read_pickle(source: Path | bytes) -> Any:
    """What torch.save wrote, where that is tensors and plain containers alone, or the options of a script beside them.

    OSError where it cannot be read, UnpicklingError where it needs more than those, ValueError where it is damaged.
    """
    size = len(source) if isinstance(source, bytes) else regular(source).stat().st_size
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                check_unfolding(
                    sum(member.file_size for member in archive.infolist()), size, "what torch.save has packed"
                )
        if isinstance(file, io.BytesIO):
            file.seek(0)
        with torch.serialization.safe_globals([argparse.Namespace]):  # which does nothing but hold values
            return torch.load(file, map_location="cpu", weights_only=True)
    except NO_PICKLE as error:
        raise ValueError(_first_line(error)) from error


def odd(tensors: Mapping[Any, Any]) -> list[str]:
    """What is no weight by name among `tensors`, in words: those are dense numbers, each in memory of its own."""
    found, memory = [], {}
    for name, each in tensors.items():
        if not isinstance(name, str):
            found.append(f"a name is a {type(name).__name__}")
        elif not isinstance(each, Tensor):
            found.append(f"'{name}' is a {type(each).__name__}")
        elif each.layout != torch.strided or each.dtype not in NUMBERS:
            found.append(f"'{name}' is {each.dtype} in the layout {each.layout}")
        elif not each.is_meta:
            held = each.untyped_storage()
            memory[held.data_ptr()] = held.nbytes()
    if not found and sum(each.nbytes for each in tensors.values() if not each.is_meta) > sum(memory.values()):
        found.append("some are views of the same numbers, repeated")
    return found


class Unfilled(TorchFunctionMode):
    """No initial values are drawn, and ranges are real: for meta tensors torch would import half a compiler for these."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.uniform_, Tensor.normal_):
            return args[0]
        return func(*args, **({"device": "cpu"} if func is torch.arange else {}) | (kwargs or {}))


@contextlib.contextmanager
def outline() -> Iterator[None]:
    """Networks that are built here have names and shapes alone, and take no memory."""
    with torch.device("meta"), Unfilled():
        yield


def mismatch(network: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """The first of `weights` that is not as `network`, which may be an outline, has it; None: all fit."""
    due = network.state_dict()
    if others := due.keys() ^ weights.keys():
        name = min(others)
        return f"{name} is {'missing' if name in due else 'not expected'}"
    for name, wanted in due.items():
        found = weights[name]
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            is_, be = (f"{each.dtype} {list(each.shape)}".removeprefix("torch.") for each in (found, wanted))
            return f"{name} is {is_} where {be} is expected"
    return None


def not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Which of `weights` hold NaN or infinity, the first by name and count; None: all are numbers."""
    counts = {name: int((~each.isfinite()).sum()) for name, each in weights.items() if not each.is_meta}
    faults = [f"{name} has {count:,} of {weights[name].numel():,} values" for name, count in counts.items() if count]
    if not faults:
        return None
    more = f", and {len(faults) - 1} more tensors have such" if len(faults) > 1 else ""
    return f"{faults[0]} that are not finite (NaN or infinity){more}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
