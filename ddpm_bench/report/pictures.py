"""The pictures beside the records. A bad one costs its own place and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ddpm_bench.files import replacing
from ddpm_bench.records.pictures import picture_fault
from ddpm_bench.records.record import Record
from ddpm_bench.report.summary import MeasuredCell
from ddpm_bench.runtime.observer import say

GAP = 1
"""Pixels between the images of a picture before enlargement, as `ddpm_bench.data.pictures` leaves them."""
GRID_SIDE, LABELLED_SIDE = 32, 48
"""Pixels that images in a picture are enlarged to at least: in one without, and in one with headings."""


@dataclass(frozen=True)
class Picture:
    """A cell's samples: `path` of the copy and whose it is, or None with the reason why there is none."""

    path: Path | None
    caption: str


@dataclass
class PictureFolder:
    """The folder of the records, with the pictures beside them. A bad one is said once."""

    folder: Path
    _faults: dict[str, str | None] = field(default_factory=dict)

    def fault(self, name: str) -> str | None:
        """What is wrong with a picture, or None."""
        if name not in self._faults:
            self._faults[name] = self._check(name)
            if self._faults[name]:
                say(f"Report: the picture {name} is {self._faults[name]}; measure the cell again to have it.")
        return self._faults[name]

    def tiles(self, name: str, shape: tuple[int, int, int], side: int) -> np.ndarray | None:
        """The images of a picture, uint8 (rows, columns, H, W, C), as they were before enlargement; None of a bad one.

        shape: (C, H, W) of an image. side: GRID_SIDE or LABELLED_SIDE. Headings stand above and to the left.
        """
        if self.fault(name):
            return None
        channels, height, width = shape
        factor = -(-side // height)
        with Image.open(self.folder / name) as picture:
            size = (picture.height, picture.width)
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB")).reshape(*size, channels)
        # The grid fills the picture's lower right, and headings take less than an image.
        rows, columns = ((have // factor - GAP) // (one + GAP) for have, one in zip(size, (height, width), strict=True))
        if not rows or not columns:
            self._say_too_small(name, shape)
            return None
        top, left = (count * (one + GAP) + GAP for count, one in ((rows, height), (columns, width)))
        pixels = pixels[-factor * top :: factor, -factor * left :: factor]
        tiles = pixels[GAP:, GAP:].reshape(rows, height + GAP, columns, width + GAP, channels).swapaxes(1, 2)
        return tiles[:, :, :height, :width]

    def about(self, name: str) -> str:
        """What a picture that can be read says of itself, as `pictures.write_labelled_grid` wrote it, or nothing."""
        with Image.open(self.folder / name) as picture:
            return str(picture.info.get("Description", ""))

    def _say_too_small(self, name: str, shape: tuple[int, int, int]) -> None:
        self._faults[name] = f"too small for images of {shape[1]}x{shape[2]}"
        say(f"Report: the picture {name} is {self._faults[name]}; measure the cell again to have it.")

    def _check(self, name: str) -> str | None:
        if fault := picture_fault(self.folder, name):
            return fault
        try:
            with Image.open(self.folder / name, formats=["PNG"]) as image:
                image.load()
        except UnidentifiedImageError:
            return "not a PNG"
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return f"broken ({error})"
        return None


def runs_of(row: MeasuredCell) -> tuple[Record, ...]:
    """The runs of a cell; one that diverged is shown only when no other is left."""
    return (*row.done, *row.diverged)


def copy_pictures(rows: Sequence[MeasuredCell], pictures: PictureFolder, folder: Path) -> dict[str, Picture]:
    """For each measured cell, the samples of its first seed with a good picture, as folder/<cell>.png."""
    return {row.cell.name: _copy(row, pictures, folder) for row in rows if runs_of(row)}


def _copy(row: MeasuredCell, pictures: PictureFolder, folder: Path) -> Picture:
    faults = []
    for record in runs_of(row):
        if record.sample_grid is None:
            continue
        if fault := pictures.fault(record.sample_grid):
            faults.append(f"{record.sample_grid} is {fault}")
            continue
        target = folder / f"{row.cell.name}.png"
        with replacing(target) as temporary:
            temporary.write_bytes((pictures.folder / record.sample_grid).read_bytes())
        return Picture(target, f"seed {record.seed}" + (", diverged" if record.outcome == "diverged" else ""))
    return Picture(None, "; ".join(faults) or ("diverged before sampling" if row.diverged else "none was kept"))
