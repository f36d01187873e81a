"""What a launcher is, and what each does with one job, wherever that runs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.experiment.cell import run_cell
from ddpm_bench.experiment.job import Bench, Job
from ddpm_bench.records.record import Record
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import Observer

ObserverOf = Callable[[Job], Observer]
"""Who watches a job."""
Ended = tuple[Job, Record | str]
"""A job with its record, or with what it failed of."""
FAILURES = (RuntimeError, ArithmeticError, MemoryError)
"""What costs a cell but not the grid; torch raises RuntimeError, out of memory included."""


class Launcher(Protocol):
    """Runs jobs somewhere. A job's record is the same bit for bit wherever it ran on the same kind of device with as many threads.

    A launcher is a frozen dataclass whose fields are its options, those of `Asked` by the same names.
    elsewhere: jobs run on machines that need not be as this one.
    """

    elsewhere: ClassVar[bool]

    @property
    def workers(self) -> int:
        """How many jobs it runs at a time."""

    @property
    def threads(self) -> int:
        """Of each job: by their number sums are split, and so the last digits."""

    def run(self, jobs: Sequence[Job], bench: Bench, observer_of: ObserverOf) -> Iterator[Ended]:
        """Each job as it ends. Raises Interrupted when a stop was asked for and all have saved."""


@dataclass(frozen=True)
class Asked:
    """What the command line says of where jobs run; None: nothing.

    workers: jobs at a time. devices: the GPUs to pin them to, by number. hours: the time limit of a job. memory: GB of a job.
    """

    launcher: str | None = None
    workers: int | None = None
    devices: tuple[int, ...] | None = None
    cpus_per_cell: int | None = None
    gpus_per_cell: float | None = None
    address: str | None = None
    partition: str | None = None
    hours: float | None = None
    memory: float | None = None


def measure_job(job: Job, bench: Bench) -> Record | str:
    """The record of a job, or what it failed of."""
    try:
        return run_cell(job, bench)
    except FAILURES as error:
        return f"{type(error).__name__}: {error}"


def outcome(measure: Callable[[], Record | str]) -> tuple[str, Record | str | Exception | None]:
    """What a job came to, in the words of `wire.py`; `measure` gives its record, or what it failed of."""
    try:
        check_stop()
        return "ended", measure()
    except Interrupted:
        return "ended", None
    except (UserError, OSError) as error:
        return "raised", error
