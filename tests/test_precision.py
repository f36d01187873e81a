"""bfloat16 beside float32: the same noise in both, so that only the rounding differs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_checkpoint, tiny_data

from ddpm_bench.measurement import precision
from ddpm_bench.models.model import save_model
from ddpm_bench.models.model_card import ModelCard

SMALL = ("--samples", 24, "--bound-images", 12, "--evals", 5, "--extractor", "embedded", "--device", "cpu")


def shaken(ckpt: Path) -> Path:
    """Initial weights predict next to nothing, which rounds to nothing else."""
    weights = load_file(ckpt / "weights.safetensors")
    torch.manual_seed(0)
    card = ModelCard.model_validate_json((ckpt / "model.json").read_text())
    shutil.rmtree(ckpt)
    save_model(ckpt, card, {name: w + 0.1 * torch.randn_like(w) for name, w in weights.items()})
    return ckpt


@pytest.fixture
def compare(call, tmp_path):
    ckpt, data = shaken(tiny_checkpoint(tmp_path / "model")), tiny_data(tmp_path / "data.npz")

    def run(*options):
        return call(
            "precision", "--ckpt", ckpt, "--out", tmp_path / "out", "--data", data, "--data-name", "tiny",
            "--cache", tmp_path / "cache", *SMALL, *options,
        )  # fmt: skip

    return run


def test_both_precisions_are_scored_and_rounding_shows(compare, tmp_path) -> None:
    answer = compare("--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found == json.loads((tmp_path / "out" / "precision.json").read_text())
    exact, rounded = (found["metrics"][name] for name in ("float32", "bfloat16"))
    change = rounded["bound_test_bits_per_dim"] - exact["bound_test_bits_per_dim"]
    assert found["bound_difference"] == pytest.approx(change, abs=1e-9)
    assert 0 < abs(change) < 0.1 and found["bound_difference_error"] > 0
    assert exact["fd_train"] != rounded["fd_train"] and 0 < found["pixel_difference"] < 10


def test_draws_are_paired_without_rounding_nothing_differs(compare, monkeypatch) -> None:
    monkeypatch.setattr(precision, "replace", lambda runtime, **_: replace(runtime, precision="float32"))
    found = json.loads(compare("--json").out)
    assert (found["bound_difference"], found["bound_difference_error"], found["pixel_difference"]) == (0, 0, 0)
    assert found["metrics"]["float32"] == found["metrics"]["bfloat16"]


def test_the_same_call_again_calls_no_network_and_another_is_not_answered_by_it(compare, monkeypatch) -> None:
    first = compare("--json").out

    def refuse(*_):
        raise AssertionError("a network was called")

    monkeypatch.setattr("ddpm_bench.networks.unet.UNet.forward", refuse)
    again = json.loads(compare("--json").out)
    assert again["metrics"] == json.loads(first)["metrics"]
    with pytest.raises(AssertionError, match="a network was called"):
        compare("--bound-images", 6)


def test_the_table_names_both_the_device_and_the_errors(compare) -> None:
    out = " ".join(compare().out.split())
    assert "float32" in out and "bfloat16" in out and "FD (embedded)" in out and "±" in out and "on cpu" in out


def test_the_distance_of_samples_is_in_grey_levels_and_does_not_wrap() -> None:
    a, b = torch.zeros(1500, 1, 2, 2, dtype=torch.uint8), torch.zeros(1500, 1, 2, 2, dtype=torch.uint8)
    a[:, :, 0, 0], b[:, :, 1, 1] = 200, 100
    assert precision._mean_distance(a, b) == pytest.approx(75)


def test_too_few_samples_are_refused_before_anything_starts(compare) -> None:
    answer = compare("--samples", 2)
    assert answer.code == 2 and "--samples" in answer.err
