"""What the machine itself can do: products, 3x3 convolutions, memory."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from ddpm_bench.runtime.device import float32_as, return_freed_memory
from ddpm_bench.runtime.timing import seconds_of, wait
from ddpm_bench.speed.result import Peak, Precision

SHAPES = {"cpu": (16, ((128, 32), (256, 16)), 1024), "cuda": (128, ((128, 32), (256, 16)), 8192)}
"""Batch, (channels, side) of the paper's most frequent convolutions, and side of a matrix that fills the device."""


def float32_of(precision: Precision) -> contextlib.AbstractContextManager[None]:
    """While the block runs, a GPU's float32 is exact, or has TF32 products where that is measured."""
    return float32_as("tf32" if precision == "tf32" else "ieee")


@torch.inference_mode()
def peak(device: torch.device, precision: Precision, repeats: int) -> Peak:
    """The fastest of `repeats` products of square matrices, and of 3x3 convolutions in channels-last memory."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    batch, convolutions, side = SHAPES.get(device.type, SHAPES["cpu"])

    def fastest(work: Callable[[], object], flops: float) -> float:
        work()
        return flops / min(seconds_of(work, device) for _ in range(repeats))

    def convolve(channels: int, side: int) -> float:
        x, w = torch.randn(batch, channels, side, side), torch.randn(channels, channels, 3, 3)
        x, w = (each.to(device, dtype, memory_format=torch.channels_last) for each in (x, w))
        return fastest(lambda: functional.conv2d(x, w, padding=1), 2 * 9 * channels * w.shape[0] * batch * side**2)

    with float32_of(precision):
        a, b = (torch.randn(side, side).to(device, dtype) for _ in range(2))
        matmul = fastest(lambda: a @ b, 2 * side**3)
        return Peak(precision=precision, matmul=matmul, convolution=max(convolve(*shape) for shape in convolutions))


def memory_of(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that one call needs at most beyond what was held before it. None where the system does not tell.

    Of a GPU torch's own count. On Linux resident memory, which the kernel counts in pages: small calls read as zero.
    """
    if device.type == "cuda":
        wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    return_freed_memory()
    if device.type != "cpu" or not _forget_peak():
        return None
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def _forget_peak() -> bool:
    """Have Linux begin anew to count this process's peak of resident memory."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
