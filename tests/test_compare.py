"""The comparison with committed records: its false alarms, and that it notices what is wrong."""

import math
from pathlib import Path

import numpy as np
import pytest
from records import make_record
from scipy import stats

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.errors import UserError
from ddpm_bench.records.compare import ALPHA, TRANSFORMS, checks_table, compare, limit_of_t, t_values
from ddpm_bench.records.differences import differences
from ddpm_bench.records.record import Checkpoint, Divergence, read_records

CELLS = ("mu-L-learned", "mu-L-fixed", "eps-L-fixed", "eps-mse-fixed")
VALUES = {"is_mean": 6.0, "fd_train": 30.0, "precision": 0.6, "recall": 0.2, "bound_test_bits_per_dim": 3.5}


def measured(seeds, factor=1.0, spread=0.03, start=0):
    """Records of every cell whose metrics scatter by `spread` around VALUES times `factor`."""
    table2, records = load_grid("table2"), []
    for i, cell in enumerate(CELLS):
        for seed in range(seeds):
            noise = spread * np.random.default_rng((start, seed, i)).normal(size=len(VALUES))
            metrics = {key: value * factor * math.exp(z) for (key, value), z in zip(VALUES.items(), noise, strict=True)}
            records.append(make_record(table2, cell, seed, checkpoints=(Checkpoint(step=400, metrics=metrics),)))
    return records


def simulated(sd, runs, cells=6, seeds=3):
    """t of correct code: one new seed against `seeds` committed ones, normal with a standard deviation `sd` for each cell."""
    y = sd * np.random.default_rng(0).normal(size=(runs, seeds + 1, cells))
    new, old = y[:, 0], y[:, 1:]
    freedom, spread = (np.full(cells, value) for value in (seeds - 1.0, 1 + 1 / seeds))
    return t_values(new - old.mean(1), ((old - old.mean(1, keepdims=True)) ** 2).sum(1), freedom, spread)


@pytest.mark.parametrize("uneven", [1.0, 5.0], ids=["cells scatter alike", "standard deviations differ fivefold"])
def test_correct_code_fails_in_under_one_run_in_a_hundred(uneven):
    metrics, runs = 5, 20_000
    t, mean = simulated(np.geomspace(1, uneven, 6), runs * metrics)
    worst = np.maximum(np.abs(t).max(1), np.abs(mean)).reshape(runs, metrics).max(1)
    assert np.mean(worst > limit_of_t(metrics, cells=6, freedom=12)) < ALPHA


def test_with_the_spreads_of_the_committed_records_too_correct_code_fails_in_under_one_run_in_a_hundred():
    committed = read_records(Path(__file__).parent.parent / "results" / "table2-quick")
    cells = list(dict.fromkeys(record.cell for record in committed))
    runs, failed = 20_000, np.zeros(20_000, dtype=bool)
    held = {key: transform for key, transform in TRANSFORMS.items() if key in committed[0].final.metrics}
    for key, transform in held.items():
        sd = [np.std([transform(r.last.metrics[key]) for r in committed if r.cell == cell], ddof=1) for cell in cells]
        t, mean = simulated(np.array(sd), runs)
        failed |= np.maximum(np.abs(t).max(1), np.abs(mean)) > limit_of_t(len(held), len(cells), 2 * len(cells))
    assert len(cells) == 6 and np.mean(failed) < ALPHA


def test_t_is_nearly_students_with_the_pooled_degrees_of_freedom():
    _, mean = simulated(np.ones(6), 20_000)
    # The variance is never below a cell's own, so the tails are a little lighter than t's; never heavier.
    for level in (0.2, 0.02):
        assert level / 4 < np.mean(np.abs(mean) > stats.t.isf(level / 2, 12)) < level


def test_the_reference_repeats_itself():
    reference = measured(3)
    checks = compare([r for r in reference if r.seed == 0], reference)
    assert all(check.passed for check in checks)
    assert {check.metric for check in checks} == {"outcome", *(TRANSFORMS.keys() & VALUES.keys())}


def test_another_seed_of_the_same_code_passes():
    assert all(check.passed for check in compare(measured(1, start=7), measured(3)))


def test_one_cell_that_moved_is_found():
    new = measured(1, start=7)
    moved = new[2].last.metrics
    moved["fd_train"] *= 2
    failed = [(check.cell, check.metric) for check in compare(new, measured(3)) if not check.passed]
    assert ("eps-L-fixed", "fd_train") in failed


def test_a_drift_of_all_cells_too_small_for_any_one_of_them_is_found():
    checks = compare(measured(1, factor=1.2, start=7), measured(3))
    failed = {(check.cell, check.metric) for check in checks if not check.passed}
    assert ("(all cells)", "fd_train") in failed


def test_an_outcome_that_no_seed_of_the_reference_had_fails():
    new = measured(1)
    new[0] = make_record(load_grid("table2"), CELLS[0], diverged=Divergence(step=9, reason="the loss is not finite"))
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
    table = checks_table(compare(measured(1, factor=1.6), measured(3)))
    assert "FAILED" in table.title
    assert next(iter(table.columns[-1].cells)) == "FAILED"
