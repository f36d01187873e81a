"""Checkpoints that are no cells: in a table of their own where they were scored alike, with what differs where not."""

import json
from pathlib import Path

import pytest
from records import ANCHORS, make_record

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.likelihoods import OdeLikelihood
from ddpm_bench.records.row import ModelInfo, Row, Setup, write_row
from ddpm_bench.report import render
from ddpm_bench.report.checkpoint_rows import rows_beside
from ddpm_bench.report.sections.checkpoints import checkpoints_section
from ddpm_bench.report.writers.markdown import to_markdown

pytestmark = pytest.mark.usefixtures("messages")
GRID = load_grid("table2")
RECORD = make_record(GRID, "eps-mse-fixed")


def make_row(name: str = "theirs", **setup: object) -> Row:
    """A row scored like RECORD, but for `setup`."""
    scoring = RECORD.settings.scoring
    model = ModelInfo(
        weights="ema", weights_sha256="a" * 64, step=400_000, parameters=35_746_307, predicts="eps",
        variance="fixed-beta", schedule="linear", T=1000, identity={},
    )  # fmt: skip
    values = {
        "model": model, "data": RECORD.data, "extractor": RECORD.extractor,
        "samples": RECORD.settings.sampling.samples, "seed": 0, "sampling_steps": 100, "clip_x0": True,
        "neighborhood": scoring.neighborhood, "test_reference": False, "bound_images": 8, "evals": 10,
        "decoder": "exact",
    }  # fmt: skip
    bounds = [
        bound.model_copy(update={"method": "estimate", "evals": 10, "images": 8, "terms": (), "mse": ()})
        for bound in RECORD.bounds
    ]
    return Row(
        name=name, setup=Setup(**values | setup), metrics=RECORD.last.metrics, bounds=tuple(bounds), anchors=ANCHORS,
        sample_grid=f"{name}.png", wall_time_s={}, versions={}, git_commit=None, hardware={},
        created="2026-11-21T21:00:00+00:00",
    )  # fmt: skip


def test_a_likelihood_by_the_ode_has_a_column_of_its_own_where_a_row_has_one() -> None:
    ode = OdeLikelihood(
        split="test", images=16, draws=2, dequantisation="level", sigma_0=1e-3, rtol=1e-5, atol=1e-5, total=4.25,
        standard_error=0.5, draw_error=0.1, prior=2.0, flow=2.25, calls=100.0,
    )  # fmt: skip
    both = [make_row("bound"), make_row("ode").model_copy(update={"ode": ode})]
    lines = [line for line in to_markdown(checkpoints_section(both, RECORD)).splitlines() if line.startswith("|")]
    assert lines[0].endswith("| bits/dim (ODE), test ↓ | likelihood of |")
    assert lines[2].endswith("| n/a |  |")
    assert lines[3].endswith(r"| 4.25 \[3.27, 5.23\] | 16 images in 2 draws |")
    assert "(ODE)" not in to_markdown(checkpoints_section(both[:1], RECORD))


def test_no_rows_make_no_section(tmp_path: Path) -> None:
    assert rows_beside(tmp_path) == [] and checkpoints_section([], RECORD) == []


def test_a_row_scored_alike_stands_in_the_table_with_what_it_is() -> None:
    text = to_markdown(checkpoints_section([make_row()], RECORD))
    head, _, line = (line for line in text.splitlines() if line.startswith("|"))
    for column in ("IS (embedded) ↑", "FD (embedded) ↓", "precision ↑", "bound, test, bits/dim ↓"):
        assert f"| {column} |" in head
    assert "FID" not in text
    for field in (
        "theirs",
        "EMA",
        "400,000",
        "35,746,307",
        "eps, fixed-beta",
        "5.90",
        "33.00",
        r"4.820 \[4.781, 4.859\]",
    ):
        assert f"| {field} |" in line
    assert "100 of 1,000 steps, linear" in line
    assert "estimate, 10 calls an image; 8 test, 8 train images; exact decoder, clipped" in line
    assert head.count("|") == line.count("|")


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        ({"samples": 7}, f"samples: was {RECORD.settings.sampling.samples}, now 7"),
        ({"data": RECORD.data.model_copy(update={"name": "X|Y"})}, "now X\\|Y"),
        ({"extractor": RECORD.extractor.model_copy(update={"verified": False})}, "verified: was True, now False"),
        ({"neighborhood": 5}, "neighborhood: was 3, now 5"),
    ],
)
def test_a_row_scored_otherwise_is_only_listed_with_what_differs(setup: dict, said: str) -> None:
    text = to_markdown(checkpoints_section([make_row("alike"), make_row("unlike", **setup)], RECORD))
    assert said in text and "| alike |" in text and "| unlike |" not in text and "33.00" in text
    alone = to_markdown(checkpoints_section([make_row("unlike", **setup)], RECORD))
    assert said in alone and "33.00" not in alone


def test_a_metric_or_bound_that_a_row_lacks_is_said() -> None:
    bare = make_row("bare").model_copy(update={"bounds": (), "metrics": {"fd_train": 12.0}})
    text = to_markdown(checkpoints_section([make_row(), bare], RECORD))
    line = next(line for line in text.splitlines() if line.startswith("| bare"))
    assert "| 12.00 |" in line and line.count("n/a") == 7 and line.count("|") == text.splitlines()[2].count("|")


def test_the_report_finds_the_rows_in_the_results_folder(tmp_path: Path) -> None:
    write_row(tmp_path / "checkpoints", make_row())
    render([RECORD], GRID, tmp_path / "out", tmp_path)
    page = (tmp_path / "out" / "report.md").read_text()
    assert "## Other checkpoints, scored the same way" in page and "| theirs |" in page


def test_a_broken_row_is_said_and_the_rest_comes_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_row(tmp_path / "checkpoints", make_row())
    (tmp_path / "checkpoints" / "x.json").write_text(json.dumps({"name": "x"}))
    assert [row.name for row in rows_beside(tmp_path)] == ["theirs"]
    said = " ".join(capsys.readouterr().err.split())
    assert "Left out of the report" in said and "x.json" in said
