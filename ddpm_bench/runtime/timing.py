"""How long work takes on a device that answers before it is done."""

import time
from collections.abc import Callable

import torch


def wait(device: torch.device) -> None:
    """Until all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(
    work: Callable[[], object], device: torch.device, calls: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Wall time of a call, or another clock's; the mean over `calls` in a row."""
    wait(device)
    began = clock()
    for _ in range(calls):
        work()
    wait(device)
    return (clock() - began) / calls


def in_words(seconds: float) -> str:
    """As people say how long something takes."""
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"
