"""Images at another size in what was made before there was a setting: seen and found as they were then."""

import json
from pathlib import Path

import pytest
from test_resize_commands import blobs
from tiny_models import tiny_preset, unsealed

from ddpm_bench.config.settings import DataSettings, completed
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data import load_data
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.ablate import check_results, plan
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.models.model import load_model
from ddpm_bench.models.reference import reference_data
from ddpm_bench.records.record import Record, read_record
from ddpm_bench.report.sections.provenance import FACTS
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.snapshots import check_identity


def old(identity: dict) -> dict:
    return {**identity, "data": {key: value for key, value in identity["data"].items() if key != "resize"}}


def test_a_presets_own_resizing_is_for_its_own_images(tmp_path):
    grid, cell = load_grid("table2"), ["eps-mse-fixed"]
    ways = {
        source: plan(grid, "smoke", cell, [0], [f"data.source={source}", *more])[0].settings.data.resize
        for source, more in (("embedded", ()), ("cifar10", ()), ("mnist", ["data.resize=pad"]))
    }
    assert ways == {"embedded": "average", "cifar10": None, "mnist": "pad"}


def test_a_checkpoint_from_before_sees_the_pixels_that_it_was_trained_on(call, tmp_path):
    data = blobs(tmp_path / "d.npz", 8)
    done = call(
        "train", "--cell", "eps-mse-fixed", "--preset", tiny_preset(tmp_path), "--data", data, "--out", tmp_path / "run",
        "--device", "cpu", "--resize", "pad",
    )  # fmt: skip
    assert done.code == 0, done.err
    snapshot = next((tmp_path / "run").glob("step-000010"))
    state = unsealed(snapshot)
    (snapshot / "state.json").write_text(json.dumps(state | {"identity": old(state["identity"])}))
    model = load_model(tmp_path / "run")
    assert model.data.resize == "older" and "resize" not in model.identity["data"]
    for source in (None, data):
        assert reference_data(model, source).sha256 == model.identity["data_sha256"]
    with pytest.raises(UserError, match="fitted as it was then"):
        reference_data(model, None, resize="pad")


def test_a_run_from_before_goes_on_where_the_pixels_are_the_same(tmp_path):
    for was, now in (("average", None), (None, "pad"), ("average", "average")):
        pixels = {"data_sha256": "a" * 64}
        [then, here] = (
            {"data": DataSettings(source="cifar10", resize=way).model_dump(mode="json")} | pixels for way in (was, now)
        )
        for found in (then, old(then)):
            check_identity(tmp_path, found, here)
    with pytest.raises(UserError, match="data_sha256: was") as raised:
        check_identity(tmp_path, old(then) | {"data_sha256": "b" * 64}, here)
    assert "data.resize: was older" in str(raised.value)  # which may be why


def test_what_lacks_the_setting_was_fitted_as_older_versions_did():
    data = DataSettings(source="cifar10").model_dump(mode="json")
    assert completed({"data": data})["data"]["resize"] is None
    assert completed(old({"data": data}))["data"]["resize"] == "older"


@pytest.fixture(scope="module")
def committed():
    return Path(__file__).parent.parent / "results" / "table2-quick"


def test_the_committed_records_are_found_as_measured(committed):
    jobs = plan(load_grid("table2"), "quick", None, [0, 1, 2], [])
    data = load_data(jobs[0].settings.data)
    extractor = load_extractor("embedded", size=16, cache=committed)
    assert len(check_results(committed, jobs, data, extractor, Runtime())) == 18
    record = read_record(next(committed.glob("*-seed0.json")))
    assert record.settings.data.resize == "older" and record.data.notes == () and data.notes
    said = dict(FACTS)["data"](record.model_copy(update={"data": record.data.model_copy(update={"notes": data.notes})}))
    assert "28x28 to 16x16 pixels by average" in said
    assert Record.model_validate(record.as_json()) == record


def test_an_old_record_is_no_other_configuration_while_its_pixels_are_the_same(committed, tmp_path):
    path = next(committed.glob("eps-mse-fixed-seed0.json"))
    (tmp_path / path.name).write_bytes(path.read_bytes())
    [job] = plan(load_grid("table2"), "quick", ["eps-mse-fixed"], [0], ["data.resize=bicubic-antialias"])
    by_average = load_data(DataSettings(source="embedded", size=16, resize="average"))
    extractor = load_extractor("embedded", size=16, cache=tmp_path)
    assert check_results(
        tmp_path, [job], by_average, extractor, Runtime()
    )  # the pixels are the same, whatever way is named
    with pytest.raises(UserError, match=r"data\.sha256: was"):
        check_results(tmp_path, [job], load_data(job.settings.data), extractor, Runtime())
