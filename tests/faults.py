"""Does a grid come out bitwise the same whatever happens to it on the way? Real processes, killed, stopped, and damaged.

    python tests/faults.py --out reports/faults

runs a small grid of three cells undisturbed, then again and again with a fault, each time to the end with the same command,
and compares records, pictures and weights. What it finds is in faults.json, told in faults.md, and what commands said where
something did not hold stands beside them. What was tried is not tried again: an interrupted campaign goes on, and larger
counts add to it. `nox -s faults` runs it; tests/test_faults.py a few of its tries.
"""

import json
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from fault_damage import PHASES, damages_of, data_changed, full_disk
from fault_home import Home, Tried, Try
from fault_kills import (
    GONE_S,
    IMPORTED_S,
    STOPPED_S,
    killed,
    owner_killed,
    parent_killed,
    second_command,
    stopped,
    task_killed,
    worker_killed,
)
from fault_runs import Fell, Grid

from ddpm_bench.files import write_json, write_text
from ddpm_bench.records.provenance import git_commit
from ddpm_bench.report.blocks import Block, Bullets, Code, Heading, Link, Paragraph, Table
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.observer import say
from ddpm_bench.runtime.terminal import at_the_terminal


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
