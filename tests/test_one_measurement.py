"""One pipeline: what `ablate` scored is what `sample`, `evaluate` and `nll` make of the checkpoint that it left.

And kept work is found by what it depends on, the hash of the weights first.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_data, tiny_preset, unsealed

from ddpm_bench.diffusion.objective import LSimple
from ddpm_bench.models.model import load_model
from ddpm_bench.sealed import read_arrays
from ddpm_bench.training.snapshots import load_state

CELL = "eps-mse-fixed"
CACHE = Path(tempfile.gettempdir()) / f"ddpm-bench-tests-{os.getpid()}"


@pytest.fixture(scope="module", autouse=True)
def shared_cache():
    """Features of the training images and anchors, made once for all tests here."""
    yield
    shutil.rmtree(CACHE, ignore_errors=True)


def ablate(call, folder: Path, *more: str) -> dict:
    """The record of one tiny cell, measured in `folder`."""
    folder.mkdir(exist_ok=True)
    preset = tiny_preset(folder, tiny_data(folder / "data.npz"))
    done = call(
        "ablate", "--preset", preset, "--cells", CELL, "--device", "cpu", "--no-report", "--json",
        "--results", folder / "results", "--cache", CACHE, "--set", "scoring.neighbours=2",
        "--set", "training.ema_ramp=true", "--set", "training.warmup=0", "--set", "training.learning_rate=1e-2", *more,
    )  # fmt: skip
    assert done.code == 0, done.err
    return json.loads((folder / "results" / f"{CELL}-seed0.json").read_text())


def work(folder: Path) -> Path:
    return folder / "results" / "work" / f"{CELL}-seed0"


def samples_of(folder: Path) -> np.ndarray:
    """What `ablate` scored."""
    (kept,) = work(folder).glob("samples-*")
    return np.concatenate([read_arrays(path)["images"] for path in sorted(kept.glob("*.safetensors"))])


@pytest.mark.parametrize("setting", ["sampling.clip_x0=false", "sampling.steps=5"])
def test_a_checkpoint_is_sampled_and_evaluated_as_ablate_scored_it(call, tmp_path: Path, setting: str) -> None:
    record = ablate(call, tmp_path, "--set", setting)
    images = samples_of(tmp_path)
    done = call("sample", "--ckpt", work(tmp_path), "--samples", 12, "--out", tmp_path / "s.npz", "--device", "cpu")
    assert done.code == 0, done.err
    sampled = np.load(tmp_path / "s.npz")["images"]
    assert np.array_equal(sampled.reshape(images.shape), images)

    how = ("--count", 12, "--bound-images", 4, "--evals", 5, "--device", "cpu", "--cache", CACHE)
    done = call("evaluate", "--ckpt", work(tmp_path), "--results", tmp_path / "rows", *how, "--json")
    assert done.code == 0, done.err
    row = json.loads(done.out)
    last = record["checkpoints"][-1]
    assert row["metrics"] == last["metrics"] and row["quantiles"] == last["quantiles"]
    assert row["bounds"] == record["bounds"] and row["anchors"] == record["anchors"]
    assert row["setup"]["clip_x0"] is record["settings"]["sampling"]["clip_x0"]
    assert row["setup"]["sampling_steps"] == record["sampling_steps"]

    of = ("--images", 4, "--evals", 5, "--split", "both", "--device", "cpu", "--cache", CACHE, "--json")
    done = call("nll", "--ckpt", work(tmp_path), *of)
    assert done.code == 0, done.err
    bare = [{**bound, "quantiles": []} for bound in record["bounds"]]  # the record's have an interval beside
    assert json.loads(done.out)["bounds"] == bare


def test_options_override_what_a_checkpoint_says_and_are_recorded(call, tmp_path: Path) -> None:
    ablate(call, tmp_path, "--set", "sampling.clip_x0=false")
    assert load_model(work(tmp_path)).sampling.clip_x0 is False
    how = ("--count", 12, "--bound-images", 0, "--device", "cpu", "--cache", CACHE, "--json")
    own = json.loads(call("evaluate", "--ckpt", work(tmp_path), "--results", tmp_path / "own", *how).out)
    done = call("evaluate", "--ckpt", work(tmp_path), "--results", tmp_path / "rows", "--clip", "--steps", 3, *how)
    assert done.code == 0, done.err
    row = json.loads(done.out)
    assert (row["setup"]["clip_x0"], row["setup"]["sampling_steps"]) == (True, 3)
    assert (own["setup"]["clip_x0"], own["setup"]["sampling_steps"]) == (False, 6)
    assert row["metrics"] != own["metrics"]
    out = tmp_path / "clipped.npz"
    done = call(
        "sample", "--ckpt", work(tmp_path), "--samples", 12, "--clip", "--out", out, "--device", "cpu", "--json"
    )
    assert json.loads(done.out)["clip_x0"] is True
    assert not np.array_equal(np.load(out)["images"].reshape(samples_of(tmp_path).shape), samples_of(tmp_path))


def test_nothing_kept_for_other_weights_is_used(call, tmp_path: Path, monkeypatch) -> None:
    """The snapshot is deleted by hand and the cell trained again by other code: all numbers are those of a fresh folder."""
    old = ablate(call, tmp_path / "a")
    plain = LSimple.__call__
    monkeypatch.setattr(LSimple, "__call__", lambda self, *of: 3 * plain(self, *of) + 0.1 * plain(self, *of).square())
    for snapshot in work(tmp_path / "a").glob("step-*"):
        shutil.rmtree(snapshot)
    (tmp_path / "a" / "results" / f"{CELL}-seed0.json").unlink()
    again, fresh = ablate(call, tmp_path / "a"), ablate(call, tmp_path / "b")
    for what in ("checkpoints", "bounds", "terms", "neighbours", "training_log"):
        assert again[what] == fresh[what]
    for what in ("checkpoints", "bounds", "neighbours"):
        assert again[what] != old[what]


def test_the_same_command_uses_what_it_kept(call, tmp_path: Path, monkeypatch) -> None:
    """Without the record, but with everything kept on the way, no network is called and the record is the same."""
    old = ablate(call, tmp_path)
    (tmp_path / "results" / f"{CELL}-seed0.json").unlink()
    monkeypatch.setattr("ddpm_bench.networks.unet.UNet.forward", lambda *_: pytest.fail("a network was called"))
    again = ablate(call, tmp_path)
    for what in ("checkpoints", "bounds", "terms", "neighbours", "pictures", "anchors"):
        assert again[what] == old[what]


def test_a_checkpoint_that_does_not_say_how_it_is_sampled_is_said_to(call, tmp_path: Path) -> None:
    """Snapshots of older versions: the whole chain, clipped, and a message."""
    folder = tmp_path / "old"
    done = call(
        "train", "--cell", CELL, "--preset", tiny_preset(tmp_path), "--set", "sampling.clip_x0=false", "--out", folder
    )
    assert done.code == 0, done.err
    snapshot = folder / "step-000010"
    assert load_state(snapshot)["sampling"]["clip_x0"] is False
    unsealed(snapshot, "sampling")
    done = call("sample", "--ckpt", folder, "--samples", 2, "--out", tmp_path / "s.npz", "--device", "cpu", "--json")
    assert done.code == 0 and json.loads(done.out)["clip_x0"] is True
    assert "does not say how it is sampled" in done.err
