"""What every source hands over: both splits at their own size, not yet fitted to the model's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ddpm_bench.data.images import Split
from ddpm_bench.errors import UserError


@dataclass(frozen=True)
class Loaded:
    """A data set as its source has it; `classes[label]` are the names of the classes, () where unknown."""

    train: Split
    test: Split
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unread:
    """A data set of more images than memory should hold, none of them read: the files of both splits, all (C, H, W).

    labels: of each split, int64 (N,), where known.
    """

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    shape: tuple[int, int, int]
    labels: tuple[Tensor | None, Tensor | None]
    classes: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.train + self.test


@dataclass(frozen=True)
class Source:
    """A place that images come from. `form` is how the user writes it: a word, or `word:PATH`.

    `load(path, root)` gets that PATH (a source without one ignores it) and the folder for downloads.
    `name(path)` is the label that results carry unless the user gives another.
    """

    form: str
    load: Callable[[Path, Path], Loaded | Unread]
    name: Callable[[Path], str]

    @property
    def takes_path(self) -> bool:
        return self.form.endswith(":PATH")


def check_alike(train: tuple[int, ...], test: tuple[int, ...], where: str) -> None:
    """Refuse splits whose images differ in channels or size, (C, H, W): UserError naming `where`."""
    if train != test:
        raise UserError(
            f"The splits of {where} differ: training images are {describe(train)}, test images {describe(test)}. "
            "Convert them to one size and mode."
        )


def describe(shape: tuple[int, ...]) -> str:
    """(C, H, W) in words: 'colour 32x32'."""
    channels, height, width = shape
    return f"{'grey' if channels == 1 else 'colour'} {width}x{height}"
