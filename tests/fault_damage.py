"""Faults of files: a full disk, damage, and changed data."""

from functools import partial
from pathlib import Path
from random import Random

from fault_home import Home, Tried, Try, stopped_while_training
from fault_runs import DAMAGES, Grid, Said, change_a_pixel, kept_files

PHASES = {
    "training log": r"log\.jsonl",
    "training snapshot": r"step-\d+",
    "samples": r"samples-[^/]+/\.?\d",
    "picture of samples": r"results/\.[^/]+-seed0\.png",
    "scores": r"scores-[^/]+/\.?found",
    "pictures": r"results/\.[^/]+-(progressive|neighbours)",
    "pieces of a bound": r"bound-[^/]+/\.?(pilot|strata|exact)",
    "record": r"results/\.?[^/]+-seed0\.json",
    "reference features": r"cache/features/",
    "anchors": r"cache/\.?anchors",
    "report": r"reports/",
}
"""What is written first on the full disk."""
UNREAD = {
    "log.jsonl": "it is there for people",
    "of.json": "it says what a folder's name stands for, and is not read",
    "wall-time.json": "wall times are no results",
    "older snapshot": "the newest one is whole",
    "training: samples-": "those of a snapshot that was scored already are not read again",
    "measured: cache/features": "the scores are kept, and features are not read again",
    ".png": "pictures are drawn again where they are not those whose hash is kept",
}
"""Kept files whose damage may pass without a word, and why."""


def full_disk(phase: str, home: Home, rng: Random, folder: Path) -> Tried:
    more = ("--reports", "reports") if phase == "report" else None
    grid = home.grid(folder, rng.choice((1, 2)), 2, more)
    said = grid.start_with_a_full_disk(PHASES[phase]).wait()
    said.must_end(1, "on a full disk")
    said.must("cannot write" in said.output, "no word of the full disk")
    grid.finish(home.reference)
    return Tried(True)


def damaged(state: str, kind: str, damage: str, home: Home, rng: Random, folder: Path) -> Tried:
    """A file of that kind is found damaged, or in the place of another one, by the command that goes on."""
    before: Grid = getattr(home, state)
    grid = before.copied(folder)
    paths = [path for of, path in kept_files(folder) if of == kind and path.stat().st_size]
    chosen = rng.choice(paths)
    touched = [chosen]
    if damage == "swapped":
        touched.append(
            rng.choice([path for path in _fellows(kind, folder) if path.read_bytes() != chosen.read_bytes()])
        )
        one, other = (path.read_bytes() for path in touched)
        touched[0].write_bytes(other)
        touched[1].write_bytes(one)
    else:
        DAMAGES[damage](chosen, rng)
    said = grid.finish(home.reference)
    if _mentioned(touched, folder, said):
        return Tried(True, note="said")
    reason = next((reason for part, reason in UNREAD.items() if part in f"{state}: {kind}"), None)
    said.must(reason is not None, f"not a word of '{chosen.relative_to(folder)}'")
    return Tried(True, note=f"not said: {reason}")


def _fellows(kind: str, folder: Path) -> list[Path]:
    """Files that one of this kind may be taken for: of other numbers, and of both snapshots."""

    def of_any_snapshot(name: str) -> str:
        return name.replace("newest", "older")

    return [path for other, path in kept_files(folder) if of_any_snapshot(other) == of_any_snapshot(kind)]


def _mentioned(paths: list[Path], folder: Path, said: Said) -> bool:
    """Does a message name one of the files, or the snapshot that one is in?"""
    names = {str(path.relative_to(folder)) for path in paths}
    names |= {path.parent.name for path in paths if path.parent.name.startswith("step-")}
    return any(name in said.output for name in names)


def damages_of(home: Home, count: int) -> dict[str, Try]:
    """Every kind of kept file of both states, every damage, `count` times."""
    found: dict[str, Try] = {}
    for state in ("training", "measured"):
        grid: Grid = getattr(home, state)
        kinds = sorted({kind for kind, path in kept_files(grid.folder) if path.stat().st_size})
        for kind in kinds:
            can_be_swapped = len({path.read_bytes() for path in _fellows(kind, grid.folder)}) > 1
            for damage in (*DAMAGES, *(("swapped",) if can_be_swapped else ())):
                for number in range(count):
                    found[f"{state}: {kind} {damage} {number}"] = partial(damaged, state, kind, damage)
    return found


def data_changed(split: str, home: Home, rng: Random, folder: Path) -> Tried:
    """One pixel of one image, between a stop and the same command."""
    grid = home.grid(folder, 1, 1)
    stopped_while_training(grid, lines=4)
    path = rng.choice(sorted((grid.images / split).iterdir()))
    before = path.read_bytes()
    change_a_pixel(path)
    said = grid.start().wait()
    said.must_end(2, "with other images")
    path.write_bytes(before)
    grid.finish(home.reference)
    return Tried(True)
