"""Claims of order: right on records whose order is known, silent on equal ones, and only what the source says."""

from dataclasses import replace

import numpy as np
import pytest
from records import make_record, paper_records, quick_records

from ddpm_bench.config.grid import Grid, load_grid
from ddpm_bench.config.published import Claim
from ddpm_bench.records.record import Checkpoint, Divergence, Record
from ddpm_bench.report.claims import (
    ALPHA,
    SEEDS,
    Examined,
    claim_lines,
    difference_interval,
    examine_claims,
)
from ddpm_bench.report.sections.claims import claim_rows, claims_section
from ddpm_bench.report.summary import Estimate, summaries
from ddpm_bench.report.writers.markdown import to_markdown

GRID = load_grid("table2")
CELLS = tuple(cell.name for cell in GRID.cells)
BOUNDS = ("bound_test_bits_per_dim", "bound_train_bits_per_dim")
GONE = Divergence(step=9, reason="the loss is not finite")


def with_claims(*claims: dict) -> Grid:
    return GRID.model_copy(update={"claims": tuple(Claim(text="t", source="s", **claim) for claim in claims)})


def order(better: str, *worse: str, metrics: tuple[str, ...] = ("fd_train",)) -> dict:
    return {"metrics": metrics, "better": better, "worse": worse}


TEMPLATES = {cell: make_record(GRID, cell) for cell in CELLS}


def records_of(values: dict[str, list[float]], metric: str = "fd_train") -> list[Record]:
    """A record a cell and seed whose metric is given; None stands for a run that diverged."""
    records = []
    for cell, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            if value is None:
                update = {"outcome": "diverged", "divergence": GONE, "checkpoints": (), "bounds": ()}
            else:
                found = {**TEMPLATES[cell].last.metrics, metric: value}
                update = {"checkpoints": (Checkpoint(step=400, metrics=found),)}
            records.append(TEMPLATES[cell].model_copy(update=update | {"seed": seed}))
    return records


def outcome_of(values: dict, claim: dict, metric: str = "fd_train") -> Examined:
    [one] = examine_claims(summaries(records_of(values, metric), with_claims(claim)))
    return one


def test_a_known_order_is_supported_and_its_reverse_contradicted() -> None:
    values = {"eps-mse-fixed": [10.0, 10.2, 9.9], "eps-L-fixed": [14.0, 14.3, 13.9]}
    assert outcome_of(values, order("eps-mse-fixed", "eps-L-fixed")).outcome == "supported"
    assert outcome_of(values, order("eps-L-fixed", "eps-mse-fixed")).outcome == "contradicted"


def test_of_a_score_more_is_better() -> None:
    values = {"eps-mse-fixed": [5.0, 5.1, 4.9], "eps-L-fixed": [3.0, 3.1, 2.9]}
    claim = order("eps-mse-fixed", "eps-L-fixed", metrics=("is_mean",))
    assert outcome_of(values, claim, "is_mean").outcome == "supported"
    reverse = order("eps-L-fixed", "eps-mse-fixed", metrics=("is_mean",))
    assert outcome_of(values, reverse, "is_mean").outcome == "contradicted"


def test_two_seeds_decide_nothing_however_clear() -> None:
    one = outcome_of(
        {"eps-mse-fixed": [1.0, 1.0, 1.0], "eps-L-fixed": [90.0, 90.1]}, order("eps-mse-fixed", "eps-L-fixed")
    )
    assert one.outcome == "undecided" and one.reason == f"eps-L-fixed has 2 of the {SEEDS} seeds that it takes"


def test_an_interval_that_holds_zero_decides_nothing() -> None:
    one = outcome_of(
        {"mu-L-fixed": [10.0, 12.0, 11.0], "mu-mse-fixed": [11.0, 13.0, 12.0]}, order("mu-L-fixed", "mu-mse-fixed")
    )
    assert (one.outcome, one.reason) == ("undecided", "the interval holds zero")


def test_all_comparisons_must_hold_and_the_open_ones_are_named() -> None:
    values = {"eps-mse-fixed": [10.0, 10.2, 9.9], "eps-L-fixed": [14.0, 14.3, 13.9], "mu-L-fixed": [10.1, 10.0, 9.8]}
    one = outcome_of(values, order("eps-mse-fixed", "eps-L-fixed", "mu-L-fixed"))
    assert [comparison.outcome for comparison in one.comparisons] == ["supported", "undecided"]
    assert one.outcome == "undecided"
    assert one.reason.startswith(
        "1 of 2 comparisons (Frechet distance to the training set: eps-mse-fixed − mu-L-fixed)"
    )


def test_a_contradiction_is_held_against_the_number_of_comparisons() -> None:
    """The same data contradict a claim of one comparison and leave one of four undecided."""
    close = [10.0, 10.1, 9.9]
    values = {"eps-mse-fixed": [10.31, 10.4, 10.45], "eps-L-fixed": close, "mu-L-fixed": [20.0, 20.1, 20.2]}
    assert outcome_of(values, order("eps-mse-fixed", "eps-L-fixed")).outcome == "contradicted"
    many = outcome_of({**values, "mu-L-learned": [20.0, 20.3, 20.2], "mu-mse-fixed": [20.0, 20.2, 20.2]},
                  order("eps-mse-fixed", "eps-L-fixed", "mu-L-fixed", "mu-L-learned", "mu-mse-fixed"))  # fmt: skip
    assert many.outcome == "undecided" and "not for all comparisons together" in many.reason


ALIKE = {"metrics": ("fd_train",), "alike": ("eps-L-fixed", "mu-L-fixed"), "margin": 0.1}


@pytest.mark.parametrize(
    ("first", "outcome"),
    [([100.5, 99.8, 100.1], "supported"), ([120.0, 120.3, 119.8], "contradicted"), ([80.0, 80.3, 79.8], "contradicted"),
     ([95.0, 105.0, 100.0], "undecided"), ([109.0, 109.6, 110.2], "undecided")],
)  # fmt: skip
def test_alike_takes_an_interval_within_the_margin(first: list[float], outcome: str) -> None:
    assert outcome_of({"eps-L-fixed": first, "mu-L-fixed": [100.2, 99.9, 100.0]}, ALIKE).outcome == outcome


def test_a_cell_whose_every_seed_diverged_is_the_worse_one() -> None:
    fine, gone = [10.0, 11.0, 12.0], [None, None, None]
    claim = order("mu-L-fixed", "mu-mse-fixed")
    for better, worse, outcome in ((fine, gone, "supported"), (gone, fine, "contradicted"), (gone, gone, "undecided")):
        one = outcome_of({"mu-L-fixed": better, "mu-mse-fixed": worse}, claim)
        assert one.outcome == outcome
    assert outcome_of({"eps-L-fixed": fine, "mu-L-fixed": gone}, ALIKE).outcome == "contradicted"


def test_many_pairs_take_more_diverged_seeds() -> None:
    claim = order("mu-L-fixed", "mu-mse-fixed", "eps-L-learned")
    for n, outcome in ((3, "undecided"), (4, "supported")):
        values = {"mu-L-fixed": [10.0] * n, "mu-mse-fixed": [None] * n, "eps-L-learned": [None] * n}
        assert outcome_of(values, claim).outcome == outcome


def test_means_over_the_seeds_that_happened_to_finish_decide_nothing() -> None:
    one = outcome_of(
        {"mu-L-fixed": [10.0, 10.1, 10.2], "mu-mse-fixed": [90.0, 90.1, 90.2, None]},
        order("mu-L-fixed", "mu-mse-fixed"),
    )
    assert one.outcome == "undecided" and "1 of 4 of mu-mse-fixed" in one.reason


def test_a_metric_that_was_not_measured_decides_nothing() -> None:
    one = outcome_of(
        {"mu-L-fixed": [1.0] * 3, "mu-mse-fixed": [2.0] * 3}, order("mu-L-fixed", "mu-mse-fixed", metrics=("fd_test",))
    )
    assert one.outcome == "undecided" and "not measured" in one.reason


def test_within_run_intervals_enter_nothing() -> None:
    values = {"eps-mse-fixed": [10.0, 10.2, 9.9], "eps-L-fixed": [14.0, 14.3, 13.9]}
    grid, records = with_claims(order("eps-mse-fixed", "eps-L-fixed")), records_of(values)
    wide = [
        record.model_copy(
            update={"checkpoints": (record.last.model_copy(update={"quantiles": {"fd_train": (0, 1, 2, 3, 99)}}),)}
        )
        for record in records
    ]
    assert (
        examine_claims(summaries(wide, grid))[0].comparisons == examine_claims(summaries(records, grid))[0].comparisons
    )


@pytest.mark.parametrize(("n", "m", "ratio"), [(3, 3, 1), (3, 3, 8), (3, 10, 1), (5, 3, 3), (3, 10, 0.2)])
@pytest.mark.parametrize("alpha", [ALPHA, ALPHA / 10])
def test_the_interval_covers_whatever_the_two_scatters(n: int, m: int, ratio: float, alpha: float) -> None:
    rng, runs = np.random.default_rng(1), 1000
    a, b = rng.normal(size=(runs, n)), ratio * rng.normal(size=(runs, m))
    missed = sum(not low <= 0 <= high for low, high in map(lambda x, y: difference_interval(x, y, alpha), a, b))
    assert missed / runs <= alpha + 2 * (alpha / runs) ** 0.5


ALL_OTHERS = order("eps-mse-fixed", *(cell for cell in CELLS if cell != "eps-mse-fixed"))


@pytest.mark.parametrize("claim", [ALL_OTHERS, order("mu-L-fixed", "mu-L-learned")])
def test_equal_cells_get_a_verdict_in_at_most_one_of_twenty_grids(claim: dict) -> None:
    [one] = summaries([record for cell in CELLS for record in records_of({cell: [1.0] * 3})], with_claims(claim))
    rng, runs, verdicts = np.random.default_rng(2), 400, 0
    for _ in range(runs):
        rows = []
        for row in one.rows:
            values = tuple(10 + rng.normal(size=3))
            rows.append(replace(row, estimates={"fd_train": Estimate(float(np.mean(values)), 1.0, values)}))
        verdicts += examine_claims([replace(one, rows=tuple(rows))])[0].outcome != "undecided"
    # The standard error of a rate of 5% over 400 grids is 1.1%.
    assert verdicts / runs <= ALPHA + 0.022


def test_the_claims_of_table_2_are_the_papers_order_of_its_own_numbers() -> None:
    """Where the paper printed numbers for both cells, they obey what it says."""
    published = {cell.name: cell.published for cell in GRID.cells}
    compared = 0
    for claim in GRID.claims:
        for metric in claim.metrics:
            for first, second in claim.pairs:
                a, b = published[first].of(metric), published[second].of(metric)
                if a is not None and b is not None:
                    compared += 1
                    if claim.alike:
                        assert abs(a - b) <= claim.margin * b
                    else:
                        assert a > b if metric == "is_mean" else a < b
    assert compared == 2 + 6 + 2 + 2  # bounds, best sample quality, learned variance for mu-tilde, alike
    assert all("section" in claim.source for claim in GRID.claims)


def test_table_1_has_the_two_claims_of_its_section() -> None:
    claims = load_grid("table1").claims
    assert [(claim.better, claim.worse) for claim in claims] == [
        ("eps-L-fixed", ("eps-mse-fixed",)), ("eps-mse-fixed", ("eps-L-fixed",)),
    ]  # fmt: skip
    assert claims[0].metrics == BOUNDS and claims[1].metrics == ("is_mean", "fd_train")


def test_scores_are_taken_of_the_best_checkpoint_and_bounds_of_the_last() -> None:
    found = {one.claim.metrics[0]: one.checkpoint for one in examine_claims(summaries(paper_records(), GRID))}
    assert found == {"bound_test_bits_per_dim": "last checkpoint", "is_mean": "checkpoint with the lowest FID"}


def test_the_section_shows_every_claim_with_verdict_reason_and_comparisons() -> None:
    tables = summaries(quick_records(), GRID)
    text = to_markdown(claims_section(tables))
    rows = [line for line in text.splitlines() if "| **" in line and line.count("|") == 4]
    assert len(rows) == len(GRID.claims)
    assert "which are not the source's" in text and "Bonferroni" in text and "over seeds" in text
    assert (
        len(
            {
                line.count("|") - line.count(r"\|")
                for line in text.split("<details>")[1].splitlines()
                if line.startswith("|")
            }
        )
        == 1
    )
    one = examine_claims(tables)[0]
    assert [len(row) for row in claim_rows(one, tables[0])] == [6] * len(one.comparisons) and one.comparisons
    assert claim_lines(tables)[0].startswith("undecided: Training on the true variational bound L")


def test_a_grid_without_claims_has_no_section() -> None:
    grid = GRID.model_copy(update={"claims": ()})
    assert claims_section(summaries(quick_records(), grid)) == []
