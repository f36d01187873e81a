"""The table: the grid's rows in its order, every number where it belongs, nothing taken for another thing."""

import numpy as np
import pytest
from records import ANCHORS, make_checkpoint, make_record, metrics, paper_records, quick_records
from report_tables import (
    BLOWN_UP,
    BOUND_TEST,
    BOUND_TRAIN,
    GRID,
    entry,
    line_of,
    note,
    published,
    table_of,
    terminal,
    with_metrics,
)

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.published import Published
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import Checkpoint, Divergence, Record
from ddpm_bench.report.blocks import Results
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.latex import to_latex
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.report.writers.numbers import to_frame


def test_rows_groups_and_labels_are_the_grids_in_its_order() -> None:
    table = table_of(quick_records()[::-1])
    assert [(line.group, line.label) for line in table.lines] == [(cell.group, cell.label) for cell in GRID.cells]


def test_published_numbers_are_the_papers() -> None:
    table = table_of(quick_records())
    assert [published(table, cell.name) for cell in GRID.cells] == [
        ["7.28 ± 0.10", "23.69", ""], ["8.06 ± 0.09", "13.22", ""], ["–", "–", ""], ["–", "–", ""],
        ["7.67 ± 0.13", "13.51", "≤ 3.70 (3.69)"], ["9.46 ± 0.11", "3.17", "≤ 3.75 (3.72)"],
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["is_mean", "fd_train", "precision", "recall"])
def test_several_seeds_give_the_mean_and_the_sample_standard_deviation(key: str) -> None:
    values = [metrics("mu-L-learned", seed)[key] for seed in (0, 1, 2)]
    expected = METRICS[key].with_error(float(np.mean(values)), float(np.std(values, ddof=1)))
    table = table_of(quick_records())
    assert (entry(table, "mu-L-learned", key), entry(table, "mu-L-learned", "n")) == (expected, "3")
    assert any("sample standard deviation over n training runs" in remark for remark in table.remarks)


def without_quantiles(record: Record) -> Record:
    """The record as older versions wrote it."""
    bare = tuple(checkpoint.model_copy(update={"quantiles": {}}) for checkpoint in record.checkpoints)
    return record.model_copy(update={"checkpoints": bare})


def test_one_seed_shows_the_interval_within_the_run_and_says_so() -> None:
    record = make_record(GRID, "mu-L-fixed")
    table = table_of([record])
    for key in ("is_mean", "fd_train", "fd_infinity"):
        low, *_, high = record.last.quantiles[key]
        assert entry(table, "mu-L-fixed", key) == METRICS[key].with_interval(record.last.metrics[key], low, high)
    assert any(r.startswith("n = 1: brackets are 95% intervals within the run") for r in table.remarks)


def test_several_seeds_show_no_interval_within_a_run() -> None:
    table = table_of([make_record(GRID, "mu-L-fixed", seed) for seed in (0, 1)])
    assert "[" not in entry(table, "mu-L-fixed", "is_mean") and not any("brackets" in r for r in table.remarks)


def test_a_measured_plus_minus_is_over_seeds_and_nothing_else() -> None:
    """Splits of one sample set and subsets of it scatter, too, but of a single run that is no ± in this table."""
    table = table_of([make_record(GRID, "mu-L-fixed"), without_quantiles(make_record(GRID, "eps-L-fixed"))])
    assert [entry(table, "eps-L-fixed", key) for key in ("is_mean", "fd_train", "n")] == ["4.90", "61.00", "1"]
    assert entry(table, "mu-L-fixed", "kid_mean") == "0.2457"
    assert not any("±" in field.text for line in table.lines for field in line.fields[: -table.published])
    assert not any("±:" in remark for remark in table.remarks)


def test_the_distance_for_infinitely_many_samples_has_its_column_and_a_remark() -> None:
    table = table_of([make_record(GRID, "mu-L-fixed")])
    assert table.heads[table.columns.index("fd_infinity")].text == "FD (embedded), infinite samples ↓"
    assert any("Chong and Forsyth 2020" in remark for remark in table.remarks)


def test_the_published_spread_is_said_to_be_over_splits_and_not_over_runs() -> None:
    table = table_of(quick_records())
    head = table.heads[table.columns.index("IS ↑")]
    assert "over splits of one sample set, not over runs" in dict(table.notes)[head.note]


def test_the_number_of_samples_stands_under_the_table() -> None:
    for records in (quick_records(), paper_records()):
        count = records[0].settings.sampling.samples
        assert any(remark.startswith(f"{count:,} samples a run") for remark in table_of(records).remarks)


def test_the_published_nll_says_that_it_is_a_bound_and_which_table_it_is_from() -> None:
    table = table_of(quick_records())
    column = table.columns[-1]
    assert column == "NLL, test (train), bits/dim ↓"
    assert note(table, "eps-mse-fixed", column) == "from Table 1 of the source"
    assert note(table, "mu-L-fixed", column) == ""
    assert any("published ≤ is an upper bound" in remark for remark in table.remarks)


# Table 1 of the paper, row by row. 31.75 is NCSNv2's FID.
TABLE_1 = [
    ("Conditional", "EBM", "8.30", "37.9", ""),
    ("Conditional", "JEM", "8.76", "38.4", ""),
    ("Conditional", "BigGAN", "9.22", "14.73", ""),
    ("Conditional", "StyleGAN2 + ADA (v1)", "10.06", "2.67", ""),
    ("Unconditional", "Diffusion (original)", "", "", "≤ 5.40"),
    ("Unconditional", "Gated PixelCNN", "4.60", "65.93", "3.03 (2.90)"),
    ("Unconditional", "Sparse Transformer", "", "", "2.80"),
    ("Unconditional", "PixelIQN", "5.29", "49.46", ""),
    ("Unconditional", "EBM", "6.78", "38.2", ""),
    ("Unconditional", "NCSNv2", "", "31.75", ""),
    ("Unconditional", "NCSN", "8.87 ± 0.12", "25.32", ""),
    ("Unconditional", "SNGAN", "8.22 ± 0.05", "21.7", ""),
    ("Unconditional", "SNGAN-DDLS", "9.09 ± 0.10", "15.42", ""),
    ("Unconditional", "StyleGAN2 + ADA (v1)", "9.74 ± 0.05", "3.26", ""),
    ("Unconditional", "Ours (L, fixed isotropic Sigma)", "7.67 ± 0.13", "13.51", "≤ 3.70 (3.69)"),
    ("Unconditional", "Ours (L_simple)", "9.46 ± 0.11", "3.17", "≤ 3.75 (3.72)"),
]


def test_table_1_has_the_papers_rows_and_numbers_in_its_order() -> None:
    grid = load_grid("table1")
    table = table_of([make_record(grid, "eps-mse-fixed")], grid)
    assert [(line.group, line.label, *(f.text for f in line.fields[-3:])) for line in table.lines] == TABLE_1


def test_rows_of_other_models_have_no_measured_numbers_and_the_table_says_whose_they_are() -> None:
    grid = load_grid("table1")
    records = [make_record(grid, "eps-mse-fixed"), make_record(grid, "eps-L-fixed", diverged=BLOWN_UP)]
    table = table_of(records, grid)
    measured = {line.label: {field.text for field in line.fields[: -table.published]} for line in table.lines}
    assert all(measured[label] == {""} for _, label, *_ in TABLE_1[:-2])
    assert any(text.startswith("5.90 [") for text in measured["Ours (L_simple)"])
    assert "–" in measured["Ours (L, fixed isotropic Sigma)"]
    assert any("did not measure them; nor did we" in remark for remark in table.remarks)
    frame = to_frame(summaries(records, grid))
    assert list(frame["label"]) == [label for _, label, *_ in TABLE_1]
    assert set(frame["status"][:-2]) == {"quoted"} and frame["fd_train"][:-1].isna().all()
    assert frame["published_nll_test"].tolist()[-2:] == [3.70, 3.75]
    assert frame["published_nll_is_upper_bound"].dropna().tolist() == [True, False, False, True, True]
    for text in (to_markdown([Results(table)]), to_latex([table], "t"), terminal(records, grid=grid)):
        assert "Gated PixelCNN" in text and "3.03 (2.90)" in text and "5.40" in text


def test_the_bounds_of_test_and_of_training_images_have_a_column_each() -> None:
    table = table_of([make_record(GRID, "mu-L-fixed")])
    assert entry(table, "mu-L-fixed", BOUND_TEST).startswith("4.71 [")
    assert entry(table, "mu-L-fixed", BOUND_TRAIN).startswith("4.69 [")
    train = {key: value for key, value in metrics("mu-L-fixed", 0).items() if key != BOUND_TEST}
    alone = make_record(GRID, "mu-L-fixed", checkpoints=(make_checkpoint(400, train),))
    assert BOUND_TRAIN in table_of([alone]).columns


def test_a_cell_above_8_bits_per_dim_is_marked_and_one_below_is_not() -> None:
    table = table_of(quick_records())
    assert note(table, "mu-mse-fixed", "is_mean").startswith("failed (3 of 3 runs), seed 0: its bound of 8.61")
    assert note(table, "mu-L-learned", "is_mean") == ""
    at_8 = with_metrics(make_record(GRID, "mu-L-fixed"), bound_test_bits_per_dim=8.0)
    assert note(table_of([at_8]), "mu-L-fixed", "is_mean") == ""
    only_train = with_metrics(make_record(GRID, "mu-L-fixed"), bound_train_bits_per_dim=8.01)
    assert "8.01 (train)" in note(table_of([only_train]), "mu-L-fixed", "is_mean")


def test_only_what_diverged_here_gets_a_dash_of_ours_with_step_and_reason() -> None:
    table = table_of([make_record(GRID, "eps-L-fixed", diverged=BLOWN_UP), make_record(GRID, "mu-L-fixed")])
    assert entry(table, "eps-L-fixed", "is_mean") == entry(table, "eps-L-fixed", "fd_train") == "–"
    assert note(table, "eps-L-fixed", "is_mean") == "diverged here at step 1,310 (seed 0): the loss is not finite"
    assert entry(table, "eps-L-fixed", "n") == "0 of 1"
    ours = [field.text for cell in GRID.cells for field in line_of(table, cell.name).fields[: -table.published]]
    assert ours.count("–") == len(table.columns) - table.published - 1


def test_scores_of_a_run_that_diverged_stay_out_of_the_table() -> None:
    record = make_record(GRID, "mu-L-fixed")
    diverged = record.model_copy(update={"outcome": "diverged", "divergence": BLOWN_UP})
    assert entry(table_of([diverged]), "mu-L-fixed", "fd_train") == "–"


def test_a_partly_diverged_cell_shows_the_other_seeds_with_a_note() -> None:
    table = table_of(quick_records())
    values = [metrics("mu-L-fixed", seed)["fd_train"] for seed in (0, 1)]
    expected = METRICS["fd_train"].with_error(float(np.mean(values)), float(np.std(values, ddof=1)))
    assert entry(table, "mu-L-fixed", "fd_train") == expected
    assert entry(table, "mu-L-fixed", "n") == "2 of 3"
    assert note(table, "mu-L-fixed", "n") == (
        "1 of 3 seeds diverged, at step 310 (seed 2): the loss is not finite; the numbers are over the other 2"
    )


def test_scores_of_a_diverged_seed_are_not_in_the_mean_of_the_others() -> None:
    bad = with_metrics(make_record(GRID, "mu-L-fixed", 1), fd_train=900.0)
    bad = bad.model_copy(update={"outcome": "diverged", "divergence": BLOWN_UP})
    assert entry(table_of([make_record(GRID, "mu-L-fixed"), bad]), "mu-L-fixed", "fd_train").startswith("81.0 [")


def test_a_cell_that_nobody_measured_says_so_and_is_no_dash() -> None:
    table = table_of(quick_records())
    assert entry(table, "eps-mse-fixed", "is_mean") == "not measured"
    assert entry(table, "eps-mse-fixed", "n") == "0"
    assert "–" not in [field.text for field in line_of(table, "eps-mse-fixed").fields]


def test_a_cell_that_the_paper_left_blank_shows_our_numbers_beside_the_papers_dash() -> None:
    table = table_of(quick_records())
    assert entry(table, "eps-L-learned", "fd_train").startswith("64.3 ± ")
    assert published(table, "eps-L-learned") == ["–", "–", ""]


def test_a_metric_that_one_run_lacks_is_neither_a_dash_nor_empty() -> None:
    record = make_record(GRID, "mu-L-fixed")
    found = {key: value for key, value in record.last.metrics.items() if key != "recall"}
    bare = record.model_copy(update={"checkpoints": (Checkpoint(step=record.last.step, metrics=found),)})
    table = table_of([bare, make_record(GRID, "eps-L-fixed")])
    assert entry(table, "mu-L-fixed", "recall") == "n/a"
    assert note(table, "mu-L-fixed", "recall") == "n/a: this metric was not measured here"
    assert "recall" not in table_of([bare]).columns


def test_samples_that_were_asked_for_no_class_say_so_where_others_have_an_agreement() -> None:
    asked = with_metrics(make_record(GRID, "mu-L-fixed"), class_agreement=0.8)
    table = table_of([asked, make_record(GRID, "eps-L-fixed")])
    assert entry(table, "eps-L-fixed", "class_agreement") == "n/a"
    assert note(table, "eps-L-fixed", "class_agreement") == "n/a: no classes were asked of these samples"


def test_kernel_distance_and_test_set_distance_have_columns_when_measured() -> None:
    record = with_metrics(make_record(GRID, "mu-L-fixed"), kid_mean=0.0123, kid_std=0.0011, fd_test=99.5)
    table = table_of([record])
    assert (entry(table, "mu-L-fixed", "kid_mean"), entry(table, "mu-L-fixed", "fd_test")) == (
        "0.0123",
        "99.50",
    )


def test_headings_come_from_the_record_and_only_inceptions_are_fid_and_is() -> None:
    ours, theirs = table_of(quick_records()), table_of(paper_records())
    heads = [head.text for head in ours.heads]
    assert heads[:2] == ["IS (embedded) ↑", "FD (embedded) ↓"]
    assert not any("FID" in head for head in heads[: -ours.published])
    assert [head.text for head in theirs.heads[:2]] == ["IS ↑", "FID ↓"]


def test_last_and_best_checkpoints_are_apart_and_never_mixed() -> None:
    last, best = (table_of(paper_records(), selection=i) for i in (0, 1))
    assert entry(last, "eps-mse-fixed", "fd_train") == "33.00 [32.01, 33.99]"
    assert entry(best, "eps-mse-fixed", "fd_train").startswith("26.40 [")
    assert entry(best, "eps-mse-fixed", "step") == "600,000"
    assert "last checkpoint" in last.title and "lowest FID" in best.title
    # The bound was measured for the last checkpoint only and must not stand beside the best one's scores.
    assert BOUND_TEST in last.columns and BOUND_TEST not in best.columns


def test_one_checkpoint_a_run_makes_one_table() -> None:
    assert [summary.selection for summary in summaries(quick_records(), GRID)] == ["last"]


def test_anchors_stand_under_the_rows_with_the_same_metrics() -> None:
    table = table_of(quick_records())
    assert [line.label for line in table.anchors] == list(ANCHORS)
    at = table.columns.index("fd_train")
    assert [line.fields[at].text for line in table.anchors] == ["4.20", "61.50", "522.00"]
    assert {len(line.fields) for line in (*table.lines, *table.anchors)} == {len(table.heads)}


def test_sfid_precision_and_recall_stand_beside_fid_where_a_row_has_them() -> None:
    grid = load_grid("guidance-imagenet")
    [summary] = summaries([make_record(grid, "conditional-s1")], grid)
    table = make_table(summary)
    assert [head.text for head in table.heads[-table.published :]] == [
        "IS ↑",
        "FID ↓",
        "sFID ↓",
        "precision ↑",
        "recall ↑",
    ]
    of_cell = {line.cell: [field.text for field in line.fields[-table.published :]] for line in table.lines}
    assert of_cell["conditional-s1"] == ["186.70", "4.59", "5.25", "0.82", "0.52"]
    assert of_cell["conditional-s2"] == [""] * 5
    assert not summary.comparable_in("recall") and "sfd_train" not in summary.differences  # it was not measured
    [plain] = summaries([make_record(GRID, "eps-mse-fixed")], GRID)
    assert "precision" not in plain.differences
    assert not {"sFID ↓", "recall ↑"} & {head.text for head in make_table(plain).heads[-make_table(plain).published :]}


def test_a_grid_without_published_numbers_has_no_columns_for_them() -> None:
    cells = tuple(cell.model_copy(update={"published": Published()}) for cell in GRID.cells)
    table = table_of(quick_records(), GRID.model_copy(update={"cells": cells}))
    assert table.published == 0 and table.verdict == ""
    assert len(to_markdown([Results(table)]).splitlines()[0].split("|")) == len(table.heads) + 3


def test_more_than_26_footnotes_have_letters_of_their_own() -> None:
    cells = tuple(GRID.cells[0].model_copy(update={"name": f"c{i}", "published": Published()}) for i in range(30))
    grid = GRID.model_copy(update={"cells": cells})
    records = [make_record(grid, f"c{i}", diverged=Divergence(step=i, reason="x")) for i in range(30)]
    table = table_of(records, grid)
    assert len({letter for letter, _ in table.notes}) == 30
    assert line_of(table, "c27", grid).fields[0].note == "bb"
