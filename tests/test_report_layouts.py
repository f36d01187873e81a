"""The table as it is written: in CSV, JSON, the terminal, Markdown and LaTeX, in full and compact, and what each has to say."""

import json
import math
import re

import numpy as np
import pytest
from records import ANCHORS, UNVERIFIED, make_record, metrics, paper_records, quick_records
from report_tables import GRID, entry, published, table_of, terminal, with_metrics
from rich.cells import cell_len

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import Divergence, Record
from ddpm_bench.report.blocks import Results
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.summary import in_seeds, summaries
from ddpm_bench.report.writers.latex import to_latex
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.report.writers.numbers import to_frame, to_json


def layouts(records: list[Record], selection: int = 0) -> list[str]:
    """Every text in which a table is written, in one line each."""
    table = table_of(records, selection=selection)
    return [
        " ".join(text.split()) for text in (to_markdown([Results(table)]), to_latex([table], "t"), terminal(records))
    ]


def test_every_layout_says_that_quick_is_not_comparable_and_why() -> None:
    for text in layouts(quick_records()):
        assert "Not comparable with published numbers" in text
        assert "FD (embedded) is not FID" in text
        assert "data, size, training steps" in text
    frame = to_frame(summaries(quick_records(), GRID))
    assert not frame["comparable_with_published"].any()


def test_the_papers_conditions_are_comparable_at_the_best_checkpoint_and_not_at_the_last() -> None:
    last, best = (table_of(paper_records(), selection=i) for i in (0, 1))
    assert best.verdict == ""
    frame = to_frame(summaries(paper_records(), GRID))
    assert frame["comparable_with_published"].tolist() == [False] * len(GRID.cells) + [True] * len(GRID.cells)
    assert last.verdict == (
        "Not comparable with published numbers. Not as published: checkpoint, how the bound was measured."
    )


def test_unverified_weights_are_marked_at_every_heading_in_every_layout() -> None:
    records = paper_records(extractor=UNVERIFIED)
    for text in layouts(records, 0) + layouts(records, 1):
        assert "unverified extractor weights (inception, SHA-256 bad0bad0bad0" in text
    for table in (table_of(records, selection=i) for i in (0, 1)):
        for head in table.heads[:4]:
            assert dict(table.notes)[head.note].startswith("unverified")
    assert not to_frame(summaries(records, GRID))["extractor_verified"].any()
    assert "unverified" not in layouts(paper_records())[0]
    assert to_frame(summaries(paper_records(), GRID))["extractor_verified"].all()


def test_csv_numbers_are_the_means_and_standard_deviations() -> None:
    frame = to_frame(summaries(quick_records(), GRID)).set_index("cell")
    values = [metrics("mu-L-learned", seed)["is_mean"] for seed in (0, 1, 2)]
    assert frame.loc["mu-L-learned", "is_mean"] == pytest.approx(np.mean(values))
    assert frame.loc["mu-L-learned", "is_mean_sd_over_seeds"] == pytest.approx(np.std(values, ddof=1))
    assert list(frame["status"]) == [
        "measured", "partly diverged", "failed", "measured", "diverged", "not measured",
    ]  # fmt: skip
    assert frame.loc["eps-mse-fixed", "published_fid"] == 3.17
    assert frame[["fd_train"]].isna().squeeze().tolist() == [False, False, False, False, True, True]


def test_csv_of_one_seed_claims_no_spread_over_seeds() -> None:
    frame = to_frame(summaries([make_record(GRID, "mu-L-fixed")], GRID)).set_index("cell")
    assert np.isnan(float(frame.loc["mu-L-fixed", "is_mean_sd_over_seeds"]))
    assert frame.loc["mu-L-fixed", "is_std"] == pytest.approx(0.11)


def test_the_json_has_every_seeds_value_beside_mean_and_deviation() -> None:
    [found] = json.loads(to_json(summaries(quick_records(), GRID)))
    rows = {row["cell"]: row for row in found["rows"]}
    values = {str(seed): metrics("mu-L-learned", seed)["fd_train"] for seed in (0, 1, 2)}
    distance = rows["mu-L-learned"]["metrics"]["fd_train"]
    assert (distance["by_seed"], distance["n"]) == (values, 3)
    assert distance["mean"] == pytest.approx(np.mean(list(values.values())))
    assert distance["sd_over_seeds"] == pytest.approx(np.std(list(values.values()), ddof=1))
    assert [row["status"] for row in found["rows"]] == [
        "measured", "partly diverged", "failed", "measured", "diverged", "not measured",
    ]  # fmt: skip
    assert rows["mu-L-fixed"]["seeds"] == {"done": [0, 1], "failed": [], "diverged": [2]}
    assert rows["eps-mse-fixed"]["published"]["fid"] == 3.17 and rows["eps-mse-fixed"]["metrics"] == {}
    assert found["anchors"]["uniform noise"]["fd_train"] == 522.0


def test_the_json_of_one_seed_claims_no_spread_and_infinity_is_a_string() -> None:
    record = with_metrics(make_record(GRID, "mu-L-fixed"), kid_mean=math.inf)
    [found] = json.loads(to_json(summaries([record], GRID)))
    assert found["rows"][1]["metrics"]["is_mean"]["sd_over_seeds"] is None
    assert found["rows"][1]["metrics"]["kid_mean"]["mean"] == "Infinity"


def test_a_compact_table_has_score_distance_and_test_bound_beside_the_published_ones() -> None:
    summary = summaries([make_record(GRID, cell.name, seed) for cell in GRID.cells for seed in (0, 1, 2)], GRID)[0]
    table = make_table(summary, compact=True)
    assert [head.text for head in table.heads] == [
        "IS (embedded) ↑", "FD (embedded) ↓", "bits/dim, test ↓", "IS ↑", "FID ↓", "NLL, test ↓",
    ]  # fmt: skip
    assert published(table, "eps-mse-fixed") == ["9.46 ± 0.11", "3.17", "≤ 3.75"] and table.anchors == ()
    assert "n = 3 training runs a cell (seeds 0, 1, 2) of 400 steps of 64 images" in table.setting
    for said in ("fashion-mnist-10k, 16x16 pixels", "512 samples a run in 100 steps", "on 640 test images"):
        assert said in table.setting


def test_a_compact_table_counts_the_runs_of_each_cell_only_where_they_differ() -> None:
    records = [make_record(GRID, "mu-L-fixed", seed) for seed in (0, 1)] + [make_record(GRID, "eps-L-fixed")]
    table = make_table(summaries(records, GRID)[0], compact=True)
    assert "n" in table.columns and "; n training runs (seeds 0, 1) of" in table.setting
    assert (entry(table, "mu-L-fixed", "n"), entry(table, "eps-L-fixed", "n")) == ("2", "1")


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([7], "seed 7"), ([2, 0, 1, 1], "seeds 0, 1, 2"), ([0, 2], "seeds 0, 2"), ([0, 1, 2, 3], "seeds 0 to 3"),
        ([*range(100), 200, 201, 300], "seeds 0 to 99, 200, 201, 300"),
    ],
)  # fmt: skip
def test_many_seeds_in_a_row_are_named_by_their_ends(seeds: list[int], said: str) -> None:
    assert in_seeds(seeds) == said


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_the_terminal_table_fits_and_cuts_nothing(width: int) -> None:
    one = load_grid("table1")
    tables = (
        (quick_records(), GRID),
        (paper_records(extractor=UNVERIFIED), GRID),
        ([make_record(one, "eps-L-fixed")], one),
    )
    for records, grid in tables:
        text = terminal(records, width, grid)
        assert max(map(cell_len, text.splitlines())) <= width
        assert "…" not in text.replace("bad0bad0bad0…", "")
        for number in (
            *(("23.69", "13.22") if grid is GRID else ("5.40", "31.75")),
            "13.51",
            "3.17",
            "±0.13",
            "(3.72)",
        ):
            assert number in text


def test_a_narrow_terminal_goes_without_the_minor_columns_and_a_wide_one_does_not() -> None:
    for width, there in ((80, False), (160, True)):
        table = terminal(quick_records(), width).partition("Not comparable")[0]
        assert ("precision" in table, "KD" in table) == (there, there)


def test_the_terminal_reads_no_markup_in_the_users_text() -> None:
    cells = tuple(cell.model_copy(update={"label": "[red]x[/red] [/]"}) for cell in GRID.cells)
    grid = GRID.model_copy(update={"cells": cells})
    reason = Divergence(step=3, reason="[bold]nan[/bold] [/]")
    text = terminal([make_record(grid, "mu-L-fixed", diverged=reason)], grid=grid)
    assert "[red]x[/red] [/]" in text and "[bold]nan[/bold] [/]" in text


def test_markdown_tables_have_equally_many_columns_in_every_line() -> None:
    nasty = Divergence(step=3, reason="a | b").model_copy(update={"reason": "a | b\n| c |"})
    cells = tuple(cell.model_copy(update={"label": "x | y || z"}) for cell in GRID.cells)
    grid = GRID.model_copy(update={"cells": cells})
    text = to_markdown([Results(table_of([make_record(grid, "mu-L-fixed", diverged=nasty)], grid))])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert len(lines) == 2 + 2 + len(cells) + 1 + len(ANCHORS)


def test_latex_rows_have_equally_many_columns() -> None:
    text = to_latex([table_of(quick_records())], "t")
    columns = re.search(r"X(r+)@\{\\hspace\{10pt\}\}(r+)@", text)
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {len(columns[1] + columns[2])}
