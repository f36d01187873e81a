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
"""Of tensors with as many rows each, and returns tensors. They depend on nothing else that changes, but for what is written in
place, as weights are, and torch's global generator. It never waits for the device."""

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
    where that of the one before lay, unless `copies` of it are wanted, which only work that returns one tensor has, a row for a
    row of its arguments. Fewer rows than such work was recorded with, as a last batch has, are filled up to them: to search,
    compile and record for their number takes longer. Anywhere else than on a GPU, and where recording fails, which is said,
    every call is made as it is. A copy, as for another process, has recorded nothing yet.
    """

    def __init__(self, work: Work, copies: bool = False) -> None:
        self._work, self._copies = work, copies
        self._replays: dict[Hashable, dict[int, Work | None]] = {}  # by the rows of their arguments; None: called once

    def __call__(self, *arguments: Argument) -> Any:
        if not _records or not all(map(_on_a_gpu, _tensors(arguments))):
            return self._work(*arguments)
        (given,) = {len(tensor) for tensor in _tensors(arguments)}
        replays = self._replays.setdefault(self._kind(arguments), {})
        rows = _filled_up(given, replays) if self._copies else given
        if rows not in replays:
            replays[rows] = None
            return self._work(*arguments)
        if (replay := replays[rows]) is None:
            replay = replays[rows] = self._recorded(arguments)
        made = replay(*arguments)
        return made[:given].clone() if self._copies else made

    def __reduce__(self) -> tuple[type["Recorded"], tuple[Work, bool]]:
        return Recorded, (self._work, self._copies)

    def _kind(self, arguments: tuple[Argument, ...]) -> Hashable:
        """All that a recording depends on but the number of rows."""
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


def _filled_up(given: int, replays: dict[int, Work | None]) -> int:
    """The rows of the shortest recording that holds so many; where there is none, no more."""
    return min(
        (rows for rows, replay in replays.items() if rows >= given and isinstance(replay, _Recording)), default=given
    )


class _Recording:
    """One call, with memory of its own for its arguments."""

    def __init__(self, work: Work, arguments: tuple[Argument, ...]) -> None:
        self._held = tuple(_copied(argument) for argument in arguments)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._made = work(*self._held)

    def __call__(self, *arguments: Argument) -> Any:
        for held, given in zip(_tensors(self._held), _tensors(arguments), strict=True):
            held[: len(given)].copy_(given)
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
    return argument if argument is None else (argument.shape[1:], argument.dtype)


def _copied(argument: Argument) -> Argument:
    if isinstance(argument, Condition):
        return argument.each(Tensor.clone)
    return argument if argument is None else argument.clone()
