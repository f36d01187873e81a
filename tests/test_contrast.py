"""Any two sets of records side by side: conditions, intervals, and a verdict only where numbers are comparable."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from records import make_record, write_results
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from ddpm_bench.cli import app
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.errors import UserError
from ddpm_bench.records.record import Checkpoint, Divergence, Record, record_path
from ddpm_bench.report.side_by_side import Contrast, side_by_side
from ddpm_bench.report.writers.terminal_tables import side_by_side_at_terminal

GRID = load_grid("table2")


def run(value: float, seed: int = 0, cell: str = "mu-L-fixed", key: str = "fd_train", **overrides) -> Record:
    record = make_record(GRID, cell, seed, overrides=overrides)
    checkpoint = Checkpoint(step=400, metrics={**record.last.metrics, key: value})
    return record.model_copy(update={"checkpoints": (checkpoint,)})


def runs(*values: float, **options) -> list[Record]:
    return [run(value, seed, **options) for seed, value in enumerate(values)]


def contrast(a: list[Record], b: list[Record], key: str = "fd_train") -> Contrast:
    return next(one for one in side_by_side(a, b).contrasts if one.metric == key)


def test_several_seeds_a_side_are_compared_seed_by_seed_as_shares() -> None:
    a, b = [10.0, 10.2, 9.9], [14.0, 14.3, 13.9]
    one = contrast(runs(*a), runs(*b))
    d = np.log(a) - np.log(b)
    half = stats.t.isf(0.025, 2) * np.std(d, ddof=1) / math.sqrt(3)
    assert one.effect.interval() == pytest.approx(tuple(np.expm1([d.mean() - half, d.mean() + half])))
    assert (one.basis, one.verdict, one.n) == ("3 seeds, paired", "A is better", (3, 3))
    assert contrast(runs(*b), runs(*a)).verdict == "A is worse"
    assert contrast(runs(*a), runs(*a)).verdict == "no difference seen"


def test_other_seeds_are_compared_by_welch() -> None:
    a, b = [4.0, 4.2, 3.9], [4.6, 4.9, 4.5]
    key = "bound_test_bits_per_dim"
    one = contrast(runs(*a, key=key), [run(value, seed + 7, key=key) for seed, value in enumerate(b)], key)
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert one.basis == "seeds (Welch)" and one.effect.p == pytest.approx(expected.pvalue)
    assert one.effect.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_of_a_score_more_is_better() -> None:
    a, b = runs(5.0, 5.1, 5.05, key="is_mean"), runs(3.0, 3.1, 3.05, key="is_mean")
    assert contrast(a, b, "is_mean").verdict == "A is better"


@pytest.mark.parametrize(
    ("value", "verdict"), [(30.0, "A is worse"), (10.1, "no difference seen"), (1.0, "A is better")]
)
def test_one_run_is_held_against_the_scatter_of_the_others(value: float, verdict: str) -> None:
    several = [10.0, 10.2, 9.9, 10.4]
    one = contrast([run(value)], runs(*several))
    difference = math.log(value) - np.log(several).mean()
    half = stats.t.isf(0.025, 3) * np.std(np.log(several), ddof=1) * math.sqrt(1 + 1 / 4)
    assert one.effect.interval() == pytest.approx((math.expm1(difference - half), math.expm1(difference + half)))
    assert (one.basis, one.verdict) == ("one run", verdict)


def test_one_run_a_side_concludes_nothing() -> None:
    one = contrast([run(16.0)], [run(10.0, 1)])
    assert (one.effect, one.basis, one.verdict) == (None, "", "no verdict: one run a side")


def test_numbers_that_were_measured_otherwise_get_no_verdict_and_the_others_do() -> None:
    a, b = runs(10.0, 10.1, sampling={"samples": 64}), runs(20.0, 20.1)
    found = side_by_side(a, b)
    assert contrast(a, b).verdict == "not comparable: samples" and contrast(a, b).effect is None
    assert contrast(a, b, "bound_test_bits_per_dim").verdict == "no difference seen"
    assert found.measurements == ("samples: was 512, now 64",) and found.models == () and not found.alike


@pytest.mark.parametrize("what", ["extractor", "data"])
def test_other_features_and_other_images_get_no_verdict(what: str) -> None:
    a = runs(10.0, 10.1)
    update = {"sha256": "f" * 64}
    other = [r.model_copy(update={what: getattr(r, what).model_copy(update=update)}) for r in a]
    assert contrast(other, a).verdict == f"not comparable: hash of the {what}"
    bounds = contrast(other, a, "bound_test_bits_per_dim").verdict
    assert bounds == ("no difference seen" if what == "extractor" else "not comparable: hash of the data")


def test_what_was_trained_may_differ_and_is_listed() -> None:
    a, b = runs(10.0, 10.1, 10.2, training={"steps": 800}), runs(20.0, 20.1, 20.2)
    found = side_by_side(a, b)
    assert found.models == ("training steps: was 400, now 800",) and found.measurements == ()
    assert contrast(a, b).verdict == "A is better" and not found.alike


def test_two_records_of_different_cells_are_compared_with_each_other() -> None:
    found = side_by_side([run(10.0, cell="eps-mse-fixed")], [run(12.0)])
    assert found.contrasts[0].cell == "eps-mse-fixed − mu-L-fixed"
    assert set(found.models) >= {
        "diffusion.parameterization: was mu, now eps",
        "diffusion.objective: was L, now L_simple",
    }


def test_cells_of_one_side_only_are_named_and_no_common_cell_is_refused() -> None:
    a = [run(1.0), run(1.0, cell="eps-L-fixed")]
    found = side_by_side(a, [run(1.0), run(1.0, cell="mu-L-learned")])
    assert (found.only_a, found.only_b) == (("eps-L-fixed",), ("mu-L-learned",)) and not found.alike
    assert side_by_side(a[:1], a).alike
    with pytest.raises(UserError, match="A has mu-L-fixed, eps-L-fixed; B has mu-L-learned"):
        side_by_side(a, [run(1.0, cell="mu-L-learned")])


def test_diverged_runs_are_counted_and_have_no_numbers() -> None:
    gone = make_record(GRID, "mu-L-fixed", 2, diverged=Divergence(step=1, reason="x"))
    found = side_by_side([*runs(1.0, 1.1), gone], runs(1.0, 1.1))
    assert found.outcomes == ("mu-L-fixed: 1 of 3 diverged in A, 0 of 2 in B",)
    assert contrast([*runs(1.0, 1.1), gone], runs(1.0, 1.1)).n == (2, 2)
    assert side_by_side([gone], runs(1.0)).contrasts == ()


def text_of(a: list[Record], b: list[Record]) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(side_by_side_at_terminal(side_by_side(a, b)))
    return capture.get()


def test_the_terminal_shows_conditions_intervals_and_verdicts() -> None:
    text = text_of(runs(10.0, 10.1, 10.2, training={"steps": 800}), runs(20.0, 20.1, 20.2))
    assert "training steps: was 400, now 800" in text and "A is better" in text and "−10.00" in text.replace("-", "−")
    assert "No metric" in text_of([make_record(GRID, "mu-L-fixed", diverged=Divergence(step=1, reason="x"))], runs(1.0))


def call(*arguments: Path | str):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_the_command_takes_folders_and_files_and_says_by_its_exit_code_whether_a_repeats_b(tmp_path: Path) -> None:
    write_results(tmp_path / "a", runs(10.0, 10.1))
    write_results(tmp_path / "same", runs(10.05, 10.1, 10.2))
    write_results(tmp_path / "moved", runs(100.0, 100.1, 100.2))
    write_results(tmp_path / "other", runs(10.0, 10.1, training={"steps": 800}))
    one = record_path(tmp_path / "a", "mu-L-fixed", 0)
    assert call(tmp_path / "a", tmp_path / "same").exit_code == 0
    assert call(one, tmp_path / "same").exit_code == 0
    moved = call(tmp_path / "a", tmp_path / "moved")
    assert moved.exit_code == 1 and "FAILED" in moved.stdout
    other = call(tmp_path / "other", tmp_path / "a")
    assert (
        other.exit_code == 1 and "was not tested" in other.stdout and "training steps: was 400, now 800" in other.stdout
    )
    alone = call(one, record_path(tmp_path / "same", "mu-L-fixed", 0))
    assert alone.exit_code == 0 and "no spread" in alone.stdout and "one run a side" in " ".join(alone.stdout.split())


def test_the_command_prints_json(tmp_path: Path) -> None:
    write_results(tmp_path / "a", runs(10.0, 10.1))
    found = json.loads(call(tmp_path / "a", tmp_path / "a", "--json").stdout)
    assert found["not_tested"] == "" and {check["passed"] for check in found["checks"]} == {True}
    assert {"cell", "metric", "a", "b", "n", "difference", "effect", "basis", "verdict"} == set(found["contrasts"][0])
    assert {"estimate", "interval", "p", "smallest", "relative", "pairs"} <= set(found["contrasts"][0]["effect"])
