"""How many images a network call takes, outside training: as many as pay, and as the memory that is free holds.

The first guess is `default_batch`. Where it was too much, `Halving` is the rule for every loop that samples or scores. Training
has none: its batch is part of the experiment.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import torch

from ddpm_bench.errors import OutOfMemory
from ddpm_bench.runtime.observer import say

Made = TypeVar("Made")


class Rows(Protocol):
    """A row an image, as of a tensor."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> Any: ...


MOST = {"cpu": 128, "cuda": 512}
"""Images a call of the U-Net beyond which none gets faster."""
BYTES_A_PIXEL = 24 * 1024
"""What the paper's network needs to score or sample an image, by its pixels: 24 MiB for one of 32x32, generously."""

SAID = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")
"""Words of the RuntimeErrors by which the CPU's allocator, MPS, cuBLAS and C++ say that memory ran out."""


def default_batch(device: torch.device, side: int) -> int:
    """Images of `side` pixels a call of the U-Net. A power of two."""
    pixels = max(side, 32) ** 2
    if device.type == "cuda":
        return fitting(device, BYTES_A_PIXEL * pixels, MOST["cuda"])
    return _power_of_two(MOST["cpu"] * 32**2 // pixels)


def fitting(device: torch.device, image_bytes: int, most: int) -> int:
    """Images that half of a GPU's free memory holds at `image_bytes` each, `most` at most. A power of two."""
    free, _ = torch.cuda.mem_get_info(device)
    return _power_of_two(min(free // 2 // image_bytes, most))


def _power_of_two(number: int) -> int:
    """The largest that is not above `number`, and at least 1."""
    return 1 << max(number, 1).bit_length() - 1


class Halving:
    """Calls a network with all images that it is given, until memory runs out; from then on with half as many, down to 1.

    The same images are done again, so nothing is lost and no noise is drawn anew: what comes out differs by rounding at most.
    As a field of a dataclass it is carried along by `replace`, so that what memory holds stays known.
    """

    def __init__(self) -> None:
        self._most: int | None = None

    def parts(self, network: Callable[..., Made], *inputs: Rows) -> Iterator[Made]:
        """`network(*inputs)`, (B, ...) each, in order and in as many calls as memory asks for; each halving is said.

        Raises OutOfMemory where a single image does not fit.
        """
        count, start = len(inputs[0]), 0
        while start < count:
            end = count if self._most is None else min(start + self._most, count)
            try:
                made = network(*(each[start:end] for each in inputs))
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                if end - start == 1:
                    raise OutOfMemory(
                        "a network call ran out of memory with a single image. Free some memory, or use a smaller network "
                        "or smaller images; what is finished is kept."
                    ) from error
            else:
                yield made
                start = end
                continue
            # Here the error is gone, and with it the frames that held what the call had made.
            self._halve(end - start)

    def _halve(self, size: int) -> None:
        self._most = size // 2
        say(f"out of memory with {size} images a call; going on with {self._most}")
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


@contextlib.contextmanager
def training_batch(
    batch: int, name: str = "training.batch", remedy: str = "--set training.batch=N, which is another experiment"
) -> Iterator[None]:
    """Where the block, training with so many images a step, runs out of memory: OutOfMemory, which names the setting."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"training ran out of memory with {name} = {batch}. The batch is part of the experiment and is never changed "
            f"in silence: free some memory, or choose a smaller one with {remedy}."
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in SAID)
