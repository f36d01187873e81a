"""A process of its own that measures jobs one after the other, and what its parent holds of it.

Two pipes join them, one a direction; no lock and no queue is shared, so that a worker that dies takes nothing with it. The
parent sends jobs, and None for "save and stop". A worker ignores signals: Ctrl-C reaches the whole group, and what is then done
is the parent's to say. Once the parent is gone, however it went, the worker ends at once: whatever it writes is whole or not there.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import torch

from ddpm_bench.experiment.job import Bench, Job
from ddpm_bench.experiment.launchers.launcher import measure_job, outcome
from ddpm_bench.experiment.launchers.wire import Wire, told_by
from ddpm_bench.runtime.device import set_up
from ddpm_bench.runtime.interrupt import Stop, blocked

SIGNALS = {signal.SIGINT, signal.SIGTERM}
VISIBLE = "CUDA_VISIBLE_DEVICES"


# ---- in the parent --------------------------------------------------------------------------------------------------


class Worker:
    """A process that has begun `job`. `news` is what it tells, as `wire.py` says; it ends when the process does.

    device: the one GPU that it sees, as CUDA_VISIBLE_DEVICES names it; None: those that its parent sees.
    """

    def __init__(self, job: Job, bench: Bench, threads: int, every: float, device: str | None = None) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        orders, self._orders = context.Pipe(duplex=False)
        self.news, news = context.Pipe(duplex=False)
        self.job: Job | None = None
        self.ready, self.device = False, device
        self._process = context.Process(target=_work, args=(bench, threads, every, orders, news))
        resource_tracker.ensure_running()  # now, since its own start would let the signals through
        with blocked(), _seeing(device):  # a worker begins so too, and ignores signals before it lets them through
            self._process.start()
        orders.close()
        news.close()
        self.take(job)

    def take(self, job: Job) -> None:
        self.job = job
        self._send(job)

    def stop(self) -> None:
        """Have it save, and end; at once where it has not begun."""
        if (
            self.ready or self.news.poll()
        ):  # the first that it tells is that it is ready, and may not have been heard yet
            self._send(None)
        else:
            self.kill()

    def _send(self, order: Job | None) -> None:
        with contextlib.suppress(OSError):  # it has died, which its news will tell
            self._orders.send(order)

    def kill(self) -> None:
        """End it at once: whatever it writes is whole or not there."""
        self._process.kill()
        self._process.join()

    def death(self) -> str:
        """What is known of how it ended in the middle of a job, once its news has."""
        self._process.join()
        code = self._process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}; what it said stands above"
        if code == -signal.SIGKILL:
            how += ", as the system does for want of memory"
        if not self.ready:
            return f"its process could not begin: it ended {how}"
        return f"its process died: it ended {how}. The same command goes on from its last snapshot"


@contextlib.contextmanager
def _seeing(device: str | None) -> Iterator[None]:
    """Processes that begin in the block see this GPU alone, from their first moment on, whoever asks CUDA first."""
    before = os.environ.get(VISIBLE)
    if device is not None:
        os.environ[VISIBLE] = device
    try:
        yield
    finally:
        os.environ.pop(VISIBLE, None)
        if before is not None:
            os.environ[VISIBLE] = before


# ---- in the worker --------------------------------------------------------------------------------------------------


def _work(bench: Bench, threads: int, every: float, orders: Connection, news: Connection) -> None:
    """Measures what is ordered, and tells it all."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    def carry(what: str, values: tuple[Any, ...]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent is gone: there is nobody to tell
            news.send((what, values))

    wire = Wire(carry, every)
    with Stop(()) as stop, told_by(wire):
        threading.Thread(target=_listen, args=(orders, jobs, stop), daemon=True).start()
        torch.set_num_threads(threads)
        set_up(bench.runtime.device)
        wire.send("ready")
        while (job := jobs.get()) is not None:
            wire.send(*outcome(partial(measure_job, job, bench)))
    os._exit(0)  # all is written; Python would take torch apart first, which lasts


def _listen(orders: Connection, jobs: "queue.SimpleQueue[Job | None]", stop: Stop) -> None:
    """Take orders until the parent is gone; whatever ends this ends the process."""
    try:
        while True:
            order = orders.recv()
            stop.requested = stop.requested or order is None
            jobs.put(order)
    except EOFError:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
