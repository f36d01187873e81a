"""`--tensorboard`: event files that TensorBoard itself reads back, with the numbers of the records."""

import json

import pytest
from conftest import SMALL

from ddpm_bench.records.record import read_records
from ddpm_bench.runtime.observer import observer
from ddpm_bench.runtime.tensorboard import event_files

tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def curves(folder):
    """{tag: [(step, value), ...]} of all event files in a folder."""
    events = tensorboard.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_ablate_writes_a_run_a_cell_with_training_and_scores(call, tmp_path):
    answer = call(
        "ablate", "--preset", "smoke", *SMALL, "--set", "training.snapshot_every=20",
        "--cells", "eps-mse-fixed,mu-L-fixed", "--device", "cpu", "--workers", "1",
        "--results", tmp_path / "results", "--no-report",
        "--tensorboard", tmp_path / "events",
    )  # fmt: skip
    assert answer.code == 0
    records = read_records(tmp_path / "results")
    assert sorted(record.cell for record in records) == ["eps-mse-fixed", "mu-L-fixed"]
    for record in records:
        found = curves(tmp_path / "events" / f"{record.cell}-seed0")
        assert found["training/loss"] == [(x.step, pytest.approx(x.loss)) for x in record.training_log]
        assert found["training/gradient_norm"] == [
            (x.step, pytest.approx(x.gradient_norm)) for x in record.training_log
        ]
        assert [step for step, value in found["training/images_per_s"] if value > 0] == [
            x.step for x in record.training_log
        ]
        for key in ("fd_train", "is_mean"):
            assert found[f"scores/{key}"] == [(c.step, pytest.approx(c.metrics[key])) for c in record.checkpoints]
        bound = record.last.metrics["bound_test_bits_per_dim"]
        assert found["scores/bound_test_bits_per_dim"] == [(40, pytest.approx(bound))]


def test_a_run_that_goes_on_has_every_point_once(call, tmp_path):
    def train(steps, *more):
        arguments = ["--set", f"training.steps={steps}", "--out", tmp_path / "ckpt", *more]
        return call("train", "--cell", "eps-mse-fixed", "--preset", "smoke", "--device", "cpu", *arguments)

    def dies(*_):
        raise RuntimeError("dies here")

    with pytest.MonkeyPatch.context() as patch:  # dies at step 50, after the checkpoint of step 50 and five ticks
        patch.setattr("ddpm_bench.runtime.observer.Meter.update", lambda self, done, *_: done == 50 and dies())
        with pytest.raises(RuntimeError, match="dies here"):
            train(80, "--tensorboard", tmp_path / "events")
    assert [step for step, _ in curves(tmp_path / "events")["training/loss"]] == [10, 20, 30, 40, 50]
    assert train(80, "--tensorboard", tmp_path / "events").code == 0
    log = [json.loads(line) for line in (tmp_path / "ckpt" / "log.jsonl").read_text().splitlines()]
    found = curves(tmp_path / "events")["training/loss"]
    assert found == [(line["step"], pytest.approx(line["loss"])) for line in log] and len(found) == 8


def test_without_the_option_nothing_is_written_and_the_package_not_imported(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where SummaryWriter writes unless it is told a folder
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)  # importing it now raises
    with event_files(None):
        observer().tick({"step": 1, "loss": 0.5, "gradient_norm": 1.0, "images_per_s": 9.0})
        observer().scores(1, {"fd_train": 1.0})
    assert list(tmp_path.iterdir()) == []
    steps = ("--set", "training.steps=2", "--set", "training.log_every=1")
    arguments = ("--preset", "smoke", *steps, "--device", "cpu", "--out", "ckpt")
    assert call("train", "--cell", "eps-mse-fixed", *arguments).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "ema.safetensors", "log.jsonl", "network.safetensors", "optimizer.safetensors", "state.json",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [["ablate"], ["train", "--cell", "eps-mse-fixed", "--out", "ckpt"]])
def test_the_missing_extra_is_named_before_anything_runs(call, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ddpm_bench.runtime.tensorboard.find_spec", lambda name: None)
    answer = call(*command, "--preset", "smoke", "--tensorboard", tmp_path / "events")
    assert answer.code == 2
    assert "ddpm-bench[tensorboard]" in answer.err and "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []
