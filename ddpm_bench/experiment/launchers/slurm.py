"""Each job a job of a Slurm queue, by way of submitit.

All of a grid are one job array. What they tell lies in files of the results folder, so that they need no command that listens: after
Ctrl-C they go on in the queue, and the same command takes them up again.
"""

import contextlib
import hashlib
import math
import pickle
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from ddpm_bench import __version__
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.job import Bench, Job
from ddpm_bench.experiment.launchers.cluster import Death, Tasks, anywhere, check_version, needs, task
from ddpm_bench.experiment.launchers.launcher import Ended, ObserverOf
from ddpm_bench.experiment.launchers.news_file import NewsFile
from ddpm_bench.experiment.launchers.wire import Wire
from ddpm_bench.files import known_content, make_folder, read_json, replacing, write_json
from ddpm_bench.records.record import Record
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.observer import say, say_once

if TYPE_CHECKING:
    import submitit

SAVE_S = 120
"""How long before its time limit a job is told to save: it takes seconds, and at most a step of training or of sampling."""
TIMES = 1000
"""How often a job may reach its time limit and go back into the queue."""
KILLED_S = 300.0
"""After SIGTERM Slurm kills what it cancels or preempts within this time; who is still there goes back into the queue by itself."""
POLL_S = 2.0
EVERY_S = 5.0
"""Seconds between two readings in a file."""
WHY_S = 30.0
"""Seconds between two questions why jobs wait."""
_NO_NEWS = {"", "None", "JobArrayTaskLimit"}
"""Reasons that are none: Slurm has not looked yet, or `--workers` run."""


@dataclass(frozen=True)
class Slurm:
    """One job array, of which `workers` run at a time.

    hours: the time limit of a job; one that reaches it saves and goes back into the queue. memory: GB of a job. cluster: "local" runs
    submitit's jobs as processes of this machine.
    """

    elsewhere: ClassVar[bool] = True
    workers: int
    partition: str | None = None
    hours: float = 12.0
    gpus_per_cell: float = 0.0
    cpus_per_cell: int = 1
    memory: float | None = None
    cluster: str = "slurm"

    def __post_init__(self) -> None:
        if self.gpus_per_cell not in (0, 1):
            raise UserError(
                f"--gpus-per-cell {self.gpus_per_cell:g}: a cell computes on one GPU, and Slurm gives whole ones: 0 or 1."
            )
        for option, value in (("--hours", self.hours), ("--memory", self.memory)):
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{option} {value:g} must be a number above 0.")

    @property
    def threads(self) -> int:
        return self.cpus_per_cell

    def run(self, jobs: Sequence[Job], bench: Bench, observer_of: ObserverOf) -> Iterator[Ended]:
        tasks = _SlurmTasks(self, jobs, anywhere(bench))
        yield from Tasks(tasks, jobs, bench, {job.name: observer_of(job) for job in jobs}, len(jobs)).run()
        tasks.remove_shared()


class _SlurmTasks:
    """The queue as `cluster.py` sees it."""

    def __init__(self, asked: Slurm, jobs: Sequence[Job], bench: Bench) -> None:
        self.asked, self.bench = asked, bench
        self.folder = make_folder(bench.results / "work" / "slurm")
        self.executor, self.handle = _executor(asked, self.folder)
        content = pickle.dumps((bench, {job.name: job for job in jobs}))
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.shared = self.folder / f"shared-{self.sha256[:16]}.pkl"
        with replacing(self.shared) as path:
            path.write_bytes(content)
        self.files = {job.name: NewsFile(self.folder / f"{job.name}.jsonl") for job in jobs}
        self.queued: dict[str, submitit.Job[None]] = {}
        self.dead: dict[str, submitit.Job[None]] = {}
        haste = 1 if asked.cluster == "slurm" else 20  # no queue and no shared disk to spare
        self.poll_s, self.every = POLL_S / haste, EVERY_S / haste
        self.ask_why = time.monotonic() + WHY_S

    def begin(self, jobs: Sequence[Job]) -> None:
        new = [job for job in jobs if not self._take_up(job)]
        if not new:
            return
        for job in new:
            self.files[job.name].remove()
            if job.name in self.dead:  # Slurm may have taken it back into the queue by itself
                self.dead.pop(job.name).cancel(check=False)
        try:
            queued = self.executor.submit_array([self._task(job) for job in new])
        except RuntimeError as error:  # sbatch has said no
            raise UserError(f"The jobs were not taken into the queue: {error}") from error
        for job, entry in zip(new, queued, strict=True):
            self.queued[job.name] = entry
            write_json(self._note(job.name), {"id": entry.job_id, "job": self._identity(job)})
        say(
            f"{len(new)} in the queue as {_ids(queued)}; what they say, and submitit's pickles of them, lie in '{self.folder}'"
        )

    def _task(self, job: Job) -> "SlurmTask":
        news = self.files[job.name].path
        return SlurmTask(job.name, self.shared, self.sha256, self.asked.threads, news, self.every, __version__)

    def _note(self, name: str) -> Path:
        """Says which job of the queue is the job of that name."""
        return self.folder / f"{name}.queued.json"

    def _identity(self, job: Job) -> str:
        """The hash of all that its record depends on."""
        bench = self.bench
        parts = (
            job,
            bench.data.sha256,
            bench.extractor.info,
            bench.runtime.arithmetic,
            self.asked.threads,
            __version__,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _take_up(self, job: Job) -> bool:
        """Is it in the queue from an earlier command, or has it ended there with a record? Then it is watched from here on."""
        try:
            note = read_json(self._note(job.name))
            entry, same = self.handle(self.folder, note["id"]), note["job"] == self._identity(job)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        what, values = self.files[job.name].skip_to_last() or ("", ())
        ended, alive = same and what == "ended" and isinstance(values[0], Record), not entry.done()
        if alive and not same:
            raise UserError(
                f"{job.name} is in the queue as {entry.job_id}, with other settings, data or options than now. Wait for it, "
                f"`scancel {entry.job_id}`, or use another folder with --results DIR."
            )
        if ended or alive:
            self.queued[job.name] = entry
            say(f"{job.name} {'has ended' if ended else 'is'} in the queue already, as {entry.job_id}")
        return ended or alive

    def gone(self) -> Mapping[str, Death]:
        if self.queued and self.asked.cluster == "slurm" and time.monotonic() > self.ask_why:
            self._say_why_jobs_wait()
            self.ask_why = time.monotonic() + WHY_S
        dead = {name: entry for name, entry in self.queued.items() if entry.done()}
        if dead:
            next(
                iter(dead.values())
            ).get_info()  # asks Slurm, of all at once: what is known may be older than their end
        for name in dead:
            self._note(name).unlink(missing_ok=True)
            del self.queued[name]
        self.dead |= dead
        return {name: self._death(entry) for name, entry in dead.items()}

    def _say_why_jobs_wait(self) -> None:
        """Each reason once: a job that has no place on any machine, say, waits in the queue without a word."""
        pending = ["squeue", "--noheader", "--states=PENDING", "--format=%r"]
        ids = _ids([*self.queued.values()]).replace(" ", ",")
        with contextlib.suppress(OSError):
            found = subprocess.run([*pending, f"--jobs={ids}"], capture_output=True, text=True, check=False).stdout
            for reason in sorted({*found.split("\n")} - _NO_NEWS):
                say_once(f"Jobs wait in the queue ({ids}); Slurm's reason: {reason}")

    def _death(self, entry: "submitit.Job[None]") -> Death:
        state = entry.state
        return Death(
            f"its job {entry.job_id} ended in the state {state} (what it printed: '{entry.paths.stderr}')",
            again=not state.startswith("CANCELLED"),
        )

    def news(self) -> Sequence[tuple[str, str, tuple[Any, ...]]]:
        return [(name, what, values) for name, file in self.files.items() for what, values in file.read()]

    def stop(self) -> Sequence[str]:
        if self.queued:
            say(
                f"{len(self.queued)} go on in the queue, and the same command takes them up again. To end them, once they have saved: "
                f"scancel {_ids([*self.queued.values()])}"
            )
        return [*self.queued]

    def remove_shared(self) -> None:
        """All of these have ended: where no other is in the queue, nobody reads what they share any more."""
        for name in self.files:
            self._note(name).unlink(missing_ok=True)
        if not [*self.folder.glob("*.queued.json")]:
            for path in self.folder.glob("shared-*.pkl"):
                path.unlink()


def _executor(asked: Slurm, folder: Path) -> "tuple[submitit.AutoExecutor, type[submitit.Job[None]]]":
    """What takes jobs into the queue, and the class of what it makes of them."""
    try:
        import submitit
    except ImportError as error:
        raise needs("slurm", error) from error
    try:
        executor = submitit.AutoExecutor(folder, cluster=asked.cluster, **{f"{asked.cluster}_max_num_timeout": TIMES})
    except RuntimeError as error:
        raise UserError(
            f"--launcher slurm works where jobs are submitted to Slurm from, and not here: {error}"
        ) from error
    executor.update_parameters(
        name="ddpm-bench",
        timeout_min=max(1, round(60 * asked.hours)),
        gpus_per_node=int(asked.gpus_per_cell) or None,
        cpus_per_task=asked.cpus_per_cell,
        mem_gb=asked.memory,
        slurm_partition=asked.partition,
        slurm_array_parallelism=asked.workers,
        slurm_signal_delay_s=SAVE_S,
        slurm_additional_parameters={"requeue": True},
    )
    return executor, {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}[asked.cluster]


def _ids(entries: "Sequence[submitit.Job[None]]") -> str:
    """Of arrays, as scancel takes them."""
    return " ".join(dict.fromkeys(entry.job_id.split("_")[0] for entry in entries))


# ---- in the job -------------------------------------------------------------------------------------------------------

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class SlurmTask:
    """What submitit pickles, and calls in the job. `shared`: a file with the bench and all jobs, known by its hash."""

    name: str
    shared: Path
    sha256: str
    threads: int
    news: Path
    every: float
    version: str

    def __call__(self) -> None:
        wire = Wire(NewsFile(self.news).append, self.every)
        with Stop(()) as stop, _heeding(stop) as came:
            try:
                check_version(self.version)
                content = known_content(
                    self.shared, self.sha256, "what jobs share", "another command's", "Run the command again."
                )
            except UserError as error:
                wire.send("raised", error)
                return
            bench, jobs = pickle.loads(content)
            if task(jobs[self.name], bench, self.threads, wire):
                return
        if signal.SIGTERM in came and not {signal.SIGUSR1, signal.SIGUSR2} & came:
            time.sleep(KILLED_S)  # what comes next is Slurm's to say: cancelled, or back into the queue
        signal.raise_signal(_requeueing())

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """The same again, for submitit: what was done lies in the results folder."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


@contextlib.contextmanager
def _heeding(stop: Stop) -> Iterator[set[int]]:
    """Each signal asks to stop, in the block, and none does more; yields those that came."""
    came: set[int] = set()

    def heed(number: int, frame: FrameType | None) -> None:
        came.add(number)
        stop.requested = True

    before = {number: signal.signal(number, heed) for number in SIGNALS}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _requeueing() -> signal.Signals:
    """The signal on which submitit puts a job back into the queue, and ends its process."""
    import submitit

    return signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
