"""Does a grid come out bitwise the same whatever happens to it on the way? Real processes, killed, stopped, and damaged.

    python tests/faults.py --out reports/faults

runs a small grid of three cells undisturbed, then again and again with a fault, each time to the end with the same command,
and compares records, pictures and weights. What it finds is in faults.json, told in faults.md, and what commands said where
something did not hold stands beside them. What was tried is not tried again: an interrupted campaign goes on, and larger
counts add to it. `nox -s faults` runs it; tests/test_faults.py a few of its tries.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from fault_runs import DAMAGES, Fell, Grid, Said, Words, change_a_pixel, kept_files

from ddpm_bench.files import write_json, write_text
from ddpm_bench.records.provenance import git_commit
from ddpm_bench.report.blocks import Block, Bullets, Code, Heading, Link, Paragraph, Table
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.observer import say
from ddpm_bench.runtime.terminal import at_the_terminal

GONE_S, IMPORTED_S, STOPPED_S = 5, 20, 20
"""Seconds after which workers without a parent are gone, where one of them was still importing beside the next command, and
after which a command that was told to stop has."""
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
PROGRAMS = {"ray": ("-m", "ddpm_bench"), "slurm": (str(Path(__file__).parent / "slurm_here.py"),)}
"""What Python is to run for a launcher."""
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


@dataclass(frozen=True)
class Tried:
    """What came of one try. `seconds`: how long what was waited for took. `note`: what else is worth telling."""

    held: bool
    why: str = ""
    seconds: float | None = None
    note: str = ""
    commit: str | None = None


class Home:
    """Where tries are made, of a grid like which, and what they are compared with."""

    def __init__(self, like: Grid) -> None:
        self.folder, self.like = like.folder, like

    def grid(self, folder: Path, workers: int = 2, cells: int | None = None, more: Words | None = None) -> Grid:
        """The first so many cells, or all, in a folder of their own."""
        like = self.like
        return replace(like, folder=folder, workers=workers, cells=like.cells[:cells], more=more or like.more)

    @cached_property
    def undisturbed(self) -> tuple[Grid, float]:
        """The grid without any fault, and its seconds."""
        grid = self.grid(self.folder / "reference")
        said = grid.start().wait()
        said.must_end(0, "without any fault")
        return grid, said.seconds

    @cached_property
    def reference(self) -> dict[str, str]:
        return self.undisturbed[0].content()

    @property
    def seconds(self) -> float:
        return self.undisturbed[1]

    @cached_property
    def training(self) -> Grid:
        """Stopped within the training of the first cell, after some snapshots."""
        grid = self.grid(self.folder / "training", 1, 1)
        stopped_while_training(grid, lines=8)
        return grid

    @cached_property
    def measured(self) -> Grid:
        """Two cells as if killed just before their records were written."""
        whole = self.undisturbed[0].copied(self.folder / "measured")
        grid = self.grid(whole.folder, self.like.workers, 2)
        for path in [*grid.results.glob("*-seed0*"), *grid.results.glob("work/*-seed0")]:
            if path.name.split("-seed0")[0] not in grid.cells:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            elif path.suffix == ".json":
                path.unlink()
        return grid


Try = Callable[[Home, Random, Path], Tried]
"""Made in an empty folder. Raises Fell where what was promised does not hold."""


def stopped_while_training(grid: Grid, lines: int) -> None:
    running = grid.start()
    running.until(lambda: grid.logs() >= lines)
    os.kill(running.pid, signal.SIGINT)
    running.wait().must_end(130, "when it was stopped")


# ---- kills and stops --------------------------------------------------------------------------------------------------


def killed(workers: int, home: Home, rng: Random, folder: Path) -> Tried:
    """All processes at once, once or twice, at any moment of an undisturbed run."""
    grid, kills = home.grid(folder, workers), 0
    while kills == 0 or (kills == 1 and rng.random() < 0.5):
        running = grid.start()
        running.lasts(rng.uniform(0, home.seconds))
        running.kill()
        kills += 1
    grid.finish(home.reference)
    return Tried(True, note=f"{kills} kills")


def parent_killed(home: Home, rng: Random, folder: Path) -> Tried:
    """The parent alone. The same command begins at once, beside whatever is left."""
    grid = home.grid(folder)
    running = grid.start()
    if not (running.until(running.workers) and running.lasts(rng.uniform(0, 0.7 * home.seconds))):
        return _again(parent_killed, home, rng, folder)
    begun = len(list(grid.results.glob("work/*/.owner.held"))) == len(running.workers())
    os.kill(running.pid, signal.SIGKILL)
    running.process.wait()
    began, again = time.monotonic(), grid.start()
    while running.members() and time.monotonic() - began < 2 * IMPORTED_S:
        time.sleep(0.02)
    took, left = time.monotonic() - began, len(running.members())
    running.kill()
    if took > (GONE_S if begun else IMPORTED_S):
        again.kill()
        raise Fell(f"{left} processes still there {took:.0f} s after their parent", running.output())
    grid.finish(home.reference, again)
    return Tried(True, seconds=took, note="" if begun else "a worker was importing")


def worker_killed(home: Home, rng: Random, folder: Path) -> Tried:
    """One worker alone: it costs its own cell at most."""
    grid = home.grid(folder)
    running = grid.start()
    running.until(lambda: len(running.workers()) == grid.workers)
    if not running.lasts(rng.uniform(0, 0.6 * home.seconds)) or not (workers := running.workers()):
        return _again(worker_killed, home, rng, folder)
    os.kill(rng.choice(workers), signal.SIGKILL)
    said = running.wait()
    missing = set(grid.cells) - grid.records()
    said.must(len(missing) <= 1, f"{len(missing)} cells are missing after the death of one worker")
    said.must_end(1 if missing else 0, "after the death of one worker")
    grid.finish(home.reference)
    return Tried(True, note="" if missing else "it had no cell, or its cell was done again")


def task_killed(launcher: str, home: Home, rng: Random, folder: Path) -> Tried:
    """One task of a cluster: the command begins it again, and finishes."""
    threads = max(1, (os.cpu_count() or 1) // home.like.workers)
    more = (*home.like.more, "--launcher", launcher, "--cpus-per-cell", str(threads))
    grid = replace(home.grid(folder, more=more), program=PROGRAMS[launcher])
    running = grid.start()
    if not (running.until(grid.holders) and running.lasts(rng.uniform(0, 0.7 * home.seconds))):
        return _again(partial(task_killed, launcher), home, rng, folder)
    if not (holders := grid.holders()):
        running.kill()
        return _again(partial(task_killed, launcher), home, rng, folder)
    os.kill(rng.choice(holders), signal.SIGKILL)
    said = running.wait()
    said.must_end(0, "after the death of one task")
    grid.finish(home.reference)
    return Tried(True, note="" if "is begun again" in said.output else "its cell was done")


def stopped(number: signal.Signals, home: Home, rng: Random, folder: Path) -> Tried:
    """Ctrl-C reaches all processes, SIGTERM the parent alone."""
    grid = home.grid(folder)
    running = grid.start()
    if not (running.until(grid.results.exists) and running.lasts(rng.uniform(0, 0.8 * home.seconds))):
        return _again(partial(stopped, number), home, rng, folder)
    if number == signal.SIGINT:
        running.signal_all(number)
    else:
        os.kill(running.pid, number)
    said = running.wait(3 * STOPPED_S)
    said.must("FAILED" not in said.output, "a cell was said to have FAILED")
    finished = grid.records() == set(grid.cells)
    said.must_end(0 if finished and said.code == 0 else 130, "when it was stopped")
    said.must(said.seconds <= STOPPED_S, f"it took {said.seconds:.0f} s to stop")
    left = running.members()
    running.kill()
    said.must(not left, f"{len(left)} processes were left")
    grid.finish(home.reference)
    return Tried(True, seconds=said.seconds)


def _again(attempt: Try, home: Home, rng: Random, folder: Path) -> Tried:
    """The run had ended before the fault: another one, with another moment."""
    shutil.rmtree(folder)
    return attempt(home, rng, folder)


# ---- a full disk, damage, changed data, a second command ---------------------------------------------------------------


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


def second_command(home: Home, rng: Random, folder: Path) -> Tried:
    """It is refused, names the first one's process, and the first goes on."""
    grid = home.grid(folder)
    first = grid.start()
    first.until(grid.logs)
    said = grid.start().wait()
    grid_was_running = not first.ended()
    try:
        said.must(grid_was_running, "the second command ended only after the first")
        said.must_end(2, "beside another command")
        said.must(str(first.pid) in said.output, "the first command's process is not named")
        grid.finish(home.reference, first)
    finally:
        first.kill()
    return Tried(True)


def owner_killed(home: Home, rng: Random, folder: Path) -> Tried:
    """A folder whose owner was killed is taken over at once."""
    grid = home.grid(folder)
    first = grid.start()
    first.until(grid.logs)
    first.kill()
    grid.finish(home.reference)
    return Tried(True)


# ---- the campaign -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Tries of one kind. `told`: what is done, and what must hold."""

    told: str
    tries: Callable[[Home, int], dict[str, Try]]


def numbered(*attempts: Try) -> Callable[[Home, int], dict[str, Try]]:
    """So many tries, of each of `attempts` in turn."""
    return lambda home, count: {str(number): attempts[number % len(attempts)] for number in range(count)}


def named(attempts: dict[str, Try]) -> Callable[[Home, int], dict[str, Try]]:
    """Each of `attempts`, `count` times."""
    return lambda home, count: {
        f"{name} {number}": attempt for name, attempt in attempts.items() for number in range(count)
    }


PARTS = {
    "kills": Part(
        "all processes killed at a random moment, once or twice", numbered(partial(killed, 2), partial(killed, 1))
    ),
    "parents": Part(
        f"the parent killed alone: workers gone within {GONE_S} s, or {IMPORTED_S} s where one was importing still",
        numbered(parent_killed),
    ),
    "workers": Part("one worker killed alone: the other cells are finished, exit code 1", numbered(worker_killed)),
    "ray": Part("a task of a Ray cluster of this machine killed: exit code 0", numbered(partial(task_killed, "ray"))),
    "slurm": Part(
        "a job of --launcher slurm, as a process of submitit, killed: exit code 0",
        numbered(partial(task_killed, "slurm")),
    ),
    "interrupts": Part(f"Ctrl-C: exit code 130 within {STOPPED_S} s", numbered(partial(stopped, signal.SIGINT))),
    "terminations": Part(f"SIGTERM: exit code 130 within {STOPPED_S} s", numbered(partial(stopped, signal.SIGTERM))),
    "full": Part(
        "disk full while something is written: exit code 1", named({p: partial(full_disk, p) for p in PHASES})
    ),
    "damages": Part("a kept file damaged or exchanged: said, and made again", damages_of),
    "data": Part(
        "one pixel of the data changed: refused, exit code 2",
        named({f"{split} image": partial(data_changed, split) for split in ("train", "test")}),
    ),
    "owners": Part(
        "a second command on the same folder: refused, exit code 2; taken over after a kill",
        named({"beside": second_command, "after a kill": owner_killed}),
    ),
}


def attempt(name: str, one: Try, home: Home, out: Path) -> Tried:
    """One try in a folder of its own; what commands said is kept where something did not hold."""
    with TemporaryDirectory(dir=home.folder, ignore_cleanup_errors=True) as folder:
        try:
            tried = one(home, Random(name), Path(folder) / "run")
        except Fell as fell:
            file = "".join(letter if letter.isalnum() else "-" for letter in name) + ".txt"
            write_text(out / file, "\n".join([fell.why, "", *fell.said.splitlines()[:60], ""]))
            tried = Tried(False, fell.why, note=file)
    return Tried(**asdict(tried) | {"commit": git_commit()})


def report(found: dict[str, dict[str, Tried]]) -> list[Block]:
    """What was tried and what held, as a document."""
    command = ("By ", Code("nox -s faults"), ": three small cells as real processes of the command line. After every fault the same "
               "command ran to the end, and had to give what an undisturbed run gives, bit for bit: records but for times, "
               "pictures, and the weights of the last snapshot.")  # fmt: skip
    lines, failures = [], []
    for key, tries in found.items():
        seconds = [tried.seconds for tried in tries.values() if tried.seconds is not None]
        longest = f"{max(seconds):.1f} s" if seconds else None
        held = sum(tried.held for tried in tries.values())
        lines.append((PARTS[key].told, str(len(tries)), str(held), longest))
        failures += [
            (f"{key}, {name}: {tried.why}; ", Link("what was said", tried.note))
            for name, tried in tries.items() if not tried.held
        ]  # fmt: skip
    commits = sorted({str(tried.commit) for tries in found.values() for tried in tries.values()})
    notes = _unsaid(found.get("damages", {}))
    return [
        Heading(1, "Faults"),
        Paragraph(command),
        Table("Faults", "lrrr", ("fault, and what must hold beside", "tried", "held", "longest"), tuple(lines)),
        *([Heading(2, "What did not hold"), Bullets(tuple(failures))] if failures else ()),
        *([Heading(2, "Damage without a word"), Bullets(notes)] if notes else ()),
        Paragraph(f"Tried at {', '.join(commits)}."),
    ]


def _unsaid(damages: dict[str, Tried]) -> tuple[str, ...]:
    """Kinds of files whose damage changed nothing and was not mentioned, with the reason."""
    notes = {
        f"{name.split(': ')[1].rsplit(' ', 1)[0]}: {tried.note.removeprefix('not said: ')}"
        for name, tried in damages.items()
        if tried.held and tried.note.startswith("not said")
    }
    return tuple(sorted(notes))


Count = Annotated[int, typer.Option(min=0)]


def main(
    out: Annotated[Path, typer.Option(help="Folder of faults.json and faults.md.")],
    kills: Count = 50,
    parents: Count = 10,
    workers: Count = 5,
    ray: Count = 20,
    slurm: Count = 20,
    interrupts: Count = 10,
    terminations: Count = 10,
    full: Annotated[int, typer.Option(min=0, help="For each phase.")] = 1,
    damages: Annotated[int, typer.Option(min=0, help="For each kind of file and damage.")] = 1,
    data: Count = 1,
    owners: Count = 1,
) -> None:
    """Try what was not tried yet; exit code 1 if something did not hold, now or before."""
    counts = {name: value for name, value in locals().items() if name in PARTS}
    kept = out / "faults.json"
    stored = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    found = {key: {name: Tried(**tried) for name, tried in stored.get(key, {}).items()} for key in PARTS}
    with TemporaryDirectory(prefix="faults-") as folder:
        home = Home(Grid(Path(folder)))
        for key, count in counts.items():
            for name, one in (PARTS[key].tries(home, count) if count else {}).items():
                if name in found[key]:
                    continue
                tried = found[key][name] = attempt(f"{key} {name}", one, home, out)
                say(f"{key}, {name}: {'held' if tried.held else tried.why} {tried.note}")
                write_json(
                    kept, {key: {name: asdict(tried) for name, tried in tries.items()} for key, tries in found.items()}
                )
                write_text(
                    out / "faults.md", to_markdown(report({key: tries for key, tries in found.items() if tries}))
                )
    raise typer.Exit(int(not all(tried.held for tries in found.values() for tried in tries.values())))


if __name__ == "__main__":
    with at_the_terminal():
        typer.run(main)
