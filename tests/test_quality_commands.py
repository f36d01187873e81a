"""Density, coverage, copies and the other distances asked of a command: what it gives, says, records and refuses."""

import json

import numpy as np
import pytest
from test_quality import KEYS, Sums
from tiny_models import tiny_checkpoint, tiny_data, tiny_preset

from ddpm_bench.config.settings import DataSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data import load_data
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.job import Bench
from ddpm_bench.metrics.extractor import Extractor
from ddpm_bench.records.record import ExtractorInfo, read_record
from ddpm_bench.records.row import Row
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.summary import summaries
from ddpm_bench.runtime.runtime import Runtime


@pytest.fixture
def data(tmp_path) -> str:
    return tiny_data(tmp_path / "data.npz")


def flat(text: str) -> str:
    return " ".join(text.split())


def test_evaluate_gives_them_for_anyones_images_and_says_k_and_what_is_expected(call, tmp_path, data):
    images = np.load(tmp_path / "data.npz")["train"][:20, 0]
    np.savez(tmp_path / "samples.npz", samples=images)
    asked = ("evaluate", "--samples", tmp_path / "samples.npz", "--quality", "mmd,density,copies,spatial")
    answer = call(*asked, "--data", data, "--density-neighborhood", 4, "--cache", tmp_path / "cache", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["protocol"]["density_neighborhood"] == 4
    assert set().union(*KEYS.values()) <= set(found["metrics"]) and found["metrics"]["copies"] == 1
    assert found["metrics"]["copy_distance"] == 0 and set(found["anchors"]["uniform noise"]) == set(found["metrics"])
    shown = flat(call(*asked, "--data", data, "--density-neighborhood", 4, "--cache", tmp_path / "cache").out)
    assert "the same features, k = 4, balls without their surface" in shown and "sFD (embedded)" in shown
    answer = call(*asked, "--reference", tmp_path / "samples.npz", "--json")
    assert "copies" not in json.loads(answer.out)["metrics"] and json.loads(answer.out)["metrics"]["density"] > 0


@pytest.mark.parametrize(
    "options, told",
    [
        (("--quality", "denstiy"), "quality"),
        (("--quality", "mmd", "--density-neighborhood", "3"), "add --quality density"),
        (("--quality", "density", "--density-neighborhood", "39"), "density over 39"),
        (("--quality", "spatial", "--extractor", "dinov2:"), "dinov2:PATH"),
    ],
)
def test_what_cannot_be_is_refused_in_words(call, tmp_path, data, options, told):
    np.savez(tmp_path / "samples.npz", samples=np.load(tmp_path / "data.npz")["train"][:20, 0])
    answer = call("evaluate", "--samples", tmp_path / "samples.npz", "--data", data, *options)
    assert answer.code == 2 and told in flat(answer.err) and "Traceback" not in answer.err


def test_a_checkpoints_row_keeps_what_was_asked_for_and_another_wish_is_another_row(call, tmp_path, data):
    asked = (
        "evaluate", "--ckpt", tiny_checkpoint(tmp_path / "eps"), "--data", data, "--results", tmp_path / "rows", "--count", 16,
        "--bound-images", 0, "--device", "cpu", "--cache", tmp_path / "cache",
    )  # fmt: skip
    answer = call(*asked, "--quality", "density,copies", "--json")
    assert answer.code == 0, answer.err
    row = json.loads(answer.out)
    assert row["setup"]["quality"] == ["density", "copies"] and row["setup"]["density_neighborhood"] == 5
    setup = Row.model_validate(row).setup
    assert setup.conditions == setup.model_copy(update={"quality": ()}).conditions  # they share a table
    assert setup.conditions != setup.model_copy(update={"density_neighborhood": 4}).conditions
    assert {"density", "coverage", "copies", "copy_distance"} <= set(row["metrics"])
    table = (tmp_path / "rows" / "table.md").read_text()
    assert "| density ↑ | coverage ↑ | copies ↓ | calibrated distance ↑ |" in table and "k = 5" in table
    again = call(*asked)
    assert again.code == 2 and "quality" in again.err


def test_a_grid_records_them_and_shows_them_in_the_full_table_alone(call, tmp_path, data):
    answer = call(
        "ablate", "--preset", tiny_preset(tmp_path), "--cells", "eps-mse-fixed", "--device", "cpu", "--workers", 1, "--data", data,
        "--results", tmp_path / "results", "--no-report", "--cache", tmp_path / "cache",
        "--set", 'scoring.quality=["density","copies","mmd"]', "--set", "scoring.bootstrap=40",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    record = read_record(tmp_path / "results" / "eps-mse-fixed-seed0.json")
    keys = ("density", "coverage", "copies", "copy_distance", "mmd_train")
    assert record.settings.scoring.quality == ("density", "copies", "mmd")
    assert {"density", "copies"} <= set(record.final.quantiles) and set(keys) <= set(record.anchors["held-out real"])
    [summary] = summaries([record], load_grid("table2"))
    full, compact = make_table(summary), make_table(summary, compact=True)
    assert full.columns[full.columns.index("recall") + 1 :][:5] == keys and not set(keys) & set(compact.columns)
    assert any("k = 5, balls without their surface" in remark for remark in full.remarks)
    assert any(remark.startswith("MMD (embedded): 1000 times") for remark in full.remarks)


def test_cells_are_not_scored_by_an_extractor_without_a_score(tmp_path):
    info = ExtractorInfo(
        name="dinov2", sha256="5" * 64, verified=True, labels=("FD-DINOv2", "no score"), feature_dim=8, classes=0
    )
    extractor = Extractor(info, Sums(), 1, None, batch=9, image_bytes=1)
    with pytest.raises(UserError, match=r"'dinov2' tells no classes apart.*evaluate --ckpt"):
        Bench(tmp_path, load_data(DataSettings(size=16, resize="average")), extractor, Runtime())
