"""How rank 0 has the other ranks do something, hears what it came to, and notices that one is gone.

Orders, outcomes, failures and the wish to stop go through the store at which ranks meet, and what belongs to them through
gloo. An order is a function and its arguments; the others do one after the other, with copies.
"""

import contextlib
import io
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from ddpm_bench.errors import Interrupted, RankLost, UserError
from ddpm_bench.runtime.device import set_up
from ddpm_bench.runtime.interrupt import Stop, check_stop, stop_requested
from ddpm_bench.runtime.observer import noting, say

Outcome = tuple[Any, Exception | None]
"""What a function gave, or raised."""

TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others in the middle of work, before it takes them to be lost."""
LOOK_S, SOON_S = 0.01, 5.0
"""Seconds between two looks for an order or an outcome; and for rank 0 to notice by itself that another was lost."""
BETWEEN = ("gloo", "NCCL")
"""What carries tensors between ranks, as errors of torch name it."""
FAILED = "failed"
"""The key under which a rank says why it ends."""


class Seat(NamedTuple):
    """A rank of `size`, `here` of which are on this machine, where this one is number `local`."""

    rank: int
    size: int
    local: int
    here: int


class Order(NamedTuple):
    """A function, its arguments, the threads that rank 0 has, and whether the ranks wait for each other meanwhile."""

    work: Callable[..., Any]
    arguments: Sequence[Any]
    threads: int
    in_step: bool


class Orders:
    """This process among the ranks.

    at_work: an order is being done. in_step: one in which they wait for each other, so that one that fails leaves the others
    waiting. agreed: all of them have agreed to stop. others: those that this process has started.
    """

    def __init__(self, seat: Seat, store: dist.Store, others: Sequence[BaseProcess] = ()) -> None:
        self.seat, self.store, self.others = seat, store, others
        self.at_work = self.in_step = self.agreed = False
        self._number, self._lost = 0, ""
        self._open = False  # rank 0 waits for outcomes
        self._one_at_a_time = threading.Lock()
        backend = "gloo"
        if torch.cuda.is_available() and seat.here <= torch.cuda.device_count():
            torch.cuda.set_device(seat.local)
            set_up(torch.device("cuda"))
            backend = "cpu:gloo,cuda:nccl"
        store.set(f"ready-{seat.rank}", "")
        for other in self._other_ranks() if seat.rank == 0 else ():
            self._wait(f"ready-{other}")
        dist.init_process_group(
            backend, store=dist.PrefixStore("tensors", store), rank=seat.rank, world_size=seat.size, timeout=TIMEOUT
        )

    def _other_ranks(self) -> range:
        return range(1, self.seat.size)

    def _do(self, order: Order) -> Outcome:
        self.at_work, self.in_step, self.agreed = True, order.in_step, False
        try:
            return order.work(*order.arguments), None
        except Exception as error:
            return None, error
        finally:
            self.at_work = False

    # ---- rank 0 -----------------------------------------------------------------------------------------------------

    def lead(self, order: Order) -> list[Any]:
        """What it gives on each rank. See `ranks.together`."""
        if self.at_work:
            raise RuntimeError("the ranks are at work already")
        check_stop()
        self._check_others()
        self._open = True
        self._give(order)
        own, error = self._do(order)
        if error:
            if self.in_step and not self.agreed:
                self._give_up(error)
                raise error
            self._pass_on_stop()
        told = [(own, error), *map(self._outcome, self._other_ranks())]
        self._open = False
        # Whoever was stopped, was so since another failed, or since the user wants it.
        for each in sorted((error for _, error in told if error), key=lambda error: isinstance(error, Interrupted)):
            raise each
        return [made for made, _ in told]

    def leave(self) -> None:
        """Have the others end: by an order where they wait for one; else those that this process has started are killed."""
        idle = not (self._open or self._lost)
        if idle:
            with contextlib.suppress(RuntimeError):  # torchrun was asked to end them, and they have
                self._give(None)
        for process in self.others:
            process.join(SOON_S if idle else 0)
            process.kill()
            process.join()
        if idle:
            dist.destroy_process_group()

    def watch(self, done: threading.Event) -> None:
        """End this process where it waits for a rank that is gone and does not notice, as on a GPU."""
        while not done.wait(SOON_S / 10):
            if not (self.at_work and (why := self._failure())):
                continue
            number, until = self._number, time.monotonic() + SOON_S
            while self.at_work and number == self._number:
                if time.monotonic() > until:
                    sys.stderr.write(f"ddpm-bench: {RankLost(why)}\n")
                    os._exit(1)
                time.sleep(LOOK_S)

    def _give(self, order: Order | None) -> None:
        """None: there are no more."""
        self._number += 1
        self.store.set(f"order-{self._number}", "")
        content = _packed(order)
        dist.broadcast(torch.tensor(len(content)), 0)
        dist.broadcast(content, 0)

    def _outcome(self, rank: int) -> Outcome:
        """What it came to there, once it has; what was said there is said here."""
        self._wait(f"done-{self._number}-{rank}")
        made, error, notes = _received(lambda into: dist.recv(into, rank))
        for note in notes:
            say(f"rank {rank}: {note}")
        return made, error

    def _wait(self, key: str) -> None:
        """Until another rank has set it."""
        while not self.store.check([key]):
            if stop_requested():
                self._pass_on_stop()
            self._check_others()
            time.sleep(LOOK_S)

    def _pass_on_stop(self) -> None:
        self.store.set(f"stop-{self._number}", "")

    def _check_others(self) -> None:
        self._lost = self._lost or self._failure()
        if self._lost:
            raise RankLost(self._lost)

    def _failure(self) -> str:
        """Why a rank has ended; empty where none has."""
        if self.store.check([FAILED]):
            return self.store.get(FAILED).decode()
        codes = {rank: process.exitcode for rank, process in enumerate(self.others, 1)}
        return next(
            (f"rank {rank} ended with exit code {code}" for rank, code in codes.items() if code is not None), ""
        )

    def _give_up(self, error: Exception) -> None:
        """The error leaves the others waiting: they are lost. RankLost where it comes of one that was lost before."""
        disconnected = isinstance(error, RuntimeError) and any(name in str(error) for name in BETWEEN)
        until = time.monotonic() + (SOON_S if disconnected else 0)
        while not (why := self._failure()) and time.monotonic() < until:
            time.sleep(LOOK_S)
        if not why and disconnected:
            why = f"a rank is gone ({str(error).partition('. ')[0]})"
        self._lost = why or f"rank 0 failed: {error}"
        if why:
            raise RankLost(why) from error

    # ---- the other ranks --------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Do as told until rank 0 says that it is over, or something else ends this process while there is nothing to do."""
        terminated = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: terminated.set())
        with Stop(()) as stop:
            threading.Thread(target=self._listen, args=(stop,), daemon=True).start()
            while not terminated.is_set():
                if not self.store.check([f"order-{self._number + 1}"]):
                    time.sleep(LOOK_S)
                    continue
                with self._one_at_a_time:
                    self._number += 1
                    stop.requested = False
                order: Order | None = _received(lambda into: dist.broadcast(into, 0))
                if order is None:
                    return
                torch.set_num_threads(order.threads)
                with noting() as notes:
                    made, error = self._do(order)
                if error and self.in_step and not self.agreed:
                    raise error
                self._tell(made, error and self._portable(error), notes)

    def _tell(self, made: Any, error: Exception | None, notes: Sequence[str]) -> None:
        content = _packed((made, error, notes))
        self.store.set(f"done-{self._number}-{self.seat.rank}", "")
        dist.send(torch.tensor(len(content)), 0)
        dist.send(content, 0)

    def _portable(self, error: Exception) -> Exception:
        """It, or of one that may not survive pickling what it says."""
        if isinstance(error, (UserError, Interrupted, OSError, MemoryError)):
            return error
        return RuntimeError(f"rank {self.seat.rank}: {''.join(traceback.format_exception(error))}")

    def _listen(self, stop: Stop) -> None:
        """Hear of a wish to stop; end with the store, which is gone when rank 0 or torchrun is."""
        try:
            while True:
                number = self._number
                if self.store.check([f"stop-{number}"]):
                    with self._one_at_a_time:
                        stop.requested = number == self._number  # else it was of the order before
                time.sleep(10 * LOOK_S)
        except RuntimeError:
            os._exit(1)


present: Orders | None = None
"""This process as a rank, where there are several."""


def begin(seat: Seat, store: dist.Store, others: Sequence[BaseProcess] = ()) -> Orders:
    """Be a rank from now on."""
    global present
    present = Orders(seat, store, others)
    return present


def end() -> None:
    """Rank 0 needs the others no more."""
    global present
    leaving, present = present, None
    if leaving:
        leaving.leave()


def follow(seat: Seat, store: dist.Store) -> NoReturn:
    """Be any other rank, and end the process: all is written, and Python would take torch apart first, which lasts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 answers it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        begin(seat, store).follow()
        os._exit(0)
    except BaseException as error:
        with contextlib.suppress(RuntimeError):  # rank 0 is gone, too
            if not store.check([FAILED]):
                store.set(FAILED, f"rank {seat.rank} failed: {type(error).__name__}: {error}")
        os._exit(1)


# ---- what is sent -----------------------------------------------------------------------------------------------------


def _packed(held: Any) -> Tensor:
    """As bytes, uint8 (n,). What is referred to twice is one thing again when it is unpacked."""
    buffer = io.BytesIO()
    torch.save(held, buffer)
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)


def _received(fill: Callable[[Tensor], object]) -> Any:
    """What another rank has packed and sends, its length first; a GPU's tensors come to one's own."""
    fill(size := torch.tensor(0))
    fill(content := torch.empty(int(size), dtype=torch.uint8))
    own = {"cuda:0": f"cuda:{torch.cuda.current_device()}"} if torch.cuda.is_available() else None  # 0: rank 0's
    return torch.load(io.BytesIO(content.numpy().data), map_location=own, weights_only=False)
