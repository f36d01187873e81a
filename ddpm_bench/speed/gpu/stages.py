"""The stages in order of value. A stage is commands of the command line, in order; all of them go on where they stopped.

What they decide by measurements (whether compiling pays, how many cells at a time) they read from what earlier stages wrote.
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpm_bench.runtime.device import computed_in
from ddpm_bench.speed.case import CELL, GRID
from ddpm_bench.speed.peers import OURS
from ddpm_bench.speed.result import Speed, Work
from ddpm_bench.speed.work import Contender

Words = tuple[str, ...]
"""A command, as words after `python -m`."""

TESTS = Path(__file__).parents[3] / "tests" / "test_gpu_path.py"
"""They are there in a checkout, and not in an installed package."""
COUNTS = (1, 2, 4, 8)
"""Processes that share a device, as far as there are cores for them."""
REPEATS = 6
"""Rounds of `speed`: as few as an interval needs."""
PAYS = 1.1
"""More processes are used where they are so many times as fast, or more."""
SAMPLES = 64


@dataclass(frozen=True)
class Plan:
    """What one call is about. preset: of the network that is timed, trained and sampled alone; grid_preset: of Table 2's grid.

    data: words of the command line that name the images which the network is trained on. workers: cells at a time; None: as
    many as are fastest together. device: `cuda`, or another, by name. minutes: all that the call may take.
    """

    out: Path
    preset: str = "h200"
    grid_preset: str = "study"
    seeds: str = "0,1,2"
    data: Words = ()
    workers: int | None = None
    device: str = "cuda"
    minutes: float = 9.0

    @property
    def trained(self) -> Path:
        """The checkpoint of the network that is trained alone."""
        return self.out / "training"

    @property
    def cell(self) -> Path:
        """A checkpoint of the grid."""
        return self.out / "results" / "work" / f"{CELL}-seed{self.seeds.partition(',')[0].strip()}"

    def timed(self, name: str) -> Speed | None:
        """What `speed` has measured under this name, once it has."""
        path = self.out / "speed" / name / "speed.json"
        return Speed.model_validate_json(path.read_bytes()) if path.exists() else None


@dataclass(frozen=True)
class Stage:
    """share: of all minutes, kept for it by the stages before; what they leave over is its, too. least_s: in less it would bring
    nothing, and is not begun. needs: a checkpoint that an earlier stage leaves.
    """

    name: str
    what: str
    share: float
    least_s: float
    commands: Callable[[Plan], Sequence[Words]]
    needs: Callable[[Plan], Path] | None = None


def _bench(plan: Plan, command: str, *words: object) -> Words:
    return "ddpm_bench", command, *map(str, words), "--device", plan.device


def _tests(plan: Plan) -> list[Words]:
    there = TESTS.exists() and importlib.util.find_spec("pytest")
    pytest = [("pytest", "-q", "-p", "no:cacheprovider", str(TESTS))] if there else []
    return [_bench(plan, "selftest"), *pytest]


def _speed(plan: Plan) -> list[Words]:
    works: tuple[Work, ...] = ("training", "sampling")
    how = ("--preset", plan.preset, "--compile", "--repeats", REPEATS)
    return [_bench(plan, "speed", *how, "--work", work, "--out", plan.out / "speed" / work) for work in works]


def _small(plan: Plan) -> list[Words]:
    counts = ",".join(str(count) for count in COUNTS if count <= (os.cpu_count() or 1))
    timed = ("--work", "training", "--dtype", computed_in(plan.device), "--repeats", REPEATS, "--processes", counts)
    return [_bench(plan, "speed", "--preset", plan.grid_preset, *timed, "--out", plan.out / "speed" / "small")]


def _study(plan: Plan) -> list[Words]:
    at_once = plan.workers or fastest_together(plan.timed("small"))
    workers = ("--workers", at_once) if at_once else ()
    where = ("--results", plan.out / "results", "--cache", plan.out / "cache", "--no-report")
    return [
        _bench(plan, "ablate", "--grid", GRID, "--preset", plan.grid_preset, "--seeds", plan.seeds, *workers, *where)
    ]


def _training(plan: Plan) -> list[Words]:
    seconds = 60 * plan.minutes * STAGES["training"].share
    compiled = ("--compile",) if compiling_pays(plan.timed("training"), seconds) else ()
    cell = ("--grid", GRID, "--preset", plan.preset, "--cell", CELL, *plan.data)
    return [_bench(plan, "train", *cell, *compiled, "--out", plan.trained)]


def _sampling(plan: Plan) -> list[Words]:
    out = plan.out / "sampling" / "samples.npz"
    return [_bench(plan, "sample", "--ckpt", plan.trained, "--samples", SAMPLES, "--out", out)]


def _precision(plan: Plan) -> list[Words]:
    where = ("--out", plan.out / "precision", "--cache", plan.out / "cache")
    return [_bench(plan, "precision", "--ckpt", plan.cell, *where)]


def fastest_together(speed: Speed | None) -> int | None:
    """The fewest processes that make nearly the most images a second together; None where that was not measured.

    Fewer at a time end sooner, and there are more of them to show when the time is up.
    """
    rows = speed.together if speed else ()
    most = max((row.images_per_s for row in rows), default=0.0)
    return min((row.processes for row in rows if row.images_per_s >= most / PAYS), default=None)


def compiling_pays(speed: Speed | None, seconds: float) -> bool:
    """Would ours train with more images in so many seconds, compiling included, than uncompiled in the same precision?"""
    rows = {(row.contender, row.precision): row for row in speed.rows} if speed else {}
    for (contender, precision), compiled in rows.items():
        if contender == Contender(OURS, precision, "compiled").name and (plain := rows.get((OURS.name, precision))):
            left = seconds - (compiled.compile_seconds or 0)
            return compiled.images_per_s * left > plain.images_per_s * seconds
    return False


STAGES = {
    stage.name: stage
    for stage in (
        Stage("tests", "tests of the GPU path, and known answers", 0.15, 15, _tests),
        Stage("speed", "training and sampling by precision, compiled, and beside diffusers", 0.48, 30, _speed),
        Stage("small", "the grid's network: several processes on the device", 0.07, 20, _small),
        Stage("study", "Table 2 at a small preset, several cells at a time", 0.12, 20, _study),
        Stage("training", "one cell alone, as far as it comes", 0.09, 20, _training),
        Stage("sampling", f"{SAMPLES} samples of that cell", 0.04, 15, _sampling, lambda plan: plan.trained),
        Stage("precision", "what bfloat16 changes in a cell of the grid", 0.05, 15, _precision, lambda plan: plan.cell),
    )
}
"""By name, in order. Shares add up to all of the time."""
