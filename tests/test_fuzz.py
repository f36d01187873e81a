"""Whatever is brought is read, or refused in words: no traceback, no endless wait, no memory beyond what files hold.

FUZZ_INPUTS says how many inputs there are in all; unset there are a few hundred, the same in every run. `nox -s fuzz` has 10,000.
"""

import os
import resource
import shutil
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from types import FrameType

import pytest
import torch
from fuzz_targets import TARGETS, Target
from fuzzing import made, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddpm_bench.errors import UserError

FEW = 340
INPUTS = int(os.environ.get("FUZZ_INPUTS", FEW))
SHARES = sum(target.share for target in TARGETS)
SECONDS = 8.0
"""Of one input; most take milliseconds, and the machine may have other work."""
MEMORY = 2**30
"""Bytes of one input; what is valid here takes a hundredth of it."""


class Endless(BaseException):
    """Reading did not end; a BaseException, since no reader may take it for damage."""


def ring(number: int, frame: FrameType | None) -> None:
    raise Endless


@contextmanager
def limits() -> Iterator[None]:
    """A reader that waits or takes memory without end fails, and the machine does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (held + 4 * MEMORY, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def peak() -> int:
    """The most bytes that this process has held in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits are set as Linux has them")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_is_brought_is_read_or_refused_in_words(target: Target, tmp_path: Path) -> None:
    torch.manual_seed(0)
    valid, seen, longest = made(tmp_path / "valid", target.make), Counter[str](), 0.0
    write(tmp_path / "input", valid)
    target.read(tmp_path / "input")
    before = peak()

    @settings(
        max_examples=max(1, round(INPUTS * target.share / SHARES)), deadline=timedelta(seconds=SECONDS), database=None,
        derandomize=INPUTS == FEW, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.randoms(use_true_random=True))
    def check(random: Random) -> None:
        nonlocal longest
        folder = tmp_path / "input"
        shutil.rmtree(folder, ignore_errors=True)
        write(folder, target.change(random, valid))
        began = time.monotonic()
        try:
            with limits():
                target.read(folder)
            seen["read"] += 1
        except UserError as error:
            assert str(error)
            seen["refused"] += 1
        longest = max(longest, time.monotonic() - began)
        assert peak() - before < MEMORY

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check()
    print(
        f"{target.name}: {seen.total():,} inputs, {seen['read']:,} read, {seen['refused']:,} refused, "
        f"at most {longest:.2f} s and {(peak() - before) / 2**20:.0f} MiB"
    )
