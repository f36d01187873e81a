"""What a GPU does again and again is recorded once and replayed, so that all its kernels are launched at once (CUDA graphs).

A host launches kernels one by one, a few microseconds each. A small network has computed each before the next is there, and
waits; replayed, it does not. The kernels are the same, and so are the numbers.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ddpm_bench.networks.condition import Condition
from ddpm_bench.runtime.observer import say_once
from ddpm_bench.text import brief

Argument = Tensor | Condition | None
Work = Callable[..., Any]
"""Of tensors, and returns tensors. They depend on nothing else that changes, but for what is written in place, as weights are,
and torch's global generator. It never waits for the device."""

_records = True


@contextmanager
def launched_one_by_one() -> Iterator[None]:
    """Nothing is recorded or replayed while the block runs: to measure what that brings."""
    global _records
    before, _records = _records, False
    try:
        yield
    finally:
        _records = before


class Recorded:
    """`work`, of which a GPU records the second call with arguments of the same shapes and replays it from the third on.

    The first call is made as it is: then algorithms are searched for, tables moved, networks compiled. What a replay returns lies
    where that of the one before lay, unless `copies` of it are wanted, which only work that returns one tensor has. Anywhere
    else than on a GPU, and where recording fails, which is said, every call is made as it is. A copy, as for another process,
    has recorded nothing yet.
    """

    def __init__(self, work: Work, copies: bool = False) -> None:
        self._work, self._copies = work, copies
        self._replays: dict[Hashable, Work | None] = {}  # None: called once

    def __call__(self, *arguments: Argument) -> Any:
        if not _records or not all(map(_on_a_gpu, _tensors(arguments))):
            return self._work(*arguments)
        key = self._key(arguments)
        if key not in self._replays:
            self._replays[key] = None
            return self._work(*arguments)
        if (replay := self._replays[key]) is None:
            replay = self._replays[key] = self._recorded(arguments)
        made = replay(*arguments)
        return made.clone() if self._copies else made

    def __reduce__(self) -> tuple[type["Recorded"], tuple[Work, bool]]:
        return Recorded, (self._work, self._copies)

    def _key(self, arguments: tuple[Argument, ...]) -> Hashable:
        told = tuple(_shapes(argument) for argument in arguments)
        mode = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), getattr(self._work, "training", None)
        return told, mode

    def _recorded(self, arguments: tuple[Argument, ...]) -> Work:
        stream = torch.cuda.current_stream()
        try:
            return _Recording(self._work, arguments)
        except RuntimeError as error:
            torch.cuda.set_stream(stream)  # a recording that fails leaves its own
            why = brief(" ".join(str(error).split()))
            say_once(
                f"A call could not be recorded on the GPU and is launched kernel by kernel, which is slower ({why})."
            )
            return self._work


class _Recording:
    """One call, with memory of its own for its arguments."""

    def __init__(self, work: Work, arguments: tuple[Argument, ...]) -> None:
        self._held = tuple(_copied(argument) for argument in arguments)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._made = work(*self._held)

    def __call__(self, *arguments: Argument) -> Any:
        for held, given in zip(_tensors(self._held), _tensors(arguments), strict=True):
            held.copy_(given)
        self._graph.replay()
        return self._made


def _on_a_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda


def _tensors(arguments: tuple[Argument, ...]) -> Iterator[Tensor]:
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif argument is not None:
            yield from argument.told.values()


def _shapes(argument: Argument) -> Hashable:
    if isinstance(argument, Condition):
        return tuple((name, _shapes(told)) for name, told in argument.told.items())
    return argument if argument is None else (argument.shape, argument.dtype)


def _copied(argument: Argument) -> Argument:
    if isinstance(argument, Condition):
        return argument.each(Tensor.clone)
    return argument if argument is None else argument.clone()
