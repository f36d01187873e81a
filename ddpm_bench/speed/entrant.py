"""A contender at one kind of work: warmed up, its arithmetic counted, and timed as often as asked.

On a CPU it is in this process, one after the other. On a GPU each has a process of its own, so that all warm up side by side:
compilers and searches for algorithms take minutes there, of which the GPU itself is idle nearly all.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.flop_counter import FlopCounterMode

from ddpm_bench.runtime.device import set_up
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.timing import seconds_of, wait
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.machine import memory_of
from ddpm_bench.speed.result import Work
from ddpm_bench.speed.work import Call, Contender

WARM_UP = 2
POLL_S = 0.2


class Facts(NamedTuple):
    """flops: of a call. memory: bytes that it needs; None where the system does not tell. compile_seconds: None uncompiled."""

    flops: float
    memory: int | None
    compile_seconds: float | None


class Entrant(Protocol):
    contender: Contender

    def facts(self) -> Facts:
        """Known once it is warmed up, before it is timed. RuntimeError for what does not run here."""

    def seconds(self, calls: int) -> float:
        """A call takes so long, the mean over so many in a row."""

    def end(self) -> None:
        """Give back what it holds."""


def enter(work: Work, contender: Contender, case: Case) -> Entrant:
    return Elsewhere(work, contender, case) if case.device.type == "cuda" else Here(work, contender, case)


class Here:
    """In this process; it begins when its facts are asked for."""

    def __init__(self, work: Work, contender: Contender, case: Case) -> None:
        self.contender, self._work, self._case = contender, work, case
        self._folder = TemporaryDirectory()
        self._call: Call | None = None

    def facts(self) -> Facts:
        self._call, facts = warmed_up(self._work, self.contender, self._case, Path(self._folder.name))
        return facts

    def seconds(self, calls: int) -> float:
        assert self._call is not None, "warmed up before it is timed"
        return seconds_of(self._call, self._case.device, calls)

    def end(self) -> None:
        self._call = None
        self._folder.cleanup()


class Elsewhere:
    """In a process of its own, which begins at once, and is gone when it is ended or this process is."""

    def __init__(self, work: Work, contender: Contender, case: Case) -> None:
        self.contender = contender
        context = multiprocessing.get_context("spawn")
        self._pipe, its = context.Pipe()
        self._process = context.Process(target=_obey, args=(work, contender, case, its), daemon=True)
        self._process.start()
        its.close()

    def facts(self) -> Facts:
        told = self._answer()
        if isinstance(told, str):
            raise RuntimeError(told)
        return Facts(*told)

    def seconds(self, calls: int) -> float:
        self._order(calls)
        return float(self._answer())

    def work_for(self, seconds: float, threads: int) -> None:
        """Have it call, again and again, with so many threads; `rate` has what it came to."""
        self._order((seconds, threads))

    def rate(self) -> float:
        """Calls a second."""
        return float(self._answer())

    def end(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.join()

    def _order(self, order: int | tuple[float, int]) -> None:
        with suppress(OSError):  # it has died, which its answer will tell
            self._pipe.send(order)

    def _answer(self) -> Any:
        try:
            while not self._pipe.poll(POLL_S):
                check_stop()
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError("its process has died; what it said stands above") from error


def _obey(work: Work, contender: Contender, case: Case, parent: Connection) -> None:
    """In the process: tell the facts, or why there are none; then be timed as often as asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one
    set_up(case.device)
    with TemporaryDirectory() as folder, suppress(EOFError):  # the parent is gone
        try:
            call, facts = warmed_up(work, contender, case, Path(folder))
        except RuntimeError as error:
            parent.send(str(error))
            return
        parent.send(facts)
        while True:
            order = parent.recv()
            if isinstance(order, int):
                parent.send(seconds_of(call, case.device, order))
            else:
                seconds, threads = order
                torch.set_num_threads(threads)
                parent.send(_rate(call, case.device, seconds))


def _rate(call: Call, device: torch.device, seconds: float) -> float:
    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        call()
        calls += 1
    wait(device)
    return calls / (time.perf_counter() - began)


def warmed_up(work: Work, contender: Contender, case: Case, folder: Path) -> tuple[Call, Facts]:
    """The work to be timed, and its facts. A compiled network's arithmetic is counted of the same one uncompiled."""
    compiled = contender.way == "compiled"
    call: Callable[[], object] = (replace(contender, way=None) if compiled else contender).call(
        work, case, folder / "eager"
    )
    with FlopCounterMode(display=False) as counter:  # of the first call, since a GPU records the second one
        call()
    memory, compile_seconds = None if compiled else memory_of(call, case.device), None
    if compiled:
        call = contender.call(work, case, folder / "compiled")
        compile_seconds = seconds_of(call, case.device)  # the first call compiles
        memory = memory_of(call, case.device)
    for _ in range(WARM_UP):
        call()
    wait(case.device)
    return call, Facts(counter.get_total_flops(), memory, compile_seconds)
