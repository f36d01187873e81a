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


def seconds_of(work: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Wall time of a call, the mean over `calls` in a row."""
    wait(device)
    began = time.perf_counter()
    for _ in range(calls):
        work()
    wait(device)
    return (time.perf_counter() - began) / calls
