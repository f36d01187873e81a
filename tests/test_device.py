"""What the process is set up for on a device."""

import subprocess
import sys

import pytest
import torch

from ddpm_bench.runtime.device import choose_device
from ddpm_bench.speed.machine import memory_of

FLOATS = 2**24
FRESH = f"""
import resource, torch
from ddpm_bench.runtime.device import choose_device

def pages_got():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones({FLOATS})
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

choose_device("cpu")
pages_got()  # small blocks find their places
assert pages_got() < {FLOATS} * 4 // resource.getpagesize()
"""
"""A process of its own: one that was once refused memory takes large blocks from the system ever after (glibc)."""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told")
def test_memory_that_is_freed_is_kept_for_the_next_call() -> None:
    assert subprocess.run([sys.executable, "-c", FRESH]).returncode == 0


def test_memory_that_is_kept_counts_as_needed_by_the_next_call() -> None:
    device = choose_device("cpu")
    torch.ones(2 * FLOATS)
    if (needed := memory_of(lambda: torch.ones(FLOATS), device)) is None:
        pytest.skip("this system does not tell")
    assert FLOATS * 4 * 0.9 < needed < FLOATS * 4 * 1.5
