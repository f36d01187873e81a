"""Claims of order: right on records whose order is known, silent on equal ones, and only what the source says."""

from dataclasses import replace

import numpy as np
import pytest
from records import make_record, paper_records, quick_records

from ddpm_bench.config.grid import Grid
from ddpm_bench.config.published import Claim
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import Checkpoint, Divergence, Record
from ddpm_bench.report.claims import SEEDS, Examined, claim_lines, direction, examine_claims
from ddpm_bench.report.effects import ALPHA, Effect, effect, holm
from ddpm_bench.report.sections.claims import claim_rows, claims_section
from ddpm_bench.report.summary import summaries
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
    assert one.outcome == "undecided" and one.p is None
    assert one.deciding.reason == f"eps-L-fixed has 2 of the {SEEDS} seeds that a verdict takes"


def test_seeds_that_move_both_cells_do_not_hide_their_difference() -> None:
    """Welch's interval of the same numbers contains zero, by far."""
    values = {"mu-L-fixed": [10.0, 14.0, 19.0], "mu-mse-fixed": [11.0, 15.3, 21.0]}
    one = outcome_of(values, order("mu-L-fixed", "mu-mse-fixed"))
    assert one.outcome == "supported" and one.deciding.effect.pairs == 3
    shifted = {seed + 3: value for seed, value in enumerate(values["mu-mse-fixed"])}
    welch = effect("fd_train", dict(enumerate(values["mu-L-fixed"])), shifted)
    assert welch.pairs == 0 and welch.p > 0.5


def test_an_open_claim_has_its_direction_and_the_smallest_difference_that_could_be_shown() -> None:
    values = {"mu-L-fixed": [11.0, 13.4, 12.0], "mu-mse-fixed": [10.0, 12.0, 12.5]}
    one = outcome_of(values, order("mu-L-fixed", "mu-mse-fixed"))
    assert one.outcome == "undecided" and direction(one) == "the other way"
    found = one.deciding.effect
    low, high = found.interval()
    assert low < 0 < found.estimate < high and (1 + found.estimate) * (1 + found.smallest) == pytest.approx(1 + high)
    just = Effect(False, found.smallest, found.smallest / (found._half(ALPHA) / found.error), 2, 3, (3, 3))
    assert just.p == pytest.approx(ALPHA)


def test_all_comparisons_must_hold_and_the_weakest_is_named() -> None:
    values = {"eps-mse-fixed": [10.0, 10.2, 9.9], "eps-L-fixed": [14.0, 14.3, 13.9], "mu-L-fixed": [10.1, 10.0, 9.8]}
    one = outcome_of(values, order("eps-mse-fixed", "eps-L-fixed", "mu-L-fixed"))
    assert one.outcome == "undecided" and (one.deciding.first, one.deciding.second) == ("eps-mse-fixed", "mu-L-fixed")
    assert one.p[0] == max(comparison.p[0] for comparison in one.comparisons)
    assert direction(one) == "1 of 2 as claimed"
    assert direction(outcome_of(values, order("eps-mse-fixed", "eps-L-fixed"))) == "as claimed"


def test_a_contradiction_is_held_against_the_number_of_comparisons() -> None:
    """The same data contradict a claim of one comparison and leave one of four undecided."""
    values = {"eps-mse-fixed": [10.30, 10.45, 10.35], "eps-L-fixed": [10.0, 10.05, 9.9]}
    one = outcome_of(values, order("eps-mse-fixed", "eps-L-fixed"))
    assert one.outcome == "contradicted" and ALPHA / 4 < one.p[1] < ALPHA
    others = {cell: [20.0, 20.1, 20.2] for cell in ("mu-L-fixed", "mu-L-learned", "mu-mse-fixed")}
    many = outcome_of({**values, **others}, order("eps-mse-fixed", "eps-L-fixed", *others))
    assert many.outcome == "undecided" and not many.holds and many.p[1] == pytest.approx(4 * one.p[1])


def test_holms_correction_is_that_of_its_paper() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_claims_of_one_table_are_corrected_together() -> None:
    values = {"eps-mse-fixed": [10.30, 10.45, 10.35], "eps-L-fixed": [10.0, 10.05, 9.9], "mu-L-fixed": [9.0, 9.9, 9.4]}
    claims = [
        order("eps-L-fixed", "eps-mse-fixed"),
        order("eps-L-fixed", "mu-L-fixed"),
        order("eps-mse-fixed", "mu-L-fixed"),
    ]
    [alone] = examine_claims(summaries(records_of(values), with_claims(claims[0])))
    together = examine_claims(summaries(records_of(values), with_claims(*claims)))
    assert alone.outcome == "supported" and together[0].p == alone.p
    assert [one.adjusted for one in together] == pytest.approx(holm([min(one.p) for one in together]))


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
    for n, outcome in ((3, "undecided"), (4, "contradicted")):
        values = {"mu-L-fixed": [None] * n, "mu-mse-fixed": [10.0] * n, "eps-L-learned": [10.0] * n}
        assert outcome_of(values, claim).outcome == outcome


def test_means_over_the_seeds_that_happened_to_finish_decide_nothing() -> None:
    one = outcome_of(
        {"mu-L-fixed": [10.0, 10.1, 10.2], "mu-mse-fixed": [90.0, 90.1, 90.2, None]},
        order("mu-L-fixed", "mu-mse-fixed"),
    )
    assert one.outcome == "undecided" and "1 of 4 of mu-mse-fixed" in one.deciding.reason


def test_a_metric_that_was_not_measured_decides_nothing() -> None:
    one = outcome_of(
        {"mu-L-fixed": [1.0] * 3, "mu-mse-fixed": [2.0] * 3}, order("mu-L-fixed", "mu-mse-fixed", metrics=("fd_test",))
    )
    assert one.outcome == "undecided" and "not measured" in one.deciding.reason


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


def seeds_of(values: np.ndarray, first: int = 0) -> dict[int, float]:
    return dict(enumerate(map(float, values), first))


@pytest.mark.parametrize("ratio", [0.2, 1, 8])
@pytest.mark.parametrize("alpha", [ALPHA, ALPHA / 10])
def test_the_paired_interval_covers_whatever_the_two_scatters(ratio: float, alpha: float) -> None:
    rng, runs = np.random.default_rng(1), 1000
    shared = 3 * rng.normal(size=(runs, 3))
    a, b = shared + rng.normal(size=(runs, 3)), shared + ratio * rng.normal(size=(runs, 3))
    found = [effect("bound_test_bits_per_dim", seeds_of(x), seeds_of(y)) for x, y in zip(a, b, strict=True)]
    missed = sum(not low <= 0 <= high for low, high in (one.interval(alpha) for one in found))
    assert missed / runs <= alpha + 2 * (alpha / runs) ** 0.5


@pytest.mark.parametrize(("n", "m", "ratio"), [(3, 3, 1), (3, 3, 8), (3, 10, 1), (3, 10, 0.2), (5, 3, 3)])
def test_welchs_interval_misses_no_more_than_7_of_100_with_so_few_seeds(n: int, m: int, ratio: float) -> None:
    """Satterthwaite's degrees of freedom are an approximation: 5% become up to 6.5% where few seeds scatter unequally."""
    rng, runs = np.random.default_rng(1), 2000
    a, b = rng.normal(size=(runs, n)), ratio * rng.normal(size=(runs, m))
    found = [effect("bound_test_bits_per_dim", seeds_of(x), seeds_of(y, n)) for x, y in zip(a, b, strict=True)]
    assert all(one.pairs == 0 for one in found)
    assert sum(one.p < ALPHA for one in found) / runs <= 0.065 + 0.01


@pytest.mark.parametrize("shared", [0.0, 0.3])
def test_equal_cells_get_any_verdict_in_at_most_one_of_twenty_tables(shared: float) -> None:
    """All claims of table 2 but that of likeness, which equal cells obey, on six equal cells; seeds may move all of them."""
    claims = tuple(claim for claim in GRID.claims if not claim.alike)
    records = [record for cell in CELLS for record in records_of({cell: [1.0] * 3})]
    [one] = summaries(records, GRID.model_copy(update={"claims": claims}))
    rng, runs, verdicts = np.random.default_rng(2), 400, 0
    keys = sorted({metric for claim in claims for metric in claim.metrics})
    for _ in range(runs):
        of_seeds = shared * rng.normal(size=(3, len(keys)))
        rows = []
        for row in one.rows:
            values = np.exp(1 + of_seeds + 0.1 * rng.normal(size=of_seeds.shape))
            found = {
                s: Checkpoint(step=1, metrics=dict(zip(keys, map(float, values[s]), strict=True))) for s in range(3)
            }
            rows.append(replace(row, checkpoints=found))
        verdicts += any(each.outcome != "undecided" for each in examine_claims([replace(one, rows=tuple(rows))]))
    # The standard error of a rate of 5% over 400 tables is 1.1%.
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
    rows = [line for line in text.splitlines() if "| **" in line and line.count("|") == 6]
    assert len(rows) == len(GRID.claims)
    assert "which are not the source's" in text and "Bonferroni" in text
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
    assert [len(row) for row in claim_rows(one, tables[0])] == [7] * len(one.comparisons) and one.comparisons
    assert claim_lines(tables)[0].startswith("undecided: Training on the true variational bound L")


def test_the_section_says_how_the_numbers_were_compared_and_no_more() -> None:
    values = {"eps-mse-fixed": [10.0, 10.2, 9.9], "eps-L-fixed": [14.0, 14.3, 13.9]}
    tables = summaries(records_of(values), with_claims(order("eps-mse-fixed", "eps-L-fixed")))
    text = to_markdown(claims_section(tables))
    assert "seed by seed (a paired t-test)" in text and "on a log scale" in text and "Welch" not in text
    assert "| **supported** | as claimed |" in text and "eps-mse-fixed against eps-L-fixed: -28.7%" in text
    late = [r.model_copy(update={"seed": r.seed + 5}) if r.cell == "eps-L-fixed" else r for r in records_of(values)]
    text = to_markdown(claims_section(summaries(late, with_claims(order("eps-mse-fixed", "eps-L-fixed")))))
    assert "Welch" in text and "seed by seed" not in text


def test_a_grid_without_claims_has_no_section() -> None:
    grid = GRID.model_copy(update={"claims": ()})
    assert claims_section(summaries(quick_records(), grid)) == []
