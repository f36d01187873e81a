"""Several processes at one piece of work, a GPU each: rank 0 runs the command, and calls the others where there is much to do.

    joined()      the ranks that torchrun has started
    started(N)    N ranks, of which this process is the first and the others are started here: `--gpus N`

Rank 0 alone reads what was asked for, owns folders, decides, speaks and keeps records. `together` has every rank call one
function, and `mine` deals out blocks of images in it. `in_step` does so too, and there they wait for each other: `slice_of`,
`gathered`, `mean` and `data_parallel` share a training step. Where a process is alone, and outside of these two, everything
is its own and costs nothing: a loop is written once. How ranks talk is in `orders.py`, and nothing else knows
torch.distributed.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from multiprocessing import get_context, resource_tracker
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ddpm_bench.errors import UserError
from ddpm_bench.runtime import orders
from ddpm_bench.runtime.interrupt import Stop, blocked
from ddpm_bench.runtime.orders import TIMEOUT, Order, Orders, Seat

Made = TypeVar("Made")

AGREE_S = 1.0
"""Seconds between two agreements on whether to stop."""
ECHO_S = 1.0
"""Seconds in which torchrun passes a signal on."""
HOST = "127.0.0.1"

# ---- for loops --------------------------------------------------------------------------------------------------------


def size() -> int:
    """How many ranks there are."""
    return orders.present.seat.size if orders.present else 1


def rank() -> int:
    """Which one this is; 0 where it is alone."""
    return orders.present.seat.rank if orders.present else 0


def _shared() -> Orders | None:
    """The ranks, where all are at the same work."""
    return orders.present if orders.present and orders.present.at_work else None


def _in_step() -> Orders | None:
    """The ranks, where they wait for each other."""
    return ranks if (ranks := _shared()) and ranks.in_step else None


def together(work: Callable[..., Made], *arguments: Any) -> list[Made]:
    """What `work(*arguments)` gives on each rank, in order. The others have copies of the arguments, tensors on GPUs of their own.

    An error of any rank is raised here, Interrupted too, once all have ended. RankLost where one is gone: then the command is
    over.
    """
    return _led_by(work, arguments, in_step=False)


def in_step(work: Callable[..., Made], *arguments: Any) -> list[Made]:
    """As `together`, but the ranks wait for each other, and so one that fails ends the command: RankLost."""
    return _led_by(work, arguments, in_step=True)


def _led_by(work: Callable[..., Made], arguments: Sequence[Any], in_step: bool) -> list[Made]:
    if orders.present is None:
        return [work(*arguments)]
    return orders.present.lead(Order(work, arguments, torch.get_num_threads(), in_step))


def mine(items: Iterable[Made]) -> Iterator[Made]:
    """Every N-th of the items, this rank's."""
    return islice(items, rank(), None, size()) if _shared() else iter(items)


def check_seen(files: Iterable[Path]) -> None:
    """UserError where this process does not see a file that a rank has written."""
    for path in files:
        if not path.exists():
            raise UserError(
                f"'{path}' was written by one of {size()} ranks, and is not seen by another. Give a folder on a file system that "
                "all their machines share."
            )


def batch_for(count: int, most: int) -> int:
    """Images a network call, `most` at most, with which every rank has something to do of `count`."""
    return max(1, min(most, -(-count // size()))) if size() > 1 else most


def slice_of(batch: Tensor) -> Tensor:
    """This rank's rows of what all ranks have: (B, ...) -> (B / N, ...)."""
    return batch.chunk(size())[rank()] if _in_step() else batch


def gathered(part: Tensor) -> Tensor:
    """All ranks' rows, in their order: (B / N, ...) -> (B, ...)."""
    if not _in_step():
        return part
    parts = [torch.empty_like(part) for _ in range(size())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


def mean(value: Tensor) -> Tensor:
    """The mean over the ranks, of the same shape."""
    if not _in_step():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / size()


@contextlib.contextmanager
def data_parallel(network: nn.Module) -> Iterator[nn.Module]:
    """The network to call in training: once `backward` has returned, gradients are their means over the ranks."""
    if not _in_step():
        yield network
        return
    parallel = DistributedDataParallel(network, gradient_as_bucket_view=True)
    try:
        yield parallel
    finally:
        parallel._remove_autograd_hooks()  # which would share on until it is collected
        network.zero_grad()  # gradients lie in its memory


class Agreement:
    """A wish of rank 0 that all ranks hear of after the same call. About once a second hosts wait for each other, and never for
    a device."""

    def __init__(self) -> None:
        self._calls, self._wait, self._looked = 0, 1, time.monotonic()

    def __call__(self, wish: bool) -> bool:
        if not (ranks := _in_step()):
            return wish
        self._calls += 1
        if self._calls < self._wait:
            return False
        now = time.monotonic()
        calls = round(self._calls * AGREE_S / max(now - self._looked, 1e-3))
        told = torch.tensor([int(wish), max(1, min(calls, 2 * self._wait))])
        dist.broadcast(told, 0)
        (agreed, self._wait), self._calls, self._looked = told.tolist(), 0, now
        ranks.agreed = bool(agreed)
        return ranks.agreed


# ---- how they come together -------------------------------------------------------------------------------------------


def check_device(device: torch.device) -> None:
    """UserError where ranks cannot each have such a device of their own."""
    here = orders.present.seat.here if orders.present else 1
    if here > 1 and device.type == "mps":
        raise UserError(f"{here} ranks do not go with --device mps, of which a machine has one. Use --device cpu.")
    if device.type == "cuda" and here > (there := torch.cuda.device_count()):
        raise UserError(
            f"{here} ranks on this machine need a GPU each, and torch finds {there}. Use --nproc-per-node {there}, or "
            "--device cpu."
        )


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """The block with the ranks that torchrun has started, on rank 0; any other takes part in it, and ends its process."""
    local, here = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    store, number, ranks = next(iter(dist.rendezvous("env://")))
    seat = Seat(number, ranks, local, here)
    if number:
        orders.follow(seat, store)
    Stop.echo_s = ECHO_S
    with _led(orders.begin(seat, store)):
        yield


@contextlib.contextmanager
def started(ranks: int) -> Iterator[None]:
    """The block with so many ranks on this machine: this process is rank 0, and the others end with it, however it ends."""
    if orders.present:
        raise UserError(f"{ranks} ranks cannot be started by one of {size()}: leave out --gpus, or torchrun.")
    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
    seats = [Seat(number, ranks, number, ranks) for number in range(ranks)]
    context = get_context("spawn")  # torch's threads do not survive a fork
    others = [context.Process(target=_begin, args=(store.port, seat), daemon=True) for seat in seats[1:]]
    resource_tracker.ensure_running()  # now, since its own start would let the signals through
    try:
        with blocked():
            for process in others:
                process.start()
        with _led(orders.begin(seats[0], store, others)):
            yield
    finally:
        for process in others:
            process.kill()


def _begin(port: int, seat: Seat) -> None:
    """A process that `started` began."""
    store = dist.TCPStore(HOST, port, is_master=False, timeout=TIMEOUT)
    orders.follow(seat, store)


@contextlib.contextmanager
def _led(ranks: Orders) -> Iterator[None]:
    done = threading.Event()
    watching = threading.Thread(target=ranks.watch, args=(done,), daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join(orders.SOON_S)  # it asks torch, which must not be taken apart meanwhile
        orders.end()
