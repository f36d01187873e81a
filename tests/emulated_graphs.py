"""CUDA graphs without CUDA: what is computed while one is recorded is computed again, in the same memory, when it is replayed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpm_bench.runtime import recorded


class Graph(TorchDispatchMode):
    """As torch.cuda.CUDAGraph, but that recording computes, too. `replays` counts those of all graphs."""

    replays = 0

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, made))
        return made

    @torch.no_grad()
    def replay(self) -> None:
        Graph.replays += 1
        for func, args, kwargs, made in self.calls:
            for there, now in zip(tree_leaves(made), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(there, Tensor) and there is not now:
                    there.copy_(now)


@contextmanager
def recording(graph: Graph) -> Iterator[None]:
    with torch.random.fork_rng([]), graph:  # a recording draws nothing
        yield


@pytest.fixture
def graphs(monkeypatch) -> type[Graph]:
    """Every tensor is taken for one on a GPU, and graphs are emulated."""
    monkeypatch.setattr(Graph, "replays", 0)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    monkeypatch.setattr(recorded, "_on_a_gpu", lambda tensor: True)
    return Graph
