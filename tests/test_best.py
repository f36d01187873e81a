"""Which numbers of a table are bold: the best, and what nothing tells from it; in every writing of the table."""

import pytest
from records import make_checkpoint, make_record, metrics, quick_records
from rich.console import Console

from ddpm_bench.config.published import Published
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import Divergence, Record
from ddpm_bench.report import terminal_table
from ddpm_bench.report.best import best_cells, bold_in_words
from ddpm_bench.report.blocks import Results
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.summary import Summary, summaries
from ddpm_bench.report.writers.latex import to_latex
from ddpm_bench.report.writers.markdown import to_markdown

GRID = load_grid("table2")


def run(cell: str, seed: int, distance: float, diverged: bool = False) -> Record:
    """A record with this distance; its anchor of uniform noise has 522."""
    found = make_checkpoint(400, metrics(cell, seed) | {"fd_train": distance})
    end = Divergence(step=45, reason="the loss is not finite")
    return make_record(GRID, cell, seed, checkpoints=() if diverged else (found,), diverged=end if diverged else None)


def measured(distances: dict[str, list[float]]) -> Summary:
    return summaries([run(c, seed, d) for c, values in distances.items() for seed, d in enumerate(values)], GRID)[0]


def best(summary: Summary, key: str = "fd_train") -> set[str]:
    return set(best_cells(key, summary.rows))


def words(summary: Summary, key: str = "fd_train") -> str:
    return bold_in_words([key], summary.rows)


def test_a_cell_that_is_better_in_every_seed_is_bold_alone_however_much_the_seeds_differ() -> None:
    """Unpaired, the scatter over seeds would drown the difference."""
    found = measured({"mu-L-fixed": [10, 20, 40], "eps-L-fixed": [11, 22.1, 44]})
    assert best(found) == {"mu-L-fixed"}
    assert words(found) == ("Bold: the best, and what the 95% interval of the paired difference cannot tell from it.")


def test_what_the_paired_difference_cannot_tell_from_the_best_is_bold_with_it() -> None:
    found = measured({"mu-L-fixed": [10, 20, 40], "eps-L-fixed": [11, 19, 42], "eps-mse-fixed": [20, 41, 79]})
    assert best(found) == {"mu-L-fixed", "eps-L-fixed"}


def test_the_best_score_is_the_highest() -> None:
    records = [make_record(GRID, cell, seed) for cell in ("mu-L-fixed", "eps-mse-fixed") for seed in (0, 1, 2)]
    assert best(summaries(records, GRID)[0], "is_mean") == {"eps-mse-fixed"}


def test_a_cell_with_a_run_that_failed_or_diverged_is_never_bold() -> None:
    cells = {"mu-L-fixed": [30, 31, 32], "eps-L-fixed": [40, 41, 43]}
    records = [run(cell, seed, d) for cell, values in cells.items() for seed, d in enumerate(values)]
    broken = [run("eps-mse-fixed", seed, 3, diverged=seed == 2) for seed in (0, 1, 2)]
    failed = [run("mu-L-learned", seed, 600) for seed in (0, 1, 2)]
    one_failed = [run("eps-L-learned", seed, 600 if seed == 0 else 1) for seed in (0, 1, 2)]
    found = summaries(records + broken + failed + one_failed, GRID)[0]
    assert best(found) == {"mu-L-fixed"} and "never a cell with a run that failed or diverged" in words(found)
    table = make_table(found)
    at = table.columns.index("fd_train")
    assert [line.fields[at].bold for line in table.lines] == [cell.name == "mu-L-fixed" for cell in GRID.cells]


def test_two_seeds_decide_nothing_and_the_table_says_so() -> None:
    found = measured({"mu-L-fixed": [10, 10.1], "eps-L-fixed": [30, 30.1]})
    assert best(found) == set() and words(found).startswith("No measured number is bold, since it takes 3 seeds")


def test_of_single_runs_the_interval_within_the_run_decides_and_the_table_says_so() -> None:
    """The intervals of these records reach 3% to either side."""
    found = measured({"mu-L-fixed": [100], "eps-L-fixed": [105], "eps-mse-fixed": [110]})
    assert best(found) == {"mu-L-fixed", "eps-L-fixed"}
    assert "another training run may order them otherwise" in words(found)
    assert best(found, "precision") == set() == best(found, "kid_mean")  # without an interval nothing is said


@pytest.mark.parametrize("distances", [{"mu-L-fixed": [10, 11, 12]}, {}])
def test_a_cell_alone_is_not_the_best_of_anything(distances: dict[str, list[float]]) -> None:
    found = measured(distances | {"eps-L-fixed": [600, 601, 602]})
    assert best(found) == set()


def test_the_sources_own_bold_is_shown_and_stands_in_the_grid_file() -> None:
    table = make_table(summaries(quick_records(), GRID)[0])
    bold = [field.text for line in table.lines for field in line.fields[-table.published :] if field.bold]
    assert bold == ["9.46 ± 0.11", "3.17"]
    assert "Published numbers are bold where the source has them so." in table.remarks
    with pytest.raises(ValueError, match="bold names 'fid', which the row does not have"):
        Published(is_mean=3.0, bold=("fid",))


def test_bold_is_bold_in_every_writing() -> None:
    summary = measured({"mu-L-fixed": [10, 11, 12], "eps-L-fixed": [30, 31, 33]})
    table = make_table(summary)
    assert "**11.0 ± 1.0**" in to_markdown([Results(table)]) and "**3.17**" in to_markdown([Results(table)])
    assert r"\textbf{11.0$_{\pm 1.0}$}" in to_latex([table], "t") and r"\textbf{3.17}" in to_latex([table], "t")
    shown = Console(width=200).render(terminal_table(summary.records, GRID))
    assert "11.0 ±1.0" in [text.strip() for text, style, _ in shown if style and style.bold]
