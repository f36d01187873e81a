"""Faults of processes: kills, stops, and a second command on one folder."""

import os
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from fault_home import Home, Tried, Try
from fault_runs import Fell

GONE_S, IMPORTED_S, STOPPED_S = 5, 20, 20
"""Seconds after which workers without a parent are gone, where one of them was still importing beside the next command, and
after which a command that was told to stop has."""
PROGRAMS = {"ray": ("-m", "ddpm_bench"), "slurm": (str(Path(__file__).parent / "slurm_here.py"),)}
"""What Python is to run for a launcher."""


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
