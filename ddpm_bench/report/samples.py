"""The sample pictures beside the records, copied into the report. A bad one costs its own place and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ddpm_bench.console import say
from ddpm_bench.files import replacing
from ddpm_bench.report.summary import Row


@dataclass(frozen=True)
class Picture:
    """A cell's samples: `path` of the copy and whose it is, or None with the reason why there is none."""

    path: Path | None
    caption: str


def copy_pictures(rows: Sequence[Row], results: Path, folder: Path) -> dict[str, Picture]:
    """For each measured cell, the picture of its first seed with a good one, as folder/<cell>.png; says bad ones."""
    return {row.cell.name: _copy(row, results, folder) for row in rows if row.done or row.diverged}


def _copy(row: Row, results: Path, folder: Path) -> Picture:
    faults = []
    for record in (*row.done, *row.diverged):  # a run that diverged is shown only when no other is left
        if record.sample_grid is None:
            continue
        if fault := _fault(results, record.sample_grid):
            faults.append(f"{record.sample_grid} is {fault}")
            say(f"Report: the sample picture {faults[-1]}; measure the cell again to have it.")
            continue
        target = folder / f"{row.cell.name}.png"
        with replacing(target) as temporary:
            temporary.write_bytes((results / record.sample_grid).read_bytes())
        return Picture(target, f"seed {record.seed}" + (", diverged" if record.outcome == "diverged" else ""))
    return Picture(None, "; ".join(faults) or ("diverged before sampling" if row.diverged else "none was kept"))


def _fault(results: Path, name: str) -> str | None:
    """What is wrong with a picture, or None."""
    if Path(name).name != name:
        return "not a plain file name"
    try:
        with Image.open(results / name, formats=["PNG"]) as image:
            image.load()
    except FileNotFoundError:
        return f"missing in '{results}'"
    except UnidentifiedImageError:
        return "not a PNG"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"broken ({error})"
    return None
