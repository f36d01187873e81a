"""The comparison with committed records: its false alarms, and that it notices what is wrong."""

import math

import numpy as np
import pytest
from records import record
from scipy import stats

from ddpm_bench.compare import ALPHA, TRANSFORMS, checks_table, compare, differences, t_values
from ddpm_bench.errors import UserError

CELLS = ("mu-L-learned", "mu-L-fixed", "eps-L-fixed", "eps-mse-fixed")
VALUES = {"is_mean": 6.0, "fd_train": 30.0, "precision": 0.6, "recall": 0.3, "bound_test_bits_per_dim": 3.5}


def measured(seeds, factor=1.0, spread=0.03, start=0):
    """Records of every cell whose metrics scatter by `spread` around VALUES times `factor`."""
    return [
        record(cell=cell, seed=seed, metrics={k: v * factor * math.exp(spread * np.random.default_rng((start, seed, i, j)).normal())
                                              for j, (k, v) in enumerate(VALUES.items())})  # fmt: skip
        for i, cell in enumerate(CELLS)
        for seed in range(seeds)
    ]


@pytest.mark.parametrize("uneven", [1.0, 3.0], ids=["equal spread", "spreads that differ threefold between cells"])
def test_correct_code_fails_in_under_one_run_in_a_hundred(uneven):
    generator, runs, seeds, cells, metrics = np.random.default_rng(0), 4000, 3, 6, 5
    sd = np.geomspace(1, uneven, cells)[:, None]
    limit = stats.t.isf(ALPHA / (2 * metrics * (cells + 1)), cells * (seeds - 1))
    failures = 0
    for _ in range(runs):
        alarms = []
        for _ in range(metrics):
            y = sd * generator.normal(size=(cells, seeds + 1))
            t, mean = t_values(list(y[:, :1]), list(y[:, 1:]))
            alarms += [np.abs(t).max() > limit, abs(mean) > limit]
        failures += any(alarms)
    assert failures / runs < ALPHA


def test_t_is_students_with_the_pooled_degrees_of_freedom():
    generator, cells, seeds = np.random.default_rng(1), 6, 3
    drawn = []
    for _ in range(4000):
        y = generator.normal(size=(cells, seeds + 1))
        _, mean = t_values(list(y[:, :1]), list(y[:, 1:]))
        drawn.append(mean)
    # The variance is never below a cell's own, so the tails are a little lighter than t's; never heavier.
    for level in (0.1, 0.01):
        assert np.mean(np.abs(drawn) > stats.t.isf(level / 2, cells * (seeds - 1))) < level


def test_the_reference_repeats_itself():
    reference = measured(3)
    checks = compare([r for r in reference if r.seed == 0], reference)
    assert all(check.passed for check in checks)
    assert {check.metric for check in checks} == {"outcome", *TRANSFORMS}


def test_another_seed_of_the_same_code_passes():
    assert all(check.passed for check in compare(measured(1, start=7), measured(3)))


def test_one_cell_that_moved_is_found():
    new = measured(1, start=7)
    moved = new[2].last.metrics
    moved["fd_train"] *= 2
    failed = [(check.cell, check.metric) for check in compare(new, measured(3)) if not check.passed]
    assert ("eps-L-fixed", "fd_train") in failed


def test_a_drift_of_all_cells_too_small_for_any_one_of_them_is_found():
    checks = compare(measured(1, factor=1.12, start=7), measured(3))
    failed = {(check.cell, check.metric) for check in checks if not check.passed}
    assert ("(all cells)", "fd_train") in failed


def test_an_outcome_that_no_seed_of_the_reference_had_fails():
    new = measured(1)
    new[0] = record(cell=CELLS[0], seed=0, outcome="diverged")
    failed = [check for check in compare(new, measured(3)) if not check.passed]
    assert [(check.cell, check.metric, check.measured) for check in failed] == [(CELLS[0], "outcome", "diverged")]


def test_other_settings_are_refused_with_the_difference():
    new = measured(1)
    settings = new[0].settings.model_copy(update={"training": new[0].settings.training.model_copy(update={"steps": 1})})
    with pytest.raises(UserError, match=r"training\.steps: was \d+, now 1"):
        compare([new[0].model_copy(update={"settings": settings})], measured(3))


def test_a_cell_that_the_reference_lacks_and_a_reference_without_spread_are_refused():
    with pytest.raises(UserError, match="has no cell"):
        compare(measured(1), [r for r in measured(3) if r.cell != CELLS[1]])
    with pytest.raises(UserError, match="no spread"):
        compare(measured(1), measured(1))


def test_differences_names_every_leaf_that_differs():
    was, now = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4}
    assert differences(was, now) == ["  a.c: was 2, now 5", "  d: was 3, now None", "  e: was None, now 4"]


def test_the_table_says_how_many_failed_and_shows_them_first():
    table = checks_table(compare(measured(1, factor=3.0), measured(3)))
    assert "FAILED" in table.title
    assert next(iter(table.columns[-1].cells)) == "FAILED"
