"""The device that everything runs on, and what float32 means there."""

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Literal

import torch

from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.networks.compiled import check_compiler

# torch puts `conv` into the module at run time, which its annotations do not say.
CONVOLUTIONS = torch.backends.cudnn.conv  # type: ignore[attr-defined]
"""The switch of what float32 means in convolutions on a GPU."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_FLOAT32 = (torch.backends.cuda.matmul, CONVOLUTIONS)


def computed_in(kind: str, precision: Literal["float32", "bfloat16"] | None = None) -> Literal["float32", "bfloat16"]:
    """What networks compute in on a device of this kind: as asked, else bfloat16 on a GPU and float32 elsewhere."""
    return precision or ("bfloat16" if kind == "cuda" else "float32")


@contextlib.contextmanager
def float32_as(precision: Literal["ieee", "tf32"]) -> Iterator[None]:
    """What float32 means to a GPU inside: exact, or products with factors of 10 bits (TF32). Put back afterwards."""
    before = [backend.fp32_precision for backend in _FLOAT32]
    try:
        _set_float32(precision)
        yield
    finally:
        for backend, was in zip(_FLOAT32, before, strict=True):
            backend.fp32_precision = was


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """So many threads, by whose number sums are split and so their last digits. Put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str, compiled: bool = False) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. UserError when the named device is not there.

    The process is set up for it: on a GPU float32 means float32, since what may be rounded is in bfloat16 already, and
    convolutions, whose sizes stay the same, are searched for their fastest algorithm; for the CPU it keeps the memory
    that it frees. `compiled`: networks shall be; UserError where that does not work.
    """
    device = _found(name)
    set_up(device)
    if compiled:
        check_compiler(device)
    return device


def set_up(device: torch.device) -> None:
    """Have this process compute on the device as `choose_device` says; a process of one's own begins without."""
    if device.type == "cuda":
        _set_float32("ieee")
        torch.backends.cudnn.benchmark = True
    elif device.type == "cpu":
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have the C library keep blocks of up to 1 GiB that are freed, for the next ones; only glibc can be told so.

    It gives them back otherwise, and each network call gets its activations anew, page by page: a tenth and more of a
    prediction's time at the size of `quick`. A thread that was refused memory goes without it from then on, by glibc's
    own rule.
    """
    if (mallopt := _of_glibc("mallopt")) is not None:
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(parameter, 2**30)


def return_freed_memory() -> None:
    """Give the system what is kept, so that what a call takes can be seen."""
    if (malloc_trim := _of_glibc("malloc_trim")) is not None:
        malloc_trim(0)


def _of_glibc(function: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None


def _set_float32(precision: Literal["ieee", "tf32"]) -> None:
    for backend in _FLOAT32:
        backend.fp32_precision = precision


def _found(name: str) -> torch.device:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    if name not in there:
        raise UserError(f"There is no device '{name}'{near_miss(name, ('auto', *there))}")
    if not there[name]:
        found = ", ".join(kind for kind, present in there.items() if present)
        raise UserError(f"--device {name}: torch {torch.__version__} finds none on this machine. Use --device {found}.")
    return torch.device(name)
