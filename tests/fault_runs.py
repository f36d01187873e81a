"""A small grid as real processes of the command line, which can be killed, stopped, and compared bit for bit."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from ddpm_bench.training.snapshots import snapshots

ROOT = Path(__file__).parent.parent
CELLS = ("mu-L-fixed", "eps-L-fixed", "eps-mse-fixed")
SETTINGS = {
    "network.base": 4,
    "network.groups": 2,
    "training.steps": 60,
    "training.batch": 8,
    "training.checkpoint_every": 10,
    "training.log_every": 5,
    "training.snapshot_every": 30,
    "sampling.samples": 24,  # all of them are in the picture of samples
    "scoring.bound_images": 12,
    "scoring.bound_evals": 5,
    "scoring.terms_images": 8,
    "scoring.neighbours": 4,
    "scoring.neighborhood": 3,
}
Words = tuple[str, ...]
NO_REPORT: Words = ("--no-report",)
TIMES = {"wall_time_s", "created", "git_commit", "training_commits"}
"""What two records of the same cell may differ in."""
LONGEST = 600
"""Seconds after which a run counts as hanging."""
FULL_DISK = """
import os, re, resource, sys

def full(event, arguments, phase=re.compile(os.environ["FULL_DISK"])):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR) and phase.search(str(arguments[0])):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

sys.addaudithook(full)
"""
"""As `sitecustomize`: from the first file on that a process writes under such a name, the system refuses all its writes."""


class Fell(Exception):
    """What was promised did not hold: why, and what the commands said."""

    def __init__(self, why: str, said: str = "") -> None:
        super().__init__(why)
        self.why, self.said = why, said


@dataclass(frozen=True)
class Said:
    """A command that ended."""

    code: int
    output: str
    seconds: float = 0.0

    def must(self, holds: bool, why: str) -> None:
        if not holds:
            raise Fell(f"{why} (exit code {self.code})", self.output)

    def must_end(self, code: int, after: str) -> None:
        """With this code, and without a traceback."""
        self.must("Traceback" not in self.output, f"a traceback {after}")
        self.must(self.code == code, f"not exit code {code} {after}")


class Running:
    """A command in a session of its own, with all its processes."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.log, self.began = log, time.monotonic()
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=log.parent, env=os.environ | environment,
            start_new_session=True,
        )  # fmt: skip
        # Through a pipe: a command that may not write into files may still speak.
        self.listening = threading.Thread(target=self._listen, daemon=True)
        self.listening.start()

    def _listen(self) -> None:
        with self.log.open("wb", buffering=0) as stream:
            while said := os.read(self.process.stdout.fileno(), 1 << 16):
                stream.write(said)

    @property
    def pid(self) -> int:
        return self.process.pid

    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self, seconds: float = LONGEST) -> Said:
        """Until it has ended. Fell, and nothing of it is left, where that takes longer."""
        asked = time.monotonic()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Fell(f"still there after {seconds:.0f} s", self.output()) from None
        return Said(code, self.output(), time.monotonic() - asked)

    def output(self) -> str:
        self.listening.join(2)  # longer only where a process that should be gone holds the pipe
        return self.log.read_text(encoding="utf-8", errors="replace")

    def signal_all(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """All its processes, at once."""
        self.signal_all(signal.SIGKILL)
        self.process.wait()

    def members(self) -> dict[int, str]:
        """Its processes that are alive, with their command lines."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.pid and state != "Z":
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        return found

    def workers(self) -> list[int]:
        return [pid for pid, line in self.members().items() if "spawn_main" in line]

    def lasts(self, seconds: float) -> bool:
        """Is it still running after so many seconds more?"""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return not self.ended()

    def until(self, there: Callable[[], object]) -> bool:
        """Wait until something is there; false where the command ended before."""
        while not there():
            if self.ended():
                return False
            if time.monotonic() - self.began > LONGEST:
                self.kill()
                raise Fell(f"still nothing after {LONGEST} s", self.output())
            time.sleep(0.02)
        return True


@dataclass(frozen=True)
class Grid:
    """`ablate` of a few cells whose results, cache, reports and images lie in one folder."""

    folder: Path
    workers: int = 2
    cells: Words = CELLS
    more: Words = NO_REPORT
    settings: dict[str, int] = field(default_factory=SETTINGS.copy)
    program: Words = ("-m", "ddpm_bench")

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def reports(self) -> Path:
        return self.folder / "reports"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def start(self, *, first: Path | None = None, **environment: str) -> Running:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.images.exists():
            write_pictures(self.images)
        command = [
            sys.executable, *self.program, "ablate", "--preset", "smoke", "--device", "cpu", "--keep", "2", "--batch", "8",
            "--cells", ",".join(self.cells), "--data", "folder:images", "--data-name", "pictures",
            "--results", "results", "--cache", "cache", "--workers", str(self.workers), *self.more,
        ]  # fmt: skip
        for key, value in self.settings.items():
            command += ["--set", f"{key}={value}"]
        path = os.pathsep.join([*([str(first)] if first else ()), str(ROOT)])
        log = self.folder / f"said-{len(list(self.folder.glob('said-*.txt'))):02d}.txt"
        variables = {"COLUMNS": "200", "PYTHONPATH": path} | environment
        if self.workers == 1:  # it has as many threads as each of two workers, so that it rounds as they do
            variables["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // 2))
        return Running(command, variables, log)

    def start_with_a_full_disk(self, phase: str) -> Running:
        """Full from the first file on whose path has the expression `phase` in it."""
        (self.folder / "full").mkdir(parents=True, exist_ok=True)
        (self.folder / "full" / "sitecustomize.py").write_text(FULL_DISK)
        return self.start(first=self.folder / "full", FULL_DISK=phase)

    def records(self) -> set[str]:
        """The cells that have one."""
        return {path.name.removesuffix("-seed0.json") for path in self.results.glob("*-seed0.json")}

    def holders(self) -> list[int]:
        """The processes that measure a cell now."""
        found = []
        for note in self.results.glob("work/*/.owner.held"):
            with contextlib.suppress(OSError, ValueError):  # it has just ended
                found.append(json.loads(note.read_text())["process"])
        return found

    def logs(self) -> int:
        """Lines of the training logs of all cells."""
        return sum(path.read_bytes().count(b"\n") for path in self.results.glob("work/*/log.jsonl"))

    def content(self) -> dict[str, str]:
        """The hash of all that must come out the same: records but for times, pictures, the weights of the last snapshot."""
        found = {}
        for path in sorted(self.results.glob("*-seed0*")):
            found[path.name] = _hash(_timeless(path.read_bytes()) if path.suffix == ".json" else path.read_bytes())
        for work in sorted(self.results.glob("work/*-seed0")):
            for path in sorted(snapshots(work)[-1].glob("*.safetensors")):
                found[f"{work.name}/{path.parent.name}/{path.name}"] = _hash(path.read_bytes())
        return found

    def finish(self, reference: dict[str, str], running: Running | None = None) -> Said:
        """The same command until its end; Fell unless that gives what the reference has of these cells."""
        said = (running or self.start()).wait()
        said.must_end(0, "when the same command was to finish")
        expected = {name: value for name, value in reference.items() if name.split("-seed0")[0] in self.cells}
        found = self.content()
        differ = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        said.must(not differ, f"not bitwise the same: {', '.join(differ[:4])}{' ...' if differ[4:] else ''}")
        return said

    def copied(self, folder: Path) -> "Grid":
        """The same command on what this one has left, in another folder. Hashes of the images do not change by that."""
        for name in ("results", "cache"):
            shutil.copytree(self.folder / name, folder / name)
        (folder / "images").symlink_to(self.images)
        return replace(self, folder=folder)


def write_pictures(folder: Path) -> None:
    """Smooth random images, 16x16 and grey: 40 to train on and 24 to test."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 24)):
        (folder / split).mkdir(parents=True)
        for number, coarse in enumerate(rng.integers(0, 256, (count, 4, 4), dtype=np.uint8)):
            Image.fromarray(coarse.repeat(4, 0).repeat(4, 1)).save(folder / split / f"{number:02d}.png")


def change_a_pixel(path: Path) -> None:
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)


def _timeless(record: bytes) -> bytes:
    return json.dumps({key: value for key, value in json.loads(record).items() if key not in TIMES}).encode()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ---- damage -----------------------------------------------------------------------------------------------------------


def flip(path: Path, rng: Random) -> None:
    """One random bit."""
    content = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def truncate(path: Path, rng: Random) -> None:
    """To a random length."""
    os.truncate(path, rng.randrange(1, path.stat().st_size))


def empty(path: Path, rng: Random) -> None:
    os.truncate(path, 0)


DAMAGES = {"one bit flipped": flip, "truncated": truncate, "emptied": empty}


def kept_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(kind, file) of all that a run has kept: kinds have no cell, number or hash in their name."""
    newest = {snapshots(work)[-1] for work in folder.glob("results/work/*") if snapshots(work)}
    for path in sorted(folder.glob("*/**/*")):
        if path.is_file() and path.relative_to(folder).parts[0] in ("results", "cache"):
            step = "newest snapshot" if path.parent in newest else "older snapshot"
            name = re.sub(
                r"step-\d+", step, str(path.relative_to(folder)).removeprefix("results/").removeprefix("work/")
            )
            name = re.sub(r"[a-z]+-[A-Za-z]+-(fixed|learned)-seed0/?", "", name)
            yield re.sub(r"[0-9a-f]{64}|[0-9a-f]{16}|\d{8}", "*", name), path
