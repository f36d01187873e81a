"""What an older ddpm-bench left is gone on with: a work folder whose samples and scores were kept by settings, and rows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_checkpoint, tiny_data, tiny_preset, unsealed

from ddpm_bench.config.settings import DataSettings
from ddpm_bench.data import load_data
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.models.model import load_model
from ddpm_bench.records.row import read_rows

CELL = "eps-mse-fixed"
JOB = f"{CELL}-seed0"


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def ablate(call, folder: Path, cache: Path) -> tuple[dict, str]:
    """The record of a tiny cell that is scored after 5 and 10 steps, and what was said."""
    folder.mkdir(exist_ok=True)
    done = call(
        "ablate", "--preset", tiny_preset(folder), "--cells", CELL, "--device", "cpu", "--no-report", "--workers", 1,
        "--results", folder / "results", "--cache", cache, "--keep", 2, "--set", "training.ema_ramp=true",
        "--set", "training.warmup=0", "--set", "training.learning_rate=1e-2", "--set", "training.snapshot_every=5",
        "--set", "scoring.neighbours=2",
    )  # fmt: skip
    assert done.code == 0, done.err
    return json.loads((folder / "results" / f"{JOB}.json").read_text()), " ".join(done.err.split())


def older(snapshot: Path, work: Path, *steps: int) -> dict[Path, bytes]:
    """The work folder of an older version at the end of `snapshot`, with samples and scores of `steps`; its files."""
    shutil.copytree(snapshot, work / snapshot.name)
    state = unsealed(work / snapshot.name, "sampling", "weights")
    identity = state["identity"]
    del identity["diffusion"]["codec"], identity["network"]["kind"], identity["data"]["resize"]
    (work / snapshot.name / "state.json").write_text(json.dumps(state))
    (work / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in state["log"]))
    for step in steps:
        samples = work / f"samples-{step:08d}"
        samples.mkdir()
        (samples / "samples.json").write_text(json.dumps(state["identity"] | {"step": step}))
        np.save(samples / "00000000-00000012.npy", np.zeros((12, 1, 16, 16), np.uint8))
    scored = [{"step": step, "metrics": {"fd_train": 0.0, "is_mean": 99.0}, "quantiles": {}} for step in steps]
    (work / "scores.json").write_text(json.dumps({"of": state["identity"], "checkpoints": scored, "pictures": {}}))
    return {
        path: path.read_bytes() for path in work.rglob("*") if path.name != "state.json" and path.parent != work
    } | {work / "scores.json": (work / "scores.json").read_bytes()}


def test_a_work_folder_of_an_older_version_goes_on_and_its_scores_are_left_alone(call, tmp_path, cache) -> None:
    straight, said = ablate(call, tmp_path / "new", cache)
    assert "older ddpm-bench" not in said and [each["step"] for each in straight["checkpoints"]] == [5, 10]
    snapshots = tmp_path / "new" / "results" / "work" / JOB
    for step, kept in ((5, [5, 10]), (10, [10])):
        work = tmp_path / f"old-{step}" / "results" / "work" / JOB
        work.mkdir(parents=True)
        left = older(snapshots / f"step-{step:06d}", work, 5, *([10] if step == 10 else []))
        record, said = ablate(call, tmp_path / f"old-{step}", cache)
        assert (
            "going on at step 5 of 10" if step == 5 else "trained already, to step 10"
        ) in said and "kept by an older ddpm-bench" in said
        assert ("The scores at step 5 are not there any more" in said) is (step == 10)
        assert record["checkpoints"] == [each for each in straight["checkpoints"] if each["step"] in kept]
        for part in ("bounds", "terms", "neighbours", "pictures", "anchors", "settings", "outcome", "images_seen"):
            assert record[part] == straight[part], part
        numbers = ("step", "loss", "gradient_norm")
        logs = [[{key: line[key] for key in numbers} for line in each["training_log"]] for each in (record, straight)]
        assert logs[0] == logs[1]
        assert {path: path.read_bytes() for path in left} == left


OLD_ROW = """
{
  "schema_version": 1,
  "name": "tiny",
  "setup": {
    "model": {
      "weights": "ema", "weights_sha256": "WEIGHTS", "step": null, "parameters": 2801, "predicts": "eps",
      "variance": "fixed-beta", "schedule": "linear", "T": 6,
      "identity": {
        "format": "ddpm-bench model 1", "name": "tiny", "weights": "ema", "step": null, "shape": [1, 16, 16],
        "process": {
          "schedule": "linear", "T": 6, "beta_1": 0.05, "beta_T": 0.7, "parameterization": "eps", "variance": "fixed",
          "fixed_variance": "fixed-beta", "rescale_timesteps": false
        },
        "network": {
          "base": 4, "multipliers": [1], "blocks": 1, "attention": [], "groups": 2, "dropout": 0.1, "heads": 1,
          "head_channels": null, "time_shift": 1, "scale_shift": false, "padding": "end", "resample": "conv",
          "eps": 1e-06
        },
        "source": {"path": "nowhere"},
        "weights_sha256": "WEIGHTS"
      }
    },
    "data": {"name": "data", "sha256": "DATA", "train_images": 40, "test_images": 24, "shape": [1, 16, 16]},
    "extractor": {
      "name": "embedded", "sha256": "EXTRACTOR", "verified": true, "labels": ["FD (embedded)", "IS (embedded)"],
      "feature_dim": 64
    },
    "samples": 16, "seed": 0, "sampling_steps": 6, "clip_x0": true, "neighborhood": 3, "test_reference": false,
    "bootstrap": 200, "bound_images": 4, "evals": 5, "decoder": "exact"
  },
  "metrics": {
    "is_mean": 1.145256025796978, "is_std": 0.1978842613207791, "fd_train": 17.974614551164805,
    "kid_mean": 0.6493770020598524, "kid_std": 0.23357091300528454, "precision": 0.5, "recall": 0.5,
    "bound_test_bits_per_dim": 8.843675447391709
  },
  "quantiles": {"fd_train": [14.590241067348394, 15.912537565660966, 17.825029767246217, 20.0619, 22.0501]},
  "bounds": [
    {
      "split": "test", "images": 4, "method": "estimate", "evals": 5, "clip_x0": true, "decoder": "exact",
      "total": 8.843675447391709, "standard_error": 0.05601089667041712, "estimate_error": 0.055642671207288726,
      "prior": 0.011334834115260007, "middle": 2.069598949630994, "first": 6.762741663645455, "terms": [], "mse": [],
      "quantiles": [8.723623593279164, 8.795550718137687, 8.851887947368457, 8.887667185271944, 8.923446423175433]
    }
  ],
  "anchors": {"uniform noise": {"is_mean": 1.124873888303899, "fd_train": 16.02503400611757}},
  "sample_grid": "tiny.png",
  "wall_time_s": {"anchors": 2.139, "sampling": 1.913, "scoring": 4.759, "bound": 3.841},
  "versions": {"ddpm-bench": "0.1.0", "python": "3.11.7", "torch": "2.15.0", "torch-fidelity": "0.4.0"},
  "git_commit": "c5237b817921ebb8d5cd6cd0fdcf523e11e2503c",
  "hardware": {"device": "cpu", "system": "Linux", "machine": "x86_64", "cores": 2, "threads": 2},
  "created": "2026-11-26T14:41:57+00:00"
}
"""
"""A row as `evaluate` wrote it before a setup had a sampler, a process a codec, a network a kind, and a bound own_error."""


@pytest.fixture
def old_row(call, tmp_path, cache):
    """The folder of the old row, and the command that measures it."""
    ckpt, data = tiny_checkpoint(tmp_path / "tiny"), tiny_data(tmp_path / "data.npz")
    model, images = load_model(ckpt), load_data(DataSettings(source=data, size=16))
    extractor = load_extractor("embedded", size=16, cache=cache)
    hashes = {"WEIGHTS": model.weights_sha256, "DATA": images.sha256, "EXTRACTOR": extractor.info.sha256}
    content = OLD_ROW
    for name, sha256 in hashes.items():
        content = content.replace(name, sha256)
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "tiny.json").write_text(content)
    command = (
        "evaluate", "--ckpt", ckpt, "--data", data, "--results", folder, "--count", 16, "--bound-images", 4,
        "--evals", 5, "--device", "cpu", "--cache", cache,
    )  # fmt: skip
    return folder, command


def test_an_older_row_is_read_and_known_for_what_it_is(call, old_row, monkeypatch) -> None:
    folder, command = old_row
    (row,) = read_rows(folder)
    assert (row.setup.sampler, row.pictures, row.terms, row.neighbours) == ("ancestral", {}, None, {})
    assert row.metrics["fd_train"] == 17.974614551164805 and row.bounds[0].total == 8.843675447391709
    before = (folder / "tiny.json").read_bytes()
    monkeypatch.setattr("ddpm_bench.measurement.evaluate.measure", lambda *_: pytest.fail("measured again"))
    done = call(*command)
    assert done.code == 0, done.err
    assert "measured already on 2026-11-26" in done.err and "17.97" in done.out
    assert (folder / "tiny.json").read_bytes() == before


def test_an_older_row_measured_otherwise_is_refused_with_what_differs_alone(call, old_row) -> None:
    _, command = old_row
    done = call(*command, "--no-clip")
    assert done.code == 2 and "clip_x0: was True, now False" in done.err
    assert "sampler" not in done.err and "codec" not in done.err and "kind" not in done.err
