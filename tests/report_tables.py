"""Results tables of given records, what stands at a place in them, and how a terminal shows them."""

from rich.console import Console

from ddpm_bench.config.grid import Grid
from ddpm_bench.config.metrics import BOUNDS
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import Checkpoint, Divergence, Record
from ddpm_bench.report import terminal_table
from ddpm_bench.report.results_table import Line, ResultsTable, make_table
from ddpm_bench.report.summary import summaries

GRID = load_grid("table2")
BOUND_TEST, BOUND_TRAIN = BOUNDS["test"], BOUNDS["train"]
BLOWN_UP = Divergence(step=1310, reason="the loss is not finite")


def table_of(records: list[Record], grid: Grid = GRID, selection: int = 0) -> ResultsTable:
    return make_table(summaries(records, grid)[selection])


def line_of(table: ResultsTable, cell: str, grid: Grid = GRID) -> Line:
    return table.lines[[c.name for c in grid.cells].index(cell)]


def entry(table: ResultsTable, cell: str, column: str) -> str:
    return line_of(table, cell).fields[table.columns.index(column)].text


def note(table: ResultsTable, cell: str, column: str) -> str:
    """The footnote of one entry, or ''."""
    letter = line_of(table, cell).fields[table.columns.index(column)].note
    return dict(table.notes).get(letter, "")


def published(table: ResultsTable, cell: str) -> list[str]:
    return [field.text for field in line_of(table, cell).fields[-table.published :]]


def with_metrics(record: Record, **values: float) -> Record:
    found = {**record.last.metrics, **values}
    return record.model_copy(update={"checkpoints": (Checkpoint(step=record.last.step, metrics=found),)})


def terminal(records: list[Record], width: int = 200, grid: Grid = GRID) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(terminal_table(records, grid))
    return capture.get()
