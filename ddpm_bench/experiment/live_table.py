"""The live table of a grid: one row for each cell and seed, drawn over itself while cells run; its last state stays."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from ddpm_bench.config.metrics import BOUNDS, DISTANCE, SCORE
from ddpm_bench.experiment.job import Job
from ddpm_bench.records.record import Record
from ddpm_bench.runtime import terminal
from ddpm_bench.runtime.observer import Observer, Reading

STYLES = {"waiting": "dim", "saved": "yellow", "done": "green", "diverged": "magenta", "failed": "bold red"}
"""The states of a row that does not run; those of one that does are the phases of `run_cell`."""
SCORES = (DISTANCE, SCORE, BOUNDS["test"])
GAP = 2
FRAME = 4  # lines around the rows: two of headings, the summary, the cursor's


@dataclass
class LiveRow(Observer):
    """One cell and seed: a screen that keeps the last of everything."""

    every = 0.5

    cell: str
    seed: int
    state: str = "waiting"
    reading: Reading | None = None
    loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    settled: float = 0.0  # when it ended, on the monotonic clock

    def show(self, reading: Reading) -> None:
        self.reading, self.loss = reading, self.loss if reading.loss is None else reading.loss

    def phase(self, name: str) -> None:
        self.state, self.reading = name, None

    def scores(self, step: int, metrics: Mapping[str, float]) -> None:
        self.metrics = {**self.metrics, **metrics}

    @property
    def running(self) -> bool:
        return self.state not in STYLES

    def settle(self, state: str) -> None:
        self.state, self.reading, self.settled = state, None, time.monotonic()


class Board:
    """The rows by job name. Shown at a terminal; elsewhere its screens print plain lines, and it is not drawn."""

    def __init__(self, jobs: Sequence[Job], labels: tuple[str, str], shown: bool) -> None:
        """`labels`: headings of the extractor's distance and score."""
        self.rows = {job.name: LiveRow(job.cell.name, job.seed) for job in jobs}
        self.labels, self.shown = labels, shown
        self.began, self.before, self.closed = time.monotonic(), 0, False

    def observer(self, job: Job) -> Observer:
        """Who watches the job: its row, or where none is drawn plain lines."""
        return self.rows[job.name] if self.shown else terminal.Lines()

    def hold(self, job: str, record: Record) -> None:
        """Measured before this command."""
        self.before += 1
        self.settle(job, record)

    def settle(self, job: str, result: Record | str) -> None:
        """The job ended with a record, or with what it failed of."""
        row = self.rows[job]
        if isinstance(result, Record):
            row.metrics = dict(result.last.metrics) if result.last else {}
        row.settle(result.outcome if isinstance(result, Record) else "failed")

    def close(self) -> None:
        """Nothing runs any more: what still did was interrupted and has saved."""
        self.closed = True
        for row in self.rows.values():
            if row.running:
                row.settle("saved")

    # ---- what is drawn ----------------------------------------------------------------------------------------------

    def __rich_console__(self, terminal: Console, options: ConsoleOptions) -> RenderResult:
        rows = self._drawn(options.size.height - FRAME)
        columns = _within(options.max_width, self._columns(rows))
        height = max(len(column.heads) for column in columns)
        # Lines of our own, drawn twice a second beside the cells: of one core they take 0.1, 0.3 and 0.8% for 6, 18 and 60
        # rows, where rich's Table takes 1.3, 3.5 and 10.8% (2.5 and 8.4% with widths given; rich 15, Intel Xeon).
        lines = [("bold", [column.head(line - height) for column in columns]) for line in range(height)]
        lines += [(STYLES.get(row.state, "cyan"), [column.of(row) for column in columns]) for row in rows]
        for style, entries in lines:
            yield Text(
                (" " * GAP).join(map(_LiveColumn.fit, columns, entries)), style, overflow="ellipsis", no_wrap=True
            )
        yield Text(self._summary(len(rows)), style="dim", overflow="ellipsis", no_wrap=True)

    def _drawn(self, room: int) -> list[LiveRow]:
        """All rows, or as many as there is room for: what runs, then what ended last, then what waits."""
        rows = list(self.rows.values())
        if self.closed or len(rows) <= room:
            return rows
        rank = {id(row): (not row.running, -row.settled) for row in rows}
        kept = {id(row) for row in sorted(rows, key=lambda row: rank[id(row)])[: max(room, 1)]}
        return [row for row in rows if id(row) in kept]

    def _columns(self, rows: Sequence[LiveRow]) -> list["_LiveColumn"]:
        """In the order shown. Those with the highest `rank` go first where the terminal is narrow."""

        def score(key: str) -> Callable[[LiveRow], str]:
            return lambda row: f"{row.metrics[key]:z.2f}" if key in row.metrics else ""

        useless = {"seed"} if len({row.seed for row in self.rows.values()}) == 1 else set()
        if self.closed:
            useless |= {"progress", "speed", "ETA"}
        columns: list[tuple[str, int, Callable[[LiveRow], str]]] = [
            ("cell", 0, lambda row: row.cell),
            ("seed", 1, lambda row: str(row.seed)),
            ("state", 0, lambda row: row.state),
            ("progress", 2, lambda row: f"{row.reading.done:,}/{row.reading.total:,}" if row.reading else ""),
            ("loss", 7, lambda row: "" if row.loss is None else f"{row.loss:.4f}"),
            ("speed", 8, lambda row: row.reading.speed if row.reading else ""),
            ("ETA", 4, lambda row: _clock(row.reading.eta) if row.reading else ""),
            *zip((*self.labels, "bits/dim"), (3, 6, 5), map(score, SCORES), strict=True),
        ]
        return [_LiveColumn(head, rank, of, rows) for head, rank, of in columns if head not in useless]

    def _summary(self, drawn: int) -> str:
        states = [row.state for row in self.rows.values()]
        finished = sum(state in ("done", "diverged", "failed") for state in states)
        seconds, now = time.monotonic() - self.began, finished - self.before
        parts = [f"{finished} of {len(states)} finished", f"{_clock(seconds)} so far"]
        if now and finished < len(states):
            parts.append(f"about {_clock(seconds * (len(states) - finished) / now)} to go")
        if drawn < len(states):
            parts.append(f"{len(states) - drawn} not drawn for want of lines")
        return ", ".join(parts)


class _LiveColumn:
    """A column as wide as what it shows. A heading of several words stands on several lines."""

    def __init__(self, head: str, rank: int, of: Callable[[LiveRow], str], rows: Sequence[LiveRow]) -> None:
        self.heads, self.rank, self.of = head.split(), rank, of
        self.width = max(map(cell_len, (*self.heads, *map(of, rows))))

    def head(self, line: int) -> str:
        """Of the heading, whose last line is -1."""
        return self.heads[line] if -line <= len(self.heads) else ""

    def fit(self, entry: str) -> str:
        space = " " * (self.width - cell_len(entry))
        return entry + space if self.heads[0] in ("cell", "state") else space + entry


def _within(width: int, columns: list[_LiveColumn]) -> list[_LiveColumn]:
    while sum(column.width + GAP for column in columns) - GAP > width and any(column.rank for column in columns):
        columns.remove(max(columns, key=lambda column: column.rank))
    return columns


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextlib.contextmanager
def board(jobs: Sequence[Job], labels: tuple[str, str]) -> Iterator[Board]:
    """The live table while the block runs, where there is a terminal. However the block ends, its last state stays."""
    made = Board(jobs, labels, terminal.can_draw())
    if not made.shown:
        yield made
        return
    with Live(made, console=terminal.stderr, refresh_per_second=2, redirect_stdout=False):
        try:
            yield made
        finally:
            made.close()
